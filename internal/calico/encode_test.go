package calico

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func write(t testing.TB, n *yaml.Node) string {
	t.Helper()
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// full fills every field of a value with something that is not zero.
func full(v reflect.Value, n *int) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 1, 2, 3, 4, 5, *n*1000, time.UTC)
		return
	case *Duration:
		*x = Duration(time.Duration(*n) * time.Second)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		full(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			full(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range 2 { // the last stays zero: null in a list of pointers
			full(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		full(e, n)
		v.SetMapIndex(reflect.ValueOf("10.0.0.0/26"), e)
	case reflect.String:
		v.SetString([]string{"true", "12", "no", "null", "1:30", "~", "a: b", " x", "", "0x1", "2026-01-02"}[*n%11])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(int64(*n))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1<<31 + uint64(*n))
	default:
		panic(v.Type().String())
	}
}

// What is written is read back equal, whatever strings look like to YAML.
func TestEncodeDecode(t *testing.T) {
	for _, kind := range Kinds() {
		for n := range 11 {
			obj, _ := New(kind)
			full(reflect.ValueOf(obj).Elem(), &n)
			obj.Meta().Name = "n"
			if WatchedOnly(kind) {
				obj.Meta().Name = "ns/n"
			}
			if c := Clone(obj); !cmp.Equal(obj, c) {
				t.Fatalf("the copy differs: %s", cmp.Diff(obj, c))
			}
			text := write(t, Encode(obj))
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatalf("%v of\n%s", err, text)
			}
			got, problems := Decode(content(&doc), kind)
			if diff := cmp.Diff(obj, got); diff != "" || len(problems) > 0 {
				t.Fatalf("%s %v of\n%s", diff, problems, text)
			}
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	b := &IPAMBlock{Spec: IPAMBlockSpec{Affinity: ptr("host:a"), Allocations: []*int{ptr(1)}, Attributes: []AllocationAttrs{{Secondary: map[string]string{"node": "a"}}}}}
	c := Clone(b).(*IPAMBlock)
	*c.Spec.Affinity, *c.Spec.Allocations[0], c.Spec.Attributes[0].Secondary["node"] = "x", 9, "x"
	if *b.Spec.Affinity != "host:a" || *b.Spec.Allocations[0] != 1 || b.Spec.Attributes[0].Secondary["node"] != "a" {
		t.Error("writing to the copy changed the original")
	}
}

func TestEncodeBlock(t *testing.T) {
	claimed := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &IPAMBlock{ObjectMeta: ObjectMeta{Name: BlockName(netip.MustParsePrefix("10.0.0.0/30"))}, Spec: IPAMBlockSpec{
		CIDR: "10.0.0.0/30", Affinity: ptr("host:a"), AffinityClaimTime: &claimed,
		Allocations: []*int{nil, ptr(0), nil, nil}, Unallocated: []int{0, 2, 3},
		Attributes:     []AllocationAttrs{{HandleID: ptr("h"), Secondary: map[string]string{"node": "a", "type": "ipipTunnelAddress"}}},
		SequenceNumber: 1790000000000000001, SequenceNumberForAllocation: map[string]uint64{"1": 1790000000000000000},
	}}
	const want = `apiVersion: projectcalico.org/v3
kind: IPAMBlock
metadata:
  name: 10-0-0-0-30
spec:
  cidr: 10.0.0.0/30
  affinity: host:a
  affinityClaimTime: 2026-01-02T03:04:05Z
  allocations: [null, 0, null, null]
  unallocated: [0, 2, 3]
  attributes:
    - handle_id: h
      secondary:
        node: a
        type: ipipTunnelAddress
  sequenceNumber: 1790000000000000001
  sequenceNumberForAllocation:
    "1": 1790000000000000000
  strictAffinity: false
`
	if diff := cmp.Diff(want, write(t, Encode(b))); diff != "" {
		t.Error(diff)
	}
}

func TestOverlayKeepsWhatItDoesNotKnow(t *testing.T) {
	const before = `# our claims
apiVersion: crd.projectcalico.org/v1 # as kubectl prints it
kind: BlockAffinity
metadata:
  name: a-10-0-0-0-26
  generation: 3
  labels:
    kept: "1" # by hand
    gone: x
spec:
  # who
  node: 'a'
  state: pending # soon confirmed
  cidr: &range 10.0.0.0/26
  deleted: "false"
  new: {field: *range}
`
	const want = `# our claims
apiVersion: crd.projectcalico.org/v1 # as kubectl prints it
kind: BlockAffinity
metadata:
  name: a-10-0-0-0-26
  generation: 3
  labels:
    kept: "1" # by hand
    added: "yes"
spec:
  # who
  node: 'a'
  state: confirmed # soon confirmed
  cidr: &range 10.0.0.0/26
  deleted: "true"
  new: {field: *range}
`
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(before), &doc); err != nil {
		t.Fatal(err)
	}
	obj, problems := Decode(content(&doc), KindBlockAffinity)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	a := obj.(*BlockAffinity)
	a.Spec.State, a.Spec.Deleted, a.Labels = "confirmed", true, map[string]string{"kept": "1", "added": "yes"}
	Overlay(content(&doc), a)
	if diff := cmp.Diff(want, write(t, &doc)); diff != "" {
		t.Error(diff)
	}
}

func TestSetScalar(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte("kind: Node\nspec:\n  addr: 10.0.0.1 # ours\n"), &doc); err != nil {
		t.Fatal(err)
	}
	n := content(&doc)
	for _, step := range []struct {
		value   string
		path    []string
		changed bool
		want    string
	}{
		{"10.0.0.1", []string{"spec", "addr"}, false, "kind: Node\nspec:\n  addr: 10.0.0.1 # ours\n"},
		{"10.0.0.2", []string{"spec", "addr"}, true, "kind: Node\nspec:\n  addr: 10.0.0.2 # ours\n"},
		{"", []string{"spec", "bgp", "addr"}, false, "kind: Node\nspec:\n  addr: 10.0.0.2 # ours\n"},
		{"fd00::1", []string{"spec", "bgp", "addr"}, true, "kind: Node\nspec:\n  addr: 10.0.0.2 # ours\n  bgp:\n    addr: fd00::1\n"},
		{"", []string{"spec", "addr"}, true, "kind: Node\nspec:\n  bgp:\n    addr: fd00::1\n"},
	} {
		if SetScalar(n, step.value, step.path...) != step.changed || write(t, &doc) != step.want {
			t.Fatalf("%v = %q:\n%s", step.path, step.value, write(t, &doc))
		}
	}
}

