package gobgp

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// TestHeldComesBack: what a peer had brought whose session is begun anew gives way to another path, and is in use again if that goes before the peer is
// back: a reflector that is relieved takes back what it had reflected.
func TestHeldComesBack(t *testing.T) {
	other := netip.MustParseAddr("192.0.2.13")
	news := func(peer netip.Addr, withdraw bool) *apiutil.Path {
		n := testNews("10.0.0.1", 0, withdraw)
		n.PeerAddress = peer
		return n
	}
	f := newFeed(slog.New(slog.DiscardHandler))
	gen := f.begin()
	for _, a := range []netip.Addr{peerAddr, other} {
		f.add(bgp.Peer{Addr: a})
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"learned", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, false)}, time.Now()) }, "192.0.2.12"},
		{"begun anew", func() { f.hold(peerAddr, time.Hour) }, "192.0.2.12 stale"},
		{"the server drops it", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, true)}, time.Now()) }, "192.0.2.12 stale"},
		{"another way", func() { f.learn(gen, []*apiutil.Path{news(other, false)}, time.Now()) }, "192.0.2.13"},
		{"it is changed", func() { f.learn(gen, []*apiutil.Path{news(other, false)}, time.Now()) }, "192.0.2.13"},
		{"it goes", func() { f.learn(gen, []*apiutil.Path{news(other, true)}, time.Now()) }, "192.0.2.12 stale"},
		{"it is there again", func() { f.learn(gen, []*apiutil.Path{news(other, false)}, time.Now()) }, "192.0.2.13"},
		{"the time is over", func() { f.drop(peerAddr) }, "192.0.2.13"},
		{"it goes for good", func() { f.learn(gen, []*apiutil.Path{news(other, true)}, time.Now()) }, ""},

		{"once more", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, false)}, time.Now()); f.hold(peerAddr, time.Hour) }, "192.0.2.12 stale"},
		{"another way", func() { f.learn(gen, []*apiutil.Path{news(other, false)}, time.Now()) }, "192.0.2.13"},
		{"the peer is back", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, false)}, time.Now()) }, "192.0.2.12, 192.0.2.13"},
		{"and takes it back", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, true)}, time.Now()) }, "192.0.2.13"},
		{"so does the other", func() { f.learn(gen, []*apiutil.Path{news(other, true)}, time.Now()) }, ""},
	} {
		step.do()
		f.take()
		var got []string
		if d := f.table.Get(netip.MustParsePrefix("10.1.0.0/26")); d != nil {
			for _, p := range d.paths {
				got = append(got, fmt.Sprint(p.PeerAddr)+map[bool]string{true: " stale"}[p.Stale])
			}
		}
		if now := strings.Join(got, ", "); now != step.want {
			t.Fatalf("%s: in use is %q, want %q", step.what, now, step.want)
		}
	}
}

// TestDetained: while the cluster crosses over, the last path to a prefix that leads to one of its nodes stays in use for some seconds after it was taken
// back, but not when its session ends, and not at other times.
func TestDetained(t *testing.T) {
	hop := netip.MustParseAddr("192.0.2.99")
	news := func(withdraw bool) []*apiutil.Path {
		n := testNews("10.0.0.1", 0, withdraw)
		next, err := gobgp.NewPathAttributeNextHop(hop)
		if err != nil {
			t.Fatal(err)
		}
		n.Attrs = append(n.Attrs, next)
		return []*apiutil.Path{n}
	}
	const crosses = time.Minute
	for _, c := range []struct {
		what            string
		crossing, ended bool
		gone            bool // the session is asked for no more
		node            netip.Addr
		late            time.Duration // after the beginning
		kept, back      bool
	}{
		{what: "a node's, while it crosses", crossing: true, node: hop, kept: true},
		{what: "the same, and it comes back", crossing: true, node: hop, kept: true, back: true},
		{what: "at another time", node: hop},
		{what: "of a reflector that left the cluster", crossing: true, gone: true, node: hop, kept: true},
		{what: "when it is over", crossing: true, node: hop, late: crosses},
		{what: "somebody else's", crossing: true, node: peerAddr},
		{what: "of a session that ends", crossing: true, node: hop, ended: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFeed(slog.New(slog.DiscardHandler))
			gen := f.begin()
			f.add(bgp.Peer{Addr: peerAddr})
			up := apiutil.Peer{State: apiutil.PeerState{NeighborAddress: peerAddr, SessionState: gobgp.BGP_FSM_ESTABLISHED}}
			f.state(gen, &up, time.Now())
			if c.crossing {
				f.crosses(crosses, func(p netip.Prefix, hop netip.Addr) bool {
					return hop == c.node && p == netip.MustParsePrefix("10.1.0.0/26")
				})
			}
			f.learn(gen, news(false), time.Now())
			time.Sleep(c.late)
			if c.ended {
				f.lost(peerAddr, pathDead)
			}
			if c.gone {
				f.remove(peerAddr)
			}
			f.learn(gen, news(true), time.Now())
			if c.gone {
				f.drop(peerAddr)
			}
			inUse := func() string {
				f.take()
				d := f.table.Get(netip.MustParsePrefix("10.1.0.0/26"))
				switch {
				case d == nil:
					return "nothing"
				case d.paths[0].Stale:
					return "stale"
				}
				return "fresh"
			}
			want := map[bool]string{true: "stale", false: "nothing"}
			if got := inUse(); got != want[c.kept] {
				t.Errorf("%s: in use is %s, want %s", c.what, got, want[c.kept])
			}
			end := "nothing"
			if c.back {
				f.learn(gen, news(false), time.Now())
				end = "fresh"
			}
			time.Sleep(detained + time.Second)
			synctest.Wait()
			if got := inUse(); got != end {
				t.Errorf("%s: in the end %s is in use, want %s", c.what, got, end)
			}
		})
	}
}
