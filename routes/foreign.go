package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/caracal-net/caracal/internal/kernel"
)

// foreignTable is the mirror of the routes of table main that are not ours. They are never written; they matter because
// they may hold a key that we want, and because plans resolve next hops through them.
type foreignTable struct {
	byKey map[kernel.RouteKey]*foreignRoute
	size  int
	hops  map[int]int // next hops by interface: most interfaces that come and go have none
	// nexthops counts the routes that lead to each nexthop object, bare those of them that do not show where (nexthop_compat_mode 0).
	nexthops map[uint32]int
	bare     int
	dirty    map[kernel.RouteKey]struct{} // changed since the last picture of the host
	// table is the picture's table. It is shared with the pictures given out and only ever replaced.
	table     *bart.Table[[]HostRoute]
	workloads map[netip.Prefix]struct{}
	felix     map[netip.Prefix]struct{} // to other nodes
	wMoved    bool                      // workloads or felix changed since the last picture
	lost      bool                      // a route went or leads elsewhere since somebody looked (Programmer.leftovers)
}

// foreignRoute is a route of another program. IPv4 allows several under one key ("ip route append"), IPv6 several that differ
// in interface; they form a list in the order in which the kernel tries them.
type foreignRoute struct {
	typ      kernel.RouteType
	protocol kernel.Protocol
	seen     uint8 // generation of the dump that saw it last
	src      netip.Addr
	nhid     uint32
	hops     []kernel.NextHop
	next     *foreignRoute
}

func newForeignTable() foreignTable {
	return foreignTable{
		byKey: map[kernel.RouteKey]*foreignRoute{}, hops: map[int]int{}, nexthops: map[uint32]int{}, dirty: map[kernel.RouteKey]struct{}{},
		table: new(bart.Table[[]HostRoute]), workloads: map[netip.Prefix]struct{}{},
		felix: map[netip.Prefix]struct{}{},
	}
}

// at returns the first foreign route under a key, or nil.
func (t *foreignTable) at(k kernel.RouteKey) *foreignRoute { return t.byKey[k] }

func sameHops(a, b []kernel.NextHop) bool {
	return slices.EqualFunc(a, b, func(x, y kernel.NextHop) bool { return x.Link == y.Link && x.Gateway == y.Gateway })
}

// grouped reports whether next hops belong to an IPv6 route with gateways, which the kernel shows as one route with all its
// siblings whatever happens to one of them.
func grouped(k kernel.RouteKey, hops []kernel.NextHop) bool {
	return k.Dst.Addr().Is6() && len(hops) > 0 && hops[0].Gateway.IsValid()
}

// see records a foreign route and reports whether anything changed. Nothing is allocated for a route that is known.
func (t *foreignTable) see(k kernel.RouteKey, r *kernel.Route, turn uint8) bool {
	last := (*foreignRoute)(nil)
	for f := t.byKey[k]; f != nil; f = f.next {
		same := f.typ == r.Type && f.protocol == r.Protocol && f.src == r.Src && f.nhid == r.NexthopID && sameHops(f.hops, r.NextHops)
		if !same && (!grouped(k, r.NextHops) || !grouped(k, f.hops)) {
			last = f
			continue
		}
		f.seen = turn
		if same {
			return false
		}
		t.count(f, -1)
		f.typ, f.protocol, f.src, f.nhid, f.hops = r.Type, r.Protocol, r.Src, r.NexthopID, slices.Clone(r.NextHops)
		t.count(f, 1)
		t.touch(k)
		return true
	}
	fresh := &foreignRoute{typ: r.Type, protocol: r.Protocol, src: r.Src, nhid: r.NexthopID, hops: slices.Clone(r.NextHops), seen: turn}
	if last == nil {
		t.byKey[k] = fresh
	} else {
		last.next = fresh
	}
	t.size++
	t.count(fresh, 1)
	t.touch(k)
	return true
}

// bare reports whether only the number of a nexthop object says where a route leads.
func (f *foreignRoute) bare() bool {
	return f.nhid != 0 && len(f.hops) == 0 && (f.typ == kernel.Unicast || f.typ == 0)
}

// count keeps the numbers of next hops of each interface, and of routes of each nexthop object.
func (t *foreignTable) count(f *foreignRoute, by int) {
	t.lost = t.lost || by < 0
	if f.nhid != 0 {
		if t.nexthops[f.nhid] += by; t.nexthops[f.nhid] == 0 {
			delete(t.nexthops, f.nhid)
		}
		if f.bare() {
			t.bare += by
		}
	}
	for _, h := range f.hops {
		if t.hops[h.Link] += by; t.hops[h.Link] == 0 {
			delete(t.hops, h.Link)
		}
	}
}

