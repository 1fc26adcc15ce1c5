package workload

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

// RuleOwn is why a route is wanted, as routes.Reason.Rule shows it.
const RuleOwn = "workload of this node: to its interface"

// Endpoint is a workload of this node that has its own network.
type Endpoint struct {
	Namespace, Pod string
	// Addrs are its addresses of both families (status.podIPs).
	Addrs []netip.Addr
	// Dialled are the addresses at which the host answers on its interface, those of the families that it has addresses of.
	Dialled []netip.Addr
}

// Interface returns the name of the endpoint's interface on the host.
func (e *Endpoint) Interface() string {
	sum := sha1.Sum([]byte(e.Namespace + "." + e.Pod))
	return prefix + hex.EncodeToString(sum[:])[:digits]
}

// The name of an interface: Calico's prefix, and as many digits as the kernel leaves room for (IFNAMSIZ 16, the closing zero included).
const (
	prefix = "cali"
	digits = 11
)

// Output is one plan.
type Output struct {
	Change   routes.Change  // whole, of routes.OwnerWorkload; settings in the order in which they are to be written
	Here     []netip.Prefix // destinations whose interface is there, sorted
	Problems []cluster.Problem
}

// Devices returns the interfaces of the workloads that are here.
func (o *Output) Devices() map[netip.Addr]string {
	devices := make(map[netip.Addr]string, len(o.Here))
	for i := range o.Change.Routes {
		r := &o.Change.Routes[i]
		if _, here := slices.BinarySearchFunc(o.Here, r.Dst, netip.Prefix.Compare); here {
			devices[r.Dst.Addr()] = r.NextHops[0].Device
		}
	}
	return devices
}

// EndpointsOf returns the Pods of a node, as Kubernetes names it, as Endpoints.
func EndpointsOf(st *cluster.State, node string) (out []Endpoint) {
	for _, p := range st.Pods() {
		if p.Node == node {
			namespace, name, _ := strings.Cut(p.Name, "/")
			out = append(out, Endpoint{Namespace: namespace, Pod: name, Addrs: p.Addrs})
		}
	}
	return out
}

// Plan works out what the endpoints need.
func Plan(endpoints []Endpoint, h *routes.Host) Output {
	endpoints = slices.Clone(endpoints)
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	out := Output{Change: routes.Change{Whole: true, Settings: []routes.Setting{}, Addresses: []routes.InterfaceAddress{}}}
	holders := map[netip.Addr]*Endpoint{}
	for i := range endpoints {
		e := &endpoints[i]
		families, here := [2]bool{}, h.ByName(e.Interface()) != nil
		for _, a := range e.Addrs {
			a = a.Unmap()
			if why := refused(e, a, holders, h); why != "" {
				out.Problems = append(out.Problems, cluster.Problem{Object: "Pod " + e.Namespace + "/" + e.Pod, Field: "status.podIPs", Text: why})
				continue
			}
			if holders[a] != nil {
				continue // twice in the list of one endpoint
			}
			holders[a] = e
			families[index(a)] = true
			out.Change.Routes = append(out.Change.Routes, e.route(a))
			if here {
				out.Here = append(out.Here, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		out.Change.Settings = append(out.Change.Settings, settings(e.Interface(), families)...)
		for _, a := range e.Dialled {
			if families[index(a)] {
				out.Change.Addresses = append(out.Change.Addresses, routes.InterfaceAddress{Device: e.Interface(), Addr: a})
			}
		}
	}
	slices.SortFunc(out.Here, netip.Prefix.Compare)
	return out
}

// refused says why an endpoint gets no route for an address, "" if it does.
func refused(e *Endpoint, a netip.Addr, holders map[netip.Addr]*Endpoint, h *routes.Host) string {
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return fmt.Sprintf("%v is no address of a workload", a)
	}
	if h.ByAddr(a) != nil {
		return fmt.Sprintf("%v is this host's own address: a pod of the host's network needs no route", a)
	}
	if other := holders[a]; other != nil && other != e {
		return fmt.Sprintf("%v is also the address of Pod %s/%s, which has the route; delete one of the two", a, other.Namespace, other.Pod)
	}
	return ""
}

func (e *Endpoint) route(a netip.Addr) routes.Route {
	r := routes.Route{
		Dst: netip.PrefixFrom(a, a.BitLen()), Type: routes.Unicast, NextHops: []routes.NextHop{{Device: e.Interface()}},
		Reason: &routes.Reason{Rule: RuleOwn, Source: "Pod " + e.Namespace + "/" + e.Pod},
	}
	if a.Is4() { // IPv6 knows no scope, and the kernel would read another one back
		r.Scope = routes.ScopeLink
	}
	return r
}

func index(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// settings are those of Felix and of the CNI plugin (configureProcSysForInterface, configureSysctls). The host answers all of the
// workload's ARP and ND requests itself, at once, because the workload's gateway is an address that nobody has.
func settings(device string, families [2]bool) (list []routes.Setting) {
	if families[0] {
		list = append(list,
			routes.Setting{Name: kernel.DeviceRPFilter(device), Value: kernel.RPFilterStrict},
			routes.Setting{Name: kernel.DeviceSetting(device, false, kernel.RouteLocalnet), Value: 1}, // for NAT to services of the host's loopback
			routes.Setting{Name: kernel.ProxyDelay(device), Value: 0},
			routes.Setting{Name: kernel.DeviceSetting(device, false, kernel.ProxyARP), Value: 1},
			routes.Setting{Name: kernel.DeviceForward(device, false), Value: 1})
	}
	if families[1] {
		list = append(list,
			routes.Setting{Name: kernel.DeviceSetting(device, true, kernel.DisableIPv6), Value: 0},
			routes.Setting{Name: kernel.DeviceSetting(device, true, kernel.ProxyNDP), Value: 1},
			routes.Setting{Name: kernel.DeviceForward(device, true), Value: 1})
	}
	return list
}
