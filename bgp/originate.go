package bgp

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// originate returns what a node announces: its own blocks, and workload addresses outside them but inside a pool.
func originate(st *cluster.State, self *cluster.Node, h *routes.Host) []Origination {
	var out []Origination
	var own prefixSet
	for _, a := range st.AffinitiesOf(self.Name) {
		if !confirmed(a) {
			continue
		}
		own.add(a.CIDR)
		if pool := st.PoolFor(a.CIDR); pool == nil || !pool.DisableBGPExport {
			out = append(out, Origination{Prefix: a.CIDR, Source: "BlockAffinity " + affinityName(a), LocalPref: ordinaryPref(st, a.CIDR)})
		}
	}
	if h != nil {
		for _, w := range h.Workloads {
			if pool := st.PoolFor(w); pool != nil && !pool.DisableBGPExport && !own.covers(w) {
				out = append(out, Origination{Prefix: w, Source: "workload interface route", LocalPref: ordinaryPref(st, w)})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Origination) int { return a.Prefix.Compare(b.Prefix) })
	return slices.CompactFunc(out, func(a, b Origination) bool { return a.Prefix == b.Prefix })
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
