package file

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/datastore"
)

// model is the naive form of what the Watcher must arrive at: files with documents, and what is in force of each node.
type model struct {
	files  map[string][]modelDoc
	broken map[string]bool
	// force is what was said last of each node by a file that could be parsed and still holds it, or is broken.
	force map[string]uint32
}

type modelDoc struct {
	node string
	asn  int
}

// settle applies the rules of ledger to files that are all at rest.
func (m *model) settle() {
	live := map[string]bool{}
	for _, name := range []string{"a.yaml", "b.yaml", "c.yaml", "d.yaml"} {
		for _, d := range m.files[name] {
			if !live[d.node] && !m.broken[name] {
				live[d.node] = true
				m.force[d.node] = uint32(d.asn)
			}
		}
	}
	for node := range m.force {
		if !live[node] && !m.limbo(node) {
			delete(m.force, node)
		}
	}
}

func (m *model) limbo(node string) bool {
	for name, docs := range m.files {
		for _, d := range docs {
			if m.broken[name] && d.node == node {
				return true
			}
		}
	}
	return false
}

// step changes one file on disk and in the model. A broken file keeps, in the model, the documents it had.
func (m *model) step(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	name := []string{"a.yaml", "b.yaml", "c.yaml", "d.yaml"}[r.IntN(4)]
	write := []func(testing.TB, string, string, string){put, fill}[r.IntN(2)]
	switch r.IntN(6) {
	case 0:
		if _, there := m.files[name]; there {
			erase(t, dir, name)
			delete(m.files, name)
			delete(m.broken, name)
		}
	case 1:
		if _, there := m.files[name]; there && !m.broken[name] {
			write(t, dir, name, "kind: [\n")
			m.broken[name] = true
		}
	case 2: // not a change of the objects, but of the file
		if !m.broken[name] && m.files[name] != nil {
			write(t, dir, name, "# again\n---\n"+docsText(m.files[name]))
		}
	default:
		var docs []modelDoc
		for range 1 + r.IntN(3) {
			docs = append(docs, modelDoc{fmt.Sprint("n", r.IntN(6)), 1 + r.IntN(1000)})
		}
		write(t, dir, name, docsText(docs))
		m.files[name] = docs
		delete(m.broken, name)
	}
}

func docsText(docs []modelDoc) string {
	var texts []string
	for _, d := range docs {
		texts = append(texts, nodeDoc(d.node, d.asn))
	}
	return strings.Join(texts, "---\n")
}

// TestHistories makes random changes, in bursts, and waits after each until the Watcher has arrived where the model is. Only
// between bursts are files broken, so that what is in force does not depend on what the Watcher happened to see.
func TestHistories(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			dir := t.TempDir()
			m := &model{files: map[string][]modelDoc{}, broken: map[string]bool{}, force: map[string]uint32{}}
			o := observe(t, open(t, dir))
			for range 12 {
				m.step(t, r, dir)
				m.settle()
				o.until(fmt.Sprint(m.force), func(u datastore.Update) bool { return u.InSync && m.agrees(u) })
			}
			// A Watcher that starts now agrees, as far as nothing is broken.
			for name := range m.broken {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				delete(m.files, name)
			}
			clear(m.broken)
			m.settle()
			again := observe(t, open(t, dir))
			for _, o := range []*observer{o, again} {
				o.until(fmt.Sprint(m.force), func(u datastore.Update) bool { return u.InSync && m.agrees(u) })
			}
		})
	}
}

func (m *model) agrees(u datastore.Update) bool {
	if len(u.State.Nodes()) != len(m.force) {
		return false
	}
	for node, asn := range m.force {
		if n := u.State.Node(node); n == nil || n.ASN != asn {
			return false
		}
	}
	syntax := 0
	for _, p := range u.State.Problems() {
		if strings.HasPrefix(p.Text, "is not YAML") {
			syntax++
		}
	}
	return syntax == len(m.broken)
}

// full counts the documents that say something.
func full(p *page, text []byte) (n int) {
	for _, d := range p.docs {
		if !blank(text[d.start:d.end]) {
			n++
		}
	}
	return n
}

// FuzzPage feeds anything to the reader of files: it must not panic, and each object must be found where it is.
func FuzzPage(f *testing.F) {
	f.Add([]byte(manual), false)
	f.Add([]byte(nodeDoc("a", 1)+"---\n"+nodeDoc("a", 2)), false)
	f.Add([]byte(`{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "c"}}]}`), true)
	f.Fuzz(func(t *testing.T, text []byte, asJSON bool) {
		p := &page{}
		p.parse(text, asJSON, nil)
		p.each(func(at place, r *resource) {
			if first, ok := p.find(r.Key); !ok || first.doc > at.doc {
				t.Errorf("%s is at %v, found at %v, %v", r.Key, at, first, ok)
			}
		})
		for i, d := range p.docs {
			rest := cut(text, p.docs, i)
			q := &page{}
			q.parse(rest, asJSON, p)
			if !asJSON && !blank(text[d.start:d.end]) && full(q, rest) != full(p, text)-1 {
				t.Errorf("%q without document %d %q is %q", text, i, text[d.start:d.end], rest)
			}
		}
	})
}
