package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// The waits between two tries of a failed start or configuration of the Speaker: a taken port is freed by a person.
const (
	engineRetryMin = time.Second
	engineRetryMax = 30 * time.Second
)

// engine owns the Speaker's life. Its goroutine starts the Speaker when a configuration is wanted, keeps it
// configured, and stops it when none is wanted (backends vxlan and none: no port is open).
type engine struct {
	log  *slog.Logger
	open func(bgp.Events) (bgp.Speaker, error)
	// events makes the callbacks of one Speaker; those of a Speaker that was stopped are cut off by the engine.
	events bgp.Events

	// failed is called when the last failure is another one; set before Run, nil for nobody.
	failed func()

	mu      sync.Mutex
	want    *bgp.Config
	speaker bgp.Speaker
	life    *speakerLife
	err     error
	since   time.Time // when err became what it is
	wake    chan struct{}
}

// speakerLife is true from a Speaker's start to the moment it is no longer wanted.
type speakerLife struct {
	mu   sync.Mutex
	over bool
}

// do calls f unless the Speaker is no longer wanted; end waits for a call under way.
func (l *speakerLife) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		f()
	}
}

func (l *speakerLife) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

func newEngine(log *slog.Logger, open func(bgp.Events) (bgp.Speaker, error), events bgp.Events) *engine {
	return &engine{log: log, open: open, events: events, wake: make(chan struct{}, 1)}
}

// String names the task.
func (e *engine) String() string { return "BGP speaker" }

// Set asks for a configuration, or for no Speaker at all when cfg is nil. It does not wait.
func (e *engine) Set(cfg *bgp.Config) {
	e.mu.Lock()
	e.want = cfg
	if cfg == nil && e.life != nil {
		e.life.end() // whatever the closing sessions take back is no news any more
	}
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Status returns the running Speaker, or nil, and the last failure to configure it.
func (e *engine) Status() (bgp.Speaker, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.speaker, e.err
}

// pathDown tells the Speaker, if there is one, of a dead path.
func (e *engine) pathDown(ctx context.Context, peer netip.Addr, controlPlane bool) error {
	if speaker, _ := e.Status(); speaker != nil {
		return speaker.PathDown(ctx, peer, controlPlane)
	}
	return nil
}

// Run is the task. When ctx ends the Speaker is stopped gracefully: peers keep our routes (RFC 4724).
func (e *engine) Run(ctx context.Context) error {
	retry := engineRetryMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return e.stop(true)
		case <-e.wake:
		case <-timer.C:
		}
		err := e.reconcile(ctx)
		e.report(err)
		if err == nil {
			retry = engineRetryMin
			timer.Stop()
			continue
		}
		timer.Reset(retry)
		retry = min(2*retry, engineRetryMax)
	}
}

func (e *engine) reconcile(ctx context.Context) error {
	e.mu.Lock()
	want, speaker := e.want, e.speaker
	e.mu.Unlock()
	if want == nil {
		return e.stop(false)
	}
	if speaker == nil || e.ended() {
		if err := e.stop(false); err != nil {
			return err
		}
		var err error
		if speaker, err = e.start(); err != nil {
			return err
		}
	}
	return speaker.Apply(ctx, *want)
}

// ended reports whether the Speaker was given up since it was started: off and on again between two runs of the loop.
func (e *engine) ended() bool {
	e.mu.Lock()
	life := e.life
	e.mu.Unlock()
	life.mu.Lock()
	defer life.mu.Unlock()
	return life.over
}

func (e *engine) start() (bgp.Speaker, error) {
	life := &speakerLife{}
	speaker, err := e.open(bgp.Events{
		Learned: func(l []bgp.Learned) { life.do(func() { e.events.Learned(l) }) },
		Peers:   func() { life.do(e.events.Peers) },
		InSync:  func() { life.do(e.events.InSync) },
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.speaker, e.life = speaker, life
	return speaker, nil
}

func (e *engine) stop(graceful bool) error {
	e.mu.Lock()
	speaker := e.speaker
	if e.life != nil {
		e.life.end()
	}
	e.speaker, e.life = nil, nil
	e.mu.Unlock()
	if speaker == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout/2)
	defer cancel()
	return speaker.Stop(ctx, graceful)
}

// report keeps the last failure for inspection and logs a change of it once.
func (e *engine) report(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if (err == nil) == (e.err == nil) && (err == nil || e.err.Error() == err.Error()) {
		return
	}
	e.since = time.Now()
	if err != nil {
		e.log.Error("BGP speaker is not as wanted, trying again", logErr, err)
	} else {
		e.log.Info("BGP speaker is as wanted again")
	}
	e.err = err
	if e.failed != nil {
		e.failed()
	}
}

// Peers returns every session that is wanted, those too that a Speaker which cannot do as asked does not have: the reason is theirs.
func (e *engine) Peers() []bgp.PeerStatus {
	e.mu.Lock()
	speaker, err, since, want := e.speaker, e.err, e.since, e.want
	e.mu.Unlock()
	if speaker == nil && err == nil || want == nil {
		return nil
	}
	var list []bgp.PeerStatus
	if speaker != nil {
		list = speaker.Peers()
	}
	if err == nil {
		return list
	}
	there := make(map[netip.Addr]bool, len(list))
	for i := range list {
		there[list[i].Addr] = true
	}
	for _, p := range want.Peers {
		if there[p.Addr] {
			continue
		}
		p.Password = "" // is not shown
		list = append(list, bgp.PeerStatus{Peer: p, State: "Idle", Since: since, LastError: strings.ReplaceAll(err.Error(), "\n", "; "), Cause: bgp.CauseEngine, OurASN: want.LocalAS(&p)})
	}
	return list
}
