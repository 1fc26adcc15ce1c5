package routes

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// writeNexthops writes the objects that routes are to lead to. ahead says that an owner's change is still being worked in: objects
// that may take the place of another, with all its routes, then wait for its end.
func (p *Programmer) writeNexthops(ctx context.Context, ahead bool) {
	t := &p.nexthops
	if len(t.queue) == 0 || p.writes.held(p.now) {
		return
	}
	queue := t.queue
	t.queue = nil
	var ops []kernel.NexthopOp
	var objects []*nexthop
	for _, o := range queue {
		if ahead && o.have == nil && slices.ContainsFunc(o.waiting, func(e *routeEntry) bool { return formerNexthop(e, o) != nil }) {
			t.queue = append(t.queue, o)
			continue
		}
		o.queued = false
		if o.current() {
			p.nexthopStands(o)
		}
		if !o.usable || o.current() {
			continue // whose link is gone is bound anew, and so are its routes
		}
		if o.agrees() { // but one of its members, which are before it in the queue
			o.queued = true
			t.queue = append(t.queue, o)
			continue
		}
		if former := p.predecessor(o); former != nil {
			p.succeed(o, former)
		}
		op := kernel.NexthopOp{Verb: kernel.Add, Nexthop: cloneNexthop(&o.want)}
		if o.have != nil {
			op.Verb = kernel.Replace
		}
		ops, objects = append(ops, op), append(objects, o)
	}
	p.callNexthops(ctx, ops, objects, p.nexthopWritten)
}

// callNexthops has the kernel carry out operations on objects, without the lock, and records what became of each. After a call that
// broke off the objects are read, and what is still to be done is found anew.
func (p *Programmer) callNexthops(ctx context.Context, ops []kernel.NexthopOp, objects []*nexthop, record func(*nexthop, *kernel.Nexthop, error)) {
	if len(ops) == 0 {
		return
	}
	errs := make([]error, len(ops))
	p.mu.Unlock()
	err := p.kernel.WriteNexthops(ctx, ops, func(i int, err error) { errs[i] = err })
	p.mu.Lock()
	p.now = time.Now()
	p.nexthopsMoved()
	if err == nil {
		p.writes.failures, p.writes.notBefore = 0, time.Time{}
		for i, o := range objects {
			record(o, ops[i].Nexthop, errs[i])
		}
		return
	}
	w := &p.writes
	w.failures++
	if w.notBefore = (time.Time{}); readBackoff(w.failures) > 0 {
		w.notBefore = p.now.Add(readBackoff(w.failures))
	}
	for _, o := range objects {
		switch {
		case o.trouble.refused:
			p.refuseNexthop(o, readRetryFirst)
		case o.inUse():
			p.needNexthop(o)
		}
	}
	if !errors.Is(err, context.Canceled) {
		if w.failures <= 2 {
			p.log.Warn("a batch of nexthop objects broke off; the kernel is read", logError, err, logCount, len(ops))
		}
		p.readEverything("a batch of nexthop objects broke off")
	}
}

// nexthopWritten records what became of one object.
func (p *Programmer) nexthopWritten(o *nexthop, n *kernel.Nexthop, err error) {
	switch {
	case err == nil:
		o.have = n
		o.echoes++
		p.nexthopStands(o)
	case errors.Is(err, kernel.ErrNotThere):
		p.nexthopsLost([]*nexthop{o}, "a nexthop object had gone unnoticed") // a replacement found nothing
	case (errors.Is(err, kernel.ErrExists) || errors.Is(err, kernel.ErrOverflow)) && o.trouble.attempts < freeRepairs:
		// The number is another's, or the mirror is behind: the read says which.
		o.trouble.attempts++
		p.doubt(partNexthops, "a number of a nexthop object that seemed free is taken")
	default:
		p.stats.Refused++
		if o.trouble.attempts == 0 {
			p.log.Warn("the kernel refuses a nexthop object; its routes get next hops of their own", logError, err)
		}
		if len(o.members) > 0 {
			p.doubt(partNexthops, "the kernel refuses a group of nexthop objects")
		}
		p.refuseNexthop(o, backoff(retryFirst, retryMost, o.trouble.attempts+1))
	}
}

