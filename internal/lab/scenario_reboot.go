package lab

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// rebooted takes the API server away and then a node's daemon and all it had in the kernel, as a reboot does. The node must come back by the state
// it has kept, and must not be disturbed when the API server is back.
func rebooted(ctx context.Context, r *run) error {
	node := r.victim()
	if err := r.Stop(ctx, node, syscall.SIGTERM); err != nil { // so that what it keeps is of now
		return err
	}
	if err := r.opts.Kubernetes.Stop(); err != nil {
		return fmt.Errorf("stop the API server: %w", err)
	}
	err := r.Cleanup(node)
	began := time.Now()
	if err == nil {
		err = r.Start(node)
	}
	if err == nil {
		_, err = WaitReachable(ctx, r.Endpoints(nil))
	}
	if err != nil {
		return errors.Join(err, r.why(ctx), r.opts.Kubernetes.Start())
	}
	r.note("without the API server it answers everybody after", "%s", ms(time.Since(began)))
	_, err = r.probed(ctx, "of all pairs, while the API server comes back", r.Endpoints(nil), lossless, func() error {
		return r.guarded(ctx, func() error {
			began := time.Now()
			if err := r.opts.Kubernetes.Start(); err != nil {
				return fmt.Errorf("start the API server: %w", err)
			}
			if _, err := r.WaitSettled(ctx); err != nil {
				return errors.Join(err, r.why(ctx))
			}
			r.note("every daemon is ready again after", "%s", ms(time.Since(began)))
			return nil
		})
	})
	return err
}
