package file

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

func readFile(t testing.TB, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func visible(t testing.TB, dir string) []string {
	t.Helper()
	names, _, err := listDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// manual is a file as a person writes it: our documents between others, in odd order and with odd spacing.
const manual = `# The west side.
#
apiVersion: v1
kind: ConfigMap   # not ours
metadata:   {name:   other}
---

# node one
apiVersion: projectcalico.org/v3
kind: Node
metadata:
    name: n1
    labels: {rack: "7"}   # top left
spec:
    # set by hand
    bgp:
        ipv4Address: '192.0.2.1/24' # eth0
        wireguard:   soon
    new: field
--- # second
kind: Node
apiVersion: projectcalico.org/v3
metadata: {name: n2}
...
---
not parsed: [
--- {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n3}}
`

func TestPatchNodeLeavesTheRestAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "west.yaml", manual)
	if err := os.Chmod(filepath.Join(dir, "west.yaml"), 0o640); err != nil {
		t.Fatal(err)
	}
	a4, a6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for _, step := range []struct {
		node     string
		patch    datastore.NodePatch
		old, new string
	}{
		{"n1", datastore.NodePatch{}, "", ""},
		{"n1", datastore.NodePatch{IPIPAddr: &a4, VXLANAddr6: &a6}, manual[strings.Index(manual, "\n# node one"):strings.Index(manual, "--- # second")], `# node one
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: n1
  labels: {rack: "7"} # top left
spec:
  # set by hand
  bgp:
    ipv4Address: '192.0.2.1/24' # eth0
    wireguard: soon
    ipv4IPIPTunnelAddr: 10.0.0.1
  new: field
  ipv6VXLANTunnelAddr: fd00::1
`},
		{"n2", datastore.NodePatch{VXLANAddr4: &a4}, " # second\nkind: Node\napiVersion: projectcalico.org/v3\nmetadata: {name: n2}\n", `
# second
kind: Node
apiVersion: projectcalico.org/v3
metadata: {name: n2}
spec:
  ipv4VXLANTunnelAddr: 10.0.0.1
`},
		{"n3", datastore.NodePatch{VXLANAddr4: &a4}, " {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n3}}\n", `
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n3}, spec: {ipv4VXLANTunnelAddr: 10.0.0.1}}
`},
		{"n1", datastore.NodePatch{IPIPAddr: &netip.Addr{}, VXLANAddr6: &netip.Addr{}}, "    ipv4IPIPTunnelAddr: 10.0.0.1\n  new: field\n  ipv6VXLANTunnelAddr: fd00::1\n", "  new: field\n"},
	} {
		want := strings.Replace(readFile(t, dir, "west.yaml"), step.old, step.new, 1)
		if err := s.PatchNode(t.Context(), step.node, step.patch); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, readFile(t, dir, "west.yaml")); diff != "" {
			t.Fatalf("%s: %s", step.node, diff)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "west.yaml")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := s.PatchNode(t.Context(), "n4", datastore.NodePatch{IPIPAddr: &a4}); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("a node that is not there: %v", err)
	}
}

func get[T calico.Object](t testing.TB, s *Store, kind calico.Kind, name string) T {
	t.Helper()
	o, err := s.Get(t.Context(), kind, name)
	if err != nil {
		t.Fatal(err)
	}
	return o.(T)
}

func TestUpdateAndDeleteInSomebodysFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	doc := func(i int) string {
		return fmt.Sprintf("# handle %d\napiVersion: crd.projectcalico.org/v1\nkind: IPAMHandle\nmetadata: {name: h%d, generation: 4}\nspec: {handleID: H%d, block: {10.0.0.0/26: %d}, deleted: false, other: x}\n", i, i, i, i)
	}
	put(t, dir, "all.yaml", doc(0)+"---\n"+doc(1)+"---\n"+doc(2))
	h := get[*calico.IPAMHandle](t, s, calico.KindIPAMHandle, "h1")
	h.Spec.Block["10.0.0.0/26"] = 9
	h.Spec.Block["10.0.0.64/26"] = 1
	if _, err := s.Update(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	middle := "# handle 1\napiVersion: crd.projectcalico.org/v1\nkind: IPAMHandle\nmetadata: {name: h1, generation: 4, resourceVersion: \"1\"}\nspec: {handleID: H1, block: {10.0.0.0/26: 9, 10.0.0.64/26: 1}, other: x}\n"
	if diff := cmp.Diff(doc(0)+"---\n"+middle+"---\n"+doc(2), readFile(t, dir, "all.yaml")); diff != "" {
		t.Fatal(diff)
	}
	for _, step := range []struct{ name, want string }{
		{"h1", doc(0) + "---\n" + doc(2)},
		{"h0", doc(2)},
	} {
		if err := s.Delete(t.Context(), get[*calico.IPAMHandle](t, s, calico.KindIPAMHandle, step.name)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, readFile(t, dir, "all.yaml")); diff != "" {
			t.Fatal(diff)
		}
	}
	if err := s.Delete(t.Context(), get[*calico.IPAMHandle](t, s, calico.KindIPAMHandle, "h2")); err != nil {
		t.Fatal(err)
	}
	if left := visible(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestListsAndJSON(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "l.yaml", "apiVersion: v1\nkind: List\nitems:\n  # first\n  - apiVersion: projectcalico.org/v3\n    kind: Node\n    metadata: {name: a}\n  - apiVersion: projectcalico.org/v3\n    kind: Node\n    metadata: {name: b}\n")
	put(t, dir, "j.json", "{\"apiVersion\": \"projectcalico.org/v3\",\n\t\"kind\": \"Node\",\n\t\"metadata\": {\"name\": \"c\"}}")
	addr := netip.MustParseAddr("10.0.0.1")
	for _, n := range []string{"b", "c"} {
		if err := s.PatchNode(t.Context(), n, datastore.NodePatch{VXLANAddr4: &addr}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), get[*calico.Node](t, s, calico.KindNode, "a")); err != nil {
		t.Fatal(err)
	}
	const wantL = "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: projectcalico.org/v3\n    kind: Node\n    metadata: {name: b}\n    spec:\n      ipv4VXLANTunnelAddr: 10.0.0.1\n"
	const wantJ = "{\n  \"apiVersion\": \"projectcalico.org/v3\",\n  \"kind\": \"Node\",\n  \"metadata\": {\n    \"name\": \"c\"\n  },\n  \"spec\": {\n    \"ipv4VXLANTunnelAddr\": \"10.0.0.1\"\n  }\n}\n"
	if diff := cmp.Diff(wantL+wantJ, readFile(t, dir, "l.yaml")+readFile(t, dir, "j.json")); diff != "" {
		t.Error(diff)
	}
	for _, n := range []string{"b", "c"} {
		if err := s.Delete(t.Context(), get[*calico.Node](t, s, calico.KindNode, n)); err != nil {
			t.Fatal(err)
		}
	}
	if left := visible(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAnyHandEditChangesTheVersion(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	created, err := s.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "h"}, Spec: calico.IPAMHandleSpec{HandleID: "h"}})
	if err != nil {
		t.Fatal(err)
	}
	const name = "ipamhandle-h.yaml"
	if diff := cmp.Diff([]string{name}, visible(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	text := readFile(t, dir, name)
	for _, edit := range []string{text + "# x\n", strings.Replace(text, "handleID: h", "handleID: g", 1), strings.Replace(text, "  name: h", "  name:  h", 1)} {
		fill(t, dir, name, edit)
		if _, err := s.Update(t.Context(), created); !errors.Is(err, datastore.ErrConflict) {
			t.Errorf("updated what somebody changed to\n%s: %v", edit, err)
		}
	}
	fill(t, dir, name, text)
	if _, err := s.Update(t.Context(), created); err != nil {
		t.Errorf("the same text is the same version: %v", err)
	}
}

// A content that comes back has another version: whoever read the first of the two must not win.
func TestVersionsDoNotComeBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	o, err := s.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "h"}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{o.Meta().ResourceVersion: true}
	for range 5 {
		if o, err = s.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if v := o.Meta().ResourceVersion; seen[v] {
			t.Fatalf("version %s came back", v)
		}
		seen[o.Meta().ResourceVersion] = true
	}
}

func TestDoubtIsNotAbsence(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "broken.yaml", "apiVersion: projectcalico.org/v3\nkind: IPAMHandle\nmetadata: {name: suspect}\nspec: [\n")
	put(t, dir, "wrong.yaml", "apiVersion: projectcalico.org/v3\nkind: IPAMHandle\nmetadata: {name: wrong}\nspec: {block: many}\n")
	for name, want := range map[string]string{"suspect": "broken.yaml, line", "wrong": "wrong.yaml, line 4: cannot be used: spec.block: must hold names and values, not \"many\""} {
		_, err := s.Get(t.Context(), calico.KindIPAMHandle, name)
		if err == nil || errors.Is(err, datastore.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("get %s: %v", name, err)
		}
		if _, err := s.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: name}}); err == nil {
			t.Errorf("%s was created a second time", name)
		}
	}
	if _, err := s.Get(t.Context(), calico.KindIPAMHandle, "innocent"); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if list, err := s.List(t.Context(), calico.KindIPAMHandle); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

