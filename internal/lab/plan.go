package lab

import (
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/workload"
)

// Plan is the cluster as pure data: what is to be built, and once it stands, what stands. It is what cluster.json holds.
type Plan struct {
	Spec    Spec
	Router  Node // has no workloads; a member of the cluster in mode none only
	Subnets []Subnet
	Pools   []Pool
	Nodes   []Node
}

// Subnet is one segment of the underlay, a bridge in the router's namespace.
type Subnet struct {
	Name         string       // "rack-a", also the bridge's name
	Addr4, Addr6 netip.Prefix // the router's address on it, with the subnet's length
}

// Pool is an IP pool to be written.
type Pool struct {
	Name          string
	CIDR          netip.Prefix
	Encapsulation cluster.Encapsulation
	Mode          cluster.Mode
}

// Node is a node, or the router.
type Node struct {
	Name         string
	NS           string // name of its namespace
	Subnet       int    // index in Plan.Subnets
	Addr4, Addr6 netip.Prefix
	Workloads    []Workload
}

// Workload is a stand-in for a pod: a namespace behind a veth pair.
type Workload struct {
	Name  string // "node1-w1"
	NS    string
	Iface string // the node's end of the pair
	// Pools are those its addresses come from, one for each family it has.
	Pools []netip.Prefix
	Addrs []netip.Addr // assigned by IPAM, in the order of Pools; empty before that
}

// Handle is the IPAM handle of the workload's addresses, named as Calico's CNI plugin does: network, dot, container.
func (w *Workload) Handle() string { return "k8s-pod-network." + w.Name }

// NewPlan lays out a cluster. The Spec must be complete.
func NewPlan(s Spec) *Plan {
	p := &Plan{Spec: s, Subnets: subnets(), Pools: pools(s)}
	p.Router = Node{Name: "router", NS: p.Prefix() + "router", Addr4: p.Subnets[0].Addr4, Addr6: p.Subnets[0].Addr6}
	for i := range s.Nodes {
		p.Nodes = append(p.Nodes, p.node(i))
	}
	return p
}

// Prefix is what the name of every namespace of this cluster begins with.
func (p *Plan) Prefix() string { return prefix(p.Spec.Name) }

// prefix ends in a dot, which no cluster name holds, so that no cluster takes another's namespaces for its own.
func prefix(name string) string { return "cl-" + name + "." }

// Members are the nodes that run a daemon. Without encapsulation the router has to know the way to every
// block, so there it is a member of the mesh, as a top-of-rack router would be.
func (p *Plan) Members() []Node {
	if p.Spec.Mode != NoEncapsulation {
		return p.Nodes
	}
	return append(append([]Node(nil), p.Nodes...), p.Router)
}

