package bgp_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// A peer with reachableBy is a next hop where its gateway is one, and only then: the route to the peer is ours, of which the host knows nothing.
func TestNowhereAndReachableBy(t *testing.T) {
	a := netip.MustParseAddr
	o := testObjects()
	o.BGP = cluster.DefaultBGP()
	for _, p := range []struct{ name, peer, by string }{{"near", "203.0.113.9", "192.0.2.1"}, {"far", "203.0.113.8", "203.0.113.1"}, {"lost", "192.0.2.200", "203.0.113.1"}, {"other", "203.0.113.7", "198.18.2.1"}} {
		o.Peers = append(o.Peers, &cluster.BGPPeer{Name: p.name, PeerIP: a(p.peer), ASN: 65000, ReachableBy: a(p.by)})
	}
	cfg, problems := bgp.Plan(cluster.Build(o), "a", testHost())
	if len(cfg.Reach) != 4 {
		t.Fatalf("the plan has the routes %v, problems %v", cfg.Reach, problems)
	}
	for gw, want := range map[string]string{"203.0.113.9": "", "203.0.113.8": "no usable route", "192.0.2.200": "no usable route", "192.0.2.201": "", "203.0.113.7": "", "198.18.2.1": "", "2001:db8::b": "", "2001:dbb::b": "no usable route", "203.0.113.10": "no usable route"} {
		if why := cfg.Nowhere.Why(netip.MustParsePrefix("10.3.1.0/26"), a(gw)); (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("next hop %s: %q, want %q", gw, why, want)
		}
	}
	if cfg, _ := bgp.Plan(cluster.Build(o), "a", nil); cfg.Nowhere != nil {
		t.Error("nothing is known of the host, but some next hops are")
	}
}

// What Nowhere says of paths of no use is what Routes says of them.
func TestNowhereSaysWhy(t *testing.T) {
	n := &bgp.Nowhere{Pools: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}, Own: []netip.Addr{netip.MustParseAddr("192.0.2.9")},
		Tunnelled: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Unresolved: []netip.Prefix{netip.MustParsePrefix("2001:dba::/32")}}
	for gw, want := range map[string]string{
		"10.3.0.5": "next hop 10.3.0.5 lies inside IPPool 10.3.0.0/16: refused, the overlay cannot be reached through itself", "192.0.2.9": "next hop 192.0.2.9 is an address of this node: refused",
		"::ffff:192.0.2.7": "next hop ::ffff:192.0.2.7 is of another address family than 10.1.0.0/26: refused", "2001:db8::b": "", "fe80::1": "",
		"2001:dba::b": "next hop 2001:dba::b: no usable route of the host leads there", "0.0.0.0": "the path has no next hop: refused", "192.0.2.10": "",
	} {
		if why := n.Why(netip.MustParsePrefix("10.1.0.0/26"), netip.MustParseAddr(gw)); why != want {
			t.Errorf("%s: %q, want %q", gw, why, want)
		}
	}
	for gw, want := range map[string]string{"192.0.2.10": "", "2001:db8::b": "next hop 2001:db8::b is not IPv4, and 10.5.0.0/16 is reached through IPIP, which needs an IPv4 outer header: refused"} {
		if why := n.Why(netip.MustParsePrefix("10.5.1.0/26"), netip.MustParseAddr(gw)); why != want {
			t.Errorf("%s by IPIP: %q, want %q", gw, why, want)
		}
	}
	if why := n.Why(netip.MustParsePrefix("fd00::/122"), netip.MustParseAddr("192.0.2.10")); why != "next hop 192.0.2.10 is of another address family than fd00::/122: refused" {
		t.Errorf("an IPv4 next hop of an IPv6 prefix: %q", why)
	}
	if why := (*bgp.Nowhere)(nil).Why(netip.Prefix{}, netip.Addr{}); why != "" {
		t.Errorf("nothing is known, but %q", why)
	}
}

// TestNowhereButWorkloads: ranges without the workloads that are peers hold the same addresses otherwise, and the plan has those that are on the host.
func TestNowhereButWorkloads(t *testing.T) {
	a := netip.MustParseAddr
	n := &bgp.Nowhere{Pools: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/28"), netip.MustParsePrefix("10.3.9.9/32")}, Workloads: []netip.Addr{a("10.3.0.4"), a("10.3.0.15"), a("10.3.9.9")}}
	in := map[netip.Addr]int{}
	for _, p := range n.Exact(n.Pools) {
		for x := p.Addr(); p.Contains(x); x = x.Next() {
			in[x]++
		}
	}
	for i := range 16 {
		x, want := netip.AddrFrom4([4]byte{10, 3, 0, byte(i)}), 1
		if i == 4 || i == 15 {
			want = 0
		}
		if in[x] != want || (n.Why(netip.MustParsePrefix("10.1.0.0/26"), x) == "") != (want == 0) {
			t.Errorf("%s is there %d times, want %d, and is refused: %q", x, in[x], want, n.Why(netip.MustParsePrefix("10.1.0.0/26"), x))
		}
	}
	if len(in) != 14 {
		t.Errorf("%v", in)
	}
	o := testObjects()
	o.Pods = []*cluster.Pod{pod("x/here", "a", "red", "10.3.0.4"), pod("x/gone", "a", "red", "10.3.0.5")}
	o.Peers = []*cluster.BGPPeer{{Name: "red", WorkloadSelector: "all()", ASN: 65401}}
	o.BGP = cluster.DefaultBGP()
	cfg, _ := bgp.Plan(cluster.Build(o), "a", testHost("10.3.0.4/32"))
	if len(cfg.Workloads) != 2 || len(cfg.Nowhere.Workloads) != 1 || cfg.Nowhere.Workloads[0] != a("10.3.0.4") {
		t.Errorf("peers %v, next hops %v", cfg.Workloads, cfg.Nowhere.Workloads)
	}
}
