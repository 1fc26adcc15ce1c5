package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// tunnel is a kind of tunnel address: where it stands in a Node, under which handle and type it is assigned
// (reference 3.6), and which pools ask for it.
type tunnel struct {
	name   string
	family cluster.Family
	encap  cluster.Encapsulation
	handle string // less the node's name
	typ    string // attribute "type"
	field  string // path in the Node
	// value returns the field of a Node; patch sets it in a NodePatch.
	value func(*calico.Node) string
	patch func(*datastore.NodePatch, *netip.Addr)
}

const (
	attrType = "type" // attribute that says what an address is for
	attrNode = calico.AttrNode
)

// tunnels are the kinds of tunnel addresses, in Calico's order. WireGuard's are not ours.
func tunnels() []tunnel {
	return []tunnel{
		{"IPIP", cluster.IPv4, cluster.IPIP, "ipip-tunnel-addr-", "ipipTunnelAddress", "spec.bgp.ipv4IPIPTunnelAddr",
			func(n *calico.Node) string {
				if n.Spec.BGP == nil {
					return ""
				}
				return n.Spec.BGP.IPv4IPIPTunnelAddr
			},
			func(p *datastore.NodePatch, a *netip.Addr) { p.IPIPAddr = a }},
		{"VXLAN", cluster.IPv4, cluster.VXLAN, "vxlan-tunnel-addr-", "vxlanTunnelAddress", "spec.ipv4VXLANTunnelAddr",
			func(n *calico.Node) string { return n.Spec.IPv4VXLANTunnelAddr },
			func(p *datastore.NodePatch, a *netip.Addr) { p.VXLANAddr4 = a }},
		{"IPv6 VXLAN", cluster.IPv6, cluster.VXLAN, "vxlan-v6-tunnel-addr-", "vxlanV6TunnelAddress", "spec.ipv6VXLANTunnelAddr",
			func(n *calico.Node) string { return n.Spec.IPv6VXLANTunnelAddr },
			func(p *datastore.NodePatch, a *netip.Addr) { p.VXLANAddr6 = a }},
	}
}

func (t *tunnel) attrs(node string) map[string]string {
	return map[string]string{attrNode: node, attrType: t.typ}
}

func (t *tunnel) isOurs(h *holder, node string) bool {
	return h != nil && h.attrs[attrNode] == node && h.attrs[attrType] == t.typ
}

// EnsureTunnelAddresses brings the node's tunnel addresses in line with the pools (reference 3.9): one for each kind of
// tunnel that a pool which selects the node and allows tunnels asks for, none for the others. It first repairs what a
// crash may have left, then looks at each kind by itself: one that cannot be served is reported with its pools, and
// neither stops the others nor undoes them. What a pool with a problem may have given the node stays. All changes go to the Node in one patch. Call it at start, whenever a pool
// or the node's labels change, and again after an error.
func (c *Client) EnsureTunnelAddresses(ctx context.Context) error {
	c.tunnels.Lock()
	defer c.tunnels.Unlock()
	var errs []error
	if !c.sound {
		errs = append(errs, c.repair(ctx))
	}
	o, err := c.begin(ctx)
	if err == nil {
		err = o.ensureTunnels(ctx)
	}
	err = errors.Join(append(errs, err)...)
	c.sound = err == nil
	if err != nil {
		return fmt.Errorf("tunnel addresses of node %s: %w", c.Node, err)
	}
	return nil
}

func (o *operation) ensureTunnels(ctx context.Context) error {
	node, err := fetch[*calico.Node](ctx, o.Client, calico.KindNode, o.Node)
	if err != nil {
		return err
	}
	if err := o.loadPools(ctx); err != nil {
		return err
	}
	o.node = node
	pass := &tunnelPass{operation: o, fresh: map[string]netip.Addr{}}
	var errs []error
	for _, t := range tunnels() {
		if err := pass.ensure(ctx, &t); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.name, err))
		}
	}
	errs = append(errs, pass.write(ctx))
	return errors.Join(errs...)
}

