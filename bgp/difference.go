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
	Down    []Reset        // sessions that may not start, and why; those that run go down and stay down
	Refresh []Reset        // sessions that stay up, with other rules or next hops
	Appear  []netip.Prefix // originations
	Vanish  []netip.Prefix
	// Peers lists by session what of the originations is sent to it that was not before, or no more. Sessions to which the
	// same change happens as to all others of their kind are listed too.
	Peers []PeerDifference
	// Received lists by session what is let in that was not, or no more: of nodes what they originate, of others what they send now.
	Received []PeerDifference
	// Elected and Relieved are route reflectors of the mesh that are elected, and that are no more.
	Elected, Relieved []Reflector
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
	d := Difference{Restart: restarts(a, b)}
	was, is := byAddr(a.Peers), byAddr(b.Peers)
	for i := range b.Peers {
		p := &b.Peers[i]
		if o := was[p.Addr]; p.Held != "" {
			if o == nil || o.Held != p.Held {
				d.Down = append(d.Down, Reset{Peer: p.Name, Why: []string{p.Held}})
			}
		} else if o == nil || o.Held != "" {
			d.Added = append(d.Added, p.Name)
		} else if why := Resets(o, p); len(why) > 0 {
			d.Reset = append(d.Reset, Reset{Peer: p.Name, Why: why})
		} else if why := refreshes(o, p); len(why) > 0 {
			d.Refresh = append(d.Refresh, Reset{Peer: p.Name, Why: why})
		}
		if pd := sent(a, was[p.Addr], b, p); pd.any() {
			d.Peers = append(d.Peers, pd)
		}
	}
	for i := range a.Peers {
		if is[a.Peers[i].Addr] == nil {
			d.Removed = append(d.Removed, a.Peers[i].Name)
		}
	}
	d.Elected, d.Relieved = b.Election.without(a.Election), a.Election.without(b.Election)
	d.Appear, d.Vanish = only(b.Originate, a.Originate), only(a.Originate, b.Originate)
	return d
}

// restarts returns what of the node itself differs, for which every session is begun anew.
func restarts(a, b *Config) (why []string) {
	note := func(same bool, what string) {
		if !same {
			why = append(why, what)
		}
	}
	note(a.ASN == b.ASN, fmt.Sprintf("AS number %d -> %d", a.ASN, b.ASN))
	note(a.RouterID == b.RouterID, fmt.Sprintf("router id %s -> %s", a.RouterID, b.RouterID))
	note(a.ListenPort == b.ListenPort, fmt.Sprintf("listening port %d -> %d", a.ListenPort, b.ListenPort))
	note(slices.Equal(a.ListenAddrs, b.ListenAddrs), fmt.Sprintf("listening addresses %v -> %v", a.ListenAddrs, b.ListenAddrs))
	return why
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
	if p.BFD != q.BFD {
		why = append(why, "BFD")
	}
	if p.KeepNextHop != q.KeepNextHop || p.SelfNextHop != q.SelfNextHop {
		why = append(why, "next hop mode")
	}
	return why
}

// without returns the reflectors that are none in another outcome; both may be nil.
func (e *Election) without(o *Election) (out []Reflector) {
	if e == nil {
		return nil
	}
	for _, r := range e.Elected {
		if !o.elected(r.Node) {
			out = append(out, r)
		}
	}
	return out
}

// AddFar adds what becomes of a node's sessions because of their other ends, and what those send: far returns what a node of the cluster is to be before
// and after, nil for what is not known. A session begins anew, too, when the other end is another kind of peer to us, a client of a reflector for example.
func (d *Difference) AddFar(a, b *Config, far func(node string) (before, after *Config)) {
	told := make(map[string]bool)
	for _, list := range [][]Reset{d.Reset, d.Down} {
		for _, r := range list {
			told[r.Peer] = true
		}
	}
	was := byAddr(a.Peers)
	for i := range b.Peers {
		p := &b.Peers[i]
		if p.Node == "" || !p.LocalAddr.IsValid() {
			continue
		}
		before, after := far(p.Node)
		if before == nil || after == nil {
			continue
		}
		o, x, y := was[p.Addr], byAddr(before.Peers)[p.LocalAddr], byAddr(after.Peers)[p.LocalAddr]
		if o != nil && o.Held == "" && p.Held == "" && x != nil && y != nil && !told[p.Name] {
			d.farEnd(p, before, after, x, y)
		}
		pd := between(p.Name, heard(a, o, before, x), heard(b, p, after, y))
		if pd.any() {
			d.Received = append(d.Received, pd)
		}
	}
	for _, list := range [][]Reset{d.Reset, d.Down} {
		slices.SortFunc(list, func(x, y Reset) int { return strings.Compare(x.Peer, y.Peer) })
	}
	d.Refresh = slices.DeleteFunc(d.Refresh, func(r Reset) bool {
		return slices.ContainsFunc(slices.Concat(d.Reset, d.Down), func(x Reset) bool { return x.Peer == r.Peer })
	})
}

