package routes

import (
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// What the model found, one by one.

// on is a foreign route by another interface.
func (r *rig) on(index int, dst, gw string) kernel.Route {
	f := r.their(dst, gw)
	f.NextHops[0].Link = index
	return f
}

// A foreign route that the kernel drops without a word frees its key.
func foreignGoesWithItsInterface(r *rig) {
	eth1 := r.wire("eth1")
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: eth1, Prefix: pfx("198.51.100.1/24")}))
	bySource := r.their("10.2.0.0/26", "192.0.2.99")
	bySource.Src = addr("198.51.100.1")
	multi := r.on(eth1, "10.3.0.0/26", "198.51.100.99")
	multi.NextHops = append(multi.NextHops, r.their("10.3.0.0/26", "192.0.2.99").NextHops...)
	for _, f := range []kernel.Route{r.on(eth1, "10.1.0.0/26", "198.51.100.99"), bySource, multi} {
		r.write(kernel.Add, f)
	}
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7"), via("10.3.0.0/26", "192.0.2.7")))
	r.wantOurs()
	r.must(r.far.DeleteAddress(r.t.Context(), kernel.Address{Link: eth1, Prefix: pfx("198.51.100.1/24")}))
	r.must(r.far.DeleteLink(r.t.Context(), eth1))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7"), direct("10.3.0.0/26", "192.0.2.7"))
}

// IPv6 changes the MTU of routes with that of their interface, without a word.
func routeMTUFollows(r *rig) {
	wish := via("2001:db8:1::/64", "2001:db8::7")
	wish.MTU = 1450
	r.ready(whole(wish))
	want := direct("2001:db8:1::/64", "2001:db8::7") + " mtu 1450"
	r.wantOurs(want)
	r.must(r.far.SetLink(r.t.Context(), r.eth0, 1400, [6]byte{}, true))
	r.wantOurs(want)
}

// held runs f with a Programmer over a Fake whose events wait while change runs and everything is read: the read is ahead of the events.
func held(t *testing.T, c Change, change func(r *rig, eth1 int), check func(r *rig)) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		eth1 := r.wire("eth1")
		r.ready(c)
		release := s.hold()
		change(r, eth1)
		r.must(r.p.Resync(r.t.Context()))
		release()
		check(r)
	})
}

// Events that are older than a read bring back nothing that the kernel has dropped without a word.
func TestReadAheadOfEvents(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *rig, eth1 int)
	}{
		{"interface down", func(r *rig, eth1 int) {
			r.write(kernel.Add, r.on(eth1, "10.9.0.0/26", "198.51.100.99"))
			r.must(r.far.SetLink(r.t.Context(), eth1, 0, [6]byte{}, false))
		}},
		{"interface deleted", func(r *rig, eth1 int) {
			r.write(kernel.Add, r.on(eth1, "10.9.0.0/26", "198.51.100.99"))
			r.must(r.far.DeleteLink(r.t.Context(), eth1))
		}},
		{"last address gone", func(r *rig, eth1 int) {
			a := kernel.Address{Link: eth1, Prefix: pfx("198.51.100.1/24")}
			r.must(r.far.AddAddress(r.t.Context(), a))
			r.write(kernel.Add, r.on(eth1, "10.9.0.0/26", "198.51.100.99"))
			r.must(r.far.DeleteAddress(r.t.Context(), a))
		}},
		{"replaced and deleted", func(r *rig, eth1 int) {
			r.write(kernel.Add, r.their("10.9.0.0/26", "192.0.2.98"))
			r.write(kernel.Replace, r.their("10.9.0.0/26", "192.0.2.99"))
		}},
		{"replaced and deleted, IPv6", func(r *rig, eth1 int) {
			r.write(kernel.Add, r.their("2001:db8:9::/64", "2001:db8::98"))
			hole := r.their("2001:db8:9::/64", "2001:db8::99")
			hole.Type, hole.NextHops = kernel.Blackhole, nil
			r.write(kernel.Replace, hole)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			held(t, whole(), c.change, func(r *rig) {
				r.wait()
				for _, k := range []kernel.RouteKey{{Dst: pfx("10.9.0.0/26"), Metric: Metric}, {Dst: pfx("2001:db8:9::/64"), Metric: Metric}} {
					if theirs, ok := r.foreignAt(k); ok {
						r.write(kernel.Delete, theirs)
					}
				}
				r.apply(whole(via("10.9.0.0/26", "192.0.2.7"), via("2001:db8:9::/64", "2001:db8::7")))
				r.wantOurs(direct("10.9.0.0/26", "192.0.2.7"), direct("2001:db8:9::/64", "2001:db8::7"))
			})
		})
	}
}

