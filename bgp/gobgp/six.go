package gobgp

import (
	"context"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// IPv4 prefixes with IPv6 next hops (RFC 8950). GoBGP offers on every IPv4 session to take them, and has no way not to; and it passes what it was sent
// on to anybody, whether he has offered to take them or not. One who has not, as BIRD in calico-node, would end the session or lose the prefix. So
// statements of ours keep such paths from peers that are sent the next hop as it was learned (section 4 of the RFC), until a peer's OPEN has told us that
// it takes them; then it is told of them.

// takesSix reports whether an OPEN offers to take IPv4 prefixes with IPv6 next hops.
func takesSix(list []gobgp.ParameterCapabilityInterface) bool {
	return slices.ContainsFunc(list, func(c gobgp.ParameterCapabilityInterface) bool {
		e, ok := c.(*gobgp.CapExtendedNexthop)
		return ok && slices.ContainsFunc(e.Tuples, func(t *gobgp.CapExtendedNexthopTuple) bool {
			return t.NLRIAFI == gobgp.AFI_IP && t.NLRISAFI == gobgp.SAFI_UNICAST && t.NexthopAFI == gobgp.AFI_IP6
		})
	})
}

// ofOtherFamily reports whether an IPv4 prefix has an IPv6 next hop.
func ofOtherFamily(p netip.Prefix, gw netip.Addr) bool { return p.Addr().Is4() && gw.Is6() }

// keepsNextHops reports whether a peer is sent next hops as they were learned.
func keepsNextHops(cfg *bgp.Config, p *bgp.Peer) bool {
	return p.KeepNextHop || !p.SelfNextHop && !cfg.External(p)
}

// plainNextHops keeps IPv6 next hops of IPv4 prefixes from peers that do not take them; six are those that do.
func (g *program) plainNextHops(cfg *bgp.Config, six []netip.Addr) {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, List: []string{nobodyAtAll4}} // a set must not be empty
	for i := range cfg.Peers {
		if p := &cfg.Peers[i]; p.Addr.Is4() && !keepsNextHops(cfg, p) {
			set.List = append(set.List, hostOf(p.Addr))
		}
	}
	for _, a := range six {
		if !slices.Contains(set.List, hostOf(a)) {
			set.List = append(set.List, hostOf(a))
		}
	}
	g.six = g.define(set)
	g.export(&api.Conditions{
		NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_INVERT, Name: g.six}, NextHopInList: []string{all6.String()},
		AfiSafiIn: []*api.Family{apiFamily(netip.IPv4Unspecified())},
	}, &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
}

func hostOf(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// takeSix returns the peers that take such paths now, sorted, and whether any such path has come since we began.
func (f *feed) takeSix() (peers []netip.Addr, seen bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, s := range f.sessions {
		if s.six {
			peers = append(peers, a)
		}
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return peers, f.sixSeen
}

// takes reports whether a peer takes IPv6 next hops of IPv4 prefixes.
func (f *feed) takes(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[a]
	return s != nil && s.six
}

// tellSix has the program in force know which peers take such paths, and tells those of them that do so from now on.
func (s *Speaker) tellSix(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil || s.policy.program == nil {
		return
	}
	now, seen := s.feed.takeSix()
	was := s.policy.six
	s.policy.six = now
	s.feed.rule(true)
	defer s.feed.rule(false)
	change := func(list, other []netip.Addr, write func(*api.DefinedSet) error, then func(*bgp.Peer)) {
		for _, a := range list {
			p, ok := s.peers[a]
			if !ok || slices.Contains(other, a) || !keepsNextHops(&s.cfg, &p) {
				continue
			}
			set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: s.policy.program.six, List: []string{hostOf(a)}}
			if err := write(set); err != nil {
				s.opts.Log.Warn("note whether a BGP peer takes IPv6 next hops of IPv4 prefixes", keyPeer, p.Name, keyError, err)
				continue
			}
			then(&p)
		}
	}
	change(was, now, func(set *api.DefinedSet) error {
		return s.srv.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set})
	}, func(*bgp.Peer) {})
	change(now, was, func(set *api.DefinedSet) error {
		return s.srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set})
	}, func(p *bgp.Peer) {
		if !seen || s.absent(p) || s.feed.laterAgain(p.Addr) {
			return
		}
		if err := s.reset(ctx, p.Addr, api.ResetPeerRequest_DIRECTION_OUT); err != nil {
			s.opts.Log.Warn("decide again about routes to a BGP peer", keyPeer, p.Name, keyError, err)
		}
	})
}
