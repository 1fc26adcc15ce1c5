package routes

import (
	"fmt"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// scenario is a story that must end well on the Fake, on the Fake with any fault, and on the real kernel.
type scenario struct {
	name string
	run  func(r *rig)
}

// scenarios is the list. Each begins with a rig that is not started and checks the kernel after each turn.
func scenarios() []scenario {
	return []scenario{
		{"install, replace, withdraw", installReplaceWithdraw},
		{"tunnel", tunnelLife},
		{"route deleted by another", routeDeleted},
		{"route changed by another", routeChanged},
		{"neighbours changed by another", neighboursChanged},
		{"device deleted by another", deviceDeleted},
		{"device changed by another", deviceChanged},
		{"device of other attributes", deviceMismatch},
		{"interface comes late", interfaceLate},
		{"interface flaps", interfaceFlaps},
		{"interface renumbered", interfaceRenumbered},
		{"foreign route in the way", foreignInTheWay},
		{"foreign route takes the key", foreignTakesKey},
		{"restart over our own leftovers", restart},
		{"two owners", twoOwners},
		{"equal paths", equalPaths},
		{"gateway unreachable until an address comes", gatewayUnreachable},
		{"last address goes", lastAddressGoes},
		{"preferred source goes", sourceGoes},
		{"settings changed by another", settingsChanged},
		{"settings that are wished for", settingsWished},
		{"addresses that are wished for", addressesWished},
		{"address on a workload's interface", addressOfAWorkloadsInterface},
		{"address that another program's route needs", addressOfAnothersRoute},
		{"foreign route goes with its interface", foreignGoesWithItsInterface},
		{"MTU of a route follows its interface", routeMTUFollows},
		{"parent interface comes late", parentLate},
		{"route leads to an object of another", routeByObject},
		{"route leads to an object that is not shown", routeByObjectAlone},
		{"another metric is refused", otherMetricRefused},
		{"leftovers taken over", leftoversTakenOver},
		{"leftovers outlast a refusal", leftoversOutlastRefusal},
		{"leftovers where no way is known", leftoversWithoutAWay},
		{"IPv4 routes by IPv6 gateways", viaSix},
		{"everything withdrawn", everythingWithdrawn},
	}
}

func TestScenariosOnTheFake(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) { bubble(t, s.run) })
	}
}

func installReplaceWithdraw(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), blackhole("10.1.1.0/26"), via("2001:db8:1::/64", "2001:db8::7"), blackhole("2001:db8:2::/122")))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), "blackhole 10.1.1.0/26 proto 202 metric 1024",
		direct("2001:db8:1::/64", "2001:db8::7"), "blackhole 2001:db8:2::/122 proto 202 metric 1024")
	r.apply(Change{Routes: []Route{via("10.1.0.0/26", "192.0.2.8"), via("10.1.1.0/26", "192.0.2.8")}, Withdraw: []Key{key("2001:db8:1::/64")}})
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"), direct("10.1.1.0/26", "192.0.2.8"), "blackhole 2001:db8:2::/122 proto 202 metric 1024")
	r.apply(whole(via("10.1.0.0/26", "192.0.2.8")))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"))
}

func tunnelLife(r *rig) {
	set := vxlanSet(2, 3)
	r.ready(set)
	r.wantOurs(vxlanRoutes(2, 3)...)
	r.wantTunnel(set)
	r.apply(vtep(Change{}, 4))
	r.wantOurs(vxlanRoutes(2, 3, 4)...)
	r.wantTunnel(vxlanSet(2, 3, 4))
	moved := vxlanSet(2, 4) // node 3 leaves, node 2 moves to another address and MAC
	moved.Neighbours[0].MAC, moved.Neighbours[1].MAC = mac(22), mac(22)
	moved.Neighbours[3].Addr = addr("192.0.2.44") // node 4 keeps its MAC
	r.apply(moved)
	r.wantOurs(vxlanRoutes(2, 4)...)
	r.wantTunnel(moved)
}

