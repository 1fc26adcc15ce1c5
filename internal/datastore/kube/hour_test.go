package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/caracal-net/caracal/internal/datastore"
)

// absentee is an API server in the process, with a pool and nothing else, that can be away. It notes when it is asked for which resource.
type absentee struct {
	mu      sync.Mutex
	away    bool
	asked   map[string][]time.Time
	streams []*io.PipeWriter
}

var errRefused = errors.New("connect: connection refused")

// RoundTrip implements http.RoundTripper.
func (a *absentee) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	resource, q := path.Base(r.URL.Path), r.URL.Query()
	a.asked[resource] = append(a.asked[resource], time.Now())
	if a.away {
		return nil, errRefused
	}
	body, end := io.Pipe()
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Request: r}
	switch {
	case q.Get("sendInitialEvents") == "true":
		resp.StatusCode = noStreaming.status
		go say(end, noStreaming.answer)
	case q.Get("watch") == "true":
		a.streams = append(a.streams, end)
		context.AfterFunc(r.Context(), func() { _ = end.Close() })
	case resource == "ippools":
		go say(end, page("10", "", pool("a", "3", "10.1.0.0/16")))
	default:
		go say(end, emptyList)
	}
	return resp, nil
}

func say(w *io.PipeWriter, text string) {
	_, err := io.WriteString(w, text)
	_ = w.CloseWithError(err)
}

// leave ends every stream and answers nobody from here on.
func (a *absentee) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away, a.asked = true, map[string][]time.Time{}
	for _, s := range a.streams {
		_ = s.CloseWithError(io.ErrUnexpectedEOF)
	}
}

// comeBack answers again, and returns when each resource was asked for meanwhile.
func (a *absentee) comeBack() map[string][]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.away, a.asked = false, map[string][]time.Time{}
	return asked
}

// TestAnHourAway: while the API server is away for an hour the last State stays in force and nobody is woken after he was told so; each kind is asked for now
// and then, at times that no two nodes have in common; when it is back the first kind that gets through brings the others with it.
func TestAnHourAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &absentee{asked: map[string][]time.Time{}}
		store, err := Open(t.Context(), Options{Config: &rest.Config{Host: "http://api", Transport: server}, APIGroup: classic.String()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var got []datastore.Update
		last := func() (datastore.Update, int) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return got[len(got)-1], len(got)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = store.Watch(ctx, func(u datastore.Update) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, u)
			})
		}()
		defer func() { cancel(); <-done }()
		time.Sleep(time.Minute)
		before, _ := last()
		if !healed(before) || len(before.State.Pools()) != 1 {
			t.Fatal(show(before))
		}
		server.leave()
		time.Sleep(time.Minute)
		gone, told := last()
		if !gone.InSync || gone.Err == nil || gone.State != before.State {
			t.Error(show(gone))
		}
		time.Sleep(time.Hour)
		if u, n := last(); n != told || u.State != before.State {
			t.Errorf("%d updates in an hour of nothing", n-told)
		}
		judgePace(t, server.comeBack())
		began := time.Now()
		for u, _ := last(); !healed(u); u, _ = last() {
			if time.Since(began) > 3*lastPause/2+2*wakeSpread {
				t.Fatalf("after %v: %s", time.Since(began), show(u))
			}
			time.Sleep(10 * time.Millisecond)
		}
		first, all := time.Time{}, time.Time{}
		for _, at := range server.comeBack() {
			if first.IsZero() || at[0].Before(first) {
				first = at[0]
			}
			if at[0].After(all) {
				all = at[0]
			}
		}
		if first.IsZero() || all.Sub(first) > 2*wakeSpread {
			t.Errorf("the first kind was asked for %v after the server was back, the last %v later", first.Sub(began), all.Sub(first))
		}
	})
}

// judgePace looks at how each resource was asked for in an hour.
func judgePace(t *testing.T, asked map[string][]time.Time) {
	t.Helper()
	if len(asked) != len(watched()) {
		t.Errorf("%d resources were asked for, there are %d", len(asked), len(watched()))
	}
	pauses := map[time.Duration]int{}
	for resource, at := range asked {
		late := 0
		for i := 1; i < len(at); i++ {
			pause := at[i].Sub(at[i-1])
			if pause > 3*lastPause/2 {
				t.Errorf("%s: not asked for for %v", resource, pause)
			}
			if at[i].Sub(at[0]) > time.Minute {
				late++
				pauses[pause.Round(time.Millisecond)]++
				if pause < lastPause/2 {
					t.Errorf("%s: asked for again after %v", resource, pause)
				}
			}
		}
		if mean := time.Hour / time.Duration(max(1, late)); mean < 4*lastPause/5 || mean > 6*lastPause/5 {
			t.Errorf("%s: asked for every %v", resource, mean)
		}
	}
	if len(pauses) < 500 {
		t.Errorf("%d different pauses: that is no jitter", len(pauses))
	}
}
