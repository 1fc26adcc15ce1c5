package cluster

import "net/netip"

// Problem is one object the datastore holds that cannot be used as written. The rest of the state is good.
type Problem struct {
	Object string // kind and name: "IPPool default-ipv4-ippool"
	Field  string // path of the field: "spec.ipipMode"
	Text   string // what is wrong and how to mend it
	File   string // where it was read, empty for the Kubernetes datastore
	Line   int
}

// Objects is what a State is built from: everything the datastore holds that is routed on.
type Objects struct {
	Nodes      []*Node
	Pools      []*Pool
	Blocks     []*Block
	Affinities []*Affinity
	Peers      []*BGPPeer
	BGP        BGPConfig
	Felix      FelixConfig
	Backend    Backend // "" = not said in the datastore
	Problems   []Problem
}

// State is an immutable snapshot of the cluster. All methods may be called from any goroutine;
// slices returned are shared and must not be written to.
type State struct{ o Objects }

// Node returns the named node, or nil.
func (s *State) Node(name string) *Node { return nil }

// Nodes returns every node, sorted by name.
func (s *State) Nodes() []*Node { return s.o.Nodes }

// Pools returns every usable pool, sorted by CIDR.
func (s *State) Pools() []*Pool { return s.o.Pools }

// PoolFor returns the pool with the longest prefix that covers p, or nil.
func (s *State) PoolFor(p netip.Prefix) *Pool { return nil }

// Blocks returns every block, sorted by CIDR.
func (s *State) Blocks() []*Block { return s.o.Blocks }

// BlockOf returns the block that contains the address, or nil.
func (s *State) BlockOf(a netip.Addr) *Block { return nil }

// NodeByAddr returns the node that owns a (node, not tunnel) address; the alphabetically first if several claim it.
func (s *State) NodeByAddr(a netip.Addr) *Node { return nil }

// AffinitiesOf returns the node's claims, sorted by CIDR.
func (s *State) AffinitiesOf(node string) []*Affinity { return nil }

// BGPPeers returns every explicit peering, sorted by name.
func (s *State) BGPPeers() []*BGPPeer { return s.o.Peers }

// BGP returns the BGP configuration, defaults applied.
func (s *State) BGP() BGPConfig { return s.o.BGP }

// Felix returns the Felix settings routing reads, defaults applied.
func (s *State) Felix() FelixConfig { return s.o.Felix }

// Backend returns the backend named in the datastore, or "".
func (s *State) Backend() Backend { return s.o.Backend }

// Problems returns what could not be used, sorted by object and field.
func (s *State) Problems() []Problem { return s.o.Problems }

// Builder keeps the objects of a datastore and makes States from them. Not for concurrent use.
// A State shares every unchanged object and index with the State before it.
type Builder struct{}

// NewBuilder returns an empty Builder with Calico's default BGP and Felix settings.
func NewBuilder() *Builder { return &Builder{} }

// The Set methods add or replace one object, the Delete methods remove one. Each reports whether anything that is
// routed on changed: an equal object is dropped and wakes nobody.

// SetNode adds or replaces a node.
func (b *Builder) SetNode(*Node) bool { return false }

// DeleteNode removes a node.
func (b *Builder) DeleteNode(name string) bool { return false }

// SetPool adds or replaces a pool.
func (b *Builder) SetPool(*Pool) bool { return false }

// DeletePool removes a pool.
func (b *Builder) DeletePool(name string) bool { return false }

// SetBlock adds or replaces a block.
func (b *Builder) SetBlock(*Block) bool { return false }

// DeleteBlock removes a block.
func (b *Builder) DeleteBlock(cidr netip.Prefix) bool { return false }

// SetAffinity adds or replaces a claim (key: node and CIDR).
func (b *Builder) SetAffinity(*Affinity) bool { return false }

// DeleteAffinity removes a claim.
func (b *Builder) DeleteAffinity(node string, cidr netip.Prefix) bool { return false }

// SetPeer adds or replaces an explicit peering.
func (b *Builder) SetPeer(*BGPPeer) bool { return false }

// DeletePeer removes an explicit peering.
func (b *Builder) DeletePeer(name string) bool { return false }

// SetBGP replaces the BGP configuration.
func (b *Builder) SetBGP(BGPConfig) bool { return false }

// SetFelix replaces the Felix settings.
func (b *Builder) SetFelix(FelixConfig) bool { return false }

// SetBackend replaces the backend named in the datastore.
func (b *Builder) SetBackend(Backend) bool { return false }

// SetProblems replaces the datastore's own list of unusable objects.
func (b *Builder) SetProblems([]Problem) bool { return false }

// State returns a snapshot. Cross-object rules (overlapping pools: the longest-standing good one is kept, a pool with
// both modes, IPIP on IPv6) are applied here and add Problems.
func (b *Builder) State() *State { return &State{} }
