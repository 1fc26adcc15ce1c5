package routes

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// row is what a status is made of, copied under the lock so that the text can be made without it.
type row struct {
	key     kernel.RouteKey
	rank    uint8
	owner   Owner
	wish    wish
	winner  Owner // of a lost wish
	desired *form
	actual  *form
	detail  string
	tries   int
}

// chunk is how many routes a reader copies before it lets the Programmer go on: some tens of microseconds.
const chunk = 1024

// Snapshot returns the statuses that match, or all if match is nil, sorted by destination, metric and owner. match sees
// everything but the Kernel text and must not keep the pointer. A route that changes meanwhile is shown as it was or as it is.
func (p *Programmer) Snapshot(match func(*Status) bool) []Status {
	rows, text := p.rows()
	all := make([]Status, 0, len(rows))
	if match != nil {
		all = nil
	}
	for i := range rows {
		if i > 0 && rows[i].rank == rows[i-1].rank && rows[i].key == rows[i-1].key {
			continue // it moved while the lock was free and was met twice
		}
		s := rows[i].status()
		if match == nil || match(&s) {
			s.Kernel = text.of(rows[i])
			all = append(all, s)
		}
	}
	return all
}

// rows copies the records of all routes in order, letting the Programmer go on every chunk.
func (p *Programmer) rows() ([]*row, *texts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*row
	block := make([]row, 0, chunk)
	for i := p.routes.Len() - 1; i >= 0; i-- {
		if i >= p.routes.Len() {
			continue
		}
		if block = p.appendRows(block, p.routes.At(i)); cap(block)-len(block) < 8 {
			for r := range block {
				all = append(all, &block[r])
			}
			block = make([]row, 0, chunk)
			p.mu.Unlock()
			p.mu.Lock()
		}
	}
	for r := range block {
		all = append(all, &block[r])
	}
	text := p.newTexts()
	p.mu.Unlock()
	slices.SortFunc(all, compareRows)
	p.mu.Lock()
	return all, text
}

func compareRows(a, b *row) int {
	return cmp.Or(comparePrefixes(a.key.Dst, b.key.Dst), cmp.Compare(a.key.Metric, b.key.Metric), cmp.Compare(a.key.TOS, b.key.TOS), cmp.Compare(a.rank, b.rank))
}

// comparePrefixes is the order of addresses, then of lengths: how a person looks for a prefix.
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// appendRows copies the records of an entry.
func (p *Programmer) appendRows(rows []row, e *routeEntry) []row {
	if e.Note.owner == 0 {
		if e.Actual() == nil {
			return rows
		}
		return append(rows, p.rowOf(e, &e.Note.wish, nil))
	}
	winner := e.Note.winner()
	e.Note.each(func(w *wish) { rows = append(rows, p.rowOf(e, w, winner)) })
	return rows
}

func (p *Programmer) rowOf(e *routeEntry, w, winner *wish) row {
	r := row{key: e.Key(), rank: w.owner, owner: p.owners[w.owner], wish: *w, desired: e.Desired()}
	if w == winner || winner == nil {
		r.actual = e.Actual()
	}
	if t := e.Note.trouble; t != nil && (w == winner || w.owner == 0) {
		r.detail, r.tries = t.detail, t.attempts
	}
	switch w.outcome {
	case noDevice:
		if w.shape.why != "" {
			r.detail = w.shape.why
		}
	case foreign:
		r.detail = p.describeForeign(e)
	case installed:
		if r.detail == "" {
			r.detail = p.foreign.inFront(e.Key())
		}
	case kept:
		if left := e.Actual().protocol; left != kernel.ProtoCaracal && r.detail == "" {
			r.detail = "left behind by protocol " + left.String()
		}
	case lost:
		r.winner = p.owners[winner.owner]
	}
	return r
}

// status is everything but the Kernel text.
func (r *row) status() Status {
	s := Status{
		Owner: r.owner, Outcome: outcomeNames[r.wish.outcome], Detail: r.detail, Attempts: r.tries,
		Since: time.UnixMilli(r.wish.since), Route: Route{Dst: r.key.Dst, Metric: r.key.Metric, Reason: r.wish.reason},
	}
	sh := r.wish.shape
	if sh == nil {
		if r.actual != nil {
			s.Route.Type, s.Route.Scope, s.Route.Src, s.Route.MTU = r.actual.typ, r.actual.scope, r.actual.src, r.actual.mtu
		}
		return s
	}
	s.Route.Type, s.Route.Scope, s.Route.Src, s.Route.MTU = sh.typ, sh.scope, sh.src, sh.mtu
	s.Route.NextHops, s.Route.Unroutable = sh.hops, sh.unroutable
	switch r.wish.outcome {
	case lost:
		s.Detail = "owner " + string(r.winner) + " wants this key too"
	case unroutable:
		s.Detail = sh.unroutable
	}
	return s
}

