package file

import (
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// ledger keeps what is in force of each file, and decides when a changed file is believed. It knows nothing of disks and
// clocks, it is told. Its rules:
//
//   - A change is taken over at once if the file is whole: nobody had it open for writing when it was read.
//     Otherwise it must have been left alone for the grace period, which is longer while somebody still has it open.
//   - A file that cannot be parsed, or that has lost an object, must have been left alone for the grace period in any case:
//     editors and redirected output write in pieces.
//   - What a file that cannot be parsed held before stays in force until the file can be parsed again.
//   - An object that is in several files is taken from the first by name. One that is on its way out of a file gives way
//     to any other.
type ledger struct {
	dir    string
	intake *datastore.Intake
	files  map[string]*entry
	// where has the files that hold an object, or held it and do not let go of it yet, sorted.
	where map[datastore.Key][]string
	// extra are the problems that belong to a file or to several objects.
	extra    map[string][]cluster.Problem
	twice    map[datastore.Key]cluster.Problem
	newExtra bool
	next     time.Time // when a file is to be looked at again; zero: never
}

// entry is one file.
type entry struct {
	page *page // what is in force; nil before anything was
	err  error // why the file cannot be read
	// leaving are the objects that the file no longer has, while that is not believed yet.
	leaving map[datastore.Key]bool
	again   time.Time // when to look again; zero: at the next event
	stamp   stamp     // the form that is not in force yet
	missing bool      // that form is that there is no file
	since   time.Time // when that form was first seen
}

func newLedger(dir string) *ledger {
	return &ledger{
		dir: dir, intake: datastore.NewIntake(), files: map[string]*entry{}, where: map[datastore.Key][]string{},
		extra: map[string][]cluster.Problem{}, twice: map[datastore.Key]cluster.Problem{},
	}
}

// due yields the files whose time has come.
func (l *ledger) due(now time.Time) iter.Seq[string] {
	return func(yield func(string) bool) {
		if l.next.IsZero() || now.Before(l.next) {
			return
		}
		l.next = time.Time{}
		for name, e := range l.files {
			if e.again.IsZero() {
				continue
			}
			if !now.Before(e.again) {
				if !yield(name) {
					return
				}
				continue
			}
			l.remind(e.again)
		}
	}
}

func (l *ledger) remind(at time.Time) {
	if l.next.IsZero() || at.Before(l.next) {
		l.next = at
	}
}

func (l *ledger) lookAgain(e *entry, at time.Time) {
	e.again = at
	l.remind(at)
}

// found tells what a file says now, or that it cannot be read.
func (l *ledger) found(name string, p *page, err error, now time.Time) {
	e := l.files[name]
	if e == nil {
		e = &entry{}
		l.files[name] = e
	}
	e.again = time.Time{}
	if err != nil {
		e.err = err
		l.lookAgain(e, now.Add(retryFile))
		l.setExtra(name, e)
		return
	}
	if e.err != nil {
		e.err = nil
		l.setExtra(name, e)
	}
	if p == e.page && len(e.leaving) == 0 {
		e.since = time.Time{}
		return
	}
	if e.since.IsZero() || e.missing || e.stamp != p.stamp {
		e.stamp, e.missing, e.since = p.stamp, false, now
	}
	aged := now.Sub(e.since) >= p.grace() || now.Sub(p.stamp.changed()) >= p.grace()
	lost := l.lost(e, p)
	if !aged && (!p.whole || p.broken() || len(lost) > 0) {
		l.leave(name, e, lost)
		if p.whole {
			l.lookAgain(e, e.since.Add(grace)) // if it changes before, there is an event
		} else {
			l.lookAgain(e, now.Add(pause)) // closing a file is no event
		}
		return
	}
	if !p.certain {
		l.lookAgain(e, now.Add(tick))
	}
	e.since = time.Time{}
	if !p.broken() {
		lost = nil
	}
	l.accept(name, e, p, lost)
}

// gone tells that there is no such file. It is believed after the grace period, and not before patience.
func (l *ledger) gone(name string, now, patience time.Time) {
	e := l.files[name]
	if e == nil {
		return
	}
	if e.since.IsZero() || !e.missing {
		e.missing, e.since = true, now
	}
	e.err = nil
	if at := later(e.since.Add(grace), patience); now.Before(at) {
		l.leave(name, e, l.lost(e, nil))
		l.setExtra(name, e)
		l.lookAgain(e, at)
		return
	}
	l.accept(name, e, nil, nil)
	delete(l.files, name)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lost returns the objects a file had and has no more.
func (l *ledger) lost(e *entry, p *page) map[datastore.Key]bool {
	var lost map[datastore.Key]bool
	note := func(k datastore.Key) {
		if _, still := p.find(k); !still {
			if lost == nil {
				lost = map[datastore.Key]bool{}
			}
			lost[k] = true
		}
	}
	if e.page != p {
		e.page.each(func(_ place, r *resource) { note(r.Key) })
	}
	for k := range e.leaving {
		note(k)
	}
	return lost
}

// leave marks objects of a file that is not believed yet.
func (l *ledger) leave(name string, e *entry, leaving map[datastore.Key]bool) {
	if maps.Equal(e.leaving, leaving) {
		return
	}
	was := e.leaving
	e.leaving = leaving
	l.settle(name, e, keysOf(was), keysOf(leaving))
}

// accept puts another form of a file in force. Leaving are the objects that stay although it does not have them.
func (l *ledger) accept(name string, e *entry, p *page, leaving map[datastore.Key]bool) {
	was, wasLeaving := e.page, e.leaving
	e.page, e.leaving = p, leaving
	l.settle(name, e, changed(was, p), changed(p, was), keysOf(wasLeaving), keysOf(leaving))
	l.setExtra(name, e)
}

// changed yields the objects of a page whose documents are not in the other page, and those with problems, whose line may
// have moved.
func changed(p, other *page) iter.Seq[datastore.Key] {
	return func(yield func(datastore.Key) bool) {
		if p == nil {
			return
		}
		same := map[*document]bool{}
		if other != nil {
			for _, d := range other.docs {
				same[d.document] = true
			}
		}
		for _, d := range p.docs {
			for i := range d.resources {
				if r := &d.resources[i]; (!same[d.document] || len(r.problems) > 0) && !yield(r.Key) {
					return
				}
			}
		}
	}
}

// settle brings what is in force of some objects up to date after a file has changed.
func (l *ledger) settle(name string, e *entry, sets ...iter.Seq[datastore.Key]) {
	for _, set := range sets {
		for k := range set {
			_, there := e.page.find(k)
			l.place(k, name, there || e.leaving[k])
			l.resolve(k)
		}
	}
}

func (l *ledger) place(k datastore.Key, name string, there bool) {
	i, found := slices.BinarySearch(l.where[k], name)
	switch {
	case there && !found:
		l.where[k] = slices.Insert(l.where[k], i, name)
	case !there && found:
		if l.where[k] = slices.Delete(l.where[k], i, i+1); len(l.where[k]) == 0 {
			delete(l.where, k)
		}
	}
}

// resolve decides which file's form of an object is in force.
func (l *ledger) resolve(k datastore.Key) {
	var live []string
	for _, name := range l.where[k] {
		if e := l.files[name]; !e.leaving[k] {
			live = append(live, name)
		}
	}
	l.setTwice(k, live)
	if len(live) == 0 {
		if len(l.where[k]) == 0 {
			l.intake.Delete(k)
		}
		return // on its way out, but not out: what was in force stays
	}
	p := l.files[live[0]].page
	at, _ := p.find(k)
	d := p.docs[at.doc]
	r := &d.resources[at.item]
	l.intake.Set(k, r.word, l.locate(live[0], d.line, r.problems))
}

// locate completes problems with their file, and their line in it.
func (l *ledger) locate(name string, line int, problems []cluster.Problem) []cluster.Problem {
	out := slices.Clone(problems)
	for i := range out {
		out[i].File = filepath.Join(l.dir, name)
		out[i].Line += line - 1
	}
	return out
}

// setTwice notes that an object is in several files.
func (l *ledger) setTwice(k datastore.Key, live []string) {
	var now cluster.Problem
	if len(live) > 1 {
		now = l.double(k, live[1], l.lineOf(live[1], k), live[0], l.lineOf(live[0], k))
	}
	if was, had := l.twice[k]; had == (len(live) > 1) && was == now {
		return
	}
	l.newExtra = true
	if len(live) > 1 {
		l.twice[k] = now
	} else {
		delete(l.twice, k)
	}
}

func (l *ledger) lineOf(name string, k datastore.Key) int {
	p := l.files[name].page
	at, _ := p.find(k)
	d := p.docs[at.doc]
	return d.line + d.resources[at.item].line - 1
}

func (l *ledger) double(k datastore.Key, file string, line int, used string, usedLine int) cluster.Problem {
	return cluster.Problem{
		Object: k.String(), Field: "metadata.name", File: filepath.Join(l.dir, file), Line: line,
		Text: "is also in " + filepath.Join(l.dir, used) + ", line " + strconv.Itoa(usedLine) + ", which is the one that is used: remove one of the two",
	}
}

// setExtra collects the problems of a file that belong to none of its objects.
func (l *ledger) setExtra(name string, e *entry) {
	var all []cluster.Problem
	if e.err != nil {
		all = append(all, cluster.Problem{Object: "file", File: filepath.Join(l.dir, name),
			Text: "cannot be read: " + e.err.Error() + "; what it said before stays in effect"})
	}
	if e.page != nil {
		for i, d := range e.page.docs {
			all = append(all, l.locate(name, d.line, d.stray)...)
			if d.broken != nil {
				all = append(all, l.locate(name, d.line, []cluster.Problem{*d.broken})...)
			}
			for j := range d.resources {
				r := &d.resources[j]
				if at, _ := e.page.find(r.Key); at != (place{i, j}) {
					all = append(all, l.double(r.Key, name, d.line+r.line-1, name, l.lineOf(name, r.Key)))
				}
			}
		}
	}
	if slices.Equal(l.extra[name], all) {
		return
	}
	l.newExtra = true
	if len(all) == 0 {
		delete(l.extra, name)
		return
	}
	l.extra[name] = all
}

// state returns the snapshot.
func (l *ledger) state() *cluster.State {
	if l.newExtra {
		var all []cluster.Problem
		for _, name := range slices.Sorted(maps.Keys(l.extra)) {
			all = append(all, l.extra[name]...)
		}
		for _, k := range slices.SortedFunc(maps.Keys(l.twice), datastore.Key.Compare) {
			all = append(all, l.twice[k])
		}
		l.intake.Stray(all)
		l.newExtra = false
	}
	return l.intake.State()
}

// settled reports whether every file has been read and understood, so that nothing in the directory is unknown.
func (l *ledger) settled() bool {
	for _, e := range l.files {
		if e.page == nil || !e.since.IsZero() || e.err != nil {
			return false
		}
	}
	return l.unknown() == nil
}

// unread returns why the first of the files that cannot be read cannot be read.
func (l *ledger) unread() error {
	for _, name := range slices.Sorted(maps.Keys(l.extra)) {
		if e := l.files[name]; e != nil && e.err != nil {
			return e.err
		}
	}
	return nil
}

// unknown returns the problem of a document that is surely meant for us and cannot be parsed.
func (l *ledger) unknown() *cluster.Problem {
	for _, name := range slices.Sorted(maps.Keys(l.extra)) {
		e := l.files[name]
		if e == nil || e.page == nil {
			continue
		}
		for _, d := range e.page.docs {
			if d.broken != nil && ours(d.text) {
				return &l.locate(name, d.line, []cluster.Problem{*d.broken})[0]
			}
		}
	}
	return nil
}

func keysOf[K comparable](m map[K]bool) iter.Seq[K] { return maps.Keys(m) }
