package gobgp

import (
	"fmt"
	"slices"
	"strings"

	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// capabilities writes what an OPEN offers (RFC 5492) for people, in the order of the codes.
func capabilities(list []gobgp.ParameterCapabilityInterface) []string {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b gobgp.ParameterCapabilityInterface) int { return int(a.Code()) - int(b.Code()) })
	var out []string
	for _, c := range sorted {
		if text := capability(c); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

func capability(c gobgp.ParameterCapabilityInterface) string {
	switch c := c.(type) {
	case *gobgp.CapMultiProtocol:
		return "multiprotocol " + familyName(c.CapValue)
	case *gobgp.CapRouteRefresh:
		return "route refresh"
	case *gobgp.CapExtendedNexthop:
		return "extended next hop"
	case *gobgp.CapExtendedMessage:
		return "extended messages"
	case *gobgp.CapGracefulRestart:
		return gracefulRestart(c)
	case *gobgp.CapFourOctetASNumber:
		return fmt.Sprintf("four-octet AS %d", c.CapValue)
	case *gobgp.CapAddPath:
		return addPath(c)
	case *gobgp.CapEnhancedRouteRefresh:
		return "enhanced route refresh"
	case *gobgp.CapLongLivedGracefulRestart:
		return "long-lived graceful restart"
	case *gobgp.CapFQDN:
		return "host name " + words(c.HostName)
	case *gobgp.CapSoftwareVersion:
		return "software " + words(c.SoftwareVersion)
	}
	return fmt.Sprintf("capability %d", c.Code())
}

// The flags of the graceful restart capability (RFC 4724 section 3, RFC 8538 section 2).
const (
	flagRestart      = 0x08
	flagNotification = 0x04
	flagForwarding   = 0x80
)

// gracefulRestart is "graceful restart 120 s, restarting, notifications; IPv4 unicast (forwarding kept)".
func gracefulRestart(c *gobgp.CapGracefulRestart) string {
	text := fmt.Sprintf("graceful restart %d s", c.Time)
	if c.Flags&flagRestart != 0 {
		text += ", restarting"
	}
	if c.Flags&flagNotification != 0 {
		text += ", notifications"
	}
	var families []string
	for _, t := range c.Tuples {
		name := familyName(gobgp.NewFamily(t.AFI, t.SAFI))
		if t.Flags&flagForwarding != 0 {
			name += " (forwarding kept)"
		}
		families = append(families, name)
	}
	if len(families) > 0 {
		text += "; " + strings.Join(families, ", ")
	}
	return text
}

func addPath(c *gobgp.CapAddPath) string {
	var families []string
	for _, t := range c.Tuples {
		how := map[gobgp.BGPAddPathMode]string{gobgp.BGP_ADD_PATH_RECEIVE: "receive", gobgp.BGP_ADD_PATH_SEND: "send", gobgp.BGP_ADD_PATH_BOTH: "send and receive"}[t.Mode]
		families = append(families, familyName(t.Family)+" "+how)
	}
	return "add-path " + strings.Join(families, ", ")
}

func familyName(f gobgp.Family) string {
	switch f {
	case gobgp.RF_IPv4_UC:
		return "IPv4 unicast"
	case gobgp.RF_IPv6_UC:
		return "IPv6 unicast"
	}
	return f.String()
}
