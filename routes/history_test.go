package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// told are the events of a prefix, a line each, with causes numbered by their first appearance.
func (r *rig) told(prefix string) (lines []string) {
	numbers := map[uint32]int{}
	for _, e := range r.p.History(pfx(prefix)) {
		if numbers[e.CauseID] == 0 {
			numbers[e.CauseID] = len(numbers) + 1
		}
		line := strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Owner, e.What, e.Detail))
		if e.Kernel != "" {
			line += " [" + e.Kernel + "]"
		}
		lines = append(lines, fmt.Sprintf("%s <- %d %s", line, numbers[e.CauseID], e.Cause))
	}
	return lines
}

// TestHistory follows one route through everything that can happen to it.
func TestHistory(t *testing.T) {
	inline(t, func(r *rig) {
		first, second := via("10.1.0.0/26", "192.0.2.7"), via("10.1.0.0/26", "192.0.2.8")
		set := whole(first)
		set.Cause = "datastore revision 1"
		r.ready()
		r.apply(set)
		r.wait()
		r.write(kernel.Delete, func() kernel.Route {
			k := r.their("10.1.0.0/26", "192.0.2.7")
			k.Protocol = kernel.ProtoCaracal
			return k
		}())
		r.wait()
		r.fake.Inject(kerneltest.Fault{Kind: kerneltest.RouteOpFails})
		r.apply(Change{Routes: []Route{second}, Cause: "datastore revision 2"})
		r.wait()
		time.Sleep(10 * time.Second)
		r.wait()
		r.apply(Change{Withdraw: []Key{key("10.1.0.0/26")}, Cause: "datastore revision 3"})
		r.wait()
		const a, b = "[10.1.0.0/26 via 192.0.2.7 dev eth0 proto 202 metric 1024 onlink]", "[10.1.0.0/26 via 192.0.2.8 dev eth0 proto 202 metric 1024 onlink]"
		want := []string{
			"vxlan asked " + a + " <- 1 datastore revision 1",
			"vxlan written " + a + " <- 1 datastore revision 1",
			"vxlan changed by another <- 2 another program deletes this route",
			"vxlan written " + a + " <- 2 another program deletes this route",
			"vxlan asked " + b + " <- 3 datastore revision 2",
			"vxlan refused ",
			"vxlan written " + b + " <- 3 datastore revision 2",
			"vxlan withdrawn <- 4 datastore revision 3",
			" outcome kept <- 4 datastore revision 3",
			" deleted <- 4 datastore revision 3",
		}
		got := r.told("10.1.0.0/26")
		if !slices.EqualFunc(got, want, func(g, w string) bool {
			return g == strings.TrimSpace(w) || strings.HasSuffix(w, " ") && strings.HasPrefix(g, w)
		}) {
			t.Errorf("the history is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if other := r.told("10.2.0.0/26"); len(other) != 0 {
			t.Errorf("of another prefix: %q", other)
		}
		counted := uint64(0)
		for _, b := range r.p.Latencies() {
			counted += b.Count
		}
		if counted != 2 { // a repair is nobody's wish
			t.Errorf("%d latencies, want those of two wishes", counted)
		}
	})
}

// TestHistoryIsBounded: what is old is forgotten, and neither records nor causes grow beyond their rings.
func TestHistoryIsBounded(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("10.255.0.0/26", "192.0.2.7")))
		for turn := range 6 {
			var all []Route
			for i := range historyRecords / 4 {
				all = append(all, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), NextHops: via("10.0.0.0/26", fmt.Sprintf("192.0.2.%d", 7+turn)).NextHops})
			}
			r.apply(Change{Routes: all})
			r.wait()
		}
		for i := range 2 * historyCauses {
			r.apply(Change{Routes: []Route{via("10.254.0.0/26", fmt.Sprintf("192.0.2.%d", 7+i%2))}, Cause: fmt.Sprint("turn ", i)})
			if i%64 == 0 {
				r.wait()
			}
		}
		r.wait()
		if n, c := len(r.p.recorder.records), len(r.p.recorder.causes); n != historyRecords || c != historyCauses {
			t.Errorf("%d records and %d causes", n, c)
		}
		if old := r.told("10.255.0.0/26"); len(old) != 0 {
			t.Errorf("still remembered: %q", old)
		}
		last := r.p.History(pfx("10.254.0.0/26"))
		if len(last) == 0 || last[len(last)-1].Cause != fmt.Sprint("turn ", 2*historyCauses-1) {
			t.Errorf("%d events", len(last))
		}
		for i := 1; i < len(last); i++ {
			if last[i].At.Before(last[i-1].At) || last[i].CauseID < last[i-1].CauseID && last[i].What == "asked" {
				t.Fatalf("event %d of %s comes after one of %s", i, last[i].At, last[i-1].At)
			}
		}
	})
}
