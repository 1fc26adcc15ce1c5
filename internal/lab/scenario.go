package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Scenario does one thing to a standing cluster and checks what must hold.
type Scenario struct {
	Name    string
	Summary string
	// Fits reports whether the scenario makes sense on a cluster; the reason is for people where it does not.
	Fits func(s Spec) (ok bool, reason string)
	run  func(ctx context.Context, r *run) error
}

// Scenarios lists every scenario in the order in which they are played on one cluster.
func Scenarios() []Scenario {
	return []Scenario{
		{"convergence", "all daemons start on bare nodes; time until every workload answers every other", anywhere, convergence},
		{"kill", "kill -9 of one daemon and restart: no packet lost", anywhere, killed},
		{"terminate", "SIGTERM of one daemon and restart: no packet lost", anywhere, terminated},
		{"upgrade", "every daemon is replaced by another file of it, one and then the others: no packet lost, no route missing", anywhere, upgrade},
		{"drain", "a node leaves by caracal drain, restarts meanwhile, and comes back: no packet lost", overBGP, drained},
		{"new-block", "one node claims a new block; time until its workload answers everybody", anywhere, newBlock},
		{"node-leaves", "a node is deleted and comes back; time until the others drop and learn its routes", severalNodes, nodeLeaves},
		{"tampering", "a foreign program deletes our route, FDB entry, neighbour, device; time until each is repaired", severalNodes, tampering},
		{"kills", "daemons are killed at random moments while blocks come and go: no packet lost, no route missing, kernels as wanted", severalNodes, kills},
		{"takeover", "a daemon starts where calico-node (BIRD and Felix) has left its routes, addresses and devices: no packet lost", severalNodes, takeover},
		{"reflectors", "the mesh becomes clients of a route reflector and a mesh again, then elects one, another and none: no packet lost, no route deleted in any kernel for a moment", learning, reflectors},
		{"elections", "elected reflectors are cordoned, drained, restarted, deleted, lose their labels and zones, and too few nodes are left: no packet lost, no session begun anew in vain", electing, elect},
		{"workloads", "workloads come and go while the daemon is killed and while none runs, and the routes to them are the daemon's: no packet lost", routingWorkloads, workloadRoutes},
		{"pool-mode", "pools change from Always to CrossSubnet and back", encapsulated, poolMode},
		{"backend", "the backend is switched in all six directions while running", encapsulated, backends},
		{"garbage", "a configured peer and a stranger speak garbage to the BGP port", anywhere, garbage},
		{"unreadable", "the datastore goes away for a while, and a daemon restarts meanwhile", anywhere, unreadable},
		{"reboot", "a node starts with an empty kernel while the API server is away, from the state it has kept", onKubernetes, rebooted},
	}
}

func anywhere(Spec) (bool, string) { return true, "" }

func severalNodes(s Spec) (bool, string) { return s.Nodes >= 2, "needs two nodes or more" }

func onKubernetes(s Spec) (bool, string) {
	return s.Kubernetes, "needs an API server for its datastore; a directory is not kept twice"
}

func routingWorkloads(s Spec) (bool, string) {
	return s.WorkloadRoutes, "needs daemons that keep the routes to workloads (--workload-routes)"
}

func encapsulated(s Spec) (bool, string) {
	return s.Mode != NoEncapsulation && s.Nodes >= 2, "needs pools with encapsulation and two nodes or more"
}

// Pick returns the scenarios of those names; "all" is every one.
func Pick(names ...string) ([]Scenario, error) {
	var out []Scenario
	for _, name := range names {
		before := len(out)
		for _, s := range Scenarios() {
			if name == "all" || s.Name == name {
				out = append(out, s)
			}
		}
		if len(out) == before {
			return nil, fmt.Errorf("no scenario %q: run caracal-lab scenario without a name for the list", name)
		}
	}
	return out, nil
}

// Figure is one thing measured.
type Figure struct{ Name, Value string }

// Result is what a scenario measured.
type Result struct {
	Scenario string
	Took     time.Duration
	Figures  []Figure
}

// Write prints the result for people.
func (r *Result) Write(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s (%.1fs)\n", r.Scenario, r.Took.Seconds()); err != nil {
		return err
	}
	for _, f := range r.Figures {
		if _, err := fmt.Fprintf(w, "  %-42s %s\n", f.Name, f.Value); err != nil {
			return err
		}
	}
	return nil
}

// run is one scenario under way on one cluster.
type run struct {
	*Cluster
	res *Result
}

