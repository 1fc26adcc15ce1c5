package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caracal-net/caracal/bfd"
	"github.com/caracal-net/caracal/bgp"
)

// TestDeadPaths: which paths routes avoid after each thing BFD or BGP says of them.
func TestDeadPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tor := netip.MustParseAddr("192.0.2.1")
		log := slog.New(slog.DiscardHandler)
		var avoided []netip.Addr
		l := &liveness{log: log, engine: newEngine(log, func(bgp.Events) (bgp.Speaker, error) { return nil, errors.New("none") }, bgp.Events{}),
			pending: map[netip.Addr]*time.Timer{}, dead: map[netip.Addr]time.Time{}, avoid: func(a ...netip.Addr) { avoided = a }}
		is := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			if got := len(avoided) == 1 && avoided[0] == tor; got != want || len(l.dead) != len(avoided) {
				t.Errorf("%s: avoided %v, dead %v, want %v", what, avoided, l.dead, want)
			}
		}
		down := bfd.Change{Addr: tor, From: bfd.Up, To: bfd.Down, Diag: bfd.DetectionTimeExpired}
		up := bfd.Change{Addr: tor, From: bfd.Down, To: bfd.Up}
		byWill, renewed := down, down
		byWill.ByWill, renewed.Renewed = true, true
		session := func(state bgp.SessionState) {
			l.revive([]bgp.PeerStatus{{Peer: bgp.Peer{Addr: tor}, State: state, Since: time.Now()}})
		}

		l.changed(down)
		is("dead", true)
		l.changed(up)
		is("alive", false)
		l.changed(byWill)
		is("ended by will", false)
		l.changed(renewed)
		is("begun anew", false)
		time.Sleep(renewal)
		is("begun anew, and nothing came", true)
		l.changed(up)
		l.changed(renewed)
		l.changed(up)
		time.Sleep(2 * renewal)
		is("begun anew, and up again", false)

		established := time.Now()
		time.Sleep(time.Second)
		l.changed(down)
		l.revive([]bgp.PeerStatus{{Peer: bgp.Peer{Addr: tor}, State: bgp.Established, Since: established}})
		is("the BGP session has not noticed yet", true)
		time.Sleep(time.Second)
		session("OpenSent")
		is("the BGP session is tried again", true)
		session(bgp.Established)
		is("the BGP session is back, BFD is not", false)
	})
}
