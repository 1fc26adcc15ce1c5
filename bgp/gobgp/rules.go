package gobgp

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/caracal-net/caracal/bgp"
)

// ruleSet turns the rules of one group of peers into statements.
type ruleSet struct {
	g      *program
	cfg    *bgp.Config
	peers  *api.MatchSet
	first  *bgp.Peer // stands for all of the group
	export bool
	to     *[]*api.Statement
}

func (s *ruleSet) statement(c *api.Conditions, a *api.Actions) {
	*s.to = append(*s.to, &api.Statement{Name: s.g.next(), Conditions: c, Actions: a})
}

// rule adds one rule.
func (s *ruleSet) rule(r *bgp.Rule) {
	for _, c := range s.conditions(r) {
		s.actions(r, c)
	}
}

// conditions returns the rule's conditions, as alternatives of which at most one holds; none if the rule cannot hold.
func (s *ruleSet) conditions(r *bgp.Rule) []*api.Conditions {
	c := &api.Conditions{NeighborSet: s.peers}
	if r.CIDR.IsValid() {
		c.PrefixSet = any1(s.g.prefixes(lengths(r.CIDR, int(r.MinLen), int(r.MaxLen))))
		if r.Not {
			c.PrefixSet.Type = api.MatchSet_TYPE_INVERT
		}
	}
	switch {
	case r.Community == (bgp.Community{}):
	case r.Community.Large:
		c.LargeCommunitySet = s.g.strings(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, r.Community.String())
	default:
		c.CommunitySet = s.g.strings(api.DefinedType_DEFINED_TYPE_COMMUNITY, r.Community.String())
	}
	if len(r.ASPathPrefix) > 0 {
		c.AsPathSet = s.g.strings(api.DefinedType_DEFINED_TYPE_AS_PATH, s.pathPatterns(r.ASPathPrefix)...)
	}
	if r.Priority != 0 {
		c.LocalPrefEq = &api.LocalPrefEq{Value: bgp.MaxPref - r.Priority}
	}
	var through []string
	if r.Interface != "" {
		through = hopsThrough(s.cfg.Ways, r.Interface, false)
		if s.first.Addr.Is4() { // whose prefixes have next hops of both families (RFC 8950)
			through = append(through, hopsThrough(s.cfg.Ways, r.Interface, true)...)
		}
	}
	switch {
	case !s.export && r.Interface != "":
		if len(through) == 0 {
			return nil
		}
		c.NextHopInList = through
		return []*api.Conditions{c}
	case !s.export, !r.RemotePeers && r.Interface == "":
		return []*api.Conditions{c}
	}
	return s.byKind(r, c, through)
}

// byKind splits conditions by where a route comes from.
func (s *ruleSet) byKind(r *bgp.Rule, c *api.Conditions, through []string) []*api.Conditions {
	var out []*api.Conditions
	if !r.RemotePeers {
		if own := s.ownThrough(r); len(own) > 0 {
			local := proto.Clone(c).(*api.Conditions)
			local.RouteType = api.Conditions_ROUTE_TYPE_LOCAL
			local.PrefixSet = any1(s.g.prefixes(own...))
			out = append(out, local)
		}
	}
	if r.Interface != "" && len(through) == 0 {
		return out
	}
	for _, kind := range []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_INTERNAL, api.Conditions_ROUTE_TYPE_EXTERNAL} {
		remote := proto.Clone(c).(*api.Conditions)
		remote.RouteType = kind
		remote.NextHopInList = through
		out = append(out, remote)
	}
	return out
}

// ownThrough returns those of our own prefixes that leave by a rule's interface and lie in its range.
func (s *ruleSet) ownThrough(r *bgp.Rule) []*api.Prefix {
	var out []*api.Prefix
	for i := range s.cfg.Originate {
		o := &s.cfg.Originate[i]
		if o.Prefix.Addr().Is4() != s.first.Addr.Is4() || !bgp.Matches(r.Interface, o.Interface) || r.CIDR.IsValid() && bgp.InRange(&r.FilterRule, o.Prefix) == r.Not {
			continue
		}
		out = append(out, exactly(o.Prefix))
	}
	return out
}

