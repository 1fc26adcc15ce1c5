package inspect

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// reader is the other end of a watch: what it holds when it believes every message.
type reader struct {
	t        testing.TB
	stream   grpc.ServerStreamingClient[caracalv1.WatchRoutesResponse]
	have     map[string]caracalv1.RouteState
	synced   bool
	restarts int
	events   int
}

func watchRoutes(t testing.TB, conn *grpc.ClientConn, f *caracalv1.RouteFilter) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := caracalv1.NewInspectionClient(conn).WatchRoutes(ctx, &caracalv1.WatchRoutesRequest{Filter: f})
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, stream: stream, have: map[string]caracalv1.RouteState{}}
}

// next reads one message.
func (r *reader) next() {
	r.t.Helper()
	m, err := r.stream.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range m.Changes {
		r.events++
		id := fmt.Sprintf("%s %s %d", c.Route.Owner, c.Route.Prefix, c.Route.Metric)
		if c.Removed {
			if _, had := r.have[id]; !had {
				r.t.Errorf("told that %s is gone, but it was never there", id)
			}
			delete(r.have, id)
			continue
		}
		r.have[id] = c.Route.State
	}
	switch m.Mark {
	case caracalv1.WatchRoutesResponse_MARK_SYNCED:
		r.synced = true
	case caracalv1.WatchRoutesResponse_MARK_RESTART:
		r.synced = false
		r.restarts++
		clear(r.have)
	}
}

// until reads until the condition holds.
func (r *reader) until(cond func() bool) {
	r.t.Helper()
	for !cond() {
		r.next()
	}
}

func (r *reader) is(id string, want caracalv1.RouteState) func() bool {
	return func() bool {
		got, has := r.have[id]
		return r.synced && has == (want != 0) && got == want
	}
}

func TestWatchRoutes(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w)
	r := watchRoutes(t, conn, nil)
	r.until(func() bool { return r.synced })
	if len(r.have) != len(w.statuses) {
		t.Fatalf("got %d routes before the mark, want %d", len(r.have), len(w.statuses))
	}
	why := &routes.Reason{Rule: "r"}
	w.set(route(routes.OwnerVXLAN, "10.10.4.0/26", routes.Waiting, why, via("10.10.4.1", "vxlan.calico", true)))
	r.until(r.is("vxlan 10.10.4.0/26 1024", caracalv1.RouteState_ROUTE_STATE_PENDING))
	w.set(route(routes.OwnerVXLAN, "10.10.4.0/26", routes.Installed, why, via("10.10.4.1", "vxlan.calico", true)))
	r.until(r.is("vxlan 10.10.4.0/26 1024", caracalv1.RouteState_ROUTE_STATE_INSTALLED))
	w.set(route(routes.OwnerBGP, "10.10.4.0/26", routes.Lost, why, via("192.0.2.1", "eth0", true)))
	r.until(r.is("bgp 10.10.4.0/26 1024", caracalv1.RouteState_ROUTE_STATE_LOST))
	w.set(route(routes.OwnerVXLAN, "10.10.4.0/26", routes.Removed, nil))
	r.until(r.is("vxlan 10.10.4.0/26 1024", 0))
	if _, has := r.have["bgp 10.10.4.0/26 1024"]; !has {
		t.Error("one owner's route went with the other's")
	}
	if r.restarts != 0 {
		t.Errorf("%d restarts of a reader that keeps up", r.restarts)
	}
}

// TestWatchRoutesFilter: a route that leaves the picked states is told as gone, one that was never picked is not told at all.
func TestWatchRoutesFilter(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w)
	r := watchRoutes(t, conn, &caracalv1.RouteFilter{Owners: []string{"vxlan"}, States: []caracalv1.RouteState{
		caracalv1.RouteState_ROUTE_STATE_FAILED, caracalv1.RouteState_ROUTE_STATE_UNROUTABLE}})
	r.until(func() bool { return r.synced })
	if len(r.have) != 1 {
		t.Fatalf("got %v, want the one unroutable route", r.have)
	}
	state := func(dst string, o routes.Outcome) routes.Status {
		return route(routes.OwnerVXLAN, dst, o, nil, via("10.10.2.1", "vxlan.calico", true))
	}
	w.set(state("10.10.5.0/26", routes.Installed), state("10.10.5.0/26", ""), state("10.10.2.0/26", routes.Failed))
	r.until(r.is("vxlan 10.10.2.0/26 1024", caracalv1.RouteState_ROUTE_STATE_FAILED))
	w.set(route(routes.OwnerBGP, "10.20.2.0/26", routes.Failed, nil, via("10.10.2.1", "vxlan.calico", true)))
	w.set(state("10.10.2.0/26", routes.Installed))
	r.until(r.is("vxlan 10.10.2.0/26 1024", 0))
	w.set(state("10.10.3.0/26", ""))
	r.until(r.is("vxlan 10.10.3.0/26 1024", 0))
	if len(r.have) != 0 || r.events != 4 {
		t.Errorf("left: %v after %d changes, want none after 4", r.have, r.events)
	}
}

