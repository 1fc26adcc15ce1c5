package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// eventCases are about Watch.
func eventCases() []testCase {
	return []testCase{
		{"events of our own writes in order", eventOrder},
		{"events of an interface", eventsOfLink},
		{"events when an interface goes down", eventsOfDown},
		{"events are lost and go on", eventsLost},
		{"events of siblings", siblingEvents},
		{"a consumer that reads again after a loss is right", rightAfterLoss},
		{"a watch ends with its context", watchEnds},
	}
}

// story writes events as short words, route events of the given destinations only.
func (b *bench) story(events []kernel.Event) string {
	var words []string
	for _, e := range events {
		if e.Kind != kernel.EventRoute || e.Route.Protocol != kernel.ProtoCaracal {
			continue
		}
		word := "new"
		if e.Deleted {
			word = "gone"
		}
		words = append(words, word+" "+kernel.FormatRoute(&e.Route, func(i int) string {
			if i == b.w0 {
				return "w0"
			}
			return fmt.Sprint(i)
		}))
	}
	return strings.Join(words, "\n")
}

func eventOrder(b *bench) {
	take := b.watch()
	one, two, hole := b.ours(1, b.gw(1)), b.ours(1, b.gw(1), b.gw(2)), b.ours(2)
	hole.Type = kernel.Blackhole
	ops := []kernel.RouteOp{
		{Verb: kernel.Add, Route: one}, {Verb: kernel.Add, Route: one}, {Verb: kernel.Replace, Route: two}, {Verb: kernel.Add, Route: hole},
		{Verb: kernel.Replace, Route: one}, {Verb: kernel.Delete, Route: one}, {Verb: kernel.Delete, Route: hole},
	}
	b.must(b.Kernel.WriteRoutes(b.ctx, ops, func(i int, err error) {
		if i != 1 || !errors.Is(err, kernel.ErrExists) {
			b.Errorf("operation %d: %v", i, err)
		}
	}))
	events := take("the mark", b.mark(99))
	line := func(r *kernel.Route) string { return kernel.FormatRoute(r, func(int) string { return "w0" }) }
	want := strings.Join([]string{
		"new " + line(one), "new " + line(two), "new " + line(hole), "new " + line(one), "gone " + line(one), "gone " + line(hole),
	}, "\n")
	if got := b.story(events); got != want {
		b.Errorf("events\n%s\nwant\n%s", got, want)
	}
	var replaced []bool
	for _, e := range events {
		if e.Kind == kernel.EventRoute && e.Route.Protocol == kernel.ProtoCaracal {
			replaced = append(replaced, e.Replaced)
		}
	}
	if want := []bool{false, true, false, true, false, false}; !slices.Equal(replaced, want) {
		b.Errorf("events marked as replacing: %v, want %v", replaced, want)
	}
}

func eventsOfLink(b *bench) {
	take := b.watch()
	w1 := b.Wire("w1")
	take("the link comes", func(e kernel.Event) bool {
		return e.Kind == kernel.EventLink && e.Link.Index == w1 && e.Link.Name == "w1" && e.Link.Up && e.Link.Running
	})
	address := kernel.Address{Link: w1, Prefix: b.net(1)}
	b.address(w1, address.Prefix)
	connected := address.Prefix.Masked()
	// Which of the two comes first differs by family.
	got := map[kernel.EventKind]bool{}
	take("the address and its route come", func(e kernel.Event) bool {
		if e.Kind == kernel.EventAddress && e.Address == address || e.Kind == kernel.EventRoute && e.Route.Dst == connected {
			got[e.Kind] = true
		}
		return len(got) == 2
	})
	b.must(b.Kernel.DeleteAddress(b.ctx, address))
	take("the address goes", func(e kernel.Event) bool { return e.Kind == kernel.EventAddress && e.Deleted && e.Address == address })
	b.must(b.Kernel.SetLink(b.ctx, w1, 1400, [6]byte{}, true))
	take("the MTU changes", func(e kernel.Event) bool {
		return e.Kind == kernel.EventLink && e.Link.Index == w1 && e.Link.MTU == 1400
	})
	b.must(b.Kernel.DeleteLink(b.ctx, w1))
	take("the link goes", func(e kernel.Event) bool { return e.Kind == kernel.EventLink && e.Deleted && e.Link.Index == w1 })
}

