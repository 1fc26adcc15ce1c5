package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// part is a piece of the kernel's state that is read on its own, so that one that cannot be read does not hold up the rest.
type part int

const (
	partLinks part = iota
	partAddresses
	partNexthops
	partRoutes4
	partRoutes6
	parts
)

var partNames = [parts]string{"links", "addresses", "nexthop objects", "IPv4 routes", "IPv6 routes"}

// reads says what is to be read, and when.
type reads struct {
	state [parts]readState
	next  time.Time // next full read when nothing seems wrong; zero = never
	// flushing: an interface went down, or an address away. The kernel tells of that first (__dev_notify_flags, __inet_del_ifa) and then drops the
	// routes, and dumps of routes do not wait for it: one could show what goes in the next moment without a word.
	flushing bool
	err      error // of the last failed read, nil once all is read
}

type readState struct {
	wanted   bool
	done     bool // read at least once
	failures int
	due      time.Time // not before
	took     time.Duration
	ended    time.Time
}

// dump is the state of the reads of one family's routes.
type dump struct {
	turn     uint8               // generation of the last dump
	nexthops map[uint32]struct{} // objects that its routes lead to, of anybody
	last     uint32              // of them
}

// due reports whether something can be read now.
func (r *reads) due(now time.Time) bool {
	for i := range r.state {
		if s := &r.state[i]; s.wanted && !s.due.After(now) {
			return true
		}
	}
	return false
}

// outstanding reports whether anything waits to be read.
func (r *reads) outstanding() bool {
	for i := range r.state {
		if r.state[i].wanted {
			return true
		}
	}
	return false
}

// complete reports whether every part has been read at least once.
func (r *reads) complete() bool {
	for i := range r.state {
		if !r.state[i].done {
			return false
		}
	}
	return true
}

func (r *reads) nextDue() time.Time {
	next := r.next
	for i := range r.state {
		if s := &r.state[i]; s.wanted && (next.IsZero() || s.due.Before(next)) {
			next = s.due
		}
	}
	return next
}

// readEverything asks for a full read at once, whatever back-off was running: what led here says that the mirror may
// be wrong.
func (p *Programmer) readEverything(why string) {
	p.log.Debug("the kernel is read", logReason, why)
	for i := range p.reads.state {
		p.reads.state[i].wanted, p.reads.state[i].due = true, time.Time{}
	}
	p.neighbours.rereadAll()
	p.settings.wanted, p.settings.due = true, time.Time{}
	p.reads.err = nil
}

// readRoutes asks for a read of one family to clear up a doubt: at once, but if that happens often only so that reading
// takes a share of the time.
func (p *Programmer) readRoutes(family int, why string) {
	p.doubt(partRoutes4+part(family), why)
}

// doubt asks for a read of one part to clear up a doubt, as readRoutes does.
func (p *Programmer) doubt(i part, why string) {
	s := &p.reads.state[i]
	if s.wanted {
		return
	}
	p.log.Debug("the kernel is read", logPart, partNames[i], logReason, why)
	s.wanted, s.due = true, s.ended.Add(s.took*readShare)
}

// readKernel reads what is due.
func (p *Programmer) readKernel(ctx context.Context) {
	if !p.reads.next.IsZero() && !p.now.Before(p.reads.next) {
		p.readEverything("it is time")
		p.reads.next = p.nextFullRead()
	}
	for i := range part(parts) {
		s := &p.reads.state[i]
		if !s.wanted || s.due.After(p.now) || ctx.Err() != nil {
			continue
		}
		start := time.Now()
		err := p.awaitFlush(ctx, i)
		if err == nil {
			err = p.readPart(ctx, i)
		}
		s.ended = time.Now()
		s.took = s.ended.Sub(start)
		if err != nil {
			p.readFailed(ctx, i, err)
			continue
		}
		if s.failures > 0 {
			p.log.Info("reading the kernel works again", logPart, partNames[i])
		}
		*s = readState{done: true, took: s.took, ended: s.ended}
	}
	if !p.reads.outstanding() {
		p.reads.err = nil
	}
}

// awaitFlush returns when what the kernel drops along with the interfaces and addresses that we know to be gone is dropped: links are read under
// the lock that whoever drops it holds.
func (p *Programmer) awaitFlush(ctx context.Context, i part) error {
	if !p.reads.flushing || i < partNexthops {
		return nil
	}
	return p.readPart(ctx, partLinks)
}

func (p *Programmer) readFailed(ctx context.Context, i part, err error) {
	s := &p.reads.state[i]
	s.failures++
	s.due = s.ended.Add(readBackoff(s.failures))
	p.relink = p.relink || i == partNexthops && s.failures == patientReads
	p.reads.err = fmt.Errorf("read %s: %w", partNames[i], err)
	if s.failures == 2 && ctx.Err() == nil {
		p.log.Warn("reading the kernel fails; it is tried again", logPart, partNames[i], logError, err)
	}
}

