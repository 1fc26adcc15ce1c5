package routes

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// form is a route of ours as the kernel holds it, without its key. Forms are interned: equal forms are one pointer, so
// that comparing desired with actual is comparing pointers and 100,000 routes share a few of them.
type form struct {
	formHead
	hops []kernel.NextHop // in canonical order, never changed

	nexthop *nexthop // of that number, if it is ours
	inline  *form    // the same with next hops of its own, as they were last
	wanted  int32    // how many routes are to have this form
	held    int32    // how many do
}

type formHead struct {
	typ      kernel.RouteType
	scope    kernel.Scope
	protocol kernel.Protocol
	mtu      uint32
	src      netip.Addr
	nhid     uint32 // number of the nexthop object the route leads to, in place of hops: what it is changes without a word to its routes
}

type singleForm struct {
	head formHead
	n    uint8
	hop  kernel.NextHop
}

// forms is the table of forms.
type forms struct {
	single map[singleForm]*form // none or one next hop
	multi  map[string]*form     // several, by their encoding
	hops   []kernel.NextHop     // scratch
	buf    []byte               // scratch
}

func newForms() forms {
	return forms{single: map[singleForm]*form{}, multi: map[string]*form{}}
}

// of returns the form of a route, in the one spelling that wishes and kernel answers share: no zero type or weight, no
// scope in IPv6 and link scope for IPv4 without gateway (what the kernel makes of them), no next hops on blackholes, equal
// paths in order. It allocates only for forms not seen before.
func (f *forms) of(r *kernel.Route) *form {
	head := formHead{typ: r.Type, scope: r.Scope, protocol: r.Protocol, mtu: r.MTU, src: r.Src, nhid: r.NexthopID}
	if head.typ == 0 {
		head.typ = kernel.Unicast
	}
	f.hops = f.hops[:0]
	gateway := false
	if head.nhid != 0 {
		head.typ = kernel.Unicast
	} else if head.typ == kernel.Unicast || head.typ == kernel.Local {
		for _, h := range r.NextHops {
			h.Weight, h.Dead = max(h.Weight, 1), false
			gateway = gateway || h.Gateway.IsValid()
			f.hops = append(f.hops, h)
		}
	}
	switch {
	case r.Dst.Addr().Is6():
		head.scope = kernel.ScopeUniverse
	case head.typ == kernel.Unicast && !gateway && head.nhid == 0:
		head.scope = kernel.ScopeLink
	}
	return f.intern(head, f.hops)
}

// intern returns the one form of a head and normalised next hops.
func (f *forms) intern(head formHead, hops []kernel.NextHop) *form {
	if len(hops) < 2 {
		key := singleForm{head: head, n: uint8(len(hops))}
		if len(hops) == 1 {
			key.hop = hops[0]
			key.hop.Weight = 1 // alone, a weight means nothing and the kernel forgets it
		}
		known := f.single[key]
		if known == nil {
			known = &form{formHead: head}
			if len(hops) == 1 {
				known.hops = []kernel.NextHop{key.hop}
			}
			f.single[key] = known
		}
		return known
	}
	slices.SortFunc(hops, compareHops)
	f.buf = encodeForm(f.buf[:0], head, hops)
	known := f.multi[string(f.buf)]
	if known == nil {
		known = &form{formHead: head, hops: slices.Clone(hops)}
		f.multi[string(f.buf)] = known
	}
	return known
}

func compareHops(a, b kernel.NextHop) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), a.Gateway.Compare(b.Gateway), cmp.Compare(a.Weight, b.Weight))
}

func encodeForm(b []byte, head formHead, hops []kernel.NextHop) []byte {
	b = append(b, byte(head.typ), byte(head.scope), byte(head.protocol))
	b = binary.NativeEndian.AppendUint32(b, head.mtu)
	b = binary.NativeEndian.AppendUint32(b, head.nhid)
	b = appendAddr(b, head.src)
	for _, h := range hops {
		b = binary.NativeEndian.AppendUint32(b, uint32(h.Link))
		b = append(appendAddr(b, h.Gateway), h.Weight, flag(h.Onlink))
	}
	return b
}

