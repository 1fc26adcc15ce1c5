package lab

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/caracal-net/caracal/internal/kernel"
)

// guard watches the kernels of nodes for routes of ours that are deleted, however briefly: what a probe of ten milliseconds
// could miss.
type guard struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	close  []func() error

	mu   sync.Mutex
	lost []string
	errs []error
}

// startGuard watches every node of the cluster. Stop must be called.
func (r *run) startGuard(ctx context.Context) (*guard, error) {
	ctx, cancel := context.WithCancel(ctx)
	g := &guard{cancel: cancel}
	for _, n := range r.Plan.Nodes {
		k, err := r.openKernel(n.Name)
		if err != nil {
			return nil, errors.Join(err, g.stop())
		}
		g.close = append(g.close, k.Close)
		events, err := k.Watch(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", n.Name, err), g.stop())
		}
		g.done.Go(func() { g.watch(n.Name, events) })
	}
	return g, nil
}

func (g *guard) watch(node string, events <-chan kernel.Event) {
	for e := range events {
		g.mu.Lock()
		switch {
		case e.Kind == kernel.EventLost:
			g.errs = append(g.errs, fmt.Errorf("watch %s: events were lost: %w", node, e.Err))
		case e.Kind == kernel.EventRoute && e.Deleted && e.Route.Protocol == kernel.ProtoCaracal:
			g.lost = append(g.lost, fmt.Sprintf("%s on %s", e.Route.Dst, node))
		}
		g.mu.Unlock()
	}
}

func (g *guard) stop() error {
	g.cancel()
	g.done.Wait()
	for _, c := range g.close {
		g.errs = append(g.errs, c())
	}
	return errors.Join(g.errs...)
}

// guarded runs f and returns an error if any node lost a route of ours meanwhile, even for a moment.
func (r *run) guarded(ctx context.Context, f func() error) error {
	g, err := r.startGuard(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(f(), g.stop()); err != nil {
		return err
	}
	r.note("routes of ours deleted on any node", "%d", len(g.lost))
	if len(g.lost) > 0 {
		return fmt.Errorf("routes were deleted: %v", g.lost)
	}
	return nil
}
