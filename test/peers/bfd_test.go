package peers_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bfd"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
	"github.com/caracal-net/caracal/test/peers/injector"
)

// bfdInterval is asked for by both ends, with multiplier 3.
const bfdInterval = 50 * time.Millisecond

// TestBFD: our BFD sessions come up with each router's, over one hop and as multihop, in both families; a dead path is found in the
// detection time by both ends, and a planned restart of ours is not seen by the router.
func TestBFD(t *testing.T) {
	for _, kind := range peers.Kinds() {
		if !kind.BFD() {
			continue
		}
		for _, v6 := range []bool{false, true} {
			for _, multihop := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/ipv6=%v/multihop=%v", kind, v6, multihop), func(t *testing.T) {
					need.Root(t)
					if what := peers.Missing(kind); what != "" {
						need.Other(t, what, "make deps")
					}
					testBFD(t, kind, v6, multihop)
				})
			}
		}
	}
}

func testBFD(t *testing.T, kind peers.Kind, v6, multihop bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	n := namesOf(v6)
	routerNS, otherNS := wire(t)
	cfg := peers.Config{
		ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.1"),
		Neighbours: []peers.Neighbour{{Addr: n.other, ASN: 64513, Local: n.router, Passive: true, BFD: bfdInterval, BFDMultihop: multihop}},
	}
	r, err := peers.Start(ctx, kind, routerNS, shortDir(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.Log(40))
		}
		_ = r.Kill()
	})
	s, err := injector.Dial(ctx, injector.Options{
		NS: &otherNS, ASN: 64513, RouterID: netip.MustParseAddr("192.0.2.2"), Local: n.other, Remote: netip.AddrPortFrom(n.router, 179),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Drop)
	must(t, r.WaitEstablished(ctx))

	state := filepath.Join(t.TempDir(), "bfd.json")
	peer := bfd.Peer{Addr: n.router, Local: n.other, Multihop: multihop, Timing: bfd.Timing{MinTx: bfdInterval, MinRx: bfdInterval, Multiplier: 3}}
	downs := make(chan bfd.Change, 8)
	start := func() *bfd.Engine {
		e := bfd.New(bfd.Options{In: otherNS.Do, State: state, Changed: func(c bfd.Change) {
			if c.From == bfd.Up {
				downs <- c
			}
		}})
		must(t, e.Set([]bfd.Peer{peer}))
		return e
	}
	e := start()
	defer func() { e.Close() }()
	up := func() error {
		if st := e.Status()[0]; st.State != bfd.Up || st.Detection != 3*bfdInterval {
			return fmt.Errorf("BFD session: %+v", st)
		}
		return nil
	}
	must(t, peers.Poll(ctx, up))
	changeBFD(ctx, t, e, r, cfg, peer)

	must(t, e.Handover(ctx))
	if _, err := os.Stat(state); err != nil {
		t.Fatal("the router did not agree to a slow pace:", err)
	}
	away := time.NewTimer(6 * bfdInterval) // twice what the router would have waited at the old pace
	<-away.C
	e = start()
	must(t, peers.Poll(ctx, up))
	must(t, r.WaitEstablished(ctx))
	if st := e.Status()[0]; st.Downs != 0 {
		t.Errorf("the restart was seen: %+v", st)
	}

	cut := time.Now()
	if out, err := routerNS.Run("ip", "link", "set", "eth0", "down"); err != nil {
		t.Fatal(err, out)
	}
	select {
	case c := <-downs:
		t.Logf("found after %v: %v", time.Since(cut).Round(time.Millisecond), c.Diag)
	case <-ctx.Done():
		t.Fatal("the dead path is not found")
	}
	must(t, peers.Poll(ctx, func() error { // the router has found it too, long before its hold time
		sessions, err := r.Sessions(ctx)
		if err == nil && len(sessions) == 1 && sessions[0].Established {
			err = fmt.Errorf("the router keeps the session up")
		}
		return err
	}))
}

// changeBFD changes values of a session that is up, at either end: no side may see it go down.
func changeBFD(ctx context.Context, t *testing.T, e *bfd.Engine, r *peers.Router, cfg peers.Config, peer bfd.Peer) {
	t.Helper()
	is := func(interval, detection time.Duration) {
		t.Helper()
		must(t, peers.Poll(ctx, func() error {
			if st := e.Status()[0]; st.State != bfd.Up || st.Detection != detection || st.Interval != interval || st.Downs != 0 {
				return fmt.Errorf("BFD session: %+v, want a packet each %v and detection after %v", st, interval, detection)
			}
			return nil
		}))
	}
	for _, own := range []time.Duration{2 * bfdInterval, 10 * bfdInterval, bfdInterval} {
		slower := peer
		slower.MinTx, slower.MinRx, slower.Multiplier = own, own, 5
		must(t, e.Set([]bfd.Peer{slower}))
		is(own, 3*own)
	}
	cfg.Neighbours[0].BFD = 3 * bfdInterval
	must(t, r.Reconfigure(ctx, cfg))
	is(3*bfdInterval, 9*bfdInterval)
	cfg.Neighbours[0].BFD = bfdInterval
	must(t, r.Reconfigure(ctx, cfg))
	must(t, e.Set([]bfd.Peer{peer}))
	is(bfdInterval, 3*bfdInterval)
	must(t, r.WaitEstablished(ctx))
}
