package ipip

import (
	"fmt"
	"net/netip"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// The rules that choose tunnel or direct, as routes.Reason.Rule shows them.
const (
	RuleAlways      = "ipipMode Always: through the tunnel"
	RuleSameSubnet  = "ipipMode CrossSubnet: the next hop is in our subnet, direct"
	RuleOtherSubnet = "ipipMode CrossSubnet: the next hop is not in our subnet, through the tunnel"
	RuleLoopback    = "ipipMode CrossSubnet: our address is on the loopback interface, in whose subnet nobody else is, through the tunnel"
	RuleNoSubnet    = "ipipMode CrossSubnet: our subnet is not known, through the tunnel"
)

// NextHop returns the way to gw, the BGP next hop of a prefix in an IPIP pool: tunl0 with gw as outer destination, or
// direct where CrossSubnet and our own mask allow it. mtu is the route's MTU attribute in bytes, 0 = none. The error says in
// words why there is no way.
func NextHop(st *cluster.State, self *cluster.Node, h *routes.Host, pool *cluster.Pool, gw netip.Addr) (hop routes.NextHop, mtu uint32, rule string, err error) {
	enc, mode := pool.Encapsulation()
	switch {
	case enc != cluster.IPIP:
		return hop, 0, "", fmt.Errorf("IPPool %s: encapsulation is %s, not IPIP", pool.Name, enc)
	case !pool.CIDR.Addr().Is4():
		return hop, 0, "", fmt.Errorf("IPPool %s: spec.ipipMode is %s on the IPv6 pool %s, but IPIP carries IPv4 only: use vxlanMode, or no encapsulation", pool.Name, mode, pool.CIDR)
	case !gw.Is4():
		return hop, 0, "", fmt.Errorf("IPPool %s: next hop %s is not IPv4, and IPIP needs an IPv4 outer header", pool.Name, gw)
	}
	near := mode == cluster.CrossSubnet && self != nil && self.SameSubnet(gw)
	loopback := near && h != nil && h.OnLoopback(self.Addr4.Addr())
	if near && !loopback {
		hop, err = direct(self, h, gw)
		return hop, 0, RuleSameSubnet, err
	}
	size, _ := deviceMTU(st, self, h)
	if rule = tunnelRule(mode, self); loopback {
		rule = RuleLoopback
	}
	return routes.NextHop{Gateway: gw, Device: DeviceName, Onlink: true}, uint32(size), rule, nil
}

func tunnelRule(mode cluster.Mode, self *cluster.Node) string {
	switch {
	case mode == cluster.Always:
		return RuleAlways
	case self == nil || !self.Addr4.IsValid():
		return RuleNoSubnet
	}
	return RuleOtherSubnet
}

// direct returns the way to a next hop of our own subnet: as the host's routes resolve it, else onlink on the interface
// that holds the node's address.
func direct(self *cluster.Node, h *routes.Host, gw netip.Addr) (routes.NextHop, error) {
	if h != nil {
		for _, hop := range h.Resolve(gw) {
			if hop.Gateway == gw {
				hop.Weight = 0
				return hop, nil
			}
		}
	}
	if parent := parentOf(self, h); parent != nil {
		return routes.NextHop{Gateway: gw, Device: parent.Name, Onlink: true}, nil
	}
	return routes.NextHop{}, fmt.Errorf("next hop %s is in our subnet %s, but no interface holds our address %s", gw, self.Addr4.Masked(), self.Addr4.Addr())
}