// texts writes routes as the kernel holds them. Routes of one form differ in nothing but their destination, so the
// rest of the line is made once.
type texts struct {
	names func(int) string
	hops  func(uint32) []kernel.NextHop // of nexthop objects
	lines map[textKey][2]string         // before and behind the destination
}

type textKey struct {
	form   *form
	metric uint32
	tos    uint8
	v6     bool
}

// newTexts is called with the lock and used without.
func (p *Programmer) newTexts() *texts {
	return &texts{names: p.links.freeze(), hops: p.nexthops.freeze(), lines: map[textKey][2]string{}}
}

// Destinations that stand for any in a line.
var (
	standIn4 = netip.MustParsePrefix("255.254.253.252/31")
	standIn6 = netip.MustParsePrefix("ffff:fffe:fffd:fffc:fffb:fffa:fff9:fff8/127")
)

func (t *texts) of(r *row) string {
	if r.actual == nil {
		return ""
	}
	k := textKey{r.actual, r.key.Metric, r.key.TOS, r.key.Dst.Addr().Is6()}
	line, ok := t.lines[k]
	if !ok {
		any := standIn4
		if k.v6 {
			any = standIn6
		}
		route := r.actual.route(kernel.RouteKey{Dst: any, Metric: k.metric, TOS: k.tos})
		if route.NexthopID != 0 {
			route.NextHops = t.hops(route.NexthopID)
		}
		line[0], line[1], _ = strings.Cut(kernel.FormatRoute(&route, t.names), any.String())
		t.lines[k] = line
	}
	dst := r.key.Dst.String()
	switch {
	case r.key.Dst.Bits() == 0:
		dst = "default"
	case r.key.Dst.IsSingleIP():
		dst = r.key.Dst.Addr().String()
	}
	return line[0] + dst + line[1]
}

// Counts returns how many routes each owner has in each outcome; unwanted ones that are kept count for the empty owner.
func (p *Programmer) Counts() map[Owner]map[Outcome]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[Owner]map[Outcome]int{}
	for rank, counts := range p.counts {
		for o := installed; o < outcomes; o++ {
			if counts[o] == 0 {
				continue
			}
			if all[p.owners[rank]] == nil {
				all[p.owners[rank]] = map[Outcome]int{}
			}
			all[p.owners[rank]][outcomeNames[o]] = counts[o]
		}
	}
	return all
}

// Lookup asks the kernel itself what it does with a packet to that address. It does not wait for the Programmer.
func (p *Programmer) Lookup(ctx context.Context, addr netip.Addr) (kernel.Answer, error) {
	return p.kernel.Lookup(ctx, addr)
}

// watcher is one Watch: the keys that changed since it last looked.
type watcher struct {
	changed map[watchKey]struct{}
	ring    chan struct{} // size 1
}

type watchKey struct {
	key   kernel.RouteKey
	owner uint8
}

// tell marks a status as changed for every watcher.
func (p *Programmer) tell(e *routeEntry, owner uint8) {
	for w := range p.watchers {
		w.changed[watchKey{e.Key(), owner}] = struct{}{}
		select {
		case w.ring <- struct{}{}:
		default:
		}
	}
}

// Watch calls f with the statuses that have changed, in batches, until ctx ends; it returns the reason of ctx. The
// first call comes at once and is empty: a Snapshot taken from then on, brought up to date with the batches that follow, misses
// nothing. Changes that come faster than f returns are merged, so a slow f holds up nobody. Routes that are neither
// wanted nor there any more come as Removed with their key and owner alone.
func (p *Programmer) Watch(ctx context.Context, f func([]Status)) error {
	w := &watcher{changed: map[watchKey]struct{}{}, ring: make(chan struct{}, 1)}
	p.mu.Lock()
	p.watchers[w] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.watchers, w)
		p.mu.Unlock()
	}()
	f(nil)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.ring:
		}
		if batch := p.changes(w); len(batch) > 0 {
			f(batch)
		}
	}
}

