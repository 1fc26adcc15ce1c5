package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Request asks for addresses.
type Request struct {
	Family cluster.Family
	Num    int
	// Handle is what the addresses are released by later. A handle has one user at a time, as a container or a tunnel
	// has: while one call assigns under it, no other may release by it.
	Handle string
	// Attrs are stored with each address; the keys node, type, pod and namespace have a meaning for Calico.
	Attrs map[string]string
	// Pools are the CIDRs of the only pools to use. Empty means every pool that is Automatic and selects the node.
	Pools []netip.Prefix
	Use   Use
}

func (r *Request) check() error {
	switch {
	case r.Num < 1:
		return fmt.Errorf("the request is for %d addresses; ask for at least one", r.Num)
	case r.Handle == "":
		return errors.New("the request has no handle; without one the addresses could never be found again")
	case r.Use != Workload && r.Use != Tunnel:
		return fmt.Errorf("the request's use is %q; say Workload or Tunnel", r.Use)
	case r.Family != cluster.IPv4 && r.Family != cluster.IPv6:
		return fmt.Errorf("the request's family is %d; say IPv4 or IPv6", r.Family)
	}
	return nil
}

// AutoAssign assigns addresses: from the node's own blocks, from blocks it claims, and, where strict affinity does not
// forbid it and no block is free, from other nodes' blocks. With fewer than asked for, the error says why and those
// that were found are returned with it; they are the caller's, to use or to release by the handle.
func (c *Client) AutoAssign(ctx context.Context, r Request) ([]netip.Prefix, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("assign addresses: %w", err)
	}
	o, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	a := &assignment{operation: o, r: r}
	if a.use, err = o.usable(ctx, r.Family, r.Use, r.Pools); err != nil {
		return nil, fmt.Errorf("assign addresses to %s: %w", r.Handle, err)
	}
	if err := a.run(ctx); err != nil {
		err = fmt.Errorf("assign %d addresses to %s on node %s from %s: %w", r.Num, r.Handle, c.Node, describe(a.use), err)
		if len(a.aside) > 0 {
			err = fmt.Errorf("%w (passed over: %w)", err, errors.Join(a.aside...))
		}
		return a.got, err
	}
	return a.got, nil
}

// assignment is one AutoAssign under way.
type assignment struct {
	*operation
	r   Request
	use []*cluster.Pool
	// owned counts the node's blocks in the usable pools, full ones too.
	owned int
	got   []netip.Prefix
	// aside are the reasons why blocks were passed over.
	aside []error
	free  *search
}

func (a *assignment) missing() int { return a.r.Num - len(a.got) }

func (a *assignment) run(ctx context.Context) error {
	if err := a.fromOwn(ctx); err != nil || a.missing() == 0 {
		return err
	}
	err := a.fromNew(ctx)
	if errors.Is(err, ErrFull) && !a.strict {
		return a.fromOthers(ctx)
	}
	return err
}

