package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/routes"
)

// felixCase is a cluster's settings and what is left to Felix by them: v4, v6, ipip, none are the four kinds of pools.
type felixCase struct {
	vxlanOff, ipv6Off bool
	felix, bgp        cluster.ClusterRoutes
	left              string
	problems          int
}

func (c *felixCase) state() *cluster.State {
	b := cluster.NewBuilder()
	f, g := cluster.DefaultFelix(), cluster.DefaultBGP()
	f.VXLANOff, f.IPv6Off, f.Programs, g.Programs = c.vxlanOff, c.ipv6Off, c.felix, c.bgp
	b.SetFelix(f)
	b.SetBGP(g)
	for name, p := range map[string]cluster.Pool{"v4": {VXLANMode: cluster.Always}, "ipip": {IPIPMode: cluster.Always}, "none": {}, "v6": {VXLANMode: cluster.Always}} {
		p.Name, p.CIDR = name, netip.MustParsePrefix(map[string]string{"v4": "10.1.0.0/16", "ipip": "10.2.0.0/16", "none": "10.3.0.0/16", "v6": "fd00:1::/64"}[name])
		b.SetPool(&p)
	}
	return b.State()
}

// TestDivide: every pair of the two settings called programClusterRoutes, and what else decides.
func TestDivide(t *testing.T) {
	both, ipip, none := cluster.ClusterRoutes{IPIP: true, NoEncap: true}, cluster.ClusterRoutes{IPIP: true}, cluster.ClusterRoutes{NoEncap: true}
	off := cluster.ClusterRoutes{}
	for _, c := range []felixCase{
		{false, false, ipip, none, "v4 v6 ipip", 0}, // Calico's defaults
		{true, false, off, both, "v6", 0},           // the profile
		{true, true, off, both, "", 0},
		{true, true, both, off, "ipip none", 0},
		{true, true, none, ipip, "none", 0},
		{true, true, both, both, "ipip none", 2}, // both would
		{true, true, off, off, "ipip none", 2},   // neither would
		{true, true, ipip, both, "ipip", 1},
		{true, true, off, none, "ipip", 1},
	} {
		st := c.state()
		s, problems := divide(st, true)
		var left []string
		for _, name := range []string{"v4", "v6", "ipip", "none"} {
			i := slices.IndexFunc(st.Pools(), func(p *cluster.Pool) bool { return p.Name == name })
			if s.left(st.Pools()[i]) != "" {
				left = append(left, name)
			}
		}
		if got := strings.Join(left, " "); got != c.left || len(problems) != c.problems {
			t.Errorf("%+v: left to Felix %q, %d problems: %v", c, got, len(problems), problems)
		}
		for _, p := range problems {
			if !strings.Contains(p.Text, "programClusterRoutes") {
				t.Errorf("%q does not name the setting", p.Text)
			}
		}
		if s, problems := divide(st, false); s != (share{}) || problems != nil {
			t.Errorf("without a Felix something is left: %+v", s)
		}
	}
}

