package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubelab"
	"github.com/caracal-net/caracal/test/kubetest"
)

// ghost is a node that is not there, with so many blocks that to lose them is to lose most of what every node has.
const ghosts = 12

func ghost() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Node\nmetadata: {name: ghost, annotations: {projectcalico.org/IPv4Address: 203.0.113.200/24, projectcalico.org/IPv4VXLANTunnelAddr: 10.244.210.0}}\n")
	for i := range ghosts {
		fmt.Fprintf(&b, "---\n%s", blockOf(fmt.Sprintf("10.244.%d.%d/26", 210+i/4, i%4*64), "ghost"))
	}
	return b.String()
}

// restored has etcd come back old, come back empty, and come back whole, while a probe of every pair of workloads goes on. Routes stay until the rails
// let them go, also on a node whose daemon is killed and started in the middle of it.
func restored(t *testing.T, c *onServer) {
	kept := filepath.Join(c.NodeDir("node2"), "snapshot")
	kubetest.Eventually(t, "a kept state", func() error { _, err := os.Stat(kept); return err })
	old := c.server.SaveEtcd(t)
	probe, err := lab.StartProbe(lab.Pairs(c.Endpoints(nil)), lab.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.server.Apply(t, ghost())
	c.haunted(t, ghosts, c.names()...)
	whole := c.server.SaveEtcd(t)

	c.server.RestoreEtcd(t, old)
	c.each(t, "held since")
	c.haunted(t, ghosts, c.names()...)
	c.release(t, "node1")
	c.haunted(t, 0, "node1")
	c.haunted(t, ghosts, "node2", "node3")

	c.server.RestoreEtcd(t, whole)
	c.haunted(t, ghosts, c.names()...)

	c.server.RestoreEtcd(t, "")
	c.each(t, "read datastore")
	c.restart(t, "node2")
	kubelab.Furnish(t, c.server)
	for _, n := range c.names() { // as kubelets do that have lost theirs
		c.server.Apply(t, "{apiVersion: v1, kind: Node, metadata: {name: "+n+"}}")
	}
	c.each(t, "held since")
	c.haunted(t, ghosts, c.names()...)

	c.server.RestoreEtcd(t, whole)
	c.haunted(t, ghosts, c.names()...)
	c.server.Delete(t, ghost()) // a doubt lasts for ten minutes at least
	c.each(t, "held since")
	for _, n := range c.names() {
		c.release(t, n)
	}
	c.haunted(t, 0, c.names()...)
	if _, err := c.Converge(t.Context()); err != nil {
		t.Error(err)
	}
	kubetest.Eventually(t, "addresses", func() error { return c.agree(t) })
	if report := probe.Stop(); report.Lost() != 0 {
		t.Errorf("%d packets lost: %s", report.Lost(), report)
	} else {
		t.Log(report)
	}
}

func (c *onServer) names() (all []string) {
	for _, m := range c.Plan.Members() {
		all = append(all, m.Name)
	}
	return all
}

// haunted waits until nodes have so many routes to the ghost.
func (c *onServer) haunted(t *testing.T, want int, nodes ...string) {
	t.Helper()
	for _, n := range nodes {
		kubetest.Eventually(t, n+"'s routes to the ghost", func() error {
			if got := strings.Count(c.ip(t, n, "route", "show", "proto", "202"), "via 10.244.210.0 "); got != want {
				return fmt.Errorf("%d, want %d", got, want)
			}
			return nil
		})
	}
}

// says looks for a word in what a node says of its datastore.
func (c *onServer) says(t *testing.T, node, what string) error {
	st, err := c.Status(t.Context(), node)
	if err != nil {
		return err
	}
	for _, s := range st.GetSources() {
		if s.GetName() == "datastore" && strings.Contains(s.GetDetail(), what) {
			return nil
		}
	}
	return fmt.Errorf("%s says %v, want %q", node, st.GetSources(), what)
}

func (c *onServer) each(t *testing.T, what string) {
	t.Helper()
	for _, n := range c.names() {
		kubetest.Eventually(t, n, func() error { return c.says(t, n, what) })
	}
}

// restart kills a daemon and starts it again.
func (c *onServer) restart(t *testing.T, node string) {
	t.Helper()
	if err := errors.Join(c.Stop(t.Context(), node, syscall.SIGKILL), c.Start(node)); err != nil {
		t.Fatal(err)
	}
	kubetest.Eventually(t, node+" answers", func() error { _, err := c.Status(t.Context(), node); return err })
}

// release lets happen on a node what is held there.
func (c *onServer) release(t *testing.T, node string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(filepath.Dir(c.opts.Daemon), "caracal"), "release", "--socket", c.Socket(node)).CombinedOutput()
	if errors.Is(err, fs.ErrNotExist) {
		out, err = exec.Command("go", "run", "../../cmd/caracal", "release", "--socket", c.Socket(node)).CombinedOutput()
	}
	if err != nil || !strings.Contains(string(out), "released: held since") {
		t.Errorf("caracal release: %v\n%s", err, out)
	}
}
