package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/caracal-net/caracal/internal/netns"
)

// The addresses of the wire between node and workload are Calico's: the gateway is an address no one has and the
// node answers for by proxy ARP; for IPv6 it is the link-local address of the MAC every cali interface has.
const (
	gateway4    = "169.254.1.1"
	gateway6    = "fe80::ecee:eeff:feee:eeee"
	caliMAC     = "ee:ee:ee:ee:ee:ee"
	caliMetric  = 1024 // Felix's metric for routes to workload interfaces
	netnsBuilds = 8    // namespaces made at once
)

// routerBatch returns the ip(8) batch that joins the nodes: a bridge for each subnet and a veth pair for each node.
func (p *Plan) routerBatch() string {
	var b strings.Builder
	for _, s := range p.Subnets {
		fmt.Fprintf(&b, "link add name %s type bridge mcast_snooping 0\nlink set %s up\n", s.Name, s.Name)
		fmt.Fprintf(&b, "address add %s dev %s\naddress add %s dev %s nodad\n", s.Addr4, s.Name, s.Addr6, s.Name)
	}
	for i, n := range p.Nodes {
		fmt.Fprintf(&b, "link add name port%d mtu %d type veth peer name eth0 mtu %d netns %s\n", i+1, underlayMTU, underlayMTU, n.NS)
		fmt.Fprintf(&b, "link set port%d master %s up\n", i+1, p.Subnets[n.Subnet].Name)
	}
	return b.String()
}

// nodeBatch returns the batch for the node's own interface and default routes.
func (p *Plan) nodeBatch(n *Node) string {
	s := p.Subnets[n.Subnet]
	var b strings.Builder
	fmt.Fprintf(&b, "link set eth0 up\naddress add %s dev eth0\naddress add %s dev eth0 nodad\n", n.Addr4, n.Addr6)
	fmt.Fprintf(&b, "route add default via %s dev eth0\nroute add default via %s dev eth0\n", s.Addr4.Addr(), s.Addr6.Addr())
	return b.String()
}

// caliBatch returns the batch, for the node's namespace, that makes the wire to a workload, as CNI plugin and Felix do; where the daemons keep
// the routes to workloads there is none.
func (p *Plan) caliBatch(w *Workload) string {
	var b strings.Builder
	mtu := p.WorkloadMTU()
	fmt.Fprintf(&b, "link add name %s address %s mtu %d type veth peer name eth0 mtu %d netns %s\n", w.Iface, caliMAC, mtu, mtu, w.NS)
	fmt.Fprintf(&b, "link set %s up\n", w.Iface)
	for _, a := range w.Addrs {
		if p.Spec.WorkloadRoutes {
			break
		}
		scope := " scope link" // IPv6 routes have no scope
		if a.Is6() {
			scope = ""
		}
		fmt.Fprintf(&b, "route add %s dev %s%s proto boot metric %d\n", a, w.Iface, scope, caliMetric)
	}
	return b.String()
}

// workloadBatch returns the batch for the workload's own namespace.
func (p *Plan) workloadBatch(w *Workload) string {
	var b strings.Builder
	fmt.Fprint(&b, "link set eth0 up\n")
	for _, a := range w.Addrs {
		if a.Is4() {
			fmt.Fprintf(&b, "address add %s/32 dev eth0\nroute add %s dev eth0 scope link\nroute add default via %s dev eth0\n", a, gateway4, gateway4)
		} else {
			fmt.Fprintf(&b, "address add %s/128 dev eth0 nodad\nroute add default via %s dev eth0\n", a, gateway6)
		}
	}
	return b.String()
}

