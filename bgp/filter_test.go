package bgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// in is a condition on prefixes inside a range.
func in(cidr string, low, high uint8) bgp.FilterRule {
	return bgp.FilterRule{CIDR: netip.MustParsePrefix(cidr), MinLen: low, MaxLen: high}
}

// TestConditions holds every condition of a rule: with one that holds and one that does not.
func TestConditions(t *testing.T) {
	cfg := &bgp.Config{Ways: []bgp.Way{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0"}, {Prefix: netip.MustParsePrefix("192.0.2.0/24"), Device: "eth1"},
		{Prefix: netip.MustParsePrefix("192.0.2.128/25")},
	}}
	route := func(prefix string, f func(*bgp.Route)) bgp.Route {
		r := bgp.Route{Prefix: netip.MustParsePrefix(prefix), Learned: true, NextHop: netip.MustParseAddr("192.0.2.1"), LocalPref: ordinary}
		if f != nil {
			f(&r)
		}
		return r
	}
	not := in("10.0.0.0/8", 8, 32)
	not.Not = true
	large := bgp.Community{Large: true, A: 65000, B: 1}
	for _, tc := range []struct {
		name    string
		rule    bgp.FilterRule
		yes, no []bgp.Route
	}{
		{"no condition", bgp.FilterRule{}, []bgp.Route{route("10.0.0.0/8", nil)}, nil},
		{"Equal", in("10.0.0.0/8", 8, 8), []bgp.Route{route("10.0.0.0/8", nil)}, []bgp.Route{route("10.0.0.0/9", nil), route("0.0.0.0/0", nil), route("11.0.0.0/8", nil)}},
		{"In", in("10.0.0.0/8", 8, 32), []bgp.Route{route("10.0.0.0/8", nil), route("10.9.0.1/32", nil)}, []bgp.Route{route("0.0.0.0/0", nil), route("11.0.0.0/32", nil)}},
		{"NotIn", not, []bgp.Route{route("0.0.0.0/0", nil), route("11.0.0.0/32", nil)}, []bgp.Route{route("10.0.0.0/8", nil), route("10.9.0.1/32", nil)}},
		{"lengths", in("10.0.0.0/8", 20, 24), []bgp.Route{route("10.1.0.0/20", nil), route("10.1.0.0/24", nil)}, []bgp.Route{route("10.1.0.0/19", nil), route("10.1.0.0/25", nil)}},
		{"remote peers", bgp.FilterRule{RemotePeers: true}, []bgp.Route{route("10.0.0.0/8", nil)}, []bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.Learned = false })}},
		{"interface by the longest route to the next hop", bgp.FilterRule{Interface: "eth1"}, []bgp.Route{route("10.0.0.0/8", nil)}, []bgp.Route{
			route("10.0.0.0/8", func(r *bgp.Route) { r.NextHop = netip.MustParseAddr("192.0.3.1") }),
			route("10.0.0.0/8", func(r *bgp.Route) { r.NextHop = netip.MustParseAddr("192.0.2.129") }),
		}},
		{"interface of our own", bgp.FilterRule{Interface: "cali*"}, []bgp.Route{route("10.0.0.1/32", func(r *bgp.Route) { r.Learned, r.Interface = false, "cali1" })},
			[]bgp.Route{route("10.0.0.0/26", func(r *bgp.Route) { r.Learned = false })}},
		{"community", bgp.FilterRule{Community: bgp.Community{A: 65000, B: 1}}, []bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.Communities = []bgp.Community{large, {A: 65000, B: 1}} })},
			[]bgp.Route{route("10.0.0.0/8", nil), route("10.0.0.0/8", func(r *bgp.Route) { r.Communities = []bgp.Community{large, {A: 65000, B: 10}} })}},
		{"large community", bgp.FilterRule{Community: large}, []bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.Communities = []bgp.Community{large} })},
			[]bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.Communities = []bgp.Community{{A: 65000, B: 1}} })}},
		{"AS path", bgp.FilterRule{ASPathPrefix: []uint32{1, 2}}, []bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.ASPath = []uint32{1, 2} }), route("10.0.0.0/8", func(r *bgp.Route) { r.ASPath = []uint32{1, 2, 3} })},
			[]bgp.Route{route("10.0.0.0/8", nil), route("10.0.0.0/8", func(r *bgp.Route) { r.ASPath = []uint32{1} }), route("10.0.0.0/8", func(r *bgp.Route) { r.ASPath = []uint32{3, 1, 2} })}},
		{"priority", bgp.FilterRule{Priority: 1024}, []bgp.Route{route("10.0.0.0/8", nil)}, []bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.LocalPref = 100 })}},
		{"priority of an eBGP path", bgp.FilterRule{Priority: bgp.MaxPref - 100}, []bgp.Route{route("10.0.0.0/8", func(r *bgp.Route) { r.LocalPref = 100 })}, []bgp.Route{route("10.0.0.0/8", nil)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.rule.Accept = true
			p := &bgp.Peer{Export: []bgp.Rule{{FilterRule: tc.rule, Source: "it"}, {Source: "the end"}}}
			for want, list := range map[bool][]bgp.Route{true: tc.yes, false: tc.no} {
				for _, r := range list {
					if _, v := cfg.Send(p, r); v.Accept != want || (v.By == "it") != want {
						t.Errorf("%+v: %+v", r, v)
					}
				}
			}
		})
	}
}

func TestInterfacePatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"eth0", "eth0", true}, {"eth0", "eth01", false}, {"eth*", "eth0", true}, {"eth*", "eth", true}, {"*", "", true}, {"*", "x", true},
		{"", "", true}, {"", "x", false}, {"*0", "eth0", true}, {"*0", "eth01", false}, {"e*h*0", "eth00", true}, {"e*h*0", "e0h", false}, {"**", "ab", true},
	} {
		if got := bgp.Matches(tc.pattern, tc.name); got != tc.want {
			t.Errorf("%q ~ %q = %v", tc.name, tc.pattern, got)
		}
	}
}

// TestOperations: the first rule that holds decides, and does all it says to a route of its own.
func TestOperations(t *testing.T) {
	cfg := &bgp.Config{}
	c := bgp.Community{A: 65000, B: 1}
	p := &bgp.Peer{Import: []bgp.Rule{
		{FilterRule: bgp.FilterRule{Priority: 7}, Source: "not this"},
		{FilterRule: bgp.FilterRule{Accept: true, AddCommunities: []bgp.Community{c, {A: 65000, B: 2}}, Prepend: []uint32{5, 6}, SetPriority: 512}, Source: "this"},
		{Source: "nor this"},
	}}
	r := bgp.Route{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Learned: true, LocalPref: 100, ASPath: []uint32{9}, Communities: []bgp.Community{c}}
	got, v := cfg.Accept(p, r)
	want := bgp.Route{Prefix: r.Prefix, Learned: true, LocalPref: bgp.MaxPref - 512, ASPath: []uint32{5, 6, 9}, Communities: []bgp.Community{c, {A: 65000, B: 2}}}
	if d := cmp.Diff(want, got, values); d != "" || v != (bgp.Verdict{Accept: true, By: "this"}) {
		t.Error(d, v)
	}
	if r.ASPath[0] != 9 || len(r.Communities) != 1 {
		t.Error("the route given was changed")
	}
}

