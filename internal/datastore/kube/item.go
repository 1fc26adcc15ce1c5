package kube

import (
	"fmt"
	"hash/maphash"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// item is an object of a list or a watch as it goes on from where it comes in: its name, its version and what is routed
// on. The object itself is garbage by then. It is a runtime.Object so that it can pass through client-go.
type item struct {
	metav1.ObjectMeta // name, UID and resourceVersion; of a bookmark also annotations
	word              any
	problems          []cluster.Problem
}

// GetObjectKind implements runtime.Object.
func (*item) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. An item is never written to.
func (i *item) DeepCopyObject() runtime.Object { c := *i; return &c }

// itemList is a page of a list.
type itemList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []*item
}

// DeepCopyObject implements runtime.Object.
func (l *itemList) DeepCopyObject() runtime.Object { c := *l; return &c }

// toItem makes an item of an object of a kind.
func (f form) toItem(kind calico.Kind, obj runtime.Object) (*item, error) {
	switch o := obj.(type) {
	case *metav1.PartialObjectMetadata:
		return nodeItem(o)
	case *unstructured.Unstructured:
		i := &item{ObjectMeta: metav1.ObjectMeta{Name: fullName(o, kind), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion()}}
		r := calico.Resource{Kind: kind, Name: i.Name}
		r.Object, r.Problems = f.decode(o, kind)
		i.word, i.problems = r.Word()
		return i, nil
	}
	return nil, fmt.Errorf("the API server sent a %T for a %s", obj, kind)
}

func brief(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// toList makes a page of items of a page of objects.
func (f form) toList(kind calico.Kind, page runtime.Object) (*itemList, error) {
	out := &itemList{}
	add := func(obj runtime.Object) error {
		i, err := f.toItem(kind, obj)
		if err == nil {
			out.Items = append(out.Items, i)
		}
		return err
	}
	switch p := page.(type) {
	case *metav1.PartialObjectMetadataList:
		out.ListMeta = p.ListMeta
		for i := range p.Items {
			if err := add(&p.Items[i]); err != nil {
				return nil, err
			}
		}
	case *unstructured.UnstructuredList:
		out.ResourceVersion, out.Continue = p.GetResourceVersion(), p.GetContinue()
		for i := range p.Items {
			if err := add(&p.Items[i]); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("the API server sent a %T for a list of %s", page, kind)
	}
	return out, nil
}

// mark is what is remembered of an object: enough to see that it is the same one and no older.
type mark struct {
	uid     uint64 // a hash of it
	version uint64 // 0: not a number
}

// marker makes marks.
type marker struct{ seed maphash.Seed }

func (m marker) of(i *item) mark {
	return mark{uid: maphash.String(m.seed, string(i.UID)), version: number(i.ResourceVersion)}
}

// number reads a resourceVersion. They are numbers that can be compared (since Kubernetes 1.35 by contract, before
// in fact); 0 for what is none.
func number(version string) uint64 {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
