package kube

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// slowly reads a block as every other kind is read.
func slowly(t *testing.T, text []byte) *item {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	i, err := classic.toItem(calico.KindIPAMBlock, u)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// randomBlock is a block as an API server sends it, or with something odd in it.
func randomBlock(r *rand.Rand) (text []byte, odd bool) {
	pick := func(from ...any) any { return from[r.IntN(len(from))] }
	var allocations, unallocated, attributes []any
	for n := range 64 {
		if r.IntN(3) > 0 {
			allocations, unallocated = append(allocations, nil), append(unallocated, n)
			continue
		}
		allocations = append(allocations, len(attributes))
		a := map[string]any{"handle_id": fmt.Sprintf("k8s-pod-network.%d\u00e9\"", n)}
		switch r.IntN(5) {
		case 0:
			a["secondary"] = nil
		case 1:
		default:
			a["secondary"] = map[string]any{"namespace": "a}b]\\", "node": pick("a", "a", "a", "b", ""), "pod": "{\"["}
		}
		a["releasedAt"] = pick(nil, nil, nil, "2026-01-31T12:00:00Z")
		attributes = append(attributes, a)
	}
	spec := map[string]any{"cidr": "10.1.2.0/26", "affinity": pick("host:a", "host:a", nil, "virtual:v"), "allocations": allocations,
		"unallocated": unallocated, "attributes": attributes, "deleted": pick(false, false, false, true), "strictAffinity": false,
		"sequenceNumber": r.IntN(99), "sequenceNumberForAllocation": map[string]any{"1": 2.5e3}, "extra": []any{[]any{}, map[string]any{}}}
	meta := map[string]any{"name": "10-1-2-0-26", "uid": "u1", "resourceVersion": "17",
		"annotations": map[string]any{metadataAnnotation: `{"creationTimestamp":null}`}, "managedFields": []any{map[string]any{"f:spec": "{"}}}
	switch odd = true; r.IntN(12) {
	case 0:
		spec["deleted"] = "true"
	case 1:
		spec["allocations"] = pick([]any{1, 2}, "none", []any{"1"})
	case 2:
		spec["cidr"] = pick("10.1.2.0/40", "10.1.2.3/26", "", 7)
	case 3:
		spec["attributes"] = pick([]any{}, map[string]any{}, []any{7})
	case 4:
		spec["affinity"] = pick("nobody", 7, "host:\u00e9", "host:\\")
	case 5:
		delete(meta, "name")
	default:
		odd = false
	}
	text, err := json.Marshal(map[string]any{"apiVersion": string(classic.group), "kind": "IPAMBlock", "metadata": meta, "spec": spec})
	if err != nil {
		panic(err)
	}
	return text, odd
}

// TestReadBlock: what the quick way makes of a block, the slow way makes of it too; and it does read what Calico writes.
func TestReadBlock(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	quick, borrowed := 0, 0
	for range 3000 {
		text, odd := randomBlock(r)
		got, ok := readBlock(text)
		if !ok {
			if !odd && len(slowly(t, text).problems) == 0 {
				t.Fatalf("not read: %s", text)
			}
			continue
		}
		quick++
		want := slowly(t, text)
		if b, is := want.word.(*cluster.Block); is && b != nil && len(b.Borrowed) > 0 {
			borrowed++
		}
		if !reflect.DeepEqual(got.word, want.word) || len(want.problems) > 0 || got.Name != want.Name || got.UID != want.UID || got.ResourceVersion != want.ResourceVersion {
			t.Fatalf("%s\nis read as %+v, slowly as %+v, %v", text, got, want, want.problems)
		}
	}
	if quick < 1000 || borrowed < 100 {
		t.Errorf("of 3000 blocks %d were read the quick way, %d with borrowed addresses", quick, borrowed)
	}
}

// FuzzScanner: no text makes the scanner panic, loop or run on.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"type":"ADDED","object":{"a":[1,null,"x\"",{}]}}`, `{`, `{"a"`, `{"a":"\`, `[`, `{"metadata":{"name":"\u0041"},"spec":null}`} {
		f.Add([]byte(s))
	}
	text, _ := randomBlock(rand.New(rand.NewPCG(3, 4)))
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		readBlock(text)
		readAffinity(text)
		readEvent(text, func(o []byte) (*item, error) { return classic.readItem(calico.KindIPAMBlock, o) })
	})
}

// TestReadEvent: what a line of a watch becomes.
func TestReadEvent(t *testing.T) {
	convert := func(text []byte) (*item, error) { return classic.readItem(calico.KindIPAMBlock, text) }
	for line, want := range map[string]string{
		`{"type":"ADDED","object":{"kind":"IPAMBlock","metadata":{"name":"x","resourceVersion":"5"}}}`:                                            "ADDED 5",
		`{"object":{"kind":"IPAMBlock","metadata":{"name":"x","resourceVersion":"5"}},"type":"DELETED"}`:                                          "DELETED 5",
		`{"type":"BOOKMARK","object":{"kind":"IPAMBlock","metadata":{"resourceVersion":"6","annotations":{"k8s.io/initial-events-end":"true"}}}}`: "BOOKMARK 6 true",
		`{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired"}}`:                                            "ERROR 410",
		`{"type":"ADDED"}`:                  "ERROR 500",
		`{"type":"ADDED","object":{}`:       "ERROR 500",
		`{"type":"ADDED","object":{"a" 1}}`: "ERROR 500",
		``:                                  "ERROR 500",
	} {
		ev := readEvent([]byte(line), convert)
		got := string(ev.Type)
		if i, ok := ev.Object.(*item); ok {
			got += strings.TrimRight(fmt.Sprintf(" %s %s", i.ResourceVersion, i.Annotations["k8s.io/initial-events-end"]), " ")
		}
		if !strings.HasPrefix(got, strings.Fields(want)[0]) || ev.Type != "ERROR" && got != want {
			t.Errorf("%s is %s, want %s", line, got, want)
		}
		if ev.Type == "ERROR" && !strings.Contains(fmt.Sprint(ev.Object), strings.Fields(want)[1]) {
			t.Errorf("%s is %v, want %s", line, ev.Object, want)
		}
	}
}

func BenchmarkReadBlock(b *testing.B) {
	text, odd := []byte(nil), true
	for r := rand.New(rand.NewPCG(5, 6)); odd; {
		text, odd = randomBlock(r)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := readBlock(text); !ok {
			b.Fatal("not read")
		}
	}
}
