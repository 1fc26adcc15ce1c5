package inspect

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caracal-net/caracal/bgp"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// PlanBGP implements caracal.v1.Inspection.
func (s *Server) PlanBGP(_ context.Context, r *caracalv1.PlanBGPRequest) (*caracalv1.PlanBGPResponse, error) {
	if s.src.PlanBGP == nil {
		return nil, status.Error(codes.Unimplemented, "no BGP is planned here")
	}
	node := cmp.Or(r.GetNode(), s.src.Node)
	cfg, problems, err := s.src.PlanBGP(node)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	m := &caracalv1.PlanBGPResponse{Node: node, Problems: each(problems, problemOf)}
	for _, l := range bgp.Effective(&cfg) {
		m.Lines = append(m.Lines, &caracalv1.ConfigLine{Text: l.Text, Source: l.Source})
	}
	return m, nil
}

// DiffBGP implements caracal.v1.Inspection.
func (s *Server) DiffBGP(_ context.Context, r *caracalv1.DiffBGPRequest) (*caracalv1.DiffBGPResponse, error) {
	if s.src.DiffBGP == nil {
		return nil, status.Error(codes.Unimplemented, "no BGP is planned here")
	}
	node := cmp.Or(r.GetNode(), s.src.Node)
	d, problems, err := s.src.DiffBGP(node, r.GetManifests(), r.GetDeletions())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	m := &caracalv1.DiffBGPResponse{Node: node, Restart: d.Restart, Added: d.Added, Removed: d.Removed, Reset_: each(d.Reset, sessionChangeOf),
		Refresh: each(d.Refresh, sessionChangeOf), Appear: prefixWords(d.Appear), Vanish: prefixWords(d.Vanish), Problems: each(problems, problemOf)}
	m.Down, m.Peers, m.Received = each(d.Down, sessionChangeOf), each(d.Peers, peerChangeOf), each(d.Received, peerChangeOf)
	m.Elected, m.Relieved = each(d.Elected, reflectorOf), each(d.Relieved, reflectorOf)
	return m, nil
}

func peerChangeOf(p bgp.PeerDifference) *caracalv1.PeerChange {
	return &caracalv1.PeerChange{Peer: p.Peer, Appear: prefixWords(p.Appear), Vanish: prefixWords(p.Vanish), Changed: prefixWords(p.Changed)}
}

func reflectorOf(r bgp.Reflector) *caracalv1.Reflector {
	return &caracalv1.Reflector{Node: r.Node, Zone: r.Zone, Why: r.Why}
}

func sessionChangeOf(r bgp.Reset) *caracalv1.SessionChange {
	return &caracalv1.SessionChange{Peer: r.Peer, Why: r.Why}
}

func prefixWords(list []netip.Prefix) []string {
	return each(list, func(p netip.Prefix) string { return p.String() })
}

// PlanBGP writes the configuration as YAML with its sources as comments, which is YAML still.
func (r Renderer) PlanBGP(w io.Writer, m *caracalv1.PlanBGPResponse) error {
	lines := make([]bgp.Line, 0, len(m.GetLines()))
	for _, l := range m.GetLines() {
		lines = append(lines, bgp.Line{Text: l.GetText(), Source: l.GetSource()})
	}
	if err := bgp.WriteEffective(w, lines); err != nil {
		return err
	}
	return writeProblems(w, "# ", m.GetProblems())
}

// DiffBGP writes a line for each change.
func (r Renderer) DiffBGP(w io.Writer, m *caracalv1.DiffBGPResponse) error {
	d := bgp.Difference{Restart: m.GetRestart(), Added: m.GetAdded(), Removed: m.GetRemoved(), Reset: sessionsOf(m.GetReset_()), Refresh: sessionsOf(m.GetRefresh()),
		Appear: prefixesOf(m.GetAppear()), Vanish: prefixesOf(m.GetVanish())}
	d.Down, d.Peers, d.Received = sessionsOf(m.GetDown()), peersOf(m.GetPeers()), peersOf(m.GetReceived())
	d.Elected, d.Relieved = reflectorsOf(m.GetElected()), reflectorsOf(m.GetRelieved())
	text := d.String()
	if d.Empty() {
		text = "nothing changes on node " + m.GetNode() + "\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return writeProblems(w, "problem: ", m.GetProblems())
}

func sessionsOf(list []*caracalv1.SessionChange) []bgp.Reset {
	return each(list, func(c *caracalv1.SessionChange) bgp.Reset { return bgp.Reset{Peer: c.GetPeer(), Why: c.GetWhy()} })
}

func peersOf(list []*caracalv1.PeerChange) []bgp.PeerDifference {
	return each(list, func(p *caracalv1.PeerChange) bgp.PeerDifference {
		return bgp.PeerDifference{Peer: p.GetPeer(), Appear: prefixesOf(p.GetAppear()), Vanish: prefixesOf(p.GetVanish()), Changed: prefixesOf(p.GetChanged())}
	})
}

func reflectorsOf(list []*caracalv1.Reflector) []bgp.Reflector {
	return each(list, func(r *caracalv1.Reflector) bgp.Reflector {
		return bgp.Reflector{Node: r.GetNode(), Zone: r.GetZone(), Why: r.GetWhy()}
	})
}

// prefixesOf reads what prefixWords wrote; what a server of another kind might write otherwise is left out.
func prefixesOf(list []string) (out []netip.Prefix) {
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func writeProblems(w io.Writer, lead string, list []*caracalv1.Problem) error {
	for _, p := range list {
		if _, err := fmt.Fprintf(w, "%s%s %s: %s\n", lead, p.GetObject(), p.GetField(), p.GetText()); err != nil {
			return err
		}
	}
	return nil
}

// each is a list of what f makes of each element; nil for an empty one.
func each[T, M any](list []T, f func(T) M) (out []M) {
	for _, v := range list {
		out = append(out, f(v))
	}
	return out
}
