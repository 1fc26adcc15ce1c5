package routes

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/test/need"
)

func tunl0(addrs ...netip.Prefix) Link {
	return Link{Name: DeviceIPIP, Kind: "ipip", MTU: 1480, Addresses: addrs, Adopt: true}
}

// tunnelled is a route through tunl0: the gateway is the outer destination.
func tunnelled(dst, node string) Route {
	r := viaDevice(dst, node, DeviceIPIP)
	r.MTU = 1480
	return r
}

// ipipLife is the story of tunl0, which is there before us and stays after us.
func ipipLife(r *rig) {
	if r.device(DeviceIPIP) == nil {
		_, err := r.far.CreateLink(r.t.Context(), kernel.Link{Name: DeviceIPIP, Kind: "ipip", IPIP: &kernel.IPIPAttrs{}})
		r.must(err)
	}
	index := r.device(DeviceIPIP).Index
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: index, Prefix: pfx("10.99.0.1/32")}))
	addresses := func(want ...string) {
		r.t.Helper()
		r.eventually(func() error {
			list, err := r.far.ListAddresses(r.t.Context())
			r.must(err)
			var have []string
			for _, a := range list {
				if a.Link == index && a.Prefix.Addr().Is4() {
					have = append(have, a.Prefix.String())
				}
			}
			if strings.Join(have, " ") != strings.Join(want, " ") {
				return errorf("addresses of tunl0 are %v, want %v", have, want)
			}
			return nil
		})
	}
	r.ready(Change{Whole: true, Links: []Link{tunl0(pfx("10.244.0.1/32"))}, Routes: []Route{tunnelled("10.1.0.0/26", "192.0.2.7")}})
	r.wantOurs("10.1.0.0/26 via 192.0.2.7 dev tunl0 proto 202 metric 1024 onlink mtu 1480")
	addresses("10.244.0.1/32")
	if l := r.device(DeviceIPIP); l.MTU != 1480 || !l.Up || l.Index != index {
		r.t.Fatalf("tunl0 is %+v", l)
	}
	// Equal paths, one to a node of another subnet and one to a neighbour (CrossSubnet).
	mixed := tunnelled("10.2.0.0/26", "198.51.100.7")
	mixed.NextHops = append(mixed.NextHops, NextHop{Gateway: addr("192.0.2.8"), Device: "eth0"})
	r.apply(Change{Routes: []Route{mixed}})
	hops := []string{" nexthop via 192.0.2.8 dev eth0 weight 1", " nexthop via 198.51.100.7 dev tunl0 weight 1 onlink"}
	if index < r.device("eth0").Index {
		slices.Reverse(hops) // the kernel has them as they are written, by interface
	}
	r.wantOurs("10.1.0.0/26 via 192.0.2.7 dev tunl0 proto 202 metric 1024 onlink mtu 1480", "10.2.0.0/26 proto 202 metric 1024 mtu 1480"+hops[0]+hops[1])
	r.apply(Change{Routes: []Route{tunnelled("10.2.0.0/26", "198.51.100.7")}})
	r.wantOurs("10.1.0.0/26 via 192.0.2.7 dev tunl0 proto 202 metric 1024 onlink mtu 1480", "10.2.0.0/26 via 198.51.100.7 dev tunl0 proto 202 metric 1024 onlink mtu 1480")
	r.apply(Change{Whole: true, Links: []Link{}})
	r.wantOurs()
	addresses()
	if l := r.device(DeviceIPIP); l == nil || l.Index != index {
		r.t.Fatalf("tunl0 is %+v", l)
	}
}

func TestTunl0OnTheFake(t *testing.T) { bubble(t, ipipLife) }

func TestTunl0OnTheKernelIPIP(t *testing.T) {
	need.IPIP(t)
	ipipLife(onKernel(t))
}

func TestNoIPIPInTheKernel(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fake.WithoutIPIP()
		r.ready(Change{Whole: true, Links: []Link{tunl0()}, Routes: []Route{tunnelled("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7")}})
		r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"))
		r.wantStatuses("10.1.0.0/26 vxlan no-device: interface tunl0 is missing", "10.2.0.0/26 vxlan installed")
		if d := r.p.Devices()[0]; d.Outcome != Failed || !strings.HasPrefix(d.Detail, "EOPNOTSUPP: ") {
			t.Errorf("device %+v", d)
		}
	})
}

// A device of our name that is not a tunnel is somebody's: it is reported and never touched.
func TestDeviceOfAnotherKind(t *testing.T) {
	bubble(t, func(r *rig) {
		theirs := r.wire(DeviceVXLAN)
		r.ready(vxlanSet())
		if d := r.p.Devices()[0]; d.Outcome != Failed || !strings.Contains(d.Detail, "not ours") {
			t.Errorf("device %+v", d)
		}
		r.apply(Change{Whole: true, Links: []Link{}})
		r.wait()
		if l := r.device(DeviceVXLAN); l == nil || l.Index != theirs {
			t.Fatal("a device of another program was removed")
		}
		r.apply(vxlanSet(2))
		r.wait()
		r.must(r.far.DeleteLink(r.t.Context(), theirs))
		time.Sleep(wakeSpacing)
		r.wantTunnel(vxlanSet(2))
	})
}

// Another device holds our VNI: the error names it, and once it has gone ours is made without waiting for the back-off.
func TestVNITaken(t *testing.T) {
	bubble(t, func(r *rig) {
		other, err := r.far.CreateLink(r.t.Context(), kernel.Link{Name: "vxlan7", Kind: "vxlan", VXLAN: &kernel.VXLANAttrs{VNI: 4096, Port: 4789, Local: addr("192.0.2.1")}})
		r.must(err)
		r.ready(vxlanSet(2))
		time.Sleep(time.Hour)
		r.wait()
		if d := r.p.Devices()[0]; d.Outcome != Failed || !strings.Contains(d.Detail, "vxlan7 holds the same VNI") {
			t.Errorf("device %+v", d)
		}
		r.must(r.far.DeleteLink(r.t.Context(), other))
		time.Sleep(wakeSpacing)
		r.wantTunnel(vxlanSet(2))
		r.wantOurs(vxlanRoutes(2)...)
	})
}

// A refused MTU must not keep the tunnel down.
func TestRefusedMTU(t *testing.T) {
	bubble(t, func(r *rig) {
		made, err := r.far.CreateLink(r.t.Context(), kernel.Link{Name: DeviceIPIP, Kind: "ipip", MTU: 1400, IPIP: &kernel.IPIPAttrs{}})
		r.must(err)
		_ = made
		fault := r.fake.Inject(setLinkRefused)
		r.ready(Change{Whole: true, Links: []Link{tunl0(pfx("10.244.0.1/32"))}, Routes: []Route{tunnelled("10.1.0.0/26", "192.0.2.7")}})
		r.wantOurs("10.1.0.0/26 via 192.0.2.7 dev tunl0 proto 202 metric 1024 onlink mtu 1480")
		if fault.Fired() != 1 || r.p.Devices()[0].Outcome != Failed {
			t.Errorf("fault fired %d times, device %+v", fault.Fired(), r.p.Devices()[0])
		}
		time.Sleep(time.Second)
		r.wait()
		if d := r.p.Devices()[0]; d.Outcome != Installed || d.MTU != 1480 {
			t.Errorf("device %+v", d)
		}
	})
}
