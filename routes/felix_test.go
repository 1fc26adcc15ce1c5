package routes

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// TestBesideFelix: the devices with Felix's names, what is on them and the routes through them stay as they are, whatever is or is not
// wanted; ours have other names, and one that nobody wants goes. Felix's routes are shown in the picture of the host.
func TestBesideFelix(t *testing.T) {
	for _, beside := range []bool{true, false} {
		bubble(t, func(r *rig) {
			felix, err := r.far.CreateLink(t.Context(), kernel.Link{Name: DeviceVXLAN, Kind: "vxlan", VXLAN: &kernel.VXLANAttrs{VNI: 7, Port: 4789}})
			r.must(err)
			r.must(r.far.SetLink(t.Context(), felix, 0, [6]byte{}, true))
			r.must(r.far.AddAddress(t.Context(), kernel.Address{Link: felix, Prefix: pfx("10.9.0.0/32")}))
			_, err = r.far.CreateLink(t.Context(), kernel.Link{Name: DeviceBesideVXLAN, Kind: "vxlan", VXLAN: &kernel.VXLANAttrs{VNI: 8, Port: 4789}})
			r.must(err)
			tunl0, err := r.far.CreateLink(t.Context(), kernel.Link{Name: DeviceIPIP, Kind: "ipip", IPIP: &kernel.IPIPAttrs{}})
			r.must(err)
			r.must(r.far.AddAddress(t.Context(), kernel.Address{Link: tunl0, Prefix: pfx("10.8.0.0/32")}))
			through := r.their("10.9.1.0/26", "10.9.1.0")
			through.Protocol = kernel.ProtoBoot
			through.NextHops[0].Link, through.NextHops[0].Onlink = felix, true
			r.write(kernel.Add, through)
			plain := r.their("10.9.2.0/26", "192.0.2.7")
			plain.Protocol = kernel.ProtoFelix
			r.write(kernel.Add, plain)
			r.write(kernel.Add, r.their("10.9.3.0/26", "192.0.2.7")) // of somebody else
			r.start(Options{BesideFelix: beside})
			r.p.Expect(OwnerVXLAN)
			r.apply(Change{Whole: true, Links: []Link{}})
			r.p.InSync(OwnerVXLAN)
			r.wait()
			if stays := r.device(DeviceVXLAN) != nil; stays != beside {
				t.Errorf("beside Felix %v: its device stays: %v", beside, stays)
			}
			if r.device(DeviceBesideVXLAN) != nil {
				t.Error("our device, which nobody wants, is still there")
			}
			if !beside {
				return
			}
			addrs, err := r.far.ListAddresses(t.Context())
			r.must(err)
			for link, p := range map[int]netip.Prefix{felix: pfx("10.9.0.0/32"), tunl0: pfx("10.8.0.0/32")} {
				if !slices.ContainsFunc(addrs, func(a kernel.Address) bool { return a.Link == link && a.Prefix == p }) {
					t.Errorf("the address %s of a device of Felix's is gone", p)
				}
			}
			if want := []netip.Prefix{pfx("10.9.1.0/26"), pfx("10.9.2.0/26")}; !slices.Equal(r.p.Host().Felix, want) {
				t.Errorf("Felix's routes are %v, want %v", r.p.Host().Felix, want)
			}
			r.stop()
			r.must(Cleanup(t.Context(), r.k, true, nil))
			if r.device(DeviceVXLAN) == nil {
				t.Error("a cleanup has removed Felix's device")
			}
		})
	}
}
