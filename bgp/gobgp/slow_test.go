package gobgp_test

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// deaf brings a session up over a connection that takes a few kilobytes and is never read again.
func (p *rawPeer) deaf() {
	p.t.Helper()
	small := func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return err
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}, Timeout: time.Second, Control: small}
	var err error
	if p.conn, err = d.Dial("tcp4", p.to); err != nil {
		p.t.Fatal(err)
	}
	p.send(open(64512, p.from, true))
	if _, err := p.expect(msgOpen); err != nil {
		p.t.Fatal(err)
	}
	p.send(message(msgKeepalive, nil))
}

// TestSlowPeer: a peer that stops reading delays neither us nor what others are told, and its session ends when it has taken nothing for the
// bound (RFC 9687).
func TestSlowPeer(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	const prefixes = 20000 // their UPDATEs are some 100 kB, more than both ends' buffers
	port := testPort()
	good, us := config("127.2.30.1", port), config("127.2.30.2", port)
	peerWith(&good, &us)
	slow := peering(us.ListenAddrs[0], netip.MustParseAddr("127.2.30.3"), port, 64512)
	slow.Passive = true
	us.Peers = append(us.Peers, slow)
	g := start(t, good, gobgp.Options{})
	n := start(t, us, gobgp.Options{SendHold: 4 * time.Second})
	n.up(t, "127.2.30.1")
	p := &rawPeer{t: t, from: "127.2.30.3", to: fmt.Sprintf("127.2.30.2:%d", port), as4: true}
	p.deaf()
	defer func() { _ = p.conn.Close() }()
	status := func() bgp.PeerStatus { return n.status("127.2.30.3") }
	eventually(t, "the deaf session", func() string { return map[bool]string{false: "is not up"}[status().State == bgp.Established] })
	quick := func(what string, f func(), known int) time.Duration {
		t.Helper()
		begin := time.Now()
		f()
		eventually(t, what, func() string {
			if got := len(g.table()); got != known {
				return fmt.Sprintf("%d prefixes", got)
			}
			return ""
		})
		return time.Since(begin)
	}
	announce := func() {
		for i := range prefixes {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
			n.cfg.Originate = append(n.cfg.Originate, bgp.Origination{Prefix: p, Source: "test", LocalPref: uint32(bgp.MaxPref - i%1000)})
		}
		n.apply(t)
	}
	first := quick("beside a deaf peer", announce, prefixes)
	gone := quick("and gone", func() { n.cfg.Originate = nil; n.apply(t) }, 0)
	t.Logf("%d prefixes at the good peer after %v, gone after %v", prefixes, first, gone)
	eventually(t, "the deaf session ends", func() string { return map[bool]string{false: "is up"}[status().State != bgp.Established] })
	if s := g.status("127.2.30.2"); s.Ups != 1 {
		t.Errorf("the good session came up %d times", s.Ups)
	}
	alone := quick("without it", announce, prefixes)
	t.Logf("and after %v without the deaf one, whose session ended with %q", alone, status().LastError)
	if first > 5*alone+5*time.Second {
		t.Errorf("%v beside a deaf peer, %v without", first, alone)
	}
}
