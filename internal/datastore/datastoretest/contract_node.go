package datastoretest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// everyKind writes one object of each kind that has content the file form could lose.
func everyKind(t *testing.T, s datastore.Store) {
	asn, one := calico.ASNumber(64513), 1
	owner, handleID := "host:node-a", "k8s-pod-network.ABC"
	yes := true
	pool := &calico.IPPool{Spec: calico.IPPoolSpec{CIDR: "10.0.0.0/16", VXLANMode: "CrossSubnet", BlockSize: 30,
		NodeSelector: "zone == 'a'", AllowedUses: []string{"Workload", "Tunnel"}}}
	node := &calico.Node{Spec: calico.NodeSpec{
		BGP: &calico.NodeBGPSpec{ASNumber: &asn, IPv4Address: "192.0.2.1/24"}, IPv6VXLANTunnelAddr: "fd00::1"}}
	block := &calico.IPAMBlock{Spec: calico.IPAMBlockSpec{CIDR: "10.0.0.0/31", Affinity: &owner,
		Allocations: []*int{nil, new(int)}, Unallocated: []int{0},
		Attributes:                  []calico.AllocationAttrs{{HandleID: &handleID, Secondary: map[string]string{"node": "node-a"}}},
		SequenceNumber:              1_800_000_000_123_456_789, // more than a float64 holds exactly
		SequenceNumberForAllocation: map[string]uint64{"1": 1_800_000_000_123_456_787}}}
	empty := &calico.IPAMBlock{Spec: calico.IPAMBlockSpec{CIDR: "10.0.0.2/31", Allocations: []*int{nil, nil},
		Unallocated: []int{1, 0}, Attributes: []calico.AllocationAttrs{}}}
	affinity := &calico.BlockAffinity{Spec: calico.BlockAffinitySpec{State: "pending", Node: "node-a", Type: "host",
		CIDR: "10.0.0.0/31", Deleted: true}}
	affinity.Labels = map[string]string{calico.LabelHostnameHash: calico.HostnameHash("node-a"), calico.LabelIPVersion: "4"}
	soft := handle("h", map[string]int{"10.0.0.0/31": 1})
	soft.Spec.Deleted = true
	config := &calico.IPAMConfiguration{Spec: calico.IPAMConfigurationSpec{StrictAffinity: true, AutoAllocateBlocks: &yes,
		MaxBlocksPerHost: 3, IPCooldownSeconds: 60}}
	objects := []calico.Object{pool, node, block, empty, affinity, soft, config,
		&calico.BGPConfiguration{Spec: calico.BGPConfigurationSpec{ASNumber: &asn, ListenPort: &one}},
		&calico.BGPPeer{Spec: calico.BGPPeerSpec{PeerIP: "192.0.2.9", ASNumber: asn}},
		&calico.FelixConfiguration{Spec: calico.FelixConfigurationSpec{VXLANMTU: &one}}}
	for i, obj := range objects {
		obj.Meta().Name = fmt.Sprint("object-", i)
		created := create(t, s, obj)
		got, err := s.Get(t.Context(), obj.Kind(), obj.Meta().Name)
		if err != nil {
			t.Errorf("%s: %v", obj.Kind(), err)
			continue
		}
		if diff := cmp.Diff(created, got); diff != "" {
			t.Errorf("%s: get differs from create:\n%s", obj.Kind(), diff)
		}
		want, meta := calico.Clone(obj), got.Meta()
		want.Meta().UID, want.Meta().ResourceVersion = meta.UID, meta.ResourceVersion
		want.Meta().CreationTimestamp = meta.CreationTimestamp
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: changed on the way:\n%s", obj.Kind(), diff)
		}
	}
}

func fullNode() *calico.Node {
	asn := calico.ASNumber(64513)
	node := &calico.Node{Spec: calico.NodeSpec{
		BGP:                 &calico.NodeBGPSpec{ASNumber: &asn, IPv4Address: "192.0.2.1/24", IPv4IPIPTunnelAddr: "10.0.0.1"},
		IPv4VXLANTunnelAddr: "10.0.0.2", VXLANTunnelMACAddr: "66:00:00:00:00:01",
	}}
	node.Name = "node-a"
	node.Labels = map[string]string{"zone": "a"}
	node.Annotations = map[string]string{"note": "kept"}
	return node
}

