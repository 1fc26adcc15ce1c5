package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// DefaultBGP returns the BGP configuration of a cluster that has no BGPConfiguration: Calico's AS 64512, full mesh, port 179,
// metric 1024 and, as BIRD, two minutes of graceful restart (RFC 4724).
func DefaultBGP() BGPConfig {
	return BGPConfig{
		ASN:                64512,
		Mesh:               true,
		ListenPort:         179,
		MeshMaxRestartTime: 120 * time.Second,
		NormalPriority4:    1024,
		NormalPriority6:    1024,
		Programs:           ClusterRoutes{NoEncap: true},
	}
}

// DefaultFelix returns the settings of a cluster that has no FelixConfiguration: VNI 4096, the IANA VXLAN port, every MTU
// from the underlay.
func DefaultFelix() FelixConfig {
	return FelixConfig{VXLANPort: 4789, VXLANVNI: 4096, Programs: ClusterRoutes{IPIP: true}}
}

// claim is the key of an Affinity.
type claim struct {
	node string
	cidr netip.Prefix
}

// Builder keeps the objects of a datastore and makes States from them. Not for concurrent use.
// A State shares every unchanged object and index with the State before it.
type Builder struct {
	nodes      table[string, Node]
	pools      table[string, Pool] // as the datastore has them
	usable     table[string, Pool] // as the last State has them
	blocks     table[netip.Prefix, Block]
	affinities table[claim, Affinity]
	peers      table[string, BGPPeer]
	filters    table[string, BGPFilter]
	secrets    table[string, Secret]
	services   table[string, Service]
	slices     table[sliceKey, EndpointSlice]
	pods       table[string, Pod]
	addrs      table[NodeAddr, NodeAddr]

	blockBits, poolBits lengths

	bgp      BGPConfig
	felix    FelixConfig
	backend  Backend
	problems []Problem // the datastore's

	touched      bool      // something was set since the last State
	poolProblems []Problem // of the last judgement
	addrProblems []Problem
	last         *State
	byCIDR       []*Pool // the last State's
}

// NewBuilder returns an empty Builder with Calico's default BGP and Felix settings.
func NewBuilder() *Builder {
	pools := table[string, Pool]{
		key:     func(p *Pool) string { return p.Name },
		compare: strings.Compare,
		equal:   func(a, b *Pool) bool { return *a == *b },
	}
	return &Builder{
		nodes: table[string, Node]{
			key:     func(n *Node) string { return n.Name },
			compare: strings.Compare,
			equal:   equalNodes,
		},
		pools:  pools,
		usable: pools,
		blocks: table[netip.Prefix, Block]{
			key:     (*Block).prefix,
			compare: comparePrefix,
			equal:   equalBlocks,
		},
		affinities: table[claim, Affinity]{
			key: func(a *Affinity) claim { return claim{node: a.Node, cidr: a.CIDR} },
			compare: func(a, b claim) int {
				return cmp.Or(strings.Compare(a.node, b.node), comparePrefix(a.cidr, b.cidr))
			},
			equal: func(a, b *Affinity) bool { return *a == *b },
		},
		peers: table[string, BGPPeer]{
			key:     func(p *BGPPeer) string { return p.Name },
			compare: strings.Compare,
			equal:   equalPeers,
		},
		filters: table[string, BGPFilter]{
			key:     func(f *BGPFilter) string { return f.Name },
			compare: strings.Compare,
			equal:   equalFilters,
		},
		secrets: table[string, Secret]{
			key:     func(s *Secret) string { return s.Name },
			compare: strings.Compare,
			equal:   equalSecrets,
		},
		services: table[string, Service]{
			key:     func(s *Service) string { return s.Name },
			compare: strings.Compare,
			equal:   equalServices,
		},
		slices: table[sliceKey, EndpointSlice]{
			key:     func(s *EndpointSlice) sliceKey { return sliceKey{s.Service, s.Name} },
			compare: compareSliceKeys,
			equal:   equalSlices,
		},
		pods: table[string, Pod]{
			key:     func(p *Pod) string { return p.Name },
			compare: strings.Compare,
			equal:   equalPods,
		},
		addrs: table[NodeAddr, NodeAddr]{
			key:     func(a *NodeAddr) NodeAddr { return *a },
			compare: compareNodeAddrs,
			equal:   func(a, b *NodeAddr) bool { return *a == *b },
		},
		bgp:   DefaultBGP(),
		felix: DefaultFelix(),
	}
}

