package kube

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// What Events of ours say of themselves (events.k8s.io/v1).
const (
	eventController = "caracal.net/caracald"
	eventReason     = "CannotBeUsed"
	eventAction     = "Read"
	maxNote         = 1024 // bytes
	maxEventName    = 253
)

var eventResource = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

// ReportProblem makes an Event on the object that a problem is about. The Event's name is made of the problem, so that whoever comes second finds
// it there, which is no error; neither is an object that is not there any more, or one of a kind that is not told of.
func (s *Store) ReportProblem(ctx context.Context, node string, p cluster.Problem) error {
	kind, name, _ := strings.Cut(p.Object, " ")
	if !reported(calico.Kind(kind)) || name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	f, err := s.form(ctx)
	if err != nil {
		return fmt.Errorf("report %s: %w", p.Object, err)
	}
	obj, err := s.find(ctx, f, calico.Kind(kind), name)
	if err != nil {
		return fmt.Errorf("report %s: find it: %w", p.Object, err)
	}
	if obj == nil {
		return nil
	}
	event := f.event(obj, calico.Kind(kind), node, &p, time.Now())
	_, err = s.objects.Resource(eventResource).Namespace(event.GetNamespace()).Create(ctx, event, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("report %s: make an Event: %w", p.Object, err)
	}
	return nil
}

// reported reports whether objects of a kind get Events. Secrets do not: what is wrong with one is nobody's to read but the operator's.
func reported(kind calico.Kind) bool {
	return kind != calico.KindSecret && slices.Contains(calico.Kinds(), kind)
}

// find returns the metadata of one object, nil if it is not there. It is listed, for that is what our role allows anyway.
func (s *Store) find(ctx context.Context, f form, kind calico.Kind, name string) (*unstructured.Unstructured, error) {
	var c dynamic.ResourceInterface = s.resource(f, kind)
	if calico.WatchedOnly(kind) {
		namespace, short, _ := strings.Cut(name, "/")
		c, name = s.objects.Resource(f.resource(kind)).Namespace(namespace), short
	}
	list, err := c.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, Limit: 1})
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	return &list.Items[0], nil
}

// event writes an Event. Those about objects without a namespace are in "default", by Kubernetes' rule.
func (f form) event(obj *unstructured.Unstructured, kind calico.Kind, node string, p *cluster.Problem, now time.Time) *unstructured.Unstructured {
	regarding := map[string]any{"apiVersion": f.apiVersion(kind), "kind": f.kindName(kind), "name": obj.GetName(), "uid": string(obj.GetUID()),
		"resourceVersion": obj.GetResourceVersion()}
	namespace := metav1.NamespaceDefault
	if ns := obj.GetNamespace(); ns != "" {
		namespace, regarding["namespace"] = ns, ns
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(p.Object + "\x00" + p.Field + "\x00" + p.Text))
	hash := fmt.Sprintf(".%016x", h.Sum64())
	note := strings.TrimSpace(p.Field + " " + p.Text)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "events.k8s.io/v1", "kind": "Event",
		"eventTime":           now.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), // metav1.MicroTime
		"reportingController": eventController, "reportingInstance": node, "action": eventAction, "reason": eventReason, "type": "Warning",
		"note": strings.ToValidUTF8(note[:min(len(note), maxNote)], ""), "regarding": regarding,
	}}
	u.SetName(strings.TrimRight(obj.GetName()[:min(len(obj.GetName()), maxEventName-len(hash))], ".-") + hash)
	u.SetNamespace(namespace)
	return u
}
