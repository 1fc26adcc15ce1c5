package gobgp_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// pair makes two configurations that peer, a's first peer being b and the other way round.
func pair(network string, asnA, asnB uint32) (a, b bgp.Config) {
	port := testPort()
	a, b = config(network+"1", port, "10.1.0.0/26"), config(network+"2", port, "10.1.1.0/26")
	a.ASN, b.ASN = asnA, asnB
	peerWith(&a, &b)
	return a, b
}

// stays waits for a session to go down and checks for a while that it does not come up; one that may would take a second or two,
// after an end up to ten.
func (n *node) stays(t testing.TB, addr, want string) {
	t.Helper()
	eventually(t, "down", func() string {
		if p := n.status(addr); p.State == "Established" {
			return "is up"
		}
		return ""
	})
	deadline := time.Now().Add(4 * time.Second)
	for time.Now().Before(deadline) {
		if p := n.status(addr); p.State == "Established" {
			t.Fatalf("session %s -> %s is up", n.addr, addr)
		}
		time.Sleep(50 * time.Millisecond)
	}
	eventually(t, "why", func() string {
		if p := n.status(addr); !strings.Contains(p.LastError, want) {
			return fmt.Sprintf("%q", p.LastError)
		}
		return ""
	})
}

// change applies a change of one's first peer.
func (n *node) change(t testing.TB, f func(*bgp.Peer)) {
	t.Helper()
	n.cfg.Peers = slices.Clone(n.cfg.Peers)
	f(&n.cfg.Peers[0])
	n.apply(t)
}

// TestPassword: the right one, the wrong one, a change on both sides, and one that is to be there but is not.
func TestPassword(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	a, b := pair("127.1.50.", 64512, 64512)
	a.Peers[0].Password, b.Peers[0].Password = "seasoning", "seasoning"
	nodes := startAll(t, a, b)
	na, nb := nodes[0], nodes[1]
	na.up(t, "127.1.50.2")
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_50_1 via 127.1.50.1")
	if p := na.status("127.1.50.2"); p.Password != "(set)" {
		t.Errorf("the password is shown as %q", string(p.Password))
	}

	na.change(t, func(p *bgp.Peer) { p.Password = "other" })
	nb.knows(t)
	nb.stays(t, "127.1.50.1", "")
	dials := na // who dials is the one who can tell
	if na.cfg.Peers[0].Passive {
		dials = nb
	}
	eventually(t, "the dialling side says what it may be", func() string {
		for _, p := range dials.Peers() {
			if !strings.Contains(p.LastError, "password is another one") {
				return p.LastError
			}
		}
		return ""
	})
	nb.change(t, func(p *bgp.Peer) { p.Password = "other" })
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_50_1 via 127.1.50.1")

	const reason = "Secret bgp does not exist: create it"
	na.change(t, func(p *bgp.Peer) { p.Password, p.Held = "", reason })
	nb.knows(t)
	na.stays(t, "127.1.50.2", "held down: "+reason)
	nb.change(t, func(p *bgp.Peer) { p.Password = "" })
	na.stays(t, "127.1.50.2", "held down: "+reason) // not even if the other side does without
	na.change(t, func(p *bgp.Peer) { p.Held = "" })
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_50_1 via 127.1.50.1")
	if p := na.status("127.1.50.2"); p.LastError != "" {
		t.Errorf("%q is said of a session that is up", p.LastError)
	}
}

// TestHeldFromTheStart: a session that is held down is listed, opens nothing, and does not stand in the way of the others.
func TestHeldFromTheStart(t *testing.T) {
	parallel(t)
	a, b := pair("127.1.51.", 64512, 64512)
	a.Peers = append(a.Peers, bgp.Peer{Name: "Global_127_1_51_9", Addr: netip.MustParseAddr("127.1.51.9"), Port: a.ListenPort, ASN: 65000, Held: "no secret"})
	nodes := startAll(t, a, b)
	nodes[0].up(t, "127.1.51.2")
	if p := nodes[0].status("127.1.51.9"); p.State != "Idle" || p.LastError != "held down: no secret" {
		t.Errorf("%+v", p)
	}
	nodes[0].cfg.Peers = nodes[0].cfg.Peers[:1]
	nodes[0].apply(t)
	if got := nodes[0].Peers(); len(got) != 1 {
		t.Errorf("%d sessions", len(got))
	}
}

