package daemon

import (
	"net/netip"
	"testing"

	"github.com/caracal-net/caracal/routes"
)

func each(all []routes.NeighbourStatus) func(func(*routes.NeighbourStatus)) {
	return func(f func(*routes.NeighbourStatus)) {
		for _, s := range all {
			f(&s)
		}
	}
}

// TestDeviceRows: a device says what is wrong with the first entry that is not there, unless there is something to say of itself.
func TestDeviceRows(t *testing.T) {
	entry := func(device string, fdb bool, addr string, o routes.Outcome, detail string) routes.NeighbourStatus {
		return routes.NeighbourStatus{Neighbour: routes.Neighbour{Device: device, FDB: fdb, Addr: netip.MustParseAddr(addr)}, Outcome: o, Detail: detail}
	}
	rows := deviceRows([]routes.DeviceStatus{
		{Link: routes.Link{Name: "a"}, Outcome: routes.Installed},
		{Link: routes.Link{Name: "b"}, Outcome: routes.Failed, Detail: "no MTU"},
		{Link: routes.Link{Name: "c"}, Outcome: routes.Installed},
	}, each([]routes.NeighbourStatus{
		entry("a", false, "10.1.0.0", routes.Installed, ""),
		entry("a", true, "192.0.2.2", routes.Failed, "ENOMEM"),
		entry("a", true, "192.0.2.1", routes.Waiting, "another program deletes this entry"),
		entry("a", true, "192.0.2.3", routes.Failed, "ENOMEM"),
		entry("b", false, "10.1.0.0", routes.Failed, "ENOMEM"),
		entry("c", false, "10.1.0.0", routes.Failed, "ENOMEM"),
		entry("gone", false, "10.1.0.0", routes.Kept, ""),
	}))
	for i, want := range []struct {
		detail            string
		installed, wanted int
	}{{"FDB entry of 192.0.2.1: another program deletes this entry", 1, 4}, {"no MTU", 0, 1}, {"neighbour 10.1.0.0: ENOMEM", 0, 1}} {
		if r := rows[i]; r.Detail != want.detail || r.NeighboursInstalled != want.installed || r.NeighboursWanted != want.wanted {
			t.Errorf("%s: %q, %d of %d; want %+v", r.Name, r.Detail, r.NeighboursInstalled, r.NeighboursWanted, want)
		}
	}
}

// TestNoEndOfRIB: of a cluster of hundreds of nodes not all are named.
func TestNoEndOfRIB(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g"}
	for n, want := range map[int]string{0: "", 1: "no End-of-RIB from a", 5: "no End-of-RIB from a, b, c, d, e", 7: "no End-of-RIB from a, b, c, d, e and 2 more"} {
		if got := noEndOfRIB(names[:n]); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
