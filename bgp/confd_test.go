package bgp_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// confd is a plain model of how Calico makes sessions of resources: it writes all of the cluster's peerings under keys, the first writer of a key wins, and
// each node renders those of its own and the global ones (confd: updatePeersV1, processMeshPeers, buildPeerFromData).
type confd struct {
	o     *cluster.Objects
	match func(string, map[string]string) bool
	keys  map[string]peering // "node ip port", the node "" for global ones
	order []string
}

type peering struct {
	node, from string // from: of the resource
	ip         netip.Addr
	port       uint16 // 0 = the default
	as, local  uint32
	allow, ttl uint8
	cluster    netip.Addr // of the remote
	kind       int        // 0 explicit, 1 reverse
	isNode     bool
}

func (c *confd) nodes(keep func(*cluster.Node) bool) (out []*cluster.Node) {
	for _, n := range c.o.Nodes {
		if keep(n) {
			out = append(out, n)
		}
	}
	return out
}

func (c *confd) as(n *cluster.Node) uint32 { return cmp.Or(n.ASN, c.o.BGP.ASN) }

// port returns the listenPort that somebody has set for a node.
func (c *confd) port(n *cluster.Node) uint16 {
	return cmp.Or(c.o.BGP.NodeListenPorts[n.Name], c.o.BGP.ListenPort)
}

func (c *confd) emit(p peering) {
	if p.node != "" {
		if _, taken := c.keys[fmt.Sprint(" ", p.ip, p.port)]; taken {
			return
		}
	}
	key := fmt.Sprint(p.node, " ", p.ip, p.port)
	if _, taken := c.keys[key]; !taken {
		c.keys[key] = p
		c.order = append(c.order, key)
	}
}

// asPeers are a node's two addresses as peers.
func (c *confd) asPeers(n *cluster.Node, b *cluster.BGPPeer, v4, v6 bool) (out []peering) {
	p := peering{from: b.Name, port: c.port(n), as: c.as(n), ttl: b.TTLSecurity, cluster: n.RouteReflectorClusterID}
	if v4 && n.Addr4.IsValid() {
		p.ip = n.Addr4.Addr()
		out = append(out, p)
	}
	if v6 && n.Addr6.IsValid() {
		p.ip = n.Addr6.Addr()
		out = append(out, p)
	}
	return out
}

func (c *confd) local(b *cluster.BGPPeer) []*cluster.Node {
	return c.nodes(func(n *cluster.Node) bool {
		if b.Node != "" {
			return n.Name == b.Node
		}
		return b.NodeSelector == "" || c.match(b.NodeSelector, n.Labels)
	})
}

// addressed are the nodes that an address, with an AS and perhaps a port, stands for.
func (c *confd) addressed(b *cluster.BGPPeer) []*cluster.Node {
	return c.nodes(func(n *cluster.Node) bool {
		return (n.Addr4.Addr() == b.PeerIP || n.Addr6.Addr() == b.PeerIP) && c.as(n) == b.ASN && (b.PeerPort == 0 || b.PeerPort == cmp.Or(c.port(n), 179))
	})
}

func (c *confd) forward(b *cluster.BGPPeer) (out []peering) {
	if b.PeerSelector != "" {
		for _, n := range c.nodes(func(n *cluster.Node) bool { return c.match(b.PeerSelector, n.Labels) }) {
			out = append(out, c.asPeers(n, b, true, true)...)
		}
		return out
	}
	p := peering{from: b.Name, ip: b.PeerIP, port: b.PeerPort, as: b.ASN, local: b.LocalASN, allow: b.AllowOwnAS, ttl: b.TTLSecurity}
	if at := c.addressed(b); p.port == 0 && len(at) > 0 {
		p.port = c.port(at[0])
	}
	for _, n := range c.o.Nodes {
		if n.Addr4.Addr() == b.PeerIP || n.Addr6.Addr() == b.PeerIP {
			p.isNode = true
			p.cluster = n.RouteReflectorClusterID // Calico does not look; package bgp does
		}
	}
	return []peering{p}
}