// TestTTLSecurity: both sides up, one side alone refuses what may come from far away.
func TestTTLSecurity(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	a, b := pair("127.1.52.", 64512, 65000)
	a.Peers[0].TTLSecurity, b.Peers[0].TTLSecurity = 1, 3
	nodes := startAll(t, a, b)
	na, nb := nodes[0], nodes[1]
	na.up(t, "127.1.52.2")
	nb.change(t, func(p *bgp.Peer) { p.TTLSecurity = 0 })
	na.stays(t, "127.1.52.2", "")
	na.change(t, func(p *bgp.Peer) { p.TTLSecurity = 0 })
	na.up(t, "127.1.52.2")
}

// TestNearPeersDial: a peer with TTL security, which drops what does not come with the greatest TTL, can connect to us in either family.
func TestNearPeersDial(t *testing.T) {
	parallel(t)
	cfg := config("127.1.62.1", testPort())
	cfg.ListenAddrs = append(cfg.ListenAddrs, netip.IPv6Loopback())
	start(t, cfg, gobgp.Options{})
	for _, a := range cfg.ListenAddrs {
		var failed error
		d := net.Dialer{Timeout: 3 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				if a.Is4() {
					failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MINTTL, 255)
				} else {
					failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, 255)
				}
			})
		}}
		conn, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(a, cfg.ListenPort).String())
		if err != nil || failed != nil {
			t.Errorf("%s: %v, %v", a, err, failed)
			continue
		}
		_ = conn.Close()
	}
}

// TestFourOctetAS: numbers above 65535 on both sides (RFC 6793).
func TestFourOctetAS(t *testing.T) {
	parallel(t)
	a, b := pair("127.1.53.", 4200000001, 4200000002)
	nodes := startAll(t, a, b)
	nodes[1].knows(t, "10.1.0.0/26 Mesh_127_1_53_1 via 127.1.53.1")
	if p := nodes[1].paths("10.1.0.0/26"); fmt.Sprint(p[0].ASPath) != "[4200000001]" {
		t.Errorf("%+v", p)
	}
}

