package routes

import (
	"testing"
)

// A status shows the kernel's route just as the kernel room writes it.
func TestKernelText(t *testing.T) {
	bubble(t, func(r *rig) {
		r.ready(whole(via("0.0.0.0/0", "192.0.2.7"), via("::/0", "2001:db8::7"), via("10.0.0.1/32", "192.0.2.8"), via("10.0.0.2/32", "192.0.2.8"),
			via("2001:db8:1::1/128", "2001:db8::8"), blackhole("10.1.0.0/26"), blackhole("2001:db8:2::/122"),
			Route{Dst: pfx("10.2.0.0/16"), Metric: 7, MTU: 1400, Src: addr("192.0.2.1"), NextHops: []NextHop{
				{Gateway: addr("192.0.2.2"), Device: "eth0", Weight: 2}, {Gateway: addr("192.0.2.3"), Device: "eth0"}}}))
		var shown []string
		for _, s := range r.p.Snapshot(nil) {
			if s.Outcome != Installed {
				t.Errorf("%s is %s: %s", s.Route.Dst, s.Outcome, s.Detail)
			}
			shown = append(shown, s.Kernel)
		}
		r.wantOurs(shown...)
	})
}
