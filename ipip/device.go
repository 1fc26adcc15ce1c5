package ipip

import (
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

const (
	// DeviceName is the fallback device of the kernel's ipip module, which Calico uses too.
	DeviceName = routes.DeviceIPIP
	// Overhead is the size in bytes of the outer IPv4 header (RFC 2003, RFC 791 section 3.1).
	Overhead = 20
	// fallbackMTU is used while the parent interface is not known: Ethernet's 1500 less Overhead.
	fallbackMTU = 1500 - Overhead
)

// Device returns tunl0 as it should be on a node, or nil when the cluster has no IPv4 pool with IPIP. Problems are what is
// missing for it to be complete.
func Device(st *cluster.State, node string, h *routes.Host) (*routes.Link, []cluster.Problem) {
	if !wanted(st) {
		return nil, nil
	}
	var problems []cluster.Problem
	self := st.Node(node)
	mtu, known := deviceMTU(st, self, h)
	if !known {
		problems = append(problems, noParent(node, self, mtu))
	}
	link := &routes.Link{Name: DeviceName, Kind: "ipip", MTU: mtu, Adopt: true}
	switch {
	case self == nil: // said by noParent
	case !self.IPIPAddr.IsValid():
		problems = append(problems, cluster.Problem{
			Object: "Node " + node, Field: "spec.bgp.ipv4IPIPTunnelAddr",
			Text: "no IPIP tunnel address yet: tunl0 has none, so packets of the host itself into the overlay leave with another source address",
		})
	default:
		link.Addresses = []netip.Prefix{netip.PrefixFrom(self.IPIPAddr, self.IPIPAddr.BitLen())}
	}
	return link, problems
}

// wanted reports whether any IPv4 pool uses IPIP. Disabled pools count: their addresses are still in use.
func wanted(st *cluster.State) bool {
	for _, p := range st.Pools() {
		if enc, _ := p.Encapsulation(); enc == cluster.IPIP && p.CIDR.Addr().Is4() {
			return true
		}
	}
	return false
}

// deviceMTU returns the MTU of tunl0 in bytes: FelixConfiguration.ipipMTU, else that of the interface holding the
// node's IPv4 address, or carries its packets, less the overhead. False when it had to be guessed.
func deviceMTU(st *cluster.State, self *cluster.Node, h *routes.Host) (int, bool) {
	if mtu := st.Felix().IPIPMTU; mtu > 0 {
		return mtu, true
	}
	if parent := parentOf(self, h); parent != nil {
		if mtu := h.UnderlayMTU(self.Addr4.Addr()); mtu > Overhead {
			return mtu - Overhead, true
		}
	}
	return fallbackMTU, false
}

// parentOf returns the interface that holds the node's IPv4 address, or nil.
func parentOf(self *cluster.Node, h *routes.Host) *routes.Interface {
	if self == nil || h == nil || !self.Addr4.IsValid() {
		return nil
	}
	return h.ByAddr(self.Addr4.Addr())
}

func noParent(node string, self *cluster.Node, mtu int) cluster.Problem {
	p := cluster.Problem{Object: "Node " + node, Field: "spec.bgp.ipv4Address"}
	switch {
	case self == nil:
		p.Text = fmt.Sprintf("this node is not in the datastore: tunl0 gets MTU %d and no address", mtu)
	case !self.Addr4.IsValid():
		p.Text = fmt.Sprintf("the node has no IPv4 address, so the parent of tunl0 is unknown and its MTU is taken as %d; set FelixConfiguration ipipMTU", mtu)
	default:
		p.Text = fmt.Sprintf("no interface holds %s, so the parent of tunl0 is unknown and its MTU is taken as %d; set FelixConfiguration ipipMTU", self.Addr4.Addr(), mtu)
	}
	return p
}
