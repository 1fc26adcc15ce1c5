package routes_test

import (
	"context"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

// toGateways are n routes by way of all these gateways.
func toGateways(n int, gateways ...string) routes.Change {
	c := routes.Change{Whole: true}
	var hops []routes.NextHop
	for _, g := range gateways {
		hops = append(hops, routes.NextHop{Gateway: netip.MustParseAddr(g), Device: "w0", Onlink: true})
	}
	for i := range n {
		c.Routes = append(c.Routes, routes.Route{Dst: block(i), Type: kernel.Unicast, NextHops: hops})
	}
	return c
}

// BenchmarkConvergence moves 1 to 100,000 routes to another way: by a path that BFD finds dead (Avoid), of two equal ones, and by an owner
// that names another gateway (Apply, its own work included); with nexthop objects, with nexthop_compat_mode 0 and 1, and without objects.
// The best of all turns counts, from the call until the Programmer has nothing left to do.
func BenchmarkConvergence(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, benchRoutes} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			best := map[string]time.Duration{}
			for b.Loop() {
				for _, mode := range []struct {
					name    string
					objects bool
					compat  int
				}{{"objects", true, 0}, {"objects-compat", true, 1}, {"inline", false, 1}} {
					failed, moved := converge(b, n, mode.objects, mode.compat)
					for name, d := range map[string]time.Duration{mode.name + "-dead-path-µs": failed, mode.name + "-moved-µs": moved} {
						if was, ok := best[name]; !ok || d < was {
							best[name] = d
						}
					}
				}
			}
			for name, d := range best {
				b.ReportMetric(float64(d.Nanoseconds())/1e3, name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func converge(b *testing.B, n int, objects bool, compat int) (failed, moved time.Duration) {
	b.Helper()
	r := newBench(b)
	r.objects = objects
	if err := r.other.WriteSysctl(context.Background(), kernel.SysctlNexthopCompat, compat); err != nil {
		b.Fatal(err)
	}
	p, stop := r.run()
	defer stop()
	p.Expect()
	p.Apply(routes.OwnerVXLAN, toGateways(n, "192.0.2.7", "192.0.2.8"))
	r.sync(p)
	r.installed(p, n)
	start := time.Now()
	p.Avoid(netip.MustParseAddr("192.0.2.7"))
	r.sync(p)
	failed = time.Since(start)
	r.leads(n, "192.0.2.8")
	p.Apply(routes.OwnerVXLAN, toGateways(n, "192.0.2.9"))
	r.sync(p)
	next, writes := toGateways(n, "192.0.2.10"), p.Stats().Writes
	start = time.Now()
	p.Apply(routes.OwnerVXLAN, next)
	r.sync(p)
	moved = time.Since(start)
	if writes = p.Stats().Writes - writes; objects != (writes == 0) {
		b.Fatalf("%d writes of routes", writes)
	}
	r.leads(n, "192.0.2.10")
	return failed, moved
}

// leads holds that the kernel sends packets to the first and the last of n routes to a gateway.
func (r *bench) leads(n int, gw string) {
	r.Helper()
	for _, i := range []int{0, n - 1} {
		a, err := r.other.Lookup(context.Background(), block(i).Addr().Next())
		if err != nil {
			r.Fatal(err)
		}
		if a.Chosen.Gateway != netip.MustParseAddr(gw) {
			r.Fatalf("packets to %s go to %s, want %s", block(i), a.Chosen.Gateway, gw)
		}
	}
}
