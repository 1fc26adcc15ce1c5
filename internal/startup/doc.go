// Package startup brings a node into the cluster as calico-node's startup does: it finds the node's own addresses, writes
// them where the other nodes read them, makes sure that the cluster has address pools and default resources, and leaves on disk
// what the CNI plugin asks for. It reads Calico's environment variables with Calico's names, defaults and meanings.
//
//	environment ──> Settings ─┐
//	interfaces of the host ───┼─> addresses ─> Node (patch of our own fields)
//	Node as it is stored ─────┘      │
//	                                 ├─> conflict with another Node: the start is refused
//	pools, kubeadm's podSubnet ──────┴─> default pools, default resources
//	                                     /var/lib/calico/nodename, /var/lib/calico/mtu
//
// # Who calls what
//
// Parse turns the environment into Settings once; every bad variable is told, with its remedy. Run is called before the
// daemon's parts start and returns when the node is in the cluster. A Monitor is a task of the daemon: it watches the
// host's addresses while the daemon runs and updates the Node. A Condition is another: it tells Kubernetes whether the
// node's network can be used. Run, Monitor.Run and Condition.Run each use their own goroutine only; Monitor.Wake and
// Monitor.SetState may be called from any and never block.
//
// Choosing an address is pure: Method.Detect and the functions below it work on a list of interfaces. What asks the
// outside world, a UDP socket or Kubernetes, comes as a function.
//
// With Kubernetes comes a Cluster, the few questions that only its API answers. Elsewhere it is nil.
//
// # Under backend none
//
// Neither addresses nor AS number are touched, and nothing is cleared, as in Calico. Pools and default resources are still
// made.
//
// # Deviations from Calico, on purpose
//
//   - A variable with an empty value is one that is not set, booleans too. Calico reads an empty boolean as true, so that
//     CALICO_IPV6POOL_NAT_OUTGOING="", which templates leave behind, turns NAT on.
//   - A boolean is one of true, 1, yes, y, t and false, 0, no, n, f. Calico reads any other word as true, "off" included;
//     here it is an error.
//   - An address without a prefix length gets the one of the interface that holds it, for IP6 as for IP. Calico makes an IPv6
//     address /128, after which no node is in its subnet.
//   - The method cidr= passes over the tunnel devices. Their addresses come from the pools; a range wide enough for the
//     hosts may well cover those.
//   - What the monitor finds wrong is logged and tried again, and the last good address stays. Calico's ends the process,
//     and with it all of its services.
//   - The monitor looks whenever the host's addresses have changed and then were quiet for a moment, besides the period
//     of AUTODETECT_POLL_INTERVAL. It asks the datastore only when there is something to write.
//   - The conflict check is made when an address has changed; a change of the list of interfaces alone needs none.
//   - Condition says what is so: the network is available when the daemon is ready, however long that takes, and
//     unavailable again when it stays unready. Calico waits five minutes where there is nothing to probe and then claims
//     that all is well, and up to release 3.32 never looks again.
//   - A ConfigMap of Rancher that may not be read does not make us forget kubeadm's, nor do we then take the cluster for Rancher's.
//   - kubeadm's configuration is parsed as YAML; Calico searches it for a line.
//   - The default resources have no content beyond what package calico knows of them: FelixConfiguration comes without
//     logSeverityScreen and reportingInterval, which are Felix's own defaults but for usage reports it no longer makes.
//   - The MTU file is kept up to date. Felix writes it once, and bounds it by the interfaces that match mtuIfacePattern;
//     here the interfaces that hold the node's addresses count as well, because tunnels run over those.
//   - spec.interfaces lists interfaces with addresses only, without link-local ones.
package startup
