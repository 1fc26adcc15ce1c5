package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
)

// DefaultRoot is where clusters keep their state; /run is emptied by a reboot, as namespaces are.
const DefaultRoot = "/run/caracal-lab"

// ErrNoIPIP says that this kernel cannot carry the cluster that was asked for.
var ErrNoIPIP = errors.New("this kernel has no ipip")

// Options say where and with what a cluster is run.
type Options struct {
	Root     string   // directory of all clusters; default DefaultRoot
	Daemon   string   // the caracald program
	LogLevel string   // of the daemons; default info
	Args     []string // more of what daemons are started with
	// Command makes what starts a node's daemon, in place of Daemon with the lab's own arguments: it is run in the node's namespace, and
	// becomes the daemon of Socket(node).
	Command func(c *Cluster, node string) (*exec.Cmd, error)
	// Owned ties the cluster to this process: when it is gone without a Down, the next Sweep removes the cluster.
	Owned bool
	// Kubernetes is the datastore in place of a directory; nil for the directory. Such a cluster ends with this process.
	Kubernetes *Kubernetes
	// Kills is how often the scenario "kills" kills, and Seed says at which moments; 0 = its default, and others each time.
	Kills int
	Seed  uint64
	// Elections is how many of its steps the scenario "elections" plays before the last; 0 = all.
	Elections int
	// Say is called with each step in words; may be nil.
	Say func(format string, args ...any)
}

// Cluster is a Plan that stands. Its methods may be called from one goroutine at a time.
type Cluster struct {
	Plan     *Plan
	opts     Options
	forwards forwarders
}

// Up builds a cluster and starts its daemons. It does not wait for routes: see WaitReachable. What was built is
// removed again when anything fails.
func Up(ctx context.Context, spec Spec, opts Options) (c *Cluster, err error) {
	if spec, err = spec.Complete(); err != nil {
		return nil, err
	}
	if err := checkMachine(spec); err != nil {
		return nil, err
	}
	spec.Kubernetes = opts.Kubernetes != nil
	c = newCluster(NewPlan(spec), opts)
	if err := c.claim(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cluster %s: %w", spec.Name, err), c.Down())
			c = nil
		}
	}()
	return c, c.build(ctx)
}

// checkMachine returns an error where this machine cannot carry the cluster.
func checkMachine(spec Spec) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces are made by root only: run this as root")
	}
	if !spec.Mode.NeedsIPIP() {
		return nil
	}
	ok, err := HasIPIP()
	if err == nil && !ok {
		err = fmt.Errorf("mode %s: %w: load the module (modprobe ipip), take another mode, or run it in the guest kernel", spec.Mode, ErrNoIPIP)
	}
	return err
}

func newCluster(p *Plan, opts Options) *Cluster {
	if opts.Root == "" {
		opts.Root = DefaultRoot
	}
	if opts.LogLevel == "" {
		opts.LogLevel = "info"
	}
	if opts.Say == nil {
		opts.Say = func(string, ...any) {}
	}
	return &Cluster{Plan: p, opts: opts}
}

// claim makes the state directory, which is the lock on the cluster's name, and clears away what an earlier crash left.
func (c *Cluster) claim() error {
	if err := os.MkdirAll(c.opts.Root, 0o755); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Mkdir(c.Dir(), 0o755); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cluster %s stands already: remove it with down, or choose another name", c.Plan.Spec.Name)
	} else if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Mkdir(c.DatastoreDir(), 0o755); err != nil {
		return errors.Join(err, os.RemoveAll(c.Dir()))
	}
	if c.opts.Owned {
		self, _ := processOf(os.Getpid())
		if err := self.write(filepath.Join(c.Dir(), ownerFile)); err != nil {
			return errors.Join(err, os.RemoveAll(c.Dir()))
		}
	}
	return clearNamespaces(c.Plan.Spec.Name)
}

func (c *Cluster) build(ctx context.Context) error {
	p := c.Plan
	c.opts.Say("building %d namespaces: %d nodes in two subnets, a router, %d workloads a node", len(p.namespaces()), len(p.Nodes), p.Spec.Workloads)
	if err := p.buildUnderlay(); err != nil {
		return err
	}
	if err := c.fill(ctx); err != nil {
		return err
	}
	if !p.Spec.Bare {
		if err := c.plugAll(ctx); err != nil {
			return err
		}
		return c.startAll()
	}
	if err := c.startAll(); err != nil {
		return err
	}
	if err := c.adoptPools(ctx); err != nil {
		return err
	}
	return c.plugAll(ctx)
}

