package gobgp

import (
	"context"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"golang.org/x/sys/unix"
)

// hangUpTime bounds the wait for GoBGP to notice that its connections are gone.
const hangUpTime = 2 * time.Second

// hangUp ends all connections the way a killed process does. GoBGP has no call for it: told to stop, it first drops what it
// learned from one peer and tells the eBGP peers it has not come to yet, which would cost them paths that a graceful restart
// is to keep. So the sockets are shut down behind its back, and it is waited for that no session is up any more.
func (s *Speaker) hangUp(ctx context.Context) {
	s.downWith(ctx, func(up map[netip.Addr]struct{}) {
		s.sockets(up, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
	})
}

// sayGoodbye ends all sessions with Cease/Administrative Shutdown. StopBgp would send Peer De-configured, but it closes
// accepted connections without waiting for that to be on its way, and then peers would keep our routes.
func (s *Speaker) sayGoodbye(ctx context.Context) {
	asked := make(map[netip.Addr]bool)
	s.downWith(ctx, func(up map[netip.Addr]struct{}) {
		for a := range up {
			if asked[a] {
				continue
			}
			asked[a] = true
			if err := s.srv.ShutdownPeer(ctx, &api.ShutdownPeerRequest{Address: a.String()}); err != nil {
				s.opts.Log.Warn("end BGP session", keyAddress, a, keyError, err)
			}
		}
	})
}

// downWith does something to the sessions that are up until none is.
func (s *Speaker) downWith(ctx context.Context, do func(up map[netip.Addr]struct{})) {
	ctx, cancel := context.WithTimeout(ctx, hangUpTime)
	defer cancel()
	for {
		up := s.feed.established()
		if len(up) == 0 {
			return
		}
		do(up)
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// established returns the peers with which a session is up.
func (f *feed) established() map[netip.Addr]struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	up := make(map[netip.Addr]struct{})
	for a, s := range f.sessions {
		if s.up.Load() {
			up[a] = struct{}{}
		}
	}
	return up
}
