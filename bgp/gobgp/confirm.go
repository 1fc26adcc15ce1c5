package gobgp

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// confirmTime is how long a peer that has sent its OPEN is given for the KEEPALIVE that confirms ours, which others send at once; double that each
// time it was not enough, so that a peer that is very slow gets there.
//
// RFC 4271 knows no such time but the hold time, and it is there because of GoBGP: where two of them dial each other at one moment, each may go on with the
// connection that the other has dialled and let its own lie unread (RFC 4271 section 6.8 has one of the two closed). Both then wait for a KEEPALIVE until the
// hold time is over.
const confirmTime = 8 * time.Second

// confirmings bounds the doubling; what takes longer is left to the hold time.
const confirmings = 3

// awaitConfirm begins the wait.
func (f *feed) awaitConfirm(s *session) {
	wait := confirmTime << min(s.unconfirmed, confirmings)
	s.confirmBy = time.Now().Add(wait)
	time.AfterFunc(wait, f.kick)
}

// unconfirmed returns the peers that are left in OpenConfirm.
func (f *feed) unconfirmed(now time.Time) map[netip.Addr]struct{} {
	var out map[netip.Addr]struct{}
	for a, s := range f.sessions {
		if s.state != stateOpenConfirm || now.Before(s.confirmBy) {
			continue
		}
		if out == nil {
			out = make(map[netip.Addr]struct{})
		}
		out[a] = struct{}{}
		s.unconfirmed++
		f.awaitConfirm(s)
		f.log.Warn("BGP peer does not confirm the session it has opened: its connections are closed", keyPeer, s.peer.Name, keyAddress, a)
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
