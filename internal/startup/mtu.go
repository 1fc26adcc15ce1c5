package startup

import (
	"net/netip"
	"regexp"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// What a packet grows by in a tunnel, in bytes. IPIP: an IPv4 header. VXLAN: an IPv4 (20) or IPv6 (40) header, UDP (8), VXLAN
// (8) and the inner Ethernet header (14).
const (
	overheadIPIP   = 20
	overheadVXLAN4 = 50
	overheadVXLAN6 = 70
)

// fallbackMTU is the host's MTU where no interface says one (Felix: 1460, what Google's cloud has).
const fallbackMTU = 1460

// uplinks are the interfaces whose MTU counts (FelixConfiguration mtuIfacePattern).
var uplinks = regexp.MustCompile(`^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)`)

// mtuInput is what the workloads' MTU is made from.
type mtuInput struct {
	interfaces []Interface
	pattern    *regexp.Regexp // nil = uplinks
	own        []netip.Addr   // the node's addresses
	pools      []*cluster.Pool
	set        MTUSettings // explicit MTUs of the tunnels
}

// podMTU returns the MTU that workloads should have, in bytes: the smallest of all tunnels in use, the host's without any.
// An explicit MTU is taken at its word even if it is larger than the host's, as in Felix.
func podMTU(in mtuInput) int {
	host, mtu := hostMTU(in), 0
	lower := func(set, overhead int) {
		if set == 0 {
			set = host - overhead
		}
		if mtu == 0 || set < mtu {
			mtu = set
		}
	}
	for _, p := range in.pools {
		enc, _ := p.Encapsulation()
		switch v4 := p.CIDR.Addr().Is4(); {
		case enc == cluster.IPIP && v4:
			lower(in.set.IPIP, overheadIPIP)
		case enc == cluster.VXLAN && v4:
			lower(in.set.VXLAN4, overheadVXLAN4)
		case enc == cluster.VXLAN:
			lower(in.set.VXLAN6, overheadVXLAN6)
		}
	}
	if mtu == 0 {
		return host
	}
	return mtu
}

// hostMTU returns the smallest MTU of the interfaces that are up and either match the pattern or hold an address of the node.
func hostMTU(in mtuInput) int {
	pattern := in.pattern
	if pattern == nil {
		pattern = uplinks
	}
	mtu := 0
	for _, i := range in.interfaces {
		holds := slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return slices.Contains(in.own, p.Addr()) })
		if i.Up && i.MTU > 0 && (holds || pattern.MatchString(i.Name)) && (mtu == 0 || i.MTU < mtu) {
			mtu = i.MTU
		}
	}
	if mtu == 0 {
		return fallbackMTU
	}
	return mtu
}

// or returns the settings with those of another for what is not set here: the environment goes before FelixConfiguration.
func (s MTUSettings) or(f MTUSettings) MTUSettings {
	pick := func(a, b int) int {
		if a != 0 {
			return a
		}
		return b
	}
	out := MTUSettings{pick(s.IPIP, f.IPIP), pick(s.VXLAN4, f.VXLAN4), pick(s.VXLAN6, f.VXLAN6), s.Pattern}
	if out.Pattern == "" {
		out.Pattern = f.Pattern
	}
	return out
}
