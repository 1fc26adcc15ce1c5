package gobgp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
)

// TestRefusedOpen: a peer that answers our OPEN with a NOTIFICATION, as FRR does that expects another AS of us, leaves a reason that tells more than that its
// message was not the right one.
func TestRefusedOpen(t *testing.T) {
	parallel(t)
	n, p := rawLab(t, "127.1.72", true)
	_ = p.conn.Close()
	eventually(t, "it refuses", func() string {
		if err := p.accepted(); err != nil {
			return err.Error()
		}
		_ = p.write(message(msgNotification, []byte{bgp.CodeOpen, bgp.SubBadPeerAS}))
		_, _, _ = p.read() // its answer
		_ = p.conn.Close()
		return ""
	})
	eventually(t, "the refusal is told", func() string {
		s := n.status(p.from)
		if s.State != "Idle" || s.LastError != "sent: Finite State Machine Error/Unexpected Message in OpenSent" || !strings.Contains(bgp.Remedy(&s), "does it expect AS 64512") {
			return fmt.Sprintf("%s, last error %q, remedy %q", s.State, s.LastError, bgp.Remedy(&s))
		}
		return ""
	})
}

// TestNothingKept: graceful restart that a peer offers for no family, as FRR does by default, keeps no route of its, and nothing else is said.
func TestNothingKept(t *testing.T) {
	parallel(t)
	port := testPort()
	us := config("127.1.73.1", port)
	us.Peers = []bgp.Peer{{Name: "raw", Addr: netip.MustParseAddr("127.1.73.2"), Port: port, ASN: 64512, LocalAddr: us.ListenAddrs[0], Passive: true}}
	n := startAll(t, us)[0]
	p := &rawPeer{t: t, from: "127.1.73.2", to: fmt.Sprintf("127.1.73.1:%d", port), as4: true, restart: []byte{64, 2, 0, 120}}
	p.dial()
	p.send(update(join(origin, attribute(0x40, 2), nextHop(p.from), localPref), "10.9.0.0/26"))
	eventually(t, "the route", func() string { return absent(n, "10.9.0.0/26") })
	_ = p.conn.Close()
	eventually(t, "the route goes", func() string {
		if len(n.paths("10.9.0.0/26")) > 0 {
			return "is there"
		}
		return ""
	})
	if s := n.status(p.from); s.Restarting || s.State == bgp.Established {
		t.Errorf("the session is %s, restarting %v", s.State, s.Restarting)
	}
}
