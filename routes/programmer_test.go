package routes

import (
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

func TestInstallReplaceWithdraw(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), blackhole("10.1.1.0/26"), via("2001:db8:1::/64", "2001:db8::7")))
		r.wantOurs(
			"10.1.0.0/26 via 192.0.2.7 dev eth0 proto 202 metric 1024 onlink",
			"blackhole 10.1.1.0/26 proto 202 metric 1024",
			"2001:db8:1::/64 via 2001:db8::7 dev eth0 proto 202 metric 1024 onlink")
		r.wantStatuses("10.1.0.0/26 vxlan installed", "10.1.1.0/26 vxlan installed", "2001:db8:1::/64 vxlan installed")
		r.p.Apply(OwnerVXLAN, Change{Routes: []Route{via("10.1.0.0/26", "192.0.2.8")}, Withdraw: []Key{key("10.1.1.0/26")}})
		r.wait()
		r.wantOurs(
			"10.1.0.0/26 via 192.0.2.8 dev eth0 proto 202 metric 1024 onlink",
			"2001:db8:1::/64 via 2001:db8::7 dev eth0 proto 202 metric 1024 onlink")
		r.p.Apply(OwnerVXLAN, whole())
		r.wait()
		r.wantOurs()
		r.wantStatuses()
		if s := r.p.Stats(); s.Routes != 0 || s.Repairs != 0 || s.Refused != 0 {
			t.Errorf("stats after everything went: %+v", s)
		}
	})
}

func TestVXLANSet(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(vxlanSet(2, 3))
		r.wantOurs(
			"10.244.2.0/26 via 10.244.2.0 dev vxlan.calico proto 202 metric 1024 onlink mtu 1450",
			"10.244.3.0/26 via 10.244.3.0 dev vxlan.calico proto 202 metric 1024 onlink mtu 1450",
			"blackhole 10.244.0.0/26 proto 202 metric 1024")
		d := r.p.Devices()
		if len(d) != 1 || d[0].Outcome != Installed || !d[0].Up || d[0].MTU != 1450 || len(d[0].Addresses) != 1 {
			t.Fatalf("devices %+v", d)
		}
		n, err := r.far.ListNeighbours(t.Context(), d[0].Index)
		r.must(err)
		if len(n) != 4 {
			t.Fatalf("neighbours %v", n)
		}
		for _, s := range r.p.Neighbours() {
			if s.Outcome != Installed {
				t.Errorf("%+v", s)
			}
		}
		r.p.Apply(OwnerVXLAN, Change{Whole: true, Links: []Link{}})
		r.wait()
		r.wantOurs()
		links, _ := r.far.ListLinks(t.Context())
		for _, l := range links {
			if l.Name == DeviceVXLAN {
				t.Errorf("%s was not removed", l.Name)
			}
		}
	})
}

func TestForeignRouteIsLeftAlone(t *testing.T) {
	bubble(t, func(r *rig) {
		theirs := kernel.Route{Dst: pfx("10.1.0.0/26"), Metric: Metric, Type: kernel.Unicast, Protocol: kernel.ProtoStatic,
			NextHops: []kernel.NextHop{{Gateway: addr("192.0.2.99"), Link: r.eth0}}}
		r.write(kernel.Add, theirs)
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wantOurs()
		r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol static has this key")
		r.write(kernel.Delete, theirs)
		r.wait()
		r.wantOurs("10.1.0.0/26 via 192.0.2.7 dev eth0 proto 202 metric 1024 onlink")
		r.wantStatuses("10.1.0.0/26 vxlan installed")
		r.write(kernel.Replace, theirs) // theirs takes the key from us
		r.wait()
		r.wantOurs()
		r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol static has this key")
	})
}

// A status shows the kernel's route just as the kernel room writes it.
func TestKernelText(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("0.0.0.0/0", "192.0.2.7"), via("::/0", "2001:db8::7"), via("10.0.0.1/32", "192.0.2.8"), via("10.0.0.2/32", "192.0.2.8"),
			via("2001:db8:1::1/128", "2001:db8::8"), blackhole("10.1.0.0/26"), blackhole("2001:db8:2::/122"),
			Route{Dst: pfx("10.2.0.0/16"), Metric: 7, MTU: 1400, Src: addr("192.0.2.1"), NextHops: []NextHop{
				{Gateway: addr("192.0.2.2"), Device: "eth0", Weight: 2}, {Gateway: addr("192.0.2.3"), Device: "eth0"}}}))
		var shown []string
		for _, s := range r.p.Snapshot(nil) {
			if s.Outcome != Installed {
				t.Errorf("%s is %s: %s", s.Route.Dst, s.Outcome, s.Detail)
			}
			shown = append(shown, s.Kernel)
		}
		r.wantOurs(shown...)
	})
}
