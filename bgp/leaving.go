package bgp

import (
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/routes"
)

// Leaving is how far a node has left the others (RFC 8326).
type Leaving uint8

// The steps of leaving.
const (
	// Stays is the ordinary state.
	Stays Leaving = iota
	// Shutdown: everything is announced as the last choice, with the community GRACEFUL_SHUTDOWN and the lowest LOCAL_PREF, so that whoever
	// knows another way takes it before ours is gone.
	Shutdown
	// Withdrawn: besides, what others can do as well is announced no more: service addresses, what was learned from others, and blocks in which no
	// workload of ours is left. A workload that still runs here stays reachable.
	Withdrawn
	// Gone: nothing is announced.
	Gone
)

// String is the word people read.
func (l Leaving) String() string {
	switch l {
	case Stays:
		return "stays"
	case Shutdown:
		return "shutting down"
	case Withdrawn:
		return "withdrawn"
	}
	return "gone"
}

// ShutdownPref is the LOCAL_PREF of routes that are about to go. RFC 8326 section 4.2 recommends 0, which the engine's policies cannot set.
const ShutdownPref = 1

// GracefulShutdown is the community of routes that are about to go (RFC 8326 section 4.1).
func GracefulShutdown() Community { return Community{A: 0xffff} }

// The well-known communities of RFC 1997.
func noExport() Community          { return Community{A: 0xffff, B: 0xff01} }
func noAdvertise() Community       { return Community{A: 0xffff, B: 0xff02} }
func noExportSubconfed() Community { return Community{A: 0xffff, B: 0xff03} }

// KeptInside are the communities of routes that eBGP peers do not get; KeptHere is that of routes nobody gets (RFC 1997).
func KeptInside() []Community { return []Community{noExport(), noExportSubconfed()} }
func KeptHere() []Community   { return []Community{noAdvertise()} }

// keptBack says why a learned route is passed on to nobody, or not to this peer, whatever rules say; "" if it may be.
func (c *Config) keptBack(p *Peer, r *Route) string {
	carries := func(list []Community) bool {
		return slices.ContainsFunc(list, func(x Community) bool { return slices.Contains(r.Communities, x) })
	}
	if !r.Learned {
		return ""
	}
	if why := c.Nowhere.Why(r.Prefix, r.NextHop); why != "" {
		return why
	}
	switch {
	case c.Leaving >= Withdrawn:
		return "this node is leaving: it passes nothing on"
	case carries(KeptHere()):
		return "community NO_ADVERTISE (RFC 1997)"
	case c.External(p) && carries(KeptInside()):
		return "community NO_EXPORT (RFC 1997)"
	}
	return ""
}

// leave changes a route that is sent by a node that is leaving.
func (c *Config) leave(r Route) Route {
	if c.Leaving != Stays {
		r.LocalPref, r.Communities = ShutdownPref, with(r.Communities, []Community{GracefulShutdown()})
	}
	return r
}

// left takes out of what a node originates what it withdraws when it leaves.
func left(l Leaving, all []Origination, services []Origination, own []netip.Prefix, h *routes.Host) []Origination {
	switch l {
	case Stays, Shutdown:
		return all
	case Gone:
		return nil
	}
	isService := make(map[netip.Prefix]bool, len(services))
	for _, s := range services {
		isService[s.Prefix] = true
	}
	return slices.DeleteFunc(all, func(o Origination) bool {
		_, block := slices.BinarySearchFunc(own, o.Prefix, netip.Prefix.Compare)
		return isService[o.Prefix] || block && !holdsWorkload(h, o.Prefix)
	})
}

// holdsWorkload reports whether a workload of ours has an address inside a prefix. Where the host is not known, it may.
func holdsWorkload(h *routes.Host, p netip.Prefix) bool {
	if h == nil {
		return true
	}
	i, _ := slices.BinarySearchFunc(h.Workloads, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), netip.Prefix.Compare)
	return i < len(h.Workloads) && inside(h.Workloads[i], p)
}
