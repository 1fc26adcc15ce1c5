package cluster

import (
	"cmp"
	"net/netip"
	"slices"
)

// recordedMost is how many changes of one kind a State remembers for Diff. Beyond that, walking the two sorted lists side by
// side costs about the same and needs no memory.
const recordedMost = 64

// Change is one object that differs between two States: Old is nil where it was added, New where it was removed.
type Change[T any] struct{ Old, New *T }

// table keeps the objects of one kind: a sorted list that is shared with the last State and never written again, and what
// has been asked for since. A burst of any size costs one sort of the burst and one new list.
type table[K comparable, T any] struct {
	key     func(*T) K
	compare func(a, b K) int
	equal   func(a, b *T) bool
	live    []*T
	pending map[K]*T // nil = removed
}

func (t *table[K, T]) find(k K) (int, bool) {
	return slices.BinarySearchFunc(t.live, k, func(e *T, k K) int { return t.compare(t.key(e), k) })
}

// standing returns the object in the last State, or nil.
func (t *table[K, T]) standing(k K) *T {
	if i, ok := t.find(k); ok {
		return t.live[i]
	}
	return nil
}

// get returns the object as asked for, or nil.
func (t *table[K, T]) get(k K) *T {
	if v, ok := t.pending[k]; ok {
		return v
	}
	return t.standing(k)
}

// set asks for an object and returns the one it takes the place of; false where an equal one was there.
func (t *table[K, T]) set(v *T) (*T, bool) {
	k := t.key(v)
	was := t.get(k)
	if was != nil && t.equal(was, v) {
		return was, false
	}
	if s := t.standing(k); s != nil && t.equal(s, v) {
		delete(t.pending, k) // back to what it was: the last State's object serves
	} else {
		t.want(k, v)
	}
	return was, true
}

// remove withdraws an object and returns it; nil where there was none.
func (t *table[K, T]) remove(k K) *T {
	was := t.get(k)
	switch {
	case was == nil:
	case t.standing(k) == nil:
		delete(t.pending, k)
	default:
		t.want(k, nil)
	}
	return was
}

func (t *table[K, T]) want(k K, v *T) {
	if t.pending == nil {
		t.pending = make(map[K]*T)
	}
	t.pending[k] = v
}

// settle makes the asked-for list the live one and returns what changed, sorted by key.
func (t *table[K, T]) settle() []Change[T] {
	if len(t.pending) == 0 {
		return nil
	}
	changes := make([]Change[T], 0, len(t.pending))
	grown := 0
	for k, v := range t.pending {
		c := Change[T]{Old: t.standing(k), New: v}
		if c.Old == nil {
			grown++
		}
		if c.New == nil {
			grown--
		}
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b Change[T]) int { return t.compare(t.key(cmp.Or(a.New, a.Old)), t.key(cmp.Or(b.New, b.Old))) })
	t.live = t.merge(changes, len(t.live)+grown)
	if len(t.pending) > recordedMost {
		t.pending = nil // clearing a map costs its capacity, for ever
	} else {
		clear(t.pending)
	}
	return changes
}

func (t *table[K, T]) merge(changes []Change[T], size int) []*T {
	out := make([]*T, 0, size)
	rest := t.live
	for _, c := range changes {
		k := t.key(cmp.Or(c.New, c.Old))
		at, found := slices.BinarySearchFunc(rest, k, func(e *T, k K) int { return t.compare(t.key(e), k) })
		out = append(out, rest[:at]...)
		if found {
			at++
		}
		if c.New != nil {
			out = append(out, c.New)
		}
		rest = rest[at:]
	}
	return append(out, rest...)
}

// comparePrefix orders by family, address, then length: a prefix comes before everything inside it.
func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

// lengths counts the prefix lengths in use in a list of prefixes. A cluster has two or three, so the longest match in a
// sorted list is two or three exact searches, nested prefixes included.
type lengths struct {
	count      [2][129]int32
	four, six  []uint8 // in use, longest first; replaced, never written
	unsettled4 bool
	unsettled6 bool
}

func (l *lengths) add(p netip.Prefix, by int32) {
	family, mark := 0, &l.unsettled4
	if !p.Addr().Is4() {
		family, mark = 1, &l.unsettled6
	}
	n := &l.count[family][p.Bits()]
	if *n == 0 || *n+by == 0 {
		*mark = true
	}
	*n += by
}

// settle returns the lengths in use; the slices are new wherever they changed.
func (l *lengths) settle() inUse {
	if l.unsettled4 {
		l.four, l.unsettled4 = collect(&l.count[0]), false
	}
	if l.unsettled6 {
		l.six, l.unsettled6 = collect(&l.count[1]), false
	}
	return inUse{four: l.four, six: l.six}
}

func collect(count *[129]int32) []uint8 {
	var in []uint8
	for bits := 128; bits >= 0; bits-- {
		if count[bits] > 0 {
			in = append(in, uint8(bits))
		}
	}
	return in
}

// inUse are the prefix lengths of a list by family, longest first.
type inUse struct{ four, six []uint8 }

func (u inUse) of(a netip.Addr) []uint8 {
	if a.Is4() {
		return u.four
	}
	return u.six
}

// covering calls yield with each element of a list sorted by prefix that covers p, the longest first, until it returns false.
func covering[T any](list []*T, prefix func(*T) netip.Prefix, u inUse, p netip.Prefix, yield func(*T) bool) {
	for _, bits := range u.of(p.Addr()) {
		if int(bits) > p.Bits() {
			continue
		}
		q, err := p.Addr().Prefix(int(bits))
		if err != nil {
			return
		}
		i, ok := slices.BinarySearchFunc(list, q, func(e *T, q netip.Prefix) int { return comparePrefix(prefix(e), q) })
		if ok && !yield(list[i]) {
			return
		}
	}
}
