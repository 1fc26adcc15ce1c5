package gobgp

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/caracal-net/caracal/bgp"
)

// program is what the rules of a Config are to GoBGP: one list of statements for what is received from any peer, and one for what is
// sent to any, with the sets they refer to. GoBGP has no lists of a single peer's outside route servers, so a statement names
// its peers by a set of addresses. The names of a program begin with its number, so that two can stand side by side while one takes the
// other's place.
//
// How the words of bgp.Rule become statements:
//
//   - a range is a set of one prefix with its lengths, inverted for Not;
//   - peerType and the family have been decided, for a session has one of each;
//   - "from remote peers" is asked as two statements, for internal and for external paths, because GoBGP can ask for a kind only;
//   - an interface is the set of the next hops that the host's own routes lead there, cut into disjoint ranges; what we
//     originate has no next hop, so there the matching prefixes are listed instead;
//   - an AS path towards eBGP peers begins with our own AS, which GoBGP has put there before it asks us;
//   - AS numbers of several kinds to be prepended take a statement for each run of equal ones; that the first of them held is
//     remembered by a community that the last one takes away. It is a random one, so that no peer can send it.
type program struct {
	name     string
	mark     string // the community of the last point
	sets     []*api.DefinedSet
	imports  []*api.Statement
	exports  []*api.Statement
	six      string    // name of the set of peers that may be sent IPv6 next hops of IPv4 prefixes
	elevated [2]string // names of the sets of elevated prefixes, IPv4 and IPv6; "" without an Announce
	refusers string    // name of the set of peers from whom stand-ins are kept (settle.go)
	refuse   bool      // what no statement decides about is not sent
}

// compile makes the program of a Config. elevated are learned prefixes inside our blocks that are to be sent all the same, six the peers that
// take IPv6 next hops of IPv4 prefixes.
func compile(cfg *bgp.Config, name, mark string, elevated []netip.Prefix, six []netip.Addr) *program {
	g := &program{name: name, mark: mark}
	g.standIns()
	g.nextHops(cfg)
	g.plainNextHops(cfg, six)
	g.nowhere(cfg.Nowhere)
	g.wellKnown(cfg)
	for _, group := range grouped(cfg, func(p *bgp.Peer) []bgp.Rule { return p.Import }) {
		r := ruleSet{g: g, cfg: cfg, peers: g.neighbours(group), first: &group[0], to: &g.imports}
		for i := range group[0].Import {
			r.rule(&group[0].Import[i])
		}
	}
	for _, group := range grouped(cfg, func(p *bgp.Peer) []bgp.Rule { return p.Export }) {
		r := ruleSet{g: g, cfg: cfg, peers: g.neighbours(group), first: &group[0], export: true, to: &g.exports}
		for i := range group[0].Export {
			r.rule(&group[0].Export[i])
		}
	}
	if cfg.Announce != nil {
		g.announce(cfg, elevated)
	} else if cfg.Leaving != bgp.Stays {
		g.export(&api.Conditions{}, accept(cfg))
	}
	return g
}

// accept is the action that sends a route. LocalPref stays out of it for a node that stays.
func accept(cfg *bgp.Config) *api.Actions {
	a := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	leave(cfg, a)
	return a
}

// leave has a route that is sent be the last choice where the node is leaving.
func leave(cfg *bgp.Config, a *api.Actions) {
	if cfg.Leaving != bgp.Stays {
		addCommunities(a, []bgp.Community{bgp.GracefulShutdown()})
		a.LocalPref = &api.LocalPrefAction{Value: bgp.ShutdownPref}
	}
}

