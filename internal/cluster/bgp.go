package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// BGPConfig holds what the BGPConfiguration resources say, with Calico's defaults applied. Maps by node name hold what the
// resources node.<name> say; those of Calico's fields that only Felix or the service announcer read are carried as they are.
type BGPConfig struct {
	ASN                uint32 // default 64512
	Mesh               bool   // nodeToNodeMeshEnabled, default true
	ListenPort         uint16 // default 179
	BindNodeIP         bool   // bindMode: NodeIP
	MeshMaxRestartTime time.Duration
	MeshPassword       SecretKey // nodeMeshPassword
	// NormalPriority4/6 are the route metrics of ordinary routes (ipv4NormalRoutePriority), default 1024.
	NormalPriority4, NormalPriority6 uint32
	// NodeListenPorts overrides ListenPort by node name (BGPConfiguration node.<name>).
	NodeListenPorts map[string]uint16
	// Advertisements are prefixAdvertisements with the names of communities replaced. Those of a node (NodeAdvertisements)
	// stand in for these, family by family.
	Advertisements     []Advertisement
	NodeAdvertisements map[string][]Advertisement
	// LocalPeering4/6 are the addresses of the node that local workloads dial (localWorkloadPeeringIPV4), none by default.
	LocalPeering4, LocalPeering6 netip.Addr
	// IgnoredInterfaces are patterns of interfaces over which no next hop is looked for (ignoredInterfaces).
	IgnoredInterfaces []string
	// Service ranges (serviceClusterIPs, serviceExternalIPs, serviceLoadBalancerIPs): announced by whoever watches Services,
	// never put into the kernel.
	ServiceClusterIPs, ServiceExternalIPs, ServiceLoadBalancerIPs []netip.Prefix
	// MeshBFD is for the sessions of the node-to-node mesh.
	MeshBFD BFD
	// MeshMaxPrefixes bounds what each of them may bring; 0 = no bound.
	MeshMaxPrefixes uint32
	// Reflection has the mesh elect route reflectors.
	Reflection Reflection
	// Programs is what BIRD, in whose place we are, programs beside a Felix (programClusterRoutes).
	Programs ClusterRoutes
	// NoServiceAggregation: serviceLoadBalancerAggregation is Disabled, so single addresses are announced.
	NoServiceAggregation bool
}

// Reflection says when and among whom a mesh elects route reflectors; with Count 0 it does not.
type Reflection struct {
	Above    int    // a mesh of more nodes elects
	Count    int    // how many
	Zone     string // label of the failure domain, over which they are spread
	Selector string // who may be elected; "" = all()
}

// Advertisement says which communities prefixes inside CIDR carry when they are announced (prefixAdvertisements).
type Advertisement struct {
	CIDR        netip.Prefix
	Communities []Community
	Source      string // the object and field: "BGPConfiguration default spec.prefixAdvertisements[0]"
}

// Community is a standard (RFC 1997) or large (RFC 8092) community. A standard one has two parts of 16 bits, A and B.
type Community struct {
	Large   bool
	A, B, C uint32
}

// String writes the community as Calico does: "65000:100" or "65000:1:2".
func (c Community) String() string {
	if c.Large {
		return fmt.Sprintf("%d:%d:%d", c.A, c.B, c.C)
	}
	return fmt.Sprintf("%d:%d", c.A, c.B)
}

