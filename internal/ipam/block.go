package ipam

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
)

// windowsHandle is the handle under which Calico on Windows reserves the first and last addresses of a block; a block
// that holds nothing else counts as empty.
const windowsHandle = "windows-reserved-ipam-handle"

// maxBlockBits bounds a block to 4,096 addresses, the largest Calico makes (/20, /116); a block object that claims more
// is broken, and believing it would allocate its size in memory.
const maxBlockBits = 12

// block is an IPAMBlock of the datastore with its CIDR parsed. Its methods change it in memory only; a change that is
// not written is thrown away with the block, never written later.
type block struct {
	*calico.IPAMBlock
	cidr netip.Prefix
	// husk: of a block that is in use there is no more than the owner and what is free. It can be counted, not written.
	husk bool
}

// asHusk returns the block without what its addresses are used for.
func (b *block) asHusk() *block {
	h := &block{IPAMBlock: &calico.IPAMBlock{}, cidr: b.cidr, husk: true}
	h.Spec.Affinity, h.Spec.Unallocated = b.Spec.Affinity, b.Spec.Unallocated
	return h
}

// newBlock returns an empty block owned by a host, as it is before its creation.
func newBlock(cidr netip.Prefix, host string, now time.Time) *block {
	owner := ownerOf(host)
	claimed := now.UTC().Truncate(time.Second) // metav1.Time has whole seconds
	size := 1 << (cidr.Addr().BitLen() - cidr.Bits())
	b := &block{IPAMBlock: &calico.IPAMBlock{}, cidr: cidr}
	b.Name = calico.BlockName(cidr)
	b.Spec = calico.IPAMBlockSpec{
		CIDR:              cidr.String(),
		Affinity:          &owner,
		AffinityClaimTime: &claimed,
		Allocations:       make([]*int, size),
		Unallocated:       make([]int, size),
		Attributes:        []calico.AllocationAttrs{},
		// From the clock, so that a block that is deleted and made again never repeats a number: a release that
		// still carries the number of an allocation in the first block misses in the second.
		SequenceNumber: uint64(now.UnixNano()),
	}
	for i := range b.Spec.Unallocated {
		b.Spec.Unallocated[i] = i
	}
	return b
}

// ownerOf is the affinity field of a block that a host owns.
func ownerOf(host string) string { return calico.AffinityHost + host }

// parseBlock checks what the methods rely on: an index out of range in an object somebody edited must cost that block,
// not the process.
func parseBlock(obj *calico.IPAMBlock) (*block, error) {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("IPAMBlock %s: %s %s; repair or delete the block", obj.Name, field, fmt.Sprintf(format, args...))
	}
	cidr, err := netip.ParsePrefix(obj.Spec.CIDR)
	if err != nil || cidr != cidr.Masked() || cidr.Addr().BitLen()-cidr.Bits() > maxBlockBits {
		return nil, bad("spec.cidr", "%q is not a usable block", obj.Spec.CIDR)
	}
	size := 1 << (cidr.Addr().BitLen() - cidr.Bits())
	if len(obj.Spec.Allocations) != size {
		return nil, bad("spec.allocations", "has %d entries for %d addresses", len(obj.Spec.Allocations), size)
	}
	for i, index := range obj.Spec.Allocations {
		if index != nil && (*index < 0 || *index >= len(obj.Spec.Attributes)) {
			return nil, bad("spec.allocations", "entry %d refers to attributes %d of %d", i, *index, len(obj.Spec.Attributes))
		}
	}
	for _, ordinal := range obj.Spec.Unallocated {
		if ordinal < 0 || ordinal >= size || obj.Spec.Allocations[ordinal] != nil {
			return nil, bad("spec.unallocated", "entry %d is not a free address", ordinal)
		}
	}
	if obj.Spec.Unallocated == nil { // written back as null it would be refused: Calico's schema wants a list
		obj.Spec.Unallocated = []int{}
	}
	if obj.Spec.Attributes == nil {
		obj.Spec.Attributes = []calico.AllocationAttrs{}
	}
	return &block{IPAMBlock: obj, cidr: cidr}, nil
}

// addr returns the address of an ordinal.
func (b *block) addr(ordinal int) netip.Addr {
	if b.cidr.Addr().Is4() {
		a := b.cidr.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(ordinal))
		return netip.AddrFrom4(a)
	}
	a := b.cidr.Addr().As16() // a block is aligned and short: nothing carries out of the low half
	binary.BigEndian.PutUint64(a[8:], binary.BigEndian.Uint64(a[8:])+uint64(ordinal))
	return netip.AddrFrom16(a)
}

