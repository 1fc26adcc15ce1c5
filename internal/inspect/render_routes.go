package inspect

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// Routes writes one line a route: prefix, owner, state, since when, the kernel's form, the reason.
func (r Renderer) Routes(w io.Writer, list []*caracalv1.Route) error {
	t := table{}
	t.add("PREFIX", "OWNER", "STATE", "SINCE", "KERNEL ROUTE", "REASON")
	for _, m := range list {
		t.add(m.GetPrefix(), m.GetOwner(), stateWord(m.GetState()), r.since(m.GetSince()), routeForm(m), reasonText(m))
	}
	return t.write(w)
}

// Change writes one line of a watch: when it came, a sign (+ new or different, - gone), then the same as Routes, not
// aligned, for what is still to come is not known.
func (r Renderer) Change(w io.Writer, c *caracalv1.RouteChange) error {
	m := c.GetRoute()
	if c.GetRemoved() {
		_, err := fmt.Fprintf(w, "%s - %s owner %s, metric %d\n", r.clock(), m.GetPrefix(), m.GetOwner(), m.GetMetric())
		return err
	}
	line := fmt.Sprintf("%s + %s owner %s, %s: %s", r.clock(), m.GetPrefix(), m.GetOwner(), stateWord(m.GetState()), routeForm(m))
	if why := reasonText(m); why != "" {
		line += " | " + why
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// Mark writes what a mark of a watch means; nothing for none.
func (r Renderer) Mark(w io.Writer, m caracalv1.WatchRoutesResponse_Mark) error {
	var text string
	switch m {
	case caracalv1.WatchRoutesResponse_MARK_SYNCED:
		text = "that is all there is; changes follow"
	case caracalv1.WatchRoutesResponse_MARK_RESTART:
		text = "too slow, changes were dropped; everything once more:"
	default:
		return nil
	}
	_, err := fmt.Fprintf(w, "%s # %s\n", r.clock(), text)
	return err
}

// clock is the time of day at which a line is written.
func (r Renderer) clock() string {
	if r.Timestamps {
		return r.Now.UTC().Format(time.RFC3339)
	}
	return r.Now.Format(time.TimeOnly)
}

// routeForm is the kernel's form without the prefix, which has a column of its own; where the kernel holds nothing, what is
// wanted, in brackets.
func routeForm(m *caracalv1.Route) string {
	if k := m.GetKernel(); k != "" {
		return withoutPrefix(k, m.GetPrefix())
	}
	if m.GetState() == caracalv1.RouteState_ROUTE_STATE_UNROUTABLE {
		return "-"
	}
	if form := withoutPrefix(wantedForm(m), m.GetPrefix()); form != "" {
		return "[" + form + "]"
	}
	return "-"
}

// withoutPrefix drops the destination from a route as ip(8) prints it: its first word, or the second behind the type.
func withoutPrefix(form, prefix string) string {
	names := []string{prefix}
	if p, err := netip.ParsePrefix(prefix); err == nil {
		switch {
		case p.IsSingleIP():
			names = append(names, p.Addr().String())
		case p.Bits() == 0:
			names = append(names, "default")
		}
	}
	words := strings.Split(form, " ")
	for i := 0; i < len(words) && i < 2; i++ {
		for _, name := range names {
			if words[i] == name {
				return strings.Join(append(words[:i:i], words[i+1:]...), " ")
			}
		}
	}
	return form
}

// wantedForm is a desired route in the form of ip(8), its interfaces by name.
func wantedForm(m *caracalv1.Route) string {
	if m.GetState() == caracalv1.RouteState_ROUTE_STATE_UNROUTABLE {
		return m.GetPrefix() // there is nothing to ask of the kernel
	}
	var b strings.Builder
	if t := kernel.RouteType(m.GetType()); t != 0 && t != kernel.Unicast {
		b.WriteString(t.String() + " ")
	}
	b.WriteString(m.GetPrefix())
	hops := m.GetNextHops()
	if len(hops) == 1 {
		wantedHop(&b, m, hops[0])
	}
	if s := m.GetSourceAddress(); s != "" {
		b.WriteString(" src " + s)
	}
	if v := m.GetMetric(); v != 0 {
		fmt.Fprintf(&b, " metric %d", v)
	}
	if len(hops) == 1 && hops[0].GetOnlink() {
		b.WriteString(" onlink")
	}
	if v := m.GetMtu(); v != 0 {
		fmt.Fprintf(&b, " mtu %d", v)
	}
	if len(hops) > 1 {
		for _, h := range hops {
			b.WriteString(" nexthop")
			wantedHop(&b, m, h)
			fmt.Fprintf(&b, " weight %d", max(h.GetWeight(), 1))
			if h.GetOnlink() {
				b.WriteString(" onlink")
			}
		}
	}
	return b.String()
}

func wantedHop(b *strings.Builder, m *caracalv1.Route, h *caracalv1.NextHop) {
	switch gw := h.GetGateway(); {
	case gw == "":
	case strings.Contains(gw, ":") && !strings.Contains(m.GetPrefix(), ":"): // RFC 8950
		b.WriteString(" via inet6 " + gw)
	default:
		b.WriteString(" via " + gw)
	}
	if h.GetDevice() != "" {
		b.WriteString(" dev " + h.GetDevice())
	}
}

// reasonText is why a route is not as it should be, if so, and why it is wanted.
func reasonText(m *caracalv1.Route) string {
	var parts []string
	if m.GetDetail() != "" {
		detail := m.GetDetail()
		if m.GetState() == caracalv1.RouteState_ROUTE_STATE_FAILED && m.GetAttempts() > 1 {
			detail += fmt.Sprintf(", %d attempts", m.GetAttempts())
		}
		parts = append(parts, detail)
	}
	if why := ruleText(m.GetReason()); why != "" {
		parts = append(parts, why)
	}
	return strings.Join(parts, "; ")
}

// ruleText is the rule with where it comes from in brackets.
func ruleText(why *caracalv1.Reason) string {
	var from []string
	if s := why.GetSource(); s != "" {
		from = append(from, s)
	}
	if s := why.GetPool(); s != "" {
		from = append(from, "pool "+s)
	}
	if s := why.GetNode(); s != "" {
		from = append(from, "node "+s)
	}
	text := why.GetRule()
	if len(from) > 0 {
		text = strings.TrimSpace(text + " (" + strings.Join(from, ", ") + ")")
	}
	return text
}

// countTable has a line an owner and a column a state that occurs; installed is always there, since its absence says most.
func countTable(counts []*caracalv1.RouteCount) *table {
	used := map[caracalv1.RouteState]bool{caracalv1.RouteState_ROUTE_STATE_INSTALLED: true}
	byOwner := map[string]map[caracalv1.RouteState]uint32{}
	var names []string
	for _, c := range counts {
		state := stateOf(outcomeOf(c.GetState())) // one without a word counts as unspecified
		used[state] = true
		if byOwner[c.GetOwner()] == nil {
			byOwner[c.GetOwner()] = map[caracalv1.RouteState]uint32{}
			names = append(names, c.GetOwner())
		}
		byOwner[c.GetOwner()][state] += c.GetRoutes()
	}
	t := &table{right: map[int]bool{}, indent: "  "}
	head := []string{"OWNER"}
	var states []caracalv1.RouteState
	for i := range outcomes() {
		// The zero state, one this program has no word for, goes last.
		if s := caracalv1.RouteState((i + 1) % len(outcomes())); used[s] {
			states = append(states, s)
			t.right[len(head)] = true
			head = append(head, strings.ToUpper(stateWord(s)))
		}
	}
	t.add(head...)
	for _, name := range names {
		row := []string{name}
		for _, s := range states {
			row = append(row, fmt.Sprint(byOwner[name][s]))
		}
		t.add(row...)
	}
	return t
}

// problemStates are the outcomes that want a person's eye, for the line below the counts.
func problemStates() []routes.Outcome {
	return []routes.Outcome{routes.Failed, routes.Foreign, routes.NoDevice, routes.Unroutable}
}