// TestAnnounce holds the order in which a route to a peer is decided about (reference: calico_export_to_bgp_peers).
func TestAnnounce(t *testing.T) {
	p := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	tag := bgp.Community{A: 65000, B: 7}
	cfg := &bgp.Config{Announce: &bgp.Announce{
		Hidden: p("10.9.0.0/16"), Own: p("10.1.0.0/26", "10.9.0.0/26", "fd00::/122"), Services: p("10.96.0.0/12", "198.51.100.0/24", "203.0.113.0/24"),
		Reflected: p("203.0.113.0/24"), Pools: p("10.1.0.0/16", "198.51.100.0/24", "fd00::/48"),
		Advertisements: []bgp.Advertisement{{CIDR: netip.MustParsePrefix("10.1.0.0/24"), Communities: []bgp.Community{tag}}},
		Normal4:        1024, Normal6: 512,
	}}
	for _, tc := range []struct {
		prefix string
		pref   uint32
		by     string // begins; "" stands for refused
	}{
		{"10.1.0.0/26", ordinary, "own block"},
		{"10.1.0.5/32", ordinary, ""},
		{"10.1.0.5/32", bgp.MaxPref - 1023, "elevated"},
		{"10.1.0.5/32", bgp.MaxPref - 1024, ""},
		{"10.9.0.0/26", ordinary, ""}, // hidden even if ours
		{"10.9.5.0/26", bgp.MaxPref - 1, ""},
		{"10.1.7.0/26", ordinary, "IPPool"},
		{"10.1.0.0/16", ordinary, "IPPool"},
		{"10.0.0.0/8", ordinary, ""}, // holds a pool, is in none
		{"10.96.0.10/32", ordinary, "service range"},
		{"203.0.113.9/32", ordinary, "service range"},
		{"198.51.100.9/32", ordinary, "service range"},
		{"0.0.0.0/0", 100, ""},
		{"fd00::5/128", bgp.MaxPref - 600, ""},
		{"fd00::5/128", bgp.MaxPref - 511, "elevated"},
	} {
		r, v := cfg.Send(&bgp.Peer{}, bgp.Route{Prefix: netip.MustParsePrefix(tc.prefix), LocalPref: tc.pref})
		if v.Accept != (tc.by != "") || v.By == "" || !strings.HasPrefix(v.By, tc.by) {
			t.Errorf("%s pref %d: %+v", tc.prefix, tc.pref, v)
		}
		tagged := strings.HasPrefix(tc.prefix, "10.1.0.") && netip.MustParsePrefix(tc.prefix).Bits() >= 24
		if slices.Contains(r.Communities, tag) != tagged {
			t.Errorf("%s carries %v", tc.prefix, r.Communities)
		}
	}
	// What another node announces of Services only a reflector passes on, also where a pool holds it.
	for prefix, want := range map[string]bool{"10.96.0.10/32": false, "198.51.100.9/32": false, "203.0.113.9/32": true, "10.1.7.0/26": true} {
		if _, v := cfg.Send(&bgp.Peer{}, bgp.Route{Prefix: netip.MustParsePrefix(prefix), Learned: true, LocalPref: ordinary}); v.Accept != want {
			t.Errorf("learned %s: %+v", prefix, v)
		}
	}
	// A rule of the peer comes before all that, and its route carries no communities but the rule's.
	accept := &bgp.Peer{Export: []bgp.Rule{{FilterRule: bgp.FilterRule{Accept: true}, Source: "rule"}}}
	if r, v := cfg.Send(accept, bgp.Route{Prefix: netip.MustParsePrefix("10.9.0.0/26")}); !v.Accept || len(r.Communities) != 0 {
		t.Errorf("%+v %v", v, r)
	}
}

// fieldsOf plans node a of a small cluster with one BGPPeer.
func fieldsOf(t *testing.T, change func(*cluster.Objects), b *cluster.BGPPeer) (bgp.Config, []string) {
	t.Helper()
	o := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.9/24", "2001:db8::9/64"), node("b", "192.0.2.10/24", "")},
		BGP:   cluster.BGPConfig{ASN: 64512, ListenPort: 179},
		Peers: []*cluster.BGPPeer{b},
	}
	if change != nil {
		change(&o)
	}
	all := &bgp.Planner{Match: func(sel string, labels map[string]string) (bool, error) { return sel == "all()", nil }}
	cfg, problems := all.Plan(cluster.Build(o), "a", nil)
	var said []string
	for _, p := range problems {
		said = append(said, p.Object+" "+p.Field+": "+p.Text)
	}
	return cfg, said
}

