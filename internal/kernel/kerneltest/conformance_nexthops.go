package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// nexthopCases are about nexthop objects and the routes that refer to them.
func nexthopCases() []testCase {
	return []testCase{
		{"nexthop objects are supported", nexthopSupport},
		{"nexthop objects keep their attributes", nexthopAttributes},
		{"nexthop refusals", nexthopRefusals},
		{"nexthop refusals of groups", groupRefusals},
		{"nexthop verbs", nexthopVerbs},
		{"a big batch of nexthop objects", nexthopBatch},
		{"routes by nexthop object", routesByObject},
		{"routes by nexthop object are written as they were read", writeAsRead},
		{"refusals of routes by nexthop object", objectRouteRefusals},
		{"a blackhole object", blackholeObject},
		{"replacing an object moves its routes", replaceMoves},
		{"deleting an object drops its routes", deleteDrops},
		{"groups lose their members", groupLosesMember},
		{"objects and an interface that goes down", objectsDown},
		{"objects and carrier", objectsCarrier},
		{"objects and an interface that is deleted", objectsDeviceDeleted},
		{"objects and addresses", objectsAndAddresses},
		{"objects and loopback", objectsLoopback},
		{"objects onlink on a vxlan device", objectsOnVXLAN},
	}
}

// object is an object of ours: a gateway on w0.
func (b *bench) object(id uint32, gw netip.Addr) *kernel.Nexthop {
	return &kernel.Nexthop{ID: id, Protocol: kernel.ProtoCaracal, V6: b.v6, Gateway: gw, Link: b.w0}
}

func group(id uint32, members ...uint32) *kernel.Nexthop {
	n := &kernel.Nexthop{ID: id, Protocol: kernel.ProtoCaracal}
	for _, m := range members {
		n.Group = append(n.Group, kernel.GroupMember{ID: m, Weight: 1})
	}
	return n
}

// by is a route of ours by an object.
func (b *bench) by(n int, id uint32) *kernel.Route {
	r := b.ours(n)
	r.NexthopID = id
	return r
}

// writeObject does one operation and returns its error.
func (b *bench) writeObject(verb kernel.Verb, n *kernel.Nexthop) error {
	b.Helper()
	var failure error
	b.must(b.Kernel.WriteNexthops(b.ctx, []kernel.NexthopOp{{Verb: verb, Nexthop: n}}, func(i int, err error) {
		if i != 0 || failure != nil {
			b.Errorf("failure reported for operation %d, again or of a batch of one", i)
		}
		failure = err
	}))
	return failure
}

// have adds objects.
func (b *bench) have(objects ...*kernel.Nexthop) {
	b.Helper()
	for _, n := range objects {
		b.must(b.writeObject(kernel.Add, n))
	}
}

func (b *bench) objects() []kernel.Nexthop {
	b.Helper()
	var all []kernel.Nexthop
	b.must(b.Kernel.ListNexthops(b.ctx, func(n *kernel.Nexthop) bool {
		c := *n
		c.Group = slices.Clone(n.Group)
		all = append(all, c)
		return true
	}))
	return all
}

