package gobgp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// TestMesh: three nodes learn each other's blocks, and nothing of their own.
func TestMesh(t *testing.T) {
	parallel(t)
	port := testPort()
	a, b, c := config("127.1.0.1", port, "10.1.0.0/26", "10.1.0.64/26"), config("127.1.0.2", port, "10.1.1.0/26"), config("127.1.0.3", port)
	fullMesh(&a, &b, &c)
	begin := time.Now()
	nodes := startAll(t, a, b, c)
	na, nb, nc := nodes[0], nodes[1], nodes[2]
	nc.knows(t, "10.1.0.0/26 Mesh_127_1_0_1 via 127.1.0.1", "10.1.0.64/26 Mesh_127_1_0_1 via 127.1.0.1", "10.1.1.0/26 Mesh_127_1_0_2 via 127.1.0.2")
	na.knows(t, "10.1.1.0/26 Mesh_127_1_0_2 via 127.1.0.2")
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_0_1 via 127.1.0.1", "10.1.0.64/26 Mesh_127_1_0_1 via 127.1.0.1")
	t.Logf("three nodes converged in %v", time.Since(begin).Round(time.Millisecond))
	for _, n := range []*node{na, nb, nc} {
		eventually(t, "in sync", func() string {
			if calls, prefixes := n.inSync(); calls != 1 || prefixes != len(n.table()) && !raceBuild {
				return fmt.Sprintf("told %d times, knew %d prefixes then", calls, prefixes)
			}
			return ""
		})
	}
	if p := nc.paths("10.1.1.0/26"); p[0].LocalPref != bgp.MaxPref-1024 || len(p[0].ASPath) != 0 || !p[0].Best {
		t.Errorf("path %+v", p[0])
	}
	eventually(t, "counts", func() string {
		if p := nb.status("127.1.0.1"); p.Received != 2 || p.Advertised != 1 || !p.EndOfRIB || p.Restarting || p.LastError != "" {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})

	// What is originated no more is withdrawn, what is new is announced, and no session notices.
	before := nc.status("127.1.0.1").Since
	na.cfg.Originate = config("127.1.0.1", port, "10.1.0.64/26", "10.1.0.128/26").Originate
	na.apply(t)
	nc.knows(t, "10.1.0.128/26 Mesh_127_1_0_1 via 127.1.0.1", "10.1.0.64/26 Mesh_127_1_0_1 via 127.1.0.1", "10.1.1.0/26 Mesh_127_1_0_2 via 127.1.0.2")
	na.cfg.Originate[0].LocalPref = bgp.MaxPref - 512
	na.cfg.Peers[0].Source = "another word"
	na.apply(t)
	eventually(t, "LOCAL_PREF", func() string {
		if p := nc.paths("10.1.0.64/26"); len(p) != 1 || p[0].LocalPref != bgp.MaxPref-512 {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
	if after := nc.status("127.1.0.1").Since; !after.Equal(before) {
		t.Error("the session flapped")
	}

	// A node that leaves takes its routes with it, at once.
	na.cfg.Peers = na.cfg.Peers[:1]
	na.apply(t)
	nc.knows(t, "10.1.1.0/26 Mesh_127_1_0_2 via 127.1.0.2")
	eventually(t, "why", func() string {
		if p := nc.status("127.1.0.1"); !strings.Contains(p.LastError, "received: Cease/Hard Reset") {
			return p.LastError
		}
		return ""
	})
}

// TestEqualPaths: all equal paths are learned, the worse one is known but not used.
func TestEqualPaths(t *testing.T) {
	parallel(t)
	port := testPort()
	a, b, c, d := config("127.1.1.1", port, "10.1.0.0/26"), config("127.1.1.2", port, "10.1.0.0/26"), config("127.1.1.3", port, "10.1.0.0/26"), config("127.1.1.4", port)
	c.Originate[0].LocalPref = 100
	peerWith(&a, &d)
	peerWith(&b, &d)
	peerWith(&c, &d)
	nodes := startAll(t, a, b, c, d)
	na, nd := nodes[0], nodes[3]
	nd.knows(t, "10.1.0.0/26 Mesh_127_1_1_1 via 127.1.1.1; Mesh_127_1_1_2 via 127.1.1.2")
	eventually(t, "all paths", func() string {
		best, all := 0, nd.Candidates(netip.MustParsePrefix("10.1.0.0/26"))
		for _, p := range all {
			if p.Best {
				best++
			}
		}
		if best != 2 || len(all) != 3 {
			return fmt.Sprintf("%+v", all)
		}
		return ""
	})
	na.cfg.Originate = nil
	na.apply(t)
	nd.knows(t, "10.1.0.0/26 Mesh_127_1_1_2 via 127.1.1.2")

	// Once we originate the prefix ourselves it is not learned any more, and it is again when we stop.
	nd.cfg.Originate = config("127.1.1.4", port, "10.1.0.0/26").Originate
	nd.apply(t)
	nd.knows(t)
	nd.cfg.Originate = nil
	nd.apply(t)
	nd.knows(t, "10.1.0.0/26 Mesh_127_1_1_2 via 127.1.1.2")
}

// TestStopIsQuiet: an end that went well is no reason for a warning.
func TestStopIsQuiet(t *testing.T) {
	for _, graceful := range []bool{true, false} {
		var said strings.Builder
		s, err := gobgp.New(gobgp.Options{Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(t.Context(), config("127.1.3.1", testPort())); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := s.Stop(ctx, graceful); err != nil {
			t.Error(err)
		}
		if said.Len() > 0 {
			t.Errorf("graceful %t: %s", graceful, &said)
		}
	}
}

// TestStop: a graceful end costs the peers nothing, the other kind tells them at once.
func TestStop(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a, b, c, tor := config("127.1.2.1", port, "10.1.0.0/26"), config("127.1.2.2", port, "10.1.1.0/26"), config("127.1.2.3", port), config("127.1.2.9", port)
	tor.ASN = 65000
	fullMesh(&a, &b, &c)
	peerWith(&a, &tor)
	nodes := startAll(t, a, b, c, tor)
	na, nb, nc, ntor := nodes[0], nodes[1], nodes[2], nodes[3]
	nc.knows(t, "10.1.0.0/26 Mesh_127_1_2_1 via 127.1.2.1", "10.1.1.0/26 Mesh_127_1_2_2 via 127.1.2.2")
	ntor.knows(t, "10.1.0.0/26 Mesh_127_1_2_1 via 127.1.2.1", "10.1.1.0/26 Mesh_127_1_2_1 via 127.1.2.1")
	if p := ntor.paths("10.1.1.0/26"); p[0].LocalPref != 100 || fmt.Sprint(p[0].ASPath) != "[64512]" {
		t.Errorf("eBGP path %+v", p[0])
	}
	stop := func(n *node, graceful bool) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := n.Stop(ctx, graceful); err != nil {
			t.Error(err)
		}
	}
	stop(na, true)
	nc.knows(t, "10.1.0.0/26 Mesh_127_1_2_1 via 127.1.2.1 stale", "10.1.1.0/26 Mesh_127_1_2_2 via 127.1.2.2")
	ntor.knows(t, "10.1.0.0/26 Mesh_127_1_2_1 via 127.1.2.1 stale", "10.1.1.0/26 Mesh_127_1_2_1 via 127.1.2.1 stale")
	if p := nc.status("127.1.2.1"); !p.Restarting || p.State == "Established" {
		t.Errorf("status %+v", p)
	}
	stop(nb, false)
	nc.knows(t, "10.1.0.0/26 Mesh_127_1_2_1 via 127.1.2.1 stale")
	if n := nc.losses("10.1.0.0/26") + ntor.losses("10.1.1.0/26") + ntor.losses("10.1.0.0/26"); n != 0 {
		t.Errorf("the graceful stop lost %d routes", n)
	}
	if err := na.Apply(t.Context(), na.cfg); err == nil {
		t.Error("Apply after Stop succeeded")
	}
}

// TestOwnSettings: a change of our own router id needs a new server, and costs no route anywhere.
func TestOwnSettings(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a, b := config("127.1.3.1", port, "10.1.0.0/26"), config("127.1.3.2", port, "10.1.1.0/26")
	peerWith(&a, &b)
	na, nb := start(t, a, gobgp.Options{}), start(t, b, gobgp.Options{})
	na.up(t, "127.1.3.2")
	na.knows(t, "10.1.1.0/26 Mesh_127_1_3_2 via 127.1.3.2")
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_3_1 via 127.1.3.1")
	na.cfg.RouterID = netip.MustParseAddr("127.1.3.77")
	na.apply(t)
	na.knows(t, "10.1.1.0/26 Mesh_127_1_3_2 via 127.1.3.2 stale")
	nb.up(t, "127.1.3.1")
	na.up(t, "127.1.3.2")
	na.knows(t, "10.1.1.0/26 Mesh_127_1_3_2 via 127.1.3.2")
	nb.knows(t, "10.1.0.0/26 Mesh_127_1_3_1 via 127.1.3.1")
	if na.losses("10.1.1.0/26") != 0 || nb.losses("10.1.0.0/26") != 0 {
		t.Error("a route was lost meanwhile")
	}
	if calls, _ := na.inSync(); calls != 1 {
		t.Errorf("InSync came %d times", calls)
	}
}

// TestInSync: at once without peers, by the timer when a peer never comes.
func TestInSync(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	alone := start(t, config("127.1.4.1", port), gobgp.Options{})
	eventually(t, "alone", func() string {
		if calls, _ := alone.inSync(); calls != 1 {
			return fmt.Sprint(calls, " calls")
		}
		return ""
	})
	a, b := config("127.1.4.2", port, "10.1.0.0/26"), config("127.1.4.3", port)
	peerWith(&a, &b)
	b.Peers = append(b.Peers, peering(b.ListenAddrs[0], netip.MustParseAddr("127.1.4.200"), port, 64512))
	start(t, a, gobgp.Options{})
	begin := time.Now()
	nb := start(t, b, gobgp.Options{Restarting: true, SyncTimeout: 6 * time.Second})
	nb.up(t, "127.1.4.2")
	if calls, _ := nb.inSync(); calls != 0 && time.Since(begin) < 6*time.Second {
		t.Error("in sync although a peer is missing")
	}
	eventually(t, "the timer", func() string {
		if calls, prefixes := nb.inSync(); calls != 1 || prefixes != 1 {
			return fmt.Sprint(calls, " calls, ", prefixes, " prefixes")
		}
		return ""
	})
	if p := nb.status("127.1.4.200"); p.LastError == "" && !p.Passive {
		t.Errorf("nothing is said of the peer that is missing: %+v", p)
	}
}

// TestWholeClusterStart: all start as after a power cut, one node is missing for good. The others must not wait for it.
func TestWholeClusterStart(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	var cfgs []*bgp.Config
	for i := range 4 {
		c := config(fmt.Sprintf("127.1.5.%d", i+1), port, fmt.Sprintf("10.1.%d.0/26", i))
		cfgs = append(cfgs, &c)
	}
	fullMesh(cfgs...)
	begin := time.Now()
	for _, c := range cfgs[:3] {
		defer func(n *node) {
			eventually(t, "converged", func() string {
				if len(n.table()) != 2 {
					return fmt.Sprint(n.table())
				}
				return ""
			})
			if d := time.Since(begin); d > 15*time.Second {
				t.Errorf("took %v", d)
			} else {
				t.Logf("%s: %v", n.addr, d.Round(time.Millisecond))
			}
		}(start(t, *c, gobgp.Options{Restarting: true}))
	}
}

// TestErrors: what goes wrong is said in words.
func TestErrors(t *testing.T) {
	parallel(t)
	port := testPort()
	l, err := net.Listen("tcp4", fmt.Sprintf("127.1.6.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	s, err := gobgp.New(gobgp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Stop(context.Background(), false) }()
	cfg := config("127.1.6.1", port)
	if err := s.Apply(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another program has it") || !strings.Contains(err.Error(), fmt.Sprint(port)) {
		t.Errorf("a port that is taken: %v", err)
	}
	_ = l.Close()
	eventually(t, "once the port is free", func() string { // a process that is being forked by another test may hold it for a moment
		if err := s.Apply(t.Context(), cfg); err != nil {
			return err.Error()
		}
		return ""
	})
	for what, bad := range map[string]bgp.Config{
		"AS":        {RouterID: cfg.RouterID},
		"router id": {ASN: 1, RouterID: netip.MustParseAddr("::1")},
		"address":   {ASN: 1, RouterID: cfg.RouterID, Peers: []bgp.Peer{{Name: "x"}}},
		"x and y":   {ASN: 1, RouterID: cfg.RouterID, Peers: []bgp.Peer{{Name: "x", Addr: cfg.RouterID}, {Name: "y", Addr: cfg.RouterID}}},
	} {
		if err := s.Apply(t.Context(), bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Nobody listens there; and somebody of another AS does.
	a, b := config("127.1.6.3", port), config("127.1.6.2", port)
	peerWith(&a, &b)
	a.Peers[0].ASN = 65009
	a.Peers = append(a.Peers, peering(a.ListenAddrs[0], netip.MustParseAddr("127.1.6.1"), 1, 64512))
	na := startAll(t, a, b)[0]
	for addr, want := range map[string]string{"127.1.6.1": "connection refused", "127.1.6.2": "OPEN Message Error/Bad Peer AS"} {
		eventually(t, addr, func() string {
			if p := na.status(addr); !strings.Contains(p.LastError, want) {
				return fmt.Sprintf("%q", p.LastError)
			}
			return ""
		})
	}
}

// TestSlowConsumer: one that stands still holds up nobody, and finds the outcome, not the history, when it comes back.
func TestSlowConsumer(t *testing.T) {
	parallel(t)
	port := testPort()
	a, b := config("127.1.7.1", port), config("127.1.7.2", port)
	peerWith(&a, &b)
	gate := make(chan struct{})
	slow := newEar()
	ev := slow.events()
	learned := ev.Learned
	ev.Learned = func(l []bgp.Learned) { <-gate; learned(l) }
	peers := b.Peers
	b.Peers = nil
	nb := start(t, b, gobgp.Options{Events: ev})
	na := startAll(t, a)[0]
	nb.cfg.Peers = peers
	nb.apply(t)
	na.up(t, "127.1.7.2")
	const prefixes, rounds = 50, 40
	for round := range rounds {
		na.cfg.Originate = nil
		for i := range prefixes {
			if (i+round)%3 != 0 || round == rounds-1 {
				na.cfg.Originate = append(na.cfg.Originate, bgp.Origination{
					Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 26), LocalPref: uint32(1000 + round),
				})
			}
		}
		na.apply(t)
	}
	eventually(t, "the server goes on", func() string {
		p := nb.Candidates(netip.MustParsePrefix("10.1.49.0/26"))
		if len(p) != 1 || p[0].LocalPref != 1000+rounds-1 {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
	close(gate)
	eventually(t, "the consumer", func() string {
		if n := len(slow.table()); n != prefixes {
			return fmt.Sprint(n, " prefixes")
		}
		if p := slow.paths("10.1.49.0/26"); p[0].LocalPref != 1000+rounds-1 {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
	slow.mu.Lock()
	defer slow.mu.Unlock()
	if slow.batches > 10 || slow.largest > prefixes {
		t.Errorf("%d batches of up to %d", slow.batches, slow.largest)
	}
}

// TestKeepNextHop: keepOriginalNextHop towards one eBGP peer, next hop self towards the other.
func TestKeepNextHop(t *testing.T) {
	parallel(t)
	port := testPort()
	a, b, keep, plain := config("127.1.8.1", port), config("127.1.8.2", port, "10.1.0.0/26"), config("127.1.8.8", port), config("127.1.8.9", port)
	keep.ASN, plain.ASN = 65000, 65001
	peerWith(&a, &b)
	peerWith(&a, &keep)
	peerWith(&a, &plain)
	a.Peers[1].KeepNextHop = true
	nodes := startAll(t, a, b, keep, plain)
	na, nkeep, nplain := nodes[0], nodes[2], nodes[3]
	nkeep.knows(t, "10.1.0.0/26 Mesh_127_1_8_1 via 127.1.8.2")
	nplain.knows(t, "10.1.0.0/26 Mesh_127_1_8_1 via 127.1.8.1")
	na.cfg.Peers[1].KeepNextHop = false
	na.apply(t)
	nkeep.knows(t, "10.1.0.0/26 Mesh_127_1_8_1 via 127.1.8.1")
}
