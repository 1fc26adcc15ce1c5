package bgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// everything is a cluster in which most fields are set.
func everything() cluster.Objects {
	p := netip.MustParsePrefix
	return cluster.Objects{
		Nodes:      []*cluster.Node{reflector(node("a", "192.0.2.9/24", "2001:db8::9/64")), {Name: "b", Addr4: p("192.0.2.10/24"), ASN: 64513}, node("c", "", "2001:db8::c/64")},
		Pools:      []*cluster.Pool{{Name: "plain", CIDR: p("10.1.0.0/16")}, {Name: "home", CIDR: p("10.5.0.0/16"), DisableBGPExport: true}, {Name: "six", CIDR: p("fd00::/48")}},
		Affinities: []*cluster.Affinity{{Node: "a", CIDR: p("10.1.0.0/26"), State: cluster.Confirmed}, {Node: "a", CIDR: p("fd00::/122"), State: cluster.Confirmed}},
		Secrets:    []*cluster.Secret{{Name: "bgp", Data: map[string]string{"tor": "seasoning"}}},
		Filters: []*cluster.BGPFilter{{Name: "rack", Export4: []cluster.FilterRule{
			{CIDR: p("10.1.0.0/16"), MinLen: 20, MaxLen: 26, RemotePeers: true, Interface: "eth*", Not: true},
			{Community: cluster.Community{A: 65000, B: 1}, ASPathPrefix: []uint32{65100, 65001}, Priority: 512, Accept: true,
				AddCommunities: []cluster.Community{{Large: true, A: 1, B: 2, C: 3}}, Prepend: []uint32{64512, 64512}, SetPriority: 7},
		}}},
		Peers: []*cluster.BGPPeer{
			{Name: "tor", PeerIP: netip.MustParseAddr("192.0.2.1"), PeerPort: 1179, ASN: 65000, LocalASN: 65100, AllowOwnAS: 1, KeepaliveTime: 10 * time.Second, MaxRestartTime: time.Minute,
				TTLSecurity: 1, SelfNextHop: true, ReachableBy: netip.MustParseAddr("192.0.2.254"), Filters: []string{"rack"}, Password: cluster.SecretKey{Wanted: true, Name: "bgp", Key: "tor"}},
			{Name: "clients", PeerSelector: "all()", NoSource: true, Password: cluster.SecretKey{Wanted: true, Name: "gone", Key: "x"}},
		},
		BGP: cluster.BGPConfig{
			ASN: 64512, ListenPort: 1790, BindNodeIP: true, NodeListenPorts: map[string]uint16{"c": 2179}, ServiceExternalIPs: []netip.Prefix{p("203.0.113.0/24")},
			Advertisements: []cluster.Advertisement{{CIDR: p("10.1.0.0/16"), Communities: []cluster.Community{{A: 65000, B: 7}}, Source: "BGPConfiguration default spec.prefixAdvertisements[0]"}},
		},
	}
}

