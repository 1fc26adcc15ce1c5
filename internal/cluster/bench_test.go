package cluster

import (
	"fmt"
	"net/netip"
	"testing"
)

const benchNodes, benchBlocks = 5000, 20000

// big fills a Builder with a large cluster: four blocks and claims a node.
func big(b *Builder) {
	b.SetPool(&Pool{Name: "default", CIDR: netip.MustParsePrefix("10.0.0.0/8"), VXLANMode: CrossSubnet})
	for i := range benchNodes {
		b.SetNode(benchNode(i))
	}
	for i := range benchBlocks {
		b.SetBlock(&Block{CIDR: benchCIDR(i), Node: fmt.Sprintf("node-%04d", i%benchNodes)})
		b.SetAffinity(&Affinity{Node: fmt.Sprintf("node-%04d", i%benchNodes), CIDR: benchCIDR(i), State: Confirmed})
	}
}

func benchNode(i int) *Node {
	return &Node{
		Name:       fmt.Sprintf("node-%04d", i),
		Labels:     map[string]string{"kubernetes.io/hostname": fmt.Sprintf("node-%04d", i)},
		Addr4:      netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 24),
		VXLANAddr4: benchCIDR(i).Addr(),
	}
}

func benchCIDR(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

func BenchmarkFullBuild(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		k := NewBuilder()
		big(k)
		if len(k.State().Blocks()) != benchBlocks {
			b.Fatal("blocks are missing")
		}
	}
}

func BenchmarkOneBlockChange(b *testing.B) {
	k := NewBuilder()
	big(k)
	old := k.State()
	one := [2]*Block{{CIDR: benchCIDR(777), Node: "node-0001"}, {CIDR: benchCIDR(777), Node: "node-0002"}}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		k.SetBlock(one[i&1])
		s := k.State()
		if d := Diff(old, s); len(d.Blocks) != 1 {
			b.Fatalf("%d changes", len(d.Blocks))
		}
		old = s
	}
}

func BenchmarkOneNodeChange(b *testing.B) {
	k := NewBuilder()
	big(k)
	k.State()
	i := byte(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		n := benchNode(99)
		n.VXLANAddr4 = netip.AddrFrom4([4]byte{10, 255, 0, i})
		k.SetNode(n)
		k.State()
	}
}

// BenchmarkNoOpEvent is the event that a cluster sends most: an object that is routed on as before.
func BenchmarkNoOpEvent(b *testing.B) {
	k := NewBuilder()
	big(k)
	s := k.State()
	node, block := benchNode(4321), &Block{CIDR: benchCIDR(777), Node: "node-0777"}
	b.ReportAllocs()
	for b.Loop() {
		if k.SetNode(node) || k.SetBlock(block) || k.State() != s {
			b.Fatal("a change was seen")
		}
	}
}

// BenchmarkDiffFar is Diff between States that are not neighbours: the walk.
func BenchmarkDiffFar(b *testing.B) {
	k := NewBuilder()
	big(k)
	old := k.State()
	for i := range 2 {
		k.SetBlock(&Block{CIDR: benchCIDR(777), Node: fmt.Sprint("other", i)})
		k.State()
	}
	b.ReportAllocs()
	for b.Loop() {
		if d := Diff(old, k.State()); len(d.Blocks) != 1 {
			b.Fatalf("%d changes", len(d.Blocks))
		}
	}
}

func BenchmarkBlockOf(b *testing.B) {
	k := NewBuilder()
	big(k)
	s := k.State()
	i := 0
	for b.Loop() {
		i++
		if s.BlockOf(benchCIDR(i*7919%benchBlocks).Addr()) == nil {
			b.Fatal("no block")
		}
	}
}
