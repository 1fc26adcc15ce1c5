package gobgp

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// The states of RFC 4271 section 8.2.2.
const (
	stateIdle        bgp.SessionState = "Idle"
	stateConnect     bgp.SessionState = "Connect"
	stateActive      bgp.SessionState = "Active"
	stateOpenSent    bgp.SessionState = "OpenSent"
	stateOpenConfirm bgp.SessionState = "OpenConfirm"
	stateEstablished bgp.SessionState = "Established"
)

var states = map[gobgp.FSMState]bgp.SessionState{
	gobgp.BGP_FSM_IDLE: stateIdle, gobgp.BGP_FSM_CONNECT: stateConnect, gobgp.BGP_FSM_ACTIVE: stateActive,
	gobgp.BGP_FSM_OPENSENT: stateOpenSent, gobgp.BGP_FSM_OPENCONFIRM: stateOpenConfirm, gobgp.BGP_FSM_ESTABLISHED: stateEstablished,
}

// settleTime is how long a session without graceful restart, which need not send End-of-RIB, is given for its routes.
const settleTime = 10 * time.Second

// session is what the feed knows of one peer. All but up is guarded by the feed's lock.
type session struct {
	peer        bgp.Peer
	state       bgp.SessionState
	since       time.Time
	lastError   string
	cause       bgp.Cause
	failedAt    time.Time        // when that was
	sent, got   bgp.Notification // the last of each direction
	routerID    netip.Addr
	ours        []string // capabilities of the last session
	theirs      []string
	ups         int
	said        bool   // lastError is of this connection already
	ended       string // why we have ended this connection, "" if we have not
	planned     bool   // it ends because another Config was asked for
	eor         bool
	restarting  bool
	lostAt      time.Time     // when it was last up
	restartTime time.Duration // what it has asked for
	upAt        time.Time     // when it came up last
	again       bool          // all it is to be told is to be told again, perhaps
	replaced    time.Time     // when replacing wanted that
	mustAgain   bool          // not only if others brought paths
	answerBy    time.Time     // when it must have left OpenSent or OpenConfirm
	unanswered  int           // how often in a row it did not
	gone        bool          // its restart time has run out since it was last up
	tooMuch     bool          // has sent more than it may, and is left alone
	pressed     bool          // was lost while there was much to tell, so that some of it may be left (mute_linux.go)
	silent      int           // how often in a row it was found silent
	noRestart   bool          // the peer did not offer graceful restart
	keeps       bool          // it offered it for the family: it forwards while it restarts, so that its routes are kept (RFC 4724 section 3). GoBGP does not forget that
	six         bool          // it is up, and takes IPv6 next hops of IPv4 prefixes (RFC 8950)
	up          atomic.Bool   // state is Established; read by the log adapter on GoBGP's hot path
}

func (f *feed) add(p bgp.Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[p.Addr] = &session{peer: p, state: stateIdle, since: time.Now(), lastError: held(&p)}
	f.changed = true
}

// held returns what is told of a session that must not be started.
func held(p *bgp.Peer) string {
	if p.Held == "" {
		return ""
	}
	return "held down: " + p.Held
}

// rename takes over what only we read of a peer. Paths learned before keep the name they came with.
func (f *feed) rename(p bgp.Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[p.Addr]; s != nil && !s.peer.Equal(&p) {
		s.peer = p
		f.changed = true
	}
}

func (f *feed) remove(a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, a)
	f.cold.forget(a)
	f.endAway(a)
	f.changed = true
	f.kick()
}

func (f *feed) session(a netip.Addr) *session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[a]
}

