package cluster

import (
	"fmt"
	"slices"
)

// State returns a snapshot; the same one again where nothing changed since. Cross-object rules are applied here and add Problems:
//
//   - of two overlapping pools the one that has stood longer stays, and among newcomers the older one, then the first by name;
//   - an IPv6 pool with IPIP, a pool with both modes or without a CIDR is taken in its last good form; where it never had one, that
//     with both modes is read as VXLAN, as Felix reads it, that of IPv6 without IPIP, and that without a CIDR is left out;
//   - of two nodes with one address the first by name is the one that NodeByAddr knows.
func (b *Builder) State() *State {
	if b.last != nil && !b.touched {
		return b.last
	}
	var s State
	s.recorded.Nodes, s.unknown.nodes = remember(b.nodes.settle())
	s.recorded.Blocks, s.unknown.blocks = remember(b.settleBlocks())
	s.recorded.Affinities, s.unknown.affinities = remember(b.affinities.settle())
	s.recorded.Peers, s.unknown.peers = remember(b.peers.settle())
	s.recorded.Filters, s.unknown.filters = remember(b.filters.settle())
	s.recorded.Secrets, s.unknown.secrets = remember(b.secrets.settle())
	s.recorded.Services, s.unknown.services = remember(b.services.settle())
	s.recorded.Slices, s.unknown.slices = remember(b.slices.settle())
	s.recorded.Pods, s.unknown.pods = remember(b.pods.settle())
	s.recorded.Pools, s.unknown.pools = remember(b.settlePools())
	if len(b.addrs.settle()) > 0 {
		b.addrProblems = sharedAddrs(b.addrs.live)
	}
	s.addrs = b.addrs.live
	s.blockBits, s.poolBits = b.blockBits.settle(), b.poolBits.settle()
	s.o = Objects{
		Nodes: b.nodes.live, Pools: b.byCIDR, Blocks: b.blocks.live, Affinities: b.affinities.live, Peers: b.peers.live,
		Filters: b.filters.live, Secrets: b.secrets.live, Services: b.services.live, Slices: b.slices.live, Pods: b.pods.live, BGP: b.bgp, Felix: b.felix, Backend: b.backend,
	}
	b.settleProblems(&s)
	b.place(&s)
	b.last, b.touched = &s, false
	return b.last
}

// place gives a State its number and notes which of the single objects changed.
func (b *Builder) place(s *State) {
	if b.last == nil {
		s.lineage, s.revision = &lineage{}, 1
		s.unknown = unknownAll()
		return
	}
	s.lineage, s.revision = b.last.lineage, b.last.revision+1
}

// remember keeps a short list of changes for Diff; a long one is not worth its memory.
func remember[T any](changes []Change[T]) ([]Change[T], bool) {
	if len(changes) > recordedMost {
		return nil, true
	}
	return changes, false
}

func (b *Builder) settleBlocks() []Change[Block] {
	changes := b.blocks.settle()
	for _, c := range changes {
		if c.Old != nil && c.New != nil {
			continue // same CIDR
		}
		if c.Old != nil {
			b.blockBits.add(c.Old.CIDR, -1)
		}
		if c.New != nil {
			b.blockBits.add(c.New.CIDR, 1)
		}
	}
	return changes
}

// settlePools judges all pools anew if one changed.
func (b *Builder) settlePools() []Change[Pool] {
	if len(b.pools.settle()) == 0 {
		return nil
	}
	var good []*Pool
	good, b.poolProblems = judgePools(b.pools.live, b.usable.standing)
	for _, p := range good {
		b.usable.set(p)
	}
	for _, p := range b.usable.live {
		if !slices.ContainsFunc(good, func(q *Pool) bool { return q.Name == p.Name }) {
			b.usable.remove(p.Name)
		}
	}
	changes := b.usable.settle()
	if len(changes) == 0 {
		return nil
	}
	for _, c := range changes {
		if c.Old != nil {
			b.poolBits.add(c.Old.CIDR, -1)
		}
		if c.New != nil {
			b.poolBits.add(c.New.CIDR, 1)
		}
	}
	b.byCIDR = slices.Clone(b.usable.live)
	slices.SortFunc(b.byCIDR, func(p, q *Pool) int { return comparePrefix(p.CIDR, q.CIDR) })
	return changes
}

// sharedAddrs reports node addresses with more than one claimant; addrs are sorted.
func sharedAddrs(addrs []*NodeAddr) []Problem {
	var found []Problem
	for i := 1; i < len(addrs); i++ {
		a := addrs[i]
		if a.Kind != HostAddr || addrs[i-1].Addr != a.Addr || addrs[i-1].Kind != HostAddr {
			continue
		}
		first := i - 1
		for first > 0 && addrs[first-1].Addr == a.Addr && addrs[first-1].Kind == HostAddr {
			first--
		}
		field := "spec.bgp.ipv4Address"
		if FamilyOf(a.Addr) == IPv6 {
			field = "spec.bgp.ipv6Address"
		}
		found = append(found, Problem{
			Object: "Node " + a.Node, Field: field,
			Text: fmt.Sprintf("address %v is also that of node %s, which is first by name and is taken for its owner; "+
				"give one of the two its own address, or delete the Node that no longer exists", a.Addr, addrs[first].Node),
		})
	}
	return found
}

// settleProblems joins the datastore's problems and ours, sharing the last State's list where it is the same.
func (b *Builder) settleProblems(s *State) {
	if len(b.problems)+len(b.poolProblems)+len(b.addrProblems) == 0 {
		return
	}
	all := slices.Concat(b.problems, b.poolProblems, b.addrProblems)
	slices.SortFunc(all, compareProblems)
	if slices.Equal(all, b.last.Problems()) {
		all = b.last.Problems()
	}
	s.o.Problems = all
}
