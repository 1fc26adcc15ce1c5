package bgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

var values = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func node(name, v4, v6 string) *cluster.Node {
	n := &cluster.Node{Name: name}
	if v4 != "" {
		n.Addr4 = netip.MustParsePrefix(v4)
	}
	if v6 != "" {
		n.Addr6 = netip.MustParsePrefix(v6)
	}
	return n
}

func reflector(n *cluster.Node) *cluster.Node {
	n.RouteReflectorClusterID = netip.MustParseAddr("10.9.9.9")
	return n
}

// lines prints sessions, one a line, so that a table of expectations can be read.
func lines(peers []bgp.Peer) []string {
	var out []string
	for _, p := range peers {
		s := fmt.Sprintf("%s %s:%d AS%d from %v", p.Name, p.Addr, p.Port, p.ASN, p.LocalAddr)
		if p.Passive {
			s += " passive"
		}
		if p.KeepNextHop {
			s += " keep-next-hop"
		}
		if p.TTLSecurity != 0 {
			s += fmt.Sprintf(" ttl-security %d", p.TTLSecurity)
		}
		if p.RestartTime != 0 && p.RestartTime != bgp.DefaultRestartTime {
			s += fmt.Sprintf(" restart %v", p.RestartTime)
		}
		out = append(out, s+" | "+p.Source+" | "+p.Node)
	}
	return out
}

// TestMesh holds the rules of confd's processMeshPeers.
func TestMesh(t *testing.T) {
	three := []*cluster.Node{node("a", "192.0.2.9/24", ""), node("b", "192.0.2.10/24", "2001:db8::b/64"), node("c", "198.51.100.7/24", "2001:db8::c/64")}
	for _, tc := range []struct {
		name     string
		objects  cluster.Objects
		self     string
		want     []string
		problems int
	}{{
		name: "who dials goes by strings: 192.0.2.9 sorts above 192.0.2.10", objects: cluster.Objects{Nodes: three}, self: "a",
		want: []string{
			"Mesh_192_0_2_10 192.0.2.10:179 AS64512 from 192.0.2.9 | Node b (mesh) | b",
			"Mesh_198_51_100_7 198.51.100.7:179 AS64512 from 192.0.2.9 passive | Node c (mesh) | c",
		},
	}, {
		name: "both families, each over itself", objects: cluster.Objects{Nodes: three}, self: "b",
		want: []string{
			"Mesh_192_0_2_9 192.0.2.9:179 AS64512 from 192.0.2.10 passive | Node a (mesh) | a",
			"Mesh_198_51_100_7 198.51.100.7:179 AS64512 from 192.0.2.10 passive | Node c (mesh) | c",
			"Mesh_2001_db8__c 2001:db8::c:179 AS64512 from 2001:db8::b passive | Node c (mesh) | c",
		},
	}, {
		name: "a reflector has no mesh", self: "r",
		objects: cluster.Objects{Nodes: append(slices.Clone(three), reflector(node("r", "192.0.2.50/24", "")))},
	}, {
		name: "and is in nobody's", self: "a",
		objects: cluster.Objects{Nodes: []*cluster.Node{three[0], reflector(node("r", "192.0.2.50/24", ""))}},
	}, {
		name: "mesh off", self: "a",
		objects: cluster.Objects{Nodes: three, BGP: cluster.BGPConfig{ASN: 64512, ListenPort: 179}},
	}, {
		name: "AS, ports and restart time", self: "a",
		objects: cluster.Objects{
			Nodes: []*cluster.Node{three[0], {Name: "b", Addr4: netip.MustParsePrefix("192.0.2.10/24"), ASN: 65001}},
			BGP:   cluster.BGPConfig{ASN: 64999, Mesh: true, ListenPort: 1790, MeshMaxRestartTime: time.Minute, NodeListenPorts: map[string]uint16{"b": 1791}},
		},
		want: []string{"Mesh_192_0_2_10 192.0.2.10:1791 AS65001 from 192.0.2.9 restart 1m0s | Node b (mesh) | b"},
	}, {
		name: "the AS of a node without one is the cluster's, whatever ours is", self: "a",
		objects: cluster.Objects{Nodes: []*cluster.Node{{Name: "a", Addr4: netip.MustParsePrefix("192.0.2.9/24"), ASN: 65001}, three[1]}},
		want:    []string{"Mesh_192_0_2_10 192.0.2.10:179 AS64512 from 192.0.2.9 | Node b (mesh) | b"},
	}, {
		name: "two nodes of one address", self: "a", problems: 1,
		objects: cluster.Objects{Nodes: []*cluster.Node{three[0], node("z", "192.0.2.9/24", "")}},
	}, {
		name: "a node that is not there", self: "nobody", problems: 1, objects: cluster.Objects{Nodes: three},
	}} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, problems := bgp.Plan(cluster.Build(tc.objects), tc.self, nil)
			if d := cmp.Diff(tc.want, lines(cfg.Peers), values); d != "" {
				t.Error(d)
			}
			if len(problems) != tc.problems {
				t.Errorf("problems: %v", problems)
			}
		})
	}
}

