package gobgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// holding is what a peer had brought that the server has dropped and we go on using, marked stale, until it is brought again or another way is learned.
//
// Either the session was begun anew by us. The peer's End-of-RIB alone does not end that: what has come through a reflector may be on its way
// through other sessions that are just beginning, or to the reflector.
//
// Or the peer is away for a restart. GoBGP drops what it keeps of such a peer when any connection with it comes to nothing, be it that both had dialled and one of two
// had to go; RFC 4724 section 4.2 has it kept for the restart time. That ends with End-of-RIB.
//
// Another way is not the end of it: a reflector that reflects no more, or a node about to leave, may take it back a moment later. What was held is put
// aside until the holding ends, and is in use again where there is nothing else.
type holding struct {
	prefixes map[netip.Prefix][]bgp.Path // what is put aside; nil: it is in use
	detained map[netip.Prefix]bool       // those of them that end by themselves (crossing)
	away     bool
}

// keep notes that the server has dropped the only path of a prefix of a peer that is away for a restart, or about to be, and reports whether it is kept. A
// prefix with another path follows the server.
func (f *feed) keep(peer netip.Addr, d *dest, known []bgp.Path) bool {
	s := f.sessions[peer]
	if s == nil || len(known) != 1 {
		return false
	}
	switch {
	case s.restarting && s.state != stateEstablished && known[0].Stale:
	case s.state == stateEstablished && s.collided():
		d.paths = []bgp.Path{known[0]}
		d.paths[0].Stale, f.anyStale = true, true
		f.mark(d)
	default:
		return false
	}
	h := f.held[peer]
	if h == nil {
		h = &holding{prefixes: make(map[netip.Prefix][]bgp.Path), away: true}
		f.held[peer] = h
		f.watchAway(s, h)
	}
	h.prefixes[d.prefix] = nil
	return true
}

// collided reports whether the peer has ended the session for one on another connection (RFC 4271 section 6.8). Of two that dial each other at one moment GoBGP
// may go on with the connection that the other one drops, and be up before it hears of that. The peer has not gone, and would have its routes kept.
func (s *session) collided() bool {
	return !s.noRestart && s.got.Is(bgp.CodeCease, bgp.SubCollision) && !s.got.At.Before(s.upAt)
}

// watchAway gives up what is kept of a peer when its restart time is over.
func (f *feed) watchAway(s *session, h *holding) {
	wait := s.restartTime
	if s.state != stateEstablished {
		wait = time.Until(s.lostAt.Add(wait))
	}
	time.AfterFunc(wait, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		peer := s.peer.Addr
		switch {
		case f.sessions[peer] != s || f.held[peer] != h || s.state == stateEstablished: // then it ends with the session, or with End-of-RIB
		case time.Now().Before(s.lostAt.Add(s.restartTime)): // it was back, and is lost again
			f.watchAway(s, h)
		default:
			f.notBack(s)
		}
	})
}

// endAway drops what is kept of a peer that was away.
func (f *feed) endAway(peer netip.Addr) {
	if h := f.held[peer]; h != nil && h.away {
		f.letGo(peer)
	}
}

// hold keeps what a peer has brought, at most for a while.
func (f *feed) hold(peer netip.Addr, most time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &holding{prefixes: make(map[netip.Prefix][]bgp.Path)}
	for p, d := range f.table.All() {
		if !d.retained && slices.ContainsFunc(d.paths, func(p bgp.Path) bool { return p.PeerAddr == peer }) {
			h.prefixes[p] = nil
		}
	}
	f.setStale(true, func(d *dest, p *bgp.Path) bool { return !d.retained && p.PeerAddr == peer })
	f.held[peer] = h
	time.AfterFunc(most, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.held[peer] == h {
			f.letGo(peer)
			f.kick()
		}
	})
	f.kick()
}

// settle notes that a peer has brought what it had: what is still held is given up a moment after every new session has done so.
func (f *feed) settle(peer netip.Addr) {
	h := f.held[peer]
	if h == nil {
		return
	}
	if h.away {
		f.letGo(peer)
		return
	}
	time.AfterFunc(settleTime, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case f.held[peer] != h:
		case f.pending(nil)[index(peer)]:
			f.settle(peer)
		default:
			f.letGo(peer)
			f.kick()
		}
	})
}

// drop drops what is held of a peer that does not return.
func (f *feed) drop(peer netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.letGo(peer)
}

// dead drops all that is held of a peer to which the path is dead.
func (f *feed) dead(peer netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.held[peer]; h != nil {
		h.detained = nil
	}
	f.letGo(peer)
}

// letGo drops what is still held of a peer, but for what ends by itself.
func (f *feed) letGo(peer netip.Addr) {
	h := f.held[peer]
	if h == nil {
		return
	}
	for p, aside := range h.prefixes {
		if h.detained[p] {
			continue
		}
		delete(h.prefixes, p)
		if aside == nil {
			f.dropHeld(peer, p)
		}
	}
	if h.away = false; len(h.prefixes) == 0 {
		delete(f.held, peer)
	}
}

