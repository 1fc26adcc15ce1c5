package kernel

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/caracal-net/caracal/test/need"
)

// TestMutedAdds: of all events only those of the handle's own adds are missing, before and after either socket was opened again.
func TestMutedAdds(t *testing.T) {
	ns := need.Namespace(t)
	open := func(o Options) *linux {
		t.Helper()
		o.Namespace = ns.Path()
		k, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.Close() })
		return k.(*linux)
	}
	k, other := open(Options{MuteAdds: true}), open(Options{})
	write := func(k Kernel, v Verb, dsts ...string) {
		t.Helper()
		var ops []RouteOp
		for _, d := range dsts {
			ops = append(ops, RouteOp{Verb: v, Route: &Route{Dst: netip.MustParsePrefix(d), Metric: 1024, Type: Blackhole, Protocol: ProtoCaracal}})
		}
		if err := k.WriteRoutes(t.Context(), ops, func(i int, err error) { t.Error(ops[i], err) }); err != nil {
			t.Fatal(err)
		}
	}
	events, err := k.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for round, reopen := range []func(){
		func() {},
		func() { k.adds.drop() },
		func() { // an event socket that is opened when the other is known
			if events, err = k.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		reopen()
		write(k, Add, "10.1.0.0/26", "2001:db8:1::/64")
		write(k, Delete, "10.1.0.0/26")
		write(other, Add, "10.2.0.0/26", "2001:db8:2::/64")
		write(k, Add, "10.3.0.0/26")
		write(k, Replace, "10.4.0.0/26") // nothing was there, so the kernel tells of a new route, but it is not of an Add
		write(k, Delete, "10.3.0.0/26", "10.4.0.0/26", "2001:db8:1::/64")
		write(other, Delete, "10.2.0.0/26", "2001:db8:2::/64")
		var got []string
		for _, e := range next(t, events, "the last event", func(e Event) bool { return e.Deleted && e.Route.Dst == netip.MustParsePrefix("2001:db8:2::/64") }) {
			if e.Kind == EventRoute {
				got = append(got, map[bool]string{false: "new ", true: "gone "}[e.Deleted]+e.Route.Dst.String())
			}
		}
		want := []string{"gone 10.1.0.0/26", "new 10.2.0.0/26", "new 2001:db8:2::/64", "new 10.4.0.0/26", "gone 10.3.0.0/26", "gone 10.4.0.0/26",
			"gone 2001:db8:1::/64", "gone 10.2.0.0/26", "gone 2001:db8:2::/64"}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: heard %q, want %q", round, got, want)
		}
	}
}
