package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// The defaults of Options.
const (
	DefaultMaxAge   = 7 * 24 * time.Hour
	DefaultGrace    = 10 * time.Second
	DefaultInterval = 10 * time.Second
)

// keptFor is how long after the datastore's first word the kept State comes along with it.
const keptFor = time.Minute

// share is how much longer than the last writing the pause before the next one is.
const share = 200

// Options say where and how States are kept.
type Options struct {
	File string // where the State is kept
	Node string // whose State it is
	Log  *slog.Logger
	// MaxAge is how old a State may be to be used, 0 = DefaultMaxAge.
	MaxAge time.Duration
	// Grace is how long the datastore may take before the kept State is used, 0 = DefaultGrace.
	Grace time.Duration
	// Good reports whether the newest State may take the place of the kept one; nil: always.
	Good func() bool
	// Interval is the least time between two writings, 0 = DefaultInterval.
	Interval time.Duration
}

// Watcher is a datastore.Watcher with a memory.
type Watcher struct {
	source datastore.Watcher
	opts   Options

	mu     sync.Mutex // held while the sink is called
	sink   func(datastore.Update)
	last   datastore.Update // of the source
	synced bool             // the source was in sync once
	stale  *cluster.State   // of the file, once it was read
	at     time.Time        // of stale
	loaded bool             // the file was tried
	until  time.Time        // stale is told as Kept

	keep  *cluster.State // to be written
	dirty chan struct{}  // size 1
}

// New puts a memory before a Watcher.
func New(source datastore.Watcher, o Options) *Watcher {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	return &Watcher{source: source, opts: o, dirty: make(chan struct{}, 1)}
}

// Watch implements datastore.Watcher.
func (w *Watcher) Watch(ctx context.Context, sink func(datastore.Update)) error {
	w.sink = sink
	var tasks sync.WaitGroup
	inner, cancel := context.WithCancel(ctx)
	tasks.Go(func() { w.remember(inner) })
	tasks.Go(func() { w.write(inner) })
	err := w.source.Watch(ctx, w.take)
	cancel()
	tasks.Wait()
	return err
}

// take passes on what the datastore says.
func (w *Watcher) take(u datastore.Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = u
	if u.InSync && !w.synced {
		w.synced, w.until = true, time.Now().Add(keptFor)
		w.load()
	}
	if u.InSync && u.Err == nil && u.Suspect == "" {
		w.keep = u.State
		select {
		case w.dirty <- struct{}{}:
		default:
		}
	}
	w.tell()
}

// tell calls the sink with the datastore's word, or with the memory's until there is one.
func (w *Watcher) tell() {
	u := w.last
	switch {
	case w.stale == nil:
	case !w.synced:
		u.State, u.Stale = w.stale, w.at
	case time.Now().Before(w.until):
		u.Kept, u.KeptAt = w.stale, w.at
	default:
		w.stale = nil // its memory is of more use elsewhere
	}
	w.sink(u)
}

// remember waits for the datastore, and then uses the file.
func (w *Watcher) remember(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(w.opts.Grace):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.synced {
		return
	}
	if w.load(); w.stale != nil {
		w.opts.Log.Warn("the datastore is away: routes are made from the kept state of the cluster, and nothing is removed", logFile, w.opts.File, logTime, w.at)
		w.tell()
	}
}

// load reads the file, once.
func (w *Watcher) load() {
	if w.loaded {
		return
	}
	w.loaded = true
	f, err := os.Open(w.opts.File)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var c *content
	if err == nil {
		defer func() { _ = f.Close() }()
		c, w.at, err = decode(f, w.opts.Node, time.Now(), w.opts.MaxAge)
	}
	if err != nil {
		w.opts.Log.Warn("the kept state of the cluster is not used", logFile, w.opts.File, logErr, err)
		return
	}
	w.stale = cluster.Build(c.Objects)
}

// write keeps States, and the last one when it ends.
func (w *Watcher) write(ctx context.Context) {
	failed := false
	next := time.Now().Add(w.opts.Interval) // the first State is judged before it takes the place of the kept one
	for {
		select {
		case <-ctx.Done():
			if err := w.save(); err != nil && !failed {
				w.opts.Log.Warn("the state of the cluster cannot be kept", logErr, err)
			}
			return
		case <-w.dirty:
		}
		if !pause(ctx, time.Until(next)) {
			w.nudge()
			continue
		}
		if !w.good() { // it may become so without another State
			next = time.Now().Add(w.opts.Interval)
			w.nudge()
			continue
		}
		began := time.Now()
		err := w.save()
		next = time.Now().Add(max(w.opts.Interval, share*time.Since(began)))
		if err != nil && !failed {
			w.opts.Log.Warn("the state of the cluster cannot be kept, trying again when it changes", logErr, err)
		}
		failed = err != nil
	}
}

// nudge gives back a trigger that was taken.
func (w *Watcher) nudge() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// good reports whether the newest State may take the place of the kept one.
func (w *Watcher) good() bool { return w.opts.Good == nil || w.opts.Good() }

// save writes the newest State that has not been written.
func (w *Watcher) save() error {
	if !w.good() {
		return nil
	}
	w.mu.Lock()
	st := w.keep
	w.keep = nil
	w.mu.Unlock()
	if st == nil {
		return nil
	}
	text, err := encode(&content{Node: w.opts.Node, Objects: st.Objects()}, time.Now())
	if err == nil {
		err = store(w.opts.File, text)
	}
	if err != nil {
		w.mu.Lock()
		if w.keep == nil {
			w.keep = st // for the next trigger, or the end
		}
		w.mu.Unlock()
		return fmt.Errorf("keep the state of the cluster in %s: %w", w.opts.File, err)
	}
	return nil
}

// Keys of log records.
const (
	logFile = "file"
	logErr  = "error"
	logTime = "time"
)
