package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

var families = [...]cluster.Family{cluster.IPv4, cluster.IPv6}

// mesh adds the node-to-node mesh (confd PROC processMeshPeers).
func (m *maker) mesh() {
	if !m.bgp.Mesh || m.self.RouteReflectorClusterID.IsValid() {
		return
	}
	for _, n := range m.st.Nodes() {
		if n.Name == m.self.Name || n.RouteReflectorClusterID.IsValid() || m.apart(n) {
			continue
		}
		for _, f := range families {
			own, remote := m.self.Addr(f), n.Addr(f)
			if !own.IsValid() || !remote.IsValid() {
				continue
			}
			if own.Addr() == remote.Addr() {
				m.problem("Node "+n.Name, addressField(f), "%s is also this node's address (%s): no session with it is possible; give each node its own", own.Addr(), m.self.Name)
				continue
			}
			p := Peer{
				Name:        peerName("Mesh", remote.Addr(), 0),
				Addr:        remote.Addr(),
				Port:        m.listenPort(n.Name),
				ASN:         m.asnOf(n),
				LocalAddr:   own.Addr(),
				Passive:     waits(own.Addr(), remote.Addr()),
				RestartTime: m.bgp.MeshMaxRestartTime,
				Source:      "Node " + n.Name + " (mesh)",
				Node:        n.Name,
				BFD:         m.bfd(m.bgp.MeshBFD, remote.Addr(), false),
				MaxPrefixes: m.bgp.MeshMaxPrefixes,
			}
			m.reflectMesh(&p, n)
			if m.explain {
				p.Sources = m.meshSources(n, f)
			}
			m.wanted = append(m.wanted, &candidate{rank: rankMesh, peer: p})
		}
	}
}

// waits reports whether the node of address own leaves it to the other one to dial: the smaller string of bytes waits.
func waits(own, remote netip.Addr) bool { return remote.String() > own.String() }

// peerName returns the name BIRD's protocol has in Calico, which status consumers parse.
func peerName(kind string, a netip.Addr, port uint16) string {
	name := kind + "_" + strings.Map(func(r rune) rune {
		if r == '.' || r == ':' {
			return '_'
		}
		return r
	}, a.String())
	if port != 0 {
		name += fmt.Sprintf("_port_%d", port)
	}
	return name
}

// explicit adds the sessions of BGPPeer resources, in both directions for those that select their peers by label.
func (m *maker) explicit() {
	for _, b := range m.st.BGPPeers() {
		if m.selects(b, m.self) {
			switch {
			case b.WorkloadSelector != "":
				m.workloads(b)
			case b.PeerSelector != "":
				m.selected(b)
			default:
				m.addressed(b)
			}
		}
		if !b.ManualReverse && b.WorkloadSelector == "" {
			m.reverse(b)
		}
	}
}

// selects reports whether a BGPPeer is meant for a node: by name, by label, or for all.
func (m *maker) selects(b *cluster.BGPPeer, n *cluster.Node) bool {
	if b.Node != "" {
		return b.Node == n.Name
	}
	return b.NodeSelector == "" || m.matches(b, "spec.nodeSelector", b.NodeSelector, n)
}

func (m *maker) matches(b *cluster.BGPPeer, field, selector string, n *cluster.Node) bool {
	ok, err := m.match(selector, n.Labels)
	if err != nil {
		m.problemOnce("BGPPeer "+b.Name, field, err.Error())
	}
	return ok && err == nil
}

// addressed adds the session of a BGPPeer that names its peer by address.
func (m *maker) addressed(b *cluster.BGPPeer) {
	if !b.PeerIP.IsValid() {
		m.problem("BGPPeer "+b.Name, "spec.peerIP", "neither peerIP nor peerSelector is set: set one of them")
		return
	}
	if b.ASN == 0 {
		m.problem("BGPPeer "+b.Name, "spec.asNumber", "the AS of %s is not set: set asNumber", b.PeerIP)
		return
	}
	own := m.self.Addr(cluster.FamilyOf(b.PeerIP))
	if !own.IsValid() || own.Addr() == b.PeerIP {
		return // no address of the family, or the resource means all nodes and this one is the peer
	}
	node := m.st.NodeByAddr(b.PeerIP)
	port := b.PeerPort
	if port == 0 {
		port = m.portOf(b, node)
	}
	kind, rank := standing(b)
	p := m.fromResource(b, b.PeerIP, port)
	p.Name = peerName(kind, b.PeerIP, cmp.Or(b.PeerPort, namedPort(port)))
	p.ASN, p.LocalASN, p.AllowOwnAS = b.ASN, b.LocalASN, b.AllowOwnAS
	if p.LocalASN == m.asnOf(m.self) {
		p.LocalASN = 0
	}
	if node != nil {
		p.Node = node.Name
		p.Passive = rank == rankGlobal && waits(own.Addr(), b.PeerIP)
	}
	m.reflect(&p, node)
	if m.explain {
		m.addressedSources(&p, b, node)
	}
	m.wanted = append(m.wanted, &candidate{peer: p, rank: rank, from: b.Name, res: b})
}

// standing returns the kind of a BGPPeer's sessions, which begins their names, and their rank.
func standing(b *cluster.BGPPeer) (kind string, rank int) {
	if b.Node != "" || b.NodeSelector != "" {
		return "Node", rankNode
	}
	return "Global", rankGlobal
}

