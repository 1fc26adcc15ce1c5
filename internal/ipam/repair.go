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

// Repair completes or takes back what a former process of this node left half done: claims without a block or not
// confirmed, blocks without a claim, claims without labels, objects marked deleted, tunnel handles that count wrong.
// It touches nothing of other nodes. EnsureTunnelAddresses does it on its first call and after every error.
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
	blocks, err := list[*calico.IPAMBlock](ctx, c, calico.KindIPAMBlock)
	if err != nil {
		return err
	}
	affs, err := list[*calico.BlockAffinity](ctx, c, calico.KindBlockAffinity)
	if err != nil {
		return err
	}
	var errs []error
	claimed := map[string]bool{}
	for _, aff := range affs {
		if isHosts(aff, c.Node) {
			claimed[aff.Spec.CIDR] = true
			errs = append(errs, o.repairAffinity(ctx, aff))
		}
	}
	held := map[string]map[string]int{} // tunnel handle -> block -> addresses
	for _, t := range tunnels() {
		held[t.handle+c.Node] = map[string]int{}
	}
	for _, obj := range blocks {
		errs = append(errs, o.repairBlock(ctx, obj, claimed[obj.Spec.CIDR], held))
	}
	for _, handle := range slices.Sorted(maps.Keys(held)) {
		errs = append(errs, o.repairHandle(ctx, handle, held[handle]))
	}
	return errors.Join(errs...)
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

// repairBlock completes the deletion of a block, and the claim of one that is ours; it counts tunnel addresses.
func (o *operation) repairBlock(ctx context.Context, obj *calico.IPAMBlock, claimed bool, held map[string]map[string]int) error {
	if obj.Spec.Deleted {
		return o.erase(ctx, obj)
	}
	b, err := parseBlock(obj)
	if err != nil {
		o.log().Warn("skipping a block", keyErr, err)
		return nil
	}
	for handle, counts := range held {
		if n := len(b.held(handle)); n > 0 {
			counts[b.cidr.String()] = n
		}
	}
	if claimed || !b.ownedBy(o.Node) {
		return nil
	}
	_, err = o.claim(ctx, b.cidr)
	return err
}

// repairHandle makes a tunnel handle count what the blocks hold. Only this process assigns under it, and it does not
// at the moment.
func (o *operation) repairHandle(ctx context.Context, handle string, counts map[string]int) error {
	return o.changeHandle(ctx, handle, func(have map[string]int) bool {
		if maps.Equal(have, counts) {
			return false
		}
		clear(have)
		maps.Copy(have, counts)
		return true
	})
}

// ignoreRace: somebody else is at the object, so it is not what a crash left.
func ignoreRace(err error) error {
	if errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}
