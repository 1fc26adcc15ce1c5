package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// maxCandidates bounds the walk through one pool: 2^24 single addresses, a whole /8. A pool of IPv6 addresses has more
// blocks than can be walked, but then a free one is found long before.
const maxCandidates = 1 << 24

// search finds free blocks in pools and claims them. It goes by what the Client's owner knows of the blocks, and lists them where that is not
// enough, once; which of them it loses to others on the way it remembers, so that it needs no second list.
type search struct {
	*operation
	pools []*cluster.Pool
	// seen are the blocks that exist; nil for one that was tried, or of which no more is known.
	seen map[netip.Prefix]*block
	// listed: seen is from a list. Else it is what was known.
	listed bool
	tried  map[netip.Prefix]bool
	misses int // blocks that exist and were not known
	// lost is set once a claim was lost: the list is old then, and a block that it does not have is looked up before it
	// is claimed. That is one read against the four writes of a claim that is lost and taken back.
	lost bool
}

// mostMisses is how many unknown blocks are looked at before what is known counts as too old, and the blocks are listed.
const mostMisses = 16

// next claims a block: one that does not exist or is ours with space, else an empty one that nobody used for a while.
// It reports whether the block was not ours before. Without any, the error is ErrFull.
func (s *search) next(ctx context.Context) (b *block, isNew bool, err error) {
	if err := s.load(ctx); err != nil {
		return nil, false, err
	}
	b, isNew, spare, err := s.walk(ctx)
	if b == nil && err == nil && !s.listed {
		if err := s.list(ctx); err != nil {
			return nil, false, err
		}
		b, isNew, spare, err = s.walk(ctx)
	}
	if b != nil || err != nil {
		return b, isNew, err
	}
	b, err = s.reclaim(ctx, spare)
	return b, true, err
}

// walk goes through the pools for a block that can be claimed. It returns nil if there is none, and those that somebody has for nothing.
func (s *search) walk(ctx context.Context) (b *block, isNew bool, spare []*block, err error) {
	for _, pool := range s.pools {
		obstacles, walked := s.obstacles(pool), 0
		for cidr := range candidates(pool, s.Node) {
			if walked++; walked > maxCandidates || walked%4096 == 0 && ctx.Err() != nil {
				break
			}
			if !s.listed && s.misses > mostMisses {
				return nil, false, nil, nil
			}
			b, exists, err := s.look(ctx, cidr)
			if err != nil {
				return nil, false, nil, err
			}
			switch {
			case exists && b == nil:
				continue
			case exists && b.ownedBy(s.Node):
				if b.free() == 0 {
					continue
				}
			case exists:
				if b.empty() && b.free() > 0 && !b.virtual() {
					spare = append(spare, b)
				}
				continue
			case overlapsAny(obstacles, cidr):
				continue
			}
			if b, err := s.try(ctx, cidr); err == nil || !errors.Is(err, ErrClaimed) {
				return b, !exists, nil, err
			}
		}
	}
	return nil, false, spare, nil
}

// load takes what is known of the blocks, or lists them, once.
func (s *search) load(ctx context.Context) error {
	if s.seen != nil {
		return nil
	}
	if s.Known != nil {
		if known := s.Known(); known != nil {
			s.seen = map[netip.Prefix]*block{}
			for cidr := range known {
				s.seen[cidr] = nil
			}
			return nil
		}
	}
	return s.list(ctx)
}

// list reads the list of blocks, once.
func (s *search) list(ctx context.Context) error {
	if s.listed {
		return nil
	}
	seen, err := s.listBlocks(ctx)
	if err != nil {
		return err
	}
	for cidr := range s.tried {
		seen[cidr] = nil
	}
	s.seen, s.listed = seen, true
	return nil
}

// pass leaves a block out from here on.
func (s *search) pass(cidr netip.Prefix) {
	s.seen[cidr] = nil
	if s.tried == nil {
		s.tried = map[netip.Prefix]bool{}
	}
	s.tried[cidr] = true
}

// look returns a block as far as it is known; nil for one that was tried. One that nobody knows of is looked up where it may exist all the same.
func (s *search) look(ctx context.Context, cidr netip.Prefix) (b *block, exists bool, err error) {
	if b, exists = s.seen[cidr]; exists || s.listed && !s.lost {
		return b, exists, nil
	}
	b, err = s.readBlock(ctx, cidr)
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		return nil, false, nil
	case err != nil:
		s.log().Warn("skipping a block", keyBlock, cidr, keyErr, err)
		b, err = nil, ctx.Err()
	}
	s.misses++
	s.seen[cidr] = b
	return b, true, err
}

func (s *search) try(ctx context.Context, cidr netip.Prefix) (*block, error) {
	s.pass(cidr)
	b, err := s.claim(ctx, cidr)
	s.lost = s.lost || errors.Is(err, ErrClaimed)
	return b, err
}

