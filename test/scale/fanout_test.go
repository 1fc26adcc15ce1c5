package scale

import (
	"bufio"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"github.com/caracal-net/caracal/test/kubetest"
)

// TestFanOut measures what the API server pays to send one change of a block to one more watcher: the difference in its CPU between
// the same updates with few and with many watches. As the daemon does it each has a connection, with HTTP/1.1; beside it, all over one with HTTP/2.
func TestFanOut(t *testing.T) {
	few, many, updates := 2, 20, 50
	if *full {
		few, many, updates = 20, 420, 500
	}
	server := kubetest.Start(t)
	server.InstallCRDs(t, kubetest.Classic)
	w := newWorld(t, server, size{nodes: 20, blocks: 80})
	turn := 1 // 0 is what stands
	for _, proto := range []string{"http/1.1", "h2"} {
		base, size := cost(t, server, w, proto, few, turn, updates)
		all, _ := cost(t, server, w, proto, many, turn+updates, updates)
		turn += 2 * updates
		each := (all - base) / time.Duration((many-few)*updates)
		t.Logf("one event of %d bytes to one more watcher costs the API server %s of CPU, %s", size, each, proto)
		if size == 0 {
			t.Error("the watchers have seen nothing")
		}
	}
}

// cost returns the server's CPU for a number of updates with a number of watches, and the mean size of an event in bytes.
func cost(t *testing.T, server *kubetest.Server, w *world, proto string, watches, turn, updates int) (cpu time.Duration, size int64) {
	t.Helper()
	var events, bytes atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); wg.Wait() }()
	config := server.Config(kubetest.Admin)
	config.NextProtos = []string{proto}
	for range watches {
		d, err := discovery.NewDiscoveryClientForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		body, err := d.RESTClient().Get().AbsPath("/apis/crd.projectcalico.org/v1/ipamblocks").Param("watch", "true").
			Param("resourceVersion", version(t, w)).SetHeader("Accept", "application/json").Stream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer body.Close()
			lines := bufio.NewReaderSize(body, 64<<10)
			for {
				line, err := lines.ReadSlice('\n')
				if err != nil {
					return // the end of the test
				}
				events.Add(1)
				bytes.Add(int64(len(line)))
			}
		})
	}
	before := server.CPU(t)
	for i := range updates {
		if err := w.update(ctx, turn+i); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(time.Minute)
	for events.Load() < int64(watches*updates) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events have come", events.Load(), watches*updates)
		}
		time.Sleep(time.Millisecond) // between two looks, up to the deadline
	}
	return server.CPU(t) - before, bytes.Load() / events.Load()
}

// version returns the newest resourceVersion of the blocks.
func version(t *testing.T, w *world) string {
	t.Helper()
	list, err := w.client.Resource(kubetest.Classic.Resource("ipamblocks")).List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetResourceVersion()
}
