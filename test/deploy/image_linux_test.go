package deploy

import (
	"debug/elf"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
)

const imageVersion = "v0.0.0-test"

// buildImages builds the Containerfile and returns the images by architecture.
func buildImages(t *testing.T, architectures ...string) map[string]*image {
	t.Helper()
	need.Root(t)
	need.Tool(t, "buildah", "buildah")
	dir, out := t.TempDir(), map[string]*image{}
	build := exec.CommandContext(t.Context(), filepath.Join(root, "test/image"), append([]string{dir}, architectures...)...)
	build.Env = append(os.Environ(), "CARACAL_VERSION="+imageVersion)
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the image: %v\n%s", err, text)
	}
	for _, arch := range architectures {
		out[arch] = readImage(t, filepath.Join(dir, arch))
	}
	return out
}

// TestImage builds the shipped Containerfile for both architectures, holds the images to what they promise, and runs the one of this machine with
// the capabilities of an overlay: it makes a device and a route, and its probes and commands answer.
func TestImage(t *testing.T) {
	t.Parallel()
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	images := buildImages(t, slices.Sorted(maps.Keys(machines))...)
	for arch, machine := range machines {
		img := images[arch]
		if img.Architecture != arch || img.OS != "linux" {
			t.Errorf("%s: the image is for %s/%s", arch, img.OS, img.Architecture)
		}
		if got := slices.Sorted(maps.Keys(img.files)); !slices.Equal(got, []string{"/caracal", "/caracald"}) {
			t.Fatalf("%s: the image holds %v", arch, got)
		}
		for name, text := range img.files {
			if img.modes[name] != 0o755 {
				t.Errorf("%s: %s has mode %v", arch, name, img.modes[name])
			}
			static(t, arch+": "+name, text, machine)
		}
		c := &img.Config
		if !slices.Equal(c.Entrypoint, []string{"/caracald"}) || !slices.Equal(c.Cmd, []string{"run"}) || c.User != "0:0" {
			t.Errorf("%s: entrypoint %q, command %q, user %q", arch, c.Entrypoint, c.Cmd, c.User)
		}
		const label = "org.opencontainers.image."
		if c.Labels[label+"title"] != "caracal" || c.Labels[label+"version"] != imageVersion || c.Labels[label+"licenses"] != "Apache-2.0" {
			t.Errorf("%s: labels %v", arch, c.Labels)
		}
		if len(c.ExposedPorts) > 0 || len(c.Volumes) > 0 || slices.ContainsFunc(c.Env, func(e string) bool { return !strings.HasPrefix(e, "PATH=") }) {
			t.Errorf("%s: ports %v, volumes %v, environment %v, want none", arch, c.ExposedPorts, c.Volumes, c.Env)
		}
		t.Logf("%s: %.1f MiB in %d files", arch, float64(img.size)/(1<<20), len(img.files))
	}
	if img := images[runtime.GOARCH]; img != nil {
		runImage(t, img)
	} else {
		t.Errorf("no image was built for %s", runtime.GOARCH)
	}
}

// twoNodes is a cluster in files: this node, and another one with a block.
const twoNodes = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 192.168.0.0/16, vxlanMode: Always, ipipMode: Never}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-a}
spec: {bgp: {ipv4Address: 192.0.2.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-b}
spec: {bgp: {ipv4Address: 198.51.100.2/24}, ipv4VXLANTunnelAddr: 192.168.9.0}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata: {name: 192-168-9-0-26}
spec: {cidr: 192.168.9.0/26, affinity: "host:node-b", allocations: [%s], unallocated: [], attributes: [], deleted: false, strictAffinity: false}
`

// runImage runs an image as TestPod runs the programs, with a directory for its datastore: without network but the node's.
func runImage(t *testing.T, img *image) {
	t.Helper()
	objects := render(t, "vxlan")
	spec := podOf(t, objects)
	bin, data := t.TempDir(), t.TempDir()
	for name, text := range img.files {
		if err := os.WriteFile(filepath.Join(bin, name), text, img.modes[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(data, "cluster.yaml"), fmt.Appendf(nil, twoNodes, strings.Repeat("null,", 64)), 0o644); err != nil {
		t.Fatal(err)
	}
	env := environment(t, &spec.Containers[0], "node-a", objects)
	env["CARACAL_DATASTORE"] = "file:/data"
	ns := hostNetwork(t)
	p := newPod(t, ns, spec, bin, env, nil)
	p.child.Args = append(append([]string(nil), img.Config.Entrypoint...), spec.Containers[0].Args...)
	p.child.Mounts["/data"] = data
	stop := p.start(t)
	c := &spec.Containers[0]
	kubetest.Eventually(t, "live", func() error { return p.probe(t, c.LivenessProbe) })
	kubetest.Eventually(t, "ready", func() error { return p.probe(t, c.ReadinessProbe) })
	kubetest.Eventually(t, "a route", func() error { return routed(t, ns, netip.MustParsePrefix("192.168.9.0/26")) })
	for _, of := range []struct {
		args []string
		want []string
	}{
		{[]string{"/caracald", "version"}, []string{imageVersion}},
		{[]string{"/caracal", "version"}, []string{"caracal   " + imageVersion, "caracald  " + imageVersion}},
		{[]string{"/caracal", "status"}, []string{"node-a", "vxlan.calico"}},
		{[]string{"/caracal", "routes"}, []string{"192.168.9.0/26"}},
	} {
		out, err := p.output(t, of.args...)
		for _, want := range of.want {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%v: %v\n%s\nwant %q", of.args, err, out, want)
			}
		}
	}
	stop()
	if err := p.probe(t, c.LivenessProbe); err == nil {
		t.Error("a daemon that has stopped is alive")
	}
}