// nowhere has paths whose next hop leads nowhere be the last choice (RFC 4271 section 9.1.2, first paragraph). GoBGP cannot be told that a next hop
// is out of reach, nor leave a path out and still tell us of it where it is the only one; but it puts paths with the community LLGR_STALE behind all
// others, and sends them to nobody. The MED keeps them from being equal to better ones, which are used together.
func (g *program) nowhere(n *bgp.Nowhere) {
	if n == nil {
		return
	}
	last := func(c *api.Conditions) {
		a := &api.Actions{Med: &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: math.MaxUint32}}
		addCommunities(a, []bgp.Community{bgp.LLGRStale()})
		g.imports = append(g.imports, &api.Statement{Name: g.next(), Conditions: c, Actions: a})
	}
	// What we originate has no next hop, and GoBGP has it go through here too.
	g.imports = append(g.imports, &api.Statement{Name: g.next(), Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}})
	always := []string{nobodyAtAll4, nobodyAtAll6}
	for _, a := range n.Own {
		always = append(always, netip.PrefixFrom(a, a.BitLen()).String())
	}
	for _, p := range n.Exact(n.Pools) {
		always = append(always, p.String())
	}
	last(&api.Conditions{NextHopInList: always})
	var ranges [2][]string // by family of the next hop
	for _, p := range n.Exact(n.Unresolved) {
		ranges[half6(p.Addr())] = append(ranges[half6(p.Addr())], p.String())
	}
	var tunnelled [2][]*api.Prefix
	for _, p := range n.Tunnelled {
		tunnelled[half6(p.Addr())] = append(tunnelled[half6(p.Addr())], within(p))
	}
	four, six := []*api.Family{apiFamily(netip.IPv4Unspecified())}, []*api.Family{apiFamily(netip.IPv6Unspecified())}
	last(&api.Conditions{AfiSafiIn: four, NextHopInList: []string{mapped}})
	last(&api.Conditions{AfiSafiIn: six, NextHopInList: []string{all4, mapped}})
	if len(tunnelled[0]) > 0 {
		c := &api.Conditions{AfiSafiIn: four, PrefixSet: any1(g.prefixes(tunnelled[0]...))}
		for _, p := range n.Exact([]netip.Prefix{all6}) {
			c.NextHopInList = append(c.NextHopInList, p.String())
		}
		last(c)
	}
	// IPv4 prefixes may have next hops of both families (RFC 8950).
	for i, f := range [...]struct {
		family []*api.Family
		ranges []string
	}{{four, slices.Concat(ranges[0], ranges[1])}, {six, ranges[1]}} {
		if len(f.ranges) == 0 {
			continue
		}
		c := &api.Conditions{AfiSafiIn: f.family, NextHopInList: f.ranges}
		if len(tunnelled[i]) > 0 {
			c.PrefixSet = &api.MatchSet{Type: api.MatchSet_TYPE_INVERT, Name: g.prefixes(tunnelled[i]...)}
		}
		last(c)
	}
}

