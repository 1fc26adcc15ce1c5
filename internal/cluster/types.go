package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Family is an IP address family, numbered as the IP version.
type Family uint8

// The two families. Everything in Caracal is written for both.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf returns the family of an address; an IPv4-mapped IPv6 address counts as IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// MAC is a 48-bit Ethernet address; the zero value means "not set".
type MAC [6]byte

// String formats the address as six lower-case hex pairs.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsZero reports whether no address is set.
func (m MAC) IsZero() bool { return m == MAC{} }

// Mode says when a pool's encapsulation is used (Calico IPPool.spec.ipipMode and vxlanMode).
type Mode uint8

// The three modes of an encapsulation.
const (
	Never Mode = iota
	Always
	CrossSubnet
)

// String returns Calico's spelling of the mode.
func (m Mode) String() string { return [...]string{"Never", "Always", "CrossSubnet"}[m] }

// Encapsulation is the kind of tunnel a pool's traffic uses.
type Encapsulation uint8

// The kinds of encapsulation.
const (
	NoEncapsulation Encapsulation = iota
	IPIP
	VXLAN
)

// String returns "none", "IPIP" or "VXLAN".
func (e Encapsulation) String() string { return [...]string{"none", "IPIP", "VXLAN"}[e] }

// Backend is the cluster's networking backend (Calico ConfigMap calico-config, key calico_backend).
type Backend string

// The backends; the empty Backend means "not said in the datastore".
const (
	BackendBird  Backend = "bird"
	BackendVXLAN Backend = "vxlan"
	BackendNone  Backend = "none"
)

// Node is one member of the cluster (Calico Node). Immutable once handed to a Builder.
type Node struct {
	Name   string
	Labels map[string]string

	// Addr4 and Addr6 are the node's own addresses with the prefix length of their subnet
	// (Node.spec.bgp.ipv4Address, ipv6Address). The zero Prefix means the node has none.
	// A bare address in the datastore has a host mask, so nothing is in its subnet.
	Addr4, Addr6 netip.Prefix

	IPIPAddr               netip.Addr // spec.bgp.ipv4IPIPTunnelAddr
	VXLANAddr4, VXLANAddr6 netip.Addr // spec.ipv4VXLANTunnelAddr, ipv6VXLANTunnelAddr
	// VXLANMAC4 and VXLANMAC6 override the derived MAC (spec.vxlanTunnelMACAddr, vxlanTunnelMACAddrV6).
	VXLANMAC4, VXLANMAC6 MAC

	ASN                     uint32     // spec.bgp.asNumber, 0 = the cluster's
	RouteReflectorClusterID netip.Addr // spec.bgp.routeReflectorClusterID, invalid = not a reflector
	Leaving                 bool       // cordoned or drained, as its own daemon says (annotation caracal.net/leaving)
}

// SameAs reports whether two nodes are equal in everything that is routed on.
func (n *Node) SameAs(o *Node) bool { return equalNodes(n, o) }

// Addr returns the node's address of a family with its prefix length, or the zero Prefix.
func (n *Node) Addr(f Family) netip.Prefix {
	if f == IPv4 {
		return n.Addr4
	}
	return n.Addr6
}

// VXLANAddr returns the node's VXLAN tunnel address of a family, or the zero Addr.
func (n *Node) VXLANAddr(f Family) netip.Addr {
	if f == IPv4 {
		return n.VXLANAddr4
	}
	return n.VXLANAddr6
}

// VXLANMAC returns the node's MAC override of a family, or the zero MAC.
func (n *Node) VXLANMAC(f Family) MAC {
	if f == IPv4 {
		return n.VXLANMAC4
	}
	return n.VXLANMAC6
}

// SameSubnet reports whether a remote address lies in this (local) node's own subnet, judged by
// the local mask only, as Calico does. Unknown addresses are never in the same subnet.
func (n *Node) SameSubnet(remote netip.Addr) bool {
	if !remote.IsValid() {
		return false
	}
	p := n.Addr(FamilyOf(remote))
	return p.IsValid() && p.Contains(remote)
}