// obstacles are prefixes no new block of the pool may touch: blocks of another size, from a time when the pool was
// cut otherwise, and more specific pools, whose blocks are theirs.
func (s *search) obstacles(pool *cluster.Pool) (all []netip.Prefix) {
	for cidr := range s.seen {
		if cidr.Bits() != pool.BlockSize && cidr.Overlaps(pool.CIDR) {
			all = append(all, cidr)
		}
	}
	for _, other := range s.operation.pools {
		if other.CIDR.Bits() > pool.CIDR.Bits() && other.CIDR.Overlaps(pool.CIDR) {
			all = append(all, other.CIDR)
		}
	}
	return all
}

func overlapsAny(prefixes []netip.Prefix, p netip.Prefix) bool {
	for _, other := range prefixes {
		if other.Overlaps(p) {
			return true
		}
	}
	return false
}

// reclaim takes an empty block from whoever has it. Small pools need this: blocks of nodes that use none of their
// addresses would keep them from nodes that have none. A block is left to its owner for a minute, so that two nodes do
// not take one from each other before either has used it; the sequence number says that nobody used it since the list.
func (s *search) reclaim(ctx context.Context, spare []*block) (*block, error) {
	for _, b := range spare {
		if claimed := b.Spec.AffinityClaimTime; claimed != nil && time.Since(*claimed) < reclaimAge {
			continue
		}
		if err := s.evict(ctx, b); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			s.log().Debug("block is not given up", keyBlock, b.cidr, keyErr, err)
			continue
		}
		if b, err := s.try(ctx, b.cidr); err == nil || !errors.Is(err, ErrClaimed) {
			return b, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: every block is another node's; add an IPPool or give back blocks of nodes that are gone", ErrFull)
}

func (s *search) evict(ctx context.Context, b *block) error {
	if b.Spec.Affinity == nil {
		if err := s.remove(ctx, b.IPAMBlock); !errors.Is(err, datastore.ErrNotFound) {
			return err
		}
		return nil
	}
	host, ok := strings.CutPrefix(*b.Spec.Affinity, calico.AffinityHost)
	if !ok {
		return fmt.Errorf("owner %q is no host", *b.Spec.Affinity)
	}
	return s.releaseBlock(ctx, host, b.cidr, releaseOptions{empty: true, sequence: b.Spec.SequenceNumber})
}

// ClaimBlock claims one more block of the pool with this CIDR and returns it. ErrBlockLimit, ErrFull and ErrNoPool are
// as for AutoAssign.
func (c *Client) ClaimBlock(ctx context.Context, pool netip.Prefix) (netip.Prefix, error) {
	o, err := c.begin(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	b, err := o.claimOne(ctx, pool.Masked())
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("claim a block of %s for node %s: %w", pool, c.Node, err)
	}
	return b.cidr, nil
}

func (o *operation) claimOne(ctx context.Context, pool netip.Prefix) (*block, error) {
	if err := o.loadPools(ctx); err != nil {
		return nil, err
	}
	chosen, err := o.chosen(ctx, cluster.FamilyOf(pool.Addr()), []netip.Prefix{pool})
	if err != nil {
		return nil, err
	}
	claims, err := o.affinities(ctx)
	if err != nil {
		return nil, err
	}
	s, owned := &search{operation: o, pools: chosen}, 0
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	for _, aff := range claims {
		if cidr, err := netip.ParsePrefix(aff.Spec.CIDR); err == nil && within(chosen, cidr) != nil {
			owned++
			s.pass(cidr) // one more was asked for, not one of these
		}
	}
	if owned >= o.limit {
		return nil, fmt.Errorf("%w: %d", ErrBlockLimit, o.limit)
	}
	b, _, err := s.next(ctx)
	return b, err
}

// ClaimBlocks claims every block of a range, which must lie in one pool, and returns those that are the node's now and
// those that are another's.
func (c *Client) ClaimBlocks(ctx context.Context, cidr netip.Prefix) (claimed, refused []netip.Prefix, err error) {
	o, err := c.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := o.loadPools(ctx); err != nil {
		return nil, nil, err
	}
	cidr = cidr.Masked()
	pool := o.poolFor(cidr)
	if pool == nil || !open(pool) || cidr.Bits() > pool.BlockSize || pool.BlockSize-cidr.Bits() > 16 {
		return nil, nil, fmt.Errorf("claim %s: %w: no enabled IPPool holds the range as 1 to 65536 whole blocks", cidr, ErrNoPool)
	}
	part := *pool
	part.CIDR = cidr
	for block := range inOrder(&part) {
		switch _, err := o.claim(ctx, block); {
		case err == nil:
			claimed = append(claimed, block)
		case errors.Is(err, ErrClaimed):
			refused = append(refused, block)
		default:
			return claimed, refused, err
		}
	}
	return claimed, refused, nil
}
