package routes_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

// mutation is what the hostile program did to one object, and when.
type mutation struct {
	at   time.Time
	kind string
}

// BenchmarkHostile has another program change 100 objects a second, of 10,000 routes, the 250 nexthop objects that they lead to (of whose 40
// routes one is waited for), the neighbours and FDB entries of 250 nodes, and now and then the MTU and the address of the tunnel device, and
// measures from its call until the kernel tells that the object is as wanted again.
func BenchmarkHostile(b *testing.B) {
	const hostRoutes, nodes, perSecond = 10_000, 250, 100
	r := newBench(b)
	r.objects = true
	p, stop := r.run()
	defer stop()
	wanted := wishes(hostRoutes)
	c := routes.Change{Whole: true, Routes: wanted, Links: []routes.Link{{
		Name: routes.DeviceVXLAN, Kind: "vxlan", MTU: 1400, MAC: [6]byte{0x66, 1}, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/32")},
		VXLAN: &routes.VXLAN{VNI: 4096, Port: 4789, Parent: "w0", Local: netip.MustParseAddr("192.0.2.1")},
	}}}
	for i := range nodes {
		mac := [6]byte{0x66, 0, 0, 0, 1, byte(i)}
		c.Neighbours = append(c.Neighbours,
			routes.Neighbour{Device: routes.DeviceVXLAN, Addr: netip.AddrFrom4([4]byte{198, 18, 1, byte(i)}), MAC: mac},
			routes.Neighbour{Device: routes.DeviceVXLAN, FDB: true, Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), MAC: mac})
	}
	p.Apply(routes.OwnerVXLAN, c)
	r.sync(p)
	for end := time.Now().Add(10 * time.Second); p.Stats().Writes < hostRoutes || p.Devices()[0].Outcome != routes.Installed; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("not ready: %+v %+v", p.Stats(), p.Devices())
		}
	}
	r.sync(p)
	h := newHostile(r, wanted, c.Neighbours, p.Devices()[0].Index)
	var took []time.Duration
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	rng := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		<-tick.C
		h.strike(rng)
	}
	for end := time.Now().Add(10 * time.Second); h.open() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%d objects are not repaired: %v", h.open(), h.pending)
		}
	}
	took = h.took
	report(b, took)
	b.ReportMetric(float64(len(took)), "mutations")
}

// hostile is the other program, with a listener that sees when its deeds are undone.
type hostile struct {
	*bench
	far    kernel.Kernel
	wanted []routes.Route
	neighs []routes.Neighbour
	device int

	strikes int

	mu      sync.Mutex
	pending map[string]mutation
	took    []time.Duration
}

func newHostile(r *bench, wanted []routes.Route, neighs []routes.Neighbour, device int) *hostile {
	far, err := kernel.Open(kernel.Options{Namespace: r.ns.Path()})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = far.Close() })
	h := &hostile{bench: r, far: far, wanted: wanted, neighs: neighs, device: device, pending: map[string]mutation{}}
	ctx, cancel := context.WithCancel(context.Background())
	r.Cleanup(cancel)
	events, err := far.Watch(ctx)
	if err != nil {
		r.Fatal(err)
	}
	gateways := map[netip.Prefix]netip.Addr{}
	for i := range wanted {
		gateways[wanted[i].Dst] = wanted[i].NextHops[0].Gateway
	}
	go func() {
		for e := range events {
			switch n := &e.Neighbour; {
			case e.Deleted:
			case e.Kind == kernel.EventRoute && len(e.Route.NextHops) == 1 && e.Route.NextHops[0].Gateway == gateways[e.Route.Dst]:
				h.mended(e.Route.Dst.String())
			case e.Kind == kernel.EventLink && e.Link.Index == device && e.Link.MTU == 1400:
				h.mended("MTU")
			case e.Kind == kernel.EventAddress && e.Address.Link == device:
				h.mended("address")
			case e.Kind == kernel.EventNeighbour && n.Permanent && n.MAC[4] == 1:
				h.mended(fmt.Sprint(n.FDB, n.Addr))
			}
		}
	}()
	return h
}

func (h *hostile) mended(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.pending[what]; ok {
		h.took = append(h.took, time.Since(m.at))
		delete(h.pending, what)
	}
}

func (h *hostile) open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pending)
}

