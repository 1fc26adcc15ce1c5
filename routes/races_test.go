package routes

import (
	"context"
	"net/netip"
	"strings"
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
	inline(t, func(r *rig) {
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
			{Routes: []Route{via("10.2.0.0/26", "192.0.2.9"), via("10.3.0.0/26", "192.0.2.9")}},
			{Withdraw: []Key{key("10.3.0.0/26")}},
			{Routes: []Route{via("10.3.0.0/26", "192.0.2.9")}}, // the last write is an add, which may have no echo of its own
		} {
			r.apply(c)
			r.wait()
		}
		writes := r.p.Stats().Writes
		release()
		time.Sleep(time.Minute)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.9"), direct("10.3.0.0/26", "192.0.2.9"))
		if now := r.p.Stats(); now.Writes != writes || now.Repairs != 0 {
			t.Errorf("%d writes after the late echoes, %d repairs", now.Writes-writes, now.Repairs)
		}
		for _, victim := range []kernel.Route{r.their("10.1.0.0/26", "192.0.2.7"), r.their("10.2.0.0/26", "192.0.2.9"), r.their("10.3.0.0/26", "192.0.2.9")} {
			victim.Protocol = kernel.ProtoCaracal
			r.write(kernel.Delete, victim) // and the truth is believed again, at once
			r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.9"), direct("10.3.0.0/26", "192.0.2.9"))
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
	inline(t, func(r *rig) {
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

// Somebody deletes our route, and before we hear of it we write it anew: the old news must not be believed.
func TestOldNews(t *testing.T) {
	inline(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		release := s.hold()
		victim := r.their("10.1.0.0/26", "192.0.2.7")
		victim.Protocol = kernel.ProtoCaracal
		r.write(kernel.Delete, victim)
		r.apply(whole(via("10.1.0.0/26", "192.0.2.8")))
		r.wait()
		before := r.p.Stats()
		release()
		time.Sleep(time.Minute)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"))
		if now := r.p.Stats(); now.Writes != before.Writes || now.Repairs != before.Repairs || now.Reads != before.Reads || now.Refused != 0 {
			t.Errorf("old news cost %+v, before %+v", now, before)
		}
	})
}

// many is a change with more routes than two batches.
func many() Change {
	c := Change{}
	for i := range 3 * batchSize {
		c.Routes = append(c.Routes, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24), NextHops: via("11.0.0.0/24", "192.0.2.7").NextHops})
	}
	return c
}

// In a change that is written while it is worked in, the last word on a key counts, also when the first was refused.
func TestLastWordCounts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready()
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.RouteOpFails, Err: kernel.FromErrno(syscall.ENOMEM)})
		c := many()
		again, nowhere := c.Routes[1], c.Routes[0]
		again.NextHops = via("10.0.0.0/26", "192.0.2.8").NextHops
		nowhere.NextHops, nowhere.Unroutable = nil, "gone"
		c.Routes = append(c.Routes, again, nowhere)
		r.apply(c)
		time.Sleep(time.Minute)
		r.wait()
		counts := r.p.Counts()[OwnerVXLAN]
		if got := r.p.Snapshot(func(s *Status) bool { return s.Route.Dst == again.Dst }); counts[Installed] != 3*batchSize-1 || counts[Unroutable] != 1 ||
			withoutNumber(got[0].Kernel) != direct(again.Dst.String(), "192.0.2.8") {
			t.Errorf("counts %v, %+v", counts, got)
		}
		if got := len(r.ours()); got != 3*batchSize-1 {
			t.Errorf("%d routes in the kernel", got)
		}
	})
}

// Neighbours come before the routes that need them, also in a great change.
func TestNeighboursFirst(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		r.ready(vxlanSet())
		r.wantTunnel(vxlanSet())
		c := vtep(many(), 9)
		s.before = func() {
			if n, err := r.far.ListNeighbours(r.t.Context(), r.device(DeviceVXLAN).Index); err != nil || len(n) != 2 {
				t.Errorf("routes were written while the device had neighbours %v (%v)", n, err)
			}
		}
		r.apply(c)
		r.wait()
		if s.before != nil || len(r.ours()) != len(c.Routes)+1 {
			t.Errorf("%d routes in the kernel", len(r.ours()))
		}
	})
}

// Routes may share their next hops and still differ.
func TestSharedNextHops(t *testing.T) {
	bubble(t, func(r *rig) {
		hops := via("10.0.0.0/26", "192.0.2.7").NextHops
		r.ready(whole(Route{Dst: pfx("10.1.0.0/26"), NextHops: hops}, Route{Dst: pfx("10.2.0.0/26"), NextHops: hops, MTU: 1400},
			Route{Dst: pfx("10.3.0.0/26"), NextHops: hops, Src: addr("192.0.2.1")}, Route{Dst: pfx("10.4.0.0/26"), NextHops: hops, Type: kernel.Unreachable}))
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7")+" mtu 1400",
			"10.3.0.0/26 via 192.0.2.7 dev eth0 proto 202 src 192.0.2.1 metric 1024 onlink", "unreachable 10.4.0.0/26 proto 202 metric 1024")
	})
}

// A resync that cannot read says so; one that can, does not.
func TestResyncError(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		fault := r.fake.Inject(kerneltest.Fault{Kind: kerneltest.ListAddressesFails, Times: 1 << 20, Err: kernel.FromErrno(syscall.ENOMEM)})
		if err := r.p.Resync(r.t.Context()); err == nil || !strings.Contains(err.Error(), "addresses") {
			t.Errorf("resync said %v", err)
		}
		fault.Remove()
		r.resync()
	})
}
