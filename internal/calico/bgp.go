package calico

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
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

// Config checks and converts the configuration. That of one node (node.<name>) gives nothing but NodeListenPorts and
// NodeAdvertisements, for Calico reads no other of the fields there; a name that is neither default nor node.<name> gives nothing.
// With problems, the defaults stand in for the values that are wrong.
func (o *BGPConfiguration) Config() (*cluster.BGPConfig, []cluster.Problem) {
	c := newCheck(o)
	s := &o.Spec
	if node, ok := strings.CutPrefix(o.Name, NodePrefix); ok && node != "" {
		conf := &cluster.BGPConfig{}
		if port := c.number("spec.listenPort", s.ListenPort, 0, 1, maxPort); port != 0 {
			conf.NodeListenPorts = map[string]uint16{node: uint16(port)}
		}
		if a := c.advertisements(s); len(a) > 0 {
			conf.NodeAdvertisements = map[string][]cluster.Advertisement{node: a}
		}
		c.logSeverity(s)
		return conf, c.problems
	}
	if o.Name != DefaultName {
		return nil, nil
	}
	def := cluster.DefaultBGP()
	conf := def
	if a := s.ASNumber; a != nil && *a != 0 {
		conf.ASN = uint32(*a)
	}
	conf.ListenPort = uint16(c.number("spec.listenPort", s.ListenPort, int(def.ListenPort), 1, maxPort))
	conf.BindNodeIP = c.oneOf("spec.bindMode", s.BindMode, "None", "NodeIP") == "NodeIP"
	conf.NormalPriority4 = uint32(c.number("spec.ipv4NormalRoutePriority", s.IPv4NormalRoutePriority, int(def.NormalPriority4), 1, maxPriority))
	conf.NormalPriority6 = uint32(c.number("spec.ipv6NormalRoutePriority", s.IPv6NormalRoutePriority, int(def.NormalPriority6), 1, maxPriority))
	conf.Programs = programs(s.ProgramClusterRoutes, def.Programs)
	conf.Advertisements = c.advertisements(s)
	c.meshSettings(s, &conf)
	c.services(s, &conf)
	c.ignored(s, &conf)
	conf.LocalPeering4 = c.addr("spec.localWorkloadPeeringIPV4", s.LocalWorkloadPeeringIPV4, cluster.IPv4)
	conf.LocalPeering6 = c.addr("spec.localWorkloadPeeringIPV6", s.LocalWorkloadPeeringIPV6, cluster.IPv6)
	c.onlyChecked(s)
	conf.MeshBFD = c.bfd(o.Annotations)
	conf.MeshMaxPrefixes = c.maxPrefixes(o.Annotations)
	conf.Reflection = c.reflectors(o.Annotations)
	return &conf, c.problems
}

func (c *check) meshSettings(s *BGPConfigurationSpec, conf *cluster.BGPConfig) {
	if m := s.NodeToNodeMeshEnabled; m != nil {
		conf.Mesh = *m
	}
	conf.MeshMaxRestartTime = c.restartTime("spec.nodeMeshMaxRestartTime", s.NodeMeshMaxRestartTime, conf.MeshMaxRestartTime)
	conf.MeshPassword = c.password("spec.nodeMeshPassword", s.NodeMeshPassword)
	if conf.Mesh {
		return
	}
	if s.NodeMeshPassword != nil {
		c.add("spec.nodeMeshPassword", "cannot be combined with nodeToNodeMeshEnabled: false, there is no mesh to protect: leave it out")
	}
	if s.NodeMeshMaxRestartTime != nil {
		c.add("spec.nodeMeshMaxRestartTime", "cannot be combined with nodeToNodeMeshEnabled: false: leave it out")
	}
}

func (c *check) services(s *BGPConfigurationSpec, conf *cluster.BGPConfig) {
	conf.ServiceClusterIPs = c.ranges("spec.serviceClusterIPs", s.ServiceClusterIPs)
	conf.ServiceExternalIPs = c.ranges("spec.serviceExternalIPs", s.ServiceExternalIPs)
	conf.ServiceLoadBalancerIPs = c.ranges("spec.serviceLoadBalancerIPs", s.ServiceLoadBalancerIPs)
	conf.NoServiceAggregation = c.oneOf("spec.serviceLoadBalancerAggregation", s.ServiceLoadBalancerAggregation, "Enabled", "Disabled") == "Disabled"
}

