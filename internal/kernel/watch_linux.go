package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of what waits between the socket and the consumer.
const (
	// maxBacklog bounds the messages, in bytes, that wait for a slow consumer; a route's takes about 110. Beyond it they are
	// thrown away and EventLost says so.
	maxBacklog = 64 << 20
	chunkSize  = 4 * readSize
	// reopenDelay spaces attempts to open the event socket again.
	reopenDelay = 100 * time.Millisecond
)

// chunk is a run of whole messages as they came, or a mark that messages were lost here.
type chunk struct {
	data []byte
	lost error
}

// backlog is the queue between the goroutine that empties the socket and the one that feeds the consumer.
// Messages wait in the kernel's form, a quarter of an Event's size, and are parsed when they are wanted.
type backlog struct {
	mu    sync.Mutex
	queue []chunk
	bytes int
	free  [][]byte
	ring  chan struct{} // size 1
}

func (q *backlog) wake() {
	select {
	case q.ring <- struct{}{}:
	default:
	}
}

// put queues messages; they are copied.
func (q *backlog) put(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.wake()
	if q.bytes+len(b) > maxBacklog {
		q.queue, q.bytes = q.queue[:0], 0
		q.queue = append(q.queue, chunk{lost: fmt.Errorf("%w: %d MiB of events waited for their consumer", ErrOverflow, maxBacklog>>20)})
	}
	last := len(q.queue) - 1
	if last < 0 || q.queue[last].lost != nil || len(q.queue[last].data)+align(len(b)) > cap(q.queue[last].data) {
		q.queue = append(q.queue, chunk{data: q.buffer(len(b))})
		last = len(q.queue) - 1
	}
	data := append(q.queue[last].data, b...)
	for len(data)%4 != 0 {
		data = append(data, 0)
	}
	q.bytes += len(data) - len(q.queue[last].data)
	q.queue[last].data = data
}

func (q *backlog) buffer(n int) []byte {
	if last := len(q.free) - 1; last >= 0 && cap(q.free[last]) >= align(n) {
		b := q.free[last]
		q.free = q.free[:last]
		return b[:0]
	}
	return make([]byte, 0, max(chunkSize, align(n)))
}

// lose marks a loss, once where nothing came in between.
func (q *backlog) lose(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if last := len(q.queue) - 1; last < 0 || q.queue[last].lost == nil {
		q.queue = append(q.queue, chunk{lost: err})
	}
	q.wake()
}

// take returns the oldest chunk.
func (q *backlog) take() (chunk, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return chunk{}, false
	}
	c := q.queue[0]
	q.queue = append(q.queue[:0], q.queue[1:]...)
	q.bytes -= len(c.data)
	return c, true
}

// recycle keeps a few buffers of parsed chunks.
func (q *backlog) recycle(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) < 4 && cap(b) == chunkSize {
		q.free = append(q.free, b)
	}
}

// Watch subscribes to links, addresses, routes, neighbours, nexthop objects and settings of interfaces. Two goroutines run until ctx ends or the handle is closed: one
// empties the socket, one parses and delivers.
func (k *linux) Watch(ctx context.Context) (<-chan Event, error) {
	f, err := k.events()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	q := &backlog{ring: make(chan struct{}, 1)}
	out := make(chan Event, 64)
	go func() {
		select {
		case <-k.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	go k.drain(ctx, f, q)
	go func() {
		defer cancel()
		defer close(out)
		deliver(ctx, q, out)
	}()
	return out, nil
}

// events opens a subscribed socket. Go's poller waits for it, so no thread is held while nothing happens.
func (k *linux) events() (*eventSocket, error) {
	groups := []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_NEXTHOP}
	if !k.opts.NoRouteEvents {
		groups = append(groups, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	}
	var mask uint32
	for _, g := range groups {
		mask |= 1 << (g - 1)
	}
	var s *socket
	if err := k.inside(func() (err error) { s, err = openSocket(mask); return err }); err != nil {
		return nil, err
	}
	setBuffer(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, k.opts.WatchBuffer)
	if err := unix.SetNonblock(s.fd, true); err != nil {
		s.close()
		return nil, classify(err)
	}
	if k.opts.MuteAdds {
		if err := k.muffler.add(s.fd); err != nil {
			k.muffler.remove(s.fd)
			s.close()
			return nil, err
		}
	}
	return &eventSocket{os.NewFile(uintptr(s.fd), "netlink events"), s.fd, &k.muffler}, nil
}

// eventSocket is a subscribed socket under its muffler.
type eventSocket struct {
	*os.File
	fd      int
	muffler *muffler
}

// Close takes the muffler off first: the number is free for another file afterwards.
func (s *eventSocket) Close() error {
	s.muffler.remove(s.fd)
	return s.File.Close()
}

// drain empties the socket into the backlog, and opens it again when it breaks.
func (k *linux) drain(ctx context.Context, f *eventSocket, q *backlog) {
	buf := make([]byte, readSize)
	for {
		stop := context.AfterFunc(ctx, func() { _ = f.Close() })
		err := readEvents(f.File, buf, q)
		stop()
		_ = f.Close()
		for {
			if ctx.Err() != nil {
				return
			}
			if f, err = k.reopen(ctx, err); err == nil {
				break
			}
		}
		q.lose(fmt.Errorf("%w: the event socket was opened again", ErrOverflow))
	}
}

func (k *linux) reopen(ctx context.Context, _ error) (*eventSocket, error) {
	select {
	case <-time.After(reopenDelay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return k.events()
}

// readEvents reads until the socket breaks. After ENOBUFS the kernel queues nothing until the socket has been emptied, so what still
// waits is older than the loss: the mark is set behind it. Were it set before, a consumer would re-read everything and
// then take the old events for news.
func readEvents(f *os.File, buf []byte, q *backlog) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var broken error
	lost := false
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := recv(int(fd), buf)
			switch {
			case err == nil:
				q.put(buf[:n])
			case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EMSGSIZE):
				lost = true
			case errors.Is(err, unix.EAGAIN):
				if lost {
					q.lose(FromErrno(unix.ENOBUFS))
					lost = false
				}
				return false
			default:
				broken = err
				return true
			}
		}
	})
	if err == nil {
		err = broken
	}
	return err
}

