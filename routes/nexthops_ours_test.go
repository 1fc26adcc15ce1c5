package routes

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// byObject runs f over Fakes on which routes lead to nexthop objects.
func byObject(t *testing.T, f func(*rig)) {
	t.Helper()
	inModes(t, slices.DeleteFunc(modes(), func(m mode) bool { return !m.byID }), f)
}

// hundred are routes by one gateway.
func hundred(gw string) Change {
	c := Change{Whole: true}
	hops := via("10.0.0.0/26", gw).NextHops
	for i := range 100 {
		c.Routes = append(c.Routes, Route{Dst: pfx(fmt.Sprintf("10.1.%d.0/26", i)), NextHops: hops})
	}
	return c
}

func hundredLines(gw string) (lines []string) {
	for i := range 100 {
		lines = append(lines, direct(fmt.Sprintf("10.1.%d.0/26", i), gw))
	}
	return lines
}

// kernelObjects are the nexthop objects of the kernel, as ip(8) prints them, without their numbers.
func (r *rig) kernelObjects() (lines []string) {
	r.must(r.far.ListNexthops(r.t.Context(), func(n *kernel.Nexthop) bool {
		_, line, _ := strings.Cut(kernel.FormatNexthop(n, func(i int) string { return fmt.Sprint("if", i) }), " ")
		_, line, _ = strings.Cut(line, " ")
		lines = append(lines, line)
		return true
	}))
	slices.Sort(lines)
	return lines
}

func (r *rig) wantObjects(want ...string) {
	r.t.Helper()
	r.eventually(func() error {
		if got := r.kernelObjects(); !slices.Equal(got, want) {
			return fmt.Errorf("nexthop objects\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		return nil
	})
}

func (r *rig) object(gw string) string {
	return fmt.Sprintf("via %s dev if%d proto 202 onlink", gw, r.eth0)
}

// A way out that changes for all its routes is one write; the routes are not touched, nor another program's that leads the same way.
func TestOneReplacementMovesAll(t *testing.T) {
	byObject(t, func(r *rig) {
		r.ready(hundred("192.0.2.7"))
		r.wantOurs(hundredLines("192.0.2.7")...)
		r.wantObjects(r.object("192.0.2.7"))
		before, objects := r.fake.Calls("RouteOps"), r.fake.Calls("NexthopOps")
		r.apply(hundred("192.0.2.8"))
		r.wantOurs(hundredLines("192.0.2.8")...)
		r.wantObjects(r.object("192.0.2.8"))
		if n, o := r.fake.Calls("RouteOps")-before, r.fake.Calls("NexthopOps")-objects; n != 0 || o != 1 || before == 0 {
			t.Errorf("%d writes of routes and %d of objects, want 0 and 1", n, o)
		}
		got := r.told("10.1.7.0/26")
		if last := got[len(got)-1]; !strings.Contains(last, "written [10.1.7.0/26 via 192.0.2.8 dev eth0") {
			t.Errorf("the history ends with %q", last)
		}
		// One of them goes elsewhere: only that one is written.
		before = r.fake.Calls("RouteOps")
		r.apply(Change{Routes: []Route{via("10.1.7.0/26", "192.0.2.9")}})
		r.wait()
		if n := r.fake.Calls("RouteOps") - before; n != 1 {
			t.Errorf("%d writes of routes, want 1", n)
		}
		r.wantObjects(r.object("192.0.2.8"), r.object("192.0.2.9"))
	})
}

// What another program's route leads to is not moved under it, and not removed while it does.
func TestObjectsThatOthersLeanOn(t *testing.T) {
	byObject(t, func(r *rig) {
		r.ready(hundred("192.0.2.7"))
		r.wait()
		theirs := r.their("10.9.0.0/26", "192.0.2.7")
		theirs.NextHops, theirs.NexthopID = nil, firstNexthop
		r.write(kernel.Add, theirs)
		r.wait()
		r.apply(hundred("192.0.2.8"))
		r.wantOurs(hundredLines("192.0.2.8")...)
		want := []string{strings.Replace(direct("10.9.0.0/26", "192.0.2.7"), "proto 202", "proto static", 1)}
		foreign := func() []string {
			return r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoStatic })
		}
		if got := foreign(); !slices.Equal(got, want) {
			t.Errorf("the other program has %q, want %q", got, want)
		}
		r.apply(whole())
		for range 3 {
			r.resync()
		}
		r.wantObjects(r.object("192.0.2.7")) // and the one nobody leans on is gone
		if got := foreign(); !slices.Equal(got, want) {
			t.Errorf("the other program has %q, want %q", got, want)
		}
	})
}

// Objects survive a restart with their numbers: nothing is written.
func TestObjectsAreTakenOver(t *testing.T) {
	byObject(t, func(r *rig) {
		set := hundred("192.0.2.7")
		two := []NextHop{{Gateway: addr("192.0.2.7"), Device: "eth0", Onlink: true}, {Gateway: addr("192.0.2.8"), Device: "eth0", Onlink: true, Weight: 3}}
		set.Routes = append(set.Routes, Route{Dst: pfx("10.2.0.0/26"), NextHops: two})
		r.ready(set)
		r.wait()
		want := r.ours()
		before, objects := r.fake.Calls("RouteOps"), r.fake.Calls("NexthopOps")
		r.ready(set)
		r.wantOurs(want...)
		if n, o := r.fake.Calls("RouteOps")-before, r.fake.Calls("NexthopOps")-objects; n != 0 || o != 2 || len(want) != 101 {
			t.Errorf("%d writes of routes and %d of objects, want 0 and the 2 of the probe", n, o)
		}
	})
}