func (c *Cluster) plugAll(ctx context.Context) error {
	p := c.Plan
	c.opts.Say("assigning workload addresses from the pools")
	for i := range p.Nodes {
		for j := range p.Nodes[i].Workloads {
			if err := c.plug(ctx, &p.Nodes[i], &p.Nodes[i].Workloads[j]); err != nil {
				return err
			}
		}
	}
	return c.save()
}

func (c *Cluster) startAll() error {
	p := c.Plan
	c.opts.Say("starting %d daemons, backend %s", len(p.Members()), p.Spec.Backend)
	for _, n := range p.Members() {
		if err := c.Start(n.Name); err != nil {
			return err
		}
	}
	return nil
}

// fill gives the datastore its first content.
func (c *Cluster) fill(ctx context.Context) error {
	k := c.opts.Kubernetes
	if k == nil {
		return writeManifests(c.DatastoreDir(), c.Plan.manifests())
	}
	for _, n := range c.Plan.Members() {
		if err := c.forwards.forward(netns.NS{Name: n.NS}, k.Address); err != nil {
			return err
		}
	}
	return k.fill(ctx, c.Plan.manifests())
}

// Load returns a cluster that another process built.
func Load(name string, opts Options) (*Cluster, error) {
	c := newCluster(&Plan{Spec: Spec{Name: name}}, opts)
	data, err := os.ReadFile(filepath.Join(c.Dir(), planFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no cluster %s stands: build one with up", name)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	if err := json.Unmarshal(data, c.Plan); err != nil {
		return nil, fmt.Errorf("cluster %s: read %s: %w", name, planFile, err)
	}
	return c, nil
}

// The files of a cluster's state directory.
const (
	planFile     = "cluster.json"
	ownerFile    = "owner.pid"
	datastoreDir = "datastore"
)

// Dir is the cluster's state directory.
func (c *Cluster) Dir() string { return filepath.Join(c.opts.Root, c.Plan.Spec.Name) }

// DatastoreDir is the directory of manifests that is the cluster's datastore.
func (c *Cluster) DatastoreDir() string { return filepath.Join(c.Dir(), datastoreDir) }

func (c *Cluster) save() error {
	data, err := json.MarshalIndent(c.Plan, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", planFile, err)
	}
	return writeFile(filepath.Join(c.Dir(), planFile), append(data, '\n'))
}

// Down removes everything of the cluster: processes in its namespaces, the namespaces, the state directory.
func (c *Cluster) Down() error {
	return errors.Join(Remove(c.Plan.Spec.Name, c.opts.Root), c.forwards.close())
}

// Remove removes a cluster by name, whatever state it is in, also one that was never finished.
func Remove(name, root string) error {
	if !clusterName.MatchString(name) {
		return fmt.Errorf("cluster name %q: not a name of a cluster", name)
	}
	if root == "" {
		root = DefaultRoot
	}
	if err := clearNamespaces(name); err != nil {
		return fmt.Errorf("remove cluster %s: %w", name, err)
	}
	if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
		return fmt.Errorf("remove cluster %s: %w", name, err)
	}
	return nil
}

// Sweep removes the clusters whose owner is gone: what a crashed demo or test run left behind.
func Sweep(root string) error {
	if root == "" {
		root = DefaultRoot
	}
	owners, err := filepath.Glob(filepath.Join(root, "*", ownerFile))
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, path := range owners {
		if owner := readProcess(path); !owner.alive() {
			err = errors.Join(err, Remove(filepath.Base(filepath.Dir(path)), root))
		}
	}
	return err
}

// Names returns the clusters that stand.
func Names(root string) ([]string, error) {
	if root == "" {
		root = DefaultRoot
	}
	files, err := filepath.Glob(filepath.Join(root, "*", planFile))
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(filepath.Dir(f)))
	}
	return names, nil
}

// clearNamespaces kills what runs in the namespaces of a cluster and deletes them.
func clearNamespaces(name string) error {
	names, err := netns.List(prefix(name))
	if err != nil {
		return err
	}
	procs, err := inhabitants(names)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, p := range procs {
		err = errors.Join(err, p.signal(syscall.SIGKILL))
	}
	for _, p := range procs {
		err = errors.Join(err, p.wait(ctx))
	}
	for _, n := range names {
		err = errors.Join(err, netns.NS{Name: n}.Delete())
	}
	return err
}
