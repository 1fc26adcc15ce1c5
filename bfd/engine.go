package bfd

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is one wanted session.
type Peer struct {
	Addr  netip.Addr // with a zone where it is link-local
	Local netip.Addr // our address towards it; invalid = the kernel chooses
	// Multihop: the peer is not on a network of ours (RFC 5883), packets may come with any TTL; else they must come with 255.
	Multihop bool
	Timing
}

// Status is one session as it is.
type Status struct {
	Peer
	State            State
	RemoteState      State
	Diag, RemoteDiag Diag
	// Since is when State was reached.
	Since time.Time
	// Interval is the time between two packets of ours, Detection the time without one of the peer's after which the path is
	// dead, 0 while that is not known.
	Interval, Detection time.Duration
	// RemoteIndependent is the peer's C bit: its BFD outlives its control plane, so that Down says something of the path (RFC
	// 5882 section 4.3.2).
	RemoteIndependent bool
	Sent, Received    uint64 // packets
	Downs             int    // how often it left Up
	Err               string // why no packet can be sent or received, "" if none
}

// Change is a session that entered or left Up.
type Change struct {
	Addr     netip.Addr
	From, To State
	Diag     Diag
	// RemoteDiag is the peer's own word.
	RemoteDiag Diag
	ByWill     bool // the peer is AdminDown: somebody ended the session, the path is as it was (RFC 5882 section 3.2)
	Renewed    bool // the peer signals Down without a reason of its own: its session began anew, of the path nothing is known
	Resumable  bool // the peer may only have lost its control plane: its C bit is clear (RFC 5882 section 4.3.2)
}

// Options are what an Engine is made of.
type Options struct {
	Log *slog.Logger // nil = none
	// Changed is called for each session that enters or leaves Up, in order, from one goroutine. It may take its time.
	Changed func(Change)
	// In runs a function that opens a socket in the network namespace the sessions are of; nil = this thread's.
	In func(open func() error) error
	// State is a file that keeps the sessions over a restart of the process, "" = none; see Handover.
	State string
}

// The keys of what is logged.
const (
	keyPeer       = "peer"
	keyState      = "state"
	keyDiag       = "diagnostic"
	keyRemoteDiag = "remoteDiagnostic"
	keyError      = "error"
)

// Engine runs the sessions. Its methods may be called from any goroutine.
type Engine struct {
	opts  Options
	wires *wires

	mu       sync.Mutex // a runner's may be taken by who has it, not the other way round
	runners  map[netip.Addr]*runner
	byDisc   map[uint32]*runner
	saved    map[netip.Addr]saved
	closed   bool
	pacing   bool // the pacemaker was started
	paced    atomic.Bool
	beats    atomic.Uint64 // packets it has sent
	ctx      context.Context
	cancel   context.CancelFunc
	routines sync.WaitGroup

	trigger chan struct{} // size 1: there are changes
	last    sync.Mutex    // what is taken by who has a runner's; guards what follows
	changes []Change
	bell    int // an eventfd that wakes the pacemaker, -1 = none
}

// New returns an Engine without sessions. It opens a port when it has a session that needs it.
func New(opts Options) *Engine {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.In == nil {
		opts.In = func(open func() error) error { return open() }
	}
	e := &Engine{opts: opts, runners: map[netip.Addr]*runner{}, byDisc: map[uint32]*runner{}, trigger: make(chan struct{}, 1), bell: -1}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.wires = newWires(e.ctx, &opts, e.deliver)
	e.routines.Go(e.tell)
	return e
}

