package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// naive is the State as one would write it without a thought for speed: maps, and a search by looking at everything.
type naive struct {
	nodes      map[string]*Node
	pools      map[string]*Pool
	blocks     map[netip.Prefix]*Block
	affinities map[claim]*Affinity
}

func newNaive() *naive {
	return &naive{map[string]*Node{}, map[string]*Pool{}, map[netip.Prefix]*Block{}, map[claim]*Affinity{}}
}

// random changes one object in both.
func (m *naive) random(r *rand.Rand, b *Builder) (did string, changed, want bool) {
	name := fmt.Sprintf("n%02d", r.IntN(12))
	cidr := [...]func() netip.Prefix{
		func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4) * 64)}), 26)
		},
		func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))}), 32)
		},
		func() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), 0}), 24) },
		func() netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 14: byte(r.IntN(2)), 15: byte(r.IntN(4) * 64)}), 122)
		},
	}[r.IntN(4)]()
	switch r.IntN(7) {
	case 0, 1:
		n := &Node{Name: name, Addr4: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(8))}), 24)}
		if r.IntN(2) == 0 {
			n.VXLANAddr4 = netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))})
			n.Addr6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfc, 15: byte(r.IntN(8))}), 64)
		}
		old := m.nodes[name]
		m.nodes[name] = n
		return "set node " + name, b.SetNode(n), old == nil || !equalNodes(old, n)
	case 2:
		_, had := m.nodes[name]
		delete(m.nodes, name)
		return "delete node " + name, b.DeleteNode(name), had
	case 3, 4:
		k := &Block{CIDR: cidr, Node: name}
		if r.IntN(3) == 0 {
			k.Borrowed = []Assignment{{cidr.Addr(), "n00"}}
		}
		old := m.blocks[cidr]
		m.blocks[cidr] = k
		return "set block " + cidr.String(), b.SetBlock(k), old == nil || !equalBlocks(old, k)
	case 5:
		if r.IntN(2) == 0 {
			_, had := m.blocks[cidr]
			delete(m.blocks, cidr)
			return "delete block " + cidr.String(), b.DeleteBlock(cidr), had
		}
		a := &Affinity{Node: name, CIDR: cidr, State: Confirmed}
		k := claim{name, cidr}
		if old := m.affinities[k]; old != nil {
			delete(m.affinities, k)
			return "delete claim", b.DeleteAffinity(name, cidr), true
		}
		m.affinities[k] = a
		return "set claim", b.SetAffinity(a), true
	}
	third := byte(r.IntN(3)) // disjoint by construction: overlap has its own test
	p := &Pool{Name: fmt.Sprintf("p%d", third), CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, third, 0}), 24), VXLANMode: Mode(r.IntN(3))}
	old := m.pools[p.Name]
	if r.IntN(4) == 0 {
		delete(m.pools, p.Name)
		return "delete pool " + p.Name, b.DeletePool(p.Name), old != nil
	}
	m.pools[p.Name] = p
	return "set pool " + p.Name, b.SetPool(p), old == nil || *old != *p
}

func (m *naive) blockOf(a netip.Addr) (best *Block) {
	for _, k := range m.blocks {
		if k.CIDR.Contains(a) && (best == nil || k.CIDR.Bits() > best.CIDR.Bits()) {
			best = k
		}
	}
	return best
}

func (m *naive) poolFor(p netip.Prefix) (best *Pool) {
	for _, q := range m.pools {
		if q.CIDR.Contains(p.Addr()) && q.CIDR.Bits() <= p.Bits() && (best == nil || q.CIDR.Bits() > best.CIDR.Bits()) {
			best = q
		}
	}
	return best
}

func (m *naive) nodeByAddr(a netip.Addr) (best *Node) {
	for _, n := range m.nodes {
		if (n.Addr4.Addr() == a || n.Addr6.Addr() == a) && (best == nil || n.Name < best.Name) {
			best = n
		}
	}
	return best
}

