package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
)

// holdings is what a node's kernel holds of ours: the pattern for what calico-node would have in its place.
type holdings struct {
	routes  []kernel.Route
	devices []kernel.Link // tunnel devices that are up
	addrs   map[string][]netip.Prefix
	entries map[string][]kernel.Neighbour // permanent ones
	names   map[int]string
}

// holdingsOf reads them.
func holdingsOf(ctx context.Context, k kernel.Kernel) (h holdings, err error) {
	h = holdings{addrs: map[string][]netip.Prefix{}, entries: map[string][]kernel.Neighbour{}, names: map[int]string{}}
	if h.routes, err = ours(ctx, k, nil); err != nil {
		return h, err
	}
	links, err := k.ListLinks(ctx)
	if err != nil {
		return h, fmt.Errorf("list links: %w", err)
	}
	addrs, err := k.ListAddresses(ctx)
	if err != nil {
		return h, fmt.Errorf("list addresses: %w", err)
	}
	for _, l := range links {
		h.names[l.Index] = l.Name
		if !l.Up || !slices.Contains(tunnelDevices(), l.Name) {
			continue
		}
		h.devices = append(h.devices, l)
		for _, a := range addrs {
			if a.Link == l.Index && !a.Prefix.Addr().IsLinkLocalUnicast() {
				h.addrs[l.Name] = append(h.addrs[l.Name], a.Prefix)
			}
		}
		if l.Kind != "vxlan" {
			continue
		}
		entries, err := k.ListNeighbours(ctx, l.Index)
		if err != nil {
			return h, fmt.Errorf("list neighbours: %w", err)
		}
		h.entries[l.Name] = slices.DeleteFunc(entries, func(n kernel.Neighbour) bool { return !n.Permanent || !n.Addr.IsValid() })
	}
	return h, nil
}

// lines are the routes as ip(8) prints them, sorted.
func (h *holdings) lines() []string {
	var out []string
	for i := range h.routes {
		out = append(out, kernel.FormatRoute(&h.routes[i], func(link int) string { return h.names[link] }))
	}
	slices.Sort(out)
	return out
}

// devicesAsFelix makes the tunnel devices as Felix makes them, with addresses, neighbours and FDB entries (reference: felix/dataplane/linux,
// vxlan_mgr.go and ipip_mgr.go), by ip(8).
func (h *holdings) devicesAsFelix(ns netns.NS) error {
	var b strings.Builder
	for _, l := range h.devices {
		if v := l.VXLAN; v != nil {
			fmt.Fprintf(&b, "link add %s address %s mtu %d type vxlan id %d local %s dev %s dstport %d nolearning\n",
				l.Name, hardware(l.MAC), l.MTU, v.VNI, v.Local, h.names[v.Parent], v.Port)
		}
		fmt.Fprintf(&b, "link set %s mtu %d up\n", l.Name, l.MTU)
		for _, a := range h.addrs[l.Name] {
			fmt.Fprintf(&b, "address add %s dev %s\n", a, l.Name)
		}
		for _, n := range h.entries[l.Name] {
			if !n.FDB {
				fmt.Fprintf(&b, "neighbour replace %s lladdr %s dev %s nud permanent\n", n.Addr, hardware(n.MAC), l.Name)
			}
		}
	}
	return batch(ns, b.String())
}

