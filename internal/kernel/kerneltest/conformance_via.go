package kerneltest

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// viaCases are about gateways of the other family: an IPv4 route may have IPv6 gateways (RTA_VIA; RFC 8950), on links without any IPv4
// address too. The reverse does not exist.
func viaCases() []testCase {
	return []testCase{
		{"gateways of the other family", viaSix},
		{"gateways of the other family are refused as in IPv6", viaRefused},
		{"gateways of the other family and events", viaEvents},
		{"gateways of the other family and interfaces", viaLinks},
		{"gateways of the other family and addresses", viaAddresses},
		{"gateways of the other family by nexthop object", viaObjects},
		{"groups of both families", viaGroups},
		{"an object that becomes one of the other family", viaReplaced},
	}
}

// The gateways of these cases: a link-local one, one on a subnet of a wire's, one on no link.
var (
	sixLocal = netip.MustParseAddr("fe80::9")
	sixNear  = netip.MustParseAddr("2001:db8:66::9")
	sixFar   = netip.MustParseAddr("2001:db8:ffff::9")
	sixNet   = netip.MustParsePrefix("2001:db8:66::1/64")
)

// bare makes a wire that has no IPv4 address, but an IPv6 subnet if the case is of IPv4.
func (b *bench) bare(name string) int {
	w := b.Wire(name)
	if !b.v6 {
		b.address(w, sixNet)
	}
	return w
}

func (b *bench) via(n, link int, gateways ...netip.Addr) *kernel.Route {
	r := b.ours(n, gateways...)
	for i := range r.NextHops {
		r.NextHops[i].Link = link
	}
	return r
}

// reverseRefused says what IPv6 does in place of a case, and reports whether that was all.
func (b *bench) reverseRefused(link int) bool {
	if b.v6 {
		four := netip.MustParseAddr("198.51.100.9")
		b.address(link, netip.MustParsePrefix("198.51.100.1/24"))
		b.wantErr(b.write(kernel.Add, b.via(1, link, four)), kernel.ErrInvalid)
		b.wantErr(b.write(kernel.Add, b.via(1, link, four, sixLocal)), kernel.ErrInvalid)
		b.wantText()
	}
	return b.v6
}

func viaSix(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	far := b.via(3, w1, sixFar)
	far.NextHops[0].Onlink = true
	mixed := b.via(4, w1, sixLocal, sixNear)
	mixed.NextHops = append(mixed.NextHops, kernel.NextHop{Gateway: b.gw(1), Link: b.w0})
	mixed.NextHops[0].Weight, mixed.NextHops[1].Weight, mixed.NextHops[2].Weight = 3, 1, 2
	src := b.via(5, w1, sixLocal)
	src.Src, src.MTU = b.self.Addr(), 1380
	for _, r := range []*kernel.Route{b.via(1, w1, sixLocal), b.via(2, w1, sixNear), far, mixed, src} {
		b.must(b.write(kernel.Add, r))
	}
	want := []string{
		fmt.Sprintf("%s via inet6 fe80::9 dev w1 proto 202 metric 1024", b.dst(1)),
		fmt.Sprintf("%s via inet6 2001:db8:66::9 dev w1 proto 202 metric 1024", b.dst(2)),
		fmt.Sprintf("%s via inet6 2001:db8:ffff::9 dev w1 proto 202 metric 1024 onlink", b.dst(3)),
		fmt.Sprintf("%s proto 202 metric 1024 nexthop via inet6 fe80::9 dev w1 weight 3 nexthop via inet6 2001:db8:66::9 dev w1 weight 1 nexthop via %s dev w0 weight 2", b.dst(4), b.gw(1)),
		fmt.Sprintf("%s via inet6 fe80::9 dev w1 proto 202 src %s metric 1024 mtu 1380", b.dst(5), b.self.Addr()),
	}
	b.wantText(want...)
	b.wantErr(b.write(kernel.Add, b.via(1, w1, sixNear)), kernel.ErrExists)
	a, err := b.Kernel.Lookup(b.ctx, b.dst(1).Addr().Next())
	b.must(err)
	if a.Chosen.Gateway != sixLocal || a.Chosen.Link != w1 || len(a.Match.NextHops) != 1 || a.Match.NextHops[0].Gateway != sixLocal {
		b.Errorf("answer %+v, want the route by its IPv6 gateway", a)
	}
	// What was read may be written as it is.
	for _, r := range b.list() {
		b.must(b.write(kernel.Replace, &r))
	}
	b.wantText(want...)
	for _, r := range b.list() {
		b.must(b.write(kernel.Delete, &r))
	}
	b.wantText()
}

