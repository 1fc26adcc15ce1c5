package startup

import (
	"context"
	"log/slog"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// The reasons of the condition NetworkUnavailable, as Calico's tools know them.
const (
	reasonUp   = "CalicoIsUp"
	reasonDown = "CalicoIsDown"
)

const (
	// conditionTick is how often readiness is asked for; that costs nothing.
	conditionTick = time.Second
	// downAfter is how long the daemon must have been unready before the network counts as unavailable: restarts, and
	// Calico's three failures at ten seconds each, are no outage, because the kernel routes on.
	downAfter = 30 * time.Second
	// confirmAfter is how often the condition is looked at though nothing changed: others write it as well, Calico's shutdown
	// command among them.
	confirmAfter = time.Minute
	// retryMost bounds the time between two tries to write it.
	retryMost = 30 * time.Second
)

// Condition is the task that keeps the Kubernetes Node's condition NetworkUnavailable as it is in truth.
type Condition struct {
	Cluster Cluster
	NodeRef string // name of the Kubernetes Node
	Log     *slog.Logger
	// Ready reports whether the node's network can be used, and if not, why.
	Ready func() (bool, string)
	// Backend returns the backend in effect. Under none somebody else makes the network, and the condition is theirs.
	Backend func() cluster.Backend
}

// String names the task.
func (c *Condition) String() string { return "node condition" }

// Run is the task. It ends only with ctx, and leaves the condition as it is: routes outlive the daemon.
func (c *Condition) Run(ctx context.Context) error {
	tick := time.NewTicker(conditionTick)
	defer tick.Stop()
	w := conditionWriter{Condition: c, since: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if c.Backend() != cluster.BackendNone {
				w.look(ctx, now)
			}
		}
	}
}

// conditionWriter is the task's memory.
type conditionWriter struct {
	*Condition
	since  time.Time // since when the daemon has been unready; zero while it is ready
	known  bool      // the condition was written, or seen to be right
	down   bool      // what was written
	next   time.Time // when to write again
	pause  time.Duration
	failed string // the last failure, told once
}

func (w *conditionWriter) look(ctx context.Context, now time.Time) {
	ready, why := w.Ready()
	switch {
	case ready:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = now
	}
	down := w.down
	switch {
	case ready:
		down = false
	case now.Sub(w.since) >= downAfter:
		down = true
	case !w.known: // at the start nothing is claimed until it is known
		return
	}
	if changed := !w.known || down != w.down; changed && w.failed == "" || !now.Before(w.next) {
		w.write(ctx, now, down, why)
	}
}

func (w *conditionWriter) write(ctx context.Context, now time.Time, down bool, why string) {
	reason, message := reasonUp, "Caracal is running on this node"
	if down {
		reason, message = reasonDown, "Caracal is not ready on this node: "+why
	}
	err := w.Cluster.SetNetworkUnavailable(ctx, w.NodeRef, down, reason, message)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if w.failed != err.Error() {
			w.Log.Warn("the condition NetworkUnavailable could not be written, trying again", logErr, err)
		}
		w.failed = err.Error()
		w.pause = min(max(2*w.pause, conditionTick), retryMost)
		w.next = now.Add(w.pause)
	default:
		if !w.known || w.down != down {
			w.Log.Info("the condition NetworkUnavailable", logText, reason)
		}
		w.known, w.down, w.failed, w.pause = true, down, "", 0
		w.next = now.Add(confirmAfter)
	}
}
