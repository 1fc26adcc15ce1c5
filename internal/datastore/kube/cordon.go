package kube

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// The waits between two tries of a watch that cannot be had.
const (
	cordonPauseMin = time.Second
	cordonPauseMax = time.Minute
)

// WatchCordon calls changed with whether a Node is cordoned (spec.unschedulable), at the start and whenever that changes, until ctx ends. Of
// nodes nothing but metadata is watched elsewhere; this is one whole object. While the API server is away the last word stays.
func (s *Store) WatchCordon(ctx context.Context, node string, changed func(cordoned bool)) error {
	var last *bool
	tell := func(u *unstructured.Unstructured) {
		cordoned, _, _ := unstructured.NestedBool(u.Object, "spec", "unschedulable")
		if last == nil || *last != cordoned {
			last = &cordoned
			changed(cordoned)
		}
	}
	for pause := cordonPauseMin; ctx.Err() == nil; pause = min(2*pause, cordonPauseMax) {
		if s.followNode(ctx, node, tell) {
			pause = cordonPauseMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// followNode lists and watches one Node until that ends; it reports whether it had got as far as a watch.
func (s *Store) followNode(ctx context.Context, node string, tell func(*unstructured.Unstructured)) bool {
	nodes := s.objects.Resource(nodeResource)
	opts := metav1.ListOptions{FieldSelector: "metadata.name=" + node}
	bounded, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	list, err := nodes.List(bounded, opts)
	cancel()
	if err != nil {
		return false
	}
	for i := range list.Items {
		tell(&list.Items[i])
	}
	opts.ResourceVersion = list.GetResourceVersion()
	w, err := nodes.Watch(ctx, opts)
	if err != nil {
		return false
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case ev, open := <-w.ResultChan():
			u, is := ev.Object.(*unstructured.Unstructured)
			switch {
			case !open || ev.Type == watch.Error:
				return true // from the list again
			case is && (ev.Type == watch.Added || ev.Type == watch.Modified):
				tell(u)
			}
		}
	}
}
