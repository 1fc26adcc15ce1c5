package calico

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// check collects what is wrong with one resource.
type check struct {
	object   string
	problems []cluster.Problem
}

func newCheck(o Object) *check { return &check{object: ObjectName(o.Kind(), o.Meta().Name)} }

// ObjectName returns the form in which problems name an object: "IPPool default-ipv4-ippool".
func ObjectName(kind Kind, name string) string { return string(kind) + " " + name }

func (c *check) add(field, format string, args ...any) {
	c.problems = append(c.problems, cluster.Problem{Object: c.object, Field: field, Text: fmt.Sprintf(format, args...)})
}

func (c *check) ok() bool { return len(c.problems) == 0 }

// cidr reads a masked prefix. example is one that would be right.
func (c *check) cidr(field, s, example string) netip.Prefix {
	if s == "" {
		c.add(field, "is missing: write an address range, as in %s", example)
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		c.add(field, "%q is not a CIDR: write an address and a prefix length, as in %s", s, example)
		return netip.Prefix{}
	}
	if p != p.Masked() {
		c.add(field, "%s has bits set behind its prefix length: write %s", s, p.Masked())
		return netip.Prefix{}
	}
	return p
}

// host reads a node's own address, with or without the prefix length of its subnet.
func (c *check) host(field, s string, f cluster.Family) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			c.add(field, "%q is not an address: write an %s address with the prefix length of its subnet, as in %s", s, f, exampleHost(f))
			return netip.Prefix{}
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := c.usable(field, s, p.Addr(), f); !a.IsValid() {
		return netip.Prefix{}
	}
	return p
}

// addr reads a bare address.
func (c *check) addr(field, s string, f cluster.Family) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		c.add(field, "%q is not an address: write an %s address without a prefix length, as in %s", s, f, exampleAddr(f))
		return netip.Addr{}
	}
	return c.usable(field, s, a, f)
}

// usable checks family and kind of an address that a host shall have.
func (c *check) usable(field, s string, a netip.Addr, f cluster.Family) netip.Addr {
	if a.Is4In6() || cluster.FamilyOf(a) != f {
		c.add(field, "%s is not an %s address: write one as in %s", s, f, exampleAddr(f))
		return netip.Addr{}
	}
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		c.add(field, "%s cannot be the address of a host: write a unicast address, as in %s", s, exampleAddr(f))
		return netip.Addr{}
	}
	return a
}

func exampleAddr(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "192.0.2.7"
	}
	return "2001:db8::7"
}

func exampleHost(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "192.0.2.7/24"
	}
	return "2001:db8::7/64"
}

// mac reads a VXLAN device's address.
func (c *check) mac(field, s string) cluster.MAC {
	if s == "" {
		return cluster.MAC{}
	}
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(cluster.MAC{}) {
		c.add(field, "%q is not a MAC address: write six pairs of hex digits, as in 66:f9:37:c3:7e:94", s)
		return cluster.MAC{}
	}
	m := cluster.MAC(hw)
	if m.IsZero() || m[0]&1 != 0 { // the group bit (IEEE 802-2014, 8.2.2)
		c.add(field, "%s cannot be the address of a device: write a unicast MAC address, as in 66:f9:37:c3:7e:94, or leave the field out", s)
		return cluster.MAC{}
	}
	return m
}

// oneOf checks a word; the first of the allowed is the default and stands for an empty value.
func (c *check) oneOf(field, s string, allowed ...string) string {
	if s == "" {
		return allowed[0]
	}
	for _, a := range allowed {
		if s == a {
			return a
		}
	}
	if allowed[0] == "" {
		c.add(field, "%q is not known: write %s, or leave the field out", s, orList(allowed[1:]))
		return ""
	}
	c.add(field, "%q is not known: write %s", s, orList(allowed))
	return allowed[0]
}

func orList(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// number checks a whole number; nil stands for the default.
func (c *check) number(field string, n *int, def, low, high int) int {
	if n == nil {
		return def
	}
	if *n < low || *n > high {
		c.add(field, "%d is out of range: write a number from %d to %d, or leave the field out", *n, low, high)
		return def
	}
	return *n
}

// selector checks a selector's syntax.
func (c *check) selector(field, s string) *Selector {
	sel, err := ParseSelector(s)
	if err != nil {
		c.add(field, "%s; a selector reads as in: rack == 'r1' && !has(edge)", err)
	}
	return sel
}