// fromOwn goes through the node's claims in order of name.
func (a *assignment) fromOwn(ctx context.Context) error {
	claims, err := a.affinities(ctx)
	if err != nil {
		return err
	}
	for _, aff := range claims {
		cidr, err := netip.ParsePrefix(aff.Spec.CIDR)
		if err != nil || cluster.FamilyOf(cidr.Addr()) != a.r.Family {
			continue
		}
		if within(a.use, cidr) == nil {
			if len(a.r.Pools) == 0 {
				a.pass(ctx, a.reconcilePool(ctx, cidr))
			}
			continue
		}
		a.owned++
		if a.missing() == 0 {
			return nil
		}
		b, err := a.own(ctx, aff, cidr)
		if errors.Is(err, ErrClaimed) {
			a.owned--
			continue
		}
		if err == nil {
			err = a.take(ctx, cidr, b, true)
		}
		if err := a.pass(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// pass keeps the reason why a block was passed over: one bad block does not stop the search. An ended context does.
func (a *assignment) pass(ctx context.Context, err error) error {
	if err != nil {
		a.aside = append(a.aside, err)
	}
	return ctx.Err()
}

// fromNew claims blocks until there is enough.
func (a *assignment) fromNew(ctx context.Context) error {
	a.free = &search{operation: a.operation, pools: a.use}
	if !a.claims {
		return fmt.Errorf("%w: IPAMConfiguration default forbids new blocks (spec.autoAllocateBlocks)", ErrFull)
	}
	for a.missing() > 0 {
		if a.owned >= a.limit {
			return fmt.Errorf("%w: %d; raise spec.maxBlocksPerHost of IPAMConfiguration default or give back blocks", ErrBlockLimit, a.limit)
		}
		b, isNew, err := a.free.next(ctx)
		if err != nil {
			return err
		}
		if isNew {
			a.owned++
		}
		if err := a.pass(ctx, a.take(ctx, b.cidr, b, true)); err != nil {
			return err
		}
	}
	return nil
}

// fromOthers borrows from blocks of other nodes and of none, in random order so that not all borrow from the first. It
// goes by the list that the search for a free block has read.
func (a *assignment) fromOthers(ctx context.Context) error {
	if err := a.free.list(ctx); err != nil {
		return err
	}
	var lenders []netip.Prefix
	for cidr, b := range a.free.seen {
		if within(a.use, cidr) != nil && (b == nil || b.free() > 0 && !b.ownedBy(a.Node) && !b.virtual()) {
			lenders = append(lenders, cidr)
		}
	}
	slices.SortFunc(lenders, netip.Prefix.Compare)
	rand.Shuffle(len(lenders), func(i, j int) { lenders[i], lenders[j] = lenders[j], lenders[i] })
	for _, cidr := range lenders {
		if a.missing() == 0 {
			return nil
		}
		b := a.free.seen[cidr]
		if b != nil && b.husk {
			b = nil // is read as it is now
		}
		if err := a.pass(ctx, a.take(ctx, cidr, b, false)); err != nil {
			return err
		}
	}
	if a.missing() > 0 {
		return fmt.Errorf("%w: %d found; add an IPPool or release addresses", ErrFull, len(a.got))
	}
	return nil
}

// take assigns what is missing from a block, which is read first if it is nil.
func (a *assignment) take(ctx context.Context, cidr netip.Prefix, b *block, ours bool) error {
	n := a.missing()
	addrs, err := a.assignFrom(ctx, cidr, b, a.r.Handle, ours, func(b *block) ([]int, error) {
		return b.assign(n, a.r.Handle, a.r.Attrs), nil
	})
	for _, addr := range addrs {
		a.got = append(a.got, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return err
}

// assignFrom writes what pick assigns in a block: first the handle counts the addresses, then the block is written. A
// death in between leaves a handle that counts too much, which any release by it mends; the other order would leave
// an address that no handle leads to. On a conflict pick chooses again in the block as it is now; with ours, only
// while the block is the node's.
func (o *operation) assignFrom(ctx context.Context, cidr netip.Prefix, b *block, handle string, ours bool,
	pick func(*block) ([]int, error)) (addrs []netip.Addr, err error) {
	counted := 0
	defer func() {
		if over := counted - len(addrs); over > 0 {
			err = errors.Join(err, o.uncount(ctx, handle, cidr, over))
		}
	}()
	err = retry(ctx, "assign from block "+cidr.String(), func() error {
		if b == nil {
			if b, err = o.readBlock(ctx, cidr); err != nil {
				return err
			}
			if ours && !b.ownedBy(o.Node) {
				return ErrClaimed
			}
		}
		sequence := b.Spec.SequenceNumber
		ordinals, err := pick(b)
		if err != nil || len(ordinals) == 0 {
			return err
		}
		if more := len(ordinals) - counted; more > 0 {
			if err := o.addToHandle(ctx, handle, cidr, more); err != nil {
				return notConflict(err)
			}
			counted = len(ordinals)
		}
		_, err = o.updateBlock(ctx, b)
		if err != nil && !isRace(err) {
			if err = o.settle(ctx, cidr, ordinals, handle, sequence, err); isUnknown(err) {
				counted = 0 // perhaps written: a count too many is harmless, one too few is not
			}
		}
		if err != nil {
			b = nil
			return raced(err)
		}
		for _, ord := range ordinals {
			addrs = append(addrs, b.addr(ord))
		}
		return nil
	})
	return addrs, err
}

// uncount takes back what was counted for addresses that were not assigned.
func (o *operation) uncount(ctx context.Context, handle string, cidr netip.Prefix, n int) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	return o.addToHandle(ctx, handle, cidr, -n)
}

// unknown wraps the error of a write of which nobody can tell whether it was made.
type unknown struct{ error }

func (u unknown) Unwrap() error { return u.error }

func isUnknown(err error) bool { return errors.As(err, new(unknown)) }

// isRace reports an error that means for certain that a write was not made.
func isRace(err error) bool {
	return errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound)
}

// notConflict keeps an inner failure from being taken for a conflict of the block.
func notConflict(err error) error {
	if errors.Is(err, datastore.ErrConflict) {
		return fmt.Errorf("%v", err)
	}
	return err
}

// settle finds out whether a write of a block was made that was answered with an error: it reads the block back.
func (o *operation) settle(ctx context.Context, cidr netip.Prefix, ordinals []int, handle string, sequence uint64, cause error) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	b, err := o.readBlock(ctx, cidr)
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		return cause
	case err != nil:
		return unknown{cause}
	case b.wrote(ordinals, handle, sequence):
		return nil
	}
	return cause
}

// AssignIP assigns one address of the caller's choice. Attrs and use are as in a Request; an empty use is not checked
// against the pool. ErrInUse says that the address is taken, ErrClaimed that strict affinity forbids it here.
func (c *Client) AssignIP(ctx context.Context, addr netip.Addr, handle string, attrs map[string]string, use Use) error {
	o, err := c.begin(ctx)
	if err != nil {
		return err
	}
	if err := o.assignIP(ctx, addr.Unmap(), handle, attrs, use); err != nil {
		return fmt.Errorf("assign %s to %s: %w", addr, handle, err)
	}
	return nil
}

func (o *operation) assignIP(ctx context.Context, addr netip.Addr, handle string, attrs map[string]string, use Use) error {
	if handle == "" {
		return errors.New("the handle is empty; without one the address could never be found again")
	}
	if err := o.loadPools(ctx); err != nil {
		return err
	}
	pool := o.poolFor(netip.PrefixFrom(addr, addr.BitLen()))
	if pool == nil || !open(pool) || use != "" && !allows(pool, use) {
		return fmt.Errorf("%w: no enabled IPPool holds the address and allows the use %q", ErrNoPool, use)
	}
	cidr := netip.PrefixFrom(addr, pool.BlockSize).Masked()
	return retry(ctx, "find the block", func() error {
		b, err := o.blockFor(ctx, cidr)
		if err != nil {
			return err
		}
		_, err = o.assignFrom(ctx, cidr, b, handle, o.strict, func(b *block) ([]int, error) {
			ord := b.ordinal(addr)
			if !b.assignOrdinal(ord, handle, attrs) {
				return nil, ErrInUse
			}
			return []int{ord}, nil
		})
		return raced(err) // not found: the block was deleted under us
	})
}

// blockFor returns the block, claiming it if nobody has it. A claim lost to another is a conflict, so that the caller
// looks again; Calico's AssignIP means to and does not (reference, sharp edge 35).
func (o *operation) blockFor(ctx context.Context, cidr netip.Prefix) (*block, error) {
	b, err := o.readBlock(ctx, cidr)
	if errors.Is(err, datastore.ErrNotFound) {
		if b, err = o.claim(ctx, cidr); errors.Is(err, ErrClaimed) {
			return nil, fmt.Errorf("%w: %w", datastore.ErrConflict, err)
		}
	}
	if err == nil && o.strict && !b.ownedBy(o.Node) {
		return nil, fmt.Errorf("%w, and IPAMConfiguration default sets strictAffinity", ErrClaimed)
	}
	return b, err
}