// TestMeshAgrees checks for a random-looking cluster that of every pair exactly one side dials, and that both name each other.
func TestMeshAgrees(t *testing.T) {
	var nodes []*cluster.Node
	for i := range 40 {
		nodes = append(nodes, node(fmt.Sprintf("n%02d", i), fmt.Sprintf("192.0.%d.%d/24", i%3, 1+i*6), fmt.Sprintf("2001:db8::%x/64", 1+i*37)))
	}
	st := cluster.Build(cluster.Objects{Nodes: nodes})
	dials := make(map[[2]netip.Addr]bool)
	for _, n := range nodes {
		cfg, _ := bgp.Plan(st, n.Name, nil)
		if len(cfg.Peers) != 2*(len(nodes)-1) {
			t.Fatalf("%s has %d peers", n.Name, len(cfg.Peers))
		}
		for _, p := range cfg.Peers {
			dials[[2]netip.Addr{p.LocalAddr, p.Addr}] = !p.Passive
		}
	}
	for k, d := range dials {
		if other, there := dials[[2]netip.Addr{k[1], k[0]}]; !there || other == d {
			t.Fatalf("%v: dials %v, the other end %v (%v)", k, d, other, there)
		}
	}
}

func TestExplicitPeers(t *testing.T) {
	nodes := []*cluster.Node{node("a", "192.0.2.9/24", ""), node("b", "192.0.2.10/24", ""), node("c", "192.0.2.11/24", "")}
	nodes[1].Labels = map[string]string{"rack": "1"}
	rack := &bgp.Planner{Match: func(sel string, labels map[string]string) (bool, error) {
		switch sel {
		case "rack == '1'":
			return labels["rack"] == "1", nil
		case "all()":
			return true, nil
		}
		return false, fmt.Errorf("cannot parse %q", sel)
	}}
	off := cluster.BGPConfig{ASN: 64512, ListenPort: 179}
	tor := netip.MustParseAddr("192.0.2.1")
	for _, tc := range []struct {
		name     string
		peers    []*cluster.BGPPeer
		bgp      cluster.BGPConfig
		self     string
		want     []string
		problems []string
	}{{
		name: "global, with all that can be said", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "tor", PeerIP: tor, PeerPort: 1179, ASN: 65000, KeepNextHop: true, MaxRestartTime: time.Minute, TTLSecurity: 2}},
		want:  []string{"Global_192_0_2_1_port_1179 192.0.2.1:1179 AS65000 from 192.0.2.9 keep-next-hop ttl-security 2 restart 1m0s | BGPPeer tor | "},
	}, {
		name: "for one node, seen from it", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "tor", Node: "a", PeerIP: tor, ASN: 65000, NoSource: true}},
		want:  []string{"Node_192_0_2_1 192.0.2.1:179 AS65000 from invalid IP | BGPPeer tor | "},
	}, {
		name: "listenPort is where nodes listen, not other routers", self: "a", bgp: cluster.BGPConfig{ASN: 64512, ListenPort: 1790, NodeListenPorts: map[string]uint16{"c": 1791}},
		peers: []*cluster.BGPPeer{
			{Name: "tor", PeerIP: tor, ASN: 65000}, {Name: "ten", PeerIP: netip.MustParseAddr("192.0.2.10"), ASN: 64512},
			{Name: "eleven", Node: "a", PeerSelector: "all()"}, {Name: "other", PeerIP: netip.MustParseAddr("192.0.2.11"), ASN: 65000},
		},
		want: []string{
			"Global_192_0_2_1 192.0.2.1:179 AS65000 from 192.0.2.9 | BGPPeer tor | ",
			"Global_192_0_2_10_port_1790 192.0.2.10:1790 AS64512 from 192.0.2.9 | BGPPeer ten | b",
			"Global_192_0_2_11 192.0.2.11:179 AS65000 from 192.0.2.9 | BGPPeer other | c",
		},
		problems: []string{"BGPPeer eleven: spec.peerSelector"},
	}, {
		name: "listenPort of peers by label", self: "a", bgp: cluster.BGPConfig{ASN: 64512, ListenPort: 1790, NodeListenPorts: map[string]uint16{"c": 1791, "b": 179}},
		peers: []*cluster.BGPPeer{{Name: "every", Node: "a", PeerSelector: "all()"}},
		want: []string{
			"Node_192_0_2_10 192.0.2.10:179 AS64512 from 192.0.2.9 | BGPPeer every | b",
			"Node_192_0_2_11_port_1791 192.0.2.11:1791 AS64512 from 192.0.2.9 | BGPPeer every | c",
		},
	}, {
		name: "for one node, seen from another", self: "b", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "tor", Node: "a", PeerIP: tor, ASN: 65000}},
	}, {
		name: "by label", self: "b", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "tor", NodeSelector: "rack == '1'", PeerIP: tor, ASN: 65000}},
		want:  []string{"Node_192_0_2_1 192.0.2.1:179 AS65000 from 192.0.2.10 | BGPPeer tor | "},
	}, {
		name: "a global peer that is a node waits by the rule of strings", self: "b", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "nine", PeerIP: netip.MustParseAddr("192.0.2.9"), ASN: 64512}},
		want:  []string{"Global_192_0_2_9 192.0.2.9:179 AS64512 from 192.0.2.10 passive | BGPPeer nine | a"},
	}, {
		name: "nobody peers with himself, but back with those who peer with him", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "nine", PeerIP: netip.MustParseAddr("192.0.2.9"), ASN: 64512}},
		want: []string{
			"Node_192_0_2_10 192.0.2.10:179 AS64512 from 192.0.2.9 | BGPPeer nine | b",
			"Node_192_0_2_11 192.0.2.11:179 AS64512 from 192.0.2.9 | BGPPeer nine | c",
		},
	}, {
		name: "not back where that is left to hand", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "nine", PeerIP: netip.MustParseAddr("192.0.2.9"), ASN: 64512, ManualReverse: true}},
	}, {
		name: "nor to an address that is ours with another AS or port", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{
			{Name: "as", PeerIP: netip.MustParseAddr("192.0.2.9"), ASN: 65000},
			{Name: "port", Node: "b", PeerIP: netip.MustParseAddr("192.0.2.9"), PeerPort: 1179, ASN: 64512},
		},
	}, {
		name: "back in the family of the address alone, and only to the node it is meant for", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "nine", Node: "c", PeerIP: netip.MustParseAddr("192.0.2.9"), PeerPort: 179, ASN: 64512}},
		want:  []string{"Node_192_0_2_11 192.0.2.11:179 AS64512 from 192.0.2.9 | BGPPeer nine | c"},
	}, {
		name: "peers by label, forward", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "rr", NodeSelector: "all()", PeerSelector: "rack == '1'"}},
		want:  []string{"Node_192_0_2_10 192.0.2.10:179 AS64512 from 192.0.2.9 | BGPPeer rr | b"},
	}, {
		name: "peers by label, backward", self: "b", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "rr", NodeSelector: "all()", PeerSelector: "rack == '1'"}},
		want: []string{
			"Node_192_0_2_11 192.0.2.11:179 AS64512 from 192.0.2.10 | BGPPeer rr | c",
			"Node_192_0_2_9 192.0.2.9:179 AS64512 from 192.0.2.10 | BGPPeer rr | a",
		},
	}, {
		name: "one address twice: the global one wins, then the first by name, whatever the order", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{
			{Name: "x", PeerIP: tor, ASN: 65002}, {Name: "m", PeerIP: tor, PeerPort: 1179, ASN: 65001}, {Name: "a", Node: "a", PeerIP: tor, ASN: 65000},
		},
		want:     []string{"Global_192_0_2_1_port_1179 192.0.2.1:1179 AS65001 from 192.0.2.9 | BGPPeer m | "},
		problems: []string{"BGPPeer a: spec.peerIP", "BGPPeer x: spec.peerIP"},
	}, {
		name: "an explicit session replaces the mesh's", self: "a",
		peers: []*cluster.BGPPeer{{Name: "ten", PeerIP: netip.MustParseAddr("192.0.2.10"), ASN: 64512}},
		want: []string{
			"Global_192_0_2_10 192.0.2.10:179 AS64512 from 192.0.2.9 | BGPPeer ten | b",
			"Mesh_192_0_2_11 192.0.2.11:179 AS64512 from 192.0.2.9 | Node c (mesh) | c",
		},
	}, {
		name: "no address of the family", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{{Name: "six", PeerIP: netip.MustParseAddr("2001:db8::1"), ASN: 65000}},
	}, {
		name: "what cannot be used is named", self: "a", bgp: off,
		peers: []*cluster.BGPPeer{
			{Name: "as", PeerIP: tor}, {Name: "ip", ASN: 65000}, {Name: "sel", NodeSelector: "rack ==", PeerIP: tor, ASN: 65000},
		},
		problems: []string{"BGPPeer as: spec.asNumber", "BGPPeer ip: spec.peerIP", "BGPPeer sel: spec.nodeSelector"},
	}} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, problems := rack.Plan(cluster.Build(cluster.Objects{Nodes: nodes, Peers: tc.peers, BGP: tc.bgp}), tc.self, nil)
			if d := cmp.Diff(tc.want, lines(cfg.Peers), values); d != "" {
				t.Error(d)
			}
			var said []string
			for _, p := range problems {
				said = append(said, p.Object+": "+p.Field)
			}
			slices.Sort(said)
			if d := cmp.Diff(tc.problems, said, values); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestSelectorsNeedMatch: the zero Planner knows all() and says so of anything else.