// Pool is an IP pool (Calico IPPool).
type Pool struct {
	Name             string
	CIDR             netip.Prefix // masked
	IPIPMode         Mode
	VXLANMode        Mode
	NATOutgoing      bool
	Disabled         bool // no new allocations; routing goes on
	DisableBGPExport bool
	BlockSize        int       // prefix length of the pool's blocks
	NodeSelector     string    // which nodes may claim blocks; "" = all()
	Workload, Tunnel bool      // allowedUses
	Manual           bool      // assignmentMode: Manual
	Terminating      bool      // metadata.deletionTimestamp is set
	Created          time.Time // of two pools in one range the older one counts
}

// Encapsulation returns the pool's kind of tunnel and its mode. Where a datastore without
// validation holds both, VXLAN wins, as in Felix.
func (p *Pool) Encapsulation() (Encapsulation, Mode) {
	switch {
	case p.VXLANMode != Never:
		return VXLAN, p.VXLANMode
	case p.IPIPMode != Never:
		return IPIP, p.IPIPMode
	}
	return NoEncapsulation, Never
}

// Block is an IPAM block: the unit in which addresses are given to nodes (Calico IPAMBlock).
// Soft-deleted blocks never become a Block.
type Block struct {
	CIDR netip.Prefix
	Node string // from affinity host:<node>; "" = no owner or a virtual one
	// Virtual names the pseudo-node of affinity virtual:<name> (LoadBalancer blocks); such blocks are not routed.
	Virtual string
	// Borrowed lists addresses of the block used by a node other than Node, sorted by address.
	Borrowed []Assignment
}

// Name returns the name of the block's object: its CIDR with dashes, "10-244-1-0-26".
func (b *Block) Name() string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(b.CIDR.String())
}

// Assignment says which node uses one address.
type Assignment struct {
	Addr netip.Addr
	Node string
}

// AffinityState is the state of a node's claim on a block (Calico BlockAffinity.spec.state).
type AffinityState string

// The states of a claim; the empty state of old objects is read as confirmed.
const (
	Confirmed       AffinityState = "confirmed"
	Pending         AffinityState = "pending"
	PendingDeletion AffinityState = "pendingDeletion"
)

// Affinity is a node's claim on a block (Calico BlockAffinity, type host). BGP origination trusts
// this, not Block.Node; it is what BIRD's configuration is made from.
type Affinity struct {
	Node  string
	CIDR  netip.Prefix
	State AffinityState
}

// Service is a Kubernetes Service with addresses of its own.
type Service struct {
	Name string // namespace and name: "default/web"
	// ClusterIPs, ExternalIPs (spec.externalIPs) and LoadBalancerIPs (status.loadBalancer.ingress), each sorted.
	ClusterIPs, ExternalIPs, LoadBalancerIPs []netip.Addr
	// Local: packets from outside go to endpoints of the node they come to only (externalTrafficPolicy: Local). InternalLocal: those to
	// cluster addresses do (internalTrafficPolicy: Local).
	Local, InternalLocal bool
	HealthPort           uint16 // healthCheckNodePort, 0 = none
}

// EndpointSlice is where endpoints of a Service are ready (Kubernetes EndpointSlice).
type EndpointSlice struct {
	Name    string // namespace and name
	Service string // namespace and name of the Service
	Family  Family
	Ready   []string // the nodes with ready endpoints, sorted, each once; "" for endpoints of no known node
}

// Pod is a workload of a node that has a network of its own (Kubernetes Pod).
type Pod struct {
	Name  string // namespace and name
	Node  string // Kubernetes' name of the node
	Addrs []netip.Addr
	// Labels are the Pod's, with those that Calico adds for selectors: projectcalico.org/namespace, orchestrator and serviceaccount.
	Labels map[string]string
}

// FelixConfig holds the FelixConfiguration fields that routing reads, with Calico's defaults applied.
type FelixConfig struct {
	VXLANMTU, VXLANMTUv6, IPIPMTU int // bytes; 0 = parent's MTU less the overhead
	VXLANPort                     uint16
	VXLANVNI                      uint32
	RouteSource4, RouteSource6    netip.Addr // deviceRouteSourceAddress(IPv6)
	// What a Felix beside us programs: not IPv4 VXLAN pools with VXLANOff (vxlanEnabled: false), nothing of IPv6 with IPv6Off
	// (ipv6Support: false), and Programs (programClusterRoutes) of the other pools.
	VXLANOff, IPv6Off bool
	Programs          ClusterRoutes
}

// ClusterRoutes are the pools whose routes one program makes (programClusterRoutes).
type ClusterRoutes struct{ IPIP, NoEncap bool }
