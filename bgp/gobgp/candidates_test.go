package gobgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// refuses is a rule that refuses what lies in a prefix.
func refuses(source, cidr string) bgp.Rule {
	p := netip.MustParsePrefix(cidr)
	return bgp.Rule{Source: source, FilterRule: bgp.FilterRule{CIDR: p, MinLen: uint8(p.Bits()), MaxLen: 32}}
}

func lines(list []string) string { return "\n" + strings.Join(list, "\n") + "\n" }

func candidateLines(list []bgp.Candidate) []string {
	var out []string
	for _, c := range list {
		who := c.Peer
		if c.Local {
			who = "us"
		}
		if c.Refused {
			who = "refused " + who
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s via %s %v external=%v %s", who, c.NextHop, c.ASPath, c.External, c.Lost)))
	}
	return out
}

func exchangedLines(list []bgp.Exchanged) []string {
	var out []string
	for _, x := range list {
		after := "-"
		if x.After != nil {
			after = fmt.Sprintf("%d %v via %s", x.After.LocalPref, x.After.ASPath, x.After.NextHop)
		}
		out = append(out, fmt.Sprintf("%s %d %v -> %s (%s)", x.Before.Prefix, x.Before.LocalPref, x.Before.ASPath, after, x.By))
	}
	return out
}

// TestInspection: what a Speaker says of its sessions, of the paths to a prefix and of what goes between it and its peers.
func TestInspection(t *testing.T) {
	parallel(t)
	port := testPort()
	us := config("127.1.70.1", port, "10.1.0.0/26", "10.1.5.0/26")
	a, b, tor := config("127.1.70.2", port, "10.2.0.0/26"), config("127.1.70.3", port, "10.2.0.0/26"), config("127.1.70.4", port, "10.2.0.0/26", "10.7.0.0/26")
	tor.ASN = 65001
	b.Originate[0].LocalPref = 100
	for _, peer := range []*bgp.Config{&a, &b, &tor} {
		peerWith(&us, peer)
	}
	us.Peers[2].Import = []bgp.Rule{refuses("BGPFilter f spec.importV4[0]", "10.7.0.0/16")}
	us.Peers[2].Export = []bgp.Rule{refuses("BGPFilter f spec.exportV4[0]", "10.1.5.0/26")}
	raw := peering(us.ListenAddrs[0], netip.MustParseAddr("127.1.70.9"), port, 64512)
	raw.Passive = true
	us.Peers = append(us.Peers, raw)
	n := startAll(t, us, a, b, tor)[0]
	p := &rawPeer{t: t, from: "127.1.70.9", to: fmt.Sprintf("127.1.70.1:%d", port), as4: true}
	p.dial()
	defer func() { _ = p.conn.Close() }()
	loop := attribute(0x40, 2, 2, 2, 0, 0, 0xfc, 1, 0, 0, 0xfc, 0) // AS 64513 64512
	p.send(update(join(origin, loop, nextHop("127.1.70.9"), localPref), "10.2.0.0/26"))

	check := func(what string, want []string, get func() []string) {
		t.Helper()
		eventually(t, what, func() string {
			if got := get(); !slices.Equal(got, want) {
				return lines(got) + "want" + lines(want)
			}
			return ""
		})
	}
	check("candidates", []string{
		"Mesh_127_1_70_2 via 127.1.70.2 [] external=false",
		"Mesh_127_1_70_3 via 127.1.70.3 [] external=false LOCAL_PREF 100 is lower than 2147482623",
		"Mesh_127_1_70_4 via 127.1.70.4 [65001] external=true LOCAL_PREF 100 is lower than 2147482623",
		"refused Mesh_127_1_70_9 via 127.1.70.9 [64513 64512] external=false our own AS 64512 is in the AS path (RFC 4271 section 9.1.2)",
	}, func() []string {
		return candidateLines(n.Candidates(netip.MustParsePrefix("10.2.0.0/26")))
	})
	check("candidates of a refused prefix", []string{"refused Mesh_127_1_70_4 via 127.1.70.4 [65001] external=true BGPFilter f spec.importV4[0]"},
		func() []string { return candidateLines(n.Candidates(netip.MustParsePrefix("10.7.0.0/26"))) })
	check("our own", []string{"us via 0.0.0.0 [] external=false"},
		func() []string { return candidateLines(n.Candidates(netip.MustParsePrefix("10.1.0.0/26"))) })

	exchange := func(peer string, d bgp.Direction, within string) func() []string {
		return func() []string {
			var in netip.Prefix
			if within != "" {
				in = netip.MustParsePrefix(within)
			}
			list, err := n.Exchange(netip.MustParseAddr(peer), d, in)
			if err != nil {
				return []string{err.Error()}
			}
			return exchangedLines(list)
		}
	}
	check("received", []string{
		"10.2.0.0/26 100 [65001] -> 100 [65001] via 127.1.70.4 (nothing is refused by default)",
		"10.7.0.0/26 100 [65001] -> - (BGPFilter f spec.importV4[0])",
	}, exchange("127.1.70.4", bgp.FromPeer, ""))
	check("received, in a range", []string{"10.7.0.0/26 100 [65001] -> - (BGPFilter f spec.importV4[0])"}, exchange("127.1.70.4", bgp.FromPeer, "10.4.0.0/14"))
	check("advertised by eBGP", []string{
		"10.1.0.0/26 2147482623 [] -> 100 [64512] via 127.1.70.1 (nothing is kept back)",
		"10.1.5.0/26 2147482623 [] -> - (BGPFilter f spec.exportV4[0])",
		"10.2.0.0/26 2147482623 [] -> 100 [64512] via 127.1.70.1 (nothing is kept back)",
	}, exchange("127.1.70.4", bgp.ToPeer, ""))
	check("advertised to where it came from", []string{"10.2.0.0/26 2147482623 [] -> - (the best path came from this peer)"}, exchange("127.1.70.2", bgp.ToPeer, "10.2.0.0/16"))
	check("advertised by iBGP", []string{"10.2.0.0/26 2147482623 [] -> - (learned by iBGP, not passed on to iBGP peers (RFC 4271 section 9.2))"},
		exchange("127.1.70.3", bgp.ToPeer, "10.2.0.0/16"))
	check("nobody", []string{"127.1.70.77 is not a configured BGP peer"}, exchange("127.1.70.77", bgp.ToPeer, ""))
	facts(t, n)
}

// facts checks what is said of the session with the eBGP peer.
func facts(t *testing.T, n *node) {
	eventually(t, "the session", func() string {
		s := n.status("127.1.70.4")
		got := fmt.Sprintf("%d %d %d %d %s %v %d", s.OurASN, s.Received, s.Looped, s.Advertised, s.RouterID, s.HoldTime, s.Ups)
		if want := "64512 2 0 2 127.1.70.4 1m30s 1"; got != want {
			return got + ", want " + want
		}
		if p := n.status("127.1.70.9"); p.Received != 0 || p.Looped != 1 {
			return fmt.Sprintf("received %d, looped %d", p.Received, p.Looped)
		}
		if s.SentMessages.Open < 1 || s.ReceivedMessages.Open < 1 || s.SentMessages.Update < 1 || s.ReceivedMessages.Update < 1 || s.ReceivedMessages.Keepalive < 1 {
			return fmt.Sprintf("messages %+v, %+v", s.SentMessages, s.ReceivedMessages)
		}
		return ""
	})
	s := n.status("127.1.70.4")
	want := []string{"multiprotocol IPv4 unicast", "route refresh", "extended messages", "graceful restart 120 s, notifications; IPv4 unicast",
		"four-octet AS 65001", "add-path IPv4 unicast receive"}
	for _, c := range want {
		if c != "four-octet AS 65001" && !slices.Contains(s.OurCapabilities, c) {
			t.Errorf("%q is not among what we offer: %q", c, s.OurCapabilities)
		}
		if !slices.Contains(s.TheirCapabilities, c) {
			t.Errorf("%q is not among what the peer offers: %q", c, s.TheirCapabilities)
		}
	}
}

// TestNotificationsBothWays: the last NOTIFICATION of each direction is kept, with the sender's words, and so is the remedy.
func TestNotificationsBothWays(t *testing.T) {
	parallel(t)
	n, p := rawLab(t, "127.2.9", true)
	p.send(message(msgNotification, append([]byte{6, 2, 6}, "monday"...)))
	status := func() bgp.PeerStatus { return n.status("127.2.9.3") }
	eventually(t, "received", func() string {
		if s := status(); s.LastReceived.String() != `Cease/Administrative Shutdown "monday"` || s.Cause != bgp.CauseReceived || !strings.Contains(bgp.Remedy(&s), "shut the session down at the peer") {
			return fmt.Sprintf("%s, %d, %q", s.LastReceived, s.Cause, bgp.Remedy(&s))
		}
		return ""
	})
	_ = p.conn.Close()
	// A wrong AS is refused, and said.
	deadline := time.Now().Add(patience)
	for {
		if s := status(); s.Cause == bgp.CauseSent {
			if s.LastSent.String() != "OPEN Message Error/Bad Peer AS" || s.LastError != "sent: OPEN Message Error/Bad Peer AS" || !strings.Contains(bgp.Remedy(&s), "another AS than 64512") {
				t.Errorf("%s, %q, %q", s.LastSent, s.LastError, bgp.Remedy(&s))
			}
			if s.LastReceived.Code != 6 {
				t.Errorf("what was received last is forgotten: %s", s.LastReceived)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", status())
		}
		_ = p.hello(open(64999, p.from, true))
		time.Sleep(100 * time.Millisecond)
	}
}
