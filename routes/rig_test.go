package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// rig is a Programmer over a kernel that has eth0 (192.0.2.1/24, 2001:db8::1/64): over a Fake inside a synctest bubble, where
// time is free, or over the real one in a namespace, where conditions are polled for.
type rig struct {
	t    testing.TB
	k    kernel.Kernel
	far  kernel.Kernel    // another program on the same kernel
	fake *kerneltest.Fake // nil over the real kernel
	wire func(name string) int
	ip   func(args ...string) // ip(8), over the real kernel only
	p    *Programmer
	eth0 int
	stop func()
	host []*Host

	patient bool // a fault is planned: convergence may take a back-off
	byID    bool // routes lead to nexthop objects
	lying   bool // the fault makes the kernel say "done" of what is not: only a resync can find out
}

// mode is how the kernel and the Programmer work together.
type mode struct {
	name  string
	muted bool // the kernel does not tell of our own adds
	byID  bool // routes lead to nexthop objects
	bare  bool // whose next hops the kernel does not show on them (nexthop_compat_mode 0)
}

func modes() []mode {
	return []mode{
		{"adds heard", false, false, false}, {"adds muted", true, false, false},
		{"objects, adds heard", false, true, false}, {"bare objects, adds muted", true, true, true},
	}
}

// bubble runs f with a rig over a Fake that is not started, in every mode.
func bubble(t *testing.T, f func(*rig)) {
	t.Helper()
	inModes(t, modes(), f)
}

// inline does so for what is about routes that have their next hops themselves.
func inline(t *testing.T, f func(*rig)) {
	t.Helper()
	inModes(t, slices.DeleteFunc(modes(), func(m mode) bool { return m.byID }), f)
}

func inModes(t *testing.T, modes []mode, f func(*rig)) {
	t.Helper()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kerneltest.NewFake()
				if m.muted {
					fake.MuteAdds()
				}
				r := &rig{t: t, fake: fake, k: fake, far: fake.Foreign(), wire: fake.Wire, stop: func() {}, byID: m.byID}
				if m.bare {
					r.must(r.far.WriteSysctl(t.Context(), kernel.SysctlNexthopCompat, 0))
				}
				r.setUp()
				defer func() { r.stop() }()
				f(r)
			})
		})
	}
}

func (r *rig) setUp() {
	r.eth0 = r.wire("eth0")
	r.address("192.0.2.1/24")
	r.address("2001:db8::1/64")
}

// address gives eth0 an address.
func (r *rig) address(a string) {
	r.t.Helper()
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: r.eth0, Prefix: pfx(a)}))
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
	o.Kernel, o.Settings, o.NexthopObjects = r.k, true, r.byID
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

func (r *rig) apply(c Change) { r.p.Apply(OwnerVXLAN, c) }

// wait lets everything happen that can happen at once.
func (r *rig) wait() {
	r.t.Helper()
	if r.fake != nil {
		synctest.Wait()
		return
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	r.must(r.p.Sync(ctx))
}

// resync reads everything again and repairs.
func (r *rig) resync() {
	r.t.Helper()
	r.must(r.p.Resync(r.t.Context()))
	r.wait()
}

// lies is how often in a row a lying kernel is asked again: once more than it lies.
const lies = 4

// eventually holds a condition to be true at once over a Fake, after every back-off where a fault is planned, and within
// seconds over the real kernel.
func (r *rig) eventually(condition func() error) {
	r.t.Helper()
	var err error
	if r.fake == nil {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			if err = condition(); err == nil {
				return
			}
			if time.Now().After(deadline) {
				break
			}
		}
	} else {
		if r.patient {
			time.Sleep(10 * retryMost)
		}
		synctest.Wait()
		err = condition()
		for range lies {
			if err == nil || !r.lying {
				break
			}
			r.resync()
			err = condition()
		}
	}
	if err != nil {
		r.t.Fatalf("%v\nstatuses\n  %s\ndevices %+v\nneighbours %+v", err, strings.Join(r.statuses(), "\n  "), r.p.Devices(), r.p.Neighbours())
	}
}

// ours is what the kernel holds of protocol 202, as ip(8) prints it, sorted.
func (r *rig) ours() []string {
	return r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoCaracal })
}

func (r *rig) routes(match func(*kernel.Route) bool) []string {
	r.t.Helper()
	links, err := r.far.ListLinks(r.t.Context())
	r.must(err)
	name := func(i int) string {
		for _, l := range links {
			if l.Index == i {
				return l.Name
			}
		}
		return fmt.Sprintf("if%d", i)
	}
	resolve := r.resolver()
	var lines []string
	for _, v6 := range []bool{false, true} {
		r.must(r.far.ListRoutes(r.t.Context(), v6, func(k *kernel.Route) bool {
			if match(k) {
				resolve(k)
				lines = append(lines, kernel.FormatRoute(k, name))
			}
			return true
		}))
	}
	sort.Strings(lines)
	return lines
}

// resolver returns what writes a route that leads to a nexthop object as if it had its next hops itself.
func (r *rig) resolver() func(*kernel.Route) {
	objects := map[uint32]kernel.Nexthop{}
	err := r.far.ListNexthops(r.t.Context(), func(n *kernel.Nexthop) bool {
		objects[n.ID] = *cloneNexthop(n)
		return true
	})
	if !errors.Is(err, kernel.ErrUnsupported) {
		r.must(err)
	}
	return func(k *kernel.Route) {
		n, ok := objects[k.NexthopID]
		if !ok {
			return
		}
		group := n.Group
		if len(group) == 0 {
			group = []kernel.GroupMember{{ID: n.ID, Weight: 1}}
		}
		k.NexthopID, k.NextHops = 0, nil
		for _, m := range group {
			one := objects[m.ID]
			k.NextHops = append(k.NextHops, kernel.NextHop{Gateway: one.Gateway, Link: one.Link, Onlink: one.Onlink, Weight: uint8(max(m.Weight, 1))})
		}
	}
}

