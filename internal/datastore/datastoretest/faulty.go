package datastoretest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// The errors of an injected fault, other than datastore.ErrConflict.
var (
	// ErrRefused: the write was not made.
	ErrRefused = errors.New("injected: write refused")
	// ErrLostAnswer: the write was made, its caller cannot know.
	ErrLostAnswer = errors.New("injected: answer lost")
	// ErrCrashed: the client died; nothing it asks for happens any more.
	ErrCrashed = errors.New("injected: client crashed")
)

// Fault is what becomes of one write.
type Fault int

// The faults.
const (
	NoFault    Fault = iota
	Conflict         // not made; answered with datastore.ErrConflict, a create with datastore.ErrExists
	Refuse           // answered with ErrRefused, not made
	LoseAnswer       // made, answered with ErrLostAnswer
	Crash            // not made; this and every later call, reads too, is answered with ErrCrashed
)

// Plan chooses the fault of the n-th write of a client, counted from 1.
type Plan func(n int, verb string, kind calico.Kind) Fault

// At is the Plan with one fault, at the n-th write.
func At(n int, f Fault) Plan {
	return func(i int, _ string, _ calico.Kind) Fault {
		if i == n {
			return f
		}
		return NoFault
	}
}

// Faulty is one client of a Store whose writes fail by plan.
type Faulty struct {
	store datastore.Store
	plan  Plan

	mu      sync.Mutex
	writes  int
	fired   int
	crashed bool
}

// NewFaulty returns a client of the store.
func NewFaulty(store datastore.Store, plan Plan) *Faulty { return &Faulty{store: store, plan: plan} }

// Writes returns how many writes were asked for.
func (f *Faulty) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// Fired returns how many faults were injected; a test of a fault that never fired has tested nothing.
func (f *Faulty) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// alive returns ErrCrashed after a crash.
func (f *Faulty) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return ErrCrashed
	}
	return nil
}

// write makes one write, or not, as planned.
func (f *Faulty) write(verb string, kind calico.Kind, name string, do func() error) error {
	f.mu.Lock()
	if f.crashed {
		f.mu.Unlock()
		return ErrCrashed
	}
	f.writes++
	fault := f.plan(f.writes, verb, kind)
	if fault != NoFault {
		f.fired++
	}
	f.crashed = fault == Crash
	f.mu.Unlock()
	switch fault {
	case Conflict:
		if verb == "create" { // met an object that is gone again by the time anybody looks
			return fmt.Errorf("%s %s %s: injected: %w", verb, kind, name, datastore.ErrExists)
		}
		return fmt.Errorf("%s %s %s: injected: %w", verb, kind, name, datastore.ErrConflict)
	case Refuse:
		return fmt.Errorf("%s %s %s: %w", verb, kind, name, ErrRefused)
	case Crash:
		return fmt.Errorf("%s %s %s: %w", verb, kind, name, ErrCrashed)
	}
	if err := do(); err != nil {
		return err
	}
	if fault == LoseAnswer {
		return fmt.Errorf("%s %s %s: %w", verb, kind, name, ErrLostAnswer)
	}
	return nil
}

// Get implements datastore.Store.
func (f *Faulty) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	return f.store.Get(ctx, kind, name)
}

// List implements datastore.Store.
func (f *Faulty) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	return f.store.List(ctx, kind)
}

// ListAffinities implements datastore.AffinityLister.
func (f *Faulty) ListAffinities(ctx context.Context, host string) ([]calico.Object, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	return datastore.ListAffinities(ctx, f.store, host)
}

// Create implements datastore.Store.
func (f *Faulty) Create(ctx context.Context, obj calico.Object) (out calico.Object, err error) {
	err = f.write("create", obj.Kind(), obj.Meta().Name, func() error { out, err = f.store.Create(ctx, obj); return err })
	return nilOnError(out, err)
}

// Update implements datastore.Store.
func (f *Faulty) Update(ctx context.Context, obj calico.Object) (out calico.Object, err error) {
	err = f.write("update", obj.Kind(), obj.Meta().Name, func() error { out, err = f.store.Update(ctx, obj); return err })
	return nilOnError(out, err)
}

// Delete implements datastore.Store.
func (f *Faulty) Delete(ctx context.Context, obj calico.Object) error {
	return f.write("delete", obj.Kind(), obj.Meta().Name, func() error { return f.store.Delete(ctx, obj) })
}

// PatchNode implements datastore.Store.
func (f *Faulty) PatchNode(ctx context.Context, name string, patch datastore.NodePatch) error {
	return f.write("patch", calico.KindNode, name, func() error { return f.store.PatchNode(ctx, name, patch) })
}

func nilOnError(obj calico.Object, err error) (calico.Object, error) {
	if err != nil {
		return nil, err
	}
	return obj, nil
}
