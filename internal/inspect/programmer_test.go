package inspect

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/test/need"
)

// lent is inspection over the real route programmer on some kernel, which has eth0 with 192.0.2.5/24 and 2001:db8:1::5/64.
type lent struct {
	t       *testing.T
	k       kernel.Kernel
	p       *routes.Programmer
	src     Sources
	stopped func()
}

func lend(t *testing.T, k kernel.Kernel) *lent {
	t.Helper()
	b := testBuilder()
	b.SetPool(&cluster.Pool{Name: "plain-v6", CIDR: pfx("fd00:30::/64"), BlockSize: 122, Workload: true})
	b.SetBlock(&cluster.Block{CIDR: pfx("fd00:30::/122"), Node: "node-a"})
	b.SetBlock(&cluster.Block{CIDR: pfx("fd00:30::4000/122"), Node: "node-b"})
	state := b.State()
	p := routes.New(routes.Options{Kernel: k})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(ctx)
	}()
	l := &lent{t: t, k: k, p: p, stopped: func() { cancel(); <-done }}
	t.Cleanup(func() { l.stopped() })
	l.src = Sources{
		Node: "node-a", Backend: func() cluster.Backend { return cluster.BackendBird }, State: func() *cluster.State { return state },
		Status: func() StatusInfo { return StatusInfo{Ready: true} }, Routes: p.Snapshot, Counts: p.Counts,
		Paths: func(p netip.Prefix) []bgp.Candidate {
			if p.Addr() == addr("10.30.1.0") || p.Addr() == addr("fd00:30::4000") {
				return []bgp.Candidate{{Path: bgp.Path{Prefix: p, Peer: "Mesh", Best: true}}}
			}
			return nil
		},
		WatchRoutes: func(ctx context.Context, changed func([]routes.Status)) { _ = p.Watch(ctx, changed) },
		Lookup:      p.Lookup, Resync: p.Resync,
	}
	return l
}

// install makes the routes of a small cluster and waits, through WatchRoutes, until they are in the kernel.
func (l *lent) install() {
	l.t.Helper()
	conn, _ := serveSources(l.t, l.src)
	r := watchRoutes(l.t, conn, &caracalv1.RouteFilter{States: []caracalv1.RouteState{caracalv1.RouteState_ROUTE_STATE_INSTALLED}})
	r.until(func() bool { return r.synced })
	why := &routes.Reason{Rule: "no encapsulation: direct"}
	l.p.Apply(routes.OwnerBGP, routes.Change{Whole: true, Routes: []routes.Route{
		{Dst: pfx("10.30.0.0/26"), Type: kernel.Blackhole, Reason: why},
		{Dst: pfx("10.30.1.0/26"), Type: kernel.Unicast, Reason: why, NextHops: []routes.NextHop{via("192.0.2.6", "eth0", false)}},
		{Dst: pfx("fd00:30::/122"), Type: kernel.Blackhole, Reason: why},
		{Dst: pfx("fd00:30::4000/122"), Type: kernel.Unicast, Reason: why, NextHops: []routes.NextHop{via("2001:db8:1::6", "eth0", false)}},
	}})
	r.until(func() bool { return len(r.have) == 4 })
}

// wants explains an address and holds the verdict to what is wanted of it.
func (l *lent) wants(a string, level caracalv1.Level, text string) {
	l.t.Helper()
	m := explain(l.t.Context(), &NewServer(l.src).src, addr(a))
	if m.Verdict.Level != level || !strings.Contains(m.Verdict.Text, text) {
		var b strings.Builder
		_ = Renderer{Now: time.Now()}.Explain(&b, m)
		l.t.Errorf("%s: want %v, %q; got\n%s", a, level, text, b.String())
	}
}

func (l *lent) asWanted() {
	l.t.Helper()
	l.wants("10.30.1.7", ok, "on node-b, reached directly via 192.0.2.6 (eth0)")
	l.wants("10.30.0.7", warn, "an address of ours that no workload uses: packets to it are dropped")
	l.wants("fd00:30::4007", ok, "on node-b, reached directly via 2001:db8:1::6 (eth0)")
	l.wants("fd00:30::7", warn, "an address of ours that no workload uses: packets to it are dropped")
	l.wants("192.0.2.5", ok, "an address of this host itself")
}

// driftedAway removes our routes where the programmer does not see it any more, and puts others in their place.
func (l *lent) driftedAway(other kernel.Routes, eth0 int) {
	l.t.Helper()
	l.stopped()
	var ops []kernel.RouteOp
	for _, dst := range []string{"10.30.0.0/26", "10.30.1.0/26", "fd00:30::/122", "fd00:30::4000/122"} {
		ours := &kernel.Route{Dst: pfx(dst), Metric: routes.Metric, Protocol: kernel.ProtoCaracal, Type: kernel.Unicast}
		if strings.HasSuffix(dst, ":/122") || dst == "10.30.0.0/26" {
			ours.Type = kernel.Blackhole
		}
		ops = append(ops, kernel.RouteOp{Verb: kernel.Delete, Route: ours})
	}
	ops = append(ops, kernel.RouteOp{Verb: kernel.Add, Route: &kernel.Route{Dst: pfx("10.30.1.0/26"), Metric: 10, Protocol: kernel.ProtoStatic, Type: kernel.Unicast,
		NextHops: []kernel.NextHop{{Gateway: addr("192.0.2.99"), Link: eth0}}}})
	err := other.WriteRoutes(l.t.Context(), ops, func(i int, err error) { l.t.Errorf("%v %v: %v", ops[i].Verb, ops[i].Route.Dst, err) })
	if err != nil {
		l.t.Fatal(err)
	}
	l.wants("10.30.1.7", missing, "the kernel does not do what we believe: we believe our route 10.30.1.0/26 to be in use, but the kernel uses one of another program")
	l.wants("10.30.0.7", missing, "the kernel does not do what we believe: we believe 10.30.0.0/26 to be installed, but the kernel has no way there")
	l.wants("fd00:30::7", missing, "the kernel does not do what we believe")
	l.wants("fd00:30::4007", missing, "the kernel does not do what we believe")
}

func TestOverProgrammerOnFake(t *testing.T) {
	fake := kerneltest.NewFake()
	eth0 := fake.Wire("eth0")
	for _, a := range []string{"192.0.2.5/24", "2001:db8:1::5/64"} {
		if err := fake.Foreign().AddAddress(t.Context(), kernel.Address{Link: eth0, Prefix: pfx(a)}); err != nil {
			t.Fatal(err)
		}
	}
	l := lend(t, fake)
	l.install()
	l.asWanted()
	l.driftedAway(fake.Foreign(), eth0)
}

func TestOverProgrammerOnKernel(t *testing.T) {
	ns := need.Namespace(t)
	ip := need.Tool(t, "ip", "iproute2")
	for _, cmd := range []string{"link add eth0 type veth peer name peer0", "addr add 192.0.2.5/24 dev eth0", "addr add 2001:db8:1::5/64 dev eth0 nodad",
		"link set eth0 up", "link set peer0 up"} {
		if out, err := ns.Run(ip, strings.Fields(cmd)...); err != nil {
			t.Fatalf("ip %s: %v %s", cmd, err, out)
		}
	}
	k, err := kernel.Open(kernel.Options{Namespace: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	links, err := k.ListLinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eth0 := 0
	for _, l := range links {
		if l.Name == "eth0" {
			eth0 = l.Index
		}
	}
	l := lend(t, k)
	l.install()
	l.asWanted()
	l.driftedAway(k, eth0)
}
