package cluster

import (
	"slices"
	"strings"
)

// Changes is what differs between two States, sorted by key within each kind. Pools are the usable ones.
type Changes struct {
	Nodes      []Change[Node]
	Pools      []Change[Pool]
	Blocks     []Change[Block]
	Affinities []Change[Affinity]
	Peers      []Change[BGPPeer]
	Filters    []Change[BGPFilter]
	Secrets    []Change[Secret]
	Services   []Change[Service]
	Slices     []Change[EndpointSlice]
	Pods       []Change[Pod]
	BGP        bool
	Felix      bool
	Backend    bool
	Problems   bool
}

// unknown marks the kinds whose changes were too many to record.
type unknown struct{ nodes, pools, blocks, affinities, peers, filters, secrets, services, slices, pods bool }

// unknownAll marks every kind.
func unknownAll() unknown { return unknown{true, true, true, true, true, true, true, true, true, true} }

// Diff returns what changed from one State to another; nil means an empty cluster. For two States in a row of one Builder it
// costs nothing, for any others one walk over the sorted lists that compares pointers. An object that
// was set to something else and back may be listed although it is equal.
func Diff(old, now *State) Changes {
	if old == now {
		return Changes{}
	}
	var c Changes
	known := unknownAll()
	if old != nil && now != nil && old.lineage != nil && old.lineage == now.lineage && old.revision+1 == now.revision {
		c, known = now.recorded, now.unknown
	}
	a, b := old.objects(), now.objects()
	if known.nodes {
		c.Nodes = walk(a.Nodes, b.Nodes, func(x, y *Node) int { return strings.Compare(x.Name, y.Name) })
	}
	if known.pools {
		c.Pools = walk(byName(a.Pools), byName(b.Pools), func(x, y *Pool) int { return strings.Compare(x.Name, y.Name) })
	}
	if known.blocks {
		c.Blocks = walk(a.Blocks, b.Blocks, func(x, y *Block) int { return comparePrefix(x.CIDR, y.CIDR) })
	}
	if known.affinities {
		c.Affinities = walk(a.Affinities, b.Affinities, func(x, y *Affinity) int {
			if n := strings.Compare(x.Node, y.Node); n != 0 {
				return n
			}
			return comparePrefix(x.CIDR, y.CIDR)
		})
	}
	if known.peers {
		c.Peers = walk(a.Peers, b.Peers, func(x, y *BGPPeer) int { return strings.Compare(x.Name, y.Name) })
	}
	if known.filters {
		c.Filters = walk(a.Filters, b.Filters, func(x, y *BGPFilter) int { return strings.Compare(x.Name, y.Name) })
	}
	if known.secrets {
		c.Secrets = walk(a.Secrets, b.Secrets, func(x, y *Secret) int { return strings.Compare(x.Name, y.Name) })
	}
	if known.services {
		c.Services = walk(a.Services, b.Services, func(x, y *Service) int { return strings.Compare(x.Name, y.Name) })
	}
	if known.slices {
		c.Slices = walk(a.Slices, b.Slices, func(x, y *EndpointSlice) int {
			return compareSliceKeys(sliceKey{x.Service, x.Name}, sliceKey{y.Service, y.Name})
		})
	}
	if known.pods {
		c.Pods = walk(a.Pods, b.Pods, func(x, y *Pod) int { return strings.Compare(x.Name, y.Name) })
	}
	c.BGP = !equalBGP(&a.BGP, &b.BGP)
	c.Felix = a.Felix != b.Felix
	c.Backend = a.Backend != b.Backend
	c.Problems = !sameProblems(a.Problems, b.Problems)
	return c
}

// Real leaves out what is listed although it is equal: objects that were set to something else and back, or were read anew.
func (c Changes) Real() Changes {
	c.Nodes = changed(c.Nodes, equalNodes)
	c.Pools = changed(c.Pools, func(a, b *Pool) bool { return *a == *b })
	c.Blocks = changed(c.Blocks, equalBlocks)
	c.Affinities = changed(c.Affinities, func(a, b *Affinity) bool { return *a == *b })
	c.Peers = changed(c.Peers, equalPeers)
	c.Filters = changed(c.Filters, equalFilters)
	c.Secrets = changed(c.Secrets, equalSecrets)
	c.Services = changed(c.Services, equalServices)
	c.Slices = changed(c.Slices, equalSlices)
	c.Pods = changed(c.Pods, equalPods)
	return c
}

// changed does not write to the list, which a State may have recorded.
func changed[T any](all []Change[T], equal func(a, b *T) bool) (out []Change[T]) {
	for _, c := range all {
		if c.Old == nil || c.New == nil || !equal(c.Old, c.New) {
			out = append(out, c)
		}
	}
	return out
}

func sameProblems(a, b []Problem) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// walk compares two sorted lists by pointer.
func walk[T any](old, now []*T, compare func(a, b *T) int) []Change[T] {
	if len(old) == len(now) && (len(old) == 0 || &old[0] == &now[0]) {
		return nil
	}
	var out []Change[T]
	i, j := 0, 0
	for i < len(old) && j < len(now) {
		if old[i] == now[j] {
			i, j = i+1, j+1
			continue
		}
		switch n := compare(old[i], now[j]); {
		case n < 0:
			out = append(out, Change[T]{Old: old[i]})
			i++
		case n > 0:
			out = append(out, Change[T]{New: now[j]})
			j++
		default:
			out = append(out, Change[T]{Old: old[i], New: now[j]})
			i, j = i+1, j+1
		}
	}
	for ; i < len(old); i++ {
		out = append(out, Change[T]{Old: old[i]})
	}
	for ; j < len(now); j++ {
		out = append(out, Change[T]{New: now[j]})
	}
	return out
}

// byName sorts pools by their key.
func byName(pools []*Pool) []*Pool {
	out := slices.Clone(pools)
	slices.SortFunc(out, func(a, b *Pool) int { return strings.Compare(a.Name, b.Name) })
	return out
}