// begin notes a deed; false if the object is not yet repaired from the last one.
func (h *hostile) begin(what, kind string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, busy := h.pending[what]; busy {
		return false
	}
	h.pending[what] = mutation{time.Now(), kind}
	return true
}

func (h *hostile) strike(rng *rand.Rand) {
	failed := func(_ int, err error) { h.Errorf("the hostile program: %v", err) }
	if h.strikes++; h.strikes%400 == 0 { // every four seconds: who does it more often is answered ever more slowly
		h.strikeDevice(h.strikes%800 == 0)
		return
	}
	if rng.IntN(10) == 0 {
		h.strikeNexthop(&h.wanted[rng.IntN(len(h.wanted))])
		return
	}
	if rng.IntN(10) < 8 {
		w := &h.wanted[rng.IntN(len(h.wanted))]
		k := kernel.Route{Dst: w.Dst, Metric: routes.Metric, Type: kernel.Unicast, Protocol: kernel.ProtoCaracal,
			NextHops: []kernel.NextHop{{Gateway: netip.MustParseAddr("192.0.2.254"), Link: h.link, Onlink: true}}}
		verb := kernel.Replace
		if rng.IntN(2) == 0 {
			verb, k.NextHops = kernel.Delete, nil
		}
		if h.begin(w.Dst.String(), verb.String()) {
			if err := h.far.WriteRoutes(context.Background(), []kernel.RouteOp{{Verb: verb, Route: &k}}, failed); err != nil {
				h.Error(err)
			}
		}
		return
	}
	n := h.neighs[rng.IntN(len(h.neighs))]
	k := kernel.Neighbour{Link: h.device, FDB: n.FDB, Addr: n.Addr, MAC: n.MAC, Permanent: true}
	if h.begin(fmt.Sprint(n.FDB, n.Addr), "delete neighbour") {
		if err := h.far.WriteNeighbours(context.Background(), []kernel.NeighbourOp{{Delete: true, Neighbour: k}}, failed); err != nil {
			h.Error(err)
		}
	}
}

// strikeDevice changes the tunnel device's MTU, or takes its address.
func (h *hostile) strikeDevice(mtu bool) {
	var err error
	switch {
	case mtu && h.begin("MTU", "MTU"):
		err = h.far.SetLink(context.Background(), h.device, 1300, [6]byte{}, true)
	case !mtu && h.begin("address", "address"):
		err = h.far.DeleteAddress(context.Background(), kernel.Address{Link: h.device, Prefix: netip.MustParsePrefix("198.18.0.1/32")})
	}
	if err != nil {
		h.Error(err)
	}
}

// strikeNexthop deletes the object that a route leads to.
func (h *hostile) strikeNexthop(w *routes.Route) {
	id := uint32(0)
	err := h.far.ListNexthops(context.Background(), func(n *kernel.Nexthop) bool {
		if n.Gateway == w.NextHops[0].Gateway && n.Protocol == kernel.ProtoCaracal {
			id = n.ID
		}
		return true
	})
	if err != nil {
		h.Fatal(err)
	}
	if id == 0 || !h.begin(w.Dst.String(), "nexthop") {
		return // not back yet from the last time
	}
	op := kernel.NexthopOp{Verb: kernel.Delete, Nexthop: &kernel.Nexthop{ID: id}}
	if err := h.far.WriteNexthops(context.Background(), []kernel.NexthopOp{op}, func(_ int, err error) { h.Error(err) }); err != nil {
		h.Error(err)
	}
}

// BenchmarkAudit reads everything again, with 100,000 routes, and says what share of a core that takes once a minute: processor time of this
// process, user and system.
func BenchmarkAudit(b *testing.B) {
	r := newBench(b)
	p, stop := r.run()
	defer stop()
	p.Apply(routes.OwnerVXLAN, routes.Change{Whole: true, Routes: wishes(benchRoutes)})
	r.sync(p)
	r.installed(p, benchRoutes)
	before := cpu(b)
	for b.Loop() {
		if err := p.Resync(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	spent := (cpu(b) - before) / time.Duration(b.N)
	b.ReportMetric(float64(spent.Microseconds())/1000, "cpu-ms/audit")
	b.ReportMetric(100*spent.Seconds()/routes.DefaultResyncInterval.Seconds(), "%-of-a-core")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
