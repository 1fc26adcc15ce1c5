package gobgp

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/caracal-net/caracal/bgp"
)

// watch has the server call us. One watcher takes all three kinds, so that End-of-RIB stays behind the paths before it.
func (s *Speaker) watch(ctx context.Context, srv *server.BgpServer, gen int) error {
	return srv.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, at time.Time) {
			s.feed.lag.hear(at, time.Now())
			s.feed.learn(gen, paths, at)
		},
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			s.feed.endOfRIB(gen, p.PeerAddress, p.Family)
		},
		OnPeerUpdate: func(ev *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
			if ev.Type == apiutil.PEER_EVENT_STATE {
				s.feed.state(gen, &ev.Peer, at)
			}
		},
	}, server.WatchBestPath(true), server.WatchEor(false), server.WatchPeer())
}

// translate turns a path into our words; the peer's name is left open.
func translate(p *apiutil.Path, prefix netip.Prefix) bgp.Path {
	out := bgp.Path{Prefix: prefix, PeerAddr: p.PeerAddress, ID: p.RemoteID, RouterID: routerID(p), Stale: p.Stale, Best: p.Best}
	new(attributes).fill(&out, p.Attrs)
	return out
}

// routerID is the router id of the peer that a path came from.
func routerID(p *apiutil.Path) [4]byte {
	if !p.PeerID.Is4() {
		return [4]byte{}
	}
	return p.PeerID.As4()
}

// attributes translates path attributes. It remembers the last ones: GoBGP shares them between the prefixes of one UPDATE, and so do we.
type attributes struct {
	from []gobgp.PathAttributeInterface
	path bgp.Path
}

// fill translates into a path. Its next hop may be in an attribute that names the prefix too and is shared by none (RFC 4760 section 3).
func (a *attributes) fill(out *bgp.Path, from []gobgp.PathAttributeInterface) {
	if !sameAttributes(a.from, from) {
		a.from, a.path = from, readAttributes(from)
	}
	out.NextHop, out.LocalPref, out.MED, out.ASPath, out.Communities = a.path.NextHop, a.path.LocalPref, a.path.MED, a.path.ASPath, a.path.Communities
	for _, attr := range from {
		if reach, ok := attr.(*gobgp.PathAttributeMpReachNLRI); ok {
			out.NextHop = reachedBy(reach)
		}
	}
}

// sameAttributes reports whether two lists hold the same objects, but for those that name a prefix.
func sameAttributes(a, b []gobgp.PathAttributeInterface) bool {
	if len(a) != len(b) || len(a) == 0 {
		return false
	}
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		_, x := a[i].(*gobgp.PathAttributeMpReachNLRI)
		_, y := b[i].(*gobgp.PathAttributeMpReachNLRI)
		if !x || !y {
			return false
		}
	}
	return true
}

// readAttributes turns attributes into a path that has nothing else.
func readAttributes(attrs []gobgp.PathAttributeInterface) bgp.Path {
	out := bgp.Path{LocalPref: 100} // RFC 4271 names no default; 100 is everybody's
	for _, a := range attrs {
		switch a := a.(type) {
		case *gobgp.PathAttributeNextHop:
			out.NextHop = a.Value.Unmap()
		case *gobgp.PathAttributeLocalPref:
			out.LocalPref = a.Value
		case *gobgp.PathAttributeMultiExitDisc:
			out.MED = a.Value
		case *gobgp.PathAttributeAsPath:
			for _, seg := range a.Value {
				out.ASPath = append(out.ASPath, seg.GetAS()...)
			}
		case *gobgp.PathAttributeCommunities:
			for _, c := range a.Value {
				out.Communities = addOnce(out.Communities, bgp.Community{A: c >> 16, B: c & 0xffff})
			}
		case *gobgp.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				out.Communities = addOnce(out.Communities, bgp.Community{Large: true, A: c.ASN, B: c.LocalData1, C: c.LocalData2})
			}
		}
	}
	return out
}

// reachedBy returns the next hop of an MP_REACH_NLRI, the global one if there are two (RFC 2545). That of an IPv6 prefix may stand for an IPv4 address; where an
// IPv4 prefix has such a one, nothing says what it would mean (RFC 8950).
func reachedBy(a *gobgp.PathAttributeMpReachNLRI) netip.Addr {
	if a.AFI == gobgp.AFI_IP6 {
		return a.Nexthop.Unmap()
	}
	return a.Nexthop
}

// nextHopOf returns the next hop among attributes.
func nextHopOf(attrs []gobgp.PathAttributeInterface) (gw netip.Addr) {
	for _, a := range attrs {
		switch a := a.(type) {
		case *gobgp.PathAttributeNextHop:
			gw = a.Value.Unmap()
		case *gobgp.PathAttributeMpReachNLRI:
			return reachedBy(a)
		}
	}
	return gw
}

// addOnce adds a member to a set.
func addOnce(set []bgp.Community, c bgp.Community) []bgp.Community {
	if slices.Contains(set, c) {
		return set
	}
	return append(set, c)
}
