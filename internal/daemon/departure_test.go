package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// TestStepOf: how far to leave at each moment, and when that changes.
func TestStepOf(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	half := &drain{Since: at, Wait: time.Minute}
	whole := &drain{Since: at, Wait: time.Minute, Everything: true}
	for _, c := range []struct {
		cordoned bool
		drain    *drain
		after    time.Duration
		want     bgp.Leaving
		next     time.Duration // 0 = never
	}{
		{false, nil, 0, bgp.Stays, 0},
		{true, nil, 0, bgp.Shutdown, 0},
		{true, nil, time.Hour, bgp.Shutdown, 0},
		{false, half, 0, bgp.Shutdown, time.Minute},
		{true, half, 59 * time.Second, bgp.Shutdown, time.Minute},
		{false, half, time.Minute, bgp.Withdrawn, 0},
		{false, whole, 59 * time.Second, bgp.Shutdown, time.Minute},
		{false, whole, time.Hour, bgp.Gone, 0},
	} {
		step, next := stepOf(c.cordoned, c.drain, at.Add(c.after))
		if step != c.want || next.IsZero() != (c.next == 0) || c.next != 0 && !next.Equal(at.Add(c.next)) {
			t.Errorf("cordoned %v, %+v, after %v: %v until %v, want %v", c.cordoned, c.drain, c.after, step, next, c.want)
		}
	}
}

// TestDeparture: a drain goes its steps, survives the process, and ends when it is told to; Drain returns when it is done.
func TestDeparture(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "caracal.sock")
	var mu sync.Mutex // the former process and the next may both be at it
	var steps []bgp.Leaving
	begin := func(ctx context.Context) *departure {
		d := newDeparture(socket, slog.New(slog.DiscardHandler), func(l bgp.Leaving) {
			mu.Lock()
			defer mu.Unlock()
			steps = append(steps, l)
		})
		go func() { _ = d.Run(ctx) }()
		return d
	}
	want := func(what string, list ...bgp.Leaving) {
		t.Helper()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(steps, list) {
			t.Fatalf("%s: %v, want %v", what, steps, list)
		}
		steps = nil
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := begin(ctx)
		d.setCordoned(true)
		want("cordoned", bgp.Shutdown)
		d.setCordoned(false)
		want("uncordoned", bgp.Stays)
		done := make(chan error, 1)
		go func() { done <- d.Drain(t.Context(), time.Minute, false) }()
		want("drained", bgp.Shutdown)
		time.Sleep(40 * time.Second)
		cancel() // the daemon ends, and the next goes on
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		d = begin(ctx)
		want("after a restart", bgp.Shutdown)
		time.Sleep(19 * time.Second)
		want("not yet")
		time.Sleep(2 * time.Second)
		want("when the wait is over", bgp.Withdrawn)
		if s := d.Status(); s.Step != bgp.Withdrawn || s.Why == "" {
			t.Errorf("status %+v", s)
		}
		if err := d.Drain(t.Context(), time.Minute, true); err != nil {
			t.Fatal(err)
		}
		want("everything too, without announcing anything again", bgp.Gone)
		if err := d.Undrain(); err != nil {
			t.Fatal(err)
		}
		want("undrained", bgp.Stays)
		go func() { done <- d.Drain(t.Context(), time.Minute, false) }()
		want("drained again", bgp.Shutdown)
		if err := d.Undrain(); err != nil {
			t.Fatal(err)
		}
		want("undrained meanwhile", bgp.Stays)
		if err := <-done; err == nil {
			t.Error("who waits for the withdrawal is told that it has happened")
		}
		begin(ctx)
		want("a new process after that")
		cancel()
		synctest.Wait()
	})
	for _, text := range []string{"{", "", "[]"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(socket), "drain.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		newDeparture(socket, slog.New(slog.DiscardHandler), func(l bgp.Leaving) { t.Errorf("%q makes the node leave: %v", text, l) })
	}
}

// TestLeavingReachesTheSpeaker: the step is in the configuration, with everything else as it was.
func TestLeavingReachesTheSpeaker(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	c.step(datastore.Update{State: sampleState(cluster.BackendBird, true), InSync: true})
	before := *k.speaker
	for _, l := range []bgp.Leaving{bgp.Shutdown, bgp.Gone, bgp.Stays} {
		c.setLeaving(l)
		c.plan(c.take())
		if k.speaker.Leaving != l || (len(k.speaker.Originate) == 0) != (l == bgp.Gone) {
			t.Errorf("%v: the Speaker is asked for %v with %d prefixes", l, k.speaker.Leaving, len(k.speaker.Originate))
		}
	}
	if !k.speaker.Equal(&before) {
		t.Error("after it the configuration is another one")
	}
}
