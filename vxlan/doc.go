// Package vxlan plans the VXLAN overlay: from the cluster's State and a picture of this host it works out the tunnel devices,
// the neighbour and FDB entries and the routes that this node needs. It touches nothing; the programmer does.
//
// # One packet on its way
//
// A workload on node a (192.0.2.1) sends to 10.244.3.9, which lies in a block of node c (198.51.100.3), in a VXLAN pool. The
// packet meets four things that this package planned, each by another table of the kernel:
//
//	10.244.3.0/26 via 10.244.3.0 dev vxlan.calico onlink    the route: into the tunnel, towards c's end of it
//	10.244.3.0 lladdr 66:84:a5:16:84:1b nud permanent       the neighbour: c's end has this MAC; nobody is asked by ARP
//	66:84:a5:16:84:1b dst 198.51.100.3 self permanent       the FDB entry: that MAC lives behind c's own address
//	vxlan.calico id 4096 dstport 4789 local 192.0.2.1       the device: wraps the frame in UDP and sends it (RFC 7348)
//
// The gateway is nobody's neighbour on any wire, hence onlink. On c the frame is unwrapped because its MAC is that of
// c's device, and c's own route to the workload takes it from there. If no workload has the address, c's blackhole for the
// block ends the matter; without it the packet would follow c's default route, and perhaps come back.
//
// Had the pool been CrossSubnet and c in a's subnet, the first thing would have been the last: "via 192.0.2.3 dev eth0
// onlink", no device, no wrapping, full MTU. Whether c is in a's subnet a judges by its own mask alone, as Calico does; with
// unequal masks the two directions may differ, and both work. Only where our address is on the loopback interface is nobody in its subnet.
//
// The way is planned from both ends without either asking the other. c's tunnel address and own address come from its Node;
// its MAC is worked out from its name (MAC), which makes that function part of the protocol between nodes, Felix
// included.
//
// # Addresses that are not where their block is
//
// A node may use single addresses of another's block. Each is a route of its own to whoever uses it, also where the block
// is ours. Where we use it there is none: the workload's route is local, and a route to ourselves would only be refused. Where
// such an address is the other node's tunnel end it lies on the far side of the tunnel itself, so its route has
// no gateway. An address that is a node's own is never routed to, whatever a block says.
//
// # When something is missing
//
// A remote block always leads to a row. If the row cannot be a route, because the remote node has no tunnel address yet, ours is
// missing, no interface of the host has our own address, the pool is IPIP and the backend is vxlan, it says so
// (routes.Route.Unroutable), and where Felix would be silent or tunnel what should go direct we do neither. What goes
// direct needs no tunnel end on either side and does not wait for one.
//
// Two nodes with one tunnel address, or one MAC, cannot both be reached. The first by name is, on every node alike: it needs
// nobody's agreement, because all read the same datastore. The other has no VTEP then: it keeps no device and its blocks
// are listed with the names of both and the remedy. Whatever goes direct is not affected.
//
// # What belongs to us
//
// Every VXLAN pool, under the backends bird and vxlan. Under vxlan there is no BGP, so we also speak for the other pools:
// without encapsulation remote blocks in our subnet go direct, the rest and all of IPIP is listed as unroutable. A node's
// block in no pool is listed under both; if BGP brings a route to it, the programmer takes that. Under none there
// is nothing, and the Change that says so withdraws all.
//
// # How a plan stays cheap
//
// Planner remembers for each block where it led. The routes to all blocks of one node in one pool are one way: they
// share next hops, Reason and verdict, and a block's memory is a pointer to it. A changed block is judged alone, with
// those around it; a changed node makes one pass over the blocks' owners; only what every route is made from
// (our own node, the host, pools, settings) has all blocks judged again, and even then only differences are told. A step that
// changes nothing allocates nothing. That all this leads to the same routes as a plan from scratch is held by a test over
// random histories.
//
// # Known deviations from Felix
//
// Metric 1024 and one protocol number for all our routes (the programmer's); a permanent answer to conflicts; rows where
// Felix is silent; a change of our own VTEP, of a pool or of the backend takes effect without a restart. IPv6 routes
// carry no link scope, for the kernel knows none there. BlockAffinities play no part, as in Felix: the block says whose it is.
//
// A Planner belongs to one goroutine. If we die between two plans nothing is lost: the next process makes a whole one.
package vxlan
