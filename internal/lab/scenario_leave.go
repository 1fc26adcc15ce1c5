package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/kernel"
)

// nodeLeaves takes the last node out of the cluster as kube-controllers would (its Node, blocks and claims are deleted), and
// brings it back.
func nodeLeaves(ctx context.Context, r *run) error {
	node := r.Plan.Nodes[len(r.Plan.Nodes)-1].Name
	store, err := r.Store()
	if err != nil {
		return err
	}
	gone, blocks, err := belongings(ctx, store, node)
	if err != nil {
		return err
	}
	if len(blocks) == 0 {
		return fmt.Errorf("%s owns no block: nothing to be seen leaving", node)
	}
	_, err = r.probed(ctx, "of the nodes that stay, while it leaves", r.Endpoints(others(node)), lossless, func() error {
		if err := r.Stop(ctx, node, syscall.SIGTERM); err != nil {
			return err
		}
		began := time.Now()
		for _, obj := range gone {
			if err := remove(ctx, store, obj); err != nil {
				return err
			}
		}
		for _, n := range r.Plan.Nodes {
			if n.Name == node {
				continue
			}
			if err := r.waitWithout(ctx, n.Name, blocks); err != nil {
				return errors.Join(err, r.why(ctx))
			}
		}
		r.note("no other node has a route to it after", "%s", ms(time.Since(began)))
		return nil
	})
	if err != nil {
		return err
	}
	_, err = r.probed(ctx, "of the nodes that stay, while it comes back", r.Endpoints(others(node)), lossless, func() error {
		began := time.Now()
		for _, obj := range gone {
			obj.Meta().UID, obj.Meta().ResourceVersion = "", ""
			if _, err := store.Create(ctx, obj); err != nil {
				return err
			}
		}
		if err := r.Start(node); err != nil {
			return err
		}
		if _, err := WaitReachable(ctx, r.Endpoints(nil)); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		r.note("it answers everybody again after", "%s", ms(time.Since(began)))
		return nil
	})
	return err
}

// belongings returns the objects that go with a node, the Node first, and the blocks it owns.
func belongings(ctx context.Context, s datastore.Store, node string) (all []calico.Object, blocks []netip.Prefix, err error) {
	self, err := s.Get(ctx, calico.KindNode, node)
	if err != nil {
		return nil, nil, err
	}
	all = append(all, self)
	for _, kind := range []calico.Kind{calico.KindBlockAffinity, calico.KindIPAMBlock} {
		list, err := s.List(ctx, kind)
		if err != nil {
			return nil, nil, err
		}
		for _, obj := range list {
			switch o := obj.(type) {
			case *calico.BlockAffinity:
				if o.Spec.Node == node {
					all = append(all, o)
				}
			case *calico.IPAMBlock:
				if o.Spec.Affinity == nil || *o.Spec.Affinity != "host:"+node {
					continue
				}
				p, err := netip.ParsePrefix(o.Spec.CIDR)
				if err != nil {
					return nil, nil, fmt.Errorf("IPAMBlock %s: %w", o.Name, err)
				}
				all, blocks = append(all, o), append(blocks, p)
			}
		}
	}
	return all, blocks, nil
}

// remove deletes the newest version of an object.
func remove(ctx context.Context, s datastore.Store, obj calico.Object) error {
	now, err := s.Get(ctx, obj.Kind(), obj.Meta().Name)
	if err != nil {
		return err
	}
	return s.Delete(ctx, now)
}

// waitWithout waits until a node's kernel has no route of ours to any of the blocks.
func (r *run) waitWithout(ctx context.Context, node string, blocks []netip.Prefix) error {
	return r.withKernel(node, func(k kernel.Kernel) error {
		return poll(ctx, 5*time.Millisecond, func() error {
			left, err := ours(ctx, k, func(rt *kernel.Route) bool {
				for _, b := range blocks {
					if b.Overlaps(rt.Dst) {
						return true
					}
				}
				return false
			})
			if err != nil {
				return err
			}
			if len(left) > 0 {
				return fmt.Errorf("%s still has a route to %s", node, left[0].Dst)
			}
			return nil
		})
	})
}
