package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// left is a route as another program leaves it behind; a gateway "" makes it a blackhole.
func (r *rig) left(p kernel.Protocol, dst, gw, device string, metric uint32) kernel.Route {
	k := kernel.Route{Dst: pfx(dst), Metric: metric, Type: kernel.Blackhole, Protocol: p}
	if gw != "" {
		k.Type, k.NextHops = kernel.Unicast, []kernel.NextHop{{Gateway: addr(gw), Link: r.device(device).Index, Onlink: true}}
	}
	return k
}

// felixDevice is the device of the set as Felix leaves it behind, with what is on it; one entry is of a node that has gone.
func (r *rig) felixDevice(c Change) int {
	r.t.Helper()
	l := c.Links[0]
	index, err := r.far.CreateLink(r.t.Context(), kernel.Link{Name: l.Name, Kind: l.Kind, MTU: l.MTU, MAC: l.MAC,
		VXLAN: &kernel.VXLANAttrs{VNI: l.VXLAN.VNI, Port: l.VXLAN.Port, Parent: r.eth0, Local: l.VXLAN.Local}})
	r.must(err)
	r.must(r.far.SetLink(r.t.Context(), index, 0, [6]byte{}, true))
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: index, Prefix: l.Addresses[0]}))
	for _, n := range append(slices.Clone(c.Neighbours), vtep(Change{}, 77).Neighbours...) {
		r.neighbour(false, kernel.Neighbour{FDB: n.FDB, Addr: n.Addr, MAC: n.MAC, Permanent: true})
	}
	return index
}

// takeOver starts a Programmer that adopts the leftovers in 10.0.0.0/8 and 2001:db8::/32 and is in sync with a set.
func (r *rig) takeOver(c Change) {
	r.start(Options{Adopt: Adoption{BIRD: true, Felix: true}})
	r.p.Within(pfx("10.0.0.0/8"), pfx("2001:db8::/32"))
	r.p.Expect(OwnerVXLAN)
	r.apply(c)
	r.p.InSync(OwnerVXLAN)
}

// notOurs is what the kernel holds of other programs but itself.
func (r *rig) notOurs() []string {
	return r.routes(func(k *kernel.Route) bool {
		return k.Protocol != kernel.ProtoCaracal && k.Protocol != kernel.ProtoKernel && (k.Protocol != kernel.ProtoBoot || len(k.NextHops) > 0)
	})
}

