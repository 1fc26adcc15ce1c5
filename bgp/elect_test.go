package bgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// zoned are nodes in zones "a", "b" and "c" by turns, the first of them in b.
func zoned(n int) (nodes []*cluster.Node) {
	for i := range n {
		x := node(fmt.Sprintf("n%03d", i), fmt.Sprintf("192.0.%d.%d/16", i/200, i%200+1), fmt.Sprintf("2001:db8::%x/64", i+1))
		x.Labels = map[string]string{"zone": string(rune('a' + (i+1)%3))}
		nodes = append(nodes, x)
	}
	return nodes
}

func electing(r cluster.Reflection, nodes []*cluster.Node) cluster.Objects {
	conf := cluster.DefaultBGP()
	conf.Reflection = r
	return cluster.Objects{Nodes: nodes, BGP: conf}
}

func elected(t *testing.T, o cluster.Objects) []string {
	t.Helper()
	cfg, problems := bgp.Plan(cluster.Build(o), o.Nodes[0].Name, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var out []string
	for _, r := range cfg.Election.Elected {
		out = append(out, r.Node)
	}
	return out
}

// TestElection: every node sees the same reflectors, spread over the zones; every session is planned at both of its ends, with the reflection at one of
// them; every two nodes have a session or a reflector in common.
func TestElection(t *testing.T) {
	const n = 40
	nodes := zoned(n)
	nodes[7].ASN = 65007                                               // peers with all, as before
	nodes[8].RouteReflectorClusterID = netip.MustParseAddr("10.9.9.9") // peers with nobody, as before
	st := cluster.Build(electing(cluster.Reflection{Above: n - 3, Count: 4, Zone: "zone"}, nodes))
	sessions := map[[2]string]bgp.Peer{}
	var first *bgp.Election
	for _, x := range nodes {
		cfg, problems := bgp.Plan(st, x.Name, nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if first == nil {
			first = cfg.Election
		}
		if !slices.Equal(first.Elected, cfg.Election.Elected) || first.Why != cfg.Election.Why {
			t.Fatalf("%s sees %v, others %v", x.Name, cfg.Election, first)
		}
		for _, p := range cfg.Peers {
			if p.Addr.Is4() {
				sessions[[2]string{x.Name, p.Node}] = p
			}
		}
	}
	zones := map[string]int{}
	chosen := map[string]bool{}
	for _, r := range first.Elected {
		zones[r.Zone]++
		chosen[r.Node] = true
	}
	if len(first.Elected) != 4 || len(zones) != 3 || chosen["n007"] || chosen["n008"] {
		t.Errorf("elected %v", first.Elected)
	}
	for _, x := range nodes {
		for _, y := range nodes {
			p, has := sessions[[2]string{x.Name, y.Name}]
			q, back := sessions[[2]string{y.Name, x.Name}]
			want := x != y && x.Name != "n008" && y.Name != "n008" && (chosen[x.Name] || chosen[y.Name] || x.ASN != 0 || y.ASN != 0)
			if has != want || back != want {
				t.Fatalf("session of %s and %s: %t and %t, want %t", x.Name, y.Name, has, back, want)
			}
			if has && p.Passive == q.Passive {
				t.Errorf("%s and %s: both wait, or both dial", x.Name, y.Name)
			}
			if client := has && chosen[x.Name] && !chosen[y.Name] && y.ASN == 0; p.Client != client || client && p.ClusterID != x.Addr4.Addr() {
				t.Errorf("%s has %s for a client: %t of %v, want %t", x.Name, y.Name, p.Client, p.ClusterID, client)
			}
		}
	}
}

// TestElectionIsCalm: nodes that come and go replace only whom they must.
func TestElectionIsCalm(t *testing.T) {
	r := cluster.Reflection{Above: 10, Count: 3, Zone: "zone"}
	nodes := zoned(30)
	before := elected(t, electing(r, nodes))
	changes := 0
	for i, gone := range nodes {
		if i == 0 {
			continue // who is asked
		}
		after := elected(t, electing(r, slices.Delete(slices.Clone(nodes), i, i+1)))
		if !slices.Contains(before, gone.Name) && !slices.Equal(before, after) {
			t.Errorf("%s left, who was not elected, and %v became %v", gone.Name, before, after)
		}
		kept := 0
		for _, x := range before {
			if slices.Contains(after, x) {
				kept++
			}
		}
		if kept < 2 || len(after) != 3 {
			t.Errorf("%s left: %v became %v", gone.Name, before, after)
		}
		if kept < 3 {
			changes++
		}
	}
	if changes == 0 {
		t.Error("nobody who was elected has left")
	}
}

// TestElectionOfThoseWhoStay: a node that is about to leave is elected only where nobody else is left, and replaced in its own zone.
func TestElectionOfThoseWhoStay(t *testing.T) {
	r := cluster.Reflection{Above: 1, Count: 3, Zone: "zone"}
	nodes := zoned(12)
	before := elected(t, electing(r, nodes))
	leave := func(names ...string) []*cluster.Node {
		out := slices.Clone(nodes)
		for i, n := range out {
			if len(names) == 0 || slices.Contains(names, n.Name) {
				x := *n
				x.Leaving = true
				out[i] = &x
			}
		}
		return out
	}
	for _, gone := range before {
		var zone, kept int
		after := elected(t, electing(r, leave(gone)))
		for _, n := range nodes {
			if slices.Contains(after, n.Name) && slices.Contains(before, n.Name) {
				kept++
			}
			if slices.Contains(after, n.Name) && n.Labels["zone"] == "a" {
				zone++
			}
		}
		if kept != 2 || zone != 1 || slices.Contains(after, gone) {
			t.Errorf("%s is about to leave: %v became %v", gone, before, after)
		}
	}
	if all := elected(t, electing(r, leave())); !slices.Equal(all, before) {
		t.Errorf("all are about to leave: %v became %v", before, all)
	}
	r.Count = 12
	if some := elected(t, electing(r, leave(before...))); len(some) != 12 {
		t.Errorf("all are wanted, and %v elected", some)
	}
	r.Count = 9
	if some := elected(t, electing(r, leave(before...))); slices.ContainsFunc(some, func(s string) bool { return slices.Contains(before, s) }) {
		t.Errorf("there are enough who stay, and %v elected", some)
	}
}

// TestElectionSays: why there are reflectors, or none, is in the plan; what cannot be is a problem and leaves the mesh.
func TestElectionSays(t *testing.T) {
	nodes := zoned(4)
	v6only := node("n100", "", "2001:db8::100/64")
	for _, tc := range []struct {
		name   string
		change func(o *cluster.Objects)
		want   string // in the plan
		wrong  string // in the only problem
	}{
		{"few", func(o *cluster.Objects) { o.BGP.Reflection.Above = 4 }, "routeReflectors: []  # BGPConfiguration default metadata.annotations[caracal.net/route-reflectors]: 4 nodes are not more than 4: all peer with all", ""},
		{"many", func(*cluster.Objects) {}, `- node: n002 # number 1 of 1 that may be in zone "a"`, ""},
		{"more than there are", func(o *cluster.Objects) { o.BGP.Reflection.Count = 50 }, "number 2 of 2", ""},
		{"no zones", func(o *cluster.Objects) { o.BGP.Reflection.Zone = "rack" }, "of 4 that may be in no zone", ""},
		{"one family only", func(o *cluster.Objects) { o.Nodes = append(slices.Clone(o.Nodes), v6only) }, "5 nodes are more than 2", ""},
		{"nobody", func(o *cluster.Objects) {
			o.Nodes = []*cluster.Node{nodes[0], v6only, node("x", "192.0.9.9/16", "")}
			o.BGP.Reflection.Selector = "no"
		}, "no node may be elected", "choose nodes of the cluster's AS"},
		{"mesh off", func(o *cluster.Objects) { o.BGP.Mesh = false }, "peers: []", "which is off"},
		{"not asked for", func(o *cluster.Objects) { o.BGP.Reflection = cluster.Reflection{} }, "peers:", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := electing(cluster.Reflection{Above: 2, Count: 2, Zone: "zone"}, nodes)
			tc.change(&o)
			planner := &bgp.Planner{Explain: true, Match: func(s string, _ map[string]string) (bool, error) { return s != "no", nil }}
			cfg, problems := planner.Plan(cluster.Build(o), o.Nodes[0].Name, nil)
			var b strings.Builder
			if err := bgp.WriteEffective(&b, bgp.Effective(&cfg)); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), strings.Join(strings.Fields(tc.want), " ")) {
				t.Errorf("the plan says\n%s\nand not %q", b.String(), tc.want)
			}
			if (tc.wrong != "") != (len(problems) == 1) || tc.wrong != "" && !strings.Contains(problems[0].Text, tc.wrong) {
				t.Errorf("problems %v", problems)
			}
		})
	}
}
