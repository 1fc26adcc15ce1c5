package inspect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// disagreement opens the text of a kernel step that contradicts what we believe.
const disagreement = "it disagrees: "

// resyncRemedy is what to do when the kernel is not as we believe.
const resyncRemedy = "caracal resync repairs it; if it comes back, some program changes our routes"

// finding is what the kernel's answer says about what we believe.
type finding struct {
	level  caracalv1.Level
	text   string
	remedy string
	// disagrees: the kernel does not do what we believe it does.
	disagrees bool
	// device is the interface packets leave by, "" where the kernel drops them or has no way.
	device string
	// foreign: the answer comes from a route of somebody else.
	foreign bool
	but     string // what a verdict that is good otherwise adds
	local   bool   // the address is one of the host's own
	dropped bool   // blackhole, unreachable, no route
}

// askKernel adds the kernel's own answer as the last step.
func (e *explainer) askKernel(ctx context.Context) finding {
	answer, err := e.src.Lookup(ctx, e.addr)
	f, behind := e.behind(&answer, err)
	if !behind {
		f = judge(e.addr, e.believed(), answer, err)
	}
	e.expect(&f, &answer)
	e.add(stepKernel, f.level, "%s", f.text).Remedy = f.remedy
	return f
}

// behind judges an answer of another program's route to the destination of ours, whose metric is lower. Of the world, as a default route from a
// router, the host's own is meant to go first; the way to a workload is ours to make.
func (e *explainer) behind(a *kernel.Answer, err error) (f finding, yes bool) {
	s := e.believed()
	if err != nil || s == nil || e.pool != nil || a.Match.Dst != s.Route.Dst || a.Match.Protocol == kernel.ProtoCaracal || a.Match.Metric >= s.Route.Key().Metric {
		return f, false
	}
	text := fmt.Sprintf("%s, by %s, whose metric %d goes before our %d", answerText(a), routeName(a), a.Match.Metric, s.Route.Key().Metric)
	return finding{level: ok, text: text, device: device(a), foreign: true, dropped: drops(a.Match.Type)}, true
}

// expect judges an answer without a route of ours by what the address is: the default route is right for an address of
// the world, wrong for a workload's.
func (e *explainer) expect(f *finding, a *kernel.Answer) {
	if f.disagrees || f.level == missing && !f.dropped {
		return
	}
	switch {
	case e.hostOf != "" && e.hostOf == e.src.Node && !f.local:
		f.level, f.remedy = missing, "is the address configured on an interface of this node?"
		f.text += "; but it should be an address of this host"
	case e.hostOf != "" || e.pool == nil:
	case e.tunnelOf == e.src.Node && e.tunnelOf != "":
		if !f.local {
			f.level, f.remedy = missing, "caracal status shows the devices and what they wait for"
			f.text += "; but it should be an address of our tunnel device"
		}
	case e.local() && f.dropped:
		f.level = warn
		f.text += "; no workload of this node has the address"
	case e.local():
	case f.local:
		f.level, f.remedy = missing, "remove the address from the interface"
		f.text += "; but it is an address of this host, which hides the one of " + e.whose()
	case f.foreign && e.nodeName != "":
		e.expectForeign(f, a)
	}
}

// expectForeign judges a route of another program that leads to a remote workload: it may do the same as ours would, it may be a
// person's wish for one address, but the default route never gets there.
func (e *explainer) expectForeign(f *finding, a *kernel.Answer) {
	s := e.chosen()
	switch {
	case e.believed() != nil:
		f.level = warn
	case s == nil || s.Outcome != routes.Foreign || a.Match.Dst != s.Route.Dst:
		f.level = missing
		f.text += "; that is no way to a workload of " + e.nodeName
	case sameHops(s.Route.NextHops, a):
		f.level = warn
		f.text += "; it leads where ours would"
	default:
		f.level = missing
		f.text += "; ours would lead elsewhere"
	}
}

func (e *explainer) whose() string {
	if e.nodeName != "" {
		return e.nodeName
	}
	return "the cluster"
}

// judge compares the kernel's answer with the route that we believe it uses, nil for none. It is where drift that
// nobody has noticed comes to light.
func judge(dst netip.Addr, believed *routes.Status, a kernel.Answer, err error) finding {
	switch {
	case err != nil:
		return judgeRefusal(dst, believed, err)
	case a.Match.Type == kernel.Local:
		return finding{level: ok, text: answerText(&a), local: true, foreign: true, device: device(&a)}
	case !a.Match.Dst.IsValid():
		return finding{level: warn, text: answerText(&a) + "; it does not say by which route", device: device(&a), but: "the kernel does not say by which route"}
	}
	f := finding{level: ok, text: answerText(&a), device: device(&a), foreign: a.Match.Protocol != kernel.ProtoCaracal}
	if f.dropped = drops(a.Match.Type); f.dropped {
		f.text = fmt.Sprintf("packets to %v are dropped", dst)
	}
	if believed == nil {
		if !f.foreign {
			return f.disagree("we believe to have no route there, but the kernel holds one of ours: %s", matchText(&a))
		}
		f.text += ", by " + routeName(&a)
		return f
	}
	return compare(f, believed, &a)
}