// subnets are two documentation networks (RFC 5737, RFC 3849), so that nothing real is ever shadowed.
func subnets() []Subnet {
	return []Subnet{
		{"rack-a", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8:a::1/64")},
		{"rack-b", netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("2001:db8:b::1/64")},
	}
}

// pools returns the pools of a mode. IPv6 takes no IPIP: its pool is VXLAN there, in the same mode.
func pools(s Spec) []Pool {
	vxlan4, vxlan6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")
	ipip4 := netip.MustParsePrefix("10.245.0.0/16")
	none4, none6 := netip.MustParsePrefix("10.246.0.0/16"), netip.MustParsePrefix("fd00:10:246::/48")
	mode := cluster.CrossSubnet
	if s.Mode == VXLAN || s.Mode == IPIP {
		mode = cluster.Always
	}
	var all []Pool
	switch s.Mode {
	case NoEncapsulation:
		all = []Pool{{"plain-ipv4", none4, cluster.NoEncapsulation, cluster.Never}, {"plain-ipv6", none6, cluster.NoEncapsulation, cluster.Never}}
	case IPIP, IPIPCrossSubnet:
		all = []Pool{{"ipip-ipv4", ipip4, cluster.IPIP, mode}, {"vxlan-ipv6", vxlan6, cluster.VXLAN, mode}}
	case Mixed:
		all = []Pool{{"vxlan-ipv4", vxlan4, cluster.VXLAN, mode}, {"ipip-ipv4", ipip4, cluster.IPIP, mode}, {"vxlan-ipv6", vxlan6, cluster.VXLAN, mode}}
	default:
		all = []Pool{{"vxlan-ipv4", vxlan4, cluster.VXLAN, mode}, {"vxlan-ipv6", vxlan6, cluster.VXLAN, mode}}
	}
	var kept []Pool
	for _, q := range all {
		if s.Family.Has(cluster.FamilyOf(q.CIDR.Addr())) {
			kept = append(kept, q)
		}
	}
	return kept
}

// node lays out node i: the first half of the nodes, rounded up, in the first subnet, the others in the second.
func (p *Plan) node(i int) Node {
	n := Node{Name: fmt.Sprintf("node%d", i+1)}
	n.NS = p.Prefix() + n.Name
	if i >= (p.Spec.Nodes+1)/2 {
		n.Subnet = 1
	}
	sub := p.Subnets[n.Subnet]
	n.Addr4 = host(sub.Addr4, 10+i)
	n.Addr6 = host(sub.Addr6, 10+i)
	for w := range p.Spec.Workloads {
		n.Workloads = append(n.Workloads, p.workload(n.Name, w))
	}
	return n
}

// workload lays out workload i of a node: the pools of a family are taken in turn.
func (p *Plan) workload(node string, i int) Workload {
	w := Workload{Name: fmt.Sprintf("%s-w%d", node, i+1), Iface: fmt.Sprintf("cali-w%d", i+1)}
	w.NS = p.Prefix() + w.Name
	if p.Spec.WorkloadRoutes {
		w.Iface = (&workload.Endpoint{Namespace: podNamespace, Pod: w.Name}).Interface()
	}
	for _, f := range []cluster.Family{cluster.IPv4, cluster.IPv6} {
		var of []netip.Prefix
		for _, q := range p.Pools {
			if cluster.FamilyOf(q.CIDR.Addr()) == f {
				of = append(of, q.CIDR)
			}
		}
		if len(of) > 0 {
			w.Pools = append(w.Pools, of[i%len(of)])
		}
	}
	return w
}

// host returns the address offset places above the prefix's own address, with its length.
func host(p netip.Prefix, offset int) netip.Prefix {
	a := p.Addr()
	for range offset {
		a = a.Next()
	}
	return netip.PrefixFrom(a, p.Bits())
}

// underlayMTU is Ethernet's, bytes.
const underlayMTU = 1500

// WorkloadMTU is the largest packet a workload may send through any of the cluster's tunnels, in bytes, as
// Calico chooses it for pods (reference: the underlay's less 20 for IPIP, 50 for VXLAN on IPv4, 70 on IPv6).
func (p *Plan) WorkloadMTU() int {
	overhead := 0
	for _, q := range p.Pools {
		switch {
		case q.Encapsulation == cluster.IPIP:
			overhead = max(overhead, 20)
		case q.Encapsulation == cluster.VXLAN && q.CIDR.Addr().Is4():
			overhead = max(overhead, 50)
		case q.Encapsulation == cluster.VXLAN:
			overhead = max(overhead, 70)
		}
	}
	return underlayMTU - overhead
}

// PoolOf returns the pool that holds an address, or nil.
func (p *Plan) PoolOf(a netip.Addr) *Pool {
	for i := range p.Pools {
		if p.Pools[i].CIDR.Contains(a) {
			return &p.Pools[i]
		}
	}
	return nil
}

// Node returns a node by name, or nil.
func (p *Plan) Node(name string) *Node {
	for i := range p.Nodes {
		if p.Nodes[i].Name == name {
			return &p.Nodes[i]
		}
	}
	if p.Router.Name == name {
		return &p.Router
	}
	return nil
}
