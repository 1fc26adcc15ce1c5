package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// podNamespace is the Kubernetes namespace of workloads.
const podNamespace = "default"

// podManifest is a workload as the kubelet tells of it once the CNI plugin has made its interface.
func podManifest(n *Node, w *Workload) string {
	var ips []string
	for _, a := range w.Addrs {
		ips = append(ips, fmt.Sprintf("{ip: %q}", a))
	}
	first := ""
	if len(w.Addrs) > 0 {
		first = w.Addrs[0].String()
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec: {nodeName: %s, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: %q, podIPs: [%s]}
`, w.Name, podNamespace, n.Name, first, strings.Join(ips, ", "))
}

func (c *Cluster) podPath(w *Workload) string {
	return filepath.Join(c.DatastoreDir(), "pod-"+w.Name+".yaml")
}

// tellPod tells the datastore of a workload, where daemons look for it.
func (c *Cluster) tellPod(ctx context.Context, n *Node, w *Workload) error {
	if !c.Plan.Spec.WorkloadRoutes {
		return nil
	}
	manifest := podManifest(n, w)
	if k := c.opts.Kubernetes; k != nil {
		return k.AddPod(ctx, manifest)
	}
	return writeFile(c.podPath(w), []byte(manifest))
}

// forgetPod removes a workload's Pod.
func (c *Cluster) forgetPod(ctx context.Context, w *Workload) error {
	if !c.Plan.Spec.WorkloadRoutes {
		return nil
	}
	if k := c.opts.Kubernetes; k != nil {
		return k.RemovePod(ctx, podNamespace, w.Name)
	}
	if err := os.Remove(c.podPath(w)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove Pod %s: %w", w.Name, err)
	}
	return nil
}
