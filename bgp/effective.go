package bgp

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Line is one line of a Config written as YAML, with the object and field it comes from.
type Line struct {
	Text   string // with its indentation
	Source string // "" for a line that only groups others
}

// Effective returns a Config as lines of YAML. Sources are as precise as the Planner was asked to be (Explain).
func Effective(c *Config) []Line {
	w := &lines{}
	w.add(0, valAS, fmt.Sprint(c.ASN), c.Sources[valAS])
	w.add(0, valRouterID, c.RouterID.String(), c.Sources[valRouterID])
	w.add(0, valListen, fmt.Sprint(c.ListenPort), c.Sources[valListen])
	if len(c.ListenAddrs) > 0 {
		w.add(0, valAddrs, "["+quoteAll(c.ListenAddrs)+"]", c.Sources[valAddrs])
	} else {
		w.add(0, valAddrs, "[] # all", c.Sources[valAddrs])
	}
	w.election(c.Election)
	w.list(0, "peers", len(c.Peers))
	for i := range c.Peers {
		w.peer(c, &c.Peers[i])
	}
	w.list(0, "originate", len(c.Originate))
	for _, o := range c.Originate {
		w.add(1, "- prefix", quote(o.Prefix.String()), o.Source)
		w.add(2, "localPref", fmt.Sprint(o.LocalPref), o.Source)
	}
	if len(c.Held) > 0 {
		w.list(0, "waiting", len(c.Held))
		for _, h := range c.Held {
			w.add(1, "- prefix", quote(h.Prefix.String()), h.Source)
			w.add(2, "for", strconv.Quote(h.Why), h.Source)
		}
	}
	if c.Announce != nil {
		w.announce(c)
	}
	return w.out
}

// WriteEffective prints lines, the sources behind them as comments.
func WriteEffective(to io.Writer, list []Line) error {
	width := 0
	for _, l := range list {
		width = max(width, min(len(l.Text), 60))
	}
	for _, l := range list {
		text := l.Text
		if l.Source != "" {
			text = fmt.Sprintf("%-*s  # %s", width, l.Text, l.Source)
		}
		if _, err := fmt.Fprintln(to, text); err != nil {
			return fmt.Errorf("print BGP configuration: %w", err)
		}
	}
	return nil
}

// election writes who reflects, where the mesh elects.
func (w *lines) election(e *Election) {
	if e == nil {
		return
	}
	const source = "BGPConfiguration default metadata.annotations[caracal.net/route-reflectors]"
	w.list(0, "routeReflectors", len(e.Elected))
	w.out[len(w.out)-1].Source = source + ": " + e.Why
	for _, r := range e.Elected {
		w.add(1, "- node", r.Node, r.Why)
	}
}

type lines struct{ out []Line }

func (w *lines) add(depth int, key, value, source string) {
	w.out = append(w.out, Line{Text: strings.Repeat("  ", depth) + key + ": " + value, Source: source})
}

func (w *lines) list(depth int, key string, n int) {
	text := strings.Repeat("  ", depth) + key + ":"
	if n == 0 {
		text += " []"
	}
	w.out = append(w.out, Line{Text: text})
}

func (w *lines) peer(c *Config, p *Peer) {
	from := func(key string) string {
		if s := p.Sources[key]; s != "" {
			return s
		}
		return p.Source
	}
	set := func(key, value string) { w.add(2, key, value, from(key)) }
	w.add(1, "- name", p.Name, p.Source)
	set(valAddr, quote(p.Addr.String()))
	if p.Port != 0 { // a peer that only dials us has none
		set(valPort, fmt.Sprint(p.Port))
	}
	set(valAS, fmt.Sprint(p.ASN))
	if p.LocalASN != 0 {
		set(valLocalAS, fmt.Sprint(p.LocalASN))
	}
	if p.LocalAddr.IsValid() {
		set(valLocalAddr, quote(p.LocalAddr.String()))
	} else {
		set(valLocalAddr, "None")
	}
	set(valPassive, strconv.FormatBool(p.Passive))
	restart := p.RestartTime
	if restart == 0 {
		restart = DefaultRestartTime
	}
	set(valRestart, restart.String())
	if p.Keepalive != 0 {
		set(valKeepalive, p.Keepalive.String())
	}
	if p.TTLSecurity != 0 {
		set(valTTL, fmt.Sprint(p.TTLSecurity))
	}
	if b := p.BFD; b.Multiplier != 0 {
		set(valBFD, fmt.Sprintf("{interval: %v, multiplier: %d, hops: %s}", b.Interval, b.Multiplier, b.Hops))
	}
	if p.MaxPrefixes != 0 {
		set(valLimit, fmt.Sprint(p.MaxPrefixes))
	}
	if p.AllowOwnAS != 0 {
		set(valAllowed, fmt.Sprint(p.AllowOwnAS))
	}
	if p.Password != "" {
		set(valPassword, "(set)")
	}
	if p.Held != "" {
		w.add(2, "held", strconv.Quote(p.Held), from(valPassword))
	}
	set(valNextHop, nextHopWord(p))
	if p.Client {
		set(valClient, quote(p.ClusterID.String()))
	}
	for _, r := range c.Reach {
		if r.Peer == p.Addr {
			w.add(2, "reachableBy", quote(r.Gateway.String()), r.Source+" spec.reachableBy")
		}
	}
	w.rules("import", p.Import)
	w.rules("export", p.Export)
}

