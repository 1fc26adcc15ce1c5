package kube

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// blockText is a block with one address in use, by a node.
func blockText(name, version, user string) string {
	cidr := name[:strings.LastIndex(name, "-")]
	return fmt.Sprintf(`{"kind":"IPAMBlock","metadata":{"name":%q,"uid":"u-%s","resourceVersion":%q},"spec":{"cidr":"%s/30","affinity":"host:a",`+
		`"allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"h-%s","secondary":{"node":%q}}]}}`,
		name, name, version, strings.ReplaceAll(cidr, "-", "."), version, user)
}

const x, y = "10-0-0-0-30", "10-0-0-4-30"

// messages runs a stream over what a server sends, and returns what comes out and what the loop is told, in order.
func messages(t *testing.T, kind calico.Kind, s *sieve, settled bool, text string) (out []string) {
	t.Helper()
	st := newStream(io.NopCloser(strings.NewReader(text)), func() {}, classic.reader(kind, s.seed))
	st.sieve, st.settled = s, settled
	passes := make(chan []passing)
	st.pass = func(all []passing) bool {
		passes <- all
		return true
	}
	go st.run()
	for {
		select {
		case all := <-passes:
			for _, p := range all {
				out = append(out, fmt.Sprintf("%s is at %d", p.name, p.version))
			}
		case ev, open := <-st.ResultChan():
			if !open {
				return out
			}
			switch o := ev.Object.(type) {
			case *item:
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", ev.Type, o.Name, o.ResourceVersion)))
			case *metav1.Status:
				out = append(out, fmt.Sprintf("%s %d", ev.Type, o.Code))
			}
		}
	}
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSieve: what changes nothing is kept back and its versions are told before anything else is; everything that matters comes through.
func TestSieve(t *testing.T) {
	end := event("BOOKMARK", `{"kind":"IPAMBlock","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}`)
	s := newSieve()
	same(t, messages(t, calico.KindIPAMBlock, s, false,
		event("ADDED", blockText(x, "1", "a"))+event("ADDED", blockText(y, "2", "a"))+
			event("MODIFIED", blockText(x, "8", "a"))+ // part of the list still
			end+
			event("MODIFIED", blockText(x, "10", "a"))+event("MODIFIED", blockText(y, "11", "a"))+
			event("MODIFIED", blockText(x, "12", "b"))+ // borrowed now
			event("MODIFIED", blockText(x, "13", "b"))+event("DELETED", blockText(x, "14", "b"))+
			event("ADDED", blockText(x, "15", "b"))+event("MODIFIED", blockText(x, "16", "b"))),
		"ADDED "+x+" 1", "ADDED "+y+" 2", "MODIFIED "+x+" 8", "BOOKMARK  9",
		x+" is at 10", y+" is at 11", "BOOKMARK  11",
		"MODIFIED "+x+" 12",
		x+" is at 13", "BOOKMARK  13", "DELETED "+x+" 14", "ADDED "+x+" 15",
		x+" is at 16")
	// The next stream goes on where this one ended.
	same(t, messages(t, calico.KindIPAMBlock, s, true,
		event("MODIFIED", blockText(x, "17", "b"))+event("MODIFIED", blockText("10-0-0-8-30", "18", "a"))+event("MODIFIED", "{}")),
		x+" is at 17", "BOOKMARK  17", "MODIFIED 10-0-0-8-30 18", "ERROR 500")
	// Another object of the same name is another one.
	same(t, messages(t, calico.KindIPAMBlock, s, true, event("MODIFIED", strings.Replace(blockText(x, "19", "b"), "u-"+x, "other", 1))),
		"MODIFIED "+x+" 19")
	// Of a version that is no number nobody could say which is newer.
	same(t, messages(t, calico.KindIPAMBlock, s, true, event("MODIFIED", strings.Replace(blockText(x, "vague", "b"), "u-"+x, "other", 1))),
		"MODIFIED "+x+" vague")
}

// TestSieveOfNodes: heartbeats, in frames.
func TestSieveOfNodes(t *testing.T) {
	var text bytes.Buffer
	send := func(version, label string) {
		m := nodeFrame(t, watch.Modified, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: version,
			Labels: map[string]string{"l": label}, Annotations: map[string]string{"beat": version}}})
		text.Write(binary.BigEndian.AppendUint32(nil, uint32(len(m))))
		text.Write(m)
	}
	send("1", "a")
	send("2", "a")
	send("3", strings.Repeat("b", 2*streamBuffer)) // longer than the buffer
	send("4", "a")
	send("5", "a")
	same(t, messages(t, calico.KindNode, newSieve(), true, text.String()),
		"MODIFIED n 1", "n is at 2", "BOOKMARK  2", "MODIFIED n 3", "MODIFIED n 4", "n is at 5")
	text.Reset()
	text.Write([]byte{0, 0, 0, 2, 0x7f, 0x7f})
	same(t, messages(t, calico.KindNode, newSieve(), true, text.String()), "ERROR 500")
	same(t, messages(t, calico.KindNode, newSieve(), true, "\x00\xff\xff\xff")) // no such length
	same(t, messages(t, calico.KindIPAMBlock, newSieve(), true,
		event("MODIFIED", strings.Replace(blockText(x, "1", "a"), "h-1", strings.Repeat("h", 3*streamBuffer), 1))), "MODIFIED "+x+" 1")
}

