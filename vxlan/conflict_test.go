package vxlan

import (
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
)

func vtepText(list []VTEP) (out []string) {
	for _, v := range list {
		local := ""
		if v.Local {
			local = " local"
		}
		out = append(out, v.Node+" "+v.Addr.String()+" "+string(v.Condition)+local)
	}
	return out
}

// TestConflicts has two nodes with something in common seen from the winner, the loser and a third: all must decide alike.
func TestConflicts(t *testing.T) {
	sameAddr := func(s *scene) { s.setTunnel(s.nodes["n3"], s.a("{T2}")) }
	sameMAC := func(s *scene) {
		s.setMAC(s.nodes["n2"], cluster.MAC{2, 2, 2, 2, 2, 2})
		s.setMAC(s.nodes["n3"], cluster.MAC{2, 2, 2, 2, 2, 2})
	}
	addrText := "tunnel address {T2} of node n3 is also that of node n2, which is first by name and keeps it; remove {TA} from node n3 so that it is given another"
	macText := "VXLAN MAC 02:02:02:02:02:02 of node n3 is also that of node n2, which is first by name and keeps it; give one of the two a MAC of its own in {MA}"
	bothFamilies(t, func(t *testing.T, f cluster.Family) {
		for _, c := range []struct {
			name        string
			change      func(s *scene)
			text, field string
		}{{"address", sameAddr, addrText, "{TA}"}, {"MAC", sameMAC, macText, "{MA}"}} {
			s := newScene(f, cluster.Always)
			c.change(s)

			third := NewPlanner("n1").Plan(s.input())
			got, neighbours, _ := texts(&third.Change)
			wantLines(t, c.name+": third's routes", withoutGuests(got), s.say(own), s.say(two), s.say("{B3} unroutable: "+c.text))
			if len(neighbours) != 2 || !strings.Contains(strings.Join(neighbours, " "), s.say("dst {N2}")) {
				t.Errorf("%s: third's neighbours %v", c.name, neighbours)
			}
			wantProblem(t, c.name, third.Problems, "Node n3", s.say(c.field), s.say(c.text))

			s.host[0].Addrs = append(s.host[0].Addrs, s.p("{S2}"), s.p("{S3}"))
			winner := NewPlanner("n2").Plan(s.input())
			got, _, links := texts(&winner.Change)
			wantLines(t, c.name+": winner's routes", withoutGuests(got), s.say("{B1} via {T1} dev {D} onlink mtu {M}"), s.say("blackhole {B2}"), s.say("{B3} unroutable: "+c.text))
			if len(links) != 1 {
				t.Errorf("%s: the winner keeps its device: %v", c.name, links)
			}
			wantProblem(t, c.name, winner.Problems, "Node n3", s.say(c.field), s.say(c.text))

			loser := NewPlanner("n3").Plan(s.input())
			got, neighbours, links = texts(&loser.Change)
			why := " unroutable: no device of our own: " + c.text
			wantLines(t, c.name+": loser's routes", withoutGuests(got), s.say("{B1}"+why), s.say("{B2}"+why), s.say("blackhole {B3}"))
			if len(links)+len(neighbours) != 0 {
				t.Errorf("%s: the loser has no VTEP: %v %v", c.name, links, neighbours)
			}
			wantProblem(t, c.name, loser.Problems, "Node n3", s.say(c.field), s.say(c.text))
		}
	})
}

// withoutGuests leaves out routes to single addresses: a shared tunnel address is also an address in another's block.
func withoutGuests(lines []string) (out []string) {
	for _, l := range lines {
		if dst := strings.Fields(strings.TrimPrefix(l, "blackhole "))[0]; !strings.HasSuffix(dst, "/32") && !strings.HasSuffix(dst, "/128") {
			out = append(out, l)
		}
	}
	return out
}

func wantProblem(t *testing.T, what string, got []cluster.Problem, object, field, text string) {
	t.Helper()
	if len(got) != 1 || got[0].Object != object || got[0].Field != field || got[0].Text != text {
		t.Errorf("%s: problems %+v\nwant %s %s: %s", what, got, object, field, text)
	}
}

