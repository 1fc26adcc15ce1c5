package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// mark tells the other nodes, by an annotation of ours on our Node, that we are about to leave, where route reflectors are elected: so that others are. Who is
// cordoned is in a part of the Node that nobody but its own daemon reads.
type mark struct {
	store datastore.Store
	node  string
	log   *slog.Logger
	wake  chan struct{}

	mu      sync.Mutex // guards what follows
	leaving bool
	// unheard: whether the Node is cordoned has yet to be heard. Until then nothing is taken back, so that a restart of a cordoned node's daemon does not
	// have it elected for a moment.
	unheard bool
	state   *cluster.State
}

// The pauses between two tries to write it.
const (
	markPauseMin = time.Second
	markPauseMax = time.Minute
	markTimeout  = 15 * time.Second
)

// newMark makes the task; cordons says that somebody will tell by heardCordon when it is known whether the Node is cordoned.
func newMark(store datastore.Store, node string, log *slog.Logger, cordons bool) *mark {
	return &mark{store: store, node: node, log: log, wake: make(chan struct{}, 1), unheard: cordons}
}

// String names the task.
func (m *mark) String() string { return "leaving mark" }

func (m *mark) setState(st *cluster.State) {
	m.mu.Lock()
	m.state = st
	m.mu.Unlock()
	m.kick()
}

func (m *mark) setLeaving(l bgp.Leaving) {
	m.mu.Lock()
	m.leaving = l != bgp.Stays
	m.mu.Unlock()
	m.kick()
}

// heardCordon is called when setLeaving has been told all there is.
func (m *mark) heardCordon() {
	m.mu.Lock()
	m.unheard = false
	m.mu.Unlock()
	m.kick()
}

func (m *mark) kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// due returns what is to be written, nil for nothing.
func (m *mark) due() *bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == nil || m.state.Node(m.node) == nil || m.unheard && !m.leaving {
		return nil
	}
	conf := m.state.BGP()
	want := m.leaving && conf.Reflection.Count > 0
	if m.state.Node(m.node).Leaving == want {
		return nil
	}
	return &want
}

// Run is the task.
func (m *mark) Run(ctx context.Context) error {
	pause := time.Duration(0)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
			if pause > 0 {
				continue // the timer asks again
			}
		case <-timer.C:
			pause = max(pause, markPauseMin)
		}
		want := m.due()
		if want == nil {
			pause = 0
			continue
		}
		if err := m.write(ctx, *want); err == nil {
			pause = 0
			continue
		} else if pause == 0 {
			m.log.Warn("cannot tell the other nodes whether this one is about to leave", logErr, err)
		}
		pause = min(max(2*pause, markPauseMin), markPauseMax)
		timer.Reset(pause)
	}
}

func (m *mark) write(ctx context.Context, leaving bool) error {
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	return m.store.PatchNode(ctx, m.node, datastore.NodePatch{Leaving: &leaving})
}
