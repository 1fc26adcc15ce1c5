package routes

import (
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Adoption says whose leftovers in the kernel a Programmer takes over, within the destinations that Within names: they then
// count as ours, so that a wish under the same key replaces them in place and unwanted ones are removed once every source is in sync. Off by
// default. Routes to workload interfaces are nobody's leftovers: Felix may well go on running for policy.
type Adoption struct {
	// BIRD: routes of protocol 12 as calico-node's BIRD leaves them behind: through tunl0, direct, blackholes.
	BIRD bool
	// Felix: routes of protocol 80 (DefaultRouteProto), and of protocol 3 (its deviceRouteProtocol) on vxlan.calico and vxlan-v6.calico. Felix
	// writes IPv4 routes with metric 0, so ours stand beside them under their own key until the leftovers are removed.
	Felix bool
}

// of reports whether leftovers of a protocol are taken over.
func (a Adoption) of(p kernel.Protocol) bool {
	switch p {
	case kernel.ProtoBird:
		return a.BIRD
	case kernel.ProtoFelix, kernel.ProtoBoot:
		return a.Felix
	}
	return false
}

// ownership is the policy that tells our routes from those of others, for a process that remembers nothing.
type ownership struct {
	adopt  Adoption
	beside bool       // a Felix runs: the devices with its names are its own
	within *bart.Lite // destinations whose leftovers are taken over; nil = none
}

// ours reports whether a route of table main is ours to replace and to delete. linkName names interfaces by index.
func (o ownership) ours(r *kernel.Route, linkName func(int) string) bool {
	switch {
	case r.Protocol == kernel.ProtoCaracal:
		return true
	case !o.adopt.of(r.Protocol) || !o.inside(r.Dst):
		return false
	case r.Protocol == kernel.ProtoBoot:
		return onlyOn(r, linkName, DeviceVXLAN, DeviceVXLAN6)
	}
	return !mayLeadToWorkload(r, linkName)
}

// inside reports whether leftovers to a destination are taken over.
func (o ownership) inside(dst netip.Prefix) bool {
	return o.within != nil && o.within.LookupPrefix(dst)
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

// mayLeadToWorkload reports whether a next hop of a route is a workload interface, or one whose name is not known yet: with
// deviceRouteProtocol 80, Felix's own routes to pods look so, and those of a BIRD to a pod that is its BGP peer.
func mayLeadToWorkload(r *kernel.Route, linkName func(int) string) bool {
	for i := range r.NextHops {
		if name := linkName(r.NextHops[i].Link); name == "" || strings.HasPrefix(name, workloadPrefix) {
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
