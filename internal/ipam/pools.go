package ipam

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/big"
	"math/bits"
	oldrand "math/rand"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// loadPools reads the pools once an operation. A pool with a problem is nobody's to assign from; whoever reads the
// whole datastore reports the problem.
func (o *operation) loadPools(ctx context.Context) error {
	if o.pools != nil {
		return nil
	}
	objects, err := list[*calico.IPPool](ctx, o.Client, calico.KindIPPool)
	if err != nil {
		return err
	}
	o.pools = make([]*cluster.Pool, 0, len(objects))
	for _, obj := range objects {
		p, problems := obj.Pool()
		if len(problems) > 0 {
			o.unclear = append(o.unclear, obj)
		}
		if p == nil {
			o.log().Debug("pool is not usable", keyErr, problems)
			continue
		}
		p.Disabled = p.Disabled || !allocatable(obj)
		// A request says nothing of a namespace, so such a pool is only for those who ask for it by name.
		p.Manual = p.Manual || obj.Spec.NamespaceSelector != ""
		o.pools = append(o.pools, p)
	}
	return nil
}

// inDoubt reports whether an address may be of a pool that has a problem. Such an address is neither given out nor taken back before somebody has
// mended the pool: a slip in one field must not cost a node its tunnels.
func (o *operation) inDoubt(a netip.Addr) bool {
	return slices.ContainsFunc(o.unclear, func(p *calico.IPPool) bool {
		cidr, err := netip.ParsePrefix(p.Spec.CIDR)
		return err != nil || cidr.Masked().Contains(a)
	})
}

// allocatable reports whether Calico's pool controller lets a pool have new addresses.
func allocatable(p *calico.IPPool) bool {
	return p.Status == nil || !slices.ContainsFunc(p.Status.Conditions, func(c calico.Condition) bool {
		return c.Type == calico.ConditionAllocatable && c.Status == "False"
	})
}

// poolFor returns the pool with the longest prefix that covers p, or nil.
func (o *operation) poolFor(p netip.Prefix) (best *cluster.Pool) {
	for _, pool := range o.pools {
		if pool.CIDR.Bits() <= p.Bits() && pool.CIDR.Contains(p.Addr()) && (best == nil || pool.CIDR.Bits() > best.CIDR.Bits()) {
			best = pool
		}
	}
	return best
}

// selects reports whether a pool's nodeSelector matches our node. The node is read when a selector first needs it.
func (o *operation) selects(ctx context.Context, pool *cluster.Pool) (bool, error) {
	sel := pool.NodeSelector
	if sel == "" || strings.ReplaceAll(sel, " ", "") == "all()" {
		return true, nil
	}
	if o.node == nil {
		node, err := fetch[*calico.Node](ctx, o.Client, calico.KindNode, o.Node)
		if err != nil {
			return false, err
		}
		o.node = node
	}
	return selectorMatches(pool, o.node.Labels)
}

func selectorMatches(pool *cluster.Pool, labels map[string]string) (bool, error) {
	s, err := calico.ParseSelector(pool.NodeSelector)
	if err != nil {
		return false, fmt.Errorf("IPPool %s: spec.nodeSelector: %w", pool.Name, err)
	}
	return s.Match(labels), nil
}

// open reports whether a pool takes new allocations.
func open(p *cluster.Pool) bool { return !p.Disabled && !p.Terminating && p.CIDR.Bits() <= p.BlockSize }

// allows reports whether a pool may be used for a purpose.
func allows(p *cluster.Pool, use Use) bool {
	return use == Tunnel && p.Tunnel || use == Workload && p.Workload
}