// TestLocalAS: towards one peer we are of another AS, and that one alone is in the path.
func TestLocalAS(t *testing.T) {
	parallel(t)
	a, b := pair("127.1.54.", 64512, 65000)
	a.Peers[0].LocalASN, b.Peers[0].ASN = 65100, 65100
	nodes := startAll(t, a, b)
	nodes[1].knows(t, "10.1.0.0/26 Mesh_127_1_54_1 via 127.1.54.1")
	if p := nodes[1].paths("10.1.0.0/26"); fmt.Sprint(p[0].ASPath) != "[65100]" {
		t.Errorf("%+v", p)
	}
	nodes[0].knows(t, "10.1.1.0/26 Mesh_127_1_54_2 via 127.1.54.2")
	// The same number on both ends makes the session an internal one.
	nodes[0].change(t, func(p *bgp.Peer) { p.LocalASN = 65000 })
	nodes[1].change(t, func(p *bgp.Peer) { p.ASN = 65000 })
	eventually(t, "internal", func() string {
		if p := nodes[1].paths("10.1.0.0/26"); len(p) != 1 || len(p[0].ASPath) != 0 || p[0].LocalPref != bgp.MaxPref-1024 {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
}

// TestAllowedOwnAS: a path that our own AS is in is taken as often as allowed.
func TestAllowedOwnAS(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a := config("127.1.55.1", port)
	src := startSource(t, "127.1.55.2", 65010, port, a.ListenAddrs[0], 64512)
	hop := netip.MustParseAddr("127.1.55.2")
	src.send(t, []bgp.Route{
		{Prefix: netip.MustParsePrefix("10.1.0.0/26"), NextHop: hop, ASPath: []uint32{65001}},
		{Prefix: netip.MustParsePrefix("10.1.1.0/26"), NextHop: hop, ASPath: []uint32{64512, 65001}},
		{Prefix: netip.MustParsePrefix("10.1.2.0/26"), NextHop: hop, ASPath: []uint32{64512, 64512}},
	})
	a.Peers = []bgp.Peer{{Name: "src", Addr: src.addr, Port: port, ASN: 65010, LocalAddr: a.ListenAddrs[0]}}
	n := startAll(t, a)[0]
	want := []string{"10.1.0.0/26 src via 127.1.55.2", "10.1.1.0/26 src via 127.1.55.2", "10.1.2.0/26 src via 127.1.55.2"}
	n.knows(t, want[:1]...)
	for allowed := uint8(1); allowed <= 2; allowed++ {
		n.change(t, func(p *bgp.Peer) { p.AllowOwnAS = allowed })
		n.knows(t, want[:1+allowed]...)
	}
}

// TestReflector: clients hear of each other through a reflector, with their next hops; plain peers do not.
func TestReflector(t *testing.T) {
	parallel(t)
	port := testPort()
	rr, a, b, c := config("127.1.56.1", port), config("127.1.56.2", port, "10.1.0.0/26"), config("127.1.56.3", port, "10.1.1.0/26"), config("127.1.56.4", port, "10.1.2.0/26")
	for _, n := range []*bgp.Config{&a, &b, &c} {
		peerWith(&rr, n)
	}
	for i := range 2 {
		rr.Peers[i].Client, rr.Peers[i].ClusterID = true, netip.MustParseAddr("10.9.9.9")
	}
	nodes := startAll(t, rr, a, b, c)
	nrr, na, nb, nc := nodes[0], nodes[1], nodes[2], nodes[3]
	name := "Mesh_127_1_56_1"
	na.knows(t, "10.1.1.0/26 "+name+" via 127.1.56.3", "10.1.2.0/26 "+name+" via 127.1.56.4")
	nb.knows(t, "10.1.0.0/26 "+name+" via 127.1.56.2", "10.1.2.0/26 "+name+" via 127.1.56.4")
	nc.knows(t, "10.1.0.0/26 "+name+" via 127.1.56.2", "10.1.1.0/26 "+name+" via 127.1.56.3")
	if p := nrr.status("127.1.56.2"); p.Advertised != 2 {
		t.Errorf("%d prefixes are counted as sent to a client", p.Advertised)
	}
	// Next hop self is for reflected routes too, and needs no new session.
	since := nrr.status("127.1.56.2").Since
	nrr.change(t, func(p *bgp.Peer) { p.SelfNextHop = true })
	na.knows(t, "10.1.1.0/26 "+name+" via 127.1.56.1", "10.1.2.0/26 "+name+" via 127.1.56.1")
	nrr.change(t, func(p *bgp.Peer) { p.SelfNextHop = false })
	na.knows(t, "10.1.1.0/26 "+name+" via 127.1.56.3", "10.1.2.0/26 "+name+" via 127.1.56.4")
	if !nrr.status("127.1.56.2").Since.Equal(since) {
		t.Error("the session flapped")
	}
}

// TestElevatedRoute: a learned address inside a block of ours with an elevated LOCAL_PREF (a workload that is moving) is passed
// on to a router as soon as it is heard, an ordinary one is not, and it is taken back when it is ordinary again.
func TestElevatedRoute(t *testing.T) {
	parallel(t)
	port := testPort()
	a, b, tor := config("127.1.57.1", port, "10.1.0.0/26"), config("127.1.57.2", port), config("127.1.57.9", port)
	tor.ASN = 65000
	peerWith(&a, &b)
	peerWith(&a, &tor)
	a.Announce = &bgp.Announce{Own: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/26")}, Pools: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Normal4: 1024, Normal6: 1024}
	nodes := startAll(t, a, b, tor)
	nb, ntor := nodes[1], nodes[2]
	block := "10.1.0.0/26 Mesh_127_1_57_1 via 127.1.57.1"
	ntor.knows(t, block)
	moved := func(pref uint32) {
		nb.cfg.Originate = []bgp.Origination{{Prefix: netip.MustParsePrefix("10.1.0.7/32"), LocalPref: pref}, {Prefix: netip.MustParsePrefix("10.1.9.9/32"), LocalPref: bgp.MaxPref - 1024}}
		nb.apply(t)
	}
	moved(bgp.MaxPref - 512)
	ntor.knows(t, block, "10.1.0.7/32 Mesh_127_1_57_1 via 127.1.57.1", "10.1.9.9/32 Mesh_127_1_57_1 via 127.1.57.1")
	moved(bgp.MaxPref - 1024)
	ntor.knows(t, block, "10.1.9.9/32 Mesh_127_1_57_1 via 127.1.57.1")
	moved(bgp.MaxPref - 1023)
	ntor.knows(t, block, "10.1.0.7/32 Mesh_127_1_57_1 via 127.1.57.1", "10.1.9.9/32 Mesh_127_1_57_1 via 127.1.57.1")
	nb.cfg.Originate = nil
	nb.apply(t)
	ntor.knows(t, block)
}

// TestPrependOfOthers pins the known deviation: towards eBGP peers our own AS comes first, then the list, and then our own once
// more unless the list ends with it.
func TestPrependOfOthers(t *testing.T) {
	parallel(t)
	a, b := pair("127.1.58.", 64512, 65000)
	a.Peers[0].Export = []bgp.Rule{{FilterRule: bgp.FilterRule{Accept: true, Prepend: []uint32{65001, 65002}}, Source: "test"}}
	nodes := startAll(t, a, b)
	want := "[64512 65001 65002 64512]"
	for range 2 {
		eventually(t, "path", func() string {
			if p := nodes[1].paths("10.1.0.0/26"); len(p) != 1 || fmt.Sprint(p[0].ASPath) != want {
				return fmt.Sprintf("%+v", p)
			}
			return ""
		})
		nodes[0].change(t, func(p *bgp.Peer) {
			p.Export = []bgp.Rule{{FilterRule: bgp.FilterRule{Accept: true, Prepend: []uint32{65001, 64512}}, Source: "test"}}
		})
		want = "[64512 65001 64512]"
	}
}

// TestKeepaliveTime: the keepalive time is said by the hold time that goes with it (RFC 4271 section 4.4), and a session with one
// of its own comes up and stays.
func TestKeepaliveTime(t *testing.T) {
	parallel(t)
	a, b := pair("127.1.59.", 64512, 64512)
	a.Peers[0].Keepalive, b.Peers[0].Keepalive = 2*time.Second, time.Minute
	startAll(t, a, b)[0].up(t, "127.1.59.2")
}

// TestFiltersBeforeTheFirstSession: nothing that a rule refuses gets through while the Speaker starts.
func TestFiltersBeforeTheFirstSession(t *testing.T) {
	parallel(t)
	a, b := pair("127.1.60.", 64512, 65000)
	a.Peers[0].Export = []bgp.Rule{{Source: "test"}}
	b.Peers[0].Import = []bgp.Rule{{FilterRule: bgp.FilterRule{Accept: true, CIDR: netip.MustParsePrefix("10.1.0.0/26"), MinLen: 26, MaxLen: 26}, Source: "test"}}
	na, nb := start(t, a, gobgp.Options{}), start(t, b, gobgp.Options{})
	na.up(t, "127.1.60.2")
	nb.up(t, "127.1.60.1")
	if n := nb.losses("10.1.0.0/26"); n != 0 || len(nb.table()) != 0 {
		t.Errorf("%d losses, %v", n, nb.table())
	}
	na.change(t, func(p *bgp.Peer) { p.Export = nil })
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_60_1 via 127.1.60.1")
	na.change(t, func(p *bgp.Peer) { p.Export = []bgp.Rule{{Source: "test"}} })
	nb.knows(t)
}