func TestSelectorsNeedMatch(t *testing.T) {
	peers := []*cluster.BGPPeer{
		{Name: "all", NodeSelector: " all( ) ", PeerIP: netip.MustParseAddr("192.0.2.1"), ASN: 65000},
		{Name: "rack", NodeSelector: "rack == '1'", PeerIP: netip.MustParseAddr("192.0.2.2"), ASN: 65000},
	}
	cfg, problems := bgp.Plan(cluster.Build(cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.9/24", "")}, Peers: peers}), "a", nil)
	if len(cfg.Peers) != 1 || len(problems) != 1 || !strings.Contains(problems[0].Text, "rack == '1'") {
		t.Errorf("peers %v, problems %v", cfg.Peers, problems)
	}
}

// TestRouterID has the vectors of the reference.
func TestRouterID(t *testing.T) {
	for _, tc := range []struct{ node, addr, want string }{
		{"node-a", "", "102.87.15.240"},
		{"node1", "", "202.18.243.27"},
		{"node1", "192.0.2.9/24", "192.0.2.9"},
	} {
		self := node(tc.node, tc.addr, "2001:db8::1/64")
		if got := bgp.RouterID(self); got.String() != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.node, tc.addr, got, tc.want)
		}
		st := cluster.Build(cluster.Objects{Nodes: []*cluster.Node{self}})
		for name, p := range map[string]struct {
			bgp.Planner
			want string
		}{"by itself": {bgp.Planner{}, tc.want}, "hash": {bgp.Planner{HashRouterID: true}, bgp.RouterID(node(tc.node, "", "")).String()},
			"address": {bgp.Planner{RouterID: netip.MustParseAddr("198.51.100.1")}, "198.51.100.1"}} {
			if cfg, _ := p.Plan(st, tc.node, nil); cfg.RouterID.String() != p.want {
				t.Errorf("%s %s, %s: %s, want %s", tc.node, tc.addr, name, cfg.RouterID, p.want)
			}
		}
	}
}