// TestSameSubnetOutlivesConflict: what needs no tunnel does not suffer.
func TestSameSubnetOutlivesConflict(t *testing.T) {
	s := newScene(cluster.IPv4, cluster.CrossSubnet)
	s.setTunnel(s.nodes["n2"], s.a("{T1}"))
	out := NewPlanner("n1").Plan(s.input())
	got, _, _ := texts(&out.Change)
	wantLines(t, "routes", withoutGuests(got), s.say(own), s.say(near), s.say(far))
	wantLines(t, "VTEPs", vtepText(out.VTEPs), s.say("n1 {T1} in-use local"), s.say("n2 {T1} conflict"), s.say("n3 {T3} in-use"))
}

// TestConflictComesAndGoes follows a change of name order: a new first node takes over, and gives back when it leaves.
func TestConflictComesAndGoes(t *testing.T) {
	s := newScene(cluster.IPv4, cluster.Always)
	p := NewPlanner("n1")
	p.Plan(s.input())
	s.nodes["a0"] = &cluster.Node{Name: "a0", Addr4: pfx("198.51.100.9/24"), VXLANAddr4: s.a("{T3}")}
	out := p.Plan(s.input())
	rts, neighbours, _ := texts(&out.Change)
	text := s.say("tunnel address {T3} of node n3 is also that of node a0, which is first by name and keeps it; remove {TA} from node n3 so that it is given another")
	wantLines(t, "routes", rts, s.say("{B3} unroutable: ")+text, s.say("{T3}{H} dev {D}{L} mtu {M}"))
	wantLines(t, "neighbours", neighbours, s.say("{T3} lladdr "+MAC("a0", cluster.IPv4).String()+" dev {D}"), s.say(MAC("a0", cluster.IPv4).String()+" dst 198.51.100.9 dev {D}"))
	if w := out.Change.WithdrawNeighbours; len(w) != 1 || !w[0].FDB {
		t.Errorf("the neighbour is replaced, only the FDB entry of n3 goes: %+v", w)
	}
	delete(s.nodes, "a0")
	out = p.Plan(s.input())
	rts, neighbours, _ = texts(&out.Change)
	wantLines(t, "routes", rts, s.say(far))
	wantLines(t, "neighbours", neighbours, s.say("{T3} lladdr {V3} dev {D}"), s.say("{V3} dst {N3} dev {D}"))
	if len(out.Change.Withdraw) != 1 || len(out.Problems) != 0 {
		t.Errorf("%+v %+v", out.Change.Withdraw, out.Problems)
	}
}

func TestVTEPsAndProblems(t *testing.T) {
	s := newScene(cluster.IPv4, cluster.Always)
	s.nodes["n4"] = &cluster.Node{Name: "n4", Addr4: pfx("192.0.2.4/24")}
	s.nodes["n5"] = &cluster.Node{Name: "n5", Addr6: pfx("2001:db8::5/64")} // nothing to do with IPv4
	s.block("{X}", "n2")
	s.block("10.98.0.0/26", "n1")
	out := NewPlanner("n1").Plan(s.input())
	wantLines(t, "VTEPs", vtepText(out.VTEPs), "n1 10.244.1.0 in-use local", "n2 10.244.2.0 in-use", "n3 10.244.3.0 in-use", "n4 invalid IP incomplete")
	if len(out.Problems) != 1 || out.Problems[0].Object != "IPAMBlock 10-98-0-0-26" || !strings.Contains(out.Problems[0].Text, "and 1 more") {
		t.Errorf("problems %+v", out.Problems)
	}
	s.host = nil
	out = NewPlanner("n1").Plan(s.input())
	wantLines(t, "VTEPs", vtepText(out.VTEPs), "n1 10.244.1.0 waiting local", "n2 10.244.2.0 waiting", "n3 10.244.3.0 waiting", "n4 invalid IP incomplete")
	if len(out.Problems) != 2 || out.Problems[1].Object != "Node n1" || out.Problems[1].Field != "spec.bgp.ipv4Address" {
		t.Errorf("problems %+v", out.Problems)
	}
}