func routeDeleted(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7"), blackhole("2001:db8:2::/122")))
	want := []string{direct("10.1.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7"), "blackhole 2001:db8:2::/122 proto 202 metric 1024"}
	r.wantOurs(want...)
	for _, gone := range []kernel.Route{r.their("10.1.0.0/26", "192.0.2.7"), r.their("2001:db8:1::/64", "2001:db8::7"),
		{Dst: pfx("2001:db8:2::/122"), Metric: Metric, Type: kernel.Blackhole}} {
		gone.Protocol = kernel.ProtoCaracal
		r.write(kernel.Delete, gone)
		r.wantOurs(want...)
	}
}

func routeChanged(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7")))
	want := []string{direct("10.1.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7")}
	r.wantOurs(want...)
	for _, changed := range []kernel.Route{r.their("10.1.0.0/26", "192.0.2.9"), r.their("2001:db8:1::/64", "2001:db8::9")} {
		changed.Protocol = kernel.ProtoCaracal
		r.write(kernel.Replace, changed)
		r.wantOurs(want...)
	}
	stray := r.their("10.9.0.0/26", "192.0.2.9") // one that nobody wants, under our number
	stray.Protocol = kernel.ProtoCaracal
	r.write(kernel.Add, stray)
	r.wantOurs(want...)
}

func neighboursChanged(r *rig) {
	set := vxlanSet(2, 3)
	r.ready(set)
	r.wantTunnel(set)
	for _, n := range []struct {
		del bool
		n   kernel.Neighbour
	}{
		{true, kernel.Neighbour{Addr: addr("10.244.2.0")}},
		{true, kernel.Neighbour{FDB: true, MAC: mac(2), Addr: addr("192.0.2.2")}},
		{false, kernel.Neighbour{Addr: addr("10.244.3.0"), MAC: mac(99), Permanent: true}},
		{false, kernel.Neighbour{Addr: addr("10.244.3.0"), MAC: mac(3)}}, // no longer permanent
		{false, kernel.Neighbour{FDB: true, MAC: mac(3), Addr: addr("192.0.2.99"), Permanent: true}},
		{false, kernel.Neighbour{Addr: addr("10.244.77.0"), MAC: mac(77), Permanent: true}},
		{false, kernel.Neighbour{FDB: true, MAC: mac(77), Addr: addr("192.0.2.77"), Permanent: true}},
	} {
		r.neighbour(n.del, n.n)
		r.wantTunnel(set)
	}
	r.wantOurs(vxlanRoutes(2, 3)...)
}

func deviceDeleted(r *rig) {
	set := vxlanSet(2, 3)
	r.ready(set)
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2, 3)...)
	r.must(r.far.DeleteLink(r.t.Context(), r.device(DeviceVXLAN).Index))
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2, 3)...)
}

func deviceChanged(r *rig) {
	set := vxlanSet(2)
	r.ready(set)
	r.wantTunnel(set)
	index := r.device(DeviceVXLAN).Index
	r.must(r.far.SetLink(r.t.Context(), index, 1300, mac(77), true))
	r.wantTunnel(set)
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: index, Prefix: pfx("10.99.0.1/32")}))
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: index, Prefix: pfx("2001:db8:9::1/128")}))
	r.wantTunnel(set)
	r.must(r.far.DeleteAddress(r.t.Context(), kernel.Address{Link: index, Prefix: pfx("10.244.0.1/32")}))
	r.wantTunnel(set)
	r.must(r.far.SetLink(r.t.Context(), index, 0, [6]byte{}, false))
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2)...)
}

