package routes

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// toldOf are the events of a device since the last call, a line each.
func toldOf(events []HistoryEvent, from time.Time) (lines []string) {
	for _, e := range events {
		if e.At.After(from) {
			line := strings.TrimSpace(fmt.Sprintf("%s %s: %s %s", e.Owner, e.What, e.Object, e.Detail))
			lines = append(lines, line+" <- "+e.Cause)
		}
	}
	slices.Sort(lines) // what is done in one pass has no order that matters
	return lines
}

// TestHistoryOfThings follows a device, its address and its entries through what is asked, written, refused and done by others.
func TestHistoryOfThings(t *testing.T) {
	bubble(t, func(r *rig) {
		const near, fdb = "neighbour 10.244.2.0 lladdr 66:00:00:00:00:02 dev vxlan.calico", "fdb 66:00:00:00:00:02 dst 192.0.2.2 dev vxlan.calico"
		set := vxlanSet(2)
		set.Cause = "datastore revision 1"
		step := func(what string, f func(), want ...string) {
			t.Helper()
			time.Sleep(time.Minute) // whoever does something once in a while is not fought
			from := time.Now().Add(-time.Nanosecond)
			f()
			r.wait()
			slices.Sort(want)
			// A device whose events come late may be set up twice.
			if got := slices.Compact(toldOf(r.p.HistoryOf(DeviceVXLAN), from)); !slices.Equal(got, want) {
				t.Errorf("%s is told as\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		}
		r.ready()
		step("the start", func() { r.apply(set) },
			"vxlan asked: device vxlan.calico vxlan id 4096 local 192.0.2.1 dev eth0 dstport 4789 mtu 1450 10.244.0.1/32 <- datastore revision 1",
			"vxlan asked: "+near+" <- datastore revision 1", "vxlan asked: "+fdb+" <- datastore revision 1",
			"vxlan written: device vxlan.calico made <- datastore revision 1",
			"vxlan written: device vxlan.calico set to mtu 1450 address 66:01:02:03:04:05 up <- datastore revision 1",
			"vxlan written: address 10.244.0.1/32 dev vxlan.calico <- datastore revision 1",
			"vxlan written: "+near+" <- datastore revision 1", "vxlan written: "+fdb+" <- datastore revision 1")
		step("a deleted FDB entry", func() { r.neighbour(true, kernel.Neighbour{FDB: true, MAC: mac(2), Addr: addr("192.0.2.2")}) },
			"vxlan changed by another: "+fdb+" <- another program deletes this entry", "vxlan written: "+fdb+" <- another program deletes this entry")
		step("a neighbour of another program", func() { r.neighbour(false, kernel.Neighbour{Addr: addr("10.244.7.0"), MAC: mac(7), Permanent: true}) },
			"changed by another: neighbour 10.244.7.0 lladdr 66:00:00:00:00:07 dev vxlan.calico <- another program adds this entry",
			"deleted: neighbour 10.244.7.0 lladdr 66:00:00:00:00:07 dev vxlan.calico <- another program adds this entry")
		step("another MTU", func() { r.must(r.far.SetLink(t.Context(), r.device(DeviceVXLAN).Index, 1300, [6]byte{}, true)) },
			"vxlan changed by another: device vxlan.calico <- another program changes this device: mtu 1300 address 66:01:02:03:04:05 up",
			"vxlan written: device vxlan.calico set to mtu 1450 address 66:01:02:03:04:05 up <- another program changes this device: mtu 1300 address 66:01:02:03:04:05 up")
		own := kernel.Address{Link: r.device(DeviceVXLAN).Index, Prefix: pfx("10.244.0.1/32")}
		step("a removed address", func() { r.must(r.far.DeleteAddress(t.Context(), own)) },
			"vxlan changed by another: address 10.244.0.1/32 dev vxlan.calico <- another program removes this address",
			"vxlan written: address 10.244.0.1/32 dev vxlan.calico <- another program removes this address")
		extra := kernel.Address{Link: own.Link, Prefix: pfx("10.9.9.9/32")}
		step("an added address", func() { r.must(r.far.AddAddress(t.Context(), extra)) },
			"vxlan changed by another: address 10.9.9.9/32 dev vxlan.calico <- another program adds this address",
			"deleted: address 10.9.9.9/32 dev vxlan.calico <- another program adds this address")
		if got := toldOf(r.p.History(pfx("10.9.9.9/32")), time.Time{}); len(got) != 2 {
			t.Errorf("of an address alone: %q", got)
		}
		moved := vxlanLink()
		moved.VXLAN.VNI = 4097
		step("another VNI", func() { r.apply(Change{Links: []Link{moved}, Cause: "datastore revision 1b"}) },
			"vxlan asked: device vxlan.calico vxlan id 4097 local 192.0.2.1 dev eth0 dstport 4789 mtu 1450 10.244.0.1/32 <- datastore revision 1b",
			"vxlan deleted: device vxlan.calico it is made anew: VNI 4096, want 4097 <- datastore revision 1b",
			"vxlan written: device vxlan.calico made <- datastore revision 1b",
			"vxlan written: device vxlan.calico set to mtu 1450 address 66:01:02:03:04:05 up <- datastore revision 1b",
			"vxlan written: address 10.244.0.1/32 dev vxlan.calico <- datastore revision 1b",
			"vxlan written: "+near+" <- datastore revision 1", "vxlan written: "+fdb+" <- another program deletes this entry")
		step("a refused neighbour", func() {
			r.fake.Inject(kerneltest.Fault{Kind: kerneltest.NeighbourOpFails, Err: kernel.FromErrno(syscall.ENOMEM)})
			r.apply(Change{Neighbours: []Neighbour{{Device: DeviceVXLAN, Addr: addr("10.244.3.0"), MAC: mac(3)}}, Cause: "datastore revision 2"})
			r.wait()
			time.Sleep(time.Second)
		},
			"vxlan asked: neighbour 10.244.3.0 lladdr 66:00:00:00:00:03 dev vxlan.calico <- datastore revision 2",
			"vxlan refused: neighbour 10.244.3.0 lladdr 66:00:00:00:00:03 dev vxlan.calico ENOMEM: write neighbour 10.244.3.0: the kernel could not do it now: cannot allocate memory <- datastore revision 2",
			"vxlan written: neighbour 10.244.3.0 lladdr 66:00:00:00:00:03 dev vxlan.calico <- datastore revision 2")
		step("the end", func() { r.apply(Change{Whole: true, Links: []Link{}, Cause: "datastore revision 3"}) },
			"vxlan withdrawn: device vxlan.calico <- datastore revision 3", "deleted: device vxlan.calico <- datastore revision 3",
			"vxlan withdrawn: "+near+" <- datastore revision 3", "vxlan withdrawn: "+fdb+" <- datastore revision 3",
			"vxlan withdrawn: neighbour 10.244.3.0 lladdr 66:00:00:00:00:03 dev vxlan.calico <- datastore revision 3",
			"deleted: "+near+" <- datastore revision 3", "deleted: "+fdb+" <- datastore revision 3",
			"deleted: neighbour 10.244.3.0 lladdr 66:00:00:00:00:03 dev vxlan.calico <- datastore revision 3")
		for range historyThings {
			r.p.noteThing(thing{device: "x"}, 0, 0, written, "")
		}
		if n := len(r.p.recorder.things); n != historyThings || len(r.p.HistoryOf(DeviceVXLAN)) != 0 || len(r.p.HistoryOf("x")) != historyThings {
			t.Errorf("%d records are kept, and what is old is not forgotten", n)
		}
	})
}

// TestNeighbourFightIsTold: the status of an entry that somebody keeps deleting says so while its repair waits.
func TestNeighbourFightIsTold(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(vxlanSet(2))
		r.wait()
		told := ""
		for range freeRepairs + 5 {
			r.neighbour(true, kernel.Neighbour{FDB: true, MAC: mac(2), Addr: addr("192.0.2.2")})
			r.wait()
			for _, n := range r.p.Neighbours() {
				if n.Neighbour.FDB && n.Outcome == Waiting {
					told = n.Detail
				}
			}
			time.Sleep(calmAfter / 2)
		}
		if told != "another program deletes this entry, again and again; repairs slow down" {
			t.Errorf("the status says %q", told)
		}
		r.wantTunnel(vxlanSet(2))
		if n := r.p.Neighbours(); n[1].Detail != "" || n[1].Outcome != Installed {
			t.Errorf("afterwards: %+v", n[1])
		}
	})
}

// TestDeviceFightIsTold: the same of a device.
func TestDeviceFightIsTold(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(vxlanSet(2))
		told := ""
		for range freeRepairs + 3 {
			r.wait()
			r.must(r.far.DeleteLink(t.Context(), r.device(DeviceVXLAN).Index))
			r.wait()
			if d := r.p.Devices()[0]; d.Outcome == Waiting && d.Detail != "" {
				told = d.Detail
			}
			time.Sleep(calmAfter / 2)
		}
		if told != "another program removes this device, again and again; repairs slow down" {
			t.Errorf("the status says %q", told)
		}
		r.wantTunnel(vxlanSet(2))
		if d := r.p.Devices()[0]; d.Detail != "" || d.Outcome != Installed {
			t.Errorf("afterwards: %+v", d)
		}
	})
}
