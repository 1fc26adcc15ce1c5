package routes

import (
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Adoption says whose leftovers in the kernel a Programmer takes over: they then count as ours, so that a wish under the
// same key replaces them in place and unwanted ones are removed once every source is in sync. Off by default: as long as BIRD or
// Felix may still run on the node, two programs would fight over one route.
type Adoption struct {
	// BIRD: routes of protocol 12 whose only way out is tunl0, as calico-node's BIRD leaves them behind.
	BIRD bool
	// Felix: routes of protocol 80 (DefaultRouteProto) but for those to workload interfaces, and of protocol 3 (its deviceRouteProtocol) on
	// vxlan.calico and vxlan-v6.calico. Felix writes IPv4 routes with metric 0, so ours stand beside them under
	// their own key until the leftovers are removed.
	Felix bool
}

// ownership is the policy that tells our routes from those of others, for a process that remembers nothing.
type ownership struct {
	adopt  Adoption
	beside bool // a Felix runs: the devices with its names are its own
}

// ours reports whether a route of table main is ours to replace and to delete. linkName names interfaces by index.
func (o ownership) ours(r *kernel.Route, linkName func(int) string) bool {
	switch r.Protocol {
	case kernel.ProtoCaracal:
		return true
	case kernel.ProtoFelix:
		return o.adopt.Felix && !toWorkload(r, linkName)
	case kernel.ProtoBoot:
		return o.adopt.Felix && onlyOn(r, linkName, DeviceVXLAN, DeviceVXLAN6)
	case kernel.ProtoBird:
		return o.adopt.BIRD && onlyOn(r, linkName, DeviceIPIP)
	default:
		return false
	}
}

// onlyOn reports whether every next hop of a route leaves through one of the devices.
func onlyOn(r *kernel.Route, linkName func(int) string, devices ...string) bool {
	for i := range r.NextHops {
		on := false
		name := linkName(r.NextHops[i].Link)
		for _, d := range devices {
			on = on || name == d
		}
		if !on {
			return false
		}
	}
	return len(r.NextHops) > 0
}

// toWorkload reports whether a next hop of a route is a workload interface: with deviceRouteProtocol 80, Felix's own
// routes to pods look so, and Felix may well go on running for policy.
func toWorkload(r *kernel.Route, linkName func(int) string) bool {
	for i := range r.NextHops {
		if strings.HasPrefix(linkName(r.NextHops[i].Link), workloadPrefix) {
			return true
		}
	}
	return false
}

// removable reports whether a device is one of ours that may be deleted when nobody wants it: known by its name and its kind, so
// that no other program's device of that name is touched. tunl0 comes with the ipip module and is only emptied.
func (o ownership) removable(l *kernel.Link) bool {
	switch l.Name {
	case DeviceVXLAN, DeviceVXLAN6:
		return l.Kind == "vxlan" && !o.beside
	case DeviceBesideVXLAN, DeviceBesideVXLAN6:
		return l.Kind == "vxlan"
	}
	return false
}
