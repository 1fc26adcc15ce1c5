package gobgp

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime is how long a peer that has connected is given for its OPEN, and then for the KEEPALIVE that confirms ours; others send both at once. Double
// that each time it was not enough, so that a peer that is very slow gets there.
//
// RFC 4271 waits for four minutes and for the hold time, while it goes on with other connections (section 6.8). GoBGP does not: it refuses what comes
// while it waits for an OPEN, which may never come, because the peer has died or what it sends is dropped for its TTL. And where two GoBGPs dial each
// other at one moment, each may go on with the connection that the other has dialled and let its own lie unread.
const answerTime = 8 * time.Second

// doublings bounds the doubling; what takes longer is left to GoBGP.
const doublings = 3

// awaitAnswer begins the wait.
func (f *feed) awaitAnswer(s *session) {
	wait := answerTime << min(s.unanswered, doublings)
	s.answerBy = time.Now().Add(wait)
	time.AfterFunc(wait, f.kick)
}

// unanswered returns the peers that did not answer in time.
func (f *feed) unanswered(now time.Time) map[netip.Addr]struct{} {
	var out map[netip.Addr]struct{}
	for a, s := range f.sessions {
		if s.state != stateOpenSent && s.state != stateOpenConfirm || now.Before(s.answerBy) {
			continue
		}
		if out == nil {
			out = make(map[netip.Addr]struct{})
		}
		out[a] = struct{}{}
		s.unanswered++
		f.awaitAnswer(s)
		f.log.Info("BGP peer has connected and does not answer: its connections are closed", keyPeer, s.peer.Name, keyAddress, a, keyState, s.state)
	}
	return out
}

// unstick closes all connections with these peers, of which GoBGP may have forgotten one.
func (s *Speaker) unstick(stuck map[netip.Addr]struct{}) {
	if len(stuck) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets(stuck, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
}

// idleTime is a little less than GoBGP stays Idle after it has lost a session.
const idleTime = 4 * time.Second

// closeForgotten closes the connections of sessions that have become Idle and that their peers have dialled. GoBGP takes none of them in that state, but may
// have forgotten one: when it goes on with the connection that it has dialled itself before it has read the OPEN on the other, it leaves that one open. The
// peer may wait on it for its hold time, and refuse all others.
func (s *Speaker) closeForgotten(idle map[netip.Addr]struct{}) {
	if len(idle) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return
	}
	s.sockets(s.feed.stillIdle(idle), func(fd int) {
		if local, ok := endpoint(unix.Getsockname(fd)); ok && local.Port() == listenPort(&s.cfg) {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
	})
}

func (f *feed) stillIdle(peers map[netip.Addr]struct{}) map[netip.Addr]struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[netip.Addr]struct{}, len(peers))
	for a := range peers {
		if s := f.sessions[a]; s != nil && s.state == stateIdle && time.Since(s.since) < idleTime {
			out[a] = struct{}{}
		}
	}
	return out
}
