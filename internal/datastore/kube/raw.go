package kube

import (
	"context"
	"hash/maphash"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/caracal-net/caracal/internal/calico"
)

// watchRaw opens a watch that is read by a stream. client-go's own way reads each event of a custom resource four times and makes a tree of
// maps of it, which for blocks, rewritten with every pod that comes or goes anywhere in the cluster, is most of what an idle daemon does.
func (f *feed) watchRaw(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	list := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	if f.stream != nil { // there is one at a time: the sieve is the goroutine's that reads
		f.stream.Stop()
		<-f.stream.done
	}
	client, accept := f.s.plain, "application/json"
	if busy(f.kind) {
		client = f.s.single
	}
	if f.kind == calico.KindNode {
		accept = acceptMetadata
	}
	request, cancel := bounded(ctx, opts.TimeoutSeconds)
	body, err := client.Get().AbsPath(f.path()...).SetHeader("Accept", accept).
		SpecificallyVersionedParams(&opts, metav1.ParameterCodec, metav1.SchemeGroupVersion).Stream(request)
	if err != nil {
		cancel()
		return nil, err
	}
	if f.sieve == nil || list {
		f.sieve = newSieve()
	}
	s := newStream(body, cancel, f.form.reader(f.kind, f.sieve.seed))
	if busy(f.kind) {
		s.sieve, s.settled = f.sieve, !list
		s.pass = func(held []passing) bool { return f.send(ctx, note{what: passed, passed: held}) }
	}
	f.stream = s
	go s.run()
	return s, nil
}

// overdue is how much longer than it was asked for a watch may last.
const overdue = 30 * time.Second

// bounded ends a watch that the server does not end when it should: one that hangs with its connections open is found out at last.
func bounded(ctx context.Context, seconds *int64) (context.Context, context.CancelFunc) {
	if seconds == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(*seconds)*time.Second+overdue)
}

// acceptMetadata asks for the metadata of objects, in protobuf where the server can.
const acceptMetadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1," +
	"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// busy reports whether objects of a kind change all the time in things that nobody routes on.
func busy(kind calico.Kind) bool { return kind == calico.KindNode || kind == calico.KindIPAMBlock }

// path is where the objects of the kind are.
func (f *feed) path() []string {
	r := f.form.resource(f.kind)
	if r.Group != "" {
		return []string{"/apis", r.Group, r.Version, r.Resource}
	}
	path := []string{"/api", r.Version}
	if namespaced(f.kind) {
		path = append(path, "namespaces", f.s.opts.Namespace)
	}
	return append(path, r.Resource)
}

// reader returns what reads the messages of a watch of a kind. It belongs to one goroutine.
func (f form) reader(kind calico.Kind, seed maphash.Seed) func(message []byte) arrival {
	whole := func(line []byte) watch.Event {
		return readEvent(line, func(object []byte) (*item, error) { return f.readItem(kind, object) })
	}
	switch kind {
	case calico.KindNode:
		n := &nodeSkimmer{}
		n.sum.SetSeed(seed)
		return n.read
	case calico.KindIPAMBlock:
		b := &blockSkimmer{}
		b.sum.SetSeed(seed)
		return func(line []byte) arrival {
			e := b.skim(line)
			e.whole = func() watch.Event { return whole(line) }
			return e
		}
	}
	return func(line []byte) arrival {
		return arrival{whole: func() watch.Event { return whole(line) }}
	}
}

// readEvent reads a line of a watch. What cannot be read is an error of the stream, which makes the Reflector list again.
func readEvent(line []byte, convert func([]byte) (*item, error)) watch.Event {
	var typ string
	var object []byte
	scan := scanner{text: line}
	err := scan.object(func(key string) {
		switch key {
		case "type":
			typ = strings.Clone(scan.str())
		case "object":
			object = scan.raw()
		default:
			scan.skip()
		}
	})
	if err != nil || object == nil {
		return unreadable("the API server sent an event that is none")
	}
	switch watch.EventType(typ) {
	case watch.Error:
		st := &metav1.Status{}
		if err := kjson.Unmarshal(object, st); err != nil {
			return unreadable(err.Error())
		}
		return watch.Event{Type: watch.Error, Object: st}
	case watch.Bookmark:
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(object); err != nil {
			return unreadable(err.Error())
		}
		return watch.Event{Type: watch.Bookmark, Object: &item{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: u.GetResourceVersion(), Annotations: u.GetAnnotations()}}}
	}
	i, err := convert(object)
	if err != nil {
		return unreadable(err.Error())
	}
	return watch.Event{Type: watch.EventType(typ), Object: i}
}

func unreadable(why string) watch.Event {
	return watch.Event{Type: watch.Error, Object: &metav1.Status{Status: metav1.StatusFailure, Code: 500,
		Reason: metav1.StatusReasonInternalError, Message: why}}
}

// readItem makes an item of the text of an object.
func (f form) readItem(kind calico.Kind, text []byte) (*item, error) {
	if kind == calico.KindIPAMBlock {
		if i, ok := readBlock(text); ok {
			return i, nil
		}
	}
	if kind == calico.KindBlockAffinity {
		if i, ok := readAffinity(text); ok {
			return i, nil
		}
	}
	if calico.WatchedOnly(kind) {
		if i, ok := readDirect(kind, text); ok {
			return i, nil
		}
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	return f.toItem(kind, u)
}