// farEnd adds what becomes of a session with p of which only the other end, x and then y, changes.
func (d *Difference) farEnd(p *Peer, before, after *Config, x, y *Peer) {
	at := "at " + p.Node + ": "
	if x.Held == "" && y.Held != "" {
		d.Down = append(d.Down, Reset{Peer: p.Name, Why: []string{at + y.Held}})
		return
	}
	why := Resets(x, y)
	if len(why) == 0 {
		why = restarts(before, after)
	}
	if len(why) > 0 {
		d.Reset = append(d.Reset, Reset{Peer: p.Name, Why: []string{at + strings.Join(why, ", ")}})
	}
}

// heard returns what a node originates, sends to us and is let in; peer is what it is to us, us what we are to it, nil where there is no session.
func heard(c *Config, peer *Peer, far *Config, us *Peer) map[netip.Prefix]Route {
	out := make(map[netip.Prefix]Route)
	if peer == nil || us == nil || peer.Held != "" {
		return out
	}
	for prefix, r := range far.own(us) {
		r.Learned, r.NextHop = true, peer.Addr
		if r, v := c.Accept(peer, r); v.Accept {
			out[prefix] = r
		}
	}
	return out
}

// AddReceived adds what is let in otherwise than before of what peers send. Sessions that are new or begin anew are left out: what they will bring is
// not known.
func (d *Difference) AddReceived(a, b *Config, received func(peer netip.Addr) []Path) {
	was := byAddr(a.Peers)
	for i := range b.Peers {
		p := &b.Peers[i]
		o := was[p.Addr]
		if o == nil || p.Node != "" || EqualRules(o.Import, p.Import) { // what nodes send is foreseen
			continue
		}
		pd := PeerDifference{Peer: p.Name}
		for _, path := range received(p.Addr) {
			r := RouteOf(&path)
			x, v := a.Accept(o, r)
			y, w := b.Accept(p, r)
			switch {
			case w.Accept && !v.Accept:
				pd.Appear = append(pd.Appear, path.Prefix)
			case v.Accept && !w.Accept:
				pd.Vanish = append(pd.Vanish, path.Prefix)
			case v.Accept && !SameAttributes(&x, &y):
				pd.Changed = append(pd.Changed, path.Prefix)
			}
		}
		if pd.any() {
			d.Received = append(d.Received, pd)
		}
	}
}

// sent compares what two Configs send of their own to one peer; p is nil for a session that is new.
func sent(a *Config, p *Peer, b *Config, q *Peer) PeerDifference {
	var before map[netip.Prefix]Route
	if p != nil {
		before = a.own(p)
	}
	return between(q.Name, before, b.own(q))
}

// between compares two sets of routes.
func between(peer string, before, after map[netip.Prefix]Route) PeerDifference {
	d := PeerDifference{Peer: peer}
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

func (d *PeerDifference) any() bool { return len(d.Appear)+len(d.Vanish)+len(d.Changed) > 0 }

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
	return len(d.Restart)+len(d.Added)+len(d.Removed)+len(d.Reset)+len(d.Refresh)+len(d.Appear)+len(d.Vanish)+len(d.Peers)+
		len(d.Down)+len(d.Received)+len(d.Elected)+len(d.Relieved) == 0
}

// String writes the difference as text, a line for each change; "" where there is none.
func (d *Difference) String() string {
	var b strings.Builder
	for _, s := range d.Restart {
		fmt.Fprintf(&b, "every session is begun anew, routes are kept meanwhile: %s\n", s)
	}
	for _, r := range d.Relieved {
		fmt.Fprintf(&b, "reflector - %s\n", r.Node)
	}
	for _, r := range d.Elected {
		fmt.Fprintf(&b, "reflector + %s: %s\n", r.Node, r.Why)
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
	for _, r := range d.Down {
		fmt.Fprintf(&b, "session x %s may not start: %s\n", r.Peer, strings.Join(r.Why, ", "))
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
		writePrefixes(&b, "to", p)
	}
	for i := range d.Received {
		writePrefixes(&b, "from", &d.Received[i])
	}
	return b.String()
}

func writePrefixes(b *strings.Builder, way string, d *PeerDifference) {
	for _, part := range []struct {
		sign string
		list []netip.Prefix
	}{{"+", d.Appear}, {"-", d.Vanish}, {"~", d.Changed}} {
		for _, p := range part.list {
			fmt.Fprintf(b, "%s %s %s %s\n", way, d.Peer, part.sign, p)
		}
	}
}
