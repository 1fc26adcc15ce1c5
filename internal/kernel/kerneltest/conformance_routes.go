package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// routeCases are about what is kept of a route, and about batches.
func routeCases() []testCase {
	return []testCase{
		{"attributes are kept", routeAttributes},
		{"metric 0", metricZero},
		{"onlink", onlink},
		{"onlink through a gateway inside the destination", onlinkInside},
		{"weights", weights},
		{"refusals", refusals},
		{"bad ones in the middle of big batches", bigBatch},
		{"empty batch", func(b *bench) {
			b.must(b.Kernel.WriteRoutes(b.ctx, nil, func(int, error) { b.Error("a failure of nothing") }))
		}},
		{"a list may be left early", leaveEarly},
	}
}

func routeAttributes(b *bench) {
	r := b.ours(1, b.gw(1))
	r.Src, r.MTU = b.self.Addr(), 1380
	host := b.ours(2, b.gw(2))
	host.Dst = netip.PrefixFrom(host.Dst.Addr(), host.Dst.Addr().BitLen())
	def := b.ours(3, b.gw(3))
	def.Dst, _ = b.gw(3).Prefix(0)
	hole := b.ours(4)
	hole.Type = kernel.Blackhole
	prohibit := b.ours(5)
	prohibit.Type = kernel.Prohibit
	wire := b.ours(6)
	wire.NextHops = []kernel.NextHop{{Link: b.w0}}
	for _, r := range []*kernel.Route{r, host, def, hole, prohibit, wire} {
		b.must(b.write(kernel.Add, r))
	}
	link := " scope link"
	if b.v6 {
		link = ""
	}
	b.wantText(
		fmt.Sprintf("%s via %s dev w0 proto 202 src %s metric 1024 mtu 1380", r.Dst, b.gw(1), r.Src),
		fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024", host.Dst.Addr(), b.gw(2)),
		fmt.Sprintf("default via %s dev w0 proto 202 metric 1024", b.gw(3)),
		fmt.Sprintf("blackhole %s proto 202 metric 1024", hole.Dst),
		fmt.Sprintf("prohibit %s proto 202 metric 1024", prohibit.Dst),
		fmt.Sprintf("%s dev w0 proto 202%s metric 1024", wire.Dst, link),
	)
	for _, got := range b.list() {
		if got.Table != kernel.TableMain || len(got.NextHops) > 1 || len(got.NextHops) == 1 && got.NextHops[0].Weight != 1 {
			b.Errorf("read back %+v, want table main and weight 1", got)
		}
	}
}

func metricZero(b *bench) {
	r := b.ours(1, b.gw(1))
	r.Metric = 0
	b.must(b.write(kernel.Add, r))
	want := uint32(0)
	if b.v6 {
		want = 1024
	}
	if got := b.list(); len(got) != 1 || got[0].Metric != want {
		b.Errorf("read back %+v, want metric %d", got, want)
	}
	b.must(b.write(kernel.Delete, r))
	b.wantText()
}

func onlink(b *bench) {
	r := b.ours(1, b.far())
	b.wantErr(b.write(kernel.Add, r), kernel.ErrUnreachable)
	b.wantErr(b.write(kernel.Replace, r), kernel.ErrUnreachable)
	r.NextHops[0].Onlink = true
	b.must(b.write(kernel.Add, r))
	two := b.ours(2, b.far(), b.gw(2))
	two.NextHops[0].Onlink = true
	b.must(b.write(kernel.Add, two))
	b.wantText(
		fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024 onlink", r.Dst, b.far()),
		fmt.Sprintf("%s proto 202 metric 1024 nexthop via %s dev w0 weight 1 onlink nexthop via %s dev w0 weight 1", two.Dst, b.far(), b.gw(2)),
	)
	b.must(b.write(kernel.Delete, r))
	b.must(b.write(kernel.Delete, two))
	b.wantText()
}

func weights(b *bench) {
	r := b.ours(1, b.gw(1), b.gw(2))
	r.NextHops[0].Weight, r.NextHops[1].Weight = 3, 1
	b.must(b.write(kernel.Add, r))
	got := b.list()
	if len(got) != 1 || len(got[0].NextHops) != 2 || got[0].NextHops[0].Weight != 3 || got[0].NextHops[1].Weight != 1 {
		b.Errorf("read back %+v, want weights 3 and 1", got)
	}
}

// missingDevice is what a gateway on a missing interface comes to: IPv4 looks for a route to the gateway first, and finds none there.
func (b *bench) missingDevice() error {
	if b.v6 {
		return kernel.ErrNoDevice
	}
	return kernel.ErrUnreachable
}

