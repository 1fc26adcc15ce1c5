package routes

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// TestRandomTakeover: random leftovers, random wishes, random refusals. In the end the kernel holds what is wanted; of leftovers those that are
// outside the pools, and those to destinations that are wanted without a way; and at no time was a destination without a route that had one
// before and is wanted.
func TestRandomTakeover(t *testing.T) {
	eachSeed(t, 200, func(t *testing.T, seed uint64) {
		bubble(t, func(r *rig) {
			w := &takeoverWorld{rng: rand.New(rand.NewPCG(seed, 0)), r: r}
			w.leave()
			w.wish()
			r.patient = true
			for range w.rng.IntN(4) {
				r.fake.Inject(kerneltest.Fault{Kind: kerneltest.RouteOpFails, Nth: 1 + w.rng.IntN(8), Times: 1 + w.rng.IntN(6), Err: kernel.ErrTransient})
			}
			gap := w.watch()
			r.start(Options{Adopt: Adoption{BIRD: true, Felix: true}})
			r.p.Expect(OwnerVXLAN)
			for _, i := range w.rng.Perm(2) { // what is wanted may be known before what is ours
				if i == 0 {
					r.p.Within(pfx("10.0.0.0/8"), pfx("2001:db8::/32"))
				} else {
					r.apply(w.set)
				}
				if w.rng.IntN(2) == 0 {
					r.wait()
				}
			}
			r.p.InSync(OwnerVXLAN)
			time.Sleep(10 * retryMost)
			r.wait()
			w.end(t)
			for _, line := range gap() {
				t.Error(line)
			}
		})
	})
}

type takeoverWorld struct {
	rng  *rand.Rand
	r    *rig
	left map[netip.Prefix][]kernel.Route
	set  Change
}

// destination is one of a few: inside the pools or out of them, of either family.
func (w *takeoverWorld) destination(i int) (dst netip.Prefix, gw string) {
	switch i % 3 {
	case 0:
		return pfx(fmt.Sprintf("10.1.%d.0/26", i)), "192.0.2."
	case 1:
		return pfx(fmt.Sprintf("2001:db8:%d::/64", i)), "2001:db8::"
	}
	return pfx(fmt.Sprintf("172.16.%d.0/26", i)), "192.0.2."
}

func (w *takeoverWorld) leave() {
	index, err := w.r.far.CreateLink(w.r.t.Context(), kernel.Link{Name: DeviceVXLAN, Kind: "vxlan", MTU: 1450, MAC: mac(1),
		VXLAN: &kernel.VXLANAttrs{VNI: 4096, Port: 4789, Parent: w.r.eth0, Local: addr("192.0.2.1")}})
	w.r.must(err)
	w.r.must(w.r.far.SetLink(w.r.t.Context(), index, 0, [6]byte{}, true))
	w.left = map[netip.Prefix][]kernel.Route{}
	for i := range 15 {
		dst, gw := w.destination(i)
		for _, metric := range []uint32{0, 512, Metric} {
			if dst.Addr().Is6() && metric == 0 || w.rng.IntN(3) > 0 {
				continue
			}
			k := w.r.left([]kernel.Protocol{kernel.ProtoBird, kernel.ProtoFelix}[w.rng.IntN(2)], dst.String(), "", "", metric)
			switch w.rng.IntN(3) {
			case 0:
				k.Type, k.NextHops = kernel.Unicast, []kernel.NextHop{{Gateway: addr(gw + "9"), Link: w.r.eth0, Onlink: true}}
			case 1:
				k.Type, k.Protocol, k.NextHops = kernel.Unicast, kernel.ProtoBoot, []kernel.NextHop{{Gateway: addr(gw + "9"), Link: index, Onlink: true}}
			}
			w.left[dst] = append(w.left[dst], k)
			w.r.write(kernel.Add, k)
		}
	}
}

func (w *takeoverWorld) wish() {
	link := vxlanLink()
	link.MAC = mac(1)
	w.set = Change{Whole: true, Links: []Link{link}}
	for i := range 15 {
		dst, gw := w.destination(i)
		switch w.rng.IntN(5) {
		case 0:
			w.set.Routes = append(w.set.Routes, via(dst.String(), gw+"7"))
		case 1:
			w.set.Routes = append(w.set.Routes, blackhole(dst.String()))
		case 2:
			w.set.Routes = append(w.set.Routes, Route{Dst: dst, Unroutable: "no VTEP"})
		case 3:
			high := via(dst.String(), gw+"7")
			high.Metric = 512
			w.set.Routes = append(w.set.Routes, high)
		}
	}
}

func inPools(dst netip.Prefix) bool {
	return dst.Addr().Is6() || strings.HasPrefix(dst.String(), "10.")
}

// end holds the kernel to the naive rule.
func (w *takeoverWorld) end(t *testing.T) {
	t.Helper()
	var want []string
	taken := map[kernel.RouteKey]bool{} // by routes of others
	line := func(k kernel.Route) string {
		return fmt.Sprintf("%s metric %d proto %s type %d", k.Dst, k.Metric, k.Protocol, k.Type)
	}
	unroutable := map[netip.Prefix]bool{}
	for _, r := range w.set.Routes {
		unroutable[r.Dst] = r.Unroutable != ""
	}
	for dst, list := range w.left {
		for _, k := range list {
			if !inPools(dst) || unroutable[dst] {
				want = append(want, line(k))
				taken[kernel.RouteKey{Dst: dst, Metric: k.Metric}] = true
			}
		}
	}
	for _, r := range w.set.Routes {
		if key := r.Key(); r.Unroutable == "" && !taken[kernel.RouteKey{Dst: key.Dst, Metric: key.Metric}] {
			want = append(want, line(kernel.Route{Dst: key.Dst, Metric: key.Metric, Protocol: kernel.ProtoCaracal, Type: r.Type}))
		}
	}
	var got []string
	for _, v6 := range []bool{false, true} {
		w.r.must(w.r.far.ListRoutes(t.Context(), v6, func(k *kernel.Route) bool {
			if k.Protocol != kernel.ProtoKernel {
				got = append(got, line(*k))
			}
			return true
		}))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the kernel holds\n  %s\nwant\n  %s\nstatuses\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "), strings.Join(w.r.statuses(), "\n  "))
	}
}

// watch follows all events; what it returns tells which destinations that are wanted were without a route for a moment.
func (w *takeoverWorld) watch() func() []string {
	there := map[netip.Prefix]map[uint32]bool{}
	for _, r := range w.set.Routes {
		if len(w.left[r.Dst]) > 0 {
			there[r.Dst] = map[uint32]bool{}
		}
		for _, k := range w.left[r.Dst] {
			there[r.Dst][k.Metric] = true
		}
	}
	events, err := w.r.far.Watch(w.r.t.Context())
	w.r.must(err)
	return func() (gaps []string) {
		for {
			select {
			case e := <-events:
				metrics := there[e.Route.Dst]
				switch {
				case e.Kind != kernel.EventRoute || metrics == nil:
				case !e.Deleted:
					metrics[e.Route.Metric] = true
				default:
					if delete(metrics, e.Route.Metric); len(metrics) == 0 {
						gaps = append(gaps, fmt.Sprintf("for a moment nothing led to %s", e.Route.Dst))
					}
				}
			default:
				return gaps
			}
		}
	}
}
