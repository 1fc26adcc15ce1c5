package datastore

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

var (
	nodeKey = Key{calico.KindNode, "a"}
	wrong   = []cluster.Problem{{Object: "Node a", Field: "spec", Text: "wrong"}}
)

func TestAGoodObjectIsNotReplacedByABadOne(t *testing.T) {
	in := NewIntake()
	good, partial := &cluster.Node{Name: "a", ASN: 1}, &cluster.Node{Name: "a", ASN: 2}
	in.Set(nodeKey, partial, wrong)
	if n := in.State().Node("a"); n == nil || n.ASN != 2 {
		t.Fatalf("at first, what is usable must be used: %v", n)
	}
	in.Set(nodeKey, good, nil)
	in.Set(nodeKey, partial, wrong)
	if s := in.State(); s.Node("a").ASN != 1 || len(s.Problems()) != 1 {
		t.Fatalf("got %v, %v", s.Node("a"), s.Problems())
	}
	in.Set(nodeKey, nil, wrong)
	if s := in.State(); s.Node("a").ASN != 1 || len(s.Problems()) != 1 {
		t.Fatalf("got %v, %v", s.Node("a"), s.Problems())
	}
	in.Set(nodeKey, good, nil)
	if p := in.State().Problems(); len(p) != 0 {
		t.Fatalf("mended, but %v", p)
	}
	in.Delete(nodeKey)
	if n := in.State().Node("a"); n != nil {
		t.Fatalf("deleted, but %v", n)
	}
}

func TestWhatIsEqualWakesNobody(t *testing.T) {
	in := NewIntake()
	in.Set(nodeKey, &cluster.Node{Name: "a", Labels: map[string]string{"x": "y"}}, nil)
	in.Stray(wrong)
	before := in.State()
	in.Set(nodeKey, &cluster.Node{Name: "a", Labels: map[string]string{"x": "y"}}, nil)
	in.Set(Key{calico.KindIPAMHandle, "h"}, nil, nil)
	in.Stray(wrong)
	if in.State() != before {
		t.Error("the state is another one")
	}
}

func TestAnObjectThatMovesLeavesNothingBehind(t *testing.T) {
	in := NewIntake()
	a, b := netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.0.0.64/26")
	block, claim := Key{calico.KindIPAMBlock, "x"}, Key{calico.KindBlockAffinity, "x"}
	for _, p := range []netip.Prefix{a, b} {
		in.Set(block, &cluster.Block{CIDR: p}, nil)
		in.Set(claim, &cluster.Affinity{Node: "n", CIDR: p}, nil)
	}
	s := in.State()
	if len(s.Blocks()) != 1 || s.Blocks()[0].CIDR != b || len(s.AffinitiesOf("n")) != 1 {
		t.Errorf("%v %v", s.Blocks(), s.AffinitiesOf("n"))
	}
	in.Set(block, nil, nil) // soft-deleted
	in.Delete(claim)
	if s := in.State(); len(s.Blocks())+len(s.AffinitiesOf("n")) != 0 {
		t.Errorf("%v %v", s.Blocks(), s.AffinitiesOf("n"))
	}
}

func TestSettingsFallBackToDefaults(t *testing.T) {
	in := NewIntake()
	conf, felix := cluster.DefaultBGP(), cluster.DefaultFelix()
	conf.ASN, felix.VXLANVNI = 65000, 7
	set := map[Key]any{
		{calico.KindBGPConfiguration, "default"}: &conf,
		{calico.KindBGPConfiguration, "node.a"}:  &cluster.BGPConfig{NodeListenPorts: map[string]uint16{"a": 1179}},
		{calico.KindBGPConfiguration, "node.b"}:  &cluster.BGPConfig{NodeListenPorts: map[string]uint16{"b": 2179}},
		{calico.KindFelixConfig, "default"}:      &felix,
		{calico.KindConfigMap, "calico-config"}:  cluster.BackendVXLAN,
		{calico.KindFelixConfig, "node.a"}:       nil,
	}
	for k, w := range set {
		in.Set(k, w, nil)
	}
	want := conf
	want.NodeListenPorts = map[string]uint16{"a": 1179, "b": 2179}
	s := in.State()
	if diff := cmp.Diff(want, s.BGP(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || s.Felix() != felix || s.Backend() != cluster.BackendVXLAN {
		t.Errorf("%s %v %v", diff, s.Felix(), s.Backend())
	}
	for k := range set {
		in.Delete(k)
	}
	s = in.State()
	if diff := cmp.Diff(cluster.DefaultBGP(), s.BGP(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || s.Felix() != cluster.DefaultFelix() || s.Backend() != "" {
		t.Errorf("%s %v %v", diff, s.Felix(), s.Backend())
	}
}

// TestAdvertiseClusterIPs: the environment's ranges stand, whatever a BGPConfiguration says or whether there is one.
func TestAdvertiseClusterIPs(t *testing.T) {
	env, theirs := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	key := Key{calico.KindBGPConfiguration, calico.DefaultName}
	conf := cluster.DefaultBGP()
	conf.ServiceClusterIPs, conf.ServiceExternalIPs = theirs, theirs
	for _, c := range []struct{ given, want []netip.Prefix }{{nil, theirs}, {env, env}} {
		in := NewIntake()
		in.AdvertiseClusterIPs(c.given)
		if got := in.State().BGP(); !slices.Equal(got.ServiceClusterIPs, c.given) || got.ASN != conf.ASN {
			t.Errorf("without an object: %+v", got)
		}
		in.Set(key, &conf, nil)
		if got := in.State().BGP(); !slices.Equal(got.ServiceClusterIPs, c.want) || !slices.Equal(got.ServiceExternalIPs, theirs) {
			t.Errorf("with one: %+v", got)
		}
		in.Delete(key)
		if got := in.State().BGP(); !slices.Equal(got.ServiceClusterIPs, c.given) {
			t.Errorf("without it again: %+v", got)
		}
	}
}

// TestASliceGoesToAnotherService: what is kept by more than the name of its object leaves its old place.
func TestASliceGoesToAnotherService(t *testing.T) {
	in, key := NewIntake(), Key{calico.KindEndpointSlice, "default/x"}
	for _, service := range []string{"default/web", "default/other", "default/web"} {
		in.Set(key, &cluster.EndpointSlice{Name: "default/x", Service: service, Family: cluster.IPv4, Ready: []string{"a"}}, nil)
		st := in.State()
		if n := len(st.Slices("default/web")) + len(st.Slices("default/other")); n != 1 || len(st.Slices(service)) != 1 {
			t.Errorf("of %s: %d slices, %d of that", service, n, len(st.Slices(service)))
		}
	}
	in.Delete(key)
	if n := len(in.State().Slices("default/web")); n != 0 {
		t.Errorf("%d slices are left", n)
	}
}
