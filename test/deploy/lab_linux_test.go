package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubelab"
	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
)

// fleet is a lab whose daemons are the pods of an overlay's DaemonSet.
type fleet struct {
	*lab.Cluster
	server  *kubetest.Server
	objects []*unstructured.Unstructured
	set     *appsv1.DaemonSet
	bin     string

	mu   sync.Mutex
	pods map[string]*pod // by node
}

// overlayCase is one overlay in a cluster, and what it is to make of it.
type overlayCase struct {
	overlay string
	spec    lab.Spec
	before  string // manifests of what the cluster has before the overlay
	// encapsulation and mode of the pool that the daemons' start makes.
	encapsulation cluster.Encapsulation
	mode          cluster.Mode
	device        string // by which packets to another subnet leave
	scenarios     []string
}

// TestOverlaysInLab: nodes whose daemons have the image's files, the arguments, variables, capabilities and mounts that an overlay renders, and its
// ConfigMap and roles on a real API server, carry packets between workloads through the device that the overlay is named after; and lose none in a
// rolling update by the DaemonSet's own terms.
func TestOverlaysInLab(t *testing.T) {
	t.Parallel()
	need.Root(t)
	for _, c := range []overlayCase{
		{"alone", lab.Spec{Mode: lab.NoEncapsulation, Bare: true, WorkloadRoutes: true}, "", cluster.NoEncapsulation, cluster.Never, "eth0", []string{"workloads"}},
		{"vxlan", lab.Spec{Mode: lab.VXLANCrossSubnet, Bare: true, WorkloadRoutes: true}, "", cluster.VXLAN, cluster.CrossSubnet, "vxlan.calico", []string{"kill"}},
		{"beside-felix", lab.Spec{Mode: lab.VXLAN, Backend: cluster.BackendVXLAN}, felixSettings, cluster.VXLAN, cluster.Always, "vxlan.caracal", []string{"kill"}},
	} {
		t.Run(c.overlay, func(t *testing.T) {
			t.Parallel()
			c.play(t)
		})
	}
}

// TestOverlayBirdInLabIPIP is the same for the overlay that needs IPIP.
func TestOverlayBirdInLabIPIP(t *testing.T) {
	need.IPIP(t)
	c := overlayCase{"bird-ipip", lab.Spec{Mode: lab.IPIP, Bare: true, WorkloadRoutes: true}, "", cluster.IPIP, cluster.Always, "tunl0", nil}
	c.play(t)
}

func (c *overlayCase) play(t *testing.T) {
	f := c.start(t, c.overlay[:2])
	for _, q := range f.Plan.Pools {
		if q.Encapsulation != c.encapsulation || q.Mode != c.mode {
			t.Errorf("pool %s is %v %v, want %v %v", q.CIDR, q.Encapsulation, q.Mode, c.encapsulation, c.mode)
		}
	}
	first, last := &f.Plan.Nodes[0], &f.Plan.Nodes[len(f.Plan.Nodes)-1]
	for _, a := range last.Workloads[0].Addrs {
		if device := f.leaves(t, first.Name, a.String()); device != c.device {
			t.Errorf("packets from %s to %s leave by %s, want %s", first.Name, a, device, c.device)
		}
	}
	f.rollingUpdate(t)
	list, err := lab.Pick(c.scenarios...)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		res, err := lab.Play(ctx, f.Cluster, s)
		cancel()
		var text bytes.Buffer
		_ = res.Write(&text)
		t.Log("\n" + text.String())
		if err != nil {
			t.Fatal(err)
		}
	}
}