func (r *rig) foreignAt(k kernel.RouteKey) (found kernel.Route, ok bool) {
	r.must(r.far.ListRoutes(r.t.Context(), k.Dst.Addr().Is6(), func(f *kernel.Route) bool {
		if f.Dst == k.Dst && f.Metric == k.Metric && f.Protocol != kernel.ProtoCaracal {
			found, ok = *f, true
		}
		return true
	}))
	return found, ok
}

// ways is an IPv6 route of three equal paths.
func ways(devices ...string) Route {
	r := Route{Dst: pfx("2001:db8:1::/64"), Type: kernel.Unicast}
	for i, d := range devices {
		r.NextHops = append(r.NextHops, NextHop{Gateway: addr("2001:db8::" + string(rune('7'+i))), Device: d, Onlink: true})
	}
	return r
}

// Next hops that go one by one while an echo is awaited are all gone in the end.
func TestPathsGoOneByOneInDoubt(t *testing.T) {
	inline(t, func(r *rig) {
		r.ready(whole(ways("eth0", "eth0", "eth0")))
		r.wait()
		r.p.mu.Lock()
		e := r.p.routes.Get(kernel.RouteKey{Dst: pfx("2001:db8:1::/64"), Metric: Metric})
		e.Note.echoes, e.Note.mute = 1, false
		full := e.Actual()
		for _, h := range full.hops[:2] {
			gone := full.route(e.Key())
			gone.NextHops = []kernel.NextHop{h}
			r.p.applyEvent(&kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: gone})
		}
		left := r.p.suspects[e].form
		delete(r.p.suspects, e)
		e.Note.echoes = 0
		r.p.mu.Unlock()
		if left == nil || len(left.hops) != 1 || left.hops[0] != full.hops[2] {
			t.Errorf("two of three next hops went, and %+v are left of %+v", left, full.hops)
		}
	})
}

// A route of which the kernel keeps a dead next hop, because we deleted the living one before we heard that the other was dead, is
// removed when the interface comes back.
func TestDeadPathLeftBehind(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		eth1 := r.wire("eth1")
		r.ready(whole(ways("eth0", "eth1")))
		r.wait()
		s.before = func() { r.must(r.far.SetLink(r.t.Context(), eth1, 0, [6]byte{}, false)) } // before we delete the way by eth0
		only := ways("eth0", "eth1")
		only.NextHops = only.NextHops[1:]
		r.apply(whole(only))
		r.wait()
		r.apply(whole())
		r.wantOurs()
		r.must(r.far.SetLink(r.t.Context(), eth1, 0, [6]byte{}, true))
		r.wantOurs()
	})
}

// A multipath route whose other next hop is dead, though its interface is up, goes with the last living one.
func TestDeadPathOnAnInterfaceThatIsUp(t *testing.T) {
	bubble(t, func(r *rig) {
		eth1 := r.wire("eth1")
		a := kernel.Address{Link: eth1, Prefix: pfx("198.51.100.1/24")}
		r.must(r.far.AddAddress(r.t.Context(), a))
		hops := []NextHop{{Gateway: addr("192.0.2.7"), Device: "eth0", Onlink: true}, {Gateway: addr("198.51.100.7"), Device: "eth1", Onlink: true}}
		r.ready(whole(Route{Dst: pfx("10.1.0.0/26"), NextHops: hops}))
		r.wait()
		r.must(r.far.DeleteAddress(r.t.Context(), a)) // the next hop by eth1 is dead from here on
		r.wait()
		for _, up := range []bool{false, true} {
			r.must(r.far.SetLink(r.t.Context(), r.eth0, 0, [6]byte{}, up))
		}
		r.wantOurs("10.1.0.0/26 proto 202 metric 1024 nexthop via 192.0.2.7 dev eth0 weight 1 onlink nexthop via 198.51.100.7 dev eth1 weight 1 onlink")
	})
}

