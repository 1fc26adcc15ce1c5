package cluster

import (
	"cmp"
	"net/netip"
	"slices"
)

// Problem is one object the datastore holds that cannot be used as written. The rest of the state is good.
type Problem struct {
	Object string // kind and name: "IPPool default-ipv4-ippool"
	Field  string // path of the field: "spec.ipipMode"
	Text   string // what is wrong and how to mend it
	File   string // where it was read, empty for the Kubernetes datastore
	Line   int
}

func compareProblems(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Text, b.Text),
		cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
}

// Objects is what a State is built from: everything the datastore holds that is routed on.
type Objects struct {
	Nodes      []*Node
	Pools      []*Pool
	Blocks     []*Block
	Affinities []*Affinity
	Peers      []*BGPPeer
	Filters    []*BGPFilter
	Secrets    []*Secret
	Services   []*Service
	Slices     []*EndpointSlice
	Pods       []*Pod
	BGP        BGPConfig
	Felix      FelixConfig
	Backend    Backend // "" = not said in the datastore
	Problems   []Problem
}

// AddrKind says what a node uses one of its addresses for.
type AddrKind uint8

// The kinds of addresses a node has.
const (
	HostAddr AddrKind = iota
	IPIPTunnelAddr
	VXLANTunnelAddr
)

// NodeAddr is one address that a node claims as its own.
type NodeAddr struct {
	Addr netip.Addr
	Kind AddrKind
	Node string
}

func compareNodeAddrs(a, b NodeAddr) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Node, b.Node))
}

// State is an immutable snapshot of the cluster. All methods may be called from any goroutine, and on a nil State, which is
// an empty cluster; slices returned are shared and must not be written to.
type State struct {
	o                   Objects     // Pools are the usable ones
	addrs               []*NodeAddr // sorted by address, kind, node
	blockBits, poolBits inUse

	lineage  *lineage // which Builder made it
	revision uint64   // counts that Builder's States from 1
	recorded Changes  // against revision-1
	unknown  unknown  // kinds for which recorded says nothing
}

// lineage tells the States of one Builder from those of another.
type lineage struct{ _ byte }

// objects is o, for a nil State too.
func (s *State) objects() *Objects {
	if s == nil {
		return &Objects{}
	}
	return &s.o
}

// Objects returns everything the State is made of. Nothing of it may be written to.
func (s *State) Objects() Objects { return *s.objects() }

// Revision counts the different States of one Builder: equal revisions of one Builder are one and the same State.
func (s *State) Revision() uint64 {
	if s == nil {
		return 0
	}
	return s.revision
}

// Node returns the named node, or nil.
func (s *State) Node(name string) *Node {
	nodes := s.objects().Nodes
	i, ok := slices.BinarySearchFunc(nodes, name, func(n *Node, name string) int { return cmp.Compare(n.Name, name) })
	if !ok {
		return nil
	}
	return nodes[i]
}

// Nodes returns every node, sorted by name.
func (s *State) Nodes() []*Node { return s.objects().Nodes }

// Pools returns every usable pool, sorted by CIDR.
func (s *State) Pools() []*Pool { return s.objects().Pools }

// PoolFor returns the pool with the longest prefix that covers p, or nil.
func (s *State) PoolFor(p netip.Prefix) (found *Pool) {
	if s == nil {
		return nil
	}
	covering(s.o.Pools, (*Pool).prefix, s.poolBits, p, func(q *Pool) bool { found = q; return false })
	return found
}

// Blocks returns every block, sorted by CIDR.
func (s *State) Blocks() []*Block { return s.objects().Blocks }

// Block returns the block with exactly that CIDR, or nil.
func (s *State) Block(cidr netip.Prefix) *Block {
	blocks := s.objects().Blocks
	i, ok := slices.BinarySearchFunc(blocks, cidr, func(b *Block, p netip.Prefix) int { return comparePrefix(b.CIDR, p) })
	if !ok {
		return nil
	}
	return blocks[i]
}

// BlockOf returns the block that contains the address, or nil; the smallest one where blocks lie inside one another.
func (s *State) BlockOf(a netip.Addr) (found *Block) {
	s.BlocksOver(netip.PrefixFrom(a, a.BitLen()), func(b *Block) bool { found = b; return false })
	return found
}

// BlocksOver calls yield with each block that covers p, p's own included, the smallest first, until yield returns false.
func (s *State) BlocksOver(p netip.Prefix, yield func(*Block) bool) {
	if s == nil || !p.IsValid() {
		return
	}
	covering(s.o.Blocks, (*Block).prefix, s.blockBits, p, yield)
}

