package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// inboxSize is how many packets may wait for a session: more than come in one detection time from a peer that keeps to its word.
	inboxSize = 64
	// A process that was not run for stallLeast has packets waiting that would have kept its sessions up. It reads for
	// stallGrace before it believes that a path is dead.
	stallLeast = 20 * time.Millisecond
	stallGrace = 10 * time.Millisecond
	// stallMost bounds it where packets wait all the time, as they do for a process that gets too little of the processor.
	stallMost = 100 * time.Millisecond
	// A discarded packet explains why a session is not up for discardMatters: not up, a peer sends one a second.
	discardMatters = 5 * time.Second
	// farewells is how often AdminDown is said: any of them may be lost, and nobody answers.
	farewells = 3
)

// arrival is a packet that has come, or was discarded and why.
type arrival struct {
	packet   packet
	why      error
	from     netip.Addr
	multihop bool
}

// discard is why a packet did not count, and when it came.
type discard struct {
	why error
	at  time.Time
}

// runner is the goroutine of one session.
type runner struct {
	engine *Engine
	peer   Peer // but for Timing, which retime changes
	in     chan arrival
	poke   chan struct{} // size 1: look again
	stop   chan struct{}
	line   line
	// discarded is the last packet that did not count.
	discarded atomic.Pointer[discard]

	mu             sync.Mutex // guards what follows
	s              *session
	timing         Timing // as wanted
	since          time.Time
	sent, received uint64
	downs          int
	err            error
	told           State // last reported
	ended          bool
	beatAt         time.Time // when the pacemaker will look at it
	silent         bool      // the next process goes on with the session: no farewell
	stalled        time.Time // when a detection time ended that packets may wait to prolong; zero if none did
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
	r.stalled = time.Time{}
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
	if expired := !r.s.expires.IsZero() && !now.Before(r.s.expires); expired && r.behind(now, wake) {
		r.s.expires = now.Add(stallGrace)
	}
	r.s.elapse(now)
	if r.s.due(now) {
		r.send(r.s.send(false, now))
	}
	r.tell(now)
	return r.look(now)
}

// behind reports whether packets may wait to be read that came in time: this process was not run, or they are seen to wait.
func (r *runner) behind(now, wake time.Time) bool {
	if r.stalled.IsZero() {
		r.stalled = now
	}
	if now.Sub(r.stalled) > stallMost {
		return false
	}
	return now.Sub(wake) > stallLeast || len(r.in) > 0 || r.engine.wires.waiting(kindOf(&r.peer))
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
		r.engine.changed(Change{Addr: r.peer.Addr, From: was, To: r.told, Diag: r.s.diag, RemoteDiag: r.s.remoteDiag,
			ByWill: r.s.remoteState == AdminDown, Renewed: r.s.renewed(),
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
	defer r.line.close()
	r.ended = true
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
	switch err := errors.Join(listening, r.err); {
	case err != nil:
		st.Err = err.Error()
	case r.s.state != Up:
		st.Err = r.mute(time.Now())
	}
	return st
}

// mute says why a session is not up that has nothing against it here, "" if the peer is heard.
func (r *runner) mute(now time.Time) string {
	switch d := r.discarded.Load(); {
	case d != nil && now.Sub(d.at) < discardMatters:
		return "the peer's packets are discarded: " + d.why.Error()
	case r.s.remote != 0 || now.Sub(r.since) < discardMatters:
		return ""
	}
	hops := map[bool]string{false: "one hop", true: "several hops (multihop)"}[r.peer.Multihop]
	return fmt.Sprintf("no packet comes from the peer: turn BFD on there, for %s, and let UDP port %d through", hops, kindOf(&r.peer).port())
}