// reflect makes the peer a client of ours if this node is a route reflector and the peer, of our AS, is not one of its own
// cluster (RFC 4456 section 8; confd). Which node is behind the address is looked up for peerIP too.
func (m *maker) reflect(p *Peer, remote *cluster.Node) {
	own := m.self.RouteReflectorClusterID
	if !own.IsValid() || p.ASN != cmp.Or(p.LocalASN, m.asnOf(m.self)) || remote != nil && remote.RouteReflectorClusterID == own {
		return
	}
	p.Client, p.ClusterID = true, own
}

// portOf returns the port of a peer whose resource names none: the node's if address and AS are a node's, else 179. Where the cluster's nodes
// listen says nothing about a router that is none of them (confd: CL updatePeersV1).
func (m *maker) portOf(b *cluster.BGPPeer, node *cluster.Node) uint16 {
	if node != nil && m.asnOf(node) == b.ASN {
		return m.listenPort(node.Name)
	}
	return DefaultPort
}

// namedPort returns the port that the name of a session with a node tells of, 0 for none: confd names what listenPort says.
func namedPort(port uint16) uint16 {
	if port == DefaultPort {
		return 0
	}
	return port
}

// selected adds the sessions of a BGPPeer that picks its peers among the nodes.
func (m *maker) selected(b *cluster.BGPPeer) {
	kind, rank := standing(b)
	for _, n := range m.st.Nodes() {
		if m.matches(b, "spec.peerSelector", b.PeerSelector, n) {
			m.withNode(b, n, families[:], kind, rank)
		}
	}
}

// reverse adds, on a node that a BGPPeer has for its peer, the sessions back to the nodes it is meant for. A peerIP names a node
// if address, AS and, where one is given, port are the node's; then only that family counts.
func (m *maker) reverse(b *cluster.BGPPeer) {
	back := families[:]
	switch {
	case b.PeerSelector != "":
		if !m.matches(b, "spec.peerSelector", b.PeerSelector, m.self) {
			return
		}
	case b.PeerIP.IsValid():
		f := cluster.FamilyOf(b.PeerIP)
		if m.self.Addr(f).Addr() != b.PeerIP || m.asnOf(m.self) != b.ASN || b.PeerPort != 0 && b.PeerPort != m.listenPort(m.self.Name) {
			return
		}
		back = []cluster.Family{f}
	default:
		return
	}
	for _, n := range m.st.Nodes() {
		if m.selects(b, n) {
			m.withNode(b, n, back, "Node", rankReverse)
		}
	}
}

// withNode adds the sessions with one node, one per family both have. Both ends dial, as in Calico; RFC 4271 section 6.8
// resolves the collision. Neither localASNumber nor numAllowedLocalASNumbers count here (confd).
func (m *maker) withNode(b *cluster.BGPPeer, n *cluster.Node, of []cluster.Family, kind string, rank int) {
	for _, f := range of {
		own, remote := m.self.Addr(f), n.Addr(f)
		if n.Name == m.self.Name || !own.IsValid() || !remote.IsValid() || own.Addr() == remote.Addr() {
			continue
		}
		p := m.fromResource(b, remote.Addr(), m.listenPort(n.Name))
		p.Name = peerName(kind, p.Addr, namedPort(p.Port))
		p.ASN = m.asnOf(n)
		p.Node = n.Name
		m.reflect(&p, n)
		if m.explain {
			m.nodeSources(&p, b, n, f, rank == rankReverse)
		}
		m.wanted = append(m.wanted, &candidate{peer: p, rank: rank, from: b.Name, res: b})
	}
}

// fromResource is the session of a BGPPeer with an address, but for its name and AS.
func (m *maker) fromResource(b *cluster.BGPPeer, a netip.Addr, port uint16) Peer {
	p := Peer{
		Addr:        a,
		Port:        port,
		RestartTime: b.MaxRestartTime,
		Keepalive:   b.KeepaliveTime,
		KeepNextHop: b.KeepNextHop,
		SelfNextHop: b.SelfNextHop,
		TTLSecurity: b.TTLSecurity,
		MaxPrefixes: b.MaxPrefixes,
		Source:      "BGPPeer " + b.Name,
	}
	p.BFD = m.bfd(b.BFD, a, b.ReachableBy.IsValid())
	if !b.NoSource {
		p.LocalAddr = m.self.Addr(cluster.FamilyOf(a)).Addr()
	}
	return p
}

// bfd decides how far away a peer is where nobody says it: a peer in the node's own subnet is a neighbour, unless a gateway leads to it.
func (m *maker) bfd(b cluster.BFD, peer netip.Addr, gateway bool) cluster.BFD {
	if b.Multiplier == 0 || b.Hops != cluster.BFDHopsAuto {
		return b
	}
	b.Hops = cluster.BFDMulti
	if own := m.self.Addr(cluster.FamilyOf(peer)); !gateway && (peer.IsLinkLocalUnicast() || own.Masked().Contains(peer)) {
		b.Hops = cluster.BFDSingle
	}
	return b
}

func (m *maker) problem(object, field, format string, args ...any) {
	m.problems = append(m.problems, cluster.Problem{Object: object, Field: field, Text: fmt.Sprintf(format, args...)})
}

// problemOnce is problem for what would be said again for every node.
func (m *maker) problemOnce(object, field, text string) {
	for _, p := range m.problems {
		if p.Object == object && p.Field == field {
			return
		}
	}
	m.problem(object, field, "%s", text)
}

func addressField(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "spec.bgp.ipv4Address"
	}
	return "spec.bgp.ipv6Address"
}
