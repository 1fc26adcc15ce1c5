package routes

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// addressesWished: an address that an owner wishes for on a workload's interface is put there when that comes, and put there again; it goes when nobody
// wishes for it any more, also one of a process before, and no address of another program's ever does.
func addressesWished(r *rig) {
	const device = "cali1"
	on := func(link int) (list []string) {
		all, err := r.far.ListAddresses(r.t.Context())
		r.must(err)
		for _, a := range all {
			if a.Link == link && !a.Prefix.Addr().IsLinkLocalUnicast() || a.Prefix.Addr().Is4() && a.Link == link {
				list = append(list, fmt.Sprintf("%s %d", a.Prefix, a.Protocol))
			}
		}
		slices.Sort(list)
		return list
	}
	want := func(link int, list ...string) {
		r.t.Helper()
		r.eventually(func() error {
			if have := on(link); !slices.Equal(have, list) {
				return fmt.Errorf("addresses %q, want %q", have, list)
			}
			return nil
		})
	}
	other := r.wire("cali2")
	left := kernel.Address{Link: other, Prefix: pfx("169.254.0.180/32"), Protocol: kernel.ProtoCaracal} // of a process before
	r.must(r.far.AddAddress(r.t.Context(), left))
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: other, Prefix: pfx("169.254.0.179/32")}))
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: r.eth0, Prefix: pfx("198.18.0.7/32"), Protocol: kernel.ProtoCaracal}))
	before := on(r.eth0)
	wishes := []InterfaceAddress{{device, addr("169.254.0.179")}, {device, addr("fd12::1")}, {"cali2", addr("169.254.0.179")}, {"eth0", addr("198.18.0.9")}}
	r.start(Options{})
	r.apply(Change{Whole: true, Addresses: wishes})
	r.wait()
	want(other, "169.254.0.179/32 0", "169.254.0.180/32 202") // nothing goes before every source is in sync
	r.p.Expect(OwnerVXLAN)
	r.p.InSync(OwnerVXLAN)
	want(other, "169.254.0.179/32 0")
	link := r.wire(device)
	want(link, "169.254.0.179/32 202", "fd12::1/128 202")
	for _, a := range []string{"169.254.0.179/32", "fd12::1/128"} {
		r.must(r.far.DeleteAddress(r.t.Context(), kernel.Address{Link: link, Prefix: pfx(a)}))
		want(link, "169.254.0.179/32 202", "fd12::1/128 202")
	}
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: link, Prefix: pfx("203.0.113.9/32")}))
	r.apply(Change{Addresses: wishes[1:2]})
	want(link, "203.0.113.9/32 0", "fd12::1/128 202")
	want(other, "169.254.0.179/32 0")
	r.apply(Change{Addresses: []InterfaceAddress{}})
	want(link, "203.0.113.9/32 0")
	if now := on(r.eth0); !slices.Equal(now, before) {
		r.t.Fatalf("eth0 has %q, had %q", now, before)
	}
}

// addressOfAWorkloadsInterface: an address that another program puts there, as Felix does for workloads that are BGP peers, brings a route of the kernel's own
// in IPv6, and is no workload's for that.
func addressOfAWorkloadsInterface(r *rig) {
	link := r.wire("cali1")
	pod := func(dst string, protocol kernel.Protocol) {
		r.write(kernel.Add, kernel.Route{Dst: pfx(dst), Metric: 1024, Type: kernel.Unicast, Protocol: protocol, NextHops: []kernel.NextHop{{Link: link}}})
	}
	pod("fd00::5/128", kernel.ProtoBoot)
	r.ready(whole())
	workloads := func(want ...string) {
		r.t.Helper()
		r.eventually(func() error {
			var have []string
			for _, p := range r.p.Host().Workloads {
				have = append(have, p.String())
			}
			if !slices.Equal(have, want) {
				return fmt.Errorf("workloads %q, want %q", have, want)
			}
			return nil
		})
	}
	workloads("fd00::5/128")
	r.must(r.far.AddAddress(r.t.Context(), kernel.Address{Link: link, Prefix: pfx("fd12::1/128")}))
	r.eventually(func() error {
		if r.p.Host().RouteTo(pfx("fd12::1/128")) == nil {
			return fmt.Errorf("the address has no route: nothing is shown")
		}
		return nil
	})
	workloads("fd00::5/128")
	pod("fd12::1/128", kernel.ProtoFelix) // of a metric of its own
	workloads("fd00::5/128", "fd12::1/128")
}

