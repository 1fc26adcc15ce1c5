package file

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Options are what a Store may be told.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
	// Poll is the longest time until a change is seen that the kernel does not announce: behind a symbolic link that leads
	// out of the directory, or made on another machine of a network file system. 0 means 10 seconds.
	Poll time.Duration
	// ClusterIPs stand for serviceClusterIPs of BGPConfiguration; none: that counts.
	ClusterIPs []netip.Prefix
}

// Store is a directory of manifests. All methods may be called from any goroutine.
type Store struct {
	dir   string
	opts  Options
	shelf *shelf
	turn  chan struct{} // holds the one token of this process for the directory's lock
}

var (
	_ datastore.Store   = (*Store)(nil)
	_ datastore.Watcher = (*Store)(nil)
)

// Open returns the Store of a directory. The directory need not be there yet.
func Open(dir string, opts Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("open datastore %s: %w; name the directory that holds the manifests", dir, errNotADir)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Poll == 0 {
		opts.Poll = defaultPoll
	}
	s := &Store{dir: dir, opts: opts, shelf: newShelf(dir), turn: make(chan struct{}, 1)}
	s.sweep(time.Now())
	return s, nil
}

var errNotADir = errors.New("is not a directory")

const defaultPoll = 10 * time.Second

// Get returns an object. One with values of the wrong type is an error, except where package calico can do without them.
func (s *Store) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	k := datastore.Key{Kind: kind, Name: name}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("get %s: %w", k, err)
		}
		file, p, err := s.locate(ctx, k)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", k, err)
		}
		obj, err := s.object(file, p, k)
		if errors.Is(err, errMoved) {
			// Do not trust the stamp a second time; if the file cannot be read, locate will say so.
			_, _, _ = s.shelf.reload(file)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", k, err)
		}
		return obj, nil
	}
}

// List returns every object of a kind, sorted by name. Objects that Get could not return are left out: the Watcher reports
// them.
func (s *Store) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	if _, _, err := s.shelf.scan(); err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	var objects []calico.Object
	for _, k := range s.shelf.all(kind) {
		file, _ := s.shelf.home(k)
		obj, err := s.listed(ctx, file, k)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		if obj != nil {
			objects = append(objects, obj)
		}
	}
	return objects, nil
}

// listed returns an object for a list, or nil if it is gone meanwhile or cannot be used.
func (s *Store) listed(ctx context.Context, file string, k datastore.Key) (calico.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	obj, err := s.object(file, s.shelf.page(file), k)
	if errors.Is(err, errMoved) {
		obj, err = s.Get(ctx, k.Kind, k.Name)
	}
	if errors.Is(err, errUnusable) || errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	return obj, err
}

// locate returns the file that holds an object and the file's page as it is now. Where the object was seen last is
// believed as long as it is still there; otherwise every file is looked at.
func (s *Store) locate(ctx context.Context, k datastore.Key) (string, *page, error) {
	if file, ok := s.shelf.home(k); ok {
		if p, err := s.shelf.load(file); err == nil {
			if _, ok := p.find(k); ok {
				return file, p, nil
			}
		}
	}
	for {
		_, unreadable, err := s.shelf.scan()
		if err != nil {
			return "", nil, err
		}
		if file, ok := s.shelf.home(k); ok {
			return file, s.shelf.page(file), nil
		}
		restless, doubt := s.doubts(k.Name)
		if restless {
			if err := sleep(ctx, pause); err != nil {
				return "", nil, err
			}
			continue
		}
		for _, err := range unreadable {
			return "", nil, fmt.Errorf("it may be in a file that cannot be read: %w", err)
		}
		if doubt != nil {
			return "", nil, doubt
		}
		return "", nil, datastore.ErrNotFound
	}
}

// doubts reports whether an object that was not found may be there all the same: in a file that is just being written,
// or in a document that cannot be parsed but speaks of its name. To call such an object missing would be to invite
// somebody to create it a second time.
func (s *Store) doubts(name string) (restless bool, doubt error) {
	s.shelf.each(func(file string, p *page) {
		restless = restless || p.restless()
		for _, d := range p.docs {
			if d.broken != nil && strings.Contains(d.text, name) {
				doubt = fmt.Errorf("it may be in %s, line %d, which %s", filepath.Join(s.dir, file), d.line+d.broken.Line-1, d.broken.Text)
			}
		}
	})
	return restless, doubt
}

// pause is the time between two looks at a file that is being written.
const pause = 10 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

var (
	// errMoved: the file changed while it was being read.
	errMoved = errors.New("the file changed")
	// errUnusable: the object has values of the wrong type.
	errUnusable = errors.New("cannot be used")
)

// object decodes an object from its place in a page, or takes it from the shelf, and returns a copy.
func (s *Store) object(file string, p *page, k datastore.Key) (calico.Object, error) {
	at, ok := p.find(k)
	if !ok {
		return nil, errMoved
	}
	d := p.docs[at.doc]
	obj := s.shelf.cached(d.document, k)
	if obj == nil {
		text, err := s.text(file, d)
		if err != nil {
			return nil, err
		}
		r, _, problem := s.resource(text, at.item, file)
		if problem != nil {
			return nil, errMoved
		}
		if len(r.Problems) > 0 && !calico.Partial(k.Kind) {
			return nil, s.unusable(file, d.line, r.Problems[0])
		}
		obj = r.Object
		obj.Meta().ResourceVersion = version(d.document, at.item)
		s.shelf.keep(d.document, k, obj)
	}
	return calico.Clone(obj), nil
}

func (s *Store) unusable(file string, line int, p cluster.Problem) error {
	return fmt.Errorf("%s, line %d: %w: %s: %s", filepath.Join(s.dir, file), line+p.Line-1, errUnusable, p.Field, p.Text)
}

// text reads the text of one document again; its sum says whether it is still the same.
func (s *Store) text(file string, d placed) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMoved
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, d.end-d.start)
	if _, err := f.ReadAt(text, int64(d.start)); err != nil || sha256.Sum256(text) != d.sum {
		return nil, errMoved
	}
	return text, nil
}

// version returns the resourceVersion of an object: a hash of the document it is in, whoever wrote that. The store counts
// its own writes within the text, so that a content that comes back has another version.
func version(d *document, item int) string {
	v := fmt.Sprintf("%x", d.sum[:10])
	if item > 0 {
		v += "-" + strconv.Itoa(item)
	}
	return v
}
