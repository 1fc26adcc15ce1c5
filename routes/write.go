package routes

import (
	"context"
	"errors"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// writes are two batches: one is with the kernel or in the making, the other is spare, so that the next can be made while the kernel is
// at work.
type writes struct {
	batches [2]writeBatch
	turn    int // which is the one
	// failures counts calls in a row that broke off; notBefore holds the next one back after the second.
	failures  int
	notBefore time.Time
}

func (w *writes) batch() *writeBatch { return &w.batches[w.turn] }

// swap makes the spare batch the one, and returns the former.
func (w *writes) swap() *writeBatch {
	former := w.batch()
	w.turn = 1 - w.turn
	return former
}

func (w *writes) held(now time.Time) bool { return w.notBefore.After(now) }

// writeBatch is what one call of the kernel writes; its arrays are used again and again.
type writeBatch struct {
	ops     []kernel.RouteOp
	routes  []kernel.Route
	entries []*routeEntry
	forms   []*form // what is written or deleted
	after   []*form // what the kernel holds of ours if that succeeds
	errs    []error
}

func (b *writeBatch) reset() {
	if b.routes == nil {
		b.ops = make([]kernel.RouteOp, 0, batchSize)
		b.routes = make([]kernel.Route, 0, batchSize)
		b.entries = make([]*routeEntry, 0, batchSize)
		b.forms = make([]*form, 0, batchSize)
		b.after, b.errs = make([]*form, batchSize), make([]error, batchSize)
	}
	b.ops, b.routes, b.entries, b.forms = b.ops[:0], b.routes[:0], b.entries[:0], b.forms[:0]
}

func (b *writeBatch) full() bool { return len(b.ops) == batchSize }

func (b *writeBatch) add(v kernel.Verb, e *routeEntry, f *form) {
	b.routes = append(b.routes, f.route(e.Key()))
	b.ops = append(b.ops, kernel.RouteOp{Verb: v, Route: &b.routes[len(b.routes)-1]})
	b.entries, b.forms = append(b.entries, e), append(b.forms, f)
	b.errs[len(b.ops)-1] = nil
}

// writeUpdates writes batches of what is wanted and not there: one, and on while there is neither mail nor an event. While the kernel is
// at one, the next is made; and while it is at the next, what became of the first is recorded.
func (p *Programmer) writeUpdates(ctx context.Context) {
	p.planUpdates()
	p.launch(ctx)
	for p.flight != nil {
		next := p.writes.swap()
		if len(p.inbox.ring) == 0 && len(p.events) == 0 {
			p.planUpdates() // of routes that are not in the batch under way: those wait for nothing any more
		} else {
			p.writes.batch().reset()
		}
		err := p.wait()
		if err == nil {
			p.launch(ctx)
		} else {
			p.uncertain = append(p.uncertain, p.writes.batch().entries...) // never sent
		}
		p.record(next, err)
	}
}

// planUpdates makes the next batch of updates.
func (p *Programmer) planUpdates() {
	b := p.writes.batch()
	b.reset()
	if p.writes.held(p.now) || p.routes.Updates() == 0 {
		return
	}
	for !b.full() {
		e := p.routes.TakeUpdate()
		if e == nil {
			break
		}
		p.planUpdate(b, e)
	}
}

// writeAhead keeps the kernel busy while a great change is worked in: whenever it has done with a batch it gets the next.
// Devices and neighbours keep their turn: while any of theirs is outstanding, no route goes ahead.
func (p *Programmer) writeAhead(ctx context.Context) {
	if p.flight != nil {
		if len(p.flight) == 0 {
			return
		}
		p.land()
	}
	if !p.devicesDirty && !p.relink && p.neighbours.tracker.Updates() == 0 {
		p.writeNexthops(ctx, true)
		p.planUpdates()
		p.launch(ctx)
	}
}

// planUpdate decides how a wanted route is written, if it may be now.
func (p *Programmer) planUpdate(b *writeBatch, e *routeEntry) {
	if !p.reads.state[partRoutes4+part(family(e.Key()))].done {
		p.uncertain = append(p.uncertain, e)
		return
	}
	if t := e.Note.trouble; t != nil && !t.refused && t.due.After(p.now) {
		p.arm(e, t) // somebody fights us over it: not so fast
		return
	}
	if extra := p.forms.extra(e); extra != nil && !e.Note.joined {
		b.add(kernel.Delete, e, extra)
		return
	}
	if o := e.Desired().nexthop; o != nil && !o.current() {
		o.await(e)
		p.needNexthop(o)
		return
	}
	switch {
	case e.Note.joined && p.forms.extra(e) != nil:
		p.settle(e) // as good as it gets while the other program's next hops are there
	case e.Note.joined:
		b.add(kernel.Delete, e, e.Actual()) // takes away ours alone; then see what is left
	case p.foreign.at(e.Key()) == nil && e.Actual() == nil:
		b.add(kernel.Add, e, e.Desired())
	case p.foreign.at(e.Key()) == nil:
		b.add(kernel.Replace, e, e.Desired())
	case e.Actual() != nil && p.gateOpen:
		// A foreign route and an outdated one of ours share the key. A replacement might hit the foreign one.
		b.add(kernel.Delete, e, e.Actual())
	default:
		p.settle(e) // Foreign: woken when that route goes
	}
}

// writeDeletions removes one batch of what nobody wants.
func (p *Programmer) writeDeletions(ctx context.Context) {
	if p.writes.held(p.now) || p.routes.Deletions() == 0 {
		return
	}
	b := p.writes.batch()
	b.reset()
	var u unfinished
	for !b.full() {
		e := p.routes.TakeDeletion()
		if e == nil {
			break
		}
		if t := e.Note.trouble; t != nil && t.refused && t.due.After(p.now) {
			p.arm(e, t)
			continue
		}
		if p.hold(e, &u) {
			continue
		}
		b.add(kernel.Delete, e, e.Actual())
	}
	p.launch(ctx)
	p.land()
}

// launch hands the batch to the kernel. Until land, no event may be taken: an echo must not come before what it echoes.
func (p *Programmer) launch(ctx context.Context) {
	b := p.writes.batch()
	if len(b.ops) == 0 {
		return
	}
	for i, e := range b.entries {
		b.after[i] = e.Desired()
		if b.ops[i].Verb == kernel.Delete && b.forms[i] == e.Actual() {
			b.after[i] = nil
		}
		if e.Note.mute = p.muted && b.ops[i].Verb == kernel.Add; !e.Note.mute && e.Note.echoes < 255 {
			e.Note.echoes++
		}
	}
	p.flight = make(chan error, 1)
	go func(done chan error) {
		done <- p.kernel.WriteRoutes(ctx, b.ops, func(i int, err error) { b.errs[i] = err })
	}(p.flight)
}

// land waits for the batch, if one is with the kernel, and records what became of it.
func (p *Programmer) land() {
	if p.flight != nil {
		err := p.wait()
		p.record(p.writes.batch(), err)
	}
}

// wait waits for the kernel, without the lock.
func (p *Programmer) wait() error {
	p.mu.Unlock()
	err := <-p.flight
	p.mu.Lock()
	p.flight = nil
	p.now = time.Now()
	p.stats.Batches++
	return err
}

// record records what became of each route of a batch. Wishes may have changed meanwhile; what was written counts.
func (p *Programmer) record(b *writeBatch, err error) {
	if err != nil {
		p.broken(b, err)
		return
	}
	p.writes.failures, p.writes.notBefore = 0, time.Time{}
	for i, e := range b.entries {
		if b.errs[i] == nil {
			p.written(e, b.after[i])
			continue
		}
		if !e.Note.mute {
			e.Note.echoes = max(e.Note.echoes, 1) - 1
		}
		if b.ops[i].Verb == kernel.Delete && errors.Is(b.errs[i], kernel.ErrNotThere) {
			p.absent(e, b.after[i])
		} else {
			p.unwritten(e, b.errs[i])
		}
	}
}

// written records a write that succeeded: the kernel holds f.
func (p *Programmer) written(e *routeEntry, f *form) {
	p.stats.Writes++
	p.done(e, f)
	p.clearTrouble(e)
	p.setActual(e, f)
}

// absent records that there was nothing of ours to delete. Where that was about next hops that had joined ours, they are another
// program's: IPv6 shows routes of one key as one, with the protocol of the first. Or they went just before, and the read shows it.
func (p *Programmer) absent(e *routeEntry, f *form) {
	if f == nil {
		p.setActual(e, nil)
		p.forget(e)
		return
	}
	e.Note.joined = true
	p.readRoutes(family(e.Key()), "next hops that should be ours are not there")
	p.settle(e)
}

// unwritten records a write that the kernel refused, and asks for what may resolve it.
func (p *Programmer) unwritten(e *routeEntry, err error) {
	if e.Same() {
		p.forget(e) // withdrawn while it was under way
		return
	}
	p.refuse(e, err)
	switch {
	case e.Desired() != nil && e.Desired().nhid != 0 && (errors.Is(err, kernel.ErrNoNexthop) || errors.Is(err, kernel.ErrInvalid)):
		p.misled = append(p.misled, e)
		p.doubt(partNexthops, "the kernel refuses a route to a nexthop object")
	case errors.Is(err, kernel.ErrExists):
		// Something is there that the mirror does not show: read what.
		p.uncertain = append(p.uncertain, e)
		p.readRoutes(family(e.Key()), "a key that seemed free is taken")
	case errors.Is(err, kernel.ErrOverflow):
		p.uncertain = append(p.uncertain, e)
		p.readRoutes(family(e.Key()), "the kernel ran out of buffers")
	case e.Note.trouble.device && e.Note.trouble.attempts > 1:
		p.reads.state[partLinks].wanted = true // the event of its end should have come by now
	}
}

// broken deals with a batch that broke off: what was done is not known, so everything is read at once and only then
// tried again. A kernel that breaks off every batch is asked less and less often.
func (p *Programmer) broken(b *writeBatch, err error) {
	w := &p.writes
	w.failures++
	w.notBefore = time.Time{}
	if wait := readBackoff(w.failures); wait > 0 {
		w.notBefore = p.now.Add(wait)
	}
	p.uncertain = append(p.uncertain, b.entries...)
	for _, e := range b.entries {
		e.Note.echoes = 0 // nobody knows
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	if w.failures <= 2 {
		p.log.Warn("a batch of routes broke off; the kernel is read", logError, err, logCount, len(b.ops))
	}
	p.readEverything("a batch of routes broke off")
}
