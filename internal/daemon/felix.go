package daemon

import (
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/vxlan"
)

// share says which pools are left to a Felix that runs on this host, and why; "" = they are ours. The zero share is that all are.
type share struct {
	vxlan vxlan.Felix // with what concerns pools without encapsulation, which are that planner's under backend vxlan
	ipip  string
}

// divide works out the share by the settings that both programs read. Where Felix and we would both program a kind of pool we do
// not, and where neither would, nobody does; both are problems that name the setting.
func divide(st *cluster.State, beside bool) (share, []cluster.Problem) {
	if !beside {
		return share{}, nil
	}
	s := share{vxlan: vxlan.Felix{Beside: true}}
	felix, ours := st.Felix(), st.BGP().Programs
	if !felix.VXLANOff {
		s.vxlan.Left[0] = "Felix programs IPv4 pools with VXLAN; set vxlanEnabled: false in FelixConfiguration default to have Caracal do it"
	}
	if !felix.IPv6Off {
		s.vxlan.Left[1] = "Felix programs IPv6 pools with VXLAN whatever vxlanEnabled says, unless ipv6Support is false in FelixConfiguration default"
	}
	var problems []cluster.Problem
	kind := func(enc cluster.Encapsulation, name string, felix, ours bool) string {
		switch {
		case !felix && ours:
			return ""
		case felix && !ours:
			return fmt.Sprintf("Felix programs pools with %s (programClusterRoutes)", name)
		}
		what := "both Felix and BGP would program pools with %s, so they are left to Felix"
		if !felix {
			what = "neither Felix nor BGP programs pools with %s"
		}
		what = fmt.Sprintf(what, name)
		if uses(st, enc) {
			problems = append(problems, cluster.Problem{Object: "FelixConfiguration default", Field: "spec.programClusterRoutes",
				Text: what + "; for Caracal to do it set Disabled here and Enabled in BGPConfiguration default spec.programClusterRoutes"})
		}
		return what
	}
	s.ipip = kind(cluster.IPIP, "IPIP", felix.Programs.IPIP, ours.IPIP)
	s.vxlan.NoEncap = kind(cluster.NoEncapsulation, "no encapsulation", felix.Programs.NoEncap, ours.NoEncap)
	return s, problems
}

// uses reports whether any pool has an encapsulation.
func uses(st *cluster.State, enc cluster.Encapsulation) bool {
	for _, p := range st.Pools() {
		if e, _ := p.Encapsulation(); e == enc {
			return true
		}
	}
	return false
}

// rival reports routes of a Felix in pools that are ours by the settings: it runs with other settings, or has left them behind. Its IPv4
// routes go before ours (metric 0), its IPv6 routes hold the keys that ours would have; neither is touched. event is the same in words that do not
// change with every route, and that other nodes use too.
func rival(st *cluster.State, h *routes.Host, s *share) (problem, event []cluster.Problem) {
	count, first, pool := 0, netip.Prefix{}, (*cluster.Pool)(nil)
	for _, p := range h.Felix {
		in := st.PoolFor(p)
		if in == nil || s.left(in) != "" {
			continue
		}
		if count++; count == 1 {
			first, pool = p, in
		}
	}
	if count == 0 {
		return nil, nil
	}
	enc, _ := pool.Encapsulation()
	setting := "programClusterRoutes: Disabled"
	switch v6 := pool.CIDR.Addr().Is6(); {
	case enc == cluster.VXLAN && v6:
		setting = "ipv6Support: false"
	case enc == cluster.VXLAN:
		setting = "vxlanEnabled: false"
	}
	advice := ""
	if !s.vxlan.Beside {
		advice = ", and start caracald with " + EnvBesideFelix + "=true"
	}
	say := func(which, first string) []cluster.Problem {
		return []cluster.Problem{{Object: "IPPool " + pool.Name, Field: "spec.cidr", Text: fmt.Sprintf(
			"%sroutes of Felix lead to blocks of pools that we program, %sand are left alone: if Felix runs on this node set %s in FelixConfiguration default%s", which, first, setting, advice)}}
	}
	return say(fmt.Sprint(count, " "), fmt.Sprintf("%s the first, ", first)), say("", "")
}

// left says why a pool is left to Felix.
func (s *share) left(p *cluster.Pool) string {
	switch enc, _ := p.Encapsulation(); {
	case enc == cluster.VXLAN && p.CIDR.Addr().Is6():
		return s.vxlan.Left[1]
	case enc == cluster.VXLAN:
		return s.vxlan.Left[0]
	case enc == cluster.IPIP:
		return s.ipip
	}
	return s.vxlan.NoEncap
}