func (b *bench) wantObjects(lines ...string) {
	b.Helper()
	var got []string
	for _, n := range b.objects() {
		got = append(got, kernel.FormatNexthop(&n, b.linkName))
	}
	if !slices.Equal(got, lines) {
		b.Errorf("objects are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

// compat sets nexthop_compat_mode.
func (b *bench) compat(mode int) {
	b.Helper()
	b.must(b.Kernel.WriteSysctl(b.ctx, kernel.SysctlNexthopCompat, mode))
}

func nexthopSupport(b *bench) {
	for range 2 {
		if yes, err := b.Kernel.SupportsNexthops(b.ctx); err != nil || !yes {
			b.Errorf("nexthop objects are supported: %v, %v", yes, err)
		}
		b.wantObjects()
	}
	// A probe that died between its two steps.
	b.have(&kernel.Nexthop{ID: kernel.ProbeNexthop, Protocol: kernel.ProtoCaracal, Blackhole: true})
	if yes, err := b.Kernel.SupportsNexthops(b.ctx); err != nil || !yes {
		b.Errorf("with an old probe left, nexthop objects are supported: %v, %v", yes, err)
	}
}

func nexthopAttributes(b *bench) {
	onlink := b.object(7, b.far())
	onlink.Onlink = true
	foreign := b.object(4_000_000_000, b.gw(2))
	foreign.Protocol = kernel.ProtoStatic
	heavy := group(9, 7, 4_000_000_000)
	heavy.Group[0].Weight, heavy.Group[1].Weight = 256, 3
	all := []*kernel.Nexthop{b.object(5, b.gw(1)), {ID: 6, Protocol: kernel.ProtoCaracal, V6: b.v6, Link: b.w0}, onlink,
		{ID: 8, Protocol: kernel.ProtoCaracal, V6: b.v6, Blackhole: true}, foreign, heavy}
	b.have(all...)
	b.wantObjects(
		fmt.Sprintf("id 5 via %s dev w0 proto 202", b.gw(1)),
		"id 6 dev w0 proto 202",
		fmt.Sprintf("id 7 via %s dev w0 proto 202 onlink", b.far()),
		"id 8 blackhole proto 202",
		"id 9 group 7,256/4000000000,3 proto 202",
		fmt.Sprintf("id 4000000000 via %s dev w0 proto static", b.gw(2)),
	)
	for _, n := range b.objects() {
		i := slices.IndexFunc(all, func(o *kernel.Nexthop) bool { return o.ID == n.ID })
		if !n.Equal(all[i]) {
			b.Errorf("read back %+v, wrote %+v", n, all[i])
		}
	}
	seen := 0
	b.must(b.Kernel.ListNexthops(b.ctx, func(*kernel.Nexthop) bool { seen++; return seen < 2 }))
	if seen != 2 {
		b.Errorf("a list left early yields %d objects, want 2", seen)
	}
}

func nexthopRefusals(b *bench) {
	unreachable := b.object(5, b.far())
	b.wantErr(b.writeObject(kernel.Add, unreachable), kernel.ErrUnreachable)
	b.wantErr(b.writeObject(kernel.Replace, unreachable), kernel.ErrUnreachable)
	missing := b.object(5, b.gw(1))
	missing.Link = 9999
	b.wantErr(b.writeObject(kernel.Add, missing), kernel.ErrNoDevice)
	missing.Onlink = true
	b.wantErr(b.writeObject(kernel.Add, missing), kernel.ErrNoDevice)
	b.wantErr(b.writeObject(kernel.Add, &kernel.Nexthop{ID: 5, V6: b.v6}), kernel.ErrNoDevice)
	b.wantErr(b.writeObject(kernel.Add, b.object(0, b.gw(1))), kernel.ErrInvalid)
	otherFamily := b.object(5, b.gw(1))
	otherFamily.V6 = !b.v6
	b.wantErr(b.writeObject(kernel.Add, otherFamily), kernel.ErrInvalid)
	other := b.object(5, b.gw(1))
	other.Other = true
	b.wantErr(b.writeObject(kernel.Add, other), kernel.ErrInvalid)
	b.wantErr(b.writeObject(kernel.Delete, b.object(5, b.gw(1))), kernel.ErrNotThere)
	b.wantObjects()
}

func groupRefusals(b *bench) {
	b.have(b.object(1, b.gw(1)), b.object(2, b.gw(2)), group(3, 1, 2), &kernel.Nexthop{ID: 4, V6: b.v6, Blackhole: true})
	for _, bad := range []*kernel.Nexthop{
		group(9, 1, 999), // no such member
		group(9, 1, 3),   // a group in a group
		group(9, 1, 1),   // twice the same
		group(9, 1, 4),   // a blackhole and another
		group(9, 1, 0),
		{ID: 9, Group: []kernel.GroupMember{{ID: 1, Weight: 257}}},
		group(1, 2), // a group in place of a single one
	} {
		b.wantErr(b.writeObject(kernel.Replace, bad), kernel.ErrInvalid)
	}
	b.wantErr(b.writeObject(kernel.Replace, b.object(3, b.gw(1))), kernel.ErrInvalid) // a single one in place of a group
	b.wantErr(b.writeObject(kernel.Replace, &kernel.Nexthop{ID: 1, V6: b.v6, Blackhole: true}), kernel.ErrInvalid)
	b.must(b.writeObject(kernel.Add, group(9, 4))) // a blackhole alone may be in a group
	if n := len(b.objects()); n != 5 {
		b.Errorf("%d objects, want 5", n)
	}
}

// nexthopVerbs: nothing but Add looks at what is there, Replace only whether there is something. The kernel compares no protocol.
func nexthopVerbs(b *bench) {
	one := fmt.Sprintf("id 5 via %s dev w0", b.gw(1))
	two := fmt.Sprintf("id 5 via %s dev w0", b.gw(2))
	b.wantErr(b.writeObject(kernel.Replace, b.object(5, b.gw(1))), kernel.ErrNotThere) // it took its routes along, so it must not come back unnoticed
	b.wantObjects()
	b.must(b.writeObject(kernel.Add, b.object(5, b.gw(1))))
	b.wantObjects(one + " proto 202")
	b.wantErr(b.writeObject(kernel.Add, b.object(5, b.gw(1))), kernel.ErrExists)
	b.wantErr(b.writeObject(kernel.Add, b.object(5, b.gw(2))), kernel.ErrExists)
	b.must(b.writeObject(kernel.Replace, b.object(5, b.gw(2))))
	b.wantObjects(two + " proto 202")
	foreign := b.object(5, b.gw(1))
	foreign.Protocol = kernel.ProtoStatic
	b.must(b.writeObject(kernel.Replace, foreign))
	b.wantObjects(one + " proto static")
	b.must(b.writeObject(kernel.Replace, b.object(5, b.gw(2))))
	b.wantObjects(two + " proto 202")
	b.must(b.writeObject(kernel.Replace, foreign))
	b.must(b.writeObject(kernel.Delete, b.object(5, b.gw(2))))
	b.wantObjects()
}

func nexthopBatch(b *bench) {
	const n = 1200
	var ops []kernel.NexthopOp
	bad := map[int]error{0: kernel.ErrInvalid, 511: kernel.ErrUnreachable, 512: kernel.ErrNoDevice, 700: kernel.ErrNotThere, n - 1: kernel.ErrUnreachable}
	for i := range n {
		op := kernel.NexthopOp{Verb: kernel.Add, Nexthop: b.object(uint32(i+1), b.gw(i%9))}
		switch {
		case errors.Is(bad[i], kernel.ErrInvalid):
			op.Nexthop.ID = 0
		case errors.Is(bad[i], kernel.ErrUnreachable):
			op.Nexthop.Gateway = b.far()
		case errors.Is(bad[i], kernel.ErrNoDevice):
			op.Nexthop.Link = 9999
		case errors.Is(bad[i], kernel.ErrNotThere):
			op.Verb = kernel.Delete
		}
		ops = append(ops, op)
	}
	got := map[int]error{}
	b.must(b.Kernel.WriteNexthops(b.ctx, ops, func(i int, err error) { got[i] = err }))
	for i := range n {
		if !errors.Is(got[i], bad[i]) {
			b.Errorf("operation %d: %v, want %v", i, got[i], bad[i])
		}
	}
	if there := len(b.objects()); there != n-len(bad) {
		b.Errorf("%d objects, want %d", there, n-len(bad))
	}
	b.must(b.Kernel.WriteNexthops(b.ctx, nil, func(int, error) { b.Error("a failure of nothing") }))
}

// routesByObject: with nexthop_compat_mode the next hops are shown beside the number, without it the number alone. The kernel shows a
// group of one as what its member is.
func routesByObject(b *bench) {
	b.have(b.object(1, b.gw(1)), b.object(2, b.gw(2)), group(3, 1, 2), group(4, 2), &kernel.Nexthop{ID: 5, Protocol: kernel.ProtoCaracal, V6: b.v6, Link: b.w0})
	var dst []netip.Prefix
	for i := range 6 {
		dst = append(dst, b.dst(i))
		if i > 0 {
			b.must(b.write(kernel.Add, b.by(i, uint32(i))))
		}
	}
	b.wantText(
		fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", dst[1], b.gw(1)),
		fmt.Sprintf("%s nhid 2 via %s dev w0 proto 202 metric 1024", dst[2], b.gw(2)),
		fmt.Sprintf("%s nhid 3 proto 202 metric 1024 nexthop via %s dev w0 weight 1 nexthop via %s dev w0 weight 1", dst[3], b.gw(1), b.gw(2)),
		fmt.Sprintf("%s nhid 4 via %s dev w0 proto 202 metric 1024", dst[4], b.gw(2)),
		fmt.Sprintf("%s nhid 5 dev w0 proto 202 metric 1024", dst[5]),
	)
	a, err := b.Kernel.Lookup(b.ctx, dst[1].Addr().Next())
	b.must(err)
	if a.Match.NexthopID != 1 || a.Chosen.Gateway != b.gw(1) || a.Chosen.Link != b.w0 {
		b.Errorf("answer %+v, want the route by object 1 and its gateway", a)
	}
	b.compat(0)
	var want []string
	for i := 1; i < 6; i++ {
		want = append(want, fmt.Sprintf("%s nhid %d proto 202 metric 1024", dst[i], i))
	}
	b.wantText(want...)
	a, err = b.Kernel.Lookup(b.ctx, dst[1].Addr().Next())
	b.must(err)
	if a.Match.NexthopID != 1 || len(a.Match.NextHops) != 0 || a.Chosen.Gateway != b.gw(1) || a.Chosen.Link != b.w0 {
		b.Errorf("answer %+v, want the route by object 1 and, out of the lookup itself, its gateway", a)
	}
}

// writeAsRead: what was read may be given to Replace and Delete as it is.
func writeAsRead(b *bench) {
	b.have(b.object(1, b.gw(1)), group(2, 1), &kernel.Nexthop{ID: 3, V6: b.v6, Blackhole: true})
	for _, mode := range []int{1, 0} {
		b.compat(mode)
		for i := 1; i <= 3; i++ {
			r := b.by(i, uint32(i))
			r.MTU = 1380
			b.must(b.write(kernel.Add, r))
		}
		before := b.list()
		if len(before) != 3 {
			b.Fatalf("%d routes, want 3", len(before))
		}
		for _, r := range before {
			b.must(b.write(kernel.Replace, &r))
		}
		for i, r := range b.list() {
			if got, want := kernel.FormatRoute(&r, b.linkName), kernel.FormatRoute(&before[i], b.linkName); got != want {
				b.Errorf("replaced by itself the route is %q, was %q", got, want)
			}
			b.must(b.write(kernel.Delete, &r))
		}
		b.wantText()
	}
}

// objectRouteRefusals: an IPv6 route takes IPv6 objects alone, an IPv4 route both.
func objectRouteRefusals(b *bench) {
	b.wantErr(b.write(kernel.Add, b.by(1, 77)), kernel.ErrNoNexthop)
	b.wantErr(b.write(kernel.Replace, b.by(1, 77)), kernel.ErrNoNexthop)
	v4, v6 := netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("2001:db8:9::1/64")
	b.address(b.w0, v4)
	b.address(b.w0, v6)
	b.have(
		&kernel.Nexthop{ID: 4, Gateway: v4.Addr().Next(), Link: b.w0}, &kernel.Nexthop{ID: 40, Blackhole: true},
		&kernel.Nexthop{ID: 6, V6: true, Gateway: v6.Addr().Next(), Link: b.w0}, group(46, 4, 6),
	)
	for _, id := range []uint32{4, 40, 46} {
		if err := b.write(kernel.Add, b.by(int(id), id)); b.v6 {
			b.wantErr(err, kernel.ErrInvalid)
			if errors.Is(err, kernel.ErrNoNexthop) {
				b.Errorf("error %v says that the object is missing", err)
			}
		} else {
			b.must(err)
		}
	}
	b.must(b.write(kernel.Add, b.by(6, 6)))
	// The object cannot become one that its routes do not take.
	err := b.writeObject(kernel.Replace, &kernel.Nexthop{ID: 6, Gateway: v4.Addr().Next(), Link: b.w0})
	if b.v6 {
		b.wantErr(err, kernel.ErrInvalid)
		b.wantText(fmt.Sprintf("%s nhid 6 via %s dev w0 proto 202 metric 1024", b.dst(6), v6.Addr().Next()))
	} else {
		b.must(err)
	}
	source := b.by(1, 6)
	source.Src = b.far()
	b.wantErr(b.write(kernel.Add, source), kernel.ErrInvalid)
}

// blackholeObject: the route is shown as a blackhole for as long as the object is one.
func blackholeObject(b *bench) {
	b.have(&kernel.Nexthop{ID: 1, Protocol: kernel.ProtoCaracal, V6: b.v6, Blackhole: true})
	asked := b.by(1, 1)
	asked.Type = kernel.Blackhole
	b.must(b.write(kernel.Add, asked))
	b.must(b.write(kernel.Add, b.by(2, 1)))
	hole := fmt.Sprintf("blackhole %s nhid 1 proto 202 metric 1024", b.dst(2))
	b.wantText(fmt.Sprintf("blackhole %s nhid 1 proto 202 metric 1024", b.dst(1)), hole)
	b.must(b.writeObject(kernel.Replace, b.object(1, b.gw(1))))
	b.wantText(fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", b.dst(1), b.gw(1)),
		fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", b.dst(2), b.gw(1)))
	b.must(b.write(kernel.Delete, asked))
	b.must(b.writeObject(kernel.Replace, &kernel.Nexthop{ID: 1, V6: b.v6, Blackhole: true}))
	b.wantText(hole)
	b.wantErr(b.write(kernel.Delete, b.by(2, 7)), kernel.ErrNotThere) // by an object that is missing
	b.must(b.write(kernel.Delete, &b.list()[0]))
	b.wantText()
}