func (c *check) ignored(s *BGPConfigurationSpec, conf *cluster.BGPConfig) {
	for i, name := range s.IgnoredInterfaces {
		if name == "*" || !interfacePattern(name) {
			c.add(fmt.Sprintf("spec.ignoredInterfaces[%d]", i), "%q is not the name of an interface: write up to 15 letters, digits and . _ -, with * for any of them, but not * alone", name)
			continue
		}
		conf.IgnoredInterfaces = append(conf.IgnoredInterfaces, name)
	}
}

// onlyChecked tells of wrong values in fields that nothing here depends on, as Calico's API would.
func (c *check) onlyChecked(s *BGPConfigurationSpec) {
	c.logSeverity(s)
	c.oneOf("spec.programClusterRoutes", s.ProgramClusterRoutes, clusterRoutes()...)
}

func (c *check) logSeverity(s *BGPConfigurationSpec) {
	levels := []string{"Info", "Trace", "Debug", "Warning", "Error", "Fatal"}
	for _, l := range levels {
		if strings.EqualFold(l, s.LogSeverityScreen) {
			return
		}
	}
	c.oneOf("spec.logSeverityScreen", s.LogSeverityScreen, levels...)
}

// Limits of communities (API: bgpconfig.go).
const (
	maxCommunities    = 500
	maxAdvertisements = 500
	maxPerPrefix      = 50
)

// advertisements reads prefixAdvertisements, with the names that communities defines.
func (c *check) advertisements(s *BGPConfigurationSpec) []cluster.Advertisement {
	names := make(map[string]cluster.Community, len(s.Communities))
	if len(s.Communities) > maxCommunities {
		c.add("spec.communities", "has %d entries: write at most %d", len(s.Communities), maxCommunities)
	}
	if len(s.Communities) > 0 && len(s.PrefixAdvertisements) == 0 {
		c.add("spec.communities", "names communities that nothing uses: write prefixAdvertisements, or leave them out")
	}
	for i, n := range s.Communities {
		at := fmt.Sprintf("spec.communities[%d]", i)
		if n.Name == "" {
			c.add(at+".name", "is missing: write the name that prefixAdvertisements uses")
			continue
		}
		if v, err := ParseCommunity(n.Value); err != nil {
			c.add(at+".value", "%s", err)
		} else {
			names[n.Name] = v
		}
	}
	if len(s.PrefixAdvertisements) > maxAdvertisements {
		c.add("spec.prefixAdvertisements", "has %d entries: write at most %d", len(s.PrefixAdvertisements), maxAdvertisements)
	}
	var out []cluster.Advertisement
	for i := range s.PrefixAdvertisements {
		at := fmt.Sprintf("spec.prefixAdvertisements[%d]", i)
		a := cluster.Advertisement{
			CIDR:        c.cidr(at+".cidr", s.PrefixAdvertisements[i].CIDR, "10.0.0.0/16"),
			Communities: c.named(at+".communities", s.PrefixAdvertisements[i].Communities, names),
			Source:      c.object + " " + at,
		}
		if a.CIDR.IsValid() && len(a.Communities) > 0 {
			out = append(out, a)
		}
	}
	return out
}

