package kerneltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// WithoutNexthops makes the Fake a kernel that has no nexthop objects (before Linux 5.3).
func (f *Fake) WithoutNexthops() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noNexthops = true
}

func (f *Fake) supportsNexthops(ctx context.Context) (bool, error) {
	probe := &kernel.Nexthop{ID: kernel.ProbeNexthop, Protocol: kernel.ProtoCaracal, Blackhole: true}
	errs, err := f.writeNexthops(ctx, []kernel.NexthopOp{{Verb: kernel.Add, Nexthop: probe}, {Verb: kernel.Delete, Nexthop: probe}})
	switch {
	case err != nil:
		return false, fmt.Errorf("try nexthop objects: %w", err)
	case len(errs) == 0 || errs[0].i != 0 || errors.Is(errs[0].err, kernel.ErrExists):
		return true, nil
	case errors.Is(errs[0].err, kernel.ErrUnsupported):
		return false, nil
	}
	return false, fmt.Errorf("try nexthop objects: %w", errs[0].err)
}

func (f *Fake) listNexthops(ctx context.Context) ([]kernel.Nexthop, error) {
	err := f.enter(ctx, "ListNexthops", ListNexthopsFails)
	if err == nil && f.noNexthops {
		err = kernel.FromErrno(syscall.EOPNOTSUPP)
	}
	if err != nil {
		return nil, fmt.Errorf("list nexthops: %w", err)
	}
	var all []kernel.Nexthop
	for _, n := range f.nexthops {
		all = append(all, cloneNexthop(n))
	}
	slices.SortFunc(all, func(a, b kernel.Nexthop) int { return cmp.Compare(a.ID, b.ID) })
	if err := f.due(ListNexthopsBreaks); err != nil {
		return all[:len(all)/2], fmt.Errorf("list nexthops: %w", err)
	}
	return all, nil
}

func cloneNexthop(n *kernel.Nexthop) kernel.Nexthop {
	c := *n
	c.Group = slices.Clone(n.Group)
	return c
}

func (f *Fake) writeNexthops(ctx context.Context, ops []kernel.NexthopOp) ([]opError, error) {
	if err := f.enter(ctx, "WriteNexthops", ""); err != nil {
		return nil, fmt.Errorf("write nexthops: %w", err)
	}
	var errs []opError
	var lost error
	for i, op := range ops {
		f.calls["NexthopOps"]++
		if err := f.due(NexthopBatchBreaks); err != nil {
			return errs, fmt.Errorf("write nexthops: %w", err)
		}
		if err := f.due(NexthopAcksLost); err != nil && lost == nil {
			lost = fmt.Errorf("write nexthops: %w", err)
		}
		err := f.due(NexthopOpFails)
		if err == nil {
			err = f.writeNexthop(op)
		}
		if err != nil && lost == nil {
			errs = append(errs, opError{i, fmt.Errorf("%s: %w", op, err)})
		}
	}
	return errs, lost
}

func (f *Fake) writeNexthop(op kernel.NexthopOp) error {
	if op.Nexthop == nil || op.Nexthop.ID == 0 || op.Verb > kernel.Delete {
		return kernel.FromErrno(syscall.EINVAL)
	}
	old := f.nexthops[op.Nexthop.ID]
	switch {
	case f.noNexthops:
		return kernel.FromErrno(syscall.EOPNOTSUPP)
	case op.Verb == kernel.Delete && old == nil:
		return kernel.FromErrno(syscall.ENOENT)
	case op.Verb == kernel.Delete:
		f.dropNexthop(old, true)
		return nil
	}
	n := normalNexthop(op.Nexthop)
	if err := f.checkNexthop(n); err != nil {
		return err
	}
	if old == nil && op.Verb == kernel.Replace {
		return kernel.FromErrno(syscall.ENOENT)
	}
	if old == nil {
		f.nexthops[n.ID] = n
		f.emit(kernel.Event{Kind: kernel.EventNexthop, Nexthop: cloneNexthop(n)})
		return nil
	}
	if op.Verb == kernel.Add {
		return kernel.FromErrno(syscall.EEXIST)
	}
	return f.replaceNexthop(old, n)
}

