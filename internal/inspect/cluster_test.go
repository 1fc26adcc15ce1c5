package inspect

import (
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// The cluster of the tests, seen from node-a: node-b shares its subnet, node-c and node-d are behind a router; node-d has
// just joined and has no tunnel address yet. Pools: one of each kind, and a VXLAN one of IPv6.
func testBuilder() *cluster.Builder {
	b := cluster.NewBuilder()
	b.SetNode(&cluster.Node{Name: "node-a", Addr4: pfx("192.0.2.5/24"), Addr6: pfx("2001:db8:1::5/64"),
		IPIPAddr: addr("10.20.0.1"), VXLANAddr4: addr("10.10.0.1"), VXLANAddr6: addr("fd00:10::1")})
	b.SetNode(&cluster.Node{Name: "node-b", Addr4: pfx("192.0.2.6/24"), Addr6: pfx("2001:db8:1::6/64"),
		IPIPAddr: addr("10.20.1.1"), VXLANAddr4: addr("10.10.1.1"), VXLANAddr6: addr("fd00:10::4001")})
	b.SetNode(&cluster.Node{Name: "node-c", Addr4: pfx("198.51.100.7/24"), Addr6: pfx("2001:db8:2::7/64"),
		IPIPAddr: addr("10.20.2.1"), VXLANAddr4: addr("10.10.2.1"), VXLANAddr6: addr("fd00:10::8001")})
	b.SetNode(&cluster.Node{Name: "node-d", Addr4: pfx("198.51.100.8/24")})
	for _, p := range []*cluster.Pool{
		{Name: "vxlan", CIDR: pfx("10.10.0.0/16"), VXLANMode: cluster.CrossSubnet, BlockSize: 26},
		{Name: "ipip", CIDR: pfx("10.20.0.0/16"), IPIPMode: cluster.CrossSubnet, BlockSize: 26},
		{Name: "plain", CIDR: pfx("10.30.0.0/16"), BlockSize: 26},
		{Name: "vxlan-v6", CIDR: pfx("fd00:10::/64"), VXLANMode: cluster.Always, BlockSize: 122},
	} {
		p.Workload, p.Tunnel = true, true
		b.SetPool(p)
	}
	for i, node := range []string{"node-a", "node-b", "node-c", "node-d"} {
		for _, net := range []byte{10, 20, 30} {
			block := &cluster.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, net, byte(i), 0}), 26), Node: node}
			if net == 10 && i == 1 {
				block.Borrowed = []cluster.Assignment{{Addr: addr("10.10.1.9"), Node: "node-c"}, {Addr: addr("10.10.1.10"), Node: "node-a"}}
			}
			if net == 20 && i == 1 {
				block.Borrowed = []cluster.Assignment{{Addr: addr("10.20.1.9"), Node: "node-c"}}
			}
			b.SetBlock(block)
		}
	}
	b.SetBlock(&cluster.Block{CIDR: pfx("fd00:10::/122"), Node: "node-a"})
	b.SetBlock(&cluster.Block{CIDR: pfx("fd00:10::8000/122"), Node: "node-c"})
	b.SetBlock(&cluster.Block{CIDR: pfx("10.10.8.0/26")})                                                                            // given up while in use
	b.SetBlock(&cluster.Block{CIDR: pfx("10.10.9.0/26"), Node: "node-x"})                                                            // its node is gone
	b.SetBlock(&cluster.Block{CIDR: pfx("10.10.7.0/26"), Virtual: "load-balancer"})                                                  // addresses of services
	b.SetBlock(&cluster.Block{CIDR: pfx("10.10.6.0/26"), Borrowed: []cluster.Assignment{{Addr: addr("10.10.6.3"), Node: "node-c"}}}) // given up, one address left
	return b
}