// TestSieveForgetsWhatDidNotArrive: an event that nobody took is not known, because it comes again.
func TestSieveForgetsWhatDidNotArrive(t *testing.T) {
	s := newSieve()
	messages(t, calico.KindIPAMBlock, s, true, event("MODIFIED", blockText(x, "1", "a")))
	r, w := io.Pipe()
	st := newStream(r, func() {}, classic.reader(calico.KindIPAMBlock, s.seed))
	st.sieve, st.settled = s, true
	go st.run()
	if _, err := io.WriteString(w, event("MODIFIED", blockText(x, "2", "b"))); err != nil {
		t.Fatal(err)
	}
	st.Stop()
	<-st.done
	same(t, messages(t, calico.KindIPAMBlock, s, true, event("MODIFIED", blockText(x, "2", "b"))), "MODIFIED "+x+" 2")
}

// TestPassedVersionsAreCompared: a list that has an object as it was before a heartbeat is suspect, though the heartbeat was kept back.
func TestPassedVersionsAreCompared(t *testing.T) {
	in, s := datastore.NewIntake(), newShelf(calico.KindNode, marker{maphash.MakeSeed()})
	at := func(version string) *item {
		return &item{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", ResourceVersion: version}}
	}
	s.replace(in, []*item{at("5")}, 6, time.Unix(0, 0), 0)
	s.pass([]passing{{"n", 9}, {"unknown", 10}})
	if s.newest != 10 || len(s.marks) != 1 {
		t.Errorf("newest %d, marks %v", s.newest, s.marks)
	}
	s.replace(in, []*item{at("8")}, 11, time.Unix(0, 0), 0)
	if !strings.Contains(s.doubt.text, "n is in it as it was earlier") {
		t.Errorf("doubt %q", s.doubt.text)
	}
}

// TestBusyWatchesHaveTheirOwnConnection: HTTP/1.1 for what never rests, one HTTP/2 connection for all else.
func TestBusyWatchesHaveTheirOwnConnection(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "true" && r.URL.Query().Get("sendInitialEvents") == "" {
			mu.Lock()
			seen[path.Base(r.URL.Path)] = r.Proto
			mu.Unlock()
		}
		if path.Base(r.URL.Path) == "ippools" { // the script's part
			r.URL.Path = "/none"
		}
		(&scripted{}).ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	store, err := Open(t.Context(), Options{Config: &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}})
	if err != nil {
		t.Fatal(err)
	}
	o := observe(t, store)
	t.Cleanup(server.CloseClientConnections)
	o.until("in sync", healed)
	for _, kind := range watched() {
		name := classic.resource(kind).Resource
		want := "HTTP/2.0"
		if kind == calico.KindNode || kind == calico.KindIPAMBlock {
			want = "HTTP/1.1"
		}
		for began := time.Now(); ; time.Sleep(time.Millisecond) { // between two looks, up to the deadline
			mu.Lock()
			proto := seen[name]
			mu.Unlock()
			if proto == want {
				break
			}
			if proto != "" || time.Since(began) > deadline {
				t.Errorf("%s are watched by %q, want %s", name, proto, want)
				break
			}
		}
	}
}
