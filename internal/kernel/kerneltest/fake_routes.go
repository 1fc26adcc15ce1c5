package kerneltest

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// entry is one element of the FIB: in IPv4 a route with all its next hops, in IPv6 a route with one next hop, of
// which those of equal metric that have a gateway are shown together as one multipath route.
type entry struct {
	kernel.Route
	dead uint64 // bit per next hop: its interface is down (RTNH_F_DEAD)
}

// ipv6Metric is IP6_RT_PRIO_USER (linux/ipv6_route.h): what IPv6 makes of metric 0.
const ipv6Metric = 1024

// connectedMetric is IP6_RT_PRIO_ADDRCONF, the metric of IPv6 connected routes.
const connectedMetric = 256

func (e *entry) sibling() bool {
	return e.Dst.Addr().Is6() && len(e.NextHops) == 1 && e.NextHops[0].Gateway.IsValid()
}

// allDead reports whether nothing of the route is left alive.
func (e *entry) allDead() bool {
	return len(e.NextHops) > 0 && e.dead == 1<<len(e.NextHops)-1
}

// normal is the route as the kernel keeps it.
func normal(r *kernel.Route) kernel.Route {
	n := *r
	n.NextHops = slices.Clone(r.NextHops)
	n.Dst = r.Dst.Masked()
	if n.Table == 0 {
		n.Table = kernel.TableMain
	}
	if n.Type == 0 {
		n.Type = kernel.Unicast
	}
	if n.Dst.Addr().Is6() {
		if n.Metric == 0 {
			n.Metric = ipv6Metric
		}
		n.Scope = kernel.ScopeUniverse
		n.TOS = 0
	}
	if n.NexthopID != 0 {
		n.Type, n.NextHops = kernel.Unicast, nil
		return n
	}
	if n.Type != kernel.Unicast && n.Type != kernel.Local {
		n.NextHops = nil
	}
	for i := range n.NextHops {
		n.NextHops[i].Weight = max(n.NextHops[i].Weight, 1)
		n.NextHops[i].Dead = false
	}
	if n.Dst.Addr().Is4() && n.Type == kernel.Unicast && !slices.ContainsFunc(n.NextHops, func(h kernel.NextHop) bool { return h.Gateway.IsValid() }) {
		n.Scope = kernel.ScopeLink
	}
	return n
}

