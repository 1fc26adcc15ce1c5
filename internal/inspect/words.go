package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// outcomes is the fixed vocabulary in the order of its numbers; the place is the number on the wire.
func outcomes() []routes.Outcome {
	return []routes.Outcome{"", routes.Installed, routes.Waiting, routes.NoDevice, routes.Failed, routes.Foreign, routes.Lost, routes.Unroutable, routes.Kept}
}

// owners is every owner, in order of arbitration.
func owners() []routes.Owner {
	return []routes.Owner{routes.OwnerWorkload, routes.OwnerVXLAN, routes.OwnerIPIP, routes.OwnerBGP}
}

// stateOf returns the number of an outcome; unspecified for a word that is not in the vocabulary.
func stateOf(o routes.Outcome) caracalv1.RouteState {
	switch o {
	case routes.Installed:
		return caracalv1.RouteState_ROUTE_STATE_INSTALLED
	case routes.Waiting:
		return caracalv1.RouteState_ROUTE_STATE_PENDING
	case routes.NoDevice:
		return caracalv1.RouteState_ROUTE_STATE_NO_DEVICE
	case routes.Failed:
		return caracalv1.RouteState_ROUTE_STATE_FAILED
	case routes.Foreign:
		return caracalv1.RouteState_ROUTE_STATE_FOREIGN
	case routes.Lost:
		return caracalv1.RouteState_ROUTE_STATE_LOST
	case routes.Unroutable:
		return caracalv1.RouteState_ROUTE_STATE_UNROUTABLE
	case routes.Kept:
		return caracalv1.RouteState_ROUTE_STATE_KEPT
	}
	return caracalv1.RouteState_ROUTE_STATE_UNSPECIFIED
}

// outcomeOf is the inverse of stateOf, "" for a number without a word.
func outcomeOf(s caracalv1.RouteState) routes.Outcome {
	if all := outcomes(); s > 0 && int(s) < len(all) {
		return all[s]
	}
	return ""
}

// stateWord returns the word of a state as people see it.
func stateWord(s caracalv1.RouteState) string {
	if o := outcomeOf(s); o != "" {
		return string(o)
	}
	return "unknown"
}

// sessionStateOf returns the number of a session's state.
func sessionStateOf(s bgp.SessionState) caracalv1.SessionState {
	for i, word := range sessionWords() {
		if i > 0 && strings.EqualFold(word, string(s)) {
			return caracalv1.SessionState(i)
		}
	}
	return caracalv1.SessionState_SESSION_STATE_UNSPECIFIED
}

// sessionWords is RFC 4271's spelling; the place is the number on the wire.
func sessionWords() []string {
	return []string{"unknown", "Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"}
}

func sessionWord(s caracalv1.SessionState) string {
	if w := sessionWords(); s >= 0 && int(s) < len(w) {
		return w[s]
	}
	return sessionWords()[0]
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// timeOf leaves out a time that is not known.
func timeOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// routeOf makes the message of one status.
func routeOf(s *routes.Status) *caracalv1.Route {
	r := &s.Route
	m := &caracalv1.Route{
		Prefix: r.Dst.String(), Metric: r.Key().Metric, Owner: string(s.Owner),
		State: stateOf(s.Outcome), Detail: s.Detail,
		Type: caracalv1.RouteType(r.Type), SourceAddress: addrText(r.Src), Mtu: r.MTU,
		Kernel: oneLine(s.Kernel), Attempts: uint32(max(s.Attempts, 0)), Since: timeOf(s.Since),
	}
	if m.Detail == "" {
		m.Detail = r.Unroutable
	}
	if len(r.NextHops) > 0 {
		m.NextHops = make([]*caracalv1.NextHop, len(r.NextHops))
		for i, h := range r.NextHops {
			m.NextHops[i] = &caracalv1.NextHop{Gateway: addrText(h.Gateway), Device: h.Device, Onlink: h.Onlink, Weight: max(uint32(h.Weight), 1)}
		}
	}
	if w := r.Reason; w != nil {
		m.Reason = &caracalv1.Reason{Rule: w.Rule, Source: w.Source, Pool: w.Pool, Node: w.Node}
	}
	return m
}

// oneLine folds the lines in which ip(8) prints a multipath route into one.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\n\t") {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// removalOf names a route that is gone.
func removalOf(s *routes.Status) *caracalv1.Route {
	k := s.Route.Key()
	return &caracalv1.Route{Prefix: k.Dst.String(), Metric: k.Metric, Owner: string(s.Owner)}
}

func vtepOf(v *VTEP) *caracalv1.VTEP {
	m := &caracalv1.VTEP{
		Node: v.Node, Family: caracalv1.Family(v.Family), Address: addrText(v.Addr), Underlay: addrText(v.Underlay),
		Device: v.Device, Local: v.Local, Problem: v.Problem,
	}
	if !v.MAC.IsZero() {
		m.Mac = v.MAC.String()
	}
	return m
}

func deviceOf(d *DeviceStatus) *caracalv1.Device {
	m := &caracalv1.Device{
		Name: d.Name, Kind: d.Kind, Owner: string(d.Owner), State: stateOf(d.Outcome), Detail: d.Detail, Mtu: uint32(max(d.MTU, 0)),
		NeighboursInstalled: uint32(max(d.NeighboursInstalled, 0)), NeighboursWanted: uint32(max(d.NeighboursWanted, 0)),
	}
	for _, a := range d.Addresses {
		m.Addresses = append(m.Addresses, a.String())
	}
	return m
}

func problemOf(p cluster.Problem) *caracalv1.Problem {
	return &caracalv1.Problem{Object: p.Object, Field: p.Field, Text: p.Text, File: p.File, Line: uint32(max(p.Line, 0))}
}

// ParseState reads a word of the vocabulary of route states.
func ParseState(word string) (caracalv1.RouteState, error) {
	if i := slices.Index(outcomes(), routes.Outcome(strings.ToLower(word))); i > 0 {
		return caracalv1.RouteState(i), nil
	}
	return 0, fmt.Errorf("state %q: want one of %s", word, listed(outcomes()[1:]))
}

// ParseFamily reads "4", "ipv4", "6" or "ipv6"; empty means both.
func ParseFamily(word string) (caracalv1.Family, error) {
	switch strings.ToLower(word) {
	case "":
		return caracalv1.Family_FAMILY_UNSPECIFIED, nil
	case "4", "ipv4", "inet":
		return caracalv1.Family_FAMILY_IPV4, nil
	case "6", "ipv6", "inet6":
		return caracalv1.Family_FAMILY_IPV6, nil
	}
	return 0, fmt.Errorf("family %q: want 4 or 6", word)
}

// listed joins words as a person would.
func listed[S ~string](words []S) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}
