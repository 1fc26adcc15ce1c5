package interop

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/peers"
)

// TestBFD: one of two ToRs falls silent without a carrier being lost, and traffic is on the other path long before BGP's hold time; it comes
// back; and the daemon's own restarts, planned or not, cost no packet and the ToRs no route.
func TestBFD(t *testing.T) {
	for _, kind := range peers.Kinds() {
		if !kind.BFD() {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			r := newRack(t)
			r.startRouters(ctx, kind, peers.Neighbour{Passive: true, BFD: 50 * time.Millisecond, GracefulRestart: 30 * time.Second})
			r.cluster("caracal.net/bfd: 'on'")
			r.start()
			r.sessionsUp(ctx)
			s := r.startStream()
			flowing := func() {
				t.Helper()
				if err := s.flowing(ctx); err != nil {
					t.Fatal(err)
				}
			}
			flowing()

			r.silence(0, true)
			r.hops(ctx, torAddr(1))
			if err := peers.Poll(ctx, func() error { // the flows of the dead path have moved
				if gap, lost := s.figures(); gap == 0 || lost == 0 {
					return fmt.Errorf("nothing is lost: no flow went over the silent router")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			gap, lost := s.figures()
			t.Logf("traffic on the other path after %v, %d of %d flows' packets lost", gap.Round(time.Millisecond), lost, probeFlows)
			if gap > 5*time.Second {
				t.Errorf("traffic moved after %v: BGP's hold time, not BFD", gap)
			}
			r.silence(0, false)
			r.sessionsUp(ctx)

			deleted := deletions.Watch(t, r.tor[0], netip.MustParsePrefix(block))
			for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				flowing()
				r.end(signal)
				away := time.NewTimer(300 * time.Millisecond) // twice the detection time, as a restart takes
				<-away.C
				r.start()
				r.sessionsUp(ctx)
				gap, lost := s.figures()
				t.Logf("%v: %d packets lost, longest gap %v", signal, lost, gap.Round(time.Millisecond))
				if lost != 0 {
					t.Errorf("%v: %d packets lost", signal, lost)
				}
				// BIRD takes BFD's word for a second failure while it waits for a restart, C bit or not, and drops what it kept.
				if n := deleted(); n != 0 && (signal == syscall.SIGTERM || kind == peers.FRR) {
					t.Errorf("%v: the router dropped the node's block %d times", signal, n)
				}
			}
		})
	}
}