// A deletion that is told after we have added the route again, of which nothing is told, does not make us forget it.
func TestOldDeletionIsDoubted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		old := r.their("10.1.0.0/26", "192.0.2.7")
		old.Protocol = kernel.ProtoCaracal
		r.p.mu.Lock()
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: old})
		r.p.mu.Unlock()
		r.apply(whole())
		if r.p.muted {
			r.wantOurs()
		}
	})
}

// Echoes that were lost do not swallow what another program does later.
func TestLostEchoSwallowsNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		r.p.mu.Lock()
		e := r.p.routes.Get(kernel.RouteKey{Dst: pfx("10.1.0.0/26"), Metric: Metric})
		e.Note.echoes, e.Note.mute = 2, true // as two writes leave it whose events are lost
		r.p.mu.Unlock()
		r.fake.LoseEvents()
		r.wait()
		theirs := r.their("10.1.0.0/26", "192.0.2.9")
		theirs.Protocol = kernel.ProtoCaracal
		r.write(kernel.Replace, theirs)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
	})
}

// A device that was made anew keeps its name when what is heard late of the one before ends with its end.
func TestLateEndOfAFormerDevice(t *testing.T) {
	bubble(t, func(r *rig) {
		set := vxlanSet(2)
		r.ready(set)
		r.wantTunnel(set)
		former := *r.device(DeviceVXLAN)
		former.Index += 1000
		r.p.mu.Lock()
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventLink, Link: former})
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventLink, Deleted: true, Link: former})
		r.p.mu.Unlock()
		time.Sleep(time.Minute)
		r.resync()
		r.wantTunnel(set)
		r.wantOurs(vxlanRoutes(2)...)
		if d := r.p.Devices(); len(d) != 1 || d[0].Outcome != Installed {
			t.Errorf("devices %+v", d)
		}
	})
}

// The kernel tells that an interface went down, or that the last address of one went, and drops the routes after that; a read in between shows them all the same.
func TestReadBetweenNewsAndFlush(t *testing.T) {
	for _, name := range []string{"interface", "address"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				eth1 := r.wire("eth1")
				a := kernel.Address{Link: eth1, Prefix: pfx("198.51.100.1/24")}
				r.must(r.far.AddAddress(r.t.Context(), a))
				r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
				r.wait()
				r.write(kernel.Add, r.on(eth1, "10.1.1.0/26", "198.51.100.9"))
				r.wait()
				before := r.p.Stats().Foreign
				r.fake.FlushLate(time.Second)
				if name == "interface" {
					r.must(r.far.SetLink(r.t.Context(), eth1, 0, [6]byte{}, false))
				} else {
					r.must(r.far.DeleteAddress(r.t.Context(), a))
				}
				r.p.mu.Lock()
				r.p.readRoutes(0, "a test wants it")
				r.p.mu.Unlock()
				r.wait()
				time.Sleep(time.Minute)
				r.wait()
				if now := r.p.Stats().Foreign; now > before-2 {
					t.Errorf("%d routes of others known, before %d", now, before)
				}
			})
		})
	}
}

// News that are older than a read do not make us forget what we have added since then, and what nobody wants meanwhile.
func TestOldNewsOfAnInterface(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		down := *r.device("eth0")
		up := down
		down.Up = false
		r.apply(whole())
		r.p.mu.Lock()
		r.p.takeInbox(r.t.Context())
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventLink, Link: down})
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventLink, Link: up})
		r.p.mu.Unlock()
		r.wait()
		r.wantOurs()
	})
}