// Play runs a scenario on a cluster that has converged, and waits until it has converged again.
func Play(ctx context.Context, c *Cluster, s Scenario) (*Result, error) {
	r := &run{Cluster: c, res: &Result{Scenario: s.Name}}
	began := time.Now()
	err := s.run(ctx, r)
	if err == nil {
		if _, err = c.Converge(ctx); err != nil {
			err = fmt.Errorf("afterwards: %w", err)
		}
	}
	r.res.Took = time.Since(began)
	if err != nil {
		return r.res, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return r.res, nil
}

func (r *run) note(name, format string, args ...any) {
	r.res.Figures = append(r.res.Figures, Figure{name, fmt.Sprintf(format, args...)})
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// Limits of loss for probed.
const (
	lossless = 0
	anyLoss  = -1
)

// probesAround is how many probes each pair is sent before and after what is done under the probe.
const probesAround = 20

// probed runs f while every pair of the endpoints is probed, notes the loss, and returns an error when more than the
// limit were lost.
func (r *run) probed(ctx context.Context, what string, eps []*Endpoint, limit int, f func() error) (*ProbeReport, error) {
	pairs := pairsOf(eps, false)
	if len(pairs) == 0 {
		return &ProbeReport{}, f()
	}
	p, err := StartProbe(pairs, ProbeOptions{})
	if err != nil {
		return nil, err
	}
	err = p.more(ctx, probesAround)
	if err == nil {
		err = f()
	}
	if err == nil {
		err = p.more(ctx, probesAround)
	}
	report := p.Stop()
	r.note("probe "+what, "%s", report)
	if err != nil {
		return report, err
	}
	if lost := report.Lost(); limit >= 0 && lost > limit {
		err := fmt.Errorf("%s: %s; at most %d may be lost", what, report, limit)
		for _, p := range report.Pairs {
			if p.Lost > 0 {
				err = errors.Join(err, fmt.Errorf("  %s %s to %s %s: %d lost, gap %s", p.From.Name, p.From.Addr, p.To.Name, p.To.Addr, p.Lost, p.Gap))
			}
		}
		return report, err
	}
	return report, nil
}

// more waits until every pair has been sent n more probes.
func (p *Prober) more(ctx context.Context, n uint32) error {
	want := make([]uint32, len(p.pairs))
	for i, pp := range p.pairs {
		want[i] = pp.sent.Load() + n
	}
	return poll(ctx, 2*time.Millisecond, func() error {
		for i, pp := range p.pairs {
			if pp.sent.Load() < want[i] {
				return fmt.Errorf("the prober has not sent %d more probes", n)
			}
		}
		return nil
	})
}

// victim is the node things are done to: the second, or the only one.
func (r *run) victim() string { return r.Plan.Nodes[min(1, len(r.Plan.Nodes)-1)].Name }

// others keeps every node but one.
func others(node string) func(string) bool { return func(n string) bool { return n != node } }

// eachMember runs f for every node with a daemon, at once.
func (r *run) eachMember(f func(node string) error) error {
	var g errgroup.Group
	for _, n := range r.Plan.Members() {
		g.Go(func() error { return f(n.Name) })
	}
	return g.Wait()
}

// inPools returns the endpoints with addresses of pools that keep holds for.
func (r *run) inPools(keep func(*Pool) bool) []*Endpoint {
	return slices.DeleteFunc(r.Endpoints(nil), func(e *Endpoint) bool {
		q := r.Plan.PoolOf(e.Addr)
		return q == nil || !keep(q)
	})
}

// PlayAll plays scenarios one after the other on one cluster, which is built for them and removed afterwards. A cluster that one of
// them broke is replaced by a new one for the rest.
func PlayAll(ctx context.Context, w io.Writer, spec Spec, opts Options, list []Scenario) error {
	spec.Kubernetes = opts.Kubernetes != nil
	spec, err := spec.Complete()
	if err != nil {
		return err
	}
	out := &printer{w: w}
	opts.Owned = true
	var c *Cluster
	var all error
	for _, s := range list {
		if ok, why := s.Fits(spec); !ok {
			out.line("%s: left out: %s", s.Name, why)
			continue
		}
		if c == nil {
			var err error
			if c, err = ready(ctx, spec, opts); err != nil {
				return errors.Join(all, err)
			}
		}
		sctx, cancel := context.WithTimeout(ctx, opts.Patience())
		res, err := Play(sctx, c, s)
		cancel()
		all = errors.Join(all, err, res.Write(w))
		if err != nil {
			out.line("  FAILED: %v", err)
			all = errors.Join(all, c.Down())
			c = nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	if c != nil {
		all = errors.Join(all, c.Down())
	}
	return errors.Join(all, out.err)
}

// patience is how long a scenario may take; elections take four minutes, any other ten seconds, in the guest kernel six times that.
const patience = 8 * time.Minute

// Patience is how long a scenario may take.
func (o Options) Patience() time.Duration {
	return patience + time.Duration(max(0, o.Kills-defaultKills))*perKill
}

// perKill is what each kill more may take: a second until it is done, and BGP's sessions must come back at times.
const perKill = 5 * time.Second

// ready brings up a cluster and waits until it has converged.
func ready(ctx context.Context, spec Spec, opts Options) (*Cluster, error) {
	c, err := Up(ctx, spec, opts)
	if err != nil {
		return nil, err
	}
	wctx, cancel := context.WithTimeout(ctx, converged)
	defer cancel()
	if _, err := c.Converge(wctx); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	return c, nil
}