// wantOurs holds the kernel to have exactly these routes of ours.
func (r *rig) wantOurs(want ...string) {
	r.t.Helper()
	want = slices.Sorted(slices.Values(want))
	r.eventually(func() error {
		if got := r.ours(); !slices.Equal(got, want) {
			return fmt.Errorf("kernel holds\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		return nil
	})
}

// wantTunnel holds the device of a set, its addresses, neighbours and FDB entries to be just as wanted.
func (r *rig) wantTunnel(c Change) {
	r.t.Helper()
	r.eventually(func() error { return r.tunnel(c) })
}

func (r *rig) tunnel(c Change) error {
	want := c.Links[0]
	l := r.device(want.Name)
	if l == nil {
		return fmt.Errorf("device %s is missing", want.Name)
	}
	v := l.VXLAN
	if !l.Up || l.MTU != want.MTU || l.MAC != want.MAC || v == nil || v.VNI != want.VXLAN.VNI || v.Port != want.VXLAN.Port || v.Local != want.VXLAN.Local ||
		v.Parent != r.device(want.VXLAN.Parent).Index || v.Learning {
		return fmt.Errorf("device is %+v %+v, want %+v", l, v, want)
	}
	addrs, err := r.far.ListAddresses(r.t.Context())
	r.must(err)
	var have []netip.Prefix
	for _, a := range addrs {
		if a.Link == l.Index && !a.Prefix.Addr().IsLinkLocalUnicast() {
			have = append(have, a.Prefix)
		}
	}
	if !slices.Equal(have, want.Addresses) {
		return fmt.Errorf("addresses %v, want %v", have, want.Addresses)
	}
	list, err := r.far.ListNeighbours(r.t.Context(), l.Index)
	r.must(err)
	var got, wanted []string
	for _, n := range list {
		if n.Permanent {
			got = append(got, fmt.Sprintf("%v %s %x", n.FDB, n.Addr, n.MAC))
		}
	}
	for _, n := range c.Neighbours {
		wanted = append(wanted, fmt.Sprintf("%v %s %x", n.FDB, n.Addr, n.MAC))
	}
	sort.Strings(got)
	sort.Strings(wanted)
	if !slices.Equal(got, wanted) {
		return fmt.Errorf("neighbours\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(wanted, "\n  "))
	}
	return nil
}

// device returns an interface as it is, or nil.
func (r *rig) device(name string) *kernel.Link {
	r.t.Helper()
	links, err := r.far.ListLinks(r.t.Context())
	r.must(err)
	for i := range links {
		if links[i].Name == name {
			return &links[i]
		}
	}
	return nil
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
	r.eventually(func() error {
		if got := r.statuses(); !slices.Equal(got, want) {
			return fmt.Errorf("statuses\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		return nil
	})
}

// write has another program write a route.
func (r *rig) write(v kernel.Verb, k kernel.Route) {
	r.t.Helper()
	r.must(r.far.WriteRoutes(r.t.Context(), []kernel.RouteOp{{Verb: v, Route: &k}}, func(_ int, err error) { r.t.Fatal(err) }))
}

// neighbour has another program write or delete a neighbour.
func (r *rig) neighbour(del bool, n kernel.Neighbour) {
	r.t.Helper()
	n.Link = r.device(DeviceVXLAN).Index
	r.must(r.far.WriteNeighbours(r.t.Context(), []kernel.NeighbourOp{{Delete: del, Neighbour: n}}, func(_ int, err error) { r.t.Fatal(err) }))
}

// their is a route of another program by eth0.
func (r *rig) their(dst, gw string) kernel.Route {
	return kernel.Route{
		Dst: pfx(dst), Metric: Metric, Type: kernel.Unicast, Protocol: kernel.ProtoStatic,
		NextHops: []kernel.NextHop{{Gateway: addr(gw), Link: r.eth0, Onlink: true}},
	}
}

// via is a direct route by eth0.
func via(dst, gw string) Route { return viaDevice(dst, gw, "eth0") }

func viaDevice(dst, gw, device string) Route {
	return Route{Dst: pfx(dst), Type: kernel.Unicast, NextHops: []NextHop{{Gateway: addr(gw), Device: device, Onlink: true}}}
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

// vtep adds one remote node: neighbour, FDB entry, route through the tunnel.
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

// vxlanSet is a whole VXLAN set with remote nodes and an own block.
func vxlanSet(nodes ...byte) Change {
	c := Change{Whole: true, Links: []Link{vxlanLink()}, Routes: []Route{blackhole("10.244.0.0/26")}}
	for _, n := range nodes {
		c = vtep(c, n)
	}
	return c
}

// vxlanRoutes is what the kernel then holds.
func vxlanRoutes(nodes ...byte) []string {
	lines := []string{"blackhole 10.244.0.0/26 proto 202 metric 1024"}
	for _, n := range nodes {
		lines = append(lines, fmt.Sprintf("10.244.%d.0/26 via 10.244.%d.0 dev vxlan.calico proto 202 metric 1024 onlink mtu 1450", n, n))
	}
	return lines
}

// direct is how the kernel prints via(dst, gw).
func direct(dst, gw string) string {
	return dst + " via " + gw + " dev eth0 proto 202 metric 1024 onlink"
}
