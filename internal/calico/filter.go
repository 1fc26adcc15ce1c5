package calico

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// BGPFilter is a list of rules for what is sent to and taken from peers (API: bgpfilter.go).
type BGPFilter struct {
	ObjectMeta `yaml:"metadata" json:"metadata"`
	Spec       BGPFilterSpec `yaml:"spec" json:"spec"`
}

// BGPFilterSpec holds the rules by direction and family, each list in order.
type BGPFilterSpec struct {
	ExportV4 []BGPFilterRule `yaml:"exportV4,omitempty" json:"exportV4,omitempty"`
	ImportV4 []BGPFilterRule `yaml:"importV4,omitempty" json:"importV4,omitempty"`
	ExportV6 []BGPFilterRule `yaml:"exportV6,omitempty" json:"exportV6,omitempty"`
	ImportV6 []BGPFilterRule `yaml:"importV6,omitempty" json:"importV6,omitempty"`
}

// BGPFilterRule is one rule: conditions, all of which must hold, an action, and what is done to a route that is accepted.
type BGPFilterRule struct {
	CIDR          string             `yaml:"cidr,omitempty" json:"cidr,omitempty"`
	MatchOperator string             `yaml:"matchOperator,omitempty" json:"matchOperator,omitempty"` // Equal, NotEqual, In, NotIn
	PrefixLength  *PrefixLength      `yaml:"prefixLength,omitempty" json:"prefixLength,omitempty"`
	Source        string             `yaml:"source,omitempty" json:"source,omitempty"` // RemotePeers
	Interface     string             `yaml:"interface,omitempty" json:"interface,omitempty"`
	PeerType      string             `yaml:"peerType,omitempty" json:"peerType,omitempty"` // eBGP, iBGP
	Communities   *FilterCommunities `yaml:"communities,omitempty" json:"communities,omitempty"`
	ASPathPrefix  []ASNumber         `yaml:"asPathPrefix,omitempty" json:"asPathPrefix,omitempty"`
	Priority      *int               `yaml:"priority,omitempty" json:"priority,omitempty"`
	Operations    []FilterOperation  `yaml:"operations,omitempty" json:"operations,omitempty"`
	Action        string             `yaml:"action" json:"action"` // Accept, Reject
}

// PrefixLength bounds the length of the prefixes inside a CIDR.
type PrefixLength struct {
	Min *int `yaml:"min,omitempty" json:"min,omitempty"`
	Max *int `yaml:"max,omitempty" json:"max,omitempty"`
}

// FilterCommunities holds the one community a route must carry.
type FilterCommunities struct {
	Values []string `yaml:"values,omitempty" json:"values,omitempty"`
}

// FilterOperation changes an accepted route; exactly one of its fields is set.
type FilterOperation struct {
	AddCommunity  *AddCommunity  `yaml:"addCommunity,omitempty" json:"addCommunity,omitempty"`
	PrependASPath *PrependASPath `yaml:"prependASPath,omitempty" json:"prependASPath,omitempty"`
	SetPriority   *SetPriority   `yaml:"setPriority,omitempty" json:"setPriority,omitempty"`
}

// AddCommunity adds a community.
type AddCommunity struct {
	Value string `yaml:"value" json:"value"`
}

// PrependASPath puts AS numbers before the path, which then begins with them in this order.
type PrependASPath struct {
	Prefix []ASNumber `yaml:"prefix,omitempty" json:"prefix,omitempty"`
}

// SetPriority sets the route metric, and with it LOCAL_PREF.
type SetPriority struct {
	Value *int `yaml:"value,omitempty" json:"value,omitempty"`
}

// Kind returns BGPFilter.
func (*BGPFilter) Kind() Kind { return KindBGPFilter }

// Meta returns the object's metadata.
func (o *BGPFilter) Meta() *ObjectMeta { return &o.ObjectMeta }

// Limits of a rule (API: bgpfilter.go).
const (
	maxInterface  = 15 // IFNAMSIZ less one
	maxOperations = 10
	maxPrepend    = 10
)

