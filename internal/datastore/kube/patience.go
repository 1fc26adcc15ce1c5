package kube

import (
	"context"
	"net/http"
)

// hasty marks the context of requests that are repeated by a feed.
type hasty struct{}

func withHaste(ctx context.Context) context.Context { return context.WithValue(ctx, hasty{}, true) }

// impatience takes the header Retry-After off the answers to hasty requests. A server that starts asks everybody to
// come back in five seconds, and client-go obeys to the second: all nodes of a cluster would come back at once, late. The
// feeds' own pauses are shorter, grow, and differ from node to node.
type impatience struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (i impatience) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := i.next.RoundTrip(r)
	if resp != nil && r.Context().Value(hasty{}) != nil {
		resp.Header.Del("Retry-After")
	}
	return resp, err
}

// WrappedRoundTripper lets client-go find what is below.
func (i impatience) WrappedRoundTripper() http.RoundTripper { return i.next }
