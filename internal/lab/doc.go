// Package lab is a cluster on one machine: network namespaces for nodes, router and workloads, a real caracald process
// in each node's namespace, a datastore directory, and probes that say what arrives.
//
//	           router (bridges rack-a, rack-b)
//	192.0.2.1/24  |                 |  198.51.100.1/24
//	     +--------+-------+         +-------+
//	  node1           node2            node3       eth0, default route to the router
//	  cali-w1 cali-w2  ...               ...          veth pairs as Calico's CNI plugin and Felix make them
//	    w1      w2
//
// A Spec (what is asked for) becomes a Plan (pure data: names, addresses, pools), the Plan becomes namespaces, links and
// YAML manifests, and a Cluster is that plan standing. Addresses of workloads come from internal/ipam, the code the daemon
// itself uses. Everything a cluster is lies in /run/caracal-lab/NAME: cluster.json (the Plan), the datastore directory, and for
// each node its socket, log and pid file; so another process can take the cluster up again (Load), and Down removes it after
// any crash: it kills what runs in the cluster's namespaces and deletes the namespaces whose names begin with the cluster's
// own prefix, "cl-NAME.", and no others. With Options.Kubernetes an API server takes the directory's place; such a cluster lives as long
// as the process that forwards the server's address into its namespaces.
//
// Probes: the Prober holds one ICMP socket in each workload's namespace (a socket stays in the namespace it was made in), sends
// echo requests for all pairs at a constant rate and counts by sequence number exactly which were never answered.
//
// Scenarios are functions on a Cluster: each does one thing to it under the probe, checks what must hold, leaves the
// cluster whole and reports its figures. `caracal-lab scenario` and the tests in test/lab run the same ones.
//
// Goroutines: the Prober owns one sender and one reader a socket, all ended by Stop. Daemons are processes of their own and
// outlive the lab unless they are stopped; their exit is noticed through the process table, as another process's children's would be.
//
// With Spec.WorkloadRoutes a workload is a Pod in the datastore and an interface with Calico's name for it, without a route and without settings: both
// are the daemon's (CARACAL_WORKLOAD_ROUTES), as where no Felix runs.
//
// Known deviations: else routes to workload interfaces are written once, by ip(8), where Felix would repair them; without encapsulation the
// router joins the BGP mesh as a member named "router", where a real top-of-rack router would be an explicit peer.
package lab
