package routes

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/gaissmai/bart"

	"github.com/caracal-net/caracal/internal/kernel"
)

func TestOwnership(t *testing.T) {
	within := new(bart.Lite)
	within.Insert(pfx("10.0.0.0/8"))
	names := func(i int) string {
		return map[int]string{1: "lo", 2: "eth0", 3: DeviceIPIP, 4: DeviceVXLAN, 5: DeviceVXLAN6, 6: "cali123"}[i]
	}
	route := func(p kernel.Protocol, links ...int) kernel.Route {
		r := kernel.Route{Dst: pfx("10.1.0.0/26"), Protocol: p}
		for _, l := range links {
			r.NextHops = append(r.NextHops, kernel.NextHop{Link: l})
		}
		return r
	}
	outside := func(r kernel.Route) kernel.Route {
		r.Dst = pfx("172.16.0.0/26")
		return r
	}
	for _, c := range []struct {
		what                  string
		r                     kernel.Route
		plain, birds, felixes bool
	}{
		{"our number, anywhere", route(202, 2), true, true, true},
		{"our number, blackhole", route(202), true, true, true},
		{"our number, to a workload", route(202, 6), true, true, true},
		{"BIRD on tunl0", route(12, 3), false, true, false},
		{"BIRD on a NIC", route(12, 2), false, true, false},
		{"BIRD on tunl0 and a NIC", route(12, 3, 2), false, true, false},
		{"BIRD blackhole", route(12), false, true, false},
		{"BIRD on tunl0, outside", outside(route(12, 3)), false, false, false},
		{"BIRD default route", kernel.Route{Dst: pfx("0.0.0.0/0"), Protocol: 12}, false, false, false},
		{"BIRD to a workload", route(12, 6), false, false, false},
		{"Felix direct", route(80, 2), false, false, true},
		{"Felix blackhole", route(80), false, false, true},
		{"Felix on tunl0", route(80, 3), false, false, true},
		{"Felix to a workload", route(80, 6), false, false, false},
		{"boot on vxlan.calico", route(3, 4), false, false, true},
		{"boot on vxlan.calico, outside", outside(route(3, 4)), false, false, false},
		{"Felix blackhole outside", outside(route(80)), false, false, false},
		{"our number, outside", outside(route(202)), true, true, true},
		{"boot on vxlan-v6.calico", route(3, 5), false, false, true},
		{"boot on a NIC", route(3, 2), false, false, false},
		{"boot to a workload", route(3, 6), false, false, false},
		{"boot on an interface without a name", route(3, 77), false, false, false},
		{"kernel on vxlan.calico", route(2, 4), false, false, false},
		{"Felix on an interface without a name", route(80, 77), false, false, false},
		{"static", route(4, 2), false, false, false},
		{"zebra", route(11, 4), false, false, false},
	} {
		for _, o := range []struct {
			adopt Adoption
			want  bool
		}{{Adoption{}, c.plain}, {Adoption{BIRD: true}, c.birds}, {Adoption{Felix: true}, c.felixes}, {Adoption{true, true}, c.birds || c.felixes}} {
			if got := (ownership{adopt: o.adopt, within: within}).ours(&c.r, names); got != o.want {
				t.Errorf("%s with %+v: ours is %v, want %v", c.what, o.adopt, got, o.want)
			}
			if got := (ownership{adopt: o.adopt}).ours(&c.r, names); got != (c.r.Protocol == kernel.ProtoCaracal) {
				t.Errorf("%s with %+v, within nothing: ours is %v", c.what, o.adopt, got)
			}
		}
	}
}