// Compare orders communities, standard ones first.
func (c Community) Compare(d Community) int {
	if c.Large != d.Large {
		if c.Large {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(c.A, d.A), cmp.Compare(c.B, d.B), cmp.Compare(c.C, d.C))
}

// SecretKey refers to one value of a Secret (secretKeyRef). With Wanted set and no usable name a password was asked for in a
// way that cannot be read: a session must not come up without one.
type SecretKey struct {
	Wanted    bool
	Name, Key string
}

// Secret is a Kubernetes Secret in the namespace passwords are read from. Its values are never logged.
type Secret struct {
	Name string
	Data map[string]string
}

// NextHopMode says what next hop is sent to a peer (BGPPeer nextHopMode).
type NextHopMode string

// The modes; the empty one is Auto.
const (
	NextHopAuto NextHopMode = ""
	NextHopSelf NextHopMode = "Self"
	NextHopKeep NextHopMode = "Keep"
)

// BGPPeer is an explicit peering (Calico BGPPeer).
type BGPPeer struct {
	Name         string
	Node         string // only on this node; "" with NodeSelector "" = every node
	NodeSelector string
	PeerIP       netip.Addr
	PeerPort     uint16 // 0 = the listen port
	PeerSelector string
	// WorkloadSelector has workloads of the node for peers (localWorkloadSelector); with it there is no PeerIP and no PeerSelector.
	WorkloadSelector string
	ASN              uint32
	LocalASN         uint32 // localASNumber, 0 = the node's
	KeepNextHop      bool   // keepOriginalNextHop or nextHopMode: Keep
	SelfNextHop      bool   // nextHopMode: Self
	MaxRestartTime   time.Duration
	KeepaliveTime    time.Duration // 0 = a third of the hold time
	TTLSecurity      uint8         // hops, 0 = off
	NoSource         bool          // sourceAddress: None
	AllowOwnAS       uint8         // numAllowedLocalASNumbers: how often our AS may be in a path
	ReachableBy      netip.Addr    // gateway of a host route to the peer
	Filters          []string      // names of BGPFilters, in order
	Password         SecretKey
	ManualReverse    bool // reversePeering: Manual: no session back on the nodes that are the peers
	BFD              BFD
	MaxPrefixes      uint32 // that a session may bring; 0 = no bound
}

// BFD is how dead paths to a peer are found (RFC 5880); the zero BFD is none.
type BFD struct {
	Interval   time.Duration // between two packets, wanted both ways
	Multiplier uint8         // packets that may be missing; 0 = no BFD
	Hops       BFDHops
}

// BFDHops says whether a peer is on a network of the node's.
type BFDHops string

// The values of BFDHops.
const (
	BFDHopsAuto BFDHops = ""         // by the node's own subnet
	BFDSingle   BFDHops = "single"   // RFC 5881
	BFDMulti    BFDHops = "multihop" // RFC 5883
)

// BGPFilter is a list of rules per family and direction (Calico BGPFilter).
type BGPFilter struct {
	Name             string
	Import4, Export4 []FilterRule
	Import6, Export6 []FilterRule
}

// Rules returns the filter's rules of a family and direction.
func (f *BGPFilter) Rules(fam Family, export bool) []FilterRule {
	switch {
	case fam == IPv4 && export:
		return f.Export4
	case fam == IPv4:
		return f.Import4
	case export:
		return f.Export6
	}
	return f.Import6
}

// FilterRule is one rule: where every condition that is set holds, its operations are done and Accept decides.
type FilterRule struct {
	// CIDR, MinLen, MaxLen, Not: the route's prefix lies inside CIDR with a length from MinLen to MaxLen, or (Not) it does not. All four
	// operators of Calico are cases of it. An invalid CIDR is no condition.
	CIDR           netip.Prefix
	MinLen, MaxLen uint8
	Not            bool
	RemotePeers    bool      // source: only routes learned by BGP
	Interface      string    // pattern of the interface the route leaves by; "" is no condition
	PeerType       PeerType  // kind of the session; "" is no condition
	Community      Community // the route carries it; the zero value is no condition
	ASPathPrefix   []uint32  // the AS path begins so
	Priority       uint32    // LOCAL_PREF is 2147483647 less this; 0 is no condition

	AddCommunities []Community
	Prepend        []uint32 // put before the AS path, in this order
	SetPriority    uint32   // LOCAL_PREF becomes 2147483647 less this; 0 leaves it
	Accept         bool
}

// PeerType is the kind of a session.
type PeerType string

// The kinds.
const (
	EBGP PeerType = "eBGP"
	IBGP PeerType = "iBGP"
)

// EqualRules reports whether two rules are the same.
func EqualRules(a, b *FilterRule) bool {
	return a.CIDR == b.CIDR && a.MinLen == b.MinLen && a.MaxLen == b.MaxLen && a.Not == b.Not && a.RemotePeers == b.RemotePeers &&
		a.Interface == b.Interface && a.PeerType == b.PeerType && a.Community == b.Community && slices.Equal(a.ASPathPrefix, b.ASPathPrefix) &&
		a.Priority == b.Priority && slices.Equal(a.AddCommunities, b.AddCommunities) && slices.Equal(a.Prepend, b.Prepend) &&
		a.SetPriority == b.SetPriority && a.Accept == b.Accept
}

func equalFilters(a, b *BGPFilter) bool {
	same := func(x, y []FilterRule) bool {
		return slices.EqualFunc(x, y, func(p, q FilterRule) bool { return EqualRules(&p, &q) })
	}
	return a.Name == b.Name && same(a.Import4, b.Import4) && same(a.Export4, b.Export4) && same(a.Import6, b.Import6) && same(a.Export6, b.Export6)
}

func equalSecrets(a, b *Secret) bool { return a.Name == b.Name && maps.Equal(a.Data, b.Data) }

func equalPeers(a, b *BGPPeer) bool {
	return a.Name == b.Name && a.Node == b.Node && a.NodeSelector == b.NodeSelector && a.PeerIP == b.PeerIP && a.PeerPort == b.PeerPort &&
		a.PeerSelector == b.PeerSelector && a.WorkloadSelector == b.WorkloadSelector && a.ASN == b.ASN && a.LocalASN == b.LocalASN && a.KeepNextHop == b.KeepNextHop && a.SelfNextHop == b.SelfNextHop &&
		a.MaxRestartTime == b.MaxRestartTime && a.KeepaliveTime == b.KeepaliveTime && a.TTLSecurity == b.TTLSecurity && a.NoSource == b.NoSource &&
		a.AllowOwnAS == b.AllowOwnAS && a.ReachableBy == b.ReachableBy && slices.Equal(a.Filters, b.Filters) && a.Password == b.Password &&
		a.ManualReverse == b.ManualReverse && a.BFD == b.BFD && a.MaxPrefixes == b.MaxPrefixes
}

// EqualAdvertisements reports whether two lists say the same.
func EqualAdvertisements(a, b []Advertisement) bool {
	return slices.EqualFunc(a, b, func(x, y Advertisement) bool {
		return x.CIDR == y.CIDR && x.Source == y.Source && slices.Equal(x.Communities, y.Communities)
	})
}

func equalBGP(a, b *BGPConfig) bool {
	return a.ASN == b.ASN && a.Mesh == b.Mesh && a.ListenPort == b.ListenPort && a.BindNodeIP == b.BindNodeIP &&
		a.MeshMaxRestartTime == b.MeshMaxRestartTime && a.MeshPassword == b.MeshPassword && a.MeshBFD == b.MeshBFD && a.MeshMaxPrefixes == b.MeshMaxPrefixes && a.NormalPriority4 == b.NormalPriority4 &&
		a.NormalPriority6 == b.NormalPriority6 && maps.Equal(a.NodeListenPorts, b.NodeListenPorts) &&
		EqualAdvertisements(a.Advertisements, b.Advertisements) && maps.EqualFunc(a.NodeAdvertisements, b.NodeAdvertisements, EqualAdvertisements) &&
		slices.Equal(a.IgnoredInterfaces, b.IgnoredInterfaces) && a.LocalPeering4 == b.LocalPeering4 && a.LocalPeering6 == b.LocalPeering6 && slices.Equal(a.ServiceClusterIPs, b.ServiceClusterIPs) &&
		slices.Equal(a.ServiceExternalIPs, b.ServiceExternalIPs) && slices.Equal(a.ServiceLoadBalancerIPs, b.ServiceLoadBalancerIPs) &&
		a.NoServiceAggregation == b.NoServiceAggregation && a.Programs == b.Programs && a.Reflection == b.Reflection
}
