package routes

import (
	"errors"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

var errWatchEnded = errors.New("the kernel's events ended")

// applyEvent folds one event into the mirror. The echoes of our own writes end here without a trace.
func (p *Programmer) applyEvent(e *kernel.Event) {
	switch e.Kind {
	case kernel.EventLost:
		p.stats.Lost++
		p.log.Warn("kernel events were lost; everything is read again", logError, e.Err)
		p.forgetEchoes()
		p.readEverything("events were lost")
	case kernel.EventLink:
		if e.Deleted {
			p.linkGone(e.Link.Index)
		} else {
			p.linkSeen(&e.Link)
		}
	case kernel.EventAddress:
		if e.Deleted {
			p.addressGone(&e.Address)
		} else {
			p.addressSeen(&e.Address)
		}
	case kernel.EventRoute:
		p.routeEvent(e)
	case kernel.EventSysctl:
		p.settings.event(&e.Netconf, e.Deleted)
		p.settings.look(p.links.nameOf(e.Netconf.Link))
	case kernel.EventNexthop:
		p.nexthopEvent(&e.Nexthop, e.Deleted)
	case kernel.EventNeighbour:
		p.neighbourEvent(&e.Neighbour, e.Deleted)
	}
}

func (p *Programmer) routeEvent(ev *kernel.Event) {
	r := &ev.Route
	if r.Table != 0 && r.Table != kernel.TableMain {
		return
	}
	if !ev.Deleted && r.Protocol != kernel.ProtoCaracal {
		p.lives(r)
	}
	k := kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}
	e := p.routes.Get(k)
	if e != nil && e.Note.echoes == 1 && !ev.Deleted && e.Actual() != nil && e.Actual().is(r) && !ev.Replaced {
		p.echoed(e) // the common case: the echo of what we have just added
		return
	}
	if !ev.Deleted && r.NexthopID != 0 && p.nexthops.at(r.NexthopID) == nil {
		p.readRoutes(family(k), "a route leads to a nexthop object that has gone since, and has perhaps gone along")
	}
	if p.policy.ours(r, p.links.nameOf) {
		p.ourRouteEvent(ev, k, e)
		return
	}
	p.foreignRouteEvent(ev, k, e)
}

// suspect is an event that contradicts a write of ours whose echo has not come: it may be older than the write.
type suspect struct {
	form *form
	due  time.Time
}

// ourRouteEvent folds an event about a route that is ours by its protocol.
func (p *Programmer) ourRouteEvent(ev *kernel.Event, k kernel.RouteKey, e *routeEntry) {
	if e == nil {
		if ev.Deleted {
			return
		}
		e = p.routes.Ensure(k)
	}
	var f *form
	switch {
	case !ev.Deleted:
		f = p.formOf(&ev.Route)
	case ev.Route.NexthopID == 0 && grouped(k, ev.Route.NextHops):
		have := e.Actual()
		if s, doubted := p.suspects[e]; doubted {
			have = s.form // next hops go one by one, and this is what the events before this one left
		}
		if have != nil {
			f = p.forms.without(have, &ev.Route)
		}
	}
	if !ev.Deleted && ev.Replaced && p.foreign.at(k) != nil {
		p.readRoutes(family(k), "a route of ours replaced another under its key")
	}
	switch {
	case f == e.Actual():
		p.echoed(e)
		p.forget(e)
	case e.Note.echoes > 1 || e.Note.echoes == 1 && e.Note.mute:
		e.Note.echoes-- // the echo of a write before the last one; that of the last one will tell, if there is one
	case e.Note.echoes == 1:
		// Either older than our last write, or somebody's answer to it. If our echo comes, it was older.
		p.suspects[e] = suspect{f, p.now.Add(echoPatience)}
	default:
		// A deletion that another program made before our last add may be told only now, and nothing tells of the add.
		e.Note.doubt = ev.Deleted && p.muted
		p.observed(e, f)
	}
}

// echoed records an event that shows what we believe.
func (p *Programmer) echoed(e *routeEntry) {
	if e.Note.echoes > 0 {
		e.Note.echoes--
	}
	if len(p.suspects) > 0 {
		delete(p.suspects, e)
	}
}