// addressOfAnothersRoute: the kernel drops all IPv4 routes of an interface with its last IPv4 address. One of ours stays for another program's route, such as the CNI
// plugin's to the workload, until that goes.
func addressOfAnothersRoute(r *rig) {
	link := r.wire("cali1")
	pod := kernel.Route{Dst: pfx("10.244.0.5/32"), Type: kernel.Unicast, Protocol: kernel.ProtoBoot, NextHops: []kernel.NextHop{{Link: link}}}
	r.write(kernel.Add, pod)
	have := func(want ...string) {
		r.t.Helper()
		r.eventually(func() error {
			all, err := r.far.ListAddresses(r.t.Context())
			r.must(err)
			var have []string
			for _, a := range all {
				if a.Link == link && a.Protocol != 0 {
					have = append(have, a.Prefix.String())
				}
			}
			if slices.Sort(have); !slices.Equal(have, want) {
				return fmt.Errorf("addresses %q, want %q", have, want)
			}
			return nil
		})
	}
	there := func() {
		r.t.Helper()
		if n := len(r.routes(func(k *kernel.Route) bool { return k.Dst == pod.Dst && k.Protocol == kernel.ProtoBoot })); n != 1 {
			r.t.Fatalf("%d routes of the CNI plugin", n)
		}
	}
	of := func(v4 string) Change {
		return Change{Whole: true, Addresses: []InterfaceAddress{{"cali1", addr(v4)}, {"cali1", addr("fd12::1")}}}
	}
	r.ready(of("169.254.0.179"))
	have("169.254.0.179/32", "fd12::1/128")
	r.apply(of("169.254.0.180"))
	have("169.254.0.180/32", "fd12::1/128")
	there()
	elsewhere := pod
	elsewhere.NextHops = []kernel.NextHop{{Link: r.wire("cali2")}}
	for _, end := range []func(){
		func() { r.write(kernel.Replace, elsewhere) }, // no deletion is told
		func() { r.write(kernel.Delete, pod) },
	} {
		r.write(kernel.Replace, pod)
		r.apply(of("169.254.0.180"))
		have("169.254.0.180/32", "fd12::1/128")
		r.apply(Change{Whole: true, Addresses: []InterfaceAddress{}})
		have("169.254.0.180/32")
		there()
		end()
		have()
	}
}

// TestAddressIsRemovedOnce: what another program puts in the place of an address that we have removed stays, also before we hear of any of it.
func TestAddressIsRemovedOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		s := newSlow(r.fake)
		r.k = s
		link := r.wire("cali1")
		a := kernel.Address{Link: link, Prefix: pfx("169.254.0.179/32")}
		r.ready(Change{Whole: true, Addresses: []InterfaceAddress{{"cali1", a.Prefix.Addr()}}})
		release := s.hold()
		r.apply(Change{Addresses: []InterfaceAddress{}})
		r.wait()
		r.must(r.far.AddAddress(t.Context(), a))
		r.apply(Change{Addresses: []InterfaceAddress{{"cali2", a.Prefix.Addr()}}}) // another look at what is to go
		r.wait()
		release()
		r.wait()
		all, err := r.far.ListAddresses(t.Context())
		r.must(err)
		if !slices.Contains(all, a) {
			t.Errorf("it is gone: %v", all)
		}
	})
}

// TestAddressesBesideFelix: neither are put nor removed, its own or ours of before.
func TestAddressesBesideFelix(t *testing.T) {
	bubble(t, func(r *rig) {
		before := kernel.Address{Link: r.wire("cali1"), Prefix: pfx("169.254.0.180/32"), Scope: kernel.ScopeHost, Protocol: kernel.ProtoCaracal}
		r.must(r.far.AddAddress(t.Context(), before))
		r.start(Options{BesideFelix: true})
		r.apply(Change{Whole: true, Addresses: []InterfaceAddress{{"cali1", addr("169.254.0.179")}}})
		r.p.Expect()
		r.wait()
		var have []kernel.Address
		all, err := r.far.ListAddresses(t.Context())
		r.must(err)
		for _, a := range all {
			if a.Link == before.Link {
				have = append(have, a)
			}
		}
		if !slices.Equal(have, []kernel.Address{before}) {
			t.Errorf("addresses %v, want %v", have, before)
		}
	})
}

