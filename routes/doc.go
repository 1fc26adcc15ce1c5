// Package routes is the route programmer: the one room of the project that changes links, addresses, neighbours and routes of the
// host.
//
// # What flows in and out
//
// Owners (the vxlan, ipip and bgp rooms, through the daemon) hand over what they want with Apply, as whole sets or as
// steps. The kernel tells by events what is there. The Programmer holds both against each other and writes the difference.
// Out come the kernel's state, a picture of the host for plans (OnHost: what is not ours), and statuses for people
// (Snapshot, Watch, Counts, Devices, Neighbours).
//
//	Apply ─> inbox ─> wishes by owner ─> arbitration ─> desired form ─┐
//	                                                                  ├─ delta ─> batches ─> kernel
//	events, dumps ─> mirror: links, addresses, foreign, ours ─> actual┘                        │
//	      └───────────────────────────── echoes ─────────────────────────────────────────────┘
//
// # Whose goroutine
//
// The goroutine of Run owns everything. It holds the lock while it works and lets go of it in writes to the kernel, in select, in
// OnHost's callback and in logging; readers take the lock for some microseconds at a time. Others reach it by the
// inbox, whose bell is a channel of size 1, so bursts coalesce. Each turn of the loop takes the mail, takes the
// events, and does one pass in the order in which packets keep flowing: devices, neighbours and FDB entries, routes; and only
// when nothing is left to add, removals in the opposite order. A pass writes one batch of routes, so that mail and
// events are never far behind; it goes on to the next only while neither waits. A helper goroutine has the batch written and touches nothing but
// that batch: meanwhile a great change is worked in (writeAhead), or the next batch is made and what became of the last is
// recorded (writeUpdates).
//
// # What is ours
//
// Routes: protocol 202 in table main, whatever the metric. Devices: vxlan.calico and vxlan-v6.calico of kind vxlan, with
// every permanent neighbour and FDB entry on them and all addresses but IPv6 link-local. tunl0 belongs to the ipip module; its
// addresses are set exactly while an owner wants it, and when nobody does only its IPv4 host addresses are removed, as Felix
// does. Everything else is foreign and is never written. A foreign route under a key that we want makes the wish Foreign until an
// event says that it is gone. What BIRD (protocol 12) and Felix (80; 3 on VXLAN
// devices) left behind can be taken over within named destinations, unless that program shows that it lives (adopt.go).
//
// Addresses that workloads dial, on their interfaces (addresses_wished.go), are told from others by their protocol, as routes are. A delete cannot name it: who
// takes the place of one of ours in the microseconds between its event and our delete is hit.
//
// Settings: forwarding of the namespace, and forwarding and reverse path filter of our tunnel devices (settings.go), and what owners wish for
// of single interfaces (settings_wished.go). Those of other interfaces are only looked at.
//
// New routes are written exclusively (NLM_F_EXCL). Only where the mirror shows a route of ours, and no foreign one, under
// the key is it replaced. The kernel cannot be told what to replace: a foreign program that takes one of our keys in the
// microseconds between its event and our replacement of that very route is overwritten. Nothing short of a gap in
// forwarding avoids it. IPv4 allows several routes under one key and IPv6 joins them into one; the Programmer then
// removes its own by protocol rather than replace what may be foreign.
//
// # What the mirror knows, and how
//
// It is the fold of all events over the last dump. What the kernel does without an event is inferred: IPv4 routes go with
// their interface, their preferred source, or the last IPv4 address of the interface (where more is at stake than can be
// inferred, the family is read again at once). A write that succeeded counts as done; its echo confirms it. A kernel that
// mutes adds tells nothing of them: an add is exclusive, so its acknowledgement says all, and 100,000 echoes cost a third of the rate.
// An event that contradicts a write whose echo is still to come is set aside for echoPatience: if the echo comes, it was older. Lost
// events, broken batches and interrupted dumps lead to a read at once. A read repeated for doubt's sake (a key that seemed
// free is taken) is limited to a share of the time, so that nobody can keep the Programmer reading.
//
// Events may also be older than the last read. They are applied all the same, as the ones behind them put right what they make wrong; what
// no later event would put right is inferred again (an interface that is down although that is known), or read: a second foreign route under a
// key, a deletion that may be older than an add of ours, routes of ours that nobody wants and that seem to have gone with an interface.
//
// And events may be ahead of what they tell of: that an interface went down, or an address away, is told before the routes are dropped, and dumps of routes
// do not wait for that. So after such news links are read first, which does wait (awaitFlush); else a dump could show as installed, without a word to the
// contrary ever after, what is dropped the moment after.
//
// The model check (model_test.go) holds all this against random desired sets, other programs and failures: seeds are printed, CARACAL_TEST_SEED
// replays one, `make soak` goes on.
//
// One thing is left as it is: an IPv4 multipath route keeps a next hop dead whose interface, though up, lost its last IPv4 address, until it gets another
// one. Written over, the kernel finds the old next hops again, dead as they are; only a deletion would help, at the price of the living ones.
//
// # When things fail
//
// Every operation succeeds or fails alone. EEXIST: read what is there. ESRCH on a delete: done. ENODEV, ENETDOWN: NoDevice, until
// the link's event. ENETUNREACH and the rest: Failed, with back-off from retryFirst to retryMost, and again soon after links,
// addresses or foreign routes changed. ENOBUFS and errors of the transport: everything is read, then tried again. An object that
// somebody keeps undoing is repaired at once freeRepairs times, then ever more slowly, and its status says what is done to it and, if the
// kernel tells, by which protocol number. Parts of the kernel's state are read
// apart, so that one that cannot be read does not hold up the others.
//
// A route that is wanted under another metric than before, or was left by another program, goes only when what follows it is installed (hold).
//
// If we die here: at any point the kernel holds a part of what was wanted and nothing that a new process would not
// know as ours. It reads back its routes by protocol, leaves equal ones untouched, and removes nothing (Kept) before
// every owner named by Expect has been in sync.
//
// # What it costs
//
// Forms of routes are interned: what 100,000 routes share is kept once, comparing desired with actual is comparing
// pointers, and an unchanged route costs no allocation in Apply or in a dump. What only routes in trouble have hangs
// behind a pointer. Benchmarks print the figures: with 10,000 routes and 100 changes a second by another program, from its call to the
// notification of our repair, some 20 µs in the middle and 0.1 ms at p99 (BenchmarkHostile); a full audit a minute of 100,000 routes
// 0.06 % of a core (BenchmarkAudit).
//
// # The flight recorder
//
// What was asked, decided, written, refused and noticed is kept in rings of fixed size (history.go), with the cause of each: an owner's
// Change, another program's doing, a read. History tells it of one prefix or address, HistoryOf of a device with its addresses, neighbours and
// FDB entries; Latencies how long it took from a wish to the kernel. Two records of 64 bytes are what a new route costs.
//
// # Nexthop objects
//
// With Options.NexthopObjects, routes with gateways lead to objects (nexthops.go): one a way out, groups of them for equal paths. A form then
// holds a number instead of next hops, so what changes for all routes of an object changes no form and is one write: a path found dead
// (Avoid), an interface under another index, and a gateway in place of another where all routes move in one Change (succeed). Objects are
// written before the routes that wait for them, and removed after both families were read without one that leads there. What the kernel
// will not have as an object, or another program will not leave alone, is written as next hops of the routes themselves until it is tried
// again. Decision 018 says what the kernel does of its own accord, and how the mirror keeps up.
//
// Linux semantics are those of net/ipv4/fib_trie.c, net/ipv6/ip6_fib.c and drivers/net/vxlan of 6.x. The contract between nodes is
// Calico's (Felix dataplane, reference in docs). Deviations from Felix: it deletes by destination and metric whatever the
// protocol, replaces foreign routes under its keys, repairs only at the next periodic dump, and makes a device of another
// kind but of its name anew; this room does none of that.
package routes
