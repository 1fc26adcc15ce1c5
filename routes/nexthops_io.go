package routes

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// ours reports whether an object found in the kernel is one of ours.
func oursNexthop(n *kernel.Nexthop) bool {
	return n.Protocol == kernel.ProtoCaracal && !n.Other && n.ID != kernel.ProbeNexthop
}

func cloneNexthop(n *kernel.Nexthop) *kernel.Nexthop {
	c := *n
	c.Group = slices.Clone(n.Group)
	return &c
}

// readNexthops reads all objects and corrects the mirror. Before the first read it tries whether the kernel has any.
func (p *Programmer) readNexthops(ctx context.Context) error {
	t := &p.nexthops
	if !t.probed {
		supported, err := p.kernel.SupportsNexthops(ctx)
		if err != nil {
			return err
		}
		t.probed, t.supported = true, supported
		if t.wanted && !supported {
			p.log.Info("the kernel has no nexthop objects; every route gets next hops of its own")
		}
	}
	var list []*kernel.Nexthop
	err := p.kernel.ListNexthops(ctx, func(n *kernel.Nexthop) bool {
		list = append(list, cloneNexthop(n))
		return true
	})
	switch {
	case errors.Is(err, kernel.ErrUnsupported) && !t.supported:
		err = nil
	case err != nil:
		return err
	}
	if !p.reads.state[partNexthops].done {
		t.usable, p.relink = t.supported && t.wanted, true // no sooner: numbers of a former run would be given again
	}
	seen := make(map[uint32]bool, len(list))
	for _, n := range list {
		seen[n.ID] = true
		p.nexthopSeen(n)
	}
	for id := range t.others {
		if !seen[id] {
			p.otherNexthopGone(id)
		}
	}
	var lost []*nexthop
	for id, o := range t.byID {
		o.echoes = 0
		if o.have != nil && !seen[id] {
			lost = append(lost, o)
		}
	}
	p.nexthopsLost(lost, "the kernel was read, and nexthop objects were missing")
	for _, o := range t.byID {
		p.mayBeIdle(o)
	}
	p.needNexthops()
	p.believe()
	p.readOrphans()
	return nil
}

// readOrphans reads the routes again where the mirror has any that lead to an object which the kernel has not: they went along, and if that was before
// the objects could be read, nothing told of it.
func (p *Programmer) readOrphans() {
	orphaned := p.forms.any(func(f *form) bool { return f.nhid != 0 && f.held > 0 && p.nexthops.at(f.nhid) == nil })
	for id := range p.foreign.nexthops {
		orphaned = orphaned || p.nexthops.at(id) == nil
	}
	if orphaned {
		for family := range p.dumps {
			p.readRoutes(family, "routes lead to nexthop objects that have gone")
		}
	}
}

// nexthopEvent folds one event about an object into the mirror.
func (p *Programmer) nexthopEvent(n *kernel.Nexthop, deleted bool) {
	o := p.nexthops.byID[n.ID]
	switch {
	case n.ID == kernel.ProbeNexthop:
	case o != nil && o.echoes > 0:
		o.echoes--
		if deleted != (o.have == nil) || !deleted && !o.have.Equal(n) {
			// Older than our last write, or somebody's answer to it. If it was gone in between, so are its routes.
			const why = "an event contradicts a write of a nexthop object whose echo has not come"
			p.doubt(partNexthops, why)
			for family := range p.dumps {
				p.readRoutes(family, why)
			}
		}
	case !deleted:
		p.nexthopSeen(cloneNexthop(n))
	case o == nil:
		p.otherNexthopGone(n.ID)
	case o.have != nil:
		p.nexthopFought(o, "another program deletes nexthop objects of ours")
		p.nexthopsLost([]*nexthop{o}, "another program deletes a nexthop object")
	}
}

// nexthopSeen folds one sight of an object into the mirror, which may keep it.
func (p *Programmer) nexthopSeen(n *kernel.Nexthop) {
	t := &p.nexthops
	o := t.byID[n.ID]
	if !oursNexthop(n) {
		if n.ID != kernel.ProbeNexthop {
			if known, ok := t.others[n.ID]; !ok || !known.Equal(n) {
				p.nexthopsMoved()
			}
			t.others[n.ID] = *n
			p.nexthopTaken(o)
		}
		return
	}
	delete(t.others, n.ID)
	if o != nil && o.hops != nil && (len(n.Group) > 0) != (len(o.members) > 0) {
		p.nexthopTaken(o) // a group and a single one never become each other
		o = nil
	}
	switch {
	case o == nil:
		o = &nexthop{id: n.ID, have: n}
		t.byID[n.ID], t.strays[t.spell(n)] = o, o
		p.forms.any(func(f *form) bool {
			if f.nhid == n.ID {
				f.nexthop, o.forms = o, append(o.forms, f)
			}
			return false
		})
		p.mayBeIdle(o)
	case o.have != nil && o.have.Equal(n):
		return
	case o.hops == nil:
		t.unstray(o)
		o.have, t.strays[t.spell(n)] = n, o
	default:
		if o.current() {
			p.nexthopFought(o, "another program changes nexthop objects of ours")
		}
		switch o.have = n; {
		case o.current():
			p.nexthopStands(o)
		case o.inUse():
			p.needNexthop(o)
		}
	}
	p.nexthopsMoved()
}

