package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// The rules of this package, as routes.Reason.Rule shows them.
const (
	RuleOwnBlock     = "own block: packets to unused addresses end here"
	RuleNoEncap      = "pool without encapsulation: direct, over the host's own route to the next hop"
	RuleOutside      = "outside every pool: direct, over the host's own route to the next hop"
	RuleWorkload     = "next hop is a workload of this node: to its interface"
	RuleReach        = "host route to a BGP peer through its gateway (reachableBy)"
	RuleNoPath       = "block of another node, served by BGP"
	refusedInPool    = "next hop %s lies inside IPPool %s: refused, the overlay cannot be reached through itself"
	refusedOurs      = "next hop %s is an address of this node: refused"
	refusedFamily    = "next hop %s is of another address family than %s: refused"
	refusedOuter     = "next hop %s is not IPv4, and %s is reached through IPIP, which needs an IPv4 outer header: refused"
	refusedNoTunnel  = "IPPool %s uses IPIP, which this node cannot do"
	refusedNoRoute   = "next hop %s: %s"
	butNotBGP        = "; routes learned by BGP are not asked, they could lead in a circle"
	refusedIgnored   = "next hop %s: the host's route there uses interface %s, which BGPConfiguration ignoredInterfaces leaves out"
	refusedFarLink   = "next hop %s is a link-local address, and BGP peer %s, whose link it would be on, is not on a link of this node: refused"
	refusedNoNextHop = "the path has no next hop: refused"
)

// wayKey is what the way to a next hop depends on.
type wayKey struct {
	pool    string
	gateway netip.Addr
	peer    netip.Addr // who names the next hop, where that is a link-local address
}

// way is where a next hop leads, by several hops where the host's own route there has equal paths. refused, when not empty, says why nowhere.
type way struct {
	hops    []routes.NextHop
	mtu     uint32
	rule    string
	node    string // cluster node behind the gateway
	refused string
}

func (w *way) equal(v *way) bool {
	return w.mtu == v.mtu && w.rule == v.rule && w.node == v.node && w.refused == v.refused && slices.Equal(w.hops, v.hops)
}

// forwardKey tells apart what routes share: pool, family (an IPv4 next hop of an IPv6 prefix is refused) and paths.
type forwardKey struct {
	pool, peer, rest string
	gateway          netip.Addr
	v6               bool
}

// forward is a route without what it leads to: what routes made of the same ways share.
type forward struct {
	typ     routes.RouteType
	hops    []routes.NextHop
	mtu     uint32
	reason  *routes.Reason
	refused string
}

// route returns the route to a prefix.
func (f *forward) route(p netip.Prefix, metric uint32) routes.Route {
	return routes.Route{Dst: p, Metric: metric, Type: f.typ, NextHops: f.hops, MTU: f.mtu, Reason: f.reason, Unroutable: f.refused}
}

func (f *forward) equal(g *forward) bool {
	return f == g || f.typ == g.typ && f.mtu == g.mtu && f.refused == g.refused && *f.reason == *g.reason && slices.Equal(f.hops, g.hops)
}

// lastForward remembers the forward of one path that was asked for last: those of one peer come in a row.
type lastForward struct {
	forward *forward
	pool    *cluster.Pool
	path    *Path
	v6      bool
}

// decide returns what is wanted of one prefix and the metric (0 = the ordinary one); nil for nothing.
func (r *Routes) decide(e *entry) (*forward, uint32) {
	p := e.prefix
	pool := r.st.PoolFor(p)
	if pool != nil {
		if enc, _ := pool.Encapsulation(); enc == cluster.VXLAN {
			return nil, 0 // made from the datastore by package vxlan
		}
	}
	if _, ok := r.own[p]; ok {
		return r.ownBlock(p, pool), 0
	}
	if _, ok := r.works[p]; ok && (len(e.paths) == 0 || metricOf(e.paths[0].LocalPref) >= MaxPref-ordinaryPref(r.st, p)) {
		return nil, 0 // the host itself routes to the workload; but an elevated path is where it has moved to
	}
	if service := r.serviceRange(p); service {
		return nil, 0 // services are forwarded by kube-proxy and its like (confd: /rejectcidrs)
	}
	if rc, ok := r.reach[p]; ok {
		return r.toPeer(rc), 0
	}
	if len(e.paths) > 0 {
		return r.forward(p, pool, e.paths), metricOf(e.paths[0].LocalPref)
	}
	if b := r.st.Block(p); b != nil && pool != nil && b.Node != "" && b.Node != r.node {
		return r.noPath(p, pool, b), 0
	}
	return nil, 0
}

