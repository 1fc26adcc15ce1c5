package matrix

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/kernel"
)

// tunnels stands in on a node of BIRD for what the BIRD of calico-node adds to 1.6 and no other has: the attribute krt_tunnel, by which a kernel export
// filter names a device. A route that has it is written as "PREFIX via NEXT_HOP dev DEVICE onlink", with the BGP next hop itself for its gateway,
// not what that resolves to; nothing else about it differs. A route with several next hops, or with a device that is not there, is written as if it had none.
//
// Here BIRD takes another table of the kernel for main, and says krt_prefsrc = bgp_next_hop where Calico's filter says krt_tunnel = "tunl0". Whatever it
// writes there is written to main in the same order, at once, with the same protocol and metric, and changed as above where it has a preferred source; what
// others write to main is copied the other way, so that BIRD learns it, and is refused keys that are taken, as if the table were main.
//
// Not as in calico-node: the two writes are a moment apart; where BIRD changes a route by a delete and an add in one go, main is changed by one replacement,
// since the moment between two writes of this program would be a thousand times as long as BIRD's; and of a route of BIRD's that another program deletes from
// main BIRD is not told. For IPv6, which has no IPIP, BIRD has main itself.
type tunnels struct {
	x      *member
	kernel kernel.Kernel
	events int // netlink socket
	tunl0  int // interface index, 0 = none
	ending atomic.Bool
	done   sync.WaitGroup
	// What the goroutine has: a delete whose add may follow, and how often one did.
	held    *routeEvent
	changes int

	mu  sync.Mutex
	err error
}

const (
	// birdTable is what a BIRD takes for table main.
	birdTable = 112
	// krtTunnel is what a filter of BIRD's says for krt_tunnel = "tunl0".
	krtTunnel = "if ( defined(bgp_next_hop) ) then krt_prefsrc = bgp_next_hop; "
)

// table is what a BIRD's protocol kernel has more because of it.
func (u *tunnels) table(f int) string {
	if u == nil || f != 0 {
		return ""
	}
	return fmt.Sprintf("kernel table %d; ", birdTable)
}

// tunnelled returns the first pool with an encapsulation, -1 for none.
func (m *mixed) tunnelled(encapsulation string) int {
	return slices.IndexFunc(m.pools, func(p pool) bool {
		return encapsulation == "IPIP" && p.ipip != "Never" || encapsulation == "VXLAN" && p.vxlan != "Never"
	})
}

// tunnelAddr is the address of a node's tunnel device: the first of the block that the node has of that pool.
func (x *member) tunnelAddr(pool int) netip.Addr { return x.blocks[pool][0].Addr() }

func (x *member) mac() string { return fmt.Sprintf("66:00:00:00:00:%02x", x.number) }

// felix does for a node of BIRD what Felix does: tunl0 and vxlan.calico, and the routes of VXLAN pools, which are never BIRD's.
func (m *mixed) felix(x *member) {
	m.t.Helper()
	ip(m.t, x.ns, "address add %s/32 dev tunl0", x.tunnelAddr(m.tunnelled("IPIP")))
	ip(m.t, x.ns, "link set tunl0 mtu 1480 up")
	vx := m.tunnelled("VXLAN")
	ip(m.t, x.ns, "link add vxlan.calico address %s type vxlan id 4096 dstport 4789 local %s dev eth0 nolearning", x.mac(), x.addrs[0])
	ip(m.t, x.ns, "address add %s/32 dev vxlan.calico", x.tunnelAddr(vx))
	ip(m.t, x.ns, "link set vxlan.calico mtu 1450 up")
	for _, y := range m.members {
		if y == x {
			continue
		}
		if out, err := x.ns.Run("bridge", strings.Fields(fmt.Sprintf("fdb append %s dev vxlan.calico dst %s self permanent", y.mac(), y.addrs[0]))...); err != nil {
			m.t.Fatal(err, out)
		}
		ip(m.t, x.ns, "neigh replace %s lladdr %s dev vxlan.calico nud permanent", y.tunnelAddr(vx), y.mac())
		ip(m.t, x.ns, "route add %s via %s dev vxlan.calico onlink proto boot", y.blocks[vx][0], y.tunnelAddr(vx))
	}
}

