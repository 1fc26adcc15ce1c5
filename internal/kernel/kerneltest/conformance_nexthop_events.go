package kerneltest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// told writes events of objects and of our routes as short words.
func (b *bench) told(events []kernel.Event) []string {
	b.Helper()
	var words []string
	for _, e := range events {
		word := map[bool]string{false: "new ", true: "gone "}[e.Deleted]
		switch {
		case e.Kind == kernel.EventNexthop:
			words = append(words, word+kernel.FormatNexthop(&e.Nexthop, b.linkName))
		case e.Kind == kernel.EventRoute && e.Route.Protocol == kernel.ProtoCaracal:
			if e.Replaced {
				word = "re" + word
			}
			words = append(words, word+kernel.FormatRoute(&e.Route, b.linkName))
		}
	}
	return words
}

// wantTold compares events without regard to the order of the routes among themselves, which the kernel's hashes decide. The objects keep
// theirs, and an object's event comes before the routes'.
func (b *bench) wantTold(events []kernel.Event, want ...string) {
	b.Helper()
	got := b.told(events)
	objects := func(all []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.Contains(s, " id ") })
	}
	if !slices.Equal(objects(got), objects(want)) || len(got) > 0 && len(want) > 0 && got[0] != want[0] && strings.Contains(want[0], " id ") {
		b.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		return
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.Errorf("events, sorted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// replaceMoves: one write moves the routes of the object and of the groups it is in. With nexthop_compat_mode the kernel tells of each
// route, without it of the object alone.
func replaceMoves(b *bench) {
	b.have(b.object(1, b.gw(1)), b.object(2, b.gw(2)), group(3, 1, 2))
	b.must(b.write(kernel.Add, b.by(1, 1)))
	b.must(b.write(kernel.Add, b.by(3, 3)))
	take := b.watch()
	b.must(b.writeObject(kernel.Replace, b.object(1, b.gw(5))))
	single := fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", b.dst(1), b.gw(5))
	multi := fmt.Sprintf("%s nhid 3 proto 202 metric 1024 nexthop via %s dev w0 weight 1 nexthop via %s dev w0 weight 1", b.dst(3), b.gw(5), b.gw(2))
	b.wantText(single, multi)
	b.wantTold(take("the mark", b.mark(99)), fmt.Sprintf("new id 1 via %s dev w0 proto 202", b.gw(5)), "renew "+single, "renew "+multi)

	b.compat(0)
	b.must(b.writeObject(kernel.Replace, b.object(1, b.gw(6))))
	b.wantTold(take("the mark", b.mark(98)), fmt.Sprintf("new id 1 via %s dev w0 proto 202", b.gw(6)))
	b.compat(1)
	b.must(b.writeObject(kernel.Replace, group(3, 2)))
	multi = fmt.Sprintf("%s nhid 3 via %s dev w0 proto 202 metric 1024", b.dst(3), b.gw(2))
	b.wantTold(take("the mark", b.mark(97)), "new id 3 group 2 proto 202", "renew "+multi)
	// The very same again is told again.
	b.must(b.writeObject(kernel.Replace, group(3, 2)))
	b.wantTold(take("the mark", b.mark(96)), "new id 3 group 2 proto 202", "renew "+multi)
}

// deleteDrops: an object takes its routes with it, IPv4's without a word, IPv6's with an event each if nexthop_compat_mode is 1. What
// other programs have under the same key stays.
func deleteDrops(b *bench) {
	for i, mode := range []int{1, 0} {
		b.compat(mode)
		b.have(b.object(1, b.gw(1)))
		b.must(b.write(kernel.Add, b.by(1, 1)))
		b.must(b.write(kernel.Add, b.by(2, 1)))
		foreign := b.ours(1, b.gw(4))
		foreign.Protocol, foreign.Metric = kernel.ProtoStatic, 2000
		b.must(b.write(kernel.Replace, foreign))
		one, two := kernel.FormatRoute(&b.list()[0], b.linkName), fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", b.dst(2), b.gw(1))
		take := b.watch()
		b.must(b.writeObject(kernel.Delete, b.object(1, b.gw(1))))
		b.wantText(fmt.Sprintf("%s via %s dev w0 proto static metric 2000", b.dst(1), b.gw(4)))
		want := []string{fmt.Sprintf("gone id 1 via %s dev w0 proto 202", b.gw(1))}
		if b.v6 && mode == 1 {
			want = append(want, "gone "+one, "gone "+two)
		}
		b.wantTold(take("the mark", b.mark(90+i)), want...)
		b.must(b.write(kernel.Delete, &kernel.Route{Dst: b.dst(90 + i), Metric: 7, Type: kernel.Blackhole, Protocol: kernel.ProtoStatic}))
	}
}

// groupLosesMember: a group shrinks with an event; with its last member it goes, and its routes with it.
func groupLosesMember(b *bench) {
	b.have(b.object(1, b.gw(1)), b.object(2, b.gw(2)), group(3, 1, 2))
	b.must(b.write(kernel.Add, b.by(3, 3)))
	take := b.watch()
	b.must(b.writeObject(kernel.Delete, b.object(1, b.gw(1))))
	route := fmt.Sprintf("%s nhid 3 via %s dev w0 proto 202 metric 1024", b.dst(3), b.gw(2))
	b.wantText(route)
	b.wantTold(take("the mark", b.mark(99)), fmt.Sprintf("gone id 1 via %s dev w0 proto 202", b.gw(1)), "new id 3 group 2 proto 202")
	b.must(b.write(kernel.Delete, &kernel.Route{Dst: b.dst(99), Metric: 7, Type: kernel.Blackhole, Protocol: kernel.ProtoStatic}))
	b.must(b.writeObject(kernel.Delete, b.object(2, b.gw(2))))
	b.wantText()
	b.wantObjects()
	// What the kernel says the group was last is that it had one member.
	events := take("the mark", b.mark(98))
	want := []string{fmt.Sprintf("gone id 2 via %s dev w0 proto 202", b.gw(2)), "gone id 3 group 2 proto 202"}
	if b.v6 {
		want = append(want, "gone "+route)
	}
	b.wantTold(events, want...)
}

// silentFlush checks what is left of three objects (1: a gateway on w0, 2: a blackhole, 3: group of 1) and their routes after something
// happened to w0, and that the kernel said nothing of objects.
func (b *bench) silentFlush(happens func()) {
	b.Helper()
	b.have(b.object(1, b.gw(1)), &kernel.Nexthop{ID: 2, Protocol: kernel.ProtoCaracal, V6: b.v6, Blackhole: true}, group(3, 1))
	for i := 1; i <= 3; i++ {
		b.must(b.write(kernel.Add, b.by(i, uint32(i))))
	}
	take := b.watch()
	happens()
	b.eventually("the objects go", func() bool { return len(b.objects()) == 1 })
	b.link(b.w0) // waits for the end of what the kernel is doing, its event of the link included
	b.wantObjects("id 2 blackhole proto 202")
	b.wantText(fmt.Sprintf("blackhole %s nhid 2 proto 202 metric 1024", b.dst(2)))
	events := take("the mark", b.mark(99))
	link, gone := -1, 0
	for i, e := range events {
		switch {
		case e.Kind == kernel.EventNexthop:
			b.Errorf("event %v of %+v, want none of objects", e.Deleted, e.Nexthop)
		case e.Kind == kernel.EventLink && e.Link.Index == b.w0:
			link = i
		case e.Kind == kernel.EventRoute && e.Deleted && e.Route.Protocol == kernel.ProtoCaracal:
			gone++
		}
	}
	if want := map[bool]int{true: 2}[b.v6]; link < 0 || gone != want {
		b.Errorf("the last event of the link is number %d, %d routes are said to be gone; want one of the link and %d routes", link, gone, want)
	}
}

// objectsDown: objects go with their interface, and their routes with them. Only the event of the link is sure to come.
func objectsDown(b *bench) {
	b.silentFlush(func() { b.set(b.w0, false) })
	b.wantErr(b.writeObject(kernel.Add, b.object(1, b.gw(1))), kernel.ErrDown)
	onlink := b.object(1, b.far())
	onlink.Onlink = true
	b.wantErr(b.writeObject(kernel.Add, onlink), kernel.ErrDown)
	b.wantErr(b.write(kernel.Add, b.by(1, 1)), kernel.ErrNoNexthop)
	b.set(b.w0, true)
	b.wantObjects("id 2 blackhole proto 202")
}

// objectsCarrier: unlike next hops in a route, objects do not outlive the loss of carrier, and none can be made meanwhile.
func objectsCarrier(b *bench) {
	b.silentFlush(func() { b.SetCarrier(b.w0, false) })
	b.wantErr(b.writeObject(kernel.Add, b.object(1, b.gw(1))), kernel.ErrDown)
	b.SetCarrier(b.w0, true)
	b.eventually("an object can be made again", func() bool { return b.writeObject(kernel.Add, b.object(1, b.gw(1))) == nil })
}

func objectsDeviceDeleted(b *bench) {
	b.silentFlush(func() { b.must(b.Kernel.DeleteLink(b.ctx, b.w0)) })
	b.wantErr(b.writeObject(kernel.Add, b.object(1, b.gw(1))), kernel.ErrNoDevice)
}

// objectsAndAddresses: the gateway is looked for when the object is written and never again, so a route by object outlives the last
// address of its interface, in IPv4 too. The preferred source is the route's own and counts as ever.
func objectsAndAddresses(b *bench) {
	b.address(b.w0, b.net(9))
	b.have(b.object(1, b.gw(1)))
	r := b.by(1, 1)
	r.Src = b.net(9).Addr()
	b.must(b.write(kernel.Add, r))
	b.must(b.write(kernel.Add, b.by(2, 1)))
	rest := fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 metric 1024", b.dst(2), b.gw(1))
	b.wantText(fmt.Sprintf("%s nhid 1 via %s dev w0 proto 202 src %s metric 1024", b.dst(1), b.gw(1), r.Src), rest)
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: b.w0, Prefix: b.net(9)}))
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: b.w0, Prefix: b.self}))
	if !b.v6 {
		b.wantText(rest)
	}
	b.wantObjects(fmt.Sprintf("id 1 via %s dev w0 proto 202", b.gw(1)))
	b.wantErr(b.writeObject(kernel.Replace, b.object(1, b.gw(1))), kernel.ErrUnreachable)
	b.must(b.write(kernel.Add, b.by(3, 1)))
}

