package bgp_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// tunnel stands in for ipip.NextHop, which this package must not import.
func tunnel(st *cluster.State, self *cluster.Node, h *routes.Host, pool *cluster.Pool, gw netip.Addr) (routes.NextHop, uint32, string, error) {
	_, mode := pool.Encapsulation()
	switch {
	case gw.Is6():
		return routes.NextHop{}, 0, "", errors.New("IPIP carries IPv4 only")
	case mode == cluster.CrossSubnet && self != nil && self.SameSubnet(gw):
		hops := h.Resolve(gw)
		if len(hops) == 0 {
			return routes.NextHop{}, 0, "same", errors.New("no route to " + gw.String())
		}
		return hops[0], 0, "same", nil
	}
	return routes.NextHop{Gateway: gw, Device: "tunl0", Onlink: true}, uint32(1480 + st.Felix().IPIPMTU), "tunnel", nil
}

// ordinary is the LOCAL_PREF of a route of metric 1024.
const ordinary = bgp.MaxPref - 1024

func path(prefix, peer, nextHop string, pref uint32) bgp.Path {
	return bgp.Path{Prefix: netip.MustParsePrefix(prefix), Peer: peer, NextHop: netip.MustParseAddr(nextHop), LocalPref: pref}
}

// from is a path whose peer's address counts.
func from(prefix, peer, nextHop string) bgp.Path {
	p := path(prefix, peer, nextHop, ordinary)
	p.PeerAddr = netip.MustParseAddr(peer)
	return p
}

func learned(paths ...bgp.Path) bgp.Learned {
	return bgp.Learned{Prefix: paths[0].Prefix, Paths: paths}
}

// show prints a route as a line of ip(8) with its reason.
func show(r routes.Route) string {
	var b strings.Builder
	if r.Type == routes.Blackhole {
		b.WriteString("blackhole ")
	}
	fmt.Fprintf(&b, "%s", r.Dst)
	for _, h := range r.NextHops {
		fmt.Fprintf(&b, " via %s dev %s", h.Gateway, h.Device)
		if h.Onlink {
			b.WriteString(" onlink")
		}
		if h.Weight != 0 {
			fmt.Fprintf(&b, " weight %d", h.Weight)
		}
	}
	fmt.Fprintf(&b, " metric %d", r.Key().Metric)
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	if r.Unroutable != "" {
		fmt.Fprintf(&b, " UNROUTABLE %s", r.Unroutable)
	}
	fmt.Fprintf(&b, " | %s | %s | %s | %s", r.Reason.Rule, r.Reason.Source, r.Reason.Pool, r.Reason.Node)
	return b.String()
}

func testHost(workloads ...string) *routes.Host {
	var ws []netip.Prefix
	for _, w := range workloads {
		ws = append(ws, netip.MustParsePrefix(w))
	}
	eth, eth6 := netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("2001:db8::9/64")
	return routes.NewHost(
		[]routes.Interface{{Name: "eth0", Index: 2, MTU: 1500, Up: true, Addrs: []netip.Prefix{eth, eth6}}, {Name: "eth9", Index: 9}}, ws,
		[]routes.HostRoute{
			{Dst: eth.Masked(), Hops: []routes.NextHop{{Device: "eth0"}}},
			{Dst: eth6.Masked(), Hops: []routes.NextHop{{Device: "eth0"}}},
			{Dst: netip.MustParsePrefix("198.51.100.0/24"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("192.0.2.1"), Device: "eth0"}}},
			{Dst: netip.MustParsePrefix("198.51.100.128/25"), Hops: []routes.NextHop{
				{Gateway: netip.MustParseAddr("192.0.2.1"), Device: "eth0", Weight: 3}, {Gateway: netip.MustParseAddr("192.0.2.2"), Device: "eth0", Weight: 1}}},
			{Dst: netip.MustParsePrefix("198.18.1.0/24"), Type: routes.Blackhole},
			{Dst: netip.MustParsePrefix("198.18.2.0/24"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("fe80::1"), Device: "eth0"}}},
			{Dst: netip.MustParsePrefix("198.18.4.0/24"), Hops: []routes.NextHop{
				{Gateway: netip.MustParseAddr("fe80::1"), Device: "eth0", Onlink: true, Weight: 3}, {Gateway: netip.MustParseAddr("fe80::2"), Device: "eth0", Onlink: true, Weight: 1}}},
			{Dst: netip.MustParsePrefix("198.18.3.0/24"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("192.0.2.1"), Device: "eth9"}}},
			{Dst: netip.MustParsePrefix("2001:dba::/32"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("2001:db8::1"), Device: "eth0"}}},
			{Dst: netip.MustParsePrefix("fe80::/64"), Hops: []routes.NextHop{{Device: "eth9"}}},
			{Dst: netip.MustParsePrefix("fe80::/64"), Hops: []routes.NextHop{{Device: "eth0"}}},
		})
}

func testObjects() cluster.Objects {
	p := netip.MustParsePrefix
	return cluster.Objects{
		Nodes: []*cluster.Node{
			node("a", "192.0.2.9/24", "2001:db8::9/64"), node("b", "192.0.2.10/24", "2001:db8::b/64"),
			node("c", "198.51.100.7/24", ""), node("six", "", "2001:db8::6/64"),
		},
		Pools: []*cluster.Pool{
			{Name: "always", CIDR: p("10.1.0.0/16"), IPIPMode: cluster.Always}, {Name: "cross", CIDR: p("10.2.0.0/16"), IPIPMode: cluster.CrossSubnet},
			{Name: "plain", CIDR: p("10.3.0.0/16")}, {Name: "vxlan", CIDR: p("10.4.0.0/16"), VXLANMode: cluster.Always},
			{Name: "home", CIDR: p("10.5.0.0/16"), DisableBGPExport: true}, {Name: "six", CIDR: p("fd00::/48")},
		},
	}
}

