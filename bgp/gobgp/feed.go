package gobgp

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/prefixmap"
)

// dest is what is known of one prefix: its equal best paths, sorted. Most have one. The slice is replaced, never changed: it has been
// handed out.
//
// Paths are told apart by who sent them and their path id (RFC 7911). A peer that comes back with another router id replaces its old
// path; to GoBGP they are two, and the old one may be withdrawn late or, where it was stale, never. Therefore a withdrawal counts
// only for the router id that the path in hand came with.
type dest struct {
	prefix netip.Prefix
	paths  []bgp.Path // without the prefix: others may have the same
	// retained: the paths are what a former server of this process had, until the new one has some, or is in sync.
	retained bool
	dirty    bool   // is in the feed's list of what has changed
	several  bool   // more than one path was concerned when peers were told last
	told     uint32 // when that was (feed.tick)
}

// feed collects news of the server until deliver fetches them. Its size is that of the table, whatever the rate of changes.
type feed struct {
	lag lag
	log *slog.Logger

	mu       sync.Mutex
	gen      int // counts servers; news of an old one are dropped
	table    prefixmap.Map[*dest]
	dirty    []*dest // what is to be delivered, in the order in which it changed first
	seen     attributes
	single   []bgp.Path // filed last where a prefix has one path
	anyStale bool       // some path may be stale; else an End-of-RIB need not look for those that did not come again
	sessions map[netip.Addr]*session
	held     map[netip.Addr]*holding // by peer
	crossing crossing
	cold     cold
	changed  bool                    // sessions are to be reported
	idle     map[netip.Addr]struct{} // peers whose session has become Idle
	news     time.Time               // when a path was filed last
	replaced bool                    // paths in use have gone or been replaced, which replacing is to look at
	sixMoved bool                    // it may have changed which peers take IPv6 next hops of IPv4 prefixes
	sixSeen  bool                    // there have been such paths
	over     []netip.Addr            // peers that have sent too much
	up       map[netip.Addr]struct{} // peers whose session has come up
	ready    bool                    // an Apply has been made, so the sessions are the ones to wait for
	inSync   bool                    // this server has heard from every session, or waited long enough
	told     bool                    // Events.InSync has been called
	restarts bool                    // a former process may have been known to the peers
	expired  bool                    // the wait is over
	timer    *time.Timer
	closed   bool
	unrest   unrest
	epoch    time.Time

	wake chan struct{} // capacity 1
}

func newFeed(log *slog.Logger) *feed {
	return &feed{
		log:      log,
		sessions: make(map[netip.Addr]*session),
		held:     make(map[netip.Addr]*holding),
		cold:     newCold(),
		unrest:   newUnrest(),
		epoch:    time.Now(),
		wake:     make(chan struct{}, 1),
	}
}

func (f *feed) kick() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// begin makes room for a new server and returns its number.
func (f *feed) begin() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gen++
	f.ready, f.inSync, f.expired = false, false, false
	clear(f.unrest.open)
	f.stopTimer()
	return f.gen
}

// each calls f with what is in use of each prefix. The paths must not be written to.
func (f *feed) each(do func(netip.Prefix, []bgp.Path)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, d := range f.table.All() {
		do(p, d.paths)
	}
}

// retain keeps what the present server has learned, for the time between it and the next one.
func (f *feed) retain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gen++ // nothing the old server says from here on counts
	f.setStale(true, func(d *dest, _ *bgp.Path) bool { return !d.retained })
	for _, d := range f.table.All() {
		d.retained = true
		f.mark(d)
	}
	clear(f.sessions)
	clear(f.held)
	f.cold = newCold()
	f.changed = true
	f.kick()
}

// retaining reports whether paths of a former server are still in use.
func (f *feed) retaining() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gen > 1 && !f.inSync
}

func (f *feed) synced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inSync
}

// configured notes that an Apply has been made; the first one of a server starts the wait for End-of-RIB.
func (f *feed) configured(timeout time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ready {
		f.ready = true
		gen := f.gen
		f.timer = time.AfterFunc(timeout, func() { f.expire(gen) })
	}
	f.changed = true
	f.kick()
}

func (f *feed) expire(gen int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gen == f.gen {
		f.expired = true
		f.kick()
	}
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.stopTimer()
}

func (f *feed) stopTimer() {
	if f.timer != nil {
		f.timer.Stop()
	}
}

