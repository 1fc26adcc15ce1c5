package bgp_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// TestLeaving: what a node goes on announcing at each step. A block in which a workload runs stays until the end.
func TestLeaving(t *testing.T) {
	pfx := netip.MustParsePrefix
	busy, empty := pfx("10.1.0.0/26"), pfx("10.1.1.0/26")
	objects := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.1/24", "")}, BGP: cluster.DefaultBGP(), Pools: []*cluster.Pool{{Name: "p", CIDR: pfx("10.1.0.0/16")}},
		Affinities: []*cluster.Affinity{{Node: "a", CIDR: busy, State: cluster.Confirmed}, {Node: "a", CIDR: empty, State: cluster.Confirmed}},
	}
	host := &routes.Host{Workloads: []netip.Prefix{pfx("10.1.0.7/32"), pfx("10.1.9.9/32")}}
	var got []string
	for _, l := range []bgp.Leaving{bgp.Stays, bgp.Shutdown, bgp.Withdrawn, bgp.Gone} {
		cfg, _ := (&bgp.Planner{Leaving: l}).Plan(cluster.Build(objects), "a", host)
		if cfg.Leaving != l {
			t.Errorf("%v is not in the Config", l)
		}
		line := l.String() + ":"
		for _, o := range cfg.Originate {
			r, v := cfg.Send(&bgp.Peer{ASN: 65000}, bgp.RouteFrom(&o))
			if !v.Accept {
				t.Errorf("%v is not sent: %s", o.Prefix, v.By)
			}
			line += " " + o.Prefix.String()
			if last := r.LocalPref == bgp.ShutdownPref && slices.Contains(r.Communities, bgp.GracefulShutdown()); last {
				line += "!"
			}
		}
		got = append(got, line)
	}
	want := []string{
		"stays: 10.1.0.0/26 10.1.1.0/26 10.1.9.9/32",
		"shutting down: 10.1.0.0/26! 10.1.1.0/26! 10.1.9.9/32!",
		"withdrawn: 10.1.0.0/26! 10.1.9.9/32!",
		"gone:",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if cfg, _ := (&bgp.Planner{Leaving: bgp.Withdrawn}).Plan(cluster.Build(objects), "a", nil); len(cfg.Originate) != 2 {
		t.Errorf("of a host that is not known nothing is taken back: %v", cfg.Originate)
	}
}

// TestWellKnownCommunities: what is learned with one is kept where it asks for, whatever rules say; our own routes may carry any.
func TestWellKnownCommunities(t *testing.T) {
	cfg := bgp.Config{ASN: 64512}
	inner, outer := &bgp.Peer{ASN: 64512, Export: []bgp.Rule{{FilterRule: bgp.FilterRule{Accept: true}}}}, &bgp.Peer{ASN: 65000}
	for _, c := range []struct {
		b            uint32
		learned      bool
		inner, outer bool
	}{
		{0xff01, true, true, false}, {0xff03, true, true, false}, {0xff02, true, false, false}, {0xff00, true, true, true},
		{0xff01, false, true, true}, {0xff02, false, true, true},
	} {
		r := bgp.Route{Prefix: netip.MustParsePrefix("10.1.0.0/26"), Learned: c.learned, LocalPref: 100, Communities: []bgp.Community{{A: 0xffff, B: c.b}}}
		_, in := cfg.Send(inner, r)
		_, out := cfg.Send(outer, r)
		if in.Accept != c.inner || out.Accept != c.outer {
			t.Errorf("65535:%d, learned %v: sent inside %v (%s), outside %v (%s)", c.b, c.learned, in.Accept, in.By, out.Accept, out.By)
		}
	}
	leaving := bgp.Route{Learned: true, LocalPref: 100, Communities: []bgp.Community{bgp.GracefulShutdown()}}
	if r, _ := cfg.Accept(outer, leaving); r.LocalPref != bgp.ShutdownPref {
		t.Errorf("GRACEFUL_SHUTDOWN from an eBGP peer leaves LOCAL_PREF at %d", r.LocalPref)
	}
	if r, _ := cfg.Accept(inner, leaving); r.LocalPref != 100 {
		t.Errorf("an iBGP peer says its LOCAL_PREF itself, %d", r.LocalPref)
	}
}