// state files a change of a session's state.
func (f *feed) state(gen int, p *apiutil.Peer, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[p.State.NeighborAddress]
	now, known := states[p.State.SessionState]
	if gen != f.gen || s == nil || !known {
		return // but not after close: hangUp waits for the sessions to go down
	}
	if p.State.AdminState == api.PeerState_ADMIN_STATE_PFX_CT && now == stateIdle && !f.closed {
		f.over = append(f.over, s.peer.Addr)
		f.kick()
	}
	if s.restarting && p.State.DisconnectReason == api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED {
		f.notBack(s) // may come in any state but Established, and leads to Idle, from Idle too
	}
	if s.state == now {
		return
	}
	was := s.state
	s.state, s.since = now, at
	s.up.Store(now == stateEstablished)
	switch {
	case now == stateEstablished:
		f.cameUp(s, p)
	case was == stateEstablished:
		f.wentDown(s, p)
	case now == stateOpenSent || now == stateOpenConfirm:
		f.awaitAnswer(s)
	default:
		s.failAs(p)
	}
	if now == stateIdle {
		if f.idle == nil {
			f.idle = make(map[netip.Addr]struct{})
		}
		f.idle[s.peer.Addr] = struct{}{}
	}
	f.changed = true
	f.kick()
}

// notBack files that a peer did not come back from a restart in its time.
func (f *feed) notBack(s *session) {
	f.cold.forget(s.peer.Addr)
	f.endAway(s.peer.Addr)
	s.restarting, s.gone = false, true
	s.fail("the peer did not come back within its restart time", bgp.CauseUnanswered)
	f.changed = true
	f.kick()
}

func (f *feed) cameUp(s *session, p *apiutil.Peer) {
	s.eor, s.said, s.ended, s.tooMuch, s.gone = false, false, "", false, false
	s.unanswered, s.upAt, s.again, s.mustAgain = 0, s.since, true, false
	time.AfterFunc(againTime, f.kick)
	if f.holdsBack(s, time.Now()) {
		time.AfterFunc(holdBack, f.kick)
	}
	f.sessionUp(s, s.since)
	s.ups++
	if f.up == nil {
		f.up = make(map[netip.Addr]struct{})
	}
	f.up[s.peer.Addr] = struct{}{}
	s.routerID = p.State.RouterID
	s.ours, s.theirs = capabilities(p.State.LocalCap), capabilities(p.State.RemoteCap)
	s.six, f.sixMoved = takesSix(p.State.RemoteCap), true
	s.noRestart, s.restartTime = true, 0
	for _, c := range p.State.RemoteCap {
		if gr, ok := c.(*gobgp.CapGracefulRestart); ok {
			s.noRestart, s.restartTime = false, time.Duration(gr.Time)*time.Second
			s.keeps = s.keeps || slices.ContainsFunc(gr.Tuples, func(t *gobgp.CapGracefulRestartTuple) bool {
				return gobgp.NewFamily(t.AFI, t.SAFI) == family(s.peer.Addr)
			})
		}
	}
	if s.noRestart {
		time.AfterFunc(settleTime, f.kick)
	}
	if s.restarting {
		f.cameBack(s, p)
	}
	f.log.Info("BGP session is up", keyPeer, s.peer.Name, keyAddress, s.peer.Addr, keyGraceful, !s.noRestart)
}

func (f *feed) wentDown(s *session, p *apiutil.Peer) {
	s.eor, s.six, f.sixMoved = false, false, true
	s.restarting = p.State.DisconnectReason == api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART || s.collided()
	s.lostAt = s.since
	s.pressed = f.unrest.pressing(s.since) || s.silent > 0
	if s.restarting {
		f.stale(s.peer.Addr, true)
	} else {
		f.cold.forget(s.peer.Addr)
		f.endAway(s.peer.Addr)
	}
	if !s.said {
		s.failAs(p)
	}
	s.said = false
	level := slog.LevelWarn
	if s.planned {
		level, s.planned = slog.LevelInfo, false
	}
	f.log.Log(context.Background(), level, "BGP session is down", keyPeer, s.peer.Name, keyAddress, s.peer.Addr, keyError, s.lastError, keyKept, s.restarting && s.keeps)
}

