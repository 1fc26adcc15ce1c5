package inspect

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// trouble is the world on a bad day: something of everything that can be wrong.
func trouble() *world {
	w := testWorld()
	w.edit("10.10.1.0/26", outcome(routes.Foreign, "a route of protocol bird is there"))
	w.edit("10.10.2.0/26", outcome(routes.NoDevice, "vxlan.calico is missing"))
	w.edit("10.20.2.0/26", outcome(routes.Failed, "ENETUNREACH: the gateway is not reachable on that link: network is unreachable"))
	w.edit("10.20.1.0/26", func(s *routes.Status) { s.Outcome, s.Detail = routes.Kept, "bgp is not in sync" })
	w.edit("203.0.113.0/24", outcome(routes.Waiting, ""))
	w.statuses = append(w.statuses, with(route(routes.OwnerBGP, "10.10.1.0/26", routes.Lost, nil, via("192.0.2.1", "eth0", false)),
		func(s *routes.Status) { s.Detail = "owner vxlan wins" }))
	w.peers[0].Restarting, w.peers[0].State, w.peers[0].LastError = true, "Connect", "received: connection reset"
	w.peers[0].ErrorAt, w.peers[0].KeptUntil = ago(30*time.Second), ago(-90*time.Second)
	w.peers[1].EndOfRIB = false
	w.peers[0].Cause, w.peers[0].LastSent = bgp.CauseReceived, bgp.Notification{Code: 4, At: ago(3 * time.Hour)}
	w.peers[0].LastReceived = bgp.Notification{Code: 6, Subcode: 9, InnerCode: 6, InnerSubcode: 2, Reason: "back at noon", At: ago(2 * time.Minute)}
	w.peers[0].Ups = 1
	w.vteps[1].Problem = "MAC 66:01:02:03:04:2b is also that of node-aa, which comes first"
	w.info = StatusInfo{
		Version: "v0.1.0", Started: ago(70 * time.Second), WaitingFor: []string{"bgp", "device vxlan.calico"},
		Sources: []SourceStatus{
			{Name: "datastore", InSync: true, Since: ago(65 * time.Second), Detail: "cannot be read, the last good state stays: open pools.yaml: permission denied"},
			{Name: "bgp", Since: ago(64 * time.Second), Detail: "waiting for End-of-RIB of Mesh_192_0_2_6"},
		},
		Devices: []DeviceStatus{
			{Name: "vxlan.calico", Kind: "vxlan", Owner: routes.OwnerVXLAN, Outcome: routes.NoDevice, Detail: "no interface holds 192.0.2.5", NeighboursWanted: 4},
			{Name: "tunl0", Kind: "ipip", Owner: routes.OwnerIPIP, Outcome: routes.Failed, MTU: 1480, Detail: "the kernel does not support it"},
		},
		Problems: []cluster.Problem{
			{Object: "IPPool both", Field: "spec.vxlanMode", Text: "vxlanMode and ipipMode are both set; set one of them to Never", File: "pools.yaml", Line: 12},
			{Object: "Node node-a", Text: "it has no IPv6 address, and pool vxlan-v6 needs one"},
		},
	}
	return w
}

