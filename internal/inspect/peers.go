package inspect

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/bgp"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// sortedPeers returns the sessions by name.
func (s *Server) sortedPeers() []*bgp.PeerStatus {
	sorted := pointers(slices.Clone(s.src.Peers()))
	slices.SortFunc(sorted, func(a, b *bgp.PeerStatus) int { return cmp.Or(strings.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr)) })
	return sorted
}

// ListPeers implements caracal.v1.Inspection.
func (s *Server) ListPeers(_ *caracalv1.ListPeersRequest, stream grpc.ServerStreamingServer[caracalv1.ListPeersResponse]) error {
	return batches(mapped(s.sortedPeers(), peerOf), func(b []*caracalv1.Peer) error {
		return stream.Send(&caracalv1.ListPeersResponse{Peers: b})
	})
}

// ListPaths implements caracal.v1.Inspection.
func (s *Server) ListPaths(r *caracalv1.ListPathsRequest, stream grpc.ServerStreamingServer[caracalv1.ListPathsResponse]) error {
	p, err := parseDestination(r.GetPrefix())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return batches(mapped(pointers(s.src.Paths(p)), pathOf), func(b []*caracalv1.Path) error {
		return stream.Send(&caracalv1.ListPathsResponse{Paths: b})
	})
}

// ListPeerRoutes implements caracal.v1.Inspection.
func (s *Server) ListPeerRoutes(r *caracalv1.ListPeerRoutesRequest, stream grpc.ServerStreamingServer[caracalv1.ListPeerRoutesResponse]) error {
	within, err := parsePrefix("within", r.GetWithin())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	peer, err := s.peerNamed(r.GetPeer())
	if err != nil {
		return err
	}
	var d bgp.Direction
	switch r.GetDirection() {
	case caracalv1.ListPeerRoutesRequest_DIRECTION_RECEIVED:
		d = bgp.FromPeer
	case caracalv1.ListPeerRoutesRequest_DIRECTION_ADVERTISED:
		d = bgp.ToPeer
	default:
		return status.Errorf(codes.InvalidArgument, "direction %d: want received or advertised", r.GetDirection())
	}
	list, err := s.src.PeerRoutes(peer, d, within)
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if r.GetRefused() {
		list = slices.DeleteFunc(list, func(x bgp.Exchanged) bool { return x.After != nil })
	}
	return batches(mapped(pointers(list), peerRouteOf), func(b []*caracalv1.PeerRoute) error {
		return stream.Send(&caracalv1.ListPeerRoutesResponse{Routes: b})
	})
}

// peerNamed returns the address of the session with that name or address.
func (s *Server) peerNamed(name string) (netip.Addr, error) {
	if name == "" {
		return netip.Addr{}, status.Error(codes.InvalidArgument, "peer: want the name or address of a session")
	}
	for _, p := range s.src.Peers() {
		if p.Name == name || p.Addr.String() == name {
			return p.Addr, nil
		}
	}
	return netip.Addr{}, status.Errorf(codes.NotFound, "peer %q: no session has that name or address; caracal peers lists them", name)
}