// TestWatchOverflow: a reader that falls asleep holds up nobody, is told to start over, and ends with the truth.
func TestWatchOverflow(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w, func(s *Server) { s.pending = 64 })
	r := watchRoutes(t, conn, nil)
	r.until(func() bool { return r.synced })
	// More than a connection's windows hold, so that the stream's goroutine is stuck in Send while changes come in.
	const n = 20_000
	start := time.Now()
	for round := range 3 {
		var batch []routes.Status
		for i := range n {
			s := routes.Status{Owner: routes.OwnerBGP, Outcome: routes.Installed, Since: epoch}
			s.Route.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(round), byte(i >> 8), byte(i)}), 32)
			batch = append(batch, s)
		}
		w.mu.Lock()
		w.statuses = append(w.statuses, batch...)
		for _, f := range w.watchers {
			f(batch)
		}
		w.mu.Unlock()
	}
	t.Logf("%d changes handed over in %v", 3*n, time.Since(start))
	last := route(routes.OwnerVXLAN, "10.10.250.0/26", routes.Failed, nil, via("10.10.2.1", "vxlan.calico", true))
	w.set(last)
	r.until(r.is("vxlan 10.10.250.0/26 1024", caracalv1.RouteState_ROUTE_STATE_FAILED))
	if r.restarts == 0 {
		t.Error("the reader was never told to start over")
	}
	r.until(func() bool { return len(r.have) == len(w.statuses) })
}

// TestChangesCoalesce: what a slow reader has waiting is at most one status a route.
func TestChangesCoalesce(t *testing.T) {
	c := newChanges(&filter{}, 2)
	state := func(dst string, o routes.Outcome) []routes.Status {
		return []routes.Status{route(routes.OwnerVXLAN, dst, o, nil)}
	}
	for range 100 {
		c.put(state("10.0.0.0/24", routes.Failed))
		c.put(state("10.0.0.0/24", routes.Installed))
		c.put(state("10.0.1.0/24", routes.Failed))
	}
	list, overflow := c.take()
	if overflow || len(list) != 2 || list[0].Outcome != routes.Installed || list[1].Outcome != routes.Failed {
		t.Fatalf("got %v, %v", list, overflow)
	}
	c.put(state("10.0.0.0/24", routes.Failed))
	c.put(state("10.0.1.0/24", routes.Failed))
	c.put(state("10.0.2.0/24", routes.Failed)) // one too many
	c.put(state("10.0.3.0/24", routes.Failed))
	if list, overflow = c.take(); !overflow || len(list) != 0 {
		t.Fatalf("got %v, %v; want only the word that something was dropped", list, overflow)
	}
	c.put(state("10.0.4.0/24", routes.Failed))
	if list, overflow = c.take(); overflow || len(list) != 1 {
		t.Fatalf("got %v, %v after starting over", list, overflow)
	}
}

// TestWatchWaitsForSubscription: nothing may fall between the first set and the changes after it, whichever way the source
// subscribes.
func TestWatchWaitsForSubscription(t *testing.T) {
	for _, form := range []string{"returns", "blocks"} {
		t.Run(form, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := testWorld()
				src := w.sources()
				src.WatchRoutes = func(ctx context.Context, changed func([]routes.Status)) {
					time.Sleep(time.Second) // the route arrives before we are subscribed
					w.set(route(routes.OwnerVXLAN, "10.10.77.0/26", routes.Installed, nil, via("10.10.2.1", "vxlan.calico", true)))
					w.watch(ctx, changed)
					if form == "blocks" {
						changed(nil)
						<-ctx.Done()
					}
				}
				s := NewServer(src)
				seen := make(chan bool, 1)
				wt := &watcher{server: s, filter: &filter{}, changes: newChanges(&filter{}, 10), send: func(m *caracalv1.WatchRoutesResponse) error {
					for _, c := range m.Changes {
						if c.Route.Prefix == "10.10.77.0/26" {
							seen <- true
						}
					}
					return nil
				}}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					if err := wt.subscribe(ctx); err != nil {
						done <- err
						return
					}
					done <- wt.run(ctx)
				}()
				synctest.Wait()
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if len(seen) != 1 {
					t.Error("the route that came while subscribing is missing")
				}
				cancel()
				if err := <-done; status.Code(err) != codes.Canceled {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// TestWatchEnds: a reader that goes away leaves nothing behind, and a daemon that stops says so.
func TestWatchEnds(t *testing.T) {
	w := testWorld()
	conn, s := serve(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := caracalv1.NewInspectionClient(conn).WatchRoutes(ctx, &caracalv1.WatchRoutesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	for deadline := time.Now().Add(5 * time.Second); w.watching() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d subscriptions are left of a reader that went away", w.watching())
		}
		time.Sleep(time.Millisecond)
	}
	r := watchRoutes(t, conn, nil)
	r.until(func() bool { return r.synced })
	s.Stop()
	if _, err := r.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}
