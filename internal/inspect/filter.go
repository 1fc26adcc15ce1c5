package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// filter is a RouteFilter that has been read: every condition that is set must hold.
type filter struct {
	exact, within, covering netip.Prefix // invalid = any
	owners                  []routes.Owner
	states                  []routes.Outcome
	family                  cluster.Family // 0 = any
}

// newFilter reads a filter; a nil one picks everything. Errors name the field and say what is wanted.
func newFilter(m *caracalv1.RouteFilter) (*filter, error) {
	f := &filter{}
	var errs [3]error
	f.exact, errs[0] = parsePrefix("prefix", m.GetPrefix())
	f.within, errs[1] = parsePrefix("within", m.GetWithin())
	f.covering, errs[2] = parsePrefix("covering", m.GetCovering())
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	for _, o := range m.GetOwners() {
		if !slices.Contains(owners(), routes.Owner(o)) {
			return nil, fmt.Errorf("owner %q: want one of %s", o, listed(owners()))
		}
		f.owners = append(f.owners, routes.Owner(o))
	}
	for _, s := range m.GetStates() {
		o := outcomeOf(s)
		if o == "" {
			return nil, fmt.Errorf("state %s: not one that a route can have", s)
		}
		f.states = append(f.states, o)
	}
	switch v := m.GetFamily(); v {
	case caracalv1.Family_FAMILY_UNSPECIFIED:
	case caracalv1.Family_FAMILY_IPV4, caracalv1.Family_FAMILY_IPV6:
		f.family = cluster.Family(v)
	default:
		return nil, fmt.Errorf("family %s: want 4 or 6", v)
	}
	return f, nil
}

// parsePrefix reads a prefix or a single address. Host bits are refused rather than dropped: "10.1.2.3/24" is as often
// meant to be 10.1.2.3/32 as 10.1.2.0/24, and an empty answer to the wrong question misleads.
func parsePrefix(field, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if !strings.Contains(s, "/") {
		a, err := parseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("%s: %w", field, err)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%s %q: want an address or a prefix such as 10.244.1.0/26", field, s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s %q: write the IPv4 prefix without the ::ffff: in front", field, s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s %q: bits are set behind the prefix length; write %v or %v", field, s, p.Masked(), p.Addr())
	}
	return p, nil
}

// parseAddr reads an address without a zone; an IPv4-mapped one is taken as the IPv4 address it holds.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address %q: want an IP address such as 10.244.1.7 or fd00:10::7", s)
	}
	if a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q: write it without the zone, routes have none", s)
	}
	return a.Unmap(), nil
}

// picks reports whether the filter picks a status.
func (f *filter) picks(s *routes.Status) bool { return f.picksKey(s) && f.picksState(s.Outcome) }

// picksKey judges what a route is told apart by, which never changes during its life.
func (f *filter) picksKey(s *routes.Status) bool {
	dst := s.Route.Dst
	switch {
	case f.exact.IsValid() && dst != f.exact:
		return false
	case f.within.IsValid() && !covers(f.within, dst):
		return false
	case f.covering.IsValid() && !covers(dst, f.covering):
		return false
	case f.family != 0 && cluster.FamilyOf(dst.Addr()) != f.family:
		return false
	}
	return len(f.owners) == 0 || slices.Contains(f.owners, s.Owner)
}

// picksState judges what changes.
func (f *filter) picksState(o routes.Outcome) bool {
	return len(f.states) == 0 || slices.Contains(f.states, o)
}

// covers reports whether every address of inner is in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
