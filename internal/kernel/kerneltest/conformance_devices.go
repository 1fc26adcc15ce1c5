package kerneltest

import (
	"fmt"

	"github.com/caracal-net/caracal/internal/kernel"
)

// deviceCases are about routes and the interfaces under them.
func deviceCases() []testCase {
	return []testCase{
		{"interface down", deviceDown},
		{"interface deleted", deviceDeleted},
		{"interface flapping", deviceFlapping},
		{"multipath loses one interface", multipathHalfDown},
		{"an interface of a multipath route is deleted", multipathHalfGone},
		{"the living next hop of a half dead route is deleted", multipathHalfDeleted},
		{"the MTU of an interface changes", mtuChanges},
		{"no carrier", noCarrier},
		{"the last address goes", lastAddress},
		{"the source address goes", sourceAddress},
		{"loopback down", loopbackDown},
	}
}

// deviceDown: routes go with their interface, and what is refused meanwhile is refused for that.
func deviceDown(b *bench) {
	hole := b.ours(2)
	hole.Type = kernel.Blackhole
	b.must(b.write(kernel.Add, b.ours(1, b.gw(1))))
	b.must(b.write(kernel.Add, hole))
	b.set(b.w0, false)
	b.wantText(fmt.Sprintf("blackhole %s proto 202 metric 1024", hole.Dst))
	onlink := b.ours(3, b.far())
	onlink.NextHops[0].Onlink = true
	b.wantErr(b.write(kernel.Add, onlink), kernel.ErrDown)
	onLink := b.ours(3)
	onLink.NextHops = []kernel.NextHop{{Link: b.w0}}
	b.wantErr(b.write(kernel.Add, onLink), kernel.ErrDown)
	// The gateway is looked for first, and its connected route has gone.
	b.wantErr(b.write(kernel.Add, b.ours(3, b.gw(1))), kernel.ErrUnreachable)
	b.wantErr(b.write(kernel.Delete, b.ours(1, b.gw(1))), kernel.ErrNotThere)
}

func deviceDeleted(b *bench) {
	b.must(b.write(kernel.Add, b.ours(1, b.gw(1))))
	b.must(b.Kernel.DeleteLink(b.ctx, b.w0))
	b.wantText()
	b.wantErr(b.write(kernel.Add, b.ours(1, b.gw(1))), b.missingDevice())
	again := b.Wire("w0")
	if again == b.w0 {
		b.Errorf("the new interface has the old index %d", again)
	}
}

func deviceFlapping(b *bench) {
	for range 3 {
		if addrs, err := b.Kernel.ListAddresses(b.ctx); err != nil {
			b.Fatal(err)
		} else if !holds(addrs, b.w0, b.self) {
			b.address(b.w0, b.self) // IPv6 addresses went with the interface
		}
		b.must(b.write(kernel.Add, b.ours(1, b.gw(1))))
		b.set(b.w0, false)
		b.wantText()
		b.set(b.w0, true)
		b.wantText()
	}
}

func multipathHalfDown(b *bench) {
	r, w1 := twoWays(b)
	b.set(w1, false)
	hop := func(gw fmt.Stringer, dev, state string) string {
		return fmt.Sprintf(" nexthop via %s dev %s weight 1%s", gw, dev, state)
	}
	head := fmt.Sprintf("%s proto 202 metric 1024", r.Dst)
	b.wantText(head + hop(b.gw(1), "w0", "") + hop(b.gwOn(1, 2), "w1", " linkdown"))
	b.set(w1, true)
	b.eventually("the dead next hop revives", func() bool {
		return b.text() == head+hop(b.gw(1), "w0", "")+hop(b.gwOn(1, 2), "w1", "")
	})
	b.set(w1, false)
	b.set(b.w0, false)
	b.wantText()
}

// twoWays is a multipath route by w0 and w1, written.
func twoWays(b *bench) (*kernel.Route, int) {
	w1 := b.Wire("w1")
	b.address(w1, b.net(1))
	r := b.ours(1, b.gw(1), b.gwOn(1, 2))
	r.NextHops[1].Link = w1
	b.must(b.write(kernel.Add, r))
	return r, w1
}

