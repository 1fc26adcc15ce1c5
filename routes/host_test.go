package routes

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
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

func weighted(dev, gw string, weight uint8) NextHop {
	h := hop(dev, gw)
	h.Weight = weight
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
		{Dst: pfx("203.0.113.5/32"), Hops: []NextHop{weighted("eth0", "192.0.2.40", 3), weighted("eth0", "192.0.2.41", 1)}},
		{Dst: pfx("203.0.113.6/32"), Hops: []NextHop{weighted("eth0", "192.0.2.40", 3), weighted("eth1", "192.0.2.41", 1)}},
		{Dst: pfx("2001:dba::/64"), Metric: 1024, Hops: []NextHop{hop("eth1", "2001:db8::9")}},
		{Dst: pfx("100.64.0.0/24"), Hops: []NextHop{hop(DeviceVXLAN, "100.64.0.1")}},
		{Dst: pfx("100.65.0.0/24"), Hops: []NextHop{hop(DeviceIPIP, "192.0.2.3")}},
	})
}

func TestHostResolve(t *testing.T) {
	h := testHost()
	for _, c := range []struct{ addr, want, why string }{
		{"192.0.2.7", "192.0.2.7 eth0", ""},                                                   // on the link
		{"8.8.8.8", "192.0.2.254 eth0", ""},                                                   // default route
		{"203.0.113.1", "192.0.2.10 eth0", ""},                                                // lower metric
		{"203.0.113.65", "", "the host's route there, 203.0.113.64/26, is of type blackhole"}, // not the shorter prefix
		{"203.0.113.129", "192.0.2.10 eth0", ""},                                              // dead next hop: the kernel goes on to the shorter prefix
		{"203.0.113.193", "192.0.2.33 eth0", ""},                                              // one path of two is dead
		{"203.0.113.5", "192.0.2.40 eth0 weight 3, 192.0.2.41 eth0 weight 1", ""},             // equal paths
		{"203.0.113.6", "192.0.2.40 eth0", ""},                                                // one path of two is dead, and the other needs no weight
		{"100.64.0.7", "", "the host's route there, 100.64.0.0/24, leads into the tunnel vxlan.calico"},
		{"100.65.0.7", "", "the host's route there, 100.65.0.0/24, leads into the tunnel tunl0"},
		{"192.0.2.1", "", "it is an address of this host"},
		{"2001:db8::7", "2001:db8::7 eth0", ""},
		{"2001:db9::7", "", "no route of the host leads there"},
		{"2001:dba::7", "", "the host's route there, 2001:dba::/64, uses interface eth1, which is down"},
		{"198.51.100.9", "192.0.2.254 eth0", ""}, // its connected route went with the link
	} {
		var got []string
		for _, hop := range h.Resolve(addr(c.addr)) {
			s := hop.Gateway.String() + " " + hop.Device
			if hop.Weight != 0 {
				s += fmt.Sprint(" weight ", hop.Weight)
			}
			got = append(got, s)
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("Resolve(%s) = %q, want %q", c.addr, text, c.want)
		}
		if why := h.Unresolved(addr(c.addr)); why != c.why {
			t.Errorf("Unresolved(%s) = %q, want %q", c.addr, why, c.why)
		}
	}
	if h.Resolve(netip.Addr{}) != nil {
		t.Error("the zero address resolved")
	}
	if new(Host).Resolve(addr("192.0.2.1")) != nil {
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
			got := h.Resolve(a)
			want := best != nil && best.Type == 0 && best.Hops[0].Device == "eth0"
			if (got != nil) != want || want && (len(got) != 1 || got[0] != best.Hops[0]) {
				t.Fatalf("Resolve(%s) = %v; model %v in %v", a, got, best, table)
			}
		}
	}
}