// Build makes a State of a fixed set of objects. A zero BGP or Felix means the defaults.
func Build(o Objects) *State {
	b := NewBuilder()
	for _, n := range o.Nodes {
		b.SetNode(n)
	}
	for _, p := range o.Pools {
		b.SetPool(p)
	}
	for _, k := range o.Blocks {
		b.SetBlock(k)
	}
	for _, a := range o.Affinities {
		b.SetAffinity(a)
	}
	for _, p := range o.Peers {
		b.SetPeer(p)
	}
	for _, f := range o.Filters {
		b.SetFilter(f)
	}
	for _, x := range o.Secrets {
		b.SetSecret(x)
	}
	for _, x := range o.Services {
		b.SetService(x)
	}
	for _, x := range o.Slices {
		b.SetSlice(x)
	}
	for _, x := range o.Pods {
		b.SetPod(x)
	}
	if !equalBGP(&o.BGP, &BGPConfig{}) {
		b.SetBGP(o.BGP)
	}
	if o.Felix != (FelixConfig{}) {
		b.SetFelix(o.Felix)
	}
	b.SetBackend(o.Backend)
	b.SetProblems(o.Problems)
	return b.State()
}

// equalNodes compares all that is routed on; labels are, because selectors read them.
func equalNodes(a, b *Node) bool {
	return a.Name == b.Name && a.Addr4 == b.Addr4 && a.Addr6 == b.Addr6 && a.IPIPAddr == b.IPIPAddr &&
		a.VXLANAddr4 == b.VXLANAddr4 && a.VXLANAddr6 == b.VXLANAddr6 && a.VXLANMAC4 == b.VXLANMAC4 && a.VXLANMAC6 == b.VXLANMAC6 &&
		a.ASN == b.ASN && a.RouteReflectorClusterID == b.RouteReflectorClusterID && a.Leaving == b.Leaving && maps.Equal(a.Labels, b.Labels)
}

func equalBlocks(a, b *Block) bool {
	return a.CIDR == b.CIDR && a.Node == b.Node && a.Virtual == b.Virtual && slices.Equal(a.Borrowed, b.Borrowed)
}

// The Set methods add or replace one object, the Delete methods remove one. Each reports whether anything that is
// routed on changed: an equal object is dropped and wakes nobody. An object handed over must not be written to any more.

// SetNode adds or replaces a node.
func (b *Builder) SetNode(n *Node) bool {
	was, changed := b.nodes.set(n)
	if changed {
		b.swapAddrs(was, n)
	}
	return b.note(changed)
}

// DeleteNode removes a node.
func (b *Builder) DeleteNode(name string) bool {
	was := b.nodes.remove(name)
	if was != nil {
		b.swapAddrs(was, nil)
	}
	return b.note(was != nil)
}

// SetPool adds or replaces a pool.
func (b *Builder) SetPool(p *Pool) bool {
	_, changed := b.pools.set(p)
	return b.note(changed)
}

// DeletePool removes a pool.
func (b *Builder) DeletePool(name string) bool { return b.note(b.pools.remove(name) != nil) }

// SetBlock adds or replaces a block. One without a valid CIDR is no block and is dropped; its reader reports it.
func (b *Builder) SetBlock(k *Block) bool {
	if !k.CIDR.IsValid() {
		return false
	}
	_, changed := b.blocks.set(k)
	return b.note(changed)
}

