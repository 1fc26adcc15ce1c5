package kerneltest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// connect makes the connected route of an address on an interface that is up.
func (f *Fake) connect(a kernel.Address) {
	if a.Protocol != 0 {
		return // IFA_F_NOPREFIXROUTE
	}
	r := kernel.Route{
		Dst: a.Prefix.Masked(), Table: kernel.TableMain, Type: kernel.Unicast, Protocol: kernel.ProtoKernel,
		NextHops: []kernel.NextHop{{Link: a.Link, Weight: 1}},
	}
	if a.Prefix.Addr().Is4() {
		if a.Prefix.Bits() == 32 {
			return
		}
		r.Scope, r.Src = kernel.ScopeLink, a.Prefix.Addr()
	} else {
		r.Metric = connectedMetric
	}
	for _, e := range f.fib[r.Dst] {
		if e.Metric == r.Metric && e.Protocol == kernel.ProtoKernel && len(e.NextHops) == 1 && e.NextHops[0].Link == a.Link {
			return
		}
	}
	f.put(&r, f.place(&r))
	f.emit(kernel.Event{Kind: kernel.EventRoute, Route: cloneRoute(r)})
}

// deadHops walks the multipath routes that have a dead next hop on the link.
func (l *link) deadHops(f *Fake) func(yield func(*entry) bool) {
	return func(yield func(*entry) bool) {
		for _, entries := range f.fib {
			for _, e := range entries {
				if e.dead != 0 && !yield(e) {
					return
				}
			}
		}
	}
}

// revive marks the next hops on a link that came up as alive; the kernel says nothing.
func (e *entry) revive(index int) {
	for n, h := range e.NextHops {
		if h.Link == index {
			e.dead &^= 1 << n
		}
	}
}

// disconnect removes the connected route of an address that went, unless another address still needs it, and says so.
func (f *Fake) disconnect(a kernel.Address) {
	for _, o := range f.addrs {
		if o.Link == a.Link && o.Prefix.Masked() == a.Prefix.Masked() {
			return
		}
	}
	for _, e := range slices.Clone(f.fib[a.Prefix.Masked()]) {
		if e.Protocol == kernel.ProtoKernel && len(e.NextHops) == 1 && e.NextHops[0].Link == a.Link {
			f.remove(e)
			f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, e)})
		}
	}
	if a.Prefix.Addr().Is4() && !slices.ContainsFunc(f.addrs, func(o kernel.Address) bool {
		return o.Link == a.Link && o.Prefix.Addr().Is4()
	}) {
		// The last IPv4 address takes all IPv4 routes of the interface with it (fib_inetaddr_event, fib_disable_ip).
		f.flush(a.Link, false)
	}
}

// flushLink removes the routes of an interface that goes down; multipath routes keep their other next hops.
func (f *Fake) flushLink(index int) {
	f.flush(index, true)
	f.flush(index, false)
}

// flushGone removes the routes that an interface going away leaves behind: in IPv4 multipath routes whole, without a word, in IPv6 the
// next hops through it (fib_sync_down_dev and fib6_ifdown, NETDEV_UNREGISTER).
func (f *Fake) flushGone(index int) {
	f.flushLink(index)
	for _, v6 := range []bool{true, false} {
		for _, dst := range f.destinations(v6) {
			for _, e := range slices.Clone(f.fib[dst]) {
				if !slices.ContainsFunc(e.NextHops, func(h kernel.NextHop) bool { return h.Link == index }) {
					continue
				}
				f.remove(e)
				if v6 {
					f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, e)})
				}
			}
		}
	}
}

func (f *Fake) flush(index int, v6 bool) {
	for _, dst := range f.destinations(v6) {
		for _, e := range slices.Clone(f.fib[dst]) {
			for n, h := range e.NextHops {
				if h.Link == index {
					e.dead |= 1 << n
				}
			}
			if index == 1 && v6 && len(e.NextHops) == 0 && e.NexthopID == 0 {
				// IPv6 keeps blackholes on lo; objects that are blackholes stay.
				f.remove(e)
				f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, e)})
			}
		}
		f.flushDead(dst, v6)
	}
}

