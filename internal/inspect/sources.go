package inspect

import (
	"context"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

// Sources is what the daemon lends to inspection. Every function is called from many goroutines at once, returns a picture
// that nobody changes any more, and must be set where it is not said otherwise.
type Sources struct {
	Node    string                  // our own name in the cluster
	Backend func() cluster.Backend  // the backend in force
	State   func() *cluster.State   // the last state of the datastore; nil before there is one
	Status  func() StatusInfo       // everything GetStatus says that is not below; called for each health check too
	VTEPs   func() []VTEP           // VTEPs of the last VXLAN plan; may be nil
	Peers   func() []bgp.PeerStatus // sessions, none where no Speaker runs; may be nil
	Paths   func(netip.Prefix) []bgp.Candidate
	// WatchPeers calls changed as soon as it has subscribed and then whenever something of a session but its counters may have changed, until
	// ctx ends, and returns then. changed never blocks. May be nil.
	WatchPeers func(ctx context.Context, changed func())
	// PeerRoutes returns the routes of one direction between us and a peer, inside a range unless that is the zero Prefix; may be nil.
	PeerRoutes func(peer netip.Addr, d bgp.Direction, within netip.Prefix) ([]bgp.Exchanged, error)

	// Routes returns a copy of the statuses match picks; match must not keep its argument.
	Routes func(match func(*routes.Status) bool) []routes.Status
	// Counts returns the number of routes by owner and outcome.
	Counts func() map[routes.Owner]map[routes.Outcome]int
	// WatchRoutes (routes.Programmer.Watch does it) calls changed with every changed status until ctx ends, in order, never two calls at once. It either
	// subscribes and returns at once, or blocks until ctx ends and calls changed, with an empty slice if need be, as soon as it
	// has subscribed. A status whose Outcome is empty or Removed says that the route is gone; only its key and owner are looked
	// at. changed never blocks and keeps nothing of its argument but copies.
	WatchRoutes func(ctx context.Context, changed func([]routes.Status))
	// Lookup asks the kernel what it does with a packet to that address.
	Lookup func(ctx context.Context, dst netip.Addr) (kernel.Answer, error)
	// Resync makes the route programmer read the kernel back, and returns when it has repaired what differed.
	Resync func(ctx context.Context) error
	// Settings returns the sysctls that are kept or reported; may be nil.
	Settings func() []routes.SettingStatus
	// History returns what is remembered of the routes to a prefix, HistoryOf of a device, and Latencies how long programming took; may be nil.
	History   func(netip.Prefix) []routes.HistoryEvent
	HistoryOf func(device string) []routes.HistoryEvent
	Latencies func() []routes.Bucket
	// PlanBGP returns what the BGP configuration of a node of the cluster is, with the sources of each value; the error names a node that is not
	// there. May be nil.
	PlanBGP func(node string) (bgp.Config, []cluster.Problem, error)
	// DiffBGP returns what manifests and deletions would change of it; may be nil.
	DiffBGP func(node, manifests string, deletions []string) (bgp.Difference, []cluster.Problem, error)
	// Drain has the node leave, and returns when it has withdrawn or ctx ends; Undrain has it stay (RFC 8326). May be nil.
	Drain   func(ctx context.Context, wait time.Duration, everything bool) error
	Undrain func() error
	// Release lets happen what the safety rails hold, and says what that is, "" for nothing; may be nil.
	Release func() string
}

// StatusInfo is how the daemon is doing.
type StatusInfo struct {
	Version string
	Started time.Time
	// Ready says that the node does all it is asked to do; WaitingFor what is missing where it does not, a line each.
	Ready      bool
	WaitingFor []string
	Leaving    Leaving
	Sources    []SourceStatus
	Devices    []DeviceStatus
	// Problems is what cannot be used as written. Those of the State are added here if they are not listed.
	Problems []cluster.Problem
}

// Leaving is how far the node has left the others.
type Leaving struct {
	Step  bgp.Leaving
	Since time.Time
	Why   string
}

// SourceStatus is the in-sync mark of one source of desired state.
type SourceStatus struct {
	Name   string // "datastore", "bgp"
	InSync bool
	Since  time.Time
	Detail string // what is wrong or still awaited
}

// DeviceStatus is one wanted tunnel device and what became of it.
type DeviceStatus struct {
	Name      string
	Kind      string // vxlan, ipip
	Owner     routes.Owner
	Outcome   routes.Outcome
	Detail    string
	MTU       int // bytes
	Addresses []netip.Prefix
	// Permanent ARP, NDP and FDB entries: those the kernel holds as wanted, and all that are wanted.
	NeighboursInstalled, NeighboursWanted int
}

// VTEP is a VXLAN tunnel endpoint as inspection shows it.
type VTEP struct {
	Node     string
	Family   cluster.Family
	Addr     netip.Addr // on the VXLAN device
	MAC      cluster.MAC
	Underlay netip.Addr // the node's own address, where tunnel packets go
	Device   string     // our VXLAN device of that family
	Local    bool       // our own
	Problem  string     // why it cannot be used, "" if it can
}