// learn files changes of best paths of a moment, as the server tells of them. Those that a stand-in is among come to nothing with the next ones (settle.go).
func (f *feed) learn(gen int, changes []*apiutil.Path, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes = slices.DeleteFunc(changes, func(p *apiutil.Path) bool { return p == nil || !prefixOf(p.Nlri).IsValid() })
	if gen != f.gen || f.closed || slices.ContainsFunc(changes, isStandIn) {
		return
	}
	for len(changes) > 0 {
		prefix := prefixOf(changes[0].Nlri)
		n := slices.IndexFunc(changes, func(p *apiutil.Path) bool { return prefixOf(p.Nlri) != prefix })
		if n < 0 {
			n = len(changes)
		}
		m := f.look(prefix, changes[:n])
		for _, p := range changes[:n] {
			f.replaced = f.file(prefix, p) || f.replaced
		}
		if m.acts {
			f.acted(prefix, m, at)
		}
		changes = changes[n:]
	}
	if len(f.dirty) > 0 {
		f.news = time.Now()
		f.kick()
	}
}

// file files one change of a prefix, and reports whether there were paths to it before. Paths of our own are left out.
func (f *feed) file(prefix netip.Prefix, p *apiutil.Path) (was bool) {
	if !p.PeerAddress.IsValid() {
		return false
	}
	withdraw := p.Withdrawal || p.IsNexthopInvalid
	d := f.table.Get(prefix)
	if d == nil {
		if withdraw {
			return false
		}
		d = &dest{prefix: prefix}
		f.table.Set(prefix, d)
	}
	was = len(d.paths) > 0
	if withdraw && f.heldOf(p.PeerAddress, prefix) {
		return was
	}
	if !withdraw && len(f.held) > 0 {
		f.supplant(prefix, p.PeerAddress)
	}
	known := d.paths
	if d.retained {
		known = nil
	}
	i := slices.IndexFunc(known, func(o bgp.Path) bool { return o.PeerAddr == p.PeerAddress && o.ID == p.RemoteID })
	if withdraw {
		if i >= 0 && known[i].RouterID == routerID(p) && !f.keep(p.PeerAddress, d, known) {
			d.paths = f.withdrawn(d, known, i)
			f.mark(d)
		}
		return was
	}
	path := bgp.Path{PeerAddr: p.PeerAddress, ID: p.RemoteID, RouterID: routerID(p), Stale: p.Stale, Best: true}
	f.anyStale = f.anyStale || p.Stale
	f.seen.fill(&path, p.Attrs)
	f.sixSeen = f.sixSeen || ofOtherFamily(prefix, path.NextHop)
	if s := f.sessions[p.PeerAddress]; s != nil {
		path.Peer = s.peer.Name
	}
	if i >= 0 {
		known = without(known, i)
	}
	d.paths, d.retained = f.with(known, &path), false
	f.mark(d)
	return was
}

// with returns a copy of a list and one more. Prefixes with one path, which most have, share it with the one before where it is the same.
func (f *feed) with(paths []bgp.Path, path *bgp.Path) []bgp.Path {
	if len(paths) == 0 {
		if len(f.single) == 0 || !samePath(&f.single[0], path) {
			f.single = []bgp.Path{*path}
		}
		return f.single
	}
	at, _ := slices.BinarySearchFunc(paths, *path, comparePaths)
	out := make([]bgp.Path, 0, len(paths)+1)
	return append(append(append(out, paths[:at]...), *path), paths[at:]...)
}

