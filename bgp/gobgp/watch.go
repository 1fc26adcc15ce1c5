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
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) {
			changes := make([]news, 0, len(paths))
			for _, p := range paths {
				if n, ok := heard(p); ok {
					changes = append(changes, n)
				}
			}
			if len(changes) > 0 {
				s.feed.learn(gen, changes)
			}
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

// heard translates a path of a peer. False for our own paths, and for anything but unicast.
func heard(p *apiutil.Path) (news, bool) {
	if p == nil || !p.PeerAddress.IsValid() {
		return news{}, false
	}
	prefix := prefixOf(p.Nlri)
	if !prefix.IsValid() {
		return news{}, false
	}
	n := news{prefix: prefix, from: origin{pathKey{p.PeerAddress, p.RemoteID}, p.PeerID}, withdraw: p.Withdrawal || p.IsNexthopInvalid}
	if !n.withdraw {
		n.path = translate(p, prefix)
	}
	return n, true
}

// translate turns a path into our words; the peer's name is left open.
func translate(p *apiutil.Path, prefix netip.Prefix) bgp.Path {
	out := bgp.Path{Prefix: prefix, PeerAddr: p.PeerAddress, LocalPref: 100, Stale: p.Stale, Best: p.Best} // RFC 4271 names no default; 100 is everybody's
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *gobgp.PathAttributeNextHop:
			out.NextHop = a.Value
		case *gobgp.PathAttributeMpReachNLRI:
			out.NextHop = a.Nexthop
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
	out.NextHop = out.NextHop.Unmap()
	return out
}

// addOnce adds a member to a set.
func addOnce(set []bgp.Community, c bgp.Community) []bgp.Community {
	if slices.Contains(set, c) {
		return set
	}
	return append(set, c)
}
