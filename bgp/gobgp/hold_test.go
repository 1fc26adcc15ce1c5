package gobgp

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"

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
		{"learned", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, false)}) }, "192.0.2.12"},
		{"begun anew", func() { f.hold(peerAddr, time.Hour) }, "192.0.2.12 stale"},
		{"the server drops it", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, true)}) }, "192.0.2.12 stale"},
		{"another way", func() { f.learn(gen, []*apiutil.Path{news(other, false)}) }, "192.0.2.13"},
		{"it is changed", func() { f.learn(gen, []*apiutil.Path{news(other, false)}) }, "192.0.2.13"},
		{"it goes", func() { f.learn(gen, []*apiutil.Path{news(other, true)}) }, "192.0.2.12 stale"},
		{"it is there again", func() { f.learn(gen, []*apiutil.Path{news(other, false)}) }, "192.0.2.13"},
		{"the time is over", func() { f.drop(peerAddr) }, "192.0.2.13"},
		{"it goes for good", func() { f.learn(gen, []*apiutil.Path{news(other, true)}) }, ""},

		{"once more", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, false)}); f.hold(peerAddr, time.Hour) }, "192.0.2.12 stale"},
		{"another way", func() { f.learn(gen, []*apiutil.Path{news(other, false)}) }, "192.0.2.13"},
		{"the peer is back", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, false)}) }, "192.0.2.12, 192.0.2.13"},
		{"and takes it back", func() { f.learn(gen, []*apiutil.Path{news(peerAddr, true)}) }, "192.0.2.13"},
		{"so does the other", func() { f.learn(gen, []*apiutil.Path{news(other, true)}) }, ""},
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
