package health

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// daemon answers as a caracald in a given state does.
type daemon struct {
	caracalv1.UnimplementedInspectionServer
	status caracalv1.GetStatusResponse
	peers  []*caracalv1.Peer
	asked  bool // about peers
}

func (d *daemon) GetStatus(context.Context, *caracalv1.GetStatusRequest) (*caracalv1.GetStatusResponse, error) {
	return &d.status, nil
}

func (d *daemon) ListPeers(_ *caracalv1.ListPeersRequest, s grpc.ServerStreamingServer[caracalv1.ListPeersResponse]) error {
	d.asked = true
	for _, p := range d.peers { // one a message, as a long list comes in several
		if err := s.Send(&caracalv1.ListPeersResponse{Peers: []*caracalv1.Peer{p}}); err != nil {
			return err
		}
	}
	return nil
}

// serve runs the daemon on a socket until the test ends.
func (d *daemon) serve(t *testing.T) (socket string) {
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g, h := grpc.NewServer(), health.NewServer()
	if !d.status.GetReadiness().GetReady() {
		h.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(g, h)
	caracalv1.RegisterInspectionServer(g, d)
	go g.Serve(l) // its error is that it was stopped
	t.Cleanup(g.Stop)
	return socket
}

func TestAsk(t *testing.T) {
	live, ready := Question{Live: true}, Question{Ready: true, Threshold: DefaultThreshold}
	const fresh, old = time.Second, time.Hour
	for _, c := range []struct {
		name    string
		q       Question
		backend string
		age     time.Duration
		waits   string // what the daemon says that it waits for
		peers   string // a letter a session: u established, d down
		syncing bool   // BGP waits for End-of-RIB
		want    string // a part of the reason, "" for yes
		bgp     bool   // peers are asked for
	}{
		{name: "nothing asked", want: "--live"},
		{name: "alive though not ready", q: live, backend: "bird", waits: "datastore"},
		{name: "the daemon is not ready", q: ready, backend: "bird", age: old, waits: "the datastore", want: "waiting for the datastore"},
		{name: "ready", q: ready, backend: "bird", age: old, peers: "uu", bgp: true},
		{name: "without peers", q: ready, backend: "bird", age: fresh, bgp: true, syncing: true},
		{name: "one of two, early", q: ready, backend: "bird", age: fresh, peers: "ud", want: "BGP not established with 192.0.2.2", bgp: true},
		{name: "one of two, late", q: ready, backend: "bird", age: old, peers: "ud", bgp: true},
		{name: "none of two, late", q: ready, backend: "bird", age: old, peers: "dd", want: "with 192.0.2.1,192.0.2.2", bgp: true},
		{name: "very many", q: ready, backend: "bird", age: old, peers: "ddddddd", want: "192.0.2.5 and 2 more", bgp: true},
		{name: "graceful restart, early", q: ready, backend: "bird", age: fresh, peers: "uu", syncing: true, want: "restarting gracefully", bgp: true},
		{name: "graceful restart, late", q: ready, backend: "bird", age: old, peers: "uu", syncing: true, bgp: true},
		{name: "vxlan asks nothing of BGP", q: ready, backend: "vxlan", age: fresh, peers: "dd"},
		{name: "none asks nothing of BGP", q: ready, backend: "none", age: fresh, peers: "dd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &daemon{}
			d.status.Backend = c.backend
			d.status.Started = timestamppb.New(time.Now().Add(-c.age))
			d.status.Readiness = &caracalv1.Readiness{Ready: c.waits == ""}
			if c.waits != "" {
				d.status.Readiness.WaitingFor = []string{c.waits}
			}
			d.status.Sources = []*caracalv1.Source{{Name: "datastore", InSync: true}, {Name: "bgp", InSync: !c.syncing}}
			for i, letter := range c.peers {
				p := &caracalv1.Peer{Address: "192.0.2." + string(rune('1'+i)), State: caracalv1.SessionState_SESSION_STATE_ACTIVE}
				if letter == 'u' {
					p.State = caracalv1.SessionState_SESSION_STATE_ESTABLISHED
				}
				d.peers = append(d.peers, p)
			}
			err := Ask(t.Context(), d.serve(t), c.q)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want a word of %q", err, c.want)
			}
			if d.asked != c.bgp {
				t.Errorf("peers were asked for: %v, want %v", d.asked, c.bgp)
			}
		})
	}
}

func TestAskNobody(t *testing.T) {
	err := Ask(t.Context(), filepath.Join(t.TempDir(), "nobody"), Question{Live: true})
	if err == nil || !strings.Contains(err.Error(), "not live") {
		t.Error(err)
	}
}

// A daemon that accepts and never answers is not alive.
func TestAskStuck(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Ask(ctx, socket, Question{Live: true}); err == nil {
		t.Error("a stuck daemon is called live")
	}
}
