package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// setLinkRefused is one refusal of a SetLink.
var setLinkRefused = kerneltest.Fault{Kind: kerneltest.SetLinkFails, Err: kernel.FromErrno(syscall.EINVAL)}

func TestHostFollowsTheKernel(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(vxlanSet(2))
		last := func() *Host { r.wait(); return r.host[len(r.host)-1] }
		if h := last(); h.ByAddr(addr("192.0.2.1")) == nil || h.ByName(DeviceVXLAN) != nil || len(h.Workloads) != 0 {
			t.Fatalf("first picture %+v", h)
		}
		pictures := len(r.host)
		r.apply(vxlanSet(2, 3, 4)) // ours: no news for plans
		r.wait()
		time.Sleep(time.Minute)
		if r.wait(); len(r.host) != pictures {
			t.Errorf("%d pictures more for changes of our own", len(r.host)-pictures)
		}
		if last().Resolve(addr("10.244.2.1")) != nil {
			t.Error("resolved through a route of ours")
		}
		pod := r.wire("cali123")
		r.write(kernel.Add, kernel.Route{Dst: pfx("10.244.0.5/32"), Type: kernel.Unicast, Scope: kernel.ScopeLink, Protocol: kernel.ProtoBoot, NextHops: []kernel.NextHop{{Link: pod}}})
		r.write(kernel.Add, kernel.Route{Dst: pfx("203.0.113.0/24"), Type: kernel.Unicast, Protocol: kernel.ProtoStatic, NextHops: []kernel.NextHop{{Link: r.eth0, Gateway: addr("192.0.2.254")}}})
		time.Sleep(publishMost)
		h := last()
		if !slices.Equal(h.Workloads, []netip.Prefix{pfx("10.244.0.5/32")}) || h.ByName("cali123") == nil {
			t.Errorf("workloads %v", h.Workloads)
		}
		if n := h.Resolve(addr("203.0.113.9")); len(n) != 1 || n[0].Gateway != addr("192.0.2.254") || n[0].Device != "eth0" {
			t.Errorf("resolved %+v", n)
		}
		r.must(r.far.SetLink(r.t.Context(), r.eth0, 0, [6]byte{}, false)) // IPv4 routes go without an event
		time.Sleep(publishMost)
		if last().Resolve(addr("203.0.113.9")) != nil {
			t.Error("resolved through an interface that is down")
		}
		if h.Resolve(addr("203.0.113.9")) == nil {
			t.Error("an old picture changed")
		}
		r.must(r.far.DeleteLink(r.t.Context(), pod))
		time.Sleep(publishMost)
		if h := last(); len(h.Workloads) != 0 || h.ByName("cali123") != nil {
			t.Errorf("workloads %v", h.Workloads)
		}
	})
}

// A burst of foreign routes makes few pictures, and the last one has them all.
func TestHostCoalesces(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready()
		pictures := len(r.host)
		for i := range 500 {
			k := r.their("10.0.0.0/32", "192.0.2.9")
			k.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 32)
			r.write(kernel.Add, k)
		}
		time.Sleep(publishMost)
		r.wait()
		if n := len(r.host) - pictures; n > 50 {
			t.Errorf("%d pictures for 500 routes", n)
		}
		for i := range 500 {
			if r.host[len(r.host)-1].Resolve(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})) == nil {
				t.Fatalf("route %d is missing in the picture", i)
			}
		}
	})
}

func TestWatch(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		ctx, cancel := context.WithCancel(r.t.Context())
		var seen []string
		done := make(chan error)
		go func() {
			done <- r.p.Watch(ctx, func(batch []Status) {
				if len(batch) == 0 {
					seen = append(seen, "start")
				}
				for _, s := range batch {
					seen = append(seen, fmt.Sprintf("%s %s %s", s.Route.Dst, s.Owner, s.Outcome))
				}
			})
		}()
		r.wait()
		r.apply(Change{Routes: []Route{via("10.2.0.0/26", "192.0.2.7")}})
		r.wait()
		r.p.Apply(OwnerBGP, whole(via("10.2.0.0/26", "192.0.2.9")))
		r.wait()
		r.apply(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		cancel()
		<-done
		text := strings.Join(seen, "\n")
		for _, want := range []string{"start", "10.2.0.0/26 vxlan installed", "10.2.0.0/26 bgp lost", "10.2.0.0/26 vxlan removed", "10.2.0.0/26 bgp installed"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q was not told of in\n%s", want, text)
			}
		}
		if strings.Contains(text, "10.1.0.0/26") {
			t.Errorf("a route that did not change was told of:\n%s", text)
		}
	})
}

// A stopped Programmer leaves the kernel as it is, and whoever waits for it gets an answer.
func TestStop(t *testing.T) {
	bubble(t, func(r *rig) {
		set := vxlanSet(2)
		r.ready(set)
		r.wantTunnel(set)
		asked := make(chan error, 1)
		hang := r.fake.Inject(kerneltest.Fault{Kind: kerneltest.ListLinksFails, Times: 1 << 20})
		go func() { asked <- r.p.Resync(context.Background()) }()
		synctest.Wait()
		r.stop()
		if err := <-asked; err == nil {
			t.Error("a resync whose reads failed reported success")
		}
		hang.Remove()
		r.wantTunnel(set)
		r.wantOurs(vxlanRoutes(2)...)
	})
}

