package routes

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }
func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func hop(dev, gw string) NextHop {
	h := NextHop{Device: dev}
	if gw != "" {
		h.Gateway = addr(gw)
	}
	return h
}

func testHost() *Host {
	return NewHost([]Interface{
		{Name: "eth1", Index: 3, Up: false, Addrs: []netip.Prefix{pfx("198.51.100.1/24")}},
		{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{pfx("192.0.2.1/24"), pfx("2001:db8::1/64")}},
	}, []netip.Prefix{pfx("10.0.0.9/32"), pfx("10.0.0.2/32")}, []HostRoute{
		{Dst: pfx("0.0.0.0/0"), Metric: 100, Hops: []NextHop{hop("eth0", "192.0.2.254")}},
		{Dst: pfx("192.0.2.0/24"), Hops: []NextHop{hop("eth0", "")}},
		{Dst: pfx("2001:db8::/64"), Metric: 256, Hops: []NextHop{hop("eth0", "")}},
		{Dst: pfx("203.0.113.0/24"), Metric: 20, Hops: []NextHop{hop("eth0", "192.0.2.20")}},
		{Dst: pfx("203.0.113.0/24"), Metric: 10, Hops: []NextHop{hop("eth0", "192.0.2.10")}},
		{Dst: pfx("203.0.113.64/26"), Type: kernel.Blackhole},
		{Dst: pfx("203.0.113.128/26"), Metric: 5, Hops: []NextHop{hop("eth1", "198.51.100.9")}},
		{Dst: pfx("203.0.113.192/26"), Metric: 5, Hops: []NextHop{hop("eth1", "198.51.100.9"), hop("eth0", "192.0.2.33")}},
		{Dst: pfx("100.64.0.0/24"), Hops: []NextHop{hop(DeviceVXLAN, "100.64.0.1")}},
		{Dst: pfx("100.65.0.0/24"), Hops: []NextHop{hop(DeviceIPIP, "192.0.2.3")}},
	})
}

func TestHostResolve(t *testing.T) {
	h := testHost()
	for _, c := range []struct {
		addr, want string
		ok         bool
	}{
		{"192.0.2.7", "192.0.2.7 eth0", true},      // on the link
		{"8.8.8.8", "192.0.2.254 eth0", true},      // default route
		{"203.0.113.1", "192.0.2.10 eth0", true},   // lower metric
		{"203.0.113.65", "", false},                // blackhole, not the shorter prefix
		{"203.0.113.129", "192.0.2.10 eth0", true}, // dead next hop: the kernel goes on to the shorter prefix
		{"203.0.113.193", "192.0.2.33 eth0", true}, // one path of two is dead
		{"100.64.0.7", "", false},                  // through our VXLAN device
		{"100.65.0.7", "", false},                  // through our IPIP device
		{"192.0.2.1", "", false},                   // our own address
		{"2001:db8::7", "2001:db8::7 eth0", true},  // IPv6
		{"2001:db9::7", "", false},                 // no route
		{"198.51.100.9", "192.0.2.254 eth0", true}, // its connected route went with the link
	} {
		got, ok := h.Resolve(addr(c.addr))
		text := ""
		if ok {
			text = got.Gateway.String() + " " + got.Device
		}
		if ok != c.ok || text != c.want {
			t.Errorf("Resolve(%s) = %q, %v, want %q, %v", c.addr, text, ok, c.want, c.ok)
		}
	}
	if _, ok := h.Resolve(netip.Addr{}); ok {
		t.Error("the zero address resolved")
	}
	if _, ok := new(Host).Resolve(addr("192.0.2.1")); ok {
		t.Error("the zero Host resolved")
	}
}

func TestHostByAddr(t *testing.T) {
	h := testHost()
	if i := h.ByAddr(addr("192.0.2.1")); i == nil || i.Name != "eth0" {
		t.Errorf("ByAddr(192.0.2.1) = %v", i)
	}
	if i := h.ByAddr(addr("192.0.2.2")); i != nil {
		t.Errorf("ByAddr of an address of the link, not the host = %v", i)
	}
	if i := h.ByName("eth1"); i == nil || i.Index != 3 {
		t.Errorf("ByName(eth1) = %v", i)
	}
	if h.Workloads[0] != pfx("10.0.0.2/32") {
		t.Errorf("workloads not sorted: %v", h.Workloads)
	}
}

// The naive model: every route looked at, longest prefix first, then metric.
func TestHostResolveAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var table []HostRoute
		for range 1 + rng.IntN(30) {
			a := netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(4)), byte(rng.IntN(256))})
			r := HostRoute{Dst: netip.PrefixFrom(a, 8+rng.IntN(25)).Masked(), Metric: uint32(rng.IntN(3))}
			switch rng.IntN(6) {
			case 0:
				r.Type = kernel.Unreachable
			case 1:
				r.Hops = []NextHop{hop(DeviceIPIP, "192.0.2.3")}
			default:
				r.Hops = []NextHop{hop("eth0", netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(250))}).String())}
			}
			table = append(table, r)
		}
		h := NewHost(nil, nil, table)
		for range 50 {
			a := netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(4)), byte(rng.IntN(256))})
			var best *HostRoute
			for i := range table {
				r := &table[i]
				if r.Dst.Contains(a) && (best == nil || r.Dst.Bits() > best.Dst.Bits() ||
					r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric) {
					best = r
				}
			}
			got, ok := h.Resolve(a)
			want := best != nil && best.Type == 0 && best.Hops[0].Device == "eth0"
			if ok != want || ok && got != best.Hops[0] {
				t.Fatalf("Resolve(%s) = %v, %v; model %v in %v", a, got, ok, best, table)
			}
		}
	}
}
