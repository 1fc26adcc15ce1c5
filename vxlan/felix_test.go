package vxlan

import (
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// TestFelix: what is left to Felix is no route, no device and no neighbour of ours, its own block included; beside it our device has another
// name. Both may change while all else stays the same.
func TestFelix(t *testing.T) {
	for i, f := range families {
		s := newScene(f, cluster.CrossSubnet)
		p, in := NewPlanner("n1"), s.input()
		wanted := map[routes.Key]routes.Route{}
		var left Felix
		left.Beside, left.Left[i] = true, "left to Felix for a reason"
		for turn, c := range []struct {
			felix  Felix
			device string // "" for none
			whole  bool
		}{
			{Felix{}, deviceOf[false][i], true}, {Felix{Beside: true}, deviceOf[true][i], false}, {left, "", false},
			{Felix{Beside: true}, deviceOf[true][i], false}, {Felix{}, deviceOf[false][i], false},
		} {
			in.Felix = c.felix
			out := p.Plan(in)
			got := ""
			for _, l := range out.Change.Links {
				got = l.Name
			}
			for _, r := range out.Change.Routes {
				wanted[r.Key()] = r
			}
			if got != c.device || out.Change.Whole != c.whole || len(wanted) != 3 || len(out.Change.Withdraw) > 0 {
				t.Fatalf("%v, turn %d: device %q, want %q; whole %v; %d routes", f, turn, got, c.device, out.Change.Whole, len(wanted))
			}
			for _, r := range wanted {
				if (r.Unroutable == "") != (c.device != "") || r.Type == routes.Blackhole && c.device == "" {
					t.Errorf("%v, turn %d: %+v", f, turn, r)
				}
			}
			if c.device == "" && len(out.Change.WithdrawNeighbours) == 0 {
				t.Errorf("%v, turn %d: the neighbours stay", f, turn)
			}
		}
	}
}
