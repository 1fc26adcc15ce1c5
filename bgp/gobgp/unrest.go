package gobgp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// What GoBGP has for a peer and has not sent yet it puts into one batch: of one prefix the last word about each path, withdrawals first, announcements in no order
// (v4.8.0, sendMessageloop and CreateUpdateMsgFromPaths). It tells paths apart by a number of its own, also where the session has no add-path. So
// where two paths were the best ones right after one another the peer may go on with the former one, and where none is left it may be told of one all the same. It
// would hear of neither again. unrest finds the prefixes for which that may have happened; the Speaker settles them (settle.go).
type unrest struct {
	kinds map[netip.Addr]kind
	// hears: somebody is told of what was learned. Otherwise nothing is watched but what becomes of our own routes while sessions come up.
	hears, mixed bool
	clusters     []netip.Addr // cluster ids of ours
	loops        bool         // paths come that have been through one of them
	open         map[netip.Prefix]*unsettled
	switched     time.Time   // when a best path was last followed by another one
	bulk         time.Time   // when a peer was last told everything
	told         time.Time   // when peers were last told anything
	from, to     time.Time   // of the last change of rules; no to: it is being made
	gone         []departure // in order
	backlog      bool        // a peer takes in more slowly than it is told
	stir         chan struct{}
}

// kind is what a peer is to what is passed on.
type kind uint8

const (
	plainPeer kind = iota // iBGP, no client
	clientPeer
	externalPeer
)

// unsettled is a prefix of which peers were told several things, or may have been.
type unsettled struct {
	last    time.Time
	next    time.Time     // not to be settled before
	wait    time.Duration // after which it may be settled again
	due     bool          // to be settled when all has been quiet
	several bool          // more than one path was concerned
	owed    bool          // settled while a peer was behind, and to be settled again
}

// departure is a prefix to which no path is left.
type departure struct {
	prefix netip.Prefix
	at     time.Time
}

const (
	// coalescing is for how long what GoBGP has for a peer may wait although the peer takes what it is sent: as long as its goroutines are not run.
	coalescing = 2 * time.Second
	// restTime is how long nothing must have happened before a prefix is settled.
	restTime = time.Second
	// waitMost is how long a prefix that is not settled for long waits at most: each time twice as long as before. GoBGP has a new number for each stand-in and takes none back while there is a
	// path to the prefix, which costs it a bit of memory.
	waitMost = 15 * time.Second
	// refreshLook is how often we look whether a peer has asked for everything again (RFC 2918), of which we hear nothing. To count is dear.
	refreshLook = 30 * time.Second
)

func newUnrest() unrest {
	return unrest{open: make(map[netip.Prefix]*unsettled), stir: make(chan struct{}, 1)}
}

// tick is a time in a dest, in sixteenths of a second since the feed was made; 0 is never.
func (f *feed) tick(at time.Time) uint32 {
	return uint32(max(at.Sub(f.epoch), 0)*16/time.Second) + 1
}

// moment is what is found out of a change before it is filed.
type moment struct {
	acts    bool // peers are told of it, perhaps
	several bool // more than one path is concerned
	own     bool // one of them is ours
	left    bool // a client's path is among those before
	none    bool // nothing is announced
	looped  bool // what comes has been through our cluster
	first   bool // nothing was known of the prefix
}

// look looks at a change of one prefix that is about to be filed.
func (f *feed) look(prefix netip.Prefix, changes []*apiutil.Path) (m moment) {
	m.own = slices.ContainsFunc(changes, func(p *apiutil.Path) bool { return !p.PeerAddress.IsValid() })
	if !f.unrest.hears && !m.own {
		return m
	}
	m.none = !slices.ContainsFunc(changes, func(p *apiutil.Path) bool { return !p.Withdrawal })
	m.looped = len(f.unrest.clusters) > 0 && slices.ContainsFunc(changes, func(p *apiutil.Path) bool { return looped(p.Attrs, f.unrest.clusters) })
	d := f.table.Get(prefix)
	if d == nil || len(d.paths) == 0 {
		m.acts, m.several, m.first = true, len(changes) > 1, !m.own
		return m
	}
	m.several = len(d.paths) > 1 || slices.ContainsFunc(changes, func(p *apiutil.Path) bool { return !same(&d.paths[0], p) })
	m.acts = m.own || d.retained || len(f.held) > 0 || f.unrest.moves(d.paths, changes, func(c *apiutil.Path) bool { return f.older(d, c) })
	m.left = f.unrest.mixed && slices.ContainsFunc(d.paths, func(p bgp.Path) bool { return f.unrest.kinds[p.PeerAddr] == clientPeer })
	return m
}

// same reports whether a change is about a path.
func same(p *bgp.Path, c *apiutil.Path) bool {
	return p.PeerAddr == c.PeerAddress && p.ID == c.RemoteID && p.RouterID == routerID(c)
}