func (r *rig) wantNotOurs(want []string) {
	r.t.Helper()
	r.eventually(func() error {
		if got := r.notOurs(); !slices.Equal(got, want) {
			return fmt.Errorf("of other programs the kernel holds\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		return nil
	})
}

// leftoversTakenOver: what BIRD and Felix left within the pools becomes ours, under the same keys in place, and goes where nobody wants it; the
// device, its address and entries stay as they are. What is outside, or leads to a workload, stays.
func leftoversTakenOver(r *rig) {
	set := vxlanSet(2, 3)
	set.Routes = append(set.Routes, via("10.9.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7"), blackhole("2001:db8:2::/122"))
	device := r.felixDevice(set)
	r.wire("cali1")
	strangers := []kernel.Route{r.left(kernel.ProtoBird, "172.16.0.0/26", "192.0.2.7", "eth0", Metric), r.left(kernel.ProtoFelix, "172.16.1.0/26", "", "", 0),
		r.left(kernel.ProtoStatic, "10.8.0.0/26", "192.0.2.7", "eth0", 0), r.left(kernel.ProtoFelix, "10.8.1.0/32", "10.8.1.0", "cali1", 0)}
	for _, k := range strangers {
		r.write(kernel.Add, k)
	}
	before := r.notOurs()
	for _, k := range []kernel.Route{
		r.left(kernel.ProtoFelix, "10.244.0.0/26", "", "", 0),
		r.left(kernel.ProtoBoot, "10.244.2.0/26", "10.244.2.0", DeviceVXLAN, 0),
		r.left(kernel.ProtoBird, "10.244.3.0/26", "10.244.3.0", DeviceVXLAN, Metric), // in place
		r.left(kernel.ProtoBird, "10.9.0.0/26", "192.0.2.9", "eth0", Metric),
		r.left(kernel.ProtoBird, "2001:db8:1::/64", "2001:db8::9", "eth0", Metric),
		r.left(kernel.ProtoFelix, "2001:db8:2::/122", "", "", Metric),
		r.left(kernel.ProtoBoot, "10.244.77.0/26", "10.244.77.0", DeviceVXLAN, 0), // of a node that has gone
		r.left(kernel.ProtoBird, "10.9.77.0/26", "192.0.2.77", "eth0", Metric),
		r.left(kernel.ProtoBird, "10.9.78.0/26", "", "", Metric),
	} {
		r.write(kernel.Add, k)
	}
	r.takeOver(set)
	r.wantOurs(append(vxlanRoutes(2, 3), direct("10.9.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7"), "blackhole 2001:db8:2::/122 proto 202 metric 1024")...)
	r.wantTunnel(set)
	r.wantNotOurs(before)
	if now := r.device(DeviceVXLAN).Index; now != device {
		r.t.Errorf("the device was made anew: index %d, was %d", now, device)
	}
	r.p.Within(pfx("10.244.0.0/16")) // leftovers elsewhere are others' again
	k := r.left(kernel.ProtoBird, "10.9.79.0/26", "", "", Metric)
	r.write(kernel.Add, k)
	r.wantNotOurs(slices.Sorted(slices.Values(append(slices.Clone(before), "blackhole 10.9.79.0/26 proto bird metric 1024"))))
}

// leftoversOutlastRefusal: while the kernel refuses ours, what was left under another metric stays, and carries on.
func leftoversOutlastRefusal(r *rig) {
	refused := Route{Dst: pfx("10.1.0.0/26"), NextHops: []NextHop{{Gateway: addr("198.51.100.7"), Device: "eth0"}}} // ENETUNREACH
	r.write(kernel.Add, r.left(kernel.ProtoFelix, "10.1.0.0/26", "192.0.2.9", "eth0", 0))
	r.write(kernel.Add, r.left(kernel.ProtoFelix, "10.2.0.0/26", "192.0.2.9", "eth0", 0))
	r.takeOver(whole(refused, via("10.2.0.0/26", "192.0.2.7")))
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"))
	r.wantNotOurs([]string{"10.1.0.0/26 via 192.0.2.9 dev eth0 proto 80 onlink"})
	r.address("198.51.100.1/24")
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"), "10.1.0.0/26 via 198.51.100.7 dev eth0 proto 202 metric 1024")
	r.wantNotOurs(nil)
}

// leftoversWithoutAWay: what is wanted though no way is known goes on by what was left, and no longer when it is not wanted.
func leftoversWithoutAWay(r *rig) {
	r.write(kernel.Add, r.left(kernel.ProtoFelix, "10.1.0.0/26", "192.0.2.9", "eth0", 0))
	r.write(kernel.Add, r.left(kernel.ProtoBird, "10.2.0.0/26", "192.0.2.9", "eth0", Metric))
	r.takeOver(whole(Route{Dst: pfx("10.1.0.0/26"), Unroutable: "VTEP unknown"}, Route{Dst: pfx("10.2.0.0/26"), Unroutable: "VTEP unknown"}, blackhole("10.3.0.0/26")))
	r.wantOurs("blackhole 10.3.0.0/26 proto 202 metric 1024")
	r.wantNotOurs([]string{"10.1.0.0/26 via 192.0.2.9 dev eth0 proto 80 onlink", "10.2.0.0/26 via 192.0.2.9 dev eth0 proto bird metric 1024 onlink"})
	r.apply(Change{Withdraw: []Key{key("10.1.0.0/26")}, Routes: []Route{via("10.2.0.0/26", "192.0.2.7")}})
	r.wantOurs("blackhole 10.3.0.0/26 proto 202 metric 1024", direct("10.2.0.0/26", "192.0.2.7"))
	r.wantNotOurs(nil)
}

// leftoversOfTheLiving: a program that puts back what was taken over is not fought: from then on its routes are its own, those that were not
// touched yet too.
func leftoversOfTheLiving(r *rig) {
	one, two := r.left(kernel.ProtoBird, "10.1.0.0/26", "192.0.2.9", "eth0", Metric), r.left(kernel.ProtoBird, "2001:db8:1::/64", "2001:db8::9", "eth0", Metric)
	felix := r.left(kernel.ProtoFelix, "10.1.0.0/26", "192.0.2.9", "eth0", 0)
	for _, k := range []kernel.Route{one, two, felix} {
		r.write(kernel.Add, k)
	}
	r.takeOver(whole(via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7")))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7"))
	r.wantNotOurs(nil)
	r.write(kernel.Replace, one)
	r.wantOurs(direct("2001:db8:1::/64", "2001:db8::7"))
	r.wantNotOurs([]string{"10.1.0.0/26 via 192.0.2.9 dev eth0 proto bird metric 1024 onlink"})
	r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol bird has this key", "2001:db8:1::/64 vxlan installed")
}

func TestLeftoversOfTheLiving(t *testing.T) { bubble(t, leftoversOfTheLiving) }

func TestLeftoversOfTheLivingOnTheKernel(t *testing.T) { leftoversOfTheLiving(onKernel(t)) }

// A program that lived is asked again, ever less often; when it lives no more its leftovers are taken over at last.
func TestLivingProgramIsAskedAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		bird := r.left(kernel.ProtoBird, "10.1.0.0/26", "192.0.2.9", "eth0", Metric)
		r.write(kernel.Add, bird)
		r.takeOver(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		begin, overwritten := time.Now(), 0
		for range 5 { // BIRD puts it back whenever it is taken over
			r.wait()
			if len(r.notOurs()) == 0 {
				overwritten++
				r.write(kernel.Replace, bird)
			}
			time.Sleep(lifeFirst + time.Second)
		}
		if overwritten != 3 { // after 0, 2 and 6 minutes of ten
			t.Errorf("a living program's route was overwritten %d times in %s", overwritten, time.Since(begin))
		}
		r.wantOurs()
		time.Sleep(lifeMost)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		r.wantNotOurs(nil)
	})
}

