// Package kernel is everything Caracal knows about Linux netlink: routes, interfaces, addresses, neighbours, and the events
// about them, of one network namespace. It is the only importer of a netlink library. What it holds is mechanism; which route is
// wanted, whose it is and when to try again is decided in package routes.
//
// # What flows
//
// Open binds to a namespace; every socket opened later is in that namespace, whichever thread opens it. All methods of a
// Kernel may be called from any goroutine. Calls are bounded by Options.Timeout (10 s, Calico's netlinkTimeout): a
// context that ends is noticed between two exchanges with the kernel.
//
//   - Route and neighbour writes go through a batched encoder (batch_linux.go): up to 512 messages in one send with one
//     acknowledgement. The kernel answers each message that fails, and the sequence number says which one it was. This
//     reaches 0.95 of what sending ready-made batches does on the same machine, and four times the rate of one request
//     a route (BenchmarkWriteRoutes). The buffers are used again: nothing is allocated per route.
//   - Dumps have their own parser as well: an unchanged table of 100,000 routes is read without garbage in some 20 ms.
//     A dump that the kernel marks as interrupted (NLM_F_DUMP_INTR) is ErrInterrupted, never a silent half.
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
// Neighbours of ARP and NDP go with their interface going down, with an event each; permanent FDB entries of a VXLAN device stay.
// Deleting an FDB entry with another destination than it has is no error and does nothing. A VXLAN device goes with its parent.
//
// # Deviations and limits
//
// Neighbours that are being looked for or were not found read as not there. Multicast entries and proxies are left out, and
// so are FDB entries without an address. IPv4 dumps of table main only; other tables are never read. FormatRoute leaves out
// what is the same on every route (IPv6's "pref medium", blackholes' "dev lo") and prints a dead next hop as linkdown.
// How long the kernel itself holds a send (waiting for its rtnl lock) no timeout bounds.
package kernel
