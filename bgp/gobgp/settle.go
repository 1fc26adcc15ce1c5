package gobgp

import (
	"context"
	"math"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// To settle a prefix is to have every peer told once more what holds of it. GoBGP has no word for that. But it tells all peers when the best path becomes another one; so a
// stand-in for the best path, which looks the same to peers, comes and goes again within one operation of the server, during which nothing else changes. To peers that are to have
// nothing of the prefix (a rule refuses it, it came from themselves, ...) it is withdrawn: their addresses are in a set of the program's, and the first statement
// marks what is marked for LLGR_STALE, which GoBGP withdraws from everybody. Where there is no path left, the stand-in carries that community itself. A route of ours is its own
// stand-in, with a mark.
//
// So no peer loses what it is to have for a moment, and nobody is told of a path that does not exist.

// standIn is whom stand-ins come from: an address that is nobody's (RFC 7600 section 4.8), in an AS that is nobody's (RFC 7300).
var standIn = netip.AddrFrom4([4]byte{192, 0, 0, 8})

const (
	standInAS = math.MaxUint32
	standInID = 1 // path id, to be told apart from our own of the prefix
)

func isStandIn(p *apiutil.Path) bool { return p.PeerAddress == standIn }

const (
	// lookEvery is how often we look for what has come to rest, while anything has not, and for peers that are behind.
	lookEvery = 250 * time.Millisecond
	// settleFor is how long we settle prefixes in one go, but settleLeast at least; then we leave the server alone for restFor times as long, on a machine that is
	// too busy to tell restMost at most.
	settleFor   = 20 * time.Millisecond
	settleLeast = 16
	restFor     = 9
	restMost    = time.Second
)

// lookAfter settles what is unsettled, until ctx ends.
func (s *Speaker) lookAfter(ctx context.Context) {
	var refreshes uint64
	looked, was := time.Now(), false
	for wait := time.Duration(-1); ; {
		var later <-chan time.Time
		if wait >= 0 {
			later = time.After(wait)
		}
		var stir <-chan struct{}
		if wait < 0 || wait > lookEvery {
			stir = s.feed.unrest.stir
		}
		select {
		case <-ctx.Done():
			return
		case <-later:
		case <-stir:
		}
		is := s.anyBehind()
		s.feed.behind(is && was, time.Now()) // not just for a moment
		was = is
		spent := s.settleDue(ctx)
		restless, switched := s.feed.restless(time.Now(), looked)
		if n := time.Now(); switched && n.Sub(looked) >= refreshLook {
			if now := s.refreshes(ctx); now != refreshes {
				refreshes = now
				s.feed.refreshed(looked.Add(-coalescing), n)
			}
			looked = n
		}
		switch {
		case restless:
			wait = max(lookEvery, min(restFor*spent, restMost))
		case switched:
			wait = max(refreshLook-time.Since(looked), lookEvery+1)
		default:
			wait = -1
		}
	}
}

// refreshed has settled what may have been told beside the whole table.
func (f *feed) refreshed(then, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsettleSince(then, now)
}

// refreshes counts how often peers have asked for everything.
func (s *Speaker) refreshes(ctx context.Context) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		_ = s.srv.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) { n += p.GetState().GetMessages().GetReceived().GetRefresh() })
	}
	return n
}

// anyBehind reports whether octets wait for any peer to make room for them.
func (s *Speaker) anyBehind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open, err := os.ReadDir("/proc/self/fd"); s.srv == nil || err != nil || len(open) > maxDescriptors {
		return false
	}
	up := make(map[netip.Addr]struct{})
	for a := range s.feed.routerIDs() {
		up[a] = struct{}{}
	}
	is := false
	s.sockets(up, func(fd int) { is = is || unsent(fd) > 0 })
	return is
}

// routerIDs returns those of the peers that are up.
func (f *feed) routerIDs() map[netip.Addr]netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[netip.Addr]netip.Addr, len(f.sessions))
	for a, s := range f.sessions {
		if s.state == stateEstablished {
			out[a] = s.routerID
		}
	}
	return out
}

