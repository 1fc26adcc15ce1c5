package routes

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// withoutNumber is a route as ip(8) prints it without the number of its nexthop object.
func withoutNumber(s string) string { return regexp.MustCompile(` nhid \d+`).ReplaceAllString(s, "") }

// A status shows the kernel's route just as the kernel room writes it.
func TestKernelText(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("0.0.0.0/0", "192.0.2.7"), via("::/0", "2001:db8::7"), via("10.0.0.1/32", "192.0.2.8"), via("10.0.0.2/32", "192.0.2.8"),
			via("2001:db8:1::1/128", "2001:db8::8"), blackhole("10.1.0.0/26"), blackhole("2001:db8:2::/122"),
			Route{Dst: pfx("10.2.0.0/16"), Metric: 7, MTU: 1400, Src: addr("192.0.2.1"), NextHops: []NextHop{
				{Gateway: addr("192.0.2.2"), Device: "eth0", Weight: 2}, {Gateway: addr("192.0.2.3"), Device: "eth0"}}}))
		var shown []string
		for _, s := range r.p.Snapshot(nil) {
			if s.Outcome != Installed {
				t.Errorf("%s is %s: %s", s.Route.Dst, s.Outcome, s.Detail)
			}
			shown = append(shown, withoutNumber(s.Kernel))
			if r.byID != strings.Contains(s.Kernel, " nhid ") && s.Route.Type != kernel.Blackhole {
				t.Errorf("shown as %q", s.Kernel)
			}
		}
		r.wantOurs(shown...)
		if n := len(r.p.Snapshot(func(s *Status) bool { return s.Route.Type == kernel.Blackhole })); n != 2 {
			t.Errorf("%d blackholes, want 2", n)
		}
	})
}

func TestGate(t *testing.T) {
	bubble(t, func(r *rig) {
		stray := r.their("10.9.0.0/26", "192.0.2.9")
		stray.Protocol = kernel.ProtoCaracal
		r.write(kernel.Add, stray)
		kept := direct("10.9.0.0/26", "192.0.2.9")
		r.start(Options{})
		r.apply(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.p.InSync(OwnerIPIP)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), kept) // nobody has said who is expected
		r.p.Expect(OwnerVXLAN, OwnerBGP)
		r.p.InSync(OwnerVXLAN)
		r.apply(whole()) // withdrawn before BGP is in sync
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), kept)
		r.wantStatuses("10.1.0.0/26  kept", "10.9.0.0/26  kept")
		if c := r.p.Counts(); c[""][Kept] != 2 || len(c[OwnerVXLAN]) != 0 || r.p.Stats().GateOpen {
			t.Errorf("counts %v", c)
		}
		r.p.Apply(OwnerBGP, whole(via("10.9.0.0/26", "192.0.2.9")))
		r.p.InSync(OwnerBGP)
		r.wantOurs(kept)
		r.wantStatuses("10.9.0.0/26 bgp installed")
		r.p.Expect(OwnerVXLAN, OwnerBGP, "late") // a new source: held again
		r.p.Apply(OwnerBGP, whole())
		r.wantOurs(kept)
		r.p.Expect()
		r.wantOurs()
	})
}

// Neither devices, addresses nor neighbours go before every source is in sync.
func TestGateHoldsDevices(t *testing.T) {
	bubble(t, func(r *rig) {
		set := vxlanSet(2)
		r.ready(set)
		r.wantTunnel(set)
		r.start(Options{})
		r.p.Expect(OwnerVXLAN)
		r.apply(Change{Whole: true, Links: []Link{}})
		r.wantTunnel(set)
		fewer := vxlanSet()
		fewer.Links[0].Addresses = []netip.Prefix{pfx("10.244.0.2/32")}
		r.apply(fewer)
		both := vxlanSet(2)
		both.Links[0].Addresses = []netip.Prefix{pfx("10.244.0.1/32"), pfx("10.244.0.2/32")}
		r.wantTunnel(both)
		r.p.InSync(OwnerVXLAN)
		r.wantTunnel(fewer)
	})
}

// A new process over a kernel that is as wanted writes nothing at all.
func TestRestartWritesNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		set := vxlanSet(2, 3, 4)
		set.Routes = append(set.Routes, via("10.1.0.0/26", "192.0.2.7"), via("2001:db8:1::/64", "2001:db8::7"), blackhole("2001:db8:2::/122"),
			Route{Dst: pfx("2001:db8:3::/64"), NextHops: []NextHop{{Gateway: addr("2001:db8::9"), Device: "eth0"}, {Gateway: addr("2001:db8::8"), Device: "eth0"}}})
		r.ready(set)
		r.wantTunnel(set)
		before := r.ours()
		calls := func() map[string]int {
			m := map[string]int{}
			for _, c := range []string{"RouteOps", "NeighbourOps", "CreateLink", "DeleteLink", "SetLink", "AddAddress", "DeleteAddress"} {
				m[c] = r.fake.Calls(c)
			}
			return m
		}
		written := calls()
		r.start(Options{})
		r.p.Expect(OwnerVXLAN)
		r.apply(set)
		r.p.InSync(OwnerVXLAN)
		r.wantOurs(before...)
		r.wantTunnel(set)
		r.resync()
		r.apply(set)
		r.wait()
		if now := calls(); !maps.Equal(now, written) {
			t.Errorf("calls %v, before the restart %v", now, written)
		}
	})
}