// appendAddr writes an address with its length before it, so that no two sequences of them are spelled alike.
func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(b, 0)
	case a.Is4():
		v := a.As4()
		return append(append(b, 4), v[:]...)
	default:
		v := a.As16()
		return append(append(append(b, 16), v[:]...), a.Zone()...)
	}
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// is reports whether a route seen in the kernel has exactly this form, without looking it up.
func (f *form) is(r *kernel.Route) bool {
	if f.nhid != 0 {
		return f.nhid == r.NexthopID && f.protocol == r.Protocol && f.mtu == r.MTU && f.src == r.Src && (f.scope == r.Scope || r.Dst.Addr().Is6())
	}
	if f.protocol != r.Protocol || f.typ != r.Type || f.mtu != r.MTU || f.nhid != r.NexthopID || f.src != r.Src || len(f.hops) != len(r.NextHops) || len(f.hops) > 1 {
		return false
	}
	if f.scope != r.Scope && r.Dst.Addr().Is4() {
		return false
	}
	return len(f.hops) == 0 || f.hops[0].Link == r.NextHops[0].Link && f.hops[0].Gateway == r.NextHops[0].Gateway &&
		f.hops[0].Onlink == r.NextHops[0].Onlink
}

// without returns the form with the next hops of r taken away: IPv6 tells of the deletion of a multipath route one next
// hop at a time. nil when nothing is left.
func (f *forms) without(have *form, r *kernel.Route) *form {
	f.hops = f.hops[:0]
	for _, h := range have.hops {
		if !slices.ContainsFunc(r.NextHops, func(g kernel.NextHop) bool { return g.Link == h.Link && g.Gateway == h.Gateway }) {
			f.hops = append(f.hops, h)
		}
	}
	if len(f.hops) == 0 {
		return nil
	}
	return f.intern(have.formHead, f.hops)
}

// extra returns the next hops that an IPv6 route has beyond those wanted, as a form, or nil if that is not the whole
// difference.
func (f *forms) extra(e *routeEntry) *form {
	want, have := e.Desired(), e.Actual()
	if want == nil || have == nil || want.formHead != have.formHead || len(have.hops) <= len(want.hops) || len(want.hops) == 0 || !e.Key().Dst.Addr().Is6() {
		return nil
	}
	f.hops = f.hops[:0]
	for _, h := range have.hops {
		if !slices.ContainsFunc(want.hops, func(g kernel.NextHop) bool { return g.Link == h.Link && g.Gateway == h.Gateway }) {
			f.hops = append(f.hops, h)
		}
	}
	if len(f.hops) != len(have.hops)-len(want.hops) {
		return nil
	}
	return f.intern(have.formHead, f.hops)
}

// route is the form as a kernel route under a key.
func (f *form) route(k kernel.RouteKey) kernel.Route {
	return kernel.Route{
		Dst: k.Dst, Table: kernel.TableMain, TOS: k.TOS, Metric: k.Metric, Type: f.typ, Scope: f.scope,
		Protocol: f.protocol, Src: f.src, MTU: f.mtu, NextHops: f.hops, NexthopID: f.nhid,
	}
}

// shape is a wish without its key, with interfaces by name; interned like forms.
type shape struct {
	v6         bool
	typ        kernel.RouteType
	scope      kernel.Scope
	src        netip.Addr
	mtu        uint32
	hops       []NextHop
	unroutable string

	nexthop *nexthop // the object that routes may lead to; nil = they have next hops of their own

	form  *form  // what the kernel should hold with the links as they are; nil if they allow none
	why   string // why form is nil
	moved bool   // form has changed and entries do not know yet
}

type singleShape struct {
	v6         bool
	typ        kernel.RouteType
	scope      kernel.Scope
	n          uint8
	mtu        uint32
	src        netip.Addr
	hop        NextHop
	unroutable string
}

// shapes is the table of shapes.
type shapes struct {
	single map[singleShape]*shape
	multi  map[string]*shape
	buf    []byte
	// recent finds the shape of routes that share their next hops, by the first of them, while one change is worked in.
	recent map[*NextHop]*shape
}