func TestRoutes(t *testing.T) {
	p := netip.MustParsePrefix
	for _, tc := range []struct {
		name       string
		blocks     []*cluster.Block
		affinities []*cluster.Affinity
		learned    []bgp.Learned
		workloads  []string
		bgp        cluster.BGPConfig
		reach      []bgp.Reach
		want       []string
	}{{
		name: "service ranges are never programmed", bgp: cluster.BGPConfig{ASN: 64512,
			ServiceClusterIPs: []netip.Prefix{p("10.96.0.0/12")}, ServiceExternalIPs: []netip.Prefix{p("203.0.113.7/32")}, ServiceLoadBalancerIPs: []netip.Prefix{p("10.3.128.0/24")}},
		learned: []bgp.Learned{learned(path("10.96.0.0/12", "P", "192.0.2.10", ordinary)), learned(path("203.0.113.7/32", "P", "192.0.2.10", ordinary)),
			learned(path("10.3.128.8/32", "P", "192.0.2.10", ordinary)), learned(path("10.3.129.0/26", "P", "192.0.2.10", ordinary))},
		want: []string{"10.3.129.0/26 via 192.0.2.10 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | b"},
	}, {
		name: "nothing over ignored interfaces, but the tunnel does not ask", bgp: cluster.BGPConfig{ASN: 64512, IgnoredInterfaces: []string{"wlan0", "e*0"}},
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "P", "192.0.2.10", ordinary)), learned(path("10.1.1.0/26", "P", "192.0.2.10", ordinary))},
		want: []string{
			"10.1.1.0/26 via 192.0.2.10 dev tunl0 onlink metric 1024 mtu 1480 | tunnel | BGP path from P | always | b",
			"10.3.1.0/26 metric 1024 UNROUTABLE next hop 192.0.2.10: the host's route there uses interface eth0, which BGPConfiguration ignoredInterfaces leaves out" +
				" | BGP path without a usable next hop | BGP path from P | plain | b",
		},
	}, {
		name: "routes to peers through their gateways",
		reach: []bgp.Reach{{Peer: netip.MustParseAddr("203.0.113.9"), Gateway: netip.MustParseAddr("192.0.2.1"), Source: "BGPPeer tor"},
			{Peer: netip.MustParseAddr("203.0.113.8"), Gateway: netip.MustParseAddr("203.0.113.1"), Source: "BGPPeer far"},
			{Peer: netip.MustParseAddr("203.0.113.7"), Gateway: netip.MustParseAddr("198.18.2.1"), Source: "BGPPeer other"}},
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "P", "203.0.113.9", ordinary))},
		want: []string{
			"10.3.1.0/26 via 192.0.2.1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | ",
			"203.0.113.7/32 via fe80::1 dev eth0 metric 1024 | " + bgp.RuleReach + " | BGPPeer other |  | ",
			"203.0.113.8/32 metric 1024 UNROUTABLE gateway 203.0.113.1 of reachableBy: no route of the host leads there | " + bgp.RuleReach + " | BGPPeer far |  | ",
			"203.0.113.9/32 via 192.0.2.1 dev eth0 metric 1024 | " + bgp.RuleReach + " | BGPPeer tor |  | ",
		},
	}, {
		name:      "a workload that has moved away is found there, one that has not is here",
		workloads: []string{"10.1.9.9/32", "10.1.9.8/32"},
		learned:   []bgp.Learned{learned(path("10.1.9.9/32", "Mesh_b", "192.0.2.10", bgp.MaxPref-512)), learned(path("10.1.9.8/32", "Mesh_b", "192.0.2.10", ordinary))},
		want:      []string{"10.1.9.9/32 via 192.0.2.10 dev tunl0 onlink metric 512 mtu 1480 | tunnel | BGP path from Mesh_b | always | b"},
	}, {
		name:    "IPIP Always: through the tunnel",
		learned: []bgp.Learned{learned(path("10.1.1.0/26", "Mesh_b", "192.0.2.10", ordinary))},
		want:    []string{"10.1.1.0/26 via 192.0.2.10 dev tunl0 onlink metric 1024 mtu 1480 | tunnel | BGP path from Mesh_b | always | b"},
	}, {
		name: "IPIP CrossSubnet: by the next hop",
		learned: []bgp.Learned{learned(path("10.2.1.0/26", "Mesh_b", "192.0.2.10", ordinary)),
			learned(path("10.2.2.0/26", "Mesh_c", "198.51.100.7", ordinary))},
		want: []string{
			"10.2.1.0/26 via 192.0.2.10 dev eth0 metric 1024 | same | BGP path from Mesh_b | cross | b",
			"10.2.2.0/26 via 198.51.100.7 dev tunl0 onlink metric 1024 mtu 1480 | tunnel | BGP path from Mesh_c | cross | c",
		},
	}, {
		name:    "equal paths: multipath, on tunl0 too",
		learned: []bgp.Learned{learned(path("10.1.1.0/26", "Mesh_c", "198.51.100.7", ordinary), path("10.1.1.0/26", "Mesh_b", "192.0.2.10", ordinary))},
		want: []string{"10.1.1.0/26 via 192.0.2.10 dev tunl0 onlink via 198.51.100.7 dev tunl0 onlink metric 1024 mtu 1480" +
			" | tunnel | BGP path from Mesh_c, Mesh_b | always | c, b"},
	}, {
		name: "no encapsulation and outside the pools: over the host's own routes",
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "Mesh_c", "198.51.100.7", ordinary)), learned(path("0.0.0.0/0", "Global_tor", "192.0.2.1", 100)),
			learned(path("fd00::/122", "Mesh_b6", "2001:db8::b", ordinary))},
		want: []string{
			"0.0.0.0/0 via 192.0.2.1 dev eth0 metric 2147483547 | " + bgp.RuleOutside + " | BGP path from Global_tor |  | ",
			"10.3.1.0/26 via 192.0.2.1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from Mesh_c | plain | c",
			"fd00::/122 via 2001:db8::b dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from Mesh_b6 | six | b",
		},
	}, {
		name: "an elevated route, and what exceeds every metric",
		learned: []bgp.Learned{learned(path("10.1.0.7/32", "Mesh_b", "192.0.2.10", bgp.MaxPref-512)), learned(path("10.1.0.8/32", "Mesh_b", "192.0.2.10", bgp.MaxPref)),
			learned(path("10.1.0.9/32", "Mesh_b", "192.0.2.10", bgp.MaxPref+7))},
		want: []string{
			"10.1.0.7/32 via 192.0.2.10 dev tunl0 onlink metric 512 mtu 1480 | tunnel | BGP path from Mesh_b | always | b",
			"10.1.0.8/32 via 192.0.2.10 dev tunl0 onlink metric 1 mtu 1480 | tunnel | BGP path from Mesh_b | always | b",
			"10.1.0.9/32 via 192.0.2.10 dev tunl0 onlink metric 1 mtu 1480 | tunnel | BGP path from Mesh_b | always | b",
		},
	}, {
		name: "next hops that are refused",
		learned: []bgp.Learned{
			learned(path("10.1.1.0/26", "P", "10.3.0.5", ordinary)), learned(path("10.3.1.0/26", "P", "192.0.2.9", ordinary)),
			learned(path("10.3.2.0/26", "P", "203.0.113.1", ordinary)), learned(path("fd00::/122", "P", "192.0.2.10", ordinary)),
			learned(bgp.Path{Prefix: p("10.3.4.0/26"), Peer: "P", LocalPref: ordinary}), learned(path("10.3.5.0/26", "P", "::ffff:192.0.2.10", ordinary)),
		},
		want: []string{
			"10.1.1.0/26 metric 1024 UNROUTABLE next hop 10.3.0.5 lies inside IPPool plain: refused, the overlay cannot be reached through itself | BGP path without a usable next hop | BGP path from P | always | ",
			"10.3.1.0/26 metric 1024 UNROUTABLE next hop 192.0.2.9 is an address of this node: refused | BGP path without a usable next hop | BGP path from P | plain | a",
			"10.3.2.0/26 metric 1024 UNROUTABLE next hop 203.0.113.1: no route of the host leads there; routes learned by BGP are not asked, they could lead in a circle | BGP path without a usable next hop | BGP path from P | plain | ",
			"10.3.4.0/26 metric 1024 UNROUTABLE the path has no next hop: refused | BGP path without a usable next hop | BGP path from P | plain | ",
			"10.3.5.0/26 metric 1024 UNROUTABLE next hop ::ffff:192.0.2.10 is of another address family than 10.3.5.0/26: refused | BGP path without a usable next hop | BGP path from P | plain | ",
			"fd00::/122 metric 1024 UNROUTABLE next hop 192.0.2.10 is of another address family than fd00::/122: refused | BGP path without a usable next hop | BGP path from P | six | ",
		},
	}, {
		name: "next hops to which a route of the host leads that is of no use",
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "P", "198.18.1.1", ordinary)),
			learned(path("10.3.3.0/26", "P", "198.18.3.1", ordinary))},
		want: []string{
			"10.3.1.0/26 metric 1024 UNROUTABLE next hop 198.18.1.1: the host's route there, 198.18.1.0/24, is of type blackhole | BGP path without a usable next hop | BGP path from P | plain | ",
			"10.3.3.0/26 metric 1024 UNROUTABLE next hop 198.18.3.1: the host's route there, 198.18.3.0/24, uses interface eth9, which is down | BGP path without a usable next hop | BGP path from P | plain | ",
		},
	}, {
		name: "a next hop that the host reaches by equal paths takes all of them, with their weights where there is no other next hop",
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "P", "198.51.100.200", ordinary)), learned(path("10.3.2.0/26", "P", "198.51.100.200", ordinary), path("10.3.2.0/26", "Q", "198.51.100.201", ordinary)),
			learned(path("10.3.3.0/26", "P", "198.51.100.200", ordinary), path("10.3.3.0/26", "Q", "192.0.2.10", ordinary))},
		want: []string{
			"10.3.1.0/26 via 192.0.2.1 dev eth0 weight 3 via 192.0.2.2 dev eth0 weight 1 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | ",
			"10.3.2.0/26 via 192.0.2.1 dev eth0 weight 3 via 192.0.2.2 dev eth0 weight 1 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P, Q | plain | ",
			"10.3.3.0/26 via 192.0.2.1 dev eth0 via 192.0.2.2 dev eth0 via 192.0.2.10 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P, Q | plain | b",
		},
	}, {
		name:    "multipath with different tunnels: one path through tunl0, one direct",
		learned: []bgp.Learned{learned(path("10.2.1.0/26", "Mesh_c", "198.51.100.7", ordinary), path("10.2.1.0/26", "Mesh_b", "192.0.2.10", ordinary))},
		want: []string{"10.2.1.0/26 via 192.0.2.10 dev eth0 via 198.51.100.7 dev tunl0 onlink metric 1024 mtu 1480" +
			" | tunnel; same | BGP path from Mesh_c, Mesh_b | cross | c, b"},
	}, {
		name:    "a link-local next hop is on the link of the peer that names it",
		learned: []bgp.Learned{learned(from("fd00::/122", "2001:db8::b", "fe80::1")), learned(from("fd00::40/122", "2001:dba::b", "fe80::1")), learned(from("fd00::80/122", "2001:db8::b", "fe80::1"), from("fd00::80/122", "2001:db8::c", "fe80::2"))},
		want: []string{
			"fd00::/122 via fe80::1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from 2001:db8::b | six | ",
			"fd00::40/122 metric 1024 UNROUTABLE next hop fe80::1 is a link-local address, and BGP peer 2001:dba::b, whose link it would be on, is not on a link of this node: refused" +
				" | BGP path without a usable next hop | BGP path from 2001:dba::b | six | ",
			"fd00::80/122 via fe80::1 dev eth0 via fe80::2 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from 2001:db8::b, 2001:db8::c | six | ",
		},
	}, {
		name: "the host reaches a next hop by a gateway of the other family (RFC 8950)",
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "P", "198.18.2.1", ordinary)), learned(path("10.3.2.0/26", "P", "198.18.2.1", ordinary), path("10.3.2.0/26", "Q", "192.0.2.10", ordinary)),
			learned(path("10.3.3.0/26", "P", "198.18.4.1", ordinary)), learned(path("10.1.1.0/26", "P", "198.18.2.1", ordinary))},
		want: []string{
			"10.1.1.0/26 via 198.18.2.1 dev tunl0 onlink metric 1024 mtu 1480 | tunnel | BGP path from P | always | ",
			"10.3.1.0/26 via fe80::1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | ",
			"10.3.2.0/26 via 192.0.2.10 dev eth0 via fe80::1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P, Q | plain | b",
			"10.3.3.0/26 via fe80::1 dev eth0 onlink weight 3 via fe80::2 dev eth0 onlink weight 1 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | ",
		},
	}, {
		name: "next hops of the other family (RFC 8950)",
		learned: []bgp.Learned{
			learned(path("10.3.1.0/26", "P", "2001:db8::b", ordinary)), learned(path("10.3.2.0/26", "P", "2001:dba::b", ordinary)), learned(path("10.3.3.0/26", "P", "2001:dbb::b", ordinary)),
			learned(from("10.3.4.0/26", "192.0.2.10", "fe80::b")), learned(from("10.3.5.0/26", "198.51.100.7", "fe80::b")), learned(from("10.3.6.0/26", "198.18.2.1", "fe80::1")),
			learned(path("10.1.1.0/26", "P", "2001:db8::b", ordinary)), learned(path("10.3.7.0/26", "P", "fd00::7", ordinary)), learned(path("10.3.8.0/26", "P", "2001:db8::9", ordinary)),
			learned(path("10.3.9.0/26", "P", "2001:db8::b", ordinary), path("10.3.9.0/26", "Q", "192.0.2.10", ordinary)),
		},
		want: []string{
			"10.1.1.0/26 metric 1024 UNROUTABLE IPIP carries IPv4 only | BGP path without a usable next hop | BGP path from P | always | b",
			"10.3.1.0/26 via 2001:db8::b dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | b",
			"10.3.2.0/26 via 2001:db8::1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P | plain | ",
			"10.3.3.0/26 metric 1024 UNROUTABLE next hop 2001:dbb::b: no route of the host leads there; routes learned by BGP are not asked, they could lead in a circle | BGP path without a usable next hop | BGP path from P | plain | ",
			"10.3.4.0/26 via fe80::b dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from 192.0.2.10 | plain | ",
			"10.3.5.0/26 metric 1024 UNROUTABLE next hop fe80::b is a link-local address, and BGP peer 198.51.100.7, whose link it would be on, is not on a link of this node: refused" +
				" | BGP path without a usable next hop | BGP path from 198.51.100.7 | plain | ",
			"10.3.6.0/26 via fe80::1 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from 198.18.2.1 | plain | ",
			"10.3.7.0/26 metric 1024 UNROUTABLE next hop fd00::7 lies inside IPPool six: refused, the overlay cannot be reached through itself | BGP path without a usable next hop | BGP path from P | plain | ",
			"10.3.8.0/26 metric 1024 UNROUTABLE next hop 2001:db8::9 is an address of this node: refused | BGP path without a usable next hop | BGP path from P | plain | a",
			"10.3.9.0/26 via 192.0.2.10 dev eth0 via 2001:db8::b dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P, Q | plain | b",
		},
	}, {
		name:    "one bad next hop of two costs only itself",
		learned: []bgp.Learned{learned(path("10.3.1.0/26", "P", "203.0.113.1", ordinary), path("10.3.1.0/26", "Q", "192.0.2.10", ordinary))},
		want:    []string{"10.3.1.0/26 via 192.0.2.10 dev eth0 metric 1024 | " + bgp.RuleNoEncap + " | BGP path from P, Q | plain | b"},
	}, {
		name:       "VXLAN prefixes are the VXLAN owner's",
		blocks:     []*cluster.Block{{CIDR: p("10.4.1.0/26"), Node: "b"}, {CIDR: p("10.4.2.0/26"), Node: "b"}},
		learned:    []bgp.Learned{learned(path("10.4.1.0/26", "Mesh_b", "192.0.2.10", ordinary))},
		affinities: []*cluster.Affinity{{Node: "a", CIDR: p("10.4.0.0/26"), State: cluster.Confirmed}},
	}, {
		name:       "own blocks: blackholes, and never somebody else's route",
		affinities: []*cluster.Affinity{{Node: "a", CIDR: p("10.1.0.0/26"), State: cluster.Confirmed}, {Node: "a", CIDR: p("10.3.0.0/26")}, {Node: "a", CIDR: p("10.3.0.64/32")}, {Node: "a", CIDR: p("10.3.0.128/26"), State: cluster.Pending}},
		learned: []bgp.Learned{learned(path("10.1.0.0/26", "Mesh_b", "192.0.2.10", ordinary)), learned(path("10.3.0.64/32", "Mesh_b", "192.0.2.10", ordinary)),
			learned(path("10.1.9.9/32", "Mesh_b", "192.0.2.10", ordinary))},
		workloads: []string{"10.1.9.9/32"},
		want: []string{
			"blackhole 10.1.0.0/26 metric 1024 | " + bgp.RuleOwnBlock + " | BlockAffinity a-10-1-0-0-26 | always | a",
			"blackhole 10.3.0.0/26 metric 1024 | " + bgp.RuleOwnBlock + " | BlockAffinity a-10-3-0-0-26 | plain | a",
		},
	}, {
		name: "blocks that nobody announces are listed",
		blocks: []*cluster.Block{{CIDR: p("10.1.1.0/26"), Node: "b"}, {CIDR: p("10.3.1.0/26"), Node: "gone"}, {CIDR: p("10.3.2.0/26"), Node: "six"},
			{CIDR: p("10.5.1.0/26"), Node: "b"}, {CIDR: p("10.99.0.0/26"), Node: "b"}, {CIDR: p("10.1.2.0/26")}, {CIDR: p("10.1.3.0/26"), Virtual: "load-balancer"}, {CIDR: p("10.1.0.0/26"), Node: "a"}},
		want: []string{
			"10.1.1.0/26 metric 1024 UNROUTABLE no BGP path: no established session brings the block from node b (192.0.2.10) | " + bgp.RuleNoPath + " | IPAMBlock of 10.1.1.0/26 | always | b",
			"10.3.1.0/26 metric 1024 UNROUTABLE no BGP path: node gone, which holds the block, is not in the datastore | " + bgp.RuleNoPath + " | IPAMBlock of 10.3.1.0/26 | plain | gone",
			"10.3.2.0/26 metric 1024 UNROUTABLE no BGP path: node six has no IPv4 address to peer with | " + bgp.RuleNoPath + " | IPAMBlock of 10.3.2.0/26 | plain | six",
			"10.5.1.0/26 metric 1024 UNROUTABLE no BGP path: IPPool home has disableBGPExport, so node b keeps the block to itself | " + bgp.RuleNoPath + " | IPAMBlock of 10.5.1.0/26 | home | b",
		},
	}} {
		t.Run(tc.name, func(t *testing.T) {
			o := testObjects()
			o.Blocks, o.Affinities, o.BGP = tc.blocks, tc.affinities, tc.bgp
			r := bgp.NewRoutes("a", tunnel)
			r.Reach(tc.reach)
			r.Learned(tc.learned)
			ch := r.Plan(cluster.Build(o), testHost(tc.workloads...))
			if !ch.Whole || len(ch.Withdraw) != 0 {
				t.Errorf("the first change: whole %v, withdraw %v", ch.Whole, ch.Withdraw)
			}
			var got []string
			for _, route := range ch.Routes {
				got = append(got, show(route))
			}
			if d := cmp.Diff(tc.want, got, values); d != "" {
				t.Error(d)
			}
		})
	}
}

