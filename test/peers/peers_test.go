package peers_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
	"github.com/caracal-net/caracal/test/peers/injector"
)

const patience = 8 * time.Second

// wire joins two new namespaces: the router has .1 and ::1, the injector .2 and ::2.
func wire(t *testing.T) (router, other netns.NS) {
	t.Helper()
	router, other = need.Namespace(t), need.Namespace(t)
	run := func(ns netns.NS, line string) {
		if _, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	run(router, "link add name eth0 type veth peer name eth0 netns "+other.Name)
	for i, ns := range []netns.NS{router, other} {
		must(t, ns.Do(func() error { // FRR waits for the link-local address, which would be tried for duplicates for a second
			return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0o644)
		}))
		run(ns, "link set eth0 up")
		run(ns, fmt.Sprintf("address add 192.0.2.%d/24 dev eth0", i+1))
		run(ns, fmt.Sprintf("address add 2001:db8::%d/64 dev eth0 nodad", i+1))
	}
	return router, other
}

// shortDir is a directory whose name leaves room for control sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// heard keeps what an injector was told.
type heard struct {
	mu     sync.Mutex
	routes map[netip.Prefix]netip.Addr
}

func (h *heard) update(u *injector.Update) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range u.Withdrawn {
		delete(h.routes, p)
	}
	for _, p := range u.Announced {
		h.routes[p] = u.NextHop
	}
}

func (h *heard) nextHop(p netip.Prefix) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.routes[p]
}

// TestRouters: each router we have comes up, takes and gives routes in both families, obeys a new configuration and goes.
func TestRouters(t *testing.T) {
	for _, kind := range peers.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			need.Root(t)
			if what := peers.Missing(kind); what != "" {
				need.Other(t, what, "make deps")
			}
			for _, v6 := range []bool{false, true} {
				t.Run(map[bool]string{false: "ipv4", true: "ipv6"}[v6], func(t *testing.T) { testRouter(t, kind, v6) })
			}
		})
	}
}

// names are the addresses and prefixes of one family.
type names struct {
	router, other          netip.Addr
	own, theirs, alsoTheir netip.Prefix
}

func namesOf(v6 bool) names {
	s := []string{"192.0.2.1", "192.0.2.2", "10.1.0.0/26", "10.2.0.0/26", "10.2.0.64/26"}
	if v6 {
		s = []string{"2001:db8::1", "2001:db8::2", "fd00:1::/64", "fd00:2::/122", "fd00:2::40/122"}
	}
	return names{netip.MustParseAddr(s[0]), netip.MustParseAddr(s[1]), netip.MustParsePrefix(s[2]), netip.MustParsePrefix(s[3]), netip.MustParsePrefix(s[4])}
}

func testRouter(t *testing.T, kind peers.Kind, v6 bool) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n := namesOf(v6)
	routerNS, otherNS := wire(t)
	cfg := peers.Config{
		ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.1"), Kernel: true, Originate: []netip.Prefix{n.own},
		Neighbours: []peers.Neighbour{{Addr: n.other, ASN: 64513, Local: n.router, Passive: true}},
	}
	r, err := peers.Start(ctx, kind, routerNS, shortDir(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.Log(40))
		}
		if !stopped {
			_ = r.Kill()
		}
	})
	h := &heard{routes: map[netip.Prefix]netip.Addr{}}
	s, err := injector.Dial(ctx, injector.Options{
		NS: &otherNS, ASN: 64513, RouterID: netip.MustParseAddr("192.0.2.2"), Local: n.other,
		Remote: netip.AddrPortFrom(n.router, 179), OnUpdate: h.update,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Drop)
	must(t, r.WaitEstablished(ctx))
	must(t, s.Announce(injector.Announcement{Prefixes: []netip.Prefix{n.theirs, n.alsoTheir}, NextHop: n.other, ASPath: []uint32{64513, 70000}, Communities: []uint32{64513<<16 | 7}}))
	must(t, s.EndOfRIB(v6))
	must(t, peers.Poll(ctx, func() error { return hears(ctx, r, n.theirs, n.other) }))
	must(t, peers.Poll(ctx, func() error {
		if got := h.nextHop(n.own); got != n.router {
			return fmt.Errorf("the injector hears of %s via %v", n.own, got)
		}
		return nil
	}))
	if kind.Kernel() {
		must(t, peers.Poll(ctx, func() error { return inKernel(routerNS, n.alsoTheir, true) }))
	}
	must(t, s.Withdraw(n.alsoTheir))
	must(t, peers.Poll(ctx, func() error { return inKernel(routerNS, n.alsoTheir, false) }))
	must(t, s.Err())
	must(t, r.Stop())
	stopped = true
	<-s.Done()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hears reports whether the router has exactly the path that was announced.
func hears(ctx context.Context, r *peers.Router, p netip.Prefix, via netip.Addr) error {
	paths, err := r.Paths(ctx, p)
	if err != nil {
		return err
	}
	if len(paths) != 1 || paths[0].NextHop != via || !slices.Equal(paths[0].ASPath, []uint32{64513, 70000}) ||
		!slices.Equal(paths[0].Communities, []string{"64513:7"}) || !paths[0].Best {
		return fmt.Errorf("paths for %s: %+v", p, paths)
	}
	sessions, err := r.Sessions(ctx)
	if err != nil {
		return err
	}
	if len(sessions) != 1 || sessions[0].Received != 2 || sessions[0].Sent < 1 {
		return fmt.Errorf("sessions: %+v; want 2 prefixes received, ours sent (FRR sends theirs back, too)", sessions)
	}
	return nil
}

func inKernel(ns netns.NS, p netip.Prefix, want bool) error {
	family := "-4"
	if p.Addr().Is6() {
		family = "-6"
	}
	out, err := ns.Run("ip", family, "route", "show", p.String())
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out) != ""; got != want {
		return fmt.Errorf("route %s in the kernel: %q", p, out)
	}
	return nil
}
