package routes

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/caracal-net/caracal/internal/kernel"
)

// linkTable is the mirror of the interfaces and their addresses: the fold of all events over the last read.
type linkTable struct {
	byIndex map[int]*kernel.Link
	byName  map[string]int
	addrs   map[int][]kernel.Address
	// names is what readers on other goroutines use; never changed, only replaced.
	names map[int]string
}

func newLinkTable() linkTable {
	return linkTable{byIndex: map[int]*kernel.Link{}, byName: map[string]int{}, addrs: map[int][]kernel.Address{}}
}

// named returns the link of that name, or nil.
func (t *linkTable) named(name string) *kernel.Link {
	if i, ok := t.byName[name]; ok {
		return t.byIndex[i]
	}
	return nil
}

// nameOf returns the name of an interface, "" where there is none.
func (t *linkTable) nameOf(index int) string {
	if l := t.byIndex[index]; l != nil {
		return l.Name
	}
	return ""
}

// freeze returns the names of all interfaces for use without the lock.
func (t *linkTable) freeze() func(int) string {
	if t.names == nil {
		t.names = make(map[int]string, len(t.byIndex))
		for i, l := range t.byIndex {
			t.names[i] = l.Name
		}
	}
	names := t.names
	return func(i int) string {
		if n, ok := names[i]; ok {
			return n
		}
		return "if" + strconv.Itoa(i)
	}
}

func equalLinks(a, b *kernel.Link) bool {
	x, y := *a, *b
	x.VXLAN, y.VXLAN, x.IPIP, y.IPIP = nil, nil, nil, nil
	same := func(v, w bool) bool { return v == w }
	if x != y || !same(a.VXLAN == nil, b.VXLAN == nil) || !same(a.IPIP == nil, b.IPIP == nil) {
		return false
	}
	return (a.VXLAN == nil || *a.VXLAN == *b.VXLAN) && (a.IPIP == nil || *a.IPIP == *b.IPIP)
}

// linkSeen folds one sight of an interface into the mirror.
func (p *Programmer) linkSeen(l *kernel.Link) {
	old := p.links.byIndex[l.Index]
	named := p.links.byName[l.Name] == l.Index // not where late events of another link of that name came in between
	if old != nil && named && equalLinks(old, l) {
		if !l.Up {
			// A read may have been ahead of this event. Routes that other events brought back since then go with it all the same.
			p.linkDown(l.Index, false)
		} else if !l.Running {
			p.carrierLost(l.Index)
		}
		return
	}
	fresh := *l
	p.deviceChanged(old, l)
	t := &p.links
	if old != nil && old.Name != l.Name && t.byName[old.Name] == l.Index {
		delete(t.byName, old.Name)
	}
	if holder, taken := t.byName[l.Name]; taken && holder != l.Index && isTunnel(l.Name) {
		p.neighbours.gone(l.Name)
	}
	t.byIndex[l.Index], t.byName[l.Name] = &fresh, l.Index
	if old != nil && old.MTU != l.MTU && p.forms.any(func(f *form) bool { return f.mtu > 0 && p.uses(f, l.Index) }) {
		p.readRoutes(1, "the MTU of an interface changed: IPv6 changes that of routes with it, without a word")
	}
	if old == nil || old.Name != l.Name {
		t.names = nil
		p.foreign.renamed(l.Index)
		if p.foreign.hops[l.Index] > 0 {
			p.findLeftovers() // what leads to an interface without a name is nobody's leftover
		}
	}
	if old != nil && old.Up && !l.Up {
		p.linkDown(l.Index, false)
		if isTunnel(l.Name) {
			p.neighbours.gone(l.Name)
		}
	}
	if l.Up && !l.Running {
		p.carrierLost(l.Index)
	}
	if old == nil || !named || old.Up != l.Up || old.Name != l.Name || old.Running != l.Running && p.nexthops.usable {
		p.relink, p.netMoved = true, true
		if l.Up && isTunnel(l.Name) {
			p.neighbours.reread(l.Name)
		}
	}
	p.touchDevices()
	p.hostDirty = p.hostDirty || !isTunnel(l.Name)
}

// linkGone folds the end of an interface into the mirror.
func (p *Programmer) linkGone(index int) {
	old := p.links.byIndex[index]
	if old == nil {
		p.linkDown(index, true) // as in linkSeen
		return
	}
	t := &p.links
	delete(t.byIndex, index)
	delete(t.addrs, index)
	current := t.byName[old.Name] == index // else another has taken the name, and this one's end came unheard
	if current {
		delete(t.byName, old.Name)
	}
	t.names = nil
	p.linkDown(index, true)
	if current && isTunnel(old.Name) {
		p.neighbours.gone(old.Name)
		p.deviceGone(old)
	}
	p.relink, p.netMoved = true, true
	p.touchDevices()
	p.hostDirty = p.hostDirty || !isTunnel(old.Name)
}

