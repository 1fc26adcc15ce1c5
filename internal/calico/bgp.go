package calico

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Limits of BGPConfiguration's fields (API: bgpconfig.go).
const (
	maxPriority = math.MaxInt32 - 1 // priorities are subtracted from 2^31-1 to give a LOCAL_PREF
	maxPort     = math.MaxUint16
)

// Config checks and converts the configuration. That of one node (node.<name>) gives nothing but NodeListenPorts, for
// Calico reads no other of the fields there; a name that is neither default nor node.<name> gives nothing.
// With problems, the defaults stand in for the values that are wrong.
func (o *BGPConfiguration) Config() (*cluster.BGPConfig, []cluster.Problem) {
	c := newCheck(o)
	if node, ok := strings.CutPrefix(o.Name, NodePrefix); ok && node != "" {
		conf := &cluster.BGPConfig{}
		if port := c.number("spec.listenPort", o.Spec.ListenPort, 0, 1, maxPort); port != 0 {
			conf.NodeListenPorts = map[string]uint16{node: uint16(port)}
		}
		return conf, c.problems
	}
	if o.Name != DefaultName {
		return nil, nil
	}
	def := cluster.DefaultBGP()
	conf := def
	if a := o.Spec.ASNumber; a != nil && *a != 0 {
		conf.ASN = uint32(*a)
	}
	if m := o.Spec.NodeToNodeMeshEnabled; m != nil {
		conf.Mesh = *m
	}
	conf.ListenPort = uint16(c.number("spec.listenPort", o.Spec.ListenPort, int(def.ListenPort), 1, maxPort))
	conf.BindNodeIP = c.oneOf("spec.bindMode", o.Spec.BindMode, "None", "NodeIP") == "NodeIP"
	conf.MeshMaxRestartTime = c.restartTime("spec.nodeMeshMaxRestartTime", o.Spec.NodeMeshMaxRestartTime, def.MeshMaxRestartTime)
	conf.NormalPriority4 = uint32(c.number("spec.ipv4NormalRoutePriority", o.Spec.IPv4NormalRoutePriority, int(def.NormalPriority4), 1, maxPriority))
	conf.NormalPriority6 = uint32(c.number("spec.ipv6NormalRoutePriority", o.Spec.IPv6NormalRoutePriority, int(def.NormalPriority6), 1, maxPriority))
	return &conf, c.problems
}

// maxRestart is the longest restart time BGP can say: 12 bits of seconds (RFC 4724 section 3).
const maxRestart = 4095 * time.Second

// restartTime reads a restart time, rounded to seconds as Calico rounds it.
func (c *check) restartTime(field string, d *Duration, def time.Duration) time.Duration {
	if d == nil {
		return def
	}
	t := time.Duration(*d).Round(time.Second)
	if t < 0 || t > maxRestart {
		c.add(field, "%s is out of range: write a duration from 0s to 4095s", time.Duration(*d))
		return def
	}
	return t
}

// Peer checks and converts the peering. One with a problem cannot be used at all.
func (o *BGPPeer) Peer() (*cluster.BGPPeer, []cluster.Problem) {
	c := newCheck(o)
	s := &o.Spec
	p := &cluster.BGPPeer{
		Name: o.Name, Node: s.Node, NodeSelector: s.NodeSelector, PeerSelector: s.PeerSelector,
		ASN:            uint32(s.ASNumber),
		MaxRestartTime: c.restartTime("spec.maxRestartTime", s.MaxRestartTime, 0),
		TTLSecurity:    uint8(c.number("spec.ttlSecurity", s.TTLSecurity, 0, 0, math.MaxUint8)),
		NoSource:       c.oneOf("spec.sourceAddress", s.SourceAddress, "UseNodeIP", "None") == "None",
	}
	c.selector("spec.nodeSelector", s.NodeSelector)
	c.selector("spec.peerSelector", s.PeerSelector)
	p.KeepNextHop = s.KeepOriginalNextHop
	if mode := c.oneOf("spec.nextHopMode", s.NextHopMode, "Auto", "Self", "Keep"); s.NextHopMode != "" {
		p.KeepNextHop = mode == "Keep"
		if s.KeepOriginalNextHop {
			c.add("spec.nextHopMode", "cannot be combined with keepOriginalNextHop: leave keepOriginalNextHop out")
		}
	}
	if s.Node != "" && s.NodeSelector != "" {
		c.add("spec.nodeSelector", "cannot be combined with node: leave one of them out")
	}
	c.peerRemote(p, s)
	c.peerUnsupported(s)
	if !c.ok() {
		return nil, c.problems
	}
	return p, nil
}

func (c *check) peerRemote(p *cluster.BGPPeer, s *BGPPeerSpec) {
	switch {
	case s.LocalWorkloadSelector != "": // refused by peerUnsupported
	case s.PeerIP != "" && s.PeerSelector != "":
		c.add("spec.peerSelector", "cannot be combined with peerIP: leave one of them out")
	case s.PeerIP != "":
		p.PeerIP, p.PeerPort = c.peerAddr(s.PeerIP)
		if s.ASNumber == 0 {
			c.add("spec.asNumber", "is missing: write the AS number of %s", s.PeerIP)
		}
	case s.PeerSelector != "":
		if s.ASNumber != 0 {
			c.add("spec.asNumber", "cannot be combined with peerSelector, the selected nodes have their own: leave it out")
		}
	default:
		c.add("spec.peerIP", "is missing: write the address of the peer, or peerSelector for nodes of this cluster")
	}
}

// peerAddr reads "address", "v4:port" or "[v6]:port".
func (c *check) peerAddr(s string) (netip.Addr, uint16) {
	const field = "spec.peerIP"
	host, port := s, uint16(0)
	if i := strings.LastIndexByte(s, ':'); i >= 0 && (strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1) {
		n, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || n == 0 {
			c.add(field, "%q has no port behind the colon: write a number from 1 to 65535, as in 192.0.2.7:1179 or [2001:db8::7]:1179", s)
			return netip.Addr{}, 0
		}
		host, port = s[:i], uint16(n)
		if v6, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(v6, "]")
		}
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		c.add(field, "%q is not a peer: write an address, as in 192.0.2.7, or with a port, as in 192.0.2.7:1179 or [2001:db8::7]:1179", s)
		return netip.Addr{}, 0
	}
	return c.usable(field, s, a, cluster.FamilyOf(a)), port
}

// peerUnsupported refuses what would change which routes are sent or accepted, or keep the session from coming up.
func (c *check) peerUnsupported(s *BGPPeerSpec) {
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"spec.localASNumber", s.LocalASNumber != nil && *s.LocalASNumber != 0},
		{"spec.localWorkloadSelector", s.LocalWorkloadSelector != ""},
		{"spec.filters", len(s.Filters) > 0},
		{"spec.password", s.Password != nil},
	} {
		if f.set {
			c.add(f.field, "is not supported yet, and a session without it would not do what was asked for: leave it out, or use another BGP speaker for this peer")
		}
	}
}