// TestOldNewsOfAConnectedRoute: news of a route that came with an address of one interface, and that a read has found gone already, take none of another interface's
// out of the mirror: the address that workloads dial is on many of them.
func TestOldNewsOfAConnectedRoute(t *testing.T) {
	bubble(t, func(r *rig) {
		var gone kernel.Route
		for _, name := range []string{"cali1", "cali2"} {
			link := r.wire(name)
			r.must(r.far.AddAddress(t.Context(), kernel.Address{Link: link, Prefix: pfx("fd12::1/128")}))
			gone = kernel.Route{Dst: pfx("fd12::1/128"), Table: kernel.TableMain, Metric: 256, Type: kernel.Unicast, Protocol: kernel.ProtoKernel, NextHops: []kernel.NextHop{{Link: link, Weight: 1}}}
		}
		r.ready(whole())
		r.wait()
		before := r.p.Stats().Foreign
		r.must(r.far.DeleteLink(t.Context(), r.device("cali2").Index))
		r.wait()
		r.p.mu.Lock()
		r.p.applyEvent(&kernel.Event{Kind: kernel.EventRoute, Deleted: true, Route: gone})
		r.p.mu.Unlock()
		if now := r.p.Stats().Foreign; now != before-1 {
			t.Errorf("%d routes of others known, before %d", now, before)
		}
	})
}

// deaf is a kernel that does not tell of some events.
type deaf struct {
	kernel.Kernel
	to func(*kernel.Event) bool
}

func (d deaf) Watch(ctx context.Context) (<-chan kernel.Event, error) {
	in, err := d.Kernel.Watch(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan kernel.Event)
	go func() {
		defer close(out)
		for e := range in {
			if d.to(&e) {
				continue
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

// TestAddressGoneBeforeItsNews: the kernel tells of an IPv6 address after the moment that it would wait for duplicates, and of none that went before; then the news of
// its end is all there is.
func TestAddressGoneBeforeItsNews(t *testing.T) {
	bubble(t, func(r *rig) {
		link := r.wire("cali1")
		mine := kernel.Address{Link: link, Prefix: pfx("fd12::1/128"), Protocol: kernel.ProtoCaracal}
		heard := false
		r.k = deaf{r.k, func(e *kernel.Event) bool {
			first := e.Kind == kernel.EventAddress && e.Address == mine && !heard
			heard = heard || first
			return first && !e.Deleted
		}}
		r.ready(Change{Whole: true, Addresses: []InterfaceAddress{{"cali1", mine.Prefix.Addr()}}})
		if !heard {
			t.Fatal("there was nothing to hear")
		}
		r.must(r.far.DeleteAddress(t.Context(), mine))
		r.wait()
		all, err := r.far.ListAddresses(t.Context())
		r.must(err)
		if !slices.Contains(all, mine) {
			t.Errorf("it is not put there again: %v", all)
		}
	})
}

// TestWholeSetAfterSteps: a whole set that says nothing of devices, settings or addresses leaves them as the last step before it had them, though neither was taken up yet.
func TestWholeSetAfterSteps(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(Options{})
		r.wait()
		r.p.mu.Lock() // nothing is taken up
		for _, a := range []string{"fd12::1", "fd12::2"} {
			r.apply(Change{Addresses: []InterfaceAddress{{"cali1", addr(a)}}, Links: []Link{{Name: a}}, Settings: []Setting{{Name: kernel.Sysctl(a)}}})
		}
		r.apply(Change{Whole: true})
		got := r.p.inbox.take().changes
		r.p.mu.Unlock()
		if len(got) != 1 || got[0].change.Addresses[0].Addr != addr("fd12::2") || got[0].change.Links[0].Name != "fd12::2" || got[0].change.Settings[0].Name != "fd12::2" {
			t.Errorf("changes %+v", got)
		}
	})
}
