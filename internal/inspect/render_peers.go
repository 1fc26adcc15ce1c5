package inspect

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// Peers writes one line a session, and below what can be done about those that are not up.
func (r Renderer) Peers(w io.Writer, list []*caracalv1.Peer) error {
	t := table{right: map[int]bool{3: true, 6: true, 7: true}}
	t.add("NAME", "NODE", "ADDRESS", "AS", "STATE", "SINCE", "RECEIVED", "SENT", "DETAIL")
	for _, p := range list {
		t.add(p.GetName(), p.GetNode(), p.GetAddress(), fmt.Sprint(p.GetAsn()), sessionWord(p.GetState()), r.since(p.GetSince()),
			fmt.Sprint(p.GetReceived()), fmt.Sprint(p.GetAdvertised()), r.peerDetail(p))
	}
	if err := t.write(w); err != nil {
		return err
	}
	var b strings.Builder
	if down := len(slices.DeleteFunc(slices.Clone(list), isUp)); down > 0 {
		fmt.Fprintf(&b, "\n%d of %d sessions are not up\n", down, len(list))
	}
	lead := "\nwhat can be done:\n"
	for _, r := range remedies(list) {
		fmt.Fprintf(&b, "%s  %s: %s\n", lead, r.of, r.text)
		lead = ""
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func isUp(p *caracalv1.Peer) bool {
	return p.GetState() == caracalv1.SessionState_SESSION_STATE_ESTABLISHED
}

// remedy is what can be done about some sessions.
type remedy struct{ of, text string }

// namesOfRemedy is how many sessions a remedy names that is that of many.
const namesOfRemedy = 3

// remedies are in the order of the sessions; one that is the same for several is said once.
func remedies(list []*caracalv1.Peer) (out []remedy) {
	names := make(map[string][]string)
	for _, p := range list {
		names[p.GetRemedy()] = append(names[p.GetRemedy()], p.GetName())
	}
	delete(names, "")
	for _, p := range list {
		of, more := names[p.GetRemedy()], ""
		if len(of) == 0 {
			continue
		}
		delete(names, p.GetRemedy())
		if n := len(of) - namesOfRemedy; n > 0 {
			of, more = of[:namesOfRemedy], fmt.Sprintf(" and %d more", n)
		}
		out = append(out, remedy{strings.Join(of, ", ") + more, p.GetRemedy()})
	}
	return out
}

func (r Renderer) peerDetail(p *caracalv1.Peer) string {
	var parts []string
	established := p.GetState() == caracalv1.SessionState_SESSION_STATE_ESTABLISHED
	switch {
	case p.GetRestarting():
		parts = append(parts, "restarting, "+r.keptText(p))
	case established && !p.GetEndOfRib():
		parts = append(parts, "has not sent all it knows yet")
	case !established && p.GetPassive():
		parts = append(parts, "we wait for it to dial")
	}
	if p.GetLastError() != "" {
		word := "last error: "
		if !established {
			word = ""
		}
		text := word + p.GetLastError()
		if p.GetLastErrorTime() != nil {
			text += ", " + r.when(p.GetLastErrorTime())
		}
		parts = append(parts, text)
	}
	if t := p.GetRetryTime(); t != nil {
		parts = append(parts, "tried again "+r.inTime(t))
	}
	if b := p.GetBfd(); b != nil {
		parts = append(parts, bfdDetail(b))
	}
	if p.GetSource() != "" {
		parts = append(parts, "from "+p.GetSource())
	}
	return strings.Join(parts, "; ")
}

// remoteWord is the state as the peer says it.
func remoteWord(b *caracalv1.BFD) string {
	if b.GetReceived() == 0 {
		return "nothing"
	}
	return b.GetRemoteState()
}

// keptText says how much longer the paths of a peer that is gone are kept.
func (r Renderer) keptText(p *caracalv1.Peer) string {
	switch t := p.GetKeptUntil(); {
	case t == nil:
		return "its paths are kept"
	case r.Timestamps:
		return "its paths are kept until " + r.since(t)
	default:
		return "its paths are kept for " + age(max(t.AsTime().Sub(r.Now), 0)) + " more at most"
	}
}

// bfdDetail says how the path is, how fast a dead one would be found, and what was wrong.
func bfdDetail(b *caracalv1.BFD) string {
	text := "BFD " + b.GetState()
	if b.GetState() == bfdUp {
		text += " (finds a dead path in " + b.GetDetection().AsDuration().String() + ")"
	} else if d := b.GetDiagnostic(); d != "" && d != bfdNoDiagnostic {
		text += ": " + d
	}
	if n := b.GetDowns(); n > 0 {
		text += fmt.Sprintf(", was down %d times", n)
	}
	if b.GetError() != "" {
		text += ", " + b.GetError()
	}
	return text
}

// The words of RFC 5880 section 4.1 that are looked at here.
const (
	bfdUp           = "Up"
	bfdNoDiagnostic = "No Diagnostic"
)

// PeerEvent writes one line of a watch: when it came, a sign (+ new or different, - gone), and the session.
func (r Renderer) PeerEvent(w io.Writer, e *caracalv1.PeerEvent) error {
	p := e.GetPeer()
	if e.GetRemoved() {
		_, err := fmt.Fprintf(w, "%s - %s %s\n", r.clock(), p.GetName(), p.GetAddress())
		return err
	}
	line := fmt.Sprintf("%s + %s %s AS %d, %s", r.clock(), p.GetName(), p.GetAddress(), p.GetAsn(), sessionWord(p.GetState()))
	if text := r.peerDetail(p); text != "" {
		line += ": " + text
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// Synced writes that the changes begin.
func (r Renderer) Synced(w io.Writer) error {
	return r.Mark(w, caracalv1.WatchRoutesResponse_MARK_SYNCED)
}

// Peer writes everything that is known of a session.
func (r Renderer) Peer(w io.Writer, p *caracalv1.Peer) error {
	t := &table{}
	row := func(name, format string, args ...any) { t.add(name, fmt.Sprintf(format, args...)) }
	row("name", "%s", p.GetName())
	row("from", "%s", p.GetSource())
	row("peer", "%s port %d, AS %d%s%s", p.GetAddress(), p.GetPort(), p.GetAsn(), comma("node", p.GetNode()), comma("router id", p.GetRouterId()))
	row("us", "%s, AS %d, %s", filled(p.GetLocalAddress()), p.GetOurAsn(), map[bool]string{true: "we wait for it to dial", false: "we dial"}[p.GetPassive()])
	row("state", "%s since %s, came up %s", sessionWord(p.GetState()), r.when(p.GetSince()), times(p.GetUps()))
	switch {
	case p.GetRestarting():
		row("restart", "the peer is gone, %s", r.keptText(p))
	case p.GetState() == caracalv1.SessionState_SESSION_STATE_ESTABLISHED:
		row("End-of-RIB", "%s", map[bool]string{true: "received", false: "not received yet"}[p.GetEndOfRib()])
	}
	if p.GetHoldTime() != nil {
		row("hold time", "%s", p.GetHoldTime().AsDuration())
	}
	row("last error", "%s", r.lastError(p))
	row("last sent", "%s", r.notificationText(p.GetLastSent()))
	row("last received", "%s", r.notificationText(p.GetLastReceived()))
	if p.GetRemedy() != "" {
		row("remedy", "%s", p.GetRemedy())
	}
	if t := p.GetRetryTime(); t != nil {
		row("tried again", "%s", r.inTime(t))
	}
	if b := p.GetBfd(); b != nil {
		row("BFD", "%s", strings.TrimPrefix(bfdDetail(b), "BFD "))
		row(" ", "%s, the peer says %s, since %s; a packet of ours every %s; %d sent, %d received", map[bool]string{true: "several hops (RFC 5883)", false: "one hop (RFC 5881)"}[b.GetMultihop()],
			remoteWord(b), r.when(b.GetSince()), b.GetInterval().AsDuration(), b.GetSent(), b.GetReceived())
	}
	if text := guards(p); text != "" {
		row("guards", "%s", text)
	}
	row("prefixes", "%d received, %d sent%s", p.GetReceived(), p.GetAdvertised(), loopedText(p.GetLooped()))
	row("messages in", "%s", messagesText(p.GetMessagesReceived()))
	row("messages out", "%s", messagesText(p.GetMessagesSent()))
	capabilityRows(t, p)
	return t.write(w)
}

// lastError is what ended the session, or the last try at one, and when.
func (r Renderer) lastError(p *caracalv1.Peer) string {
	switch {
	case p.GetLastError() == "":
		return "none"
	case p.GetLastErrorTime() == nil:
		return p.GetLastError()
	}
	return p.GetLastError() + ", " + r.when(p.GetLastErrorTime())
}

// inTime is how far off a time to come is, or the time itself.
func (r Renderer) inTime(t *timestamppb.Timestamp) string {
	if r.Timestamps {
		return r.since(t)
	}
	return "in " + age(max(t.AsTime().Sub(r.Now), 0))
}

// guards are what both ends must have alike, or what the peer may not exceed.
func guards(p *caracalv1.Peer) string {
	var parts []string
	if p.GetPassword() {
		parts = append(parts, "TCP MD5 password (RFC 2385)")
	}
	if n := p.GetTtlSecurity(); n > 0 {
		parts = append(parts, fmt.Sprintf("TTL security (RFC 5082): packets with a TTL below %d are dropped", 256-int(n)))
	}
	if n := p.GetMaxPrefixes(); n > 0 {
		parts = append(parts, fmt.Sprintf("at most %d prefixes", n))
	}
	if p.GetClient() {
		parts = append(parts, "a client of this route reflector (RFC 4456)")
	}
	return strings.Join(parts, "; ")
}

// capabilityRows adds a row for what both offer, and rows for what one offers alone.
func capabilityRows(t *table, p *caracalv1.Peer) {
	var both, ours, theirs []string
	for _, c := range p.GetOurCapabilities() {
		if slices.Contains(p.GetTheirCapabilities(), c) {
			both = append(both, c)
		} else {
			ours = append(ours, c)
		}
	}
	for _, c := range p.GetTheirCapabilities() {
		if !slices.Contains(both, c) {
			theirs = append(theirs, c)
		}
	}
	for _, part := range []struct {
		name string
		list []string
	}{{"both offer", both}, {"we offer", ours}, {"it offers", theirs}} {
		for _, c := range part.list {
			t.add(part.name, c)
			part.name = " "
		}
	}
}

func comma(name, value string) string {
	if value == "" {
		return ""
	}
	return ", " + name + " " + value
}

func times(n uint32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func loopedText(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d have been here before and are left out", n)
}

// when is how long ago, or the time itself.
func (r Renderer) when(t *timestamppb.Timestamp) string {
	if t == nil || r.Timestamps {
		return r.since(t)
	}
	return r.since(t) + " ago"
}

func (r Renderer) notificationText(n *caracalv1.Notification) string {
	if n == nil {
		return "none"
	}
	text := n.GetName()
	if n.GetReason() != "" {
		text += fmt.Sprintf(" %q", n.GetReason())
	}
	return text + ", " + r.when(n.GetTime())
}

func messagesText(m *caracalv1.Messages) string {
	if m == nil {
		return "none"
	}
	return fmt.Sprintf("%d OPEN, %d UPDATE, %d KEEPALIVE, %d NOTIFICATION, %d ROUTE-REFRESH; %d prefixes withdrawn", m.GetOpen(), m.GetUpdate(),
		m.GetKeepalive(), m.GetNotification(), m.GetRouteRefresh(), m.GetWithdrawn())
}

// Paths writes one line a path, the used ones with a star and the refused ones with a cross.
func (r Renderer) Paths(w io.Writer, list []*caracalv1.Path) error {
	t := table{right: map[int]bool{3: true, 6: true}}
	t.add(" ", "PEER", "NEXT HOP", "LOCAL_PREF", "AS PATH", "ORIGIN", "MED", "SINCE", "COMMUNITIES", "WHY IT IS NOT USED")
	for _, p := range list {
		sign := " "
		switch {
		case p.GetRefused():
			sign = "x"
		case p.GetBest():
			sign = "*"
		}
		t.add(sign, peerWord(p), p.GetNextHop(), fmt.Sprint(p.GetLocalPref()), asPathText(p.GetAsPath()), p.GetOrigin(), fmt.Sprint(p.GetMed()), r.since(p.GetSince()),
			strings.Join(p.GetCommunities(), " "), whyText(p))
	}
	return t.write(w)
}

func peerWord(p *caracalv1.Path) string {
	if p.GetLocal() {
		return "this node"
	}
	return p.GetPeer()
}

func asPathText(list []uint32) string { return strings.Trim(fmt.Sprint(list), "[]") }

func whyText(p *caracalv1.Path) string {
	var parts []string
	if p.GetRefused() {
		parts = append(parts, "refused: "+p.GetLost())
	} else if p.GetLost() != "" {
		parts = append(parts, p.GetLost())
	}
	if p.GetStale() {
		parts = append(parts, "stale, kept while the peer restarts")
	}
	return strings.Join(parts, "; ")
}

// PeerRoutes writes one line a route as it is after policy, with what policy has changed; with a cross what it keeps out or back.
func (r Renderer) PeerRoutes(w io.Writer, list []*caracalv1.PeerRoute) error {
	t := table{right: map[int]bool{3: true, 5: true}}
	t.add(" ", "PREFIX", "NEXT HOP", "LOCAL_PREF", "AS PATH", "MED", "COMMUNITIES", "DECIDED BY", "BEFORE POLICY")
	for _, x := range list {
		p, sign := x.GetAfter(), " "
		if p == nil {
			p, sign = x.GetBefore(), "x"
		}
		t.add(sign, p.GetPrefix(), p.GetNextHop(), fmt.Sprint(p.GetLocalPref()), asPathText(p.GetAsPath()), fmt.Sprint(p.GetMed()), strings.Join(p.GetCommunities(), " "),
			x.GetBy(), changedText(x))
	}
	return t.write(w)
}

// changedText is what of a route was otherwise before policy.
func changedText(x *caracalv1.PeerRoute) string {
	a, b := x.GetBefore(), x.GetAfter()
	if b == nil {
		return ""
	}
	var parts []string
	note := func(same bool, format string, args ...any) {
		if !same {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	note(a.GetNextHop() == b.GetNextHop(), "next hop %s", a.GetNextHop())
	note(a.GetLocalPref() == b.GetLocalPref(), "LOCAL_PREF %d", a.GetLocalPref())
	note(slices.Equal(a.GetAsPath(), b.GetAsPath()), "AS path %s", orElse(asPathText(a.GetAsPath()), "empty"))
	note(a.GetMed() == b.GetMed(), "MED %d", a.GetMed())
	note(slices.Equal(a.GetCommunities(), b.GetCommunities()), "communities %s", orElse(strings.Join(a.GetCommunities(), " "), "none"))
	return strings.Join(parts, ", ")
}
