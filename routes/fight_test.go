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

// A program that changes a device of ours, or its addresses, whenever they are as wanted: answered ever more slowly, told in the status, repaired
// when it stops.
func TestDeviceFighter(t *testing.T) {
	for _, c := range []struct {
		name, detail string
		undo         func(r *rig, index int) // of what is as wanted
	}{
		{"MTU", "another program changes this device: mtu 1300", func(r *rig, index int) {
			if r.device(DeviceVXLAN).MTU == 1450 {
				r.must(r.far.SetLink(r.t.Context(), index, 1300, [6]byte{}, true))
			}
		}},
		{"removes an address", "another program removes this address", func(r *rig, index int) {
			_ = r.far.DeleteAddress(r.t.Context(), kernel.Address{Link: index, Prefix: pfx("10.244.0.1/32")})
		}},
		{"adds an address", "another program adds this address", func(r *rig, index int) {
			_ = r.far.AddAddress(r.t.Context(), kernel.Address{Link: index, Prefix: pfx("10.9.9.9/32")})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.ready(vxlanSet(2))
				r.wantTunnel(vxlanSet(2))
				index := r.device(DeviceVXLAN).Index
				began, told := r.p.Stats().Repairs, false
				for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
					c.undo(r, index)
					time.Sleep(5 * time.Millisecond)
					d := r.p.Devices()[0]
					told = told || d.Outcome == Waiting && strings.Contains(d.Detail, c.detail) && strings.Contains(d.Detail, "again and again")
				}
				// As TestFighter has it: three at once, nine at doubling pauses, then one in 5 s.
				if n := r.p.Stats().Repairs - began; n < 10 || n > 20 {
					r.t.Errorf("%d repairs in 20 s", n)
				}
				if !told {
					r.t.Error("the status never said it")
				}
				time.Sleep(2 * fightMost)
				r.wantTunnel(vxlanSet(2))
				if d := r.p.Devices()[0]; d.Outcome != Installed || d.Detail != "" {
					r.t.Errorf("afterwards: %+v", d)
				}
			})
		})
	}
}