// testWorld is node-a under backend bird with everything in order but node-d.
func testWorld() *world {
	tunnel := &routes.Reason{Rule: "CrossSubnet: remote node is outside our subnet, tunnel", Source: "IPAMBlock 10-10-2-0-26", Pool: "vxlan", Node: "node-c"}
	direct := &routes.Reason{Rule: "CrossSubnet: remote node is in our subnet, direct", Source: "IPAMBlock 10-10-1-0-26", Pool: "vxlan", Node: "node-b"}
	own := &routes.Reason{Rule: "own block", Source: "IPAMBlock 10-10-0-0-26", Pool: "vxlan", Node: "node-a"}
	v6 := &routes.Reason{Rule: "Always: tunnel", Source: "IPAMBlock fd00-10--8000-122", Pool: "vxlan-v6", Node: "node-c"}
	learned := func(rule, pool, peer, node string) *routes.Reason {
		return &routes.Reason{Rule: rule, Source: "BGP path from " + peer, Pool: pool, Node: node}
	}
	ipipTunnel := learned("CrossSubnet: remote node is outside our subnet, tunnel", "ipip", "Mesh_198_51_100_7", "node-c")
	w := &world{node: "node-a", backend: cluster.BackendBird, state: testBuilder().State(), paths: map[netip.Prefix][]bgp.Candidate{}}
	mtu := func(n uint32) func(*routes.Status) {
		return func(s *routes.Status) { s.Route.MTU = n; s.Kernel = kernelText(s) }
	}
	w.statuses = []routes.Status{
		route(routes.OwnerVXLAN, "10.10.0.0/26", routes.Installed, own),
		route(routes.OwnerVXLAN, "10.10.1.0/26", routes.Installed, direct, via("192.0.2.6", "eth0", true)),
		with(route(routes.OwnerVXLAN, "10.10.1.9/32", routes.Installed, &routes.Reason{Rule: "borrowed address; CrossSubnet: remote node is outside our subnet, tunnel",
			Source: "IPAMBlock 10-10-1-0-26", Pool: "vxlan", Node: "node-c"}, via("10.10.2.1", "vxlan.calico", true)), mtu(1450)),
		with(route(routes.OwnerVXLAN, "10.10.2.0/26", routes.Installed, tunnel, via("10.10.2.1", "vxlan.calico", true)), mtu(1450)),
		with(route(routes.OwnerVXLAN, "10.10.3.0/26", routes.Unroutable, &routes.Reason{Rule: "CrossSubnet: remote node is outside our subnet, tunnel",
			Source: "IPAMBlock 10-10-3-0-26", Pool: "vxlan", Node: "node-d"}), func(s *routes.Status) {
			s.Route.Unroutable, s.Route.Type = "the VTEP of node-d is not known", 0
		}),
		with(route(routes.OwnerVXLAN, "fd00:10::8000/122", routes.Installed, v6, via("fd00:10::8001", "vxlan-v6.calico", true)), mtu(1430)),
		route(routes.OwnerBGP, "10.20.0.0/26", routes.Installed, &routes.Reason{Rule: "own block", Source: "BlockAffinity node-a-10-20-0-0-26", Pool: "ipip", Node: "node-a"}),
		route(routes.OwnerBGP, "10.20.1.0/26", routes.Installed, learned("CrossSubnet: remote node is in our subnet, direct", "ipip", "Mesh_192_0_2_6", "node-b"),
			via("192.0.2.6", "eth0", false)),
		with(route(routes.OwnerBGP, "10.20.2.0/26", routes.Installed, ipipTunnel, via("198.51.100.7", "tunl0", true)), mtu(1480)),
		route(routes.OwnerBGP, "10.30.2.0/26", routes.Installed, learned("no encapsulation: direct", "plain", "Mesh_198_51_100_7", "node-c"),
			via("192.0.2.1", "eth0", false), via("192.0.2.2", "eth0", false)),
		with(route(routes.OwnerBGP, "10.30.3.0/26", routes.Unroutable, &routes.Reason{Rule: "no encapsulation: direct", Source: "IPAMBlock 10-30-3-0-26", Pool: "plain", Node: "node-d"}),
			func(s *routes.Status) {
				s.Route.Unroutable, s.Route.Type = "no BGP path from node-d", 0
			}),
		route(routes.OwnerBGP, "203.0.113.0/24", routes.Installed, learned("outside all pools: direct", "", "Global_192_0_2_1", ""), via("192.0.2.1", "eth0", false)),
	}
	path := func(prefix, peer, peerAddr, hop string) {
		w.paths[pfx(prefix)] = append(w.paths[pfx(prefix)], bgp.Candidate{Path: bgp.Path{Prefix: pfx(prefix), Peer: peer, PeerAddr: addr(peerAddr), NextHop: addr(hop), LocalPref: 2147482623, Best: true}})
	}
	path("10.20.1.0/26", "Mesh_192_0_2_6", "192.0.2.6", "192.0.2.6")
	path("10.20.2.0/26", "Mesh_198_51_100_7", "198.51.100.7", "198.51.100.7")
	path("10.30.2.0/26", "Mesh_198_51_100_7", "198.51.100.7", "192.0.2.2")
	path("10.30.2.0/26", "Global_192_0_2_1", "192.0.2.1", "192.0.2.1")
	path("203.0.113.0/24", "Global_192_0_2_1", "192.0.2.1", "192.0.2.1")
	w.paths[pfx("203.0.113.0/24")][0].ASPath = []uint32{64601, 64999}
	w.paths[pfx("203.0.113.0/24")][0].LocalPref = 100
	w.vteps = testVTEPs()
	w.peers = testPeers()
	w.info = testInfo()
	return w
}