// readPart reads one part; a dump that a change interrupted is begun again at once a few times.
func (p *Programmer) readPart(ctx context.Context, i part) (err error) {
	for range interruptedDumps {
		switch i {
		case partLinks:
			err = p.readLinks(ctx)
		case partAddresses:
			err = p.readAddresses(ctx)
		case partNexthops:
			err = p.readNexthops(ctx)
		default:
			err = p.dumpRoutes(ctx, i == partRoutes6)
		}
		if !errors.Is(err, kernel.ErrInterrupted) {
			return err
		}
	}
	return err
}

func (p *Programmer) readLinks(ctx context.Context) error {
	list, err := p.kernel.ListLinks(ctx)
	if err != nil {
		return err
	}
	defer func() { p.reads.flushing = false }() // also for what this read tells of
	there := make(map[int]bool, len(list))
	for i := range list {
		there[list[i].Index] = true
	}
	for index := range p.links.byIndex {
		if !there[index] {
			p.linkGone(index)
		}
	}
	for i := range list {
		p.linkSeen(&list[i])
	}
	p.touchDevices()
	return nil
}

func (p *Programmer) readAddresses(ctx context.Context) error {
	list, err := p.kernel.ListAddresses(ctx)
	if err != nil {
		return err
	}
	type key struct {
		link   int
		prefix netip.Prefix
	}
	there := make(map[key]bool, len(list))
	for i := range list {
		there[key{list[i].Link, list[i].Prefix}] = true
	}
	var gone []kernel.Address
	for _, have := range p.links.addrs {
		for _, a := range have {
			if !there[key{a.Link, a.Prefix}] {
				gone = append(gone, a)
			}
		}
	}
	for i := range gone {
		p.addressGone(&gone[i])
	}
	for i := range list {
		p.addressSeen(&list[i])
	}
	return nil
}

// dumpRoutes reads one family's routes and corrects the mirror. Nothing is allocated for a route that is as it was.
func (p *Programmer) dumpRoutes(ctx context.Context, v6 bool) error {
	d := &p.dumps[0]
	if v6 {
		d = &p.dumps[1]
	}
	d.turn++
	d.nexthops, d.last = map[uint32]struct{}{}, 0
	p.stats.Reads++
	err := p.kernel.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
		p.routeSeen(r, d.turn)
		return true
	})
	if err != nil {
		return err
	}
	missing := 0
	for i := p.routes.Len() - 1; i >= 0; i-- {
		if i >= p.routes.Len() {
			continue
		}
		e := p.routes.At(i)
		switch {
		case e.Note.dump == d.turn || e.Key().Dst.Addr().Is6() != v6:
		case e.Actual() == nil:
			e.Note.echoes, e.Note.doubt = 0, false // an echo that has not come by now was lost
			p.forget(e)
		default:
			if e.Same() {
				if missing == 0 {
					p.recorder.because(p.now, "the kernel was read, and routes were missing")
				}
				missing++
				e.Note.cause = p.recorder.now
				p.note(e, e.Note.owner, noticed, nil, "it was missing")
			}
			e.Note.echoes = 0
			p.setActual(e, nil)
		}
	}
	p.foreign.sweep(v6, d.turn, func(k kernel.RouteKey) {
		p.netMoved = true
		p.keyFreed(k, p.routes.Get(k))
	})
	if missing > 0 {
		p.log.Info("reading the kernel found routes of ours missing", logCount, missing)
	}
	p.wakeUncertain()
	p.clearIdle(v6)
	p.sweepForms()
	return nil
}

// routeSeen folds one route of a dump into the mirror.
func (p *Programmer) routeSeen(r *kernel.Route, turn uint8) {
	if r.Table != 0 && r.Table != kernel.TableMain {
		return
	}
	k := kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}
	if d := &p.dumps[family(k)]; r.NexthopID != d.last { // neighbours in the table mostly lead the same way
		d.last = r.NexthopID
		d.nexthops[d.last] = struct{}{}
	}
	if !p.policy.ours(r, p.links.nameOf) {
		if k.TOS == 0 && p.foreign.see(k, r, turn) {
			p.netMoved = true
			if e := p.routes.Get(k); e != nil {
				p.settle(e)
			}
		}
		return
	}
	e := p.routes.Ensure(k)
	if e.Actual() != nil && e.Note.dump == turn {
		return // a second one of ours under the key, behind the one that counts
	}
	e.Note.dump = turn
	if e.Actual() != nil && e.Actual().is(r) {
		return
	}
	f := p.formOf(r)
	if f != e.Actual() {
		e.Note.echoes = 0
		delete(p.suspects, e)
		p.setActual(e, f)
		e.Note.dump = turn
	}
}

// wakeUncertain tries again what had no answer, now that it is known what the kernel holds.
func (p *Programmer) wakeUncertain() {
	list := p.uncertain
	p.uncertain = nil // before what is held is looked at again
	for _, e := range list {
		p.routes.Wake(e)
		if len(p.takeover.held) > 0 {
			p.letGo(e.Key().Dst)
		}
	}
}
