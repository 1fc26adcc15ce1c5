package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/caracal-net/caracal/internal/kernel"
)

// LeaveToCalico makes our routes what calico-node's programs take for their own, so that it can be started again without a gap: each route gets, in
// place and without a moment in which it is not there, the protocol number of the program that would have written it. Routes with gateways become BIRD's (12),
// but for those on Felix's VXLAN devices and to workload interfaces, which become Felix's (3, its deviceRouteProtocol). What the two do not want they remove, as
// with leftovers of their own; of routes of protocol 202 they know nothing: BIRD learns them from the kernel, announces them, and is refused the keys that they have.
//
// Blackholes go, since both write theirs under other keys, and so do nexthop objects to which nothing leads any more, and, beside a Felix, what is on devices of
// our own names. Devices and addresses stay. It is for a host on which the daemon has stopped and no BIRD runs yet.
func LeaveToCalico(ctx context.Context, k kernel.Kernel, log *slog.Logger) error {
	if log == nil {
		log = slog.Default()
	}
	links, err := k.ListLinks(ctx)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	names := make(map[int]string)
	for i := range links {
		names[links[i].Index] = links[i].Name
	}
	objects, err := waysOfObjects(ctx, k)
	if err != nil {
		return err
	}
	var errs []error
	for _, v6 := range []bool{false, true} {
		ops, err := leaving(ctx, k, v6, func(link int) string { return names[link] }, objects)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		left := 0
		for i := range ops {
			if ops[i].Verb == kernel.Replace {
				left++
			}
		}
		err = k.WriteRoutes(ctx, ops, func(i int, err error) {
			if ops[i].Verb == kernel.Replace {
				left--
			}
			if !errors.Is(err, kernel.ErrNotThere) {
				errs = append(errs, fmt.Errorf("leave route %s to calico-node: %s", ops[i].Route.Dst, describe(err)))
			}
		})
		errs = append(errs, err)
		if left > 0 {
			log.Info("routes left to calico-node", logCount, left, "ipv6", v6)
		}
	}
	_, err = cleanNexthops(ctx, k)
	return errors.Join(append(errs, err)...)
}

// waysOfObjects returns where our nexthop objects lead.
func waysOfObjects(ctx context.Context, k kernel.Kernel) (map[uint32][]kernel.NextHop, error) {
	out := make(map[uint32][]kernel.NextHop)
	groups := make(map[uint32][]kernel.GroupMember)
	err := k.ListNexthops(ctx, func(n *kernel.Nexthop) bool {
		if len(n.Group) > 0 {
			groups[n.ID] = append([]kernel.GroupMember(nil), n.Group...)
		} else if n.Gateway.IsValid() {
			out[n.ID] = []kernel.NextHop{{Gateway: n.Gateway, Link: n.Link, Onlink: n.Onlink}}
		}
		return true
	})
	if err != nil && !errors.Is(err, kernel.ErrUnsupported) {
		return nil, fmt.Errorf("list nexthop objects: %w", err)
	}
	for id, members := range groups {
		for _, m := range members {
			for _, hop := range out[m.ID] {
				hop.Weight = uint8(min(m.Weight, 255))
				out[id] = append(out[id], hop)
			}
		}
	}
	return out, nil
}

// leaving is what is to be written for the routes of one family.
func leaving(ctx context.Context, k kernel.Kernel, v6 bool, linkName func(int) string, objects map[uint32][]kernel.NextHop) ([]kernel.RouteOp, error) {
	var ours []*kernel.Route
	var taken map[kernel.RouteKey]bool // by others too, so that a replacement may hit theirs
	var err error
	for range interruptedDumps {
		ours, taken = nil, make(map[kernel.RouteKey]bool)
		err = k.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
			if r.Protocol != kernel.ProtoCaracal {
				taken[kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}] = true
				return true
			}
			mine := *r
			mine.NextHops = append([]kernel.NextHop(nil), r.NextHops...)
			ours = append(ours, &mine)
			return true
		})
		if !errors.Is(err, kernel.ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	ops := make([]kernel.RouteOp, len(ours))
	for i, r := range ours {
		ops[i] = kernel.RouteOp{Verb: kernel.Delete, Route: r}
		if theirs := ofCalico(r, linkName, objects); theirs != nil && !taken[kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}] {
			ops[i] = kernel.RouteOp{Verb: kernel.Replace, Route: theirs}
		}
	}
	return ops, nil
}

// ofCalico is a route of ours as calico-node would have written it, nil if it would have none under this key.
func ofCalico(r *kernel.Route, linkName func(int) string, objects map[uint32][]kernel.NextHop) *kernel.Route {
	out := *r
	if r.NexthopID != 0 {
		if out.NextHops = objects[r.NexthopID]; out.NextHops == nil {
			return nil
		}
		out.NexthopID = 0
	}
	out.Src = netip.Addr{}
	switch {
	case out.Type != kernel.Unicast || len(out.NextHops) == 0 || onlyOn(&out, linkName, DeviceBesideVXLAN, DeviceBesideVXLAN6):
		return nil
	case onlyOn(&out, linkName, DeviceVXLAN, DeviceVXLAN6), mayLeadToWorkload(&out, linkName):
		out.Protocol = kernel.ProtoBoot
	default:
		out.Protocol, out.MTU = kernel.ProtoBird, 0 // BIRD's have none
	}
	return &out
}
