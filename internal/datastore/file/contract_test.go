package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	// No change may be found by polling only: none comes within a test.
	s, err := Open(dir, Options{Poll: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	datastoretest.Contract(t, func(t *testing.T) datastore.Store { return open(t, t.TempDir()) })
	datastoretest.ContractStart(t, func(t *testing.T) datastore.Store { return open(t, t.TempDir()) })
}

func TestContractWatch(t *testing.T) {
	datastoretest.ContractWatch(t, func(t *testing.T) datastoretest.Place {
		dir := t.TempDir()
		file := func(kind calico.Kind, name string) string {
			return filepath.Join(dir, strings.ReplaceAll(string(kind)+"-"+name, "/", "-")+".yaml")
		}
		return datastoretest.Place{
			Watcher: open(t, dir),
			Put: func(manifest string) {
				for text := range strings.SplitSeq(manifest, "\n---\n") {
					var doc yaml.Node
					if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
						t.Fatal(err)
					}
					found, _ := calico.Resources(&doc)
					if len(found) != 1 {
						t.Fatalf("%d objects in\n%s", len(found), text)
					}
					if err := os.WriteFile(file(found[0].Kind, found[0].Name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			},
			Remove: func(kind calico.Kind, name string) {
				if err := os.Remove(file(kind, name)); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
