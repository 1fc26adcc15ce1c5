package vxlan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

// scene is one cluster as node n1 sees it, written once for both families. n1 and n2 are in one subnet, n3 in another. Each
// node k has block {Bk} and its tunnel address {Tk}, the block's first; {Nk} is its own address.
type scene struct {
	f       cluster.Family
	nodes   map[string]*cluster.Node
	pools   []*cluster.Pool
	blocks  map[netip.Prefix]*cluster.Block
	host    []routes.Interface
	table   []routes.HostRoute
	felix   cluster.FelixConfig
	backend cluster.Backend
}

func newScene(f cluster.Family, mode cluster.Mode) *scene {
	s := &scene{f: f, nodes: map[string]*cluster.Node{}, blocks: map[netip.Prefix]*cluster.Block{}, backend: cluster.BackendVXLAN}
	s.pools = []*cluster.Pool{{Name: "pool", CIDR: s.p("{P}"), VXLANMode: mode}}
	for k := 1; k <= 3; k++ {
		n := &cluster.Node{Name: fmt.Sprintf("n%d", k)}
		s.nodes[n.Name] = n
		s.setHost(n, s.p(fmt.Sprintf("{S%d}", k)))
		s.setTunnel(n, s.a(fmt.Sprintf("{T%d}", k)))
		s.block(fmt.Sprintf("{B%d}", k), n.Name)
	}
	s.host = []routes.Interface{{Name: "eth0", Index: 2, MTU: 1500, Up: true, Addrs: []netip.Prefix{s.p("{S1}")}}}
	return s
}

func (s *scene) setHost(n *cluster.Node, p netip.Prefix) {
	if s.f == cluster.IPv4 {
		n.Addr4 = p
	} else {
		n.Addr6 = p
	}
}

func (s *scene) setTunnel(n *cluster.Node, a netip.Addr) {
	if s.f == cluster.IPv4 {
		n.VXLANAddr4 = a
	} else {
		n.VXLANAddr6 = a
	}
}

func (s *scene) setMAC(n *cluster.Node, m cluster.MAC) {
	if s.f == cluster.IPv4 {
		n.VXLANMAC4 = m
	} else {
		n.VXLANMAC6 = m
	}
}

func (s *scene) block(cidr, node string, borrowed ...string) *cluster.Block {
	b := &cluster.Block{CIDR: s.p(cidr), Node: node}
	for i := 0; i+1 < len(borrowed); i += 2 {
		b.Borrowed = append(b.Borrowed, cluster.Assignment{Addr: s.a(borrowed[i]), Node: borrowed[i+1]})
	}
	s.blocks[b.CIDR] = b
	return b
}

// say fills in the family's words.
func (s *scene) say(text string) string {
	four := strings.NewReplacer(
		"{P}", "10.244.0.0/16",
		"{B1}", "10.244.1.0/26", "{B2}", "10.244.2.0/26", "{B3}", "10.244.3.0/26", "{B4}", "10.244.4.0/26", "{X}", "10.99.0.0/26",
		"{T1}", "10.244.1.0", "{T2}", "10.244.2.0", "{T3}", "10.244.3.0",
		"{A1}", "10.244.1.9", "{A2}", "10.244.2.9", "{A3}", "10.244.3.9", "{Z2}", "10.244.2.60",
		"{N1}", "192.0.2.1", "{N2}", "192.0.2.2", "{N3}", "198.51.100.3",
		"{S1}", "192.0.2.1/24", "{S2}", "192.0.2.2/24", "{S3}", "198.51.100.3/24",
		"{H}", "/32", "{D}", "vxlan.calico", "{M}", "1450", "{M9000}", "8950", "{L}", " scope link",
		"{F}", "IPv4", "{TA}", "spec.ipv4VXLANTunnelAddr", "{HA}", "spec.bgp.ipv4Address", "{MA}", "spec.vxlanTunnelMACAddr",
		"{V2}", MAC("n2", cluster.IPv4).String(), "{V3}", MAC("n3", cluster.IPv4).String())
	six := strings.NewReplacer(
		"{P}", "fd00:10:244::/64",
		"{B1}", "fd00:10:244::100/122", "{B2}", "fd00:10:244::200/122", "{B3}", "fd00:10:244::300/122", "{B4}", "fd00:10:244::400/122", "{X}", "fd99::/122",
		"{T1}", "fd00:10:244::100", "{T2}", "fd00:10:244::200", "{T3}", "fd00:10:244::300",
		"{A1}", "fd00:10:244::109", "{A2}", "fd00:10:244::209", "{A3}", "fd00:10:244::309", "{Z2}", "fd00:10:244::23c",
		"{N1}", "2001:db8:1::1", "{N2}", "2001:db8:1::2", "{N3}", "2001:db8:2::3",
		"{S1}", "2001:db8:1::1/64", "{S2}", "2001:db8:1::2/64", "{S3}", "2001:db8:2::3/64",
		"{H}", "/128", "{D}", "vxlan-v6.calico", "{M}", "1430", "{M9000}", "8930", "{L}", "",
		"{F}", "IPv6", "{TA}", "spec.ipv6VXLANTunnelAddr", "{HA}", "spec.bgp.ipv6Address", "{MA}", "spec.vxlanTunnelMACAddrV6",
		"{V2}", MAC("n2", cluster.IPv6).String(), "{V3}", MAC("n3", cluster.IPv6).String())
	if s.f == cluster.IPv4 {
		return four.Replace(text)
	}
	return six.Replace(text)
}

