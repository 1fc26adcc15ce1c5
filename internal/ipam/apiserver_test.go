package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
	"github.com/caracal-net/caracal/internal/datastore/kube"
	"github.com/caracal-net/caracal/test/kubetest"
)

var shared kubetest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// forms are the two sets of resource definitions: nobody but the API server says what they refuse.
func forms() []kubetest.Form { return []kubetest.Form{kubetest.Classic, kubetest.Native} }

// wire counts what goes to an API server and comes back.
type wire struct {
	requests, conflicts atomic.Int64
}

// around returns what counts.
func (w *wire) around(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		w.requests.Add(1)
		resp, err := next.RoundTrip(r)
		if err == nil && resp.StatusCode == http.StatusConflict {
			w.conflicts.Add(1)
		}
		return resp, err
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// apiServer returns a store of an API server in one form, with nothing in it but the objects.
func apiServer(t *testing.T, form kubetest.Form, objects ...calico.Object) (*kube.Store, *wire) {
	t.Helper()
	server := shared.Get(t)
	server.Clear(t, kubetest.Classic, kubetest.Native)
	w := &wire{}
	config := server.Config(kubetest.Admin)
	config.Wrap(w.around)
	store, err := kube.Open(t.Context(), kube.Options{Config: config, APIGroup: string(form)})
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, obj := range objects {
		g.Go(func() error { _, err := store.Create(t.Context(), obj); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return store, w
}

// TestInterruptedOnAPIServer is TestInterrupted where each write of an operation is the last one of a node of its own: all of them at once. The
// restart that finds what is left dies as well, at another write each; the one after it sets all right.
func TestInterruptedOnAPIServer(t *testing.T) {
	for _, s := range scenarios() {
		for _, form := range forms()[:s.forms] {
			t.Run(string(form)+"/"+s.name, func(t *testing.T) {
				lanes := make([]lane, writesOf(t, s))
				var objects []calico.Object
				for i := range lanes {
					lanes[i] = lane(i)
					for _, obj := range lanes[i].objects() {
						if p, ok := obj.(*calico.IPPool); ok && len(s.handles) > 0 {
							p.Spec.AllowedUses = []string{string(Workload)} // tunnel addresses would only cost time
						}
						objects = append(objects, obj)
					}
				}
				store, w := apiServer(t, form, objects...)
				began := time.Now()
				abreast(lanes, func(l lane) {
					s.start(t, client(t, store, l.String()), l)
					if !strike(t, store, s, l, datastoretest.Crash, int(l)+1) {
						t.Errorf("write %d was never made", l+1)
					}
				})
				wantNeverWrong(t, store)
				abreast(lanes, func(l lane) {
					faulty := datastoretest.NewFaulty(store, datastoretest.At(1+int(l)%5, datastoretest.Crash))
					err := client(t, faulty, l.String()).EnsureTunnelAddresses(t.Context())
					if err != nil && !errors.Is(err, datastoretest.ErrCrashed) {
						t.Errorf("after write %d: %v", l+1, err)
					}
				})
				wantNeverWrong(t, store)
				abreast(lanes, func(l lane) { comeBack(t, store, s, l) })
				wantCheck(t, store)
				for _, line := range contents(t, store) {
					if strings.HasPrefix(line, "handle h") {
						t.Errorf("left for ever: %q", line)
					}
				}
				t.Logf("%d writes, %d requests in %s", len(lanes), w.requests.Load(), time.Since(began).Round(time.Millisecond))
			})
		}
	}
}

// writesOf returns how many writes a scenario's operation makes.
func writesOf(t *testing.T, s scenario) int {
	t.Helper()
	store := crashStore()
	s.start(t, client(t, store, lane(0).String()), 0)
	counted := datastoretest.NewFaulty(store, datastoretest.At(0, datastoretest.NoFault))
	if err := s.do(t.Context(), client(t, counted, lane(0).String()), 0); err != nil || counted.Writes() < 2 {
		t.Fatalf("%d writes, %v", counted.Writes(), err)
	}
	return counted.Writes()
}

// abreast does something in every lane, in eight at a time.
func abreast(lanes []lane, do func(lane)) {
	var g errgroup.Group
	g.SetLimit(8)
	for _, l := range lanes {
		g.Go(func() error { do(l); return nil })
	}
	_ = g.Wait()
}

// TestStormOnAPIServer: containers come and go on eight nodes while the nodes' daemons keep their tunnel addresses, an operator changes pools and
// labels, and strangers write notes on every object there is. One write in ten meets a conflict that nobody caused as well.
func TestStormOnAPIServer(t *testing.T) {
	for form, ops := range map[kubetest.Form]int{kubetest.Classic: 16, kubetest.Native: 6} {
		t.Run(string(form), func(t *testing.T) {
			seed := seedOf(t)
			store, w := apiServer(t, form, crowded(8)...)
			var injected atomic.Int64
			c := &crowd{nodes: 8, workers: 12, ops: ops, open: func(_ int, rnd *rand.Rand) datastore.Store {
				own := rand.New(rand.NewPCG(rnd.Uint64(), 0))
				return datastoretest.NewFaulty(store, func(int, string, calico.Kind) datastoretest.Fault {
					if own.IntN(10) == 0 {
						injected.Add(1)
						return datastoretest.Conflict
					}
					return datastoretest.NoFault
				})
			}}
			ctx, calm := context.WithCancel(t.Context())
			var others sync.WaitGroup
			notes := 0
			others.Go(func() { notes = scribble(ctx, t, form) })
			others.Go(func() { reign(ctx, t, store, rand.New(rand.NewPCG(seed, 1<<32))) })
			c.run(t, seed)
			calm()
			others.Wait()
			natural := w.conflicts.Load()
			t.Logf("%d requests, %d conflicts, %d more made up, %d notes", w.requests.Load(), natural, injected.Load(), notes)
			if natural < 3 || injected.Load() < 3 || notes < 3 {
				t.Error("that was no storm")
			}
			for _, obj := range crowded(8) {
				if p, ok := obj.(*calico.IPPool); ok {
					change(t, store, p.Name, func(s *calico.IPPoolSpec) { *s = p.Spec })
				}
			}
			c.finish(t, store)
		})
	}
}

// scribble writes an annotation on every IPAM object again and again, until ctx ends, and returns how often it did.
func scribble(ctx context.Context, t *testing.T, form kubetest.Form) (notes int) {
	client := shared.Get(t).Client(t, kubetest.Admin)
	for ctx.Err() == nil {
		for _, plural := range []string{"ipamblocks", "blockaffinities", "ipamhandles"} {
			r := client.Resource(form.Resource(plural))
			list, err := r.List(t.Context(), metav1.ListOptions{})
			if err != nil {
				break
			}
			for i := range list.Items {
				note := fmt.Appendf(nil, `{"metadata":{"annotations":{"somebody.else/note":"%d"}}}`, notes)
				if _, err := r.Patch(t.Context(), list.Items[i].GetName(), types.MergePatchType, note, metav1.PatchOptions{}); err == nil {
					notes++
				}
			}
		}
	}
	return notes
}

// reign changes pools and labels at random until ctx ends.
func reign(ctx context.Context, t *testing.T, store datastore.Store, rnd *rand.Rand) {
	edits := []func(*calico.IPPoolSpec){disabled, func(s *calico.IPPoolSpec) { s.Disabled = false }, selector("zone == 'a'"), selector(""),
		func(s *calico.IPPoolSpec) { s.VXLANMode, s.IPIPMode = "Always", "Never" }, func(s *calico.IPPoolSpec) { s.VXLANMode = "Never" }, uses("Tunnel"), uses()}
	for ctx.Err() == nil {
		pool, edit := []string{"v4", "v6", "ipip"}[rnd.IntN(3)], edits[rnd.IntN(len(edits))]
		obj, err := store.Get(t.Context(), calico.KindIPPool, pool)
		if err == nil {
			edit(&obj.(*calico.IPPool).Spec)
			_, err = store.Update(t.Context(), obj)
		}
		node := fmt.Sprint("node-", rnd.IntN(8))
		if err == nil {
			obj, err = store.Get(t.Context(), calico.KindNode, node)
		}
		if err == nil {
			obj.Meta().Labels = map[string]string{"zone": []string{"a", "b"}[rnd.IntN(2)]}
			_, err = store.Update(t.Context(), obj)
		}
		if err != nil && !errors.Is(err, datastore.ErrConflict) {
			t.Error(err)
			return
		}
	}
}