// TestWithinIsBounds: destinations that come and go, in any order, take over and let go; nothing is touched before the first call.
func TestWithinIsBounds(t *testing.T) {
	bubble(t, func(r *rig) {
		var lines []string
		for _, dst := range []string{"10.1.0.0/26", "10.2.0.0/26"} {
			r.write(kernel.Add, r.left(kernel.ProtoBird, dst, "", "", Metric))
			lines = append(lines, "blackhole "+dst+" proto bird metric 1024")
		}
		r.start(Options{Adopt: Adoption{BIRD: true}})
		r.p.Expect(OwnerVXLAN) // not in sync
		r.apply(whole())
		statuses := func(within []netip.Prefix, want ...string) {
			t.Helper()
			r.p.Within(within...)
			r.wait()
			r.wantStatuses(want...)
			r.wantNotOurs(lines)
		}
		const one, two = "10.1.0.0/26  kept: left behind by protocol bird", "10.2.0.0/26  kept: left behind by protocol bird"
		statuses(nil)
		statuses([]netip.Prefix{pfx("10.1.0.0/16")}, one)
		statuses([]netip.Prefix{pfx("10.2.0.0/16"), pfx("10.1.0.0/26")}, one, two)
		statuses([]netip.Prefix{pfx("10.2.0.0/16"), pfx("10.1.0.0/27")}, two)
		r.resync()
		r.wantStatuses(two)
		statuses(nil)
		r.p.InSync(OwnerVXLAN)
		r.wait()
		r.wantNotOurs(lines)
		r.p.Within(pfx("10.0.0.0/8"))
		r.wait()
		r.wantNotOurs(nil)
	})
}

// A route of ours that is held for one that the kernel refuses for lack of the interface goes when the interface has really gone: then there is no
// way, and the status of the other is the same as before.
func TestHeldRouteGoesWithTheWay(t *testing.T) {
	bubble(t, func(r *rig) {
		eth1 := r.wire("eth1")
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.RouteOpFails, Times: 100, Err: kernel.FromErrno(syscall.ENODEV)})
		other := viaDevice("10.1.0.0/26", "198.51.100.7", "eth1")
		other.Metric = 512
		r.apply(whole(other))
		r.wait()
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		r.fake.ClearFaults()
		r.must(r.far.DeleteLink(t.Context(), eth1))
		r.wantOurs()
	})
}
