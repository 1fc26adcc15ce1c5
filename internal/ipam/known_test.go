package ipam

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// lister counts the lists of blocks.
type lister struct {
	*readCounter
	lists int
}

func (l *lister) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	if kind == calico.KindIPAMBlock {
		l.lists++
	}
	return l.readCounter.List(ctx, kind)
}

// TestKnownBlocks: with what is known of the blocks a node finds the free one as it does without, and reads but a handful of objects. What is
// known may be old in both directions.
func TestKnownBlocks(t *testing.T) {
	const others = 128 // all blocks of the pool; one of them is given back
	full := func(known []netip.Prefix) []netip.Prefix { return known }
	for name, c := range map[string]struct {
		known func([]netip.Prefix) []netip.Prefix
		lists int
		reads int // at most
	}{
		"nobody watches":         {nil, 1, 2 * others},
		"all is known":           {full, 0, 12},
		"some are new":           {func(k []netip.Prefix) []netip.Prefix { return k[:len(k)-mostMisses/2] }, 0, 12 + mostMisses},
		"nothing is known":       {func([]netip.Prefix) []netip.Prefix { return []netip.Prefix{} }, 1, 2*others + mostMisses},
		"blocks have been freed": {func(k []netip.Prefix) []netip.Prefix { return append(k, pool128()...) }, 1, 2 * others},
	} {
		t.Run(name, func(t *testing.T) {
			store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/19", size(26)), calicoNode("node-a"))
			var known []netip.Prefix
			for i := range others {
				known = append(known, claimOne(t, client(t, store, fmt.Sprint("other-", i)), "10.0.0.0/19"))
			}
			want := known[0] // the last one that node-a comes to
			for cidr := range candidates(&cluster.Pool{CIDR: netip.MustParsePrefix("10.0.0.0/19"), BlockSize: 26}, "node-a") {
				want = cidr
			}
			i := slices.Index(known, want)
			if err := client(t, store, fmt.Sprint("other-", i)).ReleaseAffinity(t.Context(), want, true); err != nil {
				t.Fatal(err)
			}
			known = slices.Delete(known, i, i+1)
			counted := &lister{readCounter: &readCounter{Memory: store}}
			a := client(t, counted, "node-a")
			if c.known != nil {
				seen := c.known(known)
				a.Known = func() iter.Seq[netip.Prefix] { return slices.Values(seen) }
			}
			got := mustAssign(t, a, workload("h", 1))[0].Addr()
			if !want.Contains(got) {
				t.Errorf("%s is not of the free block %s", got, want)
			}
			if counted.lists != c.lists || counted.reads > c.reads {
				t.Errorf("%d lists, want %d; %d objects read, want no more than %d", counted.lists, c.lists, counted.reads, c.reads)
			}
			wantCheck(t, store)
		})
	}
}

// pool128 is every block of the test's pool.
func pool128() (all []netip.Prefix) {
	for i := range 128 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 2), byte(i << 6)}), 26))
	}
	return all
}
