package routes

import (
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// A program that undoes a route of ours as soon as it is there is answered ever more slowly, named in the status, and when it stops all
// is repaired.
func TestFighter(t *testing.T) {
	const dst = "10.1.0.0/26"
	ours := func(r *rig, gw string) kernel.Route {
		k := r.their(dst, gw)
		k.Protocol = kernel.ProtoCaracal
		return k
	}
	for _, c := range []struct {
		name, detail string
		undo         func(r *rig)
	}{
		{"deletes", "another program deletes this route", func(r *rig) { r.try(kernel.Delete, ours(r, "192.0.2.7")) }},
		{"rewrites under our number", "under our protocol number, 202", func(r *rig) { r.try(kernel.Replace, ours(r, "192.0.2.99")) }},
		{"replaces and goes", "a program of protocol static replaces this route", func(r *rig) {
			r.try(kernel.Replace, r.their(dst, "192.0.2.99"))
			time.Sleep(time.Millisecond)
			r.try(kernel.Delete, r.their(dst, "192.0.2.99"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.ready(whole(via(dst, "192.0.2.7"), via("10.2.0.0/26", "192.0.2.7")))
				r.wait()
				began := r.p.Stats().Writes
				fights, told := 0, 0
				for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
					if strings.HasPrefix(strings.Join(r.ours(), "\n"), direct(dst, "192.0.2.7")) {
						fights++
						c.undo(r)
					}
					time.Sleep(5 * time.Millisecond)
					if s := r.statuses()[0]; strings.Contains(s, c.detail) && strings.Contains(s, "again and again") {
						told++
					}
				}
				// Three at once, then after 10 ms doubled up to 5 s: nine, then one in 5 s; each a write or two.
				if writes := r.p.Stats().Writes - began; fights < 10 || writes > 40 {
					r.t.Errorf("%d writes in 20 s against a program that undid %d", writes, fights)
				}
				if told == 0 {
					r.t.Errorf("the status never said %q: %q", c.detail, r.statuses())
				}
				time.Sleep(2 * fightMost)
				r.wantOurs(direct(dst, "192.0.2.7"), direct("10.2.0.0/26", "192.0.2.7"))
				r.wantStatuses(dst+" vxlan installed", "10.2.0.0/26 vxlan installed")
			})
		})
	}
}

// try has another program write a route, or be refused.
func (r *rig) try(v kernel.Verb, k kernel.Route) {
	r.must(r.far.WriteRoutes(r.t.Context(), []kernel.RouteOp{{Verb: v, Route: &k}}, func(int, error) {}))
}
