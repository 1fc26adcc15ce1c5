package routes

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// slow is a kernel whose events wait until they are let go, and before whose writes something else may happen: what the
// scheduler does on a bad day, on demand.
type slow struct {
	kernel.Kernel
	mu     sync.Mutex
	before func()
	free   chan struct{} // closed: events flow
}

func newSlow(k kernel.Kernel) *slow {
	s := &slow{Kernel: k, free: make(chan struct{})}
	close(s.free)
	return s
}

// hold keeps events back; the function returned lets them go.
func (s *slow) hold() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := make(chan struct{})
	s.free = free
	return func() { close(free) }
}

func (s *slow) Watch(ctx context.Context) (<-chan kernel.Event, error) {
	in, err := s.Kernel.Watch(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan kernel.Event)
	go func() {
		defer close(out)
		for e := range in {
			s.mu.Lock()
			free := s.free
			s.mu.Unlock()
			select {
			case <-free:
			case <-ctx.Done():
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (s *slow) WriteRoutes(ctx context.Context, ops []kernel.RouteOp, failed func(int, error)) error {
	s.mu.Lock()
	before := s.before
	s.before = nil
	s.mu.Unlock()
	if before != nil {
		before()
	}
	return s.Kernel.WriteRoutes(ctx, ops, failed)
}

// A foreign route that comes between our decision and our write is not replaced.
func TestForeignRouteComesFirst(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		r.ready()
		s.before = func() { r.write(kernel.Add, r.their("10.1.0.0/26", "192.0.2.99")) }
		r.apply(whole(via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7")))
		r.wantOurs(direct("10.2.0.0/26", "192.0.2.7"))
		r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol static has this key", "10.2.0.0/26 vxlan installed")
		r.wantForeign(0, map[string]string{"10.1.0.0/26": "192.0.2.99"})
	})
}

// A key said to be taken that is free is read and written again at once.
func TestTakenKeyIsReadAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready()
		start := time.Now()
		fault := r.fake.Inject(kerneltest.Fault{Kind: kerneltest.RouteOpFails, Err: kernel.FromErrno(syscall.EEXIST)})
		r.apply(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		if fault.Fired() != 1 || time.Since(start) != 0 {
			t.Errorf("fired %d times, took %s", fault.Fired(), time.Since(start))
		}
	})
}

// Echoes that come late, after later writes of the same key, are not taken for somebody else's doing.
func TestLateEchoes(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		r.ready(whole(via("10.1.0.0/26", "192.0.2.6")))
		r.wait()
		release := s.hold()
		for _, c := range []Change{
			{Routes: []Route{via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7")}},
			{Routes: []Route{via("10.1.0.0/26", "192.0.2.8")}},
			{Withdraw: []Key{key("10.1.0.0/26"), key("10.2.0.0/26")}},
			{Routes: []Route{via("10.1.0.0/26", "192.0.2.9"), via("10.2.0.0/26", "192.0.2.9")}},
			{Routes: []Route{via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.8")}},
			{Routes: []Route{via("10.2.0.0/26", "192.0.2.9")}},
		} {
			r.apply(c)
			r.wait()
		}
		writes := r.p.Stats().Writes
		release()
		time.Sleep(time.Minute)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.9"))
		if now := r.p.Stats(); now.Writes != writes || now.Repairs != 0 {
			t.Errorf("%d writes after the late echoes, %d repairs", now.Writes-writes, now.Repairs)
		}
		for _, victim := range []kernel.Route{r.their("10.1.0.0/26", "192.0.2.7"), r.their("10.2.0.0/26", "192.0.2.9")} {
			victim.Protocol = kernel.ProtoCaracal
			r.write(kernel.Delete, victim) // and the truth is believed again, at once
			r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.9"))
		}
	})
}

// A deletion by another program right behind a write of ours whose echo never came is repaired all the same.
func TestEchoThatNeverComes(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		victim := r.their("10.1.0.0/26", "192.0.2.7")
		victim.Protocol = kernel.ProtoCaracal
		same := r.their("10.1.0.0/26", "192.0.2.8")
		same.Protocol = kernel.ProtoCaracal
		// Another program does what we are about to do: the kernel then says nothing of ours.
		s.before = func() { r.write(kernel.Replace, same) }
		r.apply(Change{Routes: []Route{via("10.1.0.0/26", "192.0.2.8")}})
		r.wait()
		r.write(kernel.Delete, victim)
		time.Sleep(echoPatience)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"))
	})
}

// A device that we have made is not made again while its events are on their way.
func TestLateDeviceEvents(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		r.ready()
		r.wait()
		release := s.hold()
		set := vxlanSet(2)
		r.apply(set)
		r.wait()
		set.Links[0].MTU = 1400
		r.apply(Change{Links: set.Links})
		r.wait()
		release()
		r.wantTunnel(set)
		if n := r.fake.Calls("CreateLink"); n != 1 {
			t.Errorf("the device was made %d times", n)
		}
		release = s.hold()
		set.Links = []Link{vxlanLink()}
		set.Links[0].VXLAN.VNI = 77 // made anew
		r.apply(Change{Links: set.Links})
		r.wait()
		r.address("192.0.2.55/32")
		r.apply(Change{Routes: []Route{via("10.1.0.0/26", "192.0.2.7")}})
		r.wait()
		release()
		r.wantTunnel(set)
		if n := r.fake.Calls("DeleteLink"); n != 1 {
			t.Errorf("devices were deleted %d times", n)
		}
	})
}

