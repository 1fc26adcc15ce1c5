package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

// wired builds one node with two workloads and no daemon, with addresses as IPAM would give them.
func wired(t *testing.T, family Families) (*Plan, []*Endpoint) {
	t.Helper()
	need.Root(t)
	need.Tool(t, "ip", "iproute2")
	spec, err := Spec{Name: fmt.Sprintf("wire-%d", os.Getpid()), Nodes: 1, Mode: VXLAN, Family: family}.Complete()
	if err != nil {
		t.Fatal(err)
	}
	p := NewPlan(spec)
	t.Cleanup(func() {
		if err := Remove(spec.Name, t.TempDir()); err != nil {
			t.Error(err)
		}
	})
	if err := p.buildUnderlay(); err != nil {
		t.Fatal(err)
	}
	var eps []*Endpoint
	n := &p.Nodes[0]
	for i := range n.Workloads {
		w := &n.Workloads[i]
		for _, pool := range w.Pools {
			w.Addrs = append(w.Addrs, host(netip.PrefixFrom(pool.Addr(), pool.Bits()), i+1).Addr())
		}
		if err := p.wire(n, w); err != nil {
			t.Fatal(err)
		}
		for _, a := range w.Addrs {
			eps = append(eps, &Endpoint{Name: w.Name, Node: n.Name, NS: netns.NS{Name: w.NS}, Addr: a})
		}
	}
	return p, eps
}

func TestWorkloadsOfOneNodeReachEachOther(t *testing.T) {
	p, eps := wired(t, DualStack)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	took, err := WaitReachable(ctx, eps)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("reachable after", took)
	for _, size := range []int{0, p.WorkloadMTU()} {
		r, err := Matrix(ctx, eps, 20, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Pairs) != 4 || r.Lost() != 0 || r.Sent() < 80 {
			t.Errorf("size %d: %s; want 4 pairs, 20 probes each, none lost", size, r)
		}
	}
	// One byte more than the MTU must not pass: else the size test proves nothing.
	r, err := Matrix(ctx, eps, 3, p.WorkloadMTU()+1)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost() != r.Sent() {
		t.Errorf("probes above the MTU: %s; want all lost", r)
	}
	if _, err := Transfer(ctx, eps[0], eps[2], 1<<20); err != nil {
		t.Error(err)
	}
}

