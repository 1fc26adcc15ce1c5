package vxlan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// families in the order in which everything here is indexed by family.
var families = [2]cluster.Family{cluster.IPv4, cluster.IPv6}

// Condition is what can be said of a VTEP.
type Condition string

// The conditions of a VTEP.
const (
	InUse      Condition = "in-use"     // ours: the device is wanted; another's: neighbour and FDB entries are wanted
	Waiting    Condition = "waiting"    // good, but our own device cannot be made yet
	Incomplete Condition = "incomplete" // the Node lacks its tunnel address or its own address
	Conflict   Condition = "conflict"   // another node has the same tunnel address or MAC and goes first
)

// VTEP is one end of the tunnels, as inspection shows it.
type VTEP struct {
	Node      string
	Family    cluster.Family
	Addr      netip.Addr  // in the tunnel: Node.spec.ipv4VXLANTunnelAddr, ipv6VXLANTunnelAddr
	MAC       cluster.MAC // of the device, in the tunnel
	NodeAddr  netip.Addr  // outside the tunnel: where packets are sent
	Device    string
	Local     bool
	Condition Condition
	Detail    string // why it is not in use
}

// endpoint is a node's VTEP of one family as the datastore tells it.
type endpoint struct {
	addr, host netip.Addr
	mac        cluster.MAC
	lack       lack   // what the node lacks to have a VTEP
	winner     string // the node that has the same address or MAC and goes first
	contested  string // what both have: "tunnel address 10.0.0.1"
	field      string // the Node's field it comes from
	remedy     string
}

// lack is what is missing for a VTEP.
type lack uint8

const (
	nothing lack = iota
	lacksNode
	lacksHost
	lacksAddr
)

// whole reports whether there is a VTEP at all.
func (e *endpoint) whole() bool { return e.lack == nothing }

// missing says what a node lacks to have a VTEP of the family in place i; "" if it has one.
func (m *member) missing(i int) string {
	switch m.ends[i].lack {
	case lacksNode:
		return fmt.Sprintf("node %s is not in the datastore", m.name)
	case lacksHost:
		return fmt.Sprintf("node %s has no %v address (%s)", m.name, families[i], fieldsOf[i].host)
	case lacksAddr:
		return fmt.Sprintf("node %s has no %v tunnel address yet (%s)", m.name, families[i], fieldsOf[i].addr)
	}
	return ""
}

// conflict says why a VTEP is not used though it is whole.
func (e *endpoint) conflict(node string) string {
	if e.winner == "" {
		return ""
	}
	return fmt.Sprintf("%s of node %s is also that of node %s, which is first by name and keeps it; %s", e.contested, node, e.winner, e.remedy)
}

// member is a node as this planner sees it. It is replaced, never changed, but for ways, which fills up on demand.
type member struct {
	name string
	node *cluster.Node // nil: blocks name it, the datastore does not
	ends [2]endpoint
	ways *way // linked; two or three at most
}

// fieldsOf are the Node's fields that a VTEP comes from, by family.
var fieldsOf = [2]struct{ host, addr, mac string }{
	{"spec.bgp.ipv4Address", "spec.ipv4VXLANTunnelAddr", "spec.vxlanTunnelMACAddr"},
	{"spec.bgp.ipv6Address", "spec.ipv6VXLANTunnelAddr", "spec.vxlanTunnelMACAddrV6"},
}

// readEndpoint returns the VTEP a Node describes, without regard to others. There is one when the Node has both its own
// address and a tunnel address (Felix takes no other address in place of the BGP one, and neither do we).
func readEndpoint(n *cluster.Node, i int) endpoint {
	f := families[i]
	e := endpoint{addr: n.VXLANAddr(f), host: n.Addr(f).Addr()}
	switch {
	case !e.host.IsValid():
		e.lack = lacksHost
	case !e.addr.IsValid():
		e.lack = lacksAddr
	default:
		if e.mac = n.VXLANMAC(f); e.mac.IsZero() {
			e.mac = MAC(n.Name, f)
		}
	}
	return e
}

// claims says who holds each key of one kind. More than one holder is the rare case, and costs memory only then.
type claims[K comparable] struct {
	first  map[K]string
	rivals map[K][]string // all holders, sorted, where there are two or more
}

func newClaims[K comparable](size int) claims[K] {
	return claims[K]{first: make(map[K]string, size), rivals: map[K][]string{}}
}

// add notes a holder and returns all of them if the key is contested.
func (c claims[K]) add(k K, node string) []string {
	held, taken := c.first[k]
	if !taken {
		c.first[k] = node
		return nil
	}
	all := c.rivals[k]
	if all == nil {
		all = []string{held}
	}
	if i, found := slices.BinarySearch(all, node); !found {
		all = slices.Insert(slices.Clone(all), i, node)
	}
	c.rivals[k], c.first[k] = all, all[0]
	return all
}

// remove forgets a holder and returns those that had the key with it.
func (c claims[K]) remove(k K, node string) []string {
	all := c.rivals[k]
	if all == nil {
		delete(c.first, k)
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == node })
	c.first[k] = left[0]
	if len(left) == 1 {
		delete(c.rivals, k)
	} else {
		c.rivals[k] = left
	}
	return left
}

