package vxlan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

// TestMAC holds the contract with Felix, word for word from a running Calico.
func TestMAC(t *testing.T) {
	for _, v := range []struct{ node, four, six string }{
		{"node1", "66:f9:37:c3:7e:94", "66:0f:35:f2:60:df"},
		{"node-a", "66:07:02:c1:cc:60", "66:d4:d5:51:3d:42"},
		{"remotehostname", "66:3e:ca:a4:db:65", "66:a0:68:c9:4c:79"},
		{"remotehostname2", "66:40:18:59:1f:16", ""},
		{"localhostname", "66:48:f6:56:dc:f1", ""},
	} {
		if got := MAC(v.node, cluster.IPv4).String(); got != v.four {
			t.Errorf("%s: %s, want %s", v.node, got, v.four)
		}
		if got := MAC(v.node, cluster.IPv6).String(); v.six != "" && got != v.six {
			t.Errorf("%s IPv6: %s, want %s", v.node, got, v.six)
		}
	}
	long := strings.Repeat("x", 253) // the longest name Kubernetes has
	if MAC(long, cluster.IPv4) == MAC(long, cluster.IPv6) || MAC(long, cluster.IPv4)[0] != 0x66 {
		t.Error("a long name")
	}
}

const (
	own  = "blackhole {B1}"
	two  = "{B2} via {T2} dev {D} onlink mtu {M}"
	near = "{B2} via {N2} dev eth0 onlink"
	far  = "{B3} via {T3} dev {D} onlink mtu {M}"
)

