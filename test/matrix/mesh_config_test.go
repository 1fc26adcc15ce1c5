package matrix

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/test/peers"
)

// write writes the datastore.
func (m *mixed) write() {
	m.t.Helper()
	var b strings.Builder
	for _, p := range m.pools {
		fmt.Fprintf(&b, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: %s}\nspec: {cidr: \"%s\", ipipMode: %s, vxlanMode: %s}\n---\n", p.name, p.cidr, p.ipip, p.vxlan)
	}
	if m.reflector != nil {
		b.WriteString(`apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec: {nodeSelector: all(), peerSelector: reflector == 'yes'}
---
`)
	}
	for _, x := range m.members {
		labels, more, spec := "", "", ""
		if x == m.reflector {
			labels, more = ", labels: {reflector: 'yes'}", ", routeReflectorClusterID: "+clusterID
		}
		if i := m.tunnelled("IPIP"); i >= 0 {
			more += ", ipv4IPIPTunnelAddr: " + x.tunnelAddr(i).String()
		}
		if i := m.tunnelled("VXLAN"); i >= 0 {
			spec = fmt.Sprintf(", ipv4VXLANTunnelAddr: %s, vxlanTunnelMACAddr: \"%s\"", x.tunnelAddr(i), x.mac())
		}
		fmt.Fprintf(&b, "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: %s%s}\nspec: {bgp: {ipv4Address: %s/24, ipv6Address: \"%s/64\"%s}%s}\n---\n",
			x.name, labels, x.addrs[0], x.addrs[1], more, spec)
		for _, list := range x.blocks {
			for _, p := range list {
				fmt.Fprintf(&b, "apiVersion: crd.projectcalico.org/v1\nkind: BlockAffinity\nmetadata: {name: %s-%s}\nspec: {node: %s, type: host, cidr: \"%s\", state: confirmed, deleted: \"false\"}\n---\n",
					x.name, dashed(p), x.name, p)
			}
		}
		m.tunnelBlock(&b, x, "IPIP")
		m.tunnelBlock(&b, x, "VXLAN")
	}
	write(m.t, m.data, "cluster", b.String())
}

// dashed is a prefix in the name of an object.
func dashed(p netip.Prefix) string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(p.String())
}

// tunnelBlock writes what IPAM has of the block that an address of a tunnel device is of, its first. The overlay of VXLAN is made from these.
func (m *mixed) tunnelBlock(b *strings.Builder, x *member, encapsulation string) {
	i, name := m.tunnelled(encapsulation), strings.ToLower(encapsulation)
	if i < 0 {
		return
	}
	fmt.Fprintf(b, `apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata: {name: %s}
spec:
  cidr: %s
  affinity: host:%s
  allocations: [0%s]
  attributes: [{handle_id: %s-tunnel-addr-%s, secondary: {node: %s, type: %sTunnelAddress}}]
  unallocated: [`, dashed(x.blocks[i][0]), x.blocks[i][0], x.name, strings.Repeat(", null", 63), name, x.name, x.name, name)
	for n := 1; n < 64; n++ {
		fmt.Fprintf(b, "%d, ", n)
	}
	b.WriteString("]\n  strictAffinity: false\n---\n")
}

// config is what confd would write for a node of BIRD, as facts of Calico's templates: the metric travels in LOCAL_PREF, own blocks go whole,
// else what is in a pool; the node whose address sorts higher dials, but for reflectors and their clients, who both do.
func (m *mixed) config(x *member) peers.Config {
	c := peers.Config{ASN: 64512, RouterID: x.addrs[0], Files: map[string]string{}}
	for f, name := range [...]string{"bird.conf", "bird6.conf"} {
		var b strings.Builder
		fmt.Fprintf(&b, "log stderr all;\nrouter id %s;\n", x.addrs[0])
		m.filters(&b, x, f)
		fmt.Fprintf(&b, "protocol kernel { %slearn; persist; scan time 2; import all; export filter calico_kernel_programming; graceful restart; merge paths on; }\n", x.tunnels.table(f))
		b.WriteString(`protocol device { scan time 2; }
protocol direct { interface -"cali*", -"kube-ipvs*", "*"; }
template bgp bgp_template {
	description "Connection to BGP peer";
	local as 64512;
	gateway recursive;
	add paths on;
	graceful restart;
	connect delay time 2;
	connect retry time 5;
	error wait time 5,30;
}
protocol static {
`)
		for i, list := range x.blocks {
			for _, p := range list {
				if m.pools[i].family() == f {
					fmt.Fprintf(&b, "\troute %s blackhole;\n", p)
				}
			}
		}
		b.WriteString("}\n")
		for _, y := range m.members {
			if m.peering(x, y) {
				c.Neighbours = append(c.Neighbours, peers.Neighbour{Addr: y.addrs[f], Local: x.addrs[f], ASN: 64512})
				m.session(&b, x, y, f)
			}
		}
		c.Files[name] = b.String()
	}
	return c
}

