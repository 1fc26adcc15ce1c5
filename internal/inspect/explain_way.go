package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// findWay says how packets get to the node: by which paths or VTEP, and by which rule tunnel or direct was chosen.
func (e *explainer) findWay() {
	backend := e.src.Backend()
	if backend == cluster.BackendNone {
		e.add(stepRule, missing, "backend none: Caracal programs nothing on this node")
		return
	}
	if e.pool == nil {
		e.findPaths() // a route learned from a fabric's router has no pool
		e.findRule("")
		return
	}
	encap, mode := e.pool.Encapsulation()
	remote := e.node != nil && !e.local()
	tunnel := remote && e.tunnelled(mode)
	switch {
	case !remote:
	case encap == cluster.VXLAN:
		if tunnel {
			e.findVTEP()
		}
	case backend == cluster.BackendBird:
		e.findPaths()
		e.findSession()
	}
	if remote && encap == cluster.IPIP && backend == cluster.BackendVXLAN {
		e.add(stepRule, missing, "backend vxlan runs no BGP, and an IPIP pool needs it").Remedy =
			"make " + e.pool.Name + " a VXLAN pool, or the backend bird"
		return
	}
	e.findRule(e.expected(encap, mode, remote, tunnel))
}

// tunnelled is the pool mode's rule for the remote node.
func (e *explainer) tunnelled(mode cluster.Mode) bool {
	self := e.state.Node(e.src.Node)
	return mode == cluster.Always || mode == cluster.CrossSubnet && (self == nil || !self.SameSubnet(e.node.Addr(e.fam).Addr()))
}

// expected is the rule in words as the pool's mode has it, for when there is no route to say it.
func (e *explainer) expected(encap cluster.Encapsulation, mode cluster.Mode, remote, tunnel bool) string {
	switch {
	case e.local() && !e.borrowed:
		return "own block: workloads of this node have routes of their own, the rest of the block is dropped"
	case !remote:
		return ""
	case tunnel:
		return fmt.Sprintf("%v: through the %v tunnel", mode, encap)
	case encap == cluster.NoEncapsulation:
		return "no encapsulation: direct"
	}
	return fmt.Sprintf("%v: direct", mode)
}

func (e *explainer) findVTEP() {
	found := false
	for _, v := range e.src.VTEPs() {
		if v.Node != e.nodeName || v.Family != e.fam {
			continue
		}
		found = true
		if v.Problem != "" {
			e.add(stepVTEP, missing, "%s: %s", e.nodeName, v.Problem)
			continue
		}
		e.add(stepVTEP, ok, "%s: %v, MAC %v, tunnel packets go to %v", e.nodeName, v.Addr, v.MAC, v.Underlay)
	}
	if found {
		return
	}
	s := e.add(stepVTEP, missing, "no VTEP of %s is known", e.nodeName)
	switch {
	case !e.node.Addr(e.fam).IsValid():
		s.Text += fmt.Sprintf(": it has no %v address", e.fam)
		s.Remedy = "set " + nodeAddressField(e.fam) + " of Node " + e.nodeName
	case !e.node.VXLANAddr(e.fam).IsValid():
		s.Text += fmt.Sprintf(": it has no %v VXLAN tunnel address", e.fam)
		s.Remedy = "does calico-node or caracald run on " + e.nodeName + "? It writes " + tunnelField(e.fam)
	}
}

