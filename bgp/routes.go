package bgp

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/caracal-net/caracal/internal/cluster"
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
	learned map[netip.Prefix][]Path
	dirty   map[netip.Prefix]struct{}     // to be decided again by the next Plan
	said    map[netip.Prefix]routes.Route // the owner's whole set as of the last Change
	own     map[netip.Prefix]struct{}     // our claims
	works   map[netip.Prefix]struct{}     // workload addresses, which the host routes itself
	reach   map[netip.Prefix]Reach        // routes to peers
	ways    map[wayKey]*way               // what is known of each next hop in use
	shared  map[forwardKey]*forward       // next hops and reason by the paths they are made of
	st      *cluster.State
	host    *routes.Host
	whole   bool // the next Change is a whole one

	left     string // why pools without encapsulation are not ours
	rerouted bool   // reach changed since the last Plan
}

// spareForwards is how much of what Routes shares may be out of use before it is made anew.
const spareForwards = 1024

// NewRoutes returns the Routes of a node that has heard nothing. tunnel may be nil where no IPIP pool can be served.
func NewRoutes(node string, tunnel Tunnel) *Routes {
	r := &Routes{node: node, tunnel: tunnel, learned: make(map[netip.Prefix][]Path)}
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
	r.dirty = make(map[netip.Prefix]struct{})
	r.said = make(map[netip.Prefix]routes.Route)
	r.own = make(map[netip.Prefix]struct{})
	r.works = make(map[netip.Prefix]struct{})
	r.ways = make(map[wayKey]*way)
	r.shared = make(map[forwardKey]*forward)
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
	for p := range r.learned {
		r.dirty[p] = struct{}{}
	}
	clear(r.learned)
}

// Learned takes in what the Speaker heard; the next Plan acts on it. Paths handed over must not be changed afterwards.
func (r *Routes) Learned(changes []Learned) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		r.dirty[c.Prefix] = struct{}{}
		if len(c.Paths) == 0 {
			delete(r.learned, c.Prefix)
			continue
		}
		r.learned[c.Prefix] = c.Paths
	}
}

// Without counts the learned prefixes that would have no path left without some peers, and all of them.
func (r *Routes) Without(gone func(peer netip.Addr) bool) (lost, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, paths := range r.learned {
		if !slices.ContainsFunc(paths, func(p Path) bool { return !gone(p.PeerAddr) }) {
			lost++
		}
	}
	return lost, len(r.learned)
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
		r.dirty[p] = struct{}{}
	}
	for p := range now {
		r.dirty[p] = struct{}{}
	}
	r.rerouted = true // next hops may lead elsewhere
	r.reach = now
}

// Plan returns the step from the last Change to what is wanted now. The first one is whole; one in which nothing
// changed is empty.
func (r *Routes) Plan(st *cluster.State, h *routes.Host) routes.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h == nil {
		h = &routes.Host{}
	}
	if len(r.shared) > 2*len(r.said)+spareForwards {
		r.again(st) // most of what is shared belongs to next hops that went away
	}
	r.look(st, h)
	r.st, r.host = st, h
	if r.whole {
		r.whole = false
		return r.wholeChange()
	}
	var ch routes.Change
	dirty := make([]netip.Prefix, 0, len(r.dirty))
	for p := range r.dirty {
		dirty = append(dirty, p)
	}
	clear(r.dirty)
	slices.SortFunc(dirty, netip.Prefix.Compare)
	for _, p := range dirty {
		r.step(p, &ch)
	}
	return ch
}

// wholeChange decides about everything there is.
func (r *Routes) wholeChange() routes.Change {
	clear(r.dirty)
	seen := make(map[netip.Prefix]struct{}, len(r.learned)+len(r.own)+len(r.st.Blocks()))
	for p := range r.learned {
		seen[p] = struct{}{}
	}
	for p := range r.own {
		seen[p] = struct{}{}
	}
	for _, b := range r.st.Blocks() {
		seen[b.CIDR] = struct{}{}
	}
	for p := range r.reach {
		seen[p] = struct{}{}
	}
	all := make([]netip.Prefix, 0, len(seen))
	for p := range seen {
		all = append(all, p)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	ch := routes.Change{Whole: true}
	for _, p := range all {
		r.step(p, &ch)
	}
	return ch
}

// step decides about one prefix and adds the difference to the Change.
func (r *Routes) step(p netip.Prefix, ch *routes.Change) {
	route, ok := r.decide(p)
	was, had := r.said[p]
	switch {
	case ok && had && sameRoute(&was, &route):
		return
	case ok:
		r.said[p] = route
		ch.Routes = append(ch.Routes, route)
		if had && was.Key() != route.Key() {
			ch.Withdraw = append(ch.Withdraw, was.Key())
		}
	case had:
		delete(r.said, p)
		ch.Withdraw = append(ch.Withdraw, was.Key())
	}
}

// sameRoute reports whether two routes are the same wish.
func sameRoute(a, b *routes.Route) bool {
	return a.Dst == b.Dst && a.Key() == b.Key() && a.Type == b.Type && a.MTU == b.MTU && a.Unroutable == b.Unroutable &&
		(a.Reason == b.Reason || *a.Reason == *b.Reason) && slices.Equal(a.NextHops, b.NextHops)
}