// TestPeerFields: what each field of a BGPPeer makes of a session.
func TestPeerFields(t *testing.T) {
	tor := netip.MustParseAddr("192.0.2.1")
	rr := func(o *cluster.Objects) { o.Nodes[0] = reflector(o.Nodes[0]) }
	secret := func(o *cluster.Objects) {
		o.Secrets = []*cluster.Secret{{Name: "bgp", Data: map[string]string{"tor": "salt", "long": strings.Repeat("x", 81)}}}
	}
	ref := cluster.SecretKey{Wanted: true, Name: "bgp", Key: "tor"}
	for _, tc := range []struct {
		name     string
		objects  func(*cluster.Objects)
		peer     cluster.BGPPeer
		check    func(*bgp.Peer) bool
		problems int
	}{
		{name: "localASNumber", peer: cluster.BGPPeer{LocalASN: 65100}, check: func(p *bgp.Peer) bool { return p.LocalASN == 65100 }},
		{name: "localASNumber that is ours", peer: cluster.BGPPeer{LocalASN: 64512}, check: func(p *bgp.Peer) bool { return p.LocalASN == 0 }},
		{name: "numAllowedLocalASNumbers", peer: cluster.BGPPeer{AllowOwnAS: 2}, check: func(p *bgp.Peer) bool { return p.AllowOwnAS == 2 }},
		{name: "keepaliveTime", peer: cluster.BGPPeer{KeepaliveTime: 5e9}, check: func(p *bgp.Peer) bool { return p.Keepalive == 5e9 }},
		{name: "maxRestartTime", peer: cluster.BGPPeer{MaxRestartTime: 60e9}, check: func(p *bgp.Peer) bool { return p.RestartTime == 60e9 }},
		{name: "ttlSecurity", peer: cluster.BGPPeer{TTLSecurity: 3}, check: func(p *bgp.Peer) bool { return p.TTLSecurity == 3 }},
		{name: "nextHopMode Self", peer: cluster.BGPPeer{SelfNextHop: true}, check: func(p *bgp.Peer) bool { return p.SelfNextHop && !p.KeepNextHop }},
		{name: "nextHopMode Keep", peer: cluster.BGPPeer{KeepNextHop: true}, check: func(p *bgp.Peer) bool { return p.KeepNextHop && !p.SelfNextHop }},
		{name: "sourceAddress", check: func(p *bgp.Peer) bool { return p.LocalAddr == netip.MustParseAddr("192.0.2.9") }},
		{name: "sourceAddress None", peer: cluster.BGPPeer{NoSource: true}, check: func(p *bgp.Peer) bool { return !p.LocalAddr.IsValid() }},
		{name: "password", objects: secret, peer: cluster.BGPPeer{Password: ref}, check: func(p *bgp.Peer) bool { return p.Password == "salt" && p.Held == "" }},
		{name: "no secret", peer: cluster.BGPPeer{Password: ref}, problems: 1,
			check: func(p *bgp.Peer) bool {
				return p.Password == "" && strings.HasPrefix(p.Held, "Secret bgp, which spec.password of BGPPeer p names, does not exist")
			}},
		{name: "no key", objects: secret, peer: cluster.BGPPeer{Password: cluster.SecretKey{Wanted: true, Name: "bgp", Key: "x"}}, problems: 1,
			check: func(p *bgp.Peer) bool { return strings.HasPrefix(p.Held, "Secret bgp has no value under key x") }},
		{name: "no name", peer: cluster.BGPPeer{Password: cluster.SecretKey{Wanted: true}}, problems: 1, check: func(p *bgp.Peer) bool { return p.Held != "" }},
		{name: "too long", objects: secret, peer: cluster.BGPPeer{Password: cluster.SecretKey{Wanted: true, Name: "bgp", Key: "long"}}, problems: 1,
			check: func(p *bgp.Peer) bool { return strings.Contains(p.Held, "longer than 80 bytes") && p.Password == "" }},
		{name: "a reflector's peer of its AS is its client", objects: rr, peer: cluster.BGPPeer{ASN: 64512}, check: func(p *bgp.Peer) bool { return p.Client && p.ClusterID.String() == "10.9.9.9" }},
		{name: "one of another AS is not", objects: rr, check: func(p *bgp.Peer) bool { return !p.Client }},
		{name: "the AS that counts is the one towards the peer", objects: rr, peer: cluster.BGPPeer{LocalASN: 65000}, check: func(p *bgp.Peer) bool { return p.Client }},
		{name: "a reflector of the same cluster is not a client", peer: cluster.BGPPeer{ASN: 64512, PeerIP: netip.MustParseAddr("192.0.2.10")},
			objects: func(o *cluster.Objects) { rr(o); o.Nodes[1] = reflector(o.Nodes[1]) }, check: func(p *bgp.Peer) bool { return !p.Client }},
		{name: "one of another cluster is", peer: cluster.BGPPeer{ASN: 64512, PeerIP: netip.MustParseAddr("192.0.2.10")},
			objects: func(o *cluster.Objects) { rr(o); o.Nodes[1].RouteReflectorClusterID = netip.MustParseAddr("10.9.9.8") }, check: func(p *bgp.Peer) bool { return p.Client }},
		{name: "nobody is the client of a node that reflects nothing", peer: cluster.BGPPeer{ASN: 64512}, check: func(p *bgp.Peer) bool { return !p.Client }},
		{name: "a filter that does not exist", peer: cluster.BGPPeer{Filters: []string{"gone"}}, problems: 1, check: func(p *bgp.Peer) bool { return len(p.Import)+len(p.Export) == 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.peer
			b.Name, b.ManualReverse = "p", true
			if !b.PeerIP.IsValid() {
				b.PeerIP = tor
			}
			if b.ASN == 0 {
				b.ASN = 65000
			}
			cfg, said := fieldsOf(t, tc.objects, &b)
			if len(cfg.Peers) != 1 || !tc.check(&cfg.Peers[0]) || len(said) != tc.problems {
				t.Errorf("%+v\n%q", cfg.Peers, said)
			}
		})
	}
	cfg, _ := fieldsOf(t, nil, &cluster.BGPPeer{Name: "p", PeerIP: netip.MustParseAddr("203.0.113.1"), ASN: 1, ReachableBy: tor})
	if want := []bgp.Reach{{Peer: netip.MustParseAddr("203.0.113.1"), Gateway: tor, Source: "BGPPeer p"}}; !slices.Equal(cfg.Reach, want) {
		t.Errorf("reachableBy: %v", cfg.Reach)
	}
	// What does not come through peerSelector (confd), and what does.
	cfg, _ = fieldsOf(t, secret, &cluster.BGPPeer{Name: "p", PeerSelector: "all()", LocalASN: 65100, AllowOwnAS: 2, TTLSecurity: 3, Password: ref})
	if len(cfg.Peers) != 1 || cfg.Peers[0].LocalASN != 0 || cfg.Peers[0].AllowOwnAS != 0 || cfg.Peers[0].TTLSecurity != 3 || cfg.Peers[0].Password != "salt" {
		t.Errorf("peerSelector: %+v", cfg.Peers)
	}
}