// isRestarting reports whether a peer is gone and its paths are kept.
func (f *feed) isRestarting(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[a]
	return s != nil && s.restarting
}

// lost files why we are about to end a session.
func (f *feed) lost(a netip.Addr, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[a]; s != nil && s.state == stateEstablished {
		s.fail(why, bgp.CauseUnknown)
		s.said, s.ended = true, why
	}
}

// ends files why a session is about to end as it was planned to.
func (f *feed) ends(a netip.Addr, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[a]; s != nil && s.state == stateEstablished {
		s.fail(why, bgp.CauseUnknown)
		s.said, s.planned = true, true
	}
}

func (s *session) fail(text string, cause bgp.Cause) {
	if text != "" {
		s.lastError, s.cause, s.failedAt = text, cause, time.Now()
	}
}

// failAs files why a session left a state, as far as the event says it; nothing where the next state is progress, or where the log has said it.
func (s *session) failAs(p *apiutil.Peer) {
	switch p.State.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		s.fail("connection closed by the peer or lost", bgp.CauseLost)
	case api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		s.fail("connection lost while writing", bgp.CauseLost)
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		s.note(&s.sent, bgp.CauseSent, bgp.Notification{Code: bgp.CodeHoldTimer})
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		s.note(&s.sent, bgp.CauseSent, bgp.Notification{Code: bgp.CodeOpen, Subcode: bgp.SubBadPeerAS})
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		if !s.said { // the log tells of our answer, which names what was wrong
			s.fail("the peer sent an invalid message", bgp.CauseUnknown)
		}
	}
}

// note files a NOTIFICATION of one direction.
func (s *session) note(to *bgp.Notification, cause bgp.Cause, n bgp.Notification) {
	if n.At.IsZero() {
		n.At = time.Now()
	}
	*to = n
	word := "received: "
	if cause == bgp.CauseSent {
		word = "sent: "
	}
	s.fail(word+n.String(), cause)
}

// endOfRIB files that a peer has sent all it had (RFC 4724 section 2).
func (f *feed) endOfRIB(gen int, peer netip.Addr, fam gobgp.Family) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[peer]
	if gen != f.gen || f.closed || s == nil || fam != family(peer) {
		return
	}
	s.eor, s.restarting = true, false
	f.settle(peer)
	f.cold.forget(peer)
	f.stale(peer, false) // what did not come again is withdrawn next
	f.changed = true
	f.kick()
}

// allHeard reports whether every session has brought what it had.
func (f *feed) allHeard(now time.Time) bool {
	for _, s := range f.sessions {
		if !s.heard(now) {
			return false
		}
	}
	return true
}

// heard reports whether a session has brought what it had; of one that has brought too much nothing is wanted, and one that stayed away for longer
// than it had asked for has had its time.
func (s *session) heard(now time.Time) bool {
	return s.eor || s.tooMuch || s.gone || s.state == stateEstablished && s.noRestart && now.Sub(s.since) >= settleTime
}

// hiddenPassword stands for a password wherever sessions are shown.
const hiddenPassword bgp.Password = "(set)"

// statuses returns all sessions sorted by name, without counts.
func (f *feed) statuses() []bgp.PeerStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]bgp.PeerStatus, 0, len(f.sessions))
	for _, s := range f.sessions {
		p := s.peer
		if p.Password != "" {
			p.Password = hiddenPassword
		}
		st := bgp.PeerStatus{
			Peer: p, State: s.state, Since: s.since, LastError: s.lastError, Cause: s.cause, ErrorAt: s.failedAt, LastSent: s.sent, LastReceived: s.got,
			RouterID: s.routerID, OurCapabilities: s.ours, TheirCapabilities: s.theirs, Ups: s.ups, EndOfRIB: s.eor, Restarting: s.restarting && s.keeps,
		}
		if st.Restarting && s.state != stateEstablished {
			st.KeptUntil = s.lostAt.Add(s.restartTime)
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b bgp.PeerStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}
