package file

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

const (
	benchNodes  = 5_000
	benchBlocks = 20_000
)

// benchDir writes a large cluster, with so many objects in each file.
func benchDir(b *testing.B, perFile int) string {
	b.Helper()
	dir := b.TempDir()
	var docs []string
	for i := range benchNodes {
		docs = append(docs, benchNode(i, 1))
	}
	for i := range benchBlocks {
		docs = append(docs, benchBlock(b, i))
	}
	for i := 0; i < len(docs); i += perFile {
		text := strings.Join(docs[i:min(i+perFile, len(docs))], "---\n")
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d.yaml", i)), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func benchNode(i, asn int) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: node-%05d\n  labels:\n    rack: r%d\n    kubernetes.io/os: linux\nspec:\n  bgp:\n    asNumber: %d\n    ipv4Address: 172.%d.%d.%d/16\n  ipv4VXLANTunnelAddr: 10.%d.%d.0\n",
		i, i%40, asn, 16+i/16384, i/250%250, i%250+1, i/256, i%256)
}

func benchBlock(b *testing.B, i int) string {
	b.Helper()
	cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
	node, handle := fmt.Sprintf("node-%05d", i%benchNodes), "k8s-pod-network.0123456789abcdef"
	owner := "host:" + node
	blk := &calico.IPAMBlock{ObjectMeta: calico.ObjectMeta{Name: calico.BlockName(cidr)}, Spec: calico.IPAMBlockSpec{
		CIDR: cidr.String(), Affinity: &owner, Allocations: make([]*int, 64), SequenceNumber: 1_790_000_000_000_000_000,
		SequenceNumberForAllocation: map[string]uint64{},
	}}
	for j := range 64 {
		if j >= 8 {
			blk.Spec.Unallocated = append(blk.Spec.Unallocated, j)
			continue
		}
		blk.Spec.Allocations[j] = &j
		blk.Spec.SequenceNumberForAllocation[fmt.Sprint(j)] = 1_790_000_000_000_000_000
		blk.Spec.Attributes = append(blk.Spec.Attributes, calico.AllocationAttrs{HandleID: &handle,
			Secondary: map[string]string{"node": node, "namespace": "shop", "pod": fmt.Sprint("cart-", j)}})
	}
	text, err := render(calico.Encode(blk), false)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// watchBench runs a Watcher and returns a function that waits for the next update.
func watchBench(b *testing.B, s *Store) (next func() datastore.Update, stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	updates, done := make(chan datastore.Update, 100), make(chan error)
	go func() { done <- s.Watch(ctx, func(u datastore.Update) { updates <- u }) }()
	return func() datastore.Update { return <-updates }, func() { cancel(); <-done }
}

func forms(b *testing.B, run func(b *testing.B, perFile int)) {
	for _, f := range []struct {
		name    string
		perFile int
	}{{"one object a file", 1}, {"1000 objects a file", 1000}} {
		b.Run(f.name, func(b *testing.B) { run(b, f.perFile) })
	}
}

func check(b *testing.B, st *cluster.State) {
	b.Helper()
	if n, k, p := len(st.Nodes()), len(st.Blocks()), len(st.Problems()); n != benchNodes || k != benchBlocks || p > 0 {
		b.Fatalf("%d nodes, %d blocks, %d problems %v", n, k, p, st.Problems()[:min(p, 3)])
	}
}

// BenchmarkLoad is the time from opening a directory to the first state in sync.
func BenchmarkLoad(b *testing.B) {
	forms(b, func(b *testing.B, perFile int) {
		dir := benchDir(b, perFile)
		b.ReportAllocs()
		var heap uint64
		for b.Loop() {
			s, err := Open(dir, Options{})
			if err != nil {
				b.Fatal(err)
			}
			next, stop := watchBench(b, s)
			check(b, next().State)
			b.StopTimer()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap = m.HeapAlloc
			stop()
			runtime.KeepAlive(s)
			b.StartTimer()
		}
		b.ReportMetric(float64(heap)/1e6, "MB-heap")
	})
}

// BenchmarkChange is the time from a changed file to the sink: of a Node through the Store, and of a file replaced by hand.
func BenchmarkChange(b *testing.B) {
	forms(b, func(b *testing.B, perFile int) {
		dir := benchDir(b, perFile)
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		next, stop := watchBench(b, s)
		defer stop()
		check(b, next().State)
		b.Run("patch", func(b *testing.B) {
			n := 0
			for b.Loop() {
				n++
				addr := netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
				if err := s.PatchNode(b.Context(), "node-00042", datastore.NodePatch{VXLANAddr4: &addr}); err != nil {
					b.Fatal(err)
				}
				for next().State.Node("node-00042").VXLANAddr4 != addr {
				}
			}
		})
		b.Run("new file", func(b *testing.B) {
			n := 0
			for b.Loop() {
				n++
				put(b, dir, "new.yaml", benchNode(benchNodes, n))
				for next().State.Node("node-05000").ASN != uint32(n) {
				}
			}
		})
	})
}

// BenchmarkFifty is the time from a write to the last of fifty Watchers, each with a Store of its own as fifty daemons have.
func BenchmarkFifty(b *testing.B) {
	dir := b.TempDir()
	for i := range 50 {
		put(b, dir, fmt.Sprintf("n%d.yaml", i), benchNode(i, 1))
	}
	var nexts []func() datastore.Update
	var writer *Store
	for range 50 {
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		next, stop := watchBench(b, s)
		defer stop()
		next()
		nexts, writer = append(nexts, next), s
	}
	n := 0
	for b.Loop() {
		n++
		addr := netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
		if err := writer.PatchNode(b.Context(), "node-00042", datastore.NodePatch{VXLANAddr4: &addr}); err != nil {
			b.Fatal(err)
		}
		for _, next := range nexts {
			for next().State.Node("node-00042").VXLANAddr4 != addr {
			}
		}
	}
}

// BenchmarkGet is one object of a large directory, asked for again and again.
func BenchmarkGet(b *testing.B) {
	forms(b, func(b *testing.B, perFile int) {
		dir := benchDir(b, perFile)
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		ask := func(b *testing.B, name string, found bool) {
			if _, err := s.Get(b.Context(), calico.KindIPAMBlock, name); (err == nil) != found {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Get(b.Context(), calico.KindIPAMBlock, name)
			}
		}
		b.Run("found", func(b *testing.B) { ask(b, "10-0-1-0-26", true) })
		b.Run("not found", func(b *testing.B) { ask(b, "10-255-1-0-26", false) })
	})
}