func (s *scene) p(text string) netip.Prefix { return pfx(s.say(text)) }
func (s *scene) a(text string) netip.Addr   { return adr(s.say(text)) }

func (s *scene) input() Input {
	o := cluster.Objects{Pools: s.pools, Felix: s.felix}
	for _, n := range s.nodes {
		own := *n // what a State holds is never written again
		o.Nodes = append(o.Nodes, &own)
	}
	for _, b := range s.blocks {
		o.Blocks = append(o.Blocks, b)
	}
	return Input{State: cluster.Build(o), Host: routes.NewHost(slices.Clone(s.host), nil, slices.Clone(s.table)), Backend: s.backend}
}

// routeText writes a route as a person would.
func routeText(r *routes.Route) string {
	var w strings.Builder
	switch {
	case r.Unroutable != "":
		fmt.Fprintf(&w, "%v unroutable: %s", r.Dst, r.Unroutable)
		return w.String()
	case r.Type == routes.Blackhole:
		fmt.Fprintf(&w, "blackhole %v", r.Dst)
	default:
		fmt.Fprintf(&w, "%v", r.Dst)
	}
	for _, h := range r.NextHops {
		if h.Gateway.IsValid() {
			fmt.Fprintf(&w, " via %v", h.Gateway)
		}
		fmt.Fprintf(&w, " dev %s", h.Device)
		if h.Onlink {
			w.WriteString(" onlink")
		}
	}
	if r.Scope == routes.ScopeLink {
		w.WriteString(" scope link")
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&w, " src %v", r.Src)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&w, " mtu %d", r.MTU)
	}
	return w.String()
}

func neighbourText(n routes.Neighbour) string {
	if n.FDB {
		return fmt.Sprintf("%v dst %v dev %s", cluster.MAC(n.MAC), n.Addr, n.Device)
	}
	return fmt.Sprintf("%v lladdr %v dev %s", n.Addr, cluster.MAC(n.MAC), n.Device)
}

func linkText(l *routes.Link) string {
	return fmt.Sprintf("%s mtu %d addr %v id %d port %d parent %s local %v", l.Name, l.MTU, l.Addresses, l.VXLAN.VNI, l.VXLAN.Port, l.VXLAN.Parent, l.VXLAN.Local)
}

// texts are all the lines of a whole change, sorted within each kind.
func texts(c *routes.Change) (rts, neighbours, links []string) {
	for i := range c.Routes {
		rts = append(rts, routeText(&c.Routes[i]))
	}
	for _, n := range c.Neighbours {
		neighbours = append(neighbours, neighbourText(n))
	}
	for i := range c.Links {
		links = append(links, linkText(&c.Links[i]))
	}
	slices.Sort(rts)
	slices.Sort(neighbours)
	return rts, neighbours, links
}

// wantLines compares lines, without regard to order.
func wantLines(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n\t%s\nwant:\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// bothFamilies runs a test for IPv4 and IPv6.
func bothFamilies(t *testing.T, f func(t *testing.T, f cluster.Family)) {
	for _, family := range families {
		t.Run(family.String(), func(t *testing.T) { f(t, family) })
	}
}
