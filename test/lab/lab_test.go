package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

// envKills is how often the scenario "kills" kills (make soak: 200), envSeed at which moments.
const (
	envKills = "CARACAL_TEST_KILLS"
	envSeed  = "CARACAL_TEST_SEED"
)

// limit is how long one scenario or one demo may take.
const limit = 2 * time.Minute

var caracald need.Daemon

func TestMain(m *testing.M) {
	code := m.Run()
	caracald.Remove()
	os.Exit(code)
}

var clusters atomic.Uint64

func newName() string { return fmt.Sprintf("t%d-%d", os.Getpid(), clusters.Add(1)) }

func options(t *testing.T) lab.Options {
	t.Helper()
	need.Root(t)
	need.Tool(t, "ip", "iproute2")
	daemon, err := caracald.Path()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(os.TempDir(), "caracal-lab-test")
	if err := lab.Sweep(root); err != nil {
		t.Error(err)
	}
	opts := lab.Options{Root: root, Daemon: daemon, Owned: true, Say: t.Logf}
	if s := os.Getenv(envKills); s != "" {
		if opts.Kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", envKills, err)
		}
	}
	if s := os.Getenv(envSeed); s != "" {
		if opts.Seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", envSeed, err)
		}
	}
	return opts
}

// cluster brings up a cluster that is taken down with the test and must leave no namespace behind.
func cluster(t *testing.T, spec lab.Spec, opts lab.Options) *lab.Cluster {
	t.Helper()
	spec.Name = newName()
	c, err := lab.Up(t.Context(), spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Plan.Members() {
				for _, line := range c.Complaints(n.Name, 10) {
					t.Logf("%s: %s", n.Name, line)
				}
			}
		}
		if err := c.Down(); err != nil {
			t.Error(err)
		}
		if left, err := netns.List(c.Plan.Prefix()); err != nil || len(left) > 0 {
			t.Errorf("namespaces left: %v, %v", left, err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	took, err := c.Converge(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("every workload answered every other after %s", took)
	return c
}

// play plays scenarios on one cluster, each as a subtest. After one that failed the cluster is not what the next expects,
// so they end there.
func play(t *testing.T, spec lab.Spec, names ...string) {
	t.Helper()
	playWith(t, spec, options(t), names...)
}

func playWith(t *testing.T, spec lab.Spec, opts lab.Options, names ...string) *lab.Cluster {
	t.Helper()
	list, err := lab.Pick(names...)
	if err != nil {
		t.Fatal(err)
	}
	c := cluster(t, spec, opts)
	played := 0
	for _, s := range list {
		if ok, _ := s.Fits(c.Plan.Spec); !ok {
			continue
		}
		played++
		whole := t.Run(s.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), opts.Patience())
			defer cancel()
			res, err := lab.Play(ctx, c, s)
			var text bytes.Buffer
			_ = res.Write(&text)
			t.Log("\n" + text.String())
			if err != nil {
				t.Fatal(err)
			}
		})
		if !whole {
			t.Fatalf("the scenarios after %s were not played", s.Name)
		}
	}
	if played == 0 {
		t.Fatal("no scenario was played")
	}
	return c
}

// TestScenariosVXLAN plays everything in the VXLAN form.
func TestScenariosVXLAN(t *testing.T) {
	t.Parallel()
	play(t, lab.Spec{Mode: lab.VXLANCrossSubnet}, "all")
}

// TestScenariosVXLANDual plays what touches the data plane with both families at once.
func TestScenariosVXLANDual(t *testing.T) {
	t.Parallel()
	play(t, lab.Spec{Mode: lab.VXLAN, Family: lab.DualStack}, "kill", "new-block", "tampering", "takeover", "pool-mode")
}

// TestScenariosWorkloadRoutes plays what concerns a node's own workloads where the routes to them and the settings of their interfaces are the daemons'.
func TestScenariosWorkloadRoutes(t *testing.T) {
	t.Parallel()
	play(t, lab.Spec{Mode: lab.NoEncapsulation, Family: lab.DualStack, WorkloadRoutes: true}, "kill", "upgrade", "workloads", "new-block")
}

// TestScenariosPlain plays what does not need encapsulation, over BGP in both families, on this kernel.
func TestScenariosPlain(t *testing.T) {
	t.Parallel()
	play(t, lab.Spec{Mode: lab.NoEncapsulation, Family: lab.DualStack}, "all")
}

