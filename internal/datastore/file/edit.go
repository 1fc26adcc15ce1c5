package file

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Create writes a new object into a file of its own.
func (s *Store) Create(ctx context.Context, obj calico.Object) (calico.Object, error) {
	k := datastore.Key{Kind: obj.Kind(), Name: obj.Meta().Name}
	if k.Name == "" {
		return nil, fmt.Errorf("create %s: it has no name", k.Kind)
	}
	if calico.WatchedOnly(k.Kind) {
		return nil, fmt.Errorf("create %s: objects of this kind are only watched: %w", k, errors.ErrUnsupported)
	}
	out, err := s.create(ctx, k, calico.Clone(obj))
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", k, err)
	}
	return out, nil
}

func (s *Store) create(ctx context.Context, k datastore.Key, obj calico.Object) (calico.Object, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	switch _, _, err := s.locate(ctx, k); {
	case err == nil:
		return nil, datastore.ErrExists
	case !errors.Is(err, datastore.ErrNotFound):
		return nil, err
	}
	meta := obj.Meta()
	now := time.Now().UTC().Truncate(time.Second) // the resolution of Kubernetes
	meta.UID, meta.ResourceVersion, meta.CreationTimestamp = newUID(), "1", &now
	text, err := render(calico.Encode(obj), false)
	if err != nil {
		return nil, err
	}
	name := fileName(k, "")
	err = s.writeNew(name, text)
	if errors.Is(err, fs.ErrExist) { // somebody's file that has our name but not our object
		name = fileName(k, meta.UID)
		err = s.writeNew(name, text)
	}
	if err != nil {
		return nil, err
	}
	return s.written(name, k)
}

// Update replaces an object in the file it lives in.
func (s *Store) Update(ctx context.Context, obj calico.Object) (calico.Object, error) {
	k := datastore.Key{Kind: obj.Kind(), Name: obj.Meta().Name}
	obj = calico.Clone(obj)
	name, err := s.edit(ctx, k, func(e *edition) error {
		if err := e.unchanged(obj.Meta()); err != nil {
			return err
		}
		if len(e.problems) > 0 {
			return s.unusable(e.file, e.line, e.problems[0])
		}
		now, meta := e.object.Meta(), obj.Meta()
		count, _ := strconv.ParseUint(now.ResourceVersion, 10, 64) // 0 where there is none, or one of Kubernetes'
		meta.ResourceVersion = strconv.FormatUint(count+1, 10)
		if meta.CreationTimestamp == nil {
			meta.CreationTimestamp = now.CreationTimestamp
		}
		calico.Overlay(e.node, obj)
		e.verdict = rewrite
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", k, err)
	}
	defer name.unlock()
	out, err := s.written(name.file, k)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", k, err)
	}
	return out, nil
}