// forwarding are the settings of every namespace before it has interfaces: a new interface takes "default".
func forwarding() map[string]string {
	set := map[string]string{
		"ipv4/ip_forward":       "1",
		"ipv4/ping_group_range": "0 0", // the prober's ICMP sockets
	}
	for _, scope := range []string{"all", "default"} {
		set["ipv4/conf/"+scope+"/rp_filter"] = "0" // a tunnel answers another way than it was asked
		set["ipv4/conf/"+scope+"/send_redirects"] = "0"
		set["ipv6/conf/"+scope+"/forwarding"] = "1"
		set["ipv6/conf/"+scope+"/accept_dad"] = "0" // addresses are unique by construction, and a second is long
		set["ipv6/conf/"+scope+"/accept_ra"] = "0"
		set["ipv6/conf/"+scope+"/keep_addr_on_down"] = "1" // scenarios take links down
	}
	return set
}

// caliSettings are what Felix sets on a workload interface; without proxy_delay 0 the first packet waits up to 0.8 s.
func caliSettings(iface string) map[string]string {
	return map[string]string{
		"ipv4/conf/" + iface + "/proxy_arp":    "1",
		"ipv4/neigh/" + iface + "/proxy_delay": "0",
	}
}

// setSysctls writes settings below /proc/sys/net as the namespace sees them.
func setSysctls(ns netns.NS, set map[string]string) error {
	return ns.Do(func() error {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(set[name]), 0o644); err != nil {
				return fmt.Errorf("set net/%s to %s in namespace %s: %w", name, set[name], ns.Name, err)
			}
		}
		return nil
	})
}

// batch runs ip(8) once for a whole list of commands: in the guest kernel each start of ip costs a tenth of a second.
func batch(ns netns.NS, commands string) error {
	f, err := os.CreateTemp("", "caracal-lab-*.batch")
	if err != nil {
		return fmt.Errorf("ip batch: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, werr := f.WriteString(commands)
	if err := errors.Join(werr, f.Close()); err != nil {
		return fmt.Errorf("ip batch: write %s: %w", f.Name(), err)
	}
	_, err = ns.Run("ip", "-batch", f.Name())
	return err
}

// namespaces returns every namespace of the plan.
func (p *Plan) namespaces() []string {
	names := []string{p.Router.NS}
	for _, n := range p.Nodes {
		names = append(names, n.NS)
		for _, w := range n.Workloads {
			names = append(names, w.NS)
		}
	}
	return names
}

// buildUnderlay makes the namespaces and joins the nodes. Workloads have a namespace afterwards but no wire yet.
func (p *Plan) buildUnderlay() error {
	var g errgroup.Group
	g.SetLimit(netnsBuilds)
	for _, name := range p.namespaces() {
		g.Go(func() error {
			ns, err := netns.Create(name)
			if err != nil {
				return err
			}
			return setSysctls(ns, forwarding())
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := batch(netns.NS{Name: p.Router.NS}, p.routerBatch()); err != nil {
		return err
	}
	for i := range p.Nodes {
		g.Go(func() error { return batch(netns.NS{Name: p.Nodes[i].NS}, p.nodeBatch(&p.Nodes[i])) })
	}
	return g.Wait()
}

// wire connects a workload, which must have its addresses, to its node.
func (p *Plan) wire(n *Node, w *Workload) error {
	node := netns.NS{Name: n.NS}
	if err := batch(node, p.caliBatch(w)); err != nil {
		return err
	}
	if !p.Spec.WorkloadRoutes {
		if err := setSysctls(node, caliSettings(w.Iface)); err != nil {
			return err
		}
	}
	return batch(netns.NS{Name: w.NS}, p.workloadBatch(w))
}

// HasIPIP reports whether this kernel knows IPIP devices. It needs root.
func HasIPIP() (bool, error) {
	ns, err := netns.Create(fmt.Sprintf("%sprobe-%d", prefix("ipip"), os.Getpid()))
	if err != nil {
		return false, err
	}
	_, err = ns.Run("ip", "link", "add", "name", "probe0", "type", "ipip", "local", "127.0.0.1", "remote", "127.0.0.2")
	if derr := ns.Delete(); derr != nil {
		return false, derr
	}
	return err == nil, nil
}
