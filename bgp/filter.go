package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Words of package cluster that a Config holds, so that the Speaker need not know that package.
type (
	// Community is a standard or large community.
	Community = cluster.Community
	// FilterRule is one rule of a BGPFilter.
	FilterRule = cluster.FilterRule
	// Advertisement says which communities the prefixes inside a range carry.
	Advertisement = cluster.Advertisement
)

// Rule is a rule as one session applies it: what depends on the session alone (peerType, the family) has been decided.
type Rule struct {
	FilterRule
	Source string // "BGPFilter rack spec.exportV4[2]"
}

// Announce is the second half of what decides about a route to a peer, after the peer's own rules (reference: confd's
// calico_export_to_bgp_peers). Every list is sorted and holds each prefix once.
type Announce struct {
	Hidden         []netip.Prefix  // pools with disableBGPExport: nothing inside is sent
	Advertisements []Advertisement // communities, added before the rest decides
	Own            []netip.Prefix  // our confirmed blocks: sent whole; of what is inside, only elevated routes
	Services       []netip.Prefix  // service ranges: what we originate inside is sent, what was learned is not
	Reflected      []netip.Prefix  // service ranges of which a reflector passes on what was learned
	Pools          []netip.Prefix  // all other pools: everything inside is sent
	// Normal4 and Normal6 are the metric of ordinary routes; a lower one is elevated.
	Normal4, Normal6 uint32
}

// Elevated reports whether LOCAL_PREF stands for a metric below the ordinary one.
func (a *Announce) Elevated(p netip.Prefix, pref uint32) bool {
	n := a.Normal4
	if p.Addr().Is6() {
		n = a.Normal6
	}
	return pref > MaxPref-n
}

// ElevatedInside reports whether a route lies inside one of our blocks, is not the block, and is announced all the same.
func (a *Announce) ElevatedInside(p netip.Prefix, pref uint32) bool {
	if !a.Elevated(p, pref) {
		return false
	}
	block, ok := cover(a.Own, p)
	return ok && block != p
}

// Way is one of the host's own routes: Device is where it leads, "" for nowhere.
type Way struct {
	Prefix netip.Prefix
	Device string
}

// Route is what rules look at and change.
type Route struct {
	Prefix      netip.Prefix
	NextHop     netip.Addr // as received; of no meaning unless Learned
	Learned     bool       // by BGP; otherwise we originate it
	Interface   string     // of a route that is not Learned
	LocalPref   uint32
	ASPath      []uint32
	Communities []Community
}

// Verdict is the fate of a route and what decided.
type Verdict struct {
	Accept bool
	By     string
}

// RouteOf returns the route that a path is to rules.
func RouteOf(p *Path) Route {
	return Route{Prefix: p.Prefix, NextHop: p.NextHop, Learned: true, LocalPref: p.LocalPref, ASPath: p.ASPath, Communities: p.Communities}
}

// RouteFrom returns the route that an origination is to rules.
func RouteFrom(o *Origination) Route {
	return Route{Prefix: o.Prefix, Interface: o.Interface, LocalPref: o.LocalPref}
}

// LocalAS returns our AS towards a peer.
func (c *Config) LocalAS(p *Peer) uint32 { return cmp.Or(p.LocalASN, c.ASN) }

// External reports whether the session is eBGP.
func (c *Config) External(p *Peer) bool { return c.LocalAS(p) != p.ASN }

// Accept decides about a route received from a peer. It is the plain form of what the Speaker has its engine do.
// A route with the community GRACEFUL_SHUTDOWN from an eBGP peer becomes the last choice first (RFC 8326 section 4.2); a rule that sets a priority goes
// further. A route whose next hop leads nowhere gets the community LLGR_STALE, which makes it the very last choice.
func (c *Config) Accept(p *Peer, r Route) (Route, Verdict) {
	if c.Nowhere.Why(r.Prefix, r.NextHop) != "" {
		r.Communities = with(r.Communities, []Community{LLGRStale()})
	}
	if c.External(p) && slices.Contains(r.Communities, GracefulShutdown()) {
		r.LocalPref = ShutdownPref
	}
	if r, v, ok := c.apply(p.Import, r); ok {
		return r, v
	}
	return r, Verdict{Accept: true, By: "nothing is refused by default"}
}

// Send decides about a route to a peer, before the peer's kind adds or takes anything (our AS, LOCAL_PREF, the next hop). It is the
// plain form of what the Speaker has its engine do.
func (c *Config) Send(p *Peer, r Route) (Route, Verdict) {
	if by := c.keptBack(p, &r); by != "" {
		return r, Verdict{By: by}
	}
	out, v, ok := c.apply(p.Export, r)
	switch {
	case ok:
	case c.Announce == nil:
		v = Verdict{Accept: true, By: "nothing is kept back"}
	default:
		out, v = c.Announce.decide(r)
	}
	if v.Accept && slices.Contains(out.Communities, LLGRStale()) {
		return r, Verdict{By: "community LLGR_STALE (RFC 9494)"}
	}
	if v.Accept {
		out = c.leave(out)
	}
	return out, v
}