// WatchPeers implements caracal.v1.Inspection.
func (s *Server) WatchPeers(_ *caracalv1.WatchPeersRequest, stream grpc.ServerStreamingServer[caracalv1.WatchPeersResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	wake := make(chan struct{}, 1)
	go s.src.WatchPeers(ctx, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	sent := make(map[netip.Addr]*caracalv1.Peer)
	for synced := false; ; synced = true {
		events := s.peerEvents(sent)
		if err := batches(slices.Values(events), func(b []*caracalv1.PeerEvent) error {
			return stream.Send(&caracalv1.WatchPeersResponse{Events: b})
		}); err != nil {
			return err
		}
		if !synced {
			if err := stream.Send(&caracalv1.WatchPeersResponse{Synced: true}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.stop:
			return stopping()
		case <-wake:
		}
	}
}

// peerEvents returns what is not as it was sent last, and notes it as sent.
func (s *Server) peerEvents(sent map[netip.Addr]*caracalv1.Peer) []*caracalv1.PeerEvent {
	var events []*caracalv1.PeerEvent
	there := make(map[netip.Addr]bool)
	for _, p := range s.sortedPeers() {
		there[p.Addr] = true
		m := peerOf(p)
		plain := withoutCounters(m)
		if proto.Equal(sent[p.Addr], plain) {
			continue
		}
		sent[p.Addr] = plain
		events = append(events, &caracalv1.PeerEvent{Peer: m})
	}
	for _, a := range slices.SortedFunc(maps.Keys(sent), netip.Addr.Compare) {
		if m := sent[a]; !there[a] {
			delete(sent, a)
			events = append(events, &caracalv1.PeerEvent{Removed: true, Peer: &caracalv1.Peer{Name: m.GetName(), Address: m.GetAddress()}})
		}
	}
	return events
}

// withoutCounters returns a copy without what changes all the time.
func withoutCounters(m *caracalv1.Peer) *caracalv1.Peer {
	c := proto.CloneOf(m)
	c.Received, c.Advertised, c.Looped, c.MessagesSent, c.MessagesReceived, c.LastErrorTime = 0, 0, 0, nil, nil, nil
	if c.Bfd != nil {
		c.Bfd.Sent, c.Bfd.Received = 0, 0
	}
	return c
}

func peerOf(p *bgp.PeerStatus) *caracalv1.Peer {
	m := &caracalv1.Peer{
		Name: p.Name, Address: addrText(p.Addr), Port: uint32(p.Port), Asn: p.ASN, LocalAddress: addrText(p.LocalAddr),
		Passive: p.Passive, Source: p.Source, Node: p.Node, State: sessionStateOf(p.State), Since: timeOf(p.Since),
		LastError: p.LastError, Received: count(p.Received), Advertised: count(p.Advertised),
		EndOfRib: p.EndOfRIB, Restarting: p.Restarting, RestartTime: durationOf(p.RestartTime),
		LastSent: notificationOf(&p.LastSent), LastReceived: notificationOf(&p.LastReceived), OurAsn: p.OurASN, RouterId: addrText(p.RouterID),
		OurCapabilities: p.OurCapabilities, TheirCapabilities: p.TheirCapabilities, HoldTime: durationOf(p.HoldTime),
		Ups: count(p.Ups), Looped: count(p.Looped), MessagesSent: messagesOf(&p.SentMessages), MessagesReceived: messagesOf(&p.ReceivedMessages),
		Remedy: bgp.Remedy(p), Held: p.Held, LastErrorTime: timeOf(p.ErrorAt), KeptUntil: timeOf(p.KeptUntil), RetryTime: timeOf(p.RetryAt),
		Password: p.Password != "", TtlSecurity: uint32(p.TTLSecurity), MaxPrefixes: p.MaxPrefixes, Client: p.Client,
	}
	if b := p.Path; b != nil {
		m.Bfd = &caracalv1.BFD{State: b.State, Since: timeOf(b.Since), Interval: durationpb.New(b.Interval), Detection: durationpb.New(b.Detection),
			Diagnostic: b.Diag, RemoteDiagnostic: b.RemoteDiag, Downs: count(b.Downs), Error: b.Err,
			RemoteState: b.RemoteState, Multihop: b.Multihop, Sent: b.Sent, Received: b.Received}
	}
	return m
}

func count(n int) uint32 { return uint32(max(n, 0)) }

// durationOf leaves out what is not known.
func durationOf(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}

func notificationOf(n *bgp.Notification) *caracalv1.Notification {
	if n.At.IsZero() {
		return nil
	}
	name := *n
	name.Reason = ""
	return &caracalv1.Notification{Code: uint32(n.Code), Subcode: uint32(n.Subcode), Name: name.String(), Reason: n.Reason, Time: timeOf(n.At)}
}

func messagesOf(m *bgp.Messages) *caracalv1.Messages {
	if *m == (bgp.Messages{}) {
		return nil
	}
	return &caracalv1.Messages{Open: m.Open, Update: m.Update, Keepalive: m.Keepalive, Notification: m.Notification, RouteRefresh: m.RouteRefresh, Withdrawn: m.Withdrawn}
}

func pathOf(c *bgp.Candidate) *caracalv1.Path {
	m := &caracalv1.Path{
		Prefix: c.Prefix.String(), Peer: c.Peer, PeerAddress: addrText(c.PeerAddr), NextHop: addrText(c.NextHop), LocalPref: c.LocalPref, Med: c.MED,
		AsPath: c.ASPath, Origin: c.Origin.String(), Stale: c.Stale, Best: c.Best, Local: c.Local, External: c.External, PathId: c.ID,
		RouterId: routerIDText(c.RouterID), OriginatorId: addrText(c.OriginatorID), Since: timeOf(c.Since), Lost: c.Lost, Refused: c.Refused,
	}
	for _, x := range c.Communities {
		m.Communities = append(m.Communities, x.String())
	}
	for _, a := range c.ClusterList {
		m.ClusterList = append(m.ClusterList, addrText(a))
	}
	return m
}

// routerIDText leaves out that of our own paths.
func routerIDText(id [4]byte) string {
	if id == [4]byte{} {
		return ""
	}
	return netip.AddrFrom4(id).String()
}

func peerRouteOf(x *bgp.Exchanged) *caracalv1.PeerRoute {
	m := &caracalv1.PeerRoute{Before: pathOf(&x.Before), By: x.By}
	if x.After != nil {
		m.After = pathOf(x.After)
	}
	return m
}
