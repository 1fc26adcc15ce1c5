package kube

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/startup"
	"github.com/caracal-net/caracal/test/kubetest"
)

var _ startup.Cluster = (*Store)(nil)

// kubeletNode makes a Node as a kubelet does, with conditions of its own.
func kubeletNode(t *testing.T, server *kubetest.Server, name string) {
	t.Helper()
	nodes := server.Client(t, kubetest.Admin).Resource(nodeResource)
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Node"}}
	u.SetName(name)
	if _, err := nodes.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	status := `{"status":{"addresses":[{"type":"Hostname","address":"node-a"},{"type":"InternalIP","address":"192.0.2.7"},` +
		`{"type":"ExternalIP","address":"203.0.113.7"},{"type":"InternalIP","address":"2001:db8::7"}],"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}]}}`
	if _, err := nodes.Patch(t.Context(), name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

func TestInternalAddrs(t *testing.T) {
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic)
	s := open(t, server, kubetest.Admin, kubetest.Classic)
	kubeletNode(t, server, "node-a")
	got, err := s.InternalAddrs(t.Context(), "node-a")
	want := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if _, err := s.InternalAddrs(t.Context(), "node-b"); !errors.Is(err, datastore.ErrNotFound) {
		t.Error("of a Node that is not there:", err)
	}
}

func TestConfigMaps(t *testing.T) {
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic)
	server.Apply(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: some-config, namespace: kube-system}\ndata: {a: b}\n")
	s := open(t, server, kubetest.Admin, kubetest.Classic)
	if got, err := s.ConfigMap(t.Context(), "kube-system", "some-config"); err != nil || len(got) != 1 || got["a"] != "b" {
		t.Error(got, err)
	}
	if _, err := s.ConfigMap(t.Context(), "kube-system", "no-config"); !errors.Is(err, datastore.ErrNotFound) {
		t.Error("one that is not there:", err)
	}
	if _, err := open(t, server, kubetest.Nobody, kubetest.Classic).ConfigMap(t.Context(), "kube-system", "some-config"); !errors.Is(err, datastore.ErrForbidden) {
		t.Error("one that we may not read:", err)
	}
}

// TestClusterInformation: made once by many nodes at once, completed where something is missing, and otherwise left alone.
func TestClusterInformation(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		server := shared.Get(t)
		server.Clear(t, form)
		s := open(t, server, kubetest.Admin, form)
		info := server.Client(t, kubetest.Admin).Resource(form.Resource("clusterinformations"))
		spec := func() map[string]any {
			t.Helper()
			u, err := info.Get(t.Context(), "default", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			spec, _, _ := unstructured.NestedMap(u.Object, "spec")
			return spec
		}
		var nodes sync.WaitGroup
		for range 10 {
			nodes.Go(func() {
				if err := s.EnsureClusterInformation(t.Context(), "k8s,bgp"); err != nil {
					t.Error(err)
				}
			})
		}
		nodes.Wait()
		first := spec()
		guid, _ := first["clusterGUID"].(string)
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(guid) || first["datastoreReady"] != true || first["clusterType"] != "k8s,bgp" {
			t.Errorf("%s: %v", form, first)
		}
		u, _ := info.Get(t.Context(), "default", metav1.GetOptions{})
		_ = unstructured.SetNestedField(u.Object, false, "spec", "datastoreReady") // a migration is under way
		_ = unstructured.SetNestedField(u.Object, "operator,bgp", "spec", "clusterType")
		if _, err := info.Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.EnsureClusterInformation(t.Context(), "k8s,bgp,kubeadm"); err != nil {
				t.Fatal(err)
			}
			if now := spec(); now["clusterGUID"] != guid || now["datastoreReady"] != false || now["clusterType"] != "operator,bgp,k8s,kubeadm" {
				t.Errorf("%s: %v", form, now)
			}
		}
	}
}

// TestNetworkUnavailable: the condition is written beside the kubelet's, its time of transition stays while the status does, and
// nothing is written where nothing differs.
func TestNetworkUnavailable(t *testing.T) {
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic)
	s := open(t, server, kubetest.Admin, kubetest.Classic)
	kubeletNode(t, server, "node-a")
	read := func() (conditions map[string]map[string]any, version string) {
		t.Helper()
		u, err := s.wholeNode(t.Context(), "node-a")
		if err != nil {
			t.Fatal(err)
		}
		list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		conditions = map[string]map[string]any{}
		for _, c := range list {
			conditions[c.(map[string]any)["type"].(string)] = c.(map[string]any)
		}
		return conditions, u.GetResourceVersion()
	}
	const since = "2020-01-02T03:04:05Z" // what the condition's time is set to before the last step
	for _, step := range []struct {
		down         bool
		reason, want string
		written      bool
	}{{true, "CalicoIsDown", "True", true}, {true, "CalicoIsDown", "True", false}, {false, "CalicoIsUp", "False", true}, {false, "Other", "False", true}} {
		if step.reason == "Other" {
			old := `{"status":{"conditions":[{"type":"NetworkUnavailable","lastTransitionTime":"` + since + `"}]}}`
			if _, err := s.metas.Resource(nodeResource).Patch(t.Context(), "node-a", types.StrategicMergePatchType, []byte(old), metav1.PatchOptions{}, "status"); err != nil {
				t.Fatal(err)
			}
		}
		_, before := read()
		if err := s.SetNetworkUnavailable(t.Context(), "node-a", step.down, step.reason, "why"); err != nil {
			t.Fatal(err)
		}
		now, after := read()
		c := now["NetworkUnavailable"]
		if c["status"] != step.want || c["message"] != "why" || len(now) != 2 || now["Ready"]["status"] != "True" {
			t.Errorf("%+v: %v", step, now)
		}
		if (before != after) != step.written {
			t.Errorf("%+v: version %s, then %s", step, before, after)
		}
		if (c["lastTransitionTime"] == since) != (step.reason == "Other") {
			t.Errorf("%+v: since %s", step, c["lastTransitionTime"])
		}
	}
	if err := s.SetNetworkUnavailable(t.Context(), "node-b", true, "r", "m"); !errors.Is(err, datastore.ErrNotFound) {
		t.Error("of a Node that is not there:", err)
	}
}
