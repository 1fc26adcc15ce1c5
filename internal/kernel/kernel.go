package kernel

import (
	"context"
	"errors"
	"net/netip"
)

// Protocol is rtm_protocol: which program wrote a route.
type Protocol uint8

// Protocols with a meaning for Caracal.
const (
	ProtoKernel  Protocol = 2   // RTPROT_KERNEL: addresses and links
	ProtoBoot    Protocol = 3   // RTPROT_BOOT: Felix's device routes, CNI plugins
	ProtoStatic  Protocol = 4   // RTPROT_STATIC
	ProtoBird    Protocol = 12  // RTPROT_BIRD: BIRD in calico-node
	ProtoFelix   Protocol = 80  // Felix's DefaultRouteProto
	ProtoCaracal Protocol = 202 // 0xCA, ours
)

// TableMain is RT_TABLE_MAIN, the only table Caracal writes.
const TableMain = 254

// RouteType is rtm_type.
type RouteType uint8

// The route types that are written, numbered as in linux/rtnetlink.h.
const (
	Unicast     RouteType = 1
	Local       RouteType = 2
	Blackhole   RouteType = 6
	Unreachable RouteType = 7
	Prohibit    RouteType = 8
	Throw       RouteType = 9
)

// Scope is rtm_scope.
type Scope uint8

// The scopes that are written.
const (
	ScopeUniverse Scope = 0
	ScopeLink     Scope = 253
	ScopeHost     Scope = 254
)

// NextHop is one way out of a route.
type NextHop struct {
	Gateway netip.Addr // invalid = directly on the link; of an IPv4 route it may be IPv6 (RTA_VIA, RFC 8950), which "via inet6" says
	Link    int        // interface index
	Onlink  bool       // RTNH_F_ONLINK
	Weight  uint8      // as ip(8) prints it: 1 is one share; 0 reads as 1
	// Dead is set on routes read from the kernel whose interface has no carrier or is down (RTNH_F_DEAD|LINKDOWN).
	Dead bool
}

// Route is a route as the kernel holds it.
type Route struct {
	Dst      netip.Prefix
	Table    uint32 // 0 = TableMain
	TOS      uint8
	Metric   uint32 // FIB priority; IPv6 0 means 1024 to the kernel
	Type     RouteType
	Scope    Scope
	Protocol Protocol
	Src      netip.Addr // preferred source, invalid = none
	MTU      uint32     // RTAX_MTU, 0 = none
	NextHops []NextHop  // empty for blackhole and the like (IPv6 reads back lo; normalised away)
	// NexthopID is the nexthop object that the route leads to (RTA_NH_ID), 0 = none. Written, it stands in place of NextHops and
	// Type, which are not looked at. Read, NextHops are what the object leads to now, or empty where nexthop_compat_mode is 0,
	// and Type is Blackhole where the object is one.
	NexthopID uint32
}

// RouteKey is what the kernel tells routes apart by (RFC 1812 5.2.4.3 plus Linux priority).
type RouteKey struct {
	Dst    netip.Prefix
	Metric uint32
	TOS    uint8
}

// Verb is what a RouteOp does.
type Verb uint8

// The verbs of a RouteOp. Add and Delete never touch a route of another protocol: Add is exclusive, Delete carries protocol,
// metric and, in IPv6, the next hops. Replace is for a key that was read back as ours (see the package's essay).
const (
	// Add creates the route; ErrExists if any route has its key.
	Add Verb = iota
	// Replace atomically replaces the route of the same key, or creates it. It does not look at the protocol: IPv4 replaces the
	// first route of the key, IPv6 all siblings of it.
	Replace
	// Delete removes the route of that key, protocol and (unless 0) type; one that is not there is ErrNotThere. In IPv6 it removes
	// the next hops that the Route names and leaves others, ours or not; give it the route as it was read back.
	Delete
)

// RouteOp is one element of a batch.
type RouteOp struct {
	Verb  Verb
	Route *Route
}

// What a failed write means. Errors returned wrap exactly one of these, and the errno.
var (
	ErrExists      = errors.New("a route or object of that key exists")      // EEXIST
	ErrNotThere    = errors.New("no such object")                            // ESRCH, ENOENT
	ErrNoDevice    = errors.New("the interface is missing")                  // ENODEV, ENXIO
	ErrNoNexthop   = errors.New("the nexthop object is missing")             // EINVAL "Nexthop id does not exist"
	ErrUnreachable = errors.New("the gateway is not reachable on that link") // ENETUNREACH, EHOSTUNREACH
	ErrDown        = errors.New("the interface is down")                     // ENETDOWN
	ErrOverflow    = errors.New("kernel messages were lost")                 // ENOBUFS: resync at once
	ErrInterrupted = errors.New("the dump was interrupted by a change")      // EINTR, NLM_F_DUMP_INTR: dump again
	ErrInvalid     = errors.New("the kernel refused the request as invalid") // EINVAL, ERANGE, EAFNOSUPPORT...
	ErrUnsupported = errors.New("the kernel does not support it")            // EOPNOTSUPP: no ipip, no vxlan...
	ErrTransient   = errors.New("the kernel could not do it now")            // EAGAIN, ENOMEM, EBUSY, timeouts
)

// Link is a network interface.
type Link struct {
	Index   int
	Name    string
	Kind    string // "vxlan", "ipip", "veth", "" for physical
	MTU     int    // bytes
	MAC     [6]byte
	Up      bool // IFF_UP
	Running bool // IFF_RUNNING
	Master  int
	VXLAN   *VXLANAttrs // kind vxlan only
	IPIP    *IPIPAttrs  // kind ipip only
}

