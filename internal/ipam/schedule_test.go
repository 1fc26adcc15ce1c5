package ipam

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// schedule lets several clients use one store one call at a time, in an order drawn from a seed. What goroutines on a
// quick store hardly ever do, two writers stepping between each other's reads and writes, is here the rule.
type schedule struct {
	mu  sync.Mutex
	at  []chan struct{} // who waits for his next call
	who []string        // their names, in the same order
}

// turn waits until it is a client's turn.
func (s *schedule) turn(name string) {
	c := make(chan struct{})
	s.mu.Lock()
	s.at, s.who = append(s.at, c), append(s.who, name)
	s.mu.Unlock()
	<-c
}

// run gives turns until done is closed: which of those who wait is next, choose says. Step is called after each turn.
func (s *schedule) run(choose func(waiting []string) int, done <-chan struct{}, step func()) {
	for {
		synctest.Wait() // now everybody waits for a turn, for time to pass, or has finished
		s.mu.Lock()
		var c chan struct{}
		if len(s.at) > 0 {
			i := choose(s.who)
			c = s.at[i]
			s.at, s.who = slices.Delete(s.at, i, i+1), slices.Delete(s.who, i, i+1)
		}
		s.mu.Unlock()
		select {
		case <-done:
			return
		default:
		}
		if c == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		close(c)
		synctest.Wait()
		step()
	}
}

// scheduled is a client's way to the store.
type scheduled struct {
	*schedule
	name  string
	store datastore.Store
}

func (s *scheduled) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	s.turn(s.name)
	return s.store.Get(ctx, kind, name)
}

func (s *scheduled) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	s.turn(s.name)
	return s.store.List(ctx, kind)
}

func (s *scheduled) Create(ctx context.Context, obj calico.Object) (calico.Object, error) {
	s.turn(s.name)
	return s.store.Create(ctx, obj)
}

func (s *scheduled) Update(ctx context.Context, obj calico.Object) (calico.Object, error) {
	s.turn(s.name)
	return s.store.Update(ctx, obj)
}

func (s *scheduled) Delete(ctx context.Context, obj calico.Object) error {
	s.turn(s.name)
	return s.store.Delete(ctx, obj)
}

func (s *scheduled) PatchNode(ctx context.Context, name string, patch datastore.NodePatch) error {
	s.turn(s.name)
	return s.store.PatchNode(ctx, name, patch)
}

// actions are what the scheduled clients do, each under a handle of its own.
func actions() map[string]func(context.Context, *Client, string) error {
	pool := netip.MustParsePrefix("10.2.0.0/30")
	return map[string]func(context.Context, *Client, string) error{
		"claim": func(ctx context.Context, c *Client, _ string) error {
			_, _, err := c.ClaimBlocks(ctx, pool)
			return err
		},
		"release empty": func(ctx context.Context, c *Client, _ string) error { return c.ReleaseAffinity(ctx, pool, true) },
		"release":       func(ctx context.Context, c *Client, _ string) error { return c.ReleaseAffinity(ctx, pool, false) },
		"assign": func(ctx context.Context, c *Client, h string) error {
			_, err := c.AutoAssign(ctx, workload(h, 1))
			return err
		},
		"assign and give back": func(ctx context.Context, c *Client, h string) error {
			got, err := c.AutoAssign(ctx, workload(h, 2))
			if err != nil {
				return err
			}
			if _, err := c.ReleaseIPs(ctx, Release{Addr: got[0].Addr(), Handle: h}); err != nil {
				return err
			}
			return c.ReleaseByHandle(ctx, h)
		},
		"assign one": func(ctx context.Context, c *Client, h string) error {
			return c.AssignIP(ctx, pool.Addr().Next(), h, nil, "")
		},
	}
}

// play lets actions run against one block under a schedule. After every call nothing may be wrong, and when all are
// through everything must agree without any repair. The block is old enough to be reclaimed.
func play(t *testing.T, claimed bool, actors [][2]string, choose func([]string) int) {
	store := datastoretest.NewMemory(ipPool("v4", "10.2.0.0/30", size(30)), calicoNode("node-a"), calicoNode("node-b"))
	if claimed {
		claimOne(t, client(t, store, "node-a"), "10.2.0.0/30")
		time.Sleep(2 * reclaimAge)
	}
	s, done := &schedule{}, make(chan struct{})
	var wg sync.WaitGroup
	for i, a := range actors {
		name := fmt.Sprint(i)
		wg.Go(func() {
			c := client(t, &scheduled{s, name, store}, a[0])
			if err := actions()[a[1]](t.Context(), c, "h"+name); !expected(err) {
				t.Errorf("%v: %v", a, err)
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	s.run(choose, done, func() { wantNeverWrong(t, store) })
	wantCheck(t, store)
	if t.Failed() {
		t.Fatalf("claimed before: %v; actors %v", claimed, actors)
	}
}

// TestSchedules runs three random actions by two nodes in random order.
func TestSchedules(t *testing.T) {
	names := sortedKeys(actions())
	seed := seedOf(t)
	for round := range uint64(800) {
		rnd := rand.New(rand.NewPCG(seed, round))
		synctest.Test(t, func(t *testing.T) {
			var actors [][2]string
			for range 3 {
				actors = append(actors, [2]string{[]string{"node-a", "node-a", "node-b"}[rnd.IntN(3)], names[rnd.IntN(len(names))]})
			}
			play(t, rnd.IntN(2) == 0, actors, func(waiting []string) int { return rnd.IntN(len(waiting)) })
		})
	}
}

// TestEverySwitch runs pairs of claims and releases under every schedule with up to three switches from one to the
// other: nearly every mistake in such a protocol shows with so few.
func TestEverySwitch(t *testing.T) {
	runs := 0
	for _, pair := range [][2]string{{"claim", "release"}, {"claim", "release empty"}, {"claim", "claim"}, {"release empty", "release"}, {"assign", "release empty"}} {
		for _, claimed := range []bool{false, true} {
			for first := range 2 {
				for s1 := 1; s1 < 12; s1++ {
					for s2 := s1 + 1; s2 < 15; s2++ {
						for s3 := s2 + 1; s3 < 18; s3 += 2 {
							synctest.Test(t, func(t *testing.T) {
								play(t, claimed, [][2]string{{"node-a", pair[0]}, {"node-a", pair[1]}}, switching(first, s1, s2, s3))
							})
							runs++
						}
					}
				}
			}
		}
	}
	t.Logf("%d schedules", runs)
}

// switching chooses one of two clients, the other one from each of the given calls on, and whoever is left.
func switching(first int, at ...int) func([]string) int {
	call, now := 0, first
	return func(waiting []string) int {
		if slices.Contains(at, call) {
			now = 1 - now
		}
		call++
		return max(0, slices.Index(waiting, fmt.Sprint(now)))
	}
}
