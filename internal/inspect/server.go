package inspect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/bgp"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// stopPatience is how long Serve waits for calls under way once its context ends; readers get a clean end of their
// stream within it, and whoever does not read costs no more.
const stopPatience = time.Second

// Server implements caracal.v1 and grpc.health.v1 over Sources. Its methods may be called from any goroutine.
type Server struct {
	caracalv1.UnimplementedInspectionServer
	caracalv1.UnimplementedControlServer

	src     Sources
	health  *health.Server
	pending int // routes a watch may lag behind before its reader starts over

	stop     chan struct{} // closed when streams must end
	stopOnce sync.Once
}

// NewServer returns a Server over the sources. A source that must be set and is not is a programmer's error.
func NewServer(src Sources) *Server {
	if src.Backend == nil || src.State == nil || src.Status == nil || src.Routes == nil || src.Counts == nil ||
		src.WatchRoutes == nil || src.Lookup == nil || src.Resync == nil {
		panic("inspect.NewServer: a source is missing")
	}
	if src.Release == nil {
		src.Release = func() string { return "" }
	}
	if src.VTEPs == nil {
		src.VTEPs = func() []VTEP { return nil }
	}
	if src.Paths == nil {
		src.Paths = func(netip.Prefix) []bgp.Candidate { return nil }
	}
	if src.WatchPeers == nil {
		src.WatchPeers = func(ctx context.Context, _ func()) { <-ctx.Done() }
	}
	if src.PeerRoutes == nil {
		src.PeerRoutes = func(netip.Addr, bgp.Direction, netip.Prefix) ([]bgp.Exchanged, error) { return nil, nil }
	}
	if src.Peers == nil {
		src.Peers = func() []bgp.PeerStatus { return nil }
	}
	s := &Server{src: src, health: health.NewServer(), pending: watchPending, stop: make(chan struct{})}
	s.ReadyChanged()
	return s
}

// Register registers caracal.v1, grpc.health.v1 and reflection.
func (s *Server) Register(g *grpc.Server) {
	caracalv1.RegisterInspectionServer(g, s)
	caracalv1.RegisterControlServer(g, s)
	grpc_health_v1.RegisterHealthServer(g, healthServer{Server: s.health, refresh: s.ReadyChanged})
	reflection.Register(g)
}

// Serve answers on l until ctx ends, and closes l. Streams under way are ended, not waited for.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer()
	s.Register(g)
	failed := make(chan error, 1)
	go func() { failed <- g.Serve(l) }()
	select {
	case err := <-failed:
		if err != nil {
			return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
		}
		return nil
	case <-ctx.Done():
	}
	s.Stop()
	timer := time.AfterFunc(stopPatience, g.Stop)
	defer timer.Stop()
	g.GracefulStop()
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	return nil
}

// Stop ends every watch and reports the node as not serving. The grpc.Server is its owner's to stop.
func (s *Server) Stop() {
	s.stopOnce.Do(func() {
		close(s.stop)
		s.health.Shutdown()
	})
}

// ReadyChanged takes over the readiness as grpc.health.v1 serving status. The daemon calls it when readiness may
// have changed, so that those who watch the health hear of it; a health check looks for itself.
func (s *Server) ReadyChanged() {
	serving := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if s.src.Status().Ready {
		serving = grpc_health_v1.HealthCheckResponse_SERVING
	}
	for _, name := range []string{"", caracalv1.Inspection_ServiceDesc.ServiceName, caracalv1.Control_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, serving)
	}
}

// healthServer looks before it answers a single check.
type healthServer struct {
	*health.Server
	refresh func()
}

func (h healthServer) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.refresh()
	return h.Server.Check(ctx, r)
}

func (h healthServer) List(ctx context.Context, r *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	h.refresh()
	return h.Server.List(ctx, r)
}

// Resync implements caracal.v1.Control.
func (s *Server) Resync(ctx context.Context, _ *caracalv1.ResyncRequest) (*caracalv1.ResyncResponse, error) {
	start := time.Now()
	if err := s.src.Resync(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Errorf(codes.Internal, "resync: %v", err)
	}
	return &caracalv1.ResyncResponse{Took: durationpb.New(time.Since(start))}, nil
}

// Release implements caracal.v1.Control.
func (s *Server) Release(context.Context, *caracalv1.ReleaseRequest) (*caracalv1.ReleaseResponse, error) {
	return &caracalv1.ReleaseResponse{Released: s.src.Release()}, nil
}

// Explain implements caracal.v1.Inspection.
func (s *Server) Explain(ctx context.Context, r *caracalv1.ExplainRequest) (*caracalv1.ExplainResponse, error) {
	addr, err := parseAddr(r.GetAddress())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return explain(ctx, &s.src, addr), nil
}