func testVTEPs() []VTEP {
	mac := func(last byte) cluster.MAC { return cluster.MAC{0x66, 1, 2, 3, 4, last} }
	return []VTEP{
		{Node: "node-c", Family: cluster.IPv6, Addr: addr("fd00:10::8001"), MAC: mac(0x3c), Underlay: addr("2001:db8:2::7"), Device: "vxlan-v6.calico"},
		{Node: "node-b", Family: cluster.IPv4, Addr: addr("10.10.1.1"), MAC: mac(0x2b), Underlay: addr("192.0.2.6"), Device: "vxlan.calico"},
		{Node: "node-c", Family: cluster.IPv4, Addr: addr("10.10.2.1"), MAC: mac(0x2c), Underlay: addr("198.51.100.7"), Device: "vxlan.calico"},
		{Node: "node-a", Family: cluster.IPv4, Addr: addr("10.10.0.1"), MAC: mac(0x2a), Underlay: addr("192.0.2.5"), Device: "vxlan.calico", Local: true},
	}
}

func testPeers() []bgp.PeerStatus {
	up := func(name, a, node string, passive bool) bgp.PeerStatus {
		return bgp.PeerStatus{Peer: bgp.Peer{Name: name, Addr: addr(a), Port: 179, ASN: 64512, Node: node, Source: "Node " + node + " (mesh)",
			Passive: passive, RestartTime: 2 * time.Minute}, State: "Established", Since: ago(26 * time.Hour), Received: 3, Advertised: 4, EndOfRIB: true}
	}
	tor := up("Global_192_0_2_1", "192.0.2.1", "", false)
	tor.ASN, tor.Source = 64601, "BGPPeer rack1-tor"
	down := up("Mesh_198_51_100_8", "198.51.100.8", "node-d", false)
	down.State, down.Since, down.EndOfRIB, down.Received, down.Advertised = "Active", ago(4*time.Minute+5*time.Second), false, 0, 0
	down.LastError = "dial: connection refused"
	return []bgp.PeerStatus{up("Mesh_198_51_100_7", "198.51.100.7", "node-c", true), up("Mesh_192_0_2_6", "192.0.2.6", "node-b", true), tor, down}
}

func testInfo() StatusInfo {
	return StatusInfo{
		Version: "v0.1.0", Started: ago(26*time.Hour + 10*time.Minute), Ready: true,
		Sources: []SourceStatus{
			{Name: "datastore", InSync: true, Since: ago(26 * time.Hour)},
			{Name: "bgp", InSync: true, Since: ago(25*time.Hour + 59*time.Minute)},
		},
		Devices: []DeviceStatus{
			{Name: "vxlan.calico", Kind: "vxlan", Owner: routes.OwnerVXLAN, Outcome: routes.Installed, MTU: 1450,
				Addresses: []netip.Prefix{pfx("10.10.0.1/32")}, NeighboursInstalled: 4, NeighboursWanted: 4},
			{Name: "tunl0", Kind: "ipip", Owner: routes.OwnerIPIP, Outcome: routes.Installed, MTU: 1480, Addresses: []netip.Prefix{pfx("10.20.0.1/32")}},
			{Name: "vxlan-v6.calico", Kind: "vxlan", Owner: routes.OwnerVXLAN, Outcome: routes.Installed, MTU: 1430,
				Addresses: []netip.Prefix{pfx("fd00:10::1/128")}, NeighboursInstalled: 2, NeighboursWanted: 2},
		},
	}
}
