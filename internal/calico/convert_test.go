package calico

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/cluster"
)

var addrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// readAll parses every document of a text.
func readAll(t testing.TB, data []byte) ([]Resource, []cluster.Problem) {
	t.Helper()
	var resources []Resource
	var problems []cluster.Problem
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return resources, problems
		} else if err != nil {
			t.Fatal(err)
		}
		r, p := Resources(&doc)
		resources, problems = append(resources, r...), append(problems, p...)
	}
}

// The examples are written as Calico's documentation writes its own.
func TestExamples(t *testing.T) {
	words := map[string]any{}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		resources, problems := readAll(t, data)
		for _, p := range problems {
			t.Errorf("%s: %+v", f, p)
		}
		for _, r := range resources {
			w, problems := Word(r.Object)
			for _, p := range append(r.Problems, problems...) {
				t.Errorf("%s: %+v", f, p)
			}
			words[string(r.Kind)+" "+r.Name] = w
		}
	}
	bgp := cluster.DefaultBGP()
	bgp.ASN, bgp.ListenPort, bgp.BindNodeIP, bgp.MeshMaxRestartTime = 64600, 1179, true, 2*time.Minute
	bgp.Advertisements = []cluster.Advertisement{{CIDR: netip.MustParsePrefix("10.20.0.0/16"), Communities: []cluster.Community{{A: 64600, B: 300}},
		Source: "BGPConfiguration default spec.prefixAdvertisements[0]"}}
	bgp.ServiceClusterIPs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
	bgp.ServiceExternalIPs = []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}
	want := map[string]any{
		"BGPFilter rack": &cluster.BGPFilter{
			Name: "rack",
			Export4: []cluster.FilterRule{
				{CIDR: netip.MustParsePrefix("10.20.0.0/16"), MinLen: 16, MaxLen: 32, RemotePeers: true},
				{CIDR: netip.MustParsePrefix("10.20.0.0/16"), MinLen: 20, MaxLen: 28, PeerType: cluster.EBGP, Accept: true, SetPriority: 512,
					AddCommunities: []cluster.Community{{A: 65000, B: 100}, {Large: true, A: 65000, B: 1, C: 2}}, Prepend: []uint32{64513, 64512, 65546}},
				{},
			},
			Import4: []cluster.FilterRule{
				{CIDR: netip.MustParsePrefix("0.0.0.0/0"), Accept: true},
				{CIDR: netip.MustParsePrefix("10.20.0.0/24"), MinLen: 24, MaxLen: 24, Not: true, Interface: "eth*", Accept: true},
				{CIDR: netip.MustParsePrefix("192.0.2.0/24"), MinLen: 24, MaxLen: 32, Not: true, Community: cluster.Community{A: 65000, B: 7},
					ASPathPrefix: []uint32{65001, 65002}, Priority: 1024},
			},
			Export6: []cluster.FilterRule{{CIDR: netip.MustParsePrefix("fd20::/16"), MinLen: 16, MaxLen: 64, Accept: true}},
			Import6: []cluster.FilterRule{{Community: cluster.Community{Large: true, A: 4200000000, B: 1, C: 2}, Accept: true}},
		},
		"BGPPeer every-field": &cluster.BGPPeer{Name: "every-field", Node: "west-1", PeerIP: netip.MustParseAddr("198.51.100.2"), ASN: 64700, LocalASN: 64701,
			AllowOwnAS: 2, SelfNextHop: true, KeepaliveTime: 10 * time.Second, ReachableBy: netip.MustParseAddr("198.51.100.254"), ManualReverse: true,
			Filters: []string{"rack", "more"}, Password: cluster.SecretKey{Wanted: true, Name: "bgp-secrets", Key: "tor"}},
		"Secret bgp-secrets": &cluster.Secret{Name: "bgp-secrets", Data: map[string]string{"tor": "seasoning", "plain": "salt", "both": "sugar"}},
		"IPPool crosstown": &cluster.Pool{Name: "crosstown", CIDR: netip.MustParsePrefix("10.20.0.0/16"), IPIPMode: cluster.CrossSubnet,
			NATOutgoing: true, BlockSize: 26, NodeSelector: "all()", Workload: true, Tunnel: true},
		"IPPool overlay-v6": &cluster.Pool{Name: "overlay-v6", CIDR: netip.MustParsePrefix("fd20:10::/64"), VXLANMode: cluster.Always,
			BlockSize: 122, NodeSelector: `zone == "west"`, Workload: true, Tunnel: true},
		"IPPool balancers": &cluster.Pool{Name: "balancers", CIDR: netip.MustParsePrefix("203.0.113.0/24"), NATOutgoing: true,
			BlockSize: 29, NodeSelector: "all()"},
		"IPPool seen-by-kubectl": &cluster.Pool{Name: "seen-by-kubectl", CIDR: netip.MustParsePrefix("10.21.0.0/16"), VXLANMode: cluster.CrossSubnet,
			NATOutgoing: true, BlockSize: 26, NodeSelector: "all()", Workload: true, Tunnel: true, Created: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)},
		"Node west-1": &cluster.Node{Name: "west-1", Labels: map[string]string{"rack": "r1", "kubernetes.io/os": "linux"},
			Addr4: netip.MustParsePrefix("198.51.100.11/24"), Addr6: netip.MustParsePrefix("2001:db8:51::11/64"),
			IPIPAddr: netip.MustParseAddr("10.20.7.1"), VXLANAddr4: netip.MustParseAddr("10.21.7.1"), VXLANAddr6: netip.MustParseAddr("fd20:10::7:1"),
			VXLANMAC4: cluster.MAC{0x66, 0, 0, 0, 0, 1}, VXLANMAC6: cluster.MAC{0x66, 0, 0, 0, 0, 2}, ASN: 64513,
			RouteReflectorClusterID: netip.MustParseAddr("0.0.0.7")},
		"Node no-bgp":                  &cluster.Node{Name: "no-bgp"},
		"BGPConfiguration default":     &bgp,
		"BGPConfiguration node.west-1": &cluster.BGPConfig{NodeListenPorts: map[string]uint16{"west-1": 2179}},
		"BGPPeer tor-of-west-1":        &cluster.BGPPeer{Name: "tor-of-west-1", Node: "west-1", PeerIP: netip.MustParseAddr("198.51.100.1"), ASN: 64700},
		"BGPPeer tor-by-rack": &cluster.BGPPeer{Name: "tor-by-rack", NodeSelector: "rack == 'r1'", PeerIP: netip.MustParseAddr("2001:db8:51::1"), PeerPort: 1790,
			ASN: 65546, KeepNextHop: true, MaxRestartTime: time.Minute, TTLSecurity: 1, NoSource: true},
		"BGPPeer reflectors": &cluster.BGPPeer{Name: "reflectors", NodeSelector: "all()", PeerSelector: "route-reflector == 'true'"},
		"FelixConfiguration default": &cluster.FelixConfig{VXLANMTU: 1430, VXLANMTUv6: 1410, IPIPMTU: 1400, VXLANPort: 4790, VXLANVNI: 4097,
			IPv6Off: true, Programs: cluster.ClusterRoutes{IPIP: true},
			RouteSource4: netip.MustParseAddr("198.51.100.11")},
		"ConfigMap calico-config": cluster.BackendBird,
		"IPAMBlock 10-20-7-0-30": &cluster.Block{CIDR: netip.MustParsePrefix("10.20.7.0/30"), Node: "west-1",
			Borrowed: []cluster.Assignment{{Addr: netip.MustParseAddr("10.20.7.1"), Node: "east-1"}}},
		"BlockAffinity west-1-10-20-7-0-30":          &cluster.Affinity{Node: "west-1", CIDR: netip.MustParsePrefix("10.20.7.0/30"), State: cluster.Confirmed},
		"BlockAffinity load-balancer-203-0-113-0-29": nil,
		"IPAMHandle ipip-tunnel-addr-west-1":         nil,
		"IPAMConfiguration default":                  nil,
	}
	if diff := cmp.Diff(want, words, addrs); diff != "" {
		t.Error(diff)
	}
}

