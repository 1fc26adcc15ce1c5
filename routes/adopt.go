package routes

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"

	"github.com/caracal-net/caracal/internal/kernel"
)

// takeover is the state of what is adopted of other programs' leftovers (Adoption).
type takeover struct {
	wanted Adoption // as New was told; the policy has less while a program shows that it lives
	within []netip.Prefix
	// bird and felix are when those programs last showed that they live.
	bird, felix life
	// held are routes that nobody wants by destination, while another to that destination is wanted and not in place yet.
	held map[netip.Prefix][]*routeEntry
}

// life is how long a program that has written a route of its own counts as living; its routes are its own until then.
type life struct {
	until time.Time
	pause time.Duration
}

// A program that was seen to live is asked again after lifeFirst, and each time it still does after twice as long, up to lifeMost: its
// leftovers are adopted once more, and if it puts them back it has shown it again. Felix looks at its routes every 90 s, BIRD every 10 s
// (Felix routeRefreshInterval; the kernel protocol's scan time in Calico's bird.cfg).
const (
	lifeFirst = 2 * time.Minute
	lifeMost  = time.Hour
)

// Within names the destinations whose leftovers are taken over: the IP pools that we program. Until the first call there are none. It
// takes effect before what is applied after it.
func (p *Programmer) Within(dsts ...netip.Prefix) {
	dsts = slices.Clone(dsts)
	slices.SortFunc(dsts, netip.Prefix.Compare)
	p.inbox.put(func(m *mail) { m.within, m.bounds = dsts, true })
}

// adoptWithin sets the destinations. What is inside now is read at once, so that no route of ours waits for a key that a leftover holds.
func (p *Programmer) adoptWithin(ctx context.Context, dsts []netip.Prefix) {
	t := &p.takeover
	if t.wanted == (Adoption{}) || slices.Equal(t.within, dsts) {
		return
	}
	t.within, p.hostDirty = dsts, true
	p.policy.within = new(bart.Lite)
	for _, d := range dsts {
		p.policy.within.Insert(d.Masked())
	}
	p.recorder.because(p.now, "leftovers of other programs are taken over in other destinations than before")
	p.disown()
	p.adopt(ctx)
}

// adopt takes over what is foreign so far and ours by the policy. Only a read shows all of such a route.
func (p *Programmer) adopt(ctx context.Context) {
	if p.findLeftovers() {
		p.readKernel(ctx)
	}
}

// findLeftovers asks for reads of the families in which routes that are foreign so far may be leftovers, and reports whether there are any.
func (p *Programmer) findLeftovers() bool {
	if p.policy.adopt == (Adoption{}) {
		return false
	}
	found := [2]bool{}
	for k, f := range p.foreign.byKey {
		for ; f != nil; f = f.next {
			found[family(k)] = found[family(k)] || p.policy.adopt.of(f.protocol) && p.policy.inside(k.Dst)
		}
	}
	for v6, there := range found {
		if s := &p.reads.state[partRoutes4+part(v6)]; there && s.done {
			s.wanted, s.due = true, time.Time{}
		}
	}
	return found[0] || found[1]
}

// disown lets go of adopted routes that are not ours any more by the policy.
func (p *Programmer) disown() {
	for i := p.routes.Len() - 1; i >= 0; i-- {
		if i >= p.routes.Len() {
			continue
		}
		e := p.routes.At(i)
		if e.Actual() == nil || e.Actual().protocol == kernel.ProtoCaracal {
			continue
		}
		r := e.Actual().route(e.Key())
		if p.policy.ours(&r, p.links.nameOf) {
			continue
		}
		e.Note.echoes = 0
		delete(p.suspects, e)
		p.foreign.see(e.Key(), &r, p.dumps[family(e.Key())].turn)
		p.setActual(e, nil)
	}
}

// lifeOf is the record of the program that writes under a protocol number, nil for any other. Protocol 3 says nothing: ip(8) writes it.
func (t *takeover) lifeOf(p kernel.Protocol) (l *life, name string) {
	switch p {
	case kernel.ProtoBird:
		return &t.bird, "BIRD"
	case kernel.ProtoFelix:
		return &t.felix, "Felix"
	}
	return nil, ""
}