func hardware(mac [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// former is a release of Calico, by what its BIRD writes.
type former struct {
	name   string
	metric uint32 // of BIRD's IPv4 routes
}

// formers: since 3.32 BIRD writes IPv4 routes with metric 1024, before that with none; IPv6 has 1024 by the kernel.
func formers() []former {
	return []former{{"Calico 3.32", 1024}, {"Calico 3.31", 0}}
}

// routeAs is one of our routes as BIRD (IPIP, none) or Felix (VXLAN) writes it.
func (f former) routeAs(p *Pool, r kernel.Route, device string) kernel.Route {
	r.Protocol, r.Metric, r.MTU = kernel.ProtoBird, f.metric, 0
	if p.Encapsulation == cluster.VXLAN {
		if r.Protocol, r.Metric = kernel.ProtoFelix, 0; slices.Contains(tunnelDevices(), device) {
			r.Protocol = kernel.ProtoBoot
		}
	}
	if r.Dst.Addr().Is6() {
		r.Metric = 1024
	}
	return r
}

// stray is a route to a block of a node that has gone, made like another route of its pool.
func stray(p *Pool, r kernel.Route) kernel.Route {
	last := p.CIDR.Addr().As16()
	for i := range last {
		if bit := i*8 - (128 - p.CIDR.Addr().BitLen()); bit >= p.CIDR.Bits() {
			last[i] = 0xff
		}
	}
	a := netip.AddrFrom16(last)
	if p.CIDR.Addr().Is4() {
		a = a.Unmap()
	}
	r.Dst = netip.PrefixFrom(a, r.Dst.Bits()).Masked()
	return r
}

// strangers are routes of the numbers of BIRD and Felix that lead out of the pools: none of our business.
func strangers() []kernel.Route {
	return []kernel.Route{
		{Dst: netip.MustParsePrefix("203.0.113.0/25"), Metric: 1024, Type: kernel.Blackhole, Protocol: kernel.ProtoBird},
		{Dst: netip.MustParsePrefix("203.0.113.128/25"), Type: kernel.Blackhole, Protocol: kernel.ProtoFelix},
		{Dst: netip.MustParsePrefix("2001:db8:ffff::/64"), Metric: 1024, Type: kernel.Blackhole, Protocol: kernel.ProtoBird},
	}
}

// legacy is what a former calico-node has left on a node.
type legacy struct {
	before    holdings
	wanted    []netip.Prefix // destinations that stay
	strangers []kernel.Route
	indexes   map[string]int // of devices
}

// leaveBehind takes everything of ours from a node's kernel, whose daemon must not run, and puts there what calico-node would have left.
func (r *run) leaveBehind(ctx context.Context, node string, k kernel.Kernel, f former) (l legacy, err error) {
	if l.before, err = holdingsOf(ctx, k); err != nil {
		return l, err
	}
	if err := r.Cleanup(node); err != nil {
		return l, err
	}
	ns, err := r.NS(node)
	if err != nil {
		return l, err
	}
	if err := l.before.devicesAsFelix(ns); err != nil {
		return l, err
	}
	after, err := holdingsOf(ctx, k)
	if err != nil {
		return l, err
	}
	l.indexes = map[string]int{}
	for i, name := range after.names {
		l.indexes[name] = i
	}
	if err := l.writeEntries(ctx, k); err != nil {
		return l, err
	}
	l.strangers = strangers()
	return l, l.writeRoutes(ctx, k, r.Plan, f)
}

// writeEntries writes the FDB entries, for which ip(8) has no word.
func (l *legacy) writeEntries(ctx context.Context, k kernel.Kernel) (err error) {
	var ops []kernel.NeighbourOp
	for device, entries := range l.before.entries {
		for _, n := range entries {
			if n.Link = l.indexes[device]; n.FDB {
				ops = append(ops, kernel.NeighbourOp{Neighbour: n})
			}
		}
	}
	werr := k.WriteNeighbours(ctx, ops, func(_ int, e error) { err = errors.Join(err, e) })
	return errors.Join(werr, err)
}

func (l *legacy) writeRoutes(ctx context.Context, k kernel.Kernel, p *Plan, f former) (err error) {
	var ops []kernel.RouteOp
	add := func(r kernel.Route) { ops = append(ops, kernel.RouteOp{Verb: kernel.Add, Route: &r}) }
	strays := map[*Pool]bool{}
	for _, r := range l.before.routes {
		pool := p.PoolOf(r.Dst.Addr())
		if pool == nil {
			return fmt.Errorf("a route of ours leads to %s, which is in no pool", r.Dst)
		}
		device := ""
		r.NextHops = slices.Clone(r.NextHops)
		for i := range r.NextHops {
			device = l.before.names[r.NextHops[i].Link]
			r.NextHops[i].Link = l.indexes[device]
		}
		as := f.routeAs(pool, r, device)
		add(as)
		l.wanted = append(l.wanted, r.Dst)
		if len(r.NextHops) > 0 && !strays[pool] {
			strays[pool] = true
			add(stray(pool, as))
		}
	}
	if len(strays) != len(p.Pools) {
		return fmt.Errorf("only %d of %d pools have a route to another node: nothing to take over", len(strays), len(p.Pools))
	}
	for _, r := range l.strangers {
		add(r)
	}
	werr := k.WriteRoutes(ctx, ops, func(i int, e error) {
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", ops[i].Route.Dst, e))
		}
	})
	return errors.Join(werr, err)
}