// Delete removes an object, and its file if nothing else is in it.
func (s *Store) Delete(ctx context.Context, obj calico.Object) error {
	k := datastore.Key{Kind: obj.Kind(), Name: obj.Meta().Name}
	done, err := s.edit(ctx, k, func(e *edition) error {
		e.verdict = remove
		return e.unchanged(obj.Meta())
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", k, err)
	}
	done.unlock()
	return nil
}

// PatchNode changes fields of a Node in the tree of its document, so that all else in it stays as somebody wrote it.
func (s *Store) PatchNode(ctx context.Context, name string, patch datastore.NodePatch) error {
	k := datastore.Key{Kind: calico.KindNode, Name: name}
	done, err := s.edit(ctx, k, func(e *edition) error {
		if patchNode(e.node, &patch) {
			e.verdict = rewrite
		}
		if bgp := calico.Field(calico.Field(e.node, "spec"), "bgp"); bgp != nil && e.verdict == rewrite && len(bgp.Content) == 0 {
			calico.SetScalar(e.node, "", "spec", "bgp") // as Calico leaves it: a node without BGP settings has none
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("patch %s: %w", k, err)
	}
	done.unlock()
	return nil
}

// patchNode changes the mapping of a Node and reports whether it did.
func patchNode(n *yaml.Node, patch *datastore.NodePatch) (changed bool) {
	set := func(value string, path ...string) { changed = calico.SetScalar(n, value, path...) || changed }
	for _, f := range []struct {
		addr *netip.Addr
		path []string
	}{
		{patch.IPIPAddr, []string{"spec", "bgp", "ipv4IPIPTunnelAddr"}},
		{patch.VXLANAddr4, []string{"spec", "ipv4VXLANTunnelAddr"}},
		{patch.VXLANAddr6, []string{"spec", "ipv6VXLANTunnelAddr"}},
	} {
		if f.addr != nil {
			set(validText(*f.addr), f.path...)
		}
	}
	if patch.Addr4 != nil {
		set(validText(*patch.Addr4), "spec", "bgp", "ipv4Address")
	}
	if patch.Addr6 != nil {
		set(validText(*patch.Addr6), "spec", "bgp", "ipv6Address")
	}
	if patch.ASN != nil {
		var asn *calico.ASNumber
		if *patch.ASN != 0 {
			a := calico.ASNumber(*patch.ASN)
			asn = &a
		}
		changed = calico.SetValue(n, asn, "spec", "bgp", "asNumber") || changed
	}
	if patch.Interfaces != nil {
		changed = calico.SetValue(n, *patch.Interfaces, "spec", "interfaces") || changed
	}
	if patch.Leaving != nil {
		var leaving *string
		if yes := "true"; *patch.Leaving {
			leaving = &yes
		}
		changed = calico.SetValue(n, leaving, "metadata", "annotations", calico.AnnotationLeaving) || changed
	}
	return changed
}

// validText is how an address or a prefix is written: nothing for none.
func validText(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// edition is an object while it is edited, under the lock.
type edition struct {
	file     string
	line     int // of the document
	version  string
	object   calico.Object // resourceVersion as in the text: the store's count of its writes
	problems []cluster.Problem
	node     *yaml.Node // the object's mapping in the document's tree
	verdict  verdict
}

type verdict uint8

const (
	leave verdict = iota
	rewrite
	remove
)

// unchanged compares what a writer has read with what is there.
func (e *edition) unchanged(meta *calico.ObjectMeta) error {
	if meta.ResourceVersion != e.version || meta.UID != e.object.Meta().UID {
		return datastore.ErrConflict
	}
	return nil
}

// edited is the outcome of an edit. The lock is still held.
type edited struct {
	file   string
	unlock func()
}

// edit finds an object under the lock, lets change work on it, and writes what became of it. A file that is just being
// written by somebody who does not know of the lock is waited for, and if it changes before the new one is in place all is
// done again.
func (s *Store) edit(ctx context.Context, k datastore.Key, change func(*edition) error) (done edited, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return edited{}, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	for {
		file, _, err := s.locate(ctx, k)
		if err != nil {
			return edited{}, err
		}
		err = s.editFile(file, k, change)
		if err == nil {
			return edited{file: file, unlock: unlock}, nil
		}
		if !errors.Is(err, errMoved) && !errors.Is(err, fs.ErrNotExist) {
			return edited{}, err
		}
		if err := sleep(ctx, pause); err != nil {
			return edited{}, err
		}
	}
}

func (s *Store) editFile(file string, k datastore.Key, change func(*edition) error) error {
	p, text, err := s.shelf.reload(file)
	if err != nil {
		return err
	}
	at, ok := p.find(k)
	if !ok || p.restless() {
		return errMoved
	}
	d := p.docs[at.doc]
	r, tree, problem := s.resource(text[d.start:d.end], at.item, file)
	if problem != nil {
		return errMoved
	}
	e := &edition{file: file, line: d.line, version: version(d.document, at.item), object: r.Object, problems: r.Problems, node: r.Node}
	if err := change(e); err != nil {
		return err
	}
	switch e.verdict {
	case rewrite:
		out, err := render(tree, isJSON(file))
		if err != nil {
			return err
		}
		if err := sameObjects(d.document, parse(out, isJSON(file))); err != nil {
			return err
		}
		return s.replace(file, p.stamp, splice(text, d.chunk, out))
	case remove:
		return s.remove(file, p, text, at, r.Node, tree)
	}
	return nil
}

// sameObjects makes sure that a document which was written anew can be read and still holds what it held. The YAML library
// has had bugs with comments in odd places; somebody's file must not pay for them.
func sameObjects(was, is *document) error {
	same := slices.EqualFunc(was.resources, is.resources, func(a, b resource) bool { return a.Key == b.Key })
	if is.broken != nil || !same {
		return errors.New("the document cannot be written anew without losing something: move the object into a file of its own, without comments")
	}
	return nil
}

// resource parses the text of one document and returns one of the objects in it.
func (s *Store) resource(text []byte, item int, file string) (calico.Resource, *yaml.Node, *cluster.Problem) {
	tree, problem := parseTree(text, isJSON(file))
	if problem != nil {
		return calico.Resource{}, nil, problem
	}
	found, _ := calico.Resources(tree)
	return found[item], tree, nil
}

func isJSON(file string) bool { return filepath.Ext(file) == ".json" }

// remove takes an object out of its list, its document out of its file, or the file away.
func (s *Store) remove(file string, p *page, text []byte, at place, node, tree *yaml.Node) error {
	d := p.docs[at.doc]
	if len(d.resources) > 1 && dropItem(tree, node) {
		out, err := render(tree, isJSON(file))
		if err != nil {
			return err
		}
		return s.replace(file, p.stamp, splice(text, d.chunk, out))
	}
	rest := cut(text, p.docs, at.doc)
	if isJSON(file) || allBlank(rest) {
		return s.removeFile(file, p.stamp)
	}
	return s.replace(file, p.stamp, rest)
}

// dropItem removes a mapping from the list it is an item of.
func dropItem(tree, item *yaml.Node) bool {
	for i, n := range tree.Content {
		if n == item && tree.Kind == yaml.SequenceNode {
			tree.Content = slices.Delete(tree.Content, i, i+1)
			return true
		}
		if dropItem(n, item) {
			return true
		}
	}
	return false
}

// cut removes a document and one of the boundaries around it.
func cut(text []byte, docs []placed, i int) []byte {
	from, to := 0, len(text)
	if i > 0 {
		from, to = docs[i-1].end, docs[i].end
	} else if len(docs) > 1 {
		to = docs[1].start
		if docs[1].inline {
			to = docs[1].start - len("---")
		}
	}
	return slices.Concat(text[:from], text[to:])
}

func allBlank(text []byte) bool {
	for _, c := range split(text) {
		if !blank(text[c.start:c.end]) {
			return false
		}
	}
	return true
}

// splice puts another text in a document's place.
func splice(text []byte, c chunk, doc []byte) []byte {
	if c.inline {
		doc = slices.Concat([]byte("\n"), doc)
	}
	return slices.Concat(text[:c.start], doc, text[c.end:])
}

func render(tree *yaml.Node, asJSON bool) ([]byte, error) {
	if asJSON {
		return writeJSON(tree)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(tree), enc.Close()); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

// written returns an object that was just written, as everybody else will read it.
func (s *Store) written(file string, k datastore.Key) (calico.Object, error) {
	p, _, err := s.shelf.reload(file)
	if err != nil {
		return nil, err
	}
	return s.object(file, p, k)
}

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// fileMode is the mode of a new file: manifests are no secrets.
const fileMode os.FileMode = 0o644