// normalNexthop is the object as the kernel keeps it.
func normalNexthop(asked *kernel.Nexthop) *kernel.Nexthop {
	n := cloneNexthop(asked)
	switch {
	case len(n.Group) > 0:
		n.V6, n.Gateway, n.Link, n.Onlink, n.Blackhole = false, netip.Addr{}, 0, false, false
	case n.Blackhole:
		n.Gateway, n.Link, n.Onlink = netip.Addr{}, 0, false
	}
	for i := range n.Group {
		n.Group[i].Weight = max(n.Group[i].Weight, 1)
	}
	return &n
}

// checkNexthop refuses what the kernel refuses of an object by itself.
func (f *Fake) checkNexthop(n *kernel.Nexthop) error {
	invalid := kernel.FromErrno(syscall.EINVAL)
	if n.Other {
		return invalid
	}
	if len(n.Group) > 0 {
		for i, m := range n.Group {
			member := f.nexthops[m.ID]
			switch {
			case member == nil, len(member.Group) > 0, m.Weight > 256, member.Blackhole && len(n.Group) > 1:
				return invalid
			case slices.ContainsFunc(n.Group[:i], func(o kernel.GroupMember) bool { return o.ID == m.ID }):
				return invalid
			}
		}
		return nil
	}
	if n.Blackhole {
		return nil
	}
	l := f.links[n.Link]
	switch {
	case n.Gateway.IsValid() && n.Gateway.Is6() != n.V6:
		return invalid
	case l == nil:
		return &kernel.Refusal{Errno: syscall.EINVAL, Meaning: kernel.ErrNoDevice}
	case !l.Up || !l.carrier:
		return kernel.FromErrno(syscall.ENETDOWN)
	case n.Gateway.IsValid() && !n.Onlink && !f.onLink(kernel.NextHop{Gateway: n.Gateway, Link: n.Link}):
		return kernel.FromErrno(map[bool]syscall.Errno{true: syscall.EHOSTUNREACH, false: syscall.ENETUNREACH}[n.V6])
	}
	return nil
}

// replaceNexthop puts n in the place of old: the routes of the object, and of groups that it is in, lead elsewhere at once. With
// nexthop_compat_mode the kernel tells of each of them.
func (f *Fake) replaceNexthop(old, n *kernel.Nexthop) error {
	invalid := kernel.FromErrno(syscall.EINVAL)
	if (len(old.Group) > 0) != (len(n.Group) > 0) {
		return invalid
	}
	for _, g := range f.nexthops {
		if n.Blackhole && len(g.Group) > 1 && isMember(g, n.ID) {
			return invalid
		}
	}
	f.nexthops[n.ID] = n
	for _, e := range f.routesBy(n.ID) {
		if e.Dst.Addr().Is6() && !f.fitsIPv6(f.nexthops[e.NexthopID]) {
			f.nexthops[n.ID] = old
			return invalid
		}
	}
	f.emit(kernel.Event{Kind: kernel.EventNexthop, Nexthop: cloneNexthop(n)})
	if f.compat() {
		for _, e := range f.routesBy(n.ID) {
			f.emit(kernel.Event{Kind: kernel.EventRoute, Replaced: true, Route: entryShown(f, e)})
		}
	}
	return nil
}

func isMember(g *kernel.Nexthop, id uint32) bool {
	return slices.ContainsFunc(g.Group, func(m kernel.GroupMember) bool { return m.ID == id })
}

// routesBy are the routes that lead to the object or to a group it is in, by family and destination.
func (f *Fake) routesBy(id uint32) []*entry {
	var all []*entry
	for _, v6 := range []bool{false, true} {
		for _, dst := range f.destinations(v6) {
			for _, e := range f.fib[dst] {
				if n := f.nexthops[e.NexthopID]; n != nil && (n.ID == id || isMember(n, id)) {
					all = append(all, e)
				}
			}
		}
	}
	return all
}

