package kube

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/caracal-net/caracal/internal/calico"
)

// rawBuffer is the size of a stream's buffer in bytes: several blocks in use, of 6 kB each.
const rawBuffer = 64 << 10

// watchRaw opens a watch of a custom resource, whose events arrive as lines of JSON. client-go's own way reads each of them
// four times and makes a tree of maps of it, which for blocks, rewritten with every pod that comes or goes anywhere in the cluster, is most
// of what an idle daemon does.
func (f *feed) watchRaw(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	r := f.form.resource(f.kind)
	path := []string{"/apis", r.Group, r.Version, r.Resource}
	if r.Group == "" {
		path = []string{"/api", r.Version}
		if namespaced(f.kind) {
			path = append(path, "namespaces", f.s.opts.Namespace)
		}
		path = append(path, r.Resource)
	}
	body, err := f.s.plain.Get().AbsPath(path...).SetHeader("Accept", "application/json").
		SpecificallyVersionedParams(&opts, metav1.ParameterCodec, metav1.SchemeGroupVersion).Stream(ctx)
	if err != nil {
		return nil, err
	}
	s := &rawStream{body: body, out: make(chan watch.Event), stop: make(chan struct{}, 1)}
	go s.run(func(object []byte) (*item, error) { return f.form.readItem(f.kind, object) })
	return s, nil
}

// rawStream is a watch. Its goroutine ends when the server ends the stream or Stop is called.
type rawStream struct {
	body io.ReadCloser
	out  chan watch.Event
	stop chan struct{}
}

func (s *rawStream) run(convert func([]byte) (*item, error)) {
	defer close(s.out)
	defer s.body.Close() // a second time where Stop was first, which is no harm
	lines := bufio.NewReaderSize(s.body, rawBuffer)
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return // the end; half an event is none, the Reflector goes on from the last whole one
		}
		select {
		case s.out <- readEvent(line, convert):
		case <-s.stop:
			return
		}
		long = long[:0]
	}
}

// Stop implements watch.Interface.
func (s *rawStream) Stop() {
	select {
	case s.stop <- struct{}{}:
		s.body.Close()
	default:
	}
}

// ResultChan implements watch.Interface.
func (s *rawStream) ResultChan() <-chan watch.Event { return s.out }

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