// NodeByAddr returns the node that owns a (node, not tunnel) address; the alphabetically first if several claim it.
func (s *State) NodeByAddr(a netip.Addr) *Node {
	if s == nil {
		return nil
	}
	i := s.addrIndex(NodeAddr{Addr: a, Kind: HostAddr})
	if i == len(s.addrs) || s.addrs[i].Addr != a || s.addrs[i].Kind != HostAddr {
		return nil
	}
	return s.Node(s.addrs[i].Node)
}

// Addrs returns every address that nodes claim, sorted by address, kind and node.
func (s *State) Addrs() []*NodeAddr {
	if s == nil {
		return nil
	}
	return s.addrs
}

// AddrsIn returns the addresses inside a prefix that nodes claim, sorted by address, kind and node.
func (s *State) AddrsIn(p netip.Prefix) []*NodeAddr {
	if s == nil || !p.IsValid() {
		return nil
	}
	from := s.addrIndex(NodeAddr{Addr: p.Masked().Addr()})
	to := from
	for to < len(s.addrs) && p.Contains(s.addrs[to].Addr) {
		to++
	}
	return s.addrs[from:to:to]
}

// addrIndex returns the place of the first address not before k.
func (s *State) addrIndex(k NodeAddr) int {
	i, _ := slices.BinarySearchFunc(s.addrs, k, func(e *NodeAddr, k NodeAddr) int { return compareNodeAddrs(*e, k) })
	return i
}

// Affinities returns every claim, sorted by node and CIDR.
func (s *State) Affinities() []*Affinity { return s.objects().Affinities }

// AffinitiesOf returns the node's claims, sorted by CIDR.
func (s *State) AffinitiesOf(node string) []*Affinity {
	all := s.objects().Affinities
	from, _ := slices.BinarySearchFunc(all, node, func(a *Affinity, node string) int { return cmp.Compare(a.Node, node) })
	to := from
	for to < len(all) && all[to].Node == node {
		to++
	}
	return all[from:to:to]
}

// BGPPeers returns every explicit peering, sorted by name.
func (s *State) BGPPeers() []*BGPPeer { return s.objects().Peers }

// BGPFilter returns the named filter, or nil.
func (s *State) BGPFilter(name string) *BGPFilter {
	return named(s.objects().Filters, name, func(f *BGPFilter) string { return f.Name })
}

// Secret returns the named secret, or nil.
func (s *State) Secret(name string) *Secret {
	return named(s.objects().Secrets, name, func(x *Secret) string { return x.Name })
}

// named finds an object in a list sorted by name.
func named[T any](list []*T, name string, nameOf func(*T) string) *T {
	i, ok := slices.BinarySearchFunc(list, name, func(o *T, name string) int { return cmp.Compare(nameOf(o), name) })
	if !ok {
		return nil
	}
	return list[i]
}

// BGP returns the BGP configuration, defaults applied.
func (s *State) BGP() BGPConfig { return s.objects().BGP }

// WithMTU returns the State with the MTUs of o in place of its own where o has any; all else of o is not looked at. It is the same State to
// Revision and Diff, so it must be taken of every State of a Builder or of none.
func (s *State) WithMTU(o FelixConfig) *State {
	if s == nil || o.IPIPMTU == 0 && o.VXLANMTU == 0 && o.VXLANMTUv6 == 0 {
		return s
	}
	c := *s
	c.o.Felix.IPIPMTU = cmp.Or(o.IPIPMTU, c.o.Felix.IPIPMTU)
	c.o.Felix.VXLANMTU = cmp.Or(o.VXLANMTU, c.o.Felix.VXLANMTU)
	c.o.Felix.VXLANMTUv6 = cmp.Or(o.VXLANMTUv6, c.o.Felix.VXLANMTUv6)
	return &c
}

// Felix returns the Felix settings routing reads, defaults applied.
func (s *State) Felix() FelixConfig { return s.objects().Felix }

// Backend returns the backend named in the datastore, or "".
func (s *State) Backend() Backend { return s.objects().Backend }

// Problems returns what could not be used, sorted by object and field.
func (s *State) Problems() []Problem { return s.objects().Problems }

func (p *Pool) prefix() netip.Prefix  { return p.CIDR }
func (b *Block) prefix() netip.Prefix { return b.CIDR }