func TestBareNodeAddressHasAHostMask(t *testing.T) {
	n := &Node{ObjectMeta: ObjectMeta{Name: "a"}, Spec: NodeSpec{BGP: &NodeBGPSpec{IPv4Address: "192.0.2.7", IPv6Address: "2001:db8::7"}}}
	got, problems := n.ClusterNode()
	if len(problems) > 0 || got.Addr4 != netip.MustParsePrefix("192.0.2.7/32") || got.Addr6 != netip.MustParsePrefix("2001:db8::7/128") {
		t.Errorf("%v %v %v", got.Addr4, got.Addr6, problems)
	}
}

func ptr[T any](v T) *T { return &v }

func TestBlockOwners(t *testing.T) {
	released := time.Now()
	spec := IPAMBlockSpec{CIDR: "10.0.0.0/30", Allocations: []*int{ptr(0), ptr(1), ptr(2), ptr(3)}, Attributes: []AllocationAttrs{
		{Secondary: map[string]string{"node": "a"}},
		{Secondary: map[string]string{"node": "b"}},
		{Secondary: map[string]string{"pod": "x"}},
		{Secondary: map[string]string{"node": "c"}, ReleasedAt: &released},
	}}
	for _, test := range []struct {
		affinity *string
		deleted  bool
		want     *cluster.Block
	}{
		{affinity: ptr("host:a"), want: &cluster.Block{Node: "a", Borrowed: []cluster.Assignment{{Addr: netip.MustParseAddr("10.0.0.1"), Node: "b"}}}},
		{affinity: nil, want: &cluster.Block{Borrowed: []cluster.Assignment{
			{Addr: netip.MustParseAddr("10.0.0.0"), Node: "a"}, {Addr: netip.MustParseAddr("10.0.0.1"), Node: "b"}}}},
		{affinity: ptr("virtual:load-balancer"), want: &cluster.Block{Virtual: "load-balancer"}},
		{affinity: ptr("host:a"), deleted: true},
	} {
		b := &IPAMBlock{ObjectMeta: ObjectMeta{Name: "10-0-0-0-30"}, Spec: spec}
		b.Spec.Affinity, b.Spec.Deleted = test.affinity, test.deleted
		got, problems := b.Block()
		if test.want != nil {
			test.want.CIDR = netip.MustParsePrefix("10.0.0.0/30")
		}
		if diff := cmp.Diff(test.want, got, addrs); diff != "" || len(problems) > 0 {
			t.Errorf("%v: %s %v", test.affinity, diff, problems)
		}
	}
}