// ownBlock returns the blackhole of a block of ours. A block of one address has none: the workload's route is that prefix.
func (r *Routes) ownBlock(p netip.Prefix, pool *cluster.Pool) *forward {
	if p.IsSingleIP() {
		return nil
	}
	return &forward{typ: routes.Blackhole, reason: &routes.Reason{
		Rule: RuleOwnBlock, Source: "BlockAffinity " + affinityName(&cluster.Affinity{Node: r.node, CIDR: p}), Pool: nameOf(pool), Node: r.node,
	}}
}

// noPath returns the row that keeps a block visible to which no path leads.
func (r *Routes) noPath(p netip.Prefix, pool *cluster.Pool, b *cluster.Block) *forward {
	return &forward{
		typ:     routes.Unicast,
		reason:  &routes.Reason{Rule: RuleNoPath, Source: "IPAMBlock of " + p.String(), Pool: pool.Name, Node: b.Node},
		refused: r.whyNoPath(p, pool, b),
	}
}

func (r *Routes) whyNoPath(p netip.Prefix, pool *cluster.Pool, b *cluster.Block) string {
	n := r.st.Node(b.Node)
	switch {
	case pool.DisableBGPExport:
		return fmt.Sprintf("no BGP path: IPPool %s has disableBGPExport, so node %s keeps the block to itself", pool.Name, b.Node)
	case n == nil:
		return fmt.Sprintf("no BGP path: node %s, which holds the block, is not in the datastore", b.Node)
	}
	addr := n.Addr(cluster.FamilyOf(p.Addr()))
	if !addr.IsValid() {
		return fmt.Sprintf("no BGP path: node %s has no %s address to peer with", b.Node, cluster.FamilyOf(p.Addr()))
	}
	return fmt.Sprintf("no BGP path: no established session brings the block from node %s (%s)", b.Node, addr.Addr())
}

// metricOf is the route metric behind a LOCAL_PREF (Calico v3.32 and later). What would be no metric at all, or
// less, becomes 1: to IPv6 a metric of 0 means 1024.
func metricOf(pref uint32) uint32 {
	if pref >= MaxPref {
		return 1
	}
	return MaxPref - pref
}

// forward returns what a route over all of these paths that lead somewhere shares with others over the same.
func (r *Routes) forward(p netip.Prefix, pool *cluster.Pool, paths []Path) *forward {
	l := &r.last
	if len(paths) > 1 {
		return r.sharedForward(p, pool, paths)
	}
	if l.path != &paths[0] || l.pool != pool || l.v6 != p.Addr().Is6() {
		*l = lastForward{r.sharedForward(p, pool, paths), pool, &paths[0], p.Addr().Is6()}
	}
	return l.forward
}

func (r *Routes) sharedForward(p netip.Prefix, pool *cluster.Pool, paths []Path) *forward {
	key := forwardKey{pool: nameOf(pool), v6: p.Addr().Is6(), peer: paths[0].Peer, gateway: paths[0].NextHop}
	if len(paths) > 1 {
		var rest strings.Builder
		for i := range paths[1:] {
			rest.WriteString(paths[i+1].Peer)
			rest.WriteByte(' ')
			rest.WriteString(paths[i+1].NextHop.String())
			rest.WriteByte(' ')
		}
		key.rest = rest.String()
	}
	if f := r.shared[key]; f != nil {
		return f
	}
	f := r.newForward(p, pool, paths)
	r.shared[key] = f
	return f
}