// eventsOfDown: IPv6 tells of each route that goes, IPv4 of none. The link's event comes first.
func eventsOfDown(b *bench) {
	r := b.ours(1, b.gw(1))
	b.must(b.write(kernel.Add, r))
	take := b.watch()
	b.set(b.w0, false)
	events := take("the mark", b.mark(99))
	down, gone := -1, -1
	for i, e := range events {
		switch {
		case e.Kind == kernel.EventLink && e.Link.Index == b.w0 && !e.Link.Up && down < 0:
			down = i
		case e.Kind == kernel.EventRoute && e.Deleted && e.Route.Dst == r.Dst:
			gone = i
		}
	}
	if down < 0 || (gone >= 0) != b.v6 || gone >= 0 && gone < down {
		b.Errorf("link down is event %d, route gone is event %d (-1 = none); want the route's only in IPv6, after the link's", down, gone)
	}
}

func eventsLost(b *bench) {
	events, err := b.LossyWatch(b.ctx)
	b.must(err)
	take := b.taker(events)
	lost := make(chan struct{})
	stopped := make(chan error, 1)
	go func() {
		var err error
		for round := 0; err == nil && round < 1000; round++ {
			select {
			case <-lost:
				stopped <- nil
				return
			default:
				err = errors.Join(b.storm(kernel.Add, 3000, 1), b.storm(kernel.Delete, 3000, 1))
			}
		}
		stopped <- err
	}()
	seen := take("the mark of the loss", func(e kernel.Event) bool { return e.Kind == kernel.EventLost })
	close(lost)
	if e := seen[len(seen)-1]; !errors.Is(e.Err, kernel.ErrOverflow) {
		b.Errorf("EventLost says %v, want %v", e.Err, kernel.ErrOverflow)
	}
	b.must(<-stopped)
	// It goes on: what is written once all has been read is seen.
	n := 5000
	b.eventually("an event after the loss", func() bool {
		n++
		r := b.ours(n, b.gw(1))
		b.must(b.write(kernel.Add, r))
		for {
			select {
			case e := <-events:
				if e.Kind == kernel.EventRoute && e.Route.Dst == r.Dst {
					return true
				}
			case <-time.After(50 * time.Millisecond):
				return false
			}
		}
	})
}

// siblingEvents: IPv6 tells of a next hop that goes with a deletion of just that hop, and of one that comes with the whole route. IPv4
// routes are told of as a whole.
func siblingEvents(b *bench) {
	take := b.watch()
	b.must(b.write(kernel.Add, b.ours(1, b.gw(1), b.gw(2))))
	b.must(b.Append(b.ours(1, b.gw(3))))
	b.must(b.write(kernel.Delete, b.ours(1, b.gw(2))))
	var got []string
	for _, e := range take("the mark", b.mark(99)) {
		if e.Kind != kernel.EventRoute || e.Route.Protocol != kernel.ProtoCaracal {
			continue
		}
		word := map[bool]string{false: "new", true: "gone"}[e.Deleted]
		for _, h := range e.Route.NextHops {
			word += fmt.Sprint(" ", int(last(h.Gateway))-10)
		}
		got = append(got, word)
	}
	// The order inside one event is the kernel's affair: it puts the new one first.
	if !b.v6 {
		if want := []string{"new 1 2", "new 3", "gone 1 2"}; !slices.Equal(got, want) {
			b.Errorf("events %q, want %q", got, want)
		}
		return
	}
	if len(got) != 3 || got[0] != "new 1 2" || len(got[1]) != len("new 1 2 3") || got[2] != "gone 2" {
		b.Errorf("events %q, want the two, then all three, then the second gone", got)
	}
}

// rightAfterLoss follows a table by its events while it changes faster than the events are kept, reads it again at
// each loss, and must have it right in the end. A mark that stood before events older than the loss would show here.
func rightAfterLoss(b *bench) {
	events, err := b.LossyWatch(b.ctx)
	b.must(err)
	const n = 700
	end := b.ours(n+1, b.gw(1))
	var lost atomic.Int32
	done := make(chan error, 1)
	go func() {
		var err error
		for round := 0; err == nil && round < 4 || lost.Load() == 0 && round < 1000; round++ {
			err = errors.Join(b.storm(kernel.Add, n, 1), b.storm(kernel.Delete, n, 1))
		}
		done <- errors.Join(err, b.storm(kernel.Add, n, 1), b.storm(kernel.Delete, n, 3))
	}()
	table := map[netip.Prefix]bool{}
	finished, tick := false, time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		select {
		case err := <-done:
			b.must(err)
			finished = true
		case <-tick.C:
			if finished { // ask again and again for a last event: it may be lost too
				_ = b.write(kernel.Delete, end)
				b.must(b.write(kernel.Add, end))
			}
		case <-deadline:
			b.Fatalf("no end within %v", patience)
		case e := <-events:
			if e.Kind == kernel.EventLost {
				lost.Add(1)
				clear(table)
				for _, r := range b.list() {
					table[r.Dst] = true
				}
			}
			if e.Kind != kernel.EventRoute || e.Route.Protocol != kernel.ProtoCaracal {
				continue
			}
			if finished && e.Route.Dst == end.Dst && !e.Deleted {
				b.compare(table, end.Dst)
				if lost.Load() == 0 {
					b.Error("nothing was lost, so nothing was tested")
				}
				return
			}
			if table[e.Route.Dst] = true; e.Deleted {
				delete(table, e.Route.Dst)
			}
		}
	}
}

