package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/datastore"
)

// stamp tells one state of a file from another. It is the state of what a symbolic link leads to.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // ns since 1970, by the file system's clock
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

func statFile(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, &fs.PathError{Op: "read", Path: path, Err: errNotAFile}
	}
	return stampOf(&st), nil
}

var errNotAFile = errors.New("is not a file")

// changed is when the file was last changed. Unlike its mtime, its ctime cannot be set by anybody.
func (s stamp) changed() time.Time { return time.Unix(0, max(s.ctime, s.mtime)) }

// tick is more than the resolution of file times (one tick of the kernel's clock, 10 ms where it is slowest). A file
// that was read within a tick of its last change can change again and keep its stamp.
const tick = 20 * time.Millisecond

// page is one state of a file, parsed. It is immutable.
type page struct {
	stamp stamp
	docs  []placed
	index map[datastore.Key]place // nil in a page of few documents
	// certain: the file cannot have changed since without getting another stamp.
	certain bool
	// whole: when the file was read nobody had it open for writing, so what it says is not half of something.
	whole bool
	// busy: somebody had it open for writing. If neither, there is no telling.
	busy bool
}

// placed is a document at its place in a file.
type placed struct {
	chunk
	*document
}

// place is an object's document and its place among the resources in it.
type place struct{ doc, item int }

// readPage reads and parses a file. Documents whose text is the same as in the page before are not parsed again.
// Writers is asked whether anybody has the file open for writing.
func readPage(path string, before *page, writers func(*os.File) presence) (*page, []byte, error) {
	if _, err := statFile(path); err != nil {
		return nil, nil, err // do not open what is no file: opening a pipe waits for its writer
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var was, is unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &was); err != nil {
		return nil, nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Fstat(int(f.Fd()), &is); err != nil {
		return nil, nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	p := &page{stamp: stampOf(&was)}
	same := stampOf(&was) == stampOf(&is)
	p.certain = same && time.Since(p.stamp.changed()) > tick
	who := writers(f)
	p.whole = same && int64(len(text)) == was.Size && who == absent
	p.busy = who == present
	p.parse(text, strings.HasSuffix(path, ".json"), before)
	return p, text, nil
}

// presence says whether a file has a writer.
type presence uint8

const (
	unsure presence = iota
	absent
	present
)

// writersOf finds out whether anybody has a file open for writing: then a read lease is refused (fcntl(2), F_SETLEASE).
// Where leases are not to be had - foreign files without CAP_LEASE, some file systems - time has to tell whether a file
// is whole.
func writersOf(f *os.File) presence {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return present
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	if err != nil {
		return unsure
	}
	return absent
}

func (p *page) parse(text []byte, isJSON bool, before *page) {
	chunks := []chunk{{end: len(text), line: 1}}
	if !isJSON {
		chunks = split(text)
	}
	known := map[[sha256.Size]byte]*document{}
	if before != nil {
		for _, d := range before.docs {
			known[d.sum] = d.document
		}
	}
	p.docs = make([]placed, len(chunks))
	one := func(i int) {
		c := chunks[i]
		p.docs[i].chunk = c
		sum := sha256.Sum256(text[c.start:c.end])
		if p.docs[i].document = known[sum]; p.docs[i].document == nil {
			p.docs[i].document = parseSum(text[c.start:c.end], sum, isJSON)
		}
	}
	defer p.makeIndex()
	if len(chunks) < parallelFrom {
		for i := range chunks {
			one(i)
		}
		return
	}
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(chunks); i += workers {
				one(i)
			}
		})
	}
	wg.Wait()
}

// parallelFrom is the number of documents from which on more than one goroutine parses them.
const parallelFrom = 64

// makeIndex makes find quick where there is much to look through.
func (p *page) makeIndex() {
	if len(p.docs) < parallelFrom {
		return
	}
	p.index = make(map[datastore.Key]place, len(p.docs))
	p.each(func(at place, r *resource) {
		if _, twice := p.index[r.Key]; !twice {
			p.index[r.Key] = at
		}
	})
}

// each calls f for every object in the page, in order. The page may be nil.
func (p *page) each(f func(place, *resource)) {
	if p == nil {
		return
	}
	for i, d := range p.docs {
		for j := range d.resources {
			f(place{i, j}, &d.resources[j])
		}
	}
}

// find returns the place of an object. Where a file has an object twice, the first counts. The page may be nil.
func (p *page) find(k datastore.Key) (at place, ok bool) {
	if p == nil {
		return place{}, false
	}
	if p.index != nil {
		at, ok = p.index[k]
		return at, ok
	}
	for i, d := range p.docs {
		for j := range d.resources {
			if d.resources[j].Key == k {
				return place{i, j}, true
			}
		}
	}
	return place{}, false
}

// broken reports whether a document of the page cannot be parsed. Half of a file often cannot.
func (p *page) broken() bool {
	for _, d := range p.docs {
		if d.broken != nil {
			return true
		}
	}
	return false
}

// grace is how long a file must have been left alone before it is believed to be what its writer wanted, if it looks
// as if it were half-written: a text that cannot be parsed, or from which objects have disappeared. It is long for a
// program that writes in pieces, and short for a person who waits for a message.
const grace = 250 * time.Millisecond

// openGrace is the same for a file that somebody still has open for writing, who may go on after a pause.
const openGrace = 5 * time.Second

// grace is how long this page must have been left alone.
func (p *page) grace() time.Duration {
	if p.busy {
		return openGrace
	}
	return grace
}

// restless reports whether a page may be half of what its writer is writing.
func (p *page) restless() bool {
	return (!p.whole || p.broken()) && time.Since(p.stamp.changed()) < p.grace()
}

// listDir returns the names of the manifests in a directory, sorted, and the identity of the directory.
func listDir(dir string) (names []string, id stamp, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, stamp{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	entries, err := f.Readdirnames(-1)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range entries {
		if manifest(name) {
			names = append(names, name)
		}
	}
	return names, stamp{dev: st.Dev, ino: st.Ino}, nil
}

// manifest reports whether a name is that of a file which is read: not hidden, and not what an editor leaves beside it.
func manifest(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// dirID returns the identity of the directory that a path leads to now.
func dirID(dir string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return stamp{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return stamp{}, &fs.PathError{Op: "list", Path: dir, Err: errNotADir}
	}
	return stamp{dev: st.Dev, ino: st.Ino}, nil
}
