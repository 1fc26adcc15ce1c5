package routes

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// wish is what one owner wants under one key.
type wish struct {
	shape   *shape
	reason  *Reason
	since   int64 // Unix milliseconds: when outcome became what it is
	owner   uint8 // rank; 0 = nobody, the record of an unwanted route that is there
	outcome outcome
	turn    uint8 // generation of the owner's whole set that held it last
}

// routeNote is the Programmer's record of one key. Its size is what 100,000 routes cost; anything that only few routes have
// goes behind a pointer.
type routeNote struct {
	wish              // of the strongest owner
	others   *[]wish  // of the others, strongest first
	waitsFor *nexthop // the object that has it in its list
	trouble  *trouble // while the kernel refuses it
	repaired uint32   // Unix seconds of the last repair after somebody else's change
	repairs  uint8    // how many repairs in a row
	dump     uint8    // generation of the dump that saw it last
	echoes   uint8    // writes that succeeded and whose echoes have not come, but are to come
	cause    uint32   // of what is wanted or was noticed last, for the recorder
	mute     bool     // the last write was one that has no echo
	counted  bool     // while predecessor counts
	joined   bool     // next hops of another program have joined ours (IPv6)
	doubt    bool     // what says that it is gone may be older than our last add, of which nothing is told
}

// each calls f for every wish, strongest first.
func (n *routeNote) each(f func(*wish)) {
	if n.owner != 0 {
		f(&n.wish)
	}
	if n.others != nil {
		for i := range *n.others {
			f(&(*n.others)[i])
		}
	}
}

// of returns the wish of an owner, or nil.
func (n *routeNote) of(owner uint8) *wish {
	if n.owner == owner {
		return &n.wish
	}
	if n.others != nil {
		for i := range *n.others {
			if (*n.others)[i].owner == owner {
				return &(*n.others)[i]
			}
		}
	}
	return nil
}

// winner is the wish that is programmed: of the strongest owner who knows a way. Wishes without one never
// stand in the way of others.
func (n *routeNote) winner() *wish {
	if n.owner == 0 {
		return nil
	}
	if n.shape.unroutable == "" {
		return &n.wish
	}
	if n.others != nil {
		for i := range *n.others {
			if w := &(*n.others)[i]; w.shape.unroutable == "" {
				return w
			}
		}
	}
	return nil
}

// applyChange works one step of an owner into the wishes.
func (p *Programmer) applyChange(ctx context.Context, owner Owner, c *Change) {
	rank := p.rank(owner)
	if c.Whole || len(c.Routes) > 0 || len(c.Withdraw) > 0 || len(c.Neighbours) > 0 || len(c.WithdrawNeighbours) > 0 || c.Links != nil || c.Addresses != nil {
		p.recorder.apply(p.now, owner, c.Cause)
	}
	p.applyNeighbours(rank, c)
	if c.Links != nil {
		p.linkWishes[rank] = c.Links
		p.arbitrateDevices()
	}
	if c.Settings != nil {
		p.settings.wish(rank, c.Settings)
	}
	if c.Addresses != nil && !p.policy.beside { // Felix puts them there itself
		p.addresses.wish(rank, c.Addresses)
		p.leftoversDirty = true
	}
	if c.Whole {
		p.turn[rank]++
		p.routes.Grow(len(c.Routes) - p.routes.Len())
	}
	for i := range c.Withdraw {
		k := kernel.RouteKey{Dst: c.Withdraw[i].Dst.Masked(), Metric: c.Withdraw[i].Metric}
		if k.Metric == 0 {
			k.Metric = Metric
		}
		if e := p.routes.Get(k); e != nil {
			p.withdraw(e, rank)
		}
	}
	for i := range c.Routes {
		p.want(rank, &c.Routes[i])
		if i%batchSize == batchSize-1 {
			p.writeAhead(ctx)
		}
	}
	p.land()
	if c.Whole {
		for i := p.routes.Len() - 1; i >= 0; i-- {
			e := p.routes.At(i)
			if w := e.Note.of(rank); w != nil && w.turn != p.turn[rank] {
				p.withdraw(e, rank)
			}
		}
	}
	clear(p.shapes.recent)
}

// packKey puts the key of an ordinary IPv4 route into a word.
func packKey(k kernel.RouteKey) (uint64, bool) {
	if k.Metric != Metric || k.TOS != 0 || !k.Dst.Addr().Is4() || !k.Dst.IsValid() {
		return 0, false
	}
	a := k.Dst.Addr().As4()
	return uint64(binary.BigEndian.Uint32(a[:]))<<8 | uint64(k.Dst.Bits()), true
}