// settleDue settles what is due, for settleFor at most, and returns how long it took.
func (s *Speaker) settleDue(ctx context.Context) time.Duration {
	due := s.feed.unsettled(time.Now())
	if len(due) == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return 0
	}
	begin := time.Now()
	ids := s.feed.routerIDs()
	var used []*apiutil.Path
	for i, d := range due {
		if i >= settleLeast && time.Since(begin) > settleFor || ctx.Err() != nil {
			break
		}
		stood, err := s.settle(ctx, d.prefix, ids)
		if err != nil {
			s.opts.Log.Warn("settle what peers are told of a prefix", keyPrefix, d.prefix, keyError, err)
		}
		if stood != nil {
			used = append(used, stood)
		}
		s.feed.settled(d, time.Now())
	}
	if len(used) > 0 {
		_ = s.srv.DeletePath(apiutil.DeletePathRequest{Paths: used}) // they are gone; GoBGP remembers that they were asked for
	}
	return time.Since(begin)
}

// settle settles one prefix, and returns the stand-in.
func (s *Speaker) settle(ctx context.Context, prefix netip.Prefix, ids map[netip.Addr]netip.Addr) (*apiutil.Path, error) {
	var best *apiutil.Path
	req := apiutil.ListPathRequest{TableType: inTable, Family: family(prefix.Addr()), Prefixes: []*apiutil.LookupPrefix{{Prefix: prefix.String()}}}
	err := s.srv.ListPath(req, func(_ gobgp.NLRI, paths []*apiutil.Path) {
		if len(paths) > 0 {
			best = paths[0]
		}
	})
	if err != nil {
		return nil, err
	}
	if best == nil {
		in, err := lastWord(prefix)
		if err != nil {
			return nil, err
		}
		return in, s.comeAndGo(in)
	}
	if s.policy.program == nil {
		return nil, nil // only routes of ours are passed on, by one path each
	}
	mark, err := gobgp.ParseLargeCommunity(s.policy.mark)
	if err != nil {
		return nil, err
	}
	if err := s.setRefusing(ctx, s.notFor(prefix, best, ids)); err != nil {
		return nil, err
	}
	if !best.PeerAddress.IsValid() {
		o, ok := s.originate[prefix]
		if !ok {
			return nil, nil
		}
		marked, err := originated(o)
		if err != nil {
			return nil, err
		}
		again, _ := originated(o)
		marked.Attrs = append(marked.Attrs, gobgp.NewPathAttributeLargeCommunities([]*gobgp.LargeCommunity{mark}))
		_, err = s.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{marked, again}})
		return nil, err
	}
	in := s.standInFor(best, mark)
	return in, s.comeAndGo(in)
}

// comeAndGo adds a path and takes it away.
func (s *Speaker) comeAndGo(in *apiutil.Path) error {
	out := *in
	out.Withdrawal = true
	_, err := s.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{in, &out}})
	return err
}