// TestMeshPassword: every session of the mesh has it, or is held down.
func TestMeshPassword(t *testing.T) {
	o := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.9/24", ""), node("b", "192.0.2.10/24", ""), node("c", "192.0.2.11/24", "")},
		BGP:   cluster.BGPConfig{ASN: 64512, Mesh: true, MeshPassword: cluster.SecretKey{Wanted: true, Name: "bgp", Key: "mesh"}},
	}
	cfg, problems := bgp.Plan(cluster.Build(o), "a", nil)
	for _, p := range cfg.Peers {
		if p.Held == "" || p.Password != "" {
			t.Errorf("%+v", p)
		}
	}
	if len(cfg.Peers) != 2 || len(problems) != 1 || problems[0].Object != "BGPConfiguration default" || problems[0].Field != "spec.nodeMeshPassword" {
		t.Errorf("%d peers, %v", len(cfg.Peers), problems)
	}
	o.Secrets = []*cluster.Secret{{Name: "bgp", Data: map[string]string{"mesh": "salt"}}}
	cfg, problems = bgp.Plan(cluster.Build(o), "a", nil)
	for _, p := range cfg.Peers {
		if p.Held != "" || p.Password != "salt" {
			t.Errorf("%+v", p)
		}
		if text := fmt.Sprintf("%v %+v", p, p); strings.Contains(text, "salt") {
			t.Error("the password can be printed")
		}
	}
	if len(problems) != 0 {
		t.Error(problems)
	}
}

// TestFilterPlanning: family, direction and kind of session choose the rules; filters come in the order of the peer.
func TestFilterPlanning(t *testing.T) {
	rule := func(n uint32, kind cluster.PeerType) cluster.FilterRule {
		return cluster.FilterRule{Priority: n, PeerType: kind, RemotePeers: true, Accept: true}
	}
	filters := func(o *cluster.Objects) {
		o.Filters = []*cluster.BGPFilter{
			{Name: "one", Export4: []cluster.FilterRule{rule(1, ""), rule(2, cluster.IBGP), rule(3, cluster.EBGP)}, Import4: []cluster.FilterRule{rule(4, "")}},
			{Name: "two", Export4: []cluster.FilterRule{rule(5, "")}, Export6: []cluster.FilterRule{rule(6, "")}, Import6: []cluster.FilterRule{rule(7, cluster.EBGP)}},
		}
	}
	for _, tc := range []struct {
		ip   string
		asn  uint32
		want string
	}{
		{"192.0.2.1", 65000, "import: BGPFilter one spec.importV4[0] 4; export: BGPFilter two spec.exportV4[0] 5, BGPFilter one spec.exportV4[0] 1, BGPFilter one spec.exportV4[2] 3"},
		{"192.0.2.1", 64512, "import: BGPFilter one spec.importV4[0] 4; export: BGPFilter two spec.exportV4[0] 5, BGPFilter one spec.exportV4[0] 1, BGPFilter one spec.exportV4[1] 2"},
		{"2001:db8::1", 64512, "import: ; export: BGPFilter two spec.exportV6[0] 6"},
	} {
		cfg, _ := fieldsOf(t, filters, &cluster.BGPPeer{Name: "p", PeerIP: netip.MustParseAddr(tc.ip), ASN: tc.asn, Filters: []string{"two", "one"}, ManualReverse: true})
		text := func(rules []bgp.Rule) string {
			var out []string
			for _, r := range rules {
				out = append(out, fmt.Sprint(r.Source, " ", r.Priority))
			}
			return strings.Join(out, ", ")
		}
		p := cfg.Peers[0]
		if got := "import: " + text(p.Import) + "; export: " + text(p.Export); got != tc.want {
			t.Errorf("%s AS%d:\n got %s\nwant %s", tc.ip, tc.asn, got, tc.want)
		}
		for _, r := range p.Import {
			if r.RemotePeers {
				t.Error("what is received is asked whether it comes from a remote peer")
			}
		}
	}
}

