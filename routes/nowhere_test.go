package routes

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Nowhere and Resolve agree on every address, whatever the routes.
func TestNowhereIsWhereNothingResolves(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("v6 ", v6), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			address := func() netip.Addr {
				if v6 {
					return netip.AddrFrom16([16]byte{0x20, byte(rng.IntN(2)), byte(rng.IntN(4)), 15: byte(rng.IntN(256))})
				}
				return netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(4)), byte(rng.IntN(256))})
			}
			found, empty := 0, 0
			for range 300 {
				var table []HostRoute
				device, longest := []string{"eth0", "eth1", "down0", DeviceIPIP}, 32
				if v6 {
					longest = 24 // longer ones cut everything into too many ranges
				}
				healthy := rng.IntN(4) == 0
				if healthy {
					device = device[:1]
				}
				for i := range 1 + rng.IntN(12) {
					a := address()
					r := HostRoute{Dst: netip.PrefixFrom(a, rng.IntN(longest+1)).Masked(), Metric: uint32(rng.IntN(3))}
					if healthy && i == 0 {
						r.Dst = netip.PrefixFrom(a, 0).Masked()
					}
					for range 1 + rng.IntN(2) {
						r.Hops = append(r.Hops, NextHop{Device: device[rng.IntN(len(device))]})
					}
					if !healthy && rng.IntN(6) == 0 {
						r.Type, r.Hops = kernel.Blackhole, nil
					}
					table = append(table, r)
				}
				h := NewHost([]Interface{{Name: "down0", Index: 3}}, nil, table)
				use := func(hop NextHop) bool { return hop.Device != "eth1" }
				also := map[netip.Prefix]bool{}
				if rng.IntN(2) == 0 {
					a := address()
					also[netip.PrefixFrom(a, a.BitLen())] = rng.IntN(2) == 0
				}
				ranges, ok := h.Nowhere(v6, use, also)
				if !ok {
					t.Fatalf("%d routes are too many", len(table))
				}
				if len(ranges) == 0 {
					empty++
				}
				for range 100 {
					a := address()
					want := !slices.ContainsFunc(h.Resolve(a), use)
					if said, is := also[netip.PrefixFrom(a, a.BitLen())]; is {
						want = !said
					}
					in := 0
					for _, p := range ranges {
						if p.Contains(a) {
							in++
						}
					}
					if found += in; in > 1 || (in == 1) != want {
						t.Fatalf("%s is in %d of %v, but Resolve says %v; routes %v", a, in, ranges, h.Resolve(a), table)
					}
				}
			}
			if found < 1000 || empty == 0 {
				t.Errorf("%d addresses lead nowhere, %d tables without a gap: the test tests little", found, empty)
			}
		})
	}
}

func TestNowhereOfHosts(t *testing.T) {
	all := func(NextHop) bool { return true }
	eth := func(dst string) HostRoute { return HostRoute{Dst: pfx(dst), Hops: []NextHop{hop("eth0", "")}} }
	h := NewHost(nil, []netip.Prefix{pfx("200.0.0.7/32")}, []HostRoute{
		eth("0.0.0.0/1"), eth("200.0.0.7/32"), {Dst: pfx("10.0.0.8/32"), Type: kernel.Blackhole},
		eth("fe80::/64"), eth("8000::/1"), {Dst: pfx("fe80::/65"), Type: kernel.Blackhole}, {Dst: pfx("c000::/32"), Type: kernel.Unreachable},
	})
	if got, ok := h.Nowhere(false, all, map[netip.Prefix]bool{pfx("10.0.0.8/32"): true}); !ok || !slices.Equal(got, []netip.Prefix{pfx("128.0.0.0/1")}) {
		t.Errorf("IPv4: %v, %v", got, ok)
	}
	if got, ok := h.Nowhere(true, all, nil); !ok || !slices.Equal(got, []netip.Prefix{pfx("::/1"), pfx("c000::/32")}) {
		t.Errorf("IPv6, without link-local addresses: %v, %v", got, ok)
	}
	got, _ := NewHost(nil, nil, []HostRoute{eth("fe80::/64")}).Nowhere(true, all, nil)
	if len(got) != 10 || slices.ContainsFunc(got, func(p netip.Prefix) bool { return p.Overlaps(pfx("fe80::/10")) }) {
		t.Errorf("of a host with nothing but link-local addresses: %v", got)
	}
	var many []HostRoute
	for i := range nowhereRoutes + 1 {
		many = append(many, HostRoute{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24), Hops: []NextHop{hop("eth0", "")}})
	}
	if _, ok := NewHost(nil, nil, many).Nowhere(false, all, nil); ok {
		t.Error("too many routes were looked at")
	}
	if got, ok := NewHost(nil, nil, many[:nowhereRanges:nowhereRanges]).Nowhere(false, all, nil); !ok {
		t.Errorf("%d ranges", len(got))
	}
	for i := range many {
		many[i].Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 25)
	}
	if got, ok := NewHost(nil, nil, many[:nowhereRanges]).Nowhere(false, all, nil); ok {
		t.Errorf("%d ranges were found few enough", len(got))
	}
	if _, ok := new(Host).Nowhere(false, all, nil); ok {
		t.Error("the zero Host knows something")
	}
}
