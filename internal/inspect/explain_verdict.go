package inspect

import (
	"fmt"
	"strings"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// verdict is the answer in one line: the first thing that is missing on the way, or how packets go.
func (e *explainer) verdict(f finding) *caracalv1.Verdict {
	worst := e.worst()
	switch {
	case e.state == nil:
		return &caracalv1.Verdict{Level: missing, Text: "cannot be told: the datastore has not been read yet"}
	case f.disagrees:
		return &caracalv1.Verdict{Level: missing, Text: "the kernel does not do what we believe: " + strings.TrimPrefix(f.text, disagreement)}
	case worst == nil:
		return &caracalv1.Verdict{Level: ok, Text: e.success(&f)}
	case worst.Level == missing:
		return &caracalv1.Verdict{Level: missing, Text: "does not get there: " + e.cause(worst)}
	}
	text := e.success(&f)
	switch worst.Kind {
	case stepPool, stepBlock:
		text = e.briefly(worst) + "; " + text
	case stepKernel:
		if f.but != "" {
			text += "; but " + f.but
		} else if !f.dropped {
			text = e.briefly(worst)
		}
	default:
		text += "; but " + e.briefly(worst)
	}
	return &caracalv1.Verdict{Level: warn, Text: text}
}

// briefly is what the verdict says of a step.
func (e *explainer) briefly(s *caracalv1.ExplainStep) string {
	if s.Kind == stepKernel {
		return "the kernel: " + s.Text
	}
	return orElse(e.brief[s], s.Text)
}

// cause is what is missing; of a missing path, the session that does not bring it too.
func (e *explainer) cause(s *caracalv1.ExplainStep) string {
	text := e.briefly(s)
	if s.Kind != stepPath {
		return text
	}
	for _, o := range e.steps {
		if o.Kind == stepPeer && o.Level > ok {
			return text + "; " + o.Text
		}
	}
	return text
}

// worst is the first step of the worst level on the way, nil if all is well.
func (e *explainer) worst() (found *caracalv1.ExplainStep) {
	for _, s := range e.steps {
		if s.Level > max(ok, found.GetLevel()) {
			found = s
		}
	}
	return found
}

// success says how packets go when nothing is missing.
func (e *explainer) success(f *finding) string {
	switch {
	case f.local:
		return "an address of this host itself"
	case e.local() && f.dropped:
		return "an address of ours that no workload uses: packets to it are dropped"
	case e.local():
		return "a workload of this node, on " + orElse(f.device, "an interface of its own")
	case f.dropped:
		return "packets to it are dropped"
	}
	s := e.believed()
	if s == nil || f.foreign {
		return "the host's own routes lead there" + over(f.device)
	}
	return e.reached(s, f)
}

// reached says by which way a remote node is reached.
func (e *explainer) reached(s *routes.Status, f *finding) string {
	to := "reached"
	if e.nodeName != "" {
		to = "on " + e.nodeName + ", reached"
	}
	hops, dev := s.Route.NextHops, f.device
	if dev == "" && len(hops) > 0 {
		dev = hops[0].Device
	}
	switch {
	case strings.HasPrefix(dev, "vxlan"):
		to += " through the VXLAN tunnel"
	case dev == "tunl0":
		to += " through the IPIP tunnel"
	default:
		to += " directly"
		if len(hops) == 1 && hops[0].Gateway.IsValid() {
			to += " via " + hops[0].Gateway.String()
		}
	}
	to += over(dev)
	if len(hops) > 1 {
		to += fmt.Sprintf(", over %d equal paths", len(hops))
	}
	return to
}

func over(device string) string {
	if device == "" {
		return ""
	}
	return " (" + device + ")"
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