func viaRefused(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	b.wantErr(b.write(kernel.Add, b.via(1, w1, sixFar)), kernel.ErrUnreachable)
	b.wantErr(b.write(kernel.Add, b.via(1, b.w0, sixNear)), kernel.ErrUnreachable) // on another link
	b.wantErr(b.write(kernel.Add, b.via(1, 9999, sixLocal)), kernel.ErrNoDevice)
	b.wantErr(b.write(kernel.Add, b.via(1, 9999, sixNear)), kernel.ErrNoDevice)
	b.wantErr(b.write(kernel.Add, b.via(1, w1, sixNet.Addr())), kernel.ErrInvalid) // an address of this host
	mapped := b.via(1, b.w0, netip.AddrFrom16(b.gw(1).As16()))
	b.wantErr(b.write(kernel.Add, mapped), kernel.ErrInvalid)
	b.set(w1, false)
	b.wantErr(b.write(kernel.Add, b.via(1, w1, sixLocal)), kernel.ErrDown)
	b.wantErr(b.write(kernel.Add, b.via(1, w1, sixNear)), kernel.ErrUnreachable)
	b.set(w1, true)
	b.must(b.Kernel.WriteSysctl(b.ctx, kernel.DeviceSetting("w1", true, kernel.DisableIPv6), 1))
	b.wantErr(b.write(kernel.Add, b.via(1, w1, sixLocal)), kernel.ErrInvalid) // EACCES
	b.wantText()
}

// viaEvents: an event shows the gateway, and a replacement by one of the other family is one like any other.
func viaEvents(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	take := b.watch()
	steps := []kernel.RouteOp{
		{Verb: kernel.Add, Route: b.via(1, b.w0, b.gw(1))}, {Verb: kernel.Replace, Route: b.via(1, w1, sixLocal)},
		{Verb: kernel.Replace, Route: b.via(1, w1, sixLocal, sixNear)}, {Verb: kernel.Delete, Route: b.via(1, w1, sixLocal, sixNear)},
	}
	b.must(b.Kernel.WriteRoutes(b.ctx, steps, func(i int, err error) { b.Errorf("operation %d: %v", i, err) }))
	var got [][]netip.Addr
	var replaced []bool
	for _, e := range take("the mark", b.mark(99)) {
		if e.Kind != kernel.EventRoute || e.Route.Protocol != kernel.ProtoCaracal {
			continue
		}
		var hops []netip.Addr
		for _, h := range e.Route.NextHops {
			hops = append(hops, h.Gateway)
		}
		got, replaced = append(got, hops), append(replaced, e.Replaced)
	}
	want := [][]netip.Addr{{b.gw(1)}, {sixLocal}, {sixLocal, sixNear}, {sixLocal, sixNear}}
	if !slices.EqualFunc(got, want, slices.Equal[[]netip.Addr]) || !slices.Equal(replaced, []bool{false, true, true, false}) {
		b.Errorf("events tell of gateways %v, replacing %v; want %v", got, replaced, want)
	}
}

// viaLinks: they go with their interface as IPv4 routes do, silently.
func viaLinks(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	both := b.via(2, w1, sixLocal)
	both.NextHops = append(both.NextHops, kernel.NextHop{Gateway: b.gw(1), Link: b.w0})
	b.must(b.write(kernel.Add, b.via(1, w1, sixLocal)))
	b.must(b.write(kernel.Add, both))
	take := b.watch()
	b.set(w1, false)
	for _, e := range take("the mark", b.mark(99)) {
		if e.Kind == kernel.EventRoute && e.Route.Dst.Addr().Is4() && e.Deleted {
			b.Errorf("told that %+v went", e.Route)
		}
	}
	got := b.list()
	if len(got) != 2 || len(got[0].NextHops) != 2 || !got[0].NextHops[0].Dead || got[0].NextHops[1].Dead {
		b.Errorf("with w1 down: %+v, want the multipath route with its first next hop dead, and the mark", got)
	}
	b.must(b.Kernel.DeleteLink(b.ctx, w1))
	if got := b.list(); len(got) != 1 {
		b.Errorf("with w1 gone: %+v, want the mark alone", got)
	}
}

// viaAddresses: an interface may have no IPv4 address, but the last of those that it has takes these routes along too. IPv6 addresses
// take none.
func viaAddresses(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	near := fmt.Sprintf("%s via inet6 2001:db8:66::9 dev w1 proto 202 metric 1024", b.dst(1))
	b.must(b.write(kernel.Add, b.via(1, w1, sixNear)))
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: w1, Prefix: sixNet}))
	b.wantText(near)
	b.address(w1, b.net(1))
	b.wantText(near)
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: w1, Prefix: b.net(1)}))
	b.wantText()
}