func (r *Routes) newForward(p netip.Prefix, pool *cluster.Pool, paths []Path) *forward {
	f := &forward{typ: routes.Unicast}
	var rules, peers, nodes, refused []string
	var ways [][]routes.NextHop
	for i := range paths {
		w := r.way(p, pool, &paths[i])
		peers = once(peers, paths[i].Peer)
		nodes = once(nodes, w.node)
		if w.refused != "" {
			refused = once(refused, w.refused)
			continue
		}
		rules = once(rules, w.rule)
		ways = append(ways, w.hops)
		if w.mtu != 0 && (f.mtu == 0 || w.mtu < f.mtu) {
			f.mtu = w.mtu
		}
	}
	if f.hops = united(ways); len(f.hops) == 0 {
		f.mtu, f.refused = 0, strings.Join(refused, "; ")
		rules = []string{"BGP path without a usable next hop"}
	}
	f.reason = &routes.Reason{
		Rule: strings.Join(rules, "; "), Source: "BGP path from " + strings.Join(peers, ", "),
		Pool: nameOf(pool), Node: strings.Join(nodes, ", "),
	}
	return f
}

// united returns the hops of all ways, sorted, each once. Weights that the host's own route gives its paths are kept where all ways are the
// same; of different ways none has more weight than the others.
func united(ways [][]routes.NextHop) []routes.NextHop {
	var hops []routes.NextHop
	same := !slices.ContainsFunc(ways, func(w []routes.NextHop) bool { return !slices.Equal(w, ways[0]) })
	for _, w := range ways {
		for _, hop := range w {
			if !same {
				hop.Weight = 0
			}
			if !slices.Contains(hops, hop) {
				hops = append(hops, hop)
			}
		}
	}
	slices.SortFunc(hops, func(a, b routes.NextHop) int {
		return cmp.Or(a.Gateway.Compare(b.Gateway), strings.Compare(a.Device, b.Device))
	})
	return hops
}

