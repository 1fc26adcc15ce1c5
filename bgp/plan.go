package bgp

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

const (
	// DefaultPort is TCP port 179 (RFC 4271 section 8.2.1).
	DefaultPort = 179
	// DefaultRestartTime is the Restart Time of BIRD in calico-node (RFC 4724 section 3).
	DefaultRestartTime = 120 * time.Second
	// MaxPref less a route's metric is its LOCAL_PREF on iBGP (Calico v3.32 and later).
	MaxPref = 2147483647
)

// Planner makes Configs. The zero value works, but knows no other selector than the empty one and all().
type Planner struct {
	// Match says whether labels match a Calico selector; it is injected because this package does not parse Calico's
	// languages.
	Match func(selector string, labels map[string]string) (bool, error)
	// DataPlane is what has been verified of the node's handling of service addresses; nil: they are announced without.
	DataPlane *DataPlane
	// RouterID is this node's BGP identifier (CALICO_ROUTER_ID); invalid: by the function RouterID.
	RouterID netip.Addr
	// HashRouterID has it made of the node's name though the node has an IPv4 address (CALICO_ROUTER_ID=hash).
	HashRouterID bool
	// Leaving is how far the node is to leave.
	Leaving Leaving
	// PodNode is the node as Kubernetes names it, of which Pods and endpoints are its own; "" = as Calico does.
	PodNode string
	// Explain has the Config say where each of its values comes from, for Effective.
	Explain bool
}

// Plan returns what the Speaker of a node should be: see the package documentation. It is the zero Planner's Plan.
func Plan(st *cluster.State, node string, h *routes.Host) (Config, []cluster.Problem) {
	return (&Planner{}).Plan(st, node, h)
}

// Plan returns what the Speaker of a node should be. Problems name what could not be used; the Config is good without it.
// A node that is not in the datastore gets a Config with AS 0, which stands for "no Speaker yet".
func (p *Planner) Plan(st *cluster.State, node string, h *routes.Host) (Config, []cluster.Problem) {
	self := st.Node(node)
	if self == nil {
		return Config{}, []cluster.Problem{{
			Object: "Node " + node, Field: "metadata.name",
			Text: "this node is not in the datastore, so nobody can peer with it: create the Node or set NODENAME to the name it has",
		}}
	}
	m := &maker{st: st, self: self, podNode: cmp.Or(p.PodNode, node), match: p.Match, explain: p.Explain, bgp: st.BGP()}
	if m.match == nil {
		m.match = matchAll
	}
	m.routerID = p.routerID(self)
	m.election = m.elect()
	cfg := Config{
		ASN:         m.asnOf(self),
		RouterID:    m.routerID,
		Election:    m.election,
		ListenAddrs: m.listenAddrs(),
		ListenPort:  m.listenPort(node),
		Announce:    m.announce(),
		Leaving:     p.Leaving,
	}
	m.explicit()
	m.mesh()
	cfg.Peers = m.chosen()
	cfg.Reach, cfg.Workloads = m.reach, m.locals
	cfg.Nodes = m.others()
	var services []Origination
	services, cfg.Held = Services(st, node, m.podNode, p.DataPlane)
	cfg.Originate = left(p.Leaving, m.originate(cfg.Peers, services, h), services, cfg.Announce.Own, h)
	cfg.Nowhere = m.nowhere(h, &cfg)
	if asksForInterfaces(cfg.Peers) {
		cfg.Ways = ways(h)
	} else {
		for i := range cfg.Originate {
			cfg.Originate[i].Interface = ""
		}
	}
	if m.explain {
		cfg.Sources = m.configSources()
	}
	return cfg, m.problems
}

// RouterID returns a node's BGP identifier: its IPv4 address, or for a node without one the form Calico calls "hash": the
// first four bytes of SHA-256 of its name, 32 subtracted from the first if that is above 223.
func RouterID(n *cluster.Node) netip.Addr {
	if n.Addr4.IsValid() {
		return n.Addr4.Addr()
	}
	return hashedID(n)
}

func (p *Planner) routerID(n *cluster.Node) netip.Addr {
	switch {
	case p.RouterID.IsValid():
		return p.RouterID
	case p.HashRouterID:
		return hashedID(n)
	}
	return RouterID(n)
}

func hashedID(n *cluster.Node) netip.Addr {
	sum := sha256.Sum256([]byte(n.Name))
	id := [4]byte(sum[:4])
	if id[0] > 223 {
		id[0] -= 32
	}
	return netip.AddrFrom4(id)
}

// matchAll is the Match of the zero Planner.
func matchAll(selector string, _ map[string]string) (bool, error) {
	if s := strings.ReplaceAll(selector, " ", ""); s != "" && s != "all()" {
		return false, fmt.Errorf("selector %q: only all() can be matched here", selector)
	}
	return true, nil
}

