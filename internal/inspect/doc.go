// Package inspect answers the question "why": it serves caracal.v1 over read-only views of the running daemon, explains the
// way to one address, and holds the one text renderer that the command line and every golden file use.
//
// In flows what the daemon lends it in Sources: functions that return immutable pictures (the cluster's state, the
// sessions, the VTEPs, a copy of the route statuses) and some that go further: Lookup asks the kernel, Paths and PeerRoutes
// have the BGP engine copy tables, and what the service Control does (Resync, Release, Drain) is asked of who does it. Out flow protobuf messages, and text made from those messages only, so that what a
// person sees on a node, what a program reads from the socket and what a golden file holds cannot drift apart.
//
// The package owns no goroutine of its own besides those of the gRPC server, one per call, and one more for each watch of sessions, which
// is told only that something has changed and finds out what by comparing. A watch of routes never holds up
// programming: the callback that takes changes writes into a buffer of bounded size, where later changes of a route replace
// earlier ones, and returns; when the buffer is full the reader is told to start over (MARK_RESTART) and gets
// the whole set again at the speed at which it reads.
//
// Explain is a pure function of the Sources. It follows the packet's way (pool, block, node, BGP paths or VTEP, rule, route)
// and ends with what the kernel itself answers. Where the answer is not what we believe to have installed it says so
// plainly, whatever the reason: that sentence is why the command exists.
//
// Standards: grpc.health.v1 with the readiness of the daemon as serving status, gRPC server reflection v1 and v1alpha.
//
// Known deviations: the interfaces of a kernel's answer are numbers, so of several next hops only the chosen one is compared
// by name; routes between tables (ip rule) are seen only through the kernel's answer.
package inspect
