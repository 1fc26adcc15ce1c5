package datastore

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// The outcomes a caller branches on; every Store wraps its errors around one of them where it applies.
var (
	// ErrNotFound: no object of that kind and name.
	ErrNotFound = errors.New("not found")
	// ErrExists: Create met an object of that kind and name.
	ErrExists = errors.New("already exists")
	// ErrConflict: the object is no longer the one that was read (resourceVersion or UID differ).
	ErrConflict = errors.New("changed since it was read")
	// ErrForbidden: our role does not allow it.
	ErrForbidden = errors.New("forbidden")
)

// Update is one delivery of a Watcher.
type Update struct {
	State *cluster.State
	// InSync is false until the Watcher has read the whole datastore once, true from then on,
	// also while the datastore cannot be reached (State is then the last good one).
	InSync bool
	// Err says why the datastore cannot be read at the moment; nil when it can.
	Err error
	// Suspect says why State may not be the truth although the datastore could be read: it seems to have gone back in
	// time, or to be another one. What is missing in State may come back. Empty when there is no doubt.
	Suspect string
	// Stale, when it is set, says that State is a copy from then, kept while the datastore cannot be read; InSync is false. It is a whole State and may be
	// routed by, but what it lacks may exist.
	Stale time.Time
	// Kept, on the first in-sync Updates of a process, is the State that a former one has kept, from KeptAt; nil if there is none.
	Kept   *cluster.State
	KeptAt time.Time
}

// Watcher delivers the cluster's state.
type Watcher interface {
	// Watch calls sink, from one goroutine, with the first in-sync state and then with each state that differs in
	// anything routed on (bursts coalesced), or when Err or Suspect changes. It returns only when ctx ends, with ctx's error.
	Watch(ctx context.Context, sink func(Update)) error
}

// Store reads and writes single objects with compare-and-swap.
type Store interface {
	// Get returns the object, or ErrNotFound.
	Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error)
	// List returns every object of a kind, sorted by name.
	List(ctx context.Context, kind calico.Kind) ([]calico.Object, error)
	// Create writes a new object and returns it with its UID and ResourceVersion, or ErrExists.
	Create(ctx context.Context, obj calico.Object) (calico.Object, error)
	// Update replaces the object if it still has obj's ResourceVersion, else ErrConflict; ErrNotFound if it is gone.
	Update(ctx context.Context, obj calico.Object) (calico.Object, error)
	// Delete removes the object if it still has obj's UID and ResourceVersion, else ErrConflict; ErrNotFound if it is gone.
	Delete(ctx context.Context, obj calico.Object) error
	// PatchNode changes the named fields of our own node and nothing else in the object.
	PatchNode(ctx context.Context, name string, patch NodePatch) error
}

// AffinityLister is a Store that finds a host's claims without handing over everybody's.
type AffinityLister interface {
	// ListAffinities returns, sorted by name, every BlockAffinity that host's label hostname-hash selects and every one
	// without that label: those written before Calico had it may be anybody's.
	ListAffinities(ctx context.Context, host string) ([]calico.Object, error)
}

// ListAffinities returns BlockAffinities sorted by name, host's among them; what else there is depends on the store.
func ListAffinities(ctx context.Context, s Store, host string) ([]calico.Object, error) {
	if l, ok := s.(AffinityLister); ok {
		return l.ListAffinities(ctx, host)
	}
	return s.List(ctx, calico.KindBlockAffinity)
}

// Visitor is a Store that need not hold all objects of a kind at once to hand them over.
type Visitor interface {
	// Visit calls f with every object of a kind, in no order, until f returns an error, which it returns.
	Visit(ctx context.Context, kind calico.Kind, f func(calico.Object) error) error
}

// Visit calls f with every object of a kind.
func Visit(ctx context.Context, s Store, kind calico.Kind, f func(calico.Object) error) error {
	if v, ok := s.(Visitor); ok {
		return v.Visit(ctx, kind, f)
	}
	objects, err := s.List(ctx, kind)
	if err != nil {
		return err
	}
	for _, obj := range objects {
		if err := f(obj); err != nil {
			return err
		}
	}
	return nil
}

// NodePatch names the fields of a Node to change: nil leaves a field, a pointer to the zero value clears it.
//
// Where they are kept: in a Calico Node as given below; in a Kubernetes Node as the annotation of the same meaning below
// projectcalico.org/ (libcalico-go: backend/k8s/resources/node.go), in one patch with the others.
type NodePatch struct {
	IPIPAddr, VXLANAddr4, VXLANAddr6 *netip.Addr

	// Addr4 and Addr6 are the node's own addresses with the prefix length of their subnet: spec.bgp.ipv4Address and
	// ipv6Address; annotations IPv4Address and IPv6Address.
	Addr4, Addr6 *netip.Prefix
	// ASN is spec.bgp.asNumber; annotation ASNumber, in decimal. 0 clears it.
	ASN *uint32
	// Interfaces is spec.interfaces; annotation Interfaces, a JSON list of objects with the fields name and addresses.
	// An empty list clears it.
	Interfaces *[]calico.NodeInterface
	// Leaving is our own annotation calico.AnnotationLeaving, "true" or none, in a Calico Node as in a Kubernetes Node.
	Leaving *bool
}
