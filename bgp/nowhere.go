package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// Nowhere are the next hops by which no route of ours can lead, as Routes finds them. RFC 4271 section 9.1.2 leaves such paths out of the choice: any
// other path to the prefix wins, and none of them is passed on. The Speaker has its engine know.
type Nowhere struct {
	Pools []netip.Prefix // of workloads: the overlay cannot be reached through itself
	Own   []netip.Addr   // of this node
	// Workloads are peers that are workloads of this node, sorted: next hops although they lie in a pool, and no other route leads to them.
	Workloads []netip.Addr
	// Unresolved are ranges to which no route of the host leads, which counts for prefixes that are not Tunnelled; to those only IPv4 next hops
	// lead. Link-local addresses, whose meaning depends on the peer, are never among them.
	Unresolved, Tunnelled []netip.Prefix
}

// Equal reports whether two decide alike; either may be nil.
func (n *Nowhere) Equal(o *Nowhere) bool {
	if n == nil || o == nil {
		return n == o
	}
	same := slices.Equal[[]netip.Prefix]
	return same(n.Pools, o.Pools) && slices.Equal(n.Own, o.Own) && slices.Equal(n.Workloads, o.Workloads) && same(n.Unresolved, o.Unresolved) && same(n.Tunnelled, o.Tunnelled)
}

// Why says why no route to a prefix can lead over a next hop; "" if one can, or where that is not known.
func (n *Nowhere) Why(p netip.Prefix, gw netip.Addr) string {
	if n == nil {
		return ""
	}
	switch {
	case !gw.IsValid() || gw.IsUnspecified():
		return refusedNoNextHop
	case otherFamily(p, gw):
		return fmt.Sprintf(refusedFamily, gw, p)
	case slices.Contains(n.Own, gw):
		return fmt.Sprintf(refusedOurs, gw)
	case slices.Contains(n.Workloads, gw):
		return ""
	}
	host := netip.PrefixFrom(gw, gw.BitLen())
	if pool, in := cover(n.Pools, host); in {
		return fmt.Sprintf(refusedInPool, gw, pool)
	}
	if pool, in := cover(n.Tunnelled, p); in && p.Addr().Is4() && gw.Is6() {
		return fmt.Sprintf(refusedOuter, gw, pool)
	} else if in {
		return ""
	}
	if _, in := cover(n.Unresolved, host); in {
		return fmt.Sprintf(refusedNoRoute, gw, "no usable route of the host leads there")
	}
	return ""
}

// Exact returns ranges without Workloads, for who cannot make exceptions.
func (n *Nowhere) Exact(ranges []netip.Prefix) []netip.Prefix {
	for _, a := range n.Workloads {
		var rest []netip.Prefix
		for _, p := range ranges {
			for ; p.Contains(a) && p.Bits() < a.BitLen(); p = halfWith(p, a, true) {
				rest = append(rest, halfWith(p, a, false))
			}
			if !p.Contains(a) {
				rest = append(rest, p)
			}
		}
		ranges = rest
	}
	return ranges
}

// halfWith returns the half of a prefix in which an address lies, or the other one.
func halfWith(p netip.Prefix, a netip.Addr, in bool) netip.Prefix {
	b := a.AsSlice()
	if !in {
		b[p.Bits()/8] ^= 0x80 >> (p.Bits() % 8)
	}
	half, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(half, p.Bits()+1).Masked()
}

// LLGRStale is the community of paths that are the last choice and that nobody gets who does not know what it means (RFC 9494 section 4.3), which
// is nobody here. The Speaker marks paths with it whose next hop leads nowhere.
func LLGRStale() Community { return Community{A: 0xffff, B: 6} }

// nowhere finds the next hops that lead nowhere; nil where the host is not known.
func (m *maker) nowhere(h *routes.Host, cfg *Config) *Nowhere {
	if h == nil {
		return nil
	}
	n := &Nowhere{Own: m.ownAddrs(h)}
	for _, a := range cfg.Workloads {
		if isWorkload(h, netip.PrefixFrom(a, a.BitLen())) {
			n.Workloads = append(n.Workloads, a)
		}
	}
	for _, p := range m.st.Pools() {
		n.Pools = append(n.Pools, p.CIDR)
		if enc, _ := p.Encapsulation(); enc == cluster.IPIP {
			n.Tunnelled = append(n.Tunnelled, p.CIDR)
		}
	}
	slices.SortFunc(n.Pools, netip.Prefix.Compare)
	slices.SortFunc(n.Tunnelled, netip.Prefix.Compare)
	ignored := m.bgp.IgnoredInterfaces
	also := make(map[netip.Prefix]bool, len(cfg.Reach))
	for _, rc := range cfg.Reach {
		also[netip.PrefixFrom(rc.Peer, rc.Peer.BitLen())] = slices.ContainsFunc(h.Resolve(rc.Gateway), func(hop routes.NextHop) bool {
			return !ignores(ignored, hop.Device)
		})
	}
	for _, v6 := range []bool{false, true} {
		ranges, ok := h.Nowhere(v6, func(hop routes.NextHop) bool {
			return !ignores(ignored, hop.Device)
		}, also)
		if ok {
			n.Unresolved = append(n.Unresolved, ranges...)
		}
	}
	return n
}

// serviceAddrs is more addresses than an interface has by which others reach the node; kube-ipvs0 holds those of all Services.
const serviceAddrs = 16

// ownAddrs returns the addresses of this node, sorted, as a peer may know them.
func (m *maker) ownAddrs(h *routes.Host) []netip.Addr {
	var own []netip.Addr
	for _, f := range families {
		if a := m.self.Addr(f); a.IsValid() {
			own = append(own, a.Addr())
		}
	}
	for i := range h.Interfaces {
		if len(h.Interfaces[i].Addrs) > serviceAddrs {
			continue
		}
		for _, a := range h.Interfaces[i].Addrs {
			if !onLinkOnly(a.Addr()) && !a.Addr().IsLoopback() {
				own = append(own, a.Addr())
			}
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return slices.Compact(own)
}

// ignores reports whether an interface is among the ignored ones (BGPConfiguration ignoredInterfaces).
func ignores(patterns []string, device string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Matches(p, device) })
}
