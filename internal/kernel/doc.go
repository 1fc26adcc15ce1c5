// Package kernel is everything Caracal knows about Linux netlink: routes, nexthop objects, interfaces, addresses, neighbours, settings,
// and the events about them, of one network namespace. It is the only importer of a netlink library. What it holds is mechanism; which route is
// wanted, whose it is and when to try again is decided in package routes.
//
// # What flows
//
// Open binds to a namespace; every socket opened later is in that namespace, whichever thread opens it. All methods of a
// Kernel may be called from any goroutine. Calls are bounded by Options.Timeout (10 s, Calico's netlinkTimeout): a
// context that ends is noticed between two exchanges with the kernel.
//
//   - Writes of routes, nexthop objects and neighbours go through a batched encoder (batch_linux.go): up to 512 messages in
//     one send with one acknowledgement. The kernel answers each message that fails, and the sequence number says which one it
//     was. This reaches 0.95 and more of what sending ready-made batches does on the same machine, and four times the rate of
//     one request a route, six times when the routes refer to nexthop objects (BenchmarkWriteRoutes); our own share is
//     15 to 25 ns a route. Batches of 256 to 2048 are equally fast within the noise of measuring (BenchmarkBatchSize). The
//     buffers are used again: nothing is allocated per route.
//   - Long runs of IPv4 deletes are sent scattered over their prefixes. In order the trie halves its large nodes over and over,
//     and waits for an RCU grace period each time; scattered they are up to twice as fast (segment,
//     BenchmarkDelete). Adds in both families, and IPv6 deletes, are fastest in order.
//   - Dumps have their own parser as well: an unchanged table of 100,000 routes is read without garbage in some 20 ms.
//     A dump that the kernel marks as interrupted (NLM_F_DUMP_INTR) is ErrInterrupted, never a silent half.
//   - Sysctls are files below /proc/sys/net, which procfs shows for the namespace of the thread that opens them: each is
//     opened on a thread inside the handle's namespace.
//   - Links go through github.com/vishvananda/netlink, with every attribute said, so that no default decides.
//
// # Goroutines
//
// Writes and dumps run in the caller's goroutine. Each Watch has two: one empties the socket into a backlog in the kernel's own
// form, bounded at 64 MiB, one parses and delivers. A slow consumer so never makes the kernel drop events before
// the backlog is full. When events are lost (ENOBUFS, a full backlog, a broken socket) EventLost is delivered behind every
// event that is older than the loss. A consumer that reads everything again at EventLost and then applies the events that
// follow is right in the end; marks delivered earlier would let old events undo what was read.
//
// # What the kernel does (measured, and held by kerneltest.Conformance on Linux 6.1 and 6.18)
//
// The same key means different things. In IPv4 a table may hold several routes with the same destination, TOS and
// metric (append, prepend); the first counts. In IPv6 they become siblings: one multipath route, shown with the protocol
// of its first next hop, unless they have no gateway or are blackholes, which stay apart.
//
// Who is safe from whom:
//
//   - Add is exclusive (NLM_F_EXCL). In both families any route of the key, whatever its protocol, makes it ErrExists.
//     It never touches a route of another program.
//   - Delete carries table, destination, metric, protocol, and the type if it is set. IPv4 removes the first route that fits
//     all of them. IPv6 would take all siblings of the first that fits, so Delete names each next hop of the Route
//     it is given, and the kernel compares the protocol of each: next hops of others stay, and next hops of ours that are not
//     named stay too. A Route without next hops and type deletes by key and protocol alone, in IPv6 with all siblings. On
//     another program's route it is ErrNotThere.
//   - Replace is atomic for traffic and blind: the kernel compares no protocol. In IPv4 it replaces the first route of the key,
//     in IPv6 all siblings of the key (a new blackhole replaces a blackhole if there is one, else the first; a new
//     route with gateways likewise prefers one with gateways). So it is for a key under which ours was read back as the first
//     (IPv4) or the only one (IPv6), never for a key that was never ours: there, Add.
//
// The race that remains: another program puts its route before ours between our last reading of the key and our Replace. The
// kernel has no flag against it. The event of the other program's route arrives in any case, before the event of our
// Replace, so it is visible that it happened. Between deleting and adding there would be no race, but a hole for traffic.
//
// Routes go without a word. When an interface goes down or away IPv4 drops its routes silently, IPv6 tells of each;
// multipath routes stay with a dead next hop in both until their last one dies, silently. The last IPv4 address of
// an interface takes all IPv4 routes through it along, onlink ones too, silently. Loopback down takes the IPv6 blackholes. An IPv4 route
// goes with its preferred source address, an IPv6 route only loses the source. The event of the link or address comes in
// every case: it is what must lead to a reading of the routes.
//
// Refusals differ. A gateway that is not onlink is looked for first: on an interface that is down it is ErrUnreachable,
// not ErrDown, and on one that is missing ErrUnreachable in IPv4, ErrNoDevice in IPv6.
//
// An IPv4 route may have IPv6 gateways (RTA_VIA, RFC 8950; "via inet6"), beside IPv4 ones too, and through interfaces without an IPv4 address. They are looked at and
// refused as in IPv6 routes: EHOSTUNREACH, ENODEV where the interface is missing, EACCES where it has IPv6 off. But they go as IPv4 routes
// go: silently, and with the last IPv4 address of an interface that had one, while IPv6 addresses take none. An IPv6 route has no IPv4 gateway.
//
// Neighbours of ARP and NDP go with their interface going down, with an event each; permanent FDB entries of a VXLAN device stay.
// Deleting an FDB entry with another destination than it has is no error and does nothing. A VXLAN device goes with its parent.
//
// # Nexthop objects
//
// An object (Linux 5.3) is a way out with a number, and routes that refer to it (Route.NexthopID) follow it. One replacement
// moves 100,000 IPv4 routes in some 20 µs without nexthop_compat_mode, in 15 ms with it (its default), and with a listener in the
// namespace in some 100 ms, as each route is then told of (BenchmarkReplaceNexthop).
//
//   - Replace and Delete are blind: the kernel compares no protocol, and refuses a Delete that says more than the number. Only Add
//     is exclusive. So: Replace and Delete only where an object of ours was read back under the number.
//   - An object deleted takes its routes along: IPv4's silently, after a walk through the whole table (3 ms with 100,000 routes, where an
//     object without routes takes 3 µs), IPv6's with an event each if nexthop_compat_mode is 1, else silently. Groups lose it, with an
//     RTM_NEWNEXTHOP; the group that had no other member goes the same way. The order is: the object, its IPv6 routes, the groups.
//     Routes of a shrunk group are not told of.
//   - An interface that goes down, goes away, or loses its carrier takes its objects and their routes along, and nothing is said
//     of objects; IPv6 routes as above. The event of the link comes in every case. This is where objects differ from next hops in a route, which
//     outlive the loss of carrier; and while there is none, no object can be made (ErrDown). Blackhole objects are on lo, but stay when it goes down.
//   - The gateway is looked for when the object is written, never again: the last IPv4 address of an interface, which takes all other
//     routes of the interface along, leaves those by object. So a changed tunnel address costs no route.
//   - An IPv6 route takes IPv6 objects alone (blackholes and members of groups too), an IPv4 route takes both, and groups of both. An object
//     with IPv6 routes cannot become IPv4 (ErrInvalid); one without may change its family under its IPv4 routes. A group cannot become a single one, nor the other way. A member is no group and is named once; a
//     blackhole is a member only alone.
//   - A route to a number without an object is ErrNoNexthop, told from other EINVALs by the kernel's words; a kernel with other words makes it
//     ErrInvalid. Deleting such a route is ErrNotThere.
//   - Routes by object obey the rules of keys above. Add is exclusive against every route of the key. A Delete with a number takes
//     only a route by that number; a Delete without one takes a route by object too, in IPv6 whatever next hops it names.
//     IPv6 keeps a route by object apart from siblings, so Replace with inline gateways does not replace it if another program has a
//     route with gateways under the key: that one goes instead. Keep to one form for a key, or delete after adding under another.
//   - With nexthop_compat_mode 1 routes are read with number and next hops (a group of one as its member, a blackhole as a blackhole),
//     and a replaced object brings an event per route, with Replaced set; a group written again as it was does so too. With 0 the number is
//     all there is, and the object's is the only event. Of the sysctl itself nothing is told.
//
// # Settings
//
// The kernel tells of forwarding (both families) and rp_filter (IPv4) per interface, of "all" and of "default", when they change
// and when an interface comes (before its own event) or goes; of no other sysctl we use. One write of ip_forward or of IPv6's
// all/forwarding writes every interface. Writing what is there is not told. ListNetconf reads them all in one dump.
//
// # Deviations and limits
//
// Neighbours that are being looked for or were not found read as not there. Multicast entries and proxies are left out, and
// so are FDB entries without an address. IPv4 dumps of table main only; other tables are never read. FormatRoute leaves out
// what is the same on every route (IPv6's "pref medium", blackholes' "dev lo") and prints a dead next hop as linkdown.
// How long the kernel itself holds a send (waiting for its rtnl lock) no timeout bounds.
package kernel
