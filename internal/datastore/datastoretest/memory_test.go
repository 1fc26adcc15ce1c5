package datastoretest

import (
	"errors"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

func TestMemory(t *testing.T) {
	Contract(t, func(*testing.T) datastore.Store { return NewMemory() })
	ContractStart(t, func(*testing.T) datastore.Store { return NewMemory() })
}

// TestFaultyWithoutFaults: the wrapper itself changes nothing.
func TestFaultyWithoutFaults(t *testing.T) {
	Contract(t, func(*testing.T) datastore.Store { return NewFaulty(NewMemory(), At(0, Crash)) })
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		want  error
		made  bool // the second write happened
		dead  bool // the third call fails as well
	}{
		{"none", NoFault, nil, true, false},
		{"conflict", Conflict, datastore.ErrConflict, false, false},
		{"refuse", Refuse, ErrRefused, false, false},
		{"lose answer", LoseAnswer, ErrLostAnswer, true, false},
		{"crash", Crash, ErrCrashed, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, m := t.Context(), NewMemory()
			f := NewFaulty(m, At(2, c.fault))
			h := create(t, f, handle("h", map[string]int{"10.0.0.0/26": 1})).(*calico.IPAMHandle)
			h.Spec.Block["10.0.0.0/26"] = 2
			_, err := f.Update(ctx, h)
			if !errors.Is(err, c.want) {
				t.Errorf("second write: %v, want %v", err, c.want)
			}
			if made := must(t, m, "h").Spec.Block["10.0.0.0/26"] == 2; made != c.made {
				t.Errorf("second write made: %v, want %v", made, c.made)
			}
			_, err = f.Get(ctx, calico.KindIPAMHandle, "h")
			if dead := errors.Is(err, ErrCrashed); dead != c.dead {
				t.Errorf("read after it: %v, want dead: %v", err, c.dead)
			}
			if fired := f.Fired() == 1; fired != (c.fault != NoFault) || f.Writes() != 2 {
				t.Errorf("%d writes, %d faults", f.Writes(), f.Fired())
			}
		})
	}
}
