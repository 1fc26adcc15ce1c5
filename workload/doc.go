// Package workload plans the routes to this node's own workloads and the settings of their interfaces, as Felix keeps them, for
// nodes where no Felix runs (CARACAL_WORKLOAD_ROUTES).
//
// # What flows in and out
//
// In come the Endpoints of this node, which EndpointsOf makes of its Pods, and the picture of the host. Out come the desired
// routes of the owner "workload" (one for each address, to the interface, without a gateway), the settings of each interface and the
// addresses that a workload dials there (Endpoint.Dialled), which the route programmer keeps as it keeps routes, and problems. Plan is pure: it keeps nothing, touches nothing and starts nothing.
//
//	10.244.3.9 dev cali0ef24ba13b3 scope link
//
// Calico's CNI plugin makes a workload's interface, its route (protocol 3, metric 0 in IPv4) and its settings once, when the workload
// starts. What is planned here brings them back when somebody takes them away, and is there for workloads whose plugin did not.
// On IPv4 both routes stand side by side and say the same; on IPv6 they have one key, and ours is listed as foreign and takes the
// place when the plugin's goes.
//
// # Names of interfaces
//
// Calico's, worked out from namespace and name of the pod (libcalico-go: VethNameForWorkload): "cali" and eleven hexadecimal digits of
// a SHA-1. The name is the contract with the CNI plugin.
//
// # Known deviations from Felix
//
// Two endpoints with one address are a problem and the first by namespace and name has it, on every run alike; Felix takes the lowest
// endpoint ID and is silent. A workload whose interface is missing has a route that waits for it (no-device), and is not announced. The elevated metric
// of live migration is not known. rp_filter is set to strict, as Felix does where it does not filter by packet rules.
// The addresses for BGP have scope host, or are deprecated in IPv6, and have no route: Felix's may become the source of what the host sends to the pod,
// and the route of its IPv6 one leads to a workload's interface, as a workload's does.
package workload
