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
)

// dest is what is known of one prefix: its equal best paths, sorted. Most have one. The slice is replaced, never changed: it has been
// handed out.
//
// Paths are told apart by who sent them and their path id (RFC 7911). A peer that comes back with another router id replaces its old
// path; to GoBGP they are two, and the old one may be withdrawn late or, where it was stale, never. Therefore a withdrawal counts
// only for the router id that the path in hand came with.
type dest struct {
	prefix netip.Prefix
	dirty  bool // is in the feed's list of what has changed
	paths  []bgp.Path
	// retained are the paths a former server of this process had, until the new one is in sync.
	retained []bgp.Path
}

// feed collects news of the server until deliver fetches them. Its size is that of the table, whatever the rate of changes.
type feed struct {
	log *slog.Logger

	mu       sync.Mutex
	gen      int // counts servers; news of an old one are dropped
	table    map[netip.Prefix]*dest
	dirty    []*dest // what is to be delivered, in the order in which it changed first
	seen     attributes
	sessions map[netip.Addr]*session
	changed  bool                    // sessions are to be reported
	over     []netip.Addr            // peers that have sent too much
	up       map[netip.Addr]struct{} // peers whose session has come up
	ready    bool                    // an Apply has been made, so the sessions are the ones to wait for
	inSync   bool                    // this server has heard from every session, or waited long enough
	told     bool                    // Events.InSync has been called
	expired  bool                    // the wait is over
	timer    *time.Timer
	closed   bool

	wake chan struct{} // capacity 1
}

func newFeed(log *slog.Logger) *feed {
	return &feed{
		log:      log,
		table:    make(map[netip.Prefix]*dest),
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
	for _, d := range f.table {
		if len(d.paths) > 0 {
			d.retained = slices.Clone(d.paths)
			for i := range d.retained {
				d.retained[i].Stale = true
			}
		}
		d.paths = nil
		f.mark(d)
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

// learn files changes of best paths, as the server tells of them.
func (f *feed) learn(gen int, changes []*apiutil.Path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gen != f.gen || f.closed {
		return
	}
	for _, p := range changes {
		f.file(p)
	}
	if len(f.dirty) > 0 {
		f.kick()
	}
}

// file files one change. Paths of our own are left out, and so is anything but unicast.
func (f *feed) file(p *apiutil.Path) {
	if p == nil || !p.PeerAddress.IsValid() {
		return
	}
	prefix := prefixOf(p.Nlri)
	if !prefix.IsValid() {
		return
	}
	withdraw := p.Withdrawal || p.IsNexthopInvalid
	d := f.table[prefix]
	if d == nil {
		if withdraw {
			return
		}
		d = &dest{prefix: prefix}
		f.table[prefix] = d
	}
	i := slices.IndexFunc(d.paths, func(o bgp.Path) bool { return o.PeerAddr == p.PeerAddress && o.ID == p.RemoteID })
	if withdraw {
		if i >= 0 && d.paths[i].RouterID == routerID(p) {
			d.paths = without(d.paths, i)
			f.changedPaths(d)
		}
		return
	}
	path := bgp.Path{Prefix: prefix, PeerAddr: p.PeerAddress, ID: p.RemoteID, RouterID: routerID(p), Stale: p.Stale, Best: true}
	f.seen.fill(&path, p.Attrs)
	if s := f.sessions[p.PeerAddress]; s != nil {
		path.Peer = s.peer.Name
	}
	if i >= 0 {
		d.paths = without(d.paths, i)
	}
	at, _ := slices.BinarySearchFunc(d.paths, path, comparePaths)
	paths := make([]bgp.Path, len(d.paths)+1)
	copy(paths, d.paths[:at])
	paths[at] = path
	copy(paths[at+1:], d.paths[at:])
	d.paths = paths
	f.changedPaths(d)
}

// without returns a copy of a list less one of its members.
func without(paths []bgp.Path, i int) []bgp.Path {
	if len(paths) == 1 {
		return nil
	}
	return slices.Concat(paths[:i], paths[i+1:])
}

func (f *feed) changedPaths(d *dest) {
	if len(d.paths) > 0 {
		d.retained = nil
	}
	f.mark(d)
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
	for _, d := range f.table {
		for i := range d.paths {
			if d.paths[i].PeerAddr != peer || d.paths[i].Stale == stale {
				continue
			}
			d.paths = slices.Clone(d.paths)
			d.paths[i].Stale = stale
			f.mark(d)
		}
	}
}

// batch is what is delivered in one go.
type batch struct {
	learned []bgp.Learned
	over    []netip.Addr
	up      map[netip.Addr]struct{}
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
	if len(f.dirty) > 0 {
		b.learned = make([]bgp.Learned, len(f.dirty))
	}
	for i, d := range f.dirty {
		b.learned[i] = bgp.Learned{Prefix: d.prefix, Paths: d.now()}
		d.dirty = false
		if len(b.learned[i].Paths) == 0 {
			delete(f.table, d.prefix)
		}
	}
	clear(f.dirty)
	f.dirty = f.dirty[:0]
	b.over, f.over = f.over, nil
	b.up, f.up = f.up, nil
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
	for _, d := range f.table {
		if d.retained != nil {
			d.retained = nil
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
		s.elevate(ctx, b.learned)
		s.boundSending(b.up)
		for _, a := range b.over {
			s.overLimit(ctx, a)
		}
		if len(b.learned) > 0 && ev.Learned != nil && ctx.Err() == nil {
			ev.Learned(b.learned)
		}
		if b.peers && ev.Peers != nil && ctx.Err() == nil {
			ev.Peers()
		}
		if b.inSync && ev.InSync != nil && ctx.Err() == nil {
			ev.InSync()
		}
		rest.Reset(gather)
	}
}
