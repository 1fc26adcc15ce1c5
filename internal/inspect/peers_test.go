package inspect

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caracal-net/caracal/bgp"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// contested is a prefix with a path of every fate.
func contested() []bgp.Candidate {
	p := pfx("10.66.0.0/26")
	from := func(peer, a string, c bgp.Candidate) bgp.Candidate {
		c.Prefix, c.Peer, c.PeerAddr, c.NextHop, c.RouterID, c.Since = p, peer, addr(a), addr(a), addr(a).As4(), ago(5*time.Minute)
		return c
	}
	return []bgp.Candidate{
		from("Mesh_192_0_2_6", "192.0.2.6", bgp.Candidate{Path: bgp.Path{LocalPref: 2147482623, Best: true}}),
		from("Mesh_192_0_2_7", "192.0.2.7", bgp.Candidate{Path: bgp.Path{LocalPref: 2147482623, Best: true, Stale: true},
			OriginatorID: addr("192.0.2.70"), ClusterList: []netip.Addr{addr("244.0.0.1")}}),
		from("Global_198_51_100_1", "198.51.100.1", bgp.Candidate{Path: bgp.Path{LocalPref: 100, MED: 7, ID: 3, ASPath: []uint32{65001, 65002},
			Communities: []bgp.Community{{A: 65001, B: 100}, {Large: true, A: 65001, B: 1, C: 2}}}, External: true, Origin: bgp.OriginIncomplete, Lost: "LOCAL_PREF 100 is lower than 2147482623"}),
		from("Global_198_51_100_2", "198.51.100.2", bgp.Candidate{Path: bgp.Path{LocalPref: 100, ASPath: []uint32{65001}}, External: true, Refused: true, Lost: "BGPFilter tor spec.importV4[1]"}),
	}
}

// peerRoutes is what goes between us and any peer.
func (w *world) peerRoutes(_ netip.Addr, d bgp.Direction, within netip.Prefix) ([]bgp.Exchanged, error) {
	all := contested()
	sent := all[2]
	sent.LocalPref, sent.NextHop, sent.Communities = 50, addr("192.0.2.5"), nil
	list := []bgp.Exchanged{{Before: all[0], After: &all[0], By: "own block"}, {Before: all[2], After: &sent, By: "BGPFilter tor spec.exportV4[0]"},
		{Before: all[3], By: "outside every pool and service range"}}
	if d == bgp.FromPeer {
		list = list[:1]
	}
	return slices.DeleteFunc(list, func(x bgp.Exchanged) bool { return within.IsValid() && !within.Overlaps(x.Before.Prefix) }), nil
}

func TestListPeerRoutes(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w)
	client := caracalv1.NewInspectionClient(conn)
	const sent, got = caracalv1.ListPeerRoutesRequest_DIRECTION_ADVERTISED, caracalv1.ListPeerRoutesRequest_DIRECTION_RECEIVED
	name, address := w.peers[0].Name, w.peers[0].Addr.String()
	for _, c := range []struct {
		req  *caracalv1.ListPeerRoutesRequest
		want int
		code codes.Code
	}{
		{&caracalv1.ListPeerRoutesRequest{Peer: name, Direction: sent}, 3, codes.OK},
		{&caracalv1.ListPeerRoutesRequest{Peer: address, Direction: got}, 1, codes.OK},
		{&caracalv1.ListPeerRoutesRequest{Peer: address, Direction: sent, Refused: true}, 1, codes.OK},
		{&caracalv1.ListPeerRoutesRequest{Peer: address, Direction: sent, Within: "10.1.0.0/16"}, 0, codes.OK},
		{&caracalv1.ListPeerRoutesRequest{Peer: "nobody", Direction: sent}, 0, codes.NotFound},
		{&caracalv1.ListPeerRoutesRequest{Direction: sent}, 0, codes.InvalidArgument},
		{&caracalv1.ListPeerRoutesRequest{Peer: name}, 0, codes.InvalidArgument},
		{&caracalv1.ListPeerRoutesRequest{Peer: name, Direction: sent, Within: "10.1.1.1/16"}, 0, codes.InvalidArgument},
	} {
		stream, err := client.ListPeerRoutes(t.Context(), c.req)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for err == nil {
			var m *caracalv1.ListPeerRoutesResponse
			if m, err = stream.Recv(); err == nil {
				n += len(m.Routes)
			}
		}
		if code := status.Code(err); n != c.want || c.code != codes.OK && code != c.code {
			t.Errorf("%v: %d routes, %v", c.req, n, err)
		}
	}
}

// sessions is a Speaker that changes.
type sessions struct {
	mu      sync.Mutex
	list    []bgp.PeerStatus
	changed func()
}

func (s *sessions) set(list ...bgp.PeerStatus) {
	s.mu.Lock()
	s.list = list
	ring := s.changed
	s.mu.Unlock()
	ring()
}

// TestWatchPeers: what there is, a mark, and then each change but those of counters; what falls between the first list and the
// subscription is not lost.
func TestWatchPeers(t *testing.T) {
	peer := func(n byte, state bgp.SessionState, received int) bgp.PeerStatus {
		a := netip.AddrFrom4([4]byte{192, 0, 2, n})
		return bgp.PeerStatus{Peer: bgp.Peer{Name: "Mesh_" + a.String(), Addr: a}, State: state, Received: received}
	}
	s := &sessions{list: []bgp.PeerStatus{peer(1, "Active", 0), peer(2, "Active", 0)}}
	src := testWorld().sources()
	src.Peers = func() []bgp.PeerStatus {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Clone(s.list)
	}
	first := make(chan struct{})
	src.WatchPeers = func(ctx context.Context, changed func()) {
		<-first // late
		s.mu.Lock()
		s.changed = changed
		s.list = []bgp.PeerStatus{peer(1, "Established", 0), peer(2, "Active", 0)}
		s.mu.Unlock()
		changed()
		<-ctx.Done()
	}
	conn, server := serveSources(t, src)
	stream, err := caracalv1.NewInspectionClient(conn).WatchPeers(t.Context(), &caracalv1.WatchPeersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want ...string) {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range m.Events {
			sign := "+"
			if e.Removed {
				sign = "-"
			}
			got = append(got, sign+e.Peer.Name+" "+sessionWord(e.Peer.State))
		}
		if m.Synced {
			got = append(got, "synced")
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	next("+Mesh_192.0.2.1 Active", "+Mesh_192.0.2.2 Active")
	next("synced")
	close(first)
	next("+Mesh_192.0.2.1 Established")
	s.set(peer(1, "Established", 1000), peer(2, "Active", 7))
	s.set(peer(1, "Established", 1000), peer(2, "Connect", 7), peer(3, "Idle", 0))
	next("+Mesh_192.0.2.2 Connect", "+Mesh_192.0.2.3 Idle")
	s.set(peer(2, "Connect", 7))
	next("-Mesh_192.0.2.1 unknown", "-Mesh_192.0.2.3 unknown")
	server.Stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

// TestRemediesOfMany: what is wrong with many sessions is said once.
func TestRemediesOfMany(t *testing.T) {
	var list []*caracalv1.Peer
	for _, p := range [][2]string{{"a", "x"}, {"b", ""}, {"c", "y"}, {"d", "x"}, {"e", "x"}, {"f", "x"}, {"g", "x"}, {"h", "y"}} {
		list = append(list, &caracalv1.Peer{Name: p[0], Remedy: p[1]})
	}
	want := []remedy{{"a, d, e and 2 more", "x"}, {"c, h", "y"}}
	if got := remedies(list); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