// want records one wish; an unchanged one costs no allocation.
func (p *Programmer) want(rank uint8, r *Route) {
	key := r.Key()
	e := p.routes.Ensure(kernel.RouteKey{Dst: key.Dst.Masked(), Metric: key.Metric})
	s := p.shapes.shared(r)
	if s == nil {
		s = p.shapeOf(r)
	}
	w := e.Note.of(rank)
	if w == nil || rank == 0 {
		w = p.addWish(e, rank)
	}
	w.turn = p.turn[rank]
	if w.shape == s && sameReason(w.reason, r.Reason) {
		return
	}
	moved := w.shape != s
	p.settings.need(family(e.Key()))
	w.shape, w.reason = s, r.Reason
	p.tell(e, rank)
	if moved {
		e.Note.cause = p.recorder.now
		p.note(e, rank, asked, s.form, s.unroutable)
		p.decide(e)
	}
}

// shapeOf looks up the shape of a wish, and binds one that is new.
func (p *Programmer) shapeOf(r *Route) *shape {
	s, fresh := p.shapes.of(r)
	if fresh {
		p.bind(s)
	}
	if len(r.NextHops) > 0 {
		p.shapes.recent[&r.NextHops[0]] = s
	}
	return s
}

func sameReason(a, b *Reason) bool { return a == b || a != nil && b != nil && *a == *b }

// addWish makes room for a wish, keeping them in order of rank.
func (p *Programmer) addWish(e *routeEntry, rank uint8) *wish {
	n := &e.Note
	fresh := wish{owner: rank, since: p.now.UnixMilli()}
	switch {
	case n.owner == 0: // it may be there unwanted, as Kept or Failed
		p.uncount(&n.wish)
		n.wish = fresh
		return &n.wish
	case n.others == nil:
		n.others = &[]wish{}
	}
	if rank < n.owner {
		fresh, n.wish = n.wish, fresh
		*n.others = slices.Insert(*n.others, 0, fresh)
		return &n.wish
	}
	i := 0
	for i < len(*n.others) && (*n.others)[i].owner < rank {
		i++
	}
	*n.others = slices.Insert(*n.others, i, fresh)
	return &(*n.others)[i]
}

// withdraw removes an owner's wish, if there is one.
func (p *Programmer) withdraw(e *routeEntry, rank uint8) {
	n := &e.Note
	w := n.of(rank)
	if w == nil || rank == 0 {
		return
	}
	p.uncount(w)
	p.tell(e, rank)
	n.cause = p.recorder.now
	p.note(e, rank, withdrawn, nil, "")
	switch {
	case w != &n.wish:
		*n.others = slices.DeleteFunc(*n.others, func(o wish) bool { return o.owner == rank })
	case n.others != nil && len(*n.others) > 0:
		n.wish = (*n.others)[0]
		*n.others = slices.Delete(*n.others, 0, 1)
	default:
		n.wish = wish{}
	}
	if n.others != nil && len(*n.others) == 0 {
		n.others = nil
	}
	p.decide(e)
	if len(p.takeover.held) > 0 {
		p.letGo(e.Key().Dst)
	}
	p.forget(e)
}

// decide works out anew what the kernel should hold under a key. A new wish is tried at once, whatever became of the one
// before.
func (p *Programmer) decide(e *routeEntry) {
	var f *form
	if w := e.Note.winner(); w != nil {
		f = w.shape.form
	}
	if f != e.Desired() {
		p.clearTrouble(e)
		p.setDesired(e, f)
		p.resolveDoubt(e)
	}
	p.settle(e)
}

// setDesired records what the kernel should hold under a key, and has the nexthop object written that a route needs.
func (p *Programmer) setDesired(e *routeEntry, f *form) {
	if want := e.Desired(); want != nil {
		want.wanted--
		p.left(want)
	}
	if f != nil {
		f.wanted++
		if o := f.nexthop; o != nil && !o.current() {
			o.await(e)
			p.needNexthop(o)
		}
	}
	p.routes.SetDesired(e, f)
}

// resolveDoubt has the routes read when one that may be there is not wanted: what is wanted is added, and the kernel says.
func (p *Programmer) resolveDoubt(e *routeEntry) {
	if e.Note.doubt && e.Desired() == nil && e.Actual() == nil {
		p.readRoutes(family(e.Key()), "a route that nobody wants may be there")
	}
}

