package gobgp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// TestMaxPrefixes: a peer that sends more than it may loses its session and, graceful restart or not, its routes at once; it is tried again
// after the pause, or as soon as the bound is another one. Nobody else notices.
func TestMaxPrefixes(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	good, us := config("127.2.20.1", port, "10.9.9.0/26"), config("127.2.20.2", port)
	peerWith(&good, &us)
	bad := peering(us.ListenAddrs[0], netip.MustParseAddr("127.2.20.3"), port, 64512)
	bad.Passive, bad.MaxPrefixes = true, 4
	us.Peers = append([]bgp.Peer{bad}, us.Peers...)
	start(t, good, gobgp.Options{})
	n := start(t, us, gobgp.Options{LimitPause: 2 * time.Second})
	n.up(t, "127.2.20.1")
	if calls, _ := n.inSync(); calls != 0 {
		t.Error("in sync before the peer came")
	}
	p := &rawPeer{t: t, from: "127.2.20.3", to: fmt.Sprintf("127.2.20.2:%d", port), as4: true}
	attrs := join(origin, asPath, nextHop("127.2.20.3"), localPref)
	status := func() bgp.PeerStatus { return n.status("127.2.20.3") }
	exceed := func() {
		t.Helper()
		p.dial()
		p.send(update(attrs, "10.1.0.0/26", "10.1.1.0/26", "10.1.2.0/26"))
		eventually(t, "three of four", func() string { return absent(n, "10.1.2.0/26") })
		begin := time.Now()
		p.send(update(attrs, "10.1.3.0/26", "10.1.4.0/26"))
		if code := p.ended(); len(code) != 2 || code[0] != 6 || code[1] != 1 {
			t.Errorf("NOTIFICATION %v, want Cease/Maximum Number of Prefixes Reached", code)
		}
		_ = p.conn.Close()
		eventually(t, "its routes go", func() string {
			if len(n.paths("10.1.0.0/26")) > 0 {
				return "are there"
			}
			return ""
		})
		if d := time.Since(begin); d > 30*time.Second {
			t.Errorf("its routes stayed for %v", d)
		}
		eventually(t, "what is said", func() string {
			s := status()
			if s.State != "Idle" || s.Restarting || s.LastError != "sent: Cease/Maximum Number of Prefixes Reached" || !strings.Contains(bgp.Remedy(&s), "raise the limit") {
				return fmt.Sprintf("%s, restarting %v, %q, %q", s.State, s.Restarting, s.LastError, bgp.Remedy(&s))
			}
			if !s.RetryAt.After(s.ErrorAt) || s.ErrorAt.Before(begin) {
				return fmt.Sprintf("it failed at %v and is tried again at %v", s.ErrorAt, s.RetryAt)
			}
			return ""
		})
	}
	exceed()
	eventually(t, "being in sync, which does not wait for such a peer", func() string {
		if calls, _ := n.inSync(); calls != 1 {
			return fmt.Sprintf("%d times", calls)
		}
		return ""
	})
	exceed() // after the pause
	n.change(t, func(p *bgp.Peer) { p.MaxPrefixes = 10 })
	p.dial()
	defer func() { _ = p.conn.Close() }()
	p.send(update(attrs, "10.1.0.0/26", "10.1.1.0/26", "10.1.2.0/26", "10.1.3.0/26", "10.1.4.0/26"))
	eventually(t, "five of ten", func() string { return absent(n, "10.1.4.0/26") })
	if s := n.status("127.2.20.1"); s.Ups != 1 || n.losses("10.9.9.0/26") != 0 {
		t.Errorf("the other peer suffered: %+v", s)
	}
}
