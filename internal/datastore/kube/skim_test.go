package kube

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/caracal-net/caracal/internal/calico"
)

func newBlockSkimmer() *blockSkimmer {
	b := &blockSkimmer{}
	b.sum.SetSeed(maphash.MakeSeed())
	return b
}

func newNodeSkimmer() *nodeSkimmer {
	n := &nodeSkimmer{}
	n.sum.SetSeed(maphash.MakeSeed())
	return n
}

// agree holds a skimmer to its promise: objects with one sum have one word and the same problems. It returns how many pairs had one sum, and
// how many good ones had one word without it.
func agree(t *testing.T, sums []uint64, items []*item) (one, missed int) {
	t.Helper()
	for a := range items {
		for b := range a {
			same := reflect.DeepEqual(items[a].word, items[b].word) && reflect.DeepEqual(items[a].problems, items[b].problems) && items[a].UID == items[b].UID
			switch {
			case sums[a] == 0 || sums[b] == 0:
			case sums[a] == sums[b] && !same:
				t.Fatalf("one sum for %+v\nand %+v", items[a], items[b])
			case sums[a] == sums[b]:
				one++
			case same && items[a].word != nil && len(items[a].problems) == 0:
				missed++
			}
		}
	}
	return one, missed
}

// smallBlock is one of four addresses: among many of them there are such as differ in one thing only.
func smallBlock(r *rand.Rand) []byte {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	var allocations, attributes []string
	for n := range 4 {
		if r.IntN(2) == 0 {
			allocations = append(allocations, "null")
			continue
		}
		allocations = append(allocations, fmt.Sprint(len(attributes)))
		attributes = append(attributes, fmt.Sprintf(`{"handle_id":"h%d","secondary":{"pod":"p%d","node":%q},"releasedAt":%s}`, n, r.IntN(99),
			pick("a", "a", "b", "c", ""), pick("null", "null", "null", `"2026-01-31T12:00:00Z"`)))
	}
	return fmt.Appendf(nil, `{"kind":"IPAMBlock","metadata":{"name":"10-0-0-0-30","uid":%q,"resourceVersion":"3"},"spec":{"cidr":"10.0.0.0/30","affinity":%s,`+
		`"deleted":%s,"allocations":[%s],"unallocated":[],"attributes":[%s]}}`, pick("u", "v"), pick(`"host:a"`, `"host:b"`, "null", `"virtual:v"`),
		pick("false", "false", "true"), strings.Join(allocations, ","), strings.Join(attributes, ","))
}

// TestSkimBlock: of blocks that are routed alike the sums are the same, and of no others.
func TestSkimBlock(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	b := newBlockSkimmer()
	var sums []uint64
	var items []*item
	for len(items) < 1200 {
		text, odd := randomBlock(r)
		if len(items)%2 == 0 {
			text, odd = smallBlock(r), false
		}
		e := b.skim([]byte(event("MODIFIED", string(text))))
		i, err := classic.readItem(calico.KindIPAMBlock, text)
		if err != nil {
			t.Fatal(err)
		}
		if !odd && (e.sum == 0 || e.typ != watch.Modified || e.name != i.Name || e.version != i.ResourceVersion) {
			t.Fatalf("%s is read as %+v", text, e)
		}
		sums, items = append(sums, e.sum), append(items, i)
	}
	// Most random blocks have an address of another node somewhere; of those without there are enough.
	if one, missed := agree(t, sums, items); one < 100 || missed > 0 {
		t.Errorf("%d pairs with one sum, %d that should have had it", one, missed)
	}
}

// nodeFrame is an event of a Node's metadata as the API server sends it, without its length.
func nodeFrame(t testing.TB, typ watch.EventType, o *metav1.PartialObjectMetadata) []byte {
	t.Helper()
	inner, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return frame(t, typ, inner)
}

func frame(t testing.TB, typ watch.EventType, inner []byte) []byte {
	t.Helper()
	object, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, Raw: inner}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	text, err := (&metav1.WatchEvent{Type: string(typ), Object: runtime.RawExtension{Raw: append([]byte(objectPrefix), object...)}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func randomNode(r *rand.Rand) *metav1.PartialObjectMetadata {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: types.UID(pick("u", "v")), ResourceVersion: fmt.Sprint(r.IntN(99)),
		Labels:        map[string]string{"zone": pick("a", "b"), "arch": "x"},
		Annotations:   map[string]string{"other/heartbeat": fmt.Sprint(r.IntN(9)), domain + "IPv4Address": pick("192.0.2.1/24", "192.0.2.2/24", "x")},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: pick("kubelet", "someone"), FieldsV1: metav1.NewFieldsV1("{}")}}}}
	maps.Copy(o.Annotations, []map[string]string{{}, {}, {domain + "ASNumber": "7"}, {domain + "labels": `{"a":"b"}`}, {annotationVXLAN4: "10.0.0.1"}, {domain + "ASNumber": "many"}, {calico.AnnotationLeaving: "true"}}[r.IntN(7)])
	if r.IntN(8) == 0 {
		o.Labels = nil
	}
	return o
}

