package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// DefaultThreshold is how long after its start a daemon must have all sessions to be ready (calico-node: --threshold-time).
const DefaultThreshold = 30 * time.Second

// Question is what to ask.
type Question struct {
	Live, Ready bool
	// Threshold is the time after the daemon's start in which every session must be established.
	Threshold time.Duration
}

// Ask asks the daemon at a unix socket. The error says what is wrong, in words for whoever reads the pod's events.
func Ask(ctx context.Context, socket string, q Question) error {
	if !q.Live && !q.Ready {
		return errors.New("ask something: --live, --ready or both")
	}
	conn, err := grpc.NewClient("passthrough:///caracald", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		return fmt.Errorf("ask %s: %w", socket, err)
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("not live: the daemon does not answer at %s: %w", socket, err)
	}
	if !q.Ready {
		return nil
	}
	client := caracalv1.NewInspectionClient(conn)
	st, err := client.GetStatus(ctx, &caracalv1.GetStatusRequest{})
	if err != nil {
		return fmt.Errorf("not ready: status: %w", err)
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("not ready: waiting for %s", strings.Join(st.GetReadiness().GetWaitingFor(), "; "))
	}
	if st.GetBackend() != "bird" {
		return nil
	}
	peers, err := peers(ctx, client)
	if err != nil {
		return fmt.Errorf("not ready: peers: %w", err)
	}
	if why := waiting(st, peers, time.Since(st.GetStarted().AsTime()) < q.Threshold); why != "" {
		return errors.New("not ready: " + why)
	}
	return nil
}

func peers(ctx context.Context, client caracalv1.InspectionClient) (list []*caracalv1.Peer, err error) {
	stream, err := client.ListPeers(ctx, &caracalv1.ListPeersRequest{})
	if err != nil {
		return nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, m.GetPeers()...)
	}
}

// mostNamed bounds how many peers a probe's message names: a node of a large mesh may miss thousands.
const mostNamed = 5

// waiting says what keeps BGP from being ready, nothing when it is.
func waiting(st *caracalv1.GetStatusResponse, peers []*caracalv1.Peer, fresh bool) string {
	var down []string
	for _, p := range peers {
		if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED {
			down = append(down, p.GetAddress())
		}
	}
	if len(down) > 0 && (fresh || len(down) == len(peers)) {
		more := ""
		if n := len(down) - mostNamed; n > 0 {
			down, more = down[:mostNamed], fmt.Sprintf(" and %d more", n)
		}
		return "BGP not established with " + strings.Join(down, ",") + more
	}
	if !fresh || len(peers) == 0 {
		return ""
	}
	for _, s := range st.GetSources() {
		if s.GetName() == "bgp" && !s.GetInSync() {
			return "BGP is restarting gracefully: " + s.GetDetail()
		}
	}
	return ""
}