// left says that a route less has a form, or is to have it.
func (p *Programmer) left(f *form) {
	if f.nexthop != nil && f.wanted == 0 && f.held == 0 {
		p.mayBeIdle(f.nexthop)
	}
}

// forget drops an entry that nobody wants and that is not there, once the echoes of our writes are in: were the key
// wanted again meanwhile, they would look like news.
func (p *Programmer) forget(e *routeEntry) {
	if e.Note.owner != 0 || e.Desired() != nil || e.Actual() != nil || e.Note.echoes > 0 {
		return
	}
	p.uncount(&e.Note.wish)
	p.clearTrouble(e)
	delete(p.suspects, e)
	p.resolveDoubt(e)
	if p.routes.Drop(e) {
		p.tell(e, 0)
	}
}

// bind finds the form of a shape with the links as they are. Next hops on interfaces that are missing or down are left
// out; if that leaves none, the route waits for them.
func (p *Programmer) bind(s *shape) {
	if s.unroutable != "" {
		return
	}
	r := kernel.Route{Type: s.typ, Scope: s.scope, Protocol: kernel.ProtoCaracal, Src: s.src, MTU: s.mtu}
	r.Dst = familyOf(s.v6)
	var hops [8]kernel.NextHop
	r.NextHops = hops[:0]
	why := ""
	for i := range s.hops {
		h := &s.hops[i]
		l := p.links.named(h.Device)
		switch {
		case l == nil:
			why = "interface " + h.Device + " is missing"
		case !l.Up:
			why = "interface " + h.Device + " is down"
		case p.avoids(h) && slices.ContainsFunc(s.hops, func(o NextHop) bool { return p.up(&o) && !p.avoids(&o) }):
		default:
			r.NextHops = append(r.NextHops, kernel.NextHop{Gateway: h.Gateway.Unmap(), Link: l.Index, Onlink: h.Onlink, Weight: h.Weight})
		}
	}
	f := (*form)(nil)
	switch o := p.nexthopOf(s); {
	case len(s.hops) > 0 && len(r.NextHops) == 0:
	case p.nexthopsUnknown():
		why = "the kernel's nexthop objects have not been read"
	case o != nil && o.ready():
		own := p.forms.of(&r)
		r.NextHops, r.NexthopID = nil, o.id
		f, why = p.forms.of(&r), ""
		f.inline = own
		if f.nexthop != o {
			f.nexthop, o.forms = o, append(o.forms, f)
		}
	default:
		f, why = p.forms.of(&r), ""
	}
	s.why = why
	if f != s.form {
		s.form, s.moved = f, true
	}
}

// avoids reports whether a next hop is one to be left out where there is another.
func (p *Programmer) avoids(h *NextHop) bool {
	return slices.Contains(p.avoided, h.Gateway.Unmap())
}

// up reports whether the interface of a next hop is.
func (p *Programmer) up(h *NextHop) bool {
	l := p.links.named(h.Device)
	return l != nil && l.Up
}

// bindShapes binds every shape anew after links changed, and passes on what that changes.
func (p *Programmer) bindShapes() {
	if !p.relink {
		return
	}
	p.relink = false
	p.bindNexthops()
	moved := false
	p.shapes.each(func(s *shape) {
		s.moved = false
		p.bind(s)
		moved = moved || s.moved
	})
	if !moved {
		return
	}
	for i := p.routes.Len() - 1; i >= 0; i-- {
		e := p.routes.At(i)
		if w := e.Note.winner(); w != nil && w.shape.moved {
			p.decide(e)
		}
	}
}

// nexthopOf returns the object that the routes of a shape may lead to, bound with the links as they are; nil if there can be none.
func (p *Programmer) nexthopOf(s *shape) *nexthop {
	o := p.nexthops.of(s)
	if o != s.nexthop && o != nil {
		o.shapes = append(o.shapes, s)
	}
	s.nexthop = o
	if o == nil {
		return nil
	}
	for _, m := range o.members {
		p.bindNexthop(m)
	}
	p.bindNexthop(o)
	return o
}

// nexthopsUnknown reports whether routes are to wait until it is known which objects a former run has left.
func (p *Programmer) nexthopsUnknown() bool {
	s := &p.reads.state[partNexthops]
	return p.nexthops.wanted && !s.done && s.failures < patientReads
}
