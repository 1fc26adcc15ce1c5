package bfd

import (
	"math/rand/v2"
	"time"
)

// slowTx is the least interval between packets while a session is not up (RFC 5880 section 6.8.3).
const slowTx = time.Second

// Timing is what is asked of a session while it is up.
type Timing struct {
	MinTx      time.Duration // bfd.DesiredMinTxInterval
	MinRx      time.Duration // bfd.RequiredMinRxInterval
	Multiplier uint8         // bfd.DetectMult
}

// roundTrip is more than a Final is ever under way: polls that are older have lost theirs.
const roundTrip = time.Second

// DefaultTiming finds a dead path in 150 ms.
func DefaultTiming() Timing {
	return Timing{MinTx: 50 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 3}
}

// session is the state machine of RFC 5880 section 6.8 in asynchronous mode, without echo and authentication. It is pure: what
// happens is told with the time at which it happens, and it says which packet to send and when to look again.
type session struct {
	timing Timing

	local, remote           uint32 // discriminators
	state, remoteState      State
	diag, remoteDiag        Diag
	remoteMinRx             time.Duration // bfd.RemoteMinRxInterval
	remoteMinTx             time.Duration // the peer's last Desired Min TX Interval
	remoteMultiplier        uint8
	remoteDemand            bool
	remoteIndependent       bool          // the peer's C bit: its BFD outlives its control plane
	desiredTx, requiredRx   time.Duration // as announced
	actualTx, actualRx      time.Duration // as used; they differ from the announced until a poll has ended
	polling                 bool
	polls, stale            int       // polls without a Final, and how many of them were sent with other values than now
	lastPoll, announced     time.Time // when the last was sent, and when the values changed
	lastTx, nextTx, expires time.Time // expires is zero while nothing is expected
	urgent                  bool      // the next packet says something new and is due at once

	jitter func() float64 // in [0, 1)
}

// newSession returns a session in state Down that sends its first packet at once.
func newSession(local uint32, t Timing, now time.Time) *session {
	s := &session{local: local, state: Down, remoteState: Down, remoteMinRx: time.Microsecond, jitter: rand.Float64, nextTx: now}
	s.timing = t
	s.desiredTx, s.requiredRx = max(slowTx, t.MinTx), t.MinRx
	s.actualTx, s.actualRx = s.desiredTx, s.requiredRx
	return s
}

// setTiming changes what is asked for (RFC 5880 section 6.8.3).
func (s *session) setTiming(t Timing, now time.Time) {
	if s.timing == t {
		return
	}
	s.timing = t
	s.announce(now)
}

// announce brings the announced intervals in line with state and timing. A slower sender and a faster receiver wait for the peer's word;
// the others need not.
func (s *session) announce(now time.Time) {
	tx, rx := s.timing.MinTx, s.timing.MinRx
	if s.state != Up {
		tx = max(slowTx, tx)
	}
	if tx == s.desiredTx && rx == s.requiredRx {
		return
	}
	if s.state != Up || tx < s.actualTx {
		s.actualTx = tx
	}
	if s.state != Up || rx > s.actualRx {
		s.actualRx = rx
	}
	s.desiredTx, s.requiredRx = tx, rx
	s.polling = s.remote != 0
	if now.Sub(s.lastPoll) > roundTrip {
		s.polls = 0
	}
	s.stale, s.announced = s.polls, now
	s.urgent = true
	s.schedule()
	if !s.expires.IsZero() {
		s.expires = now.Add(s.detection())
	}
}

// detection is the time without a packet after which the path is dead, 0 while it is not known (RFC 5880 section 6.8.4).
func (s *session) detection() time.Duration {
	return time.Duration(s.remoteMultiplier) * max(s.actualRx, s.remoteMinTx)
}

// receive handles a packet for this session and reports whether it must be answered at once (RFC 5880 section 6.8.6).
func (s *session) receive(p *packet, now time.Time) (answer bool) {
	s.remote, s.remoteState, s.remoteDiag = p.my, p.state, p.diag
	s.remoteDemand, s.remoteIndependent = p.demand, p.controlPlaneIndependent
	s.remoteMinTx, s.remoteMultiplier = p.desiredMinTx, p.multiplier
	if s.remoteMinRx != p.requiredMinRx {
		s.remoteMinRx = p.requiredMinRx
		s.schedule()
	}
	if p.final {
		s.endPoll(now)
	}
	if s.state == AdminDown {
		return false
	}
	switch {
	case p.state == AdminDown:
		if s.state != Down {
			s.become(Down, NeighborSignaledDown, now)
		}
	case s.state == Down && p.state == Down:
		s.become(Init, s.diag, now)
	case s.state == Down && p.state == Init, s.state == Init && p.state >= Init:
		s.become(Up, NoDiagnostic, now)
	case s.state == Up && p.state == Down:
		s.become(Down, NeighborSignaledDown, now)
	}
	s.expires = now.Add(s.detection())
	return p.poll
}