// roll is every node's VTEPs and who goes first where two are alike.
type roll struct {
	members map[string]*member
	ghosts  map[string]*member // nodes that blocks name and the datastore does not
	addrs   [2]claims[netip.Addr]
	macs    [2]claims[cluster.MAC]
}

// newRollOf takes the roll of a whole cluster.
func newRollOf(nodes []*cluster.Node) *roll {
	r := &roll{members: make(map[string]*member, len(nodes)), ghosts: map[string]*member{}}
	for i, f := range families {
		size := 0
		for _, n := range nodes {
			if n.VXLANAddr(f).IsValid() {
				size++
			}
		}
		r.addrs[i], r.macs[i] = newClaims[netip.Addr](size), newClaims[cluster.MAC](size)
	}
	space := make([]member, len(nodes))
	contested := map[string]bool{}
	for i, n := range nodes {
		space[i] = member{name: n.Name, node: n}
		r.enter(&space[i], contested)
	}
	for name := range contested {
		r.members[name].settle(r)
	}
	return r
}

// enter adds a member and notes who has something in common with it.
func (r *roll) enter(m *member, contested map[string]bool) {
	for i := range families {
		e := readEndpoint(m.node, i)
		if e.whole() {
			note(contested, r.addrs[i].add(e.addr, m.name))
			note(contested, r.macs[i].add(e.mac, m.name))
		}
		m.ends[i] = e
	}
	r.members[m.name] = m
}

// leave takes a member out and notes who had something in common with it.
func (r *roll) leave(m *member, contested map[string]bool) {
	for i := range families {
		if e := &m.ends[i]; e.whole() {
			note(contested, r.addrs[i].remove(e.addr, m.name))
			note(contested, r.macs[i].remove(e.mac, m.name))
		}
	}
	delete(r.members, m.name)
}

func note(to map[string]bool, names []string) {
	for _, name := range names {
		to[name] = true
	}
}

// settle decides whether the member goes first in all it claims. The first by name does, on every node alike; one
// that lost something still stands in the way of those after it, so that nobody need know who else lost.
func (m *member) settle(r *roll) {
	for i := range families {
		e := &m.ends[i]
		e.winner = ""
		if !e.whole() {
			continue
		}
		if first := r.addrs[i].first[e.addr]; first != m.name {
			e.winner, e.contested, e.field = first, fmt.Sprintf("tunnel address %v", e.addr), fieldsOf[i].addr
			e.remedy = fmt.Sprintf("remove %s from node %s so that it is given another", e.field, m.name)
		} else if first := r.macs[i].first[e.mac]; first != m.name {
			e.winner, e.contested, e.field = first, fmt.Sprintf("VXLAN MAC %v", e.mac), fieldsOf[i].mac
			e.remedy = fmt.Sprintf("give one of the two a MAC of its own in %s", e.field)
		}
	}
}

// update brings the roll up to date and returns the members that are no longer what they were, by name; nil stands for one
// that was not there.
func (r *roll) update(changes []cluster.Change[cluster.Node]) map[string]*member {
	if len(changes) == 0 {
		return nil
	}
	was, contested := map[string]*member{}, map[string]bool{}
	for _, c := range changes {
		if c.Old != nil {
			was[c.Old.Name] = r.members[c.Old.Name]
			r.leave(was[c.Old.Name], contested)
		} else {
			was[c.New.Name] = nil
		}
	}
	for _, c := range changes {
		if c.New != nil {
			r.enter(&member{name: c.New.Name, node: c.New}, contested)
		}
	}
	clear(r.ghosts)
	for name := range contested {
		m := r.members[name]
		if m == nil {
			continue // left as well
		}
		if _, replaced := was[name]; !replaced {
			was[name] = m
			m = &member{name: name, node: m.node, ends: m.ends}
			r.members[name] = m
		}
		m.settle(r)
	}
	return was
}

// forget drops every way, because what they were made from changed.
func (r *roll) forget() {
	for _, m := range r.members {
		m.ways = nil
	}
	clear(r.ghosts)
}

// get returns a member; of a node the datastore does not hold it makes one that can do nothing.
func (r *roll) get(name string) *member {
	if m := r.members[name]; m != nil {
		return m
	}
	m := r.ghosts[name]
	if m == nil {
		m = &member{name: name}
		for i := range families {
			m.ends[i].lack = lacksNode
		}
		r.ghosts[name] = m
	}
	return m
}

// l2 are the two entries that make a remote VTEP reachable (Felix vxlanfdb): its address has its MAC, and its MAC is behind
// its node. False where there is nothing to send to, or no device to send through.
func (g *ground) l2(m *member, i int) (entries [2]routes.Neighbour, ok bool) {
	if m == nil || m.name == g.node || g.fam[i].noDevice != "" {
		return entries, false
	}
	e := &m.ends[i]
	if !e.whole() || e.winner != "" || e.host == g.fam[i].self.Addr() {
		return entries, false
	}
	device := g.fam[i].device
	return [2]routes.Neighbour{
		{Device: device, Addr: e.addr, MAC: e.mac},
		{Device: device, FDB: true, Addr: e.host, MAC: e.mac},
	}, true
}