// TestPoolsThatCalicoWouldRefuse: how a pool is read that has a problem; "" stands for not at all.
func TestPoolsThatCalicoWouldRefuse(t *testing.T) {
	for _, c := range []struct {
		spec IPPoolSpec
		want string
	}{
		{IPPoolSpec{CIDR: "10.0.0.0/16", IPIPMode: "Always", VXLANMode: "CrossSubnet"}, "10.0.0.0/16 VXLAN CrossSubnet"},
		{IPPoolSpec{CIDR: "fd00::/64", IPIPMode: "Always"}, "fd00::/64 none Never"},
		{IPPoolSpec{CIDR: "fd00::/64", IPIPMode: "Always", VXLANMode: "Always"}, "fd00::/64 VXLAN Always"},
		{IPPoolSpec{CIDR: "10.0.0.0/16", VXLANMode: "Always", BlockSize: 19}, "10.0.0.0/16 VXLAN Always disabled"},
		{IPPoolSpec{CIDR: "10.0.0.0/28", IPIPMode: "CrossSubnet"}, "10.0.0.0/28 IPIP CrossSubnet disabled"},
		{IPPoolSpec{CIDR: "10.0.0.0/16", NodeSelector: "rack = 'r1'"}, "10.0.0.0/16 none Never disabled"},
		{IPPoolSpec{CIDR: "10.0.0.0/16", AssignmentMode: "manual"}, "10.0.0.0/16 none Never disabled"},
		{IPPoolSpec{CIDR: "10.0.0.0/16", AllowedUses: []string{"Pod"}}, "10.0.0.0/16 none Never disabled"},
		{IPPoolSpec{CIDR: "10.0.0.0/16", VXLANMode: "always"}, ""},
		{IPPoolSpec{CIDR: "10.0.0.0/16", IPIPMode: "cross-subnet", VXLANMode: "Always"}, ""},
		{IPPoolSpec{CIDR: "ten", VXLANMode: "Always"}, ""},
		{IPPoolSpec{CIDR: "10.0.0.5/16"}, ""},
		{IPPoolSpec{}, ""},
	} {
		p, problems := (&IPPool{ObjectMeta: ObjectMeta{Name: "p"}, Spec: c.spec}).Pool()
		got := ""
		if p != nil {
			encap, mode := p.Encapsulation()
			got = fmt.Sprintf("%v %v %v", p.CIDR, encap, mode)
			if p.Disabled {
				got += " disabled"
			}
		}
		if got != c.want || len(problems) == 0 {
			t.Errorf("%+v: %q, want %q, problems %v", c.spec, got, c.want, problems)
		}
	}
}

// TestRestartTimes: no restart time is the default, zero is as little as can be said, which is not the default.
func TestRestartTimes(t *testing.T) {
	for _, tc := range []struct {
		text string
		want time.Duration
	}{{"", 0}, {"0s", time.Second}, {"400ms", time.Second}, {"1500ms", 2 * time.Second}, {"4095s", 4095 * time.Second}} {
		b := &BGPPeer{ObjectMeta: ObjectMeta{Name: "p"}, Spec: BGPPeerSpec{PeerIP: "192.0.2.1", ASNumber: 1}}
		c := &BGPConfiguration{ObjectMeta: ObjectMeta{Name: DefaultName}}
		mesh := cluster.DefaultBGP().MeshMaxRestartTime
		if tc.text != "" {
			d, err := time.ParseDuration(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			b.Spec.MaxRestartTime, c.Spec.NodeMeshMaxRestartTime = (*Duration)(&d), (*Duration)(&d)
			mesh = tc.want
		}
		p, problems := b.Peer()
		conf, more := c.Config()
		if len(problems)+len(more) > 0 || p.MaxRestartTime != tc.want || conf.MeshMaxRestartTime != mesh {
			t.Errorf("%q: peer %s, mesh %s, want %s: %v %v", tc.text, p.MaxRestartTime, conf.MeshMaxRestartTime, tc.want, problems, more)
		}
	}
}