// VXLANAttrs are a VXLAN device's attributes (linux/if_link.h IFLA_VXLAN_*).
type VXLANAttrs struct {
	VNI                             uint32
	Port                            uint16
	Parent                          int // IFLA_VXLAN_LINK, interface index, 0 = none
	Local                           netip.Addr
	Group                           netip.Addr
	Learning                        bool
	External                        bool // collect-metadata
	TTL, TOS                        uint8
	L2Miss, L3Miss, Proxy, RSC, GBP bool
}

// IPIPAttrs are an IPIP device's attributes.
type IPIPAttrs struct {
	Local, Remote netip.Addr
	TTL           uint8
}

// Address is an address on an interface.
type Address struct {
	Link   int
	Prefix netip.Prefix
	// Scope is rtm_scope: link-local IPv6 addresses have ScopeLink.
	Scope Scope
	// Protocol says who put it there (IFA_PROTO, or IFA_RT_PRIORITY before Linux 5.18), 0 where nobody says. One that is added with a
	// Protocol is there to be dialled only: it has no route of its own, and the host takes it for its source where it has no other.
	Protocol Protocol
}

// Neighbour is an ARP/NDP entry, or an FDB entry where FDB is set.
type Neighbour struct {
	Link      int
	FDB       bool       // AF_BRIDGE with NTF_SELF: MAC -> Addr
	Addr      netip.Addr // the neighbour's address; for FDB the remote VTEP's underlay address
	MAC       [6]byte
	Permanent bool // NUD_PERMANENT
}

// NeighbourOp is one element of a batch of neighbour writes; Delete false means create or replace.
type NeighbourOp struct {
	Delete    bool
	Neighbour Neighbour
}

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of events.
const (
	// EventLost: the socket overflowed or was re-opened; everything must be read again.
	EventLost EventKind = iota
	EventLink
	EventAddress
	EventRoute
	EventNeighbour
	EventNexthop
	// EventSysctl: settings of interfaces of which the kernel tells (Netconf). Other sysctls change without a word.
	EventSysctl
)

// Event is one notification of the kernel. Deleted tells the two directions apart. A deleted IPv6 route may be a part of one: the
// next hops named are gone, others may be left (RTM_DELROUTE of one sibling). Of a deleted ARP or NDP neighbour only Link and
// Addr count, and there may be two such events.
type Event struct {
	Kind    EventKind
	Deleted bool
	// Replaced (of EventRoute, IPv4): the first route of the same key has made way for this one, and no event of its
	// own tells so (NLM_F_REPLACE). It is set too where a nexthop object was replaced and the kernel tells of its routes,
	// which are the same as before (nexthop_compat_mode 1).
	Replaced  bool
	Link      Link
	Address   Address
	Route     Route
	Neighbour Neighbour
	Nexthop   Nexthop
	Netconf   Netconf
	Err       error // of EventLost: why
}

// Answer is what the kernel would do with a packet to an address (RTM_GETROUTE with RTM_F_FIB_MATCH).
type Answer struct {
	Match  Route      // the FIB entry that matched
	Chosen NextHop    // the next hop the kernel picks
	Src    netip.Addr // the source address it would use
	Text   string     // one line as `ip route get` prints it
}

// Routes is the FIB half of the kernel.
type Routes interface {
	// ListRoutes dumps table main of one family; yield may keep nothing of the *Route but copies
	// (its NextHops too). ErrInterrupted means what was yielded is not a consistent picture.
	ListRoutes(ctx context.Context, v6 bool, yield func(*Route) bool) error
	// WriteRoutes performs the operations in order, in as few messages and acknowledgements as it can, and calls
	// failed once for each that did not succeed. Deletes that follow one another may be done in any order. Adds are
	// fastest in the order of their prefixes. The error returned is of the transport: what was not
	// reported may then be done or not, and the caller must read back.
	WriteRoutes(ctx context.Context, ops []RouteOp, failed func(i int, err error)) error
	// Lookup asks the kernel itself what it does with a packet to that address.
	Lookup(ctx context.Context, dst netip.Addr) (Answer, error)
}

// Links is the half of the kernel that holds interfaces, addresses and neighbours.
type Links interface {
	ListLinks(ctx context.Context) ([]Link, error)
	// CreateLink creates the device with its kind's attributes, MTU and MAC, and returns its index. It is left down.
	CreateLink(ctx context.Context, l Link) (int, error)
	DeleteLink(ctx context.Context, index int) error
	// SetLink changes MTU (when > 0), MAC (when not zero) and the admin state of an existing device.
	SetLink(ctx context.Context, index int, mtu int, mac [6]byte, up bool) error
	ListAddresses(ctx context.Context) ([]Address, error)
	AddAddress(ctx context.Context, a Address) error
	DeleteAddress(ctx context.Context, a Address) error
	// ListNeighbours dumps ARP/NDP and FDB entries of one interface.
	ListNeighbours(ctx context.Context, link int) ([]Neighbour, error)
	WriteNeighbours(ctx context.Context, ops []NeighbourOp, failed func(i int, err error)) error
}

// Kernel is everything the route programmer needs of one network namespace.
type Kernel interface {
	Routes
	Links
	Nexthops
	Sysctls
	// Watch delivers events in the kernel's order to one consumer until ctx ends, then closes the channel. Changes made
	// after Watch has returned are seen, our own writes too. After a lost message it delivers EventLost, behind all events
	// older than the loss, and goes on: who then reads everything again and applies what follows is right.
	Watch(ctx context.Context) (<-chan Event, error)
	// MutesAdds reports whether Watch leaves out the events of this handle's own Adds of routes that succeeded, and of nothing else.
	// Whoever adds 100,000 routes is spared reading 100,000 times what he has just been told by the acknowledgement.
	MutesAdds() bool
	Close() error
}