// lose records the end of a foreign route, or of one next hop of it, and reports whether anything changed.
func (t *foreignTable) lose(k kernel.RouteKey, r *kernel.Route) bool {
	best, score := (*foreignRoute)(nil), 0
	for f := t.byKey[k]; f != nil; f = f.next {
		s, same := 1, sameHops(f.hops, r.NextHops)
		if f.protocol == r.Protocol {
			s += 2
		}
		if !same && f.protocol == kernel.ProtoKernel && r.Protocol == kernel.ProtoKernel {
			continue // it goes as it came, by its one interface; others have the same address, and this news may be older than the last read
		}
		if same {
			s += 4
		} else if grouped(k, f.hops) && grouped(k, r.NextHops) {
			s += 3
		}
		if f.typ == r.Type {
			s++
		}
		if s > score {
			best, score = f, s
		}
	}
	if best == nil {
		return false
	}
	if grouped(k, best.hops) && len(best.hops) > len(r.NextHops) {
		t.count(best, -1)
		best.hops = slices.DeleteFunc(slices.Clone(best.hops), func(h kernel.NextHop) bool {
			return slices.ContainsFunc(r.NextHops, func(g kernel.NextHop) bool { return g.Link == h.Link && g.Gateway == h.Gateway })
		})
		t.count(best, 1)
		if len(best.hops) > 0 {
			t.touch(k)
			return true
		}
	}
	t.drop(k, func(f *foreignRoute) bool { return f == best })
	return true
}

// loseFirst records that the first foreign route of a key has made way for another route.
func (t *foreignTable) loseFirst(k kernel.RouteKey) {
	first := t.byKey[k]
	t.drop(k, func(f *foreignRoute) bool { return f == first })
}

// drop removes routes of one key; it reports whether there were any.
func (t *foreignTable) drop(k kernel.RouteKey, gone func(*foreignRoute) bool) bool {
	dropped := false
	link := t.byKey[k]
	for p := &link; *p != nil; {
		if gone(*p) {
			t.count(*p, -1)
			*p = (*p).next
			t.size--
			dropped = true
			continue
		}
		p = &(*p).next
	}
	if !dropped {
		return false
	}
	if link == nil {
		delete(t.byKey, k)
	} else {
		t.byKey[k] = link
	}
	t.touch(k)
	return true
}

// purge removes routes of all keys, and calls f for each key concerned.
func (t *foreignTable) purge(gone func(kernel.RouteKey, *foreignRoute) bool, f func(kernel.RouteKey)) {
	for k := range t.byKey {
		if t.drop(k, func(r *foreignRoute) bool { return gone(k, r) }) {
			f(k)
		}
	}
}

// sweep removes the routes of a family that a complete dump did not show, and calls f for each key concerned.
func (t *foreignTable) sweep(v6 bool, turn uint8, f func(kernel.RouteKey)) {
	for k := range t.byKey {
		if k.Dst.Addr().Is6() == v6 && t.drop(k, func(r *foreignRoute) bool { return r.seen != turn }) {
			f(k)
		}
	}
}

func (t *foreignTable) touch(k kernel.RouteKey) { t.dirty[k] = struct{}{} }

// renamed marks the routes through an interface whose name became known or changed.
func (t *foreignTable) renamed(index int) {
	t.objectsMoved()
	if t.hops[index] == 0 {
		return
	}
	for k, f := range t.byKey {
		for ; f != nil; f = f.next {
			if slices.ContainsFunc(f.hops, func(h kernel.NextHop) bool { return h.Link == index }) {
				t.touch(k)
			}
		}
	}
}

// objectsMoved marks the routes that lead to nexthop objects and do not show where.
func (t *foreignTable) objectsMoved() {
	if t.bare == 0 {
		return
	}
	for k, f := range t.byKey {
		for ; f != nil; f = f.next {
			if f.bare() {
				t.touch(k)
			}
		}
	}
}

// describe says whose route holds a key.
func (t *foreignTable) describe(k kernel.RouteKey) string {
	var protocols []string
	for f := t.byKey[k]; f != nil; f = f.next {
		if s := "protocol " + f.protocol.String(); !slices.Contains(protocols, s) {
			protocols = append(protocols, s)
		}
	}
	return "route of " + strings.Join(protocols, " and ") + " has this key"
}