func deviceMismatch(r *rig) {
	_, err := r.far.CreateLink(r.t.Context(), kernel.Link{Name: DeviceVXLAN, Kind: "vxlan",
		VXLAN: &kernel.VXLANAttrs{VNI: 7, Port: 8472, Parent: r.eth0, Local: addr("192.0.2.1"), Learning: true}})
	r.must(err)
	set := vxlanSet(2)
	r.ready(set)
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2)...)
	set.Links[0].VXLAN.VNI = 4097 // a plan that changes the link it handed over and hands it over again
	r.apply(Change{Links: set.Links})
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2)...)
}

func interfaceLate(r *rig) {
	r.ready(whole(viaDevice("10.1.0.0/26", "198.51.100.7", "eth1"), via("10.2.0.0/26", "192.0.2.7")))
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"))
	r.wantStatuses("10.1.0.0/26 vxlan no-device: interface eth1 is missing", "10.2.0.0/26 vxlan installed")
	r.wire("eth1")
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"), "10.1.0.0/26 via 198.51.100.7 dev eth1 proto 202 metric 1024 onlink")
}

func interfaceFlaps(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7"), blackhole("10.2.0.0/26")))
	want := []string{direct("10.1.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7"), "blackhole 10.2.0.0/26 proto 202 metric 1024"}
	r.wantOurs(want...)
	r.must(r.far.SetLink(r.t.Context(), r.eth0, 0, [6]byte{}, false))
	r.wantOurs("blackhole 10.2.0.0/26 proto 202 metric 1024")
	r.wantStatuses("10.1.0.0/26 vxlan no-device: interface eth0 is down", "10.2.0.0/26 vxlan installed", "2001:db8:1::/64 vxlan no-device: interface eth0 is down")
	r.must(r.far.SetLink(r.t.Context(), r.eth0, 0, [6]byte{}, true))
	r.wantOurs(want...)
	for range 2 { // faster than anybody looks
		r.must(r.far.SetLink(r.t.Context(), r.eth0, 0, [6]byte{}, false))
		r.must(r.far.SetLink(r.t.Context(), r.eth0, 0, [6]byte{}, true))
	}
	r.wantOurs(want...)
}

func interfaceRenumbered(r *rig) {
	index := r.wire("eth1")
	r.ready(whole(viaDevice("10.1.0.0/26", "198.51.100.7", "eth1"), via("10.2.0.0/26", "192.0.2.7")))
	want := []string{direct("10.2.0.0/26", "192.0.2.7"), "10.1.0.0/26 via 198.51.100.7 dev eth1 proto 202 metric 1024 onlink"}
	r.wantOurs(want...)
	r.must(r.far.DeleteLink(r.t.Context(), index))
	r.wantOurs(want[0])
	if again := r.wire("eth1"); again == index {
		r.t.Fatal("the interface came back under its old index")
	}
	r.wantOurs(want...)
}

func foreignInTheWay(r *rig) {
	theirs := r.their("10.1.0.0/26", "192.0.2.99")
	r.write(kernel.Add, theirs)
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7")))
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"))
	r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol static has this key", "10.2.0.0/26 vxlan installed")
	r.write(kernel.Delete, theirs)
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7"))
	r.wantStatuses("10.1.0.0/26 vxlan installed", "10.2.0.0/26 vxlan installed")
}

func foreignTakesKey(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7")))
	want := []string{direct("10.1.0.0/26", "192.0.2.7"), direct("2001:db8:1::/64", "2001:db8::7")}
	r.wantOurs(want...)
	four, six := r.their("10.1.0.0/26", "192.0.2.99"), r.their("2001:db8:1::/64", "2001:db8::99")
	r.write(kernel.Replace, four)
	r.write(kernel.Replace, six)
	r.wantOurs()
	r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol static has this key", "2001:db8:1::/64 vxlan foreign: route of protocol static has this key")
	r.write(kernel.Delete, four)
	r.write(kernel.Delete, six)
	r.wantOurs(want...)
}

