package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/peers"
)

// TestBFD: one of two ToRs falls silent without a carrier being lost, and traffic is on the other path long before BGP's hold time; it comes
// back; and the daemon's own restarts, planned or not, cost no packet and the ToRs no route.
func TestBFD(t *testing.T) {
	t.Parallel()
	for _, kind := range peers.Kinds() {
		if !kind.BFD() {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
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

			// A pace at which a machine with something else to do does not find dead paths, which here would be taken for the restart's.
			r.cluster("caracal.net/bfd: 'interval=" + calm.String() + ",multiplier=3'")
			r.paced(ctx, 3*calm)
			deleted := deletions.Watch(t, r.tor[0], netip.MustParsePrefix(block))
			for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				flowing()
				r.end(signal)
				away := time.NewTimer(6 * calm) // twice the detection time
				<-away.C
				r.start()
				r.sessionsUp(ctx)
				r.paced(ctx, 3*calm)
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

// calm is the interval of BFD packets over restarts.
const calm = 300 * time.Millisecond

// paced waits until BFD with every router is up with this detection time.
func (r *rack) paced(ctx context.Context, detection time.Duration) {
	r.t.Helper()
	conn, err := grpc.NewClient("unix:"+filepath.Join(r.nodeState, "caracald.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := peers.Poll(ctx, func() error {
		stream, err := caracalv1.NewInspectionClient(conn).ListPeers(ctx, &caracalv1.ListPeersRequest{})
		if err != nil {
			return err
		}
		up := 0
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			for _, p := range m.GetPeers() {
				if b := p.GetBfd(); b.GetState() != "Up" || b.GetDetection().AsDuration() != detection {
					return fmt.Errorf("BFD with %s: %v", p.GetAddress(), b)
				}
				up++
			}
		}
		if up != len(r.tor) {
			return fmt.Errorf("BFD with %d routers", up)
		}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
}
