package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/lab"
)

// TestHollowDatastore: a datastore that was away and comes back without its blocks costs no packet; what is held is told, and happens on one node
// when it is released there; and when the blocks are back everything is as before.
func TestHollowDatastore(t *testing.T) {
	t.Parallel()
	opts := options(t)
	opts.Args = []string{"--rail-least", "0"} // the cluster is small
	c := cluster(t, lab.Spec{Mode: lab.VXLANCrossSubnet, Family: lab.DualStack}, opts)
	ctx := t.Context()
	dir, whole := c.DatastoreDir(), c.DatastoreDir()+".whole"
	eps := c.Endpoints(nil)
	probe, err := lab.StartProbe(lab.Pairs(eps), lab.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, whole); err != nil {
		t.Fatal(err)
	}
	says := func(node, what string) error {
		st, err := c.Status(ctx, node)
		if err != nil {
			return err
		}
		for _, s := range st.GetSources() {
			if d := s.GetDetail(); s.GetName() == "datastore" && (what == "" && d == "" || what != "" && strings.Contains(d, what)) {
				return nil
			}
		}
		return fmt.Errorf("%s says %v, want %q", node, st.GetSources(), what)
	}
	each := func(what string) {
		t.Helper()
		for _, n := range c.Plan.Members() {
			eventually(t, func() error { return says(n.Name, what) })
		}
	}
	each("no such file")
	if err := hollow(whole, dir+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".new", dir); err != nil {
		t.Fatal(err)
	}
	each("held since")
	for _, n := range c.Plan.Members() {
		list, err := c.Routes(ctx, n.Name)
		if err != nil || len(list) == 0 {
			t.Errorf("%s has %d routes, %v", n.Name, len(list), err)
		}
	}
	report := probe.Stop()
	t.Log(report)
	if report.Lost() != 0 {
		t.Errorf("%d packets lost", report.Lost())
	}

	victim := c.Plan.Members()[0].Name
	out, err := exec.Command(filepath.Join(filepath.Dir(opts.Daemon), "caracal"), "release", "--socket", c.Socket(victim)).CombinedOutput()
	if errors.Is(err, fs.ErrNotExist) {
		out, err = exec.Command("go", "run", "../../cmd/caracal", "release", "--socket", c.Socket(victim)).CombinedOutput()
	}
	if err != nil || !strings.Contains(string(out), "released: held since") {
		t.Errorf("caracal release: %v\n%s", err, out)
	}
	eventually(t, func() error {
		list, err := c.Routes(ctx, victim)
		if err == nil && len(list) > 0 {
			err = fmt.Errorf("%s has %d routes after the release", victim, len(list))
		}
		return err
	})
	if err := says(c.Plan.Members()[1].Name, "held since"); err != nil {
		t.Error("a release on another node:", err)
	}

	if err := errors.Join(os.Rename(dir, dir+".hollow"), os.Rename(whole, dir)); err != nil {
		t.Fatal(err)
	}
	each("")
	if _, err := c.Converge(ctx); err != nil {
		t.Error(err)
	}
}

// hollow copies the manifests that are not IPAM's.
func hollow(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no manifests in %s: %w", from, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil && !strings.Contains(string(text), "kind: IPAM") && !strings.Contains(string(text), "kind: BlockAffinity") {
			err = os.WriteFile(filepath.Join(to, filepath.Base(f)), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func eventually(t *testing.T, ask func() error) {
	t.Helper()
	within(t, 20*time.Second, ask)
}

func within(t *testing.T, patience time.Duration, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
