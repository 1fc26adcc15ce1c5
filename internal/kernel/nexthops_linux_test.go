package kernel

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/test/need"
)

func randomNexthop(r *rand.Rand) *Nexthop {
	n := &Nexthop{ID: 1 + r.Uint32N(1<<32-1), Protocol: Protocol(r.Uint32())}
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(5) {
			n.Group = append(n.Group, GroupMember{ID: 1 + r.Uint32N(1000), Weight: uint16(1 + r.IntN(maxWeight))})
		}
		return n
	}
	n.V6 = r.IntN(2) == 1
	if r.IntN(4) == 0 {
		n.Blackhole = true
		return n
	}
	n.Link, n.Onlink = 1+r.IntN(1e6), r.IntN(2) == 1
	switch {
	case r.IntN(4) == 0:
	case n.V6:
		n.Gateway = netip.AddrFrom16([16]byte{0xfd, 15: byte(r.Uint32())})
	default:
		n.Gateway = netip.AddrFrom4([4]byte{10, byte(r.Uint32()), byte(r.Uint32()), 1})
	}
	return n
}

// TestNexthopCodec: what is encoded for the kernel is decoded as the same object, and a delete says no more than the number.
func TestNexthopCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	for range 5000 {
		want := randomNexthop(r)
		for _, verb := range []Verb{Add, Replace, Delete} {
			b, err := appendNexthopOp(nil, NexthopOp{verb, want})
			if err != nil {
				t.Fatalf("%+v: %v", want, err)
			}
			finish(b, 7)
			m, rest, err := nextMessage(b)
			if err != nil || len(rest) != 0 || len(b)%4 != 0 {
				t.Fatalf("%+v: message %+v, %d bytes left, %v", want, m, len(rest), err)
			}
			flags := map[Verb]uint16{Add: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Replace: unix.NLM_F_REPLACE}[verb]
			typ := map[Verb]uint16{Add: unix.RTM_NEWNEXTHOP, Replace: unix.RTM_NEWNEXTHOP, Delete: unix.RTM_DELNEXTHOP}[verb]
			if m.typ != typ || m.flags != flags|unix.NLM_F_REQUEST {
				t.Fatalf("%s: type %d with flags %#x", NexthopOp{verb, want}, m.typ, m.flags)
			}
			var got Nexthop
			if !parseNexthop(m.payload, &got, nil) {
				t.Fatalf("%+v is not read back", want)
			}
			if verb == Delete && !got.Equal(&Nexthop{ID: want.ID}) || verb != Delete && !got.Equal(want) {
				t.Fatalf("%s wrote %+v, read %+v", verb, want, got)
			}
		}
	}
}

// TestRouteByObject: a route written with an object names it and nothing that the kernel refuses beside it, even as it was read.
func TestRouteByObject(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	for range 3000 {
		route := randomRoute(r)
		route.NexthopID = 1 + r.Uint32N(1<<32-1)
		for _, verb := range []Verb{Add, Replace, Delete} {
			b, err := appendRouteOp(nil, RouteOp{verb, route})
			if err != nil {
				t.Fatal(err)
			}
			finish(b, 7)
			m, _, err := nextMessage(b)
			var got Route
			if err != nil || !parseRoute(m.payload, &got, nil) {
				t.Fatalf("%+v is not read back: %v", route, err)
			}
			wantType := map[Verb]RouteType{Add: Unicast, Replace: Unicast, Delete: 0}[verb]
			if got.NexthopID != route.NexthopID || len(got.NextHops) != 0 || got.Type != wantType {
				t.Fatalf("%s of %+v says %+v", verb, route, got)
			}
		}
	}
}