// One part of the kernel's state that cannot be read does not hold up the rest.
func TestUnreadablePart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.ListNeighboursFails, Times: 1 << 20})
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.ListRoutesFails, Nth: 2, Times: 1 << 20}) // IPv6
		r.ready(vxlanSet(2))
		r.wantOurs(vxlanRoutes(2)...)
	})
}

// Reading 20,000 routes that are as they should be allocates next to nothing.
func TestResyncAllocatesNothingPerRoute(t *testing.T) {
	r := onKernel(t)
	const n = 20_000
	var all []Route
	for i := range n {
		all = append(all, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), NextHops: via("10.0.0.0/26", "192.0.2.7").NextHops, Reason: &Reason{Rule: "x"}})
	}
	r.ready(whole(all...))
	r.resync()
	if c := r.p.Counts()[OwnerVXLAN][Installed]; c != n {
		t.Fatalf("%d routes installed", c)
	}
	if a := testing.AllocsPerRun(3, r.resync); a > n/20 {
		t.Errorf("a resync of %d unchanged routes made %.0f allocations", n, a)
	}
	again := slices.Clone(all)
	if a := testing.AllocsPerRun(3, func() { r.apply(whole(again...)); r.wait() }); a > n/20 {
		t.Errorf("applying %d unchanged routes made %.0f allocations", n, a)
	}
}

// Readers and owners on many goroutines, on the real kernel and the real clock; the race detector judges.
func TestManyGoroutines(t *testing.T) {
	r := onKernel(t)
	r.ready()
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	var told atomic.Int64
	wg.Go(func() { _ = r.p.Watch(ctx, func(batch []Status) { told.Add(int64(len(batch))) }) })
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				rows := r.p.Snapshot(nil)
				if !slices.IsSortedFunc(rows, func(a, b Status) int { return comparePrefixes(a.Route.Dst, b.Route.Dst) }) {
					t.Error("snapshot out of order")
				}
				_, _, _, _ = r.p.Counts(), r.p.Stats(), r.p.Devices(), r.p.Neighbours()
				_, _ = r.p.Lookup(ctx, addr("10.1.2.3"))
			}
		})
	}
	const n = 3000
	var owners sync.WaitGroup
	for _, o := range []Owner{OwnerVXLAN, OwnerBGP} {
		owners.Go(func() {
			for turn := range 5 {
				var all []Route
				for i := range n {
					all = append(all, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
						NextHops: via("10.0.0.0/26", fmt.Sprintf("192.0.2.%d", 7+turn)).NextHops})
				}
				r.p.Apply(o, whole(all...))
				r.p.Apply(o, Change{Withdraw: []Key{key("10.0.0.0/24")}})
			}
		})
	}
	owners.Wait()
	r.wait()
	r.eventually(func() error { // the watcher may not have had its turn yet
		if told.Load() == 0 {
			r.p.Apply(OwnerVXLAN, Change{Withdraw: []Key{key("10.0.1.0/24")}})
			r.p.Apply(OwnerVXLAN, Change{Routes: []Route{via("10.0.1.0/24", "192.0.2.11")}})
			return errors.New("the watcher is told of nothing")
		}
		return nil
	})
	r.wait()
	cancel()
	wg.Wait()
	c := r.p.Counts()
	if c[OwnerVXLAN][Installed] != n-1 || c[OwnerBGP][Lost] != n-1 {
		t.Errorf("counts %v", c)
	}
	r.countsAgree()
}

// A route of ours that another program's to the same destination goes before, as the host's default route before one from a router, is
// installed all the same, and its status says which one the kernel takes. Neither touches the other.
func TestBehindAnothersRoute(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready()
		ours := via("0.0.0.0/0", "192.0.2.7")
		ours.Metric = 2147483547
		theirs := func(metric uint32) kernel.Route {
			k := r.their("0.0.0.0/0", "192.0.2.254")
			k.Metric = metric
			return k
		}
		r.write(kernel.Add, theirs(4278198272))
		r.apply(whole(ours))
		time.Sleep(publishMost)
		r.wantStatuses("0.0.0.0/0 vxlan installed")
		r.write(kernel.Add, theirs(100))
		time.Sleep(publishMost)
		r.wantStatuses("0.0.0.0/0 vxlan installed: behind a route of protocol static with metric 100, which goes first")
		r.write(kernel.Delete, theirs(100))
		time.Sleep(publishMost)
		r.wantStatuses("0.0.0.0/0 vxlan installed")
		r.apply(whole())
		time.Sleep(publishMost)
		r.wantStatuses()
		theirOwn := r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoStatic })
		if want := []string{"default via 192.0.2.254 dev eth0 proto static metric 4278198272 onlink"}; !slices.Equal(theirOwn, want) {
			t.Errorf("the other program's routes are %q, want %q", theirOwn, want)
		}
	})
}
