package bgp

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/prefixmap"
	"github.com/caracal-net/caracal/routes"
)

// Tunnel says where one next hop of an IPIP pool leads: through the tunnel or direct, with the route's MTU attribute in bytes
// (0 = none) and the rule that chose. It is ipip.NextHop; this package does not import that one.
type Tunnel func(st *cluster.State, self *cluster.Node, h *routes.Host, pool *cluster.Pool, gw netip.Addr) (hop routes.NextHop, mtu uint32, rule string, err error)

// Routes turns what the Speaker hears into the desired routes of the owner "bgp", step by step.
//
// It keeps every learned path, and what it last said of each prefix; Plan decides again only about prefixes whose paths,
// block, claim or way out changed since. Both methods may be called from any goroutine.
type Routes struct {
	node   string
	tunnel Tunnel

	mu      sync.Mutex
	all     prefixmap.Map[*entry]     // every prefix that was learned or said
	dirty   []*entry                  // to be decided again by the next Plan
	ordered bool                      // dirty is in the order of what was learned, and needs none other
	learned int                       // prefixes with paths
	said    int                       // the size of the owner's whole set as of the last Change
	own     map[netip.Prefix]struct{} // our claims
	works   map[netip.Prefix]struct{} // workload addresses, which the host routes itself
	reach   map[netip.Prefix]Reach    // routes to peers
	locals  []netip.Addr              // peers that are workloads of this node
	ways    map[wayKey]*way           // what is known of each next hop in use
	shared  map[forwardKey]*forward   // next hops and reason by the paths they are made of
	last    lastForward
	st      *cluster.State
	host    *routes.Host
	whole   bool // the next Change is a whole one

	left     string // why pools without encapsulation are not ours
	rerouted bool   // reach changed since the last Plan
}

// entry is one prefix: what leads there, and what was said of it. There may be 100,000, so it is small.
type entry struct {
	prefix netip.Prefix
	paths  []Path   // learned
	said   *forward // in the last Change; nil for nothing
	metric uint32   // with which it was said, 0 = the ordinary one
	dirty  bool
}

// key is what a route to the prefix is told apart by.
func (e *entry) key(metric uint32) routes.Key {
	r := routes.Route{Dst: e.prefix, Metric: metric}
	return r.Key()
}

// spareForwards is how much of what Routes shares may be out of use before it is made anew.
const spareForwards = 1024

// NewRoutes returns the Routes of a node that has heard nothing. tunnel may be nil where no IPIP pool can be served.
func NewRoutes(node string, tunnel Tunnel) *Routes {
	r := &Routes{node: node, tunnel: tunnel}
	r.reset()
	return r
}

// Reset makes the next Change a whole one, for a programmer that knows nothing of the former ones. What was learned is kept.
func (r *Routes) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reset()
}

func (r *Routes) reset() {
	for p, e := range r.all.All() {
		if e.said, e.dirty = nil, false; len(e.paths) == 0 {
			r.all.Delete(p)
		}
	}
	r.dirty, r.ordered, r.said = nil, true, 0
	r.own = make(map[netip.Prefix]struct{})
	r.works = make(map[netip.Prefix]struct{})
	r.ways = make(map[wayKey]*way)
	r.shared = make(map[forwardKey]*forward)
	r.last = lastForward{}
	r.st, r.host, r.whole = nil, nil, true
}

// LeaveNoEncap says why pools without encapsulation are left to another program; "" = they are ours.
func (r *Routes) LeaveNoEncap(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left != why {
		r.left = why
		r.reset()
	}
}

// Forget drops every learned path, for a Speaker that has been stopped for good.
func (r *Routes) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.all.All() {
		r.setPaths(e, nil)
	}
	r.ordered = false
}

// Learned takes in what the Speaker heard; the next Plan acts on it. Paths handed over must not be changed afterwards.
func (r *Routes) Learned(changes []Learned) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		e := r.all.Get(c.Prefix)
		if e == nil {
			e = r.add(c.Prefix)
		}
		r.setPaths(e, c.Paths)
	}
}

func (r *Routes) add(p netip.Prefix) *entry {
	e := &entry{prefix: p}
	r.all.Set(p, e)
	return e
}

