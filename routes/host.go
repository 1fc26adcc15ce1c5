package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

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
	h.least = sync.OnceValue(h.leastOfGateways)
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

// Resolve returns the next hops on connected links that lead to an address by the host's own routes (never by ours): the address itself
// where it is on a link, else the gateway; several where the host's route has equal paths, with their weights. The longest prefix decides,
// then the lowest metric, as in the kernel. None when nothing but a route of ours leads there, when the answer is blackhole, unreachable,
// prohibit or throw, when it leaves through one of our tunnels, and for the host's own addresses: why is what Unresolved says. The list is
// the caller's.
func (h *Host) Resolve(a netip.Addr) []NextHop {
	hops, _ := h.resolve(a)
	return hops
}

// Why Resolve finds nothing, as Unresolved says it.
const (
	NoRoute    = "no route of the host leads there"
	ownAddr    = "it is an address of this host"
	allDown    = "the host's route there, %v, uses interface %s, which is down"
	isDropped  = "the host's route there, %v, is of type %s"
	intoTunnel = "the host's route there, %v, leads into the tunnel %s"
)

// Unresolved says why Resolve finds nothing; "" if it finds something.
func (h *Host) Unresolved(a netip.Addr) string {
	_, why := h.resolve(a)
	return why
}

func (h *Host) resolve(a netip.Addr) (hops []NextHop, why string) {
	if !a.IsValid() || h.table == nil {
		return nil, NoRoute
	}
	if _, own := h.byAddr[a]; own {
		return nil, ownAddr
	}
	if hop := (NextHop{Gateway: a, Device: h.devices[a]}); hop.Device != "" && h.alive(&hop) {
		return []NextHop{hop}, ""
	}
	why = NoRoute
	for _, routes := range h.table.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		for i := range routes {
			switch w, at := h.way(&routes[i]); w {
			case leads:
				return h.through(&routes[i], a), ""
			case dropped:
				return nil, fmt.Sprintf(isDropped, routes[i].Dst, routes[i].Type)
			case intoOurs:
				return nil, fmt.Sprintf(intoTunnel, routes[i].Dst, at)
			case down:
				if why == NoRoute {
					why = fmt.Sprintf(allDown, routes[i].Dst, at)
				}
			}
		}
	}
	return nil, why
}

// wayOf is what a route of the host's does for those who follow it.
type wayOf uint8

const (
	leads    wayOf = iota // to a link
	dropped               // packets are dropped, or looked up elsewhere
	intoOurs              // into one of our tunnels
	down                  // nowhere: the kernel goes on to the next route
)

// way says what a route does, and by which interface.
func (h *Host) way(r *HostRoute) (w wayOf, device string) {
	if r.Type != 0 && r.Type != kernel.Unicast {
		return dropped, ""
	}
	for i := range r.Hops {
		switch {
		case !h.alive(&r.Hops[i]):
		case isTunnel(r.Hops[i].Device):
			return intoOurs, r.Hops[i].Device
		default:
			return leads, r.Hops[i].Device
		}
	}
	if len(r.Hops) > 0 {
		device = r.Hops[0].Device
	}
	return down, device
}

// through returns the living next hops of a route for an address.
func (h *Host) through(r *HostRoute, a netip.Addr) []NextHop {
	out := make([]NextHop, 0, len(r.Hops))
	for _, hop := range r.Hops {
		if !h.alive(&hop) || isTunnel(hop.Device) {
			continue
		}
		if !hop.Gateway.IsValid() {
			hop.Gateway = a
		}
		out = append(out, hop)
	}
	if len(out) == 1 {
		out[0].Weight = 0 // alone it means nothing
	}
	return out
}

// alive reports whether the interface of a next hop is not down: the kernel passes over dead ones.
func (h *Host) alive(hop *NextHop) bool {
	i, ok := h.byName[hop.Device]
	return !ok || h.Interfaces[i].Up
}

// isWorkload reports whether a foreign route is a host route to a workload interface: what the CNI plugin or Felix
// makes for a pod of this node.
func isWorkload(r *HostRoute) bool {
	return r.Dst.IsSingleIP() && (r.Type == 0 || r.Type == kernel.Unicast) && len(r.Hops) == 1 &&
		!r.Hops[0].Gateway.IsValid() && strings.HasPrefix(r.Hops[0].Device, workloadPrefix)
}
