package gobgp

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// cold is the peers that came back from a restart other than RFC 4724 section 4.1 would have them, which GoBGP does not look at.
//
// One that says that it has restarted, and not that it kept its forwarding state, is forgetful: what is kept of it would lead into the void until it has
// its table again, which for a router that waits for others may take minutes. It is not used until the peer's End-of-RIB. It stays
// filed, because GoBGP tells nobody of a path that comes again as it was.
//
// One that is back without the capability is mute: its End-of-RIB, with which GoBGP drops what did not come again, may never come. Its session is begun
// anew then.
type cold struct {
	forgetful map[netip.Addr]struct{}
	mute      map[netip.Addr]struct{}
}

func newCold() cold {
	return cold{forgetful: make(map[netip.Addr]struct{}), mute: make(map[netip.Addr]struct{})}
}

// forget takes a peer off both lists.
func (c *cold) forget(peer netip.Addr) {
	delete(c.forgetful, peer)
	delete(c.mute, peer)
}

// keptForwarding reads a peer's graceful restart capability: whether it has it, and whether what is kept of it may be used. A peer whose
// connection has but broken has not restarted, and is believed without the bit, which GoBGP sets after restarts only.
func keptForwarding(caps []gobgp.ParameterCapabilityInterface, fam gobgp.Family) (capable, kept bool) {
	for _, c := range caps {
		gr, ok := c.(*gobgp.CapGracefulRestart)
		if !ok {
			continue
		}
		capable, kept = true, gr.Flags&flagRestart == 0
		for _, t := range gr.Tuples {
			if gobgp.NewFamily(t.AFI, t.SAFI) == fam && t.Flags&flagForwarding != 0 {
				kept = true
			}
		}
	}
	return capable, kept
}

// cameBack looks at how a peer came back of which paths are kept.
func (f *feed) cameBack(s *session, p *apiutil.Peer) {
	addr := s.peer.Addr
	delete(f.cold.mute, addr) // from the time before; what was forgotten then is not there again
	capable, kept := keptForwarding(p.State.RemoteCap, family(addr))
	switch {
	case !capable:
		f.cold.mute[addr] = struct{}{}
	case !kept:
		f.log.Info("BGP peer has restarted and lost its forwarding state: what it had announced is not used until it has announced all of it", keyPeer, s.peer.Name, keyAddress, addr)
		f.cold.forgetful[addr] = struct{}{}
		for _, d := range f.table.All() {
			if !d.retained && slices.ContainsFunc(d.paths, f.void) {
				f.mark(d)
			}
		}
	}
}

// void reports whether a path is kept of a peer that has lost its forwarding state.
func (f *feed) void(p bgp.Path) bool {
	if !p.Stale {
		return false
	}
	_, is := f.cold.forgetful[p.PeerAddr]
	return is
}

// usable leaves out what leads into the void.
func (f *feed) usable(paths []bgp.Path) []bgp.Path {
	if len(f.cold.forgetful) == 0 || !slices.ContainsFunc(paths, f.void) {
		return paths
	}
	return slices.DeleteFunc(slices.Clone(paths), f.void)
}

// waitedFor returns the mute peers that have had their time.
func (f *feed) waitedFor(now time.Time) (out []netip.Addr) {
	for a := range f.cold.mute {
		if s := f.sessions[a]; s != nil && s.state == stateEstablished && now.Sub(s.since) >= settleTime {
			delete(f.cold.mute, a)
			if h := f.held[a]; h != nil && h.away { // the server has nothing old
				s.restarting = false
				f.letGo(a)
				f.kick()
				continue
			}
			out = append(out, a)
		}
	}
	return out
}

// beginAnew ends a session and begins another one, with nothing kept.
func (s *Speaker) beginAnew(ctx context.Context, addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[addr]
	if !ok || s.srv == nil || s.absent(&p) {
		return
	}
	s.opts.Log.Warn("BGP peer came back from a restart without the capability and does not say what of its routes is old: the session is begun anew",
		keyPeer, p.Name, keyAddress, addr)
	err := s.removePeer(ctx, &p)
	if err == nil {
		delete(s.peers, addr)
		s.feed.remove(addr)
		err = s.addPeer(ctx, &p)
	}
	if err != nil {
		s.opts.Log.Warn("begin a BGP session anew", keyPeer, p.Name, keyAddress, addr, keyError, err)
	}
}
