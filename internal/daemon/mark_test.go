package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// patched is a datastore that takes patches, but the first.
type patched struct {
	datastore.Store
	took []bool
	fail int
}

func (p *patched) PatchNode(_ context.Context, _ string, patch datastore.NodePatch) error {
	if p.fail > 0 {
		p.fail--
		return errors.New("not now")
	}
	p.took = append(p.took, *patch.Leaving)
	return nil
}

// TestMark: that a node is about to leave is told where reflectors are elected, taken back, and tried again.
func TestMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &patched{fail: 2}
		m := newMark(store, "a", slog.New(slog.DiscardHandler), false)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		state := func(leaving bool, count int) {
			conf := cluster.DefaultBGP()
			conf.Reflection.Count = count
			m.setState(cluster.Build(cluster.Objects{Nodes: []*cluster.Node{{Name: "a", Leaving: leaving}}, BGP: conf}))
		}
		after := func(what string, want int, last bool) {
			t.Helper()
			time.Sleep(5 * time.Minute) // of the bubble's clock
			synctest.Wait()
			if len(store.took) != want || want > 0 && store.took[want-1] != last {
				t.Errorf("%s: written %v, want %d, the last %v", what, store.took, want, last)
			}
		}
		m.setLeaving(bgp.Shutdown)
		after("nothing is known", 0, false)
		state(false, 0)
		after("nobody is elected", 0, false)
		state(false, 3)
		after("somebody is", 1, true)
		state(true, 3)
		after("the datastore says so", 1, true)
		m.setLeaving(bgp.Stays)
		after("it stays", 2, false)
		m.setLeaving(bgp.Withdrawn)
		after("the datastore still says so", 2, false)
		state(true, 0)
		after("nobody is elected any more", 3, false)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestMarkAfterRestart: what the former process wrote is taken back only when it is known that the Node is cordoned no more.
func TestMarkAfterRestart(t *testing.T) {
	for _, c := range []struct {
		cordoned bool
		want     []bool
	}{{true, nil}, {false, []bool{false}}} {
		synctest.Test(t, func(t *testing.T) {
			store, log := &patched{}, slog.New(slog.DiscardHandler)
			m := newMark(store, "a", log, true)
			d := newDeparture(filepath.Join(t.TempDir(), "caracal.sock"), log, m.setLeaving)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- m.Run(ctx) }()
			conf := cluster.DefaultBGP()
			conf.Reflection.Count = 3
			m.setState(cluster.Build(cluster.Objects{Nodes: []*cluster.Node{{Name: "a", Leaving: true}}, BGP: conf}))
			time.Sleep(5 * time.Minute) // of the bubble's clock
			synctest.Wait()
			if len(store.took) > 0 {
				t.Errorf("before it is known whether the Node is cordoned %v is written", store.took)
			}
			d.setCordoned(c.cordoned)
			m.heardCordon()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if !slices.Equal(store.took, c.want) {
				t.Errorf("cordoned %t: written %v, want %v", c.cordoned, store.took, c.want)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