// lives is for an event that shows a route under another program's number written just now. If it is of the kind that would be a leftover, the
// program lives: its routes are its own.
func (p *Programmer) lives(r *kernel.Route) {
	t := &p.takeover
	l, name := t.lifeOf(r.Protocol)
	if l == nil || !t.wanted.of(r.Protocol) {
		return
	}
	would := p.policy
	would.adopt = t.wanted
	if !would.ours(r, p.links.nameOf) {
		return
	}
	if !p.policy.adopt.of(r.Protocol) {
		l.until = p.now.Add(l.pause)
		return
	}
	l.pause = min(max(2*l.pause, lifeFirst), lifeMost)
	l.until = p.now.Add(l.pause)
	p.log.Warn("another program writes routes of the kind that was taken over as its leftovers, so it runs: its routes are left alone; stop it, or say that nothing of it is adopted",
		logProgram, name, logRoute, r.Dst.String(), logAgain, l.pause.String())
	p.recorder.because(p.now, name+" runs: its routes are its own again")
	p.reckon()
	p.disown()
}

// reckon works out whose leftovers are taken over now.
func (p *Programmer) reckon() {
	t := &p.takeover
	p.policy.adopt.BIRD = t.wanted.BIRD && !t.bird.until.After(p.now)
	p.policy.adopt.Felix = t.wanted.Felix && !t.felix.until.After(p.now)
}

// resume adopts anew what a program has left that has shown no life for its time.
func (p *Programmer) resume(ctx context.Context) {
	before := p.policy.adopt
	if before == p.takeover.wanted {
		return
	}
	if p.reckon(); p.policy.adopt != before {
		p.recorder.because(p.now, "a program has not shown that it runs; its leftovers are taken over")
		p.adopt(ctx)
	}
}

// next is when resume has something to do.
func (t *takeover) next(now time.Time) (next time.Time) {
	for _, l := range []*life{&t.bird, &t.felix} {
		if l.until.After(now) && (next.IsZero() || l.until.Before(next)) {
			next = l.until
		}
	}
	return next
}

// unfinished are destinations to which a route is wanted that is not in place. Each set is found when it is first asked for; nil = not yet.
type unfinished struct {
	refused map[netip.Prefix]bool // because the kernel refuses it, or its answer is not known
	all     map[netip.Prefix]bool // for any reason, also because no way is known
}

// hold keeps a route that nobody wants while another to its destination is wanted, under another metric, and not in place: until then it is
// what carries packets. For our own those count that the kernel refuses; where no way is known, or another program's
// route has the key, ours was meant to go. Adopted ones stay for all.
func (p *Programmer) hold(e *routeEntry, u *unfinished) bool {
	dst, own := e.Key().Dst, e.Actual().protocol == kernel.ProtoCaracal
	switch {
	case own && len(p.failing)+len(p.uncertain)+len(p.misled) == 0:
		return false
	case own && u.refused == nil:
		u.refused = map[netip.Prefix]bool{}
		for f := range p.failing {
			if o := p.fate(f); f.Desired() != nil && (o == failed || o == noDevice) {
				u.refused[f.Key().Dst] = true
			}
		}
		for _, f := range slices.Concat(p.uncertain, p.misled) {
			if f.Desired() != nil && !f.Same() {
				u.refused[f.Key().Dst] = true
			}
		}
	case !own && u.all == nil:
		u.all = map[netip.Prefix]bool{}
		for i := range p.routes.Len() {
			if f := p.routes.At(i); f.Note.owner != 0 && (f.Desired() == nil || !f.Same()) {
				u.all[f.Key().Dst] = true
			}
		}
	}
	if own && !u.refused[dst] || !own && !u.all[dst] {
		return false
	}
	if p.takeover.held == nil {
		p.takeover.held = map[netip.Prefix][]*routeEntry{}
	}
	if held := p.takeover.held[dst]; !slices.Contains(held, e) {
		p.takeover.held[dst] = append(held, e)
	}
	return true
}

// letGo looks again at what is held for a destination, of which something changed.
func (p *Programmer) letGo(dst netip.Prefix) {
	for _, e := range p.takeover.held[dst] {
		p.routes.Wake(e)
	}
	delete(p.takeover.held, dst)
}