// What the kernel refuses with its nexthop object is asked about, and does not keep a route of another metric once it is another program's.
func TestRefusedWithItsObjectHoldsNothingForGood(t *testing.T) {
	bubble(t, func(r *rig) {
		sourced := via("10.1.0.0/26", "192.0.2.7")
		sourced.Metric, sourced.Src = 512, addr("198.51.100.1") // which no interface has
		r.ready(whole(via("10.1.0.0/26", "192.0.2.8")))
		r.wait()
		r.apply(whole(sourced))
		r.wait()
		theirs := r.their("10.1.0.0/26", "192.0.2.9")
		theirs.Metric = 512
		r.write(kernel.Add, theirs)
		time.Sleep(time.Minute)
		r.wantOurs()
	})
}

// Nor do news of another program's route under our key that is older than what we have added, and of its interface's end.
func TestOldNewsOfAnotherRoute(t *testing.T) {
	bubble(t, func(r *rig) {
		eth1 := r.wire("eth1")
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		theirs := r.on(eth1, "10.1.0.0/26", "198.51.100.9")
		theirs.Protocol = kernel.ProtoCaracal
		down := *r.device("eth1")
		down.Up = false
		r.apply(whole())
		r.p.mu.Lock()
		r.p.takeInbox(r.t.Context())
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventRoute, Replaced: true, Route: theirs})
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventLink, Link: down})
		r.p.mu.Unlock()
		r.wait()
		r.wantOurs()
	})
}

// A route of another program goes with its nexthop object, also where the objects could not be read until both were gone.
func TestRouteOfAnObjectThatWasNeverSeen(t *testing.T) {
	bubble(t, func(r *rig) {
		eth1 := r.wire("eth1")
		theirs := r.their("10.1.0.0/26", "192.0.2.9")
		theirs.NextHops, theirs.NexthopID = nil, 77
		r.must(r.far.WriteNexthops(t.Context(), []kernel.NexthopOp{{Verb: kernel.Add, Nexthop: &kernel.Nexthop{
			ID: 77, Protocol: kernel.ProtoStatic, Gateway: addr("192.0.2.9"), Link: eth1, Onlink: true,
		}}}, func(_ int, err error) { t.Error(err) }))
		r.write(kernel.Add, theirs)
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.ListNexthopsFails, Err: kernel.FromErrno(syscall.ENOMEM), Times: 4})
		r.ready()
		r.wait()
		if n := r.p.Stats().Foreign; n == 0 {
			t.Fatal("their route is not known to begin with")
		}
		before := r.p.Stats().Foreign
		r.fake.SetCarrier(eth1, false)
		time.Sleep(time.Minute)
		r.wait()
		if now := r.p.Stats().Foreign; now != before-1 {
			t.Errorf("%d routes of others known, before %d", now, before)
		}
	})
}

// A route that leads to an object goes with it when an interface loses its carrier, also where a read was ahead of the news of both and found the number given to another object.
func TestRouteOfAnObjectThatIsAnother(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		object := func(link int) {
			r.must(r.far.WriteNexthops(r.t.Context(), []kernel.NexthopOp{{Verb: kernel.Add, Nexthop: &kernel.Nexthop{
				ID: 77, Protocol: kernel.ProtoStatic, Gateway: addr("192.0.2.9"), Link: link, Onlink: true,
			}}}, func(_ int, err error) { r.t.Error(err) }))
		}
		eth1 := r.wire("eth1")
		object(eth1)
		r.ready()
		r.wait()
		before := r.p.Stats().Foreign
		theirs := r.their("10.1.0.0/26", "192.0.2.9")
		theirs.NextHops, theirs.NexthopID = nil, 77
		release := s.hold()
		r.write(kernel.Add, theirs)
		r.fake.SetCarrier(eth1, false)
		object(r.eth0)
		r.must(r.p.Resync(r.t.Context()))
		release()
		r.wait()
		if now := r.p.Stats().Foreign; now != before {
			r.t.Errorf("%d routes of others known, %d are there", now, before)
		}
	})
}