// rows are the situations of Felix's route manager and its edges, each with the routes that come of it. Where we differ
// from Felix the comment says so.
var rows = []struct {
	name   string
	mode   cluster.Mode
	change func(s *scene)
	want   []string
}{
	{"everything in place", cluster.Always, nil, []string{own, two, far}},
	{"same subnet goes direct", cluster.CrossSubnet, nil, []string{own, near, far}},
	{"our own mask decides", cluster.CrossSubnet, func(s *scene) {
		s.setHost(s.nodes["n1"], single(s.a("{N1}")))
	}, []string{own, two, far}},
	{"their mask does not", cluster.CrossSubnet, func(s *scene) {
		s.setHost(s.nodes["n2"], single(s.a("{N2}")))
	}, []string{own, near, far}},
	{"same subnet needs no VTEP", cluster.CrossSubnet, func(s *scene) {
		s.setTunnel(s.nodes["n2"], netip.Addr{})
	}, []string{own, near, far}},
	{"no VTEP: listed, not silent as in Felix", cluster.Always, func(s *scene) {
		s.setTunnel(s.nodes["n3"], netip.Addr{})
	}, []string{own, two, "{B3} unroutable: node n3 has no {F} tunnel address yet ({TA})"}},
	{"no node address", cluster.CrossSubnet, func(s *scene) {
		s.setHost(s.nodes["n2"], netip.Prefix{})
	}, []string{own, "{B2} unroutable: node n2 has no {F} address ({HA})", far}},
	{"no Node at all", cluster.Always, func(s *scene) { delete(s.nodes, "n3") },
		[]string{own, two, "{B3} unroutable: node n3 is not in the datastore"}},
	{"waiting for our own tunnel address", cluster.CrossSubnet, func(s *scene) {
		s.setTunnel(s.nodes["n1"], netip.Addr{})
	}, []string{own, near, "{B3} unroutable: waiting for our own tunnel address ({TA} of node n1)"}},
	{"no interface has our address: nothing is tunnelled instead, as Felix does", cluster.CrossSubnet, func(s *scene) { s.host[0].Addrs = nil }, []string{
		own,
		"{B2} unroutable: no interface of this host holds our own address {N1} ({HA} of node n1)",
		"{B3} unroutable: no interface of this host holds our own address {N1} ({HA} of node n1)"}},
	{"our own Node is missing", cluster.CrossSubnet, func(s *scene) { delete(s.nodes, "n1") }, []string{
		own,
		"{B2} unroutable: our own node n1 is not in the datastore",
		"{B3} unroutable: our own node n1 is not in the datastore"}},
	{"another node claims our address", cluster.CrossSubnet, func(s *scene) { s.setHost(s.nodes["n2"], s.p("{S1}")) }, []string{
		own, far,
		"{B2} unroutable: node n2 claims our own address {N1} ({HA} of node n2); give one of the two its own address, or delete the Node that no longer exists"}},

	{"an address of theirs used by a third", cluster.Always, func(s *scene) { s.block("{B2}", "n2", "{A2}", "n3") },
		[]string{own, two, far, "{A2}{H} via {T3} dev {D} onlink mtu {M}"}},
	{"an address of a far one used by a near one", cluster.CrossSubnet, func(s *scene) { s.block("{B3}", "n3", "{A3}", "n2") },
		[]string{own, near, far, "{A3}{H} via {N2} dev eth0 onlink"}},
	{"an address of ours used by another", cluster.Always, func(s *scene) { s.block("{B1}", "n1", "{A1}", "n3") },
		[]string{own, two, far, "{A1}{H} via {T3} dev {D} onlink mtu {M}"}},
	{"an address of theirs used by us: not by way of ourselves", cluster.CrossSubnet, func(s *scene) { s.block("{B2}", "n2", "{A2}", "n1", "{Z2}", "n3") },
		[]string{own, near, far, "{Z2}{H} via {T3} dev {D} onlink mtu {M}"}},
	{"a borrower nobody knows", cluster.Always, func(s *scene) { s.block("{B2}", "n2", "{A2}", "n9") },
		[]string{own, two, far, "{A2}{H} unroutable: node n9 is not in the datastore"}},
	{"a block without owner: each address for itself", cluster.Always, func(s *scene) { s.block("{B4}", "", "{A2}", "n3") },
		[]string{own, two, far}}, // the address lies in {B2}, so it does not count
	{"a block of nobody with addresses in use", cluster.Always, func(s *scene) { s.block("{B2}", "", "{A2}", "n3") },
		[]string{own, far, "{A2}{H} via {T3} dev {D} onlink mtu {M}", "{T2}{H} dev {D}{L} mtu {M}"}},

	{"their tunnel end in our block", cluster.Always, func(s *scene) { s.setTunnel(s.nodes["n3"], s.a("{A1}")) },
		[]string{own, two, "{B3} via {A1} dev {D} onlink mtu {M}", "{A1}{H} dev {D}{L} mtu {M}"}},
	{"their tunnel end in a third's block", cluster.Always, func(s *scene) { s.setTunnel(s.nodes["n3"], s.a("{A2}")) },
		[]string{own, two, "{B3} via {A2} dev {D} onlink mtu {M}", "{A2}{H} dev {D}{L} mtu {M}"}},
	{"the same, also listed as borrowed", cluster.Always, func(s *scene) {
		s.setTunnel(s.nodes["n3"], s.a("{A2}"))
		s.block("{B2}", "n2", "{A2}", "n3", "{Z2}", "n3")
	}, []string{own, two, "{B3} via {A2} dev {D} onlink mtu {M}", "{A2}{H} dev {D}{L} mtu {M}", "{Z2}{H} via {A2} dev {D} onlink mtu {M}"}},
	{"their tunnel end in our block, they are near", cluster.CrossSubnet, func(s *scene) { s.setTunnel(s.nodes["n2"], s.a("{A1}")) },
		[]string{own, near, far, "{A1}{H} via {N2} dev eth0 onlink"}},
	{"our tunnel end in their block", cluster.Always, func(s *scene) { s.setTunnel(s.nodes["n1"], s.a("{A2}")) }, []string{own, two, far}},
	{"their tunnel end is a block of its own", cluster.Always, func(s *scene) {
		s.setTunnel(s.nodes["n3"], s.a("{A3}"))
		s.block("{A3}{H}", "n3")
	}, []string{own, two, "{B3} via {A3} dev {D} onlink mtu {M}", "{A3}{H} dev {D}{L} mtu {M}"}},
	{"the same, they are near", cluster.CrossSubnet, func(s *scene) {
		s.setTunnel(s.nodes["n2"], s.a("{A2}"))
		s.block("{A2}{H}", "n2")
	}, []string{own, near, far, "{A2}{H} via {N2} dev eth0 onlink"}},

	{"our own block of one address has no blackhole", cluster.Always, func(s *scene) { s.block("{A1}{H}", "n1") }, []string{own, two, far}},
	{"their block of one address", cluster.Always, func(s *scene) { s.block("{A3}{H}", "n3") },
		[]string{own, two, far, "{A3}{H} via {T3} dev {D} onlink mtu {M}"}},
	{"a block of one address used by another", cluster.Always, func(s *scene) { s.block("{A3}{H}", "n3", "{A3}", "n2") },
		[]string{own, two, far, "{A3}{H} via {T2} dev {D} onlink mtu {M}"}},
	{"a smaller block decides about its address", cluster.Always, func(s *scene) {
		s.block("{B2}", "n2", "{A2}", "n3")
		s.block("{A2}{H}", "n2")
	}, []string{own, two, far, "{A2}{H} via {T2} dev {D} onlink mtu {M}"}},
	{"a node's own address is never routed to", cluster.Always, func(s *scene) {
		s.setHost(s.nodes["n2"], single(s.a("{A3}")))
		s.block("{B3}", "n3", "{A3}", "n2")
		s.block("{A3}{H}", "n2")
	}, []string{own, two, far}},

	{"virtual owner", cluster.Always, func(s *scene) { s.block("{B4}", "").Virtual = "load-balancer" }, []string{own, two, far}},
	{"in no pool, theirs", cluster.Always, func(s *scene) { s.block("{X}", "n2") },
		[]string{own, two, far, "{X} unroutable: the block is in no IPPool that is in effect; create the pool again, or release the block"}},
	{"in no pool, ours", cluster.Always, func(s *scene) { s.block("{X}", "n1") }, []string{own, two, far}},
	{"in no pool, nobody's", cluster.Always, func(s *scene) { s.block("{X}", "") }, []string{own, two, far}},

	{"no encapsulation under backend vxlan", cluster.Never, nil, []string{own, near,
		"{B3} unroutable: IPPool pool has no encapsulation, node n3 is not in our subnet and the backend vxlan learns no routes; set vxlanMode to CrossSubnet, or calico_backend to bird"}},
	{"no encapsulation, their address unknown", cluster.Never, func(s *scene) { s.setHost(s.nodes["n3"], netip.Prefix{}) },
		[]string{own, near, "{B3} unroutable: node n3 has no {F} address ({HA})"}},
	{"no encapsulation under backend bird is BGP's", cluster.Never, func(s *scene) { s.backend = cluster.BackendBird }, nil},
	{"VXLAN under backend bird is ours", cluster.CrossSubnet, func(s *scene) { s.backend = cluster.BackendBird }, []string{own, near, far}},
	{"an empty backend is bird", cluster.Always, func(s *scene) { s.backend = "" }, []string{own, two, far}},
	{"backend none", cluster.Always, func(s *scene) { s.backend = cluster.BackendNone }, nil},

	{"MTU from the parent", cluster.Always, func(s *scene) { s.host[0].MTU = 9000 },
		[]string{own, "{B2} via {T2} dev {D} onlink mtu {M9000}", "{B3} via {T3} dev {D} onlink mtu {M9000}"}},
	{"our address on lo: nobody is in its subnet, and the MTU is that of the links behind it (RFC 8950)", cluster.CrossSubnet, func(s *scene) {
		s.host[0].MTU = 9000
		s.host = append(s.host, routes.Interface{Name: "lo", Index: 1, MTU: 65536, Up: true, Addrs: s.host[0].Addrs}, routes.Interface{Name: "eth1", Index: 3, MTU: 1500})
		s.host[0].Addrs = nil
		s.table = []routes.HostRoute{{Dst: s.p("{S2}").Masked(), Hops: []routes.NextHop{{Gateway: adr("fe80::1"), Device: "eth0"}, {Gateway: adr("fe80::2"), Device: "eth1"}}}}
	}, []string{own, "{B2} via {T2} dev {D} onlink mtu {M9000}", "{B3} via {T3} dev {D} onlink mtu {M9000}"}},
	{"preferred source", cluster.CrossSubnet, func(s *scene) {
		s.felix = cluster.FelixConfig{RouteSource4: adr("192.0.2.1"), RouteSource6: adr("2001:db8:1::1")}
	}, []string{own, near + " src {N1}", "{B3} via {T3} dev {D} onlink src {N1} mtu {M}"}},
}

