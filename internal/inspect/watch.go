package inspect

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// watchPending is how many changed routes a watch holds for its reader; past it the reader starts over. At some 300 bytes
// a status that is 5 MB for a reader that has fallen asleep.
const watchPending = 16384

// identity tells routes apart in a watch: owners may want the same key.
type identity struct {
	owner  routes.Owner
	dst    netip.Prefix
	metric uint32
}

func identityOf(s *routes.Status) identity {
	k := s.Route.Key()
	return identity{owner: s.Owner, dst: k.Dst, metric: k.Metric}
}

// changes is what a watch's reader has not been sent yet: at most one status a route, the last. put is called by
// the programmer and never waits; take by the stream's goroutine.
type changes struct {
	filter *filter
	limit  int
	wake   chan struct{} // size 1

	mu       sync.Mutex
	list     []routes.Status
	index    map[identity]int
	overflow bool // something was dropped since the last take
}

func newChanges(f *filter, limit int) *changes {
	return &changes{filter: f, limit: limit, wake: make(chan struct{}, 1), index: map[identity]int{}}
}

// put takes changed statuses. Once full it drops everything and only remembers that, so that a reader that never comes
// back costs nothing a change.
func (c *changes) put(changed []routes.Status) {
	c.mu.Lock()
	for i := range changed {
		if c.overflow {
			break
		}
		c.add(&changed[i])
	}
	news := c.overflow || len(c.list) > 0
	c.mu.Unlock()
	if !news {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) add(s *routes.Status) {
	if !c.filter.picksKey(s) {
		return
	}
	id := identityOf(s)
	if at, ok := c.index[id]; ok {
		c.list[at] = *s
		return
	}
	if len(c.list) >= c.limit {
		c.overflow, c.list = true, nil
		clear(c.index)
		return
	}
	c.index[id] = len(c.list)
	c.list = append(c.list, *s)
}

// take empties the buffer.
func (c *changes) take() (list []routes.Status, overflow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, overflow = c.list, c.overflow
	c.list, c.overflow = nil, false
	clear(c.index)
	return list, overflow
}

// watcher is one WatchRoutes call; one goroutine.
type watcher struct {
	server  *Server
	filter  *filter
	changes *changes
	send    func(*caracalv1.WatchRoutesResponse) error
	// sent is what the reader holds; kept only where the filter asks for states, for there a change can take a
	// route out of what is picked.
	sent map[identity]struct{}
}

// WatchRoutes implements caracal.v1.Inspection.
func (s *Server) WatchRoutes(r *caracalv1.WatchRoutesRequest, stream grpc.ServerStreamingServer[caracalv1.WatchRoutesResponse]) error {
	f, err := newFilter(r.GetFilter())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	w := &watcher{server: s, filter: f, changes: newChanges(f, s.pending), send: stream.Send}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	if err := w.subscribe(ctx); err != nil {
		return err
	}
	return w.run(ctx)
}

// subscribe returns once changes come in, so that none falls between the first set and the changes after it.
func (w *watcher) subscribe(ctx context.Context) error {
	subscribed := make(chan struct{})
	var once sync.Once
	go func() {
		w.server.src.WatchRoutes(ctx, func(changed []routes.Status) {
			once.Do(func() { close(subscribed) })
			w.changes.put(changed)
		})
		once.Do(func() { close(subscribed) })
	}()
	select {
	case <-subscribed:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-w.server.stop:
		return stopping()
	}
}

func stopping() error { return status.Error(codes.Unavailable, "the daemon is stopping") }

func (w *watcher) run(ctx context.Context) error {
	if err := w.all(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-w.server.stop:
			return stopping()
		case <-w.changes.wake:
		}
		list, overflow := w.changes.take()
		if !overflow {
			if err := w.some(list); err != nil {
				return err
			}
			continue
		}
		if err := w.send(&caracalv1.WatchRoutesResponse{Mark: caracalv1.WatchRoutesResponse_MARK_RESTART}); err != nil {
			return err
		}
		if err := w.all(); err != nil {
			return err
		}
	}
}

// all sends every route there is, then the mark. Changes that happen meanwhile are in the buffer and follow.
func (w *watcher) all() error {
	if len(w.filter.states) > 0 {
		w.sent = map[identity]struct{}{}
	}
	sorted := w.server.sortedRoutes(w.filter)
	for _, s := range sorted {
		if w.sent != nil {
			w.sent[identityOf(s)] = struct{}{}
		}
	}
	if err := w.batches(mapped(sorted, setOf)); err != nil {
		return err
	}
	return w.send(&caracalv1.WatchRoutesResponse{Mark: caracalv1.WatchRoutesResponse_MARK_SYNCED})
}

// some sends changes, in prefix order within what was taken at once.
func (w *watcher) some(list []routes.Status) error {
	sorted := pointers(list)
	slices.SortFunc(sorted, compareStatus)
	return w.batches(func(yield func(*caracalv1.RouteChange) bool) {
		for _, s := range sorted {
			if m := w.change(s); m != nil && !yield(m) {
				return
			}
		}
	})
}

// change makes the message of one changed status, nil if the reader need not hear of it.
func (w *watcher) change(s *routes.Status) *caracalv1.RouteChange {
	picked := !gone(s.Outcome) && w.filter.picksState(s.Outcome)
	if w.sent != nil {
		id := identityOf(s)
		_, had := w.sent[id]
		if !picked && !had {
			return nil
		}
		if picked {
			w.sent[id] = struct{}{}
		} else {
			delete(w.sent, id)
		}
	}
	if !picked {
		return &caracalv1.RouteChange{Removed: true, Route: removalOf(s)}
	}
	return setOf(s)
}

// gone reports whether an outcome says that the route is neither wanted nor there any more.
func gone(o routes.Outcome) bool { return o == "" || o == routes.Removed }

func setOf(s *routes.Status) *caracalv1.RouteChange { return &caracalv1.RouteChange{Route: routeOf(s)} }

func (w *watcher) batches(items iter.Seq[*caracalv1.RouteChange]) error {
	return batches(items, func(b []*caracalv1.RouteChange) error {
		return w.send(&caracalv1.WatchRoutesResponse{Changes: b})
	})
}
