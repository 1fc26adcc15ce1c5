package routes

import (
	"net/netip"
	"slices"
)

// Loopback is the interface that holds the addresses of a host whose links have none, as in a fabric of unnumbered links (RFC 8950).
const Loopback = "lo"

// OnLoopback reports whether an address of this host is on the loopback interface, in whose subnet no other host is, whatever the mask.
func (h *Host) OnLoopback(a netip.Addr) bool {
	i := h.ByAddr(a)
	return i != nil && i.Name == Loopback
}

// UnderlayMTU returns the MTU, in bytes, of what carries packets from an address of this host: that of the interface which holds the address, and where
// that is the loopback interface, the smallest of those by which the host's routes lead to gateways. 0 where nothing is known.
func (h *Host) UnderlayMTU(a netip.Addr) int {
	i := h.ByAddr(a)
	switch {
	case i == nil:
		return 0
	case i.Name != Loopback:
		return i.MTU
	}
	return h.least()
}

// leastOfGateways looks at a bounded number of routes: a fabric's are few, or all of them lead the same ways.
func (h *Host) leastOfGateways() (least int) {
	if h.table == nil {
		return 0
	}
	looked := 0
	for _, same := range h.table.All() {
		if looked++; looked > nowhereRoutes {
			break
		}
		for r := range slices.Values(same) {
			for _, hop := range r.Hops {
				i := h.ByName(hop.Device)
				if hop.Gateway.IsValid() && i != nil && i.Up && i.Name != Loopback && (least == 0 || i.MTU < least) {
					least = i.MTU
				}
			}
		}
	}
	return least
}