// once appends what is not empty and not there yet.
func once(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// otherFamily reports whether routes to a prefix cannot have a next hop for its family. An IPv4 prefix may have an IPv6 one (RFC 8950), but for those that
// stand for IPv4 addresses; the reverse does not exist.
func otherFamily(p netip.Prefix, gw netip.Addr) bool {
	return gw.Is4() && p.Addr().Is6() || gw.Is4In6()
}

// way returns where the next hop of a path leads for prefixes of a pool.
func (r *Routes) way(p netip.Prefix, pool *cluster.Pool, path *Path) way {
	gw := path.NextHop
	switch {
	case !gw.IsValid() || gw.IsUnspecified():
		return way{refused: refusedNoNextHop}
	case otherFamily(p, gw):
		return way{refused: fmt.Sprintf(refusedFamily, gw, p)}
	}
	k := wayKey{pool: nameOf(pool), gateway: gw}
	if onLinkOnly(gw) {
		k.peer = path.PeerAddr
	}
	w := r.ways[k]
	if w == nil {
		found := r.findWay(r.st, r.st.Node(r.node), r.host, pool, k)
		w = &found
		r.ways[k] = w
	}
	return *w
}

// onLinkOnly reports whether an address has a meaning on one link only (RFC 4291 section 2.5.6).
func onLinkOnly(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func (r *Routes) findWay(st *cluster.State, self *cluster.Node, h *routes.Host, pool *cluster.Pool, k wayKey) way {
	w, gw := way{}, k.gateway
	if n := st.NodeByAddr(gw); n != nil {
		w.node = n.Name
	}
	single := netip.PrefixFrom(gw, gw.BitLen())
	_, local := r.works[single]
	if local {
		_, local = slices.BinarySearchFunc(r.locals, gw, netip.Addr.Compare)
	}
	if in := st.PoolFor(single); in != nil && !local {
		w.refused = fmt.Sprintf(refusedInPool, gw, in.Name)
		return w
	}
	if h.ByAddr(gw) != nil || w.node != "" && w.node == nameOfNode(self) {
		w.refused = fmt.Sprintf(refusedOurs, gw)
		return w
	}
	switch {
	case local: // BGPPeer localWorkloadSelector
		w.rule = RuleWorkload
	case pool != nil:
		if enc, _ := pool.Encapsulation(); enc == cluster.IPIP {
			return r.tunnelled(w, st, self, h, pool, gw)
		}
		if w.rule = RuleNoEncap; r.left != "" {
			w.refused = r.left
			return w
		}
	default:
		w.rule = RuleOutside
	}
	if w.hops, w.refused = r.overHost(h, k); w.refused != "" {
		return w
	}
	ignored := func(hop routes.NextHop) bool { return ignores(st.BGP().IgnoredInterfaces, hop.Device) }
	device := w.hops[0].Device
	if w.hops = slices.DeleteFunc(w.hops, ignored); len(w.hops) == 0 {
		w.refused = fmt.Sprintf(refusedIgnored, gw, device)
	}
	return w
}

// overHost finds the hops to a next hop by the host's own routes, or says why there are none. They may be IPv6 gateways although the next hop is IPv4, as on
// links without IPv4 addresses. A link-local address is on the link of the peer that names it (RFC 2545 section 3), or by which that peer is reached through
// just this address.
func (r *Routes) overHost(h *routes.Host, k wayKey) ([]routes.NextHop, string) {
	if onLinkOnly(k.gateway) {
		for _, hop := range h.Resolve(k.peer) {
			if hop.Gateway == k.peer || hop.Gateway == k.gateway {
				return []routes.NextHop{{Gateway: k.gateway, Device: hop.Device}}, ""
			}
		}
		return nil, fmt.Sprintf(refusedFarLink, k.gateway, k.peer)
	}
	via := k.gateway
	if rc, ok := r.reach[netip.PrefixFrom(via, via.BitLen())]; ok {
		via = rc.Gateway // our own route to the peer is none of the host's
	}
	hops := h.Resolve(via)
	if len(hops) == 0 {
		why := h.Unresolved(via)
		if why == routes.NoRoute {
			why += butNotBGP
		}
		return nil, fmt.Sprintf(refusedNoRoute, k.gateway, why)
	}
	return hops, ""
}

// serviceRange reports whether a prefix lies in a range of services that is announced.
func (r *Routes) serviceRange(p netip.Prefix) bool {
	c := r.st.BGP()
	for _, list := range [][]netip.Prefix{c.ServiceClusterIPs, c.ServiceExternalIPs, c.ServiceLoadBalancerIPs} {
		if _, ok := cover(list, p); ok {
			return true
		}
	}
	return false
}

// toPeer returns the route to a peer that is reached through a gateway (BGPPeer reachableBy).
func (r *Routes) toPeer(rc Reach) *forward {
	out := &forward{typ: routes.Unicast, reason: &routes.Reason{Rule: RuleReach, Source: rc.Source}}
	if out.hops = r.host.Resolve(rc.Gateway); len(out.hops) == 0 {
		out.refused = fmt.Sprintf("gateway %s of reachableBy: %s", rc.Gateway, r.host.Unresolved(rc.Gateway))
	}
	return out
}

func (r *Routes) tunnelled(w way, st *cluster.State, self *cluster.Node, h *routes.Host, pool *cluster.Pool, gw netip.Addr) way {
	if r.tunnel == nil {
		w.refused = fmt.Sprintf(refusedNoTunnel, pool.Name)
		return w
	}
	hop, mtu, rule, err := r.tunnel(st, self, h, pool, gw)
	if w.mtu, w.rule = mtu, rule; err != nil {
		w.refused = err.Error()
		return w
	}
	w.hops = []routes.NextHop{hop}
	return w
}

func nameOf(p *cluster.Pool) string {
	if p == nil {
		return ""
	}
	return p.Name
}

func nameOfNode(n *cluster.Node) string {
	if n == nil {
		return ""
	}
	return n.Name
}