// named reads names and values of communities.
func (c *check) named(field string, list []string, names map[string]cluster.Community) []cluster.Community {
	if len(list) > maxPerPrefix {
		c.add(field, "has %d entries: write at most %d", len(list), maxPerPrefix)
	}
	var out []cluster.Community
	for i, s := range list {
		v, ok := names[s]
		if !ok {
			var err error
			if v, err = ParseCommunity(s); err != nil {
				c.add(fmt.Sprintf("%s[%d]", field, i), "%q is neither a name that communities defines nor a value: write a defined name, 65000:100 or 65000:1:2", s)
				continue
			}
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// maxRestart is the longest restart time BGP can say: 12 bits of seconds (RFC 4724 section 3).
const maxRestart = 4095 * time.Second

// restartTime reads a restart time, rounded to seconds as Calico rounds it. The shortest is a second: zero is how no restart time is said here, and
// to the engine.
func (c *check) restartTime(field string, d *Duration, def time.Duration) time.Duration {
	if d == nil {
		return def
	}
	t := time.Duration(*d).Round(time.Second)
	if t < 0 || t > maxRestart {
		c.add(field, "%s is out of range: write a duration from 0s to 4095s", time.Duration(*d))
		return def
	}
	return max(t, time.Second)
}

// keepalive reads a keepalive time, rounded to seconds. The hold time is three times as long and has 16 bits of seconds (RFC
// 4271 section 4.2).
func (c *check) keepalive(field string, d *Duration) time.Duration {
	if d == nil {
		return 0
	}
	t := time.Duration(*d).Round(time.Second)
	if t < time.Second || t > math.MaxUint16/3*time.Second {
		c.add(field, "%s is out of range: write a duration from 1s to %ds", time.Duration(*d), math.MaxUint16/3)
		return 0
	}
	return t
}

// Peer checks and converts the peering. One with a problem cannot be used at all.
func (o *BGPPeer) Peer() (*cluster.BGPPeer, []cluster.Problem) {
	c := newCheck(o)
	s := &o.Spec
	p := &cluster.BGPPeer{
		Name: o.Name, Node: s.Node, NodeSelector: s.NodeSelector, PeerSelector: s.PeerSelector, WorkloadSelector: s.LocalWorkloadSelector,
		ASN:            uint32(s.ASNumber),
		MaxRestartTime: c.restartTime("spec.maxRestartTime", s.MaxRestartTime, 0),
		KeepaliveTime:  c.keepalive("spec.keepaliveTime", s.KeepaliveTime),
		TTLSecurity:    uint8(c.number("spec.ttlSecurity", s.TTLSecurity, 0, 0, math.MaxUint8)),
		NoSource:       c.oneOf("spec.sourceAddress", s.SourceAddress, "UseNodeIP", "None") == "None",
		AllowOwnAS:     uint8(c.number("spec.numAllowedLocalASNumbers", s.NumAllowedLocalASNumber, 0, 0, math.MaxUint8)),
		Password:       c.password("spec.password", s.Password),
		ManualReverse:  c.oneOf("spec.reversePeering", s.ReversePeering, "Auto", "Manual") == "Manual",
		Filters:        s.Filters,
	}
	if s.LocalASNumber != nil {
		p.LocalASN = uint32(*s.LocalASNumber)
	}
	c.selector("spec.nodeSelector", s.NodeSelector)
	c.selector("spec.peerSelector", s.PeerSelector)
	c.selector("spec.localWorkloadSelector", s.LocalWorkloadSelector)
	c.nextHop(p, s)
	if s.Node != "" && s.NodeSelector != "" {
		c.add("spec.nodeSelector", "cannot be combined with node: leave one of them out")
	}
	for i, name := range s.Filters {
		if name == "" {
			c.add(fmt.Sprintf("spec.filters[%d]", i), "is empty: write the name of a BGPFilter")
		}
	}
	c.peerRemote(p, s)
	c.reachable(p, s)
	p.BFD = c.bfd(o.Annotations)
	p.MaxPrefixes = c.maxPrefixes(o.Annotations)
	if !c.ok() {
		return nil, c.problems
	}
	return p, nil
}

func (c *check) nextHop(p *cluster.BGPPeer, s *BGPPeerSpec) {
	mode := c.oneOf("spec.nextHopMode", s.NextHopMode, "Auto", "Self", "Keep")
	p.SelfNextHop = mode == "Self"
	p.KeepNextHop = mode == "Keep" || s.KeepOriginalNextHop
	if s.NextHopMode != "" && s.KeepOriginalNextHop {
		c.add("spec.nextHopMode", "cannot be combined with keepOriginalNextHop: leave keepOriginalNextHop out")
	}
}

// reachable reads the gateway of the peer.
func (c *check) reachable(p *cluster.BGPPeer, s *BGPPeerSpec) {
	switch {
	case s.ReachableBy == "":
	case s.PeerIP == "":
		c.add("spec.reachableBy", "needs peerIP: write the one address that the gateway leads to, or leave it out")
	case p.PeerIP.IsValid():
		p.ReachableBy = c.addr("spec.reachableBy", s.ReachableBy, cluster.FamilyOf(p.PeerIP))
	}
}

func (c *check) peerRemote(p *cluster.BGPPeer, s *BGPPeerSpec) {
	switch {
	case s.LocalWorkloadSelector != "" && (s.PeerIP != "" || s.PeerSelector != ""):
		c.add("spec.localWorkloadSelector", "cannot be combined with peerIP or peerSelector: leave it out, or both of them")
	case s.LocalWorkloadSelector != "":
		if s.ASNumber == 0 {
			c.add("spec.asNumber", "is missing: write the AS number of the workloads")
		}
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