func (r *Routes) setPaths(e *entry, paths []Path) {
	if len(e.paths) > 0 {
		r.learned--
	}
	if e.paths = paths; len(paths) > 0 {
		r.learned++
	}
	r.markEntry(e)
}

// mark has a prefix decided about again.
func (r *Routes) mark(p netip.Prefix) {
	e := r.all.Get(p)
	if e == nil {
		e = r.add(p)
	}
	r.markEntry(e)
	r.ordered = false
}

func (r *Routes) markEntry(e *entry) {
	if !e.dirty {
		e.dirty = true
		r.dirty = append(r.dirty, e)
	}
}

// Without counts the learned prefixes that would have no path left without some peers, and all of them.
func (r *Routes) Without(gone func(peer netip.Addr) bool) (lost, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.all.All() {
		if len(e.paths) > 0 && !slices.ContainsFunc(e.paths, func(p Path) bool { return !gone(p.PeerAddr) }) {
			lost++
		}
	}
	return lost, r.learned
}

// Reach sets the routes to peers that are reached through a gateway (Config.Reach); the next Plan acts on it.
func (r *Routes) Reach(list []Reach) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make(map[netip.Prefix]Reach, len(list))
	for _, rc := range list {
		now[netip.PrefixFrom(rc.Peer, rc.Peer.BitLen())] = rc
	}
	if maps.Equal(r.reach, now) {
		return
	}
	for p := range r.reach {
		r.mark(p)
	}
	for p := range now {
		r.mark(p)
	}
	r.rerouted = true // next hops may lead elsewhere
	r.reach = now
}

// Workloads sets which workloads of the node are peers (Config.Workloads), so that they may be next hops; the next Plan acts on it.
func (r *Routes) Workloads(list []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.locals, list) {
		r.locals, r.rerouted = slices.Clone(list), true
	}
}

// Plan returns the step from the last Change to what is wanted now. The first one is whole; one in which nothing
// changed is empty.
func (r *Routes) Plan(st *cluster.State, h *routes.Host) routes.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h == nil {
		h = &routes.Host{}
	}
	if len(r.shared) > 2*r.said+spareForwards {
		r.again(st) // most of what is shared belongs to next hops that went away
	}
	r.look(st, h)
	r.st, r.host = st, h
	ch := routes.Change{Whole: r.whole}
	if r.whole {
		r.whole = false
		r.markWhole()
	}
	if !r.ordered {
		slices.SortFunc(r.dirty, func(a, b *entry) int { return a.prefix.Compare(b.prefix) })
	}
	for i, e := range r.dirty {
		e.dirty = false
		r.step(e, &ch, len(r.dirty)-i)
	}
	clear(r.dirty)
	if r.dirty, r.ordered = r.dirty[:0], true; cap(r.dirty) > spareDirty {
		r.dirty = nil
	}
	return ch
}

// spareDirty is how long a list of what has changed may be that is kept for the next time.
const spareDirty = 4096

// markWhole marks everything there is to decide about.
func (r *Routes) markWhole() {
	for _, e := range r.all.All() {
		r.markEntry(e)
	}
	for p := range r.own {
		r.mark(p)
	}
	for _, b := range r.st.Blocks() {
		r.mark(b.CIDR)
	}
	for p := range r.reach {
		r.mark(p)
	}
	r.ordered = false
}

// step decides about one prefix and adds the difference to the Change; left is how many there are from here on.
func (r *Routes) step(e *entry, ch *routes.Change, left int) {
	f, metric := r.decide(e)
	switch {
	case f != nil && e.said != nil && e.key(metric) == e.key(e.metric) && f.equal(e.said):
		e.said, e.metric = f, metric // perhaps made anew: what is not in use any more is not kept
	case f != nil:
		if ch.Routes == nil {
			ch.Routes = make([]routes.Route, 0, left)
		}
		ch.Routes = append(ch.Routes, f.route(e.prefix, metric))
		if e.said == nil {
			r.said++
		} else if e.key(metric) != e.key(e.metric) {
			ch.Withdraw = append(ch.Withdraw, e.key(e.metric))
		}
		e.said, e.metric = f, metric
	case e.said != nil:
		ch.Withdraw = append(ch.Withdraw, e.key(e.metric))
		e.said = nil
		r.said--
	}
	if e.said == nil && len(e.paths) == 0 {
		r.all.Delete(e.prefix)
	}
}