func (f *Fake) destinations(v6 bool) []netip.Prefix {
	var all []netip.Prefix
	for dst := range f.fib {
		if dst.Addr().Is6() == v6 {
			all = append(all, dst)
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return all
}

// flushDead removes the routes of one destination of which nothing is alive. IPv6 tells of each; IPv4 says nothing.
func (f *Fake) flushDead(dst netip.Prefix, v6 bool) {
	for _, e := range slices.Clone(f.fib[dst]) {
		if !e.allDead() || e.sibling() && f.liveSibling(e) {
			continue
		}
		f.remove(e)
		if v6 {
			f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, e)})
		}
	}
}

func (f *Fake) liveSibling(e *entry) bool {
	return slices.ContainsFunc(f.fib[e.Dst], func(o *entry) bool {
		return o.sibling() && o.Metric == e.Metric && !o.allDead()
	})
}

// forgetSource removes the IPv4 routes with a preferred source that no interface has any more; IPv6 routes only lose it.
func (f *Fake) forgetSource(a netip.Addr) {
	for _, dst := range f.destinations(a.Is6()) {
		for _, e := range slices.Clone(f.fib[dst]) {
			if e.Src != a {
				continue
			}
			if a.Is6() {
				e.Src = netip.Addr{}
				continue
			}
			f.remove(e)
			f.emit(kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: entryShown(f, e)})
		}
	}
}

func (f *Fake) lookup(ctx context.Context, dst netip.Addr) (kernel.Answer, error) {
	if err := f.enter(ctx, "Lookup", LookupFails); err != nil {
		return kernel.Answer{}, fmt.Errorf("look up %s: %w", dst, err)
	}
	if !dst.IsValid() {
		return kernel.Answer{}, fmt.Errorf("look up: %w", kernel.FromErrno(syscall.EINVAL))
	}
	if f.holds(dst) {
		r := kernel.Route{Dst: netip.PrefixFrom(dst, dst.BitLen()), Table: 255, Type: kernel.Local, Protocol: kernel.ProtoKernel}
		a := kernel.Answer{Match: r, Src: dst, Chosen: kernel.NextHop{Link: 1, Weight: 1}}
		a.Text = kernel.FormatAnswer(dst, &a, f.nameOf)
		return a, nil
	}
	for bits := dst.BitLen(); bits >= 0; bits-- {
		prefix, _ := dst.Prefix(bits)
		for _, r := range f.show(nil, f.fib[prefix]) {
			if r.TOS != 0 {
				continue
			}
			if r.Type == kernel.Throw {
				break
			}
			return f.answer(dst, r), nil
		}
	}
	return kernel.Answer{}, fmt.Errorf("look up %s: %w", dst, kernel.FromErrno(syscall.ENETUNREACH))
}

func (f *Fake) answer(dst netip.Addr, r kernel.Route) kernel.Answer {
	a := kernel.Answer{Match: r}
	if r.NexthopID != 0 {
		r = f.resolve(r) // whether the route shows it or not
	}
	for _, h := range r.NextHops {
		if l := f.links[h.Link]; l != nil && l.Up {
			a.Chosen = h
			break
		}
	}
	a.Src = r.Src
	for _, o := range f.addrs {
		if !a.Src.IsValid() && o.Link == a.Chosen.Link && o.Prefix.Addr().Is6() == dst.Is6() {
			a.Src = o.Prefix.Addr()
		}
	}
	a.Text = kernel.FormatAnswer(dst, &a, f.nameOf)
	return a
}

// nameOf names an interface; the lock is held.
func (f *Fake) nameOf(index int) string {
	if l := f.links[index]; l != nil {
		return l.Name
	}
	return fmt.Sprintf("if%d", index)
}
