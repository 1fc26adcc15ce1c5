package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/kernel"
)

// change reads an object, edits it and writes it back, again when somebody else was faster.
func change[T calico.Object](ctx context.Context, s datastore.Store, kind calico.Kind, name string, edit func(T)) error {
	for {
		obj, err := s.Get(ctx, kind, name)
		if err != nil {
			return err
		}
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("%s %s is a %T", kind, name, obj)
		}
		edit(o)
		if _, err = s.Update(ctx, o); err == nil {
			return nil
		}
		if !errors.Is(err, datastore.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// poolMode changes every pool with encapsulation to the other mode and back. Replacing a route is one step in the kernel, and
// a node takes packets by both ways at any time, so nothing may be lost.
func poolMode(ctx context.Context, r *run) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	for i := range r.Plan.Pools {
		pool := &r.Plan.Pools[i]
		first := pool.Mode
		for _, to := range []cluster.Mode{other(first), first} {
			what := fmt.Sprintf("of all pairs, %s to %s", pool.Name, to)
			_, err := r.probed(ctx, what, r.Endpoints(nil), lossless, func() error {
				began := time.Now()
				err := change(ctx, store, calico.KindIPPool, pool.Name, func(p *calico.IPPool) {
					if pool.Encapsulation == cluster.VXLAN {
						p.Spec.VXLANMode = to.String()
					} else {
						p.Spec.IPIPMode = to.String()
					}
				})
				if err != nil {
					return err
				}
				pool.Mode = to
				if err := r.eachMember(func(node string) error { return r.waitWays(ctx, node, pool) }); err != nil {
					return errors.Join(err, r.why(ctx))
				}
				r.note(fmt.Sprintf("%s is %s everywhere after", pool.Name, to), "%s", ms(time.Since(began)))
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return r.save()
}

func other(m cluster.Mode) cluster.Mode {
	if m == cluster.Always {
		return cluster.CrossSubnet
	}
	return cluster.Always
}

// waitWays waits until a node's kernel sends to every workload of the pool by the tunnel or directly, as the mode demands.
func (r *run) waitWays(ctx context.Context, node string, pool *Pool) error {
	self := r.Plan.Node(node)
	return r.withKernel(node, func(k kernel.Kernel) error {
		return poll(ctx, 5*time.Millisecond, func() error {
			for _, e := range r.Endpoints(others(node)) {
				if !pool.CIDR.Contains(e.Addr) {
					continue
				}
				direct := pool.Mode == cluster.CrossSubnet && r.Plan.Node(e.Node).Subnet == self.Subnet
				device, err := wayTo(ctx, k, e.Addr)
				if err != nil {
					return err
				}
				if slices.Contains(tunnelDevices(), device) == direct {
					return fmt.Errorf("%s sends to %s of %s by %s, which is not what mode %s asks for", node, e.Addr, e.Node, device, pool.Mode)
				}
			}
			return nil
		})
	})
}

// backends goes through all six changes between three backends and ends where it began.
func backends(ctx context.Context, r *run) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	start := r.Plan.Spec.Backend
	rest := slices.DeleteFunc([]cluster.Backend{cluster.BackendBird, cluster.BackendVXLAN, cluster.BackendNone}, func(b cluster.Backend) bool { return b == start })
	y, z := rest[0], rest[1]
	from := start
	for _, to := range []cluster.Backend{y, z, start, z, y, start} {
		if err := r.switchBackend(ctx, store, from, to); err != nil {
			return fmt.Errorf("from %s to %s: %w", from, to, err)
		}
		from = to
	}
	return nil
}

// served reports whether a backend carries a pool across nodes.
func served(b cluster.Backend) func(*Pool) bool {
	return func(p *Pool) bool {
		return b == cluster.BackendBird || b == cluster.BackendVXLAN && p.Encapsulation == cluster.VXLAN
	}
}

func (r *run) switchBackend(ctx context.Context, store datastore.Store, from, to cluster.Backend) error {
	// What both backends carry must not lose a packet.
	both := r.inPools(func(p *Pool) bool { return served(from)(p) && served(to)(p) })
	limit := lossless
	if len(both) == 0 {
		both, limit = r.Endpoints(nil), anyLoss
	}
	_, err := r.probed(ctx, fmt.Sprintf("%s to %s", from, to), both, limit, func() error {
		began := time.Now()
		err := change(ctx, store, calico.KindConfigMap, calico.ConfigMapName, func(m *calico.ConfigMap) { m.Data.CalicoBackend = string(to) })
		if err != nil {
			return err
		}
		if err := r.eachMember(func(node string) error {
			return poll(ctx, 10*time.Millisecond, func() error { return r.onBackend(ctx, node, to) })
		}); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		if _, err := r.WaitSettled(ctx); err != nil {
			return err
		}
		eps := r.inPools(served(to))
		if _, err := WaitReachable(ctx, eps); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		r.note(fmt.Sprintf("%s to %s was done everywhere after", from, to), "%s", ms(time.Since(began)))
		return nil
	})
	return err
}

// onBackend checks what a backend promises of a node.
func (r *run) onBackend(ctx context.Context, node string, b cluster.Backend) error {
	st, err := r.Status(ctx, node)
	if err != nil {
		return err
	}
	if st.GetBackend() != string(b) {
		return fmt.Errorf("%s still runs backend %s", node, st.GetBackend())
	}
	open, err := r.bgpOpen(node)
	if err != nil {
		return err
	}
	if open != (b == cluster.BackendBird) {
		return fmt.Errorf("%s runs backend %s and its BGP port is open: %t", node, b, open)
	}
	if b == cluster.BackendNone {
		return r.nothingLeft(ctx)(node)
	}
	return nil
}

// bgpPort is BGP's well-known port (RFC 4271 section 4.2).
const bgpPort = 179

// bgpOpen reports whether somebody listens on the BGP port in a node's namespace, by the kernel's own list of sockets.
func (r *run) bgpOpen(node string) (bool, error) {
	ns, err := r.NS(node)
	if err != nil {
		return false, err
	}
	open := false
	err = ns.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			data, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return fmt.Errorf("list sockets of %s: %w", node, err)
			}
			open = open || listens(string(data), bgpPort)
		}
		return nil
	})
	return open, err
}

// listens reports whether a table of /proc/net/tcp shows a listener (state 0A, proc_net_tcp.txt) on the port.
func listens(table string, port int) bool {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return true
		}
	}
	return false
}