// TestForeignPrependIsTold: what the engine cannot do exactly is said.
func TestForeignPrependIsTold(t *testing.T) {
	for _, tc := range []struct {
		prepend []uint32
		asn     uint32
		said    int
	}{{[]uint32{64512, 64512}, 65000, 0}, {[]uint32{65001, 64512}, 65000, 0}, {[]uint32{64512, 65001}, 65000, 1}, {[]uint32{65001}, 64512, 0}} {
		filters := func(o *cluster.Objects) {
			o.Filters = []*cluster.BGPFilter{{Name: "f", Export4: []cluster.FilterRule{{Accept: true, Prepend: tc.prepend}}, Import4: []cluster.FilterRule{{Accept: true, Prepend: tc.prepend}}}}
		}
		_, said := fieldsOf(t, filters, &cluster.BGPPeer{Name: "p", PeerIP: netip.MustParseAddr("192.0.2.1"), ASN: tc.asn, Filters: []string{"f"}, ManualReverse: true})
		if len(said) != tc.said || tc.said > 0 && !strings.HasPrefix(said[0], "BGPFilter f spec.exportV4[0].operations: towards eBGP peers the AS path is sent with our own AS 64512 once more") {
			t.Errorf("%v towards AS%d: %q", tc.prepend, tc.asn, said)
		}
	}
}

// TestInterfacesArePlanned: where a rule asks for interfaces the Config knows them, elsewhere it does not change with the host.
func TestInterfacesArePlanned(t *testing.T) {
	p := netip.MustParsePrefix
	h := routes.NewHost([]routes.Interface{{Name: "eth0", Index: 2, Up: true}}, []netip.Prefix{p("10.1.9.9/32")}, []routes.HostRoute{
		{Dst: p("0.0.0.0/0"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("192.0.2.1"), Device: "eth0"}}},
		{Dst: p("10.1.9.9/32"), Hops: []routes.NextHop{{Device: "cali9"}}},
		{Dst: p("203.0.113.0/24"), Type: routes.Blackhole},
	})
	o := cluster.Objects{
		Nodes:      []*cluster.Node{node("a", "192.0.2.9/24", "")},
		Pools:      []*cluster.Pool{{Name: "plain", CIDR: p("10.1.0.0/16")}},
		Affinities: []*cluster.Affinity{{Node: "a", CIDR: p("10.1.0.0/26")}},
		BGP:        cluster.BGPConfig{ASN: 64512},
		Peers:      []*cluster.BGPPeer{{Name: "p", PeerIP: netip.MustParseAddr("192.0.2.1"), ASN: 65000, Filters: []string{"f"}}},
		Filters:    []*cluster.BGPFilter{{Name: "f", Import4: []cluster.FilterRule{{Interface: "eth*"}}}},
	}
	cfg, _ := bgp.Plan(cluster.Build(o), "a", h)
	wantWays := []bgp.Way{{Prefix: p("0.0.0.0/0"), Device: "eth0"}, {Prefix: p("203.0.113.0/24")}}
	wantOwn := []bgp.Origination{
		{Prefix: p("10.1.0.0/26"), Source: "BlockAffinity a-10-1-0-0-26", LocalPref: ordinary},
		{Prefix: p("10.1.9.9/32"), Source: "workload interface route", LocalPref: ordinary, Interface: "cali9"},
	}
	if !slices.Equal(cfg.Ways, wantWays) || !slices.Equal(cfg.Originate, wantOwn) {
		t.Errorf("%+v\n%+v", cfg.Ways, cfg.Originate)
	}
	o.Filters[0] = &cluster.BGPFilter{Name: "f"}
	if cfg, _ := bgp.Plan(cluster.Build(o), "a", h); len(cfg.Ways) != 0 || cfg.Originate[1].Interface != "" {
		t.Errorf("%+v", cfg)
	}
}

