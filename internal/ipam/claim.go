package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// claim makes a block the node's: announce it, create the block, confirm (reference 3.7). The creation decides, so the
// block is there exactly once whoever else wants it. It returns ErrClaimed if another host was first, and then no claim
// of ours is left. A claim of ours that is there already, in whatever state, is completed.
func (o *operation) claim(ctx context.Context, cidr netip.Prefix) (b *block, err error) {
	err = retry(ctx, "claim block "+cidr.String(), func() error {
		b, err = o.tryClaim(ctx, cidr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim block %s for node %s: %w", cidr, o.Node, err)
	}
	return b, nil
}

func (o *operation) tryClaim(ctx context.Context, cidr netip.Prefix) (*block, error) {
	aff, b, err := o.announce(ctx, cidr)
	if err != nil || b != nil {
		return b, err
	}
	b, err = o.createBlock(ctx, newBlock(cidr, o.Node, time.Now()))
	if errors.Is(err, datastore.ErrExists) {
		b, err = o.takeBlock(ctx, aff, cidr)
	}
	if err != nil {
		return nil, err
	}
	return b, o.confirm(ctx, aff, cidr)
}

// announce returns our claim in state pending, or the block if the claim is complete already.
func (o *operation) announce(ctx context.Context, cidr netip.Prefix) (*calico.BlockAffinity, *block, error) {
	obj, err := o.Store.Create(ctx, newAffinity(o.Node, cidr))
	if err == nil {
		aff, err := typed[*calico.BlockAffinity](obj)
		return aff, nil, err
	}
	if !errors.Is(err, datastore.ErrExists) {
		return nil, nil, fmt.Errorf("create BlockAffinity: %w", err)
	}
	aff, err := o.readAffinity(ctx, o.Node, cidr)
	if err != nil {
		return nil, nil, raced(err)
	}
	if isConfirmed(aff) {
		b, err := o.readBlock(ctx, cidr)
		switch {
		case err == nil && b.ownedBy(o.Node):
			return aff, b, nil
		case err != nil && !errors.Is(err, datastore.ErrNotFound):
			return nil, nil, err
		}
	}
	// Written even if it is pending already: whoever is releasing this claim finds that he is not alone.
	aff, err = o.setAffinity(ctx, aff, pending)
	return aff, nil, raced(err)
}

// takeBlock is called with a pending claim when the block exists. If it is ours it is written once more, unchanged but
// for its version: a release that has read the block before us would still delete it under us. If it is not ours the
// claim is withdrawn.
func (o *operation) takeBlock(ctx context.Context, aff *calico.BlockAffinity, cidr netip.Prefix) (*block, error) {
	b, err := o.readBlock(ctx, cidr)
	if err != nil {
		return nil, raced(err)
	}
	if b.ownedBy(o.Node) {
		b, err = o.updateBlock(ctx, b)
		return b, raced(err)
	}
	switch err := o.remove(ctx, aff); {
	case errors.Is(err, datastore.ErrConflict):
		return nil, err // somebody rewrote our claim: see what it is now
	case err != nil && !errors.Is(err, datastore.ErrNotFound):
		return nil, err
	}
	return nil, ErrClaimed
}

// confirm completes a claim whose block is there. That another process of this node was faster is as good.
func (o *operation) confirm(ctx context.Context, aff *calico.BlockAffinity, cidr netip.Prefix) error {
	_, err := o.setAffinity(ctx, aff, confirmed)
	if err == nil {
		return nil
	}
	if now, rerr := o.readAffinity(ctx, o.Node, cidr); rerr == nil && isConfirmed(now) {
		return nil
	}
	return raced(err)
}

// own returns a block that one of our claims is for, completing the claim if it is not complete. A claim on a block
// that is another's is stale: it is deleted and the error is ErrClaimed.
func (o *operation) own(ctx context.Context, aff *calico.BlockAffinity, cidr netip.Prefix) (*block, error) {
	if isConfirmed(aff) {
		b, err := o.readBlock(ctx, cidr)
		if err == nil && b.ownedBy(o.Node) {
			return b, nil
		}
		if err != nil && !errors.Is(err, datastore.ErrNotFound) {
			return nil, err
		}
	}
	return o.claim(ctx, cidr)
}

// releaseOptions narrow a release.
type releaseOptions struct {
	empty    bool   // only if no address is in use
	sequence uint64 // only if the block is at this sequence number; 0 = any
}

// releaseBlock ends a host's claim: mark it pendingDeletion, delete the block or, with addresses in use, clear its
// owner, delete the claim. Nothing to release is no error.
func (o *operation) releaseBlock(ctx context.Context, host string, cidr netip.Prefix, opt releaseOptions) error {
	err := retry(ctx, "release block "+cidr.String(), func() error { return o.tryRelease(ctx, host, cidr, opt) })
	if err != nil {
		return fmt.Errorf("release block %s of node %s: %w", cidr, host, err)
	}
	return nil
}

func (o *operation) tryRelease(ctx context.Context, host string, cidr netip.Prefix, opt releaseOptions) error {
	aff, err := orNil(o.readAffinity(ctx, host, cidr))
	if err != nil {
		return err
	}
	b, err := orNil(o.readBlock(ctx, cidr))
	if err != nil {
		return err
	}
	if b == nil || !b.ownedBy(host) { // the claim, if any, is stale or what a crash left
		return o.dropAffinity(ctx, aff)
	}
	if opt.empty && !b.empty() || opt.sequence != 0 && opt.sequence != b.Spec.SequenceNumber {
		return o.keepBlock(ctx, aff, b)
	}
	if aff, err = o.announceRelease(ctx, aff, host, cidr); err != nil {
		return raced(err)
	}
	if b.empty() {
		err = o.remove(ctx, b.IPAMBlock)
	} else {
		b.Spec.Affinity, b.Spec.AffinityClaimTime = nil, nil
		_, err = o.updateBlock(ctx, b)
	}
	if err != nil {
		return raced(err)
	}
	return o.dropAffinity(ctx, aff)
}

// announceRelease marks a claim for deletion. One that is missing is made for that: perhaps it is missing because a
// claimer is only just beginning, and then one of us two finds that he is not alone.
func (o *operation) announceRelease(ctx context.Context, aff *calico.BlockAffinity, host string, cidr netip.Prefix) (*calico.BlockAffinity, error) {
	if aff != nil {
		return o.setAffinity(ctx, aff, pendingDeletion)
	}
	aff = newAffinity(host, cidr)
	aff.Spec.State = pendingDeletion
	obj, err := o.Store.Create(ctx, aff)
	if err != nil {
		return nil, fmt.Errorf("create BlockAffinity %s: %w", aff.Name, err)
	}
	return typed[*calico.BlockAffinity](obj)
}

// keepBlock puts a claim back that we, or one who died, had marked for deletion before the block was used again.
func (o *operation) keepBlock(ctx context.Context, aff *calico.BlockAffinity, b *block) error {
	if aff != nil && aff.Spec.State == pendingDeletion {
		if _, err := o.setAffinity(ctx, aff, confirmed); err != nil {
			return raced(err)
		}
	}
	return fmt.Errorf("%w: %d of %d", ErrNotEmpty, len(b.Spec.Allocations)-b.free(), len(b.Spec.Allocations))
}

// dropAffinity deletes a claim. If it was written meanwhile it is somebody's again, unless it is still marked.
func (o *operation) dropAffinity(ctx context.Context, aff *calico.BlockAffinity) error {
	if aff == nil {
		return nil
	}
	if err := o.remove(ctx, aff); !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	return nil
}

// orNil makes "not found" an answer.
func orNil[T any](obj *T, err error) (*T, error) {
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	return obj, err
}

// ReleaseAffinity gives up the node's claim on a block. Addresses in use stay assigned, in a block without an owner;
// with mustBeEmpty such a block is kept and the error is ErrNotEmpty. A block that is not ours is no error.
func (c *Client) ReleaseAffinity(ctx context.Context, cidr netip.Prefix, mustBeEmpty bool) error {
	o, err := c.begin(ctx)
	if err != nil {
		return err
	}
	return o.releaseBlock(ctx, c.Node, cidr.Masked(), releaseOptions{empty: mustBeEmpty})
}