// maker holds one run of Plan.
type maker struct {
	st       *cluster.State
	self     *cluster.Node
	podNode  string
	bgp      cluster.BGPConfig
	match    func(string, map[string]string) (bool, error)
	explain  bool
	routerID netip.Addr
	election *Election // nil where none is asked for
	wanted   []*candidate
	reach    []Reach
	locals   []netip.Addr // of chosen local workloads
	rules    map[rulesKey][]Rule
	problems []cluster.Problem
}

// candidate is a wanted session with its standing among those of the same address.
type candidate struct {
	peer Peer
	rank int              // one of those below, the lowest wins
	from string           // name of the BGPPeer, "" for the mesh
	res  *cluster.BGPPeer // nil for the mesh
}

// Standing of a session when several name the same address. GoBGP tells peers apart by address only, and two sessions
// between the same two speakers would fight over one connection, as they do in BIRD.
const (
	rankGlobal = iota
	rankNode
	rankReverse
	rankWorkload
	rankMesh
)

// chosen returns the winners, sorted by name, and notes the losers. What only a session that is started needs is looked up for
// winners alone, so that nothing is said of the others.
func (m *maker) chosen() []Peer {
	slices.SortStableFunc(m.wanted, func(a, b *candidate) int {
		return cmp.Or(a.peer.Addr.Compare(b.peer.Addr), cmp.Compare(a.rank, b.rank), strings.Compare(a.from, b.from), cmp.Compare(a.peer.Port, b.peer.Port))
	})
	var won []*candidate
	for _, c := range m.wanted {
		if n := len(won); n > 0 && won[n-1].peer.Addr == c.peer.Addr {
			m.lost(c, &won[n-1].peer)
			continue
		}
		m.complete(c)
		won = append(won, c)
	}
	slices.SortFunc(won, func(a, b *candidate) int { return strings.Compare(a.peer.Name, b.peer.Name) })
	if len(won) == 0 {
		return nil
	}
	peers := make([]Peer, len(won))
	for i, c := range won {
		if peers[i] = c.peer; c.rank == rankWorkload {
			m.locals = append(m.locals, c.peer.Addr)
		}
	}
	slices.SortFunc(m.locals, netip.Addr.Compare)
	return peers
}

// complete adds what is read from other objects than the peering: the rules, the password and the route to the peer.
func (m *maker) complete(c *candidate) {
	if c.res == nil {
		m.secret(&c.peer, m.bgp.MeshPassword, "BGPConfiguration default", "spec.nodeMeshPassword")
		return
	}
	m.secret(&c.peer, c.res.Password, c.peer.Source, "spec.password")
	m.filters(&c.peer, c.res)
	if c.res.ReachableBy.IsValid() {
		m.reach = append(m.reach, Reach{Peer: c.peer.Addr, Gateway: c.res.ReachableBy, Source: c.peer.Source})
	}
}

// lost notes an explicit session that another one of the same address beats. The mesh losing to a BGPPeer, and the two
// directions of one resource meeting, is as it should be.
func (m *maker) lost(c *candidate, winner *Peer) {
	if c.from == "" || winner.Source == c.peer.Source || c.rank == rankReverse {
		return
	}
	if c.res.PeerSelector != "" { // of a large cluster it may be true of many
		m.problemOnce("BGPPeer "+c.from, "spec.peerSelector",
			fmt.Sprintf("%s, perhaps among others, already has a session from %s, which wins: have only one of the two select it", c.peer.Addr, winner.Source))
		return
	}
	field := "spec.peerIP"
	if c.rank == rankWorkload {
		field = "spec.localWorkloadSelector"
	}
	m.problems = append(m.problems, cluster.Problem{
		Object: "BGPPeer " + c.from, Field: field,
		Text: fmt.Sprintf("%s already has a session from %s, which wins; remove one of the two", c.peer.Addr, winner.Source),
	})
}

// others returns the addresses of the other nodes, sorted.
func (m *maker) others() []netip.Addr {
	var out []netip.Addr
	for _, a := range m.st.Addrs() {
		if a.Kind == cluster.HostAddr && a.Node != m.self.Name && (len(out) == 0 || out[len(out)-1] != a.Addr) {
			out = append(out, a.Addr)
		}
	}
	return out
}

func (m *maker) asnOf(n *cluster.Node) uint32 {
	if n.ASN != 0 {
		return n.ASN
	}
	return m.bgp.ASN
}

// listenPort returns the port a node listens on: its own BGPConfiguration's, else the cluster's, else 179.
func (m *maker) listenPort(node string) uint16 {
	return cmp.Or(m.bgp.NodeListenPorts[node], m.bgp.ListenPort, DefaultPort)
}

// listenAddrs returns the node's own addresses with bindMode NodeIP, else none, which is every address.
func (m *maker) listenAddrs() []netip.Addr {
	if !m.bgp.BindNodeIP {
		return nil
	}
	var addrs []netip.Addr
	for _, f := range []cluster.Family{cluster.IPv4, cluster.IPv6} {
		if p := m.self.Addr(f); p.IsValid() {
			addrs = append(addrs, p.Addr())
		}
	}
	return addrs
}
