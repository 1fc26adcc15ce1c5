package gobgp

import (
	"context"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/bgp"
)

// What GoBGP has for a peer waits in a queue that outlives the session. When a session is lost GoBGP puts a word into it at which the goroutine that sends ends; if that has ended already,
// since the connection failed under its hands, the word stays, behind all that had not been sent, and until the session is back a handful is taken out, one for each
// change of its state (v4.8.0, established, sendMessageloop and drainChannel). The goroutine of the next session ends when it comes to that word. Then the session is up and the
// peer is told nothing, not even KEEPALIVEs, until its hold time is over; and if much has piled up by then so it goes on. The more there is to tell, the surer.
//
// So we look whether anything is sent over a connection that has come back, and end the silent one as a crash would, so that graceful restart keeps the routes
// on both sides. Mostly what has piled up in so short a time is taken out until it is back; else GoBGP's whole peer is replaced, queue and all, which costs others what they had
// from it for some seconds.
const (
	// pressing is how long before a session was lost peers must have been told of anything for it to be looked at soon after it is back, not only when a KEEPALIVE is overdue.
	pressing = time.Second
	// silence is how long nothing may have been sent, when there was something to send.
	silence = time.Second
	// jiffies is how exactly the kernel knows when it sent something.
	jiffies = 10 * time.Millisecond
	// late is what a KEEPALIVE may be late.
	late = 5 * time.Second
	// silentMost is which silent session in a row has GoBGP's whole peer be replaced.
	silentMost = 2
)

// sounding is a look at one session, which came up then.
type sounding struct {
	ses   *session
	peer  netip.Addr
	since time.Time
	sent  func(now time.Time) time.Time // since when something must have been sent; nil if that would prove nothing
	late  bool                          // a KEEPALIVE, if nothing else
	asked bool                          // we have had everything told once more
	again bool                          // it is the second look
}

// listenIn has those sessions looked at that have come back.
func (s *Speaker) listenIn(ctx context.Context, up map[netip.Addr]struct{}) {
	for a := range up {
		ses := s.feed.session(a)
		if ses == nil {
			continue
		}
		since, interval, soon, back := s.feed.returned(ses)
		if !back {
			continue
		}
		if soon {
			time.AfterFunc(silence, func() { s.sound(ctx, sounding{ses: ses, peer: a, since: since}) }) // what is sent at first may be of the time before
		}
		time.AfterFunc(interval+late, func() {
			s.sound(ctx, sounding{ses: ses, peer: a, since: since, late: true, sent: func(now time.Time) time.Time { return now.Add(-interval - late/2) }})
		})
	}
}

// returned says since when a session is up, how often it is to send KEEPALIVEs at least, whether it was lost while there was much to tell, and whether it was up before.
func (f *feed) returned(s *session) (since time.Time, interval time.Duration, soon, back bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.upAt, max(keepalive*time.Second, s.peer.Keepalive), s.pressed, s.ups > 1
}

// sound looks at a session. Before it is found silent the peer is told everything once more, which has End-of-RIB sent if nothing else; a peer without graceful restart is not, but
// found silent where a KEEPALIVE is overdue.
func (s *Speaker) sound(ctx context.Context, l sounding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[l.peer]
	if !ok || s.srv == nil || s.stopped || s.absent(&p) {
		return
	}
	wait, restarts := s.feed.sounded(&l)
	switch {
	case wait < 0:
		return // is not that session any more
	case wait > 0:
		time.AfterFunc(wait, func() { s.sound(ctx, l) })
		return
	}
	now := time.Now()
	last, found := s.lastSent(l.peer)
	switch {
	case !found || l.sent != nil && last.After(l.sent(now)):
		switch {
		case l.late:
			s.feed.speaks(l.ses)
		case !l.again: // what was of the time before may have been so much that it was still sent
			time.AfterFunc(4*silence, func() { s.sound(ctx, sounding{ses: l.ses, peer: l.peer, since: l.since, again: true}) })
		}
	case l.asked || !restarts && l.late && s.keepsAlive(ctx, l.peer):
		s.endSilent(ctx, &p, l.ses)
	case restarts:
		if err := s.reset(ctx, l.peer, api.ResetPeerRequest_DIRECTION_OUT); err != nil {
			s.opts.Log.Warn("tell a BGP peer everything again", keyPeer, p.Name, keyAddress, l.peer, keyError, err)
		}
		l.asked, l.sent = true, func(time.Time) time.Time { return now.Add(-jiffies) }
		time.AfterFunc(2*silence, func() { s.sound(ctx, l) })
	}
}

// sounded reports for how long we may still hold back from a peer, or less than 0 if the session is another one by now; and whether the peer does graceful restart.
func (f *feed) sounded(l *sounding) (wait time.Duration, restarts bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := l.ses
	switch {
	case f.sessions[l.peer] != s || s.state != stateEstablished || !s.upAt.Equal(l.since):
		return -1, false
	case f.holdsBack(s, time.Now()):
		return holdBack, false
	}
	return 0, !s.noRestart
}

// speaks notes that something is sent over a session.
func (f *feed) speaks(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.silent = 0
}

// lastSent returns when anything was sent to a peer last, as far as a connection is found. If octets wait for it to make room that is now: it is not for want of anybody who sends.
func (s *Speaker) lastSent(a netip.Addr) (last time.Time, found bool) {
	now := time.Now()
	s.sockets(map[netip.Addr]struct{}{a: {}}, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		at := now.Add(-time.Duration(info.Last_data_sent) * time.Millisecond)
		if unsent(fd) > 0 {
			at = now
		}
		if found = true; at.After(last) {
			last = at
		}
	})
	return last, found
}

// keepsAlive reports whether a session has KEEPALIVEs at all (RFC 4271 section 4.2).
func (s *Speaker) keepsAlive(ctx context.Context, a netip.Addr) (yes bool) {
	_ = s.srv.ListPeer(ctx, &api.ListPeerRequest{Address: a.String()}, func(p *api.Peer) { yes = p.GetTimers().GetState().GetNegotiatedHoldTime() > 0 })
	return yes
}

// endSilent ends a session over which GoBGP sends nothing.
func (s *Speaker) endSilent(ctx context.Context, p *bgp.Peer, ses *session) {
	s.feed.mu.Lock()
	ses.silent++
	often, keep := ses.silent >= silentMost, !ses.noRestart
	s.feed.mu.Unlock()
	s.opts.Log.Warn("nothing is sent over a BGP session that has come back: it is begun once more", keyPeer, p.Name, keyAddress, p.Addr)
	if often && keep {
		s.feed.hold(p.Addr, s.opts.Overlap)
	}
	s.sockets(map[netip.Addr]struct{}{p.Addr: {}}, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
	if !often {
		return
	}
	err := s.removePeer(ctx, p)
	if err == nil {
		delete(s.peers, p.Addr)
		s.feed.remove(p.Addr)
		err = s.addPeer(ctx, p)
	}
	if err != nil {
		s.opts.Log.Warn("begin a BGP session anew", keyPeer, p.Name, keyAddress, p.Addr, keyError, err)
	}
}
