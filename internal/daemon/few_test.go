package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// manyBlocks is the sample's cluster with six nodes more and three blocks each. Every call makes other objects.
func manyBlocks() cluster.Objects {
	o := sampleState(cluster.BackendVXLAN, true).Objects()
	for n := range 6 {
		name := fmt.Sprint("node-", n)
		o.Nodes = append(o.Nodes, &cluster.Node{Name: name, Addr4: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + n)}), 32),
			VXLANAddr4: netip.AddrFrom4([4]byte{10, 1, byte(100 + n), 0})})
		for i := range 3 {
			o.Blocks = append(o.Blocks, &cluster.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(100 + n), byte(64 * i)}), 26), Node: name})
		}
	}
	return o
}

// TestFew: whatever small change there is, few never says so of one by which somebody loses more; and it does say so of pods that come and go.
func TestFew(t *testing.T) {
	const most = 1
	r := rand.New(rand.NewPCG(1, 2))
	c, _ := newSample()
	h := sampleHost()
	c.setHost(h)
	from := cluster.Build(manyBlocks())
	c.setUpdate(datastore.Update{State: from, InSync: true})
	c.plan(c.take())
	if !few(from, from, 0) || !few(from, cluster.Build(manyBlocks()), 0) {
		t.Error("a State that was read anew is not the same")
	}
	if n := c.losses(from, cluster.Build(cluster.Objects{Nodes: from.Nodes(), Backend: cluster.BackendVXLAN}), h)[0]; n.of < 12 || n.lost != n.of {
		t.Fatalf("the sample shows nothing: %v", n)
	}
	wanted := map[string]bool{"a block is gone": true, "a block has another owner": true, "a new block": true, "a new node": true, "a node has an address more": true}
	agreed, refused := 0, 0
	for range 500 {
		o := manyBlocks()
		what := ""
		for range 1 + r.IntN(4) {
			what = strings.TrimPrefix(what+", "+change(r, &o), ", ")
		}
		to := cluster.Build(o)
		if is := few(from, to, most); !strings.Contains(what, ",") && is != wanted[what] {
			t.Fatalf("%s: %v", what, is)
		}
		if !few(from, to, most) {
			refused++
			continue
		}
		agreed++
		for _, l := range c.losses(from, to, h) {
			if l.lost > most {
				t.Fatalf("%s: few, but %v", what, l)
			}
		}
	}
	if agreed < 50 || refused < 50 {
		t.Errorf("few of %d, not of %d", agreed, refused)
	}
}

// change makes one random change and says which.
func change(r *rand.Rand, o *cluster.Objects) string {
	block, node := r.IntN(len(o.Blocks)), 2+r.IntN(len(o.Nodes)-2)
	b, n := *o.Blocks[block], *o.Nodes[node]
	switch r.IntN(9) {
	case 0, 1:
		o.Blocks = slices.Delete(o.Blocks, block, block+1)
		return "a block is gone"
	case 2:
		b.Node = n.Name
		o.Blocks[block] = &b
		return "a block has another owner"
	case 3:
		o.Blocks = append(o.Blocks, &cluster.Block{CIDR: netip.MustParsePrefix("10.1.200.0/26"), Node: n.Name})
		return "a new block"
	case 4:
		o.Nodes = append(o.Nodes, &cluster.Node{Name: "new", Addr4: netip.MustParsePrefix("198.51.100.99/32"), VXLANAddr4: netip.MustParseAddr("10.1.250.0")})
		return "a new node"
	case 5:
		n.IPIPAddr = netip.MustParseAddr("10.1.250.1")
		o.Nodes[node] = &n
		return "a node has an address more"
	case 6:
		n.VXLANAddr4 = netip.Addr{}
		o.Nodes[node] = &n
		return "a node has no VXLAN address any more"
	case 7:
		o.Nodes = slices.Delete(o.Nodes, node, node+1)
		return "a node is gone"
	default:
		p := *o.Pools[0]
		p.VXLANMode = cluster.Never
		o.Pools[0] = &p
		return "a pool is another"
	}
}
