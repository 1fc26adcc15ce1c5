package file

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// deadline is far more than anything here takes, on a machine that does other things as well.
const deadline = 20 * time.Second

// observer collects what a Watcher delivers.
type observer struct {
	t       *testing.T
	mu      sync.Mutex
	updates []datastore.Update
	bell    chan struct{}
}

func observe(t *testing.T, s *Store) *observer { return observeBy(t, s.Watch) }

func observeBy(t *testing.T, watch func(context.Context, func(datastore.Update)) error) *observer {
	t.Helper()
	o := &observer{t: t, bell: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- watch(ctx, o.sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
	})
	return o
}

func (o *observer) sink(u datastore.Update) {
	o.mu.Lock()
	o.updates = append(o.updates, u)
	o.mu.Unlock()
	select {
	case o.bell <- struct{}{}:
	default:
	}
}

func (o *observer) last() (u datastore.Update, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n = len(o.updates); n > 0 {
		u = o.updates[n-1]
	}
	return u, n
}

// until waits for an update that satisfies want, and returns it.
func (o *observer) until(what string, want func(datastore.Update) bool) datastore.Update {
	o.t.Helper()
	end := time.After(deadline)
	for {
		u, n := o.last()
		if n > 0 && want(u) {
			return u
		}
		select {
		case <-o.bell:
		case <-end:
			o.t.Fatalf("no update with %s; the last of %d is %s", what, n, show(u))
		}
	}
}

// every checks all updates so far.
func (o *observer) every(what string, want func(datastore.Update) bool) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, u := range o.updates {
		if !want(u) {
			o.t.Fatalf("update %d is not %s: %s", i, what, show(u))
		}
	}
}

func show(u datastore.Update) string {
	if u.State == nil {
		return "empty"
	}
	return fmt.Sprintf("nodes %v, problems %v, in sync %v, error %v", names(u), u.State.Problems(), u.InSync, u.Err)
}

func names(u datastore.Update) (all []string) {
	for _, n := range u.State.Nodes() {
		all = append(all, n.Name)
	}
	return all
}

func hasNodes(want ...string) func(datastore.Update) bool {
	return func(u datastore.Update) bool { return u.InSync && slices.Equal(names(u), want) }
}

// nodeDoc writes a Node with a number that tests look for.
func nodeDoc(name string, asn int) string {
	addr := netip.AddrFrom4([4]byte{172, 16, name[0], name[len(name)-1]}) // its own
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: %s\nspec:\n  bgp:\n    ipv4Address: %s/16\n    asNumber: %d\n", name, addr, asn)
}

func asn(name string, want uint32) func(datastore.Update) bool {
	return func(u datastore.Update) bool { n := u.State.Node(name); return n != nil && n.ASN == want }
}

// put replaces a file in one step; the name of the other file is hidden.
func put(t testing.TB, dir, name, text string) {
	t.Helper()
	temp := filepath.Join(dir, ".new-"+name)
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// fill writes a file as editors and shells do: in place.
func fill(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func erase(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestWatchFollowsTheDirectory(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "one.yaml", nodeDoc("a", 1)+"---\n"+nodeDoc("b", 2))
	put(t, dir, "two.json", `{"apiVersion": "projectcalico.org/v3", "kind": "NodeList", "items": [{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "c"}}]}`)
	put(t, dir, ".hidden.yaml", nodeDoc("x", 1))
	put(t, dir, "notes.txt", "not YAML: [")
	put(t, dir, "one.yaml~", nodeDoc("x", 1))
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "below"), "x.yaml", nodeDoc("x", 1))
	o := observe(t, open(t, dir))
	o.until("what is there", hasNodes("a", "b", "c"))
	if _, n := o.last(); n != 1 {
		t.Errorf("%d updates before anything happened", n)
	}
	put(t, dir, "new.yml", nodeDoc("d", 4))
	o.until("a new file", hasNodes("a", "b", "c", "d"))
	put(t, dir, "new.yml", nodeDoc("d", 5))
	o.until("a file that was replaced", asn("d", 5))
	fill(t, dir, "new.yml", nodeDoc("d", 6))
	o.until("a file written in place", asn("d", 6))
	put(t, dir, "one.yaml", nodeDoc("b", 2))
	o.until("a document less", hasNodes("b", "c", "d"))
	erase(t, dir, "new.yml")
	o.until("a file less", hasNodes("b", "c"))
	if err := os.Rename(filepath.Join(dir, "one.yaml"), filepath.Join(dir, "other.yaml")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "last.yaml", nodeDoc("z", 1))
	o.until("the last file", hasNodes("b", "c", "z"))
	o.every("without a problem", func(u datastore.Update) bool { return len(u.State.Problems()) == 0 && u.Err == nil && u.InSync })
	// Renaming the file has neither dropped b nor shown it twice.
	seen := false
	o.every("with b", func(u datastore.Update) bool {
		seen = seen || u.State.Node("b") != nil
		return !seen || u.State.Node("b") != nil
	})
}

