package routes

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/kernel"
)

// outcome is Outcome in a byte.
type outcome uint8

const (
	none outcome = iota
	installed
	waiting
	noDevice
	failed
	foreign
	lost
	unroutable
	kept
	outcomes // how many there are
)

var outcomeNames = [outcomes]Outcome{Removed, Installed, Waiting, NoDevice, Failed, Foreign, Lost, Unroutable, Kept}

// trouble is what an entry has that the kernel refuses, or that somebody fights us over.
type trouble struct {
	attempts int
	refused  bool      // the last attempt failed; false: only waiting because of a fight
	device   bool      // for lack of the interface
	detail   string    // the kernel's words
	due      time.Time // next attempt
	armed    bool      // an alarm is set
}

// settle works out the outcomes of all wishes of an entry.
func (p *Programmer) settle(e *routeEntry) {
	n := &e.Note
	if e.Same() && n.trouble != nil && n.trouble.refused {
		p.clearTrouble(e)
	}
	if n.owner == 0 {
		switch {
		case e.Actual() == nil:
			p.setOutcome(e, &n.wish, none)
		case n.trouble != nil && n.trouble.refused:
			p.setOutcome(e, &n.wish, failed)
		default:
			p.setOutcome(e, &n.wish, kept)
		}
		return
	}
	winner := n.winner()
	p.settleWish(e, &n.wish, winner)
	if n.others != nil {
		for i := range *n.others {
			p.settleWish(e, &(*n.others)[i], winner)
		}
	}
}

func (p *Programmer) settleWish(e *routeEntry, w, winner *wish) {
	switch {
	case w.shape.unroutable != "":
		p.setOutcome(e, w, unroutable)
	case w != winner:
		p.setOutcome(e, w, lost)
	default:
		p.setOutcome(e, w, p.fate(e))
	}
}

// fate is the outcome of the wish that is programmed.
func (p *Programmer) fate(e *routeEntry) outcome {
	t := e.Note.trouble
	switch {
	case e.Desired() == nil:
		return noDevice
	case e.Same():
		return installed
	case e.Note.joined || p.foreign.at(e.Key()) != nil:
		return foreign
	case t != nil && t.refused && t.device:
		return noDevice
	case t != nil && t.refused:
		return failed
	default:
		return waiting
	}
}

func (p *Programmer) setOutcome(e *routeEntry, w *wish, o outcome) {
	if w.outcome == o {
		return
	}
	p.counts[w.owner][w.outcome]--
	p.counts[w.owner][o]++
	p.news.changed(p, e, w, o)
	if o >= noDevice && o != failed { // the others are told by what is written and refused
		p.recorder.note(record{at: p.now.UnixNano(), key: e.Key(), cause: p.recorder.now, owner: w.owner, what: settled, outcome: o})
	}
	w.outcome, w.since = o, p.now.UnixMilli()
	if len(p.takeover.held) > 0 {
		p.letGo(e.Key().Dst)
	}
	p.tell(e, w.owner)
}

// uncount takes a wish that ends out of the counts.
func (p *Programmer) uncount(w *wish) {
	p.counts[w.owner][w.outcome]--
	p.counts[w.owner][none]++
	w.outcome = none
}

// describeForeign says what of another program stands in the way of a route.
func (p *Programmer) describeForeign(e *routeEntry) string {
	if e.Note.joined {
		return "next hops of another program have joined this route"
	}
	return p.foreign.describe(e.Key())
}

func (p *Programmer) clearTrouble(e *routeEntry) {
	if e.Note.trouble != nil {
		e.Note.trouble = nil
		delete(p.failing, e)
		if len(p.takeover.held) > 0 {
			p.letGo(e.Key().Dst)
		}
	}
}