// Our own writes come back as events; they must cause nothing.
func TestEchoesCauseNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		var routes []Route
		for i := range 3000 {
			routes = append(routes, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), NextHops: via("10.0.0.0/26", "192.0.2.7").NextHops})
		}
		r.ready(whole(routes...))
		for i := range routes {
			routes[i].NextHops = via("10.0.0.0/26", "192.0.2.8").NextHops
		}
		r.apply(whole(routes...))
		r.apply(Change{Routes: []Route{via("10.0.0.0/24", "192.0.2.9")}}) // two writes of one key, their echoes still to come
		r.wait()
		r.apply(whole())
		r.wait()
		r.apply(whole(routes[:10]...))
		r.wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.fake.Calls("RouteOps"); n > 3000*3+10+1 {
			t.Errorf("%d route operations, want no more than %d", n, 3000*3+10+1)
		}
		if s := r.p.Stats(); s.Repairs != 0 || s.Reads != 2 || s.Routes != 10 {
			t.Errorf("echoes were taken for somebody else's doing: %+v", s)
		}
	})
}

// The back-off of a refused route: attempts thin out to one in retryMost, and a change of the network is answered at once.
func TestBackoff(t *testing.T) {
	bubble(t, func(r *rig) {
		var log bytes.Buffer
		r.start(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		r.apply(whole(Route{Dst: pfx("10.1.0.0/26"), NextHops: []NextHop{{Gateway: addr("198.51.100.7"), Device: "eth0"}}}))
		time.Sleep(time.Hour)
		synctest.Wait()
		tries := r.fake.Calls("RouteOps")
		if most := int(time.Hour/retryMost) * 5 / 4; tries < most/2 || tries > most+12 {
			t.Errorf("%d attempts in an hour", tries)
		}
		r.wait()
		if n := strings.Count(log.String(), "10.1.0.0/26"); n != 1 {
			t.Errorf("the route was logged %d times, want once for the one change of its state:\n%s", n, log.String())
		}
		s := r.p.Snapshot(nil)[0]
		if s.Outcome != Failed || s.Attempts != tries || !strings.HasPrefix(s.Detail, "ENETUNREACH: ") || time.Since(s.Since) < 50*time.Minute {
			t.Errorf("status %+v after %d tries", s, tries)
		}
		start := time.Now()
		r.address("198.51.100.1/24")
		for len(r.ours()) == 0 {
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(start); d > 2*wakeSpacing {
			t.Errorf("repaired %s after the address came", d)
		}
		if r.wait(); !strings.Contains(log.String(), "installed after all") {
			t.Error("the end of the trouble was not logged")
		}
		r.apply(whole(Route{Dst: pfx("10.1.0.0/26"), NextHops: []NextHop{{Gateway: addr("203.0.113.7"), Device: "eth0"}}}))
		time.Sleep(10 * time.Minute)
		r.address("203.0.113.1/24")
		time.Sleep(2 * wakeSpacing)
		r.wantOurs("10.1.0.0/26 via 203.0.113.7 dev eth0 proto 202 metric 1024")
	})
}

// A program that deletes our route again and again gets fewer and fewer answers, and the route stays repaired when it stops.
func TestFight(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7")))
		victim := r.their("10.1.0.0/26", "192.0.2.7")
		victim.Protocol = kernel.ProtoCaracal
		writes := r.p.Stats().Writes
		hits := 0
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
			err := r.far.WriteRoutes(r.t.Context(), []kernel.RouteOp{{Verb: kernel.Delete, Route: &victim}}, func(int, error) { hits-- })
			r.must(err)
			hits++
			if hits <= freeRepairs {
				synctest.Wait()
				r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7")) // the first repairs come at once
			}
		}
		if n := r.p.Stats().Writes - writes; hits < 10 || n > 40 {
			t.Errorf("%d deletions were answered by %d writes in a minute", hits, n)
		}
		time.Sleep(fightMost)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7"))
	})
}

// Lost events lead to a read at once, not to a wait for a timer.
func TestLostEvents(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		start := time.Now()
		lost := r.fake.Inject(kerneltest.Fault{Kind: kerneltest.EventsLost})
		victim := r.their("10.1.0.0/26", "192.0.2.7")
		victim.Protocol = kernel.ProtoCaracal
		r.write(kernel.Delete, victim)
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
		if lost.Fired() == 0 || time.Since(start) != 0 {
			t.Errorf("fault fired %d times; repaired after %s", lost.Fired(), time.Since(start))
		}
	})
}

