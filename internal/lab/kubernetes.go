package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/netns"
)

// Kubernetes makes an API server the cluster's datastore in place of a directory. The server listens on the host's loopback; while
// this process lives it forwards the same address from each node's loopback to it, as kube-proxy would.
type Kubernetes struct {
	Kubeconfig string          // file that daemons are given
	Address    string          // where the server listens: "127.0.0.1:6443"
	Admin      datastore.Store // with every right
	// Stop and Start take the API server away and bring it back.
	Stop, Start func() error
	// AddPod makes a Pod of a manifest, with its status; RemovePod deletes one at once.
	AddPod    func(ctx context.Context, manifest string) error
	RemovePod func(ctx context.Context, namespace, name string) error
	// PatchNode merges into a Node (RFC 7396), as kubectl cordon and kubectl label do.
	PatchNode func(ctx context.Context, name string, patch map[string]any) error
}

// fill writes the cluster's manifests as objects of the API.
func (k *Kubernetes) fill(ctx context.Context, manifests map[string]string) error {
	names := make([]string, 0, len(manifests))
	for name := range manifests {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(manifests[name]), &doc); err != nil {
			return fmt.Errorf("manifest %s: %w", name, err)
		}
		found, problems := calico.Resources(&doc)
		if len(problems) > 0 || len(found) != 1 {
			return fmt.Errorf("manifest %s: %d resources, %v", name, len(found), problems)
		}
		if _, err := k.Admin.Create(ctx, found[0].Object); err != nil {
			return fmt.Errorf("manifest %s: %w", name, err)
		}
	}
	return nil
}

// forwarders carry the API server's address into namespaces.
type forwarders struct {
	mu        sync.Mutex
	listeners map[string]net.Listener // by namespace
	lines     map[net.Conn]string     // what is carried, with its namespace
	severed   map[string]bool         // namespaces from which nothing is carried
	done      sync.WaitGroup
}

// forward listens on an address in a namespace and carries every connection to the same address here.
func (f *forwarders) forward(ns netns.NS, address string) error {
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
		return fmt.Errorf("forward %s into %s: %w", address, ns.Name, err)
	}
	f.mu.Lock()
	if f.listeners == nil {
		f.listeners, f.lines, f.severed = map[string]net.Listener{}, map[net.Conn]string{}, map[string]bool{}
	}
	f.listeners[ns.Name] = l
	f.mu.Unlock()
	f.done.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			f.done.Go(func() {
				if f.enter(near, ns.Name) {
					carry(near, address)
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.lines, near)
			})
		}
	})
	return nil
}

// enter notes a connection, or closes it where nothing is carried.
func (f *forwarders) enter(near net.Conn, ns string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.severed[ns] {
		_ = near.Close()
		return false
	}
	f.lines[near] = ns
	return true
}

// cut takes the API server away from some namespaces alone, until restore is called.
func (f *forwarders) cut(namespaces ...string) (restore func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ns := range namespaces {
		f.severed[ns] = true
	}
	for near, ns := range f.lines {
		if f.severed[ns] {
			_ = near.Close()
		}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		clear(f.severed)
	}
}

// carry copies both ways until either end is done; a server that is away is a connection that closes.
func carry(near net.Conn, address string) {
	defer func() { _ = near.Close() }()
	far, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done
}

// close ends the listeners; connections end with their daemons, which are gone by then.
func (f *forwarders) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	for _, l := range f.listeners {
		err = errors.Join(err, l.Close())
	}
	f.listeners = nil
	return err
}

// datastoreArgs are what a daemon is told of the datastore, by flag and by environment.
func (c *Cluster) datastoreArgs(node string) (flag string, env []string) {
	k := c.opts.Kubernetes
	if k == nil {
		return "file:" + c.DatastoreDir(), nil
	}
	dir := c.NodeDir(node) // all nodes share this machine's files
	return "kubernetes", []string{"KUBECONFIG=" + k.Kubeconfig, "NO_DEFAULT_POOLS=true", "CALICO_K8S_NODE_REF=" + node,
		"CALICO_NODENAME_FILE=" + filepath.Join(dir, "nodename"), "CARACAL_MTU_FILE=" + filepath.Join(dir, "mtu"), "CARACAL_SNAPSHOT=" + filepath.Join(dir, "snapshot")}
}

// environ is this process's environment without what would tell a daemon of another cluster.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains([]string{"KUBECONFIG", "NODENAME", "IP", "IP6", "AS"}, name) || strings.HasPrefix(name, "CALICO_") || strings.HasPrefix(name, "FELIX_")
	})
}
