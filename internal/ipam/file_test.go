package ipam

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/file"
)

// directory returns a directory with the objects of a crowd, and a way to open it once more.
func directory(t *testing.T, nodes int) func() *file.Store {
	dir := t.TempDir()
	open := func() *file.Store {
		s, err := file.Open(dir, file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for _, obj := range crowded(nodes) {
		if _, err := s.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	return open
}

// TestFiftyNodesOnOneDirectory: fifty stores on one directory, as fifty daemons have, ask for tunnel addresses and
// workloads at one moment and give half of it back.
func TestFiftyNodesOnOneDirectory(t *testing.T) {
	const nodes = 50
	open := directory(t, nodes)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range nodes {
		c := &Client{Store: open(), Node: fmt.Sprint("node-", i)}
		wg.Go(func() {
			if err := c.EnsureTunnelAddresses(t.Context()); !expected(err) {
				t.Error(err)
			}
			handle := fmt.Sprint("workload-", i)
			if _, err := c.AutoAssign(t.Context(), workload(handle, 1)); !expected(err) {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := c.ReleaseByHandle(t.Context(), handle); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d nodes in %s", nodes, time.Since(start).Round(time.Millisecond))
	wantCheck(t, open())
}

// TestRaceOnOneDirectory is TestRace on a directory, each worker with a store of its own.
func TestRaceOnOneDirectory(t *testing.T) {
	seed := seedOf(t)
	open := directory(t, 8)
	c := &crowd{nodes: 8, workers: 12, ops: 12, open: func(int, *rand.Rand) datastore.Store { return open() }}
	c.run(t, seed)
	c.finish(t, open())
}
