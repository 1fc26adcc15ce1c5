package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/maphash"
	"strings"
	"unsafe"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/caracal-net/caracal/internal/calico"
)

// The fields of the messages a watch of Nodes' metadata consists of (k8s.io/apimachinery: apis/meta/v1/generated.proto, runtime/generated.proto).
const (
	eventType, eventObject   = 1, 2 // WatchEvent
	extensionRaw             = 1    // RawExtension
	unknownRaw               = 2    // Unknown
	partialMeta              = 1    // PartialObjectMetadata
	metaName, metaUID        = 1, 5 // ObjectMeta
	metaVersion              = 6
	metaLabels, metaAnnotate = 11, 12
	entryKey                 = 1 // an entry of a map
)

// objectPrefix is before every object in protobuf (k8s.io/apimachinery: runtime/serializer/protobuf).
const objectPrefix = "k8s\x00"

// fields calls f with the fields of a message that have a length; it reports whether the message is one.
func fields(message []byte, f func(number protowire.Number, value []byte)) bool {
	for len(message) > 0 {
		number, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, message); n < 0 {
				return false
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		f(number, value)
	}
	return true
}

// envelope returns the type and the object of an event, without their wrapping.
func envelope(message []byte) (typ watch.EventType, object []byte, ok bool) {
	ok = true
	whole := fields(message, func(number protowire.Number, value []byte) {
		switch number {
		case eventType:
			typ = watch.EventType(value) // a copy
		case eventObject:
			ok = fields(value, func(number protowire.Number, raw []byte) {
				if number != extensionRaw {
					return
				}
				inner, prefixed := bytes.CutPrefix(raw, []byte(objectPrefix))
				ok = prefixed && fields(inner, func(number protowire.Number, value []byte) {
					if number == unknownRaw {
						object = value
					}
				})
			}) && ok
		}
	})
	return typ, object, whole && ok && object != nil
}

// nodeSkimmer reads the events of Nodes' metadata as far as tells whether they matter.
type nodeSkimmer struct{ sum maphash.Hash }

// read takes a message as a server sends it that knows protobuf, or JSON from one that does not.
func (n *nodeSkimmer) read(message []byte) arrival {
	if bytes.HasPrefix(message, []byte("{")) {
		return arrival{whole: func() watch.Event { return readEvent(message, readNodeJSON) }}
	}
	e := n.skim(message)
	e.whole = func() watch.Event { return readNodeEvent(message) }
	return e
}

func (n *nodeSkimmer) skim(message []byte) (e arrival) {
	typ, object, ok := envelope(message)
	if !ok {
		return e
	}
	e.typ = typ
	n.sum.Reset()
	ok = fields(object, func(number protowire.Number, meta []byte) {
		if number == partialMeta {
			ok = fields(meta, func(number protowire.Number, value []byte) { n.meta(number, value, &e) }) && ok
		}
	}) && ok
	if ok && e.name != "" {
		e.sum = n.sum.Sum64()
	}
	return e
}

// meta hashes what a node's word is made of: labels, and the annotations that are Calico's or ours.
func (n *nodeSkimmer) meta(number protowire.Number, value []byte, e *arrival) {
	switch number {
	case metaName:
		e.name = view(value)
	case metaVersion:
		e.version = view(value)
	case metaAnnotate:
		if !counts(value) {
			return
		}
		fallthrough
	case metaUID, metaLabels:
		maphash.WriteComparable(&n.sum, number)
		hashText(&n.sum, view(value))
	}
}

// counts reports whether an entry of annotations is Calico's or ours, or no entry.
func counts(entry []byte) bool {
	is := false
	whole := fields(entry, func(number protowire.Number, value []byte) {
		if number == entryKey {
			is = strings.HasPrefix(view(value), domain) || view(value) == calico.AnnotationLeaving
		}
	})
	return is || !whole
}

// view is a text that lies in a message.
func view(text []byte) string { return unsafe.String(unsafe.SliceData(text), len(text)) }

// readNodeEvent reads the whole of an event. What cannot be read is an error of the stream, which makes the Reflector list again.
func readNodeEvent(message []byte) watch.Event {
	typ, object, ok := envelope(message)
	if !ok {
		return unreadable("the API server sent an event of a Node that is none")
	}
	if typ == watch.Error {
		st := &metav1.Status{}
		if err := st.Unmarshal(object); err != nil {
			return unreadable(err.Error())
		}
		return watch.Event{Type: watch.Error, Object: st}
	}
	o := &metav1.PartialObjectMetadata{}
	if err := o.Unmarshal(object); err != nil {
		return unreadable(err.Error())
	}
	if typ == watch.Bookmark {
		return watch.Event{Type: typ, Object: &item{ObjectMeta: metav1.ObjectMeta{ResourceVersion: o.ResourceVersion, Annotations: o.Annotations}}}
	}
	i, err := nodeItem(o)
	if err != nil {
		return unreadable(err.Error())
	}
	return watch.Event{Type: typ, Object: i}
}

// readNodeJSON makes an item of a Node's metadata, or of a whole Node.
func readNodeJSON(text []byte) (*item, error) {
	o := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(text, o); err != nil {
		return nil, err
	}
	return nodeItem(o)
}

func nodeItem(o *metav1.PartialObjectMetadata) (*item, error) {
	if o.Name == "" {
		return nil, errors.New("a Node has no name")
	}
	i := &item{ObjectMeta: brief(&o.ObjectMeta)}
	i.word, i.problems = nodeWord(&o.ObjectMeta)
	return i, nil
}