// samePath reports whether two paths are equal, with attributes that are read from the same object (attributes).
func samePath(a, b *bgp.Path) bool {
	return a.PeerAddr == b.PeerAddr && a.NextHop == b.NextHop && a.LocalPref == b.LocalPref && a.MED == b.MED && a.ID == b.ID && a.RouterID == b.RouterID &&
		a.Stale == b.Stale && a.Peer == b.Peer && sameSlice(a.ASPath, b.ASPath) && sameSlice(a.Communities, b.Communities)
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// without returns a copy of a list less one of its members.
func without(paths []bgp.Path, i int) []bgp.Path {
	if len(paths) == 1 {
		return nil
	}
	return slices.Concat(paths[:i], paths[i+1:])
}

// mark has a prefix delivered.
func (f *feed) mark(d *dest) {
	if !d.dirty {
		d.dirty = true
		f.dirty = append(f.dirty, d)
	}
}

// stale marks or unmarks every path of a peer. GoBGP does so too but tells nobody: to it a path with the same attributes is the
// same path.
func (f *feed) stale(peer netip.Addr, stale bool) {
	if !stale && !f.anyStale {
		return // each peer of a mesh that starts sends an End-of-RIB
	}
	f.setStale(stale, func(d *dest, p *bgp.Path) bool { return !d.retained && p.PeerAddr == peer })
	f.anyStale = stale || f.holdsStale()
}

func (f *feed) holdsStale() bool {
	for _, d := range f.table.All() {
		if slices.ContainsFunc(d.paths, func(p bgp.Path) bool { return p.Stale }) {
			return true
		}
	}
	return false
}

// setStale marks or unmarks the paths that are asked for. What was one list of paths remains one.
func (f *feed) setStale(stale bool, which func(*dest, *bgp.Path) bool) {
	f.anyStale = f.anyStale || stale
	anew := make(map[*bgp.Path][]bgp.Path)
	for _, d := range f.table.All() {
		if !slices.ContainsFunc(d.paths, func(p bgp.Path) bool { return p.Stale != stale && which(d, &p) }) {
			continue
		}
		paths := anew[&d.paths[0]]
		if paths == nil {
			paths = slices.Clone(d.paths)
			for i := range paths {
				if which(d, &paths[i]) {
					paths[i].Stale = stale
				}
			}
			anew[&d.paths[0]] = paths
		}
		d.paths = paths
		f.mark(d)
	}
}

// batch is what is delivered in one go.
type batch struct {
	learned []bgp.Learned
	over    []netip.Addr
	mute    []netip.Addr
	stuck   map[netip.Addr]struct{}
	again   []netip.Addr
	idle    map[netip.Addr]struct{}
	up      map[netip.Addr]struct{}
	six     bool
	peers   bool
	inSync  bool
}

// take returns everything that has not been delivered yet. Paths and the in-sync mark are taken at one moment, so the mark
// never overtakes a path that came before it.
func (f *feed) take() batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b batch
	if f.ready && !f.inSync && (f.expired || f.allHeard(time.Now())) {
		f.inSync = true
		f.stopTimer()
		f.release()
		f.toldAll(time.Now()) // after a restart all peers are told everything then
		b.inSync = !f.told
		f.told = true
	}
	if len(f.dirty) > 0 {
		b.learned = make([]bgp.Learned, len(f.dirty))
	}
	for i, d := range f.dirty {
		b.learned[i] = bgp.Learned{Prefix: d.prefix, Paths: f.usable(d.paths)}
		d.dirty = false
		if len(d.paths) == 0 {
			f.table.Delete(d.prefix)
		}
	}
	clear(f.dirty)
	f.dirty = f.dirty[:0]
	b.over, f.over = f.over, nil
	f.replacing(time.Now())
	b.mute, b.stuck, b.again = f.waitedFor(time.Now()), f.unanswered(time.Now()), f.tellAgain(time.Now())
	b.idle, f.idle = f.idle, nil
	b.up, f.up = f.up, nil
	b.six, f.sixMoved = f.sixMoved, false
	b.peers, f.changed = f.changed, false
	return b
}

// comparePaths orders the paths of one prefix so that the order does not tell which came first.
func comparePaths(a, b bgp.Path) int {
	return cmp.Or(a.PeerAddr.Compare(b.PeerAddr), a.NextHop.Compare(b.NextHop))
}

// release drops what a former server had learned and the present one has not.
func (f *feed) release() {
	for _, d := range f.table.All() {
		if d.retained {
			d.paths, d.retained = nil, false
			f.mark(d)
		}
	}
}

// gather is the least time between two deliveries. What comes alone is delivered at once; what comes in a stream, as a peer's table does,
// is delivered in portions that are worth what handing one over costs everybody behind us.
const gather = time.Millisecond

// deliver calls the Events, until ctx ends.
func (s *Speaker) deliver(ctx context.Context) {
	ev := s.opts.Events
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-rest.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-s.feed.wake:
		}
		b := s.feed.take()
		if b.six {
			s.tellSix(ctx)
		}
		s.elevate(ctx, b.learned)
		s.bounds.add(s, b.up)
		s.listenIn(ctx, b.up)
		for _, a := range b.over {
			s.overLimit(ctx, a)
		}
		for _, a := range b.mute {
			s.beginAnew(ctx, a)
		}
		s.unstick(b.stuck)
		s.closeForgotten(b.idle)
		s.tellAgain(ctx, b.again)
		if len(b.learned) > 0 && ev.Learned != nil && ctx.Err() == nil {
			ev.Learned(b.learned)
		}
		if b.peers && ev.Peers != nil && ctx.Err() == nil {
			ev.Peers()
		}
		if b.inSync && ev.InSync != nil && ctx.Err() == nil {
			ev.InSync()
		}
		s.review(ctx)
		rest.Reset(gather)
	}
}
