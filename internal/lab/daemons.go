package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caracal-net/caracal/internal/netns"
)

// NodeDir is where a node's daemon keeps its socket, log and pid file.
func (c *Cluster) NodeDir(node string) string { return filepath.Join(c.Dir(), "nodes", node) }

// Socket is the path of the gRPC socket of a node's daemon.
func (c *Cluster) Socket(node string) string { return filepath.Join(c.NodeDir(node), "caracal.sock") }

// LogPath is the path of the log of a node's daemon.
func (c *Cluster) LogPath(node string) string {
	return filepath.Join(c.NodeDir(node), "caracald.log")
}

func (c *Cluster) pidPath(node string) string {
	return filepath.Join(c.NodeDir(node), "caracald.pid")
}

// NS returns the namespace of a node.
func (c *Cluster) NS(node string) (netns.NS, error) {
	n := c.Plan.Node(node)
	if n == nil {
		return netns.NS{}, fmt.Errorf("no node %s in cluster %s", node, c.Plan.Spec.Name)
	}
	return netns.NS{Name: n.NS}, nil
}

// Start starts the daemon of a node. The daemon outlives this process.
func (c *Cluster) Start(node string) error {
	ns, err := c.NS(node)
	if err != nil {
		return err
	}
	if c.daemon(node).alive() {
		return fmt.Errorf("the daemon of %s runs already", node)
	}
	if err := os.MkdirAll(c.NodeDir(node), 0o755); err != nil {
		return fmt.Errorf("start daemon of %s: %w", node, err)
	}
	log, err := os.OpenFile(c.LogPath(node), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start daemon of %s: %w", node, err)
	}
	defer func() { _ = log.Close() }()
	cmd, err := c.command(node)
	if err != nil {
		return fmt.Errorf("start daemon of %s: %w", node, err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // a terminal's Ctrl-C is not for it
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("start daemon of %s: %w", node, err)
	}
	p, _ := processOf(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // no zombie; its exit is seen in the process table
	return p.write(c.pidPath(node))
}

// command is what a node's daemon is started with.
func (c *Cluster) command(node string) (*exec.Cmd, error) {
	if c.opts.Command != nil {
		return c.opts.Command(c, node)
	}
	store, env := c.datastoreArgs(node)
	cmd := exec.Command(c.opts.Daemon, "run", "--node", node, "--datastore", store, "--socket", c.Socket(node),
		"--backend", string(c.Plan.Spec.Backend), "--log-level", c.opts.LogLevel)
	if c.Plan.Spec.WorkloadRoutes {
		cmd.Args = append(cmd.Args, "--workload-routes")
	}
	cmd.Args = append(cmd.Args, c.opts.Args...)
	cmd.Env = append(environ(), env...)
	return cmd, nil
}

func (c *Cluster) daemon(node string) process { return readProcess(c.pidPath(node)) }

// PID returns the process number of a node's daemon, 0 when it does not run.
func (c *Cluster) PID(node string) int {
	if p := c.daemon(node); p.alive() {
		return p.PID
	}
	return 0
}

// Stop sends the daemon of a node a signal, SIGTERM or SIGKILL, and waits until it is gone.
func (c *Cluster) Stop(ctx context.Context, node string, s syscall.Signal) error {
	p := c.daemon(node)
	if err := p.signal(s); err != nil {
		return fmt.Errorf("stop daemon of %s: %w", node, err)
	}
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("stop daemon of %s: %w", node, err)
	}
	return nil
}

// Cleanup runs `caracald cleanup` on a node, whose daemon must not run.
func (c *Cluster) Cleanup(node string) error {
	ns, err := c.NS(node)
	if err != nil {
		return err
	}
	_, err = ns.Run(c.opts.Daemon, "cleanup")
	return err
}

// Complaints returns the last lines of level WARN or ERROR, at most n, of a daemon's log, for people to read when something failed.
func (c *Cluster) Complaints(node string, n int) []string {
	data, err := os.ReadFile(c.LogPath(node))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, "level=INFO") && !strings.Contains(line, "level=DEBUG") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out[max(0, len(out)-n):]
}
