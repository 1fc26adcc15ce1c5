package kube

import (
	"hash/maphash"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// initialEventsEnd is the annotation of the bookmark that ends a streaming list.
const initialEventsEnd = metav1.InitialEventsAnnotationKey

// arrival is one event of a watch of which as little was read as tells whether it matters. Its texts lie in the message.
type arrival struct {
	typ           watch.EventType
	name, version string
	// sum is a hash of the UID and of everything that is routed on: two events with one sum make the same word. 0: not known.
	sum uint64
	// whole reads it all.
	whole func() watch.Event
}

// sieve keeps back the changes of objects in which nothing that is routed on has changed. In a large cluster that is nearly all that
// comes: heartbeats of nodes, pods that come and go in blocks. It goes from one stream of a feed to the next, until there is a list.
type sieve struct {
	seed  maphash.Seed
	known map[string]known // by name, as it was passed on last
	held  []passing        // kept back since the last flush
	since time.Time        // when the first of them came; zero where nobody has looked yet
}

type known struct {
	name string // the key, to be kept
	sum  uint64
}

// passing is an object that has another version and is otherwise as it was.
type passing struct {
	name    string
	version uint64
}

func newSieve() *sieve { return &sieve{seed: maphash.MakeSeed(), known: map[string]known{}} }

// holds keeps an event back if it can. Only what was changed can be: whatever is new or gone matters.
func (s *sieve) holds(e *arrival) bool {
	if e.typ != watch.Modified || e.sum == 0 {
		return false
	}
	k, ok := s.known[e.name]
	version := number(e.version)
	if !ok || k.sum != e.sum || version == 0 {
		return false
	}
	s.held = append(s.held, passing{k.name, version})
	return true
}

// due reports whether it is time to tell what was kept back.
func (s *sieve) due(now time.Time) bool {
	if s.since.IsZero() {
		s.since = now
	}
	return now.Sub(s.since) >= flushInterval
}

// take returns what was kept back, and a bookmark that stands for it.
func (s *sieve) take() ([]passing, *item) {
	held, newest := s.held, uint64(0)
	for _, p := range held {
		newest = max(newest, p.version)
	}
	s.held, s.since = make([]passing, 0, len(held)), time.Time{}
	return held, &item{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(newest, 10)}}
}

// learn notes what was passed on.
func (s *sieve) learn(name string, sum uint64) {
	if sum != 0 {
		s.known[name] = known{name, sum}
	}
}

func (s *sieve) forget(name string) { delete(s.known, name) }