func (c *confd) write() {
	for _, global := range []bool{true, false} {
		for _, b := range c.o.Peers {
			if (b.Node == "" && b.NodeSelector == "") != global {
				continue
			}
			for _, p := range c.forward(b) {
				if global {
					c.emit(p)
					continue
				}
				for _, n := range c.local(b) {
					p.node = n.Name
					c.emit(p)
				}
			}
		}
	}
	for _, b := range c.o.Peers {
		if b.ManualReverse {
			continue
		}
		at, v4, v6 := c.addressed(b), b.PeerIP.Is4(), b.PeerIP.Is6()
		if b.PeerSelector != "" {
			at, v4, v6 = c.nodes(func(n *cluster.Node) bool { return c.match(b.PeerSelector, n.Labels) }), true, true
		}
		for _, n := range c.local(b) {
			for _, p := range c.asPeers(n, b, v4, v6) {
				for _, a := range at {
					p.node, p.kind = a.Name, 1
					c.emit(p)
				}
			}
		}
	}
}

// of returns what a node's BIRD has, one line each. Where it would have two sessions with one address, package bgp says which stays.
func (c *confd) of(self *cluster.Node) []string {
	type ranked struct {
		line       string
		rank, port int
		from       string
	}
	best := make(map[netip.Addr]ranked)
	add := func(ip netip.Addr, r ranked) {
		old, has := best[ip]
		if !has || cmp.Or(r.rank-old.rank, strings.Compare(r.from, old.from), r.port-old.port) < 0 {
			best[ip] = r
		}
	}
	own := func(ip netip.Addr) netip.Addr {
		if ip.Is4() {
			return self.Addr4.Addr()
		}
		return self.Addr6.Addr()
	}
	line := func(kind string, p peering, passive bool) string {
		name := kind + "_" + strings.NewReplacer(".", "_", ":", "_").Replace(p.ip.String())
		if p.port != 0 && p.port != 179 && kind != "Mesh" {
			name += fmt.Sprint("_port_", p.port)
		}
		local := cmp.Or(p.local, c.as(self))
		client := kind != "Mesh" && self.RouteReflectorClusterID.IsValid() && p.as == local && p.cluster != self.RouteReflectorClusterID
		return fmt.Sprintf("%s port %d AS%d as AS%d allow %d ttl %d passive %v client %v", name, cmp.Or(p.port, 179), p.as, local, p.allow, p.ttl, passive, client)
	}
	for _, key := range c.order {
		p := c.keys[key]
		mine := own(p.ip)
		if p.node != "" && p.node != self.Name || !mine.IsValid() || mine == p.ip {
			continue
		}
		kind, passive, rank := "Node", false, 1+p.kind
		if p.node == "" {
			kind, passive, rank = "Global", p.isNode && p.ip.String() > mine.String(), 0
		}
		add(p.ip, ranked{line(kind, p, passive), rank, int(cmp.Or(p.port, 179)), p.from})
	}
	if c.o.BGP.Mesh && !self.RouteReflectorClusterID.IsValid() {
		for _, n := range c.o.Nodes {
			if n.Name == self.Name || n.RouteReflectorClusterID.IsValid() {
				continue
			}
			for _, p := range c.asPeers(n, &cluster.BGPPeer{}, true, true) {
				if mine := own(p.ip); mine.IsValid() {
					add(p.ip, ranked{line("Mesh", p, p.ip.String() > mine.String()), 9, 0, ""})
				}
			}
		}
	}
	var out []string
	for _, r := range best {
		out = append(out, r.line)
	}
	slices.Sort(out)
	return out
}