func (f *Fake) listRoutes(ctx context.Context, v6 bool) ([]kernel.Route, error) {
	if err := f.enter(ctx, "ListRoutes", ListRoutesFails); err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var dsts []netip.Prefix
	for dst := range f.fib {
		if dst.Addr().Is6() == v6 {
			dsts = append(dsts, dst)
		}
	}
	slices.SortFunc(dsts, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var all []kernel.Route
	for _, dst := range dsts {
		all = f.show(all, f.fib[dst])
	}
	if err := f.due(ListRoutesBreaks); err != nil {
		return all[:len(all)/2], fmt.Errorf("list routes: %w", err)
	}
	return all, nil
}

// show appends the entries of one destination as a dump gives them: IPv6 siblings as one route.
func (f *Fake) show(all []kernel.Route, entries []*entry) []kernel.Route {
	for i, e := range entries {
		first := slices.IndexFunc(entries, func(o *entry) bool { return o.sibling() && e.sibling() && o.Metric == e.Metric })
		if first >= 0 && first < i {
			continue
		}
		if e.NexthopID != 0 {
			all = append(all, f.leadsTo(e.Route))
			continue
		}
		r := e.Route
		r.NextHops = nil
		for n, h := range e.NextHops {
			r.NextHops = append(r.NextHops, f.hop(e, n, h))
		}
		if e.sibling() {
			for _, o := range entries[i+1:] {
				if o.sibling() && o.Metric == e.Metric {
					r.NextHops = append(r.NextHops, f.hop(o, 0, o.NextHops[0]))
				}
			}
		}
		all = append(all, r)
	}
	return all
}

func (f *Fake) hop(e *entry, n int, h kernel.NextHop) kernel.NextHop {
	l := f.links[h.Link]
	h.Dead = e.dead&(1<<n) != 0 || l == nil || !l.carrier
	return h
}

func (f *Fake) writeRoutes(ctx context.Context, ops []kernel.RouteOp) ([]opError, error) {
	if err := f.enter(ctx, "WriteRoutes", ""); err != nil {
		return nil, fmt.Errorf("write routes: %w", err)
	}
	var errs []opError
	var lost error
	for i, op := range ops {
		f.calls["RouteOps"]++
		if err := f.due(RouteBatchBreaks); err != nil {
			return errs, fmt.Errorf("write routes: %w", err)
		}
		if err := f.due(RouteAcksLost); err != nil && lost == nil {
			lost = fmt.Errorf("write routes: %w", err)
		}
		err := f.due(RouteOpFails)
		if err == nil {
			if errno := f.writeRoute(op); errno != 0 {
				err = kernel.FromErrno(errno)
				if errno == syscall.EINVAL && op.Verb != kernel.Delete && op.Route.NexthopID != 0 && f.nexthops[op.Route.NexthopID] == nil {
					err = &kernel.Refusal{Errno: errno, Meaning: kernel.ErrNoNexthop}
				}
			}
		}
		if err != nil && lost == nil {
			errs = append(errs, opError{i, err})
		}
	}
	return errs, lost
}

func (f *Fake) writeRoute(op kernel.RouteOp) syscall.Errno {
	r := normal(op.Route)
	if !r.Dst.IsValid() || op.Route.Dst != r.Dst {
		return syscall.EINVAL
	}
	if r.Table != kernel.TableMain {
		return syscall.EOPNOTSUPP // the Fake has one table
	}
	if op.Verb == kernel.Delete {
		if r.Dst.Addr().Is6() {
			return f.delete6(&r, op.Route)
		}
		return f.delete4(&r, op.Route)
	}
	if errno := f.check(&r); errno != 0 {
		return errno
	}
	f.muted = f.muteAdds && f.own && op.Verb == kernel.Add
	defer func() { f.muted = false }()
	return f.insert(&r, op.Verb == kernel.Replace)
}

// check refuses what the kernel refuses about next hops.
func (f *Fake) check(r *kernel.Route) syscall.Errno {
	if r.NexthopID != 0 {
		if n := f.nexthops[r.NexthopID]; n == nil || r.Dst.Addr().Is6() && !f.fitsIPv6(n) || r.Src.IsValid() && !f.holds(r.Src) {
			return syscall.EINVAL
		}
		return 0
	}
	if r.Type == kernel.Unicast && len(r.NextHops) == 0 {
		return syscall.ENODEV
	}
	if r.Src.IsValid() && !f.holds(r.Src) {
		return syscall.EINVAL
	}
	for _, h := range r.NextHops {
		if errno := f.checkHop(&h, r.Dst.Addr().Is6()); errno != 0 {
			return errno
		}
	}
	return 0
}

// checkHop refuses a next hop of a route of one family. What counts is the gateway's: an IPv4 route's IPv6 gateway is looked at as that of an
// IPv6 route (fib_check_nh_v6_gw).
func (f *Fake) checkHop(h *kernel.NextHop, v6 bool) syscall.Errno {
	l, gw := f.links[h.Link], h.Gateway
	if gw.IsValid() {
		if gw.Is4() && v6 || gw.Is4In6() {
			return syscall.EINVAL
		}
		v6 = gw.Is6()
	}
	switch {
	case l == nil && !v6 && gw.IsValid() && !h.Onlink:
		return syscall.ENETUNREACH // IPv4 looks for a route to the gateway first
	case l == nil:
		return syscall.ENODEV
	case gw.Is6() && f.holds(gw):
		return syscall.EINVAL
	case gw.IsValid() && !h.Onlink && !f.onLink(*h):
		if v6 {
			return syscall.EHOSTUNREACH
		}
		return syscall.ENETUNREACH
	case gw.Is6() && f.sysctls[kernel.DeviceSetting(l.Name, true, kernel.DisableIPv6)] != 0:
		return syscall.EACCES
	case !l.Up:
		return syscall.ENETDOWN
	}
	return 0
}

func (f *Fake) holds(a netip.Addr) bool {
	return slices.ContainsFunc(f.addrs, func(o kernel.Address) bool { return o.Prefix.Addr() == a })
}

// onLink reports whether the gateway is a neighbour on the link by the link's addresses.
func (f *Fake) onLink(h kernel.NextHop) bool {
	if h.Gateway.Is6() && h.Gateway.IsLinkLocalUnicast() {
		return true
	}
	return f.links[h.Link].Up && slices.ContainsFunc(f.addrs, func(a kernel.Address) bool {
		return a.Link == h.Link && a.Prefix.Masked().Contains(h.Gateway)
	})
}

// order sorts a new entry in among those of its destination: by TOS (highest first) and metric; behind its equals.
func (f *Fake) place(r *kernel.Route) int {
	entries := f.fib[r.Dst]
	for i, e := range entries {
		if e.TOS < r.TOS || e.TOS == r.TOS && e.Metric > r.Metric {
			return i
		}
	}
	return len(entries)
}

func equalKey(a *entry, b *kernel.Route) bool { return a.Metric == b.Metric && a.TOS == b.TOS }

func (f *Fake) insert(r *kernel.Route, replace bool) syscall.Errno {
	entries := f.fib[r.Dst]
	first := slices.IndexFunc(entries, func(e *entry) bool { return equalKey(e, r) })
	switch {
	case first < 0:
		f.put(r, f.place(r))
	case !replace:
		return syscall.EEXIST
	case r.Dst.Addr().Is6():
		f.put(r, f.makeRoom6(r, first))
	default:
		for i := first; i < len(entries) && equalKey(entries[i], r); i++ {
			if equalRoute(&entries[i].Route, r) {
				if i == first {
					return 0 // the very same: nothing changes and nothing is said
				}
				return syscall.EEXIST
			}
		}
		entries[first] = &entry{Route: *r}
		f.emit(kernel.Event{Kind: kernel.EventRoute, Replaced: true, Route: entryShown(f, entries[first])})
		return 0
	}
	f.emit(kernel.Event{Kind: kernel.EventRoute, Route: f.group(r), Replaced: first >= 0 && replace})
	return 0
}

// put inserts the route at a place, in IPv6 as one entry per next hop.
func (f *Fake) put(r *kernel.Route, at int) {
	var fresh []*entry
	if r.Dst.Addr().Is6() && len(r.NextHops) > 1 {
		for _, h := range r.NextHops {
			one := *r
			one.NextHops = []kernel.NextHop{h}
			fresh = append(fresh, &entry{Route: one})
		}
	} else {
		fresh = []*entry{{Route: cloneRoute(*r)}}
	}
	f.fib[r.Dst] = slices.Insert(f.fib[r.Dst], at, fresh...)
}

// makeRoom6 removes what an IPv6 replace removes and returns where to insert: all the siblings if the new route has
// gateways and there are any, the first route without siblings if it has none, else the first of that metric, with its
// siblings (fib6_add_rt2node).
func (f *Fake) makeRoom6(r *kernel.Route, first int) int {
	entries := f.fib[r.Dst]
	gateways := (&entry{Route: kernel.Route{Dst: r.Dst, NextHops: r.NextHops[:min(1, len(r.NextHops))]}}).sibling()
	victim := first
	for i := first; i < len(entries) && equalKey(entries[i], r); i++ {
		if entries[i].sibling() == gateways {
			victim = i
			break
		}
	}
	v := entries[victim]
	f.fib[r.Dst] = slices.DeleteFunc(entries, func(e *entry) bool {
		return e == v || v.sibling() && e.sibling() && equalKey(e, r)
	})
	return min(victim, len(f.fib[r.Dst]))
}

// group is the route as an event shows it: in IPv6 with all siblings.
func (f *Fake) group(r *kernel.Route) kernel.Route {
	if r.NexthopID != 0 {
		return f.leadsTo(*r)
	}
	probe := entry{Route: *r}
	probe.NextHops = r.NextHops[:min(1, len(r.NextHops))]
	if !probe.sibling() {
		return cloneRoute(*r)
	}
	var same []*entry
	for _, e := range f.fib[r.Dst] {
		if e.sibling() && equalKey(e, r) {
			same = append(same, e)
		}
	}
	if len(same) == 0 {
		return cloneRoute(*r)
	}
	return f.show(nil, same)[0]
}

func cloneRoute(r kernel.Route) kernel.Route {
	r.NextHops = slices.Clone(r.NextHops)
	return r
}

func equalRoute(a, b *kernel.Route) bool {
	x, y := *a, *b
	x.NextHops, y.NextHops = nil, nil
	return fmt.Sprint(x) == fmt.Sprint(y) && slices.Equal(a.NextHops, b.NextHops)
}

// delete4 removes the first route of that key, protocol and type. Metric 0 matches any, as in fib_nh_match.
func (f *Fake) delete4(r, asked *kernel.Route) syscall.Errno {
	entries := f.fib[r.Dst]
	i := slices.IndexFunc(entries, func(e *entry) bool {
		return e.TOS == r.TOS && (r.Metric == 0 || e.Metric == r.Metric) && (r.Protocol == 0 || e.Protocol == r.Protocol) &&
			(asked.Type == 0 || r.NexthopID != 0 || e.Type == r.Type) && (r.NexthopID == 0 || e.NexthopID == r.NexthopID)
	})
	if i < 0 {
		return syscall.ESRCH
	}
	f.remove(entries[i])
	f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, entries[i])})
	return 0
}

