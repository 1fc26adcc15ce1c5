package kube

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/watch"
)

// streamBuffer is the size of a stream's buffer in bytes: several blocks in use, of 6 kB each.
const streamBuffer = 64 << 10

// mostFrame bounds one message, as client-go does: a length beyond it is not one.
const mostFrame = 16 << 20

// flushInterval is how long what a sieve keeps back is gathered before it is told.
const flushInterval = time.Second

// stream is a watch that is read here and not by client-go, whose own way decodes whatever comes. Its goroutine ends when the server ends
// the stream or Stop is called. A heartbeat of a node, or a pod that comes or goes in a block, ends in it: what changes nothing that is routed
// on wakes no other goroutine and is never decoded.
type stream struct {
	body   io.ReadCloser
	cancel func() // the request
	in     *bufio.Reader
	long   []byte // a message that is larger than the buffer
	out    chan watch.Event
	stop   chan struct{}
	done   chan struct{} // closed when the goroutine has ended

	read  func(message []byte) arrival
	sieve *sieve // nil: everything is passed on
	// pass tells the loop which versions were kept back; false when nobody listens any more.
	pass func([]passing) bool
	// settled: what comes is a change, not part of a list.
	settled bool
}

// newStream returns a stream that is to be run.
func newStream(body io.ReadCloser, cancel func(), read func([]byte) arrival) *stream {
	return &stream{body: body, cancel: cancel, in: bufio.NewReaderSize(body, streamBuffer), read: read,
		out: make(chan watch.Event), stop: make(chan struct{}, 1), done: make(chan struct{})}
}

func (s *stream) run() {
	defer close(s.done)
	defer close(s.out)
	defer s.cancel()
	defer s.body.Close() // a second time where Stop was first, which is no harm
	for {
		message, err := s.next()
		if err != nil {
			// The end. Half an event is none, the Reflector goes on from the last whole one.
			s.flush(false)
			return
		}
		e := s.read(message)
		if s.sieve != nil && s.settled && s.sieve.holds(&e) {
			if s.sieve.due(time.Now()) && !s.flush(true) {
				return
			}
			continue
		}
		if !s.flush(true) || !s.deliver(&e) { // in order, so that the Reflector never goes back
			return
		}
	}
}

// deliver passes an event on. The sieve learns of it only when it has arrived: one that did not will come again.
func (s *stream) deliver(e *arrival) bool {
	ev := e.whole()
	var i *item
	if s.sieve != nil {
		if i, _ = ev.Object.(*item); i != nil && ev.Type != watch.Bookmark {
			s.sieve.forget(i.Name)
		}
	}
	select {
	case s.out <- ev:
	case <-s.stop:
		return false
	}
	switch {
	case i == nil:
	case ev.Type == watch.Added, ev.Type == watch.Modified:
		s.sieve.learn(i.Name, e.sum)
	case ev.Type == watch.Bookmark && i.Annotations[initialEventsEnd] == "true":
		s.settled = true
	}
	return true
}

// flush tells the versions that were kept back: the loop first, which compares lists with them, then the Reflector, for which they are one
// bookmark.
func (s *stream) flush(open bool) bool {
	if s.sieve == nil || len(s.sieve.held) == 0 {
		return true
	}
	held, mark := s.sieve.take()
	if !s.pass(held) {
		return false
	}
	if !open {
		return true
	}
	select {
	case s.out <- watch.Event{Type: watch.Bookmark, Object: mark}:
		return true
	case <-s.stop:
		return false
	}
}

// next returns a message without its frame; it is valid until the next one. Of protobuf each has its length before it, in four bytes, so
// that the first is 0; of JSON each is a line, which starts with a bracket.
func (s *stream) next() ([]byte, error) {
	head, err := s.in.Peek(1)
	if err != nil {
		return nil, err
	}
	if head[0] != 0 {
		return s.line()
	}
	if head, err = s.in.Peek(4); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n > mostFrame {
		return nil, errors.New("a message of the watch is too long")
	}
	if _, err := s.in.Discard(4); err != nil {
		return nil, err
	}
	if n <= s.in.Size() {
		text, err := s.in.Peek(n)
		if err == nil {
			_, err = s.in.Discard(n) // text stays as it is until the next read
		}
		return text, err
	}
	s.long = append(s.long[:0], make([]byte, n)...)
	_, err = io.ReadFull(s.in, s.long)
	return s.long, err
}

func (s *stream) line() ([]byte, error) {
	line, err := s.in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	s.long = s.long[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		s.long = append(s.long, line...)
		line, err = s.in.ReadSlice('\n')
	}
	s.long = append(s.long, line...)
	return s.long, err
}

// Stop implements watch.Interface.
func (s *stream) Stop() {
	select {
	case s.stop <- struct{}{}:
		s.body.Close()
	default:
	}
}

// ResultChan implements watch.Interface.
func (s *stream) ResultChan() <-chan watch.Event { return s.out }
