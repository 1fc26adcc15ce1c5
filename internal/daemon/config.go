package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Config is what caracald is started with: flags, whose defaults are the environment variables calico-node has.
type Config struct {
	Node      string          // our name in the cluster
	Datastore string          // "file:DIR"
	Socket    string          // unix socket of the gRPC services
	ProcSys   string          // where sysctls are written; empty = /proc/sys
	Backend   cluster.Backend // used until the datastore names one
}

// DefaultSocket is where the gRPC services listen.
const DefaultSocket = "/run/caracal/caracal.sock"

// The environment, named and meant as in calico-node (reference: node/pkg/lifecycle/startup).
const (
	EnvNodeName     = "NODENAME"
	EnvNodeNameFile = "CALICO_NODENAME_FILE"
	EnvBackend      = "CALICO_NETWORKING_BACKEND"
	EnvDatastore    = "CARACAL_DATASTORE"
	EnvSocket       = "CARACAL_SOCKET"
	EnvProcSys      = "CARACAL_PROC_SYS" // ours: the DaemonSet mounts the host's /proc/sys/net below it

	defaultNodeNameFile = "/var/lib/calico/nodename"
)

// NodeName returns this machine's name as calico-node finds it: NODENAME, else the file that start-up wrote, else
// the lower-cased host name.
func NodeName(env func(string) string) (string, error) {
	if n := env(EnvNodeName); n != "" {
		return n, nil
	}
	file := env(EnvNodeNameFile)
	if file == "" {
		file = defaultNodeNameFile
	}
	if b, err := os.ReadFile(file); err == nil {
		if n := strings.TrimSpace(string(b)); n != "" {
			return n, nil
		}
	}
	n, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("node name: %w; set %s or --node", err, EnvNodeName)
	}
	return strings.ToLower(strings.TrimSpace(n)), nil
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
		return "", fmt.Errorf("datastore %q: want file:DIR, a directory of Calico YAML manifests (%s, --datastore)", c.Datastore, EnvDatastore)
	}
	return filepath.Abs(dir)
}