func entryShown(f *Fake, e *entry) kernel.Route { return f.show(nil, []*entry{e})[0] }

// delete6 removes the next hops that the request names, each only where the protocol is right too; without next hops the first
// route of that key and protocol and, as the kernel does, all its siblings, whoever wrote them.
func (f *Fake) delete6(r, asked *kernel.Route) syscall.Errno {
	blackhole := asked.Type != 0 && r.Type != kernel.Unicast && r.Type != kernel.Local // named by its place on lo
	match := func(e *entry) bool {
		return e.Metric == r.Metric && (r.Protocol == 0 || e.Protocol == r.Protocol) && (r.NexthopID == 0 || e.NexthopID == r.NexthopID) &&
			(!blackhole || len(e.NextHops) == 0)
	}
	if len(r.NextHops) == 0 {
		entries := f.fib[r.Dst]
		i := slices.IndexFunc(entries, match)
		if i < 0 {
			return syscall.ESRCH
		}
		gone := []*entry{entries[i]}
		for _, e := range entries[i+1:] {
			if entries[i].sibling() && e.sibling() && e.Metric == entries[i].Metric {
				gone = append(gone, e)
			}
		}
		route := f.show(nil, gone)[0]
		for _, e := range gone {
			f.remove(e)
		}
		f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: route})
		return 0
	}
	var errno syscall.Errno
	for _, h := range r.NextHops {
		i := slices.IndexFunc(f.fib[r.Dst], func(e *entry) bool {
			// A route that refers to an object is taken whatever next hops are named (ip6_route_del).
			return match(e) && e.NexthopID != 0 || match(e) && len(e.NextHops) == 1 && e.NextHops[0].Gateway == h.Gateway && e.NextHops[0].Link == h.Link
		})
		if i < 0 {
			errno = syscall.ESRCH
			continue
		}
		e := f.fib[r.Dst][i]
		f.remove(e)
		f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, e)})
	}
	return errno
}

func (f *Fake) remove(gone *entry) {
	left := slices.DeleteFunc(slices.Clone(f.fib[gone.Dst]), func(e *entry) bool { return e == gone })
	if len(left) == 0 {
		delete(f.fib, gone.Dst)
		return
	}
	f.fib[gone.Dst] = left
}

// Append writes a route as "ip route append" of another program does: beside those of the same key, in IPv6 as a sibling.
func (f *Fake) Append(r *kernel.Route) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := normal(r)
	if errno := f.check(&n); errno != 0 {
		return kernel.FromErrno(errno)
	}
	f.put(&n, f.place(&n))
	f.emit(kernel.Event{Kind: kernel.EventRoute, Route: f.group(&n)})
	return nil
}
