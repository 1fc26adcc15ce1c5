package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/util/json"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// plainMeta copies the part of the metadata that is used.
func plainMeta(m *metav1.ObjectMeta) calico.ObjectMeta {
	return calico.ObjectMeta{
		Name: m.Name, UID: string(m.UID), ResourceVersion: m.ResourceVersion,
		CreationTimestamp: when(&m.CreationTimestamp), DeletionTimestamp: when(m.DeletionTimestamp),
		Labels: copyOf(m.Labels), Annotations: copyOf(m.Annotations),
	}
}

// copyOf returns a copy of a map; nil for an empty one, which means the same.
func copyOf(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

func when(t *metav1.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	u := t.UTC()
	return &u
}

// decode reads an object as the API server gave it.
func (f form) decode(u *unstructured.Unstructured, kind calico.Kind) (calico.Object, []cluster.Problem) {
	if kind == calico.KindNode {
		n, problems := readNode(metaOf(u))
		return n, problems
	}
	obj, _ := calico.New(kind)
	var problems []cluster.Problem
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		obj, problems = decodeSlowly(u, kind, err)
	}
	*obj.Meta() = plainMeta(metaOf(u))
	obj.Meta().Name = fullName(u, kind)
	if f == classic && !own(kind) {
		problems = append(problems, unfold(obj)...)
	}
	return obj, problems
}

// fullName is the name by which an object is known here.
func fullName(u *unstructured.Unstructured, kind calico.Kind) string {
	if calico.WatchedOnly(kind) {
		return calico.FullName(u.GetNamespace(), u.GetName())
	}
	return u.GetName()
}

// metaOf returns the metadata of an object without what we never read; managedFields are larger than the rest.
func metaOf(u *unstructured.Unstructured) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{
		Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
		CreationTimestamp: u.GetCreationTimestamp(), DeletionTimestamp: u.GetDeletionTimestamp(),
		Labels: u.GetLabels(), Annotations: u.GetAnnotations(),
	}
}

// decodeSlowly reads an object in which a value has the wrong type, and says which.
func decodeSlowly(u *unstructured.Unstructured, kind calico.Kind, why error) (calico.Object, []cluster.Problem) {
	n := &yaml.Node{}
	if err := n.Encode(u.Object); err == nil {
		obj, problems := calico.Decode(n, kind)
		for i := range problems {
			problems[i].Line = 0 // of a text that nobody wrote
		}
		return obj, problems // none where package calico takes what JSON's rules do not
	}
	obj, _ := calico.New(kind)
	return obj, []cluster.Problem{{Object: calico.ObjectName(kind, u.GetName()), Text: fmt.Sprintf("cannot be read: %v", why)}}
}

// metadataAnnotation is where the classic form keeps, as JSON, the metadata that Calico's API shows
// (libcalico-go: backend/k8s/resources, ConvertCalicoResourceToK8sResource).
const metadataAnnotation = domain + "metadata"

// operatorDomain starts names that stay on the native object like those of domain.
const operatorDomain = "operator.tigera.io/"

// outside reports whether a label or annotation is kept on the native object too.
func outside(key string) bool {
	return strings.Contains(key, domain) || strings.Contains(key, operatorDomain)
}

// folded is what we read of the metadata in the annotation. Its UID is not read: callers get the one of the native object,
// which preconditions are about. (Calico shows its users the bits of it reversed.)
type folded struct {
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp *time.Time        `json:"deletionTimestamp"`
}

// unfold puts the metadata of the annotation in place.
func unfold(obj calico.Object) []cluster.Problem {
	m := obj.Meta()
	text, ok := m.Annotations[metadataAnnotation]
	if !ok {
		return nil
	}
	delete(m.Annotations, metadataAnnotation)
	var in folded
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return []cluster.Problem{{Object: calico.ObjectName(obj.Kind(), m.Name), Field: annotationField(metadataAnnotation),
			Text: "is not the JSON that Calico writes: remove the annotation"}}
	}
	m.Labels, m.Annotations = union(in.Labels, m.Labels), union(in.Annotations, m.Annotations)
	if len(m.Annotations) == 0 {
		m.Annotations = nil
	}
	if m.DeletionTimestamp == nil {
		m.DeletionTimestamp = in.DeletionTimestamp
	}
	return nil
}

// encode returns a new object as it is sent to the API server.
func (f form) encode(obj calico.Object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(f.apiVersion(obj.Kind()))
	u.SetKind(f.kindName(obj.Kind()))
	u.SetName(obj.Meta().Name)
	f.overlay(u, obj)
	return u
}