// hostWith is a host with a link and these routes.
func hostWith(list ...routes.HostRoute) *routes.Host {
	eth := netip.MustParsePrefix("192.0.2.9/24")
	return routes.NewHost([]routes.Interface{{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{eth}}, {Name: "eth9", Index: 9}}, nil,
		append(list, routes.HostRoute{Dst: eth.Masked(), Hops: []routes.NextHop{{Device: "eth0"}}}))
}

// TestRoutesFollowTheHost: what the host does with its own route to a next hop is one step that names the route as it is to be and
// withdraws nothing, so that the programmer replaces it in place: no gap. What changes nothing for us is no step at all: no flap.
func TestRoutesFollowTheHost(t *testing.T) {
	to := netip.MustParsePrefix("198.51.100.0/24")
	via := func(metric uint32, gateways ...string) routes.HostRoute {
		r := routes.HostRoute{Dst: to, Metric: metric}
		for _, g := range gateways {
			gw, dev, _ := strings.Cut(g, " ")
			r.Hops = append(r.Hops, routes.NextHop{Gateway: netip.MustParseAddr(gw), Device: dev})
		}
		return r
	}
	byDefault := routes.HostRoute{Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("192.0.2.254"), Device: "eth0"}}, Dst: netip.MustParsePrefix("0.0.0.0/0"), Metric: 100}
	r := bgp.NewRoutes("a", tunnel)
	st := cluster.Build(testObjects())
	r.Learned([]bgp.Learned{learned(path("10.3.1.0/26", "P", "198.51.100.7", ordinary))})
	for i, step := range []struct {
		host *routes.Host
		want string // "" for no step
	}{
		{hostWith(), "10.3.1.0/26 metric 1024 UNROUTABLE next hop 198.51.100.7: no route of the host leads there; routes learned by BGP are not asked, they could lead in a circle"},
		{hostWith(via(0, "192.0.2.1 eth0")), "10.3.1.0/26 via 192.0.2.1 dev eth0 metric 1024"},
		{hostWith(via(0, "192.0.2.1 eth0"), byDefault), ""},
		{hostWith(via(0, "192.0.2.1 eth0"), via(50, "192.0.2.2 eth0"), byDefault), ""},
		{hostWith(via(50, "192.0.2.2 eth0"), byDefault), "10.3.1.0/26 via 192.0.2.2 dev eth0 metric 1024"},
		{hostWith(via(50, "192.0.2.2 eth0", "192.0.2.3 eth0"), byDefault), "10.3.1.0/26 via 192.0.2.2 dev eth0 via 192.0.2.3 dev eth0 metric 1024"},
		{hostWith(via(50, "192.0.2.2 eth0", "203.0.113.3 eth9"), byDefault), "10.3.1.0/26 via 192.0.2.2 dev eth0 metric 1024"},
		{hostWith(via(50, "192.0.2.2 eth1"), byDefault), "10.3.1.0/26 via 192.0.2.2 dev eth1 metric 1024"},
		{hostWith(byDefault), "10.3.1.0/26 via 192.0.2.254 dev eth0 metric 1024"},
		{hostWith(byDefault, routes.HostRoute{Dst: to, Type: routes.Blackhole}), "10.3.1.0/26 metric 1024 UNROUTABLE next hop 198.51.100.7: the host's route there, 198.51.100.0/24, is of type blackhole"},
		{hostWith(via(0, "192.0.2.1 eth9")), "10.3.1.0/26 metric 1024 UNROUTABLE next hop 198.51.100.7: the host's route there, 198.51.100.0/24, uses interface eth9, which is down"},
		{hostWith(byDefault), "10.3.1.0/26 via 192.0.2.254 dev eth0 metric 1024"},
	} {
		ch := r.Plan(st, step.host)
		var got []string
		for _, route := range ch.Routes {
			line, _, _ := strings.Cut(show(route), " |")
			got = append(got, line)
		}
		if strings.Join(got, "; ") != step.want || len(ch.Withdraw) != 0 {
			t.Errorf("step %d: got %q and withdrawn %v, want %q", i, got, ch.Withdraw, step.want)
		}
	}
}