// answers are the messages the goldens are made of, from the world as it should be and on a bad day.
func answers(t *testing.T, w *world) map[string]proto.Message {
	t.Helper()
	w.paths[pfx("10.66.0.0/26")] = contested()
	p := &w.peers[0]
	p.OurASN, p.RouterID, p.HoldTime, p.Looped = 64512, p.Addr, 90*time.Second, 2
	p.OurCapabilities, p.TheirCapabilities = []string{"multiprotocol IPv4 unicast", "route refresh", "capability 73"}, []string{"multiprotocol IPv4 unicast", "route refresh", "four-octet AS 64512"}
	p.SentMessages, p.ReceivedMessages = bgp.Messages{Open: 1, Update: 2, Keepalive: 77}, bgp.Messages{Open: 1, Update: 9, Keepalive: 76, Withdrawn: 3}
	conn, _ := serve(t, w)
	client := caracalv1.NewInspectionClient(conn)
	status, err := client.GetStatus(t.Context(), &caracalv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	peers := &caracalv1.ListPeersResponse{}
	stream, err := client.ListPeers(t.Context(), &caracalv1.ListPeersRequest{})
	for _, m := range receive(t, stream, err) {
		peers.Peers = append(peers.Peers, m.Peers...)
	}
	vteps := &caracalv1.ListVTEPsResponse{}
	vstream, err := client.ListVTEPs(t.Context(), &caracalv1.ListVTEPsRequest{})
	for _, m := range receive(t, vstream, err) {
		vteps.Vteps = append(vteps.Vteps, m.Vteps...)
	}
	explain, err := client.Explain(t.Context(), &caracalv1.ExplainRequest{Address: "10.10.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	paths := &caracalv1.ListPathsResponse{}
	pstream, err := client.ListPaths(t.Context(), &caracalv1.ListPathsRequest{Prefix: "10.66.0.0/26"})
	for _, m := range receive(t, pstream, err) {
		paths.Paths = append(paths.Paths, m.Paths...)
	}
	between := &caracalv1.ListPeerRoutesResponse{}
	rstream, err := client.ListPeerRoutes(t.Context(), &caracalv1.ListPeerRoutesRequest{Peer: peers.Peers[0].Name, Direction: caracalv1.ListPeerRoutesRequest_DIRECTION_ADVERTISED})
	for _, m := range receive(t, rstream, err) {
		between.Routes = append(between.Routes, m.Routes...)
	}
	return map[string]proto.Message{
		"peer": peers.Peers[slices.IndexFunc(peers.Peers, func(m *caracalv1.Peer) bool { return m.Name == p.Name })], "paths": paths, "between": between,
		"routes": &caracalv1.ListRoutesResponse{Routes: listRoutes(t, conn, nil)}, "status": status, "peers": peers, "vteps": vteps, "explain": explain,
	}
}

// table renders any of the answers.
func tableOf(r Renderer, w io.Writer, m proto.Message) error {
	switch m := m.(type) {
	case *caracalv1.ListRoutesResponse:
		return r.Routes(w, m.Routes)
	case *caracalv1.GetStatusResponse:
		return r.Status(w, m)
	case *caracalv1.ListPeersResponse:
		return r.Peers(w, m.Peers)
	case *caracalv1.Peer:
		return r.Peer(w, m)
	case *caracalv1.ListPathsResponse:
		return r.Paths(w, m.Paths)
	case *caracalv1.ListPeerRoutesResponse:
		return r.PeerRoutes(w, m.Routes)
	case *caracalv1.ListVTEPsResponse:
		return r.VTEPs(w, m.Vteps)
	case *caracalv1.ExplainResponse:
		return r.Explain(w, m)
	}
	return fmt.Errorf("no table for %T", m)
}

func TestRender(t *testing.T) {
	for day, w := range map[string]*world{"good": testWorld(), "bad": trouble()} {
		for name, m := range answers(t, w) {
			for form, write := range map[string]func(io.Writer) error{
				"txt":  func(b io.Writer) error { return tableOf(Renderer{Now: epoch}, b, m) },
				"json": func(b io.Writer) error { return WriteJSON(b, m) },
				"yaml": func(b io.Writer) error { return WriteYAML(b, m) },
			} {
				t.Run(day+"/"+name+"."+form, func(t *testing.T) {
					var first bytes.Buffer
					if err := write(&first); err != nil {
						t.Fatal(err)
					}
					golden(t, fmt.Sprintf("render/%s-%s.%s", name, day, form), first.Bytes())
					for range 5 { // protojson's blanks are random, from build to build
						var again bytes.Buffer
						if err := write(&again); err != nil || !bytes.Equal(first.Bytes(), again.Bytes()) {
							t.Fatalf("the same message is written in two ways (%v)", err)
						}
					}
				})
			}
		}
	}
}

func TestRenderTimestamps(t *testing.T) {
	w := testWorld()
	w.statuses = w.statuses[:1]
	r := Renderer{Now: epoch, Timestamps: true}
	var b bytes.Buffer
	for _, name := range []string{"routes", "status", "peers"} {
		if err := tableOf(r, &b, answers(t, w)[name]); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "render/timestamps.txt", b.Bytes())
}

func TestRenderWatch(t *testing.T) {
	w := trouble()
	r := Renderer{Now: epoch}
	var b bytes.Buffer
	for i := range w.statuses[:9] {
		if err := r.Change(&b, setOf(&w.statuses[i])); err != nil {
			t.Fatal(err)
		}
	}
	marks := []caracalv1.WatchRoutesResponse_Mark{0, 1, 2}
	for _, m := range marks {
		if err := r.Mark(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	gone := &caracalv1.RouteChange{Removed: true, Route: removalOf(&w.statuses[0])}
	for _, r := range []Renderer{r, {Now: epoch, Timestamps: true}} {
		if err := r.Change(&b, gone); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Resync(&b, &caracalv1.ResyncResponse{Took: durationpb.New(1234567 * time.Microsecond)}); err != nil {
		t.Fatal(err)
	}
	golden(t, "render/watch.txt", b.Bytes())
}

// TestRenderEmpty: an empty message is written without failing and without blanks at line ends.
func TestRenderEmpty(t *testing.T) {
	var b bytes.Buffer
	for _, m := range []proto.Message{&caracalv1.ListRoutesResponse{}, &caracalv1.GetStatusResponse{}, &caracalv1.ListPeersResponse{},
		&caracalv1.ListVTEPsResponse{}, &caracalv1.ExplainResponse{}, &caracalv1.ListRoutesResponse{Routes: []*caracalv1.Route{{}}},
		&caracalv1.ListPeersResponse{Peers: []*caracalv1.Peer{{}}}, &caracalv1.GetStatusResponse{Counts: []*caracalv1.RouteCount{{Owner: "new", State: 99, Routes: 1}}}} {
		fmt.Fprintf(&b, "--- %s\n", m.ProtoReflect().Descriptor().Name())
		if err := tableOf(Renderer{Now: epoch}, &b, m); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "render/empty.txt", b.Bytes())
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "59s": 59*time.Second + 999*time.Millisecond, "1m": time.Minute, "9m59s": 10*time.Minute - 1, "10m": 10*time.Minute + 59*time.Second,
		"59m": time.Hour - 1, "1h": time.Hour, "23h59m": 24*time.Hour - 1, "1d": 24 * time.Hour, "9d23h": 240*time.Hour - 1, "10d": 240 * time.Hour, "400d": 9600 * time.Hour,
	} {
		if got := age(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	if got := age(-time.Hour); got != "0s" {
		t.Errorf("a clock that was set back: got %s", got)
	}
}

// TestOrder: the order of routes does not depend on the order in which the programmer gives them out.
func TestOrder(t *testing.T) {
	w := trouble()
	s := NewServer(w.sources())
	text := func() string {
		var words []string
		for _, st := range s.sortedRoutes(&filter{}) {
			words = append(words, fmt.Sprintf("%v %d %s", st.Route.Dst, st.Route.Key().Metric, st.Owner))
		}
		return strings.Join(words, "\n")
	}
	extra := route(routes.OwnerBGP, "10.10.1.0/26", routes.Lost, nil)
	extra.Route.Metric = 512
	w.statuses = append(w.statuses, extra, route(routes.OwnerVXLAN, "10.10.0.0/16", routes.Installed, nil))
	want := text()
	for seed := range uint64(20) {
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(w.statuses), func(i, j int) { w.statuses[i], w.statuses[j] = w.statuses[j], w.statuses[i] })
		if got := text(); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
	if !strings.HasPrefix(want, "10.10.0.0/16 1024 vxlan\n10.10.0.0/26 1024 vxlan\n10.10.1.0/26 512 bgp\n10.10.1.0/26 1024 vxlan\n10.10.1.0/26 1024 bgp\n") {
		t.Errorf("got\n%s", want)
	}
}

// TestWantedForm holds our form of a route to the kernel room's form of the same route.
func TestWantedForm(t *testing.T) {
	for _, s := range append(testWorld().statuses, route(routes.OwnerBGP, "0.0.0.0/0", routes.Installed, nil, via("192.0.2.1", "eth0", false)),
		route(routes.OwnerBGP, "10.9.0.0/26", routes.Installed, nil, via("fe80::1", "eth0", true)),
		route(routes.OwnerBGP, "10.9.1.0/26", routes.Installed, nil, via("192.0.2.1", "eth0", false), via("2001:db8::1", "eth1", false)),
		with(route(routes.OwnerBGP, "10.0.0.1/32", routes.Installed, nil, via("", "cali1", false)), func(s *routes.Status) {
			s.Route.Src = addr("192.0.2.5")
			s.Kernel = kernelText(s)
		})) {
		if s.Kernel == "" {
			continue
		}
		m := routeOf(&s)
		form := strings.Replace(withoutPrefix(m.Kernel, m.Prefix), "proto 202 ", "", 1)
		m.Kernel = ""
		if got := routeForm(m); got != "["+form+"]" {
			t.Errorf("wanted: %s\nkernel: %s", got, form)
		}
	}
	m := &caracalv1.Route{Prefix: "10.0.0.0/8", Type: caracalv1.RouteType(kernel.Blackhole), Metric: 7}
	if got := wantedForm(m); got != "blackhole 10.0.0.0/8 metric 7" {
		t.Errorf("got %s", got)
	}
}