// tunnelPass is one pass over the kinds of tunnels.
type tunnelPass struct {
	*operation
	patch datastore.NodePatch
	dirty bool
	// fresh are the addresses assigned in this pass, by handle.
	fresh map[string]netip.Addr
}

// set notes a change of the Node; the zero Addr clears the field.
func (p *tunnelPass) set(t *tunnel, addr netip.Addr) {
	t.patch(&p.patch, &addr)
	p.dirty = true
}

// ensure handles one kind of tunnel.
func (p *tunnelPass) ensure(ctx context.Context, t *tunnel) error {
	text := t.value(p.node)
	var current netip.Addr
	if text != "" {
		var err error
		if current, err = netip.ParseAddr(text); err != nil || cluster.FamilyOf(current) != t.family {
			return fmt.Errorf("%s of Node %s is %q, which is no %s address; correct or clear the field", t.field, p.Node, text, t.family)
		}
	}
	pools, err := p.tunnelPools(ctx, t)
	if err != nil {
		return err
	}
	doubt := current.IsValid() && p.inDoubt(current)
	if len(pools) == 0 && !doubt {
		return p.drop(ctx, t, current)
	}
	if !current.IsValid() {
		return p.renew(ctx, t, pools, current)
	}
	held, err := p.lookup(ctx, current)
	switch {
	case err != nil:
		return err
	case doubt && t.isOurs(held, p.Node):
		return p.keep(ctx, t, current)
	case len(pools) == 0:
		return p.drop(ctx, t, current)
	}
	return p.judge(ctx, t, pools, current, held)
}

// judge is the table of reference 3.9 for an address that the Node has and the holder IPAM knows for it.
func (p *tunnelPass) judge(ctx context.Context, t *tunnel, pools []*cluster.Pool, current netip.Addr, held *holder) error {
	switch {
	case held == nil:
		return p.renew(ctx, t, pools, current)
	case t.isOurs(held, p.Node):
		if within(pools, netip.PrefixFrom(current, current.BitLen())) != nil {
			return p.keep(ctx, t, current)
		}
		return p.renew(ctx, t, pools, current)
	case len(held.attrs) == 0 && held.handle == "": // from before addresses had either
		return p.adopt(ctx, t, pools, current)
	}
	return p.renew(ctx, t, pools, current) // a pod's, or another node's
}

// tunnelPools returns the pools that ask for a kind of tunnel on this node. Pools that take no new addresses are left
// out rather than failing the assignment (reference, sharp edge 33).
func (p *tunnelPass) tunnelPools(ctx context.Context, t *tunnel) (pools []*cluster.Pool, err error) {
	for _, pool := range p.pools {
		encap, mode := pool.Encapsulation()
		if cluster.FamilyOf(pool.CIDR.Addr()) != t.family || encap != t.encap || mode == cluster.Never ||
			!pool.Tunnel || !open(pool) {
			continue
		}
		ok, err := p.selects(ctx, pool)
		if err != nil {
			return nil, err
		}
		if ok {
			pools = append(pools, pool)
		}
	}
	return pools, nil
}

// keep leaves the Node's address and releases any other under the same handle: what a pass that died before it wrote
// the Node had assigned.
func (p *tunnelPass) keep(ctx context.Context, t *tunnel, current netip.Addr) error {
	handle := t.handle + p.Node
	h, err := orNil(p.readHandle(ctx, handle))
	if err != nil {
		return err
	}
	counts := map[string]int{}
	if h != nil {
		counts = h.Spec.Block
	}
	cidr, err := p.blockOf(ctx, current)
	if err != nil || len(counts) == 1 && counts[cidr.String()] == 1 {
		return err
	}
	blocks := slices.Collect(maps.Keys(counts))
	if !slices.Contains(blocks, cidr.String()) {
		blocks = append(blocks, cidr.String())
	}
	slices.Sort(blocks)
	for _, text := range blocks {
		block, err := netip.ParsePrefix(text)
		if err == nil {
			err = p.releaseHeld(ctx, handle, block, current)
		}
		if err != nil {
			return fmt.Errorf("release what else handle %s holds in block %s: %w", handle, text, err)
		}
	}
	return nil
}