// nexthopsMoved says that objects lead elsewhere than before.
func (p *Programmer) nexthopsMoved() {
	p.nexthops.frozen = nil
	p.foreign.objectsMoved()
}

// nexthopTaken gives an object whose number is another program's a fresh one; its routes follow.
func (p *Programmer) nexthopTaken(o *nexthop) {
	if o == nil {
		return
	}
	t := &p.nexthops
	delete(t.byID, o.id)
	for _, f := range o.forms {
		f.nexthop = nil
	}
	t.unstray(o)
	o.have, o.echoes = nil, 0
	if o.hops != nil {
		o.id, o.forms, p.relink = 0, nil, true
	}
}

// unstray takes an object that no wish names out of those to be taken over.
func (t *nexthopTable) unstray(o *nexthop) {
	if o.hops != nil || o.have == nil {
		return
	}
	if k := t.spell(o.have); t.strays[k] == o {
		delete(t.strays, k)
	}
}

// otherNexthopGone looks at the routes again when an object of another program went: those of ours that led to it, by another
// program's doing, went along, in IPv4 without an event. Where no route of ours leads to such an object nothing is read.
func (p *Programmer) otherNexthopGone(id uint32) {
	delete(p.nexthops.others, id)
	p.nexthopsMoved()
	if p.forms.any(func(f *form) bool { return f.nhid != 0 && f.nexthop == nil && f.held > 0 }) || p.foreign.nexthops[id] > 0 {
		for family := range p.dumps {
			p.readRoutes(family, "a nexthop object went")
		}
	}
}

// readLeaning reads the routes again where other programs have any that lead to nexthop objects: what became of them no event may have told.
func (p *Programmer) readLeaning(why string) {
	if len(p.foreign.nexthops) > 0 {
		for family := range p.dumps {
			p.readRoutes(family, why)
		}
	}
}

// nexthopsLost takes objects out of the mirror that are gone, with what the kernel drops along: their routes, and groups that have no
// other member. What is still wanted is queued again.
func (p *Programmer) nexthopsLost(lost []*nexthop, why string) {
	if len(lost) == 0 {
		return
	}
	t := &p.nexthops
	p.nexthopsMoved()
	gone := map[uint32]bool{}
	for i := 0; i < len(lost); i++ {
		o := lost[i]
		if gone[o.id] {
			continue
		}
		gone[o.id] = true
		if t.unstray(o); o.hops == nil {
			delete(t.byID, o.id)
		}
		o.have, o.echoes = nil, 0
		lost = append(lost, t.shrink(o)...)
	}
	p.readLeaning("nexthop objects went that other programs' routes may have led to")
	if p.forms.any(func(f *form) bool { return gone[f.nhid] && f.held > 0 }) {
		p.recorder.because(p.now, why)
		p.dropActual(func(_ kernel.RouteKey, f *form) bool { return gone[f.nhid] })
	}
	p.needNexthops()
}

// believe ends the wait of routes that the kernel refused with their objects: those whose object is not as it seemed are tried again at once, the
// others when their back-off ends.
func (p *Programmer) believe() {
	list := p.misled
	p.misled = nil
	for _, e := range list {
		if f := e.Desired(); f != nil && f.nexthop != nil && !f.nexthop.current() {
			p.routes.Wake(e)
		}
		if len(p.takeover.held) > 0 {
			p.letGo(e.Key().Dst)
		}
	}
}

// needNexthops queues every object that routes are to lead to and that is not there.
func (p *Programmer) needNexthops() {
	for _, o := range p.nexthops.byKey {
		if o.ready() && !o.current() && o.inUse() {
			p.needNexthop(o)
		}
	}
}

