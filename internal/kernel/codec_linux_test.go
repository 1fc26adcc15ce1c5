package kernel

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// randomRoute makes a route in the form that the kernel gives it back in.
func randomRoute(r *rand.Rand) *Route {
	v6 := r.IntN(2) == 1
	addr := func() netip.Addr {
		if v6 {
			a := [16]byte{0xfd}
			for i := 1; i < len(a); i++ {
				a[i] = byte(r.Uint32())
			}
			return netip.AddrFrom16(a)
		}
		var a [4]byte
		binary.NativeEndian.PutUint32(a[:], r.Uint32())
		return netip.AddrFrom4(a)
	}
	dst := addr()
	route := &Route{
		Dst: netip.PrefixFrom(dst, r.IntN(dst.BitLen()+1)).Masked(), Table: []uint32{TableMain, 100, 70000}[r.IntN(3)], Metric: 1 + r.Uint32N(1e6),
		Type: []RouteType{Unicast, Blackhole, Unreachable, Prohibit, Throw}[r.IntN(5)], Protocol: Protocol(r.Uint32()),
	}
	if !v6 {
		route.TOS = byte(r.IntN(8)) << 2
	}
	if r.IntN(2) == 1 {
		route.Src = addr()
	}
	if r.IntN(2) == 1 {
		route.MTU = 1 + r.Uint32N(65535)
	}
	if route.Type != Unicast {
		return route
	}
	for range 1 + r.IntN(4) {
		h := NextHop{Link: 1 + r.IntN(1e6), Onlink: r.IntN(2) == 1, Gateway: addr()}
		if !v6 && r.IntN(3) == 0 {
			h.Gateway = netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(r.Uint32())}) // RTA_VIA
		}
		h.Weight = uint8(1 + r.IntN(255))
		route.NextHops = append(route.NextHops, h)
	}
	if len(route.NextHops) == 1 {
		route.NextHops[0].Weight = 1
		if r.IntN(3) == 0 {
			route.NextHops[0].Gateway = netip.Addr{}
			if !v6 {
				route.Scope = ScopeLink
			}
		}
	}
	return route
}

// TestRouteCodec: what is encoded for the kernel is decoded as the same route.
func TestRouteCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		want := randomRoute(r)
		b, err := appendRouteOp(nil, RouteOp{Verb: Add, Route: want})
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		finish(b, 7)
		m, rest, err := nextMessage(b)
		if err != nil || len(rest) != 0 || m.typ != unix.RTM_NEWROUTE || m.seq != 7 || len(b)%4 != 0 {
			t.Fatalf("%+v: message %+v, %d bytes left, %v", want, m, len(rest), err)
		}
		var got Route
		if !parseRoute(m.payload, &got, nil) {
			t.Fatalf("%+v is not read back", want)
		}
		if len(got.NextHops) == 0 {
			got.NextHops = nil
		}
		if !reflect.DeepEqual(&got, want) {
			t.Fatalf("wrote %+v\nread  %+v", want, got)
		}
	}
}

// TestDeleteNamesNoMoreThanIsOurs reads what a delete says.
func TestDeleteNamesNoMoreThanIsOurs(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		route := randomRoute(r)
		b, err := appendRouteOp(nil, RouteOp{Verb: Delete, Route: route})
		if err != nil {
			t.Fatal(err)
		}
		finish(b, 1)
		m, _, err := nextMessage(b)
		var got Route
		if err != nil || m.typ != unix.RTM_DELROUTE || m.flags != unix.NLM_F_REQUEST || !parseRoute(m.payload, &got, nil) {
			t.Fatalf("message %+v, %v", m, err)
		}
		if got.Dst != route.Dst || got.Protocol != route.Protocol || got.Metric != route.Metric || got.Table != route.Table ||
			got.TOS != route.TOS || got.Type != route.Type || got.Scope != scopeNowhere {
			t.Fatalf("delete of %+v says %+v", route, got)
		}
		want := 0
		if route.Dst.Addr().Is6() {
			want = len(route.NextHops)
		}
		if len(got.NextHops) != want {
			t.Fatalf("delete of %+v names next hops %v", route, got.NextHops)
		}
	}
}