// six is an object with an IPv6 gateway.
func six(id uint32, link int, gw netip.Addr) *kernel.Nexthop {
	return &kernel.Nexthop{ID: id, Protocol: kernel.ProtoCaracal, V6: true, Gateway: gw, Link: link}
}

func viaObjects(b *bench) {
	w1 := b.bare("w1")
	b.have(six(1, w1, sixLocal))
	b.must(b.write(kernel.Add, b.by(1, 1)))
	inet6 := " inet6"
	if b.v6 {
		inet6 = ""
	}
	line := fmt.Sprintf("%s nhid 1 via%s %%s dev w1 proto 202 metric 1024", b.dst(1), inet6)
	b.wantText(fmt.Sprintf(line, sixLocal))
	b.must(b.writeObject(kernel.Replace, six(1, w1, netip.MustParseAddr("fe80::a"))))
	b.wantText(fmt.Sprintf(line, "fe80::a"))
	if !b.v6 { // with the object shared by a route of the other family
		other := &kernel.Route{Dst: netip.MustParsePrefix("fd00:1::/64"), Metric: 1024, Protocol: kernel.ProtoCaracal, NexthopID: 1}
		b.must(b.write(kernel.Add, other))
		b.wantErr(b.writeObject(kernel.Replace, b.object(1, b.gw(1))), kernel.ErrInvalid)
		b.must(b.write(kernel.Delete, other))
	}
	b.wantText(fmt.Sprintf(line, "fe80::a"))
	b.set(w1, false)
	b.wantText()
	b.wantObjects()
}

// viaGroups: an IPv4 route takes a group of both families; in IPv6 it is refused (objectRouteRefusals).
func viaGroups(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	b.have(b.object(1, b.gw(1)), six(2, w1, sixLocal), group(3, 1, 2))
	b.must(b.write(kernel.Add, b.by(1, 3)))
	b.wantText(fmt.Sprintf("%s nhid 3 proto 202 metric 1024 nexthop via %s dev w0 weight 1 nexthop via inet6 fe80::9 dev w1 weight 1", b.dst(1), b.gw(1)))
	b.must(b.writeObject(kernel.Replace, group(3, 2)))
	b.wantText(fmt.Sprintf("%s nhid 3 via inet6 fe80::9 dev w1 proto 202 metric 1024", b.dst(1)))
	b.must(b.writeObject(kernel.Replace, group(3, 1, 2)))
	b.set(w1, false) // takes the object out of the group
	b.wantText(fmt.Sprintf("%s nhid 3 via %s dev w0 proto 202 metric 1024", b.dst(1), b.gw(1)))
}

// viaReplaced: IPv4 routes follow their object to the other family and back.
func viaReplaced(b *bench) {
	w1 := b.bare("w1")
	if b.reverseRefused(w1) {
		return
	}
	b.have(b.object(1, b.gw(1)), b.object(2, b.gw(2)), group(3, 1, 2))
	b.must(b.write(kernel.Add, b.by(1, 1)))
	b.must(b.write(kernel.Add, b.by(2, 3)))
	take := b.watch()
	b.must(b.writeObject(kernel.Replace, six(1, w1, sixLocal)))
	told := 0
	for _, e := range take("the mark", b.mark(99)) {
		if e.Kind == kernel.EventRoute && e.Replaced && len(e.Route.NextHops) > 0 && e.Route.NextHops[0].Gateway == sixLocal {
			told++
		}
	}
	if told != 2 {
		b.Errorf("%d events tell of the new gateway, want 2", told)
	}
	mark := fmt.Sprintf("blackhole %s proto static metric 7", b.dst(99))
	b.wantText(mark, fmt.Sprintf("%s nhid 1 via inet6 fe80::9 dev w1 proto 202 metric 1024", b.dst(1)),
		fmt.Sprintf("%s nhid 3 proto 202 metric 1024 nexthop via inet6 fe80::9 dev w1 weight 1 nexthop via %s dev w0 weight 1", b.dst(2), b.gw(2)))
	b.must(b.writeObject(kernel.Replace, b.object(1, b.gw(1))))
	b.wantText(mark, fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", b.dst(1), b.gw(1)),
		fmt.Sprintf("%s nhid 3 proto 202 metric 1024 nexthop via %s dev w0 weight 1 nexthop via %s dev w0 weight 1", b.dst(2), b.gw(1), b.gw(2)))
}