// randomCluster has few nodes and peerings that are often about the same ones.
func randomCluster(d *rand.Rand) cluster.Objects {
	o := cluster.Objects{BGP: cluster.BGPConfig{ASN: 64512, Mesh: d.IntN(2) == 0, NodeListenPorts: map[string]uint16{}}}
	if d.IntN(3) == 0 {
		o.BGP.ListenPort = 1790
	}
	for i := range 5 {
		n := node(string(rune('a'+i)), fmt.Sprintf("192.0.2.%d/24", 7+i), fmt.Sprintf("2001:db8::%x/64", 7+i))
		switch d.IntN(5) {
		case 0:
			n.Addr4 = netip.Prefix{}
		case 1:
			n.Addr6 = netip.Prefix{}
		}
		if d.IntN(3) == 0 {
			n.RouteReflectorClusterID = netip.AddrFrom4([4]byte{10, 9, 9, byte(d.IntN(2))})
		}
		if d.IntN(4) == 0 {
			n.ASN = 64513
		}
		if d.IntN(4) == 0 {
			o.BGP.NodeListenPorts[n.Name] = 1791
		}
		n.Labels = map[string]string{fmt.Sprint("rack", d.IntN(2)): ""}
		o.Nodes = append(o.Nodes, n)
	}
	selector := func() string { return []string{"rack0", "rack1", "all"}[d.IntN(3)] }
	for i := range d.IntN(6) {
		b := &cluster.BGPPeer{Name: string(rune('p' + i)), ManualReverse: d.IntN(4) == 0, TTLSecurity: uint8(d.IntN(2)), LocalASN: uint32(d.IntN(2) * 65100), AllowOwnAS: uint8(d.IntN(2))}
		switch d.IntN(3) {
		case 0:
			b.Node = o.Nodes[d.IntN(5)].Name
		case 1:
			b.NodeSelector = selector()
		}
		if d.IntN(2) == 0 {
			b.PeerSelector = selector()
		} else {
			b.PeerIP = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 7+d.IntN(5))),
				netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 7+d.IntN(5)))}[d.IntN(4)]
			b.ASN = []uint32{64512, 64513, 65000}[d.IntN(3)]
			b.PeerPort = []uint16{0, 0, 0, 1790, 1791}[d.IntN(5)]
		}
		o.Peers = append(o.Peers, b)
	}
	return o
}

// TestSessionsAreConfds: the sessions of random resources are those that confd makes, and no two nodes wait for each other.
func TestSessionsAreConfds(t *testing.T) {
	matches := func(selector string, labels map[string]string) bool {
		_, has := labels[selector]
		return has || selector == "all"
	}
	p := &bgp.Planner{Match: func(s string, labels map[string]string) (bool, error) { return matches(s, labels), nil }}
	sessions := 0
	for seed := range uint64(3000) {
		o := randomCluster(rand.New(rand.NewPCG(seed, 7)))
		model := &confd{o: &o, match: matches, keys: make(map[string]peering)}
		model.write()
		st := cluster.Build(o)
		waits := make(map[string]bool)
		for _, n := range o.Nodes {
			cfg, _ := p.Plan(st, n.Name, nil)
			var got []string
			for i := range cfg.Peers {
				s := &cfg.Peers[i]
				got = append(got, fmt.Sprintf("%s port %d AS%d as AS%d allow %d ttl %d passive %v client %v", s.Name, s.Port, s.ASN, cfg.LocalAS(s), s.AllowOwnAS, s.TTLSecurity, s.Passive, s.Client))
				if family := s.Addr.Is4(); s.Passive && s.Node != "" {
					if waits[fmt.Sprint(s.Node, n.Name, family)] {
						t.Errorf("seed %d: %s and %s wait for each other", seed, n.Name, s.Node)
					}
					waits[fmt.Sprint(n.Name, s.Node, family)] = true
				}
			}
			slices.Sort(got)
			sessions += len(got)
			if want := model.of(n); !slices.Equal(got, want) {
				t.Fatalf("seed %d, node %s\n got %s\nwant %s\npeers %s", seed, n.Name, strings.Join(got, "\n     "), strings.Join(want, "\n     "), printedPeers(&o))
			}
		}
	}
	if sessions < 10000 {
		t.Errorf("only %d sessions", sessions)
	}
}

func printedPeers(o *cluster.Objects) string {
	var b strings.Builder
	for _, p := range o.Peers {
		fmt.Fprintf(&b, "\n%+v", *p)
	}
	for _, n := range o.Nodes {
		fmt.Fprintf(&b, "\n%s %v %v AS%d %v %v", n.Name, n.Addr4, n.Addr6, n.ASN, n.RouteReflectorClusterID, n.Labels)
	}
	return b.String()
}