func restart(r *rig) {
	set := vxlanSet(2, 3)
	set.Routes = append(set.Routes, via("10.9.0.0/26", "192.0.2.7"))
	r.ready(set)
	r.wantOurs(append(vxlanRoutes(2, 3), direct("10.9.0.0/26", "192.0.2.7"))...)
	r.wantTunnel(set)
	r.start(Options{}) // a new process that remembers nothing
	r.p.Expect(OwnerVXLAN)
	r.apply(vxlanSet(2))
	r.wantStatuses("10.9.0.0/26  kept", "10.244.0.0/26 vxlan installed", "10.244.2.0/26 vxlan installed", "10.244.3.0/26  kept")
	r.wantOurs(append(vxlanRoutes(2, 3), direct("10.9.0.0/26", "192.0.2.7"))...)
	r.wantTunnel(set)
	r.p.InSync(OwnerVXLAN)
	r.wantOurs(vxlanRoutes(2)...)
	r.wantTunnel(vxlanSet(2))
}

func twoOwners(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
	r.p.Apply(OwnerBGP, whole(via("10.1.0.0/26", "192.0.2.8"), via("10.2.0.0/26", "192.0.2.8")))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.8"))
	r.wantStatuses("10.1.0.0/26 vxlan installed", "10.1.0.0/26 bgp lost: owner vxlan wants this key too", "10.2.0.0/26 bgp installed")
	r.apply(whole())
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"), direct("10.2.0.0/26", "192.0.2.8"))
}

func equalPaths(r *rig) {
	index := r.wire("eth1")
	hops := []NextHop{{Gateway: addr("192.0.2.7"), Device: "eth0", Onlink: true}, {Gateway: addr("192.0.2.8"), Device: "eth0", Onlink: true}, {Gateway: addr("198.51.100.7"), Device: "eth1", Onlink: true}}
	six := []NextHop{{Gateway: addr("2001:db8::8"), Device: "eth0", Onlink: true}, {Gateway: addr("2001:db8::7"), Device: "eth0", Onlink: true}}
	r.ready(whole(Route{Dst: pfx("10.1.0.0/26"), NextHops: hops}, Route{Dst: pfx("2001:db8:1::/64"), NextHops: six}))
	const (
		first  = " nexthop via 192.0.2.7 dev eth0 weight 1 onlink nexthop via 192.0.2.8 dev eth0 weight 1 onlink"
		second = " nexthop via 198.51.100.7 dev eth1 weight 1 onlink"
		v6     = "2001:db8:1::/64 proto 202 metric 1024 nexthop via 2001:db8::7 dev eth0 weight 1 onlink nexthop via 2001:db8::8 dev eth0 weight 1 onlink"
	)
	r.wantOurs("10.1.0.0/26 proto 202 metric 1024"+first+second, v6)
	r.must(r.far.DeleteLink(r.t.Context(), index))
	r.wantOurs("10.1.0.0/26 proto 202 metric 1024"+first, v6)
	r.wire("eth1")
	r.wantOurs("10.1.0.0/26 proto 202 metric 1024"+first+second, v6)
	leg := r.their("2001:db8:1::/64", "2001:db8::8") // one of two paths
	leg.Protocol = kernel.ProtoCaracal
	r.write(kernel.Delete, leg)
	r.wantOurs("10.1.0.0/26 proto 202 metric 1024"+first+second, v6)
	r.apply(whole())
	r.wantOurs()
}

func gatewayUnreachable(r *rig) {
	far := Route{Dst: pfx("10.1.0.0/26"), NextHops: []NextHop{{Gateway: addr("198.51.100.7"), Device: "eth0"}}}
	r.ready(whole(far, via("10.2.0.0/26", "192.0.2.7")))
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"))
	r.eventually(func() error {
		s := r.p.Snapshot(func(s *Status) bool { return s.Outcome == Failed })
		if len(s) != 1 || s[0].Route.Dst != far.Dst || s[0].Attempts == 0 || len(s[0].Detail) < 11 || s[0].Detail[:11] != "ENETUNREACH" {
			return fmt.Errorf("failed: %+v", s)
		}
		return nil
	})
	r.address("198.51.100.1/24")
	r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"), "10.1.0.0/26 via 198.51.100.7 dev eth0 proto 202 metric 1024")
}