// Without any event a slow read finds the drift.
func TestSlowResync(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(Options{ResyncInterval: DefaultResyncInterval})
		r.apply(whole(via("10.1.0.0/26", "192.0.2.7")))
		r.wait()
		before := r.p.Stats().Reads
		time.Sleep(10 * DefaultResyncInterval)
		synctest.Wait()
		if n := (r.p.Stats().Reads - before) / 2; n < 9 || n > 11 {
			t.Errorf("%d full reads in ten intervals", n)
		}
	})
}

func TestUnroutableIsListedAndWithdrawn(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
		lost := Route{Dst: pfx("10.1.0.0/26"), Unroutable: "VTEP of node b is unknown", Reason: &Reason{Node: "b"}}
		r.apply(Change{Routes: []Route{lost}})
		r.wantOurs()
		r.wantStatuses("10.1.0.0/26 vxlan unroutable: VTEP of node b is unknown")
		r.p.Apply(OwnerBGP, whole(via("10.1.0.0/26", "192.0.2.8"))) // a weaker owner knows a way
		r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"))
		r.wantStatuses("10.1.0.0/26 vxlan unroutable: VTEP of node b is unknown", "10.1.0.0/26 bgp installed")
		if s := r.p.Snapshot(nil)[0]; s.Route.Reason == nil || s.Route.Reason.Node != "b" {
			t.Errorf("reason lost: %+v", s.Route)
		}
	})
}

// Random wishes of three owners, random foreign routes and random mutilation by another program: what is foreign is never
// touched, and in the end the kernel holds what the strongest owner wants, wherever no foreign route has the key.
func TestAgainstModel(t *testing.T) {
	owners := []Owner{OwnerVXLAN, OwnerIPIP, OwnerBGP}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 11))
		bubble(t, func(r *rig) {
			r.start(Options{})
			r.p.Expect(owners...)
			wishes := map[Owner]map[string]string{}
			foreign := map[string]string{}
			for _, o := range owners {
				wishes[o] = map[string]string{}
				r.p.InSync(o)
			}
			dst := func() string { return fmt.Sprintf("10.%d.0.0/24", rng.IntN(12)) }
			gw := func() string { return fmt.Sprintf("192.0.2.%d", 10+rng.IntN(3)) }
			for range 150 {
				o, d, g := owners[rng.IntN(3)], dst(), gw()
				switch rng.IntN(8) {
				case 0, 1, 2:
					wishes[o][d] = g
					r.p.Apply(o, Change{Routes: []Route{via(d, g)}})
				case 3:
					delete(wishes[o], d)
					r.p.Apply(o, Change{Withdraw: []Key{key(d)}})
				case 4:
					wishes[o] = map[string]string{d: g}
					r.p.Apply(o, whole(via(d, g)))
				case 5:
					if foreign[d] == "" {
						// It may take the key from us. A replacement of ours on its way at that very moment would hit it: the kernel
						// cannot be told what to replace (doc.go). So nothing is on its way here.
						r.wait()
						foreign[d] = g
						r.write(kernel.Replace, r.their(d, g))
						r.wait()
					}
				case 6:
					if foreign[d] != "" {
						r.write(kernel.Delete, r.their(d, foreign[d]))
						delete(foreign, d)
					}
				case 7:
					victim := r.their(d, g)
					victim.Protocol = kernel.ProtoCaracal
					verb := []kernel.Verb{kernel.Delete, kernel.Replace}[rng.IntN(2)]
					if verb == kernel.Delete || foreign[d] == "" {
						r.must(r.far.WriteRoutes(r.t.Context(), []kernel.RouteOp{{Verb: verb, Route: &victim}}, func(int, error) {}))
					}
				}
				if rng.IntN(3) == 0 {
					r.wait()
				}
				r.wantForeign(seed, foreign)
			}
			time.Sleep(2 * fightMost)
			var want []string
			for n := range 12 {
				d := fmt.Sprintf("10.%d.0.0/24", n)
				for _, o := range owners {
					if g := wishes[o][d]; g != "" && foreign[d] == "" {
						want = append(want, direct(d, g))
						break
					}
				}
			}
			r.wantOurs(want...)
			r.wantForeign(seed, foreign)
			r.countsAgree()
		})
	}
}

func (r *rig) wantForeign(seed uint64, foreign map[string]string) {
	r.t.Helper()
	var want []string
	for d, g := range foreign {
		want = append(want, d+" via "+g+" dev eth0 proto static metric 1024 onlink")
	}
	slices.Sort(want)
	if got := r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoStatic }); !slices.Equal(got, want) {
		r.t.Fatalf("seed %d: foreign routes are\n  %s\nwant\n  %s", seed, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// countsAgree holds Counts to say what Snapshot shows.
func (r *rig) countsAgree() {
	r.t.Helper()
	want := map[Owner]map[Outcome]int{}
	for _, s := range r.p.Snapshot(nil) {
		if want[s.Owner] == nil {
			want[s.Owner] = map[Outcome]int{}
		}
		want[s.Owner][s.Outcome]++
	}
	if got := r.p.Counts(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("counts %v, snapshot says %v", got, want)
	}
}
