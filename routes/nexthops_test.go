package routes

import (
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// objects has another program write or delete the nexthop objects of 192.0.2.7 (77) and 2001:db8::7 (78).
func (r *rig) objects(v kernel.Verb) {
	r.t.Helper()
	var ops []kernel.NexthopOp
	for i, gw := range []string{"192.0.2.7", "2001:db8::7"} {
		ops = append(ops, kernel.NexthopOp{Verb: v, Nexthop: &kernel.Nexthop{
			ID: uint32(77 + i), Protocol: kernel.ProtoStatic, V6: addr(gw).Is6(), Gateway: addr(gw), Link: r.eth0, Onlink: true,
		}})
	}
	r.must(r.far.WriteNexthops(r.t.Context(), ops, func(_ int, err error) { r.t.Fatal(err) }))
}

// routeTo is a route under our number that leads to one of these objects.
func (r *rig) routeTo(dst string) kernel.Route {
	id := uint32(77)
	if pfx(dst).Addr().Is6() {
		id = 78
	}
	return kernel.Route{Dst: pfx(dst), Metric: Metric, Protocol: kernel.ProtoCaracal, NexthopID: id}
}

// routeByObject: routes under our number that lead to nexthop objects look as wanted, and would go with an object without a word.
// Those wanted get next hops of their own; those only kept are no longer told of when the kernel has dropped them.
func routeByObject(r *rig) {
	r.objects(kernel.Add)
	for _, dst := range []string{"10.1.0.0/26", "10.2.0.0/26", "2001:db8:1::/64", "2001:db8:2::/64"} {
		r.write(kernel.Add, r.routeTo(dst))
	}
	wanted := whole(via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7"))
	want := []string{direct("10.1.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7")}
	r.start(Options{})
	r.p.Expect(OwnerVXLAN)
	r.apply(wanted)
	r.wantStatuses("10.1.0.0/26 vxlan installed", "10.2.0.0/26  kept", "2001:db8:1::/64 vxlan installed", "2001:db8:2::/64  kept")
	r.objects(kernel.Delete)
	r.wantOurs(want...)
	r.wantStatuses("10.1.0.0/26 vxlan installed", "2001:db8:1::/64 vxlan installed")
	r.p.InSync(OwnerVXLAN)
	r.wait()
	r.objects(kernel.Add) // and while we run
	r.write(kernel.Replace, r.routeTo("10.1.0.0/26"))
	r.write(kernel.Replace, r.routeTo("2001:db8:1::/64"))
	r.write(kernel.Add, r.routeTo("10.2.0.0/26")) // wanted by nobody
	r.wantOurs(want...)
	r.objects(kernel.Delete)
	r.wantOurs(want...)
}

// Where no route of ours leads to an object, objects that come and go cost no read.
func TestForeignObjectsCostNoRead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		before := r.fake.Calls("ListRoutes")
		r.objects(kernel.Add)
		r.objects(kernel.Delete)
		r.wait()
		if before == 0 || r.fake.Calls("ListRoutes") != before {
			t.Errorf("%d dumps, %d before", r.fake.Calls("ListRoutes"), before)
		}
	})
}

// routeByObjectAlone is the same where the kernel shows an object's number and no next hops.
func routeByObjectAlone(r *rig) {
	r.must(r.far.WriteSysctl(r.t.Context(), kernel.SysctlNexthopCompat, 0))
	routeByObject(r)
}