// TestSkimNode: of Nodes that are routed alike the sums are the same, and of no others; and what client-go encodes is what is read.
func TestSkimNode(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	n := newNodeSkimmer()
	var sums []uint64
	var items []*item
	for len(items) < 600 {
		o := randomNode(r)
		e := n.read(nodeFrame(t, watch.Modified, o))
		ev := e.whole()
		i, ok := ev.Object.(*item)
		want, problems := nodeWord(&o.ObjectMeta)
		if !ok || e.sum == 0 || e.typ != watch.Modified || ev.Type != e.typ || e.name != "n" || e.version != o.ResourceVersion ||
			i.ResourceVersion != e.version || !reflect.DeepEqual(i.word, want) || !reflect.DeepEqual(i.problems, problems) {
			t.Fatalf("%+v is read as %+v, %+v", o, e, ev)
		}
		sums, items = append(sums, e.sum), append(items, i)
	}
	if one, missed := agree(t, sums, items); one < 1000 || missed > 0 {
		t.Errorf("%d pairs with one sum, %d that should have had it", one, missed)
	}
}

// TestReadNodeEvent: what else comes on a watch of Nodes.
func TestReadNodeEvent(t *testing.T) {
	status := func(st *metav1.Status) []byte {
		text, err := st.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	bookmark := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "6", Annotations: map[string]string{initialEventsEnd: "true"}}}
	for name, c := range map[string]struct {
		message []byte
		want    string
	}{
		"bookmark":   {nodeFrame(t, watch.Bookmark, bookmark), "BOOKMARK 6 true"},
		"too old":    {frame(t, watch.Error, status(&metav1.Status{Status: "Failure", Code: 410, Reason: "Expired"})), "ERROR 410"},
		"gone":       {nodeFrame(t, watch.Deleted, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "7"}}), "DELETED 7 "},
		"no name":    {nodeFrame(t, watch.Added, bookmark), "ERROR 500"},
		"half":       {nodeFrame(t, watch.Added, bookmark)[:20], "ERROR 500"},
		"empty":      {nil, "ERROR 500"},
		"JSON":       {[]byte(`{"type":"ADDED","object":{"kind":"Node","metadata":{"name":"n","resourceVersion":"5"},"spec":{"x":[1]}}}`), "ADDED 5 "},
		"JSON error": {[]byte(`{"type":"ERROR","object":{"kind":"Status","code":410}}`), "ERROR 410"},
	} {
		ev := newNodeSkimmer().read(c.message).whole()
		got := string(ev.Type)
		switch o := ev.Object.(type) {
		case *item:
			got += fmt.Sprintf(" %s %s", o.ResourceVersion, o.Annotations[initialEventsEnd])
		case *metav1.Status:
			got += fmt.Sprint(" ", o.Code)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// FuzzSkimNode: whatever comes, nothing panics, and what is skimmed is what client-go's decoder reads.
func FuzzSkimNode(f *testing.F) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 5 {
		f.Add(nodeFrame(f, watch.Modified, randomNode(r)))
	}
	f.Add(binary.BigEndian.AppendUint32(nil, 7))
	f.Fuzz(func(t *testing.T, message []byte) {
		n := newNodeSkimmer()
		e := n.skim(message)
		ev := readNodeEvent(message)
		i, ok := ev.Object.(*item)
		if ok && e.sum != 0 && ev.Type != watch.Bookmark && (e.name != i.Name || e.version != i.ResourceVersion || e.typ != ev.Type) {
			t.Errorf("skimmed %+v, read %+v", e, i)
		}
	})
}

// FuzzSkimBlock: the same of blocks.
func FuzzSkimBlock(f *testing.F) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 5 {
		text, _ := randomBlock(r)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e := newBlockSkimmer().skim(fmt.Appendf(nil, `{"type":"MODIFIED","object":%s}`, text))
		i, ok := readBlock(text)
		if ok && (e.sum == 0 || e.name != i.Name || e.version != i.ResourceVersion) {
			t.Errorf("skimmed %+v, read %+v", e, i)
		}
	})
}

// BenchmarkSkimBlock is one change of a block in which nothing is routed on.
func BenchmarkSkimBlock(b *testing.B) {
	text := []byte(event("MODIFIED", benchBlock()))
	s := newBlockSkimmer()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if s.skim(text).sum == 0 {
			b.Fatal("not read")
		}
	}
}

// BenchmarkSkimNode is one heartbeat.
func BenchmarkSkimNode(b *testing.B) {
	message := nodeFrame(b, watch.Modified, randomNode(rand.New(rand.NewPCG(15, 16))))
	s := newNodeSkimmer()
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if s.skim(message).sum == 0 {
			b.Fatal("not read")
		}
	}
}

// TestWriteNodeLabels: a label without a value is one.
func TestWriteNodeLabels(t *testing.T) {
	n := &calico.Node{}
	n.Labels = map[string]string{"may-reflect": "", "zone": "a", "rack": "r"}
	labels, _ := writeNode(nil, map[string]string{annotationLabels: `{"rack":"r"}`}, n)
	if want := map[string]string{"may-reflect": "", "zone": "a"}; !maps.Equal(labels, want) {
		t.Errorf("labels %v, want %v", labels, want)
	}
}
