package gobgp_test

import (
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/api"

	"github.com/caracal-net/caracal/bgp"
)

// TestLearnedAndOurs: a prefix that we originate and learn as well. What rules say of the one is not said of the other, and what is announced because it is
// elevated stays so when the learned one goes.
func TestLearnedAndOurs(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	port := testPort()
	us, client := config("127.1.74.1", port), config("127.1.74.2", port)
	self := us.ListenAddrs[0]
	prefix := netip.MustParsePrefix("10.9.0.7/32")
	src := startSource(t, "127.1.74.3", 64512, port, self, 64512)
	us.Peers = []bgp.Peer{
		{Name: "client", Addr: client.ListenAddrs[0], Port: port, ASN: 64512, LocalAddr: self, Client: true, ClusterID: us.RouterID},
		{Name: "src", Addr: src.addr, Port: port, ASN: 64512, LocalAddr: self},
	}
	client.Peers = []bgp.Peer{{Name: "near", Addr: self, Port: port, ASN: 64512, LocalAddr: client.ListenAddrs[0], Passive: true}}
	us.Announce = &bgp.Announce{Own: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/26")}, Normal4: 1024, Normal6: 1024}
	us.Originate = []bgp.Origination{{Prefix: prefix, LocalPref: bgp.MaxPref - 512, Interface: "cali7"}}
	us.Ways = []bgp.Way{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0"}}
	nodes := startAll(t, us, client)
	n, far := nodes[0], nodes[1]
	const ours, learned = "10.9.0.7/32 near via 127.1.74.1", "10.9.0.7/32 near via 198.18.0.7"
	far.knows(t, ours)
	src.send(t, []bgp.Route{{Prefix: prefix, NextHop: netip.MustParseAddr("198.18.0.7"), LocalPref: bgp.MaxPref - 7}})
	n.knows(t, "10.9.0.7/32 src via 198.18.0.7")
	far.knows(t, learned)
	n.cfg.Peers[0].Export = []bgp.Rule{{Source: "rule", FilterRule: bgp.FilterRule{Interface: "cali*"}}}
	n.apply(t)
	n.cfg.Originate = append(n.cfg.Originate, bgp.Origination{Prefix: netip.MustParsePrefix("10.9.0.0/26"), LocalPref: bgp.MaxPref - 1024})
	n.apply(t)
	const block = "10.9.0.0/26 near via 127.1.74.1" // comes behind what the rule does
	far.knows(t, block, learned)                    // the rule is about ours
	n.cfg.Nowhere = &bgp.Nowhere{Unresolved: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}}
	n.apply(t)
	n.knows(t)
	far.knows(t, block) // ours is the best one now, and the rule refuses it
	n.cfg.Peers[0].Export = nil
	n.apply(t)
	far.knows(t, block, ours)
	n.cfg.Nowhere = nil
	n.apply(t)
	n.knows(t, "10.9.0.7/32 src via 198.18.0.7")
	far.knows(t, block, learned)
	must(t, src.srv.StopBgp(t.Context(), &api.StopBgpRequest{}))
	n.knows(t)
	far.knows(t, block, ours) // and not only the block
	n.cfg.Originate = append(n.cfg.Originate, bgp.Origination{Prefix: netip.MustParsePrefix("10.9.0.8/32"), LocalPref: bgp.MaxPref - 512})
	n.apply(t)
	far.knows(t, block, ours, "10.9.0.8/32 near via 127.1.74.1")
}