// linkDown takes the routes out of the mirror that the kernel drops without an event when an interface goes down or, where gone is
// set, away. IPv4 tells of none, and a multipath route goes whole with the first of its interfaces that goes away; otherwise it stays
// while one of them is up. IPv6 tells of each but of a multipath route whose last next hop dies. It may as well stay, dead, and
// come back with the interface, where its living next hops were deleted just before; that is for a read to say.
func (p *Programmer) linkDown(index int, gone bool) {
	p.recorder.because(p.now, "an interface went down or away")
	p.reads.flushing = true
	dropped := func(v6 bool, hops []kernel.NextHop) bool {
		if !slices.ContainsFunc(hops, func(h kernel.NextHop) bool { return h.Link == index }) {
			return false
		}
		if !v6 {
			silent := gone || p.allDown(hops)
			if !silent {
				// Its other next hops may be dead for reasons that links do not show: the last address of their interface went before.
				p.readRoutes(0, "an interface of a multipath route is down")
			}
			return silent
		}
		silent := len(hops) > 1 && p.allDown(hops)
		if silent {
			p.readRoutes(1, "the last interface of a multipath route is down")
		}
		return silent
	}
	if p.foreign.hops[index] > 0 {
		p.foreignDropped(func(k kernel.RouteKey, r *foreignRoute) bool { return dropped(k.Dst.Addr().Is6(), r.hops) })
	}
	p.nexthopsDown(index)
	if p.forms.any(func(f *form) bool {
		return slices.ContainsFunc(f.hops, func(h kernel.NextHop) bool { return h.Link == index })
	}) {
		p.dropActual(func(k kernel.RouteKey, f *form) bool { return dropped(k.Dst.Addr().Is6(), f.hops) })
	}
}

// foreignDropped takes foreign routes out of the mirror that the kernel drops without an event. What waited for their keys is tried.
func (p *Programmer) foreignDropped(gone func(kernel.RouteKey, *foreignRoute) bool) {
	p.foreign.purge(gone, func(k kernel.RouteKey) { p.keyFreed(k, p.routes.Get(k)) })
}

// allDown reports whether every next hop leaves through an interface that is missing or down.
func (p *Programmer) allDown(hops []kernel.NextHop) bool {
	for _, h := range hops {
		if l := p.links.byIndex[h.Link]; l != nil && l.Up {
			return false
		}
	}
	return len(hops) > 0
}

// dropActual takes routes of ours out of the mirror by their form.
func (p *Programmer) dropActual(gone func(kernel.RouteKey, *form) bool) {
	for i := p.routes.Len() - 1; i >= 0; i-- {
		if i >= p.routes.Len() {
			continue
		}
		if e := p.routes.At(i); e.Actual() != nil && gone(e.Key(), e.Actual()) {
			e.Note.echoes = 0
			e.Note.cause = p.recorder.now
			p.note(e, e.Note.owner, noticed, nil, "the kernel drops it without an event")
			e.Note.doubt = true // the mirror, and what we conclude from, may be older than our last add
			p.setActual(e, nil)
		}
	}
}

// addressSeen folds one sight of an address into the mirror.
func (p *Programmer) addressSeen(a *kernel.Address) {
	if slices.Contains(p.links.addrs[a.Link], *a) {
		return
	}
	p.addressChanged(a, false)
	// One that was written over with another protocol or scope is still one.
	list := slices.DeleteFunc(p.links.addrs[a.Link], func(o kernel.Address) bool { return o.Prefix == a.Prefix })
	p.links.addrs[a.Link] = append(list, *a)
	p.addressMoved(a.Link)
}

// addressGone folds the end of an address into the mirror, with the routes that the kernel drops without an
// event: IPv4 routes that had it as preferred source, and all IPv4 routes of an interface that lost its last address.
func (p *Programmer) addressGone(a *kernel.Address) {
	p.reads.flushing = true
	list := p.links.addrs[a.Link]
	// Where a read was ahead of this event, routes that other events brought back since then go with it all the same.
	if i := slices.IndexFunc(list, func(o kernel.Address) bool { return o.Prefix == a.Prefix }); i >= 0 {
		p.addressChanged(a, true)
		p.links.addrs[a.Link] = slices.Delete(list, i, i+1)
		p.addressMoved(a.Link)
	} else {
		p.touchDevices() // the kernel does not tell of an IPv6 address at once, and of one of ours that went before it did only that it went
	}
	addr := a.Prefix.Addr()
	if !p.holdsAddress(addr) {
		p.foreignDropped(func(_ kernel.RouteKey, r *foreignRoute) bool { return r.src == addr })
		if p.forms.any(func(f *form) bool { return f.src == addr }) {
			p.dropActual(func(_ kernel.RouteKey, f *form) bool { return f.src == addr })
		}
	}
	if addr.Is4() && !slices.ContainsFunc(p.links.addrs[a.Link], func(o kernel.Address) bool { return o.Prefix.Addr().Is4() }) {
		// fib_disable_ip. Which routes it takes depends on more than we see here; ask.
		p.readRoutes(0, "an interface lost its last IPv4 address")
	}
}

func (p *Programmer) holdsAddress(a netip.Addr) bool {
	for _, list := range p.links.addrs {
		for i := range list {
			if list[i].Prefix.Addr() == a {
				return true
			}
		}
	}
	return false
}

func (p *Programmer) addressMoved(link int) {
	p.netMoved = true
	p.touchDevices()
	p.hostDirty = p.hostDirty || !isTunnel(p.links.nameOf(link))
}
