package report

import (
	"context"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// The pace of reports.
const (
	// Settle is how long a problem must last to be told: whoever writes several objects, or mends a mistake at once, need not hear of it.
	Settle = 2 * time.Second
	// Turn is how much later each next node reports, and Turns how many there are.
	Turn  = 10 * time.Second
	Turns = 5
	// Share is what each node of the cluster adds to the time over which nodes spread their reports of a problem that each finds by itself.
	Share = 50 * time.Millisecond
	// Again is after what time a problem that lasts is reported again: an API server keeps an Event for an hour (--event-ttl).
	Again = 62 * time.Minute
	// Spacing is the least time between two reports of one node.
	Spacing = time.Second
	// retry is after what time a report that failed is tried again.
	retry = time.Minute
)

// Options say who reports, and how.
type Options struct {
	Node string
	Log  *slog.Logger
	// Report makes an Event of a problem; that there is one already is no error.
	Report func(ctx context.Context, p cluster.Problem) error
}

// Reporter is the task.
type Reporter struct {
	opts Options
	wake chan struct{}

	mu    sync.Mutex
	state *cluster.State
	found []cluster.Problem

	// Owned by Run's goroutine.
	due  map[cluster.Problem]time.Time
	free time.Time // no report before
	told string    // the failure that was told
}

// New returns a Reporter.
func New(o Options) *Reporter {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Reporter{opts: o, wake: make(chan struct{}, 1), due: map[cluster.Problem]time.Time{}}
}

// String names the task.
func (r *Reporter) String() string { return "reports of problems" }

// SetState tells what is wrong in the cluster now. A nil Reporter reports nothing.
func (r *Reporter) SetState(st *cluster.State) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.state = st
	r.mu.Unlock()
	r.ring()
}

// SetFound tells what is wrong as this node sees it: perhaps no other does. A nil Reporter reports nothing.
func (r *Reporter) SetFound(found []cluster.Problem) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.found = slices.Clone(found)
	r.mu.Unlock()
	r.ring()
}

func (r *Reporter) ring() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run is the task.
func (r *Reporter) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.take(time.Now())
		case <-timer.C:
		}
		if p, at := r.next(); !at.IsZero() && !time.Now().Before(at) {
			r.report(ctx, p)
		}
		timer.Stop()
		if _, at := r.next(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
	}
}

// take notes which problems there are, and when it is our turn to report them.
func (r *Reporter) take(now time.Time) {
	r.mu.Lock()
	st, found := r.state, r.found
	r.mu.Unlock()
	if st == nil {
		return // it comes
	}
	due := make(map[cluster.Problem]time.Time, len(r.due))
	for _, p := range st.Problems() {
		p.Line = 0
		at, known := r.due[p]
		if !known {
			turn := place(st.Nodes(), r.opts.Node, &p)
			if turn >= Turns {
				continue
			}
			at = now.Add(Settle + time.Duration(turn)*Turn)
		}
		due[p] = at
	}
	for _, p := range found {
		at, known := r.due[p]
		if !known {
			at = now.Add(Settle + time.Duration(weight(r.opts.Node, &p)%uint64(max(1, len(st.Nodes()))))*Share)
		}
		due[p] = at
	}
	r.due = due
}

// place returns how many nodes come before one to report a problem. A node that the cluster does not know comes last.
func place(nodes []*cluster.Node, self string, p *cluster.Problem) int {
	mine, before := weight(self, p), 0
	if !slices.ContainsFunc(nodes, func(n *cluster.Node) bool { return n.Name == self }) {
		return len(nodes) + Turns
	}
	for _, n := range nodes {
		if w := weight(n.Name, p); w > mine || w == mine && n.Name < self {
			if before++; before >= Turns {
				break
			}
		}
	}
	return before
}

func weight(node string, p *cluster.Problem) uint64 {
	h := fnv.New64a()
	for _, part := range []string{p.Object, p.Field, p.Text, node} { // what differs last, for FNV spreads it least: so it is mixed once more
		_, _ = h.Write([]byte(part))
		_, _ = h.Write([]byte{0})
	}
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd // MurmurHash3's finalizer
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// next returns the problem whose time comes first, and when it may be reported; zero for none.
func (r *Reporter) next() (first cluster.Problem, at time.Time) {
	for p, due := range r.due {
		if at.IsZero() || due.Before(at) || due.Equal(at) && strings.Compare(p.Object+p.Field+p.Text, first.Object+first.Field+first.Text) < 0 {
			first, at = p, due
		}
	}
	if !at.IsZero() && at.Before(r.free) {
		at = r.free
	}
	return first, at
}

func (r *Reporter) report(ctx context.Context, p cluster.Problem) {
	err := r.opts.Report(ctx, p)
	now := time.Now()
	r.free, r.due[p] = now.Add(Spacing), now.Add(Again)
	if err == nil {
		r.told = ""
		return
	}
	r.due[p] = now.Add(retry)
	if ctx.Err() == nil && r.told != err.Error() {
		r.told = err.Error()
		r.opts.Log.Warn("a problem in the datastore cannot be told by an Event", logObject, p.Object, logErr, err)
	}
}

// Keys of log records.
const (
	logObject = "object"
	logErr    = "err"
)