// shrink takes a member that is gone out of the groups that the kernel holds, and returns those left without any.
func (t *nexthopTable) shrink(m *nexthop) (empty []*nexthop) {
	for _, g := range t.byID {
		if g.have == nil || !slices.ContainsFunc(g.have.Group, func(o kernel.GroupMember) bool { return o.ID == m.id }) {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(g.have.Group), func(o kernel.GroupMember) bool { return o.ID == m.id })
		if len(rest) == 0 {
			empty = append(empty, g)
			continue
		}
		t.unstray(g)
		g.have = cloneNexthop(g.have)
		g.have.Group = rest
		if g.hops == nil {
			t.strays[t.spell(g.have)] = g
		}
	}
	return empty
}

// nexthopsDown takes the objects of an interface out of the mirror that went down or away: the kernel drops them, and says nothing.
func (p *Programmer) nexthopsDown(link int) {
	var lost []*nexthop
	for _, o := range p.nexthops.byID {
		if o.have != nil && len(o.have.Group) == 0 && !o.have.Blackhole && o.have.Link == link {
			lost = append(lost, o)
		}
	}
	for _, n := range p.nexthops.others {
		if len(n.Group) == 0 && !n.Blackhole && n.Link == link {
			p.doubt(partNexthops, "an interface took another program's nexthop objects along")
		}
	}
	p.readLeaning("an interface went down or away")
	p.nexthopsLost(lost, "an interface went down or away")
}

// carrierLost looks at the objects again when an interface has none: the kernel has dropped those that lead out by it, with their
// routes, and says nothing. (It keeps them where the interface is only dormant, so this is for a read to say.)
func (p *Programmer) carrierLost(link int) {
	t := &p.nexthops
	known := p.nexthopsBy(link)
	for _, n := range t.others {
		known = known || n.Link == link && len(n.Group) == 0
	}
	if known || p.leansBy(link) {
		p.doubt(partNexthops, "an interface lost its carrier")
		p.readLeaning("an interface lost its carrier")
	}
}

// leansBy reports whether another program's route is known that leads out by an interface, or we do not know where, by a nexthop object. Where a read was ahead of the news of
// it that is all there is to see of it: the object is out of the mirror.
func (p *Programmer) leansBy(link int) bool {
	t := &p.foreign
	if len(t.nexthops) == 0 || t.hops[link] == 0 && t.bare == 0 {
		return false
	}
	for _, f := range t.byKey {
		for ; f != nil; f = f.next {
			if f.bare() || f.nhid != 0 && slices.ContainsFunc(f.hops, func(h kernel.NextHop) bool { return h.Link == link }) {
				return true
			}
		}
	}
	return false
}

// nexthopsBy reports whether the kernel holds objects of ours that lead out by an interface.
func (p *Programmer) nexthopsBy(link int) bool {
	for _, o := range p.nexthops.byID {
		if o.have != nil && o.have.Link == link && len(o.have.Group) == 0 {
			return true
		}
	}
	return false
}

// nexthopFought says that somebody else undid what we wrote. Who goes on gets the better of the object, but not of the routes: they
// have next hops of their own for a while.
func (p *Programmer) nexthopFought(o *nexthop, how string) {
	if o.hops == nil || !o.inUse() {
		return
	}
	t := &o.trouble
	if p.now.Sub(t.repaired) > calmAfter {
		t.repairs = 0
	}
	t.repaired = p.now
	t.repairs++
	p.stats.Repairs++
	if t.repairs > freeRepairs && !t.refused {
		p.log.Warn("another program does not leave a nexthop object alone; its routes get next hops of their own for a while", logDetail, how, logNexthop, o.id)
		p.refuseNexthop(o, calmAfter)
	}
}

// refuseNexthop has routes do without an object until it is due.
func (p *Programmer) refuseNexthop(o *nexthop, wait time.Duration) {
	o.trouble.refused = true
	o.trouble.attempts++
	o.trouble.due = p.now.Add(wait)
	t := &p.nexthops
	t.retry[o] = struct{}{}
	if t.due.IsZero() || o.trouble.due.Before(t.due) {
		t.due = o.trouble.due
	}
	p.relink = true
}

// retryNexthops queues the objects again that were refused and are due, or all of them where the network around them changed. The
// routes follow when one is there.
func (p *Programmer) retryNexthops(all bool) {
	t := &p.nexthops
	if !all && t.due.After(p.now) {
		return
	}
	t.due = time.Time{}
	for o := range t.retry {
		switch {
		case !o.named():
			delete(t.retry, o)
			o.trouble = nexthopTrouble{}
		case all || !o.trouble.due.After(p.now):
			p.needNexthop(o)
		case t.due.IsZero() || o.trouble.due.Before(t.due):
			t.due = o.trouble.due
		}
	}
}
