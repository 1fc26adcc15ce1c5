package kernel

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
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

// dst is the i-th block of 64 addresses (a /26) or its IPv6 counterpart (a /122).
func (r *rig) dst(i int) netip.Prefix {
	if r.gw.Is6() {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 12: byte(i >> 18), 13: byte(i >> 10), 14: byte(i >> 2), 15: byte(i << 6)}), 122)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(i>>18), byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

// empty removes what was written.
func (r *rig) empty() {
	r.Helper()
	ops := make([]RouteOp, len(r.ops))
	for i := range ops {
		ops[i] = RouteOp{Verb: Delete, Route: r.ops[i].Route}
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

// BenchmarkWriteRoutes writes 100,000 routes into an empty table: with WriteRoutes, one by one with the library, and, for the
// ratio "of-raw", in turn with ready-made batches, which is the limit of the kernel. The best round gives the rates.
func BenchmarkWriteRoutes(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		b.Run(map[bool]string{false: "v4", true: "v6"}[v6], func(b *testing.B) {
			r := newRig(b, benchRoutes, v6)
			s, err := r.socket()
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			batches := r.encoded(maxBatchOps)
			r.ours() // warm up: buffers, and the kernel's slabs
			r.empty()
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
			b.ReportMetric(benchRoutes/library.Seconds(), "library-routes/s")
			b.ReportMetric(raw.Seconds()/ours.Seconds(), "of-raw")
			b.ReportMetric(0, "ns/op")
		})
	}
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

// BenchmarkBatchSize shows where larger batches stop to gain.
func BenchmarkBatchSize(b *testing.B) {
	for _, size := range []int{16, 64, 128, 256, 512, 1024, 2048} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			r := newRig(b, benchRoutes/4, false)
			s, err := r.socket()
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			batches := r.encoded(size)
			var took time.Duration
			for b.Loop() {
				took += r.timed(func() { r.raw(s, batches) })
			}
			b.ReportMetric(float64(len(r.ops))*float64(b.N)/took.Seconds(), "routes/s")
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

// BenchmarkWatch writes 100,000 routes while a consumer takes the events: nothing may be lost at this rate.
func BenchmarkWatch(b *testing.B) {
	r := newRig(b, benchRoutes, false)
	lost := 0
	var took time.Duration
	for b.Loop() {
		ctx, cancel := context.WithCancel(context.Background())
		events, err := r.Watch(ctx)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		done := make(chan struct{})
		go func() { defer close(done); r.ours() }()
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
		cancel()
		r.empty()
	}
	b.ReportMetric(benchRoutes*float64(b.N)/took.Seconds(), "events/s")
	b.ReportMetric(float64(lost), "losses")
	b.ReportMetric(0, "ns/op")
}
