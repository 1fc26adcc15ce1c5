package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/inspect"
	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// guard watches one node's kernel for destinations that are without a route of ours, however briefly: what a probe every ten
// milliseconds would miss.
type guard struct {
	node   string
	kernel kernel.Kernel
	events <-chan kernel.Event
	there  map[netip.Prefix]map[uint32]bool // the metrics of the routes to each destination; a node that leaves has them changed
}

// watchKernels begins to watch every node of the cluster until ctx ends.
func (r *run) watchKernels(ctx context.Context) (all []*guard, err error) {
	for _, n := range r.Plan.Nodes {
		k, err := r.openKernel(n.Name)
		if err != nil {
			return all, err
		}
		g := &guard{node: n.Name, kernel: k, there: map[netip.Prefix]map[uint32]bool{}}
		all = append(all, g)
		if g.events, err = k.Watch(ctx); err != nil {
			return all, fmt.Errorf("watch %s: %w", n.Name, err)
		}
		had, err := ours(ctx, k, nil)
		if err != nil {
			return all, fmt.Errorf("watch %s: %w", n.Name, err)
		}
		for i := range had {
			g.note(&had[i], false)
		}
	}
	return all, nil
}

// lastWord is the prefix of a route that is made and deleted to mark the end of what is to be looked at: the kernel tells its events in
// order. The address is the IPv4 dummy address (RFC 7600), which nothing else routes.
func lastWord() netip.Prefix { return netip.MustParsePrefix("192.0.0.8/32") }

// note follows one route and reports whether it was the last to its destination.
func (g *guard) note(r *kernel.Route, deleted bool) (last bool) {
	if deleted {
		last = g.there[r.Dst][r.Metric] && len(g.there[r.Dst]) == 1
		delete(g.there[r.Dst], r.Metric)
		return last
	}
	if g.there[r.Dst] == nil {
		g.there[r.Dst] = map[uint32]bool{}
	}
	g.there[r.Dst][r.Metric] = true
	return false
}

// lost returns the destinations that were without a route of ours for a moment, from the beginning until now.
func (g *guard) lost(ctx context.Context) (lost []netip.Prefix, err error) {
	err = g.drain(ctx, func(e kernel.Event) {
		if e.Kind == kernel.EventRoute && e.Route.Protocol == kernel.ProtoCaracal && g.note(&e.Route, e.Deleted) {
			lost = append(lost, e.Route.Dst)
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
func (r *run) guarded(ctx context.Context, f func() error) error {
	return r.guardedBut(ctx, "", nil, f)
}

// guardedBut is guarded for all but the routes of one node and those into blocks that are to go.
func (r *run) guardedBut(ctx context.Context, node string, leaving []netip.Prefix, f func() error) (err error) {
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
		for _, x := range l {
			if g.node != node && !slices.ContainsFunc(leaving, x.Overlaps) {
				lost = append(lost, fmt.Sprintf("%s on %s\n%s", x, g.node, r.historyOf(ctx, g.node, x)))
			}
		}
	}
	r.note("destinations without a route on any node", "%d in %s", len(lost), ms(time.Since(began)))
	if len(lost) > 0 {
		return fmt.Errorf("routes were lost for a moment: %s", strings.Join(lost, "\n"))
	}
	return nil
}

// historyOf is what a daemon remembers of a route, for people.
func (r *run) historyOf(ctx context.Context, node string, p netip.Prefix) string {
	var text strings.Builder
	if err := r.ask(ctx, node, func(ctx context.Context, c caracalv1.InspectionClient) error {
		m, err := c.History(ctx, &caracalv1.HistoryRequest{Prefix: p.String()})
		if err != nil {
			return err
		}
		return inspect.Renderer{Now: time.Now(), Timestamps: true}.History(&text, m)
	}); err != nil {
		fmt.Fprint(&text, err)
	}
	return text.String()
}
