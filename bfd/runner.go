package bfd

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

const (
	// inboxSize is how many packets may wait for a session: more than come in one detection time from a peer that keeps to its word.
	inboxSize = 64
	// A process that was not run for stallLeast has packets waiting that would have kept its sessions up. It reads for
	// stallGrace before it believes that a path is dead.
	stallLeast = 20 * time.Millisecond
	stallGrace = 10 * time.Millisecond
	// farewells is how often AdminDown is said: any of them may be lost, and nobody answers.
	farewells = 3
)

// arrival is a packet that has come.
type arrival struct {
	packet   packet
	from     netip.Addr
	multihop bool
}

// runner is the goroutine of one session.
type runner struct {
	engine *Engine
	peer   Peer // but for Timing, which retime changes
	in     chan arrival
	poke   chan struct{} // size 1: look again
	stop   chan struct{}
	line   line

	mu             sync.Mutex // guards what follows
	s              *session
	timing         Timing // as wanted
	since          time.Time
	sent, received uint64
	downs          int
	err            error
	told           State // last reported
	silent         bool  // the next process goes on with the session: no farewell
}

func newRunner(e *Engine, p Peer, s *session, now time.Time) *runner {
	return &runner{engine: e, peer: p, s: s, timing: p.Timing, since: now, told: Down,
		in: make(chan arrival, inboxSize), poke: make(chan struct{}, 1), stop: make(chan struct{}),
		line: line{local: p.Local, remote: p.Addr, port: kindOf(&p).port(), in: e.opts.In}}
}

// retime changes what is asked of the session.
func (r *runner) retime(t Timing) {
	r.mu.Lock()
	r.timing = t
	r.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

func (r *runner) run() {
	defer r.line.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	wake := time.Now()
	for {
		select {
		case <-r.stop:
			r.finish()
			return
		case a := <-r.in:
			r.receive(&a)
		case <-r.poke:
		case <-timer.C:
		}
		wake = r.step(wake)
		timer.Reset(time.Until(wake))
	}
}

func (r *runner) receive(a *arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.received++
	if r.s.receive(&a.packet, now) {
		r.send(r.s.send(true, now))
	}
}

// step does what is due and returns when to look again; wake is when it should have been called at the latest.
func (r *runner) step(wake time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.s.setTiming(r.timing, now)
	if expired := !r.s.expires.IsZero() && !now.Before(r.s.expires); expired && (now.Sub(wake) > stallLeast || len(r.in) > 0) {
		r.s.expires = now.Add(stallGrace)
	}
	r.s.elapse(now)
	if r.s.due(now) {
		r.send(r.s.send(false, now))
	}
	r.tell(now)
	return r.s.wake(now)
}

// tell reports a session that has entered or left Up.
func (r *runner) tell(now time.Time) {
	if r.s.state == r.told {
		return
	}
	was := r.told
	r.told, r.since = r.s.state, now
	if was == Up {
		r.downs++
	}
	if was == Up || r.told == Up {
		r.engine.changed(Change{Addr: r.peer.Addr, From: was, To: r.told, Diag: r.s.diag,
			ByWill: r.s.remoteState == AdminDown, Renewed: r.s.diag == NeighborSignaledDown && r.s.remoteState == Down && r.s.remoteDiag == NoDiagnostic,
			Resumable: !r.s.remoteIndependent})
	}
}

// send puts a packet on the wire. What goes wrong is kept for Status: the next packet is the next try.
func (r *runner) send(p packet) {
	err := r.line.send(&p)
	if err == nil {
		r.sent++
	}
	if r.s.remote == 0 { // nobody hears us from there: the next packet may leave from another address
		r.line.close()
	}
	if err != nil && (r.err == nil || r.err.Error() != err.Error()) {
		r.engine.opts.Log.Warn("BFD packets cannot be sent", keyPeer, r.peer.Addr, keyError, err)
	}
	r.err = err
}

// finish takes leave of the peer, unless another process takes over.
func (r *runner) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent {
		return
	}
	now := time.Now()
	r.s.shut(now)
	for range farewells {
		r.send(r.s.send(false, now))
	}
}

func (r *runner) status() Status {
	listening := r.engine.wires.fault(kindOf(&r.peer))
	r.mu.Lock()
	defer r.mu.Unlock()
	st := Status{
		Peer: r.peer, State: r.s.state, RemoteState: r.s.remoteState, Diag: r.s.diag, RemoteDiag: r.s.remoteDiag, Since: r.since,
		Interval: r.s.interval(), Detection: r.s.detection(), RemoteIndependent: r.s.remoteIndependent,
		Sent: r.sent, Received: r.received, Downs: r.downs,
	}
	st.Timing = r.timing
	if err := errors.Join(listening, r.err); err != nil {
		st.Err = err.Error()
	}
	return st
}