// deliver parses the backlog and feeds the consumer.
func deliver(ctx context.Context, q *backlog, out chan<- Event) {
	var p parser
	for {
		c, ok := q.take()
		if !ok {
			select {
			case <-q.ring:
				continue
			case <-ctx.Done():
				return
			}
		}
		if c.lost != nil {
			if !send(ctx, out, Event{Kind: EventLost, Err: c.lost}) {
				return
			}
			continue
		}
		for rest := c.data; len(rest) > 0; {
			var m message
			var err error
			if m, rest, err = nextMessage(rest); err != nil {
				if !send(ctx, out, Event{Kind: EventLost, Err: err}) {
					return
				}
				break
			}
			if e, ok := p.event(m); ok && !send(ctx, out, e) {
				return
			}
		}
		q.recycle(c.data)
	}
}

func send(ctx context.Context, out chan<- Event, e Event) bool {
	select {
	case out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// parser makes events of messages. Next hops are cut from slabs, for one allocation in slabHops routes.
type parser struct{ slab []NextHop }

const slabHops = 64

func (p *parser) event(m message) (Event, bool) {
	switch m.typ {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return p.route(m)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := parseLink(&unix.NlMsghdr{Type: m.typ, Flags: m.flags}, m.payload)
		return Event{Kind: EventLink, Deleted: m.typ == unix.RTM_DELLINK, Link: l}, ok
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok := parseAddress(m.payload)
		return Event{Kind: EventAddress, Deleted: m.typ == unix.RTM_DELADDR, Address: a}, ok
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, usable, ok := parseNeighbour(m.payload)
		return Event{Kind: EventNeighbour, Deleted: m.typ == unix.RTM_DELNEIGH || !usable, Neighbour: n}, ok
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		e := Event{Kind: EventNexthop, Deleted: m.typ == unix.RTM_DELNEXTHOP}
		return e, parseNexthop(m.payload, &e.Nexthop, nil)
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		c, ok := parseNetconf(m.payload)
		deleted := m.typ == unix.RTM_DELNETCONF
		return Event{Kind: EventSysctl, Deleted: deleted, Netconf: c}, ok
	case unix.NLMSG_OVERRUN:
		return Event{Kind: EventLost, Err: FromErrno(unix.ENOBUFS)}, true
	default:
		return Event{}, false
	}
}

func (p *parser) route(m message) (Event, bool) {
	if !ofMain(m.payload) {
		return Event{}, false
	}
	e := Event{Kind: EventRoute, Deleted: m.typ == unix.RTM_DELROUTE, Replaced: m.flags&unix.NLM_F_REPLACE != 0}
	if !parseRoute(m.payload, &e.Route, p.slab[:0]) || e.Route.Table != TableMain {
		return Event{}, false
	}
	n := len(e.Route.NextHops)
	if n <= cap(p.slab) {
		p.slab = p.slab[:cap(p.slab)][n:]
		e.Route.NextHops = e.Route.NextHops[:n:n]
	}
	if len(p.slab) == 0 {
		p.slab = make([]NextHop, 0, slabHops)
	}
	return e, true
}
