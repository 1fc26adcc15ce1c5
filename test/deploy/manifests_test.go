package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/daemon"
	"github.com/caracal-net/caracal/internal/datastore/kube"
	"github.com/caracal-net/caracal/internal/startup"
)

// TestOverlays: the API server would apply every object of every overlay, fields it does not know being errors.
func TestOverlays(t *testing.T) {
	server := shared.Get(t)
	for _, name := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			kinds := map[string]int{}
			for _, obj := range render(t, name) {
				kinds[obj.GetKind()]++
				if err := server.Accepts(t, obj); err != nil {
					t.Errorf("%s %s: %v", obj.GetKind(), obj.GetName(), err)
				}
			}
			for _, kind := range []string{"DaemonSet", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"} {
				if kinds[kind] != 1 {
					t.Errorf("there are %d of kind %s, want 1", kinds[kind], kind)
				}
			}
		})
	}
}

// TestOverlaysWouldFail: what a slip of the pen leaves in a manifest is refused, so that TestOverlays says something.
func TestOverlaysWouldFail(t *testing.T) {
	server := shared.Get(t)
	for name, slip := range map[string]func(container map[string]any){
		"an unknown field": func(c map[string]any) { c["imagePullPolice"] = "Always" },
		"a bad value":      func(c map[string]any) { c["imagePullPolicy"] = "Sometimes" },
		"a missing volume": func(c map[string]any) {
			c["volumeMounts"] = []any{map[string]any{"name": "nowhere", "mountPath": "/nowhere"}}
		},
		"an unknown capability's place": func(c map[string]any) {
			c["securityContext"].(map[string]any)["capability"] = map[string]any{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, obj := range render(t, "alone") {
				if obj.GetKind() != "DaemonSet" {
					continue
				}
				containers, _, err := unstructured.NestedSlice(obj.Object, "spec", "template", "spec", "containers")
				if err != nil {
					t.Fatal(err)
				}
				slip(containers[0].(map[string]any))
				if err := unstructured.SetNestedSlice(obj.Object, containers, "spec", "template", "spec", "containers"); err != nil {
					t.Fatal(err)
				}
				if err := server.Accepts(t, obj); err == nil {
					t.Error("it is accepted")
				}
			}
		})
	}
}

// TestEnvironment: what the overlays set is what the daemon's start understands by it, and every variable is one that is read.
func TestEnvironment(t *testing.T) {
	type says struct {
		backend     cluster.Backend
		ip          startup.AddressMode
		pools       bool
		ipip, vxlan cluster.Mode
	}
	want := map[string]says{
		"alone":        {cluster.BackendBird, startup.Autodetect, true, cluster.Never, cluster.Never},
		"bird-ipip":    {cluster.BackendBird, startup.Autodetect, true, cluster.Always, cluster.Never},
		"vxlan":        {cluster.BackendVXLAN, startup.Autodetect, true, cluster.Never, cluster.CrossSubnet},
		"beside-felix": {cluster.BackendBird, startup.Unset, false, cluster.Never, cluster.Never},
	}
	names := overlays(t)
	if all := slices.Sorted(maps.Keys(want)); !slices.Equal(names, all) {
		t.Fatalf("the overlays are %v, known here are %v", names, all)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			objects := render(t, name)
			env := environment(t, &podOf(t, objects).Containers[0], "node-a", objects)
			asked := map[string]bool{daemon.EnvDatastore: true, daemon.EnvProcSys: true, daemon.EnvBesideFelix: true, daemon.EnvWorkloads: true, daemon.EnvAdopt: true, kube.EnvNamespace: true, "DATASTORE_TYPE": true}
			s, err := startup.Parse(func(name string) string {
				asked[name] = true
				return env[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			for name := range env {
				if !asked[name] {
					t.Errorf("%s is set, and nothing reads it", name)
				}
			}
			got := says{s.Backend, s.IP.Mode, !s.NoDefaultPools, s.Pool4.IPIP, s.Pool4.VXLAN}
			if got != want[name] {
				t.Errorf("the start understands %+v, want %+v", got, want[name])
			}
			if s.Node != "node-a" || !s.WaitForDatastore || len(s.Notes) > 0 {
				t.Errorf("node %q, waits %v, notes %v", s.Node, s.WaitForDatastore, s.Notes)
			}
		})
	}
}

// TestPodIsConfined: no overlay asks for more than routing needs.
func TestPodIsConfined(t *testing.T) {
	most := []corev1.Capability{"NET_ADMIN", "NET_BIND_SERVICE"}
	for _, name := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			pod := podOf(t, render(t, name))
			sc := pod.Containers[0].SecurityContext
			if sc == nil || sc.Privileged == nil || *sc.Privileged || *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem {
				t.Fatalf("the container is not confined: %+v", sc)
			}
			if !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("dropped are %v", sc.Capabilities.Drop)
			}
			for _, c := range sc.Capabilities.Add {
				if !slices.Contains(most, c) {
					t.Errorf("capability %s is more than it needs", c)
				}
			}
			if pod.HostPID || pod.HostIPC || !pod.HostNetwork || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("host: pid %v, ipc %v, network %v; seccomp %v", pod.HostPID, pod.HostIPC, pod.HostNetwork, pod.SecurityContext.SeccompProfile)
			}
		})
	}
}

// TestContainerfile: the image is made of the Go release that go.mod asks for, and of static programs alone.
func TestContainerfile(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	release := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read("go.mod"))
	file := read("deploy/Containerfile")
	if release == nil || !strings.Contains(file, "library/golang:"+release[1]+" AS build") {
		t.Errorf("the build stage is not of the release of go.mod, %v", release)
	}
	stages := regexp.MustCompile(`(?m)^FROM .*$`).FindAllString(file, -1)
	if len(stages) != 2 || stages[1] != "FROM scratch" {
		t.Errorf("stages %q", stages)
	}
	for _, want := range []string{"CGO_ENABLED=0", "GOARCH=$TARGETARCH", `ENTRYPOINT ["/caracald"]`, "/out/caracald /out/caracal /"} {
		if !strings.Contains(file, want) {
			t.Errorf("it does not hold %s", want)
		}
	}
	for _, program := range regexp.MustCompile(`\./cmd/\w+`).FindAllString(file, -1) {
		if _, err := os.Stat(filepath.Join(root, program)); err != nil {
			t.Error(err)
		}
	}
}
