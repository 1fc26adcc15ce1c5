package startup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
)

// Interfaces returns a function that lists the interfaces of a kernel with their addresses, in the kernel's order.
func Interfaces(k kernel.Links) func(context.Context) ([]Interface, error) {
	return func(ctx context.Context) ([]Interface, error) {
		links, err := k.ListLinks(ctx)
		if err != nil {
			return nil, err
		}
		addrs, err := k.ListAddresses(ctx)
		if err != nil {
			return nil, err
		}
		out := make([]Interface, len(links))
		at := make(map[int]int, len(links))
		for i, l := range links {
			out[i] = Interface{Name: l.Name, MTU: l.MTU, Up: l.Up && l.Running}
			at[l.Index] = i
		}
		for _, a := range addrs {
			if i, ok := at[a.Link]; ok {
				out[i].Addrs = append(out[i].Addrs, a.Prefix)
			}
		}
		return out, nil
	}
}

// reachTimeout bounds looking up a name; connecting a UDP socket sends nothing and waits for nobody.
const reachTimeout = 5 * time.Second

// Reach returns the address this host sends from to another, by a UDP socket connected to port 80, as Calico does. Nothing is
// sent.
func Reach(ctx context.Context, target string, f cluster.Family) (netip.Addr, error) {
	network := "udp4"
	if f == cluster.IPv6 {
		network = "udp6"
	}
	d := net.Dialer{Timeout: reachTimeout}
	c, err := d.DialContext(ctx, network, net.JoinHostPort(target, "80"))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }()
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, fmt.Errorf("the socket towards %s has no address", target)
	}
	return local.AddrPort().Addr().Unmap().WithZone(""), nil
}

// kernelHasIPv6 reports whether this network namespace knows IPv6.
func kernelHasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}
