package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Get returns an object. One with values of the wrong type is an error, except where package calico can do without them.
func (s *Store) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	k := datastore.Key{Kind: kind, Name: name}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	obj, err := s.get(ctx, k)
	if err != nil {
		return nil, fault("get", k, err)
	}
	return obj, nil
}

func (s *Store) get(ctx context.Context, k datastore.Key) (calico.Object, error) {
	if k.Kind == calico.KindNode { // without images and conditions
		m, err := s.metas.Resource(nodeResource).Get(ctx, k.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		n, _ := readNode(&m.ObjectMeta)
		return n, nil
	}
	c, f, err := s.client(ctx, k.Kind)
	if err != nil {
		return nil, err
	}
	u, err := c.Get(ctx, k.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return f.usable(u, k.Kind)
}

// List returns every object of a kind, sorted by name. Objects that Get could not return are left out: the Watcher reports
// them.
func (s *Store) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	objects, err := s.list(ctx, kind, selection(kind))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	return sorted(objects), nil
}

// Visit implements datastore.Visitor: no more than a page is held at a time.
func (s *Store) Visit(ctx context.Context, kind calico.Kind, f func(calico.Object) error) error {
	if err := s.each(ctx, kind, selection(kind), f); err != nil {
		return fmt.Errorf("list %s: %w", kind, err)
	}
	return nil
}

// ListAffinities implements datastore.AffinityLister. The API server selects, so that a node that starts is not sent
// the claims of five thousand others.
func (s *Store) ListAffinities(ctx context.Context, host string) ([]calico.Object, error) {
	var objects []calico.Object
	for _, selector := range []string{calico.LabelHostnameHash + "=" + calico.HostnameHash(host), "!" + calico.LabelHostnameHash} {
		some, err := s.list(ctx, calico.KindBlockAffinity, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return nil, fmt.Errorf("list %s of host %s: %w", calico.KindBlockAffinity, host, err)
		}
		objects = append(objects, some...)
	}
	return sorted(objects), nil
}

func sorted(objects []calico.Object) []calico.Object {
	slices.SortFunc(objects, func(a, b calico.Object) int { return strings.Compare(a.Meta().Name, b.Meta().Name) })
	return objects
}

func (s *Store) list(ctx context.Context, kind calico.Kind, opts metav1.ListOptions) (objects []calico.Object, err error) {
	err = s.each(ctx, kind, opts, func(obj calico.Object) error {
		objects = append(objects, obj)
		return nil
	})
	return objects, err
}

// each reads page by page, each within Options.Timeout.
func (s *Store) each(ctx context.Context, kind calico.Kind, opts metav1.ListOptions, f func(calico.Object) error) error {
	for opts.Limit = pageSize; ; {
		objects, more, err := s.pageOf(ctx, kind, opts)
		if err != nil {
			return err
		}
		for _, obj := range objects {
			if err := f(obj); err != nil {
				return err
			}
		}
		if opts.Continue = more; more == "" {
			return nil
		}
	}
}

func (s *Store) pageOf(ctx context.Context, kind calico.Kind, opts metav1.ListOptions) (objects []calico.Object, more string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	if kind == calico.KindNode {
		l, err := s.metas.Resource(nodeResource).List(ctx, opts)
		if err != nil {
			return nil, "", err
		}
		for i := range l.Items {
			n, _ := readNode(&l.Items[i].ObjectMeta)
			objects = append(objects, n)
		}
		return objects, l.GetContinue(), nil
	}
	c, f, err := s.client(ctx, kind)
	if err != nil {
		return nil, "", err
	}
	l, err := c.List(ctx, opts)
	if err != nil {
		return nil, "", err
	}
	for i := range l.Items {
		if obj, err := f.usable(&l.Items[i], kind); err == nil {
			objects = append(objects, obj)
		}
		l.Items[i].Object = nil // is garbage before the next one is decoded
	}
	return objects, l.GetContinue(), nil
}

// pageSize is how many objects are read at a time. All blocks of a large cluster in one answer would be a hundred megabytes of
// JSON, and several times that as the maps client-go makes of it.
const pageSize = 500

// selection are the options that choose what is read of a kind.
func selection(kind calico.Kind) metav1.ListOptions {
	switch kind {
	case calico.KindConfigMap: // the role need not allow to read any other
		return metav1.ListOptions{FieldSelector: "metadata.name=" + calico.ConfigMapName}
	case calico.KindEndpointSlice: // a headless Service has no address that could be announced
		return metav1.ListOptions{LabelSelector: calico.LabelService + ",!service.kubernetes.io/headless"}
	}
	return metav1.ListOptions{}
}

// Create writes a new object. Nodes are created by Kubernetes, and our role does not allow it; tests and the lab do it
// with more rights.
func (s *Store) Create(ctx context.Context, obj calico.Object) (calico.Object, error) {
	k := datastore.Key{Kind: obj.Kind(), Name: obj.Meta().Name}
	if k.Name == "" {
		return nil, fmt.Errorf("create %s: it has no name", k.Kind)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	c, f, err := s.client(ctx, k.Kind)
	if err != nil {
		return nil, fault("create", k, err)
	}
	out, err := c.Create(ctx, f.encode(obj), metav1.CreateOptions{})
	if err != nil {
		return nil, fault("create", k, err)
	}
	return f.usable(out, k.Kind)
}

// Update replaces what is read of an object and leaves everything else in it as it is.
func (s *Store) Update(ctx context.Context, obj calico.Object) (calico.Object, error) {
	k := datastore.Key{Kind: obj.Kind(), Name: obj.Meta().Name}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	c, f, err := s.client(ctx, k.Kind)
	if err != nil {
		return nil, fault("update", k, err)
	}
	// What is in the object besides what we read is known to the API server only.
	u, err := c.Get(ctx, k.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fault("update", k, err)
	}
	if m := obj.Meta(); u.GetResourceVersion() != m.ResourceVersion || string(u.GetUID()) != m.UID {
		return nil, fmt.Errorf("update %s: read at version %q, now %q: %w", k, m.ResourceVersion, u.GetResourceVersion(), datastore.ErrConflict)
	}
	f.overlay(u, obj)
	if k.Kind == calico.KindNode {
		u, err = c.UpdateStatus(ctx, u, metav1.UpdateOptions{}) // the role allows no more; see PatchNode
	} else {
		u, err = c.Update(ctx, u, metav1.UpdateOptions{})
	}
	if err != nil {
		return nil, fault("update", k, err)
	}
	return f.usable(u, k.Kind)
}

// Delete removes the object that was read, under its UID and resourceVersion.
func (s *Store) Delete(ctx context.Context, obj calico.Object) error {
	m := obj.Meta()
	k := datastore.Key{Kind: obj.Kind(), Name: m.Name}
	if m.UID == "" || m.ResourceVersion == "" {
		return fmt.Errorf("delete %s: it was not read before: %w", k, datastore.ErrConflict)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	c, _, err := s.client(ctx, k.Kind)
	if err != nil {
		return fault("delete", k, err)
	}
	uid := types.UID(m.UID)
	err = c.Delete(ctx, k.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &m.ResourceVersion}})
	if err != nil {
		return fault("delete", k, err)
	}
	return nil
}

// client returns the client of a kind and the form in which its objects are written.
func (s *Store) client(ctx context.Context, kind calico.Kind) (dynamic.ResourceInterface, form, error) {
	f := classic
	if calico.WatchedOnly(kind) {
		return nil, f, fmt.Errorf("objects of kind %s are only watched: %w", kind, errors.ErrUnsupported)
	}
	if !own(kind) {
		var err error
		if f, err = s.form(ctx); err != nil {
			return nil, f, err
		}
	}
	return s.resource(f, kind), f, nil
}

func (s *Store) resource(f form, kind calico.Kind) dynamic.ResourceInterface {
	r := s.objects.Resource(f.resource(kind))
	if namespaced(kind) {
		return r.Namespace(s.opts.Namespace)
	}
	return r
}

// usable decodes an object and refuses one that cannot be used.
func (f form) usable(u *unstructured.Unstructured, kind calico.Kind) (calico.Object, error) {
	obj, problems := f.decode(u, kind)
	if len(problems) > 0 && !calico.Partial(kind) {
		return nil, fmt.Errorf("%s cannot be used: %s: %s", problems[0].Object, problems[0].Field, problems[0].Text)
	}
	return obj, nil
}

// fault names what was done to which object, and wraps the error a caller branches on.
func fault(verb string, k datastore.Key, err error) error {
	kind := err
	switch {
	case absent(err):
		kind = datastore.ErrNotFound
	case apierrors.IsAlreadyExists(err):
		kind = datastore.ErrExists
	case apierrors.IsConflict(err):
		kind = datastore.ErrConflict
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s %s: %w: %w", verb, k, datastore.ErrForbidden, err)
	default:
		return fmt.Errorf("%s %s: %w", verb, k, err)
	}
	return fmt.Errorf("%s %s: %w", verb, k, kind)
}

// absent reports whether the API server knows the resource and has no object of the name. A resource that it does not
// know, because a definition is missing, gives the same status with another body.
func absent(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}
