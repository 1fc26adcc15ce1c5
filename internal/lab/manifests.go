package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// manifests returns the datastore directory's first content by file name, written as the examples in Calico's documentation are.
// Blocks, affinities and handles are made by internal/ipam.
func (p *Plan) manifests() map[string]string {
	files := map[string]string{}
	for _, n := range p.Members() {
		files["node-"+n.Name+".yaml"] = p.nodeManifest(n)
	}
	if p.Spec.Bare {
		return files
	}
	files["calico-config.yaml"] = backendManifest(p.Spec.Backend)
	for _, q := range p.Pools {
		files["ippool-"+q.Name+".yaml"] = poolManifest(q)
	}
	return files
}

func backendManifest(b cluster.Backend) string {
	return fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata:
  name: calico-config
  namespace: kube-system
data:
  calico_backend: %s
`, b)
}

func poolManifest(q Pool) string {
	ipip, vxlan := cluster.Never, cluster.Never
	switch q.Encapsulation {
	case cluster.IPIP:
		ipip = q.Mode
	case cluster.VXLAN:
		vxlan = q.Mode
	case cluster.NoEncapsulation:
	}
	return fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: %s
spec:
  cidr: %s
  ipipMode: %s
  vxlanMode: %s
  natOutgoing: false
`, q.Name, q.CIDR, ipip, vxlan)
}

// nodeManifest writes both underlay addresses where the cluster has workloads of both families; the underlay itself
// always has both.
func (p *Plan) nodeManifest(n Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: %s\n  labels:\n    rack: %s\n", n.Name, p.Subnets[n.Subnet].Name)
	if p.Spec.Bare {
		return b.String()
	}
	b.WriteString("spec:\n  bgp:\n")
	if p.Spec.Family.Has(cluster.IPv4) {
		fmt.Fprintf(&b, "    ipv4Address: %s\n", n.Addr4)
	}
	if p.Spec.Family.Has(cluster.IPv6) {
		fmt.Fprintf(&b, "    ipv6Address: %s\n", n.Addr6)
	}
	return b.String()
}

// writeManifests writes the files into a directory, each whole or not at all.
func writeManifests(dir string, files map[string]string) error {
	for name, text := range files {
		if err := writeFile(filepath.Join(dir, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file by rename. The new file's name begins with a dot until it is whole, so no watcher reads it.
func writeFile(path string, data []byte) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
