package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/caracal-net/caracal/test/kubetest"
)

const root = "../.." // of the repository

var shared kubetest.Shared

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		becomePod(text)
	}
	code := shared.Main(m)
	if program, err := kustomize(); err == nil && os.Getenv(envKustomize) == "" {
		_ = os.RemoveAll(filepath.Dir(program)) // in the system's temporary directory; nothing depends on it
	}
	os.Exit(code)
}

// envKustomize names the program that renders where it was built elsewhere: the guest kernel's machine is too slow for that.
const envKustomize = "CARACAL_KUSTOMIZE"

// kustomize returns the program that renders, built once.
var kustomize = sync.OnceValues(func() (string, error) {
	if program := os.Getenv(envKustomize); program != "" {
		return program, nil
	}
	dir, err := os.MkdirTemp("", "kustomize-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "kustomize")
	build := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	build.Dir = filepath.Join(root, "test/kustomize")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kustomize: %w\n%s", err, out)
	}
	return program, nil
})

// overlays are the names of all overlays that are shipped.
func overlays(t *testing.T) (names []string) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(root, "deploy/overlays/*/kustomization.yaml"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no overlay was found: %v", err)
	}
	for _, d := range dirs {
		names = append(names, filepath.Base(filepath.Dir(d)))
	}
	return names
}

// render returns the objects of an overlay.
func render(t *testing.T, overlay string) []*unstructured.Unstructured {
	t.Helper()
	program, err := kustomize()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, filepath.Join(root, "deploy/overlays", overlay))
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("render %s: %v", overlay, err)
	}
	objects := kubetest.Parse(t, text)
	if len(objects) == 0 {
		t.Fatalf("overlay %s has no objects", overlay)
	}
	return objects
}

// podOf returns the pod of the DaemonSet among the objects.
func podOf(t *testing.T, objects []*unstructured.Unstructured) *corev1.PodSpec {
	t.Helper()
	var found *corev1.PodSpec
	for _, obj := range objects {
		if obj.GetKind() != "DaemonSet" {
			continue
		}
		set := &appsv1.DaemonSet{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, set); err != nil {
			t.Fatal(err)
		}
		if found != nil {
			t.Fatal("there are two DaemonSets")
		}
		found = &set.Spec.Template.Spec
	}
	if found == nil || len(found.Containers) != 1 {
		t.Fatal("there is no DaemonSet with one container")
	}
	return found
}

// environment resolves a container's variables as a kubelet does, with the ConfigMaps among the objects.
func environment(t *testing.T, c *corev1.Container, node string, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil || from.ConfigMapRef.Optional == nil || !*from.ConfigMapRef.Optional {
			t.Fatalf("environment from %+v: only optional ConfigMaps are known here", from)
		}
	}
	for _, e := range c.Env {
		switch v := e.ValueFrom; {
		case v == nil:
			env[e.Name] = e.Value
		case v.FieldRef != nil && v.FieldRef.FieldPath == "spec.nodeName":
			env[e.Name] = node
		case v.ConfigMapKeyRef != nil:
			value, ok := configValue(objects, v.ConfigMapKeyRef)
			if ok {
				env[e.Name] = value
			} else if v.ConfigMapKeyRef.Optional == nil || !*v.ConfigMapKeyRef.Optional {
				t.Fatalf("%s refers to a ConfigMap that is not there", e.Name)
			}
		default:
			t.Fatalf("%s comes from something that is not known here", e.Name)
		}
	}
	return env
}

func configValue(objects []*unstructured.Unstructured, ref *corev1.ConfigMapKeySelector) (string, bool) {
	for _, obj := range objects {
		if obj.GetKind() == "ConfigMap" && obj.GetName() == ref.Name {
			value, ok, err := unstructured.NestedString(obj.Object, "data", ref.Key)
			return value, ok && err == nil
		}
	}
	return "", false
}
