package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/test/kubetest"
)

// badObjects are of the kind that no definition refuses.
const badObjects = `
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: a}
spec: {cidr: 10.77.0.0/16, blockSize: 26}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: overlaps}
spec: {cidr: 10.77.1.0/24, blockSize: 26}
---
apiVersion: v1
kind: Node
metadata: {name: bad, annotations: {projectcalico.org/IPv4Address: nonsense}}
`

// TestReportProblem: each problem that a State has is one Event on its object, as kubectl describe looks for it, however many nodes report it; what
// can have none is passed over.
func TestReportProblem(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		t.Run(string(form), func(t *testing.T) {
			s := shared.Get(t)
			s.Clear(t, kubetest.Classic, kubetest.Native)
			client := s.Client(t, kubetest.Admin)
			if err := client.Resource(eventResource).Namespace("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			s.Apply(t, strings.ReplaceAll(badObjects, string(kubetest.Classic), string(form)))
			s.Grant(t, kubetest.Daemon, strings.ReplaceAll(readsCalico, "crd.projectcalico.org", "crd.projectcalico.org, projectcalico.org")+`
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}`)
			store := open(t, s, kubetest.Daemon, form)
			st := observe(t, store).until("the problems", func(u datastore.Update) bool { return healed(u) && len(u.State.Problems()) == 2 }).State
			more := []cluster.Problem{
				{Object: "IPPool gone", Text: "is not there any more"}, {Object: "Secret bgp", Text: "is not ours to tell of"}, {Object: "document", Text: "has no object"},
				{Object: "IPPool overlaps", Field: "spec.long", Text: strings.Repeat("ä", 2000)},
			}
			for _, p := range append(st.Problems(), more...) {
				for i := range 3 {
					if err := store.ReportProblem(t.Context(), fmt.Sprintf("node-%d", i), p); err != nil {
						t.Errorf("%s: %v", p.Object, err)
					}
				}
			}
			list, err := client.Resource(eventResource).Namespace("default").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range list.Items {
				at := func(path ...string) string {
					v, _, _ := unstructured.NestedString(e.Object, path...)
					return v
				}
				got = append(got, at("regarding", "kind")+" "+at("regarding", "name"))
				kind := calico.Kind(at("regarding", "kind"))
				obj, err := client.Resource(store.formOf(t).resource(kind)).Get(t.Context(), at("regarding", "name"), metav1.GetOptions{})
				if err != nil || string(obj.GetUID()) != at("regarding", "uid") || obj.GetAPIVersion() != at("regarding", "apiVersion") {
					t.Errorf("%v of %v: %v", e.Object["regarding"], obj, err)
				}
				if at("type") != "Warning" || at("note") == "" || at("reportingInstance") != "node-0" {
					t.Errorf("%v", e.Object)
				}
			}
			slices.Sort(got)
			if want := []string{"IPPool overlaps", "IPPool overlaps", "Node bad"}; !slices.Equal(got, want) {
				t.Errorf("Events of %v, want %v", got, want)
			}
			s.Grant(t, kubetest.Daemon, readsCalico)
			if err := store.ReportProblem(t.Context(), "node-0", st.Problems()[0]); err == nil {
				t.Error("a refusal is no error")
			}
		})
	}
}

func (s *Store) formOf(t *testing.T) form {
	t.Helper()
	f, err := s.form(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}