// TestRoutesShare: routes over one next hop share what can be shared.
func TestRoutesShare(t *testing.T) {
	r := bgp.NewRoutes("a", tunnel)
	r.Learned([]bgp.Learned{learned(path("10.1.1.0/26", "Mesh_b", "192.0.2.10", ordinary)), learned(path("10.1.2.0/26", "Mesh_b", "192.0.2.10", ordinary))})
	ch := r.Plan(cluster.Build(testObjects()), testHost())
	if len(ch.Routes) != 2 || ch.Routes[0].Reason != ch.Routes[1].Reason || &ch.Routes[0].NextHops[0] != &ch.Routes[1].NextHops[0] {
		t.Errorf("not shared: %v", ch.Routes)
	}
}

// TestRoutesReplansOnlyWhatMust counts what a small change costs.
func TestRoutesReplansOnlyWhatMust(t *testing.T) {
	b := cluster.NewBuilder()
	o := testObjects()
	for _, n := range o.Nodes {
		b.SetNode(n)
	}
	for _, p := range o.Pools {
		b.SetPool(p)
	}
	r := bgp.NewRoutes("a", tunnel)
	for i := range 200 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 26)
		b.SetBlock(&cluster.Block{CIDR: p, Node: "b"})
		r.Learned([]bgp.Learned{learned(path(p.String(), "Mesh_b", "192.0.2.10", ordinary))})
	}
	h := testHost()
	if ch := r.Plan(b.State(), h); len(ch.Routes) != 200 {
		t.Fatalf("%d routes", len(ch.Routes))
	}
	step := func(what string, added, withdrawn int) {
		t.Helper()
		if ch := r.Plan(b.State(), h); ch.Whole || len(ch.Routes) != added || len(ch.Withdraw) != withdrawn || ch.Links != nil {
			t.Errorf("%s: whole %v, %d added, %d withdrawn; want %d and %d", what, ch.Whole, len(ch.Routes), len(ch.Withdraw), added, withdrawn)
		}
	}
	step("nothing changed", 0, 0)
	h = testHost("10.3.0.1/32")
	step("a workload came", 0, 0)
	b.SetNode(&cluster.Node{Name: "b", Addr4: netip.MustParsePrefix("192.0.2.10/24"), Labels: map[string]string{"x": "y"}})
	step("a node's label changed", 0, 0)
	r.Learned([]bgp.Learned{{Prefix: netip.MustParsePrefix("10.1.7.0/26")}})
	step("a path went: its block is listed as unroutable", 1, 0)
	r.Learned([]bgp.Learned{learned(path("10.1.7.0/26", "Mesh_b", "192.0.2.10", 100))})
	step("it came back under another metric", 1, 1)
	b.DeleteBlock(netip.MustParsePrefix("10.1.7.0/26"))
	step("a block with a path went", 0, 0)
	b.SetFelix(cluster.FelixConfig{IPIPMTU: 10, VXLANPort: 4789, VXLANVNI: 4096})
	step("the MTU changed", 200, 0)
	b.SetPool(&cluster.Pool{Name: "always", CIDR: netip.MustParsePrefix("10.1.0.0/16"), IPIPMode: cluster.CrossSubnet})
	step("Always became CrossSubnet", 200, 0)
	r.Forget()
	step("the Speaker stopped", 199, 1)
	r.Reset()
	if ch := r.Plan(b.State(), h); !ch.Whole || len(ch.Routes) != 199 {
		t.Errorf("after Reset: whole %v, %d routes", ch.Whole, len(ch.Routes))
	}
}

