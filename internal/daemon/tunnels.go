package daemon

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// The waits between two tries of a failed tunnel address allocation: a pool without a free block is mended by a person.
const (
	tunnelRetryMin = time.Second
	tunnelRetryMax = time.Minute
)

// errHeld: the tunnel addresses are left as they are.
var errHeld = errors.New("a state of the datastore is held")

// tunnels keeps this node's tunnel addresses as its pools demand (Calico's allocateip). It looks again whenever a pool or
// our own Node has changed, labels included: the trigger is kept while an allocation runs, so none is lost.
type tunnels struct {
	node   string
	log    *slog.Logger
	ensure func(context.Context) error
	wake   chan struct{}

	mu    sync.Mutex // guards what follows
	pools []*cluster.Pool
	self  *cluster.Node
	state *cluster.State
	err   error
}

func newTunnels(node string, log *slog.Logger, ensure func(context.Context) error) *tunnels {
	return &tunnels{node: node, log: log, ensure: ensure, wake: make(chan struct{}, 1)}
}

// String names the task.
func (t *tunnels) String() string { return "tunnel addresses" }

// setState starts an allocation if what it depends on has changed. Under backend none nothing is allocated.
func (t *tunnels) setState(st *cluster.State, backend cluster.Backend) {
	self := st.Node(t.node)
	if backend == cluster.BackendNone || self == nil {
		return
	}
	t.mu.Lock()
	same := slices.Equal(t.pools, st.Pools()) && sameTunnels(t.self, self)
	t.pools, t.self, t.state = st.Pools(), self, st
	t.mu.Unlock()
	if same {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// sameTunnels reports whether two versions of our Node ask for the same allocation.
func sameTunnels(a, b *cluster.Node) bool {
	return a != nil && a.IPIPAddr == b.IPIPAddr && a.VXLANAddr4 == b.VXLANAddr4 && a.VXLANAddr6 == b.VXLANAddr6 &&
		reflect.DeepEqual(a.Labels, b.Labels)
}

// known returns the blocks of other nodes in the State that was set last, nil before the first.
func (t *tunnels) known() iter.Seq[netip.Prefix] {
	t.mu.Lock()
	st := t.state
	t.mu.Unlock()
	if st == nil {
		return nil
	}
	return func(yield func(netip.Prefix) bool) {
		for _, b := range st.Blocks() {
			if b.Node != t.node && !yield(b.CIDR) {
				return
			}
		}
	}
}

// Err returns why the last allocation failed, nil when it did not.
func (t *tunnels) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Run is the task.
func (t *tunnels) Run(ctx context.Context) error {
	retry := tunnelRetryMin
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
		err := t.ensure(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errHeld) { // nothing is wrong here
			timer.Reset(tunnelRetryMin)
			continue
		}
		t.report(err)
		if err == nil {
			retry = tunnelRetryMin
			continue
		}
		timer.Reset(retry)
		retry = min(2*retry, tunnelRetryMax)
	}
}

// report keeps the last failure and logs a change of it once.
func (t *tunnels) report(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && (t.err == nil || t.err.Error() != err.Error()) {
		t.log.Error("tunnel addresses are not as the pools want them, trying again", logErr, err)
	}
	if err == nil && t.err != nil {
		t.log.Info("tunnel addresses are as the pools want them again")
	}
	t.err = err
}
