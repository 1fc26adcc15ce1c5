package file

import (
	"testing"
	"time"

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
