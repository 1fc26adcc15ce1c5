package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
	"github.com/caracal-net/caracal/routes"
)

func TestParseAdoption(t *testing.T) {
	for _, c := range []struct {
		text   string
		beside bool
		want   routes.Adoption
		fault  string // part of the error
	}{
		{"", false, routes.Adoption{BIRD: true, Felix: true}, ""},
		{"", true, routes.Adoption{}, ""},
		{"none", false, routes.Adoption{}, ""},
		{"bird", true, routes.Adoption{BIRD: true}, ""},
		{" Felix", false, routes.Adoption{Felix: true}, ""},
		{"bird, felix", false, routes.Adoption{BIRD: true, Felix: true}, ""},
		{"bird,felix", true, routes.Adoption{}, EnvBesideFelix},
		{"none,bird", false, routes.Adoption{}, "want bird, felix"},
		{"frr", false, routes.Adoption{}, `"frr"`},
	} {
		got, err := ParseAdoption(c.text, c.beside)
		if c.fault == "" && (err != nil || got != c.want) || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%q beside Felix %v: %+v, %v; want %+v, an error with %q", c.text, c.beside, got, err, c.want, c.fault)
		}
	}
}

// TestClaim: leftovers are ours within the pools that we program, before anything is wanted there, and nowhere under backend none.
func TestClaim(t *testing.T) {
	for _, c := range []struct {
		backend cluster.Backend
		beside  bool // and Calico's defaults: VXLAN and IPIP are Felix's
		want    string
	}{
		{cluster.BackendBird, false, "within 10.1.0.0/16 10.2.0.0/16"},
		{cluster.BackendVXLAN, false, "within 10.1.0.0/16 10.2.0.0/16"},
		{cluster.BackendNone, false, ""},
		{cluster.BackendBird, true, ""},
	} {
		ctl, k := newSample()
		ctl.besideFelix = c.beside
		ctl.setHost(sampleHost())
		ctl.step(datastore.Update{State: sampleState(c.backend, true), InSync: true})
		i := slices.IndexFunc(k.order, func(s string) bool { return strings.HasPrefix(s, "within") })
		if got := append(k.order, "")[max(i, 0)]; i < 0 && c.want != "" || i >= 0 && got != c.want {
			t.Errorf("%+v: %v", c, k.order)
		}
		if j := slices.Index(k.order, "wants of vxlan"); c.want != "" && (j < 0 || j < i) {
			t.Errorf("%+v: wanted before it is known what is ours: %v", c, k.order)
		}
		ctl.step(datastore.Update{State: sampleState(cluster.BackendNone, true), InSync: true})
		if len(k.within) > 0 {
			t.Errorf("%+v: under backend none leftovers are still ours in %v", c, k.within)
		}
	}
	partial, k := newSample()
	partial.setHost(sampleHost())
	partial.step(datastore.Update{State: sampleState("", true)})
	if len(k.within) != 2 {
		t.Errorf("from a part of the datastore: %v", k.within)
	}
}

// TestRivalIsNotWhatIsTakenOver: routes of Felix are no problem until they could be taken over; those that are there afterwards are.
func TestRivalIsNotWhatIsTakenOver(t *testing.T) {
	for _, adopt := range []bool{false, true} {
		c, _ := newSample()
		c.adoptFelix = adopt
		for turn := range 3 {
			h := sampleHost()
			h.Felix = []netip.Prefix{netip.MustParsePrefix("10.1.1.0/26")}
			if turn > 1 {
				h.Within = c.claimed
			}
			c.setHost(h)
			c.step(datastore.Update{State: sampleState("", true), InSync: true})
			told := slices.ContainsFunc(c.View().problems, func(p cluster.Problem) bool { return strings.Contains(p.Text, "routes of Felix") })
			if want := !adopt || turn > 1; told != want {
				t.Errorf("adopted %v, plan %d: told %v", adopt, turn, told)
			}
		}
	}
}

// TestHoldsRoutes: peers are told that forwarding went on where routes of a former run are there, or those of a program that is taken over.
func TestHoldsRoutes(t *testing.T) {
	for _, c := range []struct {
		protocol kernel.Protocol // 0 = no route
		adopt    routes.Adoption
		want     bool
	}{
		{0, routes.Adoption{BIRD: true, Felix: true}, false},
		{kernel.ProtoCaracal, routes.Adoption{}, true},
		{kernel.ProtoBird, routes.Adoption{BIRD: true}, true},
		{kernel.ProtoBird, routes.Adoption{Felix: true}, false},
		{kernel.ProtoFelix, routes.Adoption{Felix: true}, true},
		{kernel.ProtoFelix, routes.Adoption{BIRD: true}, false},
		{kernel.ProtoStatic, routes.Adoption{BIRD: true, Felix: true}, false},
	} {
		for _, dst := range []string{"10.1.0.0/26", "fd00:1::/122"} {
			k := kerneltest.NewFake()
			if c.protocol != 0 {
				r := kernel.Route{Dst: netip.MustParsePrefix(dst), Type: kernel.Blackhole, Protocol: c.protocol}
				if err := k.WriteRoutes(t.Context(), []kernel.RouteOp{{Verb: kernel.Add, Route: &r}}, func(_ int, err error) { t.Error(err) }); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := holdsRoutes(t.Context(), k, c.adopt); err != nil || got != c.want {
				t.Errorf("a route of protocol %d to %s with %+v: %v, %v; want %v", c.protocol, dst, c.adopt, got, err, c.want)
			}
		}
	}
}