// TestEffective pins the whole of it: every line that holds a value names where it comes from, and no password is among them.
func TestEffective(t *testing.T) {
	planner := &bgp.Planner{Explain: true, Match: func(sel string, _ map[string]string) (bool, error) { return sel == "all()", nil },
		DataPlane: &bgp.DataPlane{Proxy: bgp.Verified{Why: "nobody answers"}}}
	cfg, _ := planner.Plan(cluster.Build(everything()), "a", nil)
	lines := bgp.Effective(&cfg)
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s | %s\n", l.Text, l.Source)
		if value := strings.TrimSuffix(strings.TrimSpace(l.Text), " []"); l.Source == "" && !strings.HasSuffix(value, ":") {
			t.Errorf("%q comes from nowhere", l.Text)
		}
	}
	if strings.Contains(b.String(), "seasoning") {
		t.Error("the password is printed")
	}
	const want = `asNumber: 64512 | default of BGPConfiguration default spec.asNumber
routerID: 192.0.2.9 | Node a spec.bgp.ipv4Address
listenPort: 1790 | BGPConfiguration default spec.listenPort
listenAddresses: [192.0.2.9, "2001:db8::9"] | BGPConfiguration default spec.bindMode
peers: | 
  - name: Global_192_0_2_10_port_1790 | BGPPeer clients
    address: 192.0.2.10 | Node b spec.bgp.ipv4Address
    port: 1790 | BGPConfiguration default spec.listenPort
    asNumber: 64513 | Node b spec.bgp.asNumber
    sourceAddress: None | BGPPeer clients spec.sourceAddress
    passive: false | a BGPPeer's session dials
    restartTime: 2m0s | default of BGPPeer clients spec.maxRestartTime
    held: "Secret gone, which spec.password of BGPPeer clients names, does not exist or cannot be read: create it in the namespace of the daemon, and let its role read it" | BGPPeer clients spec.password
    nextHop: Auto | default of BGPPeer clients spec.nextHopMode
  - name: Global_192_0_2_1_port_1179 | BGPPeer tor
    address: 192.0.2.1 | BGPPeer tor spec.peerIP
    port: 1179 | BGPPeer tor spec.peerIP
    asNumber: 65000 | BGPPeer tor spec.asNumber
    localASNumber: 65100 | BGPPeer tor spec.localASNumber
    sourceAddress: 192.0.2.9 | Node a spec.bgp.ipv4Address
    passive: false | a BGPPeer's session dials
    restartTime: 1m0s | BGPPeer tor spec.maxRestartTime
    keepaliveTime: 10s | BGPPeer tor spec.keepaliveTime
    ttlSecurity: 1 | BGPPeer tor spec.ttlSecurity
    numAllowedLocalASNumbers: 1 | BGPPeer tor spec.numAllowedLocalASNumbers
    password: (set) | BGPPeer tor spec.password
    nextHop: Self | BGPPeer tor spec.nextHopMode
    reachableBy: 192.0.2.254 | BGPPeer tor spec.reachableBy
    export: | 
      - "reject not in 10.1.0.0/16{20,26} from remote peers through eth*" | BGPFilter rack spec.exportV4[0]
      - "accept with community 65000:1 with an AS path that begins 65001 of priority 512 and add community 1:2:3 and prepend 64512, 64512 and set priority 7" | BGPFilter rack spec.exportV4[1]
  - name: Global_2001_db8__c_port_2179 | BGPPeer clients
    address: "2001:db8::c" | Node c spec.bgp.ipv6Address
    port: 2179 | BGPConfiguration node.c spec.listenPort
    asNumber: 64512 | default of BGPConfiguration default spec.asNumber
    sourceAddress: None | BGPPeer clients spec.sourceAddress
    passive: false | a BGPPeer's session dials
    restartTime: 2m0s | default of BGPPeer clients spec.maxRestartTime
    held: "Secret gone, which spec.password of BGPPeer clients names, does not exist or cannot be read: create it in the namespace of the daemon, and let its role read it" | BGPPeer clients spec.password
    nextHop: Auto | default of BGPPeer clients spec.nextHopMode
    routeReflectorClient: 10.9.9.9 | Node a spec.bgp.routeReflectorClusterID
originate: | 
  - prefix: 10.1.0.0/26 | BlockAffinity a-10-1-0-0-26
    localPref: 2147482623 | BlockAffinity a-10-1-0-0-26
  - prefix: "fd00::/122" | BlockAffinity a-fd00---122
    localPref: 2147482623 | BlockAffinity a-fd00---122
waiting: | 
  - prefix: 203.0.113.0/24 | BGPConfiguration default spec.serviceExternalIPs[0]
    for: "nobody answers" | BGPConfiguration default spec.serviceExternalIPs[0]
announce: | 
  hidden: | 
    - 10.5.0.0/16 | IPPool home
  communities: | 
    - cidr: 10.1.0.0/16 | BGPConfiguration default spec.prefixAdvertisements[0]
      values: ["65000:7"] | BGPConfiguration default spec.prefixAdvertisements[0]
  ownBlocks: | 
    - 10.1.0.0/26 | BlockAffinity a-10-1-0-0-26
    - "fd00::/122" | BlockAffinity a-fd00---122
  services: | 
    - 203.0.113.0/24 | BGPConfiguration default spec.serviceExternalIPs
  reflected: | 
    - 203.0.113.0/24 | BGPConfiguration default spec.serviceExternalIPs
  pools: | 
    - 10.1.0.0/16 | IPPool plain
    - "fd00::/48" | IPPool six
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	var out strings.Builder
	if err := bgp.WriteEffective(&out, lines[:2]); err != nil || out.String() != "asNumber: 64512      # default of BGPConfiguration default spec.asNumber\nrouterID: 192.0.2.9  # Node a spec.bgp.ipv4Address\n" {
		t.Errorf("%q %v", out.String(), err)
	}
}

// TestExplainChangesNothing: explaining is not part of what is wanted.
func TestExplainChangesNothing(t *testing.T) {
	st := cluster.Build(everything())
	match := func(sel string, _ map[string]string) (bool, error) { return sel == "all()", nil }
	a, _ := (&bgp.Planner{Match: match}).Plan(st, "a", nil)
	b, _ := (&bgp.Planner{Match: match, Explain: true}).Plan(st, "a", nil)
	if d := bgp.Diff(&a, &b); !a.Equal(&b) || !d.Empty() || a.Sources != nil {
		t.Error(d.String())
	}
}

// TestDiff: what a change would do, before it is done.
func TestDiff(t *testing.T) {
	p := netip.MustParsePrefix
	match := func(sel string, _ map[string]string) (bool, error) { return sel == "all()", nil }
	base := func() cluster.Objects {
		o := everything()
		o.Nodes[0].RouteReflectorClusterID = netip.Addr{}
		o.Nodes[1].ASN = 0
		o.BGP.Mesh = true
		o.Peers = o.Peers[:1]
		o.Peers[0].Filters = nil
		o.Peers[0].PeerPort = 0
		o.BGP.ServiceExternalIPs = nil
		return o
	}
	for _, tc := range []struct {
		name   string
		change func(*cluster.Objects)
		want   []string
	}{
		{"nothing", func(*cluster.Objects) {}, nil},
		{"our AS", func(o *cluster.Objects) { o.BGP.ASN = 64999 }, []string{
			"every session is begun anew, routes are kept meanwhile: AS number 64512 -> 64999",
			"session ! Mesh_192_0_2_10 is reset: AS number", "session ! Mesh_2001_db8__c is reset: AS number"}},
		{"our port", func(o *cluster.Objects) { o.BGP.NodeListenPorts = map[string]uint16{"c": 2179, "a": 1} }, []string{"every session is begun anew, routes are kept meanwhile: listening port 1790 -> 1"}},
		{"a password", func(o *cluster.Objects) {
			o.Secrets = []*cluster.Secret{{Name: "bgp", Data: map[string]string{"tor": "new"}}}
		}, []string{"session ! Global_192_0_2_1 is reset: password"}},
		{"no password any more", func(o *cluster.Objects) { o.Secrets = nil }, []string{
			"session x Global_192_0_2_1 may not start: Secret bgp, which spec.password of BGPPeer tor names, does not exist or cannot be read: create it in the namespace of the daemon, and let its role read it",
			"to Global_192_0_2_1 - 10.1.0.0/26"}},
		{"BFD", func(o *cluster.Objects) { o.Peers[0].BFD = cluster.BFD{Interval: time.Second, Multiplier: 3} }, []string{"session ~ Global_192_0_2_1 stays up: BFD"}},
		{"reflectors", func(o *cluster.Objects) { o.BGP.Reflection = cluster.Reflection{Count: 1} }, []string{
			"reflector + a: number 1 of 1 that may be in no zone", "session ! Mesh_192_0_2_10 is reset: route reflection", "session ! Mesh_2001_db8__c is reset: route reflection"}},
		{"timers", func(o *cluster.Objects) { o.Peers[0].KeepaliveTime, o.Peers[0].MaxRestartTime = 0, 0 }, []string{"session ! Global_192_0_2_1 is reset: restart time, keepalive time"}},
		{"next hops", func(o *cluster.Objects) { o.Peers[0].SelfNextHop = false }, []string{"session ~ Global_192_0_2_1 stays up: next hop mode"}},
		{"a node leaves", func(o *cluster.Objects) { o.Nodes = append(o.Nodes[:1:1], o.Nodes[2]) }, []string{"session - Mesh_192_0_2_10"}},
		{"a node comes", func(o *cluster.Objects) { o.Nodes = append(o.Nodes, node("d", "192.0.2.11/24", "")) }, []string{"session + Mesh_192_0_2_11", "to Mesh_192_0_2_11 + 10.1.0.0/26"}},
		{"a block comes, another goes", func(o *cluster.Objects) { o.Affinities[0] = &cluster.Affinity{Node: "a", CIDR: p("10.1.0.64/26")} }, []string{
			"prefix  + 10.1.0.64/26", "prefix  - 10.1.0.0/26",
			"to Global_192_0_2_1 + 10.1.0.64/26", "to Global_192_0_2_1 - 10.1.0.0/26", "to Mesh_192_0_2_10 + 10.1.0.64/26", "to Mesh_192_0_2_10 - 10.1.0.0/26"}},
		{"a pool hides its blocks", func(o *cluster.Objects) { o.Pools[2].DisableBGPExport = true }, []string{"prefix  - fd00::/122", "to Mesh_2001_db8__c - fd00::/122"}},
		{"a filter", func(o *cluster.Objects) {
			o.Filters = []*cluster.BGPFilter{{Name: "f", Export4: []cluster.FilterRule{{}}}}
			o.Peers[0].Filters = []string{"f"}
		}, []string{"session ~ Global_192_0_2_1 stays up: export rules", "to Global_192_0_2_1 - 10.1.0.0/26"}},
		{"a community", func(o *cluster.Objects) { o.BGP.Advertisements = nil }, []string{"to Global_192_0_2_1 ~ 10.1.0.0/26", "to Mesh_192_0_2_10 ~ 10.1.0.0/26"}},
		{"the metric, which eBGP peers do not hear of", func(o *cluster.Objects) { o.BGP.NormalPriority4 = 2000 }, []string{"to Mesh_192_0_2_10 ~ 10.1.0.0/26"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, _ := (&bgp.Planner{Match: match}).Plan(cluster.Build(base()), "a", nil)
			o := base()
			tc.change(&o)
			b, _ := (&bgp.Planner{Match: match}).Plan(cluster.Build(o), "a", nil)
			d := bgp.Diff(&a, &b)
			got := slices.DeleteFunc(strings.Split(d.String(), "\n"), func(s string) bool { return s == "" })
			if diff := cmp.Diff(tc.want, got, values); diff != "" {
				t.Error(diff)
			}
			if d.Empty() != (len(tc.want) == 0) || a.Equal(&b) != d.Empty() {
				t.Errorf("empty %v, equal %v", d.Empty(), a.Equal(&b))
			}
		})
	}
}

// TestDiffOfTheOtherEnd: a session begins anew, or goes down, for what changes at the node at its other end alone.
func TestDiffOfTheOtherEnd(t *testing.T) {
	objects := func() cluster.Objects {
		return electing(cluster.Reflection{Above: 1, Count: 1, Zone: "zone"}, zoned(6))
	}
	for _, tc := range []struct {
		name   string
		change func(*cluster.Objects)
		want   []string
	}{
		{"nothing", func(*cluster.Objects) {}, nil},
		{"a mesh again", func(o *cluster.Objects) { o.BGP.Reflection.Above = 10 }, []string{
			"reflector - n005", "session + Mesh_192_0_0_2", "session ! Mesh_192_0_0_6 is reset: at n005: route reflection"}},
		{"another reflector's AS", func(o *cluster.Objects) { o.Nodes[5].ASN = 65001 }, []string{"session ! Mesh_192_0_0_6 is reset: AS number"}},
	} {
		o := objects()
		plan := func(o cluster.Objects, node string) *bgp.Config {
			cfg, problems := bgp.Plan(cluster.Build(o), node, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			return &cfg
		}
		tc.change(&o)
		a, b := plan(objects(), "n000"), plan(o, "n000")
		d := bgp.Diff(a, b)
		d.AddFar(a, b, func(node string) (*bgp.Config, *bgp.Config) { return plan(objects(), node), plan(o, node) })
		text := d.String()
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: said is\n%s\nand not %q", tc.name, text, want)
			}
		}
		if (len(tc.want) == 0) != d.Empty() {
			t.Errorf("%s: said is\n%s", tc.name, text)
		}
	}
}

// TestDiffOfWhatIsReceived: what a peer sends now is judged by the rules before and after.
func TestDiffOfWhatIsReceived(t *testing.T) {
	p := netip.MustParsePrefix
	rules := func(list ...cluster.FilterRule) (out []bgp.Rule) {
		for _, r := range list {
			out = append(out, bgp.Rule{FilterRule: r})
		}
		return out
	}
	in := func(s string, accept bool, pref uint32) cluster.FilterRule {
		return cluster.FilterRule{Accept: accept, CIDR: p(s), MinLen: 0, MaxLen: 32, SetPriority: pref}
	}
	peer := bgp.Peer{Name: "tor", Addr: netip.MustParseAddr("192.0.2.1"), ASN: 65000}
	a, b := bgp.Config{ASN: 64512, Peers: []bgp.Peer{peer}}, bgp.Config{ASN: 64512, Peers: []bgp.Peer{peer}}
	a.Peers[0].Import = rules(in("10.1.0.0/16", false, 0))
	b.Peers[0].Import = rules(in("10.2.0.0/16", false, 0), in("10.3.0.0/16", true, 77))
	d := bgp.Diff(&a, &b)
	d.AddReceived(&a, &b, func(netip.Addr) (list []bgp.Path) {
		for _, s := range []string{"10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24"} {
			list = append(list, bgp.Path{Prefix: p(s), LocalPref: 100})
		}
		return list
	})
	want := "session ~ tor stays up: import rules\nfrom tor + 10.1.0.0/24\nfrom tor - 10.2.0.0/24\nfrom tor ~ 10.3.0.0/24\n"
	if d.String() != want || d.Empty() {
		t.Errorf("said is\n%swant\n%s", d.String(), want)
	}
}

// TestResets: every field of a session that only a new one can change is noticed, and no other.
func TestResets(t *testing.T) {
	base := bgp.Peer{Name: "p", Addr: netip.MustParseAddr("192.0.2.1")}
	for what, change := range map[string]func(*bgp.Peer){
		"address": func(p *bgp.Peer) { p.Addr = netip.MustParseAddr("192.0.2.2") }, "port": func(p *bgp.Peer) { p.Port = 1 }, "AS number": func(p *bgp.Peer) { p.ASN = 1 },
		"local AS number": func(p *bgp.Peer) { p.LocalASN = 1 }, "source address": func(p *bgp.Peer) { p.LocalAddr = netip.MustParseAddr("192.0.2.2") },
		"which side dials": func(p *bgp.Peer) { p.Passive = true }, "restart time": func(p *bgp.Peer) { p.RestartTime = 1 }, "keepalive time": func(p *bgp.Peer) { p.Keepalive = 1 },
		"TTL security": func(p *bgp.Peer) { p.TTLSecurity = 1 }, "allowed own AS numbers": func(p *bgp.Peer) { p.AllowOwnAS = 1 }, "password": func(p *bgp.Peer) { p.Password = "x" },
		"whether the session may start": func(p *bgp.Peer) { p.Held = "x" }, "route reflection": func(p *bgp.Peer) { p.Client = true },
	} {
		q := base
		change(&q)
		if got := bgp.Resets(&base, &q); len(got) != 1 || got[0] != what || base.Equal(&q) {
			t.Errorf("%s: %v", what, got)
		}
	}
	for what, change := range map[string]func(*bgp.Peer){
		"name": func(p *bgp.Peer) { p.Name = "q" }, "source": func(p *bgp.Peer) { p.Source = "x" }, "node": func(p *bgp.Peer) { p.Node = "x" }, "keep": func(p *bgp.Peer) { p.KeepNextHop = true },
		"self": func(p *bgp.Peer) { p.SelfNextHop = true }, "import": func(p *bgp.Peer) { p.Import = []bgp.Rule{{}} }, "export": func(p *bgp.Peer) { p.Export = []bgp.Rule{{}} },
	} {
		q := base
		change(&q)
		if got := bgp.Resets(&base, &q); len(got) != 0 || base.Equal(&q) {
			t.Errorf("%s: %v", what, got)
		}
	}
}
