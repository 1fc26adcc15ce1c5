package bgp

import (
	"cmp"
	"fmt"

	"github.com/caracal-net/caracal/internal/cluster"
)

// The names of values in Effective, and the keys of Config.Sources and Peer.Sources.
const (
	valAS        = "asNumber"
	valRouterID  = "routerID"
	valPort      = "port"
	valListen    = "listenPort"
	valAddrs     = "listenAddresses"
	valAddr      = "address"
	valLocalAS   = "localASNumber"
	valLocalAddr = "sourceAddress"
	valPassive   = "passive"
	valRestart   = "restartTime"
	valKeepalive = "keepaliveTime"
	valTTL       = "ttlSecurity"
	valAllowed   = "numAllowedLocalASNumbers"
	valPassword  = "password"
	valNextHop   = "nextHop"
	valClient    = "routeReflectorClient"
	valBFD       = "bfd"
	valLimit     = "maxPrefixes"
)

const ruleOfStrings = "of two nodes the one whose address sorts higher as a string dials"

// configSources says where the values of the node as a whole come from.
func (m *maker) configSources() map[string]string {
	node := "Node " + m.self.Name
	out := map[string]string{
		valAS: m.sourceOfAS(m.self), valListen: m.sourceOfPort(m.self.Name),
		valAddrs: m.global("spec.bindMode", !m.bgp.BindNodeIP), valRouterID: node + " spec.bgp.ipv4Address",
	}
	if !m.self.Addr4.IsValid() {
		out[valRouterID] = "hash of the name of " + node
	}
	for _, p := range m.st.Pools() {
		out["pool "+p.CIDR.String()] = "IPPool " + p.Name
	}
	for _, a := range m.st.AffinitiesOf(m.self.Name) {
		out["own "+a.CIDR.String()] = "BlockAffinity " + affinityName(a)
	}
	for _, k := range serviceKinds(&m.bgp) {
		for _, r := range k.ranges {
			out["service "+r.String()] = "BGPConfiguration default " + k.field
			out["reflected "+r.String()] = "BGPConfiguration default " + k.field
		}
	}
	return out
}

// global names a field of BGPConfiguration default, or its default.
func (m *maker) global(field string, isDefault bool) string {
	if isDefault {
		return "default of BGPConfiguration default " + field
	}
	return "BGPConfiguration default " + field
}

func (m *maker) sourceOfAS(n *cluster.Node) string {
	if n.ASN != 0 {
		return "Node " + n.Name + " spec.bgp.asNumber"
	}
	return m.global("spec.asNumber", m.bgp.ASN == cluster.DefaultBGP().ASN)
}

func (m *maker) sourceOfPort(node string) string {
	if m.bgp.NodeListenPorts[node] != 0 {
		return "BGPConfiguration node." + node + " spec.listenPort"
	}
	return m.global("spec.listenPort", cmp.Or(m.bgp.ListenPort, DefaultPort) == DefaultPort)
}

func (m *maker) meshSources(n *cluster.Node, f cluster.Family) map[string]string {
	mesh := m.global("spec.nodeToNodeMeshEnabled", true)
	return map[string]string{
		valAddr: "Node " + n.Name + " " + addressField(f), valPort: m.sourceOfPort(n.Name), valAS: m.sourceOfAS(n),
		valLocalAddr: "Node " + m.self.Name + " " + addressField(f), valPassive: ruleOfStrings,
		valRestart:   m.global("spec.nodeMeshMaxRestartTime", m.bgp.MeshMaxRestartTime == cluster.DefaultBGP().MeshMaxRestartTime),
		valKeepalive: mesh, valTTL: mesh, valNextHop: mesh, valPassword: "BGPConfiguration default spec.nodeMeshPassword",
		valClient: "elected, BGPConfiguration default metadata.annotations", valBFD: "BGPConfiguration default metadata.annotations", valLimit: "BGPConfiguration default metadata.annotations",
	}
}

// resourceSources says where the values come from that every session of a BGPPeer has.
func (m *maker) resourceSources(p *Peer, b *cluster.BGPPeer) {
	field := func(name string, isDefault bool) string {
		if isDefault {
			return "default of " + p.Source + " spec." + name
		}
		return p.Source + " spec." + name
	}
	p.Sources = map[string]string{
		valRestart: field("maxRestartTime", b.MaxRestartTime == 0), valKeepalive: field("keepaliveTime", b.KeepaliveTime == 0),
		valTTL: field("ttlSecurity", b.TTLSecurity == 0), valPassword: field("password", false),
		valNextHop: field("nextHopMode", !b.KeepNextHop && !b.SelfNextHop), valAllowed: field("numAllowedLocalASNumbers", b.AllowOwnAS == 0),
		valLocalAS: field("localASNumber", b.LocalASN == 0), valLocalAddr: field("sourceAddress", !b.NoSource),
		valClient: "Node " + m.self.Name + " spec.bgp.routeReflectorClusterID", valBFD: p.Source + " metadata.annotations", valLimit: p.Source + " metadata.annotations",
	}
	if !b.NoSource {
		p.Sources[valLocalAddr] = fmt.Sprintf("Node %s %s", m.self.Name, addressField(cluster.FamilyOf(p.Addr)))
	}
}

func (m *maker) addressedSources(p *Peer, b *cluster.BGPPeer, node *cluster.Node) {
	m.resourceSources(p, b)
	p.Sources[valAddr], p.Sources[valAS] = p.Source+" spec.peerIP", p.Source+" spec.asNumber"
	switch {
	case b.PeerPort != 0:
		p.Sources[valPort] = p.Source + " spec.peerIP"
	case node != nil && m.asnOf(node) == b.ASN:
		p.Sources[valPort] = m.sourceOfPort(node.Name)
	default:
		p.Sources[valPort] = "default of " + p.Source + " spec.peerIP"
	}
	p.Sources[valPassive] = "a BGPPeer's session dials"
	if node != nil && b.Node == "" && b.NodeSelector == "" {
		p.Sources[valPassive] = ruleOfStrings
	}
}

func (m *maker) nodeSources(p *Peer, b *cluster.BGPPeer, n *cluster.Node, f cluster.Family, back bool) {
	m.resourceSources(p, b)
	p.Sources[valAddr], p.Sources[valAS], p.Sources[valPort] = "Node "+n.Name+" "+addressField(f), m.sourceOfAS(n), m.sourceOfPort(n.Name)
	p.Sources[valPassive] = "a BGPPeer's session dials"
	if back {
		p.Sources[valPassive] += "; made on this node because it is the peer (" + p.Source + " spec.reversePeering)"
	}
}