// Filter checks and converts the filter. One with a problem cannot be used at all: the rules that are left would decide about
// routes the missing one was written for.
func (o *BGPFilter) Filter() (*cluster.BGPFilter, []cluster.Problem) {
	c := newCheck(o)
	f := &cluster.BGPFilter{
		Name:    o.Name,
		Export4: c.rules("spec.exportV4", o.Spec.ExportV4, cluster.IPv4),
		Import4: c.rules("spec.importV4", o.Spec.ImportV4, cluster.IPv4),
		Export6: c.rules("spec.exportV6", o.Spec.ExportV6, cluster.IPv6),
		Import6: c.rules("spec.importV6", o.Spec.ImportV6, cluster.IPv6),
	}
	if !c.ok() {
		return nil, c.problems
	}
	return f, nil
}

func (c *check) rules(field string, list []BGPFilterRule, f cluster.Family) []cluster.FilterRule {
	var out []cluster.FilterRule
	for i := range list {
		out = append(out, c.rule(field+"["+strconv.Itoa(i)+"]", &list[i], f))
	}
	return out
}

func (c *check) rule(at string, r *BGPFilterRule, f cluster.Family) cluster.FilterRule {
	out := cluster.FilterRule{
		RemotePeers: c.oneOf(at+".source", r.Source, "", "RemotePeers") != "",
		PeerType:    cluster.PeerType(c.oneOf(at+".peerType", r.PeerType, "", string(cluster.EBGP), string(cluster.IBGP))),
		Interface:   r.Interface,
		Priority:    uint32(c.number(at+".priority", r.Priority, 0, 1, maxPriority)),
	}
	c.ruleRange(at, r, f, &out)
	if r.Interface != "" && !interfacePattern(r.Interface) {
		c.add(at+".interface", "%q is not the name of an interface: write up to 15 letters, digits and . _ -, with * for any of them, as in eth*", r.Interface)
	}
	if r.Communities != nil {
		if len(r.Communities.Values) != 1 {
			c.add(at+".communities.values", "has %d entries: write exactly one community, as in 65000:100", len(r.Communities.Values))
		} else {
			out.Community = c.community(at+".communities.values", r.Communities.Values[0])
		}
	}
	for _, as := range r.ASPathPrefix {
		out.ASPathPrefix = append(out.ASPathPrefix, uint32(as))
	}
	switch r.Action {
	case "Accept":
		out.Accept = true
	case "Reject":
	default:
		c.add(at+".action", "%q is not known: write Accept or Reject", r.Action)
	}
	c.operations(at, r, &out)
	return out
}

// ruleRange reads cidr, matchOperator and prefixLength. Lengths are read with Equal and NotEqual as with In and NotIn, which is
// what their writer meant; in BIRD such a comparison never holds.
func (c *check) ruleRange(at string, r *BGPFilterRule, f cluster.Family, out *cluster.FilterRule) {
	op := c.oneOf(at+".matchOperator", r.MatchOperator, "", "Equal", "NotEqual", "In", "NotIn")
	switch {
	case r.CIDR == "" && r.MatchOperator == "" && r.PrefixLength == nil:
		return
	case r.CIDR == "" && r.PrefixLength != nil:
		c.add(at+".prefixLength", "needs a cidr: write the range whose prefixes are meant, as in %s", exampleRange(f))
		return
	case r.CIDR == "":
		c.add(at+".cidr", "is missing, and matchOperator has nothing to compare with: write a range, as in %s, or leave both out", exampleRange(f))
		return
	case r.MatchOperator == "":
		c.add(at+".matchOperator", "is missing: write Equal, NotEqual, In or NotIn")
		return
	}
	p := c.cidr(at+".cidr", r.CIDR, exampleRange(f))
	if !p.IsValid() {
		return
	}
	if cluster.FamilyOf(p.Addr()) != f {
		c.add(at+".cidr", "%s is not an %s range: write one as in %s", p, f, exampleRange(f))
		return
	}
	low, high := p.Bits(), p.Addr().BitLen()
	if l := r.PrefixLength; l != nil {
		low = max(low, c.number(at+".prefixLength.min", l.Min, low, 0, high))
		high = min(high, c.number(at+".prefixLength.max", l.Max, high, 0, high))
	} else if op == "Equal" || op == "NotEqual" {
		high = low
	}
	if low > high {
		c.add(at+".prefixLength", "holds for no prefix inside %s: write a min that is not above max, and a max of %d or more", p, p.Bits())
		return
	}
	out.CIDR, out.MinLen, out.MaxLen, out.Not = p, uint8(low), uint8(high), strings.HasPrefix(op, "Not")
}