// world is a random cluster, host and set of learned paths.
type world struct {
	*rand.Rand
	b       *cluster.Builder
	learned map[netip.Prefix]bgp.Learned
	host    *routes.Host
	reach   []bgp.Reach
}

func (w *world) prefix() netip.Prefix {
	bits := []int{26, 26, 26, 32}[w.IntN(4)]
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + w.IntN(6)), 0, byte(64 * w.IntN(3))}), bits)
}

var nextHops = []string{"198.51.100.200", "198.18.1.1", "192.0.2.10", "192.0.2.12", "198.51.100.7", "203.0.113.1", "10.3.0.5", "192.0.2.9", "198.18.2.1"}

// change does one random thing and returns what was learned by it.
func (w *world) change() (ls []bgp.Learned) {
	p := w.prefix()
	name := []string{"a", "b", "c"}[w.IntN(3)]
	switch w.IntN(11) {
	case 8:
		w.reach = nil
		for i := range w.IntN(3) {
			w.reach = append(w.reach, bgp.Reach{Peer: netip.MustParseAddr(nextHops[i]), Gateway: netip.MustParseAddr(nextHops[w.IntN(len(nextHops))]), Source: "BGPPeer x"})
		}
	case 9:
		c := cluster.DefaultBGP()
		if w.IntN(2) == 0 {
			c.IgnoredInterfaces = []string{"eth*"}
		}
		if w.IntN(2) == 0 {
			c.ServiceClusterIPs = []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}
		}
		if w.IntN(2) == 0 {
			c.NormalPriority4 = 500
		}
		w.b.SetBGP(c)
	case 0, 1, 2:
		l := bgp.Learned{Prefix: p}
		for i := range w.IntN(3) {
			l.Paths = append(l.Paths, path(p.String(), fmt.Sprint("P", i), nextHops[w.IntN(len(nextHops))], []uint32{ordinary, 100, bgp.MaxPref - 512}[w.IntN(3)]))
		}
		w.learned[p] = l
		ls = append(ls, l)
	case 3:
		w.b.SetBlock(&cluster.Block{CIDR: p, Node: name})
	case 4:
		w.b.DeleteBlock(p)
	case 5:
		if w.IntN(2) == 0 {
			w.b.SetAffinity(&cluster.Affinity{Node: name, CIDR: p, State: []cluster.AffinityState{"", cluster.Confirmed, cluster.Pending}[w.IntN(3)]})
		} else {
			w.b.DeleteAffinity(name, p)
		}
	case 6:
		pools := testObjects().Pools
		q := *pools[w.IntN(len(pools))]
		if q.CIDR.Addr().Is4() {
			q.IPIPMode, q.VXLANMode = [...]cluster.Mode{cluster.Never, cluster.Always, cluster.CrossSubnet}[w.IntN(3)], cluster.Never
			q.DisableBGPExport = w.IntN(4) == 0
		}
		if w.IntN(4) == 0 {
			w.b.DeletePool(q.Name)
		} else {
			w.b.SetPool(&q)
		}
	case 7:
		switch w.IntN(4) {
		case 0:
			w.host = routes.NewHost(nil, nil, nil)
		case 1:
			w.host = testHost(netip.PrefixFrom(p.Addr(), 32).String())
		case 2:
			w.host = hostWith(routes.HostRoute{Dst: netip.MustParsePrefix("198.51.100.0/24"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("192.0.2.2"), Device: "eth0"}}})
		default:
			w.host = testHost()
		}
	default:
		if name != "a" && w.IntN(3) == 0 {
			w.b.DeleteNode(name)
		} else {
			w.b.SetNode(node(name, []string{"192.0.2.9/24", "192.0.2.10/24", "192.0.2.12/24", "198.51.100.7/24", "192.0.2.9/30"}[w.IntN(5)], ""))
		}
	}
	return ls
}