func TestWhatIsNotRoutedOnWakesNobody(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	o := observe(t, s)
	o.until("a", hasNodes("a"))
	put(t, dir, "a.yaml", "# a comment\n"+nodeDoc("a", 1)+"    # another\nstatus: {x: y}\n")
	put(t, dir, "policy.yaml", "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\n")
	h := &calico.IPAMHandle{ObjectMeta: calico.ObjectMeta{Name: "h"}}
	if _, err := s.Create(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "b.yaml", nodeDoc("b", 1)) // is seen after all of these
	o.until("b", hasNodes("a", "b"))
	if _, n := o.last(); n != 2 {
		t.Errorf("%d updates, want 2", n)
	}
}

func TestBrokenFile(t *testing.T) {
	for name, write := range map[string]func(testing.TB, string, string, string){"replaced": put, "in place": fill} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir, "f.yaml", nodeDoc("a", 1)+"---\n"+nodeDoc("b", 2))
			o := observe(t, open(t, dir))
			o.until("all", hasNodes("a", "b"))
			write(t, dir, "f.yaml", nodeDoc("a", 7)+"---\n"+strings.Replace(nodeDoc("b", 2), "asNumber: 2", "asNumber: : 2", 1))
			u := o.until("a problem", func(u datastore.Update) bool { return len(u.State.Problems()) == 1 })
			want := cluster.Problem{Object: "Node b", Field: "spec.bgp.asNumber", File: filepath.Join(dir, "f.yaml"), Line: 17,
				Text: "is not YAML: mapping values are not allowed in this context: mend this line or the one before it; what the document said before stays in effect"}
			if p := u.State.Problems()[0]; p != want {
				t.Errorf("got  %+v\nwant %+v", p, want)
			}
			if !hasNodes("a", "b")(u) || !asn("a", 7)(u) || !asn("b", 2)(u) || u.Err != nil {
				t.Errorf("the good document must be taken, the other stay: %s", show(u))
			}
			put(t, dir, "g.yaml", nodeDoc("c", 3))
			o.until("another file", hasNodes("a", "b", "c"))
			write(t, dir, "f.yaml", nodeDoc("a", 8)+"---\n"+nodeDoc("b", 9))
			u = o.until("the mended file", func(u datastore.Update) bool { return asn("a", 8)(u) && asn("b", 9)(u) })
			if len(u.State.Problems()) > 0 {
				t.Errorf("mended, but %v", u.State.Problems())
			}
			o.every("complete", func(u datastore.Update) bool { return u.State.Node("a") != nil && u.State.Node("b") != nil })
		})
	}
}

func TestBadValue(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "f.yaml", "# pools\n---\n"+nodeDoc("a", 1))
	o := observe(t, open(t, dir))
	o.until("a", hasNodes("a"))
	put(t, dir, "f.yaml", "# pools\n---\n"+strings.Replace(nodeDoc("a", 7), "/16", "/99", 1))
	u := o.until("a problem", func(u datastore.Update) bool { return len(u.State.Problems()) > 0 })
	want := cluster.Problem{Object: "Node a", Field: "spec.bgp.ipv4Address", File: filepath.Join(dir, "f.yaml"), Line: 9,
		Text: `"172.16.97.97/99" is not an address: write an IPv4 address with the prefix length of its subnet, as in 192.0.2.7/24`}
	if p := u.State.Problems(); len(p) != 1 || p[0] != want {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	if !asn("a", 1)(u) {
		t.Errorf("the last good node must stay: %s", show(u))
	}
	erase(t, dir, "f.yaml")
	u = o.until("nothing", hasNodes())
	if len(u.State.Problems()) > 0 {
		t.Errorf("gone, but %v", u.State.Problems())
	}
}

