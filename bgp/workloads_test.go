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

func pod(name, on, color string, addrs ...string) *cluster.Pod {
	p := &cluster.Pod{Name: name, Node: on, Labels: map[string]string{"color": color}}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
	}
	return p
}

// TestLocalWorkloads: sessions with a node's own workloads, of what a BGPPeer says only what Calico takes over.
func TestLocalWorkloads(t *testing.T) {
	nodes := []*cluster.Node{node("a", "192.0.2.9/24", "2001:db8::9/64"), node("b", "192.0.2.10/24", "")}
	pods := []*cluster.Pod{
		pod("x/both", "a", "red", "10.3.0.4", "fd00::4", "10.3.0.5"), pod("x/six", "a", "red", "fd00::6"), pod("x/blue", "a", "blue", "10.3.0.7"),
		pod("x/other", "b", "red", "10.3.9.4", "fd00::9:4"),
	}
	planner := &bgp.Planner{Match: func(sel string, labels map[string]string) (bool, error) {
		color, ok := strings.CutPrefix(sel, "color == ")
		if !ok {
			return false, fmt.Errorf("cannot parse %q", sel)
		}
		return labels["color"] == color, nil
	}}
	red := func(name string) *cluster.BGPPeer {
		return &cluster.BGPPeer{Name: name, WorkloadSelector: "color == red", ASN: 65401}
	}
	full := red("full")
	full.LocalASN, full.MaxPrefixes, full.Filters = 65001, 7, []string{"f"}
	full.KeepNextHop, full.SelfNextHop, full.TTLSecurity, full.AllowOwnAS = true, true, 3, 2
	on := func(name, node string) *cluster.BGPPeer {
		p := red(name)
		p.Node = node
		return p
	}
	both := []string{
		"Local_Workload_10_3_0_4 10.3.0.4:0 AS65401 from invalid IP passive | BGPPeer red | ",
		"Local_Workload_fd00__4 fd00::4:0 AS65401 from invalid IP passive | BGPPeer red | ",
		"Local_Workload_fd00__6 fd00::6:0 AS65401 from invalid IP passive | BGPPeer red | ",
	}
	for _, tc := range []struct {
		name, self string
		peers      []*cluster.BGPPeer
		want       []string
		problems   []string
	}{
		{"the first address of each family", "a", []*cluster.BGPPeer{red("red")}, both, nil},
		{"not where the node has no address of the family", "b", []*cluster.BGPPeer{red("red")},
			[]string{"Local_Workload_10_3_9_4 10.3.9.4:0 AS65401 from invalid IP passive | BGPPeer red | "}, nil},
		{"on one node, seen from it", "a", []*cluster.BGPPeer{on("red", "a")}, both, nil},
		{"on one node, seen from another", "b", []*cluster.BGPPeer{on("red", "a")}, nil, nil},
		{"chosen twice: the first by name", "a", []*cluster.BGPPeer{red("zed"), red("red")}, both,
			[]string{"BGPPeer zed spec.localWorkloadSelector", "BGPPeer zed spec.localWorkloadSelector", "BGPPeer zed spec.localWorkloadSelector"}},
		{"an address that is named as well", "a", []*cluster.BGPPeer{on("red", "a"), {Name: "ip", PeerIP: netip.MustParseAddr("10.3.0.4"), ASN: 65401}},
			[]string{"Global_10_3_0_4 10.3.0.4:179 AS65401 from 192.0.2.9 | BGPPeer ip | ", both[1], both[2]}, []string{"BGPPeer red spec.localWorkloadSelector"}},
		{"of what it says only what counts", "a", []*cluster.BGPPeer{full}, []string{
			strings.Replace(both[0], "red", "full", 1), strings.Replace(both[1], "red", "full", 1), strings.Replace(both[2], "red", "full", 1)}, nil},
		{"without an AS, and what cannot be matched", "a", []*cluster.BGPPeer{{Name: "as", WorkloadSelector: "color == red"}, {Name: "sel", WorkloadSelector: "color", ASN: 1}},
			nil, []string{"BGPPeer as spec.asNumber", "BGPPeer sel spec.localWorkloadSelector"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := cluster.Build(cluster.Objects{Nodes: nodes, Peers: tc.peers, Pods: pods, BGP: cluster.BGPConfig{ASN: 64512, ListenPort: 179},
				Filters: []*cluster.BGPFilter{{Name: "f", Import4: []cluster.FilterRule{{Accept: true}}}}})
			cfg, problems := planner.Plan(st, tc.self, nil)
			if d := cmp.Diff(tc.want, lines(cfg.Peers), values); d != "" {
				t.Error(d)
			}
			var said []string
			for _, p := range problems {
				said = append(said, p.Object+" "+p.Field)
			}
			slices.Sort(said)
			if d := cmp.Diff(tc.problems, said, values); d != "" {
				t.Error(d)
			}
			if tc.peers[0] == full {
				p := cfg.Peers[0]
				if p.LocalASN != 65001 || p.MaxPrefixes != 7 || len(p.Import) != 1 || p.KeepNextHop || p.SelfNextHop || p.TTLSecurity != 0 || p.AllowOwnAS != 0 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
	st := cluster.Build(cluster.Objects{Nodes: nodes, Peers: []*cluster.BGPPeer{red("red")}, Pods: []*cluster.Pod{pod("x/y", "host-a", "red", "10.3.0.4")}, BGP: cluster.BGPConfig{ASN: 64512}})
	planner.PodNode = "host-a"
	if cfg, _ := planner.Plan(st, "a", nil); len(cfg.Peers) != 1 {
		t.Errorf("with Kubernetes' name of the node: %+v", cfg.Peers)
	}
}

// TestWorkloadNextHops: what a workload of this node announces leads to its interface, in whatever pool it lies; another node's workload is no next hop.
func TestWorkloadNextHops(t *testing.T) {
	own, device := netip.MustParsePrefix("10.1.0.4/32"), "cali1"
	h := routes.NewHost([]routes.Interface{{Name: device, Index: 7, MTU: 1500, Up: true}}, []netip.Prefix{own},
		[]routes.HostRoute{{Dst: own, Hops: []routes.NextHop{{Device: device}}}})
	r := bgp.NewRoutes("a", nil)
	r.Learned([]bgp.Learned{
		learned(path("10.123.0.0/26", "W", "10.1.0.4", bgp.MaxPref-100)), learned(path("10.2.7.0/26", "W", "10.1.0.4", bgp.MaxPref-100)),
		learned(path("10.123.1.0/26", "P", "10.1.9.4", bgp.MaxPref-100)),
	})
	r.Workloads([]netip.Addr{own.Addr()})
	ch := r.Plan(cluster.Build(testObjects()), h)
	var got []string
	for i := range ch.Routes {
		got = append(got, show(ch.Routes[i]))
	}
	want := []string{
		"10.2.7.0/26 via 10.1.0.4 dev cali1 metric 100 | " + bgp.RuleWorkload + " | BGP path from W | cross | ",
		"10.123.0.0/26 via 10.1.0.4 dev cali1 metric 100 | " + bgp.RuleWorkload + " | BGP path from W |  | ",
		"10.123.1.0/26 metric 100 UNROUTABLE next hop 10.1.9.4 lies inside IPPool always: refused, the overlay cannot be reached through itself | BGP path without a usable next hop | BGP path from P |  | ",
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.Workloads(nil)
	if ch := r.Plan(cluster.Build(testObjects()), h); len(ch.Routes) != 2 || ch.Routes[0].Unroutable == "" || ch.Routes[1].Unroutable == "" {
		t.Errorf("after the end of its session: %v", ch.Routes)
	}
}