// TestAddressCodec: whose an address is shows in what a kernel tells of it that knows IFA_PROTO, and of one that does not.
func TestAddressCodec(t *testing.T) {
	for _, p := range []string{"169.254.0.179/32", "fd12::1/128"} {
		want := Address{Link: 7, Prefix: netip.MustParsePrefix(p), Protocol: ProtoCaracal}
		m := appendMarked(nil, want)
		finish(m, 1)
		told, _, err := nextMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		attrs := func(keep func(attr) bool) []byte {
			out := slices.Clone(told.payload[:unix.SizeofIfAddrmsg])
			for rest := told.payload[unix.SizeofIfAddrmsg:]; len(rest) > 0; {
				a, more, ok := nextAttr(rest)
				if !ok {
					t.Fatal("no attribute")
				}
				if keep(a) {
					out = append(out, rest[:len(rest)-len(more)]...)
				}
				rest = more
			}
			return out
		}
		foreign := want
		foreign.Protocol = 0
		for _, c := range []struct {
			name    string
			payload []byte
			want    Address
		}{
			{"a kernel of today", told.payload, want},
			{"a kernel before 5.18", attrs(func(a attr) bool { return a.typ != ifaProto }), want},
			{"no mark", attrs(func(a attr) bool { return a.typ != ifaProto && a.typ != unix.IFA_RT_PRIORITY }), foreign},
			{"another metric", appendUint32(attrs(func(a attr) bool { return a.typ != ifaProto && a.typ != unix.IFA_RT_PRIORITY }), unix.IFA_RT_PRIORITY, 202), foreign},
			{"written over", appendUint32(attrs(func(a attr) bool { return a.typ != unix.IFA_FLAGS }), unix.IFA_FLAGS, unix.IFA_F_NODAD), foreign},
			{"the kernel's own", append(appendAttr(attrs(func(a attr) bool { return a.typ != ifaProto }), ifaProto, 1), 2, 0, 0, 0), foreign},
		} {
			if got, ok := parseAddress(c.payload); !ok || got != c.want {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
		}
	}
}

func seeds(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		b, err := appendRouteOp(nil, RouteOp{Verb: Verb(r.IntN(3)), Route: randomRoute(r)})
		if err != nil {
			f.Fatal(err)
		}
		finish(b, 1)
		f.Add(b)
	}
	for _, fdb := range []bool{false, true} {
		b, err := appendNeighbourOp(nil, NeighbourOp{Neighbour: Neighbour{Link: 3, FDB: fdb, Addr: netip.MustParseAddr("192.0.2.1"), MAC: [6]byte{1}, Permanent: true}})
		if err != nil {
			f.Fatal(err)
		}
		finish(b, 1)
		f.Add(b)
	}
	for range 10 {
		b, err := appendNexthopOp(nil, NexthopOp{Nexthop: randomNexthop(r)})
		if err != nil {
			f.Fatal(err)
		}
		finish(b, 1)
		f.Add(b)
	}
	b := appendMarked(nil, Address{Link: 3, Prefix: netip.MustParsePrefix("169.254.0.179/32"), Protocol: ProtoCaracal})
	finish(b, 1)
	f.Add(b)
	netconf := appendUint32([]byte{unix.AF_INET, 0, 0, 0}, netconfaIfindex, 2)
	f.Add(msg(unix.RTM_NEWNETCONF, 0, 1, netconf...)) // of another setting
	f.Add(msg(unix.RTM_NEWNETCONF, 0, 1, appendUint32(slices.Clone(netconf), netconfaRPFilter, RPFilterLoose)...))
	f.Add(msg(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, 1, code(unix.EINVAL)...))
	f.Add(msg(unix.NLMSG_DONE, 0, 1))
	link := append([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, appendUint32(nil, unix.IFLA_MTU, 1500)...)
	f.Add(msg(unix.RTM_NEWLINK, 0, 1, append(link, 7, 0, 3, 0, 'l', 'o', 0, 0)...))
}

// FuzzEvent feeds arbitrary messages to everything that reads them: nothing may panic, and what is read is whole.
func FuzzEvent(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p parser
		for len(b) > 0 {
			m, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
			if m.typ == unix.NLMSG_ERROR || m.typ == unix.NLMSG_DONE {
				_ = m.outcome()
			}
			if m.typ == unix.RTM_NEWLINK || m.typ == unix.RTM_DELLINK {
				continue // read by the library, whose messages come from the kernel alone
			}
			e, ok := p.event(m)
			if !ok {
				continue
			}
			switch e.Kind {
			case EventRoute:
				if !e.Route.Dst.IsValid() || e.Route.Table != TableMain {
					t.Errorf("route %+v", e.Route)
				}
				_ = FormatRoute(&e.Route, func(int) string { return "x" })
			case EventAddress:
				if !e.Address.Prefix.IsValid() {
					t.Errorf("address %+v", e.Address)
				}
			case EventNexthop:
				if e.Nexthop.ID == 0 {
					t.Errorf("nexthop %+v", e.Nexthop)
				}
				_ = FormatNexthop(&e.Nexthop, func(int) string { return "x" })
			case EventSysctl:
				if e.Netconf.Link == 0 || e.Netconf.Forwarding < Unsaid || e.Netconf.Forwarding > 1 || e.Netconf.RPFilter < Unsaid || e.Netconf.RPFilter > RPFilterLoose {
					t.Errorf("settings %+v", e.Netconf)
				}
			case EventNeighbour:
				if !e.Neighbour.Addr.IsValid() {
					t.Errorf("neighbour %+v", e.Neighbour)
				}
			}
		}
	})
}

func TestSlabsDoNotOverlap(t *testing.T) {
	var p parser
	r := rand.New(rand.NewPCG(7, 8))
	var got, want []*Route
	for len(want) < 500 {
		route := randomRoute(r)
		if route.Table != TableMain {
			continue
		}
		b, err := appendRouteOp(nil, RouteOp{Verb: Add, Route: route})
		if err != nil {
			t.Fatal(err)
		}
		finish(b, 1)
		m, _, _ := nextMessage(b)
		e, ok := p.event(m)
		if !ok {
			t.Fatalf("%+v is not read", route)
		}
		if len(e.Route.NextHops) == 0 {
			e.Route.NextHops = nil
		}
		got, want = append(got, &e.Route), append(want, route)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("event %d became %+v, was %+v", i, got[i], want[i])
		}
	}
}
