package routes

import (
	"net/netip"
	"slices"
)

// Routes calls yield with each of the host's own routes that is in force: of those to one destination the one with the lowest
// metric. The order is not told. What yield gets must not be changed.
func (h *Host) Routes(yield func(*HostRoute) bool) {
	if h == nil || h.table == nil {
		return
	}
	for _, same := range h.table.All() {
		if len(same) > 0 && !yield(&same[0]) {
			return
		}
	}
}

// RouteTo returns the host's own route to exactly that destination, or nil.
func (h *Host) RouteTo(p netip.Prefix) *HostRoute {
	if h == nil || h.table == nil || !p.IsValid() {
		return nil
	}
	same, ok := h.table.Get(p.Masked())
	if !ok || len(same) == 0 {
		return nil
	}
	return &same[0]
}

// WithWorkloads returns the picture with more routes to workloads in it, such as those that are ours and therefore no part of it. The same picture
// comes back where all of them are there already. devices are the workloads' interfaces, by which they can be next hops.
func (h *Host) WithWorkloads(more []netip.Prefix, devices map[netip.Addr]string) *Host {
	all := slices.Concat(h.Workloads, more)
	slices.SortFunc(all, netip.Prefix.Compare)
	if all = slices.Compact(all); len(all) == len(h.Workloads) {
		return h
	}
	c := *h
	c.Workloads, c.devices = all, devices
	return &c
}
