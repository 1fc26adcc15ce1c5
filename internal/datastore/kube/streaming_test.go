package kube

import (
	"net/http"
	"path"
	"sync"
	"testing"

	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/test/kubetest"
)

// TestStreamingLists: where the server offers streaming lists, as every supported one does, each kind comes as one, and nothing is listed besides.
func TestStreamingLists(t *testing.T) {
	for _, form := range []kubetest.Form{kubetest.Classic, kubetest.Native} {
		s := shared.Get(t)
		s.Clear(t, kubetest.Classic, kubetest.Native)
		s.Apply(t, inForm(form, cluster1))
		var mu sync.Mutex
		streamed, listed := map[string]int{}, map[string]int{}
		config := s.Config(kubetest.Admin)
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return tripper(func(r *http.Request) (*http.Response, error) {
				resp, err := next.RoundTrip(r)
				mu.Lock()
				defer mu.Unlock()
				switch q := r.URL.Query(); {
				case err != nil || resp.StatusCode != http.StatusOK:
				case q.Get("sendInitialEvents") == "true":
					streamed[path.Base(r.URL.Path)]++
				case q.Get("watch") != "true" && q.Get("limit") != "1":
					listed[path.Base(r.URL.Path)]++
				}
				return resp, err
			})
		})
		store, err := Open(t.Context(), Options{Config: config, APIGroup: string(form)})
		if err != nil {
			t.Fatal(err)
		}
		observe(t, store).until("all", func(u datastore.Update) bool { return healed(u) })
		mu.Lock()
		for _, kind := range watched() {
			if r := store.formOf(t).resource(kind).Resource; streamed[r] != 1 || listed[r] != 0 {
				t.Errorf("%s: %s were streamed %d times and listed %d times", form, r, streamed[r], listed[r])
			}
		}
		mu.Unlock()
	}
}

type tripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
