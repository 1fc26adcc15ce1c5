package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/caracal-net/caracal/internal/calico"
)

// How a request that failed is repeated: after firstPause, then longer by pauseGrowth each time up to lastPause, each
// time between half and one and a half of that. With 5,000 nodes, of which each has eight feeds, an API server that is
// down hears 2,700 attempts to connect a second; the first of the eight that gets through wakes the others.
const (
	firstPause  = 200 * time.Millisecond
	lastPause   = 15 * time.Second
	pauseGrowth = 1.7
	// wakeSpread is the time over which feeds that are woken by another start again.
	wakeSpread = 300 * time.Millisecond
)

// decodeRetry is how long client-go goes on with a watch whose stream breaks in the middle of an event, before it lists
// all again.
const decodeRetry = time.Minute

// feed follows the objects of one kind. Its goroutine is client-go's Reflector, which lists and watches; requests that fail
// are repeated in here, where it is told to the loop that they do.
type feed struct {
	s     *Store
	form  form
	kind  calico.Kind
	only  string // field selector of the objects that are followed; empty: as selection has it
	index int
	notes chan<- note
	wake  *wakeup

	stream *stream // the last one that was opened
	sieve  *sieve  // of that stream; nil once there was a list

	mu      sync.Mutex
	fails   int    // in a row
	failure string // as it was told
}

// note is what a feed tells the loop.
type note struct {
	feed    int
	what    what
	items   []*item
	passed  []passing
	version string
	err     error // of a failed request; nil: requests go through
}

type what uint8

const (
	replaced what = iota // items are all there is
	changed              // items have changed
	deleted              // items are gone
	reached              // nothing has changed up to version
	passed               // items have other versions and are otherwise as they were
	status               // err has changed
)

// run follows the kind until ctx ends.
func (f *feed) run(ctx context.Context) {
	quiet := klog.NewContext(ctx, logr.Discard()) // what matters is told by fail
	var r *cache.Reflector
	for ctx.Err() == nil {
		if r == nil {
			r = f.reflector(ctx)
		}
		if err := r.ListAndWatchWithContext(quiet); errors.Is(err, errWentBack) {
			r = nil // the new one does not know the version that the server has lost
		}
		// Here a list is due again. It was not a failed request that got us here, so this is only to be slow to repeat
		// what for whatever reason ends at once.
		f.rest(ctx, firstPause)
	}
}

func (f *feed) reflector(ctx context.Context) *cache.Reflector {
	logger := logr.Discard()
	r := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc:  f.list,
		WatchFuncWithContext: f.watch,
	}, nil, &sink{f, ctx}, cache.ReflectorOptions{
		Logger: &logger, Name: string(f.kind), TypeDescription: string(f.kind),
		// For what the Reflector repeats by itself, which is little: requests are repeated by try.
		Backoff: &wait.Backoff{Duration: firstPause, Factor: pauseGrowth, Jitter: 1, Steps: 20, Cap: lastPause},
	})
	r.MaxInternalErrorRetryDuration = decodeRetry
	return r
}

// selection are the options that choose what is read.
func (f *feed) selection() metav1.ListOptions {
	if f.only != "" {
		return metav1.ListOptions{FieldSelector: f.only}
	}
	return selection(f.kind)
}

// selectOf adds the selection to what client-go asks for.
func (f *feed) selectOf(opts *metav1.ListOptions) {
	s := f.selection()
	opts.FieldSelector, opts.LabelSelector = s.FieldSelector, s.LabelSelector
}

// list reads one page.
func (f *feed) list(ctx context.Context, opts metav1.ListOptions) (out runtime.Object, err error) {
	f.selectOf(&opts)
	f.sieve = nil // it knows nothing of what a list says
	err = f.try(ctx, func() error {
		page, err := f.page(ctx, opts)
		if err == nil {
			out, err = f.form.toList(f.kind, page)
		}
		return err
	})
	return out, err
}

func (f *feed) page(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	if f.kind == calico.KindNode {
		return f.s.metas.Resource(nodeResource).List(ctx, opts)
	}
	return f.s.resource(f.form, f.kind).List(ctx, opts)
}

// errWentBack: the server's newest version is older than one that was seen.
var errWentBack = errors.New("the API server's data is older than what was read before")

