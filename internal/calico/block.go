package calico

import (
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Prefixes of IPAMBlock.spec.affinity (libcalico-go: model/block.go).
const (
	AffinityHost    = "host:"
	AffinityVirtual = "virtual:"
)

// Values of BlockAffinity.spec.type and of the label affinity-type.
const (
	AffinityTypeHost    = "host"
	AffinityTypeVirtual = "virtual"
)

// AttrNode is the key of an allocation's attributes that names the node which uses the address
// (libcalico-go: ipam_attributes.go).
const AttrNode = "node"

// Block checks and converts the block. A soft-deleted block gives neither a block nor a problem; one with a problem
// cannot be used at all.
func (o *IPAMBlock) Block() (*cluster.Block, []cluster.Problem) {
	if o.Spec.Deleted {
		return nil, nil
	}
	c := newCheck(o)
	b := &cluster.Block{CIDR: c.cidr("spec.cidr", o.Spec.CIDR, "10.244.1.0/26")}
	if b.CIDR.IsValid() && o.Name != BlockName(b.CIDR) {
		c.add("metadata.name", "the block of %s must be named %s, or Calico cannot find it", b.CIDR, BlockName(b.CIDR))
	}
	c.blockOwner(b, o.Spec.Affinity)
	c.blockBorrowed(b, &o.Spec)
	if !c.ok() {
		return nil, c.problems
	}
	return b, nil
}

func (c *check) blockOwner(b *cluster.Block, affinity *string) {
	if affinity == nil || *affinity == "" {
		return
	}
	if node, ok := strings.CutPrefix(*affinity, AffinityHost); ok && node != "" {
		b.Node = node
		return
	}
	if name, ok := strings.CutPrefix(*affinity, AffinityVirtual); ok && name != "" {
		b.Virtual = name
		return
	}
	c.add("spec.affinity", "%q names no owner: write host:<node>, or leave the field out", *affinity)
}

// blockBorrowed lists the addresses that another node uses than the block's (Calico: calc/l3_route_resolver.go). In a
// block without an owner that is every address in use; an address without the attribute node is nobody's.
func (c *check) blockBorrowed(b *cluster.Block, s *IPAMBlockSpec) {
	if !b.CIDR.IsValid() || b.Virtual != "" {
		return
	}
	hostBits := b.CIDR.Addr().BitLen() - b.CIDR.Bits()
	if hostBits > blockSize4Range || len(s.Allocations) != 1<<hostBits {
		c.add("spec.allocations", "has %d entries, but %s has 2^%d addresses: write one entry for each address, null if it is free", len(s.Allocations), b.CIDR, hostBits)
		return
	}
	addr := b.CIDR.Addr()
	for i, at := range s.Allocations {
		if i > 0 {
			addr = addr.Next()
		}
		if at == nil {
			continue
		}
		if *at < 0 || *at >= len(s.Attributes) {
			c.add("spec.allocations", "entry %d (%s) refers to attribute %d, but there are %d: write null if the address is free", i, addr, *at, len(s.Attributes))
			return
		}
		attrs := &s.Attributes[*at]
		if node := attrs.Secondary[AttrNode]; attrs.ReleasedAt == nil && node != "" && node != b.Node {
			b.Borrowed = append(b.Borrowed, cluster.Assignment{Addr: addr, Node: node})
		}
	}
}

// blockSize4Range is the number of host bits of the largest block Calico makes (/20, /116).
const blockSize4Range = 32 - minBlockSize4

// Affinity checks and converts the claim. A soft-deleted claim, or one of a virtual node, gives neither a claim nor a
// problem; one with a problem cannot be used at all.
func (o *BlockAffinity) Affinity() (*cluster.Affinity, []cluster.Problem) {
	if o.Spec.Deleted {
		return nil, nil
	}
	c := newCheck(o)
	typ := c.oneOf("spec.type", o.Spec.Type, AffinityTypeHost, AffinityTypeVirtual)
	a := &cluster.Affinity{
		Node:  o.Spec.Node,
		CIDR:  c.cidr("spec.cidr", o.Spec.CIDR, "10.244.1.0/26"),
		State: cluster.AffinityState(c.oneOf("spec.state", o.Spec.State, string(cluster.Confirmed), string(cluster.Pending), string(cluster.PendingDeletion))),
	}
	switch {
	case a.Node == "":
		c.add("spec.node", "is missing: write the name of the node that claims the block")
	case a.CIDR.IsValid():
		c.affinityName(o.Name, a.Node, a.CIDR)
	}
	if !c.ok() {
		return nil, c.problems
	}
	if typ == AffinityTypeVirtual {
		return nil, nil
	}
	return a, nil
}

// affinityName checks a claim's name. Names that had to be shortened are not looked at: former releases of Calico
// shortened them in other ways.
func (c *check) affinityName(name, node string, cidr netip.Prefix) {
	if len(node)+1+len(BlockName(cidr)) > maxName {
		return
	}
	if want := AffinityName(node, cidr); name != want {
		c.add("metadata.name", "the claim of %s on %s must be named %s, or Calico cannot find it", node, cidr, want)
	}
}
