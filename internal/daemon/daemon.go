package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/file"
	"github.com/caracal-net/caracal/internal/datastore/kube"
	"github.com/caracal-net/caracal/internal/datastore/snapshot"
	"github.com/caracal-net/caracal/internal/inspect"
	"github.com/caracal-net/caracal/internal/ipam"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/proxyhealth"
	"github.com/caracal-net/caracal/internal/report"
	"github.com/caracal-net/caracal/internal/startup"
	"github.com/caracal-net/caracal/routes"
)

// daemon is one running caracald: every part of it, wired.
type daemon struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	kernel     kernel.Kernel
	store      datastoreBoth
	programmer *routes.Programmer
	controller *controller
	engine     *engine
	liveness   *liveness
	start      *nodeStart         // nil: the node is in the datastore already, or will be by another's hand
	condition  *startup.Condition // nil outside Kubernetes
	tunnels    *tunnels
	proxy      *proxyhealth.Checker // nil: nothing is verified
	reports    *report.Reporter     // nil outside Kubernetes
	departure  *departure
	mark       *mark
	cordon     Task // nil outside Kubernetes
	sessions   bell // something of a BGP session has changed
}

// datastoreBoth is a datastore that is watched and written.
type datastoreBoth interface {
	datastore.Watcher
	datastore.Store
}

// Run runs caracald in the calling process's network namespace until ctx ends or a part of it fails for good.
// What it has programmed stays.
func Run(ctx context.Context, cfg Config, log *slog.Logger) (err error) {
	if err := cfg.Rails.check(); err != nil {
		return err
	}
	if cfg.Workloads && cfg.Felix {
		return errWorkloads
	}
	d := &daemon{cfg: cfg, log: log.With(logNode, cfg.Node), started: time.Now()}
	listener, err := listen(ctx, cfg.Socket) // first of all: what a predecessor leaves is whole when it has gone
	if err != nil {
		return err
	}
	if err := d.open(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, d.kernel.Close()) }()
	server := inspect.NewServer(d.sources())
	d.log.Info("caracald starts", logVersion, inspect.Version(), logBackend, cfg.Backend, logDatastore, cfg.Datastore, logSocket, cfg.Socket)
	sources := stage{task{"datastore watcher", d.watch}, d.controller}
	if d.start != nil {
		sources = append(sources, d.start)
	}
	if d.condition != nil {
		sources = append(sources, d.condition)
	}
	if d.proxy != nil {
		sources = append(sources, d.proxy)
	}
	if d.reports != nil {
		sources = append(sources, d.reports)
	}
	if d.cordon != nil {
		sources = append(sources, d.cordon)
	}
	err = runStages(ctx, []stage{
		sources,
		{task{"route programmer", d.programmer.Run}},
		{d.engine, d.liveness, d.tunnels, d.departure, d.mark, task{"memory", func(ctx context.Context) error { return keepHeap(ctx, d.bursts) }}},
		{task{"gRPC server", func(ctx context.Context) error { return server.Serve(ctx, listener) }}},
	})
	d.log.Info("caracald has stopped; routes, devices and addresses stay")
	return err
}

