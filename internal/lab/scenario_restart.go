package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/ipam"
)

// convergence starts every daemon on nodes that hold nothing of a former run.
func convergence(ctx context.Context, r *run) error {
	err := r.eachMember(func(node string) error {
		if err := r.Stop(ctx, node, syscall.SIGKILL); err != nil {
			return err
		}
		return r.Cleanup(node)
	})
	if err != nil {
		return err
	}
	if err := r.eachMember(r.nothingLeft(ctx)); err != nil {
		return fmt.Errorf("after caracald cleanup: %w", err)
	}
	_, err = r.probed(ctx, "from the start of the daemons", r.Endpoints(nil), anyLoss, func() error {
		began := time.Now()
		if err := r.eachMember(r.Start); err != nil {
			return err
		}
		reach, err := WaitReachable(ctx, r.Endpoints(nil))
		if err != nil {
			return errors.Join(err, r.why(ctx))
		}
		r.note("every workload answers every other after", "%s", ms(reach))
		if _, err := r.WaitSettled(ctx); err != nil {
			return err
		}
		r.note("every daemon reports ready after", "%s", ms(time.Since(began)))
		return nil
	})
	return err
}

func killed(ctx context.Context, r *run) error { return restart(ctx, r, syscall.SIGKILL) }

func terminated(ctx context.Context, r *run) error { return restart(ctx, r, syscall.SIGTERM) }

// restart ends one daemon with a signal, leaves the node without one for a while, and starts it again.
func restart(ctx context.Context, r *run, s syscall.Signal) error {
	node := r.victim()
	before := r.PID(node)
	if before == 0 {
		return fmt.Errorf("no daemon runs on %s", node)
	}
	_, err := r.probed(ctx, "of all pairs", r.Endpoints(nil), lossless, func() error {
		return r.guarded(ctx, func() error { return r.replaceDaemon(ctx, node, s) })
	})
	if err == nil && r.PID(node) == before {
		return fmt.Errorf("process %d of %s is still the same", before, node)
	}
	return err
}

func (r *run) replaceDaemon(ctx context.Context, node string, s syscall.Signal) error {
	began := time.Now()
	if err := r.Stop(ctx, node, s); err != nil {
		return err
	}
	r.note("the daemon was gone after", "%s", ms(time.Since(began)))
	if err := r.dwell(ctx); err != nil {
		return err
	}
	began = time.Now()
	if err := r.Start(node); err != nil {
		return err
	}
	if _, err := r.WaitSettled(ctx); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	r.note("all daemons were settled again after", "%s", ms(time.Since(began)))
	return nil
}

// dwell lets the cluster be as it is for fifty probes: peers notice a dead session within it.
func (r *run) dwell(ctx context.Context) error {
	eps := r.Endpoints(nil)
	if len(eps) < 2 {
		return nil
	}
	p, err := StartProbe([]Pair{{eps[0], eps[1]}}, ProbeOptions{})
	if err != nil {
		return err
	}
	defer p.abandon()
	return p.more(ctx, 50)
}

// newBlock uses up a node's block, so that the next workload's address comes from a new one.
func newBlock(ctx context.Context, r *run) error {
	node := r.victim()
	client, err := r.ipamOf(node)
	if err != nil {
		return err
	}
	const filler = "caracal-lab.filler"
	old := r.Plan.Node(node).Workloads[0]
	_, err = r.probed(ctx, "of the old workloads", r.Endpoints(nil), lossless, func() error {
		began := time.Now()
		for _, pool := range old.Pools {
			_, err := client.AutoAssign(ctx, ipam.Request{Family: cluster.FamilyOf(pool.Addr()), Num: blockAddresses, Handle: filler,
				Pools: []netip.Prefix{pool}, Use: ipam.Workload, Attrs: map[string]string{"node": node}})
			if err != nil {
				return fmt.Errorf("use up a block of %s: %w", pool, err)
			}
		}
		w, err := r.AddWorkload(ctx, node)
		if err != nil {
			return err
		}
		for i, a := range w.Addrs {
			if sameBlock(a, old.Addrs[i]) {
				return fmt.Errorf("new workload %s has %s, still in the block of %s", w.Name, a, old.Addrs[i])
			}
		}
		if _, err := WaitReachable(ctx, r.Endpoints(nil)); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		r.note("claimed, and its workload answers everybody after", "%s", ms(time.Since(began)))
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(r.RemoveWorkload(ctx, node), client.ReleaseByHandle(ctx, filler))
}

// blockAddresses is the size of a block: Calico's default lengths, 26 and 122, leave six bits.
const blockAddresses = 64

func sameBlock(a, b netip.Addr) bool {
	p, err := a.Prefix(a.BitLen() - 6)
	return err == nil && p.Contains(b)
}
