package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Repair completes or takes back what a former process of this node left half done: claims without a block, not
// confirmed or without labels, what they and the tunnel handles lead to and is marked deleted, tunnel handles that count
// too much. It touches nothing of other nodes, and reads nothing of them either: what a node's start costs must not grow
// with the cluster. EnsureTunnelAddresses does it on its first call and after every error.
func (c *Client) Repair(ctx context.Context) error {
	c.tunnels.Lock()
	defer c.tunnels.Unlock()
	if err := c.repair(ctx); err != nil {
		return fmt.Errorf("repair what node %s holds: %w", c.Node, err)
	}
	return nil
}

func (c *Client) repair(ctx context.Context) error {
	o, err := c.begin(ctx)
	if err != nil {
		return err
	}
	affs, err := c.allAffinities(ctx)
	if err != nil {
		return err
	}
	var errs []error
	blocks := map[string]bool{}
	for _, aff := range affs {
		blocks[aff.Spec.CIDR] = true
		errs = append(errs, o.repairAffinity(ctx, aff))
	}
	return errors.Join(append(errs, o.repairHandles(ctx, blocks))...)
}

// repairAffinity brings one of our claims to one of its two ends.
func (o *operation) repairAffinity(ctx context.Context, aff *calico.BlockAffinity) error {
	cidr, err := netip.ParsePrefix(aff.Spec.CIDR)
	if err != nil {
		return fmt.Errorf("BlockAffinity %s: spec.cidr: %w; delete the object", aff.Name, err)
	}
	if aff.Spec.Deleted {
		return o.erase(ctx, aff)
	}
	b, err := orNil(o.readBlock(ctx, cidr))
	if err != nil {
		return err
	}
	switch {
	case b == nil && !isConfirmed(aff): // died while claiming before the block, or while releasing after it
		return ignoreRace(o.dropAffinity(ctx, aff))
	case b != nil && b.ownedBy(o.Node) && isConfirmed(aff):
		if label(aff) {
			_, err = o.setAffinity(ctx, aff, confirmed)
		}
		return ignoreRace(err)
	}
	if _, err = o.claim(ctx, cidr); errors.Is(err, ErrClaimed) {
		return nil // another's block: the stale claim is gone now
	}
	return err
}

// repairHandles makes the tunnel handles count what the blocks hold: the node's own blocks and those the handles name,
// for a tunnel address may be of another's block. Only this process assigns under these handles, and it does not at the
// moment.
func (o *operation) repairHandles(ctx context.Context, blocks map[string]bool) error {
	for _, t := range tunnels() {
		h, err := orNil(o.readHandle(ctx, t.handle+o.Node))
		if err != nil {
			return err
		}
		if h != nil {
			for text := range h.Spec.Block {
				blocks[text] = true
			}
		}
	}
	var errs []error
	read := map[string]*block{} // nil for one that is gone, missing for one that cannot be read
	for _, text := range slices.Sorted(maps.Keys(blocks)) {
		cidr, err := netip.ParsePrefix(text)
		if err != nil { // no such block, then
			read[text] = nil
			continue
		}
		b, err := orNil(o.readBlock(ctx, cidr))
		if err == nil {
			read[text] = b
		}
		errs = append(errs, err)
	}
	for _, t := range tunnels() {
		errs = append(errs, o.repairHandle(ctx, t.handle+o.Node, read))
	}
	return errors.Join(errs...)
}

// repairHandle corrects what a handle counts of the blocks that were read.
func (o *operation) repairHandle(ctx context.Context, handle string, read map[string]*block) error {
	return o.changeHandle(ctx, handle, func(counts map[string]int) bool {
		was := maps.Clone(counts)
		for text, b := range read {
			delete(counts, text)
			if b != nil && len(b.held(handle)) > 0 {
				counts[text] = len(b.held(handle))
			}
		}
		return !maps.Equal(was, counts)
	})
}

// ignoreRace: somebody else is at the object, so it is not what a crash left.
func ignoreRace(err error) error {
	if errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}