func TestSetValue(t *testing.T) {
	const head = "kind: Node\nspec:\n  # ours\n  interfaces: [{name: eth0, addresses: ['192.0.2.1']}] # by hand\n"
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(head), &doc); err != nil {
		t.Fatal(err)
	}
	n, as := content(&doc), func(a ASNumber) *ASNumber { return &a }
	interfaces := []NodeInterface{{Name: "eth0", Addresses: []string{"192.0.2.1"}}}
	const changed = "kind: Node\nspec:\n  # ours\n  interfaces:\n    - name: eth0\n      addresses:\n        - 192.0.2.1\n    - name: eth1\n"
	for _, step := range []struct {
		value   any
		path    []string
		changed bool
		want    string
	}{
		{interfaces, []string{"spec", "interfaces"}, false, head},
		{append(interfaces, NodeInterface{Name: "eth1"}), []string{"spec", "interfaces"}, true, changed},
		{(*ASNumber)(nil), []string{"spec", "bgp", "asNumber"}, false, changed},
		{as(64512), []string{"spec", "bgp", "asNumber"}, true, changed + "  bgp:\n    asNumber: 64512\n"},
		{as(64512), []string{"spec", "bgp", "asNumber"}, false, changed + "  bgp:\n    asNumber: 64512\n"},
		{[]NodeInterface{}, []string{"spec", "interfaces"}, true, "kind: Node\nspec:\n  bgp:\n    asNumber: 64512\n"},
		{nil, []string{"spec", "bgp"}, true, "kind: Node\nspec: {}\n"},
	} {
		if SetValue(n, step.value, step.path...) != step.changed || write(t, &doc) != step.want {
			t.Fatalf("%v = %v:\n%s", step.path, step.value, write(t, &doc))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{pool("cidr: 10.0.0.0/16"), node("bgp:\n  ipv4Address: 192.0.2.1/24"), peer("peerIP: '[::1]:179'"), "- &a [*a]",
		"apiVersion: v1\nkind: List\nitems: [{kind: List, items: []}]", "a: &x {b: *x}\nkind: IPPool\napiVersion: projectcalico.org/v3\nmetadata: *x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc yaml.Node
		if yaml.Unmarshal(data, &doc) != nil {
			return
		}
		resources, _ := Resources(&doc)
		for i := range resources {
			r := &resources[i]
			if r.Name == "" || r.Object.Meta().Name != r.Name {
				t.Errorf("%s has the name %q, its object %q", r.Kind, r.Name, r.Object.Meta().Name)
			}
			w, problems := r.Word()
			if w == nil || len(problems) > 0 {
				continue
			}
			again, more := Decode(Encode(r.Object), r.Kind)
			if w2, problems := Word(again); len(more)+len(problems) > 0 || !cmp.Equal(w, w2, addrs) {
				t.Errorf("written and read again: %v %v %s", more, problems, cmp.Diff(w, w2, addrs))
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("node-a", "10.244.1.0/26")
	f.Add(strings.Repeat("h", 300), "fd00:10:244::/122")
	f.Fuzz(func(t *testing.T, host, cidr string) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return
		}
		if name := BlockName(p); strings.ContainsAny(name, ".:/") {
			t.Errorf("%s is named %s", p, name)
		}
		if name := AffinityName(host, p); len(name) > maxName {
			t.Errorf("the claim of %q on %s is named %s", host, p, name)
		}
	})
}