// half6 is the place of an address's family: 0 IPv4, 1 IPv6.
func half6(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// All addresses of a family, and those of IPv6 that stand for addresses of IPv4 (RFC 4291 section 2.5.5.2).
var all6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

const (
	all4   = "0.0.0.0/0"
	mapped = "::ffff:0:0/96"
)

// The unspecified addresses, which are nobody's next hop.
const (
	nobodyAtAll4 = "0.0.0.0/32"
	nobodyAtAll6 = "::/128"
)

// wellKnown adds what well-known communities ask for, before any rule: what eBGP peers send that is about to go becomes the last choice (RFC
// 8326), and what was learned with NO_EXPORT and the like stays here (RFC 1997), of which GoBGP itself knows nothing.
func (g *program) wellKnown(cfg *bgp.Config) {
	var external []bgp.Peer
	for i := range cfg.Peers {
		if p := &cfg.Peers[i]; cfg.External(p) {
			external = append(external, *p)
		}
	}
	if len(external) > 0 {
		from := g.neighbours(external)
		g.imports = append(g.imports, &api.Statement{Name: g.next(),
			Conditions: &api.Conditions{NeighborSet: from, CommunitySet: g.communities(bgp.GracefulShutdown())},
			Actions:    &api.Actions{LocalPref: &api.LocalPrefAction{Value: bgp.ShutdownPref}}})
		g.keepLearned(&api.Conditions{NeighborSet: from, CommunitySet: g.communities(bgp.KeptInside()...)})
	}
	if cfg.Leaving >= bgp.Withdrawn {
		g.keepLearned(&api.Conditions{})
	}
	g.keepLearned(&api.Conditions{CommunitySet: g.communities(bgp.KeptHere()...)})
}

// keepLearned has learned routes not be sent where conditions hold.
func (g *program) keepLearned(c *api.Conditions) {
	for _, kind := range []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_INTERNAL, api.Conditions_ROUTE_TYPE_EXTERNAL} {
		of := proto.Clone(c).(*api.Conditions)
		of.RouteType = kind
		g.export(of, &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
	}
}

// communities is a set of standard communities, any of which may be there.
func (g *program) communities(list ...bgp.Community) *api.MatchSet {
	var words []string
	for _, c := range list {
		words = append(words, c.String())
	}
	return g.strings(api.DefinedType_DEFINED_TYPE_COMMUNITY, words...)
}

// grouped returns the peers that have rules, those together whose rules are one program.
func grouped(cfg *bgp.Config, rules func(*bgp.Peer) []bgp.Rule) [][]bgp.Peer {
	var groups [][]bgp.Peer
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if len(rules(p)) == 0 {
			continue
		}
		at := slices.IndexFunc(groups, func(g []bgp.Peer) bool {
			q := &g[0]
			return p.Addr.Is4() == q.Addr.Is4() && cfg.External(p) == cfg.External(q) && cfg.LocalAS(p) == cfg.LocalAS(q) && bgp.EqualRules(rules(p), rules(q))
		})
		if at < 0 {
			at, groups = len(groups), append(groups, nil)
		}
		groups[at] = append(groups[at], *p)
	}
	return groups
}

// next returns a name that is not taken yet.
func (g *program) next() string {
	return fmt.Sprintf("%s-%d", g.name, len(g.sets)+len(g.imports)+len(g.exports))
}

func (g *program) define(set *api.DefinedSet) string {
	set.Name = g.next()
	g.sets = append(g.sets, set)
	return set.Name
}

func (g *program) neighbours(peers []bgp.Peer) *api.MatchSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR}
	for i := range peers {
		set.List = append(set.List, hostOf(peers[i].Addr))
	}
	return any1(g.define(set))
}

func (g *program) prefixes(list ...*api.Prefix) string {
	return g.define(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Prefixes: list})
}

func (g *program) strings(kind api.DefinedType, list ...string) *api.MatchSet {
	return any1(g.define(&api.DefinedSet{DefinedType: kind, List: list}))
}

func any1(set string) *api.MatchSet { return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set} }

func (g *program) export(c *api.Conditions, a *api.Actions) {
	g.exports = append(g.exports, &api.Statement{Name: g.next(), Conditions: c, Actions: a})
}

// exactly and within are prefixes with their lengths.
func exactly(p netip.Prefix) *api.Prefix { return lengths(p, p.Bits(), p.Bits()) }
func within(p netip.Prefix) *api.Prefix  { return lengths(p, p.Bits(), p.Addr().BitLen()) }

func lengths(p netip.Prefix, low, high int) *api.Prefix {
	return &api.Prefix{IpPrefix: p.String(), MaskLengthMin: uint32(low), MaskLengthMax: uint32(high)}
}

// nextHops adds what nextHopMode asks for. It decides nothing and comes first.
func (g *program) nextHops(cfg *bgp.Config) {
	var self, keep []bgp.Peer
	for _, p := range cfg.Peers {
		switch {
		case p.SelfNextHop:
			self = append(self, p)
		case p.KeepNextHop:
			keep = append(keep, p)
		}
	}
	if len(self) > 0 {
		g.export(&api.Conditions{NeighborSet: g.neighbours(self)}, &api.Actions{Nexthop: &api.NexthopAction{Self: true}})
	}
	if len(keep) > 0 {
		g.export(&api.Conditions{NeighborSet: g.neighbours(keep)}, &api.Actions{Nexthop: &api.NexthopAction{Unchanged: true}})
	}
}

