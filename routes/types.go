package routes

import (
	"net/netip"
	"time"

	"github.com/gaissmai/bart"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Owner names one source of desired state.
type Owner string

// The owners, in order of arbitration: for one kernel key the first of these that wants it wins and the others stay
// visible as lost (compare Felix's route classes: VXLAN before IPIP before no encapsulation before blackholes).
const (
	OwnerWorkload Owner = "workload" // this node's own workloads, to their interfaces
	OwnerVXLAN    Owner = "vxlan"    // routes from VTEPs and same-subnet VXLAN pools, device vxlan.calico
	OwnerIPIP     Owner = "ipip"     // device tunl0; its routes come with OwnerBGP
	OwnerBGP      Owner = "bgp"      // routes learned by BGP, and blackholes of own blocks in pools BGP serves
)

// Metric is the FIB priority of every ordinary route we write (Calico >= 3.32: ipv4NormalRoutePriority).
const Metric = 1024

// Reason says why a route is wanted; one Reason is shared by all routes made by the same rule from the same source.
type Reason struct {
	Rule   string // rule that chose tunnel or direct: "CrossSubnet: remote node is in our subnet"
	Source string // source object or BGP path: "IPAMBlock 10-244-1-0-26", "BGP path from Mesh_192_0_2_12"
	Pool   string // name of the IPPool, "" outside all pools
	Node   string // name of the remote node, "" if not known
}

// NextHop is one way out, with the interface by name: interfaces come and go and change index.
type NextHop struct {
	Gateway netip.Addr // of an IPv4 route it may be IPv6 (RFC 8950)
	Device  string
	Onlink  bool
	Weight  uint8 // 0 reads as 1
}

// Route is a desired route. Routes with equal next hops should share the NextHops slice and the Reason.
type Route struct {
	Dst      netip.Prefix
	Metric   uint32 // 0 = Metric
	Type     kernel.RouteType
	Scope    kernel.Scope
	Src      netip.Addr
	MTU      uint32
	NextHops []NextHop
	Reason   *Reason
	// Unroutable, when not empty, says why no kernel route can be made of this wish right now (VTEP of the node
	// unknown, IPIP pool under backend vxlan...). It is listed and counted, never programmed; an installed route of the same
	// key and owner is withdrawn.
	Unroutable string
}

// Key is what a desired route is told apart by.
type Key struct {
	Dst    netip.Prefix
	Metric uint32
}

// Key returns the route's key, with the metric's default applied.
func (r *Route) Key() Key {
	k := Key{Dst: r.Dst, Metric: r.Metric}
	if k.Metric == 0 {
		k.Metric = Metric
	}
	return k
}

// Link is a desired tunnel device.
type Link struct {
	Name string // vxlan.calico, vxlan-v6.calico, tunl0
	Kind string // vxlan, ipip
	MTU  int    // bytes
	MAC  [6]byte
	// Addresses is the exact set of addresses of the device, of both families; IPv6 link-local addresses are left alone.
	Addresses []netip.Prefix
	VXLAN     *VXLAN // kind vxlan
	// Adopt: the device may exist without being ours (tunl0 comes with the module) and is never deleted, only emptied.
	Adopt bool
}

// VXLAN are the attributes of a desired VXLAN device; any difference on an existing one means re-creation.
type VXLAN struct {
	VNI    uint32
	Port   uint16
	Parent string // name of the underlay interface
	Local  netip.Addr
}

// Neighbour is a desired permanent ARP/NDP entry (FDB false: Addr -> MAC) or FDB entry (FDB true: MAC -> Addr).
type Neighbour struct {
	Device string
	FDB    bool
	Addr   netip.Addr
	MAC    [6]byte
}

// Setting is a desired sysctl of one interface, which is kept while the interface is there.
type Setting struct {
	Name  kernel.Sysctl
	Value int
}

// InterfaceAddress is a desired address of the host on a workload's interface, to be dialled by the workload: the same may be on several.
type InterfaceAddress struct {
	Device string
	Addr   netip.Addr
}

// Change is one step of an owner's desired state.
type Change struct {
	// Whole: Routes and Neighbours are the owner's whole set and everything else of that owner is withdrawn.
	// Otherwise Routes and Neighbours are added or replaced and the Withdraw lists are removed.
	Whole              bool
	Routes             []Route
	Withdraw           []Key
	Neighbours         []Neighbour
	WithdrawNeighbours []Neighbour
	// Links is the owner's whole set of devices; nil leaves the devices as they are, empty withdraws all of them.
	Links []Link
	// Settings is the owner's whole set of sysctls, in the order in which they are to be written; nil leaves them as they are.
	Settings []Setting
	// Addresses is the owner's whole set of addresses on workload interfaces; nil leaves them as they are, empty withdraws all of them.
	Addresses []InterfaceAddress
	// Cause is why, for History: "datastore revision 812".
	Cause string
}

// Outcome is the state of one desired route; the same words in gRPC, logs and metrics.
type Outcome string

// The fixed vocabulary of outcomes.
const (
	Installed  Outcome = "installed"  // the kernel holds it as wanted
	Waiting    Outcome = "pending"    // not yet asked of the kernel
	NoDevice   Outcome = "no-device"  // its interface is missing or down; installed as soon as it is there
	Failed     Outcome = "failed"     // the kernel refused it; retried with back-off
	Foreign    Outcome = "foreign"    // a route of another program has its key; it is left alone
	Lost       Outcome = "lost"       // another owner wants the same key and wins
	Unroutable Outcome = "unroutable" // wanted, but no way there is known right now
	Kept       Outcome = "kept"       // no longer wanted, kept in the kernel until every source is in sync
	Removed    Outcome = "removed"    // only told by Watch: neither wanted nor there any more
)

// Status is one route as inspection shows it.
type Status struct {
	Route    Route
	Owner    Owner
	Outcome  Outcome
	Detail   string // why: the kernel's error, the winner's name, the foreign route's protocol
	Kernel   string // the kernel's form as ip(8) prints it, "" if none
	Attempts int
	Since    time.Time // when Outcome became what it is
}

// Interface is an interface of this host as plans see it.
type Interface struct {
	Name  string
	Index int
	MTU   int // bytes
	Up    bool
	Kind  string
	Addrs []netip.Prefix
}

// Host is an immutable picture of the host's own networking, made by the Programmer from kernel events: everything that
// is not ours. Plans are pure functions of it and of the cluster's state.
type Host struct {
	Interfaces []Interface
	// Workloads are host routes of others to workload interfaces (cali*), sorted: what the CNI plugin or Felix made.
	Workloads []netip.Prefix
	// Felix are destinations at other nodes to which a Felix has made routes, sorted. It runs, or has left them behind.
	Felix []netip.Prefix
	// Within are the destinations, sorted, whose leftovers of other programs count as ours in this picture (Programmer.Within).
	Within []netip.Prefix
	// foreign routes of table main by destination, lowest metric first, for Resolve.
	table  *bart.Table[[]HostRoute]
	byAddr map[netip.Addr]int32
	byName map[string]int32
	// least finds the MTU behind addresses on the loopback interface, once (UnderlayMTU).
	least func() int
	// devices are the interfaces of workloads to which the routes are ours, for Resolve (WithWorkloads).
	devices map[netip.Addr]string
}
