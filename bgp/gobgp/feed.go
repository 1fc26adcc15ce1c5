package gobgp

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// pathKey tells the paths of one prefix apart: by who sent it and its path id (RFC 7911). A peer that comes back with another
// router id replaces its old path; to GoBGP they are two, and the old one may be withdrawn late or, where it was stale,
// never. Therefore a withdrawal counts only for the router id that the path in hand came with.
type pathKey struct {
	peer netip.Addr
	id   uint32
}

// dest is what is known of one prefix: its equal best paths, sorted, with the key of each. Most have one. The slices are
// replaced, never changed: paths has been handed out.
type dest struct {
	keys  []origin
	paths []bgp.Path
	// retained are the paths a former server of this process had, until the new one is in sync.
	retained []bgp.Path
}

// origin is a path's key and the router id it came with.
type origin struct {
	pathKey
	routerID netip.Addr
}

// feed collects news of the server until deliver fetches them. Its size is that of the table, whatever the rate of changes.
type feed struct {
	log *slog.Logger

	mu       sync.Mutex
	gen      int // counts servers; news of an old one are dropped
	table    map[netip.Prefix]*dest
	dirty    map[netip.Prefix]struct{}
	sessions map[netip.Addr]*session
	changed  bool // sessions are to be reported
	ready    bool // an Apply has been made, so the sessions are the ones to wait for
	inSync   bool // this server has heard from every session, or waited long enough
	told     bool // Events.InSync has been called
	expired  bool // the wait is over
	timer    *time.Timer
	closed   bool

	wake chan struct{} // capacity 1
}

func newFeed(log *slog.Logger) *feed {
	return &feed{
		log:      log,
		table:    make(map[netip.Prefix]*dest),
		dirty:    make(map[netip.Prefix]struct{}),
		sessions: make(map[netip.Addr]*session),
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
	f.stopTimer()
	return f.gen
}

// each calls f with what is in use of each prefix. The paths must not be written to.
func (f *feed) each(do func(netip.Prefix, []bgp.Path)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, d := range f.table {
		do(p, d.now())
	}
}

// retain keeps what the present server has learned, for the time between it and the next one.
func (f *feed) retain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gen++ // nothing the old server says from here on counts
	for p, d := range f.table {
		if len(d.paths) > 0 {
			d.retained = slices.Clone(d.paths)
			for i := range d.retained {
				d.retained[i].Stale = true
			}
		}
		d.keys, d.paths = nil, nil
		f.dirty[p] = struct{}{}
	}
	clear(f.sessions)
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

// news is one change of one path.
type news struct {
	prefix   netip.Prefix
	from     origin
	path     bgp.Path
	withdraw bool
}

// learn files changes of best paths.
func (f *feed) learn(gen int, changes []news) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gen != f.gen || f.closed {
		return
	}
	for i := range changes {
		f.file(&changes[i])
	}
	f.kick()
}

func (f *feed) file(n *news) {
	d := f.table[n.prefix]
	if d == nil {
		if n.withdraw {
			return
		}
		d = &dest{}
		f.table[n.prefix] = d
	}
	i := slices.IndexFunc(d.keys, func(o origin) bool { return o.pathKey == n.from.pathKey })
	if n.withdraw && (i < 0 || d.keys[i] != n.from) {
		return
	}
	d.keys, d.paths = slices.Clone(d.keys), slices.Clone(d.paths) // what was delivered is never written to
	if i >= 0 {
		d.keys, d.paths = slices.Delete(d.keys, i, i+1), slices.Delete(d.paths, i, i+1)
	}
	if !n.withdraw {
		if s := f.sessions[n.from.peer]; s != nil {
			n.path.Peer = s.peer.Name
		}
		n.path.Best = true
		at, _ := slices.BinarySearchFunc(d.paths, n.path, comparePaths)
		d.keys, d.paths = slices.Insert(d.keys, at, n.from), slices.Insert(d.paths, at, n.path)
	}
	if len(d.paths) > 0 {
		d.retained = nil
	}
	f.dirty[n.prefix] = struct{}{}
}

// stale marks or unmarks every path of a peer. GoBGP does so too but tells nobody: to it a path with the same attributes is the
// same path.
func (f *feed) stale(peer netip.Addr, stale bool) {
	for p, d := range f.table {
		for i := range d.paths {
			if d.paths[i].PeerAddr != peer || d.paths[i].Stale == stale {
				continue
			}
			d.paths = slices.Clone(d.paths)
			d.paths[i].Stale = stale
			f.dirty[p] = struct{}{}
		}
	}
}

// batch is what is delivered in one go.
type batch struct {
	learned []bgp.Learned
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
		b.inSync = !f.told
		f.told = true
	}
	for _, p := range slices.SortedFunc(maps.Keys(f.dirty), netip.Prefix.Compare) {
		l := bgp.Learned{Prefix: p}
		if d := f.table[p]; d != nil {
			l.Paths = d.now()
			if len(l.Paths) == 0 {
				delete(f.table, p)
			}
		}
		b.learned = append(b.learned, l)
	}
	clear(f.dirty)
	b.peers, f.changed = f.changed, false
	return b
}

// now returns the paths in use.
func (d *dest) now() []bgp.Path {
	if len(d.paths) == 0 {
		return d.retained
	}
	return d.paths
}

// comparePaths orders the paths of one prefix so that the order does not tell which came first.
func comparePaths(a, b bgp.Path) int {
	return cmp.Or(a.PeerAddr.Compare(b.PeerAddr), a.NextHop.Compare(b.NextHop))
}

// release drops what a former server had learned and the present one has not.
func (f *feed) release() {
	for p, d := range f.table {
		if d.retained != nil {
			d.retained = nil
			f.dirty[p] = struct{}{}
		}
	}
}

// deliver calls the Events, until ctx ends.
func (s *Speaker) deliver(ctx context.Context) {
	ev := s.opts.Events
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.feed.wake:
		}
		b := s.feed.take()
		s.elevate(ctx, b.learned)
		if len(b.learned) > 0 && ev.Learned != nil && ctx.Err() == nil {
			ev.Learned(b.learned)
		}
		if b.peers && ev.Peers != nil && ctx.Err() == nil {
			ev.Peers()
		}
		if b.inSync && ev.InSync != nil && ctx.Err() == nil {
			ev.InSync()
		}
	}
}