// findPaths lists the BGP paths of every prefix that may lead to the address, the longest first.
func (e *explainer) findPaths() {
	prefixes := []netip.Prefix{e.host}
	if e.block != nil {
		prefixes = append(prefixes, e.block.CIDR)
	}
	for i := range e.routes {
		if s := &e.routes[i]; s.Owner == routes.OwnerBGP && s.Route.Type != routes.Blackhole {
			prefixes = append(prefixes, s.Route.Dst)
		}
	}
	slices.SortStableFunc(prefixes, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
	for _, p := range slices.Compact(prefixes) {
		paths := slices.Clone(e.src.Paths(p))
		slices.SortStableFunc(paths, func(a, b bgp.Candidate) int {
			if a.Best != b.Best {
				if a.Best {
					return -1
				}
				return 1
			}
			return strings.Compare(a.Peer, b.Peer)
		})
		for i := range paths {
			e.addPath(&paths[i])
			if !paths[i].Refused {
				e.paths = append(e.paths, paths[i])
			}
		}
	}
	if len(e.paths) == 0 && e.pool != nil && e.node != nil {
		e.add(stepPath, missing, "no BGP path for %v is known", e.wantedPrefix())
	}
}

// wantedPrefix is the prefix whose route should lead to the address.
func (e *explainer) wantedPrefix() netip.Prefix {
	if e.block == nil || e.borrowed {
		return e.host
	}
	return e.block.CIDR
}

func (e *explainer) addPath(p *bgp.Candidate) {
	s := e.add(stepPath, ok, "%v from %s (%v): next hop %v, local preference %d", p.Prefix, p.Peer, p.PeerAddr, p.NextHop, p.LocalPref)
	if len(p.ASPath) > 0 {
		s.Text += ", AS path " + strings.Trim(fmt.Sprint(p.ASPath), "[]")
	}
	if p.MED != 0 {
		s.Text += fmt.Sprintf(", MED %d", p.MED)
	}
	switch {
	case p.Refused:
		s.Level = warn
		s.Text += "; refused: " + p.Lost
	case !p.Best && p.Lost == "":
		s.Text += "; not used, another path is better"
	case !p.Best:
		s.Text += "; not used: " + p.Lost
	}
	if p.Stale {
		s.Level = warn
		s.Text += "; stale, kept while the peer restarts"
		e.brief[s] = fmt.Sprintf("the path from %s is stale, kept while it restarts", p.Peer)
	}
}

// findSession shows the session with the node itself where it is not as it should be: mostly the reason of a missing path.
func (e *explainer) findSession() {
	for _, p := range e.src.Peers() {
		if p.Node != e.nodeName || cluster.FamilyOf(p.Addr) != e.fam {
			continue
		}
		if p.State == sessionEstablished && (len(e.paths) > 0 || !p.EndOfRIB) {
			if len(e.paths) == 0 {
				e.add(stepPeer, warn, "%s is Established but has not sent all it knows (no End-of-RIB yet)", p.Name)
			}
			continue
		}
		if p.State == sessionEstablished {
			e.add(stepPeer, missing, "%s is Established, and %s does not announce %v", p.Name, e.nodeName, e.wantedPrefix()).Remedy =
				"look at " + e.nodeName + ": is the block confirmed there, does the pool have disableBGPExport?"
			continue
		}
		level := missing
		if len(e.paths) > 0 {
			level = warn
		}
		s := e.add(stepPeer, level, "%s (%v) is %s", p.Name, p.Addr, p.State)
		if p.LastError != "" {
			s.Text += ": " + p.LastError
		}
		s.Remedy = "does BGP run on " + e.nodeName + ", and is port " + fmt.Sprint(p.Port) + " open between the two?"
	}
}

// sessionEstablished is bgp.SessionState in RFC 4271's spelling.
const sessionEstablished bgp.SessionState = "Established"

// findRule says which rule made the route, or which should have.
func (e *explainer) findRule(expected string) {
	if e.local() && e.borrowed {
		e.add(stepRule, ok, "borrowed by this node: the workload has a route of its own, whatever the block's route is")
		return
	}
	if s := e.chosen(); s != nil && s.Route.Reason != nil {
		r := s.Route.Reason
		text := r.Rule
		if r.Source != "" {
			text += " (" + r.Source + ")"
		}
		e.add(stepRule, ok, "%s", text)
		return
	}
	if expected != "" {
		e.add(stepRule, ok, "%s", expected)
	}
}

// chosen is the status of the longest desired prefix: the installed one where owners compete.
func (e *explainer) chosen() *routes.Status {
	if len(e.routes) == 0 {
		return nil
	}
	best := &e.routes[0]
	for i := range e.routes {
		s := &e.routes[i]
		if s.Route.Dst == best.Route.Dst && inKernel(s) && !inKernel(best) {
			best = s
		}
	}
	return best
}

// believed is the route that we believe the kernel uses for the address: the longest one that is in the kernel, the lowest
// metric first. Nil where there is none.
func (e *explainer) believed() *routes.Status {
	for i := range e.routes {
		if inKernel(&e.routes[i]) {
			return &e.routes[i]
		}
	}
	return nil
}

// inKernel reports whether we believe that the kernel holds the route.
func inKernel(s *routes.Status) bool {
	return s.Outcome == routes.Installed || s.Outcome == routes.Kept
}

// findRoute shows every desired route of the longest prefix, and what stands in where none of them is in the kernel.
func (e *explainer) findRoute() {
	if len(e.routes) == 0 {
		if e.nodeName != "" && !e.local() {
			e.add(stepRoute, missing, "no route to %v is wanted", e.addr)
		}
		return
	}
	top := e.routes[0].Route.Dst
	installed := inKernel(e.chosen())
	for i := range e.routes {
		if s := &e.routes[i]; s.Route.Dst == top {
			e.addRoute(s, installed)
		}
	}
	if e.borrowed && !e.local() && top != e.host {
		e.add(stepRoute, missing, "no route to %v alone is wanted, so its packets go where the rest of %v goes", e.addr, top)
	}
	if s := e.believed(); s != nil && !installed {
		e.add(stepRoute, warn, "a shorter one stands in: %s", kernelForm(s))
	}
}

// addRoute says what became of one desired route; installed says that some route of its prefix is in the kernel.
func (e *explainer) addRoute(s *routes.Status, installed bool) {
	level := missing
	switch {
	case s.Outcome == routes.Installed:
		level = ok
	case installed, s.Outcome == routes.Lost, s.Outcome == routes.Foreign: // what the winner does for packets the kernel's answer shows
		level = warn
	case s.Outcome == routes.Unroutable && e.pool == nil: // of the world: what stands in may be a way as well
		level = warn
	}
	detail := s.Detail
	if detail == "" {
		detail = s.Route.Unroutable
	}
	if detail == "" && s.Outcome == routes.Waiting {
		detail = "the kernel has not been asked yet"
	}
	text := fmt.Sprintf("%s (owner %s): %s", s.Outcome, s.Owner, kernelForm(s))
	brief := fmt.Sprintf("the route %v of owner %s is %s", s.Route.Dst, s.Owner, s.Outcome)
	if detail != "" {
		text += "; " + detail
		brief += ": " + detail
	}
	step := e.add(stepRoute, level, "%s", text)
	step.Remedy = routeRemedy(s)
	e.brief[step] = brief
}

// routeRemedy says what a person can do about an outcome.
func routeRemedy(s *routes.Status) string {
	switch s.Outcome {
	case routes.Foreign:
		return "find out which program writes it and remove it there: Caracal never touches routes of others"
	case routes.NoDevice:
		return "bring the interface up; the route follows by itself"
	case routes.Unroutable:
		if strings.HasPrefix(s.Route.Unroutable, "next hop ") {
			return "give the host a route to the next hop, or have the router announce the prefix with its own address as next hop"
		}
	case routes.Failed:
		return "it is tried again by itself; caracal resync tries at once"
	}
	return ""
}

// kernelForm is the route as ip(8) has it: what the kernel holds, else what is wanted.
func kernelForm(s *routes.Status) string {
	if s.Kernel != "" {
		return oneLine(s.Kernel)
	}
	return wantedForm(routeOf(s))
}
