package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/caracal-net/caracal/internal/netns"
)

// namespaceOf returns the namespace of a node, of a workload ("node1-w1") or of the router.
func (c *Cluster) namespaceOf(where string) (ns netns.NS, node string, err error) {
	if n := c.Plan.Node(where); n != nil {
		return netns.NS{Name: n.NS}, n.Name, nil
	}
	known := []string{c.Plan.Router.Name}
	for _, n := range c.Plan.Nodes {
		known = append(known, n.Name)
		for _, w := range n.Workloads {
			if w.Name == where {
				return netns.NS{Name: w.NS}, "", nil
			}
			known = append(known, w.Name)
		}
	}
	return netns.NS{}, "", fmt.Errorf("no %q in cluster %s: take one of %s", where, c.Plan.Spec.Name, strings.Join(known, ", "))
}

// Exec runs a command in a namespace of the cluster on this process's terminal and returns its exit code. On a node it
// finds the node's daemon: `caracal routes` needs no flags.
func (c *Cluster) Exec(where string, args []string) (int, error) {
	ns, node, err := c.namespaceOf(where)
	if err != nil {
		return 1, err
	}
	bin := filepath.Dir(c.opts.Daemon)
	if err := os.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		return 1, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	store, env := c.datastoreArgs(node)
	cmd.Env = append(append(os.Environ(), "CARACAL_DATASTORE="+store), env...)
	if node != "" {
		cmd.Env = append(cmd.Env, "CARACAL_SOCKET="+c.Socket(node), "NODENAME="+node)
	}
	if err := ns.Start(cmd); err != nil {
		return 127, fmt.Errorf("%s in %s: %w", args[0], where, err)
	}
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return 1, fmt.Errorf("%s in %s: %w", args[0], where, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}