func TestOriginate(t *testing.T) {
	p := netip.MustParsePrefix
	claim := func(n, cidr string, s cluster.AffinityState) *cluster.Affinity {
		return &cluster.Affinity{Node: n, CIDR: p(cidr), State: s}
	}
	objects := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.9/24", "2001:db8::9/64"), node("b", "192.0.2.10/24", "")},
		Pools: []*cluster.Pool{
			{Name: "ipip", CIDR: p("10.1.0.0/16"), IPIPMode: cluster.Always}, {Name: "vxlan", CIDR: p("10.2.0.0/16"), VXLANMode: cluster.Always},
			{Name: "home", CIDR: p("10.3.0.0/16"), DisableBGPExport: true}, {Name: "six", CIDR: p("fd00::/48")},
		},
		Affinities: []*cluster.Affinity{
			claim("a", "10.1.0.0/26", cluster.Confirmed), claim("a", "10.1.0.64/26", ""), claim("a", "10.1.0.128/26", cluster.Pending),
			claim("a", "10.1.0.192/26", cluster.PendingDeletion), claim("b", "10.1.1.0/26", cluster.Confirmed),
			claim("a", "10.2.0.0/26", cluster.Confirmed), claim("a", "10.3.0.0/26", cluster.Confirmed),
			claim("a", "10.99.0.0/26", cluster.Confirmed), claim("a", "fd00::/122", cluster.Confirmed),
		},
		BGP: cluster.BGPConfig{ASN: 64512, Mesh: true, ListenPort: 179, NormalPriority4: 1024, NormalPriority6: 2048},
	}
	h := routes.NewHost(nil, []netip.Prefix{
		p("10.1.0.5/32"),   // in our block: aggregated
		p("10.1.0.130/32"), // our claim on its block is pending
		p("10.1.1.7/32"),   // borrowed from b
		p("10.2.5.5/32"),   // borrowed, in the VXLAN pool
		p("10.3.5.5/32"),   // the pool stays at home
		p("172.16.0.1/32"), // in no pool
		p("fd00::5/128"), p("fd00::1:5/128"),
	}, nil)
	cfg, _ := bgp.Plan(cluster.Build(objects), "a", h)
	var got []string
	for _, o := range cfg.Originate {
		got = append(got, fmt.Sprintf("%s %d %s", o.Prefix, o.LocalPref, o.Source))
	}
	want := []string{
		"10.1.0.0/26 2147482623 BlockAffinity a-10-1-0-0-26",
		"10.1.0.64/26 2147482623 BlockAffinity a-10-1-0-64-26",
		"10.1.0.130/32 2147482623 workload interface route",
		"10.1.1.7/32 2147482623 workload interface route",
		"10.2.0.0/26 2147482623 BlockAffinity a-10-2-0-0-26",
		"10.2.5.5/32 2147482623 workload interface route",
		"10.99.0.0/26 2147482623 BlockAffinity a-10-99-0-0-26",
		"fd00::/122 2147481599 BlockAffinity a-fd00---122",
		"fd00::1:5/128 2147481599 workload interface route",
	}
	if d := cmp.Diff(want, got, values); d != "" {
		t.Error(d)
	}
}

