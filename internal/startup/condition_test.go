package startup

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

func TestCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ready atomic.Bool
		var backend atomic.Value
		backend.Store(cluster.BackendBird)
		k := &fakeCluster{}
		c := &Condition{Cluster: k, NodeRef: "a", Log: slog.New(slog.DiscardHandler),
			Ready: func() (bool, string) { return ready.Load(), "BGP" }, Backend: func() cluster.Backend { return backend.Load().(cluster.Backend) }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		defer func() { cancel(); <-done }()
		want := func(when string, writes ...string) {
			t.Helper()
			k.mu.Lock()
			defer k.mu.Unlock()
			if got := strings.Join(k.writes, "; "); got != strings.Join(writes, "; ") {
				t.Errorf("%s: wrote %q, want %q", when, got, writes)
			}
			k.writes = nil
		}
		const up, down = "a false CalicoIsUp", "a true CalicoIsDown"

		after(20 * time.Second)
		want("not ready yet")
		ready.Store(true)
		after(2 * time.Second)
		want("ready", up)
		ready.Store(false)
		after(20 * time.Second)
		ready.Store(true)
		after(20 * time.Second)
		want("a restart is no outage")
		ready.Store(false)
		after(29 * time.Second)
		after(3 * time.Second)
		k.mu.Lock()
		n := len(k.writes)
		last := k.writes[n-1]
		k.writes = nil
		k.mu.Unlock()
		if last != down || n > 2 {
			t.Errorf("outage: %d writes, the last %q", n, last)
		}
		ready.Store(true)
		after(2 * time.Second)
		want("back", up)
		after(3 * time.Minute)
		want("looked at, because others write it too", up, up, up)

		k.mu.Lock()
		k.err = errors.New("forbidden")
		k.mu.Unlock()
		after(time.Minute)
		ready.Store(false)
		after(5 * time.Minute)
		k.mu.Lock()
		if n := len(k.writes); n < 5 || n > 20 {
			t.Errorf("%d tries in six minutes", n)
		}
		k.err, k.writes = nil, nil
		k.mu.Unlock()
		after(31 * time.Second)
		want("written at last", down)

		backend.Store(cluster.BackendNone)
		ready.Store(true)
		after(10 * time.Minute)
		want("somebody else's network")
	})
}