// nowhere checks that the Speaker is told of exactly those next hops that Routes refuses, and returns how many paths have one.
func (w *world) nowhere(t *testing.T, st *cluster.State, r *bgp.Routes) (refused int) {
	t.Helper()
	if len(w.reach) > 0 {
		return 0 // Plan finds these by BGPPeers
	}
	cfg, _ := bgp.Plan(st, "a", w.host)
	for p, l := range w.learned {
		pool := st.PoolFor(p)
		if pool != nil {
			if _, mode := pool.Encapsulation(); mode == cluster.CrossSubnet {
				continue // asks for a route where it is direct, but has another way without
			}
		}
		for i := range l.Paths {
			why, want := cfg.Nowhere.Why(p, l.Paths[i].NextHop), bgp.Refused(r, p, &l.Paths[i])
			if (why == "") != (want == "") {
				t.Fatalf("%s via %s: the Speaker is told %q, Routes says %q", p, l.Paths[i].NextHop, why, want)
			}
			if why != "" {
				refused++
			}
		}
	}
	return refused
}

// TestRoutesStepByStep: many small steps add up to what one look at the end says. Every step is checked.
func TestRoutesStepByStep(t *testing.T) {
	programmed, refused := 0, 0
	for seed := range uint64(60) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 7)), b: cluster.NewBuilder(), learned: make(map[netip.Prefix]bgp.Learned), host: testHost()}
		w.b.SetNode(node("a", "192.0.2.9/24", ""))
		r := bgp.NewRoutes("a", tunnel)
		have := make(map[routes.Key]string)
		for step := range 120 {
			for range 1 + w.IntN(3) {
				r.Learned(w.change())
			}
			st := w.b.State()
			r.Reach(w.reach)
			ch := r.Plan(st, w.host)
			if ch.Whole != (step == 0) {
				t.Fatalf("seed %d step %d: whole %v", seed, step, ch.Whole)
			}
			for _, k := range ch.Withdraw {
				if _, ok := have[k]; !ok {
					t.Fatalf("seed %d step %d: withdrew %v, which was not there", seed, step, k)
				}
				delete(have, k)
			}
			for _, route := range ch.Routes {
				if s := show(route); have[route.Key()] == s {
					t.Fatalf("seed %d step %d: said again: %s", seed, step, s)
				} else {
					have[route.Key()] = s
				}
			}
			fresh := bgp.NewRoutes("a", tunnel)
			for _, l := range w.learned {
				fresh.Learned([]bgp.Learned{l})
			}
			fresh.Reach(w.reach)
			want := make(map[routes.Key]string)
			for _, route := range fresh.Plan(st, w.host).Routes {
				want[route.Key()] = show(route)
			}
			if d := cmp.Diff(want, have, values); d != "" {
				t.Fatalf("seed %d step %d: %s", seed, step, d)
			}
			refused += w.nowhere(t, st, fresh)
			programmed += len(have)
		}
	}
	if programmed < 10000 || refused < 1000 {
		t.Errorf("only %d routes in all, %d paths that lead nowhere: the test tests nothing", programmed, refused)
	}
}