// compare judges an answer where a route of ours is believed installed.
func compare(f finding, believed *routes.Status, a *kernel.Answer) finding {
	want, m := &believed.Route, &a.Match
	switch {
	case m.Dst.Bits() > want.Dst.Bits():
		if !f.foreign {
			return f.disagree("it uses %s, a route of ours that we do not know of, in front of %v", matchText(a), want.Dst)
		}
		f.text += fmt.Sprintf(", by a longer route of another program: %s", routeName(a))
		return f
	case m.Dst != want.Dst:
		return f.disagree("we believe %v to be installed, but the kernel uses %s", want.Dst, matchText(a))
	case f.foreign:
		return f.disagree("we believe our route %v to be in use, but the kernel uses one of another program: %s", want.Dst, matchText(a)).
			withRemedy("find out which program writes it and remove it there; caracal resync makes us see it")
	case m.Metric != want.Key().Metric:
		return f.disagree("we believe %v to be used with metric %d, but the kernel uses %s", want.Dst, want.Key().Metric, matchText(a))
	case (m.Type == kernel.Unicast) != (want.Type == kernel.Unicast || want.Type == 0):
		return f.disagree("we want %s, but the kernel holds %s", wantedForm(routeOf(believed)), matchText(a))
	case !sameHops(want.NextHops, a):
		return f.disagree("we want %s, but the kernel holds %s", wantedForm(routeOf(believed)), matchText(a))
	case a.Chosen.Dead:
		f.level, f.remedy, f.but = warn, "is the link up at both ends?", "the interface has no carrier"
		f.text += "; " + f.but
		return f
	}
	f.text += "; as we believe"
	return f
}

// judgeRefusal reads a failed lookup. For a blackhole the kernel answers EINVAL, for an unreachable route EHOSTUNREACH and
// for no route at all ENETUNREACH (fib_props in net/ipv4/fib_semantics.c), so the three are told apart: a blackhole that
// is gone drops packets too, and is drift all the same.
func judgeRefusal(dst netip.Addr, believed *routes.Status, err error) finding {
	refused := errors.Is(err, kernel.ErrInvalid) || errors.Is(err, kernel.ErrUnreachable)
	f := finding{level: missing, text: fmt.Sprintf("no way to %v: %v", dst, err), dropped: true}
	switch {
	case !refused:
		return finding{level: warn, text: fmt.Sprintf("it could not be asked: %v", err), but: "the kernel could not be asked"}
	case believed != nil && believed.Route.Type == kernel.Blackhole && errors.Is(err, kernel.ErrInvalid):
		f.level, f.text = ok, fmt.Sprintf("packets to %v are dropped, as the %v route %v says", dst, believed.Route.Type, believed.Route.Dst)
	case believed != nil:
		return f.disagree("we believe %v to be installed, but the kernel has no way there: %v", believed.Route.Dst, err)
	}
	return f
}

func (f finding) disagree(format string, args ...any) finding {
	f.level, f.disagrees, f.remedy = missing, true, resyncRemedy
	f.text = disagreement + fmt.Sprintf(format, args...)
	return f
}

func (f finding) withRemedy(remedy string) finding {
	f.remedy = remedy
	return f
}

func drops(t kernel.RouteType) bool {
	return t == kernel.Blackhole || t == kernel.Unreachable || t == kernel.Prohibit
}

// sameHops compares wanted next hops with those that matched, by gateway; interfaces of the answer are numbers, and
// only that of the chosen hop has a name, in the text.
func sameHops(want []routes.NextHop, a *kernel.Answer) bool {
	if len(want) != len(a.Match.NextHops) {
		return len(want) == 0 || len(a.Match.NextHops) == 0
	}
	for _, h := range a.Match.NextHops {
		if !slices.ContainsFunc(want, func(w routes.NextHop) bool { return w.Gateway == h.Gateway }) {
			return false
		}
	}
	dev := device(a)
	return len(want) == 0 || dev == "" || slices.ContainsFunc(want, func(w routes.NextHop) bool {
		return w.Device == dev && w.Gateway == a.Chosen.Gateway
	})
}

// device is the interface's name in an answer's text ("... dev eth0 ...").
func device(a *kernel.Answer) string {
	words := strings.Fields(a.Text)
	if i := slices.Index(words, "dev"); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// routeName names the route that matched where its next hop has been said already.
func routeName(a *kernel.Answer) string {
	m := &a.Match
	name := m.Dst.String()
	if m.Dst.Bits() == 0 {
		name = "the default route"
	}
	return fmt.Sprintf("%s of protocol %v", name, m.Protocol)
}

func answerText(a *kernel.Answer) string { return oneLine(a.Text) }

// matchText names the route that matched.
func matchText(a *kernel.Answer) string {
	m := &a.Match
	what := m.Dst.String()
	if m.Dst.Bits() == 0 {
		what = "the default route"
	}
	if m.Type != kernel.Unicast && m.Type != 0 {
		what = m.Type.String() + " " + what
	}
	var hops []string
	for _, h := range m.NextHops {
		switch {
		case !h.Gateway.IsValid():
		case h.Gateway.Is6() && m.Dst.Addr().Is4(): // RFC 8950
			hops = append(hops, "inet6 "+h.Gateway.String())
		default:
			hops = append(hops, h.Gateway.String())
		}
	}
	if len(hops) > 0 {
		what += " via " + strings.Join(hops, ", ")
	}
	if dev := device(a); dev != "" {
		what += " dev " + dev
	}
	what += fmt.Sprintf(" proto %v", m.Protocol)
	if m.Metric != 0 {
		what += fmt.Sprintf(" metric %d", m.Metric)
	}
	return what
}
