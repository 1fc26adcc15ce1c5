package kube

import (
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// benchBlock is a block of 64 addresses, all in use by pods of the node: 9 kB of JSON.
func benchBlock() string {
	var allocations, attributes []string
	for i := range 64 {
		allocations = append(allocations, fmt.Sprint(i))
		attributes = append(attributes, fmt.Sprintf(`{"handle_id":"k8s-pod-network.%064d","secondary":{"node":"node-1","namespace":"default","pod":"pod-%d"}}`, i, i))
	}
	return fmt.Sprintf(`{"apiVersion":"crd.projectcalico.org/v1","kind":"IPAMBlock","metadata":{"name":"10-0-0-0-26","uid":"u","resourceVersion":"1"},`+
		`"spec":{"cidr":"10.0.0.0/26","affinity":"host:node-1","strictAffinity":false,"unallocated":[],"allocations":[%s],"attributes":[%s]}}`,
		strings.Join(allocations, ","), strings.Join(attributes, ","))
}

// BenchmarkBlockEvent is one change of a block in which nothing is routed on, from JSON to "nothing changed". At 100 a
// second, 100 µs are one hundredth of a core.
func BenchmarkBlockEvent(b *testing.B) {
	text := []byte(benchBlock())
	in, s := datastore.NewIntake(), newShelf(calico.KindIPAMBlock, marker{maphash.MakeSeed()})
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(text); err != nil {
			b.Fatal(err)
		}
		u.SetResourceVersion(fmt.Sprint(n + 1))
		i, err := classic.toItem(calico.KindIPAMBlock, u)
		if err != nil || len(i.problems) > 0 {
			b.Fatal(i.problems, err)
		}
		s.change(in, changed, i)
	}
}

// BenchmarkHeartbeat is a change of a node in which nothing is routed on, from where it is decoded.
func BenchmarkHeartbeat(b *testing.B) {
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "u",
		Labels:            map[string]string{"kubernetes.io/hostname": "node-1", "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "z"},
		Annotations:       map[string]string{domain + "IPv4Address": "192.0.2.1/24", annotationVXLAN4: "10.0.0.1", "volumes.kubernetes.io/controller-managed-attach-detach": "true"},
		CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0))}}
	in, s := datastore.NewIntake(), newShelf(calico.KindNode, marker{maphash.MakeSeed()})
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		m.ResourceVersion = fmt.Sprint(n + 1)
		i, err := classic.toItem(calico.KindNode, m)
		if err != nil || len(i.problems) > 0 {
			b.Fatal(i.problems, err)
		}
		s.change(in, changed, i)
	}
}

// BenchmarkSliceEvent is one change of an EndpointSlice of 100 endpoints, as large as they get, in which nothing is announced by: from JSON to
// "nothing changed".
func BenchmarkSliceEvent(b *testing.B) {
	var endpoints []string
	for i := range 100 {
		endpoints = append(endpoints, fmt.Sprintf(`{"addresses":["10.0.%d.%d"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"node-%d","targetRef":{"kind":"Pod","name":"web-%d","namespace":"default","uid":"5b0a4f43-6a0c-4f3e-9c43-0d4f4b2a%04d"},"zone":"z1"}`, i/8, i, i%50, i, i))
	}
	text := fmt.Appendf(nil, `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"web-1","namespace":"default","uid":"u","resourceVersion":"1","labels":{"kubernetes.io/service-name":"web"}},`+
		`"addressType":"IPv4","endpoints":[%s],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}`, strings.Join(endpoints, ","))
	in, s := datastore.NewIntake(), newShelf(calico.KindEndpointSlice, marker{maphash.MakeSeed()})
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		i, err := classic.readItem(calico.KindEndpointSlice, text)
		if err != nil {
			b.Fatal(err)
		}
		i.ResourceVersion = fmt.Sprint(n + 1)
		s.change(in, changed, i)
		in.State()
	}
}