// nexthopStands records that the kernel holds an object as it should be. Routes that waited for it are written; those it took
// over from another lead to it already.
func (p *Programmer) nexthopStands(o *nexthop) {
	if o.trouble.refused {
		o.trouble.refused, p.relink = false, true
		delete(p.nexthops.retry, o)
	}
	o.trouble.attempts = 0
	for _, e := range o.waiting {
		if d := e.Desired(); d != nil && d.nexthop == o && e.Same() {
			p.done(e, d)
			p.settle(e)
		}
	}
	p.wakeWaiting(o)
	p.mayBeIdle(o)
}

// await has a route written, or known to be, when the object is there.
func (o *nexthop) await(e *routeEntry) {
	if e.Note.waitsFor != o {
		e.Note.waitsFor = o
		o.waiting = append(o.waiting, e)
	}
}

func (p *Programmer) wakeWaiting(o *nexthop) {
	for _, e := range o.waiting {
		if e.Note.waitsFor == o {
			e.Note.waitsFor = nil
		}
		p.routes.Wake(e)
	}
	o.waiting = nil
}

// formerNexthop returns the object that a route leads to in the kernel, if it is to lead to o and differs in nothing else.
func formerNexthop(e *routeEntry, o *nexthop) *nexthop {
	want, have := e.Desired(), e.Actual()
	if want == nil || have == nil || want.nexthop != o || have.nexthop == nil || have.nexthop == o {
		return nil
	}
	head := have.formHead
	head.nhid = want.nhid
	if head != want.formHead {
		return nil
	}
	return have.nexthop
}

// predecessor returns the object that o can take the place of, or nil: one whose every route is to lead to o from now on. Replacing it
// moves them all at once. Groups and what they consist of keep their places, and so does what another program's routes lead to.
func (p *Programmer) predecessor(o *nexthop) *nexthop {
	if o.have != nil || len(o.groups) > 0 {
		return nil
	}
	var former *nexthop
	moving := 0
	defer func() {
		for _, e := range o.waiting {
			e.Note.counted = false
		}
	}()
	for _, e := range o.waiting {
		f := formerNexthop(e, o)
		if f == nil || e.Note.counted {
			continue
		}
		if former == nil {
			former = f
		}
		if f != former {
			return nil
		}
		e.Note.counted = true
		moving++
	}
	if former == nil || former.have == nil || (len(former.have.Group) > 0) != (len(o.members) > 0) || former.have.Blackhole {
		return nil
	}
	if former.wantedBy() > 0 || former.heldBy() != moving || len(former.groups) > 0 || p.nexthops.inGroup(former.id) || p.foreign.nexthops[former.id] > 0 {
		return nil
	}
	return former
}

// inGroup reports whether the kernel holds a group with that member.
func (t *nexthopTable) inGroup(id uint32) bool {
	has := func(n *kernel.Nexthop) bool {
		return slices.ContainsFunc(n.Group, func(m kernel.GroupMember) bool { return m.ID == id })
	}
	for _, o := range t.byID {
		if o.have != nil && has(o.have) {
			return true
		}
	}
	for _, n := range t.others {
		if has(&n) {
			return true
		}
	}
	return false
}

// succeed gives an object that is not in the kernel yet the number of another, and with it the routes. What is left is to replace what the
// kernel holds under the number. The other gets a number of its own should it be wanted again.
func (p *Programmer) succeed(o, former *nexthop) {
	t := &p.nexthops
	t.unstray(former)
	delete(t.byID, o.id)
	o.id, o.have, o.echoes, o.forms = former.id, former.have, former.echoes, former.forms
	o.want.ID, t.byID[o.id] = o.id, o
	former.id, former.have, former.echoes, former.forms = 0, nil, 0, nil
	for _, f := range o.forms {
		f.nexthop = o
	}
	o.queued = true // it is about to be written
	for _, s := range append(slices.Clone(former.shapes), o.shapes...) {
		p.bind(s)
	}
	waiting := o.waiting
	for _, e := range waiting {
		p.decide(e)
	}
	o.waiting = waiting
	o.queued = false
}