// picture brings the table of the picture up to date. Few changes are made as copies of the paths to them, many on a
// copy of the whole.
func (t *foreignTable) picture(nameOf func(int) string, objects *nexthopTable) {
	if len(t.dirty) == 0 {
		return
	}
	copied := len(t.dirty) > 64 && len(t.dirty) > t.table.Size()/16
	if copied {
		t.table = t.table.Clone()
	}
	for k := range t.dirty {
		modify := func(old []HostRoute, _ bool) ([]HostRoute, bool) {
			fresh := t.hostRoutes(k, old, nameOf, objects)
			return fresh, len(fresh) == 0
		}
		if copied {
			t.table.Modify(k.Dst, modify)
		} else {
			t.table = t.table.ModifyPersist(k.Dst, modify)
		}
	}
	clear(t.dirty)
}

// hostRoutes is what the picture shows for one destination: the other metrics as before, this key's routes anew.
func (t *foreignTable) hostRoutes(k kernel.RouteKey, old []HostRoute, nameOf func(int) string, objects *nexthopTable) []HostRoute {
	fresh := make([]HostRoute, 0, len(old)+1)
	t.keep(t.felix, k.Dst, t.isFelix(k, nameOf))
	for _, r := range old {
		if r.Metric != k.Metric {
			fresh = append(fresh, r)
		}
	}
	for f := t.byKey[k]; f != nil; f = f.next {
		r := HostRoute{Dst: k.Dst, Metric: k.Metric, Type: f.typ}
		hops := f.hops
		if f.bare() {
			if hops = objects.hops(f.nhid); objects.dropping(f.nhid) {
				r.Type = kernel.Blackhole
			}
		}
		for _, h := range hops {
			if name := nameOf(h.Link); name != "" {
				r.Hops = append(r.Hops, NextHop{Gateway: h.Gateway, Device: name, Onlink: h.Onlink, Weight: h.Weight})
			}
		}
		fresh = append(fresh, r)
	}
	slices.SortStableFunc(fresh, func(a, b HostRoute) int { return cmp.Compare(a.Metric, b.Metric) })
	workload := slices.ContainsFunc(fresh, func(r HostRoute) bool {
		return isWorkload(&r) && !t.isAddress(kernel.RouteKey{Dst: k.Dst, Metric: r.Metric})
	})
	t.keep(t.workloads, k.Dst, workload)
	return fresh
}

// keep puts a destination into a set, or takes it out.
func (t *foreignTable) keep(set map[netip.Prefix]struct{}, dst netip.Prefix, in bool) {
	if _, was := set[dst]; was == in {
		return
	}
	t.wMoved = true
	if in {
		set[dst] = struct{}{}
	} else {
		delete(set, dst)
	}
}

// isAddress reports whether what is under a key comes with an address of the host's (IPv6 has a route even for a /128), such as Felix puts on the interfaces of
// workloads that are BGP peers (localWorkloadPeeringIPV6).
func (t *foreignTable) isAddress(k kernel.RouteKey) bool {
	for f := t.byKey[k]; f != nil; f = f.next {
		if f.protocol != kernel.ProtoKernel {
			return false
		}
	}
	return true
}

// isFelix reports whether a route under a key is one that Felix makes to another node: protocol 80 through a gateway, or protocol 3
// on one of its VXLAN devices (Felix: DefaultRouteProto, deviceRouteProtocol).
func (t *foreignTable) isFelix(k kernel.RouteKey, nameOf func(int) string) bool {
	for f := t.byKey[k]; f != nil; f = f.next {
		if len(f.hops) == 0 || !f.hops[0].Gateway.IsValid() {
			continue
		}
		name := nameOf(f.hops[0].Link)
		if f.protocol == kernel.ProtoFelix || f.protocol == kernel.ProtoBoot && (name == DeviceVXLAN || name == DeviceVXLAN6) {
			return true
		}
	}
	return false
}

// inFront says which route of another program the kernel takes before one of ours that is installed, because its metric is lower: the host's own default
// route before one from a router. "" for none.
func (t *foreignTable) inFront(k kernel.RouteKey) string {
	same, ok := t.table.Get(k.Dst)
	if !ok || len(same) == 0 || same[0].Metric >= k.Metric {
		return ""
	}
	first := k
	first.Metric = same[0].Metric
	if f := t.byKey[first]; f != nil {
		return fmt.Sprintf("behind a route of protocol %v with metric %d, which goes first", f.protocol, first.Metric)
	}
	return ""
}
