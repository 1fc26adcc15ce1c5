package startup

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Interface is an interface of the host.
type Interface struct {
	Name  string
	MTU   int  // bytes
	Up    bool // IFF_UP and IFF_RUNNING
	Addrs []netip.Prefix
}

// Host is what an address is chosen from.
type Host struct {
	// Interfaces are in the kernel's order.
	Interfaces []Interface
	// Reach returns the address this host sends from to a host; see Reach.
	Reach func(target string, f cluster.Family) (netip.Addr, error)
	// Internal returns the InternalIP that Kubernetes has for the node; nil outside Kubernetes.
	Internal func(f cluster.Family) (netip.Addr, error)
}

// Found is an address that was chosen and the interface it is on.
type Found struct {
	Addr      netip.Prefix
	Interface string
}

// excluded are the interfaces that first-found and skip-interface= pass over: bridges and tunnels of containers and of
// Kubernetes networks (Calico: DEFAULT_INTERFACES_TO_EXCLUDE).
var excluded = regexp.MustCompile(`^docker.*|^cbr.*|^dummy.*|^podman.*|^virbr.*|^lxcbr.*|^veth.*|^lo|^br-.*|^cali.*|^tunl.*` +
	`|^flannel.*|^kube-ipvs.*|^cni.*|^vxlan\.calico.*|^vxlan-v6\.calico.*|^wireguard\.cali.*|^wg-v6\.cali.*|^nodelocaldns.*`)

// tunnels are the devices whose addresses come from the pools.
var tunnels = regexp.MustCompile(`^(tunl0|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali)$`)

// Detect chooses an address of a family. The interfaces are looked at in reverse of the kernel's order, as Calico does.
func (m Method) Detect(f cluster.Family, h *Host) (Found, error) {
	var found Found
	var err error
	switch m.kind {
	case byInterface:
		found, err = h.first(f, func(name string) bool { return matches(m.names, name) }, nil)
	case skipInterface:
		found, err = h.first(f, func(name string) bool { return !excluded.MatchString(name) && !matches(m.names, name) }, nil)
	case byCIDR:
		found, err = h.first(f, func(name string) bool { return !tunnels.MatchString(name) }, m.ranges)
	case canReach:
		found, err = h.reaching(m.target, f)
	case internalIP:
		found, err = h.internal(f)
	default:
		found, err = h.first(f, func(name string) bool { return !excluded.MatchString(name) }, nil)
	}
	if err != nil {
		return Found{}, fmt.Errorf("detect an %v address by %v: %w", f, m, err)
	}
	return found, nil
}

func matches(names []*regexp.Regexp, name string) bool {
	return slices.ContainsFunc(names, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

// first returns the first address of a family on the interfaces that may be used, inside one of the ranges if there are any.
func (h *Host) first(f cluster.Family, may func(string) bool, ranges []netip.Prefix) (Found, error) {
	seen := false
	for _, i := range slices.Backward(h.Interfaces) {
		if !may(i.Name) {
			continue
		}
		seen = true
		for _, a := range i.Addrs {
			if cluster.FamilyOf(a.Addr()) == f && a.Addr().IsGlobalUnicast() && within(ranges, a.Addr()) {
				return Found{a, i.Name}, nil
			}
		}
	}
	if !seen {
		return Found{}, errors.New("no interface comes into question")
	}
	return Found{}, errors.New("no interface that comes into question has one")
}

func within(ranges []netip.Prefix, a netip.Addr) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (h *Host) reaching(target string, f cluster.Family) (Found, error) {
	a, err := h.Reach(target, f)
	if err != nil {
		return Found{}, err
	}
	return h.holding(a)
}

func (h *Host) internal(f cluster.Family) (Found, error) {
	if h.Internal == nil {
		return Found{}, errors.New("there is no Kubernetes to ask: choose another method")
	}
	a, err := h.Internal(f)
	if err != nil {
		return Found{}, err
	}
	return h.holding(a)
}

// holding returns an address with the prefix length it has on its interface.
func (h *Host) holding(a netip.Addr) (Found, error) {
	for _, i := range slices.Backward(h.Interfaces) {
		for _, p := range i.Addrs {
			if p.Addr() == a {
				return Found{p, i.Name}, nil
			}
		}
	}
	return Found{}, fmt.Errorf("%v is on no interface of this host", a)
}