// forgetEchoes is for when events were lost: an echo that will never come must not swallow the news of another program's doing.
func (p *Programmer) forgetEchoes() {
	for i := range p.routes.Len() {
		p.routes.At(i).Note.echoes = 0
	}
}

// settleSuspects believes the events whose contradiction no echo has resolved.
func (p *Programmer) settleSuspects() {
	for e, s := range p.suspects {
		// While there are events to hear the echo may be behind them: 100,000 come at once where an object is replaced.
		if late := p.now.Sub(s.due); late > echoPatience*echoBacklog || late >= 0 && len(p.events) == 0 {
			delete(p.suspects, e)
			e.Note.echoes = 0
			p.readRoutes(family(e.Key()), "an event contradicts a write whose echo has not come") // or comes late
			p.observed(e, s.form)
		}
	}
}

// observed records that somebody else has changed or removed a route of ours, or put one there.
func (p *Programmer) observed(e *routeEntry, f *form) {
	how := "another program deletes this route"
	if f != nil {
		how = "another program changes this route under our protocol number, " + f.protocol.String()
	}
	p.undone(e, f, how)
}

func (p *Programmer) undone(e *routeEntry, f *form, how string) {
	if e.Same() && e.Desired() != nil && f != e.Desired() {
		p.fought(e, how)
	}
	if f != e.Actual() {
		p.notice(e, f, how)
	}
	p.setActual(e, f)
}

// setActual records what the kernel holds of ours under a key.
func (p *Programmer) setActual(e *routeEntry, f *form) {
	e.Note.dump = p.dumps[family(e.Key())].turn
	if f == e.Actual() {
		return
	}
	e.Note.joined, e.Note.doubt = false, e.Note.doubt && f == nil
	if have := e.Actual(); have != nil {
		have.held--
		p.left(have)
	}
	if f != nil {
		f.held++
	}
	p.routes.SetActual(e, f)
	p.settle(e)
	p.resolveDoubt(e)
	p.forget(e)
}

// foreignRouteEvent folds an event about a route of another program.
func (p *Programmer) foreignRouteEvent(ev *kernel.Event, k kernel.RouteKey, e *routeEntry) {
	if k.TOS != 0 {
		return // neither resolved through nor in the way of ours
	}
	if ev.Deleted {
		if p.foreign.lose(k, &ev.Route) {
			p.netMoved = true
			p.keyFreed(k, e)
		}
		return
	}
	before := p.foreign.at(k) != nil
	if ev.Replaced && before {
		p.foreign.loseFirst(k)
	}
	if !p.foreign.see(k, &ev.Route, p.dumps[family(k)].turn) && !ev.Replaced {
		return
	}
	p.netMoved = true
	if f := p.foreign.at(k); f != nil && f.next != nil && ev.Route.Protocol != kernel.ProtoKernel {
		// Rarely do programs write two under one key. IPv6 does not tell what a route replaced; and if this event was older than our last
		// read, a replacement may have taken the wrong one out of the mirror.
		p.readRoutes(family(k), "a key has several routes of other programs")
	}
	if e == nil {
		return
	}
	switch {
	case e.Actual() == nil:
	case ev.Replaced && !before:
		e.Note.echoes = 0
		delete(p.suspects, e)
		p.undone(e, nil, "a program of protocol "+ev.Route.Protocol.String()+" replaces this route") // ours was the first under the key
		return
	case k.Dst.Addr().Is6() || ev.Replaced:
		p.readRoutes(family(k), "a route of another program came under a key of ours")
	}
	p.settle(e)
}

// keyFreed tries a route again whose key another program held.
func (p *Programmer) keyFreed(k kernel.RouteKey, e *routeEntry) {
	if e == nil || p.foreign.at(k) != nil {
		return
	}
	p.routes.Wake(e)
	p.settle(e)
}

// family is the index of a key's address family: 0 IPv4, 1 IPv6.
func family(k kernel.RouteKey) int {
	if k.Dst.Addr().Is6() {
		return 1
	}
	return 0
}