// pathPatterns are the regular expressions of paths that begin with these numbers; _ stands for a boundary. What eBGP peers are sent begins with our own AS, but
// without it does GoBGP ask about the former best path, to find out whether there is anything to withdraw.
func (s *ruleSet) pathPatterns(prefix []uint32) []string {
	var b strings.Builder
	for _, as := range prefix {
		fmt.Fprintf(&b, "%d_", as)
	}
	bare := "^" + b.String()
	if !s.export || !s.cfg.External(s.first) {
		return []string{bare}
	}
	own := s.cfg.LocalAS(s.first)
	sent := fmt.Sprintf("^%d_%s", own, b.String())
	if prefix[0] == own {
		return []string{sent} // else it would hold of whatever is sent; and no path that was learned begins so
	}
	return []string{sent, bare}
}

// actions adds the statements that do what a rule asks for where the conditions hold.
func (s *ruleSet) actions(r *bgp.Rule, c *api.Conditions) {
	last := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT}
	if r.Accept {
		last.RouteAction = api.RouteAction_ROUTE_ACTION_ACCEPT
	}
	if r.SetPriority != 0 {
		last.LocalPref = &api.LocalPrefAction{Value: bgp.MaxPref - r.SetPriority}
	}
	before := runs(s.prepended(r.Prepend))
	if len(before) > 1 {
		first := &api.Actions{AsPrepend: before[len(before)-1]}
		addCommunities(first, r.AddCommunities)
		addMark(first, s.g.mark)
		s.statement(c, first)
		c = &api.Conditions{NeighborSet: s.peers, LargeCommunitySet: s.g.strings(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, s.g.mark)}
		for i := len(before) - 2; i > 0; i-- {
			s.statement(c, &api.Actions{AsPrepend: before[i]})
		}
		last.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{s.g.mark}}
	} else {
		addCommunities(last, r.AddCommunities)
	}
	if len(before) > 0 {
		last.AsPrepend = before[0]
	}
	if s.export && r.Accept {
		leave(s.cfg, last)
	}
	s.statement(c, last)
}

func addMark(to *api.Actions, mark string) {
	if to.LargeCommunity == nil {
		to.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD}
	}
	to.LargeCommunity.Communities = append(to.LargeCommunity.Communities, mark)
}

// prepended returns what goes before a path as GoBGP has it. Towards an eBGP peer our own AS stands there already and must come
// first all the same: if the list ends with it, that one serves, else it is there once more (bgp.ExactPrepend).
func (s *ruleSet) prepended(list []uint32) []uint32 {
	if len(list) == 0 || !s.export || !s.cfg.External(s.first) {
		return list
	}
	own := s.cfg.LocalAS(s.first)
	if bgp.ExactPrepend(list, own) {
		list = list[:len(list)-1]
	}
	return append([]uint32{own}, list...)
}

// runs returns the runs of equal numbers of a list, in order.
func runs(list []uint32) []*api.AsPrependAction {
	var out []*api.AsPrependAction
	for _, as := range list {
		if n := len(out); n > 0 && out[n-1].Asn == as {
			out[n-1].Repeat++
			continue
		}
		out = append(out, &api.AsPrependAction{Asn: as, Repeat: 1})
	}
	return out
}

// hopsThrough returns disjoint ranges that hold exactly the addresses which the longest of the host's own routes leads to through an
// interface of that pattern.
func hopsThrough(ways []bgp.Way, pattern string, v4 bool) []string {
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if v4 {
		all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	var out []string
	cut(all, ways, bgp.Matches(pattern, ""), pattern, &out)
	return out
}

// cut adds the parts of p that match. in is what the next longer route around p says.
func cut(p netip.Prefix, ways []bgp.Way, in bool, pattern string, out *[]string) {
	var inside []bgp.Way
	for _, w := range ways {
		switch {
		case w.Prefix == p:
			in = bgp.Matches(pattern, w.Device)
		case p.Addr().Is4() == w.Prefix.Addr().Is4() && w.Prefix.Bits() > p.Bits() && p.Contains(w.Prefix.Addr()):
			inside = append(inside, w)
		}
	}
	if len(inside) == 0 {
		if in {
			*out = append(*out, p.String())
		}
		return
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	cut(low, inside, in, pattern, out)
	cut(netip.PrefixFrom(upper(p), p.Bits()+1), inside, in, pattern, out)
}

// upper returns the first address of the second half of a prefix.
func upper(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return a
}