// overlay writes what an object says into what the API server has, and leaves all else as it is.
func (f form) overlay(u *unstructured.Unstructured, obj calico.Object) {
	if n, ok := obj.(*calico.Node); ok {
		labels, annotations := writeNode(u.GetLabels(), u.GetAnnotations(), n)
		u.SetLabels(labels)
		u.SetAnnotations(annotations)
		return
	}
	old, _ := f.decode(u, obj.Kind())
	was, now := f.tree(old), f.tree(obj)
	for key, value := range now {
		u.Object[key] = merge(u.Object[key], was[key], value)
	}
	f.fold(u, obj)
}

// tree returns the content of an object, without its metadata, in the form's spelling.
func (f form) tree(obj calico.Object) map[string]any {
	text, err := json.Marshal(obj)
	if err != nil {
		panic(fmt.Sprintf("kube: encode %s: %v", obj.Kind(), err)) // a type was added to package calico that JSON cannot hold
	}
	t := map[string]any{}
	if err := kjson.Unmarshal(text, &t); err != nil {
		panic(fmt.Sprintf("kube: encode %s: %v", obj.Kind(), err))
	}
	delete(t, "metadata")
	spec, _ := t["spec"].(map[string]any)
	switch obj.Kind() {
	case calico.KindBlockAffinity:
		if deleted, ok := spec["deleted"].(bool); ok && f == classic {
			spec["deleted"] = strconv.FormatBool(deleted)
		}
	case calico.KindIPAMBlock: // required lists: null is not one
		for _, field := range []string{"allocations", "unallocated", "attributes"} {
			if spec[field] == nil {
				spec[field] = []any{}
			}
		}
	case calico.KindIPAMHandle:
		if spec["block"] == nil {
			spec["block"] = map[string]any{}
		}
	}
	return t
}

// merge returns raw with the difference between two readings of it made. What was not read, in raw and in the items of
// its lists that stay the same, is kept.
func merge(raw, was, now any) any {
	if raw != nil && reflect.DeepEqual(was, now) {
		return raw
	}
	switch next := now.(type) {
	case map[string]any:
		r, ok1 := raw.(map[string]any)
		w, ok2 := was.(map[string]any)
		if !ok1 || !ok2 {
			return now
		}
		for key := range w {
			if _, stays := next[key]; !stays {
				delete(r, key)
			}
		}
		for key, value := range next {
			r[key] = merge(r[key], w[key], value)
		}
		return r
	case []any:
		r, ok1 := raw.([]any)
		w, ok2 := was.([]any)
		if !ok1 || !ok2 || len(r) != len(w) {
			return now
		}
		for i, item := range next {
			if _, composed := item.(map[string]any); !composed {
				continue
			}
			for j := range w {
				if reflect.DeepEqual(item, w[j]) {
					next[i] = r[j]
					break
				}
			}
		}
		return next
	}
	return now
}

// fold writes labels and annotations where the form keeps them.
func (f form) fold(u *unstructured.Unstructured, obj calico.Object) {
	m := obj.Meta()
	if f != classic || own(obj.Kind()) {
		u.SetLabels(m.Labels)
		u.SetAnnotations(m.Annotations)
		return
	}
	native := u.GetAnnotations()
	inner := map[string]any{"creationTimestamp": nil} // what Calico writes for an object without metadata
	_ = json.Unmarshal([]byte(native[metadataAnnotation]), &inner)
	labels := split(inner, "labels", u.GetLabels(), m.Labels)
	annotations := split(inner, "annotations", native, m.Annotations)
	text, err := json.Marshal(inner)
	if err != nil {
		panic(fmt.Sprintf("kube: encode metadata: %v", err)) // it came from JSON
	}
	annotations[metadataAnnotation] = string(text)
	u.SetLabels(labels)
	u.SetAnnotations(annotations)
}

// split divides labels, or annotations, between the metadata within the annotation and the native object: in the
// native one are those that were there before and those that Calico keeps there.
func split(inner map[string]any, field string, before, all map[string]string) (native map[string]string) {
	native, folded := map[string]string{}, map[string]any{}
	old, _ := inner[field].(map[string]any)
	for k, v := range all {
		_, there := before[k]
		if there || outside(k) {
			native[k] = v
		}
		if _, was := old[k]; was || !there {
			folded[k] = v
		}
	}
	delete(inner, field)
	if len(folded) > 0 {
		inner[field] = folded
	}
	return native
}
