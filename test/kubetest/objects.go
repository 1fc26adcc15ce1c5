package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/caracal-net/caracal/deploy/crds"
)

// Form is one of the two sets of Calico's resource definitions.
type Form string

// The forms.
const (
	Classic Form = "crd.projectcalico.org/v1"
	Native  Form = "projectcalico.org/v3"
)

// Resources by the plural name of their kind.
var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	nodes       = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	pods        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	services    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	slices      = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	roles       = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
	bindings    = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}
)

// Resource returns the resource of a form with a plural name.
func (f Form) Resource(plural string) schema.GroupVersionResource {
	gv, err := schema.ParseGroupVersion(string(f))
	if err != nil {
		panic(err) // one of the two constants
	}
	return gv.WithResource(plural)
}

// plurals are the plural names of the kinds of a form.
func (f Form) plurals() []string {
	names := []string{"ippools", "ipreservations", "bgpconfigurations", "bgppeers", "bgpfilters", "felixconfigurations",
		"clusterinformations", "ipamblocks", "blockaffinities", "ipamhandles"}
	if f == Classic {
		return append(names, "ipamconfigs")
	}
	return append(names, "ipamconfigurations")
}

// Client returns a client for any resource.
func (s *Server) Client(t testing.TB, user string) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(s.Config(user))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// InstallCRDs installs Calico's resource definitions and waits until they are served.
func (s *Server) InstallCRDs(t testing.TB, forms ...Form) {
	t.Helper()
	ctx, c := context.Background(), s.Client(t, Admin).Resource(definitions) // the Server outlives the test
	var names []string
	for _, form := range forms {
		text := crds.Classic
		if form == Native {
			text = crds.Native
		}
		for _, obj := range Parse(t, text) {
			if _, err := c.Create(ctx, obj, metav1.CreateOptions{}); err != nil {
				t.Fatalf("create %s: %v", obj.GetName(), err)
			}
			names = append(names, obj.GetName())
		}
	}
	if len(names) == 0 {
		t.Fatal("no resource definitions to install")
	}
	for _, name := range names {
		Eventually(t, name+" is served", func() error {
			obj, err := c.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			conditions, _, err := unstructured.NestedSlice(obj.Object, "status", "conditions")
			if err != nil {
				return err
			}
			for _, each := range conditions {
				if c, ok := each.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
					return nil
				}
			}
			return fmt.Errorf("conditions %v", conditions)
		})
	}
}

// Clear removes every Node, Pod, Service and EndpointSlice, every object of the given forms and the ConfigMap calico-config, so that
// tests that share a Server do not see one another's objects.
func (s *Server) Clear(t testing.TB, forms ...Form) {
	t.Helper()
	c := s.Client(t, Admin)
	all := []schema.GroupVersionResource{nodes}
	for _, form := range forms {
		for _, plural := range form.plurals() {
			all = append(all, form.Resource(plural))
		}
	}
	ctx := context.Background() // also when the test's own has ended
	for _, r := range all {
		if err := c.Resource(r).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Fatalf("clear %s: %v", r.Resource, err)
		}
	}
	for _, r := range []schema.GroupVersionResource{pods, services, slices} {
		s.clearNamespaces(t, c.Resource(r))
	}
	err := c.Resource(configMaps).Namespace("kube-system").Delete(ctx, "calico-config", metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// clearNamespaces removes the objects of a resource in all namespaces, at once, but for the Service of the server itself, which it would make again.
func (s *Server) clearNamespaces(t testing.TB, r dynamic.NamespaceableResourceInterface) {
	t.Helper()
	list, err := r.List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	for _, obj := range list.Items {
		if obj.GetName() == "kubernetes" {
			continue
		}
		err := r.Namespace(obj.GetNamespace()).Delete(context.Background(), obj.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
}

// Apply creates the objects of a manifest, or replaces them.
func (s *Server) Apply(t testing.TB, manifest string) {
	t.Helper()
	c := s.Client(t, Admin)
	opts := metav1.ApplyOptions{FieldManager: "test", Force: true}
	for _, obj := range Parse(t, []byte(manifest)) {
		gvk := obj.GroupVersionKind()
		r := c.Resource(gvk.GroupVersion().WithResource(plural(gvk.Kind))).Namespace(obj.GetNamespace())
		if _, err := r.Apply(t.Context(), obj.GetName(), obj, opts); err != nil {
			t.Fatalf("apply %s %s: %v", gvk.Kind, obj.GetName(), err)
		}
		if _, has := obj.Object["status"]; !has || gvk.Group != "" {
			continue
		}
		// Kubernetes' own resources take their status apart from the rest.
		if _, err := r.ApplyStatus(t.Context(), obj.GetName(), obj, opts); err != nil {
			t.Fatalf("apply the status of %s %s: %v", gvk.Kind, obj.GetName(), err)
		}
	}
}

// Delete removes the objects of a manifest, at once.
func (s *Server) Delete(t testing.TB, manifest string) {
	t.Helper()
	c, now := s.Client(t, Admin), int64(0)
	for _, obj := range Parse(t, []byte(manifest)) {
		gvk := obj.GroupVersionKind()
		r := c.Resource(gvk.GroupVersion().WithResource(plural(gvk.Kind))).Namespace(obj.GetNamespace())
		if err := r.Delete(t.Context(), obj.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatalf("delete %s %s: %v", gvk.Kind, obj.GetName(), err)
		}
	}
}

// Accepts asks the server whether it would apply an object, fields that it does not know being errors, and changes nothing.
func (s *Server) Accepts(t testing.TB, obj *unstructured.Unstructured) error {
	t.Helper()
	text, err := obj.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	gvk := obj.GroupVersionKind()
	force := true
	r := s.Client(t, Admin).Resource(gvk.GroupVersion().WithResource(plural(gvk.Kind)))
	_, err = r.Namespace(obj.GetNamespace()).Patch(t.Context(), obj.GetName(), types.ApplyPatchType, text, metav1.PatchOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: "test", Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
	return err
}

// plural returns the plural name of a kind.
func plural(kind string) string {
	b := []byte(kind)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	name := string(b)
	if n := len(name); n > 0 && name[n-1] == 'y' {
		return name[:n-1] + "ies"
	}
	return name + "s"
}

// Grant lets a user do what a ClusterRole of this manifest says, and no more: what was granted before is taken back.
func (s *Server) Grant(t testing.TB, user, rules string) {
	t.Helper()
	s.Revoke(t, user)
	s.Apply(t, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-%[1]s}
rules:
%[2]s
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-%[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-%[1]s}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %[1]s}]
`, user, rules))
}

// Revoke takes back what Grant has granted.
func (s *Server) Revoke(t testing.TB, user string) {
	t.Helper()
	c := s.Client(t, Admin)
	for _, r := range []schema.GroupVersionResource{bindings, roles} {
		if err := c.Resource(r).Delete(context.Background(), "test-"+user, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
}

// Parse reads the objects of a manifest.
func Parse(t testing.TB, manifest []byte) (objects []*unstructured.Unstructured) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(manifest))
	for {
		var doc map[string]any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		if doc == nil {
			continue
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON(text); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, obj)
	}
}

// Eventually asks again and again until there is no error, for a minute at most.
func Eventually(t testing.TB, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute: %v", what, err)
		}
		time.Sleep(wait)
	}
}
