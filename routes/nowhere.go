package routes

import (
	"net/netip"
	"slices"
)

// Bounds of Nowhere: beyond them the answer costs more than it is worth. A host with a default route has a handful of ranges.
const (
	nowhereRoutes = 4096
	nowhereRanges = 512
)

// Nowhere returns the ranges of one family, disjoint and sorted, to whose addresses Resolve finds no next hop that use takes. also says of
// single prefixes what the host's routes do not know. The host's own addresses, workloads and IPv6 link-local addresses are left out. False
// where the host has too many routes, or the ranges are too many.
func (h *Host) Nowhere(v6 bool, use func(NextHop) bool, also map[netip.Prefix]bool) (ranges []netip.Prefix, ok bool) {
	if h.table == nil {
		return nil, false
	}
	linkLocal := netip.MustParsePrefix("fe80::/10")
	list := make([]lead, 0, min(h.table.Size(), nowhereRoutes)+len(also)+1)
	for p, same := range h.table.All() {
		if p.Addr().Is6() != v6 || v6 && linkLocal.Overlaps(p) && p.Bits() >= linkLocal.Bits() || h.isWorkloadPrefix(p) {
			continue
		}
		if _, said := also[p]; said {
			continue
		}
		if len(list) == nowhereRoutes {
			return nil, false
		}
		if somewhere, decides := h.decides(same, use); decides {
			list = append(list, lead{p, somewhere})
		}
	}
	for p, somewhere := range also {
		if p.Addr().Is6() == v6 {
			list = append(list, lead{p, somewhere})
		}
	}
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		list = append(list, lead{linkLocal, true})
	}
	slices.SortFunc(list, func(a, b lead) int { return a.prefix.Compare(b.prefix) })
	g := holes{}
	g.cut(all, list, false)
	return g.ranges, len(g.ranges) <= nowhereRanges
}

func (h *Host) isWorkloadPrefix(p netip.Prefix) bool {
	_, found := slices.BinarySearchFunc(h.Workloads, p, netip.Prefix.Compare)
	return found
}

// lead is what the routes to one destination do for those who follow them.
type lead struct {
	prefix    netip.Prefix
	somewhere bool
}

// decides says whether the routes to one destination lead to a next hop that use takes; they do not decide where all are down.
func (h *Host) decides(same []HostRoute, use func(NextHop) bool) (somewhere, decides bool) {
	for i := range same {
		switch w, _ := h.way(&same[i]); w {
		case down:
			continue
		case leads:
			return slices.ContainsFunc(h.through(&same[i], netip.Addr{}), use), true
		}
		return false, true
	}
	return false, false
}

// holes collects ranges.
type holes struct{ ranges []netip.Prefix }

// cut adds the parts of p that lead nowhere. list, sorted, is what is said of p and what is inside; in, what the next shorter prefix says.
func (g *holes) cut(p netip.Prefix, list []lead, in bool) {
	if len(g.ranges) > nowhereRanges {
		return
	}
	if len(list) > 0 && list[0].prefix == p {
		in, list = list[0].somewhere, list[1:]
	}
	if len(list) == 0 {
		if !in {
			g.ranges = append(g.ranges, p)
		}
		return
	}
	second := upperHalf(p)
	at, _ := slices.BinarySearchFunc(list, second.Addr(), func(l lead, a netip.Addr) int { return l.prefix.Addr().Compare(a) })
	g.cut(netip.PrefixFrom(p.Addr(), p.Bits()+1), list[:at], in)
	g.cut(second, list[at:], in)
}

// upperHalf returns the second half of a prefix.
func upperHalf(p netip.Prefix) netip.Prefix {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits()+1)
}
