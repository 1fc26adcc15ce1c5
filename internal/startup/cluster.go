package startup

import (
	"context"
	"net/netip"
)

// Cluster is what only Kubernetes' API can answer or be told about a node. All methods may be called from any goroutine.
type Cluster interface {
	// InternalAddrs returns the addresses of type InternalIP of a Kubernetes Node (status.addresses), in their order.
	InternalAddrs(ctx context.Context, node string) ([]netip.Addr, error)
	// ConfigMap returns the data of a ConfigMap, or an error that wraps datastore.ErrNotFound or datastore.ErrForbidden.
	ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error)
	// EnsureClusterInformation makes the ClusterInformation default with a random clusterGUID and datastoreReady true,
	// without which Calico's CNI plugin refuses to work, or adds what is missing of it. clusterType is a list of words with
	// commas; words that are there stay.
	EnsureClusterInformation(ctx context.Context, clusterType string) error
	// SetNetworkUnavailable makes the condition NetworkUnavailable of a Kubernetes Node what is given, by a patch of its
	// status. It reads first and writes only if the status or the reason differs.
	SetNetworkUnavailable(ctx context.Context, node string, unavailable bool, reason, message string) error
}
