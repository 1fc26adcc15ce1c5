package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
)

// podsComing is how many workloads come and go while a daemon is killed, and podsWhileAway how many do each while none runs.
const (
	podsComing    = 6
	podsWhileAway = 2
)

// workloadRoutes is the life of a node's workloads where the routes to them are the daemon's: they come and go while the daemon is killed, and
// while none runs, and what no longer leads to anybody goes once it is known to, and nothing else.
func workloadRoutes(ctx context.Context, r *run) error {
	for i := range r.Plan.Nodes {
		if err := r.wiredAsFelix(ctx, &r.Plan.Nodes[i]); err != nil {
			return err
		}
	}
	node := r.victim()
	began := len(r.Plan.Node(node).Workloads)
	_, err := r.probed(ctx, "of the workloads that stay", r.Endpoints(nil), lossless, func() error {
		return r.steady(ctx, node, func() error {
			return errors.Join(r.podsComeAndGo(ctx, node), r.podsWithoutDaemon(ctx, node))
		})
	})
	if have := len(r.Plan.Node(node).Workloads); err == nil && have != began {
		err = fmt.Errorf("%s has %d workloads, had %d", node, have, began)
	}
	return err
}

// steady runs f and returns an error if any destination that had a route of ours before was without one for a moment.
func (r *run) steady(ctx context.Context, node string, f func() error) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var dsts []netip.Prefix
	err := r.withKernel(node, func(k kernel.Kernel) error {
		list, err := ours(ctx, k, nil)
		for i := range list {
			dsts = append(dsts, list[i].Dst)
		}
		return err
	})
	if err != nil {
		return err
	}
	w, err := r.watchNode(wctx, node, dsts, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = w.kernel.Close() }()
	if err := f(); err != nil {
		return err
	}
	r.note("routes that stayed, none gone for a moment", "%d of %s", len(dsts), node)
	return w.verdict(ctx)
}

// wiredAsFelix waits until each workload of a node has its routes, by us and by nobody else, and its interface the settings that Felix
// makes (felix: configureInterface in endpoint_mgr.go).
func (r *run) wiredAsFelix(ctx context.Context, n *Node) error {
	return r.withKernel(n.Name, func(k kernel.Kernel) error {
		return poll(ctx, 5*time.Millisecond, func() error {
			for i := range n.Workloads {
				w := &n.Workloads[i]
				if err := errors.Join(r.routedTo(ctx, k, w), settingsOf(netns.NS{Name: n.NS}, w)); err != nil {
					return fmt.Errorf("%s: %w", w.Name, err)
				}
			}
			return nil
		})
	})
}

// routedTo reports an address of a workload that has another route than the one of ours.
func (r *run) routedTo(ctx context.Context, k kernel.Kernel, w *Workload) error {
	link, err := linkNamed(ctx, k, w.Iface)
	if err != nil {
		return err
	}
	for _, a := range w.Addrs {
		found, err := routesTo(ctx, k, a)
		if err != nil {
			return err
		}
		if len(found) != 1 || found[0].Protocol != kernel.ProtoCaracal || len(found[0].NextHops) != 1 || found[0].NextHops[0].Link != link.Index || found[0].NextHops[0].Gateway.IsValid() {
			return fmt.Errorf("routes to %s: %v, want one of protocol %d to %s", a, found, kernel.ProtoCaracal, w.Iface)
		}
	}
	return nil
}

func linkNamed(ctx context.Context, k kernel.Kernel, name string) (kernel.Link, error) {
	links, err := k.ListLinks(ctx)
	if err != nil {
		return kernel.Link{}, fmt.Errorf("list links: %w", err)
	}
	i := slices.IndexFunc(links, func(l kernel.Link) bool { return l.Name == name })
	if i < 0 {
		return kernel.Link{}, fmt.Errorf("no interface %s", name)
	}
	return links[i], nil
}

