package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/test/need"
)

// benchRoutes is the scale that the project promises (issue 2): a cold table of 100,000 routes.
const benchRoutes = 100_000

// rig is a namespace with one interface, for benchmarks.
type rig struct {
	testing.TB
	path string
	*linux
	link int
	gw   netip.Addr
	ops  []RouteOp
}

func newRig(b testing.TB, n int, v6 bool) *rig {
	ns := need.Namespace(b)
	need.Tool(b, "ip", "iproute2")
	for _, args := range [][]string{
		{"link", "add", "w0", "up", "type", "veth", "peer", "name", "w1"}, {"link", "set", "w1", "up"},
		{"addr", "add", "192.0.2.1/24", "dev", "w0"}, {"addr", "add", "2001:db8::1/64", "dev", "w0", "nodad"},
	} {
		if err := ns.Do(func() error { return exec.Command("ip", args...).Run() }); err != nil {
			b.Fatal(err)
		}
	}
	k, err := Open(Options{Namespace: ns.Path()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = k.Close() })
	r := &rig{TB: b, path: ns.Path(), linux: k.(*linux), gw: netip.MustParseAddr("192.0.2.9")}
	if v6 {
		r.gw = netip.MustParseAddr("2001:db8::9")
	}
	w0, err := r.handle.LinkByName("w0")
	if err != nil {
		b.Fatal(err)
	}
	r.link = w0.Attrs().Index
	r.ops = make([]RouteOp, n)
	for i := range r.ops {
		r.ops[i] = RouteOp{Verb: Add, Route: &Route{Dst: r.dst(i), Metric: 1024, Type: Unicast, Protocol: ProtoCaracal,
			NextHops: []NextHop{{Gateway: r.gw, Link: r.link}}}}
	}
	return r
}

// byObject makes every route refer to one nexthop object.
func (r *rig) byObject() {
	n := &Nexthop{ID: 1, Protocol: ProtoCaracal, V6: r.gw.Is6(), Gateway: r.gw, Link: r.link}
	err := r.WriteNexthops(context.Background(), []NexthopOp{{Add, n}}, func(_ int, err error) {
		if !errors.Is(err, ErrExists) {
			r.Error(err)
		}
	})
	if err != nil {
		r.Fatal(err)
	}
	for i := range r.ops {
		r.ops[i].Route.NexthopID, r.ops[i].Route.NextHops = n.ID, nil
	}
}

// dst is the i-th block of 64 addresses (a /26) or its IPv6 counterpart (a /122).
func (r *rig) dst(i int) netip.Prefix {
	if r.gw.Is6() {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 12: byte(i >> 18), 13: byte(i >> 10), 14: byte(i >> 2), 15: byte(i << 6)}), 122)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(i>>18), byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

// empty removes what was written, by keys and protocol, whatever it leads to.
func (r *rig) empty() {
	r.Helper()
	ops := make([]RouteOp, len(r.ops))
	for i := range ops {
		ops[i] = RouteOp{Verb: Delete, Route: &Route{Dst: r.ops[i].Route.Dst, Metric: 1024, Protocol: ProtoCaracal}}
	}
	if err := r.WriteRoutes(context.Background(), ops, func(_ int, err error) { r.Error(err) }); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) timed(write func()) time.Duration {
	start := time.Now()
	write()
	d := time.Since(start)
	r.empty()
	return d
}

func (r *rig) ours() {
	if err := r.WriteRoutes(context.Background(), r.ops, func(_ int, err error) { r.Error(err) }); err != nil {
		r.Fatal(err)
	}
}

// encoded is every batch ready to be sent, each message of it acknowledged only at the end: the least that user space can do.
func (r *rig) encoded(size int) [][]byte {
	var batches [][]byte
	for i := 0; i < len(r.ops); i += size {
		var b []byte
		at := 0
		for _, op := range r.ops[i:min(i+size, len(r.ops))] {
			at = len(b)
			var err error
			if b, err = appendRouteOp(b, op); err != nil {
				r.Fatal(err)
			}
			finish(b[at:], 1)
		}
		b[at+6] |= unix.NLM_F_ACK
		batches = append(batches, b)
	}
	return batches
}