// open makes every part; none of them works before Run's stages start it.
func (d *daemon) open(ctx context.Context) error {
	kubernetes, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	if d.kernel, err = kernel.Open(kernel.Options{ProcSys: d.cfg.ProcSys, MuteAdds: true}); err != nil {
		return fmt.Errorf("open netlink: %w; caracald needs CAP_NET_ADMIN", err)
	}
	restarting, err := holdsRoutes(ctx, d.kernel, d.cfg.Adopt)
	if err != nil {
		return errors.Join(err, d.kernel.Close())
	}
	d.programmer = routes.New(routes.Options{Kernel: d.kernel, Log: d.log, ResyncInterval: routes.DefaultResyncInterval,
		BesideFelix: d.cfg.Felix, Adopt: d.cfg.Adopt, Settings: true, NexthopObjects: !d.cfg.InlineNextHops})
	d.engine = newEngine(d.log, func(ev bgp.Events) (bgp.Speaker, error) {
		s, err := gobgp.New(gobgp.Options{Log: d.log, Events: ev, Restarting: restarting})
		if err != nil {
			return nil, err
		}
		restarting = false // a Speaker started later, by a change of backend, has forgotten nothing
		return s, nil
	}, bgp.Events{
		Learned: func(l []bgp.Learned) { d.controller.addLearned(l) },
		Peers:   d.sessions.ring,
		InSync:  func() { d.controller.setBGPInSync() },
	})
	d.engine.failed = d.sessions.ring
	d.liveness = newLiveness(d.log, d.engine, d.cfg.Socket)
	d.liveness.heard, d.liveness.sessions = d.sessions.ring, d.sessions.listen
	d.liveness.avoid = d.programmer.Avoid
	client := &ipam.Client{Store: d.store, Node: d.cfg.Node, Log: d.log}
	d.tunnels = newTunnels(d.cfg.Node, d.log, d.ensureTunnels(client))
	client.Known = d.tunnels.known
	d.controller = newController(d.cfg.Node, d.cfg.Backend, d.log, d.programmer, d.liveness)
	if d.cfg.Rails != (Rails{}) {
		d.controller.rails.Rails = d.cfg.Rails
	}
	d.controller.found = d.reports.SetFound
	d.mark = newMark(d.store, d.cfg.Node, d.log, kubernetes != nil)
	d.controller.inForce = func(st *cluster.State, backend cluster.Backend) {
		d.tunnels.setState(st, backend)
		d.mark.setState(st)
	}
	d.controller.besideFelix, d.controller.adoptFelix = d.cfg.Felix, d.cfg.Adopt.Felix
	d.controller.workloads.node, d.controller.podNode = d.podsOf(), d.nodeRef()
	d.openProxy(restarting)
	if d.cfg.Settings != nil {
		d.controller.routerID = d.cfg.Settings.RouterID
	}
	d.openStart(kubernetes)
	d.departure = newDeparture(d.cfg.Socket, d.log, func(l bgp.Leaving) {
		d.controller.setLeaving(l)
		d.mark.setLeaving(l)
	})
	if kubernetes != nil {
		d.cordon = task{"cordon", func(ctx context.Context) error {
			return kubernetes.WatchCordon(ctx, d.nodeRef(), func(cordoned bool) {
				d.departure.setCordoned(cordoned)
				d.mark.heardCordon()
			})
		}}
	}
	d.programmer.OnHost(func(h *routes.Host) {
		d.controller.setHost(h)
		d.start.wake()
	})
	return nil
}

// openStore opens the datastore, and returns it as startup needs it where it is the Kubernetes API.
func (d *daemon) openStore(ctx context.Context) (*kube.Store, error) {
	if d.cfg.Datastore == Kubernetes {
		store, err := kube.Open(ctx, kube.Options{Log: d.log, ClusterIPs: d.clusterIPs(), PodsOf: d.podsOf(), Node: d.nodeRef()}.FromEnv(os.Getenv))
		if err != nil {
			return nil, err
		}
		d.store = store
		d.reports = report.New(report.Options{Node: d.cfg.Node, Log: d.log, Report: func(ctx context.Context, p cluster.Problem) error {
			return store.ReportProblem(ctx, d.cfg.Node, p)
		}})
		return store, nil
	}
	dir, err := d.cfg.Directory()
	if err != nil {
		return nil, err
	}
	store, err := file.Open(dir, file.Options{Log: d.log, ClusterIPs: d.clusterIPs()})
	if err != nil {
		return nil, fmt.Errorf("open datastore %s: %w", d.cfg.Datastore, err)
	}
	d.store = store
	return nil, nil
}

// openStart makes the tasks that start the node. A directory of manifests was filled by somebody: there nothing is started unless the
// environment asks for addresses.
func (d *daemon) openStart(kubernetes *kube.Store) {
	settings := d.cfg.Settings
	if settings == nil || kubernetes == nil && !settings.Asked() {
		return
	}
	mine := *settings
	mine.Node = d.cfg.Node
	if mine.NodeRef == "" {
		mine.NodeRef = mine.Node
	}
	opts := startup.Options{Settings: &mine, Store: d.store, Log: d.log, Interfaces: startup.Interfaces(d.kernel)}
	if kubernetes != nil {
		opts.Cluster = kubernetes
		d.condition = &startup.Condition{Cluster: kubernetes, NodeRef: mine.NodeRef, Log: d.log, Ready: d.ready,
			Backend: func() cluster.Backend { return d.controller.View().backend }}
	}
	d.start = newNodeStart(opts)
}

// bursts reports whether peers may bring tables, which is known from the first plan on.
func (d *daemon) bursts() (may, known bool) {
	v := d.controller.View()
	return v.planned && v.backend == cluster.BackendBird, v.planned
}