func TestGlobalSettings(t *testing.T) {
	objects := cluster.Objects{
		Nodes: []*cluster.Node{{Name: "a", Addr4: netip.MustParsePrefix("192.0.2.9/24"), Addr6: netip.MustParsePrefix("2001:db8::9/64"), ASN: 65009}},
		BGP:   cluster.BGPConfig{ASN: 64512, ListenPort: 1790, BindNodeIP: true, NodeListenPorts: map[string]uint16{"a": 1791}},
	}
	cfg, problems := bgp.Plan(cluster.Build(objects), "a", nil)
	want := bgp.Config{
		ASN: 65009, RouterID: netip.MustParseAddr("192.0.2.9"), ListenPort: 1791,
		ListenAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")},
		Announce:    &bgp.Announce{Normal4: 1024, Normal6: 1024},
	}
	if d := cmp.Diff(want, cfg, values); d != "" || len(problems) != 0 {
		t.Error(d, problems)
	}
}

func BenchmarkPlan(b *testing.B) {
	build := cluster.NewBuilder()
	for i := range 5000 {
		build.SetNode(&cluster.Node{Name: fmt.Sprint("n", i), Addr4: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 16)})
	}
	st, h := build.State(), testHost()
	b.ReportAllocs()
	for b.Loop() {
		if cfg, _ := bgp.Plan(st, "n7", h); len(cfg.Peers) != 4999 {
			b.Fatal(len(cfg.Peers))
		}
	}
}