// A writer waits until somebody else, who does not know of the lock, has finished.
func TestWriteWaitsForAnEditor(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "n.yaml", nodeDoc("a", 1)+"---\n"+nodeDoc("b", 1))
	get[*calico.Node](t, s, calico.KindNode, "a")
	f, err := os.OpenFile(filepath.Join(dir, "n.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	half := nodeDoc("a", 2)
	if _, err := f.WriteString(half); err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.1")
	done := make(chan error)
	go func() { done <- s.PatchNode(t.Context(), "a", datastore.NodePatch{VXLANAddr4: &addr}) }()
	for held := false; !held; { // until the writer has the lock
		f, err := s.tryLock()
		if err != nil {
			t.Fatal(err)
		}
		if held = f == nil; !held {
			f.Close()
		}
	}
	select {
	case err := <-done:
		t.Fatalf("written to half a file: %v", err)
	case <-time.After(3 * pause):
	}
	if _, err := f.WriteString("---\n" + nodeDoc("b", 2)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a, b := get[*calico.Node](t, s, calico.KindNode, "a"), get[*calico.Node](t, s, calico.KindNode, "b")
	if *a.Spec.BGP.ASNumber != 2 || *b.Spec.BGP.ASNumber != 2 || a.Spec.IPv4VXLANTunnelAddr != "10.0.0.1" {
		t.Errorf("%+v %+v", a.Spec, b.Spec)
	}
}

// Somebody who does not know of the lock replaces the file after it was read and before the new one is in place.
func TestAChangeUnderneathIsNotLost(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "n.yaml", nodeDoc("a", 1))
	var seen []calico.ASNumber
	done, err := s.edit(t.Context(), datastore.Key{Kind: calico.KindNode, Name: "a"}, func(e *edition) error {
		seen = append(seen, *e.object.(*calico.Node).Spec.BGP.ASNumber)
		if len(seen) == 1 {
			put(t, dir, "n.yaml", nodeDoc("a", 2))
		}
		calico.SetScalar(e.node, "yes", "metadata", "annotations", "seen")
		e.verdict = rewrite
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done.unlock()
	n := get[*calico.Node](t, s, calico.KindNode, "a")
	if !slices.Equal(seen, []calico.ASNumber{1, 2}) || *n.Spec.BGP.ASNumber != 2 || n.Annotations["seen"] != "yes" {
		t.Errorf("%v, %+v", seen, n)
	}
}

func TestTheLock(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []*Store{s, other} { // in this process and, as it were, in another
		ctx, cancel := context.WithTimeout(t.Context(), 3*pause)
		if _, err := store.lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the lock was had twice: %v", err)
		}
		cancel()
	}
	unlock()
	f, err := other.tryLock()
	if err != nil || f == nil {
		t.Fatalf("the lock is free, but %v %v", f, err)
	}
	defer f.Close()
	path := filepath.Join(dir, lockName)
	if !sameFile(f, path) {
		t.Error("not the same file")
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if sameFile(f, path) {
		t.Error("a lock on a file that was removed counts")
	}
}

// Right after a change a file can change again and look the same, so what is read then is read once more.
func TestAFreshPageIsNotTrusted(t *testing.T) {
	dir := t.TempDir()
	s := newShelf(dir)
	for range 100 {
		start := time.Now()
		fill(t, dir, "a.yaml", nodeDoc("a", 1))
		p, err := s.load("a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > tick {
			continue // the machine had something else to do
		}
		if p.certain {
			t.Fatal("a page read right after the file changed is trusted")
		}
		for !p.certain {
			if p, err = s.load("a.yaml"); err != nil {
				t.Fatal(err)
			}
		}
		if q, err := s.load("a.yaml"); err != nil || q != p {
			t.Fatalf("a page that is trusted was read again: %v", err)
		}
		return
	}
	t.Fatal("the machine is too slow to say")
}

func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, tempPrefix+"1"+tempSuffix), filepath.Join(dir, tempPrefix+"2"+tempSuffix)
	for _, f := range []string{old, young} {
		if err := os.WriteFile(f, []byte(nodeDoc("x", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * tempAge)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old file stays: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("somebody may be writing it: %v", err)
	}
	if list, err := s.List(t.Context(), calico.KindNode); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestFileNames(t *testing.T) {
	key := func(name string) datastore.Key { return datastore.Key{Kind: calico.KindIPAMHandle, Name: name} }
	if got := fileName(key("k8s-pod-network.7a"), ""); got != "ipamhandle-k8s-pod-network.7a.yaml" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for _, name := range []string{"../a", "..-a", "a/b", "a_b", "a b", strings.Repeat("x", 300), strings.Repeat("x", 301), "é"} {
		got := fileName(key(name), "")
		if len(got) > maxFileName || strings.ContainsAny(got, "/ ") || !manifest(got) || seen[got] {
			t.Errorf("%q is put into %q", name, got)
		}
		seen[got] = true
	}
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "ipamhandle-h.yaml", "# somebody's\n")
	for range 2 { // beside it, and again after it was deleted
		o, err := s.Create(t.Context(), &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "h"}})
		if err != nil || len(visible(t, dir)) != 2 {
			t.Fatal(visible(t, dir), err)
		}
		if err := s.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if readFile(t, dir, "ipamhandle-h.yaml") != "# somebody's\n" {
		t.Error("somebody's file was changed")
	}
}

func TestOpenWhatIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "f", "")
	if _, err := Open(filepath.Join(dir, "f"), Options{}); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Error(err)
	}
}
