// Package bgp holds our BGP words and the two pure halves of BGP routing. What a node should say is made from the cluster's
// state, what it hears becomes wanted routes:
//
//	cluster.State, routes.Host -> Plan   -> Config       -> Speaker (bgp/gobgp)
//	Speaker.Events.Learned     -> Routes -> routes.Change -> routes.Programmer, owner "bgp"
//
// The package has no goroutine and opens nothing. Plan is a function of its arguments. Routes keeps what it heard and what it
// said last, under a lock of its own, because the Speaker feeds it from one goroutine and the daemon asks it from
// another. It never imports ipip: the daemon hands ipip.NextHop in as a Tunnel.
//
// # What a node says
//
// The node-to-node mesh (RFC 4271 sessions, IPv4 over IPv4 and IPv6 over IPv6, RFC 4760 attributes for IPv6 only) is made
// from Node resources as confd makes it: nobody peers with itself or with a route reflector, a route reflector has no mesh,
// and of two nodes the one whose address sorts higher as a string of bytes dials while the other waits, so 192.0.2.9 dials
// 192.0.2.10. Where a BGPPeer and the mesh name the same address the BGPPeer wins, and among BGPPeers a global one wins over a
// node's, then one over the way back of another, then the first by name, where Calico leaves it to chance. A BGPPeer that has nodes
// for its peers, by label or by address, makes the sessions back on those nodes. On a route reflector every peer of its AS is a
// client, except reflectors of the same cluster. A session whose password cannot be read is Held: planned, shown with the
// reason, and not started. Workloads of the node that a BGPPeer chooses dial themselves; what they announce leads to their interface.
//
// A large mesh may elect route reflectors of its own (Election, annotation caracal.net/route-reflectors on the BGPConfiguration default): every node finds
// the same ones from the State alone, sessions between two others are left out, and a reflector has all others for its clients.
//
// A node originates
//   - its own blocks: BlockAffinities of the node in state confirmed (or the empty state of old objects). The IPAMBlock is not
//     asked. VXLAN pools are included as BIRD includes them (a top-of-rack router may want them; cluster nodes do not
//     program them), and so are blocks whose pool has gone, whose workloads still run;
//   - workload addresses outside its own blocks but inside a pool: borrowed addresses, addresses of a block whose
//     affinity went away; inside them with a metric below the ordinary one, as a workload has that is moving here;
//   - addresses of Services, see below;
//   - where a rule of some peer's BGPFilters accepts it, and therefore the defaults are not asked: blocks and workloads of pools with disableBGPExport, all
//     other workloads, and the networks that the node's interfaces are connected to.
//
// What of that, and of what was learned, goes to which peer is decided in this order: the rules of the peer's BGPFilters, the
// first that holds; pools with disableBGPExport stay home; communities are added; own blocks go whole, and of what is inside only
// elevated routes; our own service addresses; on a reflector what was learned within the cluster's service ranges, on other nodes never;
// everything else inside a pool; nothing more. What is received is decided about by the peer's import rules and else accepted. Config.Send and Config.Accept are the plain form of that, for
// inspection and for tests; the Speaker has its engine do the same. On iBGP, LOCAL_PREF is 2147483647 less the route metric (1024 unless
// BGPConfiguration says otherwise), as Calico has it since v3.32.
//
// # Services
//
// BGPConfiguration names ranges of cluster, external and load balancers' addresses; see Services. Ranges are announced whole by every node
// without the label node.kubernetes.io/exclude-from-external-load-balancers, but for single external and load balancers' addresses, and for all
// of load balancers' with serviceLoadBalancerAggregation: Disabled: those are announced one by one. Addresses of Services that only nodes with
// endpoints forward packets to (externalTrafficPolicy: Local; for cluster addresses internalTrafficPolicy: Local too) are announced one by one
// by these nodes, whose longer prefix draws the packets. A ready endpoint is one of the address's family.
//
// A Planner that is told of the node's data plane holds back what has not been verified (DataPlane, Config.Held). That routes and workloads are
// in order is for whoever says that an endpoint is ready, the kubelet, whose probes come over the same routes.
//
// # What a node does with what it hears
//
// All equal best paths of a prefix become one multipath route, on tunl0 too (the BIRD of calico-node falls back to direct
// routes there). Prefixes in IPIP pools go where the Tunnel says; in pools without encapsulation and outside all pools
// they go direct, over the host's own route to the next hop: all of its equal paths, with their weights where all next hops share them, and followed
// when it changes. The host's default route serves as any other; routes learned by BGP, ours and those of BIRD before us, are not asked, so that nothing
// leads in a circle. The host's route may have an IPv6 gateway although the next hop is IPv4, and an IPv4 prefix an IPv6 next hop (RFC 8950, decision 021); the reverse is
// refused. A link-local next hop (RFC 2545 section 3) is on the link of the peer that names it. The metric is 2147483647 less LOCAL_PREF: 1024 for an
// ordinary route of Calico v3.32 and later, 2147483547 for LOCAL_PREF 100, so a default route from a router never shadows
// the host's own. Not programmed: prefixes in service ranges, prefixes in VXLAN pools (package vxlan makes those from the datastore), prefixes this node
// originates, paths whose next hop lies inside a pool, which would route the overlay through itself, and paths over an
// ignored interface. A workload's own route is left to the host unless its address is learned with an elevated LOCAL_PREF: then it
// has moved. Peers with reachableBy get a route through their gateway.
//
// A path whose next hop leads nowhere, or is refused, takes no part in the choice where there is another, and is passed on to nobody (RFC 4271 section
// 9.1.2; Nowhere, decision 019). Where it is the only one the prefix is listed as unroutable, with the reason.
//
// Own blocks outside VXLAN pools become blackholes, so that packets to unused addresses end here and do not circle between
// this node and its default gateway. Blocks of other nodes that no path leads to are listed as unroutable.
//
// A node that is leaving (Planner.Leaving, RFC 8326) sends everything as the last choice, and then withdraws what others can do as well. Routes learned
// with NO_EXPORT, NO_ADVERTISE or NO_EXPORT_SUBCONFED (RFC 1997) are kept where they ask for before any rule is asked, and those with
// GRACEFUL_SHUTDOWN from eBGP peers become the last choice.
//
// # Known deviations from Calico
//
//   - The AS of a mesh peer without one of its own is the cluster's, as up to v3.31 (and as that peer will introduce
//     itself); since v3.32 Calico takes the asking node's own, which fails when only one of the two is set.
//   - A block in state pendingDeletion is neither announced nor blackholed; in Calico its static route lingers.
//   - Blackholes carry metric 1024 like everything of ours, BIRD's carry 0.
//   - A /32 or /128 block is announced as soon as it is ours, not when its workload runs.
//   - programClusterRoutes only says who of BIRD and Felix programs which pools; both are Caracal here.
//   - ignoredInterfaces: BIRD may still find such a next hop by a less specific route; here the path is refused, and said so.
//   - A rule's interface is that of the host's own route to the next hop, so never tunl0; in BIRD it is the same, the tunnel being
//     chosen later. Of a block of ours it is none.
//   - Of the host's routes BIRD sends, where a rule accepts it, those that somebody wrote into the kernel too; here only the networks of interfaces. What we
//     originate is ours before anything learned, so a default route of the host would hide one that is learned. No default sends the networks of
//     interfaces, not even inside a pool, unless a rule of another peer has them originated.
//   - Of prefixAdvertisements of one node each family stands in for the cluster's by itself; in Calico either one replaces both.
//   - prefixLength with Equal or NotEqual is read as with In or NotIn; in BIRD such a rule never or always holds.
//   - BIRD makes unreachable routes of prefixes whose next hop leads nowhere, and passes them on; here there is no route and nobody gets them. Its default
//     route from a ToR hides the kernel's when it looks up next hops, and BGP routes being no answer, all behind it are then lost; here the kernel's serves.
//   - Third-party next hops (RFC 4271 section 5.1.3): what is learned is sent with our own address to eBGP peers (all are multihop, where the
//     RFC wants that), with the next hop as learned to iBGP peers; nextHopMode Keep and Self, and keepOriginalNextHop, say otherwise.
//   - Local workload peers: labels of a pod's namespace and service account (pcns., pcsa.) are not known to localWorkloadSelector. What a workload
//     announces inside a VXLAN pool is not programmed.
//   - Services: cluster addresses outside serviceClusterIPs are not announced. An endpoint of one family does not make the other one's
//     addresses announced, and a single address needs an endpoint at all. Aggregation decides about load balancers' addresses only. The label
//     that excludes a node need not have the value true. An address with ipMode: Proxy is not announced, since nodes do not handle it. What
//     other nodes announce within service ranges is not passed on to eBGP peers, unless by a reflector: with our next hop it would draw packets to a
//     node that drops them. It never enters the kernel, single addresses included.
package bgp