// TestRoutesForgetsGoneNextHops: what is shared does not grow with history.
func TestRoutesForgetsGoneNextHops(t *testing.T) {
	r := bgp.NewRoutes("a", tunnel)
	st, h := cluster.Build(testObjects()), testHost()
	r.Plan(st, h)
	for i := range 5000 {
		r.Learned([]bgp.Learned{learned(path("10.1.1.0/26", fmt.Sprint("P", i), "192.0.2.10", ordinary))})
		if ch := r.Plan(st, h); len(ch.Routes) != 1 {
			t.Fatalf("step %d: %v", i, ch)
		}
	}
	if n := bgp.Shared(r); n > 2000 {
		t.Errorf("%d entries kept", n)
	}
}

func BenchmarkRoutes(b *testing.B) {
	const nodes, each = 5000, 4
	build := cluster.NewBuilder()
	build.SetNode(node("a", "192.0.2.9/24", ""))
	build.SetPool(&cluster.Pool{Name: "always", CIDR: netip.MustParsePrefix("10.0.0.0/8"), IPIPMode: cluster.Always})
	var ls []bgp.Learned
	for i := range nodes {
		addr := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		build.SetNode(&cluster.Node{Name: fmt.Sprint("n", i), Addr4: netip.PrefixFrom(addr, 16)})
		for j := range each {
			k := i*each + j
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k >> 10), byte(k >> 2), byte(k << 6)}), 26)
			build.SetBlock(&cluster.Block{CIDR: p, Node: fmt.Sprint("n", i)})
			ls = append(ls, learned(bgp.Path{Prefix: p, Peer: "Mesh_" + addr.String(), NextHop: addr, LocalPref: ordinary}))
		}
	}
	st, h := build.State(), testHost()
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := bgp.NewRoutes("a", tunnel)
			r.Learned(ls)
			if ch := r.Plan(st, h); len(ch.Routes) != nodes*each {
				b.Fatal(len(ch.Routes))
			}
		}
	})
	r := bgp.NewRoutes("a", tunnel)
	r.Learned(ls)
	r.Plan(st, h)
	b.Run("one-path", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			l := ls[i%len(ls)]
			l.Paths = slices.Clone(l.Paths)
			l.Paths[0].LocalPref = ordinary - uint32(1+i/len(ls)%2)
			r.Learned([]bgp.Learned{l})
			r.Plan(st, h)
		}
	})
	b.Run("new-host", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ch := r.Plan(st, testHost()); len(ch.Routes) != 0 {
				b.Fatal(len(ch.Routes))
			}
		}
	})
}
