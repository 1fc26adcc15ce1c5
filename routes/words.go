package routes

import "github.com/caracal-net/caracal/internal/kernel"

// The kernel's words that plans need, so that no plan has to import internal/kernel.
const (
	Unicast   = kernel.Unicast
	Blackhole = kernel.Blackhole
	ScopeLink = kernel.ScopeLink
)

// RouteType is how a route treats packets: Unicast, Blackhole.
type RouteType = kernel.RouteType
