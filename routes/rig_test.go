package routes

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// rig is a Programmer over a Fake inside a synctest bubble, with eth0 (192.0.2.1/24, 2001:db8::1/64).
type rig struct {
	t    testing.TB
	fake *kerneltest.Fake
	far  kernel.Kernel // another program on the same kernel
	p    *Programmer
	eth0 int
	stop func()
	host []*Host
}

// bubble runs f with a rig that is not started.
func bubble(t *testing.T, f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, fake: kerneltest.NewFake(), stop: func() {}}
		r.far = r.fake.Foreign()
		r.eth0 = r.fake.Wire("eth0")
		r.must(r.far.AddAddress(t.Context(), kernel.Address{Link: r.eth0, Prefix: pfx("192.0.2.1/24")}))
		r.must(r.far.AddAddress(t.Context(), kernel.Address{Link: r.eth0, Prefix: pfx("2001:db8::1/64")}))
		defer func() { r.stop() }()
		f(r)
	})
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// start makes a Programmer and runs it until the rig stops or another is started.
func (r *rig) start(o Options) {
	r.stop()
	o.Kernel = r.fake
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r.p = New(o)
	r.p.OnHost(func(h *Host) { r.host = append(r.host, h) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.p.Run(ctx) }()
	r.stop = func() {
		cancel()
		r.must(<-done)
		r.stop = func() {}
	}
}

// ready starts a Programmer whose gate is open once the first changes are in.
func (r *rig) ready(changes ...Change) {
	r.start(Options{})
	r.p.Expect(OwnerVXLAN)
	for _, c := range changes {
		r.p.Apply(OwnerVXLAN, c)
	}
	r.p.InSync(OwnerVXLAN)
	r.wait()
}

// wait lets everything happen that can happen without time passing.
func (r *rig) wait() {
	r.t.Helper()
	synctest.Wait()
}

// resync reads everything again and repairs.
func (r *rig) resync() {
	r.t.Helper()
	r.must(r.p.Resync(r.t.Context()))
	r.wait()
}

// ours is what the kernel holds of protocol 202, as ip(8) prints it, sorted.
func (r *rig) ours() []string {
	return kernelRoutes(r.t, r.far, func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoCaracal })
}

func kernelRoutes(t testing.TB, k kernel.Kernel, match func(*kernel.Route) bool) []string {
	t.Helper()
	links, err := k.ListLinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string {
		for _, l := range links {
			if l.Index == i {
				return l.Name
			}
		}
		return fmt.Sprintf("if%d", i)
	}
	var lines []string
	for _, v6 := range []bool{false, true} {
		err := k.ListRoutes(t.Context(), v6, func(r *kernel.Route) bool {
			if match(r) {
				lines = append(lines, strings.TrimSpace(kernel.FormatRoute(r, name)))
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	sort.Strings(lines)
	return lines
}

func (r *rig) wantOurs(want ...string) {
	r.t.Helper()
	sort.Strings(want)
	if got := r.ours(); !slices.Equal(got, want) {
		r.t.Fatalf("kernel holds\n  %s\nwant\n  %s\nstatuses\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "), strings.Join(r.statuses(), "\n  "))
	}
}

// statuses is the snapshot, one line a status: destination owner outcome [detail].
func (r *rig) statuses() []string {
	var lines []string
	for _, s := range r.p.Snapshot(nil) {
		line := fmt.Sprintf("%s %s %s", s.Route.Dst, s.Owner, s.Outcome)
		if s.Detail != "" {
			line += ": " + s.Detail
		}
		lines = append(lines, line)
	}
	return lines
}

func (r *rig) wantStatuses(want ...string) {
	r.t.Helper()
	if got := r.statuses(); !slices.Equal(got, want) {
		r.t.Fatalf("statuses\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// write has another program write a route.
func (r *rig) write(v kernel.Verb, k kernel.Route) {
	r.t.Helper()
	r.must(r.far.WriteRoutes(r.t.Context(), []kernel.RouteOp{{Verb: v, Route: &k}}, func(_ int, err error) { r.t.Fatal(err) }))
}

// via is a direct route by eth0.
func via(dst, gw string) Route {
	return Route{Dst: pfx(dst), Type: kernel.Unicast, NextHops: []NextHop{{Gateway: addr(gw), Device: "eth0", Onlink: true}}}
}

func blackhole(dst string) Route { return Route{Dst: pfx(dst), Type: kernel.Blackhole} }

func whole(routes ...Route) Change { return Change{Whole: true, Routes: routes} }

func key(dst string) Key { return Key{Dst: pfx(dst), Metric: Metric} }

// vxlanLink is our device as vxlan.Plan wants it.
func vxlanLink() Link {
	return Link{
		Name: DeviceVXLAN, Kind: "vxlan", MTU: 1450, MAC: [6]byte{0x66, 1, 2, 3, 4, 5},
		Addresses: []netip.Prefix{pfx("10.244.0.1/32")},
		VXLAN:     &VXLAN{VNI: 4096, Port: 4789, Parent: "eth0", Local: addr("192.0.2.1")},
	}
}

func mac(n byte) [6]byte { return [6]byte{0x66, 0, 0, 0, 0, n} }

// vtep is what one remote node adds: neighbour, FDB entry, route through the tunnel.
func vtep(c Change, n byte) Change {
	tunnel := netip.AddrFrom4([4]byte{10, 244, n, 0})
	c.Neighbours = append(c.Neighbours,
		Neighbour{Device: DeviceVXLAN, Addr: tunnel, MAC: mac(n)},
		Neighbour{Device: DeviceVXLAN, FDB: true, Addr: netip.AddrFrom4([4]byte{192, 0, 2, n}), MAC: mac(n)})
	c.Routes = append(c.Routes, Route{
		Dst: netip.PrefixFrom(tunnel, 26), Type: kernel.Unicast, MTU: 1450,
		NextHops: []NextHop{{Gateway: tunnel, Device: DeviceVXLAN, Onlink: true}},
	})
	return c
}

// tunnels is a whole VXLAN set with n remote nodes and an own block.
func vxlanSet(nodes ...byte) Change {
	c := Change{Whole: true, Links: []Link{vxlanLink()}, Routes: []Route{blackhole("10.244.0.0/26")}}
	for _, n := range nodes {
		c = vtep(c, n)
	}
	return c
}
