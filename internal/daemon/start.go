package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/startup"
)

// The waits between two tries of a failed start of the node: a datastore that is away comes back.
const (
	startRetryMin = time.Second
	startRetryMax = 30 * time.Second
)

// errNotStarted is Err's until the first try of the start is over.
var errNotStarted = errors.New("the node's start has not ended")

// nodeStart is the task that brings the node into the cluster and then keeps its addresses there as the host has them. The rest of the
// daemon does not wait for it: what a former process has left in the datastore is as good for routing, and a datastore that is away
// must not keep routes from being looked after.
type nodeStart struct {
	opts    startup.Options
	monitor *startup.Monitor
	log     *slog.Logger

	mu  sync.Mutex
	err error
}

func newNodeStart(o startup.Options) *nodeStart {
	return &nodeStart{opts: o, monitor: startup.NewMonitor(o), log: o.Log, err: errNotStarted}
}

// String names the task.
func (s *nodeStart) String() string { return "node start" }

// Run is the task. It fails only where somebody has to change something first.
func (s *nodeStart) Run(ctx context.Context) error {
	for pause := startRetryMin; ; pause = min(2*pause, startRetryMax) {
		err := startup.Run(ctx, s.opts)
		if ctx.Err() != nil {
			return nil
		}
		s.report(err)
		if err == nil {
			return s.monitor.Run(ctx)
		}
		if errors.Is(err, startup.ErrRefused) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// report keeps the last failure and logs a change of it once.
func (s *nodeStart) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && (s.err == nil || s.err.Error() != err.Error()) {
		s.log.Error("the node's start has failed, trying again", logErr, err)
	}
	s.err = err
}

// Err returns why the node is not in the cluster as it should be, nil when it is. A nil nodeStart, of a daemon that was not asked to start
// a node, has no error.
func (s *nodeStart) Err() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return s.monitor.Err()
}

// setState and wake pass on what the monitor looks at.
func (s *nodeStart) setState(st *cluster.State, backend cluster.Backend) {
	if s != nil {
		s.monitor.SetState(st, backend)
	}
}

func (s *nodeStart) wake() {
	if s != nil {
		s.monitor.Wake()
	}
}