// newTunnels readies a node's second table: a preferred source must be an address of ours to the kernel, and there next hops of BGP are.
func (m *mixed) newTunnels(x *member) {
	m.t.Helper()
	x.tunnels = &tunnels{x: x}
	for _, y := range m.members {
		ip(m.t, x.ns, "route add local %s dev lo table %d", y.addrs[0], birdTable)
	}
	m.t.Cleanup(func() { must(m.t, x.tunnels.stop()) })
}

// start takes the two tables as they are, and follows both from then on.
func (u *tunnels) start() (err error) {
	if u.kernel, err = kernel.Open(kernel.Options{Namespace: u.x.ns.Path()}); err != nil {
		return err
	}
	links, err := u.kernel.ListLinks(context.Background())
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Name == "tunl0" {
			u.tunl0 = l.Index
		}
	}
	var all []byte
	err = u.x.ns.Do(func() (err error) {
		if u.events, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		err = errors.Join(unix.SetsockoptInt(u.events, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptTimeval(u.events, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}), // to see that the end has come
			unix.Bind(u.events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_ROUTE}))
		if err == nil {
			all, err = syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_INET)
		}
		return err
	})
	if err != nil {
		return err
	}
	there, err := routeEvents(all)
	if err != nil {
		return err
	}
	u.align(there)
	u.ending.Store(false)
	u.done.Go(u.follow)
	return u.failed()
}

// stop ends that; what has been said until now is done before.
func (u *tunnels) stop() error {
	if u.kernel == nil {
		return nil
	}
	u.ending.Store(true)
	u.done.Wait()
	err := errors.Join(u.failed(), unix.Close(u.events), u.kernel.Close())
	u.kernel = nil
	return err
}

func (u *tunnels) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

func (u *tunnels) follow() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(u.events, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			u.settle()
			n, _, err = unix.Recvfrom(u.events, buf, 0)
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			if u.ending.Load() {
				return
			}
			continue
		}
		var events []routeEvent
		if err == nil {
			events, err = routeEvents(buf[:n])
		}
		if err != nil { // ENOBUFS among others: some are lost
			u.note(err)
			return
		}
		for _, e := range events {
			u.hear(e)
		}
	}
}

func (u *tunnels) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = errors.Join(u.err, err)
}

// hear takes one event. BIRD changes a route by a delete and an add at once: these two are one write here.
func (u *tunnels) hear(e routeEvent) {
	if held := u.held; held != nil && u.ofBIRD(&e.Route) && !e.gone && e.Dst == held.Dst && e.Metric == held.Metric {
		u.held = nil
		u.changes++
		r := u.inMain(e.Route)
		if err := u.write(kernel.Replace, &r); err != nil {
			u.note(fmt.Errorf("%s: %s of BIRD's: %w", u.x.name, r.Dst, err))
		}
		return
	}
	u.settle()
	if e.gone && u.ofBIRD(&e.Route) {
		u.held = &e
		return
	}
	u.apply(e)
}

// settle does what was held back.
func (u *tunnels) settle() {
	if held := u.held; held != nil {
		u.held = nil
		u.apply(*held)
	}
}

// apply does to the other table what was done to one.
func (u *tunnels) apply(e routeEvent) {
	r, verb := e.Route, kernel.Add
	if e.gone {
		verb = kernel.Delete
	}
	switch {
	case u.ofBIRD(&r):
		r = u.inMain(r)
		if err := u.write(verb, &r); err != nil && !(e.gone && errors.Is(err, kernel.ErrNotThere)) {
			u.note(fmt.Errorf("%s: %s of BIRD's: %w", u.x.name, r.Dst, err))
		}
	case ofOthers(&r):
		r.Table = birdTable
		if err := u.write(verb, &r); err != nil && !errors.Is(err, kernel.ErrNotThere) && !errors.Is(err, kernel.ErrExists) {
			u.note(fmt.Errorf("%s: %s of protocol %d: %w", u.x.name, r.Dst, r.Protocol, err))
		}
	}
}

func (u *tunnels) write(v kernel.Verb, r *kernel.Route) (err error) {
	werr := u.kernel.WriteRoutes(context.Background(), []kernel.RouteOp{{Verb: v, Route: r}}, func(_ int, e error) { err = e })
	return errors.Join(err, werr)
}

