package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Load reads every object that Check looks at.
func Load(ctx context.Context, store datastore.Store) (objects []calico.Object, err error) {
	for _, kind := range []calico.Kind{calico.KindIPPool, calico.KindNode, calico.KindIPAMBlock, calico.KindBlockAffinity, calico.KindIPAMHandle} {
		some, err := store.List(ctx, kind)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

// Check reports everything that does not agree in a datastore on which nobody is working:
//   - a block: its name, its place in a pool and its size there, blocks that overlap; every address either free or
//     allocated, once; attributes and sequence numbers for exactly what is allocated; a handle for each address;
//   - a claim: its name and labels; confirmed, and the block is that host's; a block of a host has that claim;
//   - a handle: its name, and that it counts exactly the addresses that are held under it;
//   - a node: its tunnel addresses are assigned to it, and no other address is under its tunnel handles.
//
// While somebody is working the order of writes makes some of this untrue for a moment; the package comment says what.
func Check(objects []calico.Object) error {
	k := &checker{counts: map[string]map[string]int{}, blocks: map[netip.Prefix]*block{}}
	var affs []*calico.BlockAffinity
	var handles []*calico.IPAMHandle
	var nodes []*calico.Node
	for _, obj := range objects {
		switch o := obj.(type) {
		case *calico.IPPool:
			if p, _ := o.Pool(); p != nil {
				k.pools = append(k.pools, p)
			}
		case *calico.IPAMBlock:
			k.addBlock(o)
		case *calico.BlockAffinity:
			affs = append(affs, o)
		case *calico.IPAMHandle:
			handles = append(handles, o)
		case *calico.Node:
			nodes = append(nodes, o)
		}
	}
	k.checkBlocks()
	k.checkAffinities(affs)
	k.checkHandles(handles)
	for _, n := range nodes {
		k.checkNode(n)
	}
	return errors.Join(k.errs...)
}

type checker struct {
	errs   []error
	pools  []*cluster.Pool
	blocks map[netip.Prefix]*block
	counts map[string]map[string]int // handle -> block -> addresses, as the blocks have it
}

func (k *checker) bad(obj calico.Object, format string, args ...any) {
	k.errs = append(k.errs, fmt.Errorf("%s: %s", calico.ObjectName(obj.Kind(), obj.Meta().Name), fmt.Sprintf(format, args...)))
}

func (k *checker) addBlock(obj *calico.IPAMBlock) {
	if obj.Spec.Deleted {
		k.bad(obj, "is marked deleted but still there")
		return
	}
	b, err := parseBlock(obj)
	if err != nil {
		k.errs = append(k.errs, err)
		return
	}
	k.blocks[b.cidr] = b
}

func (k *checker) checkBlocks() {
	var before *block
	for _, cidr := range slices.SortedFunc(maps.Keys(k.blocks), netip.Prefix.Compare) {
		b := k.blocks[cidr]
		if before != nil && before.cidr.Overlaps(cidr) {
			k.bad(b, "overlaps block %s", before.cidr)
		} else {
			before = b
		}
		if b.Name != calico.BlockName(cidr) {
			k.bad(b, "is the block %s and should be named %s", cidr, calico.BlockName(cidr))
		}
		o := operation{pools: k.pools}
		switch p := o.poolFor(cidr); {
		case p == nil:
			k.bad(b, "lies in no pool")
		case p.BlockSize != cidr.Bits():
			k.bad(b, "is a /%d in pool %s of /%d blocks", cidr.Bits(), p.Name, p.BlockSize)
		}
		k.checkAllocations(b)
	}
}

func (k *checker) checkAllocations(b *block) {
	places := make([]int, len(b.Spec.Allocations)) // of each ordinal in the queue
	for _, o := range b.Spec.Unallocated {
		places[o]++
	}
	used := make([]int, len(b.Spec.Attributes))
	for o, index := range b.Spec.Allocations {
		addr, seq := b.addr(o), b.sequence(o)
		if index == nil {
			if places[o] != 1 {
				k.bad(b, "%s is free and %d times in the queue of free addresses", addr, places[o])
			}
			if seq != 0 {
				k.bad(b, "%s is free and has a sequence number", addr)
			}
			continue
		}
		used[*index]++
		if seq > b.Spec.SequenceNumber {
			k.bad(b, "%s was assigned at sequence %d, the block is at %d", addr, seq, b.Spec.SequenceNumber)
		}
		a := &b.Spec.Attributes[*index]
		switch handle := handleOf(a); {
		case a.ReleasedAt != nil:
			if handle != "" {
				k.bad(b, "%s is released and still under handle %s", addr, handle)
			}
		case handle == "":
			k.bad(b, "%s is assigned without a handle", addr)
		default:
			k.count(handle, b.cidr)
		}
	}
	for i, n := range used {
		if n == 0 {
			k.bad(b, "attributes %d belong to no address", i)
		}
	}
	for key := range b.Spec.SequenceNumberForAllocation {
		if o, err := strconv.Atoi(key); err != nil || o < 0 || o >= len(places) {
			k.bad(b, "has a sequence number for %q, which is no address of it", key)
		}
	}
}

func (k *checker) count(handle string, cidr netip.Prefix) {
	if k.counts[handle] == nil {
		k.counts[handle] = map[string]int{}
	}
	k.counts[handle][cidr.String()]++
}

func (k *checker) checkAffinities(affs []*calico.BlockAffinity) {
	claimed := map[netip.Prefix]bool{}
	for _, a := range affs {
		cidr, err := netip.ParsePrefix(a.Spec.CIDR)
		switch {
		case err != nil:
			k.bad(a, "spec.cidr: %v", err)
			continue
		case bool(a.Spec.Deleted):
			k.bad(a, "is marked deleted but still there")
			continue
		case a.Name != calico.AffinityName(a.Spec.Node, cidr):
			k.bad(a, "is %s's claim on %s and should be named %s", a.Spec.Node, cidr, calico.AffinityName(a.Spec.Node, cidr))
		}
		labelled := *a
		labelled.Labels = maps.Clone(a.Labels)
		if label(&labelled) {
			k.bad(a, "has the labels %v, Calico looks for %v", a.Labels, labelled.Labels)
		}
		if a.Spec.Type != hostType && a.Spec.Type != "" {
			continue // a virtual owner's
		}
		b := k.blocks[cidr]
		switch {
		case !isConfirmed(a):
			k.bad(a, "is %s", a.Spec.State)
		case b == nil:
			k.bad(a, "is confirmed, but there is no block")
		case !b.ownedBy(a.Spec.Node):
			k.bad(a, "is confirmed, but the block's owner is %q", hostOf(&b.Spec))
		default:
			claimed[cidr] = true
		}
	}
	for cidr, b := range k.blocks {
		if host := hostOf(&b.Spec); host != "" && !claimed[cidr] {
			k.bad(b, "is owned by %s, who has no confirmed claim on it", host)
		}
	}
}

func (k *checker) checkHandles(handles []*calico.IPAMHandle) {
	seen := map[string]bool{}
	for _, h := range handles {
		id := h.Spec.HandleID
		seen[id] = true
		switch want := k.counts[id]; {
		case h.Spec.Deleted:
			k.bad(h, "is marked deleted but still there")
		case h.Name != handleName(id):
			k.bad(h, "is for %s and should be named %s", id, handleName(id))
		case !maps.Equal(h.Spec.Block, want):
			k.bad(h, "counts %v, the blocks hold %v", h.Spec.Block, want)
		case len(want) == 0:
			k.bad(h, "counts nothing")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(k.counts)) {
		if !seen[id] {
			k.errs = append(k.errs, fmt.Errorf("IPAMHandle %s: does not exist, the blocks hold %v under it", handleName(id), k.counts[id]))
		}
	}
}

// checkNode compares the tunnel addresses that a node names with those that are assigned to it.
func (k *checker) checkNode(n *calico.Node) {
	for _, t := range tunnels() {
		var held []string
		for text := range k.counts[t.handle+n.Name] {
			b := k.blocks[netip.MustParsePrefix(text)]
			for _, o := range b.held(t.handle + n.Name) {
				if a := b.attrs(o); !t.isOurs(&holder{attrs: a.Secondary}, n.Name) {
					k.bad(b, "%s has the attributes %v under handle %s", b.addr(o), a.Secondary, t.handle+n.Name)
				}
				held = append(held, b.addr(o).String())
			}
		}
		slices.Sort(held)
		var want []string
		if v := t.value(n); v != "" {
			want = []string{v}
		}
		if !slices.Equal(held, want) {
			k.bad(n, "%s is %q, assigned are %v", t.field, t.value(n), held)
		}
	}
}