func TestRoutes(t *testing.T) {
	if len(rows) < 30 {
		t.Fatal("rows are missing")
	}
	bothFamilies(t, func(t *testing.T, f cluster.Family) {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				s := newScene(f, row.mode)
				if row.change != nil {
					row.change(s)
				}
				out := NewPlanner("n1").Plan(s.input())
				if !out.Change.Whole || out.Change.Links == nil {
					t.Error("the first plan is not whole")
				}
				got, _, _ := texts(&out.Change)
				want := slices.Clone(row.want)
				for i := range want {
					want[i] = s.say(want[i])
				}
				wantLines(t, "routes", got, want...)
				explained(t, s.input().State, &out.Change)
			})
		}
	})
}

// explained holds invariant 8 for one change.
func explained(t *testing.T, st *cluster.State, c *routes.Change) {
	t.Helper()
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Reason == nil || r.Reason.Rule == "" || r.Reason.Source == "" || r.Reason.Node == "" || (r.Reason.Pool == "") != (st.PoolFor(r.Dst) == nil) {
			t.Errorf("%s has no good reason: %+v", routeText(r), r.Reason)
		}
	}
}

func TestIPIPPoolUnderBackendVXLAN(t *testing.T) {
	s := newScene(cluster.IPv4, cluster.Always)
	s.pools = []*cluster.Pool{{Name: "pool", CIDR: s.p("{P}"), IPIPMode: cluster.CrossSubnet}}
	s.block("{B1}", "n1", "{A1}", "n2")
	why := " unroutable: IPPool pool uses IPIP, which needs the backend bird; set vxlanMode instead of ipipMode, or calico_backend to bird"
	out := NewPlanner("n1").Plan(s.input())
	got, neighbours, links := texts(&out.Change)
	wantLines(t, "routes", got, s.say("{B2}"+why), s.say("{B3}"+why), s.say("{A1}{H}"+why))
	if len(neighbours)+len(links) != 0 {
		t.Errorf("%v %v", neighbours, links)
	}
}

