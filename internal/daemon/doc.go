// Package daemon is "package main logic": it wires the rooms of caracald together, starts and stops them in order, and
// is the one place that knows them all.
//
// # What flows
//
// The datastore's watcher delivers immutable states, the route programmer delivers pictures of the host, the BGP speaker
// delivers learned paths. All three only leave what they bring in the controller's inbox. The controller, one goroutine,
// takes what has gathered, runs the pure planners (workload, vxlan, ipip, bgp) and hands the results on: routes, devices and
// neighbours to the programmer, sessions and originations to the engine, which owns the Speaker. Nothing downstream calls
// upstream but by leaving something in an inbox, so no cycle of waiting can form. Learned paths that come alone, as they do by the thousand
// when a peer sends its table, are planned without the rest: nothing but their own routes can differ (planLearned).
//
// # Goroutines
//
// Each Task has one goroutine that owns its state: programmer (kernel), controller (plans), watcher (datastore), engine
// (BGP speaker), tunnels (IPAM), memory (how much garbage there may be, and when it is given back), server (gRPC), proxyhealth (the service proxy's word), report (Events),
// departure (how far to leave), mark (telling others so where reflectors are elected), cordon (our Node in the Kubernetes API). Those who watch sessions are told by a bell. Triggers are channels of size one; bursts become one run.
//
// # Start and stop
//
// Everything starts at once and waits for its input: without an in-sync datastore and a picture of the host nothing is
// planned, without a plan nothing is written, and nothing is deleted before every owner of routes is in sync.
// On SIGTERM the programmer and the controller stop first, then the Speaker closes its sessions without a Cease that
// would end graceful restart, then the rest. Routes, devices and addresses stay: the next process finds them by
// protocol number and device name and keeps what is still wanted. kill -9 is the same without the first half.
//
// # The start of a node
//
// With the Kubernetes API as the datastore, or where the environment asks for addresses, nodeStart brings the node into the
// cluster as calico-node's startup does (package startup) and then keeps its addresses there. The rest does not wait for it: a
// datastore that is away must not keep routes from being looked after. Until it has gone well the daemon is not ready, which
// startup.Condition tells Kubernetes.
//
// # Safety rails
//
// Before anything is planned, rails judge the datastore's word: a State that is in doubt and would remove too much is held, and the plan is made
// from the State before it (rails.go, docs/safety-rails.md). They belong to the controller's goroutine.
//
// # Services and workloads
//
// While addresses of Services are announced, the Speaker's first configuration waits for the first round of questions to the service proxy, at
// most some seconds, and later ones hold what is not verified (services.go). A change of Services that this node announces nothing different by makes
// no plan. Where workload routes are ours they are planned before the rest, and the picture that the others plan by has them in it
// (workloads.go); beside a Felix they are refused.
//
// # BFD
//
// liveness stands between controller and engine: the sessions that ask for BFD are given to bfd.Engine, and a path it finds dead is
// told to the Speaker. At a planned stop the BFD sessions are handed over to the next process by a file beside the socket.
//
// # Leaving
//
// departure decides how far the node has left the others (RFC 8326): cordoned, it is everybody's last choice; drained by hand, it withdraws after a
// while. The step is one more thing in the controller's inbox, and there before the first plan, because the wish is kept beside the socket.
//
// # Backends
//
// calico_backend comes from the flag or CALICO_NETWORKING_BACKEND, and from the ConfigMap calico-config in the datastore,
// which wins because it can change while we run. bird runs all owners; vxlan stops the Speaker, so that no BGP port is
// open, and withdraws what only BGP wanted; none withdraws everything.
//
// # Known deviations
//
// A node that is missing from the datastore keeps its last plan instead of losing its routes; BIRD would render an empty
// configuration. Felix restarts when encapsulations change, this daemon re-plans.
package daemon
