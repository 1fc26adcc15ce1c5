package gobgp_test

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp/gobgp"
)

// TestPathDown: over a dead path the peer's routes go at once although graceful restart is agreed upon, and the session comes back by
// itself; a peer that is restarting keeps its routes if only its control plane may have died, and loses them if not (RFC 5882 section 4.3.2).
func TestPathDown(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a, b := config("127.3.20.1", port, "10.1.0.0/26"), config("127.3.20.2", port, "10.2.0.0/26")
	peerWith(&a, &b)
	nb := start(t, b, gobgp.Options{})
	c := startChild(t, a, false)
	fresh := "10.1.0.0/26 Mesh_127_3_20_1 via 127.3.20.1"
	nb.knows(t, fresh)
	peer := netip.MustParseAddr("127.3.20.1")
	down := func(controlPlane bool) {
		t.Helper()
		if err := nb.PathDown(t.Context(), peer, controlPlane); err != nil {
			t.Fatal(err)
		}
	}

	began := time.Now()
	down(true) // the session is up: it is the path
	nb.knows(t)
	t.Logf("routes gone after %v", time.Since(began).Round(100*time.Microsecond))
	if p := nb.status("127.3.20.1"); !strings.Contains(p.LastError, "BFD") || p.Restarting {
		t.Errorf("%+v", p)
	}
	nb.knows(t, fresh)
	nb.up(t, "127.3.20.1")
	t.Logf("back after %v", time.Since(began).Round(100*time.Millisecond))

	lost := nb.losses("10.1.0.0/26")
	c.end(syscall.SIGKILL)
	nb.knows(t, fresh+" stale")
	down(true)
	nb.knows(t, fresh+" stale")
	if p := nb.status("127.3.20.1"); !p.Restarting || nb.losses("10.1.0.0/26") != lost {
		t.Errorf("a peer that restarts has lost its routes: %+v", p)
	}
	down(false)
	nb.knows(t)
	if err := nb.PathDown(t.Context(), netip.MustParseAddr("127.3.20.9"), false); err != nil {
		t.Error("a stranger:", err)
	}
}
