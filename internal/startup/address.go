package startup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

// ErrRefused marks what keeps a node from starting until somebody changes something: no address, the address of another
// node, a name that is not in the cluster. Other errors are of the datastore and may pass.
var ErrRefused = errors.New("the node cannot start like this")

// identity is what a node says of itself and we write.
type identity struct {
	addr4, addr6 netip.Prefix
	asn          uint32
	interfaces   []calico.NodeInterface
}

// settle returns what the Node should say, given what it says. Notes are what went otherwise than asked but can be lived
// with.
func (s *Settings) settle(stored identity, h *Host) (want identity, notes []string, err error) {
	want = stored
	var errs []error
	for _, x := range []struct {
		f       cluster.Family
		name    string
		setting *AddressSetting
		addr    *netip.Prefix
	}{{cluster.IPv4, EnvIP, &s.IP, &want.addr4}, {cluster.IPv6, EnvIP6, &s.IP6, &want.addr6}} {
		a, note, err := x.setting.settle(x.name, x.f, *x.addr, h)
		if err != nil {
			errs = append(errs, err)
		}
		if note != "" {
			notes = append(notes, note)
		}
		*x.addr = a
	}
	if len(errs) > 0 {
		return stored, notes, fmt.Errorf("%w: %w", ErrRefused, errors.Join(errs...))
	}
	if !want.addr4.IsValid() && !want.addr6.IsValid() {
		return stored, notes, fmt.Errorf("%w: it has neither an IPv4 nor an IPv6 address: set %s or %s to autodetect or to an address of this host", ErrRefused, EnvIP, EnvIP6)
	}
	if s.ASN != 0 {
		want.asn = s.ASN
	}
	want.interfaces = s.list(h.Interfaces)
	return want, notes, nil
}

// settle returns the address of one family.
func (a *AddressSetting) settle(name string, f cluster.Family, stored netip.Prefix, h *Host) (addr netip.Prefix, note string, err error) {
	switch {
	case a.Mode == Explicit:
		return a.explicit(name, h)
	case a.Mode == Autodetect, a.Mode == Unset && f == cluster.IPv4 && !stored.IsValid():
		found, err := a.Method.Detect(f, h)
		if err == nil {
			return found.Addr, "", nil
		}
		if stored.IsValid() {
			return stored, fmt.Sprintf("%v; the node keeps %v", err, stored), nil
		}
		return stored, "", fmt.Errorf("%w; choose another %s, set %s to an address, or to none if the node shall have no %v address", err, methodOf(f), name, f)
	}
	if _, err := h.holding(stored.Addr()); stored.IsValid() && err != nil {
		note = fmt.Sprintf("the node's stored address: %v; set %s=autodetect to have it found", err, name)
	}
	return stored, note, nil
}

func methodOf(f cluster.Family) string {
	if f == cluster.IPv4 {
		return EnvMethod
	}
	return EnvMethod6
}

// explicit completes a given address with the prefix length of its interface.
func (a *AddressSetting) explicit(name string, h *Host) (addr netip.Prefix, note string, err error) {
	found, missing := h.holding(a.Addr.Addr())
	switch {
	case missing != nil && a.Bare:
		return a.Addr, fmt.Sprintf("%s: %v; without its prefix length no node is in our subnet, so cross-subnet pools use tunnels everywhere: write it as in %v/24", name, missing, a.Addr.Addr()), nil
	case missing != nil:
		return a.Addr, fmt.Sprintf("%s: %v", name, missing), nil
	case a.Bare:
		return found.Addr, "", nil
	}
	return a.Addr, "", nil
}

// list returns the interfaces of the Node: with addresses of the families for which the environment asks for one.
func (s *Settings) list(all []Interface) []calico.NodeInterface {
	want4 := s.IP.Mode == Autodetect || s.IP.Mode == Explicit
	want6 := s.IP6.Mode == Autodetect || s.IP6.Mode == Explicit
	var out []calico.NodeInterface
	for _, i := range all {
		if excluded.MatchString(i.Name) {
			continue
		}
		n := calico.NodeInterface{Name: i.Name}
		for _, p := range i.Addrs {
			if a := p.Addr(); a.IsGlobalUnicast() && (a.Is4() && want4 || a.Is6() && want6) {
				n.Addresses = append(n.Addresses, a.String())
			}
		}
		if len(n.Addresses) > 0 {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b calico.NodeInterface) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// sameInterfaces compares what is written of interfaces.
func sameInterfaces(a, b []calico.NodeInterface) bool {
	return slices.EqualFunc(a, b, func(a, b calico.NodeInterface) bool {
		return a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses)
	})
}

// conflict is an address of ours that another node has.
type conflict struct {
	family cluster.Family
	addr   netip.Addr
	node   string
}

// conflicts returns which of a node's addresses other nodes have, at most one of each family.
func conflicts(name string, want identity, nodes []calico.Object) (out []conflict) {
	for _, x := range []struct {
		f    cluster.Family
		addr netip.Addr
	}{{cluster.IPv4, want.addr4.Addr()}, {cluster.IPv6, want.addr6.Addr()}} {
		for _, obj := range nodes {
			n, ok := obj.(*calico.Node)
			if !ok || n.Name == name || !x.addr.IsValid() {
				continue
			}
			if other, _ := n.ClusterNode(); other.Addr(x.f).Addr() == x.addr { // a bad address of another node is that node's problem
				out = append(out, conflict{x.f, x.addr, n.Name})
				break
			}
		}
	}
	return out
}

// refusal is the error about conflicts.
func refusal(name string, all []conflict) error {
	var errs []error
	for _, c := range all {
		errs = append(errs, fmt.Errorf("node %s has the %v address %v already, which was found for %s: give one of the machines another address, "+
			"delete the Node if that machine is gone, or set %s=true", c.node, c.family, c.addr, name, EnvNoIPCheck))
	}
	return fmt.Errorf("%w: %w", ErrRefused, errors.Join(errs...))
}