// Set makes the sessions those of peers, one for each address. A session that stays is not disturbed, whatever its timing becomes; one that is
// no longer wanted ends as AdminDown, which the peer does not take for a dead path.
func (e *Engine) Set(peers []Peer) error {
	wanted := make(map[netip.Addr]Peer, len(peers))
	for _, p := range peers {
		if err := p.check(); err != nil {
			return err
		}
		if _, twice := wanted[p.Addr]; twice {
			return fmt.Errorf("BFD session with %s: it is asked for twice", p.Addr)
		}
		wanted[p.Addr] = p
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	if e.saved == nil { // not before: a predecessor that has yet to end writes it then
		e.saved = e.load()
	}
	for addr, r := range e.runners {
		if p, ok := wanted[addr]; !ok || p.Local != r.peer.Local || p.Multihop != r.peer.Multihop {
			e.end(r)
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(wanted), netip.Addr.Compare) {
		if r := e.runners[addr]; r != nil {
			r.retime(wanted[addr].Timing)
		} else {
			e.start(wanted[addr])
		}
	}
	return nil
}

// check refuses what RFC 5880 or the wire does not allow.
func (p *Peer) check() error {
	const most = time.Duration(1<<32-1) * time.Microsecond
	switch {
	case !p.Addr.IsValid() || p.Addr.IsUnspecified():
		return fmt.Errorf("BFD session: %q is not a peer's address", p.Addr)
	case p.Local.IsValid() && p.Local.Is4() != p.Addr.Is4():
		return fmt.Errorf("BFD session with %s: local address %s is of the other family", p.Addr, p.Local)
	case p.Multiplier == 0:
		return fmt.Errorf("BFD session with %s: the multiplier is 0; use 1 to 255", p.Addr)
	case p.MinTx < leastInterval || p.MinRx < leastInterval || p.MinTx > most || p.MinRx > most:
		return fmt.Errorf("BFD session with %s: intervals %v and %v; use %v to %v", p.Addr, p.MinTx, p.MinRx, leastInterval, most)
	}
	return nil
}

// leastInterval keeps a typing error from loading the host: below it the scheduling of a busy node is seen as a dead path.
const leastInterval = 10 * time.Millisecond

// start and end are called with the lock held.
func (e *Engine) start(p Peer) {
	now := time.Now()
	s, port := newSession(e.discriminator(), p.Timing, now), uint16(0)
	if kept, ok := e.saved[p.Addr]; ok {
		delete(e.saved, p.Addr)
		if _, taken := e.byDisc[kept.Local]; !taken && kept.fits(&p, uptime()) {
			s, port = kept.session(p.Timing, now), kept.SourcePort
		}
	}
	r := newRunner(e, p, s, now)
	r.line.source = port
	e.runners[p.Addr], e.byDisc[s.local] = r, r
	e.wires.listen(kindOf(&p))
	e.routines.Go(r.run)
	e.startPace()
}

func (e *Engine) end(r *runner) {
	delete(e.runners, r.peer.Addr)
	delete(e.byDisc, r.s.local) // never changes
	close(r.stop)
}

// discriminator returns a number no session of ours has.
func (e *Engine) discriminator() uint32 {
	for {
		d := rand.Uint32()
		if _, taken := e.byDisc[d]; d != 0 && !taken {
			return d
		}
	}
}

// deliver hands a packet to its session (RFC 5880 section 6.8.6, RFC 5881 section 4, RFC 5883 section 4).
func (e *Engine) deliver(a arrival) {
	e.mu.Lock()
	r := e.runners[a.from]
	if a.why == nil && a.packet.your != 0 {
		if r = e.byDisc[a.packet.your]; r != nil && r.peer.Addr != a.from && !a.multihop {
			r = nil
		}
	}
	e.mu.Unlock()
	if r == nil {
		return
	}
	if a.why == nil && r.peer.Multihop != a.multihop {
		a.why = errHops
	}
	if a.why != nil {
		r.discarded.Store(&discard{a.why, time.Now()}) // past the inbox, where it would take the place of what counts
		return
	}
	select {
	case r.in <- a:
	default: // more than a session can need: the next one says the same
	}
}

// Status returns every session, sorted by address.
func (e *Engine) Status() []Status {
	e.mu.Lock()
	runners := slices.Collect(maps.Values(e.runners))
	e.mu.Unlock()
	out := make([]Status, 0, len(runners))
	for _, r := range runners {
		out = append(out, r.status())
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Addr.Compare(b.Addr) })
	return out
}

// changed notes a change for tell.
func (e *Engine) changed(c Change) {
	e.opts.Log.Info("BFD session has changed", keyPeer, c.Addr, keyState, c.To, keyDiag, c.Diag, keyRemoteDiag, c.RemoteDiag)
	e.last.Lock()
	e.changes = append(e.changes, c)
	e.last.Unlock()
	select {
	case e.trigger <- struct{}{}:
	default:
	}
}

// tell calls back, in a goroutine of its own so that a slow listener does not keep a session from its packets.
func (e *Engine) tell() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.trigger:
		}
		e.last.Lock()
		changes := e.changes
		e.changes = nil
		e.last.Unlock()
		for _, c := range changes {
			if e.opts.Changed != nil && e.ctx.Err() == nil {
				e.opts.Changed(c)
			}
		}
	}
}

// Close ends every session as AdminDown and gives back what the Engine holds. It waits for the goroutines.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	for _, r := range e.runners {
		e.end(r)
	}
	e.mu.Unlock()
	e.shut()
}

// shut ends the goroutines, sessions last of all by their own.
func (e *Engine) shut() {
	e.cancel()
	e.ring()
	e.wires.close()
	e.routines.Wait()
}
