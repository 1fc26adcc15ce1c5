package filters

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

const birdDir = "/usr/local/lib/bird1/" // see test/install

// TestEqualsBIRD: what a BGPFilter makes of a route, and what is announced where none decides, is what BIRD makes of it.
func TestEqualsBIRD(t *testing.T) {
	need.Root(t)
	for _, kind := range []peers.Kind{peers.BIRD1, peers.BIRD2} {
		if what := peers.Missing(kind); what != "" {
			need.Other(t, what, "make deps")
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FILTERS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		bird2, reflector := i/2 == 1, i%2 == 1
		t.Run(fmt.Sprintf("bird%d,reflector=%v", 1+i/2, reflector), func(t *testing.T) {
			t.Parallel()
			t.Logf("FILTERS_SEED=%d repeats this", seed)
			w := newWorld(seed, bird2, reflector)
			node := w.start(t)
			cfg := w.plan(t)
			for i := range w.families {
				w.compare(t, node, cfg, &w.families[i])
			}
		})
	}
}

// plan is what we make of the world.
func (w *world) plan(t *testing.T) *bgp.Config {
	for _, f := range w.filters {
		plain, problems := f.Filter()
		if len(problems) > 0 {
			t.Fatalf("%+v: %v", f, problems)
		}
		w.objects.Filters = append(w.objects.Filters, plain)
	}
	cfg, problems := bgp.Plan(cluster.Build(w.objects), "a", w.host)
	for _, p := range problems {
		if !strings.HasPrefix(p.Object, "BGPFilter") || !strings.Contains(p.Text, "own AS") { // prepending a foreign AS is told
			t.Errorf("%+v", p)
		}
	}
	return &cfg
}

// birds is the node's BIRD and where its control sockets are.
type birds struct {
	ns  netns.NS
	dir string
	two bool
}

func (b *birds) ask(t *testing.T, v6 bool, words ...string) string {
	t.Helper()
	program, socket := birdDir+"birdc", "bird.ctl"
	switch {
	case b.two:
		program = "/usr/sbin/birdc"
	case v6:
		program, socket = birdDir+"birdc6", "bird6.ctl"
	}
	out, err := b.ns.Run(program, append([]string{"-s", filepath.Join(b.dir, socket)}, words...)...)
	if err != nil {
		t.Fatal(err, out)
	}
	return out
}

// start runs the node's BIRD and the one that feeds it, and returns when all is known.
func (w *world) start(t *testing.T) *birds {
	node, other := need.Namespace(t), need.Namespace(t)
	ip := func(ns netns.NS, format string, args ...any) {
		t.Helper()
		line := fmt.Sprintf(format, args...)
		if out, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatalf("ip %s: %v %s", line, err, out)
		}
	}
	ip(node, "link add name eth0 type veth peer name eth0 netns %s", other.Name)
	for _, name := range []string{"eth1", "cali7"} {
		ip(node, "link add name %s type veth peer name %s netns %s", name, name, other.Name)
		ip(node, "link set %s up", name)
		ip(other, "link set %s up", name)
	}
	ip(node, "address add 203.0.113.1/24 dev eth1")
	ip(node, "address add 2001:db8:1::1/64 dev eth1 nodad")
	hosts := []int{insideHost, outsideHost}
	for _, p := range w.peers {
		hosts = append(hosts, p.host)
	}
	for i := range w.families {
		f, rest := &w.families[i], "/24 dev eth0"
		if f.v6 {
			rest = "/64 dev eth0 nodad"
		}
		ip(node, "address add %s%s", f.own, rest)
		for _, host := range hosts {
			ip(other, "address add %s%s", f.feeder(host), rest)
			ip(node, "address add %s%s", f.local(host), rest)
		}
	}
	for i := range w.families {
		for p, metric := range w.families[i].workloads {
			ip(node, "-%s route add %s dev cali7 metric %d proto 80", map[bool]string{false: "4", true: "6"}[w.families[i].v6], p, metric)
		}
	}
	ip(node, "link set eth0 up")
	ip(other, "link set eth0 up")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	run := func(kind peers.Kind, ns netns.NS, files map[string]string) string {
		dir, err := os.MkdirTemp("", "bird")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		r, err := peers.Start(ctx, kind, ns, dir, peers.Config{RouterID: netip.MustParseAddr("192.0.2.1"), Files: files})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(r.Log(20))
			}
			_ = r.Kill()
		})
		return dir
	}
	b := &birds{ns: node, two: w.bird2}
	if w.bird2 {
		b.dir = run(peers.BIRD2, node, map[string]string{"bird.conf": header(w) + birdConfig(w, false) + birdConfig(w, true)})
	} else {
		b.dir = run(peers.BIRD1, node, map[string]string{"bird.conf": header(w) + birdConfig(w, false), "bird6.conf": header(w) + birdConfig(w, true)})
	}
	run(peers.BIRD1, other, map[string]string{"bird.conf": feederConfig(w, false), "bird6.conf": feederConfig(w, true)})
	err := peers.Poll(ctx, func() error {
		for i := range w.families {
			f := &w.families[i]
			want := len(w.peers) + 2
			if w.bird2 {
				want *= 2
			}
			if up := strings.Count(b.ask(t, f.v6, "show", "protocols"), "Established"); up != want {
				return fmt.Errorf("%d sessions are up", up)
			}
			if got := len(b.routes(t, f.v6, "where", "source = RTS_BGP")); got != len(f.learned) {
				return fmt.Errorf("%d routes are learned", got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, b.ask(t, false, "show", "protocols"))
	}
	return b
}

// routes asks for routes of one family.
func (b *birds) routes(t *testing.T, v6 bool, words ...string) map[netip.Prefix]bgp.Route {
	t.Helper()
	words = append([]string{"show", "route"}, words...)
	if b.two {
		words = append(words, "table", "master"+digit(v6))
	}
	return parse(b.ask(t, v6, words...))
}

// parse reads what BIRD shows of routes.
func parse(text string) map[netip.Prefix]bgp.Route {
	out := make(map[netip.Prefix]bgp.Route)
	var last netip.Prefix
	for line := range strings.Lines(text) {
		if first, _, _ := strings.Cut(line, " "); strings.Contains(first, "/") {
			if p, err := netip.ParsePrefix(first); err == nil {
				last = p
				out[last] = bgp.Route{Prefix: p}
			}
			continue
		}
		if !last.IsValid() {
			continue // the greeting
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		r, value := out[last], strings.TrimSpace(value)
		switch name {
		case "BGP.as_path":
			for w := range strings.FieldsSeq(value) {
				n, _ := strconv.ParseUint(w, 10, 32)
				r.ASPath = append(r.ASPath, uint32(n))
			}
		case "BGP.next_hop":
			first, _, _ := strings.Cut(value, " ")
			r.NextHop, _ = netip.ParseAddr(first)
		case "BGP.local_pref":
			n, _ := strconv.ParseUint(value, 10, 32)
			r.LocalPref = uint32(n)
		case "BGP.community", "BGP.large_community":
			for w := range strings.SplitSeq(strings.ReplaceAll(value, " ", ""), ")") {
				if c, err := calico.ParseCommunity(strings.ReplaceAll(strings.TrimPrefix(w, "("), ",", ":")); err == nil {
					r.Communities = append(r.Communities, c)
				}
			}
		}
		out[last] = r
	}
	return out
}

// say writes a route that was accepted.
func say(r *bgp.Route) string {
	c := slices.Clone(r.Communities)
	slices.SortFunc(c, bgp.Community.Compare)
	return fmt.Sprint(r.Prefix, " preference ", r.LocalPref, " path ", r.ASPath, " communities ", c)
}

// compare asks BIRD about all filters.
func (w *world) compare(t *testing.T, b *birds, cfg *bgp.Config, f *family) {
	known := b.routes(t, f.v6, "all", "where", "source = RTS_BGP")
	external := make(map[netip.Prefix]bool)
	for _, r := range f.learned {
		external[r.Prefix] = r.external
	}
	w.kernel(t, b, f, known)
	asked, accepted := 0, 0
	for i := range w.peers {
		at := slices.IndexFunc(cfg.Peers, func(p bgp.Peer) bool { return p.Addr == f.feeder(w.peers[i].host) })
		if at < 0 {
			t.Fatalf("no session with %s", f.feeder(w.peers[i].host))
		}
		p := &cfg.Peers[at]
		in, out := make(map[netip.Prefix]string), make(map[netip.Prefix]string)
		note := func(to map[netip.Prefix]string, r bgp.Route, v bgp.Verdict) {
			asked++
			if v.Accept {
				accepted++
				to[r.Prefix] = say(&r)
			}
		}
		for _, r := range known {
			r.Learned = true
			got, v := cfg.Accept(p, r)
			note(in, got, v)
			if !w.reflector && (!external[r.Prefix] && !cfg.External(p) || slices.Contains(f.services, r.Prefix)) {
				continue // what was learned inside is not told to others inside; of addresses of Services see package bgp: deviations
			}
			got, v = w.send(cfg, p, r)
			note(out, got, v)
		}
		for _, o := range cfg.Originate {
			if o.Prefix.Addr().Is6() == f.v6 {
				got, v := w.send(cfg, p, bgp.RouteFrom(&o))
				note(out, got, v)
			}
		}
		n := digit(f.v6)
		id := fmt.Sprintf("%d_%s", i, n)
		w.differ(t, fmt.Sprintf("import %d, AS %d", i, w.peers[i].as), in, b.routes(t, f.v6, "all", "filter", "import"+id, "protocol", "from_inside"+n),
			b.routes(t, f.v6, "all", "filter", "import"+id, "protocol", "from_outside"+n))
		theirs := parse(b.ask(t, f.v6, "show", "route", "all", "export", "to"+id))
		if !w.reflector {
			maps.DeleteFunc(theirs, func(p netip.Prefix, _ bgp.Route) bool { return slices.Contains(f.services, p) })
		}
		w.differ(t, fmt.Sprintf("export %d, AS %d", i, w.peers[i].as), out, theirs)
		if t.Failed() {
			spec := &w.filters[i].Spec
			list := map[bool][]calico.BGPFilterRule{false: spec.ImportV4, true: spec.ImportV6}[f.v6]
			more := map[bool][]calico.BGPFilterRule{false: spec.ExportV4, true: spec.ExportV6}[f.v6]
			t.Fatalf("filter %d:\n%s%s\n%s", i, birdFunction("import", list), birdFunction("export", more), b.ask(t, f.v6, "show", "route", "where", "source != RTS_BGP"))
		}
	}
	if accepted < asked/20 || accepted > asked*19/20 {
		t.Errorf("of %d routes %d were accepted: that tells little", asked, accepted)
	}
	t.Logf("%v: %d routes, %d accepted", f.own, asked, accepted)
}

// kernel compares which routes the kernel gets, and with what metric.
func (w *world) kernel(t *testing.T, b *birds, f *family, known map[netip.Prefix]bgp.Route) {
	t.Helper()
	r := bgp.NewRoutes("a", nil)
	for p, route := range known {
		r.Learned([]bgp.Learned{{Prefix: p, Paths: []bgp.Path{{Peer: "someone", NextHop: route.NextHop, LocalPref: route.LocalPref}}}})
	}
	ours := make(map[netip.Prefix]uint32)
	for _, route := range r.Plan(cluster.Build(w.objects), w.host).Routes {
		if _, learned := known[route.Dst]; learned && route.Type == routes.Unicast && route.Unroutable == "" {
			ours[route.Dst] = route.Metric
		}
	}
	theirs := make(map[netip.Prefix]uint32)
	for _, from := range []string{"from_inside", "from_outside"} {
		var at netip.Prefix
		for line := range strings.Lines(b.ask(t, f.v6, "show", "route", "all", "filter", "kernel"+digit(f.v6), "protocol", from+digit(f.v6))) {
			first, _, _ := strings.Cut(line, " ")
			if p, err := netip.ParsePrefix(first); err == nil {
				at = p
			}
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "Kernel.metric: "); ok {
				n, _ := strconv.ParseUint(value, 10, 32)
				theirs[at] = uint32(n)
			}
		}
	}
	if len(ours) < len(known)/3 || len(ours) == len(known) || !maps.Equal(ours, theirs) {
		t.Fatalf("the kernel gets\n%v\nof us, of BIRD\n%v", ours, theirs)
	}
}

// send is what we make of a route to a peer. BIRD 1.6 shows it with our AS before the path already.
func (w *world) send(cfg *bgp.Config, p *bgp.Peer, r bgp.Route) (bgp.Route, bgp.Verdict) {
	r, v := cfg.Send(p, r)
	if cfg.External(p) && !w.bird2 {
		r.ASPath = append([]uint32{cfg.LocalAS(p)}, r.ASPath...)
	}
	return r, v
}

func (w *world) differ(t *testing.T, what string, ours map[netip.Prefix]string, birds ...map[netip.Prefix]bgp.Route) {
	t.Helper()
	theirs := make(map[netip.Prefix]string)
	for _, m := range birds {
		for p, r := range m {
			theirs[p] = say(&r)
		}
	}
	for p, is := range theirs {
		if ours[p] != is {
			t.Errorf("%s: BIRD has\n\t%s\nwe have\n\t%s", what, is, ours[p])
		}
	}
	for p, is := range ours {
		if theirs[p] == "" {
			t.Errorf("%s: BIRD refuses\n\t%s", what, is)
		}
	}
}