// TestScenariosIPIP plays everything in the IPIP form.
func TestScenariosIPIP(t *testing.T) {
	need.IPIP(t)
	opts := options(t)
	if opts.Kills == 0 {
		opts.Kills = 6 // each takes some seconds there
	}
	playWith(t, lab.Spec{Mode: lab.IPIPCrossSubnet}, opts, "all")
}

// demo runs a whole demo and holds its output to what a reader is promised.
func demo(t *testing.T, spec lab.Spec) {
	t.Helper()
	opts := options(t)
	spec.Name = newName()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out bytes.Buffer
	err := lab.Demo(ctx, &out, spec, opts)
	t.Log("\n" + out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"converged: every workload", "routes of node1", "REASON", "ping, IPv", " 0 lost", "TCP, 4 MiB from node1-w1", "nothing is left"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not print %q", want)
		}
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Spec{
		{Mode: lab.VXLAN, Family: lab.Only6},
		{Mode: lab.VXLANCrossSubnet, Family: lab.DualStack, Nodes: 4},
		{Mode: lab.NoEncapsulation},
		{Mode: lab.NoEncapsulation, Family: lab.Only6},
		{Mode: lab.VXLAN, Nodes: 1},
	} {
		t.Run(fmt.Sprintf("%s %s %d", s.Mode, s.Family, s.Nodes), func(t *testing.T) { demo(t, s) })
	}
}

func TestDemoIPIP(t *testing.T) {
	need.IPIP(t)
	for _, s := range []lab.Spec{{Mode: lab.Mixed, Family: lab.DualStack}, {Mode: lab.IPIP}} {
		t.Run(fmt.Sprintf("%s %s", s.Mode, s.Family), func(t *testing.T) { demo(t, s) })
	}
}

// TestUpOutlivesItsProcess brings a cluster up in one process, uses it from others, and takes it down from another.
func TestUpOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	opts := options(t)
	opts.Root = t.TempDir() // status shows every cluster of it
	bin := filepath.Dir(opts.Daemon)
	prog := filepath.Join(bin, "caracal-lab")
	if os.Getenv(need.BinEnv) == "" {
		prog = filepath.Join(t.TempDir(), "caracal-lab")
		if out, err := exec.Command("go", "build", "-o", prog, "../../cmd/caracal-lab").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v: %s", err, out)
		}
	}
	name := newName()
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), prog, append([]string{"--name", name, "--daemon", opts.Daemon, "--state", opts.Root}, args...)...).CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if err := lab.Remove(name, opts.Root); err != nil {
			t.Error(err)
		}
	})
	if out, err := run("up", "--mode", "vxlan", "--nodes", "2"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if out, err := run("up", "--mode", "vxlan"); err == nil || !strings.Contains(out, "stands already") {
		t.Errorf("a second up: %v\n%s\nwant a refusal that says it stands already", err, out)
	}
	if out, err := run("status"); err != nil || strings.Count(out, "ready") != 2 || !strings.Contains(out, "node2-w2") {
		t.Errorf("status: %v\n%s\nwant two ready daemons and the workloads", err, out)
	}
	if out, err := run("ping"); err != nil || !strings.Contains(out, " 0 lost") {
		t.Errorf("ping: %v\n%s", err, out)
	}
	if out, err := run("exec", "node1", "--", "ip", "-br", "link", "show", "vxlan.calico"); err != nil || !strings.Contains(out, "vxlan.calico") {
		t.Errorf("exec: %v\n%s", err, out)
	}
	if out, err := run("exec", "node1", "--", "sh", "-c", "exit 7"); err == nil || err.Error() != "exit status 7" {
		t.Errorf("exec of a command that fails: %v\n%s\nwant its exit status", err, out)
	}
	if out, err := run("exec", "nowhere", "--", "true"); err == nil || !strings.Contains(out, "take one of router, node1, node1-w1") {
		t.Errorf("exec in a place that is not there: %v\n%s", err, out)
	}
	if out, err := run("down"); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	if left, err := netns.List("cl-" + name); err != nil || len(left) > 0 {
		t.Errorf("namespaces left: %v, %v", left, err)
	}
	if out, err := run("down"); err != nil {
		t.Errorf("down of what is gone: %v\n%s", err, out)
	}
}
