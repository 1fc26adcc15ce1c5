package kernel

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// stepMetric keeps the helping routes below out of the way of every real key. It is the largest metric but one.
const stepMetric = 1<<32 - 2

// onlinkRefused reports whether a next hop may be what the kernel refused.
//
// For an IPv6 onlink gateway the kernel looks the gateway up all the same, and refuses (EINVAL, "Nexthop has invalid gateway or
// device mismatch") when a route other than the default one leads to it over another interface. That hits a block on its
// way from direct to tunnelled: the gateway, the far end of the tunnel, lies inside the block, and the route that leads there
// is the very one to be replaced. IPv4 asks no such thing.
func onlinkRefused(h *NextHop, err error) bool {
	return h.Onlink && h.Gateway.Is6() && !h.Gateway.IsLinkLocalUnicast() && errors.Is(err, unix.EINVAL)
}

// step names a gateway and the link it is to be reached by.
type step struct {
	gateway netip.Addr
	link    int
}

// overSteps runs write between the making and the removing of host routes that lead to the gateways over their links: with
// them the kernel's look-up agrees, and the old route serves until the new one replaces it. Where a step is left behind because
// we die here, the next process finds a route of ours that nobody wants, and removes it.
func (k *linux) overSteps(ctx context.Context, steps map[step]struct{}, write func() error) error {
	var add, remove []RouteOp
	for s := range steps {
		r := &Route{Dst: netip.PrefixFrom(s.gateway, s.gateway.BitLen()), Metric: stepMetric, Type: Unicast,
			Protocol: ProtoCaracal, NextHops: []NextHop{{Link: s.link}}}
		add, remove = append(add, RouteOp{Add, r}), append(remove, RouteOp{Delete, r})
	}
	ignore := func(int, error) {} // the write that follows says it better
	err := k.writeRoutes(ctx, add, ignore)
	if err == nil {
		err = write()
	}
	return errors.Join(err, k.writeRoutes(ctx, remove, ignore))
}

// WriteRoutes performs the operations in batches.
func (k *linux) WriteRoutes(ctx context.Context, ops []RouteOp, failed func(i int, err error)) error {
	var again []int
	steps := map[step]struct{}{}
	err := k.writeRoutes(ctx, ops, func(i int, err error) {
		if !gather(steps, ops[i], err) {
			failed(i, err)
			return
		}
		again = append(again, i)
	})
	if err != nil || len(again) == 0 {
		return err
	}
	refused := make([]RouteOp, len(again))
	for i, op := range again {
		refused[i] = ops[op]
	}
	return k.overSteps(ctx, steps, func() error {
		return k.writeRoutes(ctx, refused, func(i int, err error) { failed(again[i], err) })
	})
}

// gather adds the steps that may help a refused operation, and reports whether there are any.
func gather(steps map[step]struct{}, op RouteOp, err error) bool {
	found := false
	for i := range op.Route.NextHops {
		if h := &op.Route.NextHops[i]; op.Verb != Delete && onlinkRefused(h, err) {
			steps[step{h.Gateway, h.Link}] = struct{}{}
			found = true
		}
	}
	return found
}

// WriteNexthops performs the operations in batches.
func (k *linux) WriteNexthops(ctx context.Context, ops []NexthopOp, failed func(i int, err error)) error {
	var again []int
	steps := map[step]struct{}{}
	err := k.writeNexthops(ctx, ops, func(i int, err error) {
		n := ops[i].Nexthop
		if h := (NextHop{Gateway: n.Gateway, Link: n.Link, Onlink: n.Onlink}); ops[i].Verb != Delete && onlinkRefused(&h, err) {
			steps[step{n.Gateway, n.Link}] = struct{}{}
			again = append(again, i)
			return
		}
		failed(i, err)
	})
	if err != nil || len(again) == 0 {
		return err
	}
	refused := make([]NexthopOp, len(again))
	for i, op := range again {
		refused[i] = ops[op]
	}
	return k.overSteps(ctx, steps, func() error {
		return k.writeNexthops(ctx, refused, func(i int, err error) { failed(again[i], err) })
	})
}
