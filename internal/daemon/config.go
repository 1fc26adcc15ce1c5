package daemon

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/startup"
	"github.com/caracal-net/caracal/routes"
)

// Config is what caracald is started with: flags, whose defaults are the environment variables calico-node has.
type Config struct {
	Node      string          // our name in the cluster
	Datastore string          // "file:DIR" or "kubernetes"
	Socket    string          // unix socket of the gRPC services
	Snapshot  string          // file that keeps the cluster's state for a start without the datastore; empty = none
	ProcSys   string          // where sysctls are written; empty = /proc/sys
	Felix     bool            // a Felix runs on this host and keeps what it programs
	Workloads bool            // routes to this node's own workloads, and their interfaces' settings, are ours; not beside a Felix
	Adopt     routes.Adoption // whose leftovers are taken over
	// InlineNextHops: every route has next hops of its own, also where the kernel has nexthop objects.
	InlineNextHops bool
	Backend        cluster.Backend // used until the datastore names one
	// ProxyHealth is where the node's service proxy tells of its health, host and port, or ProxyHealthOff; empty = proxyhealth.DefaultAddress.
	ProxyHealth string
	// Rails are the safety rails; the zero value stands for DefaultRails.
	Rails Rails
	// Settings are what the environment says of a node's start. Nil stands for an environment that says nothing.
	Settings *startup.Settings
}

// DefaultSocket is where the gRPC services listen.
const DefaultSocket = "/run/caracal/caracal.sock"

// The environment, named and meant as in calico-node (reference: node/pkg/lifecycle/startup).
const (
	EnvBackend        = "CALICO_NETWORKING_BACKEND"
	EnvDatastoreType  = "DATASTORE_TYPE" // kubernetes, as in calico-node; without a word in EnvDatastore
	EnvDatastore      = "CARACAL_DATASTORE"
	EnvSocket         = "CARACAL_SOCKET"
	EnvSnapshot       = "CARACAL_SNAPSHOT"
	EnvBesideFelix    = "CARACAL_BESIDE_FELIX"
	EnvWorkloads      = "CARACAL_WORKLOAD_ROUTES"
	EnvNexthopObjects = "CARACAL_NEXTHOP_OBJECTS"
	EnvProxyHealth    = "CARACAL_PROXY_HEALTH"
	EnvProcSys        = "CARACAL_PROC_SYS" // ours: the DaemonSet mounts the host's /proc/sys/net below it
)

// DefaultSnapshot is where the state of a cluster in the Kubernetes API is kept, in a directory that calico-node's DaemonSet has of the host too.
const DefaultSnapshot = "/var/lib/calico/caracal-snapshot"

// Kubernetes is the Datastore that is the Kubernetes API.
const Kubernetes = "kubernetes"

// ProxyHealthOff as Config.ProxyHealth has addresses of Services announced without asking the service proxy.
const ProxyHealthOff = "off"

// ParseNexthopObjects reads a value of --nexthop-objects, and reports whether routes are to do without. Empty means auto.
func ParseNexthopObjects(s string) (off bool, err error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "auto":
		return false, nil
	case "off":
		return true, nil
	}
	return false, fmt.Errorf("nexthop objects %q: want auto or off (%s, --nexthop-objects)", s, EnvNexthopObjects)
}

// DefaultDatastore is what the environment says of the datastore.
func DefaultDatastore(env func(string) string) string {
	if d := env(EnvDatastore); d != "" || env(EnvDatastoreType) != Kubernetes {
		return d
	}
	return Kubernetes
}

// ParseBackend reads a value of calico_backend. Empty means bird, as in calico-node; gobgp is another word for it.
func ParseBackend(s string) (cluster.Backend, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "bird", "gobgp":
		return cluster.BackendBird, nil
	case "vxlan":
		return cluster.BackendVXLAN, nil
	case "none":
		return cluster.BackendNone, nil
	}
	return "", fmt.Errorf("backend %q: want bird, vxlan or none (%s, --backend)", s, EnvBackend)
}

// Directory returns the directory of a "file:DIR" datastore.
func (c Config) Directory() (string, error) {
	dir, ok := strings.CutPrefix(c.Datastore, "file:")
	if !ok || dir == "" {
		return "", fmt.Errorf("datastore %q: want kubernetes, or file:DIR for a directory of Calico YAML manifests (%s, --datastore)", c.Datastore, EnvDatastore)
	}
	return filepath.Abs(dir)
}
