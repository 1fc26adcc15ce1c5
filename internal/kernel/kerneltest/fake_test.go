package kerneltest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/caracal-net/caracal/internal/kernel"
)

// exercise meets every kind of fault at least once when it runs against a Fake with that fault in its plan.
func exercise(t *testing.T, f *Fake) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if events, err := f.Watch(ctx); err == nil {
		go func() {
			for range events {
			}
		}()
	}
	wire := f.Wire("uplink")
	_ = f.AddAddress(ctx, kernel.Address{Link: wire, Prefix: netip.MustParsePrefix("192.0.2.1/24")})
	_ = f.Foreign().AddAddress(ctx, kernel.Address{Link: wire, Prefix: netip.MustParsePrefix("198.51.100.1/24")})
	_, _ = f.CreateLink(ctx, kernel.Link{Name: "vxlan.calico", Kind: "vxlan", VXLAN: &kernel.VXLANAttrs{VNI: 4096, Parent: wire}})
	_ = f.SetLink(ctx, wire, 1400, [6]byte{}, true)
	_, _ = f.ListLinks(ctx)
	_, _ = f.ListAddresses(ctx)
	_, _ = f.ListNeighbours(ctx, wire)
	route := &kernel.Route{Dst: netip.MustParsePrefix("10.0.0.0/26"), Metric: 1024, Protocol: kernel.ProtoCaracal,
		NextHops: []kernel.NextHop{{Gateway: netip.MustParseAddr("198.51.100.2"), Link: wire}}}
	_ = f.WriteRoutes(ctx, []kernel.RouteOp{{Verb: kernel.Add, Route: route}}, func(int, error) {})
	_ = f.WriteNeighbours(ctx, []kernel.NeighbourOp{{Neighbour: kernel.Neighbour{Link: wire, Addr: netip.MustParseAddr("192.0.2.2"),
		MAC: [6]byte{2}, Permanent: true}}}, func(int, error) {})
	_, _ = f.SupportsNexthops(ctx)
	object := &kernel.Nexthop{ID: 1, Protocol: kernel.ProtoCaracal, Blackhole: true}
	_ = f.WriteNexthops(ctx, []kernel.NexthopOp{{Verb: kernel.Add, Nexthop: object}}, func(int, error) {})
	_ = f.ListNexthops(ctx, func(*kernel.Nexthop) bool { return true })
	_, _ = f.ReadSysctl(ctx, kernel.SysctlIPForward)
	_ = f.WriteSysctl(ctx, kernel.SysctlIPForward, 1)
	_ = f.ListNetconf(ctx, false, func(kernel.Netconf) bool { return true })
	_ = f.ListRoutes(ctx, false, func(*kernel.Route) bool { return true })
	_, _ = f.Lookup(ctx, netip.MustParseAddr("10.0.0.1"))
	_ = f.DeleteAddress(ctx, kernel.Address{Link: wire, Prefix: netip.MustParsePrefix("192.0.2.1/24")})
	_ = f.DeleteLink(ctx, wire)
}

func TestEveryFaultFires(t *testing.T) {
	all := slices.Concat(Faults(), NexthopFaults(), SysctlFaults())
	if len(Faults()) == 0 || len(NexthopFaults()) == 0 || len(SysctlFaults()) == 0 {
		t.Fatal("there are no faults to test")
	}
	for _, fault := range all {
		t.Run(fault.String(), func(t *testing.T) {
			f := NewFake()
			injected := f.Inject(fault)
			exercise(t, f)
			if injected.Fired() != 1 {
				t.Errorf("fault fired %d times, want 1", injected.Fired())
			}
		})
	}
}

