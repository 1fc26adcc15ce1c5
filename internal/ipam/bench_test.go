package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// filled is a store with 1,000 half-used blocks of 250 nodes; node-0 has the first four.
func filled(b *testing.B) *datastoretest.Memory {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/15"), calicoNode("node-0"), calicoNode("newcomer"))
	pool := &cluster.Pool{CIDR: netip.MustParsePrefix("10.0.0.0/15"), BlockSize: 26}
	n := 0
	for cidr := range inOrder(pool) {
		if n == 1000 {
			break
		}
		node := fmt.Sprint("node-", n/4)
		bl := newBlock(cidr, node, time.Now())
		bl.assign(32, "other", map[string]string{"node": node})
		a := newAffinity(node, cidr)
		a.Spec.State = confirmed
		for _, obj := range []calico.Object{bl.IPAMBlock, a} {
			if _, err := store.Create(context.Background(), obj); err != nil {
				b.Fatal(err)
			}
		}
		n++
	}
	return store
}

// BenchmarkAutoAssign: one address and its release with 1,000 blocks in the datastore, from an own block, and on a node
// that has to find and claim one first and gives it back.
func BenchmarkAutoAssign(b *testing.B) {
	for _, node := range []string{"node-0", "newcomer"} {
		b.Run(map[string]string{"node-0": "own block", "newcomer": "new block"}[node], func(b *testing.B) {
			c := &Client{Store: filled(b), Node: node}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.AutoAssign(b.Context(), workload("h", 1)); err != nil {
					b.Fatal(err)
				}
				if err := c.ReleaseByHandle(b.Context(), "h"); err != nil {
					b.Fatal(err)
				}
				if node == "newcomer" {
					if err := releaseOwn(b.Context(), c, true); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkFiftyNodes: fifty nodes that ask for their tunnel addresses at one moment, until all have them.
func BenchmarkFiftyNodes(b *testing.B) {
	for b.Loop() {
		store := datastoretest.NewMemory(crowded(50)...)
		done := make(chan error, 50)
		for i := range 50 {
			go func() {
				done <- (&Client{Store: store, Node: fmt.Sprint("node-", i)}).EnsureTunnelAddresses(b.Context())
			}()
		}
		for range 50 {
			if err := <-done; !expected(err) {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkCheck looks at 1,000 blocks.
func BenchmarkCheck(b *testing.B) {
	objects, err := Load(b.Context(), filled(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Check(objects); err == nil { // the fixture has no handle object
			b.Fatal("accepted")
		}
	}
}