// TestProberCountsExactly takes a wire down for a while and compares the count with what the kernel itself saw.
func TestProberCountsExactly(t *testing.T) {
	p, eps := wired(t, Only4)
	pairs := pairsOf(eps, false)
	// A new link carries nothing until the kernel's link watch has run, on a busy machine up to a second later.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := WaitReachable(ctx, eps); err != nil {
		t.Fatal(err)
	}
	probe, err := StartProbe(pairs, ProbeOptions{Interval: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	answered := func(n uint32) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := poll(ctx, time.Millisecond, func() error {
			if got := probe.pairs[0].answered.Load(); got < n {
				return fmt.Errorf("%d answers, want %d", got, n)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	answered(20)
	node := netns.NS{Name: p.Nodes[0].NS}
	away := time.Now()
	if err := batch(node, "route del "+eps[1].Addr.String()+"\nroute add blackhole "+eps[1].Addr.String()+"\n"); err != nil {
		t.Fatal(err)
	}
	before := probe.pairs[0].sent.Load()
	if err := poll(ctx, time.Millisecond, func() error {
		if probe.pairs[0].sent.Load() < before+25 {
			return fmt.Errorf("too few sent")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := batch(node, "route del blackhole "+eps[1].Addr.String()+"\nroute add "+eps[1].Addr.String()+" dev cali-w2\n"); err != nil {
		t.Fatal(err)
	}
	out := time.Since(away)
	answered(probe.pairs[0].answered.Load() + 20)
	r := probe.Stop()
	if r.Lost() < 24 || r.Lost() > int(out/(2*time.Millisecond))+2 || r.Lost()+int(probe.pairs[0].answered.Load()) != r.Sent() {
		t.Errorf("%s after an outage of %s in which 25 probes were sent", r, out)
	}
	if r.Gap() <= 0 || r.Gap() > out+20*time.Millisecond {
		t.Errorf("gap %s, want it within the outage of %s", r.Gap(), out)
	}
}

func TestRemoveTakesOnlyItsOwn(t *testing.T) {
	need.Root(t)
	mine := fmt.Sprintf("own-%d", os.Getpid())
	for _, name := range []string{prefix(mine) + "node1", prefix(mine+"-b") + "node1"} {
		if _, err := netns.Create(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netns.NS{Name: name}.Delete() })
	}
	if err := Remove(mine, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	left, err := netns.List(prefix(mine))
	if err != nil || len(left) != 0 {
		t.Errorf("left of the removed cluster: %v, %v", left, err)
	}
	if left, err = netns.List(prefix(mine + "-b")); err != nil || len(left) != 1 {
		t.Errorf("left of the other cluster: %v, %v; want it untouched", left, err)
	}
}

// standing returns a scenario's view of a wired node.
func standing(t *testing.T) *run {
	t.Helper()
	p, eps := wired(t, Only4)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := WaitReachable(ctx, eps); err != nil {
		t.Fatal(err)
	}
	return &run{Cluster: newCluster(p, Options{Root: t.TempDir()}), res: &Result{}}
}

// TestProbedRejectsLoss makes sure that a scenario under which packets are lost is not passed.
func TestProbedRejectsLoss(t *testing.T) {
	r := standing(t)
	node, addr := netns.NS{Name: r.Plan.Nodes[0].NS}, r.Plan.Nodes[0].Workloads[1].Addrs[0].String()
	cut := func() error {
		if err := batch(node, "route replace blackhole "+addr+" metric 1\n"); err != nil {
			return err
		}
		if err := r.dwell(t.Context()); err != nil {
			return err
		}
		return batch(node, "route del blackhole "+addr+" metric 1\n")
	}
	_, err := r.probed(t.Context(), "of all", r.Endpoints(nil), lossless, cut)
	if err == nil || !strings.Contains(err.Error(), "at most 0 may be lost") || !strings.Contains(err.Error(), addr) {
		t.Errorf("error %v, want one that says what was lost on the way to %s", err, addr)
	}
	if report, err := r.probed(t.Context(), "of all", r.Endpoints(nil), anyLoss, cut); err != nil || report.Lost() == 0 {
		t.Errorf("where any loss is allowed: %v, %v; want no error and a loss", report, err)
	}
	if report, err := r.probed(t.Context(), "of all", r.Endpoints(nil), lossless, func() error { return nil }); err != nil || report.Sent() < 2*probesAround {
		t.Errorf("nothing done: %v, %v; want no error and at least %d probes", report, err, 2*probesAround)
	}
}

// TestGuardSeesAMoment deletes and restores a route of ours within one batch, faster than any probe would notice.
func TestGuardSeesAMoment(t *testing.T) {
	r := standing(t)
	node := netns.NS{Name: r.Plan.Nodes[0].NS}
	const ours, theirs = "10.9.0.0/24 dev eth0 proto 202", "10.8.0.0/24 dev eth0 proto static"
	if err := batch(node, "route add "+ours+"\nroute add "+theirs+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.guarded(t.Context(), func() error {
		return batch(node, "route del "+theirs+"\nroute add "+theirs+"\nroute replace 10.9.0.0/24 dev lo proto 202\nroute replace "+ours+"\n")
	}); err != nil {
		t.Errorf("a foreign route deleted and one of ours replaced: %v", err)
	}
	err := r.guarded(t.Context(), func() error { return batch(node, "route del "+ours+"\nroute add "+ours+"\n") })
	if err == nil || !strings.Contains(err.Error(), "10.9.0.0/24 on node1") {
		t.Errorf("error %v, want one that names 10.9.0.0/24 on node1", err)
	}
}

// TestRepairedWantsARepair holds the stopwatch of the tampering scenario to a repair that happens and one that does not.
func TestRepairedWantsARepair(t *testing.T) {
	r := standing(t)
	node := netns.NS{Name: r.Plan.Nodes[0].NS}
	const ours = "10.9.0.0/24 dev eth0 proto 202"
	match := func(e kernel.Event) (bool, bool) {
		return e.Kind == kernel.EventRoute && e.Route.Dst.String() == "10.9.0.0/24", e.Deleted
	}
	err := r.withKernel("node1", func(k kernel.Kernel) error {
		if err := batch(node, "route add "+ours+"\n"); err != nil {
			return err
		}
		took, err := repaired(t.Context(), k, func() error { return batch(node, "route del "+ours+"\nroute add "+ours+"\n") }, match)
		if err != nil || took <= 0 {
			t.Errorf("a repair: %s, %v", took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if took, err := repaired(ctx, k, func() error { return batch(node, "route del "+ours+"\n") }, match); err == nil {
			t.Errorf("no repair was taken for one of %s", took)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