func (m *naive) check(t *testing.T, s *State) {
	t.Helper()
	if len(s.Nodes()) != len(m.nodes) || !slices.IsSortedFunc(s.Nodes(), func(a, b *Node) int { return strings.Compare(a.Name, b.Name) }) {
		t.Fatalf("%d nodes, want %d sorted ones", len(s.Nodes()), len(m.nodes))
	}
	for name, n := range m.nodes {
		if got := s.Node(name); got == nil || !equalNodes(got, n) {
			t.Fatalf("node %s is %+v, want %+v", name, got, n)
		}
	}
	if len(s.Blocks()) != len(m.blocks) || !slices.IsSortedFunc(s.Blocks(), func(a, b *Block) int { return a.CIDR.Compare(b.CIDR) }) {
		t.Fatalf("%d blocks, want %d sorted ones", len(s.Blocks()), len(m.blocks))
	}
	for cidr, k := range m.blocks {
		if got := s.Block(cidr); got == nil || !equalBlocks(got, k) {
			t.Fatalf("block %v is %+v, want %+v", cidr, got, k)
		}
		if got := s.PoolFor(cidr); got != m.poolFor(cidr) && *got != *m.poolFor(cidr) {
			t.Fatalf("pool of %v is %v, want %v", cidr, got, m.poolFor(cidr))
		}
	}
	if len(s.Affinities()) != len(m.affinities) {
		t.Fatalf("%d claims, want %d", len(s.Affinities()), len(m.affinities))
	}
	for k := range m.affinities {
		if !slices.ContainsFunc(s.AffinitiesOf(k.node), func(a *Affinity) bool { return a.Node == k.node && a.CIDR == k.cidr }) {
			t.Fatalf("claim %v is missing among %v", k, s.AffinitiesOf(k.node))
		}
	}
	for i := range 256 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i % 3), byte(i)})
		if got, want := s.BlockOf(a), m.blockOf(a); (got == nil) != (want == nil) || got != nil && got.CIDR != want.CIDR {
			t.Fatalf("block of %v is %+v, want %+v", a, got, want)
		}
	}
	for i := range 8 {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom16([16]byte{0xfc, 15: byte(i)})} {
			if got, want := s.NodeByAddr(a), m.nodeByAddr(a); (got == nil) != (want == nil) || got != nil && got.Name != want.Name {
				t.Fatalf("node of %v is %+v, want %+v", a, got, want)
			}
		}
	}
}

// apply replays a Diff on a map, as a plan does.
func apply[K comparable, T any](t *testing.T, to map[K]*T, changes []Change[T], key func(*T) K) {
	t.Helper()
	for _, c := range changes {
		if c.Old != nil {
			if to[key(c.Old)] != c.Old {
				t.Fatalf("diff takes away %+v, there was %+v", c.Old, to[key(c.Old)])
			}
			delete(to, key(c.Old))
		}
		if c.New != nil {
			to[key(c.New)] = c.New
		}
	}
}

// render writes out all a State holds.
func render(s *State) string {
	var w strings.Builder
	for _, n := range s.Nodes() {
		fmt.Fprintf(&w, "%+v\n", *n)
	}
	for _, p := range s.Pools() {
		fmt.Fprintf(&w, "%+v\n", *p)
	}
	for _, k := range s.Blocks() {
		fmt.Fprintf(&w, "%+v\n", *k)
	}
	for _, a := range s.Affinities() {
		fmt.Fprintf(&w, "%+v\n", *a)
	}
	for _, a := range s.Addrs() {
		fmt.Fprintf(&w, "%+v\n", *a)
	}
	fmt.Fprintf(&w, "%+v %+v %+v %v %v", s.BGP(), s.Felix(), s.Problems(), s.blockBits, s.poolBits)
	return w.String()
}

