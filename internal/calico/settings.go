package calico

import (
	"math"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Limits of FelixConfiguration's fields.
const (
	maxVNI  = 1<<24 - 1 // RFC 7348 section 5: 24 bits
	minMTU4 = 68        // RFC 791 section 3.2
	minMTU6 = 1280      // RFC 8200 section 5
	maxMTU  = math.MaxUint16
)

// Config checks and converts the configuration; one that is not named default gives nothing.
// With problems, the defaults stand in for the values that are wrong.
func (o *FelixConfiguration) Config() (*cluster.FelixConfig, []cluster.Problem) {
	if o.Name != DefaultName {
		return nil, nil
	}
	c := newCheck(o)
	s, def := &o.Spec, cluster.DefaultFelix()
	c.oneOf("spec.programClusterRoutes", s.ProgramClusterRoutes, clusterRoutes()...)
	return &cluster.FelixConfig{
		VXLANOff:     s.VXLANEnabled != nil && !*s.VXLANEnabled,
		IPv6Off:      s.IPv6Support != nil && !*s.IPv6Support,
		Programs:     programs(s.ProgramClusterRoutes, def.Programs),
		VXLANMTU:     c.mtu("spec.vxlanMTU", s.VXLANMTU, minMTU4),
		VXLANMTUv6:   c.mtu("spec.vxlanMTUV6", s.VXLANMTUV6, minMTU6),
		IPIPMTU:      c.mtu("spec.ipipMTU", s.IPIPMTU, minMTU4),
		VXLANPort:    uint16(c.number("spec.vxlanPort", s.VXLANPort, int(def.VXLANPort), 1, maxPort)),
		VXLANVNI:     uint32(c.number("spec.vxlanVNI", s.VXLANVNI, int(def.VXLANVNI), 1, maxVNI)),
		RouteSource4: c.addr("spec.deviceRouteSourceAddress", s.DeviceRouteSourceAddress, cluster.IPv4),
		RouteSource6: c.addr("spec.deviceRouteSourceAddressIPv6", s.DeviceRouteSourceAddressIPv6, cluster.IPv6),
	}, c.problems
}

// clusterRoutes are the values of programClusterRoutes, of both resources that have it.
func clusterRoutes() []string {
	return []string{"EnabledNoEncapOnly", "EnabledIPIPOnly", "Enabled", "Disabled"}
}

// programs reads programClusterRoutes; what is unset or unknown is the default, which differs between the two resources.
func programs(value string, otherwise cluster.ClusterRoutes) cluster.ClusterRoutes {
	switch value {
	case "Enabled":
		return cluster.ClusterRoutes{IPIP: true, NoEncap: true}
	case "Disabled":
		return cluster.ClusterRoutes{}
	case "EnabledIPIPOnly":
		return cluster.ClusterRoutes{IPIP: true}
	case "EnabledNoEncapOnly":
		return cluster.ClusterRoutes{NoEncap: true}
	}
	return otherwise
}

// mtu reads a number of bytes; 0 leaves the choice to whoever makes the device.
func (c *check) mtu(field string, n *int, low int) int {
	if n == nil || *n == 0 {
		return 0
	}
	return c.number(field, n, 0, low, maxMTU)
}

// Backend checks and converts calico_backend. A ConfigMap without the key says nothing.
func (o *ConfigMap) Backend() (cluster.Backend, []cluster.Problem) {
	c := newCheck(o)
	switch b := o.Data.CalicoBackend; b {
	case "", string(cluster.BackendBird), string(cluster.BackendVXLAN), string(cluster.BackendNone):
		return cluster.Backend(b), nil
	case "gobgp": // what some operators call it; it is the same backend
		return cluster.BackendBird, nil
	default:
		c.add("data.calico_backend", "%q is not a backend: write bird (BGP), vxlan (no BGP) or none (no routes at all)", b)
		return "", c.problems
	}
}
