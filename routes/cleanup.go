package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Cleanup removes from the host what is ours by the rules of ownership: routes of protocol 202 in table main, nexthop objects of that
// number to which no other program's route or group leads, the VXLAN devices with what is on them, the IPv4 addresses of tunl0, which stays, as it belongs to its module, and addresses
// of that protocol on workload interfaces, where no other program's routes would go with them. It remembers nothing and
// needs nothing but the kernel. Beside a Felix the devices with its names stay. What cannot be removed does not keep the rest from going; the error names all of it.
func Cleanup(ctx context.Context, k kernel.Kernel, besideFelix bool, log *slog.Logger) error {
	if log == nil {
		log = slog.Default()
	}
	var errs []error
	for _, v6 := range []bool{false, true} {
		n, err := cleanRoutes(ctx, k, v6)
		errs = append(errs, err)
		if n > 0 {
			log.Info("routes removed", logCount, n, "ipv6", v6)
		}
	}
	n, err := cleanNexthops(ctx, k)
	errs = append(errs, err)
	if n > 0 {
		log.Info("nexthop objects removed", logCount, n)
	}
	links, err := k.ListLinks(ctx)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list links: %w", err))...)
	}
	tunl0, policy := 0, ownership{beside: besideFelix}
	workloads := map[int]string{}
	for i := range links {
		if isWorkloadInterface(links[i].Name) {
			workloads[links[i].Index] = links[i].Name
		}
		switch l := &links[i]; {
		case policy.removable(l):
			err := k.DeleteLink(ctx, l.Index)
			if err != nil && !errors.Is(err, kernel.ErrNoDevice) {
				errs = append(errs, fmt.Errorf("delete device %s: %w", l.Name, err))
				continue
			}
			log.Info("device removed", logDevice, l.Name)
		case l.Name == DeviceIPIP && l.Kind == "ipip" && !besideFelix: // Felix keeps its address there too
			tunl0 = l.Index
		}
	}
	if tunl0 != 0 {
		errs = append(errs, cleanAddresses(ctx, k, log, DeviceIPIP, func(a *kernel.Address) bool { return a.Link == tunl0 && a.Prefix.Addr().Is4() }))
	}
	if len(workloads) > 0 && !besideFelix {
		leading, err := foreignLinks(ctx, k)
		errs = append(errs, err, cleanAddresses(ctx, k, log, workloadPrefix+"*", func(a *kernel.Address) bool {
			// With the last IPv4 address go all IPv4 routes of the interface, such as the CNI plugin's to the workload (removeAddresses).
			return workloads[a.Link] != "" && a.Protocol == kernel.ProtoCaracal && (a.Prefix.Addr().Is6() || err == nil && !leading[a.Link])
		}))
	}
	return errors.Join(errs...)
}

// cleanRoutes deletes the routes of protocol 202 of one family.
func cleanRoutes(ctx context.Context, k kernel.Kernel, v6 bool) (int, error) {
	policy := ownership{}
	var ours []kernel.Route
	var err error
	for range interruptedDumps {
		ours = ours[:0]
		err = k.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
			if (r.Table == 0 || r.Table == kernel.TableMain) && policy.ours(r, func(int) string { return "" }) {
				mine := *r
				mine.NextHops = append([]kernel.NextHop(nil), r.NextHops...)
				ours = append(ours, mine)
			}
			return true
		})
		if !errors.Is(err, kernel.ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	ops := make([]kernel.RouteOp, len(ours))
	for i := range ours {
		ops[i] = kernel.RouteOp{Verb: kernel.Delete, Route: &ours[i]}
	}
	removed := len(ops)
	refused := map[string][]netip.Prefix{}
	err = k.WriteRoutes(ctx, ops, func(i int, err error) {
		if !errors.Is(err, kernel.ErrNotThere) {
			removed--
			refused[describe(err)] = append(refused[describe(err)], ours[i].Dst)
		}
	})
	errs := []error{err}
	for why, dsts := range refused {
		errs = append(errs, fmt.Errorf("delete %d routes, the first %s: %s", len(dsts), dsts[0], why))
	}
	return removed, errors.Join(errs...)
}

// foreignLinks are the interfaces by which other programs have IPv4 routes.
func foreignLinks(ctx context.Context, k kernel.Kernel) (leading map[int]bool, err error) {
	for range interruptedDumps {
		leading = map[int]bool{}
		err = k.ListRoutes(ctx, false, func(r *kernel.Route) bool {
			for _, h := range r.NextHops {
				if r.Protocol != kernel.ProtoCaracal {
					leading[h.Link] = true
				}
			}
			return true
		})
		if !errors.Is(err, kernel.ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return leading, nil
}

// cleanAddresses takes addresses of ours from the interfaces of a name.
func cleanAddresses(ctx context.Context, k kernel.Kernel, log *slog.Logger, name string, ours func(*kernel.Address) bool) error {
	addrs, err := k.ListAddresses(ctx)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var errs []error
	for _, a := range addrs {
		if !ours(&a) {
			continue
		}
		if err := k.DeleteAddress(ctx, a); err != nil && !errors.Is(err, kernel.ErrNotThere) {
			errs = append(errs, fmt.Errorf("delete address %s from %s: %w", a.Prefix, name, err))
			continue
		}
		log.Info("address removed", logDevice, name, logAddress, a.Prefix.String())
	}
	return errors.Join(errs...)
}

// cleanNexthops deletes the nexthop objects of protocol 202 on which nothing leans: the kernel drops the routes of one that is deleted,
// whoever wrote them.
func cleanNexthops(ctx context.Context, k kernel.Kernel) (int, error) {
	leant := map[uint32]bool{}
	for _, v6 := range []bool{false, true} {
		if err := k.ListRoutes(ctx, v6, func(r *kernel.Route) bool { leant[r.NexthopID] = true; return true }); err != nil {
			return 0, fmt.Errorf("list routes: %w", err)
		}
	}
	var groups, single []kernel.NexthopOp
	err := k.ListNexthops(ctx, func(n *kernel.Nexthop) bool {
		op := kernel.NexthopOp{Verb: kernel.Delete, Nexthop: &kernel.Nexthop{ID: n.ID}}
		switch {
		case oursNexthop(n) && len(n.Group) > 0 && !leant[n.ID]:
			groups = append(groups, op)
		case oursNexthop(n) && len(n.Group) == 0:
			single = append(single, op)
		default:
			for _, m := range n.Group { // of another program, or one that stays
				leant[m.ID] = true
			}
		}
		return true
	})
	if errors.Is(err, kernel.ErrUnsupported) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list nexthop objects: %w", err)
	}
	ops := append(groups, slices.DeleteFunc(single, func(o kernel.NexthopOp) bool { return leant[o.Nexthop.ID] })...)
	errs, removed := []error(nil), len(ops)
	err = k.WriteNexthops(ctx, ops, func(i int, err error) {
		if removed--; !errors.Is(err, kernel.ErrNotThere) {
			errs = append(errs, fmt.Errorf("delete nexthop object %d: %s", ops[i].Nexthop.ID, describe(err)))
		}
	})
	return removed, errors.Join(append(errs, err)...)
}