// start brings up a cluster of the overlay's pods, short being part of its name, and waits until every workload answers every other.
func (c *overlayCase) start(t *testing.T, short string) *fleet {
	t.Helper()
	f := &fleet{server: kubetest.Start(t), objects: render(t, c.overlay), bin: programs(t), pods: map[string]*pod{}}
	if c.before != "" {
		f.server.InstallCRDs(t, kubetest.Classic)
		f.server.Apply(t, c.before)
	}
	apply(t, f.server, f.objects)
	f.set = daemonSetOf(t, f.objects)
	name := fmt.Sprintf("do%d-%s", os.Getpid(), short) // names of clusters are short
	opts := lab.Options{Root: filepath.Join(os.TempDir(), "caracal-deploy-test"), Daemon: filepath.Join(f.bin, "caracald"), Owned: true, Say: t.Logf,
		Kubernetes: kubelab.Of(t, f.server), Command: func(c *lab.Cluster, node string) (*exec.Cmd, error) { return f.command(t, c, node) }}
	if err := lab.Sweep(opts.Root); err != nil {
		t.Error(err)
	}
	c.spec.Name = name
	up, err := lab.Up(t.Context(), c.spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	f.Cluster = up
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range up.Plan.Members() {
				for _, line := range up.Complaints(n.Name, 10) {
					t.Logf("%s: %s", n.Name, line)
				}
			}
		}
		if err := up.Down(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	took, err := up.Converge(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("every workload answered every other after %s", took)
	return f
}

// daemonSetOf returns the DaemonSet among the objects.
func daemonSetOf(t *testing.T, objects []*unstructured.Unstructured) *appsv1.DaemonSet {
	t.Helper()
	for _, obj := range objects {
		if obj.GetKind() != "DaemonSet" {
			continue
		}
		set := &appsv1.DaemonSet{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, set); err != nil {
			t.Fatal(err)
		}
		return set
	}
	t.Fatal("there is no DaemonSet")
	return nil
}

// command is a node's pod, made once: what it keeps on the host stays there when it starts again.
func (f *fleet) command(t *testing.T, c *lab.Cluster, node string) (*exec.Cmd, error) {
	ns, err := c.NS(node)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[node]
	if p == nil {
		p = newPod(t, ns, &f.set.Spec.Template.Spec, f.bin, variables(t, f.server, node, f.objects), account(t, f.server))
		if p.child.Mounts["/run/caracal"] == "" {
			return nil, errors.New("the DaemonSet has no host directory for the socket")
		}
		p.child.Mounts["/run/caracal"] = c.NodeDir(node)
		f.pods[node] = p
	}
	return p.command(t, p.child.Args), nil
}

// leaves is the device by which a node sends packets to an address.
func (f *fleet) leaves(t *testing.T, node, to string) (device string) {
	t.Helper()
	ns, err := f.NS(node)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ns.Run("ip", "-o", "route", "get", to)
	if err != nil {
		t.Fatal(err)
	}
	words := bytes.Fields([]byte(out))
	for i, w := range words {
		if string(w) == "dev" && i+1 < len(words) {
			return string(words[i+1])
		}
	}
	return out
}

// rollingUpdate replaces the pods one after the other as a DaemonSet controller and kubelets do: no second pod beside the first, a grace period, and
// on to the next node when the readiness probe says so. No packet may be lost.
func (f *fleet) rollingUpdate(t *testing.T) {
	t.Helper()
	spec, strategy := &f.set.Spec.Template.Spec, f.set.Spec.UpdateStrategy.RollingUpdate
	if strategy == nil || strategy.MaxUnavailable.IntValue() != 1 || strategy.MaxSurge.IntValue() != 0 {
		t.Fatalf("the update strategy is %+v: this test plays another one", f.set.Spec.UpdateStrategy)
	}
	c := &spec.Containers[0]
	if c.Lifecycle != nil {
		t.Fatalf("there are hooks that this test does not play: %+v", c.Lifecycle)
	}
	grace := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
	probe, err := lab.StartProbe(lab.Pairs(f.Endpoints(nil)), lab.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	began, slowest := time.Now(), time.Duration(0)
	for _, n := range f.Plan.Members() {
		slowest = max(slowest, f.replace(t, n.Name, grace, c.ReadinessProbe))
	}
	report := probe.Stop()
	t.Logf("rolling update of %d nodes in %s, the slowest stop took %s: %s", len(f.Plan.Members()), time.Since(began), slowest, report)
	if report.Lost() != 0 {
		t.Errorf("%d packets were lost in the rolling update", report.Lost())
	}
	if len(f.Endpoints(nil)) < 2 {
		t.Error("nothing was probed")
	}
}

// replace stops a node's pod, starts another one and waits until it is ready; it returns how long the stop took.
func (f *fleet) replace(t *testing.T, node string, grace time.Duration, ready *corev1.Probe) time.Duration {
	t.Helper()
	was, began := f.PID(node), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	defer cancel()
	if err := f.Stop(ctx, node, syscall.SIGTERM); err != nil {
		t.Fatalf("the grace period of %s was not enough: %v", grace, err)
	}
	took := time.Since(began)
	if err := f.Start(node); err != nil {
		t.Fatal(err)
	}
	if now := f.PID(node); now == was || now == 0 {
		t.Fatalf("process %d became %d", was, now)
	}
	kubetest.Eventually(t, node+" is ready again", func() error { return f.pods[node].probe(t, ready) })
	return took
}
