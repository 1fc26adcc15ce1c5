package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// upgrade replaces every daemon by another file of the program, as a rolling update of the DaemonSet does: one first, and when that is ready all
// others at once, as they would be with maxUnavailable 100%.
func upgrade(ctx context.Context, r *run) (err error) {
	old, next := r.opts.Daemon, filepath.Join(r.Dir(), "caracald.next")
	if err := copyProgram(next, old); err != nil {
		return fmt.Errorf("the next version: %w", err)
	}
	defer func() { r.opts.Daemon = old }() // whose file is removed with the cluster; the processes have it open
	var slowest time.Duration
	_, err = r.probed(ctx, "of all pairs", r.Endpoints(nil), lossless, func() error {
		return r.guarded(ctx, func() error {
			all := r.Plan.Members()
			for _, some := range [][]Node{all[:1], all[1:]} {
				began := time.Now()
				if err := r.replaceBy(ctx, next, some); err != nil {
					return err
				}
				slowest = max(slowest, time.Since(began))
			}
			return nil
		})
	})
	r.note("daemons replaced, one and then the others", "%d", len(r.Plan.Members()))
	r.note("everything was settled again after at most", "%s", ms(slowest))
	return err
}

// replaceBy has some nodes run another file of the program.
func (r *run) replaceBy(ctx context.Context, program string, nodes []Node) error {
	for _, n := range nodes {
		if err := r.Stop(ctx, n.Name, syscall.SIGTERM); err != nil {
			return err
		}
	}
	r.opts.Daemon = program
	for _, n := range nodes {
		if err := r.Start(n.Name); err != nil {
			return err
		}
	}
	if _, err := r.WaitSettled(ctx); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	for _, n := range nodes {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID(n.Name))); err != nil || exe != program {
			return fmt.Errorf("%s runs %s, %w", n.Name, exe, err)
		}
	}
	return nil
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