// A file is written in pieces, with pauses; every prefix of it is on disk at some time. Nothing of that may be seen.
func TestHalfWrittenFile(t *testing.T) {
	dir := t.TempDir()
	var before, after strings.Builder
	for i := range 6 {
		before.WriteString("---\n" + nodeDoc(fmt.Sprint("n", i), 10))
		after.WriteString("---\n" + nodeDoc(fmt.Sprint("n", i), 123456))
	}
	fill(t, dir, "f.yaml", before.String())
	o := observe(t, open(t, dir))
	o.until("all", hasNodes("n0", "n1", "n2", "n3", "n4", "n5"))
	f, err := os.OpenFile(filepath.Join(dir, "f.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := after.String()
	for i := 0; i < len(text); i += 37 {
		if _, err := f.WriteString(text[i:min(i+37, len(text))]); err != nil {
			t.Fatal(err)
		}
		// Another file shows that the Watcher has been here while this one was half-written.
		put(t, dir, "mark.yaml", nodeDoc("mark", i+1))
		o.until("the mark", asn("mark", uint32(i+1)))
	}
	for i, end := 1, time.Now().Add(2*grace); time.Now().Before(end); i++ { // the writer rests, with the file still open
		put(t, dir, "mark.yaml", nodeDoc("mark", 10_000+i))
		o.until("the mark", asn("mark", uint32(10_000+i)))
	}
	if _, err := f.WriteString("---\n" + nodeDoc("n6", 123456)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	o.until("the new form", asn("n6", 123456))
	o.every("whole", func(u datastore.Update) bool {
		for i := range 6 {
			if n := u.State.Node(fmt.Sprint("n", i)); n == nil || n.ASN != 10 && n.ASN != 123456 || n.ASN != u.State.Node("n0").ASN {
				return false
			}
		}
		if (u.State.Node("n6") != nil) != (u.State.Node("n0").ASN == 123456) {
			return false
		}
		return len(u.State.Problems()) == 0 && u.Err == nil
	})
}

// Where no leases are to be had, time has to tell.
func TestWithoutLeases(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.shelf.writers = func(*os.File) presence { return unsure }
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	o := observe(t, s)
	o.until("a", asn("a", 1))
	f, err := os.OpenFile(filepath.Join(dir, "a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := nodeDoc("a", 1234)
	for i := range text {
		if _, err := f.WriteString(text[i : i+1]); err != nil {
			t.Fatal(err)
		}
		if i%20 == 0 { // let the Watcher look at it
			if _, err := s.shelf.load("a.yaml"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	o.until("the new form", asn("a", 1234))
	o.every("one of the two", func(u datastore.Update) bool {
		return (asn("a", 1)(u) || asn("a", 1234)(u)) && len(u.State.Problems()) == 0
	})
	addr := netip.MustParseAddr("10.0.0.1")
	if err := s.PatchNode(t.Context(), "a", datastore.NodePatch{VXLANAddr4: &addr}); err != nil {
		t.Fatal(err)
	}
	o.until("the patch", func(u datastore.Update) bool { return u.State.Node("a").VXLANAddr4 == addr })
}

// An editor that moves the old file away, and one that writes in two goes, leave the objects alone.
func TestEditors(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "f.yaml", nodeDoc("a", 1)+"---\n"+nodeDoc("b", 1))
	o := observe(t, open(t, dir))
	o.until("all", hasNodes("a", "b"))
	if err := os.Rename(filepath.Join(dir, "f.yaml"), filepath.Join(dir, "f.yaml~")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "mark.yaml", nodeDoc("mark", 1))
	o.until("the mark", asn("mark", 1))
	fill(t, dir, "f.yaml", nodeDoc("a", 2)+"---\n") // and closes it
	put(t, dir, "mark.yaml", nodeDoc("mark", 2))
	o.until("the mark", asn("mark", 2))
	fill(t, dir, "f.yaml", nodeDoc("a", 2)+"---\n"+nodeDoc("b", 2))
	o.until("the new form", asn("b", 2))
	fill(t, dir, "f.yaml", nodeDoc("a", 3)+"---\n"+nodeDoc("b", 3)+"---\nkind: [") // cannot be parsed, but nothing is missing
	put(t, dir, "mark.yaml", nodeDoc("mark", 3))
	o.until("the mark", asn("mark", 3))
	fill(t, dir, "f.yaml", nodeDoc("a", 4)+"---\n"+nodeDoc("b", 4)+"---\nkind: []")
	o.until("the last form", asn("b", 4))
	o.every("complete", func(u datastore.Update) bool {
		return u.State.Node("a") != nil && u.State.Node("b") != nil && !slices.ContainsFunc(u.State.Problems(), func(p cluster.Problem) bool {
			return strings.HasPrefix(p.Text, "is not YAML")
		})
	})
}

func TestOneObjectInTwoFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "b.yaml", nodeDoc("a", 1))
	o := observe(t, open(t, dir))
	o.until("a", asn("a", 1))
	put(t, dir, "c.yaml", "\n"+nodeDoc("a", 2))
	u := o.until("a problem", func(u datastore.Update) bool { return len(u.State.Problems()) > 0 })
	want := cluster.Problem{Object: "Node a", Field: "metadata.name", File: filepath.Join(dir, "c.yaml"), Line: 2,
		Text: "is also in " + filepath.Join(dir, "b.yaml") + ", line 1, which is the one that is used: remove one of the two"}
	if p := u.State.Problems(); len(p) != 1 || p[0] != want || !asn("a", 1)(u) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	put(t, dir, "a.yaml", nodeDoc("a", 3)+"---\n"+nodeDoc("a", 4))
	u = o.until("the first by name", asn("a", 3))
	if p := u.State.Problems(); len(p) != 2 {
		t.Errorf("%+v", p)
	}
	erase(t, dir, "a.yaml")
	erase(t, dir, "b.yaml")
	u = o.until("the one that is left", func(u datastore.Update) bool { return asn("a", 2)(u) && len(u.State.Problems()) == 0 })
	if !hasNodes("a")(u) {
		t.Error(show(u))
	}
}

func TestDirectoryAppearsLate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "late")
	s := open(t, dir)
	o := observe(t, s)
	u := o.until("an error", func(u datastore.Update) bool { return u.Err != nil })
	if u.InSync || !strings.Contains(u.Err.Error(), dir) {
		t.Error(show(u))
	}
	if _, err := s.Get(t.Context(), calico.KindNode, "a"); err == nil || strings.Contains(err.Error(), "not found") {
		t.Errorf("get: %v", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	u = o.until("an empty directory", hasNodes())
	if u.Err != nil {
		t.Error(u.Err)
	}
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	o.until("a", hasNodes("a"))
}

func TestDirectoryGoesAndComesBack(t *testing.T) {
	root := t.TempDir()
	dir, away := filepath.Join(root, "dir"), filepath.Join(root, "away")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	failed := func(u datastore.Update) bool { return u.Err != nil }
	healed := func(u datastore.Update) bool { return u.Err == nil }
	must(os.Mkdir(dir, 0o755))
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	put(t, dir, "b.yaml", nodeDoc("b", 1))
	o := observe(t, open(t, dir))
	o.until("all", hasNodes("a", "b"))

	must(os.Rename(dir, away))
	o.until("an error", failed)
	must(os.Rename(away, dir))
	o.until("no error", healed)
	put(t, dir, "a.yaml", nodeDoc("a", 2))
	o.until("a change in the directory that came back", asn("a", 2))

	must(os.Rename(dir, away))
	must(os.WriteFile(dir, []byte("a file in its place"), 0o644))
	o.until("an error", failed)
	must(os.Remove(dir))
	must(os.Mkdir(dir, 0o755)) // and empty, as a mount that is missing
	u := o.until("another error", func(u datastore.Update) bool { return u.Err != nil && strings.Contains(u.Err.Error(), "empty") })
	if !hasNodes("a", "b")(u) {
		t.Error(show(u))
	}
	put(t, dir, "a.yaml", nodeDoc("a", 3)) // it is filled again, one file after the other
	u = o.until("what is there", asn("a", 3))
	if !hasNodes("a", "b")(u) {
		t.Errorf("b was given up before the directory was filled: %s", show(u))
	}
	for i, end := 1, time.Now().Add(2*grace); time.Now().Before(end); i++ { // and that takes its time
		put(t, dir, "c.yaml", nodeDoc("c", i))
		if u = o.until("c", asn("c", uint32(i))); !hasNodes("a", "b", "c")(u) {
			t.Fatalf("b was given up while the directory was being filled: %s", show(u))
		}
	}
	put(t, dir, "b.yaml", nodeDoc("b", 3))
	o.until("all", func(u datastore.Update) bool { return asn("b", 3)(u) && u.Err == nil })
	o.every("complete", func(u datastore.Update) bool { return u.InSync && u.State.Node("a") != nil && u.State.Node("b") != nil })

	must(os.RemoveAll(dir))
	must(os.Rename(away, dir))
	erase(t, dir, "b.yaml")
	o.until("what is left in the end", hasNodes("a"))
}

// The kernel has only so many watches to give.
func TestWithoutNotifications(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	o := observeBy(t, func(ctx context.Context, sink func(datastore.Update)) error { return s.newWatch(sink).run(ctx) })
	o.until("a", hasNodes("a"))
	put(t, dir, "a.yaml", nodeDoc("a", 2))
	put(t, dir, "b.yaml", nodeDoc("b", 2))
	o.until("what is found by looking", func(u datastore.Update) bool { return asn("a", 2)(u) && hasNodes("a", "b")(u) })
}

// rest waits until a Watcher has no more reason to look at a file by itself.
func (s *Store) rest(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(deadline); !s.shelf.page(name).certain; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is never at rest", name)
		}
	}
}

// The directory goes with the one around it, which is no event; but the files in it are still watched.
func TestDirectoryGoesWithItsParent(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "parent", "dir")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	s := open(t, dir)
	o := observe(t, s)
	o.until("a", hasNodes("a"))
	s.rest(t, "a.yaml")
	if err := os.Rename(filepath.Join(root, "parent"), filepath.Join(root, "away")); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(root, "away", "dir"), "a.yaml", nodeDoc("a", 2))
	u := o.until("an error", func(u datastore.Update) bool { return u.Err != nil })
	if !hasNodes("a")(u) {
		t.Error(show(u))
	}
	if err := os.Rename(filepath.Join(root, "away"), filepath.Join(root, "parent")); err != nil {
		t.Fatal(err)
	}
	o.until("the directory that came back", func(u datastore.Update) bool { return asn("a", 2)(u) && u.Err == nil })
	o.every("complete", hasNodes("a"))
}

func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	put(t, dir, "b.yaml", nodeDoc("b", 1))
	s := open(t, dir)
	o := observe(t, s)
	o.until("all", hasNodes("a", "b"))
	erase(t, dir, "b.yaml")
	if err := os.Mkdir(filepath.Join(dir, "b.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	u := o.until("an error", func(u datastore.Update) bool { return u.Err != nil })
	if p := u.State.Problems(); !hasNodes("a", "b")(u) || len(p) != 1 || p[0].File != filepath.Join(dir, "b.yaml") {
		t.Error(show(u))
	}
	if _, err := s.Get(t.Context(), calico.KindNode, "c"); err == nil || strings.Contains(err.Error(), "not found") {
		t.Errorf("an object that may be in a file which cannot be read: %v", err)
	}
	erase(t, dir, "b.yaml")
	put(t, dir, "b.yaml", nodeDoc("b", 2))
	u = o.until("the file that came back", asn("b", 2))
	if u = o.until("no error", func(u datastore.Update) bool { return u.Err == nil }); len(u.State.Problems()) > 0 {
		t.Error(show(u))
	}
}

// At the start, what a document that cannot be parsed says is not known, so the datastore is not known as a whole.
func TestNotInSyncWithABrokenFile(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.yaml", nodeDoc("a", 1))
	put(t, dir, "b.yaml", nodeDoc("b", 1)+"  : :\n")
	put(t, dir, "other.yaml", "{{ if .Values.x }}: [")
	o := observe(t, open(t, dir))
	u := o.until("an error", func(u datastore.Update) bool { return u.Err != nil })
	if u.InSync || !slices.Equal(names(u), []string{"a"}) || !strings.Contains(u.Err.Error(), "b.yaml, line 9: Node b") {
		t.Error(show(u))
	}
	put(t, dir, "b.yaml", nodeDoc("b", 1))
	u = o.until("all", hasNodes("a", "b"))
	if p := u.State.Problems(); len(p) != 1 || p[0].File != filepath.Join(dir, "other.yaml") || u.Err != nil {
		t.Errorf("a file of somebody else is a problem and no more: %s", show(u))
	}
}

// A mounted ConfigMap: files are links through a hidden link that is exchanged.
func TestLinksThroughAHiddenLink(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		fill(t, filepath.Join(dir, version), "a.yaml", text)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..1", nodeDoc("a", 1))
	if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	o := observe(t, s)
	o.until("a", asn("a", 1))
	s.rest(t, "a.yaml")
	publish("..2", nodeDoc("a", 2))
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	o.until("the new form", asn("a", 2))
	o.every("complete", hasNodes("a"))
}

func TestALinkOutOfTheDirectoryIsPolled(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	fill(t, elsewhere, "a.yaml", nodeDoc("a", 1))
	if err := os.Symlink(filepath.Join(elsewhere, "a.yaml"), filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{Poll: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o := observe(t, s)
	o.until("a", asn("a", 1))
	fill(t, elsewhere, "a.yaml", nodeDoc("a", 2))
	o.until("the new form", asn("a", 2))
	addr := netip.MustParseAddr("10.0.0.1")
	if err := s.PatchNode(t.Context(), "a", datastore.NodePatch{VXLANAddr4: &addr}); err != nil {
		t.Fatal(err)
	}
	o.until("the patch", func(u datastore.Update) bool { return u.State.Node("a").VXLANAddr4 == addr })
	if st, err := os.Lstat(filepath.Join(dir, "a.yaml")); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v %v", st, err)
	}
}
