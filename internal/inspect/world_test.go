package inspect

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

var epoch = time.Date(2026, 8, 24, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return epoch.Add(-d) }

func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }
func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// world is a fake daemon: what inspection is lent, all of it changeable by a test.
type world struct {
	node      string
	backend   cluster.Backend
	state     *cluster.State
	vteps     []VTEP
	peers     []bgp.PeerStatus
	paths     map[netip.Prefix][]bgp.Candidate
	lookup    func(netip.Addr) (kernel.Answer, error)
	resync    func(context.Context) error
	release   string
	settings  []routes.SettingStatus
	history   func(netip.Prefix) []routes.HistoryEvent
	historyOf func(string) []routes.HistoryEvent
	planBGP   func(string) (bgp.Config, []cluster.Problem, error)
	diffBGP   func(string, string, []string) (bgp.Difference, []cluster.Problem, error)

	mu       sync.Mutex
	info     StatusInfo
	statuses []routes.Status
	watchers map[int]func([]routes.Status)
	next     int
}

func (w *world) sources() Sources {
	return Sources{
		Node: w.node, Backend: func() cluster.Backend { return w.backend }, State: func() *cluster.State { return w.state },
		Status: w.status, VTEPs: func() []VTEP { return w.vteps }, Peers: func() []bgp.PeerStatus { return w.peers },
		Paths:      func(p netip.Prefix) []bgp.Candidate { return w.paths[p] },
		PeerRoutes: w.peerRoutes,
		Routes:     w.routes, Counts: w.counts, WatchRoutes: w.watch,
		Lookup: func(_ context.Context, a netip.Addr) (kernel.Answer, error) {
			if w.lookup == nil {
				return w.answer(a)
			}
			return w.lookup(a)
		},
		Settings:  func() []routes.SettingStatus { return w.settings },
		Release:   func() string { return w.release },
		History:   func(dst netip.Prefix) []routes.HistoryEvent { return w.history(dst) },
		HistoryOf: func(device string) []routes.HistoryEvent { return w.historyOf(device) },
		PlanBGP:   func(node string) (bgp.Config, []cluster.Problem, error) { return w.planBGP(node) },
		DiffBGP: func(node, manifests string, deletions []string) (bgp.Difference, []cluster.Problem, error) {
			return w.diffBGP(node, manifests, deletions)
		},
		Resync: func(ctx context.Context) error {
			if w.resync == nil {
				return nil
			}
			return w.resync(ctx)
		},
	}
}

func (w *world) status() StatusInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.info
}

func (w *world) setReady(ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.info.Ready = ready
}

func (w *world) routes(match func(*routes.Status) bool) []routes.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []routes.Status
	for i := range w.statuses {
		if match(&w.statuses[i]) {
			list = append(list, w.statuses[i])
		}
	}
	return list
}

func (w *world) counts() map[routes.Owner]map[routes.Outcome]int {
	counts := map[routes.Owner]map[routes.Outcome]int{}
	for _, s := range w.routes(func(*routes.Status) bool { return true }) {
		if counts[s.Owner] == nil {
			counts[s.Owner] = map[routes.Outcome]int{}
		}
		counts[s.Owner][s.Outcome]++
	}
	return counts
}

func (w *world) watch(ctx context.Context, changed func([]routes.Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.next
	w.next++
	if w.watchers == nil {
		w.watchers = map[int]func([]routes.Status){}
	}
	w.watchers[id] = changed
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers, id)
	})
}

func (w *world) watching() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.watchers)
}

// set makes a status what it is now and tells the watchers, as the programmer does; a gone outcome removes it.
func (w *world) set(changed ...routes.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range changed {
		at := slices.IndexFunc(w.statuses, func(o routes.Status) bool { return identityOf(&o) == identityOf(&s) })
		switch {
		case gone(s.Outcome) && at >= 0:
			w.statuses = slices.Delete(slices.Clone(w.statuses), at, at+1)
		case gone(s.Outcome):
		case at >= 0:
			w.statuses[at] = s
		default:
			w.statuses = append(w.statuses, s)
		}
	}
	for _, f := range w.watchers {
		f(changed)
	}
}

