package bgp

import (
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// look finds what a new state or host changes, and marks the prefixes it concerns.
func (r *Routes) look(st *cluster.State, h *routes.Host) {
	d := cluster.Diff(r.st, st)
	for _, c := range d.Blocks {
		r.mark(either(c.Old, c.New).CIDR)
	}
	if len(d.Affinities) > 0 || r.whole {
		r.lookAtClaims(st)
	}
	if h != r.host {
		r.lookAtWorkloads(h)
	}
	if r.whole {
		return
	}
	if h != r.host {
		for p := range r.reach {
			r.mark(p)
		}
	}
	rerouted := r.rerouted
	r.rerouted = false
	if rerouted || poolsDiffer(d.Pools) || d.BGP && settingsDiffer(r.st.BGP(), st.BGP()) {
		r.again(st)
		return
	}
	if len(d.Nodes) > 0 {
		r.lookAtNodes(st, d.Nodes)
	}
	if (len(d.Nodes) > 0 || d.Felix || h != r.host) && r.waysChanged(st, h) {
		r.again(st)
	}
}

func either[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// again marks everything, and forgets what was shared.
func (r *Routes) again(st *cluster.State) {
	clear(r.ways)
	clear(r.shared)
	r.last = lastForward{}
	r.ordered = false
	for _, e := range r.all.All() {
		r.markEntry(e)
	}
	for p := range r.own {
		r.mark(p)
	}
	for _, b := range st.Blocks() {
		r.mark(b.CIDR)
	}
}

// lookAtNodes marks the blocks without a path of the nodes that changed: why there is none may be said differently now.
func (r *Routes) lookAtNodes(st *cluster.State, nodes []cluster.Change[cluster.Node]) {
	changed := make(map[string]struct{}, len(nodes))
	for _, c := range nodes {
		changed[either(c.Old, c.New).Name] = struct{}{}
	}
	for _, b := range st.Blocks() {
		if _, ok := changed[b.Node]; ok {
			r.mark(b.CIDR)
		}
	}
}

// lookAtClaims compares our confirmed claims with the ones known.
func (r *Routes) lookAtClaims(st *cluster.State) {
	now := make(map[netip.Prefix]struct{}, len(r.own))
	for _, a := range st.AffinitiesOf(r.node) {
		if confirmed(a) {
			now[a.CIDR] = struct{}{}
		}
	}
	r.own = r.difference(r.own, now)
}

// lookAtWorkloads compares the workload addresses with the ones known.
func (r *Routes) lookAtWorkloads(h *routes.Host) {
	now := make(map[netip.Prefix]struct{}, len(r.works))
	for _, w := range h.Workloads {
		now[w] = struct{}{}
	}
	r.works = r.difference(r.works, now)
}

// difference marks what is in one set only and returns the new one.
func (r *Routes) difference(old, now map[netip.Prefix]struct{}) map[netip.Prefix]struct{} {
	for p := range old {
		if _, ok := now[p]; !ok {
			r.mark(p)
		}
	}
	for p := range now {
		if _, ok := old[p]; !ok {
			r.mark(p)
		}
	}
	return now
}

// poolsDiffer reports whether any pool is not what it was: then every decision may be another one.
func poolsDiffer(pools []cluster.Change[cluster.Pool]) bool {
	for _, c := range pools {
		if c.Old == nil || c.New == nil || *c.Old != *c.New {
			return true
		}
	}
	return false
}

// waysChanged finds every next hop in use anew and reports whether any leads elsewhere than before. Next hops are few, one
// per node and pool, however many prefixes there are.
func (r *Routes) waysChanged(st *cluster.State, h *routes.Host) bool {
	self := st.Node(r.node)
	pools := make(map[string]*cluster.Pool)
	for _, p := range st.Pools() {
		pools[p.Name] = p
	}
	for k, was := range r.ways {
		if now := r.findWay(st, self, h, pools[k.pool], k); !now.equal(was) {
			return true
		}
	}
	return false
}

// settingsDiffer reports whether anything in the BGP settings differs that a decision reads.
func settingsDiffer(a, b cluster.BGPConfig) bool {
	return !slices.Equal(a.IgnoredInterfaces, b.IgnoredInterfaces) || !slices.Equal(a.ServiceClusterIPs, b.ServiceClusterIPs) ||
		!slices.Equal(a.ServiceExternalIPs, b.ServiceExternalIPs) || !slices.Equal(a.ServiceLoadBalancerIPs, b.ServiceLoadBalancerIPs) ||
		a.NormalPriority4 != b.NormalPriority4 || a.NormalPriority6 != b.NormalPriority6
}
