package routes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
)

// inet6 is a route of ours by an IPv6 gateway on eth0, as ip(8) prints it.
func inet6(dst, gw string) string {
	return dst + " via inet6 " + gw + " dev eth0 proto 202 metric 1024 onlink"
}

// viaSix: an IPv4 route may have IPv6 gateways (RFC 8950), alone, beside IPv4 ones, and in their place; and shares its object with IPv6 routes.
func viaSix(r *rig) {
	mixed := via("10.1.1.0/26", "fe80::7")
	mixed.NextHops = append(mixed.NextHops, via("10.1.1.0/26", "192.0.2.7").NextHops...)
	set := whole(via("10.1.0.0/26", "fe80::7"), mixed, via("2001:db8:1::/64", "fe80::7"), via("10.1.2.0/26", "192.0.2.7"))
	equal := func(a, b string) string {
		return "10.1.1.0/26 proto 202 metric 1024 nexthop via " + a + " dev eth0 weight 1 onlink nexthop via " + b + " dev eth0 weight 1 onlink"
	}
	want := []string{inet6("10.1.0.0/26", "fe80::7"), equal("192.0.2.7", "inet6 fe80::7"), direct("2001:db8:1::/64", "fe80::7"), direct("10.1.2.0/26", "192.0.2.7")}
	r.ready(set)
	r.wantOurs(want...)
	r.apply(Change{Routes: []Route{via("10.1.2.0/26", "2001:db8::8"), via("10.1.0.0/26", "192.0.2.9")}})
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.9"), want[1], want[2], inet6("10.1.2.0/26", "2001:db8::8"))
	r.ready(set)
	r.wantOurs(want...)
	theirs := r.their("10.1.0.0/26", "fe80::99") // over ours, under our number
	theirs.Protocol = kernel.ProtoCaracal
	r.write(kernel.Replace, theirs)
	r.wantOurs(want...)
	r.write(kernel.Delete, theirs)
	r.wantOurs(want...)
	r.apply(whole(via("10.1.0.0/26", "fe80::7")))
	r.wantOurs(want[0])
	r.apply(whole())
	r.wantOurs()
}

// Routes of both families lead to one object, and those of IPv4 move to a gateway of the other family by one replacement, there and back.
func TestObjectsOfBothFamilies(t *testing.T) {
	byObject(t, func(r *rig) {
		set := hundred("fe80::7")
		for _, c := range []struct {
			set  Change
			line func(dst, gw string) string
			gw   string
		}{{set, inet6, "fe80::7"}, {hundred("192.0.2.7"), direct, "192.0.2.7"}, {set, inet6, "fe80::7"}} {
			lines := func() (all []string) {
				for i := range 100 {
					all = append(all, c.line(fmt.Sprintf("10.1.%d.0/26", i), c.gw))
				}
				return all
			}()
			before := r.fake.Calls("RouteOps")
			if r.p == nil {
				r.ready(c.set)
			} else {
				r.apply(c.set)
			}
			r.wantOurs(lines...)
			r.wantObjects(r.object(c.gw))
			if n := r.fake.Calls("RouteOps") - before; n != 0 && before > 0 {
				t.Errorf("%s: %d writes of routes, want none", c.gw, n)
			}
		}
		r.apply(Change{Routes: []Route{via("2001:db8:1::/64", "fe80::7")}})
		r.wait()
		r.wantObjects(r.object("fe80::7"))
		if got := r.ours(); len(got) != 101 || !slices.Contains(got, direct("2001:db8:1::/64", "fe80::7")) {
			t.Errorf("the kernel holds %q", got)
		}
		// With a route of the other family on it, it stays where it is.
		r.apply(hundredMore(hundred("192.0.2.8"), via("2001:db8:1::/64", "fe80::7")))
		r.wantOurs(append(hundredLines("192.0.2.8"), direct("2001:db8:1::/64", "fe80::7"))...)
		r.wantObjects(r.object("192.0.2.8"), r.object("fe80::7"))
		if refused := r.p.Stats().Refused; refused != 0 {
			t.Errorf("the kernel has refused %d writes", refused)
		}
	})
}

func hundredMore(c Change, more ...Route) Change {
	c.Routes = append(c.Routes, more...)
	return c
}

// The picture of the host has the IPv6 gateways of its IPv4 routes, however these are written and whether the kernel shows where a nexthop object
// leads or not, and follows them.
func TestHostHasIPv6Gateways(t *testing.T) {
	for _, how := range []string{"inline", "object", "object not shown", "group not shown"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(r *rig) {
				shown := !strings.Contains(how, "not")
				if !shown {
					r.must(r.far.WriteSysctl(t.Context(), kernel.SysctlNexthopCompat, 0))
				}
				write := func(v kernel.Verb, n kernel.Nexthop) {
					t.Helper()
					n.Protocol = kernel.ProtoStatic
					r.must(r.far.WriteNexthops(t.Context(), []kernel.NexthopOp{{Verb: v, Nexthop: &n}}, func(_ int, err error) { t.Fatal(err) }))
				}
				route := kernel.Route{Dst: pfx("198.51.100.0/24"), Metric: 20, Type: kernel.Unicast, Protocol: 186}
				lead := func(v kernel.Verb, gw string) {
					t.Helper()
					if how == "inline" {
						route.NextHops = []kernel.NextHop{{Gateway: addr(gw), Link: r.eth0}}
						r.write(v, route)
						return
					}
					write(v, kernel.Nexthop{ID: 7, V6: true, Gateway: addr(gw), Link: r.eth0})
					if v == kernel.Add {
						if route.NexthopID = 7; how == "group not shown" {
							write(v, kernel.Nexthop{ID: 8, Group: []kernel.GroupMember{{ID: 7}}})
							route.NexthopID = 8
						}
						r.write(v, route)
					}
				}
				want := func(gateway, device string) {
					t.Helper()
					r.eventually(func() error {
						h := r.p.Host()
						if h == nil {
							return fmt.Errorf("no picture yet")
						}
						hops := h.Resolve(addr("198.51.100.9"))
						if device == "" && len(hops) == 0 {
							return nil
						}
						if len(hops) != 1 || hops[0].Gateway != addr(gateway) || hops[0].Device != device {
							return fmt.Errorf("198.51.100.9 is reached by %v, want %s on %s", hops, gateway, device)
						}
						return nil
					})
				}
				lead(kernel.Add, "fe80::1")
				r.ready(whole())
				want("fe80::1", "eth0")
				lead(kernel.Replace, "fe80::2")
				want("fe80::2", "eth0")
				if how != "inline" {
					write(kernel.Replace, kernel.Nexthop{ID: 7, V6: true, Blackhole: true})
					want("", "")
					if why := r.p.Host().Unresolved(addr("198.51.100.9")); !strings.Contains(why, "of type blackhole") {
						t.Errorf("said of a blackhole: %s", why)
					}
					write(kernel.Delete, kernel.Nexthop{ID: 7})
				} else {
					r.write(kernel.Delete, route)
				}
				want("", "")
			})
		})
	}
}