// fitsIPv6 reports whether an IPv6 route may lead to the object.
func (f *Fake) fitsIPv6(n *kernel.Nexthop) bool {
	if n == nil || len(n.Group) == 0 {
		return n != nil && n.V6
	}
	return !slices.ContainsFunc(n.Group, func(m kernel.GroupMember) bool { return !f.nexthops[m.ID].V6 })
}

// dropNexthop removes an object. Its IPv4 routes go without a word, its IPv6 routes with an event each where
// nexthop_compat_mode is 1. Groups lose it, and the group that had no other member goes the same way. When an interface took it, tell
// is false and the kernel says nothing of objects.
func (f *Fake) dropNexthop(n *kernel.Nexthop, tell bool) {
	shown := map[*entry]kernel.Route{}
	for _, e := range f.routesBy(n.ID) {
		shown[e] = entryShown(f, e)
	}
	f.drop(n, tell, shown)
}

// drop is dropNexthop with the routes as they were before the first object went.
func (f *Fake) drop(n *kernel.Nexthop, tell bool, shown map[*entry]kernel.Route) {
	gone := f.routesBy(n.ID)
	delete(f.nexthops, n.ID)
	if tell {
		f.emit(kernel.Event{Kind: kernel.EventNexthop, Deleted: true, Nexthop: cloneNexthop(n)})
	}
	for _, e := range gone {
		if e.NexthopID != n.ID {
			continue
		}
		f.remove(e)
		if e.Dst.Addr().Is6() && f.compat() {
			f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: shown[e]})
		}
	}
	for _, id := range f.nexthopIDs() {
		g := f.nexthops[id]
		if g == nil || !isMember(g, n.ID) {
			continue
		}
		if len(g.Group) == 1 {
			f.drop(g, tell, shown)
			continue
		}
		g.Group = slices.DeleteFunc(slices.Clone(g.Group), func(m kernel.GroupMember) bool { return m.ID == n.ID })
		if tell {
			f.emit(kernel.Event{Kind: kernel.EventNexthop, Nexthop: cloneNexthop(g)})
		}
	}
}

func (f *Fake) nexthopIDs() []uint32 {
	var ids []uint32
	for id := range f.nexthops {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// flushNexthops removes the objects of an interface that went down, away, or lost its carrier.
func (f *Fake) flushNexthops(index int) {
	for _, id := range f.nexthopIDs() {
		if n := f.nexthops[id]; n != nil && n.Link == index {
			f.dropNexthop(n, false)
		}
	}
}

func (f *Fake) compat() bool { return f.sysctls[kernel.SysctlNexthopCompat] != 0 }

// leadsTo shows a route that refers to an object as the kernel shows it.
func (f *Fake) leadsTo(r kernel.Route) kernel.Route {
	r = f.resolve(r)
	if !f.compat() {
		r.NextHops = nil
	}
	return r
}

// resolve fills in the next hops of a route that refers to an object.
func (f *Fake) resolve(r kernel.Route) kernel.Route {
	n := f.nexthops[r.NexthopID]
	r.NextHops = nil
	switch {
	case n == nil:
		return r
	case n.Blackhole || len(n.Group) == 1 && f.nexthops[n.Group[0].ID].Blackhole:
		r.Type = kernel.Blackhole
		return r
	case len(n.Group) == 0:
		r.NextHops = []kernel.NextHop{hopOf(n, 1)}
	}
	for _, m := range n.Group {
		r.NextHops = append(r.NextHops, hopOf(f.nexthops[m.ID], m.Weight))
	}
	if len(r.NextHops) == 1 {
		r.NextHops[0].Weight = 1
	}
	return r
}

func hopOf(n *kernel.Nexthop, weight uint16) kernel.NextHop {
	return kernel.NextHop{Gateway: n.Gateway, Link: n.Link, Onlink: n.Onlink, Weight: uint8(min(weight, 255))}
}