// answer is a kernel that holds just what is believed installed, workloads and tunnels' devices aside.
func (w *world) answer(a netip.Addr) (kernel.Answer, error) {
	e := explainer{routes: w.routes(func(s *routes.Status) bool { return s.Route.Dst.Contains(a) })}
	slices.SortFunc(e.routes, func(x, y routes.Status) int { return y.Route.Dst.Bits() - x.Route.Dst.Bits() })
	s := e.believed()
	if s == nil {
		if a.Is6() {
			return kernel.Answer{}, fmt.Errorf("look up %v: %w", a, kernel.FromErrno(syscall.ENETUNREACH))
		}
		return match("0.0.0.0/0", kernel.ProtoStatic, 0, hop{"192.0.2.1", "eth0"}).to(a), nil
	}
	if s.Route.Type == kernel.Blackhole {
		return kernel.Answer{}, fmt.Errorf("look up %v: %w", a, kernel.FromErrno(syscall.EINVAL))
	}
	var hops []hop
	for _, h := range s.Route.NextHops {
		hops = append(hops, hop{addrText(h.Gateway), h.Device})
	}
	return match(s.Route.Dst.String(), kernel.ProtoCaracal, s.Route.Key().Metric, hops...).to(a), nil
}

// hop is a gateway ("" = on the link) and an interface.
type hop struct{ via, dev string }

type answer struct {
	kernel.Answer
	dev string
}

// match builds an answer from the route that matched.
func match(dst string, proto kernel.Protocol, metric uint32, hops ...hop) answer {
	a := answer{Answer: kernel.Answer{Match: kernel.Route{Dst: pfx(dst), Protocol: proto, Metric: metric, Type: kernel.Unicast}}}
	for i, h := range hops {
		n := kernel.NextHop{Link: i + 2, Weight: 1}
		if h.via != "" {
			n.Gateway = addr(h.via)
		}
		a.Match.NextHops = append(a.Match.NextHops, n)
	}
	if len(hops) > 0 {
		a.Chosen, a.dev = a.Match.NextHops[0], hops[0].dev
	}
	return a
}

// to completes the answer with the line of `ip route get`.
func (a answer) to(dst netip.Addr) kernel.Answer {
	a.Text = dst.String()
	if a.Match.Type == kernel.Local {
		a.Text = "local " + a.Text
	}
	if a.Chosen.Gateway.IsValid() {
		a.Text += " via " + a.Chosen.Gateway.String()
	}
	if a.dev != "" {
		a.Text += " dev " + a.dev
	}
	return a.Answer
}

func (a answer) always(dst netip.Addr) (kernel.Answer, error) { return a.to(dst), nil }

// route is a status in the making.
func route(owner routes.Owner, dst string, outcome routes.Outcome, why *routes.Reason, hops ...routes.NextHop) routes.Status {
	s := routes.Status{Owner: owner, Outcome: outcome, Since: ago(3 * time.Minute)}
	s.Route = routes.Route{Dst: pfx(dst), Type: kernel.Unicast, NextHops: hops, Reason: why}
	if len(hops) == 0 {
		s.Route.Type = kernel.Blackhole
	}
	if inKernel(&s) {
		s.Kernel = kernelText(&s)
	}
	return s
}

func with(s routes.Status, change func(*routes.Status)) routes.Status {
	change(&s)
	return s
}

// kernelText is what the programmer keeps as the kernel's form.
func kernelText(s *routes.Status) string {
	names := map[int]string{}
	r := kernel.Route{Dst: s.Route.Dst, Metric: s.Route.Key().Metric, Type: s.Route.Type, Scope: s.Route.Scope,
		Protocol: kernel.ProtoCaracal, Src: s.Route.Src, MTU: s.Route.MTU}
	for i, h := range s.Route.NextHops {
		names[i+1] = h.Device
		r.NextHops = append(r.NextHops, kernel.NextHop{Gateway: h.Gateway, Link: i + 1, Onlink: h.Onlink, Weight: h.Weight})
	}
	return kernel.FormatRoute(&r, func(i int) string { return names[i] })
}

func via(gateway, device string, onlink bool) routes.NextHop {
	h := routes.NextHop{Device: device, Onlink: onlink}
	if gateway != "" {
		h.Gateway = addr(gateway)
	}
	return h
}

// serve runs a Server over a connection in memory and returns a client's connection.
func serve(t testing.TB, w *world, change ...func(*Server)) (*grpc.ClientConn, *Server) {
	t.Helper()
	return serveSources(t, w.sources(), change...)
}

func serveSources(t testing.TB, src Sources, change ...func(*Server)) (*grpc.ClientConn, *Server) {
	t.Helper()
	s := NewServer(src)
	for _, f := range change {
		f(s)
	}
	l := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	conn, err := grpc.NewClient("passthrough:///world", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn, s
}
