package kube

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/test/kubetest"
)

// TestWatchCordon: a cordon is heard of when it comes and when it goes, once each, whatever else changes of the Node, and of no other Node.
func TestWatchCordon(t *testing.T) {
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic)
	kubeletNode(t, server, "node-a")
	kubeletNode(t, server, "node-b")
	s := open(t, server, kubetest.Admin, kubetest.Classic)
	ctx, cancel := context.WithCancel(t.Context())
	heard, done := make(chan bool, 10), make(chan error, 1)
	go func() { done <- s.WatchCordon(ctx, "node-a", func(c bool) { heard <- c }) }()
	next := func(want bool) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("cordoned %v, want %v", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing is heard of cordoned %v", want)
		}
	}
	next(false)
	nodes := server.Client(t, kubetest.Admin).Resource(nodeResource)
	patch := func(node, text string) {
		t.Helper()
		if _, err := nodes.Patch(t.Context(), node, types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch("node-b", `{"spec":{"unschedulable":true}}`)
	patch("node-a", `{"metadata":{"labels":{"a":"b"}}}`)
	patch("node-a", `{"spec":{"unschedulable":true}}`)
	next(true)
	patch("node-a", `{"metadata":{"labels":{"a":"c"}}}`)
	patch("node-a", `{"spec":{"unschedulable":null}}`)
	next(false)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(heard) > 0 {
		t.Errorf("heard %d times too often", len(heard))
	}
}