// TestAnnouncePlanning: where the lists of an Announce come from, and what an Accept of a filter adds to what is originated.
func TestAnnouncePlanning(t *testing.T) {
	p := netip.MustParsePrefix
	tag := func(cidr string, b uint32) cluster.Advertisement {
		return cluster.Advertisement{CIDR: p(cidr), Communities: []cluster.Community{{A: 65000, B: b}}}
	}
	o := cluster.Objects{
		Nodes: []*cluster.Node{reflector(node("a", "192.0.2.9/24", "")), node("b", "192.0.2.10/24", "")},
		Pools: []*cluster.Pool{{Name: "plain", CIDR: p("10.1.0.0/16"), Disabled: true}, {Name: "home", CIDR: p("10.5.0.0/16"), DisableBGPExport: true}, {Name: "vx", CIDR: p("10.0.0.0/16"), VXLANMode: cluster.Always}},
		Affinities: []*cluster.Affinity{{Node: "a", CIDR: p("10.1.0.0/26")}, {Node: "a", CIDR: p("10.5.0.0/26"), State: cluster.Confirmed},
			{Node: "a", CIDR: p("10.1.0.64/26"), State: cluster.PendingDeletion}, {Node: "b", CIDR: p("10.1.1.0/26")}},
		BGP: cluster.BGPConfig{
			ASN: 64512, NormalPriority4: 2000, IgnoredInterfaces: []string{"eth9"}, ServiceClusterIPs: []netip.Prefix{p("10.96.0.0/12")}, ServiceExternalIPs: []netip.Prefix{p("203.0.113.0/24")},
			ServiceLoadBalancerIPs: []netip.Prefix{p("198.51.100.0/24")},
			Advertisements:         []cluster.Advertisement{tag("10.1.0.0/16", 1), tag("fd00::/48", 2)},
			NodeAdvertisements:     map[string][]cluster.Advertisement{"a": {tag("10.1.0.0/24", 3)}, "b": {tag("fd00::/64", 4)}},
		},
		Peers:   []*cluster.BGPPeer{{Name: "p", PeerIP: netip.MustParseAddr("192.0.2.1"), ASN: 65000, Filters: []string{"f"}}},
		Filters: []*cluster.BGPFilter{{Name: "f", Export4: []cluster.FilterRule{{Accept: false}}}},
	}
	up := func(name string, addrs ...string) routes.Interface {
		in := routes.Interface{Name: name, Up: true}
		for _, a := range addrs {
			in.Addrs = append(in.Addrs, p(a))
		}
		return in
	}
	interfaces := []routes.Interface{up("lo", "127.0.0.1/8", "::1/128", "10.255.0.9/32"), up("eth0", "192.0.2.9/24", "2001:db8::9/64", "fe80::9/64"), up("eth9", "192.0.3.9/24"),
		up("cali5", "192.0.4.9/24"), {Name: "down0", Addrs: []netip.Prefix{p("192.0.5.9/24")}}}
	h := routes.NewHost(interfaces, []netip.Prefix{p("10.1.0.5/32"), p("10.1.0.6/32"), p("10.5.9.9/32"), p("10.6.0.1/32")}, []routes.HostRoute{
		{Dst: p("10.1.0.5/32"), Metric: 512, Hops: []routes.NextHop{{Device: "cali5"}}}, {Dst: p("10.1.0.6/32"), Metric: 2000, Hops: []routes.NextHop{{Device: "cali6"}}},
	})
	planner := &bgp.Planner{}
	cfg, _ := planner.Plan(cluster.Build(o), "a", h)
	want := &bgp.Announce{
		Hidden: []netip.Prefix{p("10.5.0.0/16")}, Own: []netip.Prefix{p("10.1.0.0/26"), p("10.5.0.0/26")}, Services: []netip.Prefix{p("10.96.0.0/12"), p("198.51.100.0/24"), p("203.0.113.0/24")},
		Reflected: []netip.Prefix{p("10.96.0.0/12"), p("198.51.100.0/24"), p("203.0.113.0/24")}, Pools: []netip.Prefix{p("10.0.0.0/16"), p("10.1.0.0/16")},
		Advertisements: []bgp.Advertisement{tag("10.1.0.0/24", 3), tag("fd00::/48", 2)}, Normal4: 2000, Normal6: 1024,
	}
	if d := cmp.Diff(want, cfg.Announce, values); d != "" {
		t.Error(d)
	}
	prefixes := func(c bgp.Config) (out []string) {
		for _, o := range c.Originate {
			out = append(out, fmt.Sprint(o.Prefix, " ", bgp.MaxPref-o.LocalPref))
		}
		return out
	}
	// The elevated workload is announced out of its block, the ordinary one is not.
	if d := cmp.Diff([]string{"10.1.0.0/26 2000", "10.1.0.5/32 512", "10.96.0.0/12 2000", "198.51.100.0/24 2000", "203.0.113.0/24 2000"}, prefixes(cfg)); d != "" {
		t.Error(d)
	}
	always := []string{"10.1.0.0/26 2000", "10.1.0.5/32 512", "10.96.0.0/12 2000", "198.51.100.0/24 2000", "203.0.113.0/24 2000"}
	for _, tc := range []struct {
		name string
		rule cluster.FilterRule
		six  bool // of exportV6
		more []string
	}{
		{name: "all", rule: cluster.FilterRule{Accept: true},
			more: []string{"10.1.0.6/32 2000", "10.5.0.0/26 2000", "10.5.9.9/32 2000", "10.6.0.1/32 2000", "10.255.0.9/32 2000", "192.0.2.0/24 2000"}},
		{name: "what BGP has brought", rule: cluster.FilterRule{Accept: true, RemotePeers: true}},
		{name: "workloads' addresses one by one", rule: cluster.FilterRule{Accept: true, CIDR: p("10.1.0.0/16"), MinLen: 32, MaxLen: 32}, more: []string{"10.1.0.6/32 2000"}},
		{name: "a workload in no pool", rule: cluster.FilterRule{Accept: true, CIDR: p("10.6.0.0/24"), MinLen: 24, MaxLen: 32}, more: []string{"10.6.0.1/32 2000"}},
		{name: "the node's own address", rule: cluster.FilterRule{Accept: true, Interface: "lo"}, more: []string{"10.255.0.9/32 2000"}},
		{name: "an interface", rule: cluster.FilterRule{Accept: true, Interface: "eth*"}, more: []string{"192.0.2.0/24 2000"}},
		{name: "a hidden block", rule: cluster.FilterRule{Accept: true, CIDR: p("10.5.0.0/26"), MinLen: 26, MaxLen: 26}, more: []string{"10.5.0.0/26 2000"}},
		{name: "another family", rule: cluster.FilterRule{Accept: true}, six: true},
	} {
		o.Filters[0] = &cluster.BGPFilter{Name: "f", Export4: []cluster.FilterRule{tc.rule}}
		if tc.six {
			o.Filters[0] = &cluster.BGPFilter{Name: "f", Export6: o.Filters[0].Export4}
		}
		cfg, _ = planner.Plan(cluster.Build(o), "a", h)
		want := slices.Concat(always, tc.more)
		slices.SortFunc(want, func(a, b string) int {
			of := func(s string) netip.Prefix { cidr, _, _ := strings.Cut(s, " "); return p(cidr) }
			return of(a).Compare(of(b))
		})
		if d := cmp.Diff(want, prefixes(cfg)); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
		nobody := &bgp.Peer{Addr: netip.MustParseAddr("192.0.2.77"), ASN: 65000}
		for _, o := range cfg.Originate {
			if _, v := cfg.Send(nobody, bgp.RouteFrom(&o)); v.Accept != slices.Contains(always, fmt.Sprint(o.Prefix, " ", bgp.MaxPref-o.LocalPref)) {
				t.Errorf("%s: to a peer without rules: %s: %+v", tc.name, o.Prefix, v)
			}
		}
	}
}

