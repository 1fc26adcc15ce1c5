package gobgp_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/caracal-net/caracal/bgp"
)

// TestFormerBestIsWithdrawn: a path that rules let through is followed as the best one by ours, which they refuse. The eBGP peer is to lose the prefix. GoBGP decides
// whether it must tell by asking the rules about the former path as if it had the next hop of the new one and not yet our AS before its own.
func TestFormerBestIsWithdrawn(t *testing.T) {
	for _, c := range []struct {
		name, net string
		rule      bgp.FilterRule
		path      []uint32
		goes      bool // the path is withdrawn, otherwise its next hop comes to lead nowhere
	}{
		{"AS path, withdrawn", "127.1.75.", bgp.FilterRule{Accept: true, ASPathPrefix: []uint32{65546}}, []uint32{65546}, true},
		{"AS path, leads nowhere", "127.1.76.", bgp.FilterRule{Accept: true, ASPathPrefix: []uint32{65546}}, []uint32{65546}, false},
		{"interface, withdrawn", "127.1.78.", bgp.FilterRule{Accept: true, Interface: "eth1"}, nil, true},
		{"interface, leads nowhere", "127.1.77.", bgp.FilterRule{Accept: true, Interface: "eth1"}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			parallel(t)
			port := testPort()
			us, tor := config(c.net+"1", port), config(c.net+"2", port)
			tor.ASN = 65000
			self, prefix := us.ListenAddrs[0], netip.MustParsePrefix("10.9.0.7/32")
			src := startSource(t, c.net+"3", 64512, port, self, 64512)
			us.Peers = []bgp.Peer{
				{Name: "tor", Addr: tor.ListenAddrs[0], Port: port, ASN: 65000, LocalAddr: self, Export: []bgp.Rule{
					{Source: "rule", FilterRule: c.rule}, {Source: "the rest"},
				}},
				{Name: "src", Addr: src.addr, Port: port, ASN: 64512, LocalAddr: self},
			}
			tor.Peers = []bgp.Peer{{Name: "near", Addr: self, Port: port, ASN: 64512, LocalAddr: tor.ListenAddrs[0], Passive: true}}
			us.Originate = []bgp.Origination{{Prefix: prefix, LocalPref: 100, Interface: "cali7"}}
			us.Ways = []bgp.Way{{Prefix: netip.MustParsePrefix("198.18.0.0/24"), Device: "eth1"}}
			nodes := startAll(t, us, tor)
			n, far := nodes[0], nodes[1]
			src.send(t, []bgp.Route{{Prefix: prefix, NextHop: netip.MustParseAddr("198.18.0.7"), LocalPref: bgp.MaxPref, ASPath: c.path}})
			far.knows(t, "10.9.0.7/32 near via "+c.net+"1")
			eventually(t, "all to be told again", func() string { // which would mend it
				return map[bool]string{true: "is to come"}[time.Since(n.status(c.net+"2").Since) < 3*time.Second/2 || time.Since(n.status(c.net+"3").Since) < 3*time.Second/2]
			})
			if c.goes {
				must(t, src.srv.StopBgp(t.Context(), &api.StopBgpRequest{}))
			} else {
				n.cfg.Nowhere = &bgp.Nowhere{Unresolved: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}}
				n.apply(t)
			}
			n.knows(t)
			far.knows(t)
		})
	}
}
