package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Difference is what one Config would change of another. All lists are sorted.
type Difference struct {
	// Restart, when not empty, says what of the node itself differs, for which every session is begun anew. Routes are kept over
	// that (RFC 4724).
	Restart []string
	Added   []string // sessions that are new, by name
	Removed []string
	Reset   []Reset        // sessions that go down and come back
	Refresh []Reset        // sessions that stay up, with other rules or next hops
	Appear  []netip.Prefix // originations
	Vanish  []netip.Prefix
	// Peers lists by session what of the originations is sent to it that was not before, or no more. Sessions to which the
	// same change happens as to all others of their kind are listed too.
	Peers []PeerDifference
}

// Reset is a session and why it changes.
type Reset struct {
	Peer string
	Why  []string
}

// PeerDifference is what changes in what is sent to one peer.
type PeerDifference struct {
	Peer    string
	Appear  []netip.Prefix
	Vanish  []netip.Prefix
	Changed []netip.Prefix // sent before and after, with other attributes
}

// Diff returns what going from a to b would do, before anything is done. Routes learned from peers are not known here, so of
// prefixes only our own are told.
func Diff(a, b *Config) Difference {
	var d Difference
	note := func(same bool, what string) {
		if !same {
			d.Restart = append(d.Restart, what)
		}
	}
	note(a.ASN == b.ASN, fmt.Sprintf("AS number %d -> %d", a.ASN, b.ASN))
	note(a.RouterID == b.RouterID, fmt.Sprintf("router id %s -> %s", a.RouterID, b.RouterID))
	note(a.ListenPort == b.ListenPort, fmt.Sprintf("listening port %d -> %d", a.ListenPort, b.ListenPort))
	note(slices.Equal(a.ListenAddrs, b.ListenAddrs), fmt.Sprintf("listening addresses %v -> %v", a.ListenAddrs, b.ListenAddrs))
	was, is := byAddr(a.Peers), byAddr(b.Peers)
	for i := range b.Peers {
		p := &b.Peers[i]
		if o := was[p.Addr]; o == nil {
			d.Added = append(d.Added, p.Name)
		} else if why := Resets(o, p); len(why) > 0 {
			d.Reset = append(d.Reset, Reset{Peer: p.Name, Why: why})
		} else if why := refreshes(o, p); len(why) > 0 {
			d.Refresh = append(d.Refresh, Reset{Peer: p.Name, Why: why})
		}
		if pd := sent(a, was[p.Addr], b, p); len(pd.Appear)+len(pd.Vanish)+len(pd.Changed) > 0 {
			d.Peers = append(d.Peers, pd)
		}
	}
	for i := range a.Peers {
		if is[a.Peers[i].Addr] == nil {
			d.Removed = append(d.Removed, a.Peers[i].Name)
		}
	}
	d.Appear, d.Vanish = only(b.Originate, a.Originate), only(a.Originate, b.Originate)
	return d
}

func byAddr(peers []Peer) map[netip.Addr]*Peer {
	m := make(map[netip.Addr]*Peer, len(peers))
	for i := range peers {
		m[peers[i].Addr] = &peers[i]
	}
	return m
}

func refreshes(p, q *Peer) []string {
	var why []string
	if !EqualRules(p.Import, q.Import) {
		why = append(why, "import rules")
	}
	if !EqualRules(p.Export, q.Export) {
		why = append(why, "export rules")
	}
	if p.KeepNextHop != q.KeepNextHop || p.SelfNextHop != q.SelfNextHop {
		why = append(why, "next hop mode")
	}
	return why
}

// sent compares what two Configs send of their own to one peer; p is nil for a session that is new.
func sent(a *Config, p *Peer, b *Config, q *Peer) PeerDifference {
	d := PeerDifference{Peer: q.Name}
	var before map[netip.Prefix]Route
	if p != nil {
		before = a.own(p)
	}
	after := b.own(q)
	for prefix, r := range after {
		switch o, had := before[prefix]; {
		case !had:
			d.Appear = append(d.Appear, prefix)
		case !SameAttributes(&o, &r):
			d.Changed = append(d.Changed, prefix)
		}
	}
	for prefix := range before {
		if _, has := after[prefix]; !has {
			d.Vanish = append(d.Vanish, prefix)
		}
	}
	for _, list := range [][]netip.Prefix{d.Appear, d.Vanish, d.Changed} {
		slices.SortFunc(list, netip.Prefix.Compare)
	}
	return d
}

// own returns what is sent of our own to a peer that may be up.
func (c *Config) own(p *Peer) map[netip.Prefix]Route {
	out := make(map[netip.Prefix]Route)
	if p.Held != "" {
		return out
	}
	for i := range c.Originate {
		o := &c.Originate[i]
		if o.Prefix.Addr().Is4() != p.Addr.Is4() {
			continue
		}
		if r, v := c.Send(p, RouteFrom(o)); v.Accept {
			if c.External(p) {
				r.LocalPref = 0 // is not sent
			}
			out[o.Prefix] = r
		}
	}
	return out
}

// SameAttributes reports whether two routes to one prefix are told a peer in the same words.
func SameAttributes(a, b *Route) bool {
	if a.LocalPref != b.LocalPref || !slices.Equal(a.ASPath, b.ASPath) || len(a.Communities) != len(b.Communities) {
		return false
	}
	for _, c := range a.Communities {
		if !slices.Contains(b.Communities, c) {
			return false
		}
	}
	return true
}

func only(a, b []Origination) []netip.Prefix {
	has := make(map[netip.Prefix]struct{}, len(b))
	for i := range b {
		has[b[i].Prefix] = struct{}{}
	}
	var out []netip.Prefix
	for i := range a {
		if _, ok := has[a[i].Prefix]; !ok {
			out = append(out, a[i].Prefix)
		}
	}
	return out
}

// Empty reports whether nothing at all changes.
func (d *Difference) Empty() bool {
	return len(d.Restart)+len(d.Added)+len(d.Removed)+len(d.Reset)+len(d.Refresh)+len(d.Appear)+len(d.Vanish)+len(d.Peers) == 0
}

// String writes the difference as text, a line for each change; "" where there is none.
func (d *Difference) String() string {
	var b strings.Builder
	for _, s := range d.Restart {
		fmt.Fprintf(&b, "every session is begun anew, routes are kept meanwhile: %s\n", s)
	}
	for _, s := range d.Added {
		fmt.Fprintf(&b, "session + %s\n", s)
	}
	for _, s := range d.Removed {
		fmt.Fprintf(&b, "session - %s\n", s)
	}
	for _, r := range d.Reset {
		fmt.Fprintf(&b, "session ! %s is reset: %s\n", r.Peer, strings.Join(r.Why, ", "))
	}
	for _, r := range d.Refresh {
		fmt.Fprintf(&b, "session ~ %s stays up: %s\n", r.Peer, strings.Join(r.Why, ", "))
	}
	for _, p := range d.Appear {
		fmt.Fprintf(&b, "prefix  + %s\n", p)
	}
	for _, p := range d.Vanish {
		fmt.Fprintf(&b, "prefix  - %s\n", p)
	}
	for i := range d.Peers {
		p := &d.Peers[i]
		writePrefixes(&b, p.Peer, "+", p.Appear)
		writePrefixes(&b, p.Peer, "-", p.Vanish)
		writePrefixes(&b, p.Peer, "~", p.Changed)
	}
	return b.String()
}

func writePrefixes(b *strings.Builder, peer, sign string, list []netip.Prefix) {
	for _, p := range list {
		fmt.Fprintf(b, "to %s %s %s\n", peer, sign, p)
	}
}
