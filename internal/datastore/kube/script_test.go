package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// scripted is an API server that answers requests for pools one after the other as a test has written down, and has
// nothing of the other kinds. It is for what a real one does only now and then.
type scripted struct {
	mu     sync.Mutex
	steps  []step
	failed []string
	done   chan struct{} // closed when all steps were made
}

// step is one request that must come, and its answer.
type step struct {
	what   string            // "list" or "watch"
	query  map[string]string // what must be in the request; "-" for nothing
	status int               // 0: 200
	answer string            // a JSON document; of a watch, events in lines
	hang   bool              // a watch that stays open
	after  string            // Retry-After
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/readyz" || strings.HasPrefix(r.URL.Path, "/apis/") && strings.Count(r.URL.Path, "/") == 2:
		fmt.Fprint(w, `{"versions":[{"groupVersion":"crd.projectcalico.org/v1"}]}`)
	case strings.HasSuffix(r.URL.Path, "/ippools"):
		s.pools(w, r, q)
	case q.Get("sendInitialEvents") == "true":
		refuse(w)
	case q.Get("watch") == "true":
		flush(w)
		<-r.Context().Done()
	default:
		fmt.Fprint(w, emptyList)
	}
}

const emptyList = `{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"},"items":[]}`

// refuse answers as a server without streaming lists.
func refuse(w http.ResponseWriter) {
	w.WriteHeader(http.StatusUnprocessableEntity)
	fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Invalid","code":422,"message":"sendInitialEvents is forbidden"}`)
}

func flush(w http.ResponseWriter) { w.(http.Flusher).Flush() }

func (s *scripted) pools(w http.ResponseWriter, r *http.Request, q url.Values) {
	s.mu.Lock()
	if len(s.steps) == 0 {
		s.mu.Unlock()
		flush(w)
		<-r.Context().Done()
		return
	}
	st := s.steps[0]
	s.steps = s.steps[1:]
	what := "list"
	if q.Get("watch") == "true" {
		what = "watch"
	}
	if what != st.what {
		s.failed = append(s.failed, fmt.Sprintf("a %s (%s) where a %s should come", what, r.URL.RawQuery, st.what))
	}
	for k, v := range st.query {
		if got := q.Get(k); got != v && (v != "-" || got != "") {
			s.failed = append(s.failed, fmt.Sprintf("%s with %s=%q, want %q", what, k, got, v))
		}
	}
	if len(s.steps) == 0 {
		close(s.done)
	}
	s.mu.Unlock()
	if st.after != "" {
		w.Header().Set("Retry-After", st.after)
	}
	if st.status != 0 {
		w.WriteHeader(st.status)
	}
	fmt.Fprint(w, st.answer)
	flush(w)
	if st.hang {
		<-r.Context().Done()
	}
}