// filters writes what goes to peers, and what to the kernel.
func (m *mixed) filters(b *strings.Builder, x *member, f int) {
	b.WriteString("function apply_communities() { }\nfunction calico_aggr()\n{\n")
	exported, programmed := "", ""
	for i, p := range m.pools {
		if p.family() != f {
			continue
		}
		for _, block := range x.blocks[i] {
			fmt.Fprintf(b, "\tif ( net = %s ) then accept;\n\tif ( net ~ %s ) then { if ( defined(krt_metric) && krt_metric < 1024 ) then accept; reject; }\n", block, block)
		}
		exported += fmt.Sprintf("\tif ( net ~ %s ) then accept;\n", p.cidr)
		switch {
		case p.vxlan != "Never":
			programmed += fmt.Sprintf("\tif ( net ~ %s ) then reject;\n", p.cidr)
		case p.ipip == "Always":
			programmed += fmt.Sprintf("\tif ( net ~ %s ) then { %saccept; }\n", p.cidr, krtTunnel)
		case p.ipip == "CrossSubnet":
			programmed += fmt.Sprintf("\tif ( net ~ %s ) then { if ( ! defined(bgp_next_hop) || ! ( bgp_next_hop ~ %s ) ) then { %s} accept; }\n", p.cidr, subnets()[x.net][0], krtTunnel)
		case f == 0:
			programmed += fmt.Sprintf("\tif ( net ~ %s ) then accept;\n", p.cidr)
		}
	}
	fmt.Fprintf(b, `}
function calico_export_to_bgp_peers(bool internal_peer)
{
	if ( internal_peer ) then { if ( ifname ~ "*.cali" || ifname ~ "*.calico" ) then reject; }
	apply_communities();
	calico_aggr();
%s}
filter calico_kernel_programming {
	if ( source = RTS_BGP ) then {
		krt_metric = 1024;
		if ( defined(bgp_local_pref) ) then krt_metric = 2147483647 - bgp_local_pref;
		if ( krt_metric < 1024 ) then preference = 200;
	}
%s	accept;
}
`, exported, programmed)
}

// session writes x's session with y.
func (m *mixed) session(b *strings.Builder, x, y *member, f int) {
	name, more := "Mesh", ""
	switch {
	case m.reflector == x:
		name, more = "Node", "rr client;\n\trr cluster id "+clusterID+";"
	case m.reflector != nil:
		name = "Node"
	case y.addrs[f].String() > x.addrs[f].String():
		more = "passive on;"
	}
	fmt.Fprintf(b, `protocol bgp %s_%s from bgp_template {
	ttl security off;
	multihop;
	neighbor %s as 64512;
	source address %s;
	import filter { if ( defined(bgp_local_pref) && bgp_local_pref > 2147482623 ) then preference = 200; accept; };
	export filter {
		if ( source = RTS_BGP && defined(bgp_local_pref) ) then krt_metric = 2147483647 - bgp_local_pref;
		if ( ! defined(krt_metric) ) then krt_metric = 1024;
		bgp_local_pref = 2147483647 - krt_metric;
		calico_export_to_bgp_peers(true);
		reject;
	};
	%s
}
`, name, strings.NewReplacer(".", "_", ":", "_").Replace(y.addrs[f].String()), y.addrs[f], x.addrs[f], more)
}
