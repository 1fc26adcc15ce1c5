// Package proxyhealth finds out whether this node's service proxy handles packets to service addresses yet, so that no router is told of
// an address that would lead to a hole: after a reboot, or when the first endpoint of a Service has become ready here.
//
// # What flows in and out
//
// In comes each State of the cluster; out goes a bgp.DataPlane whenever what is verified differs. What is asked are two things that
// kube-proxy serves, and with it the proxies that stand in for it (Cilium, Calico's eBPF data plane), over HTTP on this host:
//
//   - the proxy's own health (healthzBindAddress, port 10256): 200 once its rules have been written;
//   - for each Service with externalTrafficPolicy Local and a healthCheckNodePort that has an endpoint ready here, that port: 200 once the rules
//     of this Service are written and it has endpoints here. That is the most exact answer there is.
//
// Both go through no network: a dial to an address of the host. Nothing tells when an answer changes, so it is asked for: every quarter of a second,
// more slowly as time goes by, while something is not verified, and every ten seconds else. Only cluster that announce addresses
// are asked about at all.
//
// # What the answers mean
//
// Verified is what was answered with 200. From then on only the Service's own word takes an address back, that it has no endpoints here:
// rules stay in the kernel while a proxy restarts, and one that is late (503) still forwards as before. Nobody at the proxy's port may mean that
// the proxy is not there yet, or that this cluster's has no such port, and so with the port of a Service: then addresses are held for Options.Patience, and
// announced unverified after that, which is reported. Where a former process of ours has left routes, the node has been forwarding: what would only say that
// the proxy is away or late holds nothing back, since a restart must not make peers drop addresses.
//
// What cannot be verified this way: rules of a single Service with policy Cluster, other than that the proxy writes all rules together; a
// NodePort Service, which has no port of its own to ask; the way from the node to the endpoint, which the kubelet's probes take before an
// endpoint is ready.
//
// # Goroutines
//
// Run is one goroutine, which owns everything but the latest State; each round starts one for each question and waits for them.
package proxyhealth