func TestNexthopEqual(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 26))
	for range 2000 {
		n := randomNexthop(r)
		same := *n
		same.Group = slices.Clone(n.Group)
		if !n.Equal(&same) {
			t.Fatalf("%+v is not equal to itself", n)
		}
		other := randomNexthop(r)
		other.ID, other.Protocol = n.ID, n.Protocol
		name := func(int) string { return "w" }
		if n.Equal(other) != other.Equal(n) || n.Equal(other) && FormatNexthop(n, name) != FormatNexthop(other, name) {
			t.Fatalf("%+v and %+v: equal one way or with other words", n, other)
		}
		for _, change := range []func(n *Nexthop){
			func(n *Nexthop) { n.ID++ }, func(n *Nexthop) { n.Protocol++ }, func(n *Nexthop) { n.Other = true },
			func(n *Nexthop) { n.Group = append(n.Group, GroupMember{ID: 7}) },
		} {
			c := same
			c.Group = slices.Clone(n.Group)
			if change(&c); n.Equal(&c) {
				t.Fatalf("%+v equals %+v", n, c)
			}
		}
	}
}

// TestForeignNexthops: what ip(8) writes is read, and printed, as ip(8) does; what we have no words for is marked.
func TestForeignNexthops(t *testing.T) {
	ns := need.Namespace(t)
	need.Tool(t, "ip", "iproute2")
	k, err := Open(Options{Namespace: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	ip(t, ns, "link", "add", "w0", "up", "type", "veth", "peer", "name", "w1")
	ip(t, ns, "link", "set", "w1", "up")
	ip(t, ns, "addr", "add", "192.0.2.1/24", "dev", "w0")
	want := []string{
		"id 1 via 192.0.2.7 dev w0", "id 2 via 192.0.2.8 dev w0 proto 202", "id 3 via 203.0.113.9 dev w0 proto bird onlink",
		"id 4 group 1,3/2", "id 5 blackhole proto static", "id 6 dev w0 proto 202", "id 7 via fe80::9 dev w0", "id 4294967295 group 7",
	}
	for _, n := range want {
		ip(t, ns, append([]string{"nexthop", "add"}, strings.Fields(n)...)...)
	}
	out, err := ns.Run("ip", "nexthop", "show")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for line := range strings.Lines(out) {
		shown = append(shown, strings.Join(strings.Fields(strings.NewReplacer(" scope link", "", " scope host", "").Replace(line)), " "))
	}
	ip(t, ns, "nexthop", "add", "id", "900", "via", "192.0.2.7", "fdb")
	ip(t, ns, "nexthop", "add", "id", "901", "group", "1/2", "type", "resilient", "buckets", "8")
	var got []string
	others := 0
	err = k.ListNexthops(t.Context(), func(n *Nexthop) bool {
		if n.Other {
			others++
		} else {
			got = append(got, FormatNexthop(n, func(int) string { return "w0" }))
		}
		return true
	})
	if err != nil || others != 2 {
		t.Errorf("%d objects are marked as having more, want 2; %v", others, err)
	}
	if !slices.Equal(got, shown) || len(got) != len(want) {
		t.Errorf("ours\n%s\nip's\n%s", strings.Join(got, "\n"), strings.Join(shown, "\n"))
	}
}

// TestDumpOfManyNexthops: a dump that takes many reads is whole.
func TestDumpOfManyNexthops(t *testing.T) {
	r := newRig(t, 1, false)
	const n = 5000
	var ops []NexthopOp
	for i := range n {
		ops = append(ops, NexthopOp{Add, &Nexthop{ID: uint32(n - i), Protocol: ProtoCaracal, Gateway: r.gw, Link: r.link}})
	}
	if err := r.WriteNexthops(t.Context(), ops, func(_ int, err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	next := uint32(1)
	list := func() {
		if err := r.ListNexthops(t.Context(), func(o *Nexthop) bool {
			if o.ID != next {
				t.Fatalf("object %d, want %d", o.ID, next)
			}
			next++
			return true
		}); err != nil || next != n+1 {
			t.Fatalf("%d objects, %v; want %d", next-1, err, n)
		}
		next = 1
	}
	if allocs := testing.AllocsPerRun(3, list); allocs > 40 {
		t.Errorf("reading %d objects allocates %v times, want no more than a dump itself", n, allocs)
	}
}
