package datastoretest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Contract runs the promises of datastore.Store against a Store. Open returns a new, empty one for each test; what it
// must clean up it leaves to t.Cleanup.
func Contract(t *testing.T, open func(t *testing.T) datastore.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, datastore.Store)
	}{
		{"create then get", createThenGet},
		{"every kind keeps its content", everyKind},
		{"create twice", createTwice},
		{"not found", notFound},
		{"list is sorted and of one kind", listSorted},
		{"claims of a host", listAffinities},
		{"update", update},
		{"update of an old version", updateStale},
		{"update of a recreated object", updateRecreated},
		{"update without a version", updateUnread},
		{"delete", deleteOnce},
		{"delete of an old version", deleteStale},
		{"delete of a recreated object", deleteRecreated},
		{"objects belong to the caller", ownObjects},
		{"patch of a node", patchNode},
		{"patch is seen by an update", patchConflicts},
		{"names with odd characters", oddNames},
		{"kinds that are only watched", watchedOnly},
		{"racing creates", racingCreates},
		{"racing updates", racingUpdates},
		{"racing deletes", racingDeletes},
		{"racing patches", racingPatches},
		{"an ended context", endedContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// ContractStart is the part of the promises that a node's start needs: NodePatch with addresses, AS number and interfaces. It
// becomes part of Contract as soon as every Store keeps it.
func ContractStart(t *testing.T, open func(t *testing.T) datastore.Store) {
	t.Run("patch of a node that starts", func(t *testing.T) { startPatch(t, open(t)) })
}

func handle(name string, counts map[string]int) *calico.IPAMHandle {
	h := &calico.IPAMHandle{}
	h.Name = name
	h.Spec.HandleID = name
	h.Spec.Block = counts
	return h
}

// must returns a fresh copy of a handle in the store.
func must(t *testing.T, s datastore.Store, name string) *calico.IPAMHandle {
	t.Helper()
	obj, err := s.Get(t.Context(), calico.KindIPAMHandle, name)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*calico.IPAMHandle)
}

func create(t *testing.T, s datastore.Store, obj calico.Object) calico.Object {
	t.Helper()
	out, err := s.Create(t.Context(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want one that is %q", what, err, want)
	}
}

func createThenGet(t *testing.T, s datastore.Store) {
	given := handle("h", map[string]int{"10.0.0.0/26": 2})
	given.Labels = map[string]string{"k": "v"}
	given.UID, given.ResourceVersion = "left over", "99" // of the object it was copied from
	created := create(t, s, given)
	meta := created.Meta()
	if meta.UID == "" || meta.UID == "left over" || meta.ResourceVersion == "" || meta.ResourceVersion == "99" {
		t.Errorf("created with UID %q and ResourceVersion %q, want new ones", meta.UID, meta.ResourceVersion)
	}
	got := must(t, s, "h")
	if diff := cmp.Diff(created, calico.Object(got)); diff != "" {
		t.Errorf("get differs from what create returned:\n%s", diff)
	}
	if diff := cmp.Diff(given.Spec, got.Spec); diff != "" {
		t.Errorf("spec changed on the way:\n%s", diff)
	}
	if got.Labels["k"] != "v" {
		t.Errorf("labels %v, want k=v", got.Labels)
	}
}

func createTwice(t *testing.T, s datastore.Store) {
	first := create(t, s, handle("h", map[string]int{"10.0.0.0/26": 1}))
	_, err := s.Create(t.Context(), handle("h", map[string]int{"10.0.0.0/26": 7}))
	wantErr(t, "second create", err, datastore.ErrExists)
	if diff := cmp.Diff(first, calico.Object(must(t, s, "h"))); diff != "" {
		t.Errorf("the second create changed the object:\n%s", diff)
	}
}

func notFound(t *testing.T, s datastore.Store) {
	ctx := t.Context()
	_, err := s.Get(ctx, calico.KindIPAMHandle, "h")
	wantErr(t, "get", err, datastore.ErrNotFound)
	gone := create(t, s, handle("h", nil))
	if err := s.Delete(ctx, gone); err != nil {
		t.Fatal(err)
	}
	_, err = s.Update(ctx, gone)
	wantErr(t, "update", err, datastore.ErrNotFound)
	wantErr(t, "delete", s.Delete(ctx, gone), datastore.ErrNotFound)
	wantErr(t, "patch", s.PatchNode(ctx, "h", datastore.NodePatch{}), datastore.ErrNotFound)
	create(t, s, handle("other", nil))
	_, err = s.Get(ctx, calico.KindBlockAffinity, "other")
	wantErr(t, "get of another kind", err, datastore.ErrNotFound)
}

func listSorted(t *testing.T, s datastore.Store) {
	if list, err := s.List(t.Context(), calico.KindIPAMHandle); err != nil || len(list) != 0 {
		t.Errorf("empty store lists %v, %v", list, err)
	}
	for _, name := range []string{"b", "a", "c-10", "c-9"} {
		create(t, s, handle(name, nil))
	}
	block := &calico.IPAMBlock{}
	block.Name, block.Spec.CIDR = "10-0-0-0-30", "10.0.0.0/30"
	create(t, s, block)
	list, err := s.List(t.Context(), calico.KindIPAMHandle)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, obj := range list {
		names = append(names, obj.Meta().Name)
		if diff := cmp.Diff(obj, calico.Object(must(t, s, obj.Meta().Name))); diff != "" {
			t.Errorf("list and get differ:\n%s", diff)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c-10", "c-9"}, names); diff != "" {
		t.Errorf("names:\n%s", diff)
	}
}

func listAffinities(t *testing.T, s datastore.Store) {
	want := []string{}
	for i, host := range []string{"node-a", "node-b", "node-a", "node-b"} {
		a := &calico.BlockAffinity{Spec: calico.BlockAffinitySpec{State: "confirmed", Node: host, Type: "host", CIDR: fmt.Sprintf("10.9.%d.0/26", i)}}
		a.Name = calico.AffinityName(host, netip.MustParsePrefix(a.Spec.CIDR))
		if i >= 2 { // as those that Calico wrote before it had labels
			want = append(want, a.Name)
		} else {
			a.Labels = map[string]string{calico.LabelHostnameHash: calico.HostnameHash(host)}
			if host == "node-a" {
				want = append(want, a.Name)
			}
		}
		create(t, s, a)
	}
	objects, err := datastore.ListAffinities(t.Context(), s, "node-a")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, obj := range objects {
		_, selects := s.(datastore.AffinityLister)
		if name := obj.Meta().Name; selects || slices.Contains(want, name) {
			got = append(got, name)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("claims of node-a and of hosts unknown: %q, want %q", got, want)
	}
}

func update(t *testing.T, s datastore.Store) {
	h := create(t, s, handle("h", map[string]int{"10.0.0.0/26": 1, "10.0.0.64/26": 1})).(*calico.IPAMHandle)
	old := h.ResourceVersion
	delete(h.Spec.Block, "10.0.0.64/26")
	h.Spec.Block["10.0.0.0/26"] = 5
	out, err := s.Update(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if h.ResourceVersion != old {
		t.Error("update wrote to the object it was given")
	}
	if v := out.Meta().ResourceVersion; v == old || v == "" || out.Meta().UID != h.UID {
		t.Errorf("version %q after %q, UID %q after %q; want a new version, the same UID", v, old, out.Meta().UID, h.UID)
	}
	got := must(t, s, "h")
	if diff := cmp.Diff(out, calico.Object(got)); diff != "" {
		t.Errorf("get differs from what update returned:\n%s", diff)
	}
	if diff := cmp.Diff(h.Spec, got.Spec); diff != "" {
		t.Errorf("spec:\n%s", diff)
	}
	out.(*calico.IPAMHandle).Spec.Block["10.0.0.0/26"] = 6
	if _, err := s.Update(t.Context(), out); err != nil {
		t.Errorf("update with the version the last update returned: %v", err)
	}
}

func updateStale(t *testing.T, s datastore.Store) {
	create(t, s, handle("h", map[string]int{"10.0.0.0/26": 1}))
	mine, theirs := must(t, s, "h"), must(t, s, "h")
	theirs.Spec.Block["10.0.0.0/26"] = 2
	if _, err := s.Update(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	mine.Spec.Block["10.0.0.0/26"] = 3
	_, err := s.Update(t.Context(), mine)
	wantErr(t, "update of an old version", err, datastore.ErrConflict)
	if n := must(t, s, "h").Spec.Block["10.0.0.0/26"]; n != 2 {
		t.Errorf("the count is %d, want the 2 of the one who was first", n)
	}
}

// recreated returns an object that was deleted, while another now has its name.
func recreated(t *testing.T, s datastore.Store) (old, now calico.Object) {
	old = create(t, s, handle("h", nil))
	if err := s.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	now = create(t, s, handle("h", nil))
	if old.Meta().UID == now.Meta().UID || old.Meta().ResourceVersion == now.Meta().ResourceVersion {
		t.Errorf("the second object has UID %q and version %q of the first", now.Meta().UID, now.Meta().ResourceVersion)
	}
	return old, now
}

func updateRecreated(t *testing.T, s datastore.Store) {
	old, now := recreated(t, s)
	_, err := s.Update(t.Context(), old)
	wantErr(t, "update of the deleted object", err, datastore.ErrConflict)
	other := calico.Clone(now)
	other.Meta().UID = old.Meta().UID
	_, err = s.Update(t.Context(), other)
	wantErr(t, "update with another UID", err, datastore.ErrConflict)
}

func updateUnread(t *testing.T, s datastore.Store) {
	create(t, s, handle("h", nil))
	_, err := s.Update(t.Context(), handle("h", map[string]int{"10.0.0.0/26": 1}))
	wantErr(t, "update without a version", err, datastore.ErrConflict)
	wantErr(t, "delete without a version", s.Delete(t.Context(), handle("h", nil)), datastore.ErrConflict)
}

func deleteOnce(t *testing.T, s datastore.Store) {
	h := create(t, s, handle("h", nil))
	keep := create(t, s, handle("keep", nil))
	if err := s.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), calico.KindIPAMHandle, "h")
	wantErr(t, "get after delete", err, datastore.ErrNotFound)
	list, err := s.List(t.Context(), calico.KindIPAMHandle)
	if diff := cmp.Diff([]calico.Object{keep}, list); err != nil || diff != "" {
		t.Errorf("list after delete: %v\n%s", err, diff)
	}
}

func deleteStale(t *testing.T, s datastore.Store) {
	old := create(t, s, handle("h", nil))
	// A change of something: an API server does not count an update that changes nothing.
	if _, err := s.Update(t.Context(), withCount(calico.Clone(old), 2)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "delete of an old version", s.Delete(t.Context(), old), datastore.ErrConflict)
	must(t, s, "h")
}

func withCount(obj calico.Object, n int) calico.Object {
	obj.(*calico.IPAMHandle).Spec.Block = map[string]int{"10.0.0.0/26": n}
	return obj
}

func deleteRecreated(t *testing.T, s datastore.Store) {
	old, now := recreated(t, s)
	wantErr(t, "delete of the deleted object", s.Delete(t.Context(), old), datastore.ErrConflict)
	other := calico.Clone(now)
	other.Meta().UID = old.Meta().UID
	wantErr(t, "delete with another UID", s.Delete(t.Context(), other), datastore.ErrConflict)
	must(t, s, "h")
}

func ownObjects(t *testing.T, s datastore.Store) {
	given := handle("h", map[string]int{"10.0.0.0/26": 1})
	given.Labels = map[string]string{"k": "v"}
	scribble := func(obj calico.Object) {
		obj.(*calico.IPAMHandle).Spec.Block["10.0.0.0/26"] = 99
		obj.Meta().Labels["k"] = "scribbled"
	}
	check := func(what string) {
		t.Helper()
		if h := must(t, s, "h"); h.Spec.Block["10.0.0.0/26"] != 1 || h.Labels["k"] != "v" {
			t.Errorf("writing to the object %s changed the store: %v %v", what, h.Spec.Block, h.Labels)
		}
	}
	created := create(t, s, given)
	scribble(given)
	check("given to create")
	scribble(created)
	check("returned by create")
	scribble(must(t, s, "h"))
	check("returned by get")
	list, err := s.List(t.Context(), calico.KindIPAMHandle)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	scribble(list[0])
	check("returned by list")
	h := must(t, s, "h")
	updated, err := s.Update(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	scribble(h)
	check("given to update")
	scribble(updated)
	check("returned by update")
}

func oddNames(t *testing.T, s datastore.Store) {
	long := "node"
	for len(long) < 253 { // the longest name Kubernetes allows
		long += "-0123456789"[:min(11, 253-len(long))]
	}
	for _, name := range []string{"k8s-pod-network.0a1b2c", "fd00-10-244---122", "node-1.example.com-10-0-0-0-26", long} {
		create(t, s, handle(name, map[string]int{"fd00:10:244::/122": 1}))
		if h := must(t, s, name); h.Name != name {
			t.Errorf("stored as %q, came back as %q", name, h.Name)
		}
	}
}

func endedContext(t *testing.T, s datastore.Store) {
	h := create(t, s, handle("h", nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Update(ctx, h)
	wantErr(t, "update", err, context.Canceled)
	wantErr(t, "delete", s.Delete(ctx, h), context.Canceled)
	if v := must(t, s, "h").ResourceVersion; v != h.Meta().ResourceVersion {
		t.Error("written after the context ended")
	}
}