// announce adds bgp.Announce, for all peers alike.
func (g *program) announce(cfg *bgp.Config, elevated []netip.Prefix) {
	a := cfg.Announce
	g.refuse = true
	decide := func(list []netip.Prefix, as func(netip.Prefix) *api.Prefix, action api.RouteAction) {
		for _, set := range g.byFamily(list, as) {
			actions := &api.Actions{RouteAction: action}
			if action == api.RouteAction_ROUTE_ACTION_ACCEPT {
				actions = accept(cfg)
			}
			g.export(&api.Conditions{PrefixSet: any1(set)}, actions)
		}
	}
	decide(a.Hidden, within, api.RouteAction_ROUTE_ACTION_REJECT)
	for i := range a.Advertisements {
		actions := &api.Actions{}
		addCommunities(actions, a.Advertisements[i].Communities)
		g.export(&api.Conditions{PrefixSet: any1(g.prefixes(within(a.Advertisements[i].CIDR)))}, actions)
	}
	decide(a.Own, exactly, api.RouteAction_ROUTE_ACTION_ACCEPT)
	for i, nobody := range [...]netip.Prefix{nobody4, nobody6} {
		list := []*api.Prefix{exactly(nobody)} // a set must not be empty
		for _, p := range slices.Concat(elevated, elevatedOf(cfg)) {
			if p.Addr().Is4() == nobody.Addr().Is4() {
				list = append(list, exactly(p))
			}
		}
		g.elevated[i] = g.prefixes(list...)
		g.export(&api.Conditions{PrefixSet: any1(g.elevated[i])}, accept(cfg))
	}
	decide(a.Own, within, api.RouteAction_ROUTE_ACTION_REJECT)
	for _, set := range g.byFamily(a.Services, within) {
		g.export(&api.Conditions{PrefixSet: any1(set), RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, accept(cfg))
	}
	decide(a.Reflected, within, api.RouteAction_ROUTE_ACTION_ACCEPT)
	decide(a.Services, within, api.RouteAction_ROUTE_ACTION_REJECT)
	decide(a.Pools, within, api.RouteAction_ROUTE_ACTION_ACCEPT)
}

// Prefixes that are never routed.
var (
	nobody4 = netip.MustParsePrefix("255.255.255.255/32")
	nobody6 = netip.MustParsePrefix("::/128")
)

// elevatedOf returns our own elevated routes inside our blocks.
func elevatedOf(cfg *bgp.Config) []netip.Prefix {
	var out []netip.Prefix
	for i := range cfg.Originate {
		if o := &cfg.Originate[i]; cfg.Announce.ElevatedInside(o.Prefix, o.LocalPref) {
			out = append(out, o.Prefix)
		}
	}
	return out
}

// byFamily defines up to two sets, for GoBGP's hold one family.
func (g *program) byFamily(list []netip.Prefix, as func(netip.Prefix) *api.Prefix) []string {
	var v4, v6 []*api.Prefix
	for _, p := range list {
		if p.Addr().Is4() {
			v4 = append(v4, as(p))
		} else {
			v6 = append(v6, as(p))
		}
	}
	var out []string
	for _, l := range [][]*api.Prefix{v4, v6} {
		if len(l) > 0 {
			out = append(out, g.prefixes(l...))
		}
	}
	return out
}

func addCommunities(to *api.Actions, list []bgp.Community) {
	for _, c := range list {
		at := &to.Community
		if c.Large {
			at = &to.LargeCommunity
		}
		if *at == nil {
			*at = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD}
		}
		(*at).Communities = append((*at).Communities, c.String())
	}
}