func getNode(t *testing.T, s datastore.Store, name string) *calico.Node {
	t.Helper()
	obj, err := s.Get(t.Context(), calico.KindNode, name)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*calico.Node)
}

func patchNode(t *testing.T, s datastore.Store) {
	create(t, s, fullNode())
	addr := func(s string) *netip.Addr { a := netip.MustParseAddr(s); return &a }
	want := fullNode()
	for _, step := range []struct {
		name  string
		patch datastore.NodePatch
		want  func()
	}{
		{"nothing", datastore.NodePatch{}, func() {}},
		{"set one", datastore.NodePatch{VXLANAddr6: addr("fd00::5")}, func() { want.Spec.IPv6VXLANTunnelAddr = "fd00::5" }},
		{"replace one, clear another", datastore.NodePatch{VXLANAddr4: addr("10.0.0.9"), IPIPAddr: &netip.Addr{}},
			func() { want.Spec.IPv4VXLANTunnelAddr, want.Spec.BGP.IPv4IPIPTunnelAddr = "10.0.0.9", "" }},
		{"set IPIP", datastore.NodePatch{IPIPAddr: addr("10.0.0.7")}, func() { want.Spec.BGP.IPv4IPIPTunnelAddr = "10.0.0.7" }},
		{"clear the rest", datastore.NodePatch{VXLANAddr4: &netip.Addr{}, VXLANAddr6: &netip.Addr{}},
			func() { want.Spec.IPv4VXLANTunnelAddr, want.Spec.IPv6VXLANTunnelAddr = "", "" }},
	} {
		if err := s.PatchNode(t.Context(), "node-a", step.patch); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		step.want()
		got := getNode(t, s, "node-a")
		if diff := cmp.Diff(want.Spec, got.Spec); diff != "" {
			t.Errorf("%s: spec:\n%s", step.name, diff)
		}
		if got.Labels["zone"] != "a" || got.Annotations["note"] != "kept" {
			t.Errorf("%s: labels %v, annotations %v", step.name, got.Labels, got.Annotations)
		}
	}
	for _, leaving := range []bool{true, true, false, false} {
		if err := s.PatchNode(t.Context(), "node-a", datastore.NodePatch{Leaving: &leaving}); err != nil {
			t.Fatal(err)
		}
		got := getNode(t, s, "node-a")
		word, _ := calico.Word(got)
		if n := word.(*cluster.Node); n.Leaving != leaving || got.Annotations["note"] != "kept" || cmp.Diff(want.Spec, got.Spec) != "" {
			t.Errorf("leaving %v: %+v of annotations %v", leaving, n, got.Annotations)
		}
	}
	bare := &calico.Node{}
	bare.Name = "bare"
	create(t, s, bare)
	if err := s.PatchNode(t.Context(), "bare", datastore.NodePatch{IPIPAddr: addr("10.0.0.8")}); err != nil {
		t.Fatal(err)
	}
	if bgp := getNode(t, s, "bare").Spec.BGP; bgp == nil || bgp.IPv4IPIPTunnelAddr != "10.0.0.8" {
		t.Errorf("IPIP address of a node without spec.bgp: %+v", bgp)
	}
}

