package inspect

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// TestPlanAndDiffOfBGP: what the daemon foresees arrives whole, and errors with the code that says whose fault they are.
func TestPlanAndDiffOfBGP(t *testing.T) {
	w := testWorld()
	problem := []cluster.Problem{{Object: "BGPPeer p", Field: "spec.peerIP", Text: "is missing"}}
	p := netip.MustParsePrefix
	w.planBGP = func(node string) (bgp.Config, []cluster.Problem, error) {
		if node != "node-a" {
			return bgp.Config{}, nil, errors.New("the datastore has no node " + node)
		}
		return bgp.Config{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.1"), ListenPort: 179, Sources: map[string]string{"asNumber": "BGPConfiguration default spec.asNumber"},
			Peers: []bgp.Peer{{Name: "Mesh_192_0_2_2", Addr: netip.MustParseAddr("192.0.2.2"), Port: 179, ASN: 64512, Source: "Node b (mesh)"}}}, problem, nil
	}
	w.diffBGP = func(node, manifests string, deletions []string) (bgp.Difference, []cluster.Problem, error) {
		switch {
		case manifests == "bad":
			return bgp.Difference{}, nil, errors.New("manifests: not YAML")
		case len(deletions) == 0:
			return bgp.Difference{}, nil, nil
		}
		return bgp.Difference{Restart: []string{"AS number 1 -> 2"}, Added: []string{"Global_1"}, Removed: []string{"Mesh_2"}, Reset: []bgp.Reset{{Peer: "Mesh_3", Why: []string{"password", "port"}}},
			Down: []bgp.Reset{{Peer: "Mesh_5", Why: []string{"Secret bgp does not exist"}}}, Elected: []bgp.Reflector{{Node: "b", Zone: "z", Why: "number 1 of 2"}}, Relieved: []bgp.Reflector{{Node: "c"}},
			Received: []bgp.PeerDifference{{Peer: "Mesh_4", Vanish: []netip.Prefix{p("10.6.0.0/26")}}},
			Refresh:  []bgp.Reset{{Peer: "Mesh_4", Why: []string{"import rules"}}}, Appear: []netip.Prefix{p("10.1.0.0/26")}, Vanish: []netip.Prefix{p("10.2.0.0/26"), p("fd00::/64")},
			Peers: []bgp.PeerDifference{{Peer: "Mesh_4", Appear: []netip.Prefix{p("10.3.0.0/26")}, Vanish: []netip.Prefix{p("10.4.0.0/26")}, Changed: []netip.Prefix{p("10.5.0.0/26")}}}}, problem, nil
	}
	conn, _ := serve(t, w)
	client := caracalv1.NewInspectionClient(conn)
	plan, err := client.PlanBGP(t.Context(), &caracalv1.PlanBGPRequest{})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := client.DiffBGP(t.Context(), &caracalv1.DiffBGPRequest{Deletions: []string{"BGPPeer/x"}})
	if err != nil {
		t.Fatal(err)
	}
	none, err := client.DiffBGP(t.Context(), &caracalv1.DiffBGPRequest{Node: "node-b"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	r := Renderer{}
	for _, err := range []error{r.PlanBGP(&b, plan), r.DiffBGP(&b, whole), r.DiffBGP(&b, none)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "render/bgp.txt", b.Bytes())
	if _, err := client.PlanBGP(t.Context(), &caracalv1.PlanBGPRequest{Node: "node-z"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if _, err := client.DiffBGP(t.Context(), &caracalv1.DiffBGPRequest{Manifests: "bad"}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

// TestBFDOfPeers: a person reads how fast a dead path would be found, or what was wrong.
func TestBFDOfPeers(t *testing.T) {
	for _, c := range []struct {
		path bgp.PathStatus
		want string
	}{
		{bgp.PathStatus{State: "Up", Detection: 150 * time.Millisecond, Diag: "No Diagnostic"}, "BFD Up (finds a dead path in 150ms)"},
		{bgp.PathStatus{State: "Up", Detection: time.Second, Downs: 2}, "BFD Up (finds a dead path in 1s), was down 2 times"},
		{bgp.PathStatus{State: "Down", Diag: "Control Detection Time Expired", Downs: 1}, "BFD Down: Control Detection Time Expired, was down 1 times"},
		{bgp.PathStatus{State: "Down", Diag: "No Diagnostic", Err: "listen: the port is taken"}, "BFD Down, listen: the port is taken"},
	} {
		m := peerOf(&bgp.PeerStatus{State: "Established", EndOfRIB: true, Path: &c.path})
		if got := (Renderer{}).peerDetail(m); got != c.want {
			t.Errorf("%+v: %q, want %q", c.path, got, c.want)
		}
	}
}
