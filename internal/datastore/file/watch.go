package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// How events are gathered: until none came for quiet, but not longer than burst after the first.
const (
	quiet = 5 * time.Millisecond
	burst = 50 * time.Millisecond
)

// A directory that cannot be read, or a file, is tried again this often; so is everything where the kernel announces no
// changes at all.
const (
	retryDir  = 200 * time.Millisecond
	retryFile = time.Second
	blindPoll = time.Second
)

// A directory that was replaced is being filled again: what was in the old one and is not in the new one is given up
// when the new one has been left alone for calm, or after longest at the latest.
const (
	calm    = time.Second
	longest = 10 * time.Second
)

// watch is one run of Watch. It belongs to the goroutine that runs it.
type watch struct {
	*ledger
	s    *Store
	sink func(datastore.Update)

	notify *fsnotify.Watcher // nil: there is none to be had
	seen   stamp             // the directory that notify watches
	dir    stamp             // the directory that was read last
	dirErr error
	// replaced is when another directory was found in the place of the one before.
	replaced  time.Time
	armErr    string // why the directory cannot be watched
	lastEvent time.Time
	lastSweep time.Time

	dirty map[string]bool
	all   bool // every file is to be looked at
	first time.Time
	fire  time.Time // when the gathered events are worked on; zero: there are none
	poll  time.Time

	read   bool // the directory was read once
	last   datastore.Update
	called bool
}

// Watch implements datastore.Watcher. Several may run at a time.
func (s *Store) Watch(ctx context.Context, sink func(datastore.Update)) error {
	w := s.newWatch(sink)
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		s.opts.Log.Warn("changes of files are not announced, so they are looked for every second", logDir, s.dir, logErr, err)
	} else {
		defer notify.Close()
		w.notify = notify
	}
	return w.run(ctx)
}

func (s *Store) newWatch(sink func(datastore.Update)) *watch {
	w := &watch{ledger: newLedger(s.dir), s: s, sink: sink, dirty: map[string]bool{}}
	w.intake.AdvertiseClusterIPs(s.opts.ClusterIPs)
	return w
}