// startPatch: what a node says of itself when it starts.
func startPatch(t *testing.T, s datastore.Store) {
	create(t, s, fullNode())
	prefix := func(s string) *netip.Prefix { p := netip.MustParsePrefix(s); return &p }
	asn := func(n uint32) *uint32 { return &n }
	interfaces := []calico.NodeInterface{{Name: "eth0", Addresses: []string{"192.0.2.7", "2001:db8::7"}}, {Name: "eth1", Addresses: []string{"198.51.100.7"}}}
	want, large := fullNode(), calico.ASNumber(4_200_000_001)
	for _, step := range []struct {
		name  string
		patch datastore.NodePatch
		want  func()
	}{
		{"replace the address", datastore.NodePatch{Addr4: prefix("192.0.2.7/26")}, func() { want.Spec.BGP.IPv4Address = "192.0.2.7/26" }},
		{"set the other, and interfaces", datastore.NodePatch{Addr6: prefix("2001:db8::7/64"), Interfaces: &interfaces},
			func() { want.Spec.BGP.IPv6Address, want.Spec.Interfaces = "2001:db8::7/64", interfaces }},
		{"an AS number of four bytes", datastore.NodePatch{ASN: asn(uint32(large))}, func() { want.Spec.BGP.ASNumber = &large }},
		{"nothing", datastore.NodePatch{}, func() {}},
		{"fewer interfaces, with a tunnel address", datastore.NodePatch{Interfaces: &[]calico.NodeInterface{interfaces[1]}, VXLANAddr6: func() *netip.Addr { a := netip.MustParseAddr("fd00::5"); return &a }()},
			func() { want.Spec.Interfaces, want.Spec.IPv6VXLANTunnelAddr = interfaces[1:], "fd00::5" }},
		{"clear", datastore.NodePatch{Addr4: &netip.Prefix{}, ASN: asn(0), Interfaces: &[]calico.NodeInterface{}},
			func() { want.Spec.BGP.IPv4Address, want.Spec.BGP.ASNumber, want.Spec.Interfaces = "", nil, nil }},
		{"clear the rest of spec.bgp", datastore.NodePatch{Addr6: &netip.Prefix{}, IPIPAddr: &netip.Addr{}}, func() { want.Spec.BGP = nil }},
		{"begin again", datastore.NodePatch{Addr4: prefix("192.0.2.8/24")}, func() { want.Spec.BGP = &calico.NodeBGPSpec{IPv4Address: "192.0.2.8/24"} }},
	} {
		if err := s.PatchNode(t.Context(), "node-a", step.patch); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		step.want()
		got := getNode(t, s, "node-a")
		if diff := cmp.Diff(want.Spec, got.Spec); diff != "" {
			t.Errorf("%s: spec:\n%s", step.name, diff)
		}
		if got.Labels["zone"] != "a" || got.Annotations["note"] != "kept" {
			t.Errorf("%s: labels %v, annotations %v", step.name, got.Labels, got.Annotations)
		}
		want.Spec = calico.Clone(want).(*calico.Node).Spec
	}
}

// patchConflicts: a patch is a write like another, so an update of what was read before it must not undo it.
func patchConflicts(t *testing.T, s datastore.Store) {
	create(t, s, fullNode())
	old := getNode(t, s, "node-a")
	a := netip.MustParseAddr("10.0.0.9")
	if err := s.PatchNode(t.Context(), "node-a", datastore.NodePatch{VXLANAddr4: &a}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Update(t.Context(), old)
	wantErr(t, "update of the node before the patch", err, datastore.ErrConflict)
	if got := getNode(t, s, "node-a").Spec.IPv4VXLANTunnelAddr; got != a.String() {
		t.Errorf("address %q, want %s", got, a)
	}
}

// racingPatches: patches of different fields and updates of the labels never undo one another.
func racingPatches(t *testing.T, s datastore.Store) {
	create(t, s, fullNode())
	at := func(i int) *netip.Addr { a := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}); return &a }
	a6 := netip.MustParseAddr("fd00::6")
	errs := race(racers, func(i int) error {
		switch i % 4 {
		case 0:
			return s.PatchNode(t.Context(), "node-a", datastore.NodePatch{IPIPAddr: at(i)})
		case 1:
			return s.PatchNode(t.Context(), "node-a", datastore.NodePatch{VXLANAddr4: at(i)})
		case 2:
			return s.PatchNode(t.Context(), "node-a", datastore.NodePatch{VXLANAddr6: &a6})
		}
		for {
			obj, err := s.Get(t.Context(), calico.KindNode, "node-a")
			if err != nil {
				return err
			}
			obj.Meta().Labels[fmt.Sprint("racer-", i)] = "here"
			if _, err := s.Update(t.Context(), obj); !errors.Is(err, datastore.ErrConflict) {
				return err
			}
		}
	})
	if n := winners(t, errs); n != racers {
		t.Fatalf("%d of %d writers succeeded", n, racers)
	}
	got := getNode(t, s, "node-a")
	if got.Spec.BGP.IPv4IPIPTunnelAddr == "10.0.0.1" || got.Spec.IPv4VXLANTunnelAddr == "10.0.0.2" ||
		got.Spec.IPv6VXLANTunnelAddr != "fd00::6" || got.Spec.BGP.IPv4Address != "192.0.2.1/24" {
		t.Errorf("a patch was lost: %+v %+v", got.Spec, got.Spec.BGP)
	}
	for i := 3; i < racers; i += 4 {
		if got.Labels[fmt.Sprint("racer-", i)] != "here" {
			t.Errorf("the label of racer %d was lost", i)
		}
	}
}
