package datastoretest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// race runs do in n goroutines at once and returns their errors.
func race(n int, do func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// winners counts the nil errors and fails on any that is none of loss.
func winners(t *testing.T, errs []error, loss ...error) (n int) {
	t.Helper()
	for _, err := range errs {
		lost := slices.ContainsFunc(loss, func(l error) bool { return errors.Is(err, l) })
		if err == nil {
			n++
		} else if !lost {
			t.Errorf("a loser of the race got %v", err)
		}
	}
	return n
}

const racers = 16

func racingCreates(t *testing.T, s datastore.Store) {
	errs := race(racers, func(i int) error {
		_, err := s.Create(t.Context(), handle("h", map[string]int{"10.0.0.0/26": i}))
		return err
	})
	if n := winners(t, errs, datastore.ErrExists); n != 1 {
		t.Fatalf("%d of %d creates succeeded, want 1", n, racers)
	}
	if i := must(t, s, "h").Spec.Block["10.0.0.0/26"]; errs[i] != nil {
		t.Errorf("the store holds the object of racer %d, who was told %v", i, errs[i])
	}
}

// racingUpdates is the test for lost updates: every successful increment is in the final count.
func racingUpdates(t *testing.T, s datastore.Store) {
	const each = 5
	create(t, s, handle("h", map[string]int{}))
	errs := race(racers, func(i int) error {
		for n := 0; n < each; {
			obj, err := s.Get(t.Context(), calico.KindIPAMHandle, "h")
			if err != nil {
				return err
			}
			h := obj.(*calico.IPAMHandle)
			if h.Spec.Block == nil {
				h.Spec.Block = map[string]int{}
			}
			h.Spec.Block["total"]++
			h.Spec.Block[fmt.Sprint(i)]++
			switch _, err := s.Update(t.Context(), h); {
			case err == nil:
				n++
			case !errors.Is(err, datastore.ErrConflict):
				return err
			}
		}
		return nil
	})
	if n := winners(t, errs); n != racers {
		t.Fatalf("%d of %d writers finished", n, racers)
	}
	h := must(t, s, "h")
	if h.Spec.Block["total"] != racers*each {
		t.Errorf("%d increments were acknowledged, the total is %d", racers*each, h.Spec.Block["total"])
	}
	for i := range racers {
		if n := h.Spec.Block[fmt.Sprint(i)]; n != each {
			t.Errorf("writer %d made %d increments, the store has %d", i, each, n)
		}
	}
}

func racingDeletes(t *testing.T, s datastore.Store) {
	h := create(t, s, handle("h", nil))
	errs := race(racers, func(i int) error {
		if i%2 == 0 {
			return s.Delete(t.Context(), h)
		}
		_, err := s.Update(t.Context(), withCount(calico.Clone(h), i)) // of something: see deleteStale
		return err
	})
	if n := winners(t, errs, datastore.ErrConflict, datastore.ErrNotFound); n != 1 {
		t.Errorf("%d writes of one version succeeded, want 1", n)
	}
}
