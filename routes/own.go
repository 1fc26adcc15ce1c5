package routes

import "net/netip"

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
