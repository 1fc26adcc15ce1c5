package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// datastoreSource is the name of the datastore among the sources a daemon reports.
const datastoreSource = "datastore"

// unreadable takes the datastore away: its directory, or the API server. Every daemon must say so and keep what it has; one that dies and is
// restarted meanwhile must not take its first look at nothing for an empty cluster. When the directory is back, changes
// must be seen again.
func unreadable(ctx context.Context, r *run) error {
	node := r.victim()
	_, err := r.probed(ctx, "of all pairs", r.Endpoints(nil), lossless, func() error {
		return r.guarded(ctx, func() error { return r.moveAwayAndBack(ctx, node) })
	})
	if err != nil {
		return err
	}
	// A change made now must reach everybody.
	began := time.Now()
	if _, err := r.AddWorkload(ctx, node); err != nil {
		return err
	}
	if _, err := WaitReachable(ctx, r.Endpoints(nil)); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	r.note("a workload added then answers everybody after", "%s", ms(time.Since(began)))
	return r.RemoveWorkload(ctx, node)
}

func (r *run) moveAwayAndBack(ctx context.Context, node string) error {
	away, back := r.datastoreAway()
	began := time.Now()
	if err := away(); err != nil {
		return fmt.Errorf("move the datastore away: %w", err)
	}
	err := r.whileAway(ctx, node, began)
	if berr := back(); berr != nil {
		return errors.Join(err, fmt.Errorf("move the datastore back: %w", berr))
	}
	if err != nil {
		return err
	}
	began = time.Now()
	if err := r.eachMember(func(n string) error { return r.waitComplaint(ctx, n, false) }); err != nil {
		return err
	}
	r.note("every daemon reads it again after", "%s", ms(time.Since(began)))
	if _, err := r.WaitSettled(ctx); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	return nil
}

// datastoreAway returns what takes the datastore away and what brings it back.
func (r *run) datastoreAway() (away, back func() error) {
	if k := r.opts.Kubernetes; k != nil {
		return k.Stop, k.Start
	}
	dir := r.DatastoreDir()
	return func() error { return os.Rename(dir, dir+".away") }, func() error { return os.Rename(dir+".away", dir) }
}

func (r *run) whileAway(ctx context.Context, node string, began time.Time) error {
	if err := r.eachMember(func(n string) error { return r.waitComplaint(ctx, n, true) }); err != nil {
		return err
	}
	r.note("every daemon says that it cannot be read after", "%s", ms(time.Since(began)))
	if err := r.Stop(ctx, node, syscall.SIGKILL); err != nil {
		return err
	}
	if err := r.Start(node); err != nil {
		return err
	}
	if err := poll(ctx, 20*time.Millisecond, func() error {
		_, err := r.Status(ctx, node)
		return err
	}); err != nil {
		return fmt.Errorf("restarted without a datastore: %w", err)
	}
	return r.dwell(ctx)
}

// waitComplaint waits until a daemon says of the datastore that something is wrong, or no longer does.
func (r *run) waitComplaint(ctx context.Context, node string, wrong bool) error {
	return poll(ctx, 10*time.Millisecond, func() error {
		st, err := r.Status(ctx, node)
		if err != nil {
			return err
		}
		for _, s := range st.GetSources() {
			if s.GetName() == datastoreSource {
				if (s.GetDetail() != "" || !s.GetInSync()) != wrong {
					return fmt.Errorf("%s says of the datastore: in sync %t, %q", node, s.GetInSync(), s.GetDetail())
				}
				return nil
			}
		}
		return fmt.Errorf("%s reports no source named %s", node, datastoreSource)
	})
}
