package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Fake is a kernel in memory. All methods may be called from any goroutine.
type Fake struct {
	mu       sync.Mutex
	next     int // last interface index given; never used twice, as the kernel does until it wraps
	links    map[int]*link
	addrs    []kernel.Address // in the order they were added
	fib      map[netip.Prefix][]*entry
	neigh    map[neighKey]kernel.Neighbour
	watchers map[*watcher]bool
	plan     []*Injected
	calls    map[string]int
	closed   bool
	noIPIP   bool
	muteAdds bool
	own      bool // the routes under way are not Foreign's
	muted    bool // the change under way is not told to watches of our own
	before   func(method string)
	lateBy   time.Duration
	late     []func() // flushes that are still to come
	// nexthops are the nexthop objects; a route that refers to one keeps no next hops of its own.
	nexthops   map[uint32]*kernel.Nexthop
	noNexthops bool
	sysctls    map[kernel.Sysctl]int
}

// link is an interface with what kernel.Link does not show.
type link struct {
	kernel.Link
	carrier bool
}

// NewFake returns a kernel that has lo, up, and nothing else.
func NewFake() *Fake {
	f := &Fake{
		links:    map[int]*link{},
		fib:      map[netip.Prefix][]*entry{},
		neigh:    map[neighKey]kernel.Neighbour{},
		watchers: map[*watcher]bool{},
		calls:    map[string]int{},
		nexthops: map[uint32]*kernel.Nexthop{},
		sysctls:  newSysctls(),
	}
	f.next = 1
	f.links[1] = &link{Link: kernel.Link{Index: 1, Name: "lo", MTU: 65536, Up: true, Running: true}, carrier: true}
	return f
}

var errClosed = errors.New("the kernel handle is closed")

// enter counts a call and returns the planned fault of that kind. The lock is held.
func (f *Fake) enter(ctx context.Context, method string, kind Kind) error {
	f.calls[method]++
	if !lockFree(method) {
		f.settle()
	}
	if f.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", kernel.ErrTransient, err)
	}
	if kind == "" {
		return nil
	}
	return f.due(kind)
}

// FlushLate has the routes, nexthop objects and addresses that go with an interface or an address go some time after the news of it, as in
// the kernel, where a dump in between still shows them: __dev_notify_flags and __inet_del_ifa tell first, and dumps of routes, nexthop objects and
// addresses do not wait for the lock that whoever is flushing holds. Every other call does.
func (f *Fake) FlushLate(by time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lateBy = by
}

func lockFree(method string) bool {
	return method == "ListRoutes" || method == "ListNexthops" || method == "ListAddresses"
}

// later flushes, now or when FlushLate says. The lock is held.
func (f *Fake) later(flush func()) {
	if f.lateBy == 0 {
		flush()
		return
	}
	f.late = append(f.late, flush)
	time.AfterFunc(f.lateBy, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.settle()
	})
}

// settle ends the flushes under way. The lock is held.
func (f *Fake) settle() {
	for len(f.late) > 0 {
		flush := f.late[0]
		f.late = f.late[1:]
		flush()
	}
}

// Before has the hook called at the start of every call that is not Foreign's, with the method's name and without the lock: the place
// for what another program does just then. It may use Foreign, Wire and the like; nil takes it away.
func (f *Fake) Before(hook func(method string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = hook
}

func (f *Fake) begin(method string) {
	f.mu.Lock()
	hook := f.before
	f.mu.Unlock()
	if hook != nil {
		hook(method)
	}
}

// Calls says how often a method was called ("WriteRoutes"), and for "RouteOps", "NeighbourOps" and "NexthopOps" how many operations.
func (f *Fake) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// WithoutIPIP makes the Fake refuse ipip devices as a kernel without the module does.
func (f *Fake) WithoutIPIP() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noIPIP = true
}

// Close makes every later call fail and ends the watches.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for w := range f.watchers {
		w.end()
		delete(f.watchers, w)
	}
	return nil
}

// watcher is one Watch: an unbounded queue and the goroutine that empties it.
type watcher struct {
	own   bool // of the Fake itself, not of Foreign
	mu    sync.Mutex
	queue []kernel.Event
	ended bool
	ring  chan struct{} // size 1: there is something in the queue, or the end
}

func (w *watcher) push(e kernel.Event) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

func (w *watcher) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) take() ([]kernel.Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q, w.ended
}

func (w *watcher) run(ctx context.Context, out chan<- kernel.Event) {
	defer close(out)
	for {
		events, ended := w.take()
		for _, e := range events {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		if len(events) > 0 {
			continue
		}
		if ended {
			return
		}
		select {
		case <-w.ring:
		case <-ctx.Done():
			return
		}
	}
}

// Watch delivers every change from now on.
func (f *Fake) Watch(ctx context.Context) (<-chan kernel.Event, error) {
	f.begin("Watch")
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx, "Watch", WatchFails); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	return f.subscribe(ctx, true), nil
}

// MuteAdds makes the Fake one that MutesAdds.
func (f *Fake) MuteAdds() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.muteAdds = true
}

// MutesAdds reports whether MuteAdds was called.
func (f *Fake) MutesAdds() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.muteAdds
}

// subscribe starts a watch; the lock is held.
func (f *Fake) subscribe(ctx context.Context, own bool) <-chan kernel.Event {
	w := &watcher{own: own, ring: make(chan struct{}, 1)}
	f.watchers[w] = true
	out := make(chan kernel.Event, 64)
	go func() {
		w.run(ctx, out)
		f.mu.Lock()
		delete(f.watchers, w)
		f.mu.Unlock()
	}()
	return out
}

// emit delivers an event to every watch, or loses it as the plan says. The lock is held.
func (f *Fake) emit(e kernel.Event) {
	if len(f.watchers) == 0 {
		return
	}
	if err := f.due(EventsLost); err != nil {
		for w := range f.watchers {
			w.lose(err)
		}
		return
	}
	for w := range f.watchers {
		if !w.own || !f.muted {
			w.push(e)
		}
	}
}

// lose marks a loss behind everything that was delivered, once where nothing came in between.
func (w *watcher) lose(err error) {
	w.mu.Lock()
	if n := len(w.queue); n == 0 || w.queue[n-1].Kind != kernel.EventLost {
		w.queue = append(w.queue, kernel.Event{Kind: kernel.EventLost, Err: err})
	}
	w.mu.Unlock()
	w.wake()
}

// LoseEvents tells every watch at once that events were lost, as after an overflow of the socket.
func (f *Fake) LoseEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		w.lose(kernel.FromErrno(syscall.ENOBUFS))
	}
}

// opError is the failure of one operation of a batch, reported after the lock is released.
type opError struct {
	i   int
	err error
}

func report(errs []opError, failed func(int, error)) {
	for _, e := range errs {
		failed(e.i, e.err)
	}
}

var (
	_ kernel.Kernel = (*Fake)(nil)
	_ kernel.Kernel = foreign{}
)