// A kernel that refuses an object gets routes with next hops of their own; when it takes the object, they lead there.
func TestRefusedObject(t *testing.T) {
	byObject(t, func(r *rig) {
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.NexthopOpFails, Nth: 3, Times: 4, Err: kernel.FromErrno(syscall.EBUSY)}) // after the probe
		r.ready(hundred("192.0.2.7"))
		r.wantOurs(hundredLines("192.0.2.7")...)
		r.wantObjects()
		r.patient = true
		r.wantObjects(r.object("192.0.2.7"))
		r.wantOurs(hundredLines("192.0.2.7")...)
		if s := r.p.Snapshot(nil); !strings.Contains(s[0].Kernel, " nhid ") {
			t.Errorf("the routes still have next hops of their own: %s", s[0].Kernel)
		}
	})
}

// Who deletes an object has all its routes back at once. Who goes on has the routes without it, until it is left alone.
func TestObjectFoughtOver(t *testing.T) {
	byObject(t, func(r *rig) {
		r.ready(hundred("192.0.2.7"))
		r.wait()
		for i := range freeRepairs + 1 {
			all := 0
			r.must(r.far.ListNexthops(t.Context(), func(n *kernel.Nexthop) bool {
				all++
				r.must(r.far.WriteNexthops(t.Context(), []kernel.NexthopOp{{Verb: kernel.Delete, Nexthop: &kernel.Nexthop{ID: n.ID}}}, func(_ int, err error) { t.Error(err) }))
				return true
			}))
			if all != 1 {
				t.Errorf("%d objects before deletion %d", all, i)
			}
			r.wantOurs(hundredLines("192.0.2.7")...)
		}
		r.wantObjects()
		time.Sleep(2 * calmAfter)
		r.wantObjects(r.object("192.0.2.7"))
		r.wantOurs(hundredLines("192.0.2.7")...)
	})
}

// A kernel without nexthop objects is told from one by trying, and has every route with next hops of its own.
func TestKernelWithoutObjects(t *testing.T) {
	byObject(t, func(r *rig) {
		r.fake.WithoutNexthops()
		r.ready(hundred("192.0.2.7"))
		r.wantOurs(hundredLines("192.0.2.7")...)
	})
}

// Turned off, the objects of a run before go, once no route leads to them.
func TestObjectsTurnedOff(t *testing.T) {
	byObject(t, func(r *rig) {
		r.ready(hundred("192.0.2.7"))
		r.wantObjects(r.object("192.0.2.7"))
		r.byID = false
		r.ready(hundred("192.0.2.7"))
		r.resync()
		r.wantObjects()
		r.wantOurs(hundredLines("192.0.2.7")...)
	})
}

// A gateway that is dead though its interface is up is left out where there is another, by one write with objects; where there is none it stays.
func TestAvoid(t *testing.T) {
	bubble(t, func(r *rig) {
		set := hundred("192.0.2.7")
		two := append(slices.Clone(set.Routes[0].NextHops), via("10.0.0.0/26", "192.0.2.8").NextHops...)
		for i := range set.Routes {
			set.Routes[i].NextHops = two
		}
		set.Routes = append(set.Routes, via("10.3.0.0/26", "192.0.2.7"))
		only := direct("10.3.0.0/26", "192.0.2.7")
		r.ready(set)
		r.wait()
		both := r.ours()
		before := r.fake.Calls("RouteOps")
		r.p.Avoid(addr("192.0.2.7"))
		r.wantOurs(append(hundredGrouped(r, "192.0.2.8"), only)...)
		if n := r.fake.Calls("RouteOps") - before; r.byID && n != 0 || before == 0 {
			t.Errorf("%d writes of routes, want none", n)
		}
		r.p.Avoid(addr("192.0.2.7"), addr("192.0.2.8")) // then one is as good as the other
		r.wantOurs(both...)
		r.p.Avoid()
		r.wantOurs(both...)
	})
}

// hundredGrouped are the lines where one next hop of a group is left.
func hundredGrouped(r *rig, gw string) []string { return hundredLines(gw) }

// Cleanup takes the objects along that nothing leans on.
func TestCleanupOfObjects(t *testing.T) {
	byObject(t, func(r *rig) {
		set := hundred("192.0.2.7")
		set.Routes = append(set.Routes, via("10.3.0.0/26", "192.0.2.8"))
		two := append(slices.Clone(set.Routes[0].NextHops), via("10.0.0.0/26", "192.0.2.9").NextHops...)
		set.Routes = append(set.Routes, Route{Dst: pfx("10.2.0.0/26"), NextHops: two})
		r.ready(set)
		r.wait()
		r.stop()
		theirs := r.their("10.9.0.0/26", "192.0.2.7")
		theirs.NextHops = nil
		r.must(r.far.ListNexthops(t.Context(), func(n *kernel.Nexthop) bool {
			if n.Gateway == addr("192.0.2.7") {
				theirs.NexthopID = n.ID
			}
			return true
		}))
		r.write(kernel.Add, theirs)
		if n := len(r.kernelObjects()); n != 4 {
			t.Fatalf("%d objects", n)
		}
		r.must(Cleanup(t.Context(), r.k, false, slog.New(slog.DiscardHandler)))
		if got := r.kernelObjects(); !slices.Equal(got, []string{r.object("192.0.2.7")}) || len(r.ours()) != 0 {
			t.Errorf("left are %q, and routes %q", got, r.ours())
		}
	})
}
