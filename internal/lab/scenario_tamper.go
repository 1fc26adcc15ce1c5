package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// tampering deletes, on one node, one of each kind of kernel object that is ours, and times the repair by the kernel's own events.
func tampering(ctx context.Context, r *run) error {
	node := r.Plan.Nodes[0].Name
	_, err := r.probed(ctx, "of all pairs", r.Endpoints(nil), anyLoss, func() error {
		return r.withKernel(node, func(k kernel.Kernel) error {
			if err := r.tamperRoutes(ctx, k); err != nil {
				return err
			}
			return r.tamperDevices(ctx, k)
		})
	})
	return err
}

// tamperRoutes deletes one route for each device that routes of ours lead to.
func (r *run) tamperRoutes(ctx context.Context, k kernel.Kernel) error {
	links, err := k.ListLinks(ctx)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	done := 0
	for _, l := range links {
		mine, err := ours(ctx, k, func(rt *kernel.Route) bool { return len(rt.NextHops) > 0 && rt.NextHops[0].Link == l.Index })
		if err != nil {
			return err
		}
		if len(mine) == 0 {
			continue
		}
		done++
		victim := mine[0]
		took, err := repaired(ctx, k, func() error {
			return k.WriteRoutes(ctx, []kernel.RouteOp{{Verb: kernel.Delete, Route: &victim}}, func(_ int, err error) { r.note("delete", "%v", err) })
		}, func(e kernel.Event) (ours, deleted bool) {
			return e.Kind == kernel.EventRoute && e.Route.Dst == victim.Dst && e.Route.Protocol == kernel.ProtoCaracal, e.Deleted
		})
		if err != nil {
			return fmt.Errorf("route to %s on %s: %w", victim.Dst, l.Name, err)
		}
		r.note("deleted route on "+l.Name+" was back after", "%s", ms(took))
	}
	if done == 0 {
		return errors.New("no route of ours leads anywhere: nothing to tamper with")
	}
	return nil
}

// tamperDevices deletes a neighbour, an FDB entry and the device itself of each VXLAN device, and empties tunl0.
func (r *run) tamperDevices(ctx context.Context, k kernel.Kernel) error {
	links, err := k.ListLinks(ctx)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		switch {
		case !slices.Contains(tunnelDevices(), l.Name):
			continue
		case l.Kind == "vxlan":
			err = r.tamperVXLAN(ctx, k, l)
		case l.Up:
			err = r.tamperTunl0(ctx, k, l)
		}
		if err != nil {
			return fmt.Errorf("device %s: %w", l.Name, err)
		}
	}
	return nil
}

func (r *run) tamperVXLAN(ctx context.Context, k kernel.Kernel, l kernel.Link) error {
	entries, err := k.ListNeighbours(ctx, l.Index)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, fdb := range []bool{false, true} {
		kind := map[bool]string{false: "neighbour", true: "FDB entry"}[fdb]
		i := slices.IndexFunc(entries, func(n kernel.Neighbour) bool { return n.FDB == fdb && n.Permanent && n.Addr.IsValid() })
		if i < 0 {
			return fmt.Errorf("no permanent %s: nothing to tamper with", kind)
		}
		victim := entries[i]
		took, err := repaired(ctx, k, func() error {
			return k.WriteNeighbours(ctx, []kernel.NeighbourOp{{Delete: true, Neighbour: victim}}, func(_ int, err error) { r.note("delete", "%v", err) })
		}, func(e kernel.Event) (ours, deleted bool) {
			n := e.Neighbour
			return e.Kind == kernel.EventNeighbour && n.Link == l.Index && n.FDB == fdb && n.Addr == victim.Addr && n.MAC == victim.MAC || isGoneEntry(e, victim), e.Deleted
		})
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		r.note("deleted "+kind+" on "+l.Name+" was back after", "%s", ms(took))
	}
	return r.tamperLink(ctx, k, l, "deleted device", func() error { return k.DeleteLink(ctx, l.Index) })
}

// isGoneEntry matches the delete event of an ARP or NDP entry, which carries no MAC any more.
func isGoneEntry(e kernel.Event, victim kernel.Neighbour) bool {
	return e.Kind == kernel.EventNeighbour && e.Deleted && !victim.FDB && !e.Neighbour.FDB &&
		e.Neighbour.Link == victim.Link && e.Neighbour.Addr == victim.Addr
}

