package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// witness follows one node's kernel event by event: no destination that it knows may be without a route even for a moment, and nothing that
// it was told to keep an eye on may be touched.
type witness struct {
	guard
	present  map[netip.Prefix]map[kernel.RouteKey]bool // destinations that must have a route, and which they have
	apart    map[kernel.RouteKey]bool                  // routes that nobody may write or delete
	devices  map[int]bool                              // devices that must stay, with their addresses
	seen     int                                       // events about what it follows
	others   int                                       // of other routes
	failures []string
}

// watchNode begins to follow a node until ctx ends. What dsts lead to now must go on being routed; apart must not be touched.
func (r *run) watchNode(ctx context.Context, node string, dsts []netip.Prefix, apart []kernel.Route, devices map[int]bool) (*witness, error) {
	k, err := r.openKernel(node)
	if err != nil {
		return nil, err
	}
	w := &witness{guard: guard{node: node, kernel: k}, present: map[netip.Prefix]map[kernel.RouteKey]bool{}, apart: map[kernel.RouteKey]bool{}, devices: devices}
	for _, d := range dsts {
		w.present[d] = map[kernel.RouteKey]bool{}
	}
	for _, r := range apart {
		w.apart[keyOf(&r)] = true
	}
	if w.events, err = k.Watch(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", node, err), k.Close())
	}
	for _, v6 := range []bool{false, true} {
		err = errors.Join(err, k.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
			if keys := w.present[r.Dst]; keys != nil {
				keys[keyOf(r)] = true
			}
			return true
		}))
	}
	for d, keys := range w.present {
		if len(keys) == 0 {
			err = errors.Join(err, fmt.Errorf("%s has no route to %s to begin with", node, d))
		}
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return w, nil
}

func keyOf(r *kernel.Route) kernel.RouteKey {
	return kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}
}

// verdict is what it has seen until now.
func (w *witness) verdict(ctx context.Context) error {
	if err := w.drain(ctx, w.see); err != nil {
		return err
	}
	if len(w.failures) > 0 {
		return fmt.Errorf("on %s, %d times: %s", w.node, len(w.failures), strings.Join(w.failures[:min(len(w.failures), 5)], "; "))
	}
	return nil
}

func (w *witness) see(e kernel.Event) {
	switch e.Kind {
	case kernel.EventRoute:
		k := keyOf(&e.Route)
		if w.apart[k] {
			w.failures = append(w.failures, fmt.Sprintf("the route to %s that is no business of ours was touched (deleted: %t)", k.Dst, e.Deleted))
		}
		keys := w.present[k.Dst]
		if keys == nil {
			w.others++
			return
		}
		w.seen++
		if !e.Deleted {
			keys[k] = true
			return
		}
		if delete(keys, k); len(keys) == 0 {
			w.failures = append(w.failures, fmt.Sprintf("for a moment there was no route to %s", k.Dst))
		}
	case kernel.EventLink:
		if e.Deleted && w.devices[e.Link.Index] {
			w.failures = append(w.failures, "device "+e.Link.Name+" was deleted")
		}
	case kernel.EventAddress:
		if e.Deleted && w.devices[e.Address.Link] {
			w.failures = append(w.failures, fmt.Sprintf("address %s was deleted", e.Address.Prefix))
		}
	case kernel.EventNeighbour:
		if e.Deleted && w.devices[e.Neighbour.Link] && e.Neighbour.FDB {
			w.failures = append(w.failures, fmt.Sprintf("FDB entry of %s was deleted", e.Neighbour.Addr))
		}
	}
}
