package kube

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/datastore"
)

// deadline is far more than anything here takes, on a machine that does other things as well.
const deadline = time.Minute

// observer collects what a Watcher delivers.
type observer struct {
	t       *testing.T
	mu      sync.Mutex
	updates []datastore.Update
	bell    chan struct{}
}

// observe runs Watch until the test ends.
func observe(t *testing.T, s *Store) *observer {
	t.Helper()
	o := &observer{t: t, bell: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, o.sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
	})
	return o
}

func (o *observer) sink(u datastore.Update) {
	o.mu.Lock()
	o.updates = append(o.updates, u)
	o.mu.Unlock()
	select {
	case o.bell <- struct{}{}:
	default:
	}
}

func (o *observer) last() (u datastore.Update, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n = len(o.updates); n > 0 {
		u = o.updates[n-1]
	}
	return u, n
}

// until waits for an update that satisfies want, and returns it.
func (o *observer) until(what string, want func(datastore.Update) bool) datastore.Update {
	o.t.Helper()
	end := time.After(deadline)
	for {
		u, n := o.last()
		if n > 0 && want(u) {
			return u
		}
		select {
		case <-o.bell:
		case <-end:
			o.t.Fatalf("no update with %s; the last of %d is %s", what, n, show(u))
		}
	}
}

// every checks all updates so far.
func (o *observer) every(what string, want func(datastore.Update) bool) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.updates) == 0 {
		o.t.Error("no update at all")
	}
	for i, u := range o.updates {
		if !want(u) {
			o.t.Errorf("update %d of %d is not %s: %s", i+1, len(o.updates), what, show(u))
		}
	}
}

func show(u datastore.Update) string {
	var blocks []string
	for _, b := range u.State.Blocks() {
		blocks = append(blocks, b.CIDR.String())
	}
	return fmt.Sprintf("nodes %v, blocks %v, %d pools, in sync %v, error %v, suspect %q, problems %+v",
		names(u), blocks, len(u.State.Pools()), u.InSync, u.Err, u.Suspect, u.State.Problems())
}

func names(u datastore.Update) (names []string) {
	for _, n := range u.State.Nodes() {
		names = append(names, n.Name)
	}
	return names
}

// Conditions.
func hasNodes(want ...string) func(datastore.Update) bool {
	return func(u datastore.Update) bool { return u.InSync && slices.Equal(names(u), want) }
}

func failed(u datastore.Update) bool { return u.Err != nil }

func healed(u datastore.Update) bool { return u.InSync && u.Err == nil }