// storm does the same with every step-th of n routes at once.
func (b *bench) storm(verb kernel.Verb, n, step int) error {
	var ops []kernel.RouteOp
	for i := 0; i < n; i += step {
		ops = append(ops, kernel.RouteOp{Verb: verb, Route: b.ours(i, b.gw(1))})
	}
	var first error
	err := b.Kernel.WriteRoutes(b.ctx, ops, func(_ int, err error) { first = err })
	return errors.Join(err, first)
}

func (b *bench) compare(table map[netip.Prefix]bool, but netip.Prefix) {
	b.Helper()
	actual := map[netip.Prefix]bool{}
	for _, r := range b.list() {
		actual[r.Dst] = true
	}
	delete(actual, but)
	delete(table, but)
	if !maps.Equal(table, actual) {
		b.Errorf("followed by events there are %d routes, in truth %d", len(table), len(actual))
	}
}

func watchEnds(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	events, err := b.Kernel.Watch(ctx)
	b.must(err)
	other := b.watch()
	cancel()
	b.eventually("the channel is closed", func() bool {
		select {
		case _, open := <-events:
			return !open
		default:
			return false
		}
	})
	other("the other watch", b.mark(99))
}

// lookupCases are about asking the kernel.
func lookupCases() []testCase {
	return []testCase{{"lookup", lookups}}
}

func lookups(b *bench) {
	inside := func(p netip.Prefix) netip.Addr { return p.Addr().Next() }
	r, hole, multi := b.ours(1, b.gw(1)), b.ours(2), b.ours(3, b.gw(1), b.gw(2))
	hole.Type = kernel.Blackhole
	wide := b.ours(4, b.gw(4))
	wide.Dst, _ = b.dst(1).Addr().Prefix(map[bool]int{true: 16, false: 8}[b.v6])
	for _, x := range []*kernel.Route{r, hole, multi, wide} {
		b.must(b.write(kernel.Add, x))
	}
	ask := func(dst netip.Addr) kernel.Answer {
		a, err := b.Kernel.Lookup(b.ctx, dst)
		b.must(err)
		return a
	}
	// IPv6 makes the local route in the background, even without duplicate address detection.
	b.eventually("our own address is local", func() bool {
		a := ask(b.self.Addr())
		return a.Match.Type == kernel.Local && a.Src == b.self.Addr()
	})
	a := ask(inside(r.Dst))
	if a.Match.Dst != r.Dst || a.Match.Protocol != kernel.ProtoCaracal || a.Match.Metric != 1024 || a.Chosen.Gateway != b.gw(1) ||
		a.Chosen.Link != b.w0 || a.Src != b.self.Addr() {
		b.Errorf("answer %+v, want the narrower route by the first gateway from %s", a, b.self.Addr())
	}
	if want := fmt.Sprintf("%s via %s dev w0 src %s", inside(r.Dst), b.gw(1), b.self.Addr()); a.Text != want {
		b.Errorf("text %q, want %q", a.Text, want)
	}
	if a := ask(inside(b.dst(200))); a.Match.Dst != wide.Dst {
		b.Errorf("answer %+v, want the wider route", a)
	}
	if a := ask(inside(hole.Dst)); a.Match.Dst != hole.Dst || a.Match.Type != kernel.Blackhole || a.Text != fmt.Sprintf("blackhole %s", inside(hole.Dst)) {
		b.Errorf("answer %+v, want the blackhole", a)
	}
	if a := ask(inside(multi.Dst)); len(a.Match.NextHops) != 2 || a.Chosen.Gateway != b.gw(1) && a.Chosen.Gateway != b.gw(2) {
		b.Errorf("answer %+v, want one of two gateways", a)
	}
	_, err := b.Kernel.Lookup(b.ctx, b.far())
	b.wantErr(err, kernel.ErrUnreachable)
	_, err = b.Kernel.Lookup(b.ctx, netip.Addr{})
	b.wantErr(err, kernel.ErrInvalid)
}
