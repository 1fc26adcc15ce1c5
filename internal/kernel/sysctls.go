package kernel

import (
	"context"
	"strings"
)

// Sysctl names a number below /proc/sys/net that belongs to the network namespace, written as the path ("net/ipv4/ip_forward"): the dots of
// sysctl(8) would not tell vxlan.calico from a device vxlan.
type Sysctl string

// The sysctls of the whole namespace that routing relies on.
const (
	// SysctlIPForward lets the node forward IPv4 packets. Writing it writes the forwarding of every interface.
	SysctlIPForward Sysctl = "net/ipv4/ip_forward"
	// SysctlIPv6Forward lets the node forward IPv6 packets. Writing it writes the forwarding of every interface.
	SysctlIPv6Forward Sysctl = "net/ipv6/conf/all/forwarding"
	// SysctlRPFilter is the least strict reverse path filter of all interfaces: the greater of it and the interface's own counts.
	SysctlRPFilter Sysctl = "net/ipv4/conf/all/rp_filter"
	// SysctlNexthopCompat 1 (the default) has the kernel tell of every route when a nexthop object is replaced, and shows the next
	// hops of routes that refer to one. The kernel does not tell when it is written.
	SysctlNexthopCompat Sysctl = "net/ipv4/nexthop_compat_mode"
)

// Check refuses names that would lead out of the network's sysctls.
func (s Sysctl) Check() error {
	for part := range strings.SplitSeq(string(s), "/") {
		if part == "" || part == "." || part == ".." {
			return refuse("%q is not the name of a sysctl", string(s))
		}
	}
	if !strings.HasPrefix(string(s), "net/") {
		return refuse("%q is not the name of a sysctl of the network", string(s))
	}
	return nil
}

// Values of rp_filter (RFC 3704).
const (
	RPFilterOff    = 0
	RPFilterStrict = 1 // drops packets that come by another interface than answers would take
	RPFilterLoose  = 2 // drops packets from addresses that no route leads to
)

// DeviceRPFilter is the reverse path filter of one interface. That of "default" is for new interfaces, but an
// interface that never had an IPv4 address and was never set by itself may change with it, without an event of its own (it depends on
// what was written before it came: devinet_copy_dflt_conf).
func DeviceRPFilter(device string) Sysctl { return "net/ipv4/conf/" + Sysctl(device) + "/rp_filter" }

// DeviceForward says whether packets that come in by the interface are forwarded.
func DeviceForward(device string, v6 bool) Sysctl {
	if v6 {
		return "net/ipv6/conf/" + Sysctl(device) + "/forwarding"
	}
	return "net/ipv4/conf/" + Sysctl(device) + "/forwarding"
}

// The settings of a workload's interface, besides the two above (net/ipv4/conf, net/ipv6/conf). The kernel tells by an event without a value that
// ProxyARP and ProxyNDP are written, and nothing of the others.
const (
	RouteLocalnet = "route_localnet" // IPv4: packets of 127.0.0.0/8 are routed
	ProxyARP      = "proxy_arp"      // IPv4: ARP requests for addresses that routes lead to are answered
	ProxyNDP      = "proxy_ndp"      // IPv6: the same, for proxy entries
	DisableIPv6   = "disable_ipv6"
)

// DeviceSetting is one of them.
func DeviceSetting(device string, v6 bool, name string) Sysctl {
	if v6 {
		return Sysctl("net/ipv6/conf/" + device + "/" + name)
	}
	return Sysctl("net/ipv4/conf/" + device + "/" + name)
}

// ProxyDelay is how long an ARP request for another's address waits for its answer, in hundredths of a second.
func ProxyDelay(device string) Sysctl {
	return "net/ipv4/neigh/" + Sysctl(device) + "/proxy_delay"
}

// Device returns the interface that a setting is of, "" for none.
func (s Sysctl) Device() string {
	part := strings.Split(string(s), "/") // net, ipv4, conf, the interface, the setting
	if len(part) != 5 || part[2] != "conf" && part[2] != "neigh" {
		return ""
	}
	return part[3]
}

// Places in Netconf.Link that are no interfaces (NETCONFA_IFINDEX_ALL, NETCONFA_IFINDEX_DEFAULT).
const (
	LinkAll     = -1 // net/ipv4/conf/all
	LinkDefault = -2 // net/ipv4/conf/default: what interfaces made later begin with
)

// Netconf is what the kernel tells about settings of an interface in one family (RTM_NEWNETCONF). An event tells only of what has changed; one
// that says nothing is about a setting that is none of these.
type Netconf struct {
	Link       int // interface index, LinkAll or LinkDefault
	V6         bool
	Forwarding int8 // 0 or 1; Unsaid
	RPFilter   int8 // RPFilterOff and so on; Unsaid, as always in IPv6
}

// Unsaid stands in a Netconf for what the kernel did not tell.
const Unsaid int8 = -1

// Sysctls is the part of the kernel that holds its settings. They are those of the handle's namespace.
type Sysctls interface {
	// ReadSysctl reads one number; ErrNotThere where this kernel or this interface has none of that name.
	ReadSysctl(ctx context.Context, name Sysctl) (int, error)
	// WriteSysctl sets one number. EROFS (in ErrInvalid) is what a container gets without the right to.
	WriteSysctl(ctx context.Context, name Sysctl, value int) error
	// ListNetconf dumps the settings of all interfaces of one family at once, with LinkAll and LinkDefault.
	ListNetconf(ctx context.Context, v6 bool, yield func(Netconf) bool) error
}