func exampleRange(f cluster.Family) string {
	if f == cluster.IPv4 {
		return "10.0.0.0/8"
	}
	return "2001:db8::/32"
}

func (c *check) operations(at string, r *BGPFilterRule, out *cluster.FilterRule) {
	at += ".operations"
	if len(r.Operations) > 0 && r.Action == "Reject" {
		c.add(at, "cannot be combined with action Reject, which sends no route to change: leave them out")
		return
	}
	if len(r.Operations) > maxOperations {
		c.add(at, "has %d entries: write at most %d", len(r.Operations), maxOperations)
	}
	for i := range r.Operations {
		c.operation(at+"["+strconv.Itoa(i)+"]", &r.Operations[i], out)
	}
}

func (c *check) operation(at string, o *FilterOperation, out *cluster.FilterRule) {
	set := 0
	if a := o.AddCommunity; a != nil {
		set++
		out.AddCommunities = append(out.AddCommunities, c.community(at+".addCommunity.value", a.Value))
	}
	if p := o.PrependASPath; p != nil {
		set++
		if n := len(p.Prefix); n < 1 || n > maxPrepend {
			c.add(at+".prependASPath.prefix", "has %d entries: write 1 to %d AS numbers", n, maxPrepend)
		}
		var before []uint32
		for _, as := range p.Prefix {
			if as == 0 {
				c.add(at+".prependASPath.prefix", "0 is not the number of an AS (RFC 7607): write one from 1 to 4294967295")
			}
			before = append(before, uint32(as))
		}
		out.Prepend = append(before, out.Prepend...)
	}
	if p := o.SetPriority; p != nil {
		set++
		if p.Value == nil {
			c.add(at+".setPriority.value", "is missing: write a number from 1 to %d", maxPriority)
		}
		out.SetPriority = uint32(c.number(at+".setPriority.value", p.Value, 0, 1, maxPriority))
	}
	if set != 1 {
		c.add(at, "sets %d operations: write exactly one of addCommunity, prependASPath and setPriority", set)
	}
}

// community reads "aa:nn" or "aa:nn:mm".
func (c *check) community(field, s string) cluster.Community {
	v, err := ParseCommunity(s)
	if err != nil {
		c.add(field, "%s", err)
	}
	return v
}

// ParseCommunity reads a standard community, "65000:100", or a large one, "65000:1:2".
func ParseCommunity(s string) (cluster.Community, error) {
	parts := strings.Split(s, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	var n [3]uint64
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, max(bits, 1))
		if bits == 0 || err != nil || p != strconv.FormatUint(v, 10) {
			return cluster.Community{}, fmt.Errorf("%q is not a community: write two numbers up to %d, as in 65000:100, or three up to %d, as in 65000:1:2", s, math.MaxUint16, uint32(math.MaxUint32))
		}
		n[i] = v
	}
	return cluster.Community{Large: len(parts) == 3, A: uint32(n[0]), B: uint32(n[1]), C: uint32(n[2])}, nil
}

// interfacePattern reports whether s is what Calico takes for the name or pattern of an interface.
func interfacePattern(s string) bool {
	return len(s) > 0 && len(s) <= maxInterface && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.*-") == ""
}

// ranges reads a list of service ranges; empty entries are passed over, as in Calico.
func (c *check) ranges(field string, list []CIDRBlock) []netip.Prefix {
	var out []netip.Prefix
	for i, b := range list {
		if b.CIDR == "" {
			continue
		}
		if p := c.cidr(fmt.Sprintf("%s[%d].cidr", field, i), b.CIDR, "10.96.0.0/12"); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
