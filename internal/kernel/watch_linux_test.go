package kernel

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

// next takes events until one satisfies.
func next(t *testing.T, events <-chan Event, what string, enough func(Event) bool) []Event {
	t.Helper()
	var seen []Event
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("waiting for %s: the events ended", what)
			}
			if seen = append(seen, e); enough(e) {
				return seen
			}
		case <-deadline:
			t.Fatalf("waiting for %s: nothing came", what)
		}
	}
}

func ip(t *testing.T, ns netns.NS, args ...string) {
	t.Helper()
	if err := ns.Do(func() error { return exec.Command("ip", args...).Run() }); err != nil {
		t.Fatal(args, err)
	}
}

// TestLeavingABridge: the kernel tells of a port leaving a bridge with RTM_DELLINK of family AF_BRIDGE. The interface is still there.
func TestLeavingABridge(t *testing.T) {
	ns := need.Namespace(t)
	need.Tool(t, "ip", "iproute2")
	k, err := Open(Options{Namespace: ns.Path(), NoRouteEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	ip(t, ns, "link", "add", "br0", "type", "bridge")
	ip(t, ns, "link", "add", "w0", "type", "veth", "peer", "name", "w1")
	ip(t, ns, "link", "set", "w0", "master", "br0")
	events, err := k.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ip(t, ns, "link", "set", "w0", "nomaster")
	ip(t, ns, "link", "set", "w1", "mtu", "1400")
	left := false
	for _, e := range next(t, events, "the mark", func(e Event) bool { return e.Kind == EventLink && e.Link.Name == "w1" && e.Link.MTU == 1400 }) {
		if e.Kind == EventLink && e.Link.Name == "w0" {
			left = left || e.Link.Master == 0
			if e.Deleted {
				t.Error("the interface reads as deleted")
			}
		}
	}
	if !left {
		t.Error("nothing says that the interface left its bridge")
	}
}

func TestWithoutRouteEvents(t *testing.T) {
	r := newRig(t, 3, false)
	r.opts.NoRouteEvents = true
	events, err := r.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.ours()
	if err := r.SetLink(t.Context(), r.link, 1400, [6]byte{}, true); err != nil {
		t.Fatal(err)
	}
	for _, e := range next(t, events, "the mark", func(e Event) bool { return e.Kind == EventLink && e.Link.MTU == 1400 }) {
		if e.Kind == EventRoute {
			t.Errorf("route event %+v", e.Route)
		}
	}
}

func TestOtherTables(t *testing.T) {
	r := newRig(t, 1, false)
	events, err := r.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []uint32{100, 255, 70000} {
		other := *r.ops[0].Route
		other.Table = table
		err := r.WriteRoutes(t.Context(), []RouteOp{{Verb: Add, Route: &other}}, func(_ int, err error) { t.Error(table, err) })
		if err != nil {
			t.Fatal(err)
		}
	}
	r.ours()
	for _, e := range next(t, events, "the mark", func(e Event) bool {
		return e.Kind == EventRoute && e.Route.Table == TableMain && e.Route.Protocol == ProtoCaracal
	}) {
		if e.Kind == EventRoute && e.Route.Table != TableMain {
			t.Errorf("route of another table %+v", e.Route)
		}
	}
	n := 0
	if err := r.ListRoutes(t.Context(), false, func(*Route) bool { n++; return true }); err != nil || n != 2 {
		t.Errorf("%d routes listed, %v; want ours and the connected one", n, err)
	}
}

// TestSocketOpenedAgain breaks the event socket: a loss is told, and events go on.
func TestSocketOpenedAgain(t *testing.T) {
	r := newRig(t, 1, false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, err := r.linux.events()
	if err != nil {
		t.Fatal(err)
	}
	q := &backlog{ring: make(chan struct{}, 1)}
	out := make(chan Event)
	go r.drain(ctx, f, q)
	go deliver(ctx, q, out)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	next(t, out, "the loss", func(e Event) bool { return e.Kind == EventLost && errors.Is(e.Err, ErrOverflow) })
	r.ours()
	next(t, out, "a route", func(e Event) bool { return e.Kind == EventRoute && e.Route.Dst == r.ops[0].Route.Dst })
}

func TestBacklog(t *testing.T) {
	q := &backlog{ring: make(chan struct{}, 1)}
	one := msg(unix.RTM_NEWROUTE, 0, 1, 1, 2, 3) // needs padding
	q.put(one[:19])
	q.put(one)
	q.lose(ErrOverflow)
	q.lose(ErrOverflow)
	q.put(one)
	var got []int
	for {
		c, ok := q.take()
		if !ok {
			break
		}
		if c.lost != nil {
			got = append(got, -1)
			continue
		}
		n := 0
		for rest := c.data; len(rest) > 0; n++ {
			var err error
			if _, rest, err = nextMessage(rest); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, n)
		q.recycle(c.data)
	}
	if len(got) != 3 || got[0] != 2 || got[1] != -1 || got[2] != 1 || q.bytes != 0 {
		t.Errorf("chunks %v with %d bytes left, want 2 messages, a mark, 1 message, 0 bytes", got, q.bytes)
	}
}

// TestBacklogIsBounded: a consumer that never comes costs no more than the bound, and learns that it missed something.
func TestBacklogIsBounded(t *testing.T) {
	q := &backlog{ring: make(chan struct{}, 1)}
	big := make([]byte, readSize)
	for n := 0; n <= maxBacklog+chunkSize; n += len(big) {
		q.put(big)
		if q.bytes > maxBacklog {
			t.Fatalf("%d bytes wait, more than the bound", q.bytes)
		}
	}
	c, ok := q.take()
	if !ok || !errors.Is(c.lost, ErrOverflow) {
		t.Errorf("first comes %d bytes, %v; want the mark of a loss", len(c.data), c.lost)
	}
	if c, ok = q.take(); !ok || len(c.data) == 0 {
		t.Error("what came after the loss is not there")
	}
}