func nextHopWord(p *Peer) string {
	switch {
	case p.SelfNextHop:
		return "Self"
	case p.KeepNextHop:
		return "Keep"
	}
	return "Auto"
}

func (w *lines) rules(key string, rules []Rule) {
	if len(rules) == 0 {
		return
	}
	w.list(2, key, len(rules))
	for i := range rules {
		w.out = append(w.out, Line{Text: "      - " + strconv.Quote(rules[i].String()), Source: rules[i].Source})
	}
}

func (w *lines) announce(c *Config) {
	a := c.Announce
	w.list(0, "announce", 1)
	prefixes := func(key, kind, source string, list []netip.Prefix) {
		w.list(1, key, len(list))
		for _, p := range list {
			s := c.Sources[kind+" "+p.String()]
			if s == "" {
				s = source
			}
			w.out = append(w.out, Line{Text: "    - " + quote(p.String()), Source: s})
		}
	}
	prefixes("hidden", "pool", "IPPool spec.disableBGPExport", a.Hidden)
	w.list(1, "communities", len(a.Advertisements))
	for _, ad := range a.Advertisements {
		w.add(2, "- cidr", quote(ad.CIDR.String()), ad.Source)
		w.add(3, "values", "["+quoteAll(ad.Communities)+"]", ad.Source)
	}
	prefixes("ownBlocks", "own", "BlockAffinity", a.Own)
	prefixes("services", "service", "BGPConfiguration default", a.Services)
	prefixes("reflected", "reflected", "BGPConfiguration default", a.Reflected)
	prefixes("pools", "pool", "IPPool", a.Pools)
}

// String writes a rule as a sentence.
func (r *Rule) String() string {
	words := []string{"reject"}
	if r.Accept {
		words[0] = "accept"
	}
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if r.CIDR.IsValid() {
		not := ""
		if r.Not {
			not = "not "
		}
		say("%sin %s{%d,%d}", not, r.CIDR, r.MinLen, r.MaxLen)
	}
	if r.RemotePeers {
		say("from remote peers")
	}
	if r.Interface != "" {
		say("through %s", r.Interface)
	}
	if r.Community != (Community{}) {
		say("with community %s", r.Community)
	}
	if len(r.ASPathPrefix) > 0 {
		say("with an AS path that begins %s", join(r.ASPathPrefix))
	}
	if r.Priority != 0 {
		say("of priority %d", r.Priority)
	}
	if len(r.AddCommunities) > 0 {
		say("and add community %s", join(r.AddCommunities))
	}
	if len(r.Prepend) > 0 {
		say("and prepend %s", join(r.Prepend))
	}
	if r.SetPriority != 0 {
		say("and set priority %d", r.SetPriority)
	}
	return strings.Join(words, " ")
}

func join[T any](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = fmt.Sprint(v)
	}
	return strings.Join(out, ", ")
}

func quoteAll[T any](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = quote(fmt.Sprint(v))
	}
	return strings.Join(out, ", ")
}

// quote puts quotes around what YAML would take for something else than a string.
func quote(s string) string {
	if strings.Contains(s, ":") {
		return strconv.Quote(s)
	}
	return s
}