func refusals(b *bench) {
	noWay := b.ours(1)
	b.wantErr(b.write(kernel.Add, noWay), kernel.ErrNoDevice)
	missing := b.ours(1, b.gw(1))
	missing.NextHops[0].Link = 9999
	b.wantErr(b.write(kernel.Add, missing), b.missingDevice())
	missing.NextHops[0].Onlink = true
	b.wantErr(b.write(kernel.Add, missing), kernel.ErrNoDevice)
	strangeSource := b.ours(1, b.gw(1))
	strangeSource.Src = b.far()
	b.wantErr(b.write(kernel.Add, strangeSource), kernel.ErrInvalid)
	hostBits := b.ours(1, b.gw(1))
	hostBits.Dst = netip.PrefixFrom(b.gw(1), hostBits.Dst.Bits())
	b.wantErr(b.write(kernel.Add, hostBits), kernel.ErrInvalid)
	b.wantErr(b.write(kernel.Add, &kernel.Route{}), kernel.ErrInvalid)
	b.wantText()
}

// bigBatch writes several batches' worth with bad operations at the edges of every power of two, and asks that just
// those fail, each with its own meaning.
func bigBatch(b *bench) {
	const n = 1600
	bad := map[int]error{}
	var ops []kernel.RouteOp
	for i := range n {
		ops = append(ops, kernel.RouteOp{Verb: kernel.Add, Route: b.ours(i, b.gw(i%9))})
	}
	kinds := []struct {
		err   error
		spoil func(op *kernel.RouteOp)
	}{
		{kernel.ErrNoDevice, func(op *kernel.RouteOp) { op.Route.NextHops[0] = kernel.NextHop{Link: 9999} }},
		{kernel.ErrUnreachable, func(op *kernel.RouteOp) { op.Route.NextHops[0].Gateway = b.far() }},
		{kernel.ErrNotThere, func(op *kernel.RouteOp) { op.Verb = kernel.Delete }},
		{kernel.ErrInvalid, func(op *kernel.RouteOp) { op.Route.Src = b.far() }},
		{kernel.ErrInvalid, func(op *kernel.RouteOp) { op.Route.Dst = netip.Prefix{} }},
	}
	for size := 1; size <= 2048; size *= 2 {
		for _, i := range []int{size - 2, size - 1, size} {
			if i >= 0 && i < n && bad[i] == nil {
				k := kinds[len(bad)%len(kinds)]
				k.spoil(&ops[i])
				bad[i] = k.err
			}
		}
	}
	kinds[0].spoil(&ops[n-1])
	bad[n-1] = kinds[0].err
	got := map[int]error{}
	b.must(b.Kernel.WriteRoutes(b.ctx, ops, func(i int, err error) {
		if got[i] != nil {
			b.Errorf("operation %d reported twice", i)
		}
		got[i] = err
	}))
	for i := range n {
		if !errors.Is(got[i], bad[i]) {
			b.Errorf("operation %d: %v, want %v", i, got[i], bad[i])
		}
	}
	if there := len(b.list()); there != n-len(bad) {
		b.Errorf("%d routes installed, want %d", there, n-len(bad))
	}
	for i := range ops {
		ops[i].Verb = kernel.Delete
	}
	failed := 0
	b.must(b.Kernel.WriteRoutes(b.ctx, ops, func(int, error) { failed++ }))
	if failed != len(bad) {
		b.Errorf("%d deletes failed, want %d", failed, len(bad))
	}
	b.wantText()
}

func leaveEarly(b *bench) {
	for i := range 5 {
		b.must(b.write(kernel.Add, b.ours(i, b.gw(1))))
	}
	seen := 0
	b.must(b.Kernel.ListRoutes(b.ctx, b.v6, func(*kernel.Route) bool { seen++; return seen < 2 }))
	if seen != 2 {
		b.Errorf("yield called %d times, want 2", seen)
	}
	if all := b.list(); len(all) != 5 || slices.ContainsFunc(all, func(r kernel.Route) bool { return r.Dst.Addr().Is6() != b.v6 }) {
		b.Errorf("listed %v, want five routes of the family", all)
	}
}

// onlinkInside moves a block from a direct route to one through a gateway that lies in the block itself, as a VXLAN block
// moves into its tunnel, and adds one whose gateway another block's route leads to. IPv6 refuses both at first.
func onlinkInside(b *bench) {
	w1 := b.Wire("w1")
	b.address(w1, b.net(1))
	inside := func(n int) netip.Addr { return b.dst(n).Addr().Next() }
	b.must(b.write(kernel.Add, b.ours(1, b.gw(1))))
	tunnelled := b.ours(1)
	tunnelled.NextHops = []kernel.NextHop{{Gateway: inside(1), Link: w1, Onlink: true}}
	b.must(b.write(kernel.Replace, tunnelled))
	b.must(b.write(kernel.Replace, b.ours(1, b.gw(1))))
	other := b.ours(2)
	other.NextHops = []kernel.NextHop{{Gateway: inside(1), Link: w1, Onlink: true}}
	b.must(b.write(kernel.Add, other))
	b.wantText(
		fmt.Sprintf("%s via %s dev w0 proto 202 metric 1024", b.dst(1), b.gw(1)),
		fmt.Sprintf("%s via %s dev w1 proto 202 metric 1024 onlink", b.dst(2), inside(1)),
	)
}
