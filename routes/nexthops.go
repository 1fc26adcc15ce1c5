package routes

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// nexthop is a nexthop object of ours: one way out, or a group of equal ones, that any number of routes lead to, of both families where its
// gateways are IPv6. It is told apart by its next hops as wishes name them, so that an interface that comes back under another
// index changes the object and no route's form.
type nexthop struct {
	id      uint32
	hops    []NextHop  // in canonical order; nil for one found in the kernel that no wish names
	members []*nexthop // of a group, in the order of hops
	groups  []*nexthop // that it is a member of
	shapes  []*shape   // bound to it
	forms   []*form    // by its number

	want   kernel.Nexthop  // as the links are now
	usable bool            // links allow it
	have   *kernel.Nexthop // in the kernel; nil = not there
	echoes int             // writes that succeeded and whose echoes have not come

	queued  bool    // in nexthopTable.queue
	idle    bool    // in nexthopTable.idle
	unseen  [2]bool // by family: it has been read since, and no route led there
	waiting []*routeEntry
	trouble nexthopTrouble
}

// nexthopTrouble is why routes do without an object for a while, and have next hops of their own.
type nexthopTrouble struct {
	refused  bool // the kernel would not have it, or another program does not leave it alone
	attempts int
	due      time.Time // of the next attempt
	repaired time.Time // last repair after another program's doing
	repairs  int       // in a row
}

// nexthopTable is the mirror of the kernel's nexthop objects, and what is wanted of them.
type nexthopTable struct {
	wanted    bool // Options.NexthopObjects
	probed    bool
	supported bool // by the kernel
	usable    bool // the kernel has them, and they are wanted
	byKey     map[string]*nexthop
	byID      map[uint32]*nexthop // of our protocol
	strays    map[string]*nexthop // of our protocol that no wish names, by what they are: a former run's, to be taken over
	others    map[uint32]kernel.Nexthop
	last      uint32     // number given last
	queue     []*nexthop // to be written
	idle      []*nexthop // to be looked at for removal
	doomed    bool       // some of them can go
	retry     map[*nexthop]struct{}
	due       time.Time // earliest moment of retry
	buf       []byte
	frozen    map[uint32][]kernel.NextHop // for readers; never changed, only replaced
}

// firstNexthop is the lowest number we give. Other programs count from 1 (FRR) or use small ones; kernel.ProbeNexthop is above.
const firstNexthop uint32 = 0xCA_00_00_01

func newNexthopTable(wanted bool) nexthopTable {
	return nexthopTable{
		wanted: wanted, byKey: map[string]*nexthop{}, byID: map[uint32]*nexthop{}, strays: map[string]*nexthop{},
		others: map[uint32]kernel.Nexthop{}, last: firstNexthop - 1, retry: map[*nexthop]struct{}{},
	}
}

// agrees reports whether the kernel holds the object as it should be.
func (o *nexthop) agrees() bool { return o.have != nil && o.have.Equal(&o.want) }

// current reports whether routes that lead to it go the right way.
func (o *nexthop) current() bool {
	return o.agrees() && !slices.ContainsFunc(o.members, func(m *nexthop) bool { return m.usable && !m.agrees() })
}

// ready reports whether routes may lead to it.
func (o *nexthop) ready() bool { return o.usable && !o.trouble.refused }

// wantedBy is how many routes are to lead to it, heldBy how many do.
func (o *nexthop) wantedBy() (n int) {
	for _, f := range o.forms {
		n += int(f.wanted)
	}
	return n
}

func (o *nexthop) heldBy() (n int) {
	for _, f := range o.forms {
		n += int(f.held)
	}
	return n
}

// inUse reports whether a route is to lead to it, by itself or by a group.
func (o *nexthop) inUse() bool {
	return o.wantedBy() > 0 || slices.ContainsFunc(o.groups, (*nexthop).inUse)
}

func compareNamed(a, b NextHop) int {
	return cmp.Or(cmp.Compare(a.Device, b.Device), a.Gateway.Compare(b.Gateway), cmp.Compare(flag(a.Onlink), flag(b.Onlink)))
}