// routesTo returns the routes to one address alone.
func routesTo(ctx context.Context, k kernel.Kernel, a netip.Addr) (out []kernel.Route, err error) {
	dst := netip.PrefixFrom(a, a.BitLen())
	err = k.ListRoutes(ctx, a.Is6(), func(r *kernel.Route) bool {
		if r.Dst == dst {
			own := *r
			own.NextHops = slices.Clone(r.NextHops)
			out = append(out, own)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return out, nil
}

// settingsOf reports the first setting of a workload's interface that is not Felix's.
func settingsOf(ns netns.NS, w *Workload) error {
	want := map[string]string{}
	for _, a := range w.Addrs {
		if cluster.FamilyOf(a) == cluster.IPv4 {
			for _, name := range []string{"rp_filter", "route_localnet", "proxy_arp", "forwarding"} {
				want["ipv4/conf/"+w.Iface+"/"+name] = "1"
			}
			want["ipv4/neigh/"+w.Iface+"/proxy_delay"] = "0"
			continue
		}
		want["ipv6/conf/"+w.Iface+"/disable_ipv6"] = "0"
		want["ipv6/conf/"+w.Iface+"/proxy_ndp"] = "1"
		want["ipv6/conf/"+w.Iface+"/forwarding"] = "1"
	}
	return ns.Do(func() error {
		for name, value := range want {
			have, err := os.ReadFile("/proc/sys/net/" + name)
			if err != nil {
				return fmt.Errorf("read setting: %w", err)
			}
			if got := strings.TrimSpace(string(have)); got != value {
				return fmt.Errorf("net/%s is %s, want %s", name, got, value)
			}
		}
		return nil
	})
}

// podsComeAndGo adds and removes workloads, and kills the daemon while each second one comes and each third one goes.
func (r *run) podsComeAndGo(ctx context.Context, node string) error {
	var slowest time.Duration
	for i := range podsComing {
		kill := func(when bool) chan error {
			done := make(chan error, 1)
			if !when {
				done <- nil
				return done
			}
			go func() {
				err := r.Stop(ctx, node, syscall.SIGKILL)
				if err == nil {
					err = r.Start(node)
				}
				done <- err
			}()
			return done
		}
		began := time.Now()
		killed := kill(i%2 == 1)
		w, err := r.AddWorkload(ctx, node)
		if err = errors.Join(err, <-killed); err != nil {
			return err
		}
		if err := r.wiredAsFelix(ctx, r.Plan.Node(node)); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		if _, err := WaitReachable(ctx, r.Endpoints(nil)); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		slowest = max(slowest, time.Since(began))
		addrs := slices.Clone(w.Addrs)
		killed = kill(i%3 == 2)
		if err := errors.Join(r.RemoveWorkload(ctx, node), <-killed); err != nil {
			return err
		}
		if err := r.unrouted(ctx, node, addrs); err != nil {
			return err
		}
	}
	r.note("a new workload answers everybody after at most", "%s, %d came and went, the daemon killed meanwhile", ms(slowest), podsComing)
	_, err := r.WaitSettled(ctx)
	return err
}

// unrouted waits until no route leads to any of the addresses.
func (r *run) unrouted(ctx context.Context, node string, addrs []netip.Addr) error {
	return r.withKernel(node, func(k kernel.Kernel) error {
		return poll(ctx, 5*time.Millisecond, func() error {
			for _, a := range addrs {
				found, err := routesTo(ctx, k, a)
				if err != nil {
					return err
				}
				if len(found) > 0 {
					return fmt.Errorf("%s still routes to %s, whose workload has gone: %v", node, a, found)
				}
			}
			return nil
		})
	})
}

// podsWithoutDaemon has workloads go and come while the node has no daemon. Interfaces of those that go are left behind, and with them their routes,
// as by a CNI plugin that was not asked. The daemon then starts without the datastore: nothing may go before that is back.
func (r *run) podsWithoutDaemon(ctx context.Context, node string) (err error) {
	n := r.Plan.Node(node)
	for range podsWhileAway {
		if _, err := r.AddWorkload(ctx, node); err != nil {
			return err
		}
	}
	if err := r.wiredAsFelix(ctx, n); err != nil {
		return err
	}
	leaving := slices.Clone(n.Workloads[len(n.Workloads)-podsWhileAway:])
	if err := r.Stop(ctx, node, syscall.SIGKILL); err != nil {
		return err
	}
	var stale []netip.Addr
	for i := range leaving {
		stale = append(stale, leaving[i].Addrs...)
		if err := r.forgetPod(ctx, &leaving[i]); err != nil {
			return err
		}
	}
	fresh, err := r.AddWorkload(ctx, node)
	if err != nil {
		return err
	}
	away, back := r.datastoreAway()
	if err := away(); err != nil {
		return fmt.Errorf("move the datastore away: %w", err)
	}
	held := r.staysRouted(ctx, node, stale)
	if err := errors.Join(held, back()); err != nil {
		return err
	}
	began := time.Now()
	if err := r.unrouted(ctx, node, stale); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	r.note("routes to workloads that went meanwhile", "%d, gone %s after the datastore was back", len(stale), ms(time.Since(began)))
	n.Workloads = append(n.Workloads[:len(n.Workloads)-1-podsWhileAway], *fresh)
	if err := r.wiredAsFelix(ctx, n); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	if _, err := WaitReachable(ctx, r.Endpoints(nil)); err != nil {
		return errors.Join(err, r.why(ctx))
	}
	// Now the rest of those that went: the lab's, not the daemon's.
	err = r.RemoveWorkload(ctx, node)
	for _, w := range leaving {
		n.Workloads = append(n.Workloads, w)
		err = errors.Join(err, r.RemoveWorkload(ctx, node))
	}
	return err
}

// staysRouted starts the daemon, whose datastore is away, and lets it live for a while: every one of the addresses must still have its route.
func (r *run) staysRouted(ctx context.Context, node string, addrs []netip.Addr) error {
	if err := r.Start(node); err != nil {
		return err
	}
	if err := r.waitComplaint(ctx, node, true); err != nil {
		return err
	}
	if err := r.dwell(ctx); err != nil {
		return err
	}
	return r.withKernel(node, func(k kernel.Kernel) error {
		for _, a := range addrs {
			found, err := routesTo(ctx, k, a)
			if err != nil {
				return err
			}
			if len(found) != 1 {
				return fmt.Errorf("the route to %s went before the datastore was back: %d routes", a, len(found))
			}
		}
		return nil
	})
}
