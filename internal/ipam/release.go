package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// ReleaseByHandle releases every address held under a handle and the handle itself. The error is
// datastore.ErrNotFound if there is no such handle.
func (c *Client) ReleaseByHandle(ctx context.Context, handle string) error {
	o, err := c.begin(ctx)
	if err != nil {
		return err
	}
	return o.releaseByHandle(ctx, handle)
}

func (o *operation) releaseByHandle(ctx context.Context, handle string) error {
	h, err := o.readHandle(ctx, handle)
	if err != nil {
		return fmt.Errorf("release by handle: %w", err)
	}
	var errs []error
	for _, text := range slices.Sorted(maps.Keys(h.Spec.Block)) {
		cidr, err := netip.ParsePrefix(text)
		if err == nil {
			err = o.releaseHeld(ctx, handle, cidr, netip.Addr{})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("release handle %s in block %s: %w", handle, text, err))
		}
	}
	if len(h.Spec.Block) == 0 { // a handle that counts nothing should not be there
		errs = append(errs, o.changeHandle(ctx, handle, func(map[string]int) bool { return false }))
	}
	return errors.Join(errs...)
}

// releaseHeld releases what a handle holds in a block, but for one address, and makes the handle count what is left.
// That corrects a count which a death between two writes left too high.
func (o *operation) releaseHeld(ctx context.Context, handle string, cidr netip.Prefix, except netip.Addr) error {
	left := 0
	err := retry(ctx, "release from block "+cidr.String(), func() error {
		left = 0
		b, err := orNil(o.readBlock(ctx, cidr))
		if err != nil || b == nil {
			return err
		}
		ordinals := b.held(handle)
		if i := slices.Index(ordinals, b.ordinal(except)); i >= 0 {
			ordinals = slices.Delete(ordinals, i, i+1)
			left = 1
		}
		if len(ordinals) == 0 {
			return nil
		}
		b.release(ordinals, time.Now())
		return o.writeReleased(ctx, b)
	})
	if err != nil {
		return err
	}
	return o.setHandle(ctx, handle, cidr, left)
}

// writeReleased writes a block after a release: without cooldown the addresses are free at once. A block that has
// neither owner nor address is deleted; an empty one whose pool no longer selects its node is given up.
func (o *operation) writeReleased(ctx context.Context, b *block) error {
	b.collect(time.Now(), o.cooldown)
	if b.empty() && b.Spec.Affinity == nil {
		return raced(o.remove(ctx, b.IPAMBlock))
	}
	if _, err := o.updateBlock(ctx, b); err != nil {
		return raced(err)
	}
	if b.empty() && b.ownedBy(o.Node) {
		if err := o.reconcilePool(ctx, b.cidr); err != nil { // the addresses are released, whatever comes of the block
			o.log().Warn("block stays claimed", keyBlock, b.cidr, keyErr, err)
		}
	}
	return nil
}

// ReleaseIPs releases addresses and returns those that were not assigned. In each block either all that are named are
// released or none; ErrNotHeld says that one is held otherwise than the caller says.
func (c *Client) ReleaseIPs(ctx context.Context, releases ...Release) (absent []netip.Addr, err error) {
	o, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	byBlock := map[netip.Prefix][]Release{}
	var errs []error
	for _, r := range releases {
		r.Addr = r.Addr.Unmap()
		cidr, err := o.blockOf(ctx, r.Addr)
		switch {
		case errors.Is(err, datastore.ErrNotFound):
			absent = append(absent, r.Addr)
		case err != nil:
			errs = append(errs, err)
		default:
			byBlock[cidr] = append(byBlock[cidr], r)
		}
	}
	for _, cidr := range slices.SortedFunc(maps.Keys(byBlock), netip.Prefix.Compare) {
		gone, err := o.releaseFrom(ctx, cidr, byBlock[cidr])
		absent = append(absent, gone...)
		errs = append(errs, err)
	}
	return absent, errors.Join(errs...)
}

func (o *operation) releaseFrom(ctx context.Context, cidr netip.Prefix, releases []Release) (absent []netip.Addr, err error) {
	var counts map[string]int
	err = retry(ctx, "release from block "+cidr.String(), func() error {
		counts, absent = nil, nil
		b, err := orNil(o.readBlock(ctx, cidr))
		if err != nil {
			return err
		}
		if b == nil {
			for _, r := range releases {
				absent = append(absent, r.Addr)
			}
			return nil
		}
		var ordinals []int
		if ordinals, counts, absent, err = b.releasable(releases); err != nil || len(ordinals) == 0 {
			return err
		}
		b.release(ordinals, time.Now())
		return o.writeReleased(ctx, b)
	})
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, handle := range slices.Sorted(maps.Keys(counts)) {
		errs = append(errs, o.addToHandle(ctx, handle, cidr, -counts[handle]))
	}
	return absent, errors.Join(errs...)
}

// holder is who holds an address.
type holder struct {
	handle string
	attrs  map[string]string
}

// lookup returns who holds an address, nil if nobody does.
func (o *operation) lookup(ctx context.Context, addr netip.Addr) (*holder, error) {
	cidr, err := o.blockOf(ctx, addr)
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := orNil(o.readBlock(ctx, cidr))
	if err != nil || b == nil {
		return nil, err
	}
	a := b.attrs(b.ordinal(addr))
	if a == nil {
		return nil, nil
	}
	return &holder{handleOf(a), a.Secondary}, nil
}

// hostOf returns the host a block's affinity names, "" for none.
func hostOf(spec *calico.IPAMBlockSpec) string {
	if spec.Affinity == nil {
		return ""
	}
	host, _ := strings.CutPrefix(*spec.Affinity, calico.AffinityHost)
	if host == *spec.Affinity {
		return ""
	}
	return host
}