// TestAgainstNaive runs random histories through a Builder and a set of maps. It also holds that a State never changes once
// made and that Diff, near and far, leads from one State to another.
func TestAgainstNaive(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		b, m := NewBuilder(), newNaive()
		type kept struct {
			state *State
			text  string
		}
		var past []kept
		var last *State
		blocks, nodes := map[netip.Prefix]*Block{}, map[string]*Node{}
		for range 150 {
			touched := false
			for range r.IntN(6) {
				did, changed, want := m.random(r, b)
				if changed != want {
					t.Fatalf("seed %d: %s: changed %v, want %v", seed, did, changed, want)
				}
				touched = touched || changed
			}
			s := b.State()
			if !touched && last != nil && s != last {
				t.Fatalf("seed %d: a new State though nothing changed", seed)
			}
			m.check(t, s)
			from := last
			if len(past) > 0 && r.IntN(3) == 0 { // a reader that missed some States
				from = past[r.IntN(len(past))].state
				blocks, nodes = map[netip.Prefix]*Block{}, map[string]*Node{}
				apply(t, blocks, Diff(nil, from).Blocks, (*Block).prefix)
				apply(t, nodes, Diff(nil, from).Nodes, func(n *Node) string { return n.Name })
			}
			d := Diff(from, s)
			apply(t, blocks, d.Blocks, (*Block).prefix)
			apply(t, nodes, d.Nodes, func(n *Node) string { return n.Name })
			for _, k := range s.Blocks() {
				if blocks[k.CIDR] != k {
					t.Fatalf("seed %d: diff missed block %v", seed, k.CIDR)
				}
			}
			if len(blocks) != len(s.Blocks()) || len(nodes) != len(s.Nodes()) {
				t.Fatalf("seed %d: diff leads to %d blocks and %d nodes, want %d and %d", seed, len(blocks), len(nodes), len(s.Blocks()), len(s.Nodes()))
			}
			past, last = append(past, kept{s, render(s)}), s
		}
		for i, k := range past {
			if render(k.state) != k.text {
				t.Fatalf("seed %d: State %d changed after it was made", seed, i)
			}
		}
	}
}

// TestBigBurst passes the number of changes a State remembers one by one.
func TestBigBurst(t *testing.T) {
	b := NewBuilder()
	old := b.State()
	for i := range 3 * recordedMost {
		b.SetNode(&Node{Name: fmt.Sprintf("n%04d", i)})
	}
	if got := len(Diff(old, b.State()).Nodes); got != 3*recordedMost {
		t.Errorf("%d changes, want %d", got, 3*recordedMost)
	}
	if len(b.State().recorded.Nodes) != 0 {
		t.Error("a long list of changes is kept for ever")
	}
}

// TestNoPoolsOverlap makes random pools, whatever they are, and holds that those in effect never overlap, that each
// pool is in effect or has a Problem, and that one in effect leaves it only when it is deleted.
func TestNoPoolsOverlap(t *testing.T) {
	refused := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := NewBuilder()
		for range 60 {
			name := fmt.Sprintf("p%d", r.IntN(6))
			gone := ""
			if r.IntN(5) == 0 {
				b.DeletePool(name)
				gone = name
			} else {
				bits := 9 + r.IntN(5)
				cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(256)), 0, 0}), bits)
				if r.IntN(8) != 0 {
					cidr = cidr.Masked()
				}
				b.SetPool(&Pool{Name: name, CIDR: cidr, IPIPMode: Mode(r.IntN(2)), VXLANMode: Mode(r.IntN(2))})
			}
			before := b.last
			s := b.State()
			in := map[string]bool{}
			for i, p := range s.Pools() {
				in[p.Name] = true
				for _, q := range s.Pools()[:i] {
					if p.CIDR.Overlaps(q.CIDR) {
						t.Fatalf("seed %d: %s and %s overlap", seed, p.Name, q.Name)
					}
				}
			}
			for _, p := range before.Pools() {
				if !in[p.Name] && p.Name != gone {
					t.Fatalf("seed %d: %s went out of effect though nobody deleted it", seed, p.Name)
				}
			}
			for _, p := range b.pools.live {
				told := slices.ContainsFunc(s.Problems(), func(q Problem) bool { return q.Object == "IPPool "+p.Name })
				if !in[p.Name] && !told {
					t.Fatalf("seed %d: %s is silently not in effect", seed, p.Name)
				}
				if !in[p.Name] {
					refused++
				}
			}
		}
	}
	if refused == 0 {
		t.Error("no pool was ever refused: the test tests nothing")
	}
}