func (r *rig) raw(s *socket, batches [][]byte) {
	for _, b := range batches {
		if err := s.send(b); err != nil {
			r.Fatal(err)
		}
		answer, err := s.receive()
		if err != nil {
			r.Fatal(err)
		}
		if m, _, err := nextMessage(answer); err != nil || m.outcome() != nil {
			r.Fatalf("raw batch: %v %v", err, m.outcome())
		}
	}
}

// alternate fills the table in strips of ten batches, written in turn with WriteRoutes and raw, and returns the time each took for
// its half. Who begins changes with the round. Strips are short against the swings of a busy machine, so the ratio holds there.
func (r *rig) alternate(s *socket, batches [][]byte, round int) (ours, raw time.Duration) {
	const strip = 10
	for i := 0; i < len(batches); i += strip {
		end := min(i+strip, len(batches))
		start := time.Now()
		if (i/strip+round)%2 == 0 {
			r.raw(s, batches[i:end])
			raw += time.Since(start)
			continue
		}
		ops := r.ops[i*maxBatchOps : min(end*maxBatchOps, len(r.ops))]
		if err := r.WriteRoutes(context.Background(), ops, func(_ int, err error) { r.Error(err) }); err != nil {
			r.Fatal(err)
		}
		ours += time.Since(start)
	}
	r.empty()
	return ours, raw
}

