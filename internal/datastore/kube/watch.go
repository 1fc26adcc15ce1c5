package kube

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// How changes are gathered: until none came for quiet, but not longer than burst after the first. (As package file.)
const (
	quiet = 5 * time.Millisecond
	burst = 50 * time.Millisecond
)

// backlog is how many notes may wait for the loop.
const backlog = 256

// watching is one run of Watch. It belongs to the goroutine that runs it.
type watching struct {
	s       *Store
	sink    func(datastore.Update)
	intake  *datastore.Intake
	shelves []*shelf
	looking error // why the API group is not known
	demands []demand

	first, fire time.Time // the first gathered change; when it is told. Zero: there is none
	last        datastore.Update
	called      bool
}

// Watch implements datastore.Watcher. Several may run at a time.
func (s *Store) Watch(ctx context.Context, sink func(datastore.Update)) error {
	ctx = withHaste(ctx)
	w := &watching{s: s, sink: sink, intake: datastore.NewIntake()}
	w.intake.AdvertiseClusterIPs(s.opts.ClusterIPs)
	f, err := w.discover(ctx)
	if err != nil {
		return err
	}
	notes, wake, marks := make(chan note, backlog), newWakeup(), marker{maphash.MakeSeed()}
	var feeds sync.WaitGroup
	defer feeds.Wait()
	follow := func(ctx context.Context, kind calico.Kind, only string) *shelf {
		sh := newShelf(kind, marks)
		fd := &feed{s: s, form: f, kind: kind, only: only, index: len(w.shelves), notes: notes, wake: wake}
		w.shelves = append(w.shelves, sh)
		feeds.Go(func() { fd.run(ctx) })
		return sh
	}
	for _, kind := range watched() {
		follow(ctx, kind, "").needed = true
	}
	w.demands = []demand{newSecrets(ctx, follow), newServices(ctx, follow)}
	if s.opts.PodsOf != "" {
		follow(ctx, calico.KindPod, "spec.nodeName="+s.opts.PodsOf).needed = true
	} else if s.opts.Node != "" {
		w.demands = append(w.demands, &pods{ctx: ctx, start: follow, node: s.opts.Node})
	}
	return w.run(ctx, notes)
}

// discover finds the API group, however long it takes.
func (w *watching) discover(ctx context.Context) (form, error) {
	lookout := &feed{s: w.s, wake: newWakeup(), notes: make(chan note, 1)} // only for its pauses
	for {
		f, err := w.s.form(ctx)
		if ctx.Err() != nil {
			return f, ctx.Err()
		}
		if err == nil {
			w.looking = nil
			return f, nil
		}
		w.looking = explain(err)
		w.publish(time.Now())
		lookout.mu.Lock()
		lookout.failure = w.looking.Error() // told already
		lookout.mu.Unlock()
		lookout.rest(ctx, lookout.failed(ctx, err))
	}
}

func (w *watching) run(ctx context.Context, notes <-chan note) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if wake := w.wake(); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-notes:
			w.take(n, time.Now())
		case <-timer.C:
		}
		if now := time.Now(); !w.wake().IsZero() && !now.Before(w.wake()) {
			w.fire = time.Time{}
			w.publish(now)
		}
	}
}

// wake returns when there is something to do without a note; zero: never.
func (w *watching) wake() time.Time {
	next := w.fire
	for _, s := range w.shelves {
		if at := s.doubt.until; s.doubt.text != "" && s.doubt.passed() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// take works on one note.
func (w *watching) take(n note, now time.Time) {
	s := w.shelves[n.feed]
	if s.dropped {
		return
	}
	switch n.what {
	case status:
		if n.err != nil {
			w.s.opts.Log.Warn("cannot read from the API server; what was read last stays in force", logHost, w.s.host, logKind, s.kind, logErr, n.err)
		} else if s.err != nil {
			w.s.opts.Log.Info("can read from the API server again", logHost, w.s.host, logKind, s.kind)
		}
		s.err = n.err
	case replaced:
		s.replace(w.intake, n.items, number(n.version), now, w.s.opts.Doubt)
	case changed, deleted:
		if !s.change(w.intake, n.what, n.items[0]) {
			return
		}
	case passed:
		s.pass(n.passed)
		if s.doubt.text == "" {
			return
		}
	case reached:
		s.reach(number(n.version))
		if s.doubt.text == "" {
			return
		}
	}
	w.gather(now)
}

func (w *watching) gather(now time.Time) {
	if w.fire.IsZero() {
		w.first = now
	}
	w.fire = now.Add(quiet)
	if limit := w.first.Add(burst); w.fire.After(limit) {
		w.fire = limit
	}
}

// publish calls the sink if there is something to tell.
func (w *watching) publish(now time.Time) {
	var problems []cluster.Problem
	for _, d := range w.demands { // none until the API group is known
		problems = append(problems, d.follow(w.intake)...)
	}
	w.intake.Stray(problems)
	u := datastore.Update{State: w.intake.State(), InSync: w.last.InSync || w.synced(), Err: w.failure(), Suspect: w.suspect(now)}
	if !u.InSync && u.Err == nil && !w.called {
		return // nothing is wrong, it just takes a moment
	}
	if w.called && u.State == w.last.State && u.InSync == w.last.InSync && text(u.Err) == text(w.last.Err) && u.Suspect == w.last.Suspect {
		return
	}
	if u.Suspect != w.last.Suspect {
		if u.Suspect != "" {
			w.s.opts.Log.Warn("the API server's data is suspect", logHost, w.s.host, logWhy, u.Suspect)
		} else {
			w.s.opts.Log.Info("the API server's data is no longer suspect", logHost, w.s.host)
		}
	}
	w.last, w.called = u, true
	w.sink(u)
}

// synced reports whether every kind was read once.
func (w *watching) synced() bool {
	for _, s := range w.shelves {
		if (s.needed || s.tried && s.err == nil) && !s.dropped && !s.synced {
			return false
		}
	}
	return len(w.shelves) > 0
}

// failure returns why a kind cannot be read, of the first that cannot.
func (w *watching) failure() error {
	if w.looking != nil {
		return fmt.Errorf("read datastore %s: %w", w.s.host, w.looking)
	}
	for _, s := range w.shelves {
		if s.needed && !s.dropped && s.err != nil {
			return fmt.Errorf("read datastore %s: %s: %w", w.s.host, s.kind, s.err)
		}
	}
	return nil
}

func (w *watching) suspect(now time.Time) string {
	why := ""
	for _, s := range w.shelves {
		s.doubt.settle(now)
		if why == "" {
			why = s.doubt.text
		}
	}
	return why
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// explain returns an error without what differs from attempt to attempt, and with a remedy where there is one.
func explain(err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; the ClusterRole in deploy/ allows it", err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w; is its CustomResourceDefinition installed?", err)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op != "dial" {
		err = fmt.Errorf("%s: %w", op.Op, op.Err) // without our own port
	}
	return err
}