func (f *feed) dropHeld(peer netip.Addr, p netip.Prefix) {
	d := f.table.Get(p)
	if d == nil || d.retained {
		return
	}
	if rest := slices.DeleteFunc(slices.Clone(d.paths), func(p bgp.Path) bool { return p.PeerAddr == peer }); len(rest) != len(d.paths) {
		d.paths = rest
		f.mark(d)
	}
}

// heldOf reports whether what a peer had brought of a prefix is held: then the server's word that it is gone is no news.
func (f *feed) heldOf(peer netip.Addr, p netip.Prefix) bool {
	h := f.held[peer]
	if h == nil {
		return false
	}
	_, ok := h.prefixes[p]
	return ok
}

// supplant puts aside what is held of a prefix, for which a path has come; of the peer that sent it, for good.
func (f *feed) supplant(p netip.Prefix, by netip.Addr) {
	for peer, h := range f.held {
		aside, ok := h.prefixes[p]
		switch d := f.table.Get(p); {
		case !ok:
			continue
		case peer == by:
			delete(h.prefixes, p)
			delete(h.detained, p)
		case aside == nil && d != nil:
			of := func(x bgp.Path) bool { return x.PeerAddr != peer }
			h.prefixes[p] = slices.DeleteFunc(slices.Clone(d.paths), of)
		}
		if aside == nil {
			f.dropHeld(peer, p)
		}
	}
}

// withdrawn returns what is in use of a prefix once the path at i is not: what had been put aside where nothing else is left, or that path itself while
// the cluster crosses over.
func (f *feed) withdrawn(d *dest, known []bgp.Path, i int) []bgp.Path {
	paths := without(known, i)
	if len(paths) > 0 {
		return paths
	}
	for _, h := range f.held {
		for _, aside := range h.prefixes[d.prefix] {
			paths = f.with(paths, &aside)
			h.prefixes[d.prefix], f.anyStale = nil, true
		}
	}
	if len(paths) == 0 && f.crossing.detains(f.sessions[known[i].PeerAddr], d.prefix, &known[i]) {
		paths = f.detain(d.prefix, known[i])
	}
	return paths
}

// crossing is the time in which sessions with nodes of the cluster are replaced or begin anew, here and elsewhere. Reflectors then take back for seconds what
// others have not told us yet: GoBGP prefers what the peer with the lowest router id reflects, were it to have it from us (RFC 4456 section 9 would compare the
// lengths of CLUSTER_LISTs), and takes that back from whoever it has it from. So the last path to a prefix inside a pool that leads to a node of the cluster
// stays in use, marked stale, until another one comes, for as long as a session takes to begin.
type crossing struct {
	until time.Time
	ours  func(p netip.Prefix, hop netip.Addr) bool
}

// detained is for how long a path that was taken back stays in use: GoBGP tries a session again within ten seconds.
const detained = 15 * time.Second

// crosses has what is taken back stay in use for a while. ours says whether a prefix is one of a pool and a next hop a node of the cluster.
func (f *feed) crosses(most time.Duration, ours func(p netip.Prefix, hop netip.Addr) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crossing = crossing{until: time.Now().Add(most), ours: ours}
}

// detains reports whether a path that its peer takes back stays in use, or that goes with a session that is asked for no more, such as one with a
// reflector that has left the cluster. One whose session has ended otherwise does not: how long its routes are kept is for graceful restart to say, and none
// are where BFD has found it dead.
func (c *crossing) detains(s *session, prefix netip.Prefix, p *bgp.Path) bool {
	return (s == nil || s.state == stateEstablished && s.ended == "") && time.Now().Before(c.until) && c.ours(prefix, p.NextHop)
}

// detain keeps a path that was taken back.
func (f *feed) detain(p netip.Prefix, path bgp.Path) []bgp.Path {
	h := f.held[path.PeerAddr]
	if h == nil {
		h = &holding{prefixes: make(map[netip.Prefix][]bgp.Path)}
		f.held[path.PeerAddr] = h
	}
	if h.detained == nil {
		h.detained = make(map[netip.Prefix]bool)
	}
	h.prefixes[p], h.detained[p] = nil, true
	path.Stale, f.anyStale = true, true
	time.AfterFunc(detained, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		aside, still := h.prefixes[p]
		if !still || !h.detained[p] || f.held[path.PeerAddr] != h {
			return
		}
		delete(h.prefixes, p)
		delete(h.detained, p)
		if len(h.prefixes) == 0 {
			delete(f.held, path.PeerAddr)
		}
		if aside == nil {
			f.dropHeld(path.PeerAddr, p)
			f.kick()
		}
	})
	return []bgp.Path{path}
}
