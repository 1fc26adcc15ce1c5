package gobgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
)

// TestNowhere: a path whose next hop leads nowhere loses against any other and is sent to nobody (RFC 4271 section 9.1.2); the only path of a
// prefix stays known, so that it can be said why there is no route. What changes there costs no session, and never all paths.
func TestNowhere(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	port := testPort()
	us, tor := config("127.1.71.1", port), config("127.1.71.9", port)
	tor.ASN = 65000
	self := us.ListenAddrs[0]
	prefix := netip.MustParsePrefix("10.9.0.0/26")
	var all []string
	for i, s := range []struct {
		hop  string
		pref uint32
	}{{"198.18.0.7", 200}, {"198.18.0.8", 200}, {"198.18.1.9", 200}, {"198.18.2.7", 100}} {
		src := startSource(t, fmt.Sprint("127.1.71.", 2+i), 64512, port, self, 64512)
		src.send(t, []bgp.Route{{Prefix: prefix, NextHop: netip.MustParseAddr(s.hop), LocalPref: s.pref}})
		us.Peers = append(us.Peers, bgp.Peer{Name: fmt.Sprint("P", i), Addr: src.addr, Port: port, ASN: 64512, LocalAddr: self})
		all = append(all, src.addr.String())
	}
	us.Peers = append(us.Peers, bgp.Peer{Name: "tor", Addr: tor.ListenAddrs[0], Port: port, ASN: 65000, LocalAddr: self})
	tor.Peers = []bgp.Peer{{Name: "near", Addr: self, Port: port, ASN: 64512, LocalAddr: tor.ListenAddrs[0], Passive: true}}
	nodes := startAll(t, us, tor)
	n, far := nodes[0], nodes[1]
	const everybody = "10.9.0.0/26 P0 via 198.18.0.7; P1 via 198.18.0.8; P2 via 198.18.1.9"
	n.knows(t, everybody)
	since := n.status(all[0]).Since
	p := netip.MustParsePrefix
	for _, step := range []struct {
		what    string
		nowhere *bgp.Nowhere
		want    string
		sent    bool
	}{
		{"two of three equal ones", &bgp.Nowhere{Unresolved: []netip.Prefix{p("198.18.0.0/24")}, Own: []netip.Addr{self}}, "10.9.0.0/26 P2 via 198.18.1.9", true},
		{"all but the worst", &bgp.Nowhere{Unresolved: []netip.Prefix{p("198.18.0.0/24")}, Pools: []netip.Prefix{p("198.18.1.0/24")}}, "10.9.0.0/26 P3 via 198.18.2.7", true},
		{"all of them", &bgp.Nowhere{Unresolved: []netip.Prefix{p("198.18.0.0/24"), p("198.18.2.0/24")}, Own: []netip.Addr{netip.MustParseAddr("198.18.1.9")}}, everybody, false},
		{"the tunnel asks for no route", &bgp.Nowhere{Unresolved: []netip.Prefix{p("198.18.0.0/16")}, Tunnelled: []netip.Prefix{p("10.9.0.0/16")}}, everybody, true},
		{"none in the end", nil, everybody, true},
	} {
		n.cfg.Nowhere = step.nowhere
		n.apply(t)
		eventually(t, step.what, func() string {
			if got := n.table(); !slices.Equal(got, []string{step.want}) {
				return fmt.Sprintf("knows %q", got)
			}
			if got := far.table(); (len(got) > 0) != step.sent {
				return fmt.Sprintf("the ToR knows %q", got)
			}
			for _, c := range n.Candidates(prefix) {
				if why := step.nowhere.Why(prefix, c.NextHop); why != "" && (c.Lost != why || c.Best || c.MED != 0 || len(c.Communities) > 0) {
					return fmt.Sprintf("candidate %+v", c)
				} else if used := strings.Contains(step.want, c.Peer); why == "" && used != (c.Lost == "") {
					return fmt.Sprintf("candidate %+v", c)
				}
			}
			out, err := n.Exchange(tor.ListenAddrs[0], bgp.ToPeer, prefix)
			if err != nil || len(out) != 1 || (out[0].After != nil) != step.sent || !step.sent && !strings.HasPrefix(out[0].By, "next hop 198.18.") || out[0].Before.MED != 0 || len(out[0].Before.Communities) > 0 ||
				step.sent && out[0].After.Lost != "" {
				return fmt.Sprintf("advertised %+v, %v", out, err)
			}
			return ""
		})
	}
	if !n.status(all[0]).Since.Equal(since) || n.losses(prefix.String()) > 0 {
		t.Errorf("the session flapped, or the prefix went %d times", n.losses(prefix.String()))
	}
}

// TestOwnRoutesLeadSomewhere: what we originate has no next hop, which is no reason to keep it to ourselves, whether it or the knowledge of the host comes first.
func TestOwnRoutesLeadSomewhere(t *testing.T) {
	parallel(t)
	port := testPort()
	us, near := config("127.1.71.21", port, "10.9.0.0/26"), config("127.1.71.22", port)
	us.Nowhere = &bgp.Nowhere{Own: us.ListenAddrs, Unresolved: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	us.Peers = []bgp.Peer{{Name: "near", Addr: near.ListenAddrs[0], Port: port, ASN: 64512, LocalAddr: us.ListenAddrs[0]}}
	near.Peers = []bgp.Peer{{Name: "us", Addr: us.ListenAddrs[0], Port: port, ASN: 64512, LocalAddr: near.ListenAddrs[0], Passive: true}}
	nodes := startAll(t, us, near)
	nodes[1].knows(t, "10.9.0.0/26 us via 127.1.71.21")
	nodes[0].cfg.Originate = append(nodes[0].cfg.Originate, bgp.Origination{Prefix: netip.MustParsePrefix("10.9.0.64/26"), Source: "test", LocalPref: bgp.MaxPref - 1024})
	nodes[0].apply(t)
	nodes[1].knows(t, "10.9.0.0/26 us via 127.1.71.21", "10.9.0.64/26 us via 127.1.71.21")
}