func TestDeviceAndNeighbours(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f cluster.Family) {
		s := newScene(f, cluster.CrossSubnet)
		p := NewPlanner("n1")
		out := p.Plan(s.input())
		_, neighbours, links := texts(&out.Change)
		wantLines(t, "links", links, s.say("{D} mtu {M} addr [{T1}{H}] id 4096 port 4789 parent eth0 local {N1}"))
		if got := out.Change.Links[0].MAC; got != MAC("n1", f) {
			t.Errorf("MAC %v", got)
		}
		// All remote VTEPs, those in our subnet too: a pool may turn to Always, and replies may come through the tunnel.
		wantLines(t, "neighbours", neighbours,
			s.say("{T2} lladdr {V2} dev {D}"), s.say("{V2} dst {N2} dev {D}"),
			s.say("{T3} lladdr {V3} dev {D}"), s.say("{V3} dst {N3} dev {D}"))

		s.felix = cluster.FelixConfig{VXLANMTU: 1300, VXLANMTUv6: 1300, VXLANPort: 8472, VXLANVNI: 7}
		s.setMAC(s.nodes["n1"], cluster.MAC{2, 0, 0, 0, 0, 1})
		out = p.Plan(s.input())
		_, _, links = texts(&out.Change)
		wantLines(t, "links", links, s.say("{D} mtu 1300 addr [{T1}{H}] id 7 port 8472 parent eth0 local {N1}"))
		if out.Change.Whole || out.Change.Links[0].MAC != [6]byte{2, 0, 0, 0, 0, 1} {
			t.Errorf("%+v", out.Change)
		}

		s.pools = nil
		out = p.Plan(s.input())
		if out.Change.Links == nil || len(out.Change.Links) != 0 || len(out.Change.WithdrawNeighbours) != 4 {
			t.Errorf("without a pool the device goes and its entries with it: %+v", out.Change)
		}
	})
}

