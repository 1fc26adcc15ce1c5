package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// shelf keeps the pages of a directory's files, so that a file is parsed once for each time it changes and not once for
// each time it is asked about. The Watcher and all users of the Store share one. All methods may be called from any goroutine.
type shelf struct {
	dir     string
	writers func(*os.File) presence

	mu    sync.Mutex
	pages map[string]*page // by file name
	// where has the files that hold an object, sorted.
	where map[datastore.Key][]string
	// objects has what was asked for once: decoding costs more than copying.
	objects map[objectAt]calico.Object
}

// objectAt is an object in one form of one document.
type objectAt struct {
	doc *document
	datastore.Key
}

func newShelf(dir string) *shelf {
	return &shelf{dir: dir, writers: writersOf, pages: map[string]*page{}, where: map[datastore.Key][]string{}, objects: map[objectAt]calico.Object{}}
}

// load returns the page of a file as it is now. A file that is not there is an error that is fs.ErrNotExist.
func (s *shelf) load(name string) (*page, error) {
	was := s.page(name)
	if was != nil && was.certain && was.whole {
		if now, err := statFile(filepath.Join(s.dir, name)); err == nil && now == was.stamp {
			return was, nil
		}
	}
	p, _, err := s.reload(name)
	return p, err
}

// reload reads a file whatever is known of it, and returns its text as well. The lock is not held meanwhile; if two read
// one file at a time, the older page may stay on the shelf, and its stamp gives it away at the next look.
func (s *shelf) reload(name string) (*page, []byte, error) {
	p, text, err := readPage(filepath.Join(s.dir, name), s.page(name), s.writers)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.put(name, s.pages[name], p)
	}
	return p, text, err
}

// loadAll brings the pages of many files up to date, several at a time, and returns why some cannot be read.
func (s *shelf) loadAll(names []string) map[string]error {
	var (
		wg         sync.WaitGroup
		mu         sync.Mutex
		unreadable map[string]error
	)
	load := func(name string) {
		if _, err := s.load(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			mu.Lock()
			defer mu.Unlock()
			if unreadable == nil {
				unreadable = map[string]error{}
			}
			unreadable[name] = err
		}
	}
	workers := runtime.GOMAXPROCS(0)
	if len(names) < parallelFrom {
		workers = 1
	}
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(names); i += workers {
				load(names[i])
			}
		})
	}
	wg.Wait()
	return unreadable
}

// put replaces the page of a file.
func (s *shelf) put(name string, was, is *page) {
	if is == nil {
		delete(s.pages, name)
	} else {
		s.pages[name] = is
	}
	if samePlaces(was, is) {
		return
	}
	was.each(func(_ place, r *resource) {
		if _, still := is.find(r.Key); !still {
			s.unplace(r.Key, name)
		}
	})
	is.each(func(_ place, r *resource) {
		if i, there := slices.BinarySearch(s.where[r.Key], name); !there {
			s.where[r.Key] = slices.Insert(s.where[r.Key], i, name)
		}
	})
	s.forget(was, is)
}

// samePlaces reports whether two pages have the same documents.
func samePlaces(a, b *page) bool {
	if a == nil || b == nil || len(a.docs) != len(b.docs) {
		return a == b
	}
	for i := range a.docs {
		if a.docs[i].document != b.docs[i].document {
			return false
		}
	}
	return true
}

func (s *shelf) unplace(k datastore.Key, name string) {
	files := slices.DeleteFunc(s.where[k], func(f string) bool { return f == name })
	if len(files) == 0 {
		delete(s.where, k)
		return
	}
	s.where[k] = files
}

// forget drops decoded objects of documents that are gone.
func (s *shelf) forget(was, is *page) {
	if was == nil || len(s.objects) == 0 {
		return
	}
	kept := map[*document]bool{}
	if is != nil {
		for _, d := range is.docs {
			kept[d.document] = true
		}
	}
	for _, d := range was.docs {
		if kept[d.document] {
			continue
		}
		for _, r := range d.resources {
			delete(s.objects, objectAt{d.document, r.Key})
		}
	}
}

// scan brings every page up to date and returns the names of the files, sorted, with those that cannot be read.
func (s *shelf) scan() (names []string, unreadable map[string]error, err error) {
	names, _, err = listDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	s.drop(names)
	return names, s.loadAll(names), nil
}

// drop removes the pages of files that are not among the sorted names.
func (s *shelf) drop(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.pages {
		if _, found := slices.BinarySearch(names, name); !found {
			s.put(name, p, nil)
		}
	}
}

// home returns the file whose form of an object counts: the first by name.
func (s *shelf) home(k datastore.Key) (name string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if files := s.where[k]; len(files) > 0 {
		return files[0], true
	}
	return "", false
}

// all returns the keys of a kind, sorted by name.
func (s *shelf) all(kind calico.Kind) []datastore.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []datastore.Key
	for k := range s.where {
		if k.Kind == kind {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, datastore.Key.Compare)
	return keys
}

// each calls f for every page, in no order.
func (s *shelf) each(f func(name string, p *page)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.pages {
		f(name, p)
	}
}

func (s *shelf) cached(d *document, k datastore.Key) calico.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[objectAt{d, k}]
}

func (s *shelf) keep(d *document, k datastore.Key, o calico.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if files := s.where[k]; len(files) > 0 && s.pages[files[0]] != nil {
		for _, have := range s.pages[files[0]].docs {
			if have.document == d {
				s.objects[objectAt{d, k}] = o
				return
			}
		}
	}
}

// page returns the page of a file as it was last read; nil if there is none.
func (s *shelf) page(name string) *page {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pages[name]
}