// align makes BIRD's table what main is, when BIRD has not run: what is left of its own there stays where main has it too.
func (u *tunnels) align(there []routeEvent) {
	inMain := make(map[netip.Prefix][]kernel.Route)
	for _, e := range there {
		if e.Table == kernel.TableMain {
			inMain[e.Dst] = append(inMain[e.Dst], e.Route)
		}
	}
	same := func(a kernel.Route) func(kernel.Route) bool {
		return func(b kernel.Route) bool {
			return a.Protocol == b.Protocol && a.Metric == b.Metric && a.Type == b.Type && slices.Equal(a.NextHops, b.NextHops)
		}
	}
	for _, e := range there {
		if r := e.Route; r.Table == birdTable && r.Type != kernel.Local {
			form := r
			if u.ofBIRD(&r) {
				form = u.inMain(r)
			}
			if i := slices.IndexFunc(inMain[r.Dst], same(form)); i >= 0 {
				inMain[r.Dst] = slices.Delete(inMain[r.Dst], i, i+1)
			} else if err := u.write(kernel.Delete, &r); err != nil {
				u.note(err)
			}
		}
	}
	for _, list := range inMain {
		for _, r := range list {
			if r.Protocol == kernel.ProtoBird {
				u.note(fmt.Errorf("%s: BIRD left no route to %s", u.x.name, r.Dst))
			}
			u.apply(routeEvent{Route: r})
		}
	}
}

func (u *tunnels) ofBIRD(r *kernel.Route) bool {
	return r.Table == birdTable && r.Protocol == kernel.ProtoBird
}

// ofOthers are routes of main that a BIRD learns: not its own, not the kernel's.
func ofOthers(r *kernel.Route) bool {
	return r.Table == kernel.TableMain && r.Protocol != kernel.ProtoBird && r.Protocol != kernel.ProtoKernel
}

// inMain is what BIRD would have written with krt_tunnel.
func (u *tunnels) inMain(r kernel.Route) kernel.Route {
	if r.Src.IsValid() && r.Type == kernel.Unicast && u.tunl0 != 0 {
		r.NextHops = []kernel.NextHop{{Gateway: r.Src, Link: u.tunl0, Onlink: true, Weight: 1}}
	}
	r.Src, r.Table = netip.Addr{}, kernel.TableMain
	return r
}

// routeEvent is a route that is or was there.
type routeEvent struct {
	kernel.Route
	gone bool
}

// routeEvents reads IPv4 routes of both tables; one with several next hops, which this mesh does not have, is an error.
func routeEvents(b []byte) (out []routeEvent, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != unix.RTM_NEWROUTE && m.Header.Type != unix.RTM_DELROUTE {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return nil, err
		}
		// struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
		flags := binary.NativeEndian.Uint32(m.Data[8:])
		if flags&unix.RTM_F_CLONED != 0 {
			continue // what the kernel has found out about a path
		}
		e := routeEvent{gone: m.Header.Type == unix.RTM_DELROUTE, Route: kernel.Route{Table: uint32(m.Data[4]), Protocol: kernel.Protocol(m.Data[5]),
			Scope: kernel.Scope(m.Data[6]), Type: kernel.RouteType(m.Data[7])}}
		to, way := netip.IPv4Unspecified(), kernel.NextHop{Weight: 1, Onlink: flags&unix.RTNH_F_ONLINK != 0}
		for _, a := range attrs {
			addr, _ := netip.AddrFromSlice(a.Value)
			switch a.Attr.Type {
			case unix.RTA_DST:
				to = addr
			case unix.RTA_GATEWAY:
				way.Gateway = addr
			case unix.RTA_PREFSRC:
				e.Src = addr
			case unix.RTA_OIF:
				way.Link = int(binary.NativeEndian.Uint32(a.Value))
			case unix.RTA_PRIORITY:
				e.Metric = binary.NativeEndian.Uint32(a.Value)
			case unix.RTA_MULTIPATH:
				return nil, fmt.Errorf("route to %s/%d has several next hops", to, m.Data[1])
			}
		}
		if e.Dst = netip.PrefixFrom(to, int(m.Data[1])); way.Link != 0 {
			e.NextHops = []kernel.NextHop{way}
		}
		if e.Table == kernel.TableMain || e.Table == birdTable {
			out = append(out, e)
		}
	}
	return out, nil
}