// TestRival: routes of Felix in a pool that is ours are told, with the setting that ends them; in a pool that is Felix's they are as they should be.
func TestRival(t *testing.T) {
	c := felixCase{vxlanOff: true, felix: cluster.ClusterRoutes{}, bgp: cluster.ClusterRoutes{IPIP: true, NoEncap: true}}
	for _, r := range []struct {
		routes string
		beside bool
		want   string // "" for no problem
	}{
		{"10.1.1.0/26 10.1.2.0/26", true, "2 routes of Felix lead to blocks of pools that we program, 10.1.1.0/26 the first, and are left alone: if Felix runs on this node set vxlanEnabled: false in FelixConfiguration default"},
		{"10.2.1.0/26", true, "programClusterRoutes: Disabled"},
		{"fd00:1::/122", true, ""}, // Felix's by the settings
		{"fd00:1::/122", false, "ipv6Support: false"},
		{"10.1.1.0/26", false, EnvBesideFelix + "=true"},
		{"172.20.0.0/24", true, ""}, // in no pool
		{"", true, ""},
	} {
		h := sampleHost()
		for p := range strings.FieldsSeq(r.routes) {
			h.Felix = append(h.Felix, netip.MustParsePrefix(p))
		}
		s, _ := divide(c.state(), r.beside)
		got, event := rival(c.state(), h, &s)
		if len(event) != len(got) || len(event) > 0 && (strings.Contains(event[0].Text, "the first") || event[0].Object != got[0].Object || !strings.Contains(got[0].Text, strings.TrimPrefix(event[0].Text, "routes of Felix lead to blocks of pools that we program, "))) {
			t.Errorf("%s, beside %v: the Event says %v", r.routes, r.beside, event)
		}
		if r.want == "" && len(got) > 0 || r.want != "" && (len(got) != 1 || !strings.Contains(got[0].Text, r.want)) {
			t.Errorf("%s, beside %v: %v, want %q", r.routes, r.beside, got, r.want)
		}
	}
}

// TestBesideFelix: settings that change while the daemon runs move pools from one program to the other, and back.
func TestBesideFelix(t *testing.T) {
	c, k := newSample()
	c.besideFelix = true
	c.setHost(sampleHost())
	state := func(ours bool, byBGP ...bool) datastore.Update {
		b := cluster.NewBuilder()
		for _, n := range sampleState(cluster.BackendBird, true).Nodes() {
			b.SetNode(n)
		}
		st := sampleState(cluster.BackendBird, true)
		for _, p := range st.Pools() {
			b.SetPool(p)
		}
		for _, x := range st.Blocks() {
			b.SetBlock(x)
		}
		for _, a := range st.Affinities() {
			b.SetAffinity(a)
		}
		b.SetBackend(cluster.BackendBird)
		f, g := cluster.DefaultFelix(), cluster.DefaultBGP()
		if g.Programs = (cluster.ClusterRoutes{IPIP: true, NoEncap: true}); ours {
			f.VXLANOff, f.Programs = true, cluster.ClusterRoutes{}
		}
		if len(byBGP) > 0 { // by BGP's setting alone
			f.VXLANOff, f.Programs, g.Programs.IPIP = true, cluster.ClusterRoutes{}, ours
		}
		b.SetFelix(f)
		b.SetBGP(g)
		return datastore.Update{State: b.State(), InSync: true}
	}
	c.step(state(true))
	c.learn()
	for turn := range 4 {
		ours := turn%2 == 0
		c.step(state(ours, true))
		if ip := slices.Contains(k.installable(routes.OwnerBGP), "10.2.1.0/26"); ip != ours {
			t.Errorf("turn %d by BGP's setting: IPIP routed %v, want %v", turn, ip, ours)
		}
	}
	for turn := range 3 {
		ours := turn%2 == 0
		c.step(state(ours))
		vx, ip := slices.Contains(k.installable(routes.OwnerVXLAN), "10.1.1.0/26"), slices.Contains(k.installable(routes.OwnerBGP), "10.2.1.0/26")
		if vx != ours || ip != ours {
			t.Errorf("turn %d: VXLAN routed %v, IPIP routed %v, want %v", turn, vx, ip, ours)
		}
		wantDevices := []string{routes.DeviceBesideVXLAN}
		if !ours {
			wantDevices = nil
		}
		if !slices.Equal(k.links[routes.OwnerVXLAN], wantDevices) || (len(k.links[routes.OwnerIPIP]) > 0) != ours {
			t.Errorf("turn %d: devices %v and %v", turn, k.links[routes.OwnerVXLAN], k.links[routes.OwnerIPIP])
		}
		for _, r := range k.wants[routes.OwnerVXLAN] {
			if r.Unroutable == "" && len(r.NextHops) > 0 && r.NextHops[0].Device == routes.DeviceVXLAN {
				t.Errorf("turn %d: %v leads through Felix's device", turn, r.Dst)
			}
		}
	}
}