// mayBeIdle has an object looked at for removal, if nothing leads to it. The kernel drops whatever does, so both families are to be
// read first: until then it may as well be wanted again.
func (p *Programmer) mayBeIdle(o *nexthop) {
	if o.have == nil || o.heldBy() > 0 || o.inUse() {
		return
	}
	o.unseen = [2]bool{}
	if !o.idle {
		o.idle = true
		p.nexthops.idle = append(p.nexthops.idle, o)
	}
}

// clearIdle notes which idle objects no route of a family leads to, after it was read.
func (p *Programmer) clearIdle(v6 bool) {
	t := &p.nexthops
	n := 0
	if v6 {
		n = 1
	}
	t.idle = slices.DeleteFunc(t.idle, func(o *nexthop) bool {
		_, led := p.dumps[n].nexthops[o.id]
		o.unseen[n] = !led
		o.idle = !led && o.have != nil && o.heldBy() == 0 && !o.inUse()
		t.doomed = t.doomed || o.unseen == [2]bool{true, true}
		return !o.idle
	})
}

// deleteNexthops removes objects that nothing leads to. Another program's group that leans on one keeps it.
func (p *Programmer) deleteNexthops(ctx context.Context) {
	t := &p.nexthops
	if !t.doomed || p.writes.held(p.now) {
		return
	}
	t.doomed = false
	var ops []kernel.NexthopOp
	var objects []*nexthop
	for _, o := range t.idle {
		if o.unseen != [2]bool{true, true} || o.have == nil || o.heldBy() > 0 || o.inUse() || p.foreign.nexthops[o.id] > 0 || t.inGroup(o.id) {
			continue
		}
		ops = append(ops, kernel.NexthopOp{Verb: kernel.Delete, Nexthop: &kernel.Nexthop{ID: o.id}})
		objects = append(objects, o)
	}
	p.callNexthops(ctx, ops, objects, p.nexthopDeleted)
}

// nexthopDeleted records what became of a removal. What could not be removed is tried after the next read.
func (p *Programmer) nexthopDeleted(o *nexthop, _ *kernel.Nexthop, err error) {
	if err != nil && !errors.Is(err, kernel.ErrNotThere) {
		p.log.Debug("a nexthop object cannot be removed", logError, err)
		return
	}
	t := &p.nexthops
	t.unstray(o)
	t.idle = slices.DeleteFunc(t.idle, func(i *nexthop) bool { return i == o })
	o.idle = false
	members := o.have.Group
	if o.have = nil; err == nil {
		o.echoes++
	}
	if o.hops == nil {
		delete(t.byID, o.id)
	}
	for _, m := range members {
		if one := t.byID[m.ID]; one != nil {
			p.mayBeIdle(one)
		}
	}
}

// named reports whether a wish names the object, by itself or in a group.
func (o *nexthop) named() bool {
	return len(o.shapes) > 0 || slices.ContainsFunc(o.groups, (*nexthop).named)
}

// sweep forgets what no wish names any more.
func (t *nexthopTable) sweep(shapeUsed map[*shape]bool, formUsed map[*form]bool) {
	for _, o := range t.byID {
		o.forms = slices.DeleteFunc(o.forms, func(f *form) bool { return !formUsed[f] })
	}
	for _, o := range t.byKey {
		o.shapes = slices.DeleteFunc(o.shapes, func(s *shape) bool { return !shapeUsed[s] })
	}
	for _, groups := range []bool{true, false} {
		for k, o := range t.byKey {
			if (len(o.members) > 0) != groups || o.named() || len(o.groups) > 0 || o.have != nil || o.queued || o.echoes > 0 {
				continue
			}
			delete(t.byKey, k)
			delete(t.retry, o)
			if t.byID[o.id] == o {
				delete(t.byID, o.id)
			}
			for _, m := range o.members {
				m.groups = slices.DeleteFunc(m.groups, func(g *nexthop) bool { return g == o })
			}
		}
	}
}
