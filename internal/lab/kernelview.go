package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// tunnelDevices are the names of the devices a daemon keeps.
func tunnelDevices() []string { return []string{"vxlan.calico", "vxlan-v6.calico", "tunl0"} }

// openKernel returns a handle on a node's kernel state. It is nobody's but the lab's: to the daemon, what is
// written through it is written by a foreign program.
func (c *Cluster) openKernel(node string) (kernel.Kernel, error) {
	ns, err := c.NS(node)
	if err != nil {
		return nil, err
	}
	return kernel.Open(kernel.Options{Namespace: ns.Path()})
}

// withKernel lends f a handle on a node's kernel state.
func (c *Cluster) withKernel(node string, f func(kernel.Kernel) error) error {
	k, err := c.openKernel(node)
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }()
	return f(k)
}

// ours returns the routes of a node that carry Caracal's protocol number, with each of which keep agrees; nil keeps all.
func ours(ctx context.Context, k kernel.Kernel, keep func(*kernel.Route) bool) ([]kernel.Route, error) {
	var out []kernel.Route
	for _, v6 := range []bool{false, true} {
		err := k.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
			if r.Protocol == kernel.ProtoCaracal && (keep == nil || keep(r)) {
				own := *r
				own.NextHops = append([]kernel.NextHop(nil), r.NextHops...)
				own.NexthopID = 0 // it has next hops all the same (nexthop_compat_mode 1), and a number means nothing by itself
				out = append(out, own)
			}
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
	}
	return out, nil
}

// nothingLeft returns a check that a node's kernel holds nothing of ours.
func (c *Cluster) nothingLeft(ctx context.Context) func(node string) error {
	return func(node string) error {
		return c.withKernel(node, func(k kernel.Kernel) error {
			left, err := ours(ctx, k, nil)
			if err != nil {
				return err
			}
			if len(left) > 0 {
				return fmt.Errorf("%s still has %d routes of ours, the first to %s", node, len(left), left[0].Dst)
			}
			return noDevices(ctx, node, k)
		})
	}
}

func noDevices(ctx context.Context, node string, k kernel.Kernel) error {
	links, err := k.ListLinks(ctx)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	addrs, err := k.ListAddresses(ctx)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "vxlan") {
			return fmt.Errorf("%s still has the device %s", node, l.Name)
		}
		for _, a := range addrs {
			if l.Name == "tunl0" && a.Link == l.Index && a.Prefix.Addr().Is4() {
				return fmt.Errorf("%s still has %s on tunl0", node, a.Prefix)
			}
		}
	}
	return nil
}

// wayTo returns the interface by which a node's kernel would send a packet to an address.
func wayTo(ctx context.Context, k kernel.Kernel, a netip.Addr) (device string, err error) {
	answer, err := k.Lookup(ctx, a)
	if err != nil {
		return "", fmt.Errorf("look up %s: %w", a, err)
	}
	links, err := k.ListLinks(ctx)
	if err != nil {
		return "", fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Index == answer.Chosen.Link {
			return l.Name, nil
		}
	}
	return "", fmt.Errorf("look up %s: no interface %d", a, answer.Chosen.Link)
}
