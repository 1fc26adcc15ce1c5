package bgp

import (
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/cluster"
)

// Equal reports whether two Configs ask for the same. Where values come from plays no part.
func (c *Config) Equal(d *Config) bool {
	return c.ASN == d.ASN && c.RouterID == d.RouterID && c.ListenPort == d.ListenPort && slices.Equal(c.ListenAddrs, d.ListenAddrs) &&
		slices.EqualFunc(c.Peers, d.Peers, func(a, b Peer) bool { return a.Equal(&b) }) && slices.Equal(c.Originate, d.Originate) && slices.Equal(c.Nodes, d.Nodes) && slices.Equal(c.Workloads, d.Workloads) &&
		c.Leaving == d.Leaving && c.Announce.Equal(d.Announce) && slices.Equal(c.Ways, d.Ways) && c.Nowhere.Equal(d.Nowhere) && slices.Equal(c.Reach, d.Reach)
}

// Equal reports whether two peers are the same, descriptions included.
func (p *Peer) Equal(q *Peer) bool {
	return p.Name == q.Name && p.Source == q.Source && p.Node == q.Node && p.BFD == q.BFD && p.KeepNextHop == q.KeepNextHop && p.SelfNextHop == q.SelfNextHop &&
		EqualRules(p.Import, q.Import) && EqualRules(p.Export, q.Export) && len(Resets(p, q)) == 0
}

// Resets returns what of a peer differs and can only be changed by a new session, in words. The rest (rules, next hops, names) is
// changed in place.
func Resets(p, q *Peer) []string {
	var why []string
	note := func(same bool, what string) {
		if !same {
			why = append(why, what)
		}
	}
	note(p.Addr == q.Addr, "address")
	note(p.Port == q.Port, "port")
	note(p.ASN == q.ASN, "AS number")
	note(p.LocalASN == q.LocalASN, "local AS number")
	note(p.LocalAddr == q.LocalAddr, "source address")
	note(p.Passive == q.Passive, "which side dials")
	note(p.RestartTime == q.RestartTime, "restart time")
	note(p.Keepalive == q.Keepalive, "keepalive time")
	note(p.TTLSecurity == q.TTLSecurity, "TTL security")
	note(p.MaxPrefixes == q.MaxPrefixes, "bound of prefixes")
	note(p.AllowOwnAS == q.AllowOwnAS, "allowed own AS numbers")
	note(p.Password == q.Password, "password")
	note((p.Held == "") == (q.Held == ""), "whether the session may start")
	note(p.Client == q.Client && p.ClusterID == q.ClusterID, "route reflection")
	if len(why) == 0 && p.Held != q.Held {
		why = append(why, "why the session may not start")
	}
	return why
}

// EqualRules reports whether two lists of rules are the same.
func EqualRules(a, b []Rule) bool {
	if len(a) > 0 && len(a) == len(b) && &a[0] == &b[0] {
		return true
	}
	return slices.EqualFunc(a, b, func(x, y Rule) bool {
		return x.Source == y.Source && cluster.EqualRules(&x.FilterRule, &y.FilterRule)
	})
}

// Equal reports whether two Announces decide alike; either may be nil.
func (a *Announce) Equal(b *Announce) bool {
	if a == nil || b == nil {
		return a == b
	}
	same := slices.Equal[[]netip.Prefix]
	return same(a.Hidden, b.Hidden) && cluster.EqualAdvertisements(a.Advertisements, b.Advertisements) && same(a.Own, b.Own) &&
		same(a.Services, b.Services) && same(a.Reflected, b.Reflected) && same(a.Pools, b.Pools) && a.Normal4 == b.Normal4 && a.Normal6 == b.Normal6
}