// forms runs a benchmark with routes of each family, with next hops of their own and by nexthop object.
func forms(b *testing.B, n int, run func(b *testing.B, r *rig)) {
	for _, v6 := range []bool{false, true} {
		for _, object := range []bool{false, true} {
			name := map[bool]string{false: "v4", true: "v6"}[v6] + map[bool]string{true: "-object"}[object]
			b.Run(name, func(b *testing.B) {
				r := newRig(b, n, v6)
				if object {
					r.byObject()
				}
				r.ours() // warm up: buffers, and the kernel's slabs
				r.empty()
				run(b, r)
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkWriteRoutes writes 100,000 routes into an empty table: with WriteRoutes, one by one with the library (which knows no nexthop
// objects and writes next hops in either case), and, for the ratio "of-raw", in turn with ready-made batches, which is the limit of the
// kernel. The best round gives the rates.
func BenchmarkWriteRoutes(b *testing.B) {
	forms(b, benchRoutes, func(b *testing.B, r *rig) {
		s, err := r.socket()
		if err != nil {
			b.Fatal(err)
		}
		defer s.close()
		batches := r.encoded(maxBatchOps)
		const never = time.Hour
		best, library := never, never
		var ours, raw time.Duration
		for round := 0; b.Loop(); round++ {
			for half := range 2 {
				o, x := r.alternate(s, batches, 2*round+half)
				ours, raw = ours+o, raw+x
			}
			best = min(best, r.timed(r.ours))
			library = min(library, r.timed(func() { r.oneByOne(b) }))
		}
		b.ReportMetric(benchRoutes/best.Seconds(), "routes/s")
		b.ReportMetric(library.Seconds()/best.Seconds(), "of-library")
		b.ReportMetric(raw.Seconds()/ours.Seconds(), "of-raw")
	})
}

func (r *rig) oneByOne(b testing.TB) {
	for _, op := range r.ops {
		p := op.Route.Dst
		err := r.handle.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, LinkIndex: r.link,
			Gw: r.gw.AsSlice(), Priority: 1024, Protocol: netlink.RouteProtocol(ProtoCaracal), Table: TableMain,
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode is our own share of a write: making the messages of 100,000 routes.
func BenchmarkEncode(b *testing.B) {
	forms(b, benchRoutes, func(b *testing.B, r *rig) {
		var out []byte
		start := time.Now()
		for b.Loop() {
			for i := range r.ops {
				if i%maxBatchOps == 0 {
					out = out[:0]
				}
				at := len(out)
				out, _ = appendRouteOp(out, r.ops[i])
				finish(out[at:], uint32(i))
			}
		}
		b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(b.N)/benchRoutes, "ns/route")
	})
}

// TestWritesDoNotAllocate: what a batch costs in memory does not grow with it.
func TestWritesDoNotAllocate(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		r := newRig(t, 4*maxBatchOps, v6)
		for range 2 {
			r.ours() // the first fills the buffers
			r.empty()
			deletes := make([]RouteOp, len(r.ops))
			for i := range deletes {
				deletes[i] = RouteOp{Verb: Delete, Route: r.ops[i].Route}
			}
			failed := func(_ int, err error) { t.Error(err) }
			allocs := testing.AllocsPerRun(3, func() {
				if err := errors.Join(r.WriteRoutes(t.Context(), r.ops, failed), r.WriteRoutes(t.Context(), deletes, failed)); err != nil {
					t.Fatal(err)
				}
			})
			if allocs > 20 {
				t.Errorf("writing and deleting %d routes allocates %v times, want no more than the calls themselves", len(r.ops), allocs)
			}
			r.byObject()
		}
	}
}

// BenchmarkBatchSize shows where larger batches stop to gain. The sizes take turns, so that a busy machine is as hard on each.
func BenchmarkBatchSize(b *testing.B) {
	sizes := []int{32, 128, 256, 512, 1024, 2048, 4096}
	forms(b, benchRoutes/4, func(b *testing.B, r *rig) {
		best := make([]time.Duration, len(sizes))
		for b.Loop() {
			for i, size := range sizes {
				r.routes.size = size
				if took := r.timed(r.ours); best[i] == 0 || took < best[i] {
					best[i] = took
				}
			}
		}
		for i, size := range sizes {
			b.ReportMetric(float64(len(r.ops))/best[i].Seconds(), strconv.Itoa(size)+"-a-batch/s")
		}
	})
}

// BenchmarkDelete removes 100,000 routes in the order of their prefixes, as WriteRoutes does it, and with the order kept.
func BenchmarkDelete(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		b.Run(map[bool]string{false: "v4", true: "v6"}[v6], func(b *testing.B) {
			r := newRig(b, benchRoutes, v6)
			r.ours()
			r.empty()
			deletes := make([]RouteOp, len(r.ops))
			for i := range deletes {
				deletes[i] = RouteOp{Verb: Delete, Route: r.ops[i].Route}
			}
			failed := func(_ int, err error) { b.Error(err) }
			var ours, kept time.Duration
			for b.Loop() {
				r.ours()
				start := time.Now()
				if err := r.WriteRoutes(context.Background(), deletes, failed); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(start)
				r.ours()
				start = time.Now()
				if err := r.writeSegment(context.Background(), deletes, 0, len(deletes), 1, failed); err != nil {
					b.Fatal(err)
				}
				kept += time.Since(start)
			}
			b.ReportMetric(benchRoutes*float64(b.N)/ours.Seconds(), "routes/s")
			b.ReportMetric(kept.Seconds()/ours.Seconds(), "of-in-order")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkReplaceNexthop moves 1 to 100,000 routes by one replacement of their nexthop object: without and with nexthop_compat_mode, the
// latter also with a listener, which is what we are to ourselves. For comparison: the same by writing the routes.
func BenchmarkReplaceNexthop(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, benchRoutes} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newRig(b, n, false)
			routes := r.ops
			inline := make([]RouteOp, n)
			for i := range inline {
				c := *routes[i].Route
				inline[i] = RouteOp{Verb: Replace, Route: &c}
			}
			r.byObject()
			r.ours()
			ways := []netip.Addr{r.gw, r.gw.Next()}
			mode := func(v int) {
				if err := r.WriteSysctl(context.Background(), SysctlNexthopCompat, v); err != nil {
					b.Fatal(err)
				}
			}
			turn := 0
			move := func() time.Duration {
				turn++
				object := []NexthopOp{{Replace, &Nexthop{ID: 1, Protocol: ProtoCaracal, Gateway: ways[turn%2], Link: r.link}}}
				start := time.Now()
				if err := r.WriteNexthops(context.Background(), object, func(_ int, err error) { b.Error(err) }); err != nil {
					b.Fatal(err)
				}
				return time.Since(start)
			}
			var off, on, heard time.Duration
			best := func(sum *time.Duration, d time.Duration) {
				if *sum == 0 || d < *sum {
					*sum = d
				}
			}
			for b.Loop() {
				mode(0)
				best(&off, move())
				mode(1)
				best(&on, move())
				ctx, cancel := context.WithCancel(context.Background())
				events, err := r.Watch(ctx)
				if err != nil {
					b.Fatal(err)
				}
				go func() {
					for range events {
					}
				}()
				best(&heard, move())
				cancel()
			}
			r.ops = inline
			start := time.Now()
			r.ours()
			b.ReportMetric(float64(time.Since(start).Microseconds()), "routes-µs")
			b.ReportMetric(float64(off.Microseconds()), "object-µs")
			b.ReportMetric(float64(on.Microseconds()), "compat-µs")
			b.ReportMetric(float64(heard.Microseconds()), "compat+listener-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkListRoutes dumps 100,000 routes.
func BenchmarkListRoutes(b *testing.B) {
	r := newRig(b, benchRoutes, false)
	r.ours()
	b.ReportAllocs()
	var took time.Duration
	for b.Loop() {
		start := time.Now()
		n := 0
		if err := r.ListRoutes(context.Background(), false, func(*Route) bool { n++; return true }); err != nil {
			b.Fatal(err)
		}
		took += time.Since(start)
		if n != benchRoutes+1 {
			b.Fatalf("%d routes, want %d and the connected one", n, benchRoutes)
		}
	}
	b.ReportMetric(benchRoutes*float64(b.N)/took.Seconds(), "routes/s")
}

// BenchmarkWatch writes 100,000 routes while a consumer takes the events: nothing may be lost at this rate. "of-alone" is the rate of
// writing against that without a listener.
func BenchmarkWatch(b *testing.B) {
	r := newRig(b, benchRoutes, false)
	r.ours()
	r.empty()
	lost := 0
	var took, writing, alone time.Duration
	var before, after runtime.MemStats
	var mallocs uint64
	for b.Loop() {
		alone += r.timed(r.ours)
		ctx, cancel := context.WithCancel(context.Background())
		events, err := r.Watch(ctx)
		if err != nil {
			b.Fatal(err)
		}
		runtime.ReadMemStats(&before)
		start := time.Now()
		done := make(chan struct{})
		go func() { defer close(done); r.ours(); writing += time.Since(start) }()
		seen := 0
		for e := range events {
			if e.Kind == EventLost {
				lost++
				break
			}
			if e.Kind == EventRoute && e.Route.Protocol == ProtoCaracal {
				if seen++; seen == benchRoutes {
					break
				}
			}
		}
		took += time.Since(start)
		<-done
		runtime.ReadMemStats(&after)
		mallocs += after.Mallocs - before.Mallocs
		cancel()
		r.empty()
	}
	b.ReportMetric(benchRoutes*float64(b.N)/took.Seconds(), "events/s")
	b.ReportMetric(alone.Seconds()/writing.Seconds(), "of-alone")
	b.ReportMetric(float64(mallocs)/float64(b.N)/benchRoutes, "allocs/event")
	b.ReportMetric(float64(lost), "losses")
	b.ReportMetric(0, "ns/op")
}
