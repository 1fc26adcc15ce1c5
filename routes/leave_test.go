package routes

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// TestLeaveToCalico: every way that packets take is there afterwards as it was, under the protocol of the program that would have written it.
func TestLeaveToCalico(t *testing.T) {
	bubble(t, func(r *rig) {
		for _, l := range []kernel.Link{{Name: DeviceIPIP, Kind: "ipip", IPIP: &kernel.IPIPAttrs{}}, {Name: "cali1", Kind: "veth", MTU: 1500}} {
			_, err := r.far.CreateLink(r.t.Context(), l)
			r.must(err)
		}
		r.write(kernel.Add, r.their("10.77.0.0/26", "192.0.2.9"))
		set := vxlanSet(2)
		tunnel := viaDevice("10.65.1.0/26", "198.51.100.7", DeviceIPIP)
		tunnel.MTU = 1480
		two := via("10.2.0.0/26", "192.0.2.8")
		two.NextHops = append(two.NextHops, via("10.2.0.0/26", "192.0.2.9").NextHops...)
		set.Routes = append(set.Routes, tunnel, two, via("10.3.0.0/26", "192.0.2.8"), via("2001:db8:1::/64", "2001:db8::7"), via("10.77.0.0/26", "192.0.2.8"),
			Route{Dst: pfx("10.244.9.1/32"), Type: kernel.Unicast, NextHops: []NextHop{{Device: "cali1"}}})
		set.Links = append(set.Links, Link{Name: DeviceIPIP, Kind: "ipip", Adopt: true, MTU: 1480, Addresses: []netip.Prefix{pfx("10.244.9.1/32")}}, Link{Name: "cali1", Kind: "veth", Adopt: true, MTU: 1500})
		r.ready(set)
		r.wait()
		if n := len(r.ours()); n != 7 {
			t.Fatalf("%d routes of ours: %q", n, r.ours())
		}
		r.stop()
		r.must(LeaveToCalico(r.t.Context(), r.k, slog.New(slog.DiscardHandler)))
		r.wantOurs()
		got := r.routes(func(k *kernel.Route) bool { return k.Protocol != kernel.ProtoKernel })
		want := slices.Sorted(slices.Values([]string{
			"10.244.2.0/26 via 10.244.2.0 dev vxlan.calico metric 1024 onlink mtu 1450", // protocol 3, which is not printed
			"10.244.9.1 dev cali1 scope link metric 1024",
			"10.65.1.0/26 via 198.51.100.7 dev tunl0 proto bird metric 1024 onlink",
			"10.2.0.0/26 proto bird metric 1024 nexthop via 192.0.2.8 dev eth0 weight 1 onlink nexthop via 192.0.2.9 dev eth0 weight 1 onlink",
			"10.3.0.0/26 via 192.0.2.8 dev eth0 proto bird metric 1024 onlink",
			"10.77.0.0/26 via 192.0.2.9 dev eth0 proto static metric 1024 onlink",
			"2001:db8:1::/64 via 2001:db8::7 dev eth0 proto bird metric 1024 onlink",
		}))
		if !slices.Equal(got, want) {
			t.Errorf("left are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		if r.device(DeviceVXLAN) == nil {
			t.Error("vxlan.calico is gone")
		}
		if left := r.kernelObjects(); len(left) != 0 {
			t.Errorf("nexthop objects are left: %q", left)
		}
		r.must(LeaveToCalico(r.t.Context(), r.k, slog.New(slog.DiscardHandler))) // again, with nothing to do
	})
}