// lastWord is the stand-in where there is no path: one that nobody is told of.
func lastWord(prefix netip.Prefix) (*apiutil.Path, error) {
	in, err := originated(bgp.Origination{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	stale := bgp.LLGRStale()
	in.Attrs = append(in.Attrs, gobgp.NewPathAttributeCommunities([]uint32{stale.A<<16 | stale.B}))
	in.PeerASN, in.PeerID, in.PeerAddress, in.RemoteID, in.Age = standInAS, standIn, standIn, standInID, 1
	return in, nil
}

// standInFor is the stand-in for a path that was learned. What GoBGP takes from the peer of a path it carries itself, and it has been there for longest. Where our own cluster
// id is in the CLUSTER_LIST it has none: GoBGP would keep it from clients without a word, who hear of it as refused so.
func (s *Speaker) standInFor(best *apiutil.Path, mark *gobgp.LargeCommunity) *apiutil.Path {
	in := &apiutil.Path{
		Family: best.Family, Nlri: best.Nlri, Age: 1, PeerASN: standInAS, PeerID: standIn, PeerAddress: standIn, RemoteID: standInID,
		Attrs: make([]gobgp.PathAttributeInterface, 0, len(best.Attrs)+2),
	}
	var clusters []netip.Addr
	for i := range s.cfg.Peers {
		if p := &s.cfg.Peers[i]; p.Client && !slices.Contains(clusters, p.ClusterID) {
			clusters = append(clusters, p.ClusterID)
		}
	}
	large := []*gobgp.LargeCommunity{mark}
	origin := false
	for _, a := range best.Attrs {
		switch a := a.(type) {
		case *gobgp.PathAttributeLargeCommunities:
			large = append(slices.Clone(a.Values), mark)
			continue
		case *gobgp.PathAttributeClusterList:
			if looped(best.Attrs, clusters) {
				continue
			}
		case *gobgp.PathAttributeOriginatorId:
			origin = true
		}
		in.Attrs = append(in.Attrs, a)
	}
	in.Attrs = append(in.Attrs, gobgp.NewPathAttributeLargeCommunities(large))
	if a, err := gobgp.NewPathAttributeOriginatorId(best.PeerID); err == nil && !origin {
		in.Attrs = append(in.Attrs, a)
	}
	return in
}

// notFor returns the peers that are to have nothing of a prefix with this best path, sorted.
func (s *Speaker) notFor(prefix netip.Prefix, best *apiutil.Path, ids map[netip.Addr]netip.Addr) []netip.Addr {
	path := translate(best, prefix)
	r := bgp.RouteOf(&path)
	if !path.PeerAddr.IsValid() {
		o := s.originate[prefix]
		r = bgp.RouteFrom(&o)
	}
	from, learned := s.peers[path.PeerAddr]
	var out []netip.Addr
	for i := range s.cfg.Peers {
		p := &s.cfg.Peers[i]
		id, up := ids[p.Addr]
		if !up || p.Addr.Is4() != prefix.Addr().Is4() {
			continue
		}
		switch {
		case !learned:
		case p.Addr == path.PeerAddr, id == best.PeerID, slices.Contains(path.ASPath, p.ASN), p.Client && looped(best.Attrs, []netip.Addr{p.ClusterID}),
			!s.cfg.External(p) && !p.Client && !s.cfg.External(&from) && !from.Client,
			ofOtherFamily(prefix, path.NextHop) && keepsNextHops(&s.cfg, p) && !s.feed.takes(p.Addr):
			out = append(out, p.Addr)
			continue
		}
		if _, v := s.cfg.Send(p, r); !v.Accept {
			out = append(out, p.Addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// setRefusing makes the set of the peers from whom stand-ins are withdrawn be this one. It holds one address more that is nobody's: an empty set would hold everybody.
func (s *Speaker) setRefusing(ctx context.Context, peers []netip.Addr) error {
	set := func(a, b []netip.Addr) *api.DefinedSet {
		out := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: s.policy.program.refusers}
		for _, p := range a {
			if _, both := slices.BinarySearchFunc(b, p, netip.Addr.Compare); !both {
				out.List = append(out.List, netip.PrefixFrom(p, p.BitLen()).String())
			}
		}
		return out
	}
	was := s.policy.refusing
	if more := set(peers, was); len(more.List) > 0 {
		if err := s.srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: more}); err != nil {
			return err
		}
	}
	s.policy.refusing = peers
	if less := set(was, peers); len(less.List) > 0 {
		return s.srv.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: less})
	}
	return nil
}

// standIns adds what keeps stand-ins from peers that are to have nothing, and the mark from all others.
func (g *program) standIns() {
	set := g.neighbours([]bgp.Peer{{Addr: standIn}})
	g.refusers = set.Name
	refuse := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	addCommunities(refuse, []bgp.Community{bgp.LLGRStale()})
	marked := g.strings(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, g.mark)
	g.export(&api.Conditions{NeighborSet: set, LargeCommunitySet: marked}, refuse)
	g.export(&api.Conditions{LargeCommunitySet: marked}, &api.Actions{
		LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{g.mark}},
	})
}
