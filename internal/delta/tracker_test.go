package delta

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

type tracker = Tracker[int, string, int]

// model is the tracker in the most naive form: two maps, the work worked out anew each time.
type model struct{ desired, actual map[int]string }

func (m *model) updates() (keys []int) {
	for k, v := range m.desired {
		if m.actual[k] != v {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *model) deletions() (keys []int) {
	for k := range m.actual {
		if m.desired[k] == "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func set(m map[int]string, k int, v string) {
	if v == "" {
		delete(m, k)
		return
	}
	m[k] = v
}

// drain takes everything that is queued, and fails if an entry is handed out twice.
func drain(t *testing.T, take func() *Entry[int, string, int]) (keys []int) {
	t.Helper()
	for e := take(); e != nil; e = take() {
		if slices.Contains(keys, e.Key()) {
			t.Fatalf("entry %d handed out twice", e.Key())
		}
		keys = append(keys, e.Key())
	}
	slices.Sort(keys)
	return keys
}

// made returns a Tracker; of every third, some keys fit into a word, and of another third all do.
func made(seed uint64) *tracker {
	if seed%3 == 0 {
		return New[int, string, int]()
	}
	return NewPacked[int, string, int](func(k int) (uint64, bool) { return uint64(k), seed%3 == 1 || k%2 == 0 })
}

func TestAgainstModel(t *testing.T) {
	values := []string{"", "a", "b"}
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		tr, m := made(seed), &model{map[int]string{}, map[int]string{}}
		taken := map[int]bool{} // differing entries in the hands of the "caller"
		for step := range 200 {
			k, v := rng.IntN(12), values[rng.IntN(len(values))]
			e := tr.Ensure(k)
			switch rng.IntN(6) {
			case 0, 1:
				if m.desired[k] != v {
					delete(taken, k)
				}
				tr.SetDesired(e, v)
				set(m.desired, k, v)
			case 2, 3:
				if m.actual[k] != v {
					delete(taken, k)
				}
				tr.SetActual(e, v)
				set(m.actual, k, v)
			case 4:
				tr.Wake(e)
				delete(taken, k)
			case 5:
				empty := m.desired[k] == "" && m.actual[k] == ""
				if tr.Drop(e) != empty || (tr.Get(k) == nil) != empty {
					t.Fatalf("seed %d step %d: dropping %d: empty is %v", seed, step, k, empty)
				}
			}
			if rng.IntN(20) == 0 {
				check(t, tr, m, taken, seed, step)
			}
		}
		check(t, tr, m, taken, seed, -1)
	}
}

func check(t *testing.T, tr *tracker, m *model, taken map[int]bool, seed uint64, step int) {
	t.Helper()
	without := func(keys []int) []int {
		return slices.DeleteFunc(keys, func(k int) bool { return taken[k] })
	}
	wantUpdates, wantDeletions := without(m.updates()), without(m.deletions())
	if got := drain(t, tr.TakeUpdate); !slices.Equal(got, wantUpdates) {
		t.Fatalf("seed %d step %d: updates %v, want %v", seed, step, got, wantUpdates)
	}
	if got := drain(t, tr.TakeDeletion); !slices.Equal(got, wantDeletions) {
		t.Fatalf("seed %d step %d: deletions %v, want %v", seed, step, got, wantDeletions)
	}
	for _, k := range slices.Concat(wantUpdates, wantDeletions) {
		taken[k] = true
	}
	desired, actual := map[int]string{}, map[int]string{}
	for i := range tr.Len() {
		e := tr.At(i)
		if tr.Get(e.Key()) != e {
			t.Fatalf("seed %d: entry %d is not found by its key", seed, e.Key())
		}
		set(desired, e.Key(), e.Desired())
		set(actual, e.Key(), e.Actual())
	}
	if !maps.Equal(desired, m.desired) || !maps.Equal(actual, m.actual) {
		t.Fatalf("seed %d: holds %v / %v, want %v / %v", seed, desired, actual, m.desired, m.actual)
	}
}

func TestOrderIsFirstComeFirstServed(t *testing.T) {
	tr := New[int, string, int]()
	for _, k := range []int{5, 3, 9} {
		tr.SetDesired(tr.Ensure(k), "a")
	}
	tr.SetDesired(tr.Get(5), "b") // still waiting: keeps its place
	var got []int
	for e := tr.TakeUpdate(); e != nil; e = tr.TakeUpdate() {
		got = append(got, e.Key())
	}
	if !slices.Equal(got, []int{5, 3, 9}) {
		t.Fatalf("taken in order %v", got)
	}
}

func TestTakenEntryComesBackOnlyByChangeOrWake(t *testing.T) {
	tr := New[int, string, int]()
	e := tr.Ensure(1)
	tr.SetDesired(e, "a")
	if tr.TakeUpdate() != e {
		t.Fatal("not queued")
	}
	tr.SetDesired(e, "a")
	tr.SetActual(e, "")
	if tr.TakeUpdate() != nil {
		t.Fatal("an unchanged wish was queued again: a failing entry would spin")
	}
	tr.Wake(e)
	if tr.TakeUpdate() != e {
		t.Fatal("Wake did not queue it")
	}
	tr.SetActual(e, "x")
	if tr.TakeUpdate() != e {
		t.Fatal("a changed world did not queue it")
	}
}

func TestUnchangedAllocatesNothing(t *testing.T) {
	tr := New[int, string, int]()
	const n = 1000
	for k := range n {
		e := tr.Ensure(k)
		tr.SetDesired(e, "a")
		tr.SetActual(e, "a")
	}
	for tr.TakeUpdate() != nil {
		t.Fatal("an entry that agrees was handed out")
	}
	allocs := testing.AllocsPerRun(10, func() {
		for k := range n {
			e := tr.Ensure(k)
			tr.SetDesired(e, "a")
			tr.SetActual(e, "a")
		}
		if tr.TakeUpdate() != nil || tr.TakeDeletion() != nil {
			t.Fatal("work where there is none")
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations for %d unchanged entries", allocs, n)
	}
}

func TestBackwardWalkMissesNothing(t *testing.T) {
	tr := New[int, string, int]()
	for k := range 100 {
		tr.Ensure(k)
	}
	seen := map[int]bool{}
	for i := tr.Len() - 1; i >= 0; i-- {
		if i >= tr.Len() {
			continue
		}
		seen[tr.At(i).Key()] = true
		if i%3 == 0 {
			tr.Drop(tr.Get(i / 2)) // somewhere not yet visited or just visited
		}
	}
	for i := range tr.Len() {
		if !seen[tr.At(i).Key()] {
			t.Fatalf("entry %d was missed", tr.At(i).Key())
		}
	}
}

func BenchmarkSetUnchanged(b *testing.B) {
	tr := New[int, string, int]()
	for k := range 100_000 {
		tr.SetDesired(tr.Ensure(k), "a")
	}
	b.ReportAllocs()
	for b.Loop() {
		for k := range 100_000 {
			tr.SetDesired(tr.Get(k), "a")
		}
	}
}
