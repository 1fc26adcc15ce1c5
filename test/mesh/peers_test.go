package mesh

import (
	"context"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers/injector"
)

// dialAtOnce is how many simulated peers dial at the same time.
const dialAtOnce = 64

// TestSimulatedMesh: one engine in a mesh whose other members only say what they have.
func TestSimulatedMesh(t *testing.T) {
	n, blocks := 50, 4
	if *full {
		n = 1000
	}
	ns := need.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cfg := config(0, 1)
	e := startEngine(t, ns, &cfg)
	var list []bgp.Peer
	for i := 1; i <= n; i++ {
		list = append(list, session(addr(0), addr(i))) // whose address sorts higher dials: all others
	}
	e.tell(t, "await", strconv.Itoa(n*blocks))
	e.tell(t, "peers", list)
	e.hear(t, ctx, "ready")

	began := time.Now()
	cpu := cpuOf(t, []*engine{e})
	var heard atomic.Int64 // prefixes that peers were told by the engine
	var g errgroup.Group
	g.SetLimit(dialAtOnce)
	sessions := make([]*injector.Session, n)
	t.Cleanup(func() {
		for _, s := range sessions {
			if s != nil {
				s.Drop()
			}
		}
	})
	for i := range n {
		g.Go(func() (err error) {
			sessions[i], err = join(ctx, &injector.Options{
				NS: &ns, ASN: asn, RouterID: addr(i + 1), Local: addr(i + 1), Remote: netip.AddrPortFrom(addr(0), bgp.DefaultPort), RestartTime: bgp.DefaultRestartTime,
				OnUpdate: func(u *injector.Update) { heard.Add(int64(len(u.Announced))) },
			}, i+1, blocks)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d simulated peers: the last was up after %s", n, time.Since(began).Round(time.Millisecond))
	known := e.hear(t, ctx, "known")
	synced := e.hear(t, ctx, "synced")
	awaitCount(t, ctx, &heard, int64(n))
	told := time.Now()
	t.Logf("all %d prefixes were known after %s, the engine was in sync after %s, every peer was told its block after %s; %s of processor", n*blocks,
		known.Sub(began).Round(time.Millisecond), synced.Sub(began).Round(time.Millisecond), told.Sub(began).Round(time.Millisecond),
		(cpuOf(t, []*engine{e}) - cpu).Round(time.Millisecond))
	sum, _ := memoryOf(t, []*engine{e})
	t.Logf("memory resident: %.1f MiB", mib(sum))

	e.tell(t, "await", strconv.Itoa(n*blocks+1))
	began = time.Now()
	if err := sessions[n/2].Announce(announcement(n/2+1, blocks, blocks+1)); err != nil {
		t.Fatal(err)
	}
	t.Logf("one block more of a peer: known after %s", e.hear(t, ctx, "known").Sub(began).Round(10*time.Microsecond))
	began = time.Now()
	e.tell(t, "originate", block(0, 1).String())
	awaitCount(t, ctx, &heard, int64(2*n))
	t.Logf("one block more of the engine: every peer knew it after %s", time.Since(began).Round(10*time.Microsecond))
	for i, s := range sessions {
		if err := s.Err(); err != nil {
			t.Errorf("session %d: %v", i, err)
		}
	}
}

// join brings a simulated peer up and has it say all it has.
func join(ctx context.Context, o *injector.Options, i, blocks int) (*injector.Session, error) {
	s, err := injector.Dial(ctx, *o)
	if err != nil {
		return nil, err
	}
	if err := s.Announce(announcement(i, 0, blocks)); err != nil {
		return s, err
	}
	return s, s.EndOfRIB(false)
}

// announcement is of a node's blocks from one to before another.
func announcement(i, from, to int) injector.Announcement {
	a := injector.Announcement{NextHop: addr(i), LocalPref: bgp.MaxPref - 1024}
	for k := from; k < to; k++ {
		a.Prefixes = append(a.Prefixes, block(i, k))
	}
	return a
}

func awaitCount(t *testing.T, ctx context.Context, n *atomic.Int64, want int64) {
	t.Helper()
	for n.Load() < want {
		select {
		case <-ctx.Done():
			t.Fatalf("peers were told %d prefixes, want %d", n.Load(), want)
		case <-time.After(100 * time.Microsecond):
		}
	}
}
