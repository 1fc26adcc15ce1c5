package gobgp

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/caracal-net/caracal/bgp"
)

// againTime is how long after a session has come up it is told everything once more, where paths came from others at about that time.
//
// GoBGP collects what a new peer is to be told, and some moments later notes that the peer is up. What it learns from another peer between the two is told
// neither way (v4.8.0, handleFSMMessage and needToAdvertise), and nobody asks for it: behind a reflector that restarts, with all its
// clients coming back at once, a block may be missing for good.
const againTime = time.Second

// margin is how far apart the two may be for us, who hear of both through a queue.
const margin = time.Second / 2

// holdsBack reports whether we may still hold back from a peer what we learn, after a restart of ours (RFC 4724 section 4.1). To tell it everything says End-of-RIB
// too, at which it would drop what it keeps of us and we have not learned again.
func (f *feed) holdsBack(s *session, now time.Time) bool {
	return (f.restarts || f.gen > 1) && !f.inSync && (s.state != stateEstablished || now.Sub(s.upAt) < holdBack)
}

// holdBack is how long GoBGP does so for a peer at most, and a little.
const holdBack = deferralExternal*time.Second + margin

// tellAgain returns the peers for which that time has come.
func (f *feed) tellAgain(now time.Time) (out []netip.Addr) {
	for a, s := range f.sessions {
		if !s.again || now.Sub(s.upAt) < againTime || now.Sub(s.replaced) < againTime || f.holdsBack(s, now) {
			continue
		}
		if s.state == stateEstablished && (s.mustAgain || !f.news.Before(s.upAt.Add(-margin))) {
			out = append(out, a)
		}
		s.again, s.mustAgain = false, false
	}
	return out
}

// replacing notes that paths that were in use are gone or replaced: peers with rules about interfaces, or from which IPv6 next hops are kept, are told everything again in a while, at most once in
// againTime. For the rules may refuse what is in use now, and to find out whether the former path is to be withdrawn GoBGP asks them about it as if it had the next
// hop of the new one (v4.8.0, filterpath and NextHopCondition). A soft reset goes by what was sent.
func (f *feed) replacing(now time.Time) {
	if !f.replaced {
		return
	}
	f.replaced = false
	for _, s := range f.sessions {
		if s.state == stateEstablished && !s.mustAgain && (asks(s.peer.Export) || f.sixSeen && !s.six && s.peer.Addr.Is4()) {
			s.again, s.mustAgain, s.replaced = true, true, now
			time.AfterFunc(againTime, f.kick)
		}
	}
}

// laterAgain has a peer told everything again once that may be, and reports whether it may not be now.
func (f *feed) laterAgain(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[a]
	if s == nil || !f.holdsBack(s, time.Now()) {
		return false
	}
	s.again, s.mustAgain = true, true
	return true
}

// tellAgain has those told again that are told of what others bring.
func (s *Speaker) tellAgain(ctx context.Context, peers []netip.Addr) {
	if len(peers) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fromOutside := slices.ContainsFunc(s.cfg.Peers, func(p bgp.Peer) bool { return s.cfg.External(&p) })
	for _, a := range peers {
		p, ok := s.peers[a]
		if !ok || s.srv == nil || s.absent(&p) || !p.Client && !s.cfg.External(&p) && !fromOutside {
			continue
		}
		if err := s.reset(ctx, a, api.ResetPeerRequest_DIRECTION_OUT); err != nil {
			s.opts.Log.Warn("tell a BGP peer everything again", keyPeer, p.Name, keyAddress, a, keyError, err)
		}
	}
}
