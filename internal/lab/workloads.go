package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/file"
	"github.com/caracal-net/caracal/internal/ipam"
	"github.com/caracal-net/caracal/internal/netns"
)

// Store opens the cluster's datastore, as a daemon does.
func (c *Cluster) Store() (datastore.Store, error) {
	if k := c.opts.Kubernetes; k != nil {
		return k.Admin, nil
	}
	return file.Open(c.DatastoreDir(), file.Options{Log: slog.New(slog.DiscardHandler)})
}

// ipamOf returns the address assignment of a node.
func (c *Cluster) ipamOf(node string) (*ipam.Client, error) {
	s, err := c.Store()
	if err != nil {
		return nil, err
	}
	return &ipam.Client{Store: s, Node: node, Log: slog.New(slog.DiscardHandler)}, nil
}

// plug gives a workload its addresses and connects it, as the CNI plugin does for a new pod.
func (c *Cluster) plug(ctx context.Context, n *Node, w *Workload) error {
	client, err := c.ipamOf(n.Name)
	if err != nil {
		return err
	}
	for _, pool := range w.Pools {
		got, err := client.AutoAssign(ctx, ipam.Request{
			Family: cluster.FamilyOf(pool.Addr()), Num: 1, Handle: w.Handle(), Pools: []netip.Prefix{pool}, Use: ipam.Workload,
			Attrs: map[string]string{"node": n.Name, "pod": w.Name, "namespace": "default"},
		})
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("pool %s gave %d addresses, want 1", pool, len(got))
		}
		if err != nil {
			return fmt.Errorf("address of %s: %w", w.Name, err)
		}
		w.Addrs = append(w.Addrs, got[0].Addr())
	}
	if err := c.Plan.wire(n, w); err != nil {
		return err
	}
	return c.tellPod(ctx, n, w)
}

// AddWorkload gives a node one more workload, from the pools of its first one, and returns it.
func (c *Cluster) AddWorkload(ctx context.Context, node string) (*Workload, error) {
	n := c.Plan.Node(node)
	if n == nil || len(n.Workloads) == 0 {
		return nil, fmt.Errorf("no node %s with workloads in cluster %s", node, c.Plan.Spec.Name)
	}
	w := c.Plan.workload(node, len(n.Workloads))
	w.Pools = n.Workloads[0].Pools
	ns, err := netns.Create(w.NS)
	if err != nil {
		return nil, err
	}
	if err := setSysctls(ns, forwarding()); err != nil {
		return nil, err
	}
	if err := c.plug(ctx, n, &w); err != nil {
		return nil, err
	}
	n.Workloads = append(n.Workloads, w)
	return &n.Workloads[len(n.Workloads)-1], c.save()
}

// RemoveWorkload takes away the last workload of a node and releases its addresses.
func (c *Cluster) RemoveWorkload(ctx context.Context, node string) error {
	n := c.Plan.Node(node)
	if n == nil || len(n.Workloads) == 0 {
		return fmt.Errorf("no node %s with workloads in cluster %s", node, c.Plan.Spec.Name)
	}
	w := n.Workloads[len(n.Workloads)-1]
	client, err := c.ipamOf(node)
	if err != nil {
		return err
	}
	// The kernel takes the interface's routes with it.
	if err := batch(netns.NS{Name: n.NS}, "link delete "+w.Iface+"\n"); err != nil {
		return err
	}
	if err := (netns.NS{Name: w.NS}).Delete(); err != nil {
		return err
	}
	if err := c.forgetPod(ctx, &w); err != nil {
		return err
	}
	if err := client.ReleaseByHandle(ctx, w.Handle()); err != nil {
		return fmt.Errorf("release addresses of %s: %w", w.Name, err)
	}
	n.Workloads = n.Workloads[:len(n.Workloads)-1]
	return c.save()
}

// Endpoints returns the addresses of every workload, of those nodes that keep holds for; nil keeps all.
func (c *Cluster) Endpoints(keep func(node string) bool) []*Endpoint {
	var out []*Endpoint
	for _, n := range c.Plan.Nodes {
		if keep != nil && !keep(n.Name) {
			continue
		}
		for _, w := range n.Workloads {
			for _, a := range w.Addrs {
				out = append(out, &Endpoint{Name: w.Name, Node: n.Name, NS: netns.NS{Name: w.NS}, Addr: a})
			}
		}
	}
	return out
}

// adoptPools waits until the daemons' start has made pools, and has workloads take their addresses there.
func (c *Cluster) adoptPools(ctx context.Context) error {
	store, err := c.Store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, converged)
	defer cancel()
	p := c.Plan
	err = poll(ctx, 20*time.Millisecond, func() error {
		p.Pools = nil
		list, err := store.List(ctx, calico.KindIPPool)
		if err != nil {
			return err
		}
		for _, obj := range list {
			pool, problems := obj.(*calico.IPPool).Pool()
			if pool == nil {
				return fmt.Errorf("pool %s: %v", obj.Meta().Name, problems)
			}
			enc, mode := pool.Encapsulation()
			if p.Spec.Family.Has(cluster.FamilyOf(pool.CIDR.Addr())) {
				p.Pools = append(p.Pools, Pool{pool.Name, pool.CIDR, enc, mode})
			}
		}
		if len(p.Pools) == 0 {
			return errors.New("no daemon has made a pool")
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, c.why(context.WithoutCancel(ctx)))
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		for j := range n.Workloads {
			n.Workloads[j] = p.workload(n.Name, j)
		}
	}
	return c.save()
}
