package daemon

import "github.com/caracal-net/caracal/internal/cluster"

// few reports whether to differs from from in nothing that could take more than most routes, prefixes or addresses from anybody: in some blocks and
// claims, and in what is new. It costs a walk over lists where losses costs two plans, and it is what nearly every State is like that comes
// while the datastore is in doubt. Two nodes that are given one address take routes from each other, which is not counted.
func few(from, to *cluster.State, most int) bool {
	if from == nil || to == nil {
		return false
	}
	c := cluster.Diff(from, to).Real()
	if len(c.Pools)+len(c.Peers)+len(c.Filters)+len(c.Secrets)+len(c.Services)+len(c.Slices)+len(c.Pods) > 0 || c.BGP || c.Felix || c.Backend {
		return false
	}
	for _, n := range c.Nodes {
		if n.New == nil || n.Old != nil && !gains(n.Old, n.New) {
			return false
		}
	}
	lost := 0
	for _, b := range c.Blocks {
		if b.Old != nil {
			lost += 1 + len(b.Old.Borrowed)
		}
	}
	for _, a := range c.Affinities {
		if a.Old != nil {
			lost++
		}
	}
	return lost <= most
}

// gains reports whether a node has all that it had, and perhaps more addresses.
func gains(was, is *cluster.Node) bool {
	next := *is
	if !was.VXLANAddr4.IsValid() {
		next.VXLANAddr4 = was.VXLANAddr4
	}
	if !was.VXLANAddr6.IsValid() {
		next.VXLANAddr6 = was.VXLANAddr6
	}
	if !was.IPIPAddr.IsValid() {
		next.IPIPAddr = was.IPIPAddr
	}
	if !was.Addr4.IsValid() {
		next.Addr4 = was.Addr4
	}
	if !was.Addr6.IsValid() {
		next.Addr6 = was.Addr6
	}
	return was.SameAs(&next)
}