// An interface that loses its last IPv4 address loses its IPv4 routes, and the kernel says nothing of it.
func lastAddressGoes(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), blackhole("10.2.0.0/26")))
	want := []string{direct("10.1.0.0/26", "192.0.2.7"), "blackhole 10.2.0.0/26 proto 202 metric 1024"}
	r.wantOurs(want...)
	r.must(r.far.DeleteAddress(r.t.Context(), kernel.Address{Link: r.eth0, Prefix: pfx("192.0.2.1/24")}))
	r.wantOurs(want...)
}

// otherMetricRefused: a route that is wanted under another metric than before stays until the kernel takes the new one, or nobody wants that.
func otherMetricRefused(r *rig) {
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7"), via("10.3.0.0/26", "192.0.2.7")))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7"), direct("10.3.0.0/26", "192.0.2.7"))
	var refused []Route
	for _, dst := range []string{"10.1.0.0/26", "10.2.0.0/26"} {
		refused = append(refused, Route{Dst: pfx(dst), Metric: 512, NextHops: []NextHop{{Gateway: addr("198.51.100.7"), Device: "eth0"}}}) // ENETUNREACH
	}
	r.apply(whole(refused...))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7"))
	r.apply(Change{Withdraw: []Key{{pfx("10.2.0.0/26"), 512}}})
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
	r.address("198.51.100.1/24")
	r.wantOurs("10.1.0.0/26 via 198.51.100.7 dev eth0 proto 202 metric 512")
}

func sourceGoes(r *rig) {
	from := via("10.1.0.0/26", "192.0.2.7")
	from.Src = addr("198.51.100.1")
	r.address("198.51.100.1/32")
	r.ready(whole(from, via("10.2.0.0/26", "192.0.2.7")))
	want := []string{"10.1.0.0/26 via 192.0.2.7 dev eth0 proto 202 src 198.51.100.1 metric 1024 onlink", direct("10.2.0.0/26", "192.0.2.7")}
	r.wantOurs(want...)
	r.must(r.far.DeleteAddress(r.t.Context(), kernel.Address{Link: r.eth0, Prefix: pfx("198.51.100.1/32")}))
	r.wantOurs(want[1])
	r.address("198.51.100.1/32")
	r.wantOurs(want...)
}

func parentLate(r *rig) {
	set := vxlanSet(2)
	set.Links[0].VXLAN.Parent = "eth1"
	r.ready(set)
	r.wantOurs("blackhole 10.244.0.0/26 proto 202 metric 1024")
	r.eventually(func() error {
		if d := r.p.Devices(); len(d) != 1 || d[0].Outcome != NoDevice || d[0].Detail != "parent interface eth1 is missing" {
			return fmt.Errorf("devices %+v", d)
		}
		return nil
	})
	index := r.wire("eth1")
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2)...)
	r.must(r.far.DeleteLink(r.t.Context(), index)) // the tunnel goes with it
	r.wantOurs("blackhole 10.244.0.0/26 proto 202 metric 1024")
	r.wire("eth1")
	r.wantTunnel(set)
	r.wantOurs(vxlanRoutes(2)...)
}

func everythingWithdrawn(r *rig) {
	r.ready(vxlanSet(2, 3))
	r.wantOurs(vxlanRoutes(2, 3)...)
	r.apply(Change{Whole: true, Links: []Link{}})
	r.wantOurs()
	r.eventually(func() error {
		if l := r.device(DeviceVXLAN); l != nil {
			return fmt.Errorf("%s is still there", l.Name)
		}
		return nil
	})
	r.wantStatuses()
}