// looped reports whether one of these cluster ids is among a path's attributes.
func looped(attrs []gobgp.PathAttributeInterface, clusters []netip.Addr) bool {
	return slices.ContainsFunc(attrs, func(a gobgp.PathAttributeInterface) bool {
		c, ok := a.(*gobgp.PathAttributeClusterList)
		return ok && slices.ContainsFunc(c.Value, func(id netip.Addr) bool { return slices.Contains(clusters, id) })
	})
}

// moves reports whether the best path may be another one after a change, or the same with other attributes. Among equal ones GoBGP takes that of the peer with the lowest
// router id, and the lowest address; of those of eBGP peers the oldest, by when they were read, which need not be the first that counted.
func (u *unrest) moves(paths []bgp.Path, changes []*apiutil.Path, older func(*apiutil.Path) bool) bool {
	if u.kinds[paths[0].PeerAddr] == externalPeer {
		return slices.ContainsFunc(changes, func(c *apiutil.Path) bool {
			return c.Withdrawal || older(c) || slices.ContainsFunc(paths, func(p bgp.Path) bool { return same(&p, c) })
		})
	}
	rank := func(id [4]byte, a netip.Addr) func([4]byte, netip.Addr) bool {
		return func(other [4]byte, b netip.Addr) bool {
			x, y := binary.BigEndian.Uint32(id[:]), binary.BigEndian.Uint32(other[:])
			return x < y || x == y && a.Compare(b) <= 0
		}
	}
	best := &paths[0]
	for i := range paths {
		if rank(paths[i].RouterID, paths[i].PeerAddr)(best.RouterID, best.PeerAddr) {
			best = &paths[i]
		}
	}
	return slices.ContainsFunc(changes, func(c *apiutil.Path) bool { return rank(routerID(c), c.PeerAddress)(best.RouterID, best.PeerAddr) })
}

// older reports whether a path may have been read before the one that peers were told of last. GoBGP gives the second.
func (f *feed) older(d *dest, c *apiutil.Path) bool {
	return d.told == 0 || c.Age <= f.epoch.Add(time.Duration(d.told)*time.Second/16).Unix()
}

// acted files what was found out, after the change was filed.
func (f *feed) acted(prefix netip.Prefix, m moment, at time.Time) {
	u := &f.unrest
	u.told = at
	d := f.table.Get(prefix)
	u.loops = u.loops || m.looped
	if m.none && (d == nil || len(d.paths) == 0) {
		f.departed(prefix, at)
	}
	if o := u.open[prefix]; o != nil {
		o.due, o.several, o.last = o.due || o.several || m.several, o.several || m.several, at
		f.stirUp()
		return
	}
	now := f.tick(at)
	recent := d != nil && d.told != 0 && now-d.told <= uint32(16*coalescing/time.Second)
	several := m.several || recent && d.several
	turned := m.left && d != nil && slices.ContainsFunc(d.paths, func(p bgp.Path) bool { return u.kinds[p.PeerAddr] == plainPeer }) ||
		u.loops && !m.first && (several || m.looped)
	switch {
	case u.hears && (u.ruled(at) || turned || several && (recent || u.backlog || !f.inSync || at.Sub(u.bulk) < coalescing)):
		f.unsettle(prefix, at, true)
	case u.hears && m.own:
		f.unsettle(prefix, at, false) // there may be no dest to remember it by
		u.open[prefix].several = several
	}
	if d != nil {
		d.told, d.several = now, several
	}
	if several && u.hears {
		u.switched = at
		f.stirUp()
	}
}

// unsettle notes that a prefix is to be settled, or may be if anything else happens.
func (f *feed) unsettle(prefix netip.Prefix, at time.Time, due bool) {
	f.unrest.open[prefix] = &unsettled{last: at, due: due, several: due}
	f.stirUp()
}

func (f *feed) stirUp() {
	select {
	case f.unrest.stir <- struct{}{}:
	default:
	}
}

// departed notes that there is no path to a prefix any more. GoBGP collects what a peer is to be told whose session comes up, and some moments later notes that it is up:
// what is withdrawn between the two the peer is not told (v4.8.0, handleFSMMessage and needToAdvertise).
func (f *feed) departed(prefix netip.Prefix, at time.Time) {
	u := &f.unrest
	first := at.Add(-margin)
	up := false
	for _, s := range f.sessions {
		switch {
		case s.state == stateEstablished:
			up = up || at.Sub(s.upAt) < margin
		case s.pressed && at.Sub(s.lostAt) < awayMost && s.lostAt.Before(first):
			first = s.lostAt.Add(-margin)
		}
	}
	for len(u.gone) > 0 && (u.gone[0].at.Before(first) || len(u.gone) >= goneMost) {
		u.gone = u.gone[1:]
	}
	u.gone = append(u.gone, departure{prefix, at})
	if up {
		f.unsettle(prefix, at, true)
	}
}

// awayMost and goneMost bound what is remembered for a peer that is away.
const (
	awayMost = bgp.DefaultRestartTime
	goneMost = 10000
)

