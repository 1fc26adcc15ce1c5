package vxlan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// use says what kind of destination a way leads to.
type use uint8

const (
	wholeBlock use = iota
	oneAddr        // an address that a node uses in a block of another
	tunnelAddr     // such an address that is the node's own end of the tunnel
)

// way is a route without its destination. All destinations of one use, pool and node share one way, and so its next hops
// and its Reason.
type way struct {
	next   *way // of the same member
	pool   *cluster.Pool
	use    use
	route  routes.Route // Dst is not set
	hop    [1]routes.NextHop
	reason routes.Reason
}

// to returns the route to a destination.
func (w *way) to(dst netip.Prefix) routes.Route {
	r := w.route
	r.Dst = dst
	return r
}

// same reports whether two ways make the same route; nil is no route.
func (w *way) same(o *way) bool {
	if w == o || w == nil || o == nil {
		return w == o
	}
	a, b := &w.route, &o.route
	return a.Type == b.Type && a.Scope == b.Scope && a.Src == b.Src && a.MTU == b.MTU && a.Unroutable == b.Unroutable &&
		slices.Equal(a.NextHops, b.NextHops) && w.reason == o.reason
}

// chosen is the rule that decided, and how packets go: one of direct and through, or why not.
type chosen struct {
	rule       string
	unroutable string
	direct     bool
}

// find returns the way to a node for one pool and use. pool is nil for a block in no pool.
func (g *ground) find(m *member, pool *cluster.Pool, u use) *way {
	for w := m.ways; w != nil; w = w.next {
		if w.pool == pool && w.use == u {
			return w
		}
	}
	w := &way{pool: pool, use: u, next: m.ways}
	m.ways = w
	i := 0 // without a pool there is no route in either family
	if pool != nil {
		i = index(cluster.FamilyOf(pool.CIDR.Addr()))
	}
	if left := g.left(pool, i); left != "" {
		w.route.Type, w.route.Unroutable = routes.Unicast, left
		w.reason.Rule = "left to Felix"
	} else if m.name == g.node {
		w.route.Type = routes.Blackhole
		w.reason.Rule = "own block: drop what no workload's own route takes"
	} else {
		g.lead(w, m, i, g.choose(m, pool, i))
	}
	w.reason.Node = m.name
	if pool != nil {
		w.reason.Pool = pool.Name
	}
	if w.reason.Source = "IPAMBlocks of node " + m.name; u != wholeBlock {
		w.reason.Source = "IPAMBlock address used by node " + m.name
	}
	w.route.Reason = &w.reason
	return w
}

// left says why a pool is left to Felix, "" where it is ours. Its own block is left too: the blackhole is Felix's as well.
func (g *ground) left(pool *cluster.Pool, i int) string {
	if pool == nil {
		return ""
	}
	switch enc, _ := pool.Encapsulation(); enc {
	case cluster.VXLAN:
		return g.felix.Left[i]
	case cluster.NoEncapsulation:
		return g.felix.NoEncap
	}
	return ""
}

// choose applies the pool's mode (the plan's table of modes) to a remote node.
func (g *ground) choose(m *member, pool *cluster.Pool, i int) chosen {
	if pool == nil {
		return chosen{rule: "no pool", unroutable: "the block is in no IPPool that is in effect; create the pool again, or release the block"}
	}
	host := m.ends[i].host
	near := g.fam[i].sameSubnet(host)
	enc, mode := pool.Encapsulation()
	switch {
	case enc == cluster.VXLAN && mode == cluster.Always:
		return chosen{rule: "Always: every remote node is reached through the tunnel"}
	case enc == cluster.VXLAN && near:
		return chosen{rule: "CrossSubnet: remote node is in our subnet", direct: true}
	case enc == cluster.VXLAN:
		return chosen{rule: "CrossSubnet: remote node is not in our subnet"}
	case enc == cluster.IPIP:
		return chosen{rule: "IPIP under backend vxlan", unroutable: fmt.Sprintf(
			"IPPool %s uses IPIP, which needs the backend bird; set vxlanMode instead of ipipMode, or calico_backend to bird", pool.Name)}
	case !host.IsValid():
		return chosen{rule: "Never: remote node's address is not known", unroutable: m.missing(i)}
	case near:
		return chosen{rule: "Never: remote node is in our subnet", direct: true}
	}
	return chosen{rule: "Never: remote node is not in our subnet", unroutable: fmt.Sprintf(
		"IPPool %s has no encapsulation, node %s is not in our subnet and the backend vxlan learns no routes; "+
			"set vxlanMode to CrossSubnet, or calico_backend to bird", pool.Name, m.name)}
}

// lead makes the choice a route, or says why there is none right now.
func (g *ground) lead(w *way, m *member, i int, c chosen) {
	e, t := &m.ends[i], &g.fam[i]
	w.route.Type = routes.Unicast
	w.reason.Rule = c.rule
	obstacle := c.unroutable
	switch {
	case obstacle != "":
	case c.direct:
		obstacle = t.noParent
	case t.noDevice != "":
		obstacle = t.noDevice
	case !e.whole():
		obstacle = m.missing(i)
	default:
		obstacle = e.conflict(m.name)
	}
	if obstacle == "" && e.host == t.self.Addr() {
		obstacle = fmt.Sprintf("node %s claims our own address %v (%s of node %s); give one of the two its own address, "+
			"or delete the Node that no longer exists", m.name, e.host, fieldsOf[i].host, m.name)
	}
	if obstacle != "" {
		w.route.Unroutable = obstacle
		return
	}
	w.route.Src = t.src
	switch {
	case c.direct:
		w.hop[0] = routes.NextHop{Gateway: e.host, Device: t.parent, Onlink: true}
	case w.use == tunnelAddr:
		// The address is on the far side of the tunnel itself: no gateway, and on IPv4 link scope. IPv6 knows no scope
		// and the kernel would read another one back.
		w.hop[0] = routes.NextHop{Device: t.device}
		if i == 0 {
			w.route.Scope = routes.ScopeLink
		}
		w.route.MTU = uint32(t.mtu)
	default:
		w.hop[0] = routes.NextHop{Gateway: e.addr, Device: t.device, Onlink: true}
		w.route.MTU = uint32(t.mtu)
	}
	w.route.NextHops = w.hop[:]
}