// of returns the object of a wish, made known if it is new; nil where a wish is not one for an object: without gateways (each workload
// has an interface of its own, and nothing to share), or with a next hop named twice, which no group may hold.
func (t *nexthopTable) of(s *shape) *nexthop {
	if !t.usable || s.typ > kernel.Unicast || s.scope != kernel.ScopeUniverse || len(s.hops) == 0 {
		return nil
	}
	for i := range s.hops {
		if g := s.hops[i].Gateway.Unmap(); !g.IsValid() || g.Is4() && s.v6 {
			return nil // an IPv4 route takes gateways of both families (RFC 8950)
		}
	}
	return t.named(s.hops)
}

// named returns the object of these next hops.
func (t *nexthopTable) named(hops []NextHop) *nexthop {
	sorted := slices.Clone(hops)
	slices.SortFunc(sorted, compareNamed)
	t.buf = t.buf[:0]
	for i := range sorted {
		h := &sorted[i]
		h.Gateway, h.Weight = h.Gateway.Unmap(), max(h.Weight, 1)
		if len(sorted) == 1 {
			h.Weight = 1
		}
		if i > 0 && compareNamed(*h, sorted[i-1]) == 0 {
			return nil
		}
		t.buf = append(appendAddr(t.buf, h.Gateway), h.Weight, flag(h.Onlink), byte(len(h.Device)))
		t.buf = append(t.buf, h.Device...)
	}
	if known := t.byKey[string(t.buf)]; known != nil {
		return known
	}
	o := &nexthop{hops: sorted}
	t.byKey[string(t.buf)] = o
	if len(sorted) > 1 {
		for i := range sorted {
			m := t.named(sorted[i : i+1])
			o.members = append(o.members, m)
			m.groups = append(m.groups, o)
		}
	}
	return o
}

// bindNexthop finds out what an object must be with the links as they are.
func (p *Programmer) bindNexthop(o *nexthop) {
	want := kernel.Nexthop{ID: o.id, Protocol: kernel.ProtoCaracal}
	if o.usable = false; len(o.members) == 0 {
		h := &o.hops[0]
		want.Gateway, want.V6, want.Onlink = h.Gateway, h.Gateway.Is6(), h.Onlink
		if l := p.links.named(h.Device); l != nil && l.Up && l.Running {
			want.Link, o.usable = l.Index, true
		}
	} else {
		want.Group, o.usable = p.groupOf(o)
	}
	if !o.usable {
		o.trouble.refused = false // another link is another try
		delete(p.nexthops.retry, o)
		return
	}
	o.want = want
	if o.id == 0 {
		p.nexthops.number(o)
	}
	if o.ready() && !o.current() && o.inUse() {
		p.needNexthop(o)
	}
}

// groupOf are the members that packets can take now. A group is not usable where the kernel refuses a member: a route of next hops
// would be refused as well.
func (p *Programmer) groupOf(o *nexthop) (group []kernel.GroupMember, usable bool) {
	spared := slices.ContainsFunc(o.members, func(m *nexthop) bool { return m.usable && !p.avoids(&m.hops[0]) })
	for i, m := range o.members {
		if spared && p.avoids(&m.hops[0]) {
			continue
		}
		if m.id == 0 && m.usable {
			p.nexthops.number(m)
		}
		if m.usable && m.trouble.refused {
			return nil, false
		}
		if m.usable {
			group = append(group, kernel.GroupMember{ID: m.id, Weight: uint16(o.hops[i].Weight)})
		}
	}
	return group, len(group) > 0
}

// number gives an object the number of the same one of a former run, or a fresh one.
func (t *nexthopTable) number(o *nexthop) {
	k := t.spell(&o.want)
	if s := t.strays[k]; s != nil {
		delete(t.strays, k)
		o.id, o.have, o.echoes, o.forms = s.id, s.have, s.echoes, s.forms
		s.have, s.forms = nil, nil
		for _, f := range o.forms {
			f.nexthop = o
		}
	} else {
		o.id, o.have, o.echoes, o.forms = t.fresh(), nil, 0, nil
	}
	o.want.ID = o.id
	t.byID[o.id] = o
}

// fresh returns a number that nobody has, and that has not been ours for long.
func (t *nexthopTable) fresh() uint32 {
	for {
		if t.last++; t.last >= kernel.ProbeNexthop {
			t.last = firstNexthop
		}
		_, theirs := t.others[t.last]
		if t.byID[t.last] == nil && !theirs {
			return t.last
		}
	}
}