// ordinal returns the place of an address in the block, -1 if it is outside.
func (b *block) ordinal(a netip.Addr) int {
	if !b.cidr.Contains(a) {
		return -1
	}
	x, y := a.As16(), b.cidr.Addr().As16()
	return int(binary.BigEndian.Uint64(x[8:]) - binary.BigEndian.Uint64(y[8:]))
}

// free returns how many addresses can be assigned.
func (b *block) free() int { return len(b.Spec.Unallocated) }

// empty reports whether nobody holds an address. An address in its cooldown is held by the clock.
func (b *block) empty() bool {
	if b.husk {
		return false
	}
	for _, index := range b.Spec.Allocations {
		if index == nil {
			continue
		}
		if h := b.Spec.Attributes[*index].HandleID; h == nil || strings.ToLower(*h) != windowsHandle {
			return false
		}
	}
	return true
}

// ownedBy reports whether the block's affinity is the host's.
func (b *block) ownedBy(host string) bool {
	return b.Spec.Affinity != nil && *b.Spec.Affinity == ownerOf(host)
}

// virtual reports whether the block's owner is no host, such as the load balancer controller.
func (b *block) virtual() bool {
	return b.Spec.Affinity != nil && strings.HasPrefix(*b.Spec.Affinity, calico.AffinityVirtual)
}

// attrs returns the attributes of an allocated ordinal, nil for a free one and for one in its cooldown.
func (b *block) attrs(ordinal int) *calico.AllocationAttrs {
	if ordinal < 0 || b.Spec.Allocations[ordinal] == nil {
		return nil
	}
	if a := &b.Spec.Attributes[*b.Spec.Allocations[ordinal]]; a.ReleasedAt == nil {
		return a
	}
	return nil
}

// handle returns the handle an entry is held under, "" for none. Handles that a migration from host-local once wrote
// with a carriage return and more behind it count as what stands before.
func handleOf(a *calico.AllocationAttrs) string {
	if a == nil || a.HandleID == nil {
		return ""
	}
	h, _, _ := strings.Cut(*a.HandleID, "\r")
	return h
}

// held returns the ordinals under a handle, ascending.
func (b *block) held(handle string) (ordinals []int) {
	for i := range b.Spec.Allocations {
		if a := b.attrs(i); a != nil && handleOf(a) == handle {
			ordinals = append(ordinals, i)
		}
	}
	return ordinals
}

// assign takes up to n addresses from the front of the queue.
func (b *block) assign(n int, handle string, attrs map[string]string) []int {
	n = min(n, b.free())
	if n <= 0 {
		return nil
	}
	ordinals := slices.Clone(b.Spec.Unallocated[:n])
	b.Spec.Unallocated = b.Spec.Unallocated[n:]
	index := b.entry(handle, attrs)
	for _, o := range ordinals {
		b.occupy(o, index)
	}
	return ordinals
}

// assignOrdinal takes one free address wherever it stands in the queue and reports whether it was free.
func (b *block) assignOrdinal(ordinal int, handle string, attrs map[string]string) bool {
	at := slices.Index(b.Spec.Unallocated, ordinal)
	if at < 0 {
		return false
	}
	b.Spec.Unallocated = slices.Delete(b.Spec.Unallocated, at, at+1)
	b.occupy(ordinal, b.entry(handle, attrs))
	return true
}

func (b *block) occupy(ordinal, index int) {
	b.Spec.Allocations[ordinal] = &index
	if b.Spec.SequenceNumberForAllocation == nil {
		b.Spec.SequenceNumberForAllocation = map[string]uint64{}
	}
	b.Spec.SequenceNumberForAllocation[strconv.Itoa(ordinal)] = b.Spec.SequenceNumber
}

// sequence returns the block's sequence number at which an ordinal was assigned, 0 for data older than the field.
func (b *block) sequence(ordinal int) uint64 {
	return b.Spec.SequenceNumberForAllocation[strconv.Itoa(ordinal)]
}

// entry returns the index of the attributes, adding them if no entry is equal: addresses of one holder share one.
func (b *block) entry(handle string, attrs map[string]string) int {
	for i := range b.Spec.Attributes {
		a := &b.Spec.Attributes[i]
		if a.HandleID != nil && *a.HandleID == handle && maps.Equal(a.Secondary, attrs) &&
			len(a.AlternateOwnerAttrs) == 0 && a.ReleasedAt == nil {
			return i
		}
	}
	b.Spec.Attributes = append(b.Spec.Attributes, calico.AllocationAttrs{HandleID: &handle, Secondary: maps.Clone(attrs)})
	return len(b.Spec.Attributes) - 1
}

