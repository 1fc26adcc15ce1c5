package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// speakerLog is a Speaker that writes down what is asked of it.
type speakerLog struct {
	bgp.Speaker // the rest is not called by the engine
	events      bgp.Events
	mu          sync.Mutex
	calls       []string
	fail        error
}

func (s *speakerLog) note(call string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	return s.fail
}

func (s *speakerLog) Peers() []bgp.PeerStatus { return nil }

func (s *speakerLog) Apply(context.Context, bgp.Config) error { return s.note("apply") }

func (s *speakerLog) Stop(_ context.Context, graceful bool) error {
	s.events.Learned([]bgp.Learned{{Prefix: netip.MustParsePrefix("10.0.0.0/26")}}) // as a closing session takes its paths back
	if graceful {
		return s.note("stop gracefully")
	}
	return s.note("stop")
}

// runEngine runs an engine in a bubble and returns it with its Speakers as they are opened.
func runEngine(t *testing.T, events bgp.Events, open func() error) (e *engine, speakers *[]*speakerLog, stop func()) {
	speakers = &[]*speakerLog{}
	e = newEngine(slog.New(slog.DiscardHandler), func(ev bgp.Events) (bgp.Speaker, error) {
		if err := open(); err != nil {
			return nil, err
		}
		s := &speakerLog{events: ev}
		*speakers = append(*speakers, s)
		return s, nil
	}, events)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	synctest.Wait()
	return e, speakers, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("engine: %v", err)
		}
	}
}

func TestEngineStartsConfiguresAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		learned := 0
		e, speakers, stop := runEngine(t, bgp.Events{Learned: func([]bgp.Learned) { learned++ }}, func() error { return nil })
		if len(*speakers) != 0 {
			t.Fatal("a Speaker was started before one was wanted")
		}
		e.Set(&bgp.Config{ASN: 64512})
		synctest.Wait()
		e.Set(&bgp.Config{ASN: 64512, ListenPort: 1790})
		synctest.Wait()
		e.Set(nil)
		synctest.Wait()
		if got, want := (*speakers)[0].calls, []string{"apply", "apply", "stop"}; !slices.Equal(got, want) {
			t.Fatalf("calls %v, want %v", got, want)
		}
		if learned != 0 {
			t.Fatal("a Speaker that is no longer wanted still delivered what its closing sessions took back")
		}
		e.Set(&bgp.Config{ASN: 64512})
		synctest.Wait()
		stop()
		if got, want := (*speakers)[1].calls, []string{"apply", "stop gracefully"}; len(*speakers) != 2 || !slices.Equal(got, want) {
			t.Fatalf("second Speaker's calls %v, want %v", got, want)
		}
		if learned != 0 {
			t.Fatal("a stopping daemon took routes back")
		}
	})
}

func TestEngineOffAndOnAtOnceIsANewSpeaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, speakers, stop := runEngine(t, bgp.Events{Learned: func([]bgp.Learned) {}}, func() error { return nil })
		defer stop()
		e.Set(&bgp.Config{ASN: 64512})
		synctest.Wait()
		e.Set(nil)
		e.Set(&bgp.Config{ASN: 64512}) // before the engine has looked
		synctest.Wait()
		if len(*speakers) != 2 {
			t.Fatalf("%d Speakers, want 2: the first one's events are cut off for good", len(*speakers))
		}
	})
}

func TestEngineRetriesWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries, freed atomic.Int32
		taken := errors.New("listen on port 179: address already in use")
		e, speakers, stop := runEngine(t, bgp.Events{Learned: func([]bgp.Learned) {}}, func() error {
			if tries.Add(1); freed.Load() > 0 {
				return nil
			}
			return taken
		})
		defer stop()
		e.Set(&bgp.Config{ASN: 64512, Peers: []bgp.Peer{{Name: "Mesh", Addr: netip.MustParseAddr("192.0.2.2"), Password: "hidden"}}})
		time.Sleep(10 * time.Second)
		if n := tries.Load(); n != 4 { // at once, then after 1, 2 and 4 seconds
			t.Fatalf("%d tries in 10 s, want 4", n)
		}
		if _, err := e.Status(); !errors.Is(err, taken) {
			t.Fatalf("status says %v, want why it failed", err)
		}
		if p := e.Peers(); len(p) != 1 || p[0].Name != "Mesh" || p[0].State != "Idle" || p[0].LastError != taken.Error() || p[0].Cause != bgp.CauseEngine || p[0].Password != "" || p[0].OurASN != 64512 {
			t.Fatalf("a session that cannot be has no reason: %+v", p)
		}
		freed.Store(1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, err := e.Status(); err != nil || len(*speakers) != 1 {
			t.Fatalf("after the port was freed: %d Speakers, %v", len(*speakers), err)
		}
	})
}
