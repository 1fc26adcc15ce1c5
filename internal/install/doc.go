// Package install reads the manifest with which Calico's operator is told what to install, an Installation of
// operator.tigera.io/v1, and says what to apply so that Caracal routes the same cluster.
//
//	installation.yaml ─> Read ─> Installation ─> Render ─> IPPools, ConfigMap calico-config, environment of the DaemonSet
//
// Everything is pure: text goes in, text comes out. Nothing is applied. Package startup reads the environment that comes out.
//
// Only what bears on routing is read: the network section, and of the rest the provider and the CNI plugin, because the
// operator's defaults hang on them. Other fields are tolerated. A value that cannot be right is an error that names its
// field, all of them at once.
//
// Defaults are the operator's (api/v1/installation_types.go). Deviations:
//   - An encapsulation that needs BGP while bgp is Disabled is an error under every clusterRoutingMode: Felix is not asked
//     to route here.
//   - clusterRoutingMode is checked and then left aside: Caracal programs every route.
package install
