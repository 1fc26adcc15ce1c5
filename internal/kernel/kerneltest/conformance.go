package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Machine is a kernel under test with what other programs do on the same machine.
type Machine struct {
	Kernel kernel.Kernel
	// Wire makes an interface with carrier and sets it up.
	Wire func(name string) int
	// SetCarrier plugs or unplugs the other end of a Wire.
	SetCarrier func(index int, on bool)
	// Append does "ip route append".
	Append func(r *kernel.Route) error
	// LossyWatch is a Watch that loses events when many routes are written at once.
	LossyWatch func(ctx context.Context) (<-chan kernel.Event, error)
}

// FakeMachine wraps a Fake for the conformance suite.
func FakeMachine(f *Fake) *Machine {
	return &Machine{
		Kernel: f, Wire: f.Wire, SetCarrier: f.SetCarrier, Append: f.Append,
		LossyWatch: func(ctx context.Context) (<-chan kernel.Event, error) {
			events, err := f.Watch(ctx)
			f.Inject(Fault{Kind: EventsLost, Nth: 10, Times: 100})
			return events, err
		},
	}
}

// Conformance says what Caracal relies on a kernel to do. The Fake and Linux both pass it; each case gets a machine of its own.
func Conformance(t *testing.T, open func(t *testing.T) *Machine) {
	for _, v6 := range []bool{false, true} {
		name := "v4"
		if v6 {
			name = "v6"
		}
		t.Run(name, func(t *testing.T) {
			for _, c := range slices.Concat(routeCases(), deviceCases(), eventCases(), lookupCases(), nexthopCases(), viaCases()) {
				t.Run(c.name, func(t *testing.T) { c.run(newBench(t, open(t), v6)) })
			}
			t.Run("verbs", func(t *testing.T) { verbs(t, open, v6) })
		})
	}
	for _, c := range slices.Concat(linkCases(), addressCases(), neighbourCases(), sysctlCases()) {
		t.Run(c.name, func(t *testing.T) { c.run(newBench(t, open(t), false)) })
	}
}

// ConformanceIPIP is the part that needs IPIP devices.
func ConformanceIPIP(t *testing.T, open func(t *testing.T) *Machine) {
	for _, c := range ipipCases() {
		t.Run(c.name, func(t *testing.T) { c.run(newBench(t, open(t), false)) })
	}
}

// testCase is one thing a kernel does.
type testCase struct {
	name string
	run  func(b *bench)
}

// bench is a machine with one wire, w0, that has an address of the family under test.
type bench struct {
	*testing.T
	*Machine
	v6   bool
	ctx  context.Context
	w0   int
	self netip.Prefix
}

func newBench(t *testing.T, m *Machine, v6 bool) *bench {
	b := &bench{T: t, Machine: m, v6: v6, ctx: t.Context()}
	b.w0 = b.Wire("w0")
	b.self = b.net(0)
	b.address(b.w0, b.self)
	return b
}

// net is the n-th wire's address: 192.0.2.1/24, 192.0.3.1/24...
func (b *bench) net(n byte) netip.Prefix {
	if b.v6 {
		return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::1/64", n))
	}
	return netip.MustParsePrefix(fmt.Sprintf("192.0.%d.1/24", 2+n))
}

// gw is the n-th gateway on w0.
func (b *bench) gw(n int) netip.Addr { return b.gwOn(0, n) }

func (b *bench) gwOn(wire byte, n int) netip.Addr {
	a := b.net(wire).Addr()
	raw := a.AsSlice()
	raw[len(raw)-1] = byte(10 + n)
	a, _ = netip.AddrFromSlice(raw)
	return a
}

// far is a gateway on no link.
func (b *bench) far() netip.Addr {
	if b.v6 {
		return netip.MustParseAddr("2001:db8:ffff::7")
	}
	return netip.MustParseAddr("203.0.113.7")
}

// dst is the n-th destination.
func (b *bench) dst(n int) netip.Prefix {
	if b.v6 {
		return netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/64", n))
	}
	return netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/26", n>>8, n&255))
}