// play runs Watch against the steps.
func play(t *testing.T, steps ...step) *observer {
	t.Helper()
	s := &scripted{steps: steps, done: make(chan struct{})}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	store, err := Open(t.Context(), Options{Config: &rest.Config{Host: server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.failed {
			t.Error(f)
		}
		if len(s.steps) > 0 {
			t.Errorf("%d steps were not made, the next is %+v", len(s.steps), s.steps[0])
		}
	})
	o := observe(t, store)
	t.Cleanup(func() {
		select {
		case <-s.done:
		case <-time.After(deadline):
		}
		server.CloseClientConnections()
	})
	return o
}

func pool(name, version, cidr string) string {
	return fmt.Sprintf(`{"apiVersion":"crd.projectcalico.org/v1","kind":"IPPool","metadata":{"name":%q,"uid":"uid-%s","resourceVersion":%q},"spec":{"cidr":%q}}`, name, name, version, cidr)
}

func page(version, token string, pools ...string) string {
	return fmt.Sprintf(`{"apiVersion":"crd.projectcalico.org/v1","kind":"IPPoolList","metadata":{"resourceVersion":%q,"continue":%q},"items":[%s]}`, version, token, strings.Join(pools, ","))
}

func event(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`+"\n", kind, object)
}

const gone = `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410,"message":"too old resource version"}`

var noStreaming = step{what: "watch", query: map[string]string{"sendInitialEvents": "true"}, status: 422,
	answer: `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Invalid","code":422,"message":"sendInitialEvents is forbidden"}`}

func hasPools(want ...string) func(datastore.Update) bool {
	return func(u datastore.Update) bool {
		var names []string
		for _, p := range u.State.Pools() {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		return u.InSync && slices.Equal(names, want)
	}
}

// TestWithoutStreamingLists: a server before Kubernetes 1.34, and lists that come in pages.
func TestWithoutStreamingLists(t *testing.T) {
	o := play(t,
		noStreaming,
		step{what: "list", query: map[string]string{"limit": "500"}, answer: page("10", "more", pool("a", "3", "10.1.0.0/16"))},
		step{what: "list", query: map[string]string{"continue": "more"}, answer: page("10", "", pool("b", "4", "10.2.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("10", "")},
		step{what: "watch", query: map[string]string{"resourceVersion": "10", "allowWatchBookmarks": "true"}, hang: true,
			answer: event("ADDED", pool("c", "11", "10.3.0.0/16")) + event("DELETED", pool("a", "12", "10.1.0.0/16"))},
	)
	o.until("both pages and the events", hasPools("b", "c"))
}

// TestRelistWhenTooOld: 410 in the stream and as an answer. What changed meanwhile is seen, what stayed is never gone.
func TestRelistWhenTooOld(t *testing.T) {
	o := play(t,
		noStreaming,
		step{what: "list", answer: page("10", "", pool("a", "3", "10.1.0.0/16"), pool("b", "4", "10.2.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("10", "")},
		step{what: "watch", query: map[string]string{"resourceVersion": "10"}, answer: event("ERROR", gone)},
		noStreaming,
		step{what: "list", query: map[string]string{"resourceVersion": "10", "limit": "-"}, answer: page("20", "", pool("a", "3", "10.1.0.0/16"), pool("c", "15", "10.3.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("20", "")},
		step{what: "watch", query: map[string]string{"resourceVersion": "20"}, status: 410, answer: gone},
		noStreaming,
		step{what: "list", answer: page("30", "", pool("a", "3", "10.1.0.0/16"), pool("d", "25", "10.4.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("30", "")},
		step{what: "watch", query: map[string]string{"resourceVersion": "30"}, hang: true},
	)
	o.until("the third list", hasPools("a", "d"))
	o.every("with a, and not suspect", func(u datastore.Update) bool {
		return !u.InSync || u.Suspect == "" && slices.ContainsFunc(u.State.Pools(), func(p *cluster.Pool) bool { return p.Name == "a" })
	})
}

// TestResumeAfterTheStreamEnds: a stream that ended in peace is taken up where it ended, without a list; bookmarks count.
// A server that asks to come back in an hour is not obeyed.
func TestResumeAfterTheStreamEnds(t *testing.T) {
	bookmark := `{"apiVersion":"crd.projectcalico.org/v1","kind":"IPPool","metadata":{"resourceVersion":"40"}}`
	o := play(t,
		noStreaming,
		step{what: "list", answer: page("10", "", pool("a", "3", "10.1.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("10", "")},
		step{what: "watch", answer: event("ADDED", pool("b", "11", "10.2.0.0/16")) + event("BOOKMARK", bookmark)},
		step{what: "list", query: map[string]string{"limit": "1"}, status: 503, after: "3600", answer: "{}"},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("41", "")},
		step{what: "watch", query: map[string]string{"resourceVersion": "40"}, hang: true, answer: event("ADDED", pool("c", "41", "10.3.0.0/16"))},
	)
	o.until("both streams", hasPools("a", "b", "c"))
}

// TestServerThatWentBack: the version at which a watch would go on lies in the server's future. It would stay silent for as
// long as that lasts, so all is listed again.
func TestServerThatWentBack(t *testing.T) {
	o := play(t,
		noStreaming,
		step{what: "list", answer: page("50", "", pool("a", "3", "10.1.0.0/16"), pool("b", "45", "10.2.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("50", "")},
		step{what: "watch", answer: event("ADDED", pool("c", "51", "10.3.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("30", "")},
		noStreaming,
		step{what: "list", query: map[string]string{"resourceVersion": "0"}, answer: page("30", "", pool("a", "3", "10.1.0.0/16"))},
		step{what: "list", query: map[string]string{"limit": "1"}, answer: page("30", "")},
		step{what: "watch", query: map[string]string{"resourceVersion": "30"}, hang: true},
	)
	u := o.until("the old list", func(u datastore.Update) bool { return u.Suspect != "" })
	if !hasPools("a")(u) || !strings.Contains(u.Suspect, "resourceVersion 30 after 51") {
		t.Error(show(u))
	}
}

// TestVisitHoldsAPage: the objects of a page are handed over before the next one is asked for, and an error ends it.
func TestVisitHoldsAPage(t *testing.T) {
	first := step{what: "list", query: map[string]string{"limit": "500", "continue": "-"}, answer: page("10", "more", pool("a", "3", "10.1.0.0/16"))}
	second := step{what: "list", query: map[string]string{"limit": "500", "continue": "more"}, answer: page("10", "", pool("b", "4", "10.2.0.0/16"))}
	s := &scripted{steps: []step{first, second, first}, done: make(chan struct{})}
	server := httptest.NewServer(s)
	defer server.Close()
	store, err := Open(t.Context(), Options{Config: &rest.Config{Host: server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	visit := func(end error) error {
		return store.Visit(t.Context(), calico.KindIPPool, func(obj calico.Object) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			got = append(got, fmt.Sprintf("%s before %d more", obj.Meta().Name, len(s.steps)))
			return end
		})
	}
	if err := visit(nil); err != nil {
		t.Fatal(err)
	}
	end := errors.New("enough")
	if err := visit(end); !errors.Is(err, end) {
		t.Errorf("%v, want what f returned", err)
	}
	if want := []string{"a before 2 more", "b before 1 more", "a before 0 more"}; !slices.Equal(got, want) || len(s.failed) > 0 {
		t.Errorf("%q, want %q; %q", got, want, s.failed)
	}
}

// TestScriptIsHeld: the checker itself rejects.
func TestScriptIsHeld(t *testing.T) {
	s := &scripted{steps: []step{{what: "watch"}}, done: make(chan struct{})}
	server := httptest.NewServer(s)
	defer server.Close()
	resp, err := http.Get(server.URL + "/apis/g/v/ippools")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if len(s.failed) != 1 || !json.Valid([]byte(emptyList)) {
		t.Errorf("a list where a watch should come: %q", s.failed)
	}
}