// usable returns the pools to assign from: those that were asked for, or those that select the node (reference 3.7,
// steps 3 to 5). Asking for a pool overrides nodeSelector and assignmentMode.
func (o *operation) usable(ctx context.Context, family cluster.Family, use Use, asked []netip.Prefix) ([]*cluster.Pool, error) {
	if err := o.loadPools(ctx); err != nil {
		return nil, err
	}
	chosen, err := o.chosen(ctx, family, asked)
	if err != nil {
		return nil, err
	}
	var pools []*cluster.Pool
	for _, p := range chosen {
		if allows(p, use) && cluster.FamilyOf(p.CIDR.Addr()) == family {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return nil, fmt.Errorf("%w: no enabled %s pool that selects node %s has %s in spec.allowedUses; create one or change spec.nodeSelector",
			ErrNoPool, family, o.Node, use)
	}
	return pools, nil
}

func (o *operation) chosen(ctx context.Context, family cluster.Family, asked []netip.Prefix) (chosen []*cluster.Pool, err error) {
	for _, cidr := range asked {
		p := o.poolNamed(cidr)
		if p == nil || !open(p) {
			return nil, fmt.Errorf("%w: %s was asked for, but no enabled IPPool has this CIDR", ErrNoPool, cidr)
		}
		chosen = append(chosen, p)
	}
	if len(asked) > 0 {
		return chosen, nil
	}
	for _, p := range o.pools {
		if !open(p) || p.Manual || cluster.FamilyOf(p.CIDR.Addr()) != family {
			continue
		}
		ok, err := o.selects(ctx, p)
		if err != nil {
			return nil, err
		}
		if ok {
			chosen = append(chosen, p)
		}
	}
	return chosen, nil
}

// poolNamed returns the first pool with exactly this CIDR.
func (o *operation) poolNamed(cidr netip.Prefix) *cluster.Pool {
	for _, p := range o.pools {
		if p.CIDR == cidr.Masked() {
			return p
		}
	}
	return nil
}

// within returns the pool among pools that a block lies in and fits, or nil.
func within(pools []*cluster.Pool, cidr netip.Prefix) *cluster.Pool {
	for _, p := range pools {
		if p.CIDR.Bits() <= cidr.Bits() && p.CIDR.Contains(cidr.Addr()) {
			return p
		}
	}
	return nil
}

// blockOf returns the block an address belongs to by the size its pool gives; without a pool, by the blocks there are.
func (o *operation) blockOf(ctx context.Context, a netip.Addr) (netip.Prefix, error) {
	if err := o.loadPools(ctx); err != nil {
		return netip.Prefix{}, err
	}
	if p := o.poolFor(netip.PrefixFrom(a, a.BitLen())); p != nil {
		return netip.PrefixFrom(a, p.BlockSize).Masked(), nil
	}
	blocks, err := o.listBlocks(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	for cidr := range blocks {
		if cidr.Contains(a) {
			return cidr, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("find the block of %s: no IPPool and no IPAMBlock holds it: %w", a, datastore.ErrNotFound)
}

// candidates yields every block of a pool once, from a place that depends on the host and going round. The generator
// and its seed are Calico's, so that a node that changes from one to the other asks for the same block first, and so
// that two processes of one node do, which then share one block instead of claiming two. Pools of single addresses
// start anywhere: there the same first choice would only mean more tries.
func candidates(pool *cluster.Pool, host string) iter.Seq[netip.Prefix] {
	width := pool.BlockSize - pool.CIDR.Bits() // of a block's number in the pool, in bits
	count := new(big.Int).Lsh(big.NewInt(1), uint(width))
	hash := fnv.New32()
	hash.Write([]byte(host))
	seed := int64(hash.Sum32())
	if pool.BlockSize == pool.CIDR.Addr().BitLen() {
		seed = time.Now().UnixNano()
	}
	start := new(big.Int).Rand(oldrand.New(oldrand.NewSource(seed)), count) // only this generator has Calico's sequence
	return around(pool, numberOf(start))
}

// inOrder yields every block of a pool from the first.
func inOrder(pool *cluster.Pool) iter.Seq[netip.Prefix] { return around(pool, number{}) }

// around yields every block of a pool once, from the n-th to the one before it.
func around(pool *cluster.Pool, n number) iter.Seq[netip.Prefix] {
	mask := number{hi: ^uint64(0), lo: ^uint64(0)}.shiftRight(128 - (pool.BlockSize - pool.CIDR.Bits()))
	return func(yield func(netip.Prefix) bool) {
		for first := n; ; {
			if !yield(nth(pool, n)) {
				return
			}
			n = n.next().and(mask)
			if n == first {
				return
			}
		}
	}
}

// number is an unsigned number of 128 bits: a pool of IPv6 addresses can have more blocks than 64 bits count.
type number struct{ hi, lo uint64 }

func numberOf(i *big.Int) number {
	var b [16]byte
	i.FillBytes(b[:])
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (n number) next() number {
	lo, carry := bits.Add64(n.lo, 1, 0)
	return number{n.hi + carry, lo}
}

func (n number) and(m number) number { return number{n.hi & m.hi, n.lo & m.lo} }

func (n number) shiftRight(by int) number {
	if by >= 64 {
		return number{0, n.hi >> (by - 64)} // Go shifts by 64 and more to 0
	}
	return number{n.hi >> by, n.lo>>by | n.hi<<(64-by)}
}

func (n number) shiftLeft(by int) number {
	if by >= 64 {
		return number{n.lo << (by - 64), 0}
	}
	return number{n.hi<<by | n.lo>>(64-by), n.lo << by}
}

// nth returns a pool's n-th block.
func nth(pool *cluster.Pool, n number) netip.Prefix {
	base := pool.CIDR.Addr()
	n = n.shiftLeft(base.BitLen() - pool.BlockSize)
	if base.Is4() {
		a := base.As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|uint32(n.lo))
		return netip.PrefixFrom(netip.AddrFrom4(a), pool.BlockSize)
	}
	a := base.As16()
	binary.BigEndian.PutUint64(a[:8], binary.BigEndian.Uint64(a[:8])|n.hi)
	binary.BigEndian.PutUint64(a[8:], binary.BigEndian.Uint64(a[8:])|n.lo)
	return netip.PrefixFrom(netip.AddrFrom16(a), pool.BlockSize)
}

// describe names pools for an error.
func describe(pools []*cluster.Pool) string {
	names := make([]string, len(pools))
	for i, p := range pools {
		names[i] = fmt.Sprintf("%s (%s)", p.Name, p.CIDR)
	}
	return "IPPool " + strings.Join(names, ", ")
}

// reconcilePool gives up a block of ours that has become empty and that its pool no longer gives to this node, so that
// the nodes it is for can have it (reference 3.7, step 6 and the end of a release).
func (o *operation) reconcilePool(ctx context.Context, cidr netip.Prefix) error {
	if err := o.loadPools(ctx); err != nil {
		return err
	}
	pool := o.poolFor(cidr)
	if pool == nil || !open(pool) {
		return nil
	}
	if ok, err := o.selects(ctx, pool); err != nil || ok {
		return err
	}
	err := o.releaseBlock(ctx, o.Node, cidr, releaseOptions{empty: true})
	if errors.Is(err, ErrNotEmpty) {
		return nil
	}
	return err
}