// ours is a route of ours through w0.
func (b *bench) ours(n int, gateways ...netip.Addr) *kernel.Route {
	r := &kernel.Route{Dst: b.dst(n), Metric: 1024, Type: kernel.Unicast, Protocol: kernel.ProtoCaracal}
	for _, gw := range gateways {
		r.NextHops = append(r.NextHops, kernel.NextHop{Gateway: gw, Link: b.w0})
	}
	return r
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantErr(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("got error %v, want %v", err, want)
	}
}

func (b *bench) address(link int, p netip.Prefix) {
	b.Helper()
	b.must(b.Kernel.AddAddress(b.ctx, kernel.Address{Link: link, Prefix: p}))
}

// write does one operation and returns its error.
func (b *bench) write(verb kernel.Verb, r *kernel.Route) error {
	b.Helper()
	var failure error
	err := b.Kernel.WriteRoutes(b.ctx, []kernel.RouteOp{{Verb: verb, Route: r}}, func(i int, err error) {
		if i != 0 || failure != nil {
			b.Errorf("failure reported for operation %d, again or of a batch of one", i)
		}
		failure = err
	})
	b.must(err)
	return failure
}

// list returns the routes of the family, but those of the kernel.
func (b *bench) list() []kernel.Route {
	b.Helper()
	var all []kernel.Route
	b.must(b.Kernel.ListRoutes(b.ctx, b.v6, func(r *kernel.Route) bool {
		if r.Protocol != kernel.ProtoKernel {
			c := *r
			c.NextHops = slices.Clone(r.NextHops)
			all = append(all, c)
		}
		return true
	}))
	return all
}

// text is the routes as ip(8) would print them, one a line.
func (b *bench) text() string {
	b.Helper()
	var lines []string
	for _, r := range b.list() {
		lines = append(lines, kernel.FormatRoute(&r, b.linkName))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (b *bench) wantText(lines ...string) {
	b.Helper()
	slices.Sort(lines)
	want := strings.Join(lines, "\n")
	if got := b.text(); got != want {
		b.Errorf("routes are\n%s\nwant\n%s", got, want)
	}
}

func (b *bench) linkName(index int) string {
	links, err := b.Kernel.ListLinks(b.ctx)
	b.must(err)
	for _, l := range links {
		if l.Index == index {
			return l.Name
		}
	}
	return "if" + strconv.Itoa(index)
}

func (b *bench) link(index int) *kernel.Link {
	b.Helper()
	links, err := b.Kernel.ListLinks(b.ctx)
	b.must(err)
	for i := range links {
		if links[i].Index == index {
			return &links[i]
		}
	}
	return nil
}

func (b *bench) set(link int, up bool) {
	b.Helper()
	b.must(b.Kernel.SetLink(b.ctx, link, 0, [6]byte{}, up))
}

// patience bounds what the kernel does by itself in a while: carrier, events.
const patience = 10 * time.Second

// eventually asks until the answer is yes.
func (b *bench) eventually(what string, yes func() bool) {
	b.Helper()
	for deadline := time.Now().Add(patience); !yes(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// watch subscribes and returns a function that takes events until one of them satisfies.
func (b *bench) watch() func(what string, enough func(kernel.Event) bool) []kernel.Event {
	b.Helper()
	events, err := b.Kernel.Watch(b.ctx)
	b.must(err)
	return b.taker(events)
}

func (b *bench) taker(events <-chan kernel.Event) func(string, func(kernel.Event) bool) []kernel.Event {
	return func(what string, enough func(kernel.Event) bool) []kernel.Event {
		b.Helper()
		var seen []kernel.Event
		deadline := time.After(patience)
		for {
			select {
			case e, open := <-events:
				if !open {
					b.Fatalf("waiting for %s: the events ended", what)
				}
				seen = append(seen, e)
				if enough(e) {
					return seen
				}
			case <-deadline:
				b.Fatalf("waiting for %s: not within %v, saw %d other events", what, patience, len(seen))
			}
		}
	}
}

// mark writes a route that ends a sequence of events.
func (b *bench) mark(n int) func(kernel.Event) bool {
	b.Helper()
	r := &kernel.Route{Dst: b.dst(n), Metric: 7, Type: kernel.Blackhole, Protocol: kernel.ProtoStatic}
	b.must(b.write(kernel.Add, r))
	return func(e kernel.Event) bool {
		return e.Kind == kernel.EventRoute && e.Route.Dst == r.Dst && e.Route.Metric == 7
	}
}
