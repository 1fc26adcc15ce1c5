package bgp

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// originate returns what a node announces: its own blocks, workload addresses outside them but inside a pool, those inside with
// an elevated metric (a live migration), and service addresses. What no default sends - what a pool with disableBGPExport hides, the other
// workload addresses, the networks the node is connected to - is there where a rule of some peer sends it all the same.
func (m *maker) originate(peers []Peer, services []Origination, h *routes.Host) []Origination {
	ruled := ruledBy(peers)
	var out []Origination
	var own prefixSet
	for _, a := range m.st.AffinitiesOf(m.self.Name) {
		if !confirmed(a) {
			continue
		}
		own.add(a.CIDR)
		o := Origination{Prefix: a.CIDR, Source: "BlockAffinity " + affinityName(a), LocalPref: ordinaryPref(m.st, a.CIDR)}
		if h != nil && isWorkload(h, a.CIDR) { // a block of one address
			w, _ := m.workloadRoute(h, a.CIDR)
			o.LocalPref, o.Interface = w.LocalPref, w.Interface
		}
		if pool := m.st.PoolFor(a.CIDR); pool == nil || !pool.DisableBGPExport || ruled.sent(o) {
			out = append(out, o)
		}
	}
	if h != nil {
		for _, w := range h.Workloads {
			o, elevated := m.workloadRoute(h, w)
			pool := m.st.PoolFor(w)
			if pool != nil && !pool.DisableBGPExport && (elevated || !own.covers(w)) || ruled.sent(o) {
				out = append(out, o)
			}
		}
		for _, o := range m.connected(h) {
			if ruled.sent(o) {
				out = append(out, o)
			}
		}
	}
	for _, s := range services {
		s.LocalPref = cmp.Or(s.LocalPref, ordinaryPref(m.st, s.Prefix))
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b Origination) int { return a.Prefix.Compare(b.Prefix) })
	return slices.CompactFunc(out, func(a, b Origination) bool { return a.Prefix == b.Prefix })
}

// workloadRoute returns what the host's route to a workload of this node is to others, and whether its metric is below the ordinary one.
func (m *maker) workloadRoute(h *routes.Host, w netip.Prefix) (o Origination, elevated bool) {
	o = Origination{Prefix: w, Source: "workload interface route", LocalPref: ordinaryPref(m.st, w)}
	r := h.RouteTo(w)
	if r == nil {
		return o, false
	}
	o.Interface = deviceThrough(r)
	if elevated = r.Metric > 0 && r.Metric < MaxPref-o.LocalPref; elevated {
		o.LocalPref = MaxPref - r.Metric
	}
	return o, elevated
}

// connected returns the networks of the node's interfaces, as BIRD's protocol direct knows them: without those of workloads and of ignored
// interfaces, and without what means something on one link or host only.
func (m *maker) connected(h *routes.Host) []Origination {
	var out []Origination
	for i := range h.Interfaces {
		in := &h.Interfaces[i]
		if !in.Up || ignores(m.bgp.IgnoredInterfaces, in.Name) || ignores([]string{"cali*", "kube-ipvs*"}, in.Name) {
			continue
		}
		for _, a := range in.Addrs {
			if p := a.Masked(); !a.Addr().IsLoopback() && !a.Addr().IsLinkLocalUnicast() {
				out = append(out, Origination{Prefix: p, Source: "network of interface " + in.Name, LocalPref: ordinaryPref(m.st, p), Interface: in.Name})
			}
		}
	}
	return out
}

// ruling holds the different export rules of a node's sessions, IPv4 first.
type ruling [2][][]Rule

func ruledBy(peers []Peer) *ruling {
	var out ruling
	for i := range peers {
		rules := peers[i].Export
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Accept }) {
			continue
		}
		of := &out[digit(peers[i].Addr.Is6())]
		if !slices.ContainsFunc(*of, func(other []Rule) bool { return EqualRules(other, rules) }) {
			*of = append(*of, rules)
		}
	}
	return &out
}