// apply runs rules until one decides.
func (c *Config) apply(rules []Rule, r Route) (Route, Verdict, bool) {
	for i := range rules {
		if rule := &rules[i]; c.matches(rule, &r) {
			return changed(rule, r), Verdict{Accept: rule.Accept, By: rule.Source}, true
		}
	}
	return r, Verdict{}, false
}

func (c *Config) matches(rule *Rule, r *Route) bool {
	switch {
	case rule.CIDR.IsValid() && InRange(&rule.FilterRule, r.Prefix) == rule.Not,
		rule.RemotePeers && !r.Learned,
		rule.Interface != "" && !Matches(rule.Interface, c.interfaceOf(r)),
		rule.Community != (Community{}) && !slices.Contains(r.Communities, rule.Community),
		len(rule.ASPathPrefix) > len(r.ASPath) || !slices.Equal(rule.ASPathPrefix, r.ASPath[:len(rule.ASPathPrefix)]),
		rule.Priority != 0 && r.LocalPref != MaxPref-rule.Priority:
		return false
	}
	return true
}

// InRange reports whether a prefix lies in a rule's range, whatever the rule makes of that.
func InRange(rule *FilterRule, p netip.Prefix) bool {
	return inside(p, rule.CIDR) && int(rule.MinLen) <= p.Bits() && p.Bits() <= int(rule.MaxLen)
}

// inside reports whether all of p lies in q.
func inside(p, q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }

// Matches reports whether the name of an interface matches a pattern, in which * stands for any characters.
func Matches(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, head)
	if !ok {
		return false
	}
	for i := 0; i <= len(name); i++ {
		if Matches(rest, name[i:]) {
			return true
		}
	}
	return false
}

// interfaceOf returns the interface a route leaves by: for a path, the one of the host's own route to its next hop.
func (c *Config) interfaceOf(r *Route) string {
	if !r.Learned {
		return r.Interface
	}
	best, device := -1, ""
	for _, w := range c.Ways {
		if w.Prefix.Contains(r.NextHop) && w.Prefix.Bits() > best {
			best, device = w.Prefix.Bits(), w.Device
		}
	}
	return device
}

// changed returns the route with a rule's operations done. Slices are made anew, for the old ones are shared.
func changed(rule *Rule, r Route) Route {
	if len(rule.AddCommunities) > 0 {
		r.Communities = with(r.Communities, rule.AddCommunities)
	}
	if len(rule.Prepend) > 0 {
		r.ASPath = slices.Concat(rule.Prepend, r.ASPath)
	}
	if rule.SetPriority != 0 {
		r.LocalPref = MaxPref - rule.SetPriority
	}
	return r
}

// with returns a set of communities with more of them.
func with(set, more []Community) []Community {
	set = slices.Clone(set)
	for _, c := range more {
		if !slices.Contains(set, c) {
			set = append(set, c)
		}
	}
	return set
}

func (a *Announce) decide(r Route) (Route, Verdict) {
	if p, ok := cover(a.Hidden, r.Prefix); ok {
		return r, Verdict{By: fmt.Sprintf("IPPool of %s: disableBGPExport", p)}
	}
	for i := range a.Advertisements {
		if inside(r.Prefix, a.Advertisements[i].CIDR) {
			r.Communities = with(r.Communities, a.Advertisements[i].Communities)
		}
	}
	if p, ok := cover(a.Own, r.Prefix); ok {
		switch {
		case p == r.Prefix:
			return r, Verdict{Accept: true, By: "own block"}
		case a.Elevated(r.Prefix, r.LocalPref):
			return r, Verdict{Accept: true, By: fmt.Sprintf("elevated route inside own block %s", p)}
		}
		return r, Verdict{By: fmt.Sprintf("own block %s is announced whole", p)}
	}
	if p, ok := cover(a.Services, r.Prefix); ok && !r.Learned {
		return r, Verdict{Accept: true, By: fmt.Sprintf("service range %s", p)}
	}
	if p, ok := cover(a.Reflected, r.Prefix); ok {
		return r, Verdict{Accept: true, By: fmt.Sprintf("service range %s, passed on by a route reflector", p)}
	}
	if p, ok := cover(a.Services, r.Prefix); ok {
		return r, Verdict{By: fmt.Sprintf("service range %s: another node announces that by itself", p)}
	}
	if p, ok := cover(a.Pools, r.Prefix); ok {
		return r, Verdict{Accept: true, By: fmt.Sprintf("IPPool of %s", p)}
	}
	return r, Verdict{By: "outside every pool and service range"}
}

// cover returns the longest member of a list that holds all of p.
func cover(list []netip.Prefix, p netip.Prefix) (found netip.Prefix, ok bool) {
	for _, q := range list {
		if inside(p, q) && (!ok || q.Bits() > found.Bits()) {
			found, ok = q, true
		}
	}
	return found, ok
}