// watch opens a stream.
func (f *feed) watch(ctx context.Context, opts metav1.ListOptions) (out watch.Interface, err error) {
	f.selectOf(&opts)
	err = f.try(ctx, func() error {
		if opts.SendInitialEvents == nil {
			if err := f.ahead(ctx, opts.ResourceVersion); err != nil {
				return err
			}
		}
		var err error
		out, err = f.watchRaw(ctx, opts)
		return err
	})
	return out, err
}

// ahead makes sure that a watch which goes on at a version does not lie in the server's future. After etcd was restored
// from a backup it does, and the server would accept it and send nothing until it has caught up.
func (f *feed) ahead(ctx context.Context, version string) error {
	was := number(version)
	if was == 0 {
		return nil
	}
	opts := f.selection()
	opts.Limit = 1
	page, err := f.page(ctx, opts)
	if err != nil {
		return err
	}
	if l, ok := page.(metav1.ListInterface); ok && number(l.GetResourceVersion()) < was {
		return errWentBack
	}
	return nil
}

// try makes a request until it goes through, unless its failure is one that client-go has an answer to.
func (f *feed) try(ctx context.Context, do func() error) error {
	for {
		err := do()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			f.worked(ctx)
			return nil
		}
		if answered(err) {
			return err
		}
		f.rest(ctx, f.failed(ctx, err))
	}
}

// answered reports whether client-go lists again, or in another way, on an error.
func answered(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || // 410: the version is too old
		apierrors.IsInvalid(err) || // 422: a server without streaming lists
		isTooNew(err) || errors.Is(err, errWentBack)
}

// worked tells that requests go through again.
func (f *feed) worked(ctx context.Context) {
	f.mu.Lock()
	failed := f.failure != ""
	f.fails, f.failure = 0, ""
	f.mu.Unlock()
	if failed {
		f.send(ctx, note{what: status})
		f.wake.all()
	}
}

// failed tells of a failure that was not told yet and returns how long to wait.
func (f *feed) failed(ctx context.Context, err error) time.Duration {
	err = explain(err)
	f.mu.Lock()
	fresh := f.failure != err.Error()
	pause := firstPause
	for range f.fails {
		pause = min(time.Duration(float64(pause)*pauseGrowth), lastPause)
	}
	f.fails, f.failure = f.fails+1, err.Error()
	f.mu.Unlock()
	if fresh {
		f.send(ctx, note{what: status, err: err})
	}
	return pause
}

// rest waits, for a time that differs from node to node. It ends early when another feed gets through.
func (f *feed) rest(ctx context.Context, pause time.Duration) {
	woken := f.wake.wait()
	t := time.NewTimer(pause/2 + rand.N(pause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return
	case <-t.C:
		return
	case <-woken:
	}
	t.Reset(rand.N(wakeSpread))
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// send hands a note to the loop. While the loop is busy the stream waits, and the API server may cut it off; it is
// then taken up where it ended. It reports whether the loop has it.
func (f *feed) send(ctx context.Context, n note) bool {
	n.feed = f.index
	select {
	case f.notes <- n:
		return true
	case <-ctx.Done():
		return false
	}
}

// sink is the store into which a Reflector puts what it reads.
type sink struct {
	f   *feed
	ctx context.Context
}

func (s *sink) Add(obj any) error { return s.put(changed, obj) }

func (s *sink) Update(obj any) error { return s.put(changed, obj) }

func (s *sink) Delete(obj any) error { return s.put(deleted, obj) }

func (s *sink) put(w what, obj any) error {
	i := obj.(*item) // toItem has made all of them
	s.f.send(s.ctx, note{what: w, items: []*item{i}, version: i.ResourceVersion})
	return nil
}

func (s *sink) Replace(objects []any, version string) error {
	items := make([]*item, len(objects))
	for i, obj := range objects {
		items[i] = obj.(*item)
	}
	s.f.send(s.ctx, note{what: replaced, items: items, version: version})
	return nil
}

// Bookmark tells how far the server has come. The loop needs it to recognise a server that went back.
func (s *sink) Bookmark(version string) error {
	s.f.send(s.ctx, note{what: reached, version: version})
	return nil
}

// Resync has nothing to do: what is in force is never forgotten.
func (*sink) Resync() error { return nil }

// wakeup wakes everybody who waits.
type wakeup struct {
	mu sync.Mutex
	c  chan struct{}
}

func newWakeup() *wakeup { return &wakeup{c: make(chan struct{})} }

func (w *wakeup) wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.c
}

func (w *wakeup) all() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.c)
	w.c = make(chan struct{})
}
