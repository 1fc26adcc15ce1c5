package delta

import "maps"

// Entry is one key with what is desired and what is there.
type Entry[K comparable, V comparable, N any] struct {
	// Note is the caller's own record of the key.
	Note N

	key             K
	desired, actual V
	place           int32 // index in Tracker.entries, -1 once dropped
	queued          queue // queues that hold the entry
}

type queue uint8

const (
	inUpdates queue = 1 << iota
	inDeletions
)

// Key returns what the entry is about.
func (e *Entry[K, V, N]) Key() K { return e.key }

// Desired returns what is wanted; the zero value is nothing.
func (e *Entry[K, V, N]) Desired() V { return e.desired }

// Actual returns what is there; the zero value is nothing.
func (e *Entry[K, V, N]) Actual() V { return e.actual }

// Same reports whether what is there is what is wanted.
func (e *Entry[K, V, N]) Same() bool { return e.desired == e.actual }

// work is the queue an entry belongs to, 0 where desired and actual agree.
func (e *Entry[K, V, N]) work() queue {
	var nothing V
	switch {
	case e.desired == e.actual:
		return 0
	case e.desired == nothing:
		return inDeletions
	default:
		return inUpdates
	}
}

// Tracker holds the entries and the work between them. The zero Tracker is not ready; use New.
type Tracker[K comparable, V comparable, N any] struct {
	pack      func(K) (word uint64, ok bool)
	packed    map[uint64]*Entry[K, V, N] // those whose keys fit into a word
	byKey     map[K]*Entry[K, V, N]      // the others
	entries   []*Entry[K, V, N]          // dense, in no order: for walks that pause
	updates   fifo[K, V, N]
	deletions fifo[K, V, N]
	slab      []Entry[K, V, N] // room for the next entries: fewer, larger allocations
}

// slabEntries is small, so that one long-lived entry among short-lived ones does not hold much. Places are never used again:
// somebody may still hold a dropped entry.
const slabEntries = 16

// New returns an empty Tracker.
func New[K comparable, V comparable, N any]() *Tracker[K, V, N] {
	return &Tracker[K, V, N]{byKey: map[K]*Entry[K, V, N]{}}
}

// NewPacked returns an empty Tracker for keys most of which fit into one word, which halves what finding them costs. pack returns the
// word of a key, different for different keys, and false for a key that does not fit.
func NewPacked[K comparable, V comparable, N any](pack func(K) (word uint64, ok bool)) *Tracker[K, V, N] {
	t := New[K, V, N]()
	t.pack, t.packed = pack, map[uint64]*Entry[K, V, N]{}
	return t
}

// word returns the word of a key, false for a key that has none.
func (t *Tracker[K, V, N]) word(k K) (uint64, bool) {
	if t.pack == nil {
		return 0, false
	}
	return t.pack(k)
}

// Len returns the number of entries.
func (t *Tracker[K, V, N]) Len() int { return len(t.entries) }

// At returns the i-th entry. Drop moves the last entry to the place of the dropped one, so a walk from the last to the
// first that pauses while entries are dropped may meet an entry twice but never misses one.
func (t *Tracker[K, V, N]) At(i int) *Entry[K, V, N] { return t.entries[i] }

// Get returns the entry of a key, or nil.
func (t *Tracker[K, V, N]) Get(k K) *Entry[K, V, N] {
	if w, ok := t.word(k); ok {
		return t.packed[w]
	}
	return t.byKey[k]
}

// Grow makes room for that many entries more, where a great set is known to come.
func (t *Tracker[K, V, N]) Grow(n int) {
	if n < 1024 || n < len(t.entries) {
		return // the map grows well by itself
	}
	if t.pack != nil {
		t.packed = grown(t.packed, n)
	} else {
		t.byKey = grown(t.byKey, n)
	}
}

func grown[K comparable, V any](m map[K]V, n int) map[K]V {
	bigger := make(map[K]V, len(m)+n)
	maps.Copy(bigger, m)
	return bigger
}

