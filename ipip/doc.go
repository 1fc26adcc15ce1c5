// Package ipip says what IPIP pools want of this node: the device tunl0, and for one next hop learned by BGP the way
// there, through the tunnel or direct. Both answers are pure functions of the cluster's state and of the host's own
// networking; nothing here touches a socket, and there is no goroutine.
//
//	cluster.State, routes.Host -> Device  -> routes.Link of the owner "ipip"
//	                           -> NextHop -> next hop of a route of the owner "bgp" (called by bgp.Routes)
//
// # The tunnel
//
// IPIP (RFC 2003) puts an IPv4 packet behind another IPv4 header. An ipip device with no remote of its own, which is what
// the kernel module's fallback device tunl0 is, takes the outer destination from the gateway of the route, so a route
// "10.244.1.0/26 via 192.0.2.12 dev tunl0 onlink" is all it needs: the gateway is the BGP next hop, that is the remote
// node's own address, never a tunnel address. Tunnel addresses matter only as source addresses of the host's own packets.
//
// tunl0 is adopted: it comes with the kernel module, belongs to the namespace, and cannot be deleted there; when the last
// IPIP pool goes it is emptied and left.
//
// # What is decided here, and how it differs from Calico
//
//   - Without a tunnel address in our Node the device is wanted nevertheless, up and with its MTU but with no address, and
//     a Problem says so. Felix keeps the whole device back until the address comes; but workloads do not need it, and
//     BIRD's routes through tunl0 need only the device.
//   - Same subnet is judged as BIRD's configuration does it: by the BGP next hop against our own mask, not by the remote
//     Node object. The two agree as long as the next hop is the node's address.
//   - An address on the loopback interface has nobody in its subnet, whatever the mask, and tunl0's MTU is then made of the links behind it.
//   - A tunnelled route carries the MTU of tunl0 as its own attribute, a direct one none, as Felix writes them.
//   - A direct route is resolved through the host's routes first; where these say that the next hop is not on a link
//     although our mask says it is (an address with a host mask on the interface), the interface that holds the node's address
//     is taken, onlink.
//   - When tunl0 is missing BIRD silently installs a direct route. Here the route waits for the device and says so.
//   - IPIP carries IPv4 only. An IPv6 pool with an IPIP mode is refused in words.
package ipip
