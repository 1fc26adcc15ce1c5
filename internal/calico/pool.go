package calico

import (
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Values of IPPool's fields (API: ippool.go).
const (
	modeNever       = "Never"
	modeAlways      = "Always"
	modeCrossSubnet = "CrossSubnet"

	useWorkload     = "Workload"
	useTunnel       = "Tunnel"
	useLoadBalancer = "LoadBalancer"

	assignAutomatic = "Automatic"
	assignManual    = "Manual"
)

// Block sizes by family: default, smallest and greatest prefix length (API: ippool.go).
const (
	blockSize4, minBlockSize4, maxBlockSize4 = 26, 20, 32
	blockSize6, minBlockSize6, maxBlockSize6 = 122, 116, 128
)

// Pool checks and converts the pool. What Calico's definitions would refuse, and older ones do not, is read as Calico's programs read it: of two modes
// VXLAN counts (Felix), and IPIP counts nothing for IPv6 (BIRD). Routes are made of a pool's range and modes, so one with a problem elsewhere is still
// routed by, but gives out no addresses. Without a range or a known mode it is nil.
func (o *IPPool) Pool() (*cluster.Pool, []cluster.Problem) {
	c := newCheck(o)
	p := &cluster.Pool{
		Name:             o.Name,
		CIDR:             c.poolCIDR(o.Spec.CIDR),
		IPIPMode:         c.mode("spec.ipipMode", o.Spec.IPIPMode),
		VXLANMode:        c.mode("spec.vxlanMode", o.Spec.VXLANMode),
		NATOutgoing:      o.Spec.NATOutgoing,
		Disabled:         o.Spec.Disabled,
		DisableBGPExport: o.Spec.DisableBGPExport,
		NodeSelector:     o.Spec.NodeSelector,
		Terminating:      o.DeletionTimestamp != nil,
	}
	if o.CreationTimestamp != nil {
		p.Created = *o.CreationTimestamp
	}
	if !c.ok() {
		return nil, c.problems
	}
	c.poolEncapsulation(p)
	before := len(c.problems)
	p.Manual = c.oneOf("spec.assignmentMode", o.Spec.AssignmentMode, assignAutomatic, assignManual) == assignManual
	c.poolBlockSize(p, o.Spec.BlockSize)
	sel := c.selector("spec.nodeSelector", o.Spec.NodeSelector)
	if sel.UsesGlobal() {
		c.add("spec.nodeSelector", "global() has no meaning for nodes: write all()")
	}
	c.poolUses(p, o.Spec.AllowedUses, sel)
	p.Disabled = p.Disabled || len(c.problems) > before
	return p, c.problems
}

func (c *check) poolCIDR(s string) netip.Prefix {
	const field = "spec.cidr"
	p := c.cidr(field, s, "10.244.0.0/16")
	for _, local := range []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")} {
		if p.IsValid() && p.Overlaps(local) {
			c.add(field, "%s overlaps the link-local range %s, which is never routed: choose another range", p, local)
		}
	}
	return p
}

func (c *check) mode(field, s string) cluster.Mode {
	switch c.oneOf(field, s, modeNever, modeAlways, modeCrossSubnet) {
	case modeAlways:
		return cluster.Always
	case modeCrossSubnet:
		return cluster.CrossSubnet
	}
	return cluster.Never
}

func (c *check) poolEncapsulation(p *cluster.Pool) {
	if p.IPIPMode != cluster.Never && p.CIDR.IsValid() && p.CIDR.Addr().Is6() {
		c.add("spec.ipipMode", "IPIP carries IPv4 only, %s is IPv6: set ipipMode to Never and use vxlanMode", p.CIDR)
		p.IPIPMode = cluster.Never
		return
	}
	if p.IPIPMode != cluster.Never && p.VXLANMode != cluster.Never {
		c.add("spec.vxlanMode", "ipipMode is %s and vxlanMode is %s, but a pool has one encapsulation: set one of them to Never", p.IPIPMode, p.VXLANMode)
		p.IPIPMode = cluster.Never
	}
}

func (c *check) poolBlockSize(p *cluster.Pool, size int) {
	const field = "spec.blockSize"
	def, low, high := blockSize4, minBlockSize4, maxBlockSize4
	if p.CIDR.IsValid() && p.CIDR.Addr().Is6() {
		def, low, high = blockSize6, minBlockSize6, maxBlockSize6
	}
	given := &size
	if size == 0 { // Calico reads an explicit 0 as "not set"
		given = nil
	}
	p.BlockSize = c.number(field, given, def, low, high)
	if p.CIDR.IsValid() && p.CIDR.Bits() > p.BlockSize && !p.Disabled {
		c.add(field, "a block of /%d does not fit into %s: write a number from %d to %d, or make the pool larger", p.BlockSize, p.CIDR, max(low, p.CIDR.Bits()), high)
	}
}

func (c *check) poolUses(p *cluster.Pool, uses []string, sel *Selector) {
	const field = "spec.allowedUses"
	if len(uses) == 0 {
		p.Workload, p.Tunnel = true, true
		return
	}
	for _, u := range uses {
		c.oneOf(field, u, useWorkload, useTunnel, useLoadBalancer)
	}
	p.Workload, p.Tunnel = slices.Contains(uses, useWorkload), slices.Contains(uses, useTunnel)
	if !slices.Contains(uses, useLoadBalancer) {
		return
	}
	switch {
	case p.Workload || p.Tunnel:
		c.add(field, "LoadBalancer cannot be combined with Workload or Tunnel: make two pools")
	case p.IPIPMode != cluster.Never || p.VXLANMode != cluster.Never:
		c.add(field, "a pool for LoadBalancer has no encapsulation: set ipipMode and vxlanMode to Never")
	case p.DisableBGPExport:
		c.add(field, "a pool for LoadBalancer must be announced: set disableBGPExport to false")
	case sel != nil && !sel.IsAll():
		c.add(field, "a pool for LoadBalancer serves every node: set nodeSelector to all()")
	}
}