// watch feeds the controller and the tasks of this node from the datastore.
func (d *daemon) watch(ctx context.Context) error {
	var source datastore.Watcher = d.store
	if d.cfg.Snapshot != "" {
		source = snapshot.New(d.store, snapshot.Options{File: d.cfg.Snapshot, Node: d.cfg.Node, Log: d.log,
			Good: func() bool { return d.controller.View().held == nil }})
	}
	return source.Watch(ctx, func(u datastore.Update) {
		u.State = u.State.WithMTU(d.mtu())
		d.controller.setUpdate(u)
		d.proxy.SetState(u.State)
		if u.InSync && u.Err == nil && u.Suspect == "" {
			d.reports.SetState(u.State)
		}
		if u.InSync {
			d.start.setState(u.State, d.controller.backend(u.State))
		}
	})
}

// ensureTunnels returns the tunnel address task's work. It is left alone, and tried again, while the rails hold a State: pools that are missing from
// a datastore that has lost its contents are no reason to give addresses back.
func (d *daemon) ensureTunnels(client *ipam.Client) func(context.Context) error {
	return func(ctx context.Context) error {
		if d.controller.View().held != nil {
			return errHeld
		}
		return client.EnsureTunnelAddresses(ctx)
	}
}

// mtu is what the environment says of devices, FELIX_IPINIPMTU and the like, which goes before FelixConfiguration, as in Calico.
func (d *daemon) mtu() cluster.FelixConfig {
	if d.cfg.Settings == nil {
		return cluster.FelixConfig{}
	}
	m := d.cfg.Settings.MTU
	return cluster.FelixConfig{IPIPMTU: m.IPIP, VXLANMTU: m.VXLAN4, VXLANMTUv6: m.VXLAN6}
}

// holdsRoutes reports whether a former process left routes of ours, or a program whose leftovers are taken over left its own: then forwarding
// went on without us and the Speaker may say so (RFC 4724 section 3, the Restart State and Forwarding State bits). Peers that keep the paths of a
// BIRD that has gone would drop them at once otherwise.
func holdsRoutes(ctx context.Context, k kernel.Kernel, adopt routes.Adoption) (bool, error) {
	for _, v6 := range []bool{false, true} {
		found := false
		err := k.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
			found = r.Protocol == kernel.ProtoCaracal || adopt.BIRD && r.Protocol == kernel.ProtoBird || adopt.Felix && r.Protocol == kernel.ProtoFelix
			return !found
		})
		if found {
			return true, nil
		}
		if err != nil && !errors.Is(err, kernel.ErrInterrupted) && !errors.Is(err, kernel.ErrUnsupported) {
			return false, fmt.Errorf("list routes: %w", err)
		}
	}
	return false, nil
}

// Cleanup removes everything of ours from the calling process's network namespace. Beside a Felix its devices stay.
func Cleanup(ctx context.Context, besideFelix bool, log *slog.Logger) (err error) {
	k, err := kernel.Open(kernel.Options{})
	if err != nil {
		return fmt.Errorf("open netlink: %w; cleanup needs CAP_NET_ADMIN", err)
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return routes.Cleanup(ctx, k, besideFelix, log)
}

// LeaveToCalico makes what is of ours in the calling process's network namespace calico-node's; see routes.LeaveToCalico.
func LeaveToCalico(ctx context.Context, log *slog.Logger) (err error) {
	k, err := kernel.Open(kernel.Options{})
	if err != nil {
		return fmt.Errorf("open netlink: %w; cleanup needs CAP_NET_ADMIN", err)
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return routes.LeaveToCalico(ctx, k, log)
}

// task is a Task made of a name and a function.
type task struct {
	name string
	run  func(context.Context) error
}

// Run runs the function.
func (t task) Run(ctx context.Context) error { return t.run(ctx) }

// String returns the name.
func (t task) String() string { return t.name }

// paths returns every path to a prefix, nil where no Speaker runs.
func (d *daemon) paths(p netip.Prefix) []bgp.Candidate {
	speaker, _ := d.engine.Status()
	if speaker == nil {
		return nil
	}
	return speaker.Candidates(p)
}

// peerRoutes returns what goes between us and a peer.
func (d *daemon) peerRoutes(peer netip.Addr, dir bgp.Direction, within netip.Prefix) ([]bgp.Exchanged, error) {
	speaker, _ := d.engine.Status()
	if speaker == nil {
		return nil, errors.New("no BGP speaker runs")
	}
	return speaker.Exchange(peer, dir, within)
}
