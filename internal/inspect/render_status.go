package inspect

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// Status writes how the node is doing: the good news in four lines, then whatever there is to see.
func (r Renderer) Status(w io.Writer, m *caracalv1.GetStatusResponse) error {
	var b strings.Builder
	head := &table{}
	head.add("node", filled(m.GetNode()))
	head.add("backend", filled(m.GetBackend()))
	head.add("version", filled(m.GetVersion()))
	head.add("up", r.since(m.GetStarted()))
	head.add("ready", readyText(m.GetReadiness()))
	if m.GetLeaving() != nil {
		head.add("leaving", r.leavingText(m.GetLeaving()))
	}
	for _, s := range m.GetSources() {
		head.add(s.GetName(), r.sourceText(s))
	}
	if err := head.write(&b); err != nil {
		return err
	}
	for _, part := range []func(io.Writer, *caracalv1.GetStatusResponse) error{routesPart, devicesPart, settingsPart, problemsPart} {
		if err := part(&b, m); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func readyText(m *caracalv1.Readiness) string {
	if len(m.GetWaitingFor()) == 0 {
		return yesNo(m.GetReady())
	}
	return yesNo(m.GetReady()) + ", waiting for " + strings.Join(m.GetWaitingFor(), "; ")
}

func (r Renderer) sourceText(s *caracalv1.Source) string {
	text := "not in sync"
	if s.GetInSync() {
		text = "in sync"
	}
	if s.GetSince() != nil {
		text += " since " + r.since(s.GetSince())
		if !r.Timestamps {
			text = strings.Replace(text, " since ", " for ", 1)
		}
	}
	if s.GetDetail() != "" {
		text += ": " + s.GetDetail()
	}
	return text
}

// settingsPart tells of the sysctls that are not as routing wants them.
func settingsPart(w io.Writer, m *caracalv1.GetStatusResponse) error {
	t := table{indent: "  "}
	t.add("SYSCTL", "WANT", "HAVE", "STATE", "DETAIL")
	wrong := false
	for _, s := range m.GetSettings() {
		if s.GetState() != caracalv1.RouteState_ROUTE_STATE_INSTALLED {
			wrong = true
			t.add(s.GetName(), fmt.Sprint(s.GetWant()), fmt.Sprint(s.GetHave()), stateWord(s.GetState()), s.GetDetail())
		}
	}
	if !wrong {
		return nil
	}
	if _, err := fmt.Fprint(w, "\nsettings that are not as routing wants them:\n"); err != nil {
		return err
	}
	return t.write(w)
}

func routesPart(w io.Writer, m *caracalv1.GetStatusResponse) error {
	if len(m.GetCounts()) == 0 {
		_, err := fmt.Fprint(w, "\nroutes: none\n")
		return err
	}
	if _, err := fmt.Fprint(w, "\nroutes:\n"); err != nil {
		return err
	}
	if err := countTable(m.GetCounts()).write(w); err != nil {
		return err
	}
	var look []string
	for _, o := range problemStates() {
		if slices.ContainsFunc(m.GetCounts(), func(c *caracalv1.RouteCount) bool { return c.GetState() == stateOf(o) }) {
			look = append(look, string(o))
		}
	}
	if len(look) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "  look at them: caracal routes --state %s\n", strings.Join(look, ","))
	return err
}

func devicesPart(w io.Writer, m *caracalv1.GetStatusResponse) error {
	if len(m.GetDevices()) == 0 {
		return nil
	}
	if _, err := fmt.Fprint(w, "\ndevices:\n"); err != nil {
		return err
	}
	t := &table{right: map[int]bool{2: true}, indent: "  "}
	t.add("NAME", "STATE", "MTU", "NEIGHBOURS", "ADDRESSES", "DETAIL")
	for _, d := range m.GetDevices() {
		neighbours := ""
		if d.GetNeighboursWanted() > 0 || d.GetNeighboursInstalled() > 0 {
			neighbours = fmt.Sprintf("%d of %d", d.GetNeighboursInstalled(), d.GetNeighboursWanted())
		}
		mtu := ""
		if d.GetMtu() > 0 {
			mtu = fmt.Sprint(d.GetMtu())
		}
		t.add(d.GetName(), stateWord(d.GetState()), mtu, neighbours, strings.Join(d.GetAddresses(), ","), d.GetDetail())
	}
	return t.write(w)
}

func problemsPart(w io.Writer, m *caracalv1.GetStatusResponse) error {
	if len(m.GetProblems()) == 0 {
		return nil
	}
	if _, err := fmt.Fprint(w, "\nproblems:\n"); err != nil {
		return err
	}
	for _, p := range m.GetProblems() {
		where := p.GetObject()
		if p.GetField() != "" {
			where += ", " + p.GetField()
		}
		if p.GetFile() != "" {
			where += " (" + p.GetFile()
			if p.GetLine() > 0 {
				where += fmt.Sprintf(":%d", p.GetLine())
			}
			where += ")"
		}
		if _, err := fmt.Fprintf(w, "  %s\n    %s\n", where, p.GetText()); err != nil {
			return err
		}
	}
	return nil
}

// VTEPs writes one line a tunnel endpoint.
func (r Renderer) VTEPs(w io.Writer, list []*caracalv1.VTEP) error {
	t := table{}
	t.add("NODE", "ADDRESS", "MAC", "UNDERLAY", "DEVICE", "DETAIL")
	for _, v := range list {
		detail := v.GetProblem()
		if v.GetLocal() {
			detail = strings.TrimSuffix("this node; "+detail, "; ")
		}
		t.add(v.GetNode(), v.GetAddress(), v.GetMac(), v.GetUnderlay(), v.GetDevice(), detail)
	}
	return t.write(w)
}

// Explain writes a step a line, with a sign for each that is not as it should be, and the verdict.
func (r Renderer) Explain(w io.Writer, m *caracalv1.ExplainResponse) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, seen from %s:\n", m.GetAddress(), m.GetNode())
	t := &table{}
	for _, s := range m.GetSteps() {
		t.add(levelSign(s.GetLevel()), stepWord(s.GetKind()), s.GetText())
		if s.GetRemedy() != "" {
			t.add(" ", " ", "-> "+s.GetRemedy())
		}
	}
	if err := t.write(&b); err != nil {
		return err
	}
	fmt.Fprintf(&b, "%s: %s\n", levelWord(m.GetVerdict().GetLevel()), filled(m.GetVerdict().GetText()))
	_, err := io.WriteString(w, b.String())
	return err
}

// levelSign is what the eye runs down the left edge for.
func levelSign(l caracalv1.Level) string {
	return map[caracalv1.Level]string{ok: "ok", warn: "!", missing: "XX"}[l] // others are left blank
}

func levelWord(l caracalv1.Level) string {
	return orElse(map[caracalv1.Level]string{ok: "OK", warn: "LOOK", missing: "BROKEN"}[l], "UNKNOWN")
}

func stepWord(k caracalv1.ExplainStep_Kind) string {
	if k == stepVTEP {
		return "VTEP"
	}
	if k == stepPath {
		return "BGP path"
	}
	if k == stepPeer {
		return "session"
	}
	return strings.ToLower(strings.TrimPrefix(k.String(), "KIND_"))
}

// Release writes what happens now.
func (r Renderer) Release(w io.Writer, m *caracalv1.ReleaseResponse) error {
	text := "nothing is held"
	if m.GetReleased() != "" {
		text = "released: " + m.GetReleased()
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// Resync writes that it is done and how long it took.
func (r Renderer) Resync(w io.Writer, m *caracalv1.ResyncResponse) error {
	_, err := fmt.Fprintf(w, "resync done in %v\n", m.GetTook().AsDuration().Round(100*time.Microsecond))
	return err
}