func (r *run) tamperTunl0(ctx context.Context, k kernel.Kernel, l kernel.Link) error {
	err := r.tamperLink(ctx, k, l, "device set down", func() error { return k.SetLink(ctx, l.Index, 0, [6]byte{}, false) })
	if err != nil {
		return err
	}
	addrs, err := k.ListAddresses(ctx)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	i := slices.IndexFunc(addrs, func(a kernel.Address) bool { return a.Link == l.Index && a.Prefix.Addr().Is4() })
	if i < 0 {
		return errors.New("no address: nothing to tamper with")
	}
	took, err := repaired(ctx, k, func() error { return k.DeleteAddress(ctx, addrs[i]) }, func(e kernel.Event) (ours, deleted bool) {
		return e.Kind == kernel.EventAddress && e.Address.Prefix == addrs[i].Prefix, e.Deleted
	})
	if err != nil {
		return fmt.Errorf("address %s: %w", addrs[i].Prefix, err)
	}
	r.note("deleted address on "+l.Name+" was back after", "%s", ms(took))
	return nil
}

// tamperLink breaks a device and waits until it stands again, with all its routes and entries.
func (r *run) tamperLink(ctx context.Context, k kernel.Kernel, l kernel.Link, what string, breakIt func() error) error {
	before, err := deviceState(ctx, k, l.Name)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := breakIt(); err != nil {
		return err
	}
	err = poll(ctx, time.Millisecond, func() error {
		now, err := deviceState(ctx, k, l.Name)
		if err == nil && now != before {
			err = fmt.Errorf("%s is %s, was %s", l.Name, now, before)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r.note(what+" "+l.Name+" stood whole after", "%s", ms(time.Since(began)))
	return nil
}

// deviceState says in words what hangs on a device.
func deviceState(ctx context.Context, k kernel.Kernel, name string) (string, error) {
	links, err := k.ListLinks(ctx)
	if err != nil {
		return "", fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Name != name {
			continue
		}
		routes, err := ours(ctx, k, func(rt *kernel.Route) bool { return len(rt.NextHops) > 0 && rt.NextHops[0].Link == l.Index })
		if err != nil {
			return "", err
		}
		entries, err := k.ListNeighbours(ctx, l.Index)
		if err != nil {
			return "", fmt.Errorf("list neighbours: %w", err)
		}
		entries = slices.DeleteFunc(entries, func(n kernel.Neighbour) bool { return !n.Permanent || !n.Addr.IsValid() })
		addrs, err := k.ListAddresses(ctx)
		if err != nil {
			return "", fmt.Errorf("list addresses: %w", err)
		}
		var own []string
		for _, a := range addrs {
			if a.Link == l.Index && !a.Prefix.Addr().IsLinkLocalUnicast() {
				own = append(own, a.Prefix.String())
			}
		}
		slices.Sort(own)
		return fmt.Sprintf("up=%t mtu=%d addresses=%s routes=%d entries=%d", l.Up, l.MTU, strings.Join(own, ","), len(routes), len(entries)), nil
	}
	return "", fmt.Errorf("no device %s", name)
}

// repairLimit is within which a repair must be seen; it is event-driven and takes milliseconds, and the guest is slow.
const repairLimit = 10 * time.Second

// repaired runs tamper and returns the time from before it to the kernel's event that the object, which was seen to be
// gone, is there again: never less than the repair took. match says whether an event is about the object and which of the two it is.
func repaired(ctx context.Context, k kernel.Kernel, tamper func() error, match func(kernel.Event) (ours, deleted bool)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, repairLimit)
	defer cancel()
	events, err := k.Watch(ctx)
	if err != nil {
		return 0, fmt.Errorf("watch: %w", err)
	}
	began := time.Now()
	if err := tamper(); err != nil {
		return 0, err
	}
	gone := false
	for e := range events {
		if e.Kind == kernel.EventLost {
			return 0, fmt.Errorf("events were lost: %w", e.Err)
		}
		mine, deleted := match(e)
		switch {
		case !mine:
		case deleted:
			gone = true
		case gone:
			return time.Since(began), nil
		}
	}
	if !gone {
		return 0, errors.New("the deletion was never seen")
	}
	return 0, fmt.Errorf("not repaired within %s", repairLimit)
}
