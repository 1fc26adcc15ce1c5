package kube

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/calico"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestMerge(t *testing.T) {
	type m = map[string]any
	type l = []any
	for _, c := range []struct {
		name                string
		raw, was, now, want any
	}{
		{"new", nil, nil, m{"a": "x"}, m{"a": "x"}},
		{"another spelling of the same", "1.10", int64(65546), int64(65546), "1.10"},
		{"another value", "1.10", int64(65546), int64(1), int64(1)},
		{"not read", m{"a": "x", "theirs": "y"}, m{"a": "x"}, m{"a": "z"}, m{"a": "z", "theirs": "y"}},
		{"field less", m{"a": "x", "b": "x", "theirs": "y"}, m{"a": "x", "b": "x"}, m{"b": "x"}, m{"b": "x", "theirs": "y"}},
		{"item less", l{m{"a": "1", "theirs": "y"}, m{"a": "2", "theirs": "z"}}, l{m{"a": "1"}, m{"a": "2"}}, l{m{"a": "2"}}, l{m{"a": "2", "theirs": "z"}}},
		{"item more", l{m{"a": "1", "theirs": "y"}}, l{m{"a": "1"}}, l{m{"a": "0"}, m{"a": "1"}}, l{m{"a": "0"}, m{"a": "1", "theirs": "y"}}},
		{"plain items", l{int64(1), nil}, l{int64(1), nil}, l{nil, int64(1)}, l{nil, int64(1)}},
		{"a list where a map was", m{"a": "x"}, m{}, l{"x"}, l{"x"}},
	} {
		if diff := cmp.Diff(c.want, merge(c.raw, c.was, c.now)); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
}

// TestWrongTypes: what no definition would let through is told with the field's name; the rest is used where it can be.
func TestWrongTypes(t *testing.T) {
	for _, c := range []struct {
		kind         calico.Kind
		text         string
		field, words string
		usable       bool
	}{
		{calico.KindIPPool, `{"kind":"IPPool","metadata":{"name":"o"},"spec":{"cidr":5}}`, "spec.cidr", "must be a string", false},
		{calico.KindIPPool, `{"kind":"IPPool","metadata":{"name":"o"},"spec":["cidr"]}`, "spec", "must hold fields", false},
		{calico.KindIPAMBlock, `{"kind":"IPAMBlock","metadata":{"name":"10-0-0-0-30"},"spec":{"cidr":"10.0.0.0/30","allocations":["x",null,null,null]}}`, "spec.allocations[0]", "whole number", false},
		{calico.KindBGPConfiguration, `{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"asNumber":64600,"listenPort":"x"}}`, "spec.listenPort", "whole number", true},
		{calico.KindBGPConfiguration, `{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"nodeMeshMaxRestartTime":"soon"}}`, "spec.nodeMeshMaxRestartTime", "not a duration", true},
	} {
		i, err := classic.toItem(c.kind, object(t, c.text))
		if err != nil {
			t.Fatal(err)
		}
		if len(i.problems) != 1 || i.problems[0].Field != c.field || !strings.Contains(i.problems[0].Text, c.words) || (i.word != nil) != c.usable {
			t.Errorf("%s:\nproblems %+v, word %v", c.text, i.problems, i.word)
		}
	}
}

// FuzzToItem: nothing an API server may send stops the process.
func FuzzToItem(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"IPPool","metadata":{"name":"o","annotations":{"projectcalico.org/metadata":"{}"}},"spec":{"cidr":"10.0.0.0/8"}}`,
		`{"kind":"Node","metadata":{"name":"o","annotations":{"projectcalico.org/labels":"[1]","projectcalico.org/IPv4Address":"x"}}}`,
		`{"kind":"IPAMBlock","metadata":{"name":"o"},"spec":{"cidr":"10.0.0.0/30","allocations":[null,0],"attributes":[{}],"sequenceNumber":1.5}}`,
		`{"kind":"BlockAffinity","metadata":null,"spec":{"deleted":"maybe"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		u := &unstructured.Unstructured{}
		if u.UnmarshalJSON(text) != nil {
			t.Skip()
		}
		for _, form := range []form{classic, native} {
			for _, kind := range calico.Kinds() {
				i, err := form.toItem(kind, u)
				if err != nil || i == nil {
					t.Fatalf("%s: %v", kind, err)
				}
				obj, problems := form.decode(u, kind)
				if len(problems) > 0 {
					continue
				}
				// What was read can be written, and reads the same.
				next := u.DeepCopy()
				form.overlay(next, obj)
				again, _ := form.decode(next, kind)
				if kind != calico.KindNode && !cmp.Equal(obj, again, cmpopts.EquateEmpty()) {
					t.Fatalf("%s %s:\n%s", form, kind, cmp.Diff(obj, again))
				}
			}
		}
	})
}

// TestDirect: what is read in one pass is what the slow way makes of it, and where the one cannot, it leaves it to the other.
func TestDirect(t *testing.T) {
	direct := 0
	for _, text := range []string{
		`{"kind":"Service","metadata":{"name":"web","namespace":"apps","uid":"u","resourceVersion":"7","managedFields":[{"f":"\"{"}],"labels":{"a":"b"}},"spec":{"type":"LoadBalancer","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"ports":[{"port":80}],"externalTrafficPolicy":"Local","healthCheckNodePort":30000},"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.9","ports":[]}]}}}`,
		`{"kind":"Service","metadata":{"namespace":"apps","name":"bad"},"spec":{"clusterIP":"x"}}`,
		`{"kind":"Service","metadata":{"namespace":"apps","name":"bad"},"spec":{"clusterIP":7}}`,
		`{"kind":"EndpointSlice","metadata":{"name":"web-1","namespace":"apps","uid":"u","resourceVersion":"8","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"nodeName":"b","conditions":{"ready":true}},{"nodeName":"a"},{"nodeName":null,"conditions":{"ready":null}}]}`,
		`{"kind":"EndpointSlice","metadata":{"name":"web-1","namespace":"apps","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv6","endpoints":null}`,
		`{"kind":"EndpointSlice","metadata":{"name":"web-1"},"addressType":"IPv6","endpoints":[{"conditions":{"ready":"yes"}}]}`,
		`{"kind":"Pod","metadata":{"name":"p","namespace":"apps","deletionTimestamp":"2026-01-01T00:00:00Z","annotations":{"cni.projectcalico.org/podIP":"10.0.0.1/32"}},"spec":{"nodeName":"a","containers":[{}]},"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.1"}]}}`,
		`{"kind":"Pod","metadata":{"name":"p","namespace":"apps\u002d1"},"spec":{"nodeName":"a"},"status":{"podIP":"10.0.0.1"}}`,
	} {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		slow, err := native.toItem(calico.Kind(u.GetKind()), u)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := readDirect(calico.Kind(u.GetKind()), []byte(text)); ok {
			direct++
		}
		fast, err := native.readItem(calico.Kind(u.GetKind()), []byte(text))
		if err != nil || fast.Name != slow.Name || fast.UID != slow.UID || fast.ResourceVersion != slow.ResourceVersion {
			t.Errorf("%v, %+v, want %+v of\n%s", err, fast, slow, text)
		}
		if d := cmp.Diff(slow.word, fast.word, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s of\n%s", d, text)
		}
		if !slices.Equal(fast.problems, slow.problems) {
			t.Errorf("%v, want %v of\n%s", fast.problems, slow.problems, text)
		}
	}
	if direct < 4 {
		t.Errorf("%d were read in one pass", direct)
	}
}
