package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// guard watches one node's kernel for routes of ours that are deleted, however briefly: what a probe every ten
// milliseconds would miss.
type guard struct {
	node   string
	kernel kernel.Kernel
	events <-chan kernel.Event
}

// watchKernels begins to watch every node of the cluster until ctx ends.
func (r *run) watchKernels(ctx context.Context) (all []*guard, err error) {
	for _, n := range r.Plan.Nodes {
		k, err := r.openKernel(n.Name)
		if err != nil {
			return all, err
		}
		g := &guard{node: n.Name, kernel: k}
		all = append(all, g)
		if g.events, err = k.Watch(ctx); err != nil {
			return all, fmt.Errorf("watch %s: %w", n.Name, err)
		}
	}
	return all, nil
}

// lastWord is the prefix of a route that is made and deleted to mark the end of what is to be looked at: the kernel tells its events in
// order. The address is the IPv4 dummy address (RFC 7600), which nothing else routes.
func lastWord() netip.Prefix { return netip.MustParsePrefix("192.0.0.8/32") }

// lost returns the routes of ours that were deleted from the beginning until now.
func (g *guard) lost(ctx context.Context) (lost []string, err error) {
	err = g.drain(ctx, func(e kernel.Event) {
		if e.Kind == kernel.EventRoute && e.Deleted && e.Route.Protocol == kernel.ProtoCaracal {
			lost = append(lost, fmt.Sprintf("%s on %s", e.Route.Dst, g.node))
		}
	})
	return lost, err
}

// drain calls f with each event from the last call until now.
func (g *guard) drain(ctx context.Context, f func(kernel.Event)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	mark := kernel.Route{Dst: lastWord(), Type: kernel.Blackhole, Protocol: kernel.ProtoStatic}
	ops := []kernel.RouteOp{{Verb: kernel.Add, Route: &mark}, {Verb: kernel.Delete, Route: &mark}}
	if werr := g.kernel.WriteRoutes(ctx, ops, func(_ int, e error) { err = errors.Join(err, e) }); werr != nil || err != nil {
		return fmt.Errorf("mark the end of the events of %s: %w", g.node, errors.Join(werr, err))
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("events of %s: %w", g.node, ctx.Err())
		case e := <-g.events:
			switch {
			case e.Kind == kernel.EventLost:
				return fmt.Errorf("events of %s were lost: %w", g.node, e.Err)
			case e.Kind == kernel.EventRoute && e.Deleted && e.Route.Dst == lastWord():
				return nil
			default:
				f(e)
			}
		}
	}
}

// guarded runs f and returns an error if any node lost a route of ours meanwhile, even for a moment.
func (r *run) guarded(ctx context.Context, f func() error) (err error) {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	all, err := r.watchKernels(wctx)
	defer func() {
		for _, g := range all {
			err = errors.Join(err, g.kernel.Close())
		}
	}()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	var lost []string
	for _, g := range all {
		l, err := g.lost(ctx)
		if err != nil {
			return err
		}
		lost = append(lost, l...)
	}
	r.note("routes of ours deleted on any node", "%d in %s", len(lost), ms(time.Since(began)))
	if len(lost) > 0 {
		return fmt.Errorf("routes were deleted: %v", lost)
	}
	return nil
}