func TestFaultEffects(t *testing.T) {
	ctx := t.Context()
	ops := func(wire int) []kernel.RouteOp {
		var ops []kernel.RouteOp
		for i := range 4 {
			ops = append(ops, kernel.RouteOp{Verb: kernel.Add, Route: &kernel.Route{
				Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24), Metric: 1024, Protocol: kernel.ProtoCaracal,
				NextHops: []kernel.NextHop{{Link: wire}}}})
		}
		return ops
	}
	tests := []struct {
		kind      Kind
		transport bool
		reported  []int
		installed int
	}{
		{RouteOpFails, false, []int{1}, 3},
		{RouteBatchBreaks, true, nil, 1},
		{RouteAcksLost, true, nil, 4},
	}
	for _, tc := range tests {
		t.Run(string(tc.kind), func(t *testing.T) {
			f := NewFake()
			wire := f.Wire("w")
			injected := f.Inject(Fault{Kind: tc.kind, Nth: 2})
			var reported []int
			err := f.WriteRoutes(ctx, ops(wire), func(i int, _ error) { reported = append(reported, i) })
			if (err != nil) != tc.transport {
				t.Errorf("transport error %v, want one: %v", err, tc.transport)
			}
			n := 0
			if err := f.ListRoutes(ctx, false, func(*kernel.Route) bool { n++; return true }); err != nil {
				t.Fatal(err)
			}
			if n != tc.installed || len(reported) != len(tc.reported) || injected.Fired() != 1 {
				t.Errorf("%d installed, reported %v, fired %d; want %d, %v, 1", n, reported, injected.Fired(), tc.installed, tc.reported)
			}
		})
	}
}

func TestLostEventsLeaveAMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		ctx, cancel := context.WithCancel(t.Context())
		events, err := f.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		injected := f.Inject(Fault{Kind: EventsLost, Nth: 4, Times: 4})
		f.Wire("a") // four events: settings of two families, created, up
		f.Wire("b")
		synctest.Wait()
		var kinds []kernel.EventKind
		for len(events) > 0 {
			e := <-events
			kinds = append(kinds, e.Kind)
			if e.Kind == kernel.EventLost && !errors.Is(e.Err, kernel.ErrOverflow) {
				t.Errorf("EventLost carries %v, want an overflow", e.Err)
			}
		}
		want := []kernel.EventKind{kernel.EventSysctl, kernel.EventSysctl, kernel.EventLink, kernel.EventLost, kernel.EventLink}
		if !slices.Equal(kinds, want) || injected.Fired() != 4 {
			t.Errorf("events %v, fired %d; want %v, 4", kinds, injected.Fired(), want)
		}
		cancel()
		if _, open := <-events; open {
			t.Error("the channel is open after its context ended")
		}
	})
}

func TestUnknownFaultPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an unknown kind of fault was taken")
		}
	}()
	NewFake().Inject(Fault{Kind: "no-such-thing"})
}

// TestBefore has another program take an interface away between a test's wish and the kernel's deed.
func TestBefore(t *testing.T) {
	f := NewFake()
	wire := f.Wire("w")
	calls := 0
	f.Before(func(method string) {
		if calls++; method == "WriteRoutes" {
			if err := f.Foreign().DeleteLink(t.Context(), wire); err != nil {
				t.Error(err)
			}
		}
	})
	var failure error
	route := &kernel.Route{Dst: netip.MustParsePrefix("10.0.0.0/26"), NextHops: []kernel.NextHop{{Link: wire}}}
	err := f.WriteRoutes(t.Context(), []kernel.RouteOp{{Route: route}}, func(_ int, err error) { failure = err })
	if err != nil || !errors.Is(failure, kernel.ErrNoDevice) || calls != 1 {
		t.Errorf("%v, %v after %d calls; want the operation refused for want of a device after 1", err, failure, calls)
	}
}

func TestWithoutIPIP(t *testing.T) {
	f := NewFake()
	f.WithoutIPIP()
	if _, err := f.CreateLink(t.Context(), kernel.Link{Name: "tunl0", Kind: "ipip"}); !errors.Is(err, kernel.ErrUnsupported) {
		t.Errorf("error %v, want %v", err, kernel.ErrUnsupported)
	}
}