// endPoll ends the poll sequence (RFC 5880 section 6.5) if the Final answers what is announced now. A Final does not say which poll it answers, but each poll
// has one, and they come in order: those of polls with former values are counted off.
func (s *session) endPoll(now time.Time) {
	if now.Sub(s.announced) > roundTrip {
		s.stale = 0
	}
	switch {
	case s.polls == 0:
		return
	case s.stale > 0:
		s.stale--
	case s.polling:
		s.polling = false
		s.actualTx, s.actualRx = s.desiredTx, s.requiredRx
		s.schedule()
	}
	s.polls--
}

// renewed reports whether a session that has gone down did so because the peer's began anew. That one has no diagnostic, or says that we signalled Down, which we
// have not: FRR says so when it makes its session again, as it does when the BGP session comes up.
func (s *session) renewed() bool {
	return s.diag == NeighborSignaledDown && s.remoteState == Down && (s.remoteDiag == NoDiagnostic || s.remoteDiag == NeighborSignaledDown)
}

// elapse tells that time has passed: nothing came for the whole detection time.
func (s *session) elapse(now time.Time) {
	if s.expires.IsZero() || now.Before(s.expires) {
		return
	}
	s.expires = time.Time{}
	s.remote, s.remoteMinRx, s.polling = 0, time.Microsecond, false // RFC 5880 section 6.8.1
	s.polls, s.stale = 0, 0
	s.remoteDemand, s.remoteState = false, Down
	if s.state == Init || s.state == Up {
		s.become(Down, DetectionTimeExpired, now)
	}
	s.schedule()
}

// shut makes the session tell the peer that it ends by somebody's will, and not because the path is dead.
func (s *session) shut(now time.Time) { s.become(AdminDown, AdministrativelyDown, now) }

func (s *session) become(state State, diag Diag, now time.Time) {
	s.state, s.diag, s.urgent = state, diag, true
	s.announce(now)
}

// silent reports whether no packet may be sent: the peer wants none at all, or none beyond its polls.
func (s *session) silent() bool {
	return s.remoteMinRx == 0 || s.remoteDemand && s.state == Up && s.remoteState == Up && !s.polling
}

// interval is the time between two packets before jitter (RFC 5880 section 6.8.2).
func (s *session) interval() time.Duration { return max(s.actualTx, s.remoteMinRx) }

// schedule says when the next packet is due after the last one: a quarter of the interval less at most, and at least a tenth less
// where one lost packet is a dead path (RFC 5880 section 6.8.7).
func (s *session) schedule() {
	low, high := 0.75, 1.0
	if s.timing.Multiplier == 1 {
		high = 0.9
	}
	s.nextTx = s.lastTx.Add(time.Duration(float64(s.interval()) * (low + (high-low)*s.jitter())))
}

// due reports whether a packet is to be sent now.
func (s *session) due(now time.Time) bool {
	return !s.silent() && (s.urgent || !now.Before(s.nextTx))
}

// send returns the packet to send and counts it as sent. An answer to a poll (final) stands outside the rhythm.
func (s *session) send(final bool, now time.Time) packet {
	p := packet{
		diag: s.diag, state: s.state, poll: s.polling && !final, final: final, multiplier: s.timing.Multiplier,
		my: s.local, your: s.remote, desiredMinTx: s.desiredTx, requiredMinRx: s.requiredRx,
	}
	if p.poll {
		s.polls++
		s.lastPoll = now
	}
	if !final {
		s.lastTx, s.urgent = now, false
		s.schedule()
	}
	return p
}

// wake is when to look again if nothing comes before.
func (s *session) wake(now time.Time) time.Time {
	at := s.nextTx
	if s.urgent {
		at = now
	}
	if s.silent() {
		at = now.Add(slowTx)
	}
	if !s.expires.IsZero() && s.expires.Before(at) {
		at = s.expires
	}
	return at
}