func newShapes() shapes {
	return shapes{single: map[singleShape]*shape{}, multi: map[string]*shape{}, recent: map[*NextHop]*shape{}}
}

// shared returns the shape of a route whose very slice of next hops has just been seen, or nil.
func (s *shapes) shared(r *Route) *shape {
	if len(r.NextHops) == 0 {
		return nil
	}
	one := s.recent[&r.NextHops[0]]
	if one == nil || len(one.hops) != len(r.NextHops) || one.typ != r.Type || one.scope != r.Scope || one.mtu != r.MTU || one.src != r.Src ||
		one.unroutable != r.Unroutable || one.v6 != r.Dst.Addr().Is6() {
		return nil
	}
	return one
}

// of returns the shape of a wish and whether it is new, so that its form has yet to be found.
func (s *shapes) of(r *Route) (*shape, bool) {
	v6 := r.Dst.Addr().Is6()
	if len(r.NextHops) < 2 {
		key := singleShape{v6: v6, typ: r.Type, scope: r.Scope, n: uint8(len(r.NextHops)), mtu: r.MTU, src: r.Src, unroutable: r.Unroutable}
		if key.n == 1 {
			key.hop = r.NextHops[0]
		}
		if known := s.single[key]; known != nil {
			return known, false
		}
		fresh := newShape(r, v6)
		s.single[key] = fresh
		return fresh, true
	}
	s.buf = append(s.buf[:0], flag(v6), byte(r.Type), byte(r.Scope))
	s.buf = binary.NativeEndian.AppendUint32(s.buf, r.MTU)
	s.buf = appendAddr(s.buf, r.Src)
	for i := range r.NextHops {
		h := &r.NextHops[i]
		s.buf = append(appendAddr(s.buf, h.Gateway), h.Weight, flag(h.Onlink), byte(len(h.Device)))
		s.buf = append(s.buf, h.Device...)
	}
	s.buf = append(s.buf, r.Unroutable...)
	if known := s.multi[string(s.buf)]; known != nil {
		return known, false
	}
	fresh := newShape(r, v6)
	s.multi[string(s.buf)] = fresh
	return fresh, true
}

func newShape(r *Route, v6 bool) *shape {
	return &shape{v6: v6, typ: r.Type, scope: r.Scope, src: r.Src, mtu: r.MTU, hops: slices.Clone(r.NextHops), unroutable: r.Unroutable}
}

// each calls f for every shape.
func (s *shapes) each(f func(*shape)) {
	for _, one := range s.single {
		f(one)
	}
	for _, one := range s.multi {
		f(one)
	}
}

// anyIPv4 and anyIPv6 stand for the family of a form.
var (
	anyIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	anyIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// any reports whether a form has the property.
func (f *forms) any(has func(*form) bool) bool {
	for _, one := range f.single {
		if has(one) {
			return true
		}
	}
	for _, one := range f.multi {
		if has(one) {
			return true
		}
	}
	return false
}

// sweep forgets the forms and shapes that no entry uses any more.
func (p *Programmer) sweepForms() {
	formUsed, shapeUsed := map[*form]bool{}, map[*shape]bool{}
	for i := range p.routes.Len() {
		e := p.routes.At(i)
		formUsed[e.Desired()], formUsed[e.Actual()] = true, true
		e.Note.each(func(w *wish) { shapeUsed[w.shape] = true; formUsed[w.shape.form] = true })
	}
	maps.DeleteFunc(p.forms.single, func(_ singleForm, f *form) bool { return !formUsed[f] })
	maps.DeleteFunc(p.forms.multi, func(_ string, f *form) bool { return !formUsed[f] })
	maps.DeleteFunc(p.shapes.single, func(_ singleShape, s *shape) bool { return !shapeUsed[s] })
	maps.DeleteFunc(p.shapes.multi, func(_ string, s *shape) bool { return !shapeUsed[s] })
	p.nexthops.sweep(shapeUsed, formUsed)
}