// Adopted leftovers under the same key are replaced in place, others go once every source is in sync, and without the
// option nothing of them is touched.
func TestAdoption(t *testing.T) {
	felix := func(r *rig, dst, gw string, metric uint32) kernel.Route {
		k := r.their(dst, gw)
		k.Protocol, k.Metric = kernel.ProtoFelix, metric
		return k
	}
	for _, adopt := range []bool{false, true} {
		bubble(t, func(r *rig) {
			r.write(kernel.Add, felix(r, "10.1.0.0/26", "192.0.2.7", Metric))
			r.write(kernel.Add, felix(r, "10.2.0.0/26", "192.0.2.7", 0))
			theirs := func() []string {
				return r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoFelix })
			}
			before := theirs()
			r.start(Options{Adopt: Adoption{Felix: adopt}})
			r.p.Within(pfx("10.0.0.0/8"))
			r.p.Expect(OwnerVXLAN)
			r.apply(whole(via("10.1.0.0/26", "192.0.2.8"), via("10.2.0.0/26", "192.0.2.8")))
			r.wait()
			if !adopt {
				r.p.InSync(OwnerVXLAN)
				r.wantOurs(direct("10.2.0.0/26", "192.0.2.8"))
				if got := theirs(); !slices.Equal(got, before) {
					t.Errorf("Felix's routes were touched: %v, before %v", got, before)
				}
				return
			}
			r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"), direct("10.2.0.0/26", "192.0.2.8"))
			if n := len(theirs()); n != 1 {
				t.Errorf("%d of Felix's routes before in-sync, want the one of another metric", n)
			}
			r.p.InSync(OwnerVXLAN)
			r.wait()
			if n := len(theirs()); n != 0 {
				t.Errorf("%d of Felix's routes are left", n)
			}
		})
	}
}

func TestCleanup(t *testing.T) {
	bubble(t, func(r *rig) {
		theirs := r.their("10.77.0.0/26", "192.0.2.9")
		r.write(kernel.Add, theirs)
		tunl0, err := r.far.CreateLink(r.t.Context(), kernel.Link{Name: DeviceIPIP, Kind: "ipip", IPIP: &kernel.IPIPAttrs{}})
		r.must(err)
		set := vxlanSet(2, 3)
		set.Routes = append(set.Routes, via("2001:db8:1::/64", "2001:db8::7"))
		set.Links = append(set.Links, Link{Name: DeviceIPIP, Kind: "ipip", Adopt: true, MTU: 1480, Addresses: []netip.Prefix{pfx("10.244.9.1/32")}})
		r.ready(set)
		r.wantOurs(append(vxlanRoutes(2, 3), direct("2001:db8:1::/64", "2001:db8::7"))...)
		r.stop()
		pod := r.wire("cali1")
		for a, protocol := range map[string]kernel.Protocol{"169.254.0.179/32": kernel.ProtoCaracal, "169.254.0.180/32": 0} {
			r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: pod, Prefix: pfx(a), Protocol: protocol}))
		}
		routed := r.wire("cali2") // the CNI plugin's route would go with the address
		stays := kernel.Address{Link: routed, Prefix: pfx("169.254.0.179/32"), Protocol: kernel.ProtoCaracal}
		r.must(r.far.AddAddress(r.t.Context(), stays))
		r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: routed, Prefix: pfx("fd12::1/128"), Protocol: kernel.ProtoCaracal}))
		cni := kernel.Route{Dst: pfx("10.244.0.5/32"), Type: kernel.Unicast, Protocol: kernel.ProtoBoot, NextHops: []kernel.NextHop{{Link: routed}}}
		r.write(kernel.Add, cni)
		r.must(Cleanup(r.t.Context(), r.k, false, nil))
		r.wantOurs()
		if n := len(r.routes(func(k *kernel.Route) bool { return k.Dst == cni.Dst })); n != 1 {
			t.Errorf("%d routes of the CNI plugin are left", n)
		}
		if r.device(DeviceVXLAN) != nil || r.device(DeviceIPIP) == nil || !r.device(DeviceIPIP).Up {
			t.Error("vxlan.calico must go, tunl0 must stay")
		}
		addrs, err := r.far.ListAddresses(r.t.Context())
		r.must(err)
		kept := slices.DeleteFunc(slices.Clone(addrs), func(a kernel.Address) bool { return a.Link != pod || a.Prefix.Addr().Is6() })
		if marked := slices.DeleteFunc(slices.Clone(addrs), func(a kernel.Address) bool { return a.Protocol == 0 }); !slices.Equal(marked, []kernel.Address{stays}) {
			t.Errorf("of ours there are still %v, want %v", marked, stays)
		}
		if len(kept) != 1 || kept[0].Prefix != pfx("169.254.0.180/32") {
			t.Errorf("left on the workload's interface: %v", kept)
		}
		for _, a := range addrs {
			if a.Link == tunl0 {
				t.Errorf("%s is left on tunl0", a.Prefix)
			}
		}
		if n := len(r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoStatic })); n != 1 {
			t.Errorf("%d foreign routes, want 1", n)
		}
		r.must(Cleanup(r.t.Context(), r.k, false, nil)) // again, with nothing to do
	})
}
