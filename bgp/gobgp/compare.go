package gobgp

import (
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// comparison finds which peers would be sent something else by another Config, so that no others are troubled: most changes are
// a block more of our own, which concerns nothing that was sent before.
type comparison struct {
	was, is *bgp.Config
	ways    bool                       // the host's own routes differ
	all     bool                       // any route may be concerned, not just those inside touched
	touched []netip.Prefix             // ranges that are in one Announce only
	old     map[netip.Prefix]bgp.Route // originations before
	now     map[netip.Prefix]bgp.Route
	learned []bgp.Learned // that touched lets through
	sources map[netip.Addr]*bgp.Peer
	known   []known
}

// known is an answer for peers of a kind.
type known struct {
	old, now *bgp.Peer
	differs  bool
}

func (s *Speaker) comparison(was, is *bgp.Config) *comparison {
	c := &comparison{
		was: was, is: is, ways: !slices.Equal(was.Ways, is.Ways),
		old: routesOf(was.Originate), now: routesOf(is.Originate), sources: make(map[netip.Addr]*bgp.Peer, len(is.Peers)),
	}
	a, b := was.Announce, is.Announce
	switch {
	case was.Leaving != is.Leaving:
		c.all = true
	case a == nil || b == nil:
		c.all = a != b
	default:
		c.all = a.Normal4 != b.Normal4 || a.Normal6 != b.Normal6 || !slices.EqualFunc(a.Advertisements, b.Advertisements, func(x, y bgp.Advertisement) bool {
			return x.CIDR == y.CIDR && slices.Equal(x.Communities, y.Communities)
		})
		for _, pair := range [][2][]netip.Prefix{{a.Hidden, b.Hidden}, {a.Own, b.Own}, {a.Services, b.Services}, {a.Reflected, b.Reflected}, {a.Pools, b.Pools}} {
			c.touched = append(c.touched, oneOnly(pair[0], pair[1])...)
		}
	}
	for i := range is.Peers {
		c.sources[is.Peers[i].Addr] = &is.Peers[i]
	}
	s.feed.each(func(p netip.Prefix, paths []bgp.Path) {
		c.learned = append(c.learned, bgp.Learned{Prefix: p, Paths: paths})
	})
	return c
}

func routesOf(list []bgp.Origination) map[netip.Prefix]bgp.Route {
	out := make(map[netip.Prefix]bgp.Route, len(list))
	for i := range list {
		out[list[i].Prefix] = bgp.RouteFrom(&list[i])
	}
	return out
}

// oneOnly returns what is in one of two sorted lists only.
func oneOnly(a, b []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, pair := range [][2][]netip.Prefix{{a, b}, {b, a}} {
		for _, p := range pair[0] {
			if _, found := slices.BinarySearchFunc(pair[1], p, netip.Prefix.Compare); !found {
				out = append(out, p)
			}
		}
	}
	return out
}

// differs reports whether anything that may have been sent to a peer is now kept back, changed or let through.
func (c *comparison) differs(old, now *bgp.Peer) bool {
	same := old.KeepNextHop == now.KeepNextHop && old.SelfNextHop == now.SelfNextHop
	if !same {
		return true
	}
	rules := !bgp.EqualRules(old.Export, now.Export) || c.ways && asks(now.Export)
	if !rules && !c.all && len(c.touched) == 0 {
		return false
	}
	for _, k := range c.known {
		if k.now.Addr.Is4() == now.Addr.Is4() && k.now.Client == now.Client && c.is.External(k.now) == c.is.External(now) &&
			bgp.EqualRules(k.old.Export, old.Export) && bgp.EqualRules(k.now.Export, now.Export) {
			return k.differs
		}
	}
	d := c.ask(old, now, rules || c.all)
	c.known = append(c.known, known{old, now, d})
	return d
}

func (c *comparison) ask(old, now *bgp.Peer, everything bool) bool {
	concerns := func(p netip.Prefix) bool {
		return p.Addr().Is4() == now.Addr.Is4() && (everything || slices.ContainsFunc(c.touched, func(t netip.Prefix) bool {
			return t.Bits() <= p.Bits() && t.Contains(p.Addr())
		}))
	}
	for p, r := range c.now {
		if o, had := c.old[p]; had && concerns(p) && c.otherwise(old, now, o, r) {
			return true
		}
	}
	return slices.ContainsFunc(c.learned, func(l bgp.Learned) bool {
		return concerns(l.Prefix) && slices.ContainsFunc(l.Paths, func(path bgp.Path) bool {
			path.Prefix = l.Prefix
			r := bgp.RouteOf(&path)
			return c.passedOn(&path, now) && c.otherwise(old, now, r, r)
		})
	})
}

// passedOn reports whether paths of a source are for peers of a kind at all (RFC 4271 section 9.2, RFC 4456 section 6). That none goes back to where
// it came from is left aside: the answer is kept for other peers of the kind.
func (c *comparison) passedOn(path *bgp.Path, to *bgp.Peer) bool {
	from := c.sources[path.PeerAddr]
	return from == nil || c.is.External(to) || to.Client || from.Client || c.is.External(from)
}

// movesNowhere reports whether a peer has sent a path whose next hop leads nowhere by one Config only.
func (s *Speaker) movesNowhere(was, is *bgp.Config, p *bgp.Peer) bool {
	if was.Nowhere.Equal(is.Nowhere) {
		return false
	}
	moves := false
	req := apiutil.ListPathRequest{TableType: received, Name: p.Addr.String(), Family: family(p.Addr)}
	err := s.srv.ListPath(req, func(nlri gobgp.NLRI, paths []*apiutil.Path) {
		for _, path := range paths {
			if prefix := prefixOf(nlri); !moves && prefix.IsValid() {
				gw := nextHopOf(path.Attrs)
				moves = (was.Nowhere.Why(prefix, gw) == "") != (is.Nowhere.Why(prefix, gw) == "")
			}
		}
	})
	return moves || err != nil
}

// otherwise reports whether a route meets another fate than before.
func (c *comparison) otherwise(old, now *bgp.Peer, before, after bgp.Route) bool {
	x, v := c.was.Send(old, before)
	y, w := c.is.Send(now, after)
	return v.Accept != w.Accept || v.Accept && !bgp.SameAttributes(&x, &y)
}