// sent reports whether a rule of some session accepts an origination, which then is sent whatever the defaults are.
func (r *ruling) sent(o Origination) bool {
	return slices.ContainsFunc(r[digit(o.Prefix.Addr().Is6())], func(rules []Rule) bool {
		_, v, decided := (&Config{}).apply(rules, RouteFrom(&o))
		return decided && v.Accept
	})
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// announce returns what decides about routes that no rule has decided about.
func (m *maker) announce() *Announce {
	a := &Announce{Normal4: m.normal(cluster.IPv4), Normal6: m.normal(cluster.IPv6), Advertisements: m.advertisements()}
	for _, p := range m.st.Pools() {
		if p.DisableBGPExport {
			a.Hidden = append(a.Hidden, p.CIDR)
		} else {
			a.Pools = append(a.Pools, p.CIDR)
		}
	}
	for _, claim := range m.st.AffinitiesOf(m.self.Name) {
		if confirmed(claim) {
			a.Own = append(a.Own, claim.CIDR)
		}
	}
	a.Services = slices.Concat(m.bgp.ServiceClusterIPs, m.bgp.ServiceExternalIPs, m.bgp.ServiceLoadBalancerIPs)
	if m.self.RouteReflectorClusterID.IsValid() || m.election.elected(m.self.Name) {
		a.Reflected = slices.Clone(a.Services)
	}
	for _, list := range []*[]netip.Prefix{&a.Hidden, &a.Own, &a.Services, &a.Reflected, &a.Pools} {
		slices.SortFunc(*list, netip.Prefix.Compare)
		*list = slices.Compact(*list)
	}
	return a
}

// advertisements returns the communities in force: of each family the node's own, if it has any, else the cluster's.
func (m *maker) advertisements() []Advertisement {
	of := func(list []Advertisement, f cluster.Family) (out []Advertisement) {
		for _, a := range list {
			if cluster.FamilyOf(a.CIDR.Addr()) == f {
				out = append(out, a)
			}
		}
		return out
	}
	var out []Advertisement
	for _, f := range families {
		list := of(m.bgp.NodeAdvertisements[m.self.Name], f)
		if len(list) == 0 {
			list = of(m.bgp.Advertisements, f)
		}
		out = append(out, list...)
	}
	return out
}

func (m *maker) normal(f cluster.Family) uint32 {
	if f == cluster.IPv4 {
		return cmp.Or(m.bgp.NormalPriority4, routes.Metric)
	}
	return cmp.Or(m.bgp.NormalPriority6, routes.Metric)
}

// confirmed reports whether a claim is one that is announced.
func confirmed(a *cluster.Affinity) bool { return a.State == cluster.Confirmed || a.State == "" }

// affinityName is the usual name of the claim's object: node and block joined with dashes.
func affinityName(a *cluster.Affinity) string {
	return a.Node + "-" + strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(a.CIDR.String())
}

// ordinaryPref is the LOCAL_PREF of an ordinary route of the prefix's family.
func ordinaryPref(st *cluster.State, p netip.Prefix) uint32 {
	n := st.BGP().NormalPriority4
	if p.Addr().Is6() {
		n = st.BGP().NormalPriority6
	}
	if n == 0 {
		n = routes.Metric
	}
	return MaxPref - n
}

// prefixSet is a set of prefixes asked for cover. The lengths in use are few: one per block size.
type prefixSet struct {
	m    map[netip.Prefix]struct{}
	bits []int
}

func (s *prefixSet) add(p netip.Prefix) {
	if s.m == nil {
		s.m = make(map[netip.Prefix]struct{})
	}
	s.m[p] = struct{}{}
	if !slices.Contains(s.bits, p.Bits()) {
		s.bits = append(s.bits, p.Bits())
	}
}

// covers reports whether a member holds all of p.
func (s *prefixSet) covers(p netip.Prefix) bool {
	for _, bits := range s.bits {
		if bits > p.Bits() || bits > p.Addr().BitLen() {
			continue
		}
		if q, err := p.Addr().Prefix(bits); err == nil {
			if _, ok := s.m[q]; ok {
				return true
			}
		}
	}
	return false
}