// changes takes what changed for a watcher and looks up how it is now.
func (p *Programmer) changes(w *watcher) []Status {
	p.mu.Lock()
	changed := w.changed
	w.changed = map[watchKey]struct{}{}
	text := p.newTexts()
	rows := make([]row, 0, len(changed))
	held := 0
	for k := range changed {
		rows = append(rows, p.rowAt(k))
		if held++; held%chunk == 0 {
			p.mu.Unlock()
			p.mu.Lock()
		}
	}
	p.mu.Unlock()
	slices.SortFunc(rows, func(a, b row) int { return compareRows(&a, &b) })
	all := make([]Status, len(rows))
	for i := range rows {
		all[i] = rows[i].status()
		all[i].Kernel = text.of(&rows[i])
	}
	return all
}

// rowAt is the record of one key and owner, with outcome none (Removed) if there is none.
func (p *Programmer) rowAt(k watchKey) row {
	gone := row{key: k.key, rank: k.owner, owner: p.owners[k.owner], wish: wish{since: p.now.UnixMilli()}}
	e := p.routes.Get(k.key)
	if e == nil {
		return gone
	}
	w := e.Note.of(k.owner)
	if w == nil || k.owner == 0 && (e.Note.owner != 0 || e.Actual() == nil) {
		return gone
	}
	return p.rowOf(e, w, e.Note.winner())
}

// DeviceStatus is one of our devices as inspection shows it.
type DeviceStatus struct {
	Link      Link // as wanted
	Owner     Owner
	Outcome   Outcome
	Detail    string
	Attempts  int
	Since     time.Time
	Index     int // 0 = it does not exist
	MTU       int // bytes, as it is
	Up        bool
	Addresses []netip.Prefix // as they are
}

// Devices returns the wanted devices, by name.
func (p *Programmer) Devices() []DeviceStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]DeviceStatus, 0, len(p.devices))
	for _, d := range p.devices {
		s := DeviceStatus{Link: d.link, Owner: p.owners[d.owner], Outcome: outcomeNames[d.outcome], Detail: d.detail, Attempts: d.attempts, Since: d.since}
		if l := p.links.named(d.link.Name); l != nil {
			s.Index, s.MTU, s.Up = l.Index, l.MTU, l.Up
			for _, a := range p.links.addrs[l.Index] {
				s.Addresses = append(s.Addresses, a.Prefix)
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b DeviceStatus) int { return cmp.Compare(a.Link.Name, b.Link.Name) })
	return all
}

// NeighbourStatus is one neighbour or FDB entry as inspection shows it.
type NeighbourStatus struct {
	Neighbour Neighbour
	Outcome   Outcome
	Detail    string
	Attempts  int
	Since     time.Time
}

// Compare orders entries by device, FDB entries after the others, by address.
func (s *NeighbourStatus) Compare(o *NeighbourStatus) int {
	x, y := &s.Neighbour, &o.Neighbour
	return cmp.Or(cmp.Compare(x.Device, y.Device), cmp.Compare(flag(x.FDB), flag(y.FDB)), x.Addr.Compare(y.Addr), slices.Compare(x.MAC[:], y.MAC[:]))
}

// Neighbours returns the wanted entries and those kept though unwanted, in order.
func (p *Programmer) Neighbours() []NeighbourStatus {
	var all []NeighbourStatus
	p.EachNeighbour(func(s *NeighbourStatus) { all = append(all, *s) })
	slices.SortFunc(all, func(a, b NeighbourStatus) int { return a.Compare(&b) })
	return all
}

// EachNeighbour calls f with each of them, in no order. The status is f's until it returns; the Programmer waits for f.
func (p *Programmer) EachNeighbour(f func(*NeighbourStatus)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.neighbours
	var s NeighbourStatus
	for i := range t.tracker.Len() {
		e := t.tracker.At(i)
		v, none := e.Desired(), neighbourValue{}
		s = NeighbourStatus{Detail: e.Note.detail, Attempts: e.Note.attempts, Since: e.Note.since}
		switch d := t.devices[e.Key().device]; {
		case v == none:
			v, s.Outcome = e.Actual(), Kept
		case e.Same():
			s.Outcome = Installed
		case e.Note.attempts > 0:
			s.Outcome = Failed
		case d == nil || d.index == 0:
			s.Outcome, s.Detail = NoDevice, "interface "+e.Key().device+" is missing or down"
		default:
			s.Outcome = Waiting
		}
		s.Neighbour = Neighbour{Device: e.Key().device, FDB: e.Key().fdb, Addr: v.addr, MAC: v.mac}
		f(&s)
	}
}