// IPv6 joins a route that another program appends to ours. It must survive whatever we do with ours.
func TestJoinedNextHops(t *testing.T) {
	bubble(t, func(r *rig) {
		theirs := r.their("2001:db8:1::/64", "2001:db8::99")
		r.ready(whole(via("2001:db8:1::/64", "2001:db8::7")))
		r.must(r.fake.Append(&theirs))
		const both = "2001:db8:1::/64 proto 202 metric 1024 nexthop via 2001:db8::7 dev eth0 weight 1 onlink nexthop via 2001:db8::99 dev eth0 weight 1 onlink"
		r.wantOurs(both)
		r.wantStatuses("2001:db8:1::/64 vxlan foreign: next hops of another program have joined this route")
		time.Sleep(time.Hour)
		r.resync()
		r.wantOurs(both)
		r.apply(whole(via("2001:db8:1::/64", "2001:db8::8"))) // ours moves: it cannot without theirs, so it makes way
		r.wantOurs()
		r.wantStatuses("2001:db8:1::/64 vxlan foreign: route of protocol static has this key")
		r.write(kernel.Delete, theirs)
		r.wantOurs(direct("2001:db8:1::/64", "2001:db8::8"))
		theirs.Protocol = kernel.ProtoCaracal // a next hop under our number is ours to remove
		r.must(r.fake.Append(&theirs))
		r.wantOurs(direct("2001:db8:1::/64", "2001:db8::8"))
		r.wantStatuses("2001:db8:1::/64 vxlan installed")
	})
}

func TestMismatch(t *testing.T) {
	want := kernel.Link{Kind: "vxlan", VXLAN: &kernel.VXLANAttrs{VNI: 4096, Port: 4789, Parent: 2, Local: addr("192.0.2.1")}}
	if why := mismatch(&want, &want); why != "" {
		t.Fatalf("equal devices differ in %q", why)
	}
	for name, change := range map[string]func(*kernel.VXLANAttrs){
		"VNI": func(v *kernel.VXLANAttrs) { v.VNI++ }, "port": func(v *kernel.VXLANAttrs) { v.Port++ }, "parent": func(v *kernel.VXLANAttrs) { v.Parent++ },
		"local": func(v *kernel.VXLANAttrs) { v.Local = addr("192.0.2.2") }, "group": func(v *kernel.VXLANAttrs) { v.Group = addr("239.1.1.1") },
		"learning": func(v *kernel.VXLANAttrs) { v.Learning = true }, "external": func(v *kernel.VXLANAttrs) { v.External = true },
		"l2miss": func(v *kernel.VXLANAttrs) { v.L2Miss = true }, "l3miss": func(v *kernel.VXLANAttrs) { v.L3Miss = true },
		"proxy": func(v *kernel.VXLANAttrs) { v.Proxy = true }, "rsc": func(v *kernel.VXLANAttrs) { v.RSC = true }, "gbp": func(v *kernel.VXLANAttrs) { v.GBP = true },
	} {
		have := want
		v := *want.VXLAN
		change(&v)
		have.VXLAN = &v
		if mismatch(&have, &want) == "" {
			t.Errorf("%s: no difference seen", name)
		}
	}
}
