package inspect

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// receive reads a stream to its end.
func receive[M any](t testing.TB, stream grpc.ServerStreamingClient[M], err error) []*M {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var list []*M
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
}

func listRoutes(t testing.TB, conn *grpc.ClientConn, f *caracalv1.RouteFilter) []*caracalv1.Route {
	t.Helper()
	stream, err := caracalv1.NewInspectionClient(conn).ListRoutes(t.Context(), &caracalv1.ListRoutesRequest{Filter: f})
	var list []*caracalv1.Route
	for _, m := range receive(t, stream, err) {
		list = append(list, m.Routes...)
	}
	return list
}

func prefixes(list []*caracalv1.Route) string {
	var words []string
	for _, m := range list {
		words = append(words, m.Prefix)
	}
	return strings.Join(words, " ")
}

func TestListRoutes(t *testing.T) {
	conn, _ := serve(t, testWorld())
	for name, c := range map[string]struct {
		filter *caracalv1.RouteFilter
		want   string
	}{
		"all, in prefix order": {nil, "10.10.0.0/26 10.10.1.0/26 10.10.1.9/32 10.10.2.0/26 10.10.3.0/26 10.20.0.0/26 10.20.1.0/26 10.20.2.0/26 " +
			"10.30.2.0/26 10.30.3.0/26 203.0.113.0/24 fd00:10::8000/122"},
		"exact":                   {&caracalv1.RouteFilter{Prefix: "10.10.1.0/26"}, "10.10.1.0/26"},
		"exact, of an address":    {&caracalv1.RouteFilter{Prefix: "10.10.1.9"}, "10.10.1.9/32"},
		"exact, none":             {&caracalv1.RouteFilter{Prefix: "10.10.1.0/25"}, ""},
		"within":                  {&caracalv1.RouteFilter{Within: "10.10.1.0/24"}, "10.10.1.0/26 10.10.1.9/32"},
		"within, of IPv6":         {&caracalv1.RouteFilter{Within: "::/0"}, "fd00:10::8000/122"},
		"covering an address":     {&caracalv1.RouteFilter{Covering: "10.10.1.9"}, "10.10.1.0/26 10.10.1.9/32"},
		"covering a prefix":       {&caracalv1.RouteFilter{Covering: "10.10.1.0/28"}, "10.10.1.0/26"},
		"owner":                   {&caracalv1.RouteFilter{Owners: []string{"bgp"}, Within: "10.0.0.0/8"}, "10.20.0.0/26 10.20.1.0/26 10.20.2.0/26 10.30.2.0/26 10.30.3.0/26"},
		"two owners":              {&caracalv1.RouteFilter{Owners: []string{"ipip", "vxlan"}, Within: "10.10.1.0/24"}, "10.10.1.0/26 10.10.1.9/32"},
		"state":                   {&caracalv1.RouteFilter{States: []caracalv1.RouteState{caracalv1.RouteState_ROUTE_STATE_UNROUTABLE}}, "10.10.3.0/26 10.30.3.0/26"},
		"family":                  {&caracalv1.RouteFilter{Family: caracalv1.Family_FAMILY_IPV6}, "fd00:10::8000/122"},
		"every condition at once": {&caracalv1.RouteFilter{Family: caracalv1.Family_FAMILY_IPV4, Covering: "10.10.3.7", Owners: []string{"vxlan"}, States: []caracalv1.RouteState{7}}, "10.10.3.0/26"},
		"conditions that exclude": {&caracalv1.RouteFilter{Family: caracalv1.Family_FAMILY_IPV6, Covering: "10.10.3.7"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prefixes(listRoutes(t, conn, c.filter)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestListRoutesRefusesBadFilters(t *testing.T) {
	conn, _ := serve(t, testWorld())
	client := caracalv1.NewInspectionClient(conn)
	for want, f := range map[string]*caracalv1.RouteFilter{
		`prefix "10.10.1.7/24": bits are set behind the prefix length; write 10.10.1.0/24 or 10.10.1.7`: {Prefix: "10.10.1.7/24"},
		`within "10.0.0.0/33": want an address or a prefix such as 10.244.1.0/26`:                       {Within: "10.0.0.0/33"},
		`covering: address "node-b": want an IP address such as 10.244.1.7 or fd00:10::7`:               {Covering: "node-b"},
		`covering: address "fe80::1%eth0": write it without the zone, routes have none`:                 {Covering: "fe80::1%eth0"},
		`prefix "::ffff:10.0.0.0/104": write the IPv4 prefix without the ::ffff: in front`:              {Prefix: "::ffff:10.0.0.0/104"},
		`owner "vxlann": want one of workload, vxlan, ipip or bgp`:                                      {Owners: []string{"vxlann"}},
		`state 99: not one that a route can have`:                                                       {States: []caracalv1.RouteState{99}},
		`state ROUTE_STATE_UNSPECIFIED: not one that a route can have`:                                  {States: []caracalv1.RouteState{0}},
		`family 5: want 4 or 6`: {Family: 5},
	} {
		for name, call := range map[string]func() error{
			"ListRoutes": func() error {
				stream, err := client.ListRoutes(t.Context(), &caracalv1.ListRoutesRequest{Filter: f})
				if err == nil {
					_, err = stream.Recv()
				}
				return err
			},
			"WatchRoutes": func() error {
				stream, err := client.WatchRoutes(t.Context(), &caracalv1.WatchRoutesRequest{Filter: f})
				if err == nil {
					_, err = stream.Recv()
				}
				return err
			},
		} {
			err := call()
			if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != want {
				t.Errorf("%s: got %v\nwant InvalidArgument %s", name, err, want)
			}
		}
	}
}

// TestRouteMessage holds every field of a status to its place in the message.
func TestRouteMessage(t *testing.T) {
	s := routes.Status{
		Owner: routes.OwnerBGP, Outcome: routes.Failed, Detail: "no", Kernel: "10.0.0.0/8 proto 202\n\tnexthop via 192.0.2.1 dev eth0 weight 1",
		Attempts: 7, Since: ago(time.Hour),
		Route: routes.Route{Dst: pfx("10.0.0.0/8"), Metric: 512, Type: kernel.Unicast, Src: addr("192.0.2.5"), MTU: 1450,
			NextHops: []routes.NextHop{{Gateway: addr("192.0.2.1"), Device: "eth0", Onlink: true, Weight: 3}, {Device: "eth1"}},
			Reason:   &routes.Reason{Rule: "r", Source: "s", Pool: "p", Node: "n"}},
	}
	want := &caracalv1.Route{Prefix: "10.0.0.0/8", Metric: 512, Owner: "bgp", State: caracalv1.RouteState_ROUTE_STATE_FAILED, Detail: "no",
		Reason: &caracalv1.Reason{Rule: "r", Source: "s", Pool: "p", Node: "n"}, Type: caracalv1.RouteType_ROUTE_TYPE_UNICAST,
		NextHops:      []*caracalv1.NextHop{{Gateway: "192.0.2.1", Device: "eth0", Onlink: true, Weight: 3}, {Device: "eth1", Weight: 1}},
		SourceAddress: "192.0.2.5", Mtu: 1450, Kernel: "10.0.0.0/8 proto 202 nexthop via 192.0.2.1 dev eth0 weight 1", Attempts: 7, Since: timeOf(ago(time.Hour))}
	if got := routeOf(&s); !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	bare := routes.Status{Route: routes.Route{Dst: pfx("::/0"), Unroutable: "why"}, Outcome: routes.Unroutable}
	want = &caracalv1.Route{Prefix: "::/0", Metric: routes.Metric, State: caracalv1.RouteState_ROUTE_STATE_UNROUTABLE, Detail: "why"}
	if got := routeOf(&bare); !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestVocabulary holds the words of routes and the numbers of the API together, both ways.
func TestVocabulary(t *testing.T) {
	for n := range caracalv1.RouteState_name {
		s := caracalv1.RouteState(n)
		word := outcomeOf(s)
		if stateOf(word) != s {
			t.Errorf("%v is %q, which is %v", s, word, stateOf(word))
		}
		if name := "ROUTE_STATE_" + strings.ToUpper(strings.ReplaceAll(string(word), "-", "_")); n != 0 && name != s.String() {
			t.Errorf("%v is named %q", s, word)
		}
		if got, err := ParseState(string(word)); n != 0 && (err != nil || got != s) {
			t.Errorf("ParseState(%q) = %v, %v", word, got, err)
		}
	}
	if len(outcomes()) != len(caracalv1.RouteState_name) || len(sessionWords()) != len(caracalv1.SessionState_name) {
		t.Error("a state without a word")
	}
	for n := range caracalv1.SessionState_name {
		if s := caracalv1.SessionState(n); n != 0 && sessionStateOf(bgp.SessionState(sessionWord(s))) != s {
			t.Errorf("%v is %q", s, sessionWord(s))
		}
	}
	if stateWord(99) != "unknown" || sessionWord(99) != "unknown" || stateOf("new") != 0 {
		t.Error("a word that is not known is not taken as such")
	}
	if _, err := ParseState("instaled"); err == nil || !strings.Contains(err.Error(), "installed, pending") {
		t.Errorf("got %v, want the words there are", err)
	}
}

func TestListPeersAndVTEPs(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w)
	client := caracalv1.NewInspectionClient(conn)
	peers, err := client.ListPeers(t.Context(), &caracalv1.ListPeersRequest{})
	got := receive(t, peers, err)
	if len(got) != 1 || len(got[0].Peers) != 4 || got[0].Peers[0].Name != "Global_192_0_2_1" || got[0].Peers[3].LastError != "dial: connection refused" {
		t.Errorf("got %v", got)
	}
	vteps, err := client.ListVTEPs(t.Context(), &caracalv1.ListVTEPsRequest{})
	list := receive(t, vteps, err)
	if len(list) != 1 || len(list[0].Vteps) != 4 || !list[0].Vteps[0].Local || list[0].Vteps[2].Family != caracalv1.Family_FAMILY_IPV4 ||
		list[0].Vteps[3].Address != "fd00:10::8001" || list[0].Vteps[3].Mac != "66:01:02:03:04:3c" {
		t.Errorf("got %v", list)
	}
}

// TestOptionalSources: a daemon without a Speaker and without VXLAN lends no sessions and no VTEPs.
func TestOptionalSources(t *testing.T) {
	src := testWorld().sources()
	src.Peers, src.VTEPs, src.Paths = nil, nil, nil
	s := NewServer(src)
	if m := explain(t.Context(), &s.src, addr("10.20.2.7")); m.Verdict.Level != missing {
		t.Errorf("got %v", m.Verdict)
	}
	defer func() {
		if recover() == nil {
			t.Error("a missing source that must be there is accepted")
		}
	}()
	src.Routes = nil
	NewServer(src)
}

func TestGetStatus(t *testing.T) {
	w := testWorld()
	w.rebuild(func(b *cluster.Builder) {
		b.SetProblems([]cluster.Problem{{Object: "IPPool a", Field: "spec.cidr", Text: "t", File: "f", Line: 3}})
	})
	w.info.Problems = append([]cluster.Problem{{Object: "Node z", Text: "u"}}, w.state.Problems()...)
	w.info.Ready, w.info.WaitingFor = false, []string{"bgp"}
	conn, _ := serve(t, w)
	m, err := caracalv1.NewInspectionClient(conn).GetStatus(t.Context(), &caracalv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var counts []string
	for _, c := range m.Counts {
		counts = append(counts, fmt.Sprintf("%s %s %d", c.Owner, stateWord(c.State), c.Routes))
	}
	if got, want := strings.Join(counts, ", "), "vxlan installed 5, vxlan unroutable 1, bgp installed 5, bgp unroutable 1"; got != want {
		t.Errorf("counts: got %s, want %s", got, want)
	}
	if len(m.Problems) != 2 || m.Problems[0].Object != "IPPool a" || m.Problems[0].Line != 3 || m.Problems[1].Object != "Node z" {
		t.Errorf("problems: got %v; want one each, sorted", m.Problems)
	}
	if m.Node != "node-a" || m.Backend != "bird" || m.Readiness.Ready || m.Readiness.WaitingFor[0] != "bgp" || len(m.Sources) != 2 ||
		len(m.Devices) != 3 || m.Devices[0].Name != "tunl0" || m.Devices[2].NeighboursWanted != 4 {
		t.Errorf("got %v", m)
	}
}

func TestResync(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w)
	client := caracalv1.NewControlClient(conn)
	calls := 0
	w.resync = func(context.Context) error { calls++; return nil }
	if m, err := client.Resync(t.Context(), &caracalv1.ResyncRequest{}); err != nil || calls != 1 || m.Took == nil {
		t.Errorf("got %v, %v after %d calls", m, err, calls)
	}
	w.resync = func(context.Context) error { return errors.New("dump routes: interrupted") }
	if _, err := client.Resync(t.Context(), &caracalv1.ResyncRequest{}); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "resync: dump routes: interrupted") {
		t.Errorf("got %v", err)
	}
	w.resync = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := client.Resync(ctx, &caracalv1.ResyncRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

// TestSettings: a person is told of the sysctls that are not as wanted, a program of all.
func TestSettings(t *testing.T) {
	w := testWorld()
	w.settings = []routes.SettingStatus{
		{Name: "net/ipv4/conf/vxlan.calico/rp_filter", Want: 2, Have: 1, Outcome: routes.Failed, Detail: "EACCES: permission denied", Attempts: 3},
		{Name: "net/ipv4/ip_forward", Want: 1, Have: 1, Outcome: routes.Installed},
		{Name: "net/ipv4/conf/eth0/rp_filter", Want: 2, Have: 1, Outcome: routes.Foreign, Detail: "packets that come back another way are dropped"},
	}
	conn, _ := serve(t, w)
	m, err := caracalv1.NewInspectionClient(conn).GetStatus(t.Context(), &caracalv1.GetStatusRequest{})
	if err != nil || len(m.Settings) != 3 || m.Settings[0].Attempts != 3 {
		t.Fatalf("%v, %v", m.GetSettings(), err)
	}
	var b bytes.Buffer
	if err := settingsPart(&b, m); err != nil {
		t.Fatal(err)
	}
	golden(t, "render/settings.txt", b.Bytes())
	b.Reset()
	m.Settings = m.Settings[1:2]
	if err := settingsPart(&b, m); err != nil || b.Len() != 0 {
		t.Errorf("all is well, and it says %q, %v", b.String(), err)
	}
}

func TestRelease(t *testing.T) {
	w := testWorld()
	conn, _ := serve(t, w)
	client := caracalv1.NewControlClient(conn)
	for _, want := range []string{"", "held since noon: it would remove 900 of 1000 routes"} {
		w.release = want
		m, err := client.Release(t.Context(), &caracalv1.ReleaseRequest{})
		if err != nil || m.Released != want {
			t.Errorf("released %q, %v, want %q", m.GetReleased(), err, want)
		}
		var b bytes.Buffer
		if err := (Renderer{}).Release(&b, m); err != nil || !strings.Contains(b.String(), cmp.Or(want, "nothing is held")) {
			t.Errorf("written %q, %v", b.String(), err)
		}
	}
}

// TestDrain: what is asked for reaches the daemon, what makes no sense does not, and the status tells how far it is.
func TestDrain(t *testing.T) {
	w := testWorld()
	src := w.sources()
	var asked []string
	src.Drain = func(_ context.Context, wait time.Duration, everything bool) error {
		asked = append(asked, fmt.Sprint(wait, everything))
		w.info.Leaving = Leaving{Step: bgp.Withdrawn, Since: ago(time.Minute), Why: "caracal drain"}
		return nil
	}
	src.Undrain = func() error { w.info.Leaving = Leaving{}; return nil }
	conn, _ := serveSources(t, src)
	client := caracalv1.NewControlClient(conn)
	for _, bad := range []time.Duration{-time.Second, 25 * time.Hour} {
		if _, err := client.Drain(t.Context(), &caracalv1.DrainRequest{Wait: durationpb.New(bad)}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("wait %v: %v", bad, err)
		}
	}
	m, err := client.Drain(t.Context(), &caracalv1.DrainRequest{})
	if err != nil || m.Leaving.Step != caracalv1.Leaving_STEP_WITHDRAWN {
		t.Fatal(m, err)
	}
	if _, err := client.Drain(t.Context(), &caracalv1.DrainRequest{Wait: durationpb.New(0), Everything: true}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"30s false", "0s true"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	said := func() string {
		t.Helper()
		st, err := caracalv1.NewInspectionClient(conn).GetStatus(t.Context(), &caracalv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := (Renderer{Now: epoch}).Status(&b, st); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if text := said(); !strings.Contains(text, "\nleaving    withdrawn since 1m ago: caracal drain\n") {
		t.Errorf("the status does not tell: %s", text)
	}
	if _, err := client.Undrain(t.Context(), &caracalv1.UndrainRequest{}); err != nil {
		t.Fatal(err)
	}
	if text := said(); strings.Contains(text, "leaving") {
		t.Errorf("the status tells of a node that stays: %s", text)
	}
}

func TestExplainRPC(t *testing.T) {
	conn, _ := serve(t, testWorld())
	client := caracalv1.NewInspectionClient(conn)
	m, err := client.Explain(t.Context(), &caracalv1.ExplainRequest{Address: "::ffff:10.10.2.7"})
	if err != nil || m.Address != "10.10.2.7" || m.Node != "node-a" || m.Verdict.Level != ok || len(m.Steps) < 6 {
		t.Errorf("got %v, %v", m, err)
	}
	for _, bad := range []string{"", "node-b", "10.10.2.0/26", "fe80::1%eth0"} {
		if _, err := client.Explain(t.Context(), &caracalv1.ExplainRequest{Address: bad}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: got %v, want InvalidArgument", bad, err)
		}
	}
}

func TestHealthFollowsReadiness(t *testing.T) {
	w := testWorld()
	w.setReady(false)
	conn, s := serve(t, w)
	client := grpc_health_v1.NewHealthClient(conn)
	check := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, name := range []string{"", "caracal.v1.Inspection", "caracal.v1.Control"} {
			m, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: name})
			if err != nil || m.Status != want {
				t.Errorf("%q: got %v, %v; want %v", name, m.GetStatus(), err, want)
			}
		}
	}
	watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hear := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if m, err := watch.Recv(); err != nil || m.Status != want {
			t.Errorf("watch: got %v, %v; want %v", m.GetStatus(), err, want)
		}
	}
	hear(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	w.setReady(true)
	s.ReadyChanged()
	hear(grpc_health_v1.HealthCheckResponse_SERVING)
	w.setReady(false) // without ReadyChanged: a check looks for itself
	check(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "caracal.v1.Other"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want NotFound", err)
	}
}

func TestReflection(t *testing.T) {
	conn, _ := serve(t, testWorld())
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, s := range m.GetListServicesResponse().GetService() {
		have[s.Name] = true
	}
	for _, name := range []string{"caracal.v1.Inspection", "caracal.v1.Control", "grpc.health.v1.Health"} {
		if !have[name] {
			t.Errorf("%s is not listed: %v", name, have)
		}
	}
}

// TestBatchesStaySmall: routes of hundreds of next hops, and many small ones, never make a message too large for a client.
func TestBatchesStaySmall(t *testing.T) {
	var hops []routes.NextHop
	for i := range 512 {
		hops = append(hops, routes.NextHop{Gateway: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), Device: "vxlan.calico", Onlink: true})
	}
	w := testWorld()
	w.statuses = nil
	for i := range 5000 {
		s := routes.Status{Owner: routes.OwnerBGP, Outcome: routes.Installed, Route: routes.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}}
		if i%10 == 0 {
			s.Route.NextHops = hops
		}
		w.statuses = append(w.statuses, s)
	}
	conn, _ := serve(t, w)
	stream, err := caracalv1.NewInspectionClient(conn).ListRoutes(t.Context(), &caracalv1.ListRoutesRequest{})
	n := 0
	for _, m := range receive(t, stream, err) {
		n += len(m.Routes)
		if size := proto.Size(m); size > batchBytes+64<<10 || len(m.Routes) > batchItems {
			t.Errorf("a message of %d bytes with %d routes", size, len(m.Routes))
		}
	}
	if n != len(w.statuses) {
		t.Errorf("got %d routes, want %d", n, len(w.statuses))
	}
}
