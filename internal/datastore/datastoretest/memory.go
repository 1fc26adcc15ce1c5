package datastoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Memory is a Store in the process. The zero value is not usable; see NewMemory.
type Memory struct {
	mu      sync.Mutex
	objects map[key]calico.Object
	version uint64 // of the last write, in the whole store, as etcd counts
}

type key struct {
	kind calico.Kind
	name string
}

func keyOf(obj calico.Object) key { return key{obj.Kind(), obj.Meta().Name} }

func (k key) String() string { return string(k.kind) + " " + k.name }

// NewMemory returns a Store that holds copies of the objects.
func NewMemory(objects ...calico.Object) *Memory {
	m := &Memory{objects: map[key]calico.Object{}}
	for _, obj := range objects {
		if _, err := m.Create(context.Background(), obj); err != nil {
			panic(fmt.Sprintf("datastoretest: %v", err)) // a fixture with two objects of one name
		}
	}
	return m
}

// MustCreate is Create for fixtures.
func (m *Memory) MustCreate(t testing.TB, objects ...calico.Object) {
	t.Helper()
	for _, obj := range objects {
		if _, err := m.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
}

// Get implements datastore.Store.
func (m *Memory) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{kind, name}
	obj, ok := m.objects[k]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", k, datastore.ErrNotFound)
	}
	return calico.Clone(obj), nil
}

// List implements datastore.Store.
func (m *Memory) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []calico.Object
	for k, obj := range m.objects {
		if k.kind == kind {
			list = append(list, calico.Clone(obj))
		}
	}
	slices.SortFunc(list, func(a, b calico.Object) int { return strings.Compare(a.Meta().Name, b.Meta().Name) })
	return list, nil
}

// ListAffinities implements datastore.AffinityLister, as an API server selects.
func (m *Memory) ListAffinities(ctx context.Context, host string) ([]calico.Object, error) {
	all, err := m.List(ctx, calico.KindBlockAffinity)
	return slices.DeleteFunc(all, func(obj calico.Object) bool {
		hash, labelled := obj.Meta().Labels[calico.LabelHostnameHash]
		return labelled && hash != calico.HostnameHash(host)
	}), err
}

// Create implements datastore.Store.
func (m *Memory) Create(ctx context.Context, obj calico.Object) (calico.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := keyOf(obj)
	if k.name == "" {
		return nil, fmt.Errorf("create %s: metadata.name is empty", k.kind)
	}
	if calico.WatchedOnly(k.kind) {
		return nil, fmt.Errorf("create %s: %w", k, errors.ErrUnsupported)
	}
	if _, ok := m.objects[k]; ok {
		return nil, fmt.Errorf("create %s: %w", k, datastore.ErrExists)
	}
	stored := calico.Clone(obj)
	meta := stored.Meta()
	if meta.CreationTimestamp == nil {
		now := time.Now().UTC().Truncate(time.Second) // metav1.Time has whole seconds
		meta.CreationTimestamp = &now
	}
	m.put(k, stored)
	meta.UID = "uid-" + meta.ResourceVersion
	return calico.Clone(stored), nil
}

// put stores an object under a new version; the caller holds the lock.
func (m *Memory) put(k key, obj calico.Object) {
	m.version++
	obj.Meta().ResourceVersion = strconv.FormatUint(m.version, 10)
	m.objects[k] = obj
}

// match returns the stored object if it is still the one the caller read; the caller holds the lock.
func (m *Memory) match(verb string, obj calico.Object) (calico.Object, error) {
	k, want := keyOf(obj), obj.Meta()
	stored, ok := m.objects[k]
	if !ok {
		return nil, fmt.Errorf("%s %s: %w", verb, k, datastore.ErrNotFound)
	}
	have := stored.Meta()
	if want.ResourceVersion != have.ResourceVersion || want.UID != have.UID {
		return nil, fmt.Errorf("%s %s: read at version %q, now %q: %w",
			verb, k, want.ResourceVersion, have.ResourceVersion, datastore.ErrConflict)
	}
	return stored, nil
}

// Update implements datastore.Store.
func (m *Memory) Update(ctx context.Context, obj calico.Object) (calico.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, err := m.match("update", obj)
	if err != nil {
		return nil, err
	}
	stored := calico.Clone(obj)
	stored.Meta().CreationTimestamp = old.Meta().CreationTimestamp
	m.put(keyOf(obj), stored)
	return calico.Clone(stored), nil
}

// Delete implements datastore.Store.
func (m *Memory) Delete(ctx context.Context, obj calico.Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.match("delete", obj); err != nil {
		return err
	}
	m.version++
	delete(m.objects, keyOf(obj))
	return nil
}

// Objects returns a copy of everything in the store, sorted by kind and name.
func (m *Memory) Objects() []calico.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]calico.Object, 0, len(m.objects))
	for _, obj := range m.objects {
		list = append(list, calico.Clone(obj))
	}
	slices.SortFunc(list, func(a, b calico.Object) int { return strings.Compare(keyOf(a).String(), keyOf(b).String()) })
	return list
}