// TestMaxPrefixes: the mesh has a bound of its own, and another one is a new session.
func TestMaxPrefixes(t *testing.T) {
	conf := cluster.DefaultBGP()
	conf.MeshMaxPrefixes = 50
	objects := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.1/24", ""), node("b", "192.0.2.2/24", "")}, BGP: conf,
		Peers: []*cluster.BGPPeer{{Name: "tor", PeerIP: netip.MustParseAddr("192.0.2.254"), ASN: 1, MaxPrefixes: 7}},
	}
	planner := &bgp.Planner{Explain: true}
	cfg, problems := planner.Plan(cluster.Build(objects), "a", nil)
	if len(problems) > 0 || len(cfg.Peers) != 2 || cfg.Peers[0].MaxPrefixes != 7 || cfg.Peers[1].MaxPrefixes != 50 {
		t.Fatalf("%+v, %v", cfg.Peers, problems)
	}
	said := 0
	for _, l := range bgp.Effective(&cfg) {
		switch {
		case l.Text == "    maxPrefixes: 7" && l.Source == "BGPPeer tor metadata.annotations",
			l.Text == "    maxPrefixes: 50" && l.Source == "BGPConfiguration default metadata.annotations":
			said++
		}
	}
	if said != 2 {
		t.Errorf("the bounds are not in the effective configuration with their sources: %v", bgp.Effective(&cfg))
	}
	other := cfg.Peers[0]
	other.MaxPrefixes = 8
	if why := bgp.Resets(&cfg.Peers[0], &other); len(why) != 1 || why[0] != "bound of prefixes" {
		t.Errorf("%v", why)
	}
}

// TestBFD: where nobody says how far away a peer is, the node's own subnets do.
func TestBFD(t *testing.T) {
	auto := cluster.BFD{Interval: 50 * time.Millisecond, Multiplier: 3}
	with := func(h cluster.BFDHops) cluster.BFD { b := auto; b.Hops = h; return b }
	conf := cluster.DefaultBGP()
	conf.MeshBFD = auto
	addr := netip.MustParseAddr
	objects := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.1/24", "2001:db8::1/64"), node("near", "192.0.2.2/24", "2001:db8::2/64"), node("far", "198.51.100.2/24", "2001:db8:1::2/64")},
		BGP:   conf,
		Peers: []*cluster.BGPPeer{
			{Name: "tor", PeerIP: addr("192.0.2.254"), ASN: 1, BFD: auto},
			{Name: "behind", PeerIP: addr("192.0.2.253"), ASN: 1, BFD: auto, ReachableBy: addr("192.0.2.254")},
			{Name: "core", PeerIP: addr("203.0.113.1"), ASN: 1, BFD: auto},
			{Name: "core-by-hand", PeerIP: addr("203.0.113.2"), ASN: 1, BFD: with(cluster.BFDSingle)},
			{Name: "tor-by-hand", PeerIP: addr("192.0.2.252"), ASN: 1, BFD: with(cluster.BFDMulti)},
			{Name: "none", PeerIP: addr("192.0.2.251"), ASN: 1},
		},
	}
	cfg, problems := bgp.Plan(cluster.Build(objects), "a", nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := map[string]cluster.BFD{
		"192.0.2.2": with(cluster.BFDSingle), "2001:db8::2": with(cluster.BFDSingle),
		"198.51.100.2": with(cluster.BFDMulti), "2001:db8:1::2": with(cluster.BFDMulti),
		"192.0.2.254": with(cluster.BFDSingle), "192.0.2.253": with(cluster.BFDMulti), "203.0.113.1": with(cluster.BFDMulti),
		"203.0.113.2": with(cluster.BFDSingle), "192.0.2.252": with(cluster.BFDMulti), "192.0.2.251": {},
	}
	got := map[string]cluster.BFD{}
	for _, p := range cfg.Peers {
		got[p.Addr.String()] = p.BFD
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestNodes: with the mesh off, other nodes are still known as such, whichever address they share or tunnel they have; it is what sessions that have
// been replaced are told from others by.
func TestNodes(t *testing.T) {
	b, c := node("b", "192.0.2.10/24", "2001:db8::b/64"), node("c", "192.0.2.10/24", "")
	b.IPIPAddr = netip.MustParseAddr("10.244.0.1")
	st := cluster.Build(cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.9/24", ""), b, c}})
	cfg, _ := bgp.Plan(st, "a", nil)
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::b")}; !slices.Equal(cfg.Nodes, want) {
		t.Errorf("%v, want %v", cfg.Nodes, want)
	}
	without := cfg
	without.Nodes = without.Nodes[:1]
	if cfg.Equal(&without) {
		t.Error("a node that has gone changes nothing, so that its session would go on")
	}
}