func (w *watch) run(ctx context.Context) error {
	var events chan fsnotify.Event
	var failures chan error
	if w.notify != nil {
		events, failures = w.notify.Events, w.notify.Errors
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.all = true
	for {
		now := time.Now()
		if err := ctx.Err(); err != nil {
			return err
		}
		w.work(now)
		timer.Reset(time.Until(w.wake()))
		select {
		case <-ctx.Done():
		case ev := <-events:
			w.event(ev, time.Now())
		case err := <-failures:
			// The queue ran over, or the kernel could not read it: what was lost is unknown.
			w.s.opts.Log.Debug("look at all files after a lost event", logDir, w.s.dir, logErr, err)
			w.gather(time.Now())
			w.all = true
		case <-timer.C:
		}
	}
}

// event notes what is to be looked at.
func (w *watch) event(ev fsnotify.Event, now time.Time) {
	name := filepath.Base(ev.Name)
	switch {
	case name == lockName || strings.HasPrefix(name, tempPrefix):
		return
	case filepath.Clean(ev.Name) == w.s.dir || strings.HasPrefix(name, ".."):
		w.all = true // the directory itself, or the hidden link through which the files of a mounted ConfigMap lead
	case manifest(name):
		w.dirty[name] = true
	default:
		return
	}
	w.gather(now)
}

func (w *watch) gather(now time.Time) {
	w.lastEvent = now
	if w.fire.IsZero() {
		w.first = now
	}
	w.fire = now.Add(quiet)
	if limit := w.first.Add(burst); w.fire.After(limit) {
		w.fire = limit
	}
}

// wake returns when there is something to do without an event.
func (w *watch) wake() time.Time {
	next := w.poll
	if !w.fire.IsZero() && w.fire.Before(next) {
		next = w.fire
	}
	if at := w.ledger.next; !at.IsZero() && at.Before(next) && w.dirErr == nil {
		next = at
	}
	return next
}

// work does what is due.
func (w *watch) work(now time.Time) {
	gathered := !w.fire.IsZero() && !now.Before(w.fire)
	if now.Before(w.wake()) && w.read {
		return
	}
	if (gathered && w.all) || !now.Before(w.poll) {
		w.scan(now)
	}
	if gathered || w.all {
		w.fire, w.all = time.Time{}, false
	}
	if w.dirErr == nil {
		w.look(now)
	}
	w.publish()
}

// scan reads the directory and marks every file in it, and every file that was, to be looked at.
func (w *watch) scan(now time.Time) {
	w.poll = now.Add(w.s.opts.Poll)
	if w.notify == nil {
		w.poll = now.Add(min(blindPoll, w.s.opts.Poll))
	}
	w.arm()
	names, id, err := listDir(w.s.dir)
	if err == nil && w.read && id != w.dir {
		w.replaced, w.lastEvent = now, now
		if len(names) == 0 && len(w.files) > 0 {
			// More likely a mount that is missing than a wish to have no cluster.
			err = fmt.Errorf("%s was replaced by an empty directory: put the manifests back, or restart to begin without them", w.s.dir)
		}
	}
	w.dirErr = err
	if err != nil {
		w.poll = now.Add(min(retryDir, w.s.opts.Poll))
		return
	}
	w.dir, w.read = id, true
	for _, name := range names {
		w.dirty[name] = true
	}
	for name := range w.files {
		w.dirty[name] = true
	}
	if now.Sub(w.lastSweep) > tempAge {
		w.lastSweep = now
		w.s.sweep(now)
	}
}

// arm watches the directory that is in place now. It is done before the directory is read, so that no change falls
// between the two.
func (w *watch) arm() {
	if w.notify == nil {
		return
	}
	id, err := dirID(w.s.dir)
	if err == nil && id == w.seen {
		return
	}
	_ = w.notify.Remove(w.s.dir) // it may be gone
	w.seen = stamp{}
	if err != nil {
		return // whoever lists the directory says so
	}
	err = w.notify.Add(w.s.dir)
	if err == nil {
		w.seen = id
	} else if text(err) != w.armErr {
		w.s.opts.Log.Warn("changes of files are not announced, so they are looked for every second", logDir, w.s.dir, logErr, err)
	}
	w.armErr = text(err)
}

// look examines the files that are marked and those whose time has come.
func (w *watch) look(now time.Time) {
	for name := range w.due(now) {
		w.dirty[name] = true
	}
	names := slices.Sorted(keysOf(w.dirty))
	if len(names) >= parallelFrom {
		w.s.shelf.loadAll(names) // faster than one after the other, below
	}
	for _, name := range names {
		p, err := w.s.shelf.load(name)
		if errors.Is(err, fs.ErrNotExist) {
			if id, err := dirID(w.s.dir); err != nil || id != w.dir {
				w.all, w.poll = true, now // not the file is gone but the directory
				return
			}
			w.gone(name, now, w.patience())
		} else {
			w.found(name, p, err, now)
		}
		delete(w.dirty, name)
	}
	if w.unarmed() {
		w.poll = now.Add(min(blindPoll, w.s.opts.Poll))
	}
}

func (w *watch) unarmed() bool { return w.notify != nil && w.seen == stamp{} }

// patience returns the earliest time at which a missing file is given up.
func (w *watch) patience() time.Time {
	if w.replaced.IsZero() {
		return time.Time{}
	}
	at, limit := w.lastEvent.Add(calm), w.replaced.Add(longest)
	if at.After(limit) {
		return limit
	}
	return at
}

// publish calls the sink if there is something to tell.
func (w *watch) publish() {
	now := datastore.Update{State: w.state(), InSync: w.last.InSync, Err: w.failure()}
	if !now.InSync {
		now.InSync = w.dirErr == nil && w.read && w.settled()
		if !now.InSync && now.Err == nil && !w.called {
			return // nothing is wrong, it just takes a moment
		}
	}
	if w.called && now.State == w.last.State && now.InSync == w.last.InSync && text(now.Err) == text(w.last.Err) {
		return
	}
	w.last, w.called = now, true
	w.sink(now)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// failure says why not all can be read.
func (w *watch) failure() error {
	if w.dirErr != nil {
		return fmt.Errorf("read datastore: %w", w.dirErr)
	}
	if err := w.unread(); err != nil {
		return fmt.Errorf("read datastore: %w", err)
	}
	if p := w.unknown(); p != nil && !w.last.InSync {
		return fmt.Errorf("read datastore for the first time: %s", describe(p))
	}
	return nil
}

// describe writes a problem in one line.
func describe(p *cluster.Problem) string {
	return fmt.Sprintf("%s, line %d: %s: %s %s", p.File, p.Line, p.Object, p.Field, p.Text)
}