// pressing reports whether something was being told then: a session that was lost at that moment may leave some of it in GoBGP's queue, and begin with that when it is
// back (mute_linux.go).
func (u *unrest) pressing(at time.Time) bool {
	return u.backlog || at.Sub(u.told) < pressing || at.Sub(u.bulk) < pressing
}

// toldAll notes that a peer was or is just being told everything, which puts it beside whatever else was told since a while.
func (f *feed) toldAll(now time.Time) {
	f.unrest.bulk = now
	f.unsettleSince(now.Add(-coalescing), now)
}

// unsettleSince has all prefixes settled whose best path was followed by another one since then.
func (f *feed) unsettleSince(then, now time.Time) {
	u := &f.unrest
	for _, o := range u.open {
		o.due = o.due || o.several && !o.last.Before(then)
	}
	if u.switched.Before(then) {
		return
	}
	first := f.tick(then)
	for p, d := range f.table.All() {
		if d.several && d.told >= first && u.open[p] == nil {
			f.unsettle(p, now, true)
		}
	}
}

// sessionUp is toldAll for a peer whose session has come up. If it begins with what was left of the former one, that is beside all since that was lost.
func (f *feed) sessionUp(s *session, at time.Time) {
	first := at.Add(-margin)
	left := s.pressed && at.Sub(s.lostAt) < awayMost
	if left {
		first = s.lostAt.Add(-margin)
	}
	for _, g := range f.unrest.gone {
		if !g.at.Before(first) {
			f.unsettle(g.prefix, at, true)
		}
	}
	f.toldAll(at)
	if left {
		f.unsettleSince(first.Add(-coalescing), at)
	}
}

// ruled reports whether rules were being changed then. GoBGP asks only the new ones whether the former best path was sent to a peer, so a path that only the old ones let
// through is not withdrawn, if it is followed by another one before the peer is told everything again; nor does the comparison of what is known find
// out that it should be.
func (u *unrest) ruled(at time.Time) bool {
	return !u.from.IsZero() && !at.Before(u.from) && (u.to.IsZero() || !at.After(u.to))
}

// rule notes that rules are about to change, or that they have.
func (f *feed) rule(begin bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &f.unrest
	switch now := time.Now(); {
	case begin && (u.from.IsZero() || !u.to.IsZero() && now.Sub(u.to) > coalescing):
		u.from, u.to = now, time.Time{}
	case begin:
		u.to = time.Time{} // what we have not heard of yet may be of the time of the one before
	case !u.from.IsZero() && u.to.IsZero():
		u.to = now
	}
}

// roles takes over what the peers of a Config are.
func (f *feed) roles(cfg *bgp.Config) {
	kinds := make(map[netip.Addr]kind, len(cfg.Peers))
	var has [3]bool
	var clusters []netip.Addr
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		k := plainPeer
		switch {
		case cfg.External(p):
			k = externalPeer
		case p.Client:
			k, clusters = clientPeer, append(clusters, p.ClusterID)
		}
		kinds[p.Addr], has[k] = k, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &f.unrest
	slices.SortFunc(clusters, netip.Addr.Compare)
	u.clusters = slices.Compact(clusters)
	u.kinds, u.hears, u.mixed = kinds, has[clientPeer] || has[externalPeer], has[clientPeer] && has[plainPeer]
}

// unsettled returns what is to be settled now, with the time of the last change, and forgets what has come to rest.
func (f *feed) unsettled(now time.Time) []departure {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &f.unrest
	var out []departure
	for p, o := range u.open {
		age := now.Sub(o.last)
		switch {
		case o.due || o.owed && !u.backlog:
			if age >= restTime && !now.Before(o.next) {
				out = append(out, departure{p, o.last})
			}
		case !o.owed && !u.backlog && age > max(2*refreshLook, 2*o.wait):
			delete(u.open, p)
		}
	}
	return out
}

// settled notes that a prefix was settled, unless something has happened to it meanwhile. That it was told of counts as if it had changed.
func (f *feed) settled(d departure, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.unrest.open[d.prefix]; o != nil && o.last.Equal(d.at) {
		wait := min(max(2*o.wait, restTime), waitMost)
		if f.unrest.backlog {
			wait = restTime
		}
		*o = unsettled{last: now, next: now.Add(wait), wait: wait, several: true, owed: f.unrest.backlog}
	}
}

// behind notes whether a peer takes in more slowly than it is told. What has changed since a moment before it fell behind may be waiting still.
func (f *feed) behind(is bool, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if is && !f.unrest.backlog {
		f.unsettleSince(now.Add(-coalescing), now)
	}
	f.unrest.backlog = is
}

// restless reports whether there is anything to look after, and whether any best path was followed by another one since then.
func (f *feed) restless(now, then time.Time) (yes, switched bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &f.unrest
	yes = u.backlog || now.Sub(u.switched) < 2*coalescing
	for _, o := range u.open {
		yes = yes || o.due || o.owed
	}
	return yes, u.switched.After(then)
}
