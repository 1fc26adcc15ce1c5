package kube

import (
	"fmt"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// shelf is what the loop knows of one kind.
type shelf struct {
	kind   calico.Kind
	marks  map[string]mark // by name
	marker marker
	newest uint64 // the newest resourceVersion that was seen
	synced bool   // all of the kind was read once
	err    error  // why it cannot be read at the moment
	doubt  doubt
	// needed: nothing is in sync without it, and that it cannot be read is told as the datastore's error.
	needed bool
	// tried: nothing is in sync before it was read, or before it turns out that it cannot be.
	tried   bool
	dropped bool // nobody follows it any more
}

func newShelf(kind calico.Kind, m marker) *shelf {
	return &shelf{kind: kind, marks: map[string]mark{}, marker: m}
}

// doubt is why a list may not be the truth.
type doubt struct {
	text  string    // empty: there is none
	goal  uint64    // the version that the server must reach
	seen  uint64    // the version that it has reached
	until time.Time // not before this time
}

// passed reports whether the server has caught up.
func (d *doubt) passed() bool { return d.seen >= d.goal }

// settle ends the doubt when its time has come.
func (d *doubt) settle(now time.Time) {
	if d.text != "" && d.passed() && !now.Before(d.until) {
		*d = doubt{}
	}
}

// change takes one object that has changed or is gone. It reports whether anything may be different now.
func (s *shelf) change(in *datastore.Intake, w what, i *item) bool {
	m := s.marker.of(i)
	s.reach(m.version)
	k := datastore.Key{Kind: s.kind, Name: i.Name}
	if w == deleted {
		delete(s.marks, i.Name)
		in.Delete(k)
		return true
	}
	if s.marks[i.Name] == m {
		return s.doubt.text != ""
	}
	s.marks[i.Name] = m
	in.Set(k, i.word, i.problems)
	return true
}

// pass takes the new versions of objects that are otherwise as they were.
func (s *shelf) pass(objects []passing) {
	for _, p := range objects {
		s.reach(p.version)
		if m, ok := s.marks[p.name]; ok {
			m.version = p.version
			s.marks[p.name] = m
		}
	}
}

// reach notes how far the server has come.
func (s *shelf) reach(version uint64) {
	s.newest = max(s.newest, version)
	if s.doubt.text != "" {
		s.doubt.seen = max(s.doubt.seen, version)
	}
}

// replace takes a whole list.
func (s *shelf) replace(in *datastore.Intake, items []*item, version uint64, now time.Time, patience time.Duration) {
	if s.synced {
		s.judge(items, version, now, patience)
	}
	next := make(map[string]mark, len(items))
	for _, i := range items {
		m := s.marker.of(i)
		next[i.Name] = m
		if was, ok := s.marks[i.Name]; !ok || was != m {
			in.Set(datastore.Key{Kind: s.kind, Name: i.Name}, i.word, i.problems)
		}
	}
	for name := range s.marks {
		if _, stays := next[name]; !stays {
			in.Delete(datastore.Key{Kind: s.kind, Name: name})
		}
	}
	s.marks, s.synced = next, true
	s.newest = version // also if it went back: from here on this is what the next list is compared with
	if s.doubt.text != "" {
		s.doubt.seen = version
	}
}

// judge compares a list with what was read before. See doc.go, "Suspect lists".
func (s *shelf) judge(items []*item, version uint64, now time.Time, patience time.Duration) {
	why, goal := "", s.doubt.goal
	older, survivors := "", 0
	for _, i := range items {
		was, ok := s.marks[i.Name]
		if m := s.marker.of(i); ok && was.uid == m.uid {
			survivors++
			if m.version < was.version {
				older = i.Name
			}
		}
	}
	switch {
	case version < s.newest:
		why = fmt.Sprintf("resourceVersion %d after %d", version, s.newest)
		goal = max(goal, s.newest)
	case older != "":
		why = fmt.Sprintf("%s is in it as it was earlier", older)
	case len(s.marks) >= enoughToJudge && survivors == 0:
		why = fmt.Sprintf("none of %d known objects is in it", len(s.marks))
	default:
		return
	}
	s.doubt = doubt{
		text: fmt.Sprintf("the list of %s read at %s does not go on from what was read before: %s; "+
			"etcd seems to have been restored or replaced", s.kind, now.UTC().Format(time.RFC3339), why),
		goal: goal, seen: version, until: now.Add(patience),
	}
}

// enoughToJudge is how many objects of a kind must all be gone at once to be more than the one that somebody
// replaced.
const enoughToJudge = 2