// renew assigns a new address, after releasing what the handle holds. The handle is this node's alone, so that is right also where
// the Node names somebody else's address: what Calico leaves alone there is that address, and so do we, but one of ours that
// the Node does not name would stay assigned for nothing.
func (p *tunnelPass) renew(ctx context.Context, t *tunnel, pools []*cluster.Pool, current netip.Addr) error {
	handle := t.handle + p.Node
	if current.IsValid() {
		p.set(t, netip.Addr{}) // whatever comes next, the Node must not name an address that is not the node's
	}
	if err := p.releaseByHandle(ctx, handle); err != nil && !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	addr, err := p.assign(ctx, t, pools)
	if err != nil {
		return err
	}
	p.fresh[handle] = addr
	p.set(t, addr)
	p.log().Info("tunnel address assigned", keyTunnel, t.name, keyAddr, addr, keyBefore, t.value(p.node))
	return nil
}

func (p *tunnelPass) assign(ctx context.Context, t *tunnel, pools []*cluster.Pool) (netip.Addr, error) {
	r := Request{Family: t.family, Num: 1, Handle: t.handle + p.Node, Attrs: t.attrs(p.Node), Use: Tunnel}
	for _, pool := range pools {
		r.Pools = append(r.Pools, pool.CIDR)
	}
	got, err := p.AutoAssign(ctx, r)
	if err != nil {
		return netip.Addr{}, err
	}
	return got[0].Addr(), nil
}

// adopt gives an address without holder and attributes to the node properly: it is released and assigned again.
func (p *tunnelPass) adopt(ctx context.Context, t *tunnel, pools []*cluster.Pool, current netip.Addr) error {
	if _, err := p.ReleaseIPs(ctx, Release{Addr: current}); err != nil {
		return err
	}
	handle := t.handle + p.Node
	err := p.AssignIP(ctx, current, handle, t.attrs(p.Node), Tunnel)
	if err == nil {
		p.fresh[handle] = current
		return nil
	}
	p.log().Info("tunnel address lost", keyTunnel, t.name, keyAddr, current, keyErr, err)
	return p.renew(ctx, t, pools, current)
}

// drop clears the Node's address and releases it, if it is the node's to release.
func (p *tunnelPass) drop(ctx context.Context, t *tunnel, current netip.Addr) error {
	handle := t.handle + p.Node
	if current.IsValid() {
		p.set(t, netip.Addr{})
		p.log().Info("tunnel address released", keyTunnel, t.name, keyAddr, current)
	}
	err := p.releaseByHandle(ctx, handle)
	if !errors.Is(err, datastore.ErrNotFound) || !current.IsValid() {
		if errors.Is(err, datastore.ErrNotFound) {
			return nil
		}
		return err
	}
	held, err := p.lookup(ctx, current)
	if err != nil || held == nil || held.handle != handle && (held.handle != "" || len(held.attrs) != 0) {
		return err
	}
	_, err = p.ReleaseIPs(ctx, Release{Addr: current, Handle: held.handle})
	return err
}

// write patches the Node. If that fails, the addresses assigned in this pass are given back, unless the Node turns out
// to have them or cannot be read: then the next pass sees what is so.
func (p *tunnelPass) write(ctx context.Context) error {
	if !p.dirty {
		return nil
	}
	err := retry(ctx, "patch Node "+p.Node, func() error { return p.Store.PatchNode(ctx, p.Node, p.patch) })
	if err == nil {
		return nil
	}
	err = fmt.Errorf("patch Node %s: %w", p.Node, err)
	ctx, cancel := undo(ctx)
	defer cancel()
	node, rerr := fetch[*calico.Node](ctx, p.Client, calico.KindNode, p.Node)
	if rerr != nil && !errors.Is(rerr, datastore.ErrNotFound) {
		return err
	}
	errs := []error{err}
	for _, t := range tunnels() {
		handle := t.handle + p.Node
		if addr, ok := p.fresh[handle]; ok && (node == nil || t.value(node) != addr.String()) {
			errs = append(errs, p.releaseByHandle(ctx, handle))
		}
	}
	return errors.Join(errs...)
}