// refuse records that the kernel would not have an entry, and when to ask again.
func (p *Programmer) refuse(e *routeEntry, err error) {
	t := e.Note.trouble
	if t == nil {
		t = &trouble{}
		e.Note.trouble = t
	}
	t.attempts++
	t.refused = true
	t.device = errors.Is(err, kernel.ErrNoDevice) || errors.Is(err, kernel.ErrDown)
	t.detail = describe(err)
	t.due = p.now.Add(backoff(retryFirst, retryMost, t.attempts))
	p.failing[e] = struct{}{}
	p.stats.Refused++
	p.note(e, e.Note.owner, refused, nil, t.detail)
	p.arm(e, t)
	p.settle(e)
}

// describe is an error of the kernel with the name of its errno in front.
func describe(err error) string {
	var r *kernel.Refusal
	if errors.As(err, &r) {
		name := unix.ErrnoName(r.Errno)
		if r.Errno == unix.EOPNOTSUPP {
			name = "EOPNOTSUPP" // it has two names
		}
		if name != "" {
			return name + ": " + err.Error()
		}
	}
	return err.Error()
}

// news collects what is worth a line of log in one pass, so that 100,000 routes that share a fate make few lines.
type news struct {
	lines []newsLine
	more  [outcomes]int
}

type newsLine struct {
	route, detail string
	owner         Owner
	outcome       outcome
	attempts      int
}

// newsLines is how many routes are named in one pass.
const newsLines = 5

// changed notes a change of outcome that a person should know of: trouble, and the end of trouble.
func (n *news) changed(p *Programmer, e *routeEntry, w *wish, to outcome) {
	trouble := to == failed || to == foreign
	over := to == installed && (w.outcome == failed || w.outcome == foreign)
	if !trouble && !over {
		return
	}
	if len(n.lines) >= newsLines {
		n.more[to]++
		return
	}
	line := newsLine{route: e.Key().Dst.String(), owner: p.owners[w.owner], outcome: to}
	if to == foreign {
		line.detail = p.describeForeign(e)
	} else if t := e.Note.trouble; t != nil {
		line.detail, line.attempts = t.detail, t.attempts
	}
	n.lines = append(n.lines, line)
}

// report writes the news of the pass, without the lock: a log may block.
func (p *Programmer) report() {
	if len(p.news.lines) == 0 {
		return
	}
	n := p.news
	p.news = news{}
	p.mu.Unlock()
	defer p.mu.Lock()
	for _, l := range n.lines {
		switch l.outcome {
		case installed:
			p.log.Info("route is installed after all", logRoute, l.route, logOwner, string(l.owner))
		case foreign:
			p.log.Warn("a route of another program has the same key and is left alone", logRoute, l.route, logOwner, string(l.owner), logDetail, l.detail)
		default:
			p.log.Warn("the kernel refuses a route; it is tried again", logRoute, l.route, logOwner, string(l.owner), logError, l.detail, logAttempts, l.attempts)
		}
	}
	var rest []any
	for o, count := range n.more {
		if count > 0 {
			rest = append(rest, slog.Int(strings.ReplaceAll(string(outcomeNames[o]), "-", "_"), count))
		}
	}
	if len(rest) > 0 {
		p.log.Warn("more routes changed in the same way", rest...)
	}
}

// Stats are counters since New, for inspection and metrics.
type Stats struct {
	Writes   uint64 // route operations that the kernel carried out
	Refused  uint64 // route operations that it refused
	Repairs  uint64 // objects of ours that somebody else changed or removed and that were put right
	Reads    uint64 // dumps of routes, both families counted
	Lost     uint64 // times that events were lost
	Batches  uint64 // WriteRoutes calls
	Routes   int    // keys known: wanted or there
	Foreign  int    // routes of others in table main
	GateOpen bool   // deletions are allowed
}

// Stats returns the counters.
func (p *Programmer) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Routes, s.Foreign, s.GateOpen = p.routes.Len(), p.foreign.size, p.gateOpen
	return s
}

func (o outcome) String() string { return fmt.Sprint(outcomeNames[o]) }