func TestNoDevice(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f cluster.Family) {
		for name, change := range map[string]func(s *scene){
			"no tunnel address": func(s *scene) { s.setTunnel(s.nodes["n1"], netip.Addr{}) },
			"no parent":         func(s *scene) { s.host = nil },
			"no own address":    func(s *scene) { s.setHost(s.nodes["n1"], netip.Prefix{}) },
			"no pool":           func(s *scene) { s.pools[0].VXLANMode = cluster.Never },
			"none":              func(s *scene) { s.backend = cluster.BackendNone },
		} {
			s := newScene(f, cluster.Always)
			change(s)
			out := NewPlanner("n1").Plan(s.input())
			if c := out.Change; !c.Whole || c.Links == nil || len(c.Links)+len(c.Neighbours) != 0 {
				t.Errorf("%s: %+v", name, c)
			}
		}
	})
}

func TestNothingToPlanFrom(t *testing.T) {
	s := newScene(cluster.IPv4, cluster.Always)
	p := NewPlanner("n1")
	in := s.input()
	if out := p.Plan(Input{State: in.State}); out.Change.Whole || out.Change.Links != nil {
		t.Errorf("without a host: %+v", out)
	}
	if out := p.Plan(Input{Host: in.Host}); out.Change.Whole || out.Change.Links != nil {
		t.Errorf("without a state: %+v", out)
	}
	if out := p.Plan(in); !out.Change.Whole {
		t.Error("the first real plan is not whole")
	}
	if out := p.Plan(in); out.Change.Whole || len(out.Change.Routes)+len(out.Change.Neighbours) != 0 || out.Change.Links != nil || len(out.VTEPs) != 3 {
		t.Errorf("the same again: %+v", out)
	}
	p.Reset()
	if out := p.Plan(in); !out.Change.Whole {
		t.Error("not whole after Reset")
	}
	in.Backend = cluster.BackendNone
	if out := p.Plan(in); !out.Change.Whole || len(out.Change.Routes)+len(out.VTEPs) != 0 || out.Change.Links == nil {
		t.Errorf("backend none withdraws all at once: %+v", out)
	}
	if out := p.Plan(in); out.Change.Whole {
		t.Error("backend none again")
	}
	in.Backend = cluster.BackendVXLAN
	if out := p.Plan(in); !out.Change.Whole || len(out.Change.Routes) != 3 {
		t.Errorf("back again: %+v", out)
	}
}

func TestSharing(t *testing.T) {
	s := newScene(cluster.IPv4, cluster.Always)
	s.block("{B4}", "n3")
	out := NewPlanner("n1").Plan(s.input())
	var of []*routes.Route
	for i := range out.Change.Routes {
		if out.Change.Routes[i].Reason.Node == "n3" {
			of = append(of, &out.Change.Routes[i])
		}
	}
	if len(of) != 2 || of[0].Reason != of[1].Reason || &of[0].NextHops[0] != &of[1].NextHops[0] {
		t.Errorf("two blocks of one node do not share reason and next hops: %+v", of)
	}
}