// DeleteBlock removes a block.
func (b *Builder) DeleteBlock(cidr netip.Prefix) bool { return b.note(b.blocks.remove(cidr) != nil) }

// SetAffinity adds or replaces a claim (key: node and CIDR).
func (b *Builder) SetAffinity(a *Affinity) bool {
	_, changed := b.affinities.set(a)
	return b.note(changed)
}

// DeleteAffinity removes a claim.
func (b *Builder) DeleteAffinity(node string, cidr netip.Prefix) bool {
	return b.note(b.affinities.remove(claim{node: node, cidr: cidr}) != nil)
}

// SetPeer adds or replaces an explicit peering.
func (b *Builder) SetPeer(p *BGPPeer) bool {
	_, changed := b.peers.set(p)
	return b.note(changed)
}

// DeletePeer removes an explicit peering.
func (b *Builder) DeletePeer(name string) bool { return b.note(b.peers.remove(name) != nil) }

// SetFilter adds or replaces a filter.
func (b *Builder) SetFilter(f *BGPFilter) bool {
	_, changed := b.filters.set(f)
	return b.note(changed)
}

// DeleteFilter removes a filter.
func (b *Builder) DeleteFilter(name string) bool { return b.note(b.filters.remove(name) != nil) }

// SetSecret adds or replaces a secret.
func (b *Builder) SetSecret(s *Secret) bool {
	_, changed := b.secrets.set(s)
	return b.note(changed)
}

// DeleteSecret removes a secret.
func (b *Builder) DeleteSecret(name string) bool { return b.note(b.secrets.remove(name) != nil) }

// SetBGP replaces the BGP configuration.
func (b *Builder) SetBGP(c BGPConfig) bool {
	if equalBGP(&b.bgp, &c) {
		return false
	}
	b.bgp = c
	b.bgp.NodeListenPorts = maps.Clone(c.NodeListenPorts)
	b.bgp.NodeAdvertisements = maps.Clone(c.NodeAdvertisements)
	return b.note(true)
}

// SetFelix replaces the Felix settings.
func (b *Builder) SetFelix(c FelixConfig) bool {
	changed := b.felix != c
	b.felix = c
	return b.note(changed)
}

// SetBackend replaces the backend named in the datastore.
func (b *Builder) SetBackend(c Backend) bool {
	changed := b.backend != c
	b.backend = c
	return b.note(changed)
}

// SetProblems replaces the datastore's own list of unusable objects.
func (b *Builder) SetProblems(p []Problem) bool {
	p = slices.Clone(p)
	slices.SortFunc(p, compareProblems)
	if slices.Equal(b.problems, p) {
		return false
	}
	b.problems = p
	return b.note(true)
}

func (b *Builder) note(changed bool) bool {
	b.touched = b.touched || changed
	return changed
}

// swapAddrs moves the index of node addresses from one form of a node to the next.
func (b *Builder) swapAddrs(was, is *Node) {
	var old, now [5]NodeAddr
	before, after := addrsOf(was, old[:0]), addrsOf(is, now[:0])
	for i := range before {
		if !slices.Contains(after, before[i]) {
			b.addrs.remove(before[i])
		}
	}
	for i := range after {
		if !slices.Contains(before, after[i]) {
			a := after[i]
			b.addrs.set(&a)
		}
	}
}

func addrsOf(n *Node, to []NodeAddr) []NodeAddr {
	if n == nil {
		return to
	}
	add := func(a netip.Addr, kind AddrKind) {
		if a.IsValid() {
			to = append(to, NodeAddr{Addr: a, Kind: kind, Node: n.Name})
		}
	}
	add(n.Addr4.Addr(), HostAddr)
	add(n.Addr6.Addr(), HostAddr)
	add(n.IPIPAddr, IPIPTunnelAddr)
	add(n.VXLANAddr4, VXLANTunnelAddr)
	add(n.VXLANAddr6, VXLANTunnelAddr)
	return to
}