// release ends the allocations of the ordinals, which must be allocated. The addresses keep their places as released
// at now until collect frees them.
func (b *block) release(ordinals []int, now time.Time) {
	at := now.UTC().Truncate(time.Second)
	if len(ordinals) == 0 {
		return
	}
	index := len(b.Spec.Attributes)
	b.Spec.Attributes = append(b.Spec.Attributes, calico.AllocationAttrs{ReleasedAt: &at})
	for _, o := range ordinals {
		b.Spec.Allocations[o] = &index
	}
	b.prune()
}

// collect puts addresses whose cooldown is over at the back of the queue, the longest released first.
func (b *block) collect(now time.Time, cooldown time.Duration) {
	var over []int
	for i, index := range b.Spec.Allocations {
		if index == nil {
			continue
		}
		if at := b.Spec.Attributes[*index].ReleasedAt; at != nil && (cooldown <= 0 || now.Sub(*at) >= cooldown) {
			over = append(over, i)
		}
	}
	if len(over) == 0 {
		return
	}
	released := func(o int) time.Time { return *b.Spec.Attributes[*b.Spec.Allocations[o]].ReleasedAt }
	slices.SortStableFunc(over, func(x, y int) int { return released(x).Compare(released(y)) })
	for _, o := range over {
		b.Spec.Allocations[o] = nil
		delete(b.Spec.SequenceNumberForAllocation, strconv.Itoa(o))
	}
	b.Spec.Unallocated = append(b.Spec.Unallocated, over...)
	b.prune()
}

// prune drops attributes that no address refers to; the entries behind them move up and the references with them.
func (b *block) prune() {
	used := make([]bool, len(b.Spec.Attributes))
	for _, index := range b.Spec.Allocations {
		if index != nil {
			used[*index] = true
		}
	}
	moved := make([]int, len(used))
	kept := make([]calico.AllocationAttrs, 0, len(used))
	for i, u := range used {
		moved[i] = len(kept)
		if u {
			kept = append(kept, b.Spec.Attributes[i])
		}
	}
	b.Spec.Attributes = kept
	for o, index := range b.Spec.Allocations {
		if index != nil {
			to := moved[*index] // its own variable: entries of one slice may share a pointer
			b.Spec.Allocations[o] = &to
		}
	}
}

// Release names one address to give back.
type Release struct {
	Addr netip.Addr
	// Handle, if set, must be the one the address is held under.
	Handle string
	// Sequence, if not 0, must be the sequence number of the allocation (sequenceNumberForAllocation): it tells the
	// allocation that was meant from a later one of the same address.
	Sequence uint64
}

// releasable returns the ordinals of allocated addresses and how many are held under each handle, the others apart.
// One that is held otherwise than the caller says fails the whole request: the caller's picture is old.
func (b *block) releasable(want []Release) (ordinals []int, counts map[string]int, absent []netip.Addr, err error) {
	counts = map[string]int{}
	seen := map[int]bool{}
	for _, r := range want {
		o := b.ordinal(r.Addr)
		if seen[o] {
			continue
		}
		seen[o] = true
		a := b.attrs(o)
		if a == nil {
			absent = append(absent, r.Addr)
			continue
		}
		handle := handleOf(a)
		if r.Handle != "" && r.Handle != handle {
			return nil, nil, nil, fmt.Errorf("release %s: held under handle %q, not %q: %w", r.Addr, handle, r.Handle, ErrNotHeld)
		}
		if r.Sequence != 0 && r.Sequence != b.sequence(o) {
			return nil, nil, nil, fmt.Errorf("release %s: assigned at sequence %d, not %d: %w",
				r.Addr, b.sequence(o), r.Sequence, ErrNotHeld)
		}
		ordinals = append(ordinals, o)
		if handle != "" {
			counts[handle]++
		}
	}
	return ordinals, counts, absent, nil
}

// wrote reports whether the block, read back, holds what an assignment meant to write: its answer was lost.
func (b *block) wrote(ordinals []int, handle string, sequence uint64) bool {
	for _, o := range ordinals {
		if handleOf(b.attrs(o)) != handle || b.sequence(o) != sequence {
			return false
		}
	}
	return true
}
