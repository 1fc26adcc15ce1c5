package gobgp

import (
	"context"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/caracal-net/caracal/bgp"
)

// limitPause is how long a peer that has sent too many prefixes is left alone before it is tried again: long enough for a peer that leaks a
// whole table not to keep everybody busy, short enough for nobody to have to be called. Another limit takes effect at once.
const limitPause = 5 * time.Minute

// overLimit takes a peer out of the server that has sent more than it may. GoBGP has ended the session with Cease/Maximum Number of Prefixes
// Reached by then, but where graceful restart was agreed upon it would keep the routes, and it would never try again.
func (s *Speaker) overLimit(ctx context.Context, addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[addr]
	if !ok || s.srv == nil || s.limited[addr] != nil {
		return
	}
	if err := s.removePeer(ctx, &p); err != nil {
		s.opts.Log.Warn("end the session with a BGP peer that sends too much", keyPeer, p.Name, keyAddress, addr, keyError, err)
		return
	}
	srv := s.srv
	s.limited[addr] = time.AfterFunc(s.opts.LimitPause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.srv != srv || s.limited[addr] == nil {
			return
		}
		delete(s.limited, addr)
		delete(s.retryAt, addr)
		p := s.peers[addr]
		if err := s.srv.AddPeer(context.Background(), &api.AddPeerRequest{Peer: s.peer(&p)}); err != nil {
			s.opts.Log.Warn("try a BGP peer again that has sent too much", keyPeer, p.Name, keyAddress, addr, keyError, err)
		}
	})
	s.retryAt[addr] = time.Now().Add(s.opts.LimitPause)
	s.feed.tooMuch(addr)
	s.opts.Log.Warn("BGP peer sends more prefixes than it may", keyPeer, p.Name, keyAddress, addr, keyLimit, p.MaxPrefixes, keyPause, s.opts.LimitPause)
}

// absent reports whether a peer is not in the server at present, though it is configured.
func (s *Speaker) absent(p *bgp.Peer) bool { return p.Held != "" || s.limited[p.Addr] != nil }

// forgive makes a peer one that was never too much.
func (s *Speaker) forgive(addr netip.Addr) {
	if t := s.limited[addr]; t != nil {
		t.Stop()
		delete(s.limited, addr)
		delete(s.retryAt, addr)
	}
}

// tooMuch notes the end of a session by its limit; that the peer's paths are gone comes from the server.
func (f *feed) tooMuch(a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[a]
	if s == nil {
		return
	}
	f.endAway(a)
	s.restarting, s.tooMuch, s.state = false, true, stateIdle
	s.up.Store(false)
	s.note(&s.sent, bgp.CauseSent, bgp.Notification{Code: bgp.CodeCease, Subcode: bgp.SubMaxPrefixes})
	f.changed = true
	f.kick()
}