// Ensure returns the entry of a key, made empty if there is none.
func (t *Tracker[K, V, N]) Ensure(k K) *Entry[K, V, N] {
	if e := t.Get(k); e != nil {
		return e
	}
	if len(t.slab) == 0 {
		t.slab = make([]Entry[K, V, N], slabEntries)
	}
	e := &t.slab[0]
	t.slab = t.slab[1:]
	e.key, e.place = k, int32(len(t.entries))
	if w, ok := t.word(k); ok {
		t.packed[w] = e
	} else {
		t.byKey[k] = e
	}
	t.entries = append(t.entries, e)
	return e
}

// Drop forgets an entry of which nothing is desired and nothing is there, and reports whether it did.
func (t *Tracker[K, V, N]) Drop(e *Entry[K, V, N]) bool {
	var nothing V
	if e.desired != nothing || e.actual != nothing || e.place < 0 {
		return false
	}
	last := len(t.entries) - 1
	t.entries[e.place] = t.entries[last]
	t.entries[e.place].place = e.place
	t.entries[last] = nil
	t.entries = t.entries[:last]
	if w, ok := t.word(e.key); ok {
		delete(t.packed, w)
	} else {
		delete(t.byKey, e.key)
	}
	e.place = -1
	return true
}

// SetDesired says what is wanted; the zero value says that nothing is.
func (t *Tracker[K, V, N]) SetDesired(e *Entry[K, V, N], v V) {
	if e.desired != v {
		e.desired = v
		t.Wake(e)
	}
}

// SetActual says what is there; the zero value says that nothing is.
func (t *Tracker[K, V, N]) SetActual(e *Entry[K, V, N], v V) {
	if e.actual != v {
		e.actual = v
		t.Wake(e)
	}
}

// Wake queues an entry again whose desired and actual values differ: its back-off is over, or what it waited for came.
func (t *Tracker[K, V, N]) Wake(e *Entry[K, V, N]) {
	switch w := e.work(); {
	case w == 0 || e.queued&w != 0:
	case w == inUpdates:
		e.queued |= w
		t.updates.push(e)
	default:
		e.queued |= w
		t.deletions.push(e)
	}
}

// Updates returns an upper bound of the number of entries that TakeUpdate will hand out.
func (t *Tracker[K, V, N]) Updates() int { return t.updates.len() }

// Deletions returns an upper bound of the number of entries that TakeDeletion will hand out.
func (t *Tracker[K, V, N]) Deletions() int { return t.deletions.len() }

// TakeUpdate hands out the entry that has waited longest to be written, or nil.
func (t *Tracker[K, V, N]) TakeUpdate() *Entry[K, V, N] { return t.updates.take(inUpdates) }

// TakeDeletion hands out the entry that has waited longest to be removed, or nil.
func (t *Tracker[K, V, N]) TakeDeletion() *Entry[K, V, N] { return t.deletions.take(inDeletions) }

// fifo is a queue of entries. Entries whose work vanished while they waited are passed over when their turn comes.
type fifo[K comparable, V comparable, N any] struct {
	entries []*Entry[K, V, N]
	head    int
}

func (f *fifo[K, V, N]) push(e *Entry[K, V, N]) { f.entries = append(f.entries, e) }

func (f *fifo[K, V, N]) len() int { return len(f.entries) - f.head }

// keptCapacity is the size up to which an emptied queue keeps its memory: a burst of 100,000 must not hold a megabyte.
const keptCapacity = 4096

func (f *fifo[K, V, N]) take(as queue) *Entry[K, V, N] {
	for f.head < len(f.entries) {
		e := f.entries[f.head]
		f.entries[f.head] = nil
		f.head++
		e.queued &^= as
		if e.work() == as {
			return e
		}
	}
	f.head = 0
	f.entries = f.entries[:0]
	if cap(f.entries) > keptCapacity {
		f.entries = nil
	}
	return nil
}
