package routes

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/caracal-net/caracal/internal/kernel"
)

// The tunnel devices of Calico's contract between nodes (Felix dataplanedefs). They belong to Caracal as a whole: no
// picture of the host shows them, and nothing is ever resolved through them.
const (
	DeviceVXLAN  = "vxlan.calico"
	DeviceVXLAN6 = "vxlan-v6.calico"
	DeviceIPIP   = "tunl0"
)

// The VXLAN devices beside a Felix, which takes vxlan.calico and vxlan-v6.calico for its own: it deletes them where it does not
// program VXLAN itself, and every route through them (Felix vxlan_mgr.go, main_route_table_policy.go). Nodes do not
// see each other's device names.
const (
	DeviceBesideVXLAN  = "vxlan.caracal"
	DeviceBesideVXLAN6 = "vxlan-v6.caracal"
)

// tunnels are all of them.
var tunnels = [...]string{DeviceVXLAN, DeviceVXLAN6, DeviceBesideVXLAN, DeviceBesideVXLAN6, DeviceIPIP}

// workloadPrefix begins the names of workload interfaces (FelixConfiguration interfacePrefix, default "cali").
const workloadPrefix = "cali"

// isTunnel reports whether a device name is one of ours.
func isTunnel(name string) bool {
	return slices.Contains(tunnels[:], name)
}

// HostRoute is a route of table main that is not ours, as Host.Resolve sees it.
type HostRoute struct {
	Dst    netip.Prefix
	Metric uint32
	Type   kernel.RouteType // 0 reads as Unicast
	Hops   []NextHop        // equal paths; empty for blackhole and the like
}

// NewHost makes a picture of a host: for the Programmer, and for the tests of whoever plans from one. The arguments
// belong to the Host afterwards.
func NewHost(interfaces []Interface, workloads []netip.Prefix, table []HostRoute) *Host {
	t := new(bart.Table[[]HostRoute])
	for _, r := range table {
		r.Dst = r.Dst.Masked()
		t.Modify(r.Dst, func(same []HostRoute, _ bool) ([]HostRoute, bool) {
			return insertByMetric(same, r), false
		})
	}
	slices.SortFunc(interfaces, func(a, b Interface) int { return a.Index - b.Index })
	slices.SortFunc(workloads, netip.Prefix.Compare)
	return newHost(interfaces, workloads, t)
}

// newHost takes sorted slices and the table as they are; nobody may change them afterwards.
func newHost(interfaces []Interface, workloads []netip.Prefix, table *bart.Table[[]HostRoute]) *Host {
	h := &Host{Interfaces: interfaces, Workloads: workloads, table: table}
	h.byAddr = make(map[netip.Addr]int32, len(interfaces))
	h.byName = make(map[string]int32, len(interfaces))
	for i := range h.Interfaces {
		h.byName[h.Interfaces[i].Name] = int32(i)
		for _, a := range h.Interfaces[i].Addrs {
			if _, taken := h.byAddr[a.Addr()]; !taken {
				h.byAddr[a.Addr()] = int32(i)
			}
		}
	}
	return h
}

// insertByMetric returns routes to one prefix with one more, lowest metric first, equal ones in order of arrival.
func insertByMetric(routes []HostRoute, r HostRoute) []HostRoute {
	i, _ := slices.BinarySearchFunc(routes, r.Metric, func(a HostRoute, m uint32) int {
		if a.Metric <= m {
			return -1
		}
		return 1
	})
	return slices.Insert(routes, i, r)
}

// ByAddr returns the interface that holds an address (its mask plays no part), or nil. Where several do, the one with the
// lowest index is returned.
func (h *Host) ByAddr(a netip.Addr) *Interface {
	if i, ok := h.byAddr[a]; ok {
		return &h.Interfaces[i]
	}
	return nil
}

// ByName returns the interface of that name, or nil.
func (h *Host) ByName(name string) *Interface {
	if i, ok := h.byName[name]; ok {
		return &h.Interfaces[i]
	}
	return nil
}

// Resolve returns the next hop on a connected link that leads to an address by the host's own routes (never by ours):
// the address itself where it is on a link, else the gateway. The longest prefix decides, then the lowest metric, as in
// the kernel. False when nothing but a route of ours leads there, when the answer is blackhole, unreachable, prohibit or
// throw, when it leaves through one of our tunnels, and for the host's own addresses.
func (h *Host) Resolve(a netip.Addr) (NextHop, bool) {
	if !a.IsValid() || h.table == nil {
		return NextHop{}, false
	}
	if _, own := h.byAddr[a]; own {
		return NextHop{}, false
	}
	for _, routes := range h.table.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		for i := range routes {
			if t := routes[i].Type; t != 0 && t != kernel.Unicast {
				return NextHop{}, false
			}
			if hop, ok := h.usable(routes[i].Hops); ok {
				if isTunnel(hop.Device) {
					return NextHop{}, false
				}
				if !hop.Gateway.IsValid() {
					hop.Gateway = a
				}
				hop.Weight = 0
				return hop, true
			}
		}
	}
	return NextHop{}, false
}

// usable returns the first of equal paths whose interface is not down: the kernel passes over dead next hops.
func (h *Host) usable(hops []NextHop) (NextHop, bool) {
	for _, hop := range hops {
		if i, ok := h.byName[hop.Device]; ok && !h.Interfaces[i].Up {
			continue
		}
		return hop, true
	}
	return NextHop{}, false
}

// isWorkload reports whether a foreign route is a host route to a workload interface: what the CNI plugin or Felix
// makes for a pod of this node.
func isWorkload(r *HostRoute) bool {
	return r.Dst.IsSingleIP() && (r.Type == 0 || r.Type == kernel.Unicast) && len(r.Hops) == 1 &&
		!r.Hops[0].Gateway.IsValid() && strings.HasPrefix(r.Hops[0].Device, workloadPrefix)
}