// objectsLoopback: blackhole objects are kept on lo but do not go down with it, in IPv6 too.
func objectsLoopback(b *bench) {
	b.have(&kernel.Nexthop{ID: 1, Protocol: kernel.ProtoCaracal, V6: b.v6, Blackhole: true})
	b.must(b.write(kernel.Add, b.by(1, 1)))
	b.set(1, false)
	b.wantObjects("id 1 blackhole proto 202")
	b.wantText(fmt.Sprintf("blackhole %s nhid 1 proto 202 metric 1024", b.dst(1)))
}

func objectsOnVXLAN(b *bench) {
	index, err := b.Kernel.CreateLink(b.ctx, calicoVXLAN(b, "vxlan.calico", b.self.Addr()))
	b.must(err)
	b.onTunnel(index, "vxlan.calico")
	b.must(b.Kernel.DeleteLink(b.ctx, index))
	b.wantObjects()
	b.wantText()
}

// onTunnel: objects on a tunnel device are onlink, with and without an address on the device.
func (b *bench) onTunnel(index int, name string) {
	b.Helper()
	remote := b.object(1, b.far())
	remote.Link, remote.Onlink = index, true
	b.wantErr(b.writeObject(kernel.Add, remote), kernel.ErrDown)
	b.must(b.Kernel.SetLink(b.ctx, index, 0, [6]byte{}, true))
	b.have(remote)
	own := netip.PrefixFrom(b.dst(200).Addr(), b.dst(200).Addr().BitLen())
	b.address(index, own)
	b.must(b.write(kernel.Add, b.by(1, 1)))
	b.wantObjects(fmt.Sprintf("id 1 via %s dev %s proto 202 onlink", b.far(), name))
	b.wantText(fmt.Sprintf("%s nhid 1 via %s dev %s proto 202 metric 1024 onlink", b.dst(1), b.far(), name))
	a, err := b.Kernel.Lookup(b.ctx, b.dst(1).Addr().Next())
	b.must(err)
	if a.Chosen.Link != index || a.Chosen.Gateway != b.far() || a.Src != own.Addr() {
		b.Errorf("answer %+v, want the tunnel", a)
	}
	// The tunnel address changes: routes by object stay, as the last address of the device does not take them along.
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: index, Prefix: own}))
	b.wantText(fmt.Sprintf("%s nhid 1 via %s dev %s proto 202 metric 1024 onlink", b.dst(1), b.far(), name))
}