// multipathHalfGone: an interface that goes away takes multipath routes along whole in IPv4, and its own next hops in IPv6. Down before makes no
// difference.
func multipathHalfGone(b *bench) {
	for _, down := range []bool{false, true} {
		r, w1 := twoWays(b)
		b.set(w1, !down)
		b.must(b.Kernel.DeleteLink(b.ctx, w1))
		if b.v6 {
			b.wantText(fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024", r.Dst, b.gw(1)))
			r.NextHops = r.NextHops[:1]
			b.must(b.write(kernel.Delete, r))
		}
		b.wantText()
	}
}

// multipathHalfDeleted: IPv6 lets the living next hops of a route be deleted while another is dead. That one stays, and comes back with its
// interface.
func multipathHalfDeleted(b *bench) {
	if !b.v6 {
		return // IPv4 deletes routes whole
	}
	r, w1 := twoWays(b)
	b.set(w1, false)
	r.NextHops = r.NextHops[:1]
	b.must(b.write(kernel.Delete, r))
	line := fmt.Sprintf("%s via %s dev w1 proto 202 metric 1024", r.Dst, b.gwOn(1, 2))
	b.wantText(line + " linkdown")
	b.set(w1, true)
	b.eventually("the dead next hop revives", func() bool { return b.text() == line })
}

// mtuChanges: the MTU of IPv6 routes follows that of their interface down, and up again where it was the same. IPv4 routes keep theirs.
func mtuChanges(b *bench) {
	r := b.ours(1, b.gw(1))
	r.MTU = 1400
	b.must(b.write(kernel.Add, r))
	for _, step := range []struct{ device, v6 int }{{1450, 1400}, {1300, 1300}, {1350, 1350}, {1500, 1500}} {
		b.must(b.Kernel.SetLink(b.ctx, b.w0, step.device, [6]byte{}, true))
		want := 1400
		if b.v6 {
			want = step.v6
		}
		b.wantText(fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024 mtu %d", r.Dst, b.gw(1), want))
	}
}

// noCarrier: an unplugged cable leaves the routes in place and marks them.
func noCarrier(b *bench) {
	b.must(b.write(kernel.Add, b.ours(1, b.gw(1))))
	dead := func(want bool) func() bool {
		return func() bool {
			all := b.list()
			return len(all) == 1 && len(all[0].NextHops) == 1 && all[0].NextHops[0].Dead == want && b.link(b.w0).Running != want
		}
	}
	b.eventually("alive", dead(false))
	b.SetCarrier(b.w0, false)
	b.eventually("dead", dead(true))
	if !b.link(b.w0).Up {
		b.Error("the interface is down, want it up without carrier")
	}
	b.SetCarrier(b.w0, true)
	b.eventually("alive again", dead(false))
}

// lastAddress: the last IPv4 address of an interface takes all the interface's IPv4 routes with it, onlink ones too.
func lastAddress(b *bench) {
	second := b.net(9)
	b.address(b.w0, second)
	r := b.ours(1, b.far())
	r.NextHops[0].Onlink = true
	b.must(b.write(kernel.Add, r))
	line := fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024 onlink", r.Dst, b.far())
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: b.w0, Prefix: second}))
	b.wantText(line)
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: b.w0, Prefix: b.self}))
	if b.v6 {
		b.wantText(line)
	} else {
		b.wantText()
	}
}

// sourceAddress: an IPv4 route goes with its preferred source address; an IPv6 route through the same interface loses the source and stays
// (through another interface it keeps it on kernels before 6.6).
func sourceAddress(b *bench) {
	b.address(b.w0, b.net(9))
	r := b.ours(1, b.gw(1))
	r.Src = b.net(9).Addr()
	b.must(b.write(kernel.Add, r))
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: b.w0, Prefix: b.net(9)}))
	if b.v6 {
		b.wantText(fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024", r.Dst, b.gw(1)))
	} else {
		b.wantText()
	}
}

// loopbackDown: IPv6 keeps its blackholes on lo, and they go down with it.
func loopbackDown(b *bench) {
	hole := b.ours(1)
	hole.Type = kernel.Blackhole
	b.must(b.write(kernel.Add, hole))
	b.set(1, false)
	if b.v6 {
		b.wantText()
	} else {
		b.wantText(fmt.Sprintf("blackhole %s proto 202 metric 1024", hole.Dst))
	}
}
