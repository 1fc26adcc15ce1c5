package calico

import (
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
)

// NodeInterface is one interface of a node with its addresses, without prefix lengths. Nothing is routed on it: Calico keeps
// it for peerings between hosts with several uplinks.
type NodeInterface struct {
	Name      string   `yaml:"name" json:"name"`
	Addresses []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
}

// AnnotationLeaving is "true" on the Node of a daemon that is cordoned or drained, where route reflectors are elected: others are then elected first.
const AnnotationLeaving = "caracal.net/leaving"

// ClusterNode checks and converts the node. With problems, the node comes without the values that are wrong, as Calico
// treats a bad annotation.
func (o *Node) ClusterNode() (*cluster.Node, []cluster.Problem) {
	c := newCheck(o)
	n := &cluster.Node{
		Name:       o.Name,
		Labels:     o.Labels,
		Leaving:    o.Annotations[AnnotationLeaving] == "true",
		VXLANAddr4: c.addr("spec.ipv4VXLANTunnelAddr", o.Spec.IPv4VXLANTunnelAddr, cluster.IPv4),
		VXLANAddr6: c.addr("spec.ipv6VXLANTunnelAddr", o.Spec.IPv6VXLANTunnelAddr, cluster.IPv6),
		VXLANMAC4:  c.mac("spec.vxlanTunnelMACAddr", o.Spec.VXLANTunnelMACAddr),
		VXLANMAC6:  c.mac("spec.vxlanTunnelMACAddrV6", o.Spec.VXLANTunnelMACAddrV6),
	}
	if b := o.Spec.BGP; b != nil {
		n.Addr4 = c.host("spec.bgp.ipv4Address", b.IPv4Address, cluster.IPv4)
		n.Addr6 = c.host("spec.bgp.ipv6Address", b.IPv6Address, cluster.IPv6)
		n.IPIPAddr = c.addr("spec.bgp.ipv4IPIPTunnelAddr", b.IPv4IPIPTunnelAddr, cluster.IPv4)
		n.RouteReflectorClusterID = c.clusterID(b.RouteReflectorClusterID)
		if b.ASNumber != nil {
			n.ASN = uint32(*b.ASNumber)
		}
	}
	return n, c.problems
}

// clusterID reads a route reflector's cluster ID: four bytes written as an IPv4 address (RFC 4456 section 8). It is an
// identifier, not an address, so any value will do.
func (c *check) clusterID(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		c.add("spec.bgp.routeReflectorClusterID", "%q is not a cluster ID: write it as an IPv4 address, as in 192.0.2.1", s)
		return netip.Addr{}
	}
	return a
}