// TestASPathPrefixTowardsOthers: what eBGP peers are sent begins with our own AS before rules are asked, as in BIRD 1.6.
func TestASPathPrefixTowardsOthers(t *testing.T) {
	for _, tc := range []struct {
		name          string
		prefix        []uint32
		asn, localASN uint32
		export        string // what is left of the prefix, "none" without the rule
		said          int
	}{
		{"our own first", []uint32{64512, 65001}, 65000, 0, "[65001]", 0},
		{"our own alone", []uint32{64512}, 65000, 0, "[]", 0},
		{"another first", []uint32{65001}, 65000, 0, "none", 1},
		{"our own towards this peer", []uint32{65100, 65001}, 65000, 65100, "[65001]", 0},
		{"our own towards others", []uint32{64512, 65001}, 65000, 65100, "none", 1},
		{"iBGP", []uint32{65001}, 64512, 0, "[65001]", 0},
	} {
		filters := func(o *cluster.Objects) {
			rules := []cluster.FilterRule{{Accept: true, ASPathPrefix: tc.prefix}}
			o.Filters = []*cluster.BGPFilter{{Name: "f", Export4: rules, Import4: rules}}
		}
		cfg, said := fieldsOf(t, filters, &cluster.BGPPeer{Name: "p", PeerIP: netip.MustParseAddr("192.0.2.1"), ASN: tc.asn, LocalASN: tc.localASN, Filters: []string{"f"}, ManualReverse: true})
		export := "none"
		if rules := cfg.Peers[0].Export; len(rules) > 0 {
			export = fmt.Sprint(rules[0].ASPathPrefix)
		}
		if export != tc.export || len(said) != tc.said || !slices.Equal(cfg.Peers[0].Import[0].ASPathPrefix, tc.prefix) {
			t.Errorf("%s: %s, import %v: %q", tc.name, export, cfg.Peers[0].Import, said)
		}
	}
}
