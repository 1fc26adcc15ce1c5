package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scriptedTask notes in log when it stops, after taking its time about it.
type scriptedTask struct {
	name string
	slow time.Duration
	fail <-chan error
	note func(string)
}

func (t scriptedTask) String() string { return t.name }

func (t scriptedTask) Run(ctx context.Context) error {
	select {
	case err := <-t.fail:
		return err
	case <-ctx.Done():
		time.Sleep(t.slow)
		t.note(t.name)
		return ctx.Err()
	}
}

func TestStagesStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var stopped []string
		note := func(s string) { mu.Lock(); stopped = append(stopped, s); mu.Unlock() }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- runStages(ctx, []stage{
				{scriptedTask{name: "programmer", slow: time.Second, note: note}},
				{scriptedTask{name: "speaker", note: note}},
				{scriptedTask{name: "server", note: note}},
			})
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("stopping when asked to: %v", err)
		}
		if want := []string{"programmer", "speaker", "server"}; !slices.Equal(stopped, want) {
			t.Fatalf("stopped in order %v, want %v: the Speaker closed its sessions under a running programmer", stopped, want)
		}
	})
}

func TestFailedTaskStopsTheOthersAndIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan error, 1)
		stopped := make(chan string, 1)
		boom := errors.New("socket gone")
		fail <- boom
		err := runStages(t.Context(), []stage{
			{scriptedTask{name: "other", note: func(s string) { stopped <- s }}},
			{scriptedTask{name: "netlink", fail: fail}},
		})
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), "netlink") {
			t.Fatalf("got %v, want the failure of netlink by name", err)
		}
		if got := <-stopped; got != "other" {
			t.Fatalf("%s stopped, want the other task", got)
		}
	})
}

func TestTaskThatEndsByItselfIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan error, 1)
		fail <- nil
		if err := runStages(t.Context(), []stage{{scriptedTask{name: "watcher", fail: fail}}}); err == nil {
			t.Fatal("a task that ended by itself went unnoticed")
		}
	})
}

func TestHangingStageDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		stopped := make(chan string, 2)
		note := func(s string) { stopped <- s }
		err := runStages(ctx, []stage{
			{scriptedTask{name: "stuck", slow: time.Hour, note: note}},
			{scriptedTask{name: "speaker", note: note}},
		})
		if err == nil || !strings.Contains(err.Error(), "stuck") {
			t.Fatalf("got %v, want the stage that did not stop by name", err)
		}
		if got := <-stopped; got != "speaker" {
			t.Fatalf("%s stopped first", got)
		}
		<-stopped
	})
}
