package vxlan

import (
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// outcome is what one block leads to. It is kept for each block, so it is small: ways are shared.
type outcome struct {
	way   *way    // of the block as a whole; nil = no route
	extra []guest // addresses that go elsewhere, sorted; nearly always none
	lost  bool    // a node's block in no pool
}

// guest is one address of a block that another node uses.
type guest struct {
	addr netip.Addr
	way  *way
}

// judge works out what a block leads to. in are the node addresses inside it.
func (p *Planner) judge(st *cluster.State, b *cluster.Block, in []*cluster.NodeAddr) outcome {
	if b.Virtual != "" {
		return outcome{}
	}
	pool := st.PoolFor(b.CIDR)
	if pool == nil {
		return p.judgeLost(b, in)
	}
	enc, _ := pool.Encapsulation()
	if p.ground.backend == cluster.BackendBird && enc != cluster.VXLAN {
		return outcome{} // BGP's
	}
	if b.CIDR.IsSingleIP() {
		return outcome{way: p.judgeSingle(st, b, pool, in)}
	}
	var o outcome
	if b.Node != "" && (b.Node != p.node || enc != cluster.IPIP) {
		o.way = p.ground.find(p.roll.get(b.Node), pool, wholeBlock)
	}
	p.eachGuest(b, in, func(a netip.Addr, node string, u use) {
		if node == b.Node || node == p.node || node == "" || st.BlockOf(a) != b || isHost(in, a) {
			return // the block's route serves, or the workload's own, or the smaller block decides
		}
		o.extra = append(o.extra, guest{addr: a, way: p.ground.find(p.roll.get(node), pool, u)})
	})
	return o
}

// judgeLost judges a block in no pool. There is no rule by which to route it; where BGP brings a route all the same, the
// programmer takes that, because a wish without a way stands in nobody's way.
func (p *Planner) judgeLost(b *cluster.Block, in []*cluster.NodeAddr) outcome {
	o := outcome{lost: b.Node != ""}
	if o.lost && b.Node != p.node && !(b.CIDR.IsSingleIP() && isHost(in, b.CIDR.Addr())) {
		o.way = p.ground.find(p.roll.get(b.Node), nil, wholeBlock)
	}
	return o
}

// judgeSingle judges a block of one address: there is one route at most, and whoever uses the address has it. An own one
// needs no blackhole, it has its workload's route.
func (p *Planner) judgeSingle(st *cluster.State, b *cluster.Block, pool *cluster.Pool, in []*cluster.NodeAddr) *way {
	node, u := b.Node, wholeBlock
	p.eachGuest(b, in, func(_ netip.Addr, by string, as use) { node, u = by, as })
	if node == "" || node == p.node || isHost(in, b.CIDR.Addr()) {
		return nil
	}
	return p.ground.find(p.roll.get(node), pool, u)
}

// isHost reports whether an address is a node's own: a route to it would cut the node off.
func isHost(in []*cluster.NodeAddr, a netip.Addr) bool {
	return slices.ContainsFunc(in, func(n *cluster.NodeAddr) bool { return n.Kind == cluster.HostAddr && n.Addr == a })
}

// eachGuest calls yield, in order of address, with each address of a block that its allocations or a tunnel end give to a
// node. A tunnel end weighs more than the allocation, and of two alike the first by name counts, as in Felix's route resolver.
func (p *Planner) eachGuest(b *cluster.Block, in []*cluster.NodeAddr, yield func(netip.Addr, string, use)) {
	borrowed := b.Borrowed
	for k, a := range in {
		if a.Kind != cluster.VXLANTunnelAddr || k > 0 && in[k-1].Kind == a.Kind && in[k-1].Addr == a.Addr {
			continue
		}
		for len(borrowed) > 0 && borrowed[0].Addr.Less(a.Addr) {
			yield(borrowed[0].Addr, borrowed[0].Node, oneAddr)
			borrowed = borrowed[1:]
		}
		if len(borrowed) > 0 && borrowed[0].Addr == a.Addr {
			borrowed = borrowed[1:]
		}
		yield(a.Addr, a.Node, tunnelAddr)
	}
	for _, a := range borrowed {
		yield(a.Addr, a.Node, oneAddr)
	}
}