// spell writes what an object is, without its number.
func (t *nexthopTable) spell(n *kernel.Nexthop) string {
	b := append(t.buf[:0], flag(n.V6 && len(n.Group) == 0), flag(n.Blackhole), flag(n.Onlink))
	b = binary.NativeEndian.AppendUint32(b, uint32(n.Link))
	b = appendAddr(b, n.Gateway)
	for _, m := range n.Group {
		b = binary.NativeEndian.AppendUint32(b, m.ID)
		b = binary.NativeEndian.AppendUint16(b, max(m.Weight, 1))
	}
	t.buf = b
	return string(b)
}

// needNexthop queues an object that routes are to lead to, behind its members.
func (p *Programmer) needNexthop(o *nexthop) {
	if o.queued {
		return
	}
	for _, m := range o.members {
		if m.usable && !m.current() {
			p.needNexthop(m)
		}
	}
	o.queued = true
	p.nexthops.queue = append(p.nexthops.queue, o)
}

// bindNexthops binds every object anew after links changed, members before their groups.
func (p *Programmer) bindNexthops() {
	for _, groups := range []bool{false, true} {
		for _, o := range p.nexthops.byKey {
			if (len(o.members) > 0) == groups {
				p.bindNexthop(o)
			}
		}
	}
}

// hopsOf are the next hops of a form, also of one that leads to an object.
func (p *Programmer) hopsOf(f *form) []kernel.NextHop {
	if f.nhid == 0 {
		return f.hops
	}
	return p.nexthops.hops(f.nhid)
}

// hops are the next hops that an object leads to, as the kernel shows them on its routes.
func (t *nexthopTable) hops(id uint32) []kernel.NextHop {
	n := t.at(id)
	if n == nil {
		return nil
	}
	if len(n.Group) == 0 {
		if n.Blackhole {
			return nil
		}
		return []kernel.NextHop{{Gateway: n.Gateway, Link: n.Link, Onlink: n.Onlink, Weight: 1}}
	}
	var all []kernel.NextHop
	for _, m := range n.Group {
		if one := t.at(m.ID); one != nil && len(one.Group) == 0 {
			all = append(all, kernel.NextHop{Gateway: one.Gateway, Link: one.Link, Onlink: one.Onlink, Weight: uint8(min(max(m.Weight, 1), 255))})
		}
	}
	if len(all) == 1 {
		all[0].Weight = 1
	}
	return all
}

// dropping reports whether an object is a blackhole, or a group of one.
func (t *nexthopTable) dropping(id uint32) bool {
	n := t.at(id)
	if n != nil && len(n.Group) == 1 {
		n = t.at(n.Group[0].ID)
	}
	return n != nil && n.Blackhole
}

// at returns an object of anybody as the kernel holds it, or nil.
func (t *nexthopTable) at(id uint32) *kernel.Nexthop {
	if o := t.byID[id]; o != nil {
		return o.have
	}
	if n, ok := t.others[id]; ok {
		return &n
	}
	return nil
}

// freeze returns the next hops of all objects for use without the lock.
func (t *nexthopTable) freeze() func(uint32) []kernel.NextHop {
	if t.frozen == nil {
		t.frozen = make(map[uint32][]kernel.NextHop, len(t.byID)+len(t.others))
		for id := range t.byID {
			t.frozen[id] = t.hops(id)
		}
		for id := range t.others {
			t.frozen[id] = t.hops(id)
		}
	}
	frozen := t.frozen
	return func(id uint32) []kernel.NextHop { return frozen[id] }
}

// uses reports whether one of the next hops of a form leaves through the interface.
func (p *Programmer) uses(f *form, link int) bool {
	return slices.ContainsFunc(p.hopsOf(f), func(h kernel.NextHop) bool { return h.Link == link })
}

// familyOf stands for the family of an object's routes.
func familyOf(v6 bool) netip.Prefix {
	if v6 {
		return anyIPv6
	}
	return anyIPv4
}

// formOf is the form of a route seen in the kernel.
func (p *Programmer) formOf(r *kernel.Route) *form {
	f := p.forms.of(r)
	if o := p.nexthops.byID[f.nhid]; f.nhid != 0 && f.nexthop == nil && o != nil {
		f.nexthop, o.forms = o, append(o.forms, f)
	}
	return f
}
