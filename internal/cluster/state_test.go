package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func TestDefaults(t *testing.T) {
	s := NewBuilder().State()
	if s.BGP().ASN != 64512 || !s.BGP().Mesh || s.BGP().ListenPort != 179 || s.BGP().NormalPriority4 != 1024 {
		t.Errorf("BGP = %+v", s.BGP())
	}
	if s.Felix().VXLANVNI != 4096 || s.Felix().VXLANPort != 4789 {
		t.Errorf("Felix = %+v", s.Felix())
	}
}

func TestEqualObjectWakesNobody(t *testing.T) {
	b := NewBuilder()
	node := func() *Node {
		return &Node{Name: "n1", Labels: map[string]string{"rack": "a"}, Addr4: pfx("192.0.2.1/24"), VXLANAddr4: adr("10.244.0.1")}
	}
	block := func() *Block {
		return &Block{CIDR: pfx("10.244.0.0/26"), Node: "n1", Borrowed: []Assignment{{adr("10.244.0.9"), "n2"}}}
	}
	pool := func() *Pool { return &Pool{Name: "p", CIDR: pfx("10.244.0.0/16"), VXLANMode: Always} }
	claim := func() *Affinity { return &Affinity{Node: "n1", CIDR: pfx("10.244.0.0/26"), State: Confirmed} }
	peer := func() *BGPPeer { return &BGPPeer{Name: "tor", PeerIP: adr("192.0.2.254"), ASN: 65000} }
	bgp := BGPConfig{ASN: 65001, NodeListenPorts: map[string]uint16{"n1": 1790}}
	problem := []Problem{{Object: "Node x", Field: "f"}, {Object: "Node a", Field: "f"}}
	all := func() []bool {
		return []bool{b.SetNode(node()), b.SetBlock(block()), b.SetPool(pool()), b.SetAffinity(claim()), b.SetPeer(peer()),
			b.SetBGP(bgp), b.SetFelix(FelixConfig{VXLANMTU: 1400}), b.SetBackend(BackendBird), b.SetProblems(problem)}
	}
	if got := all(); slices.Contains(got, false) {
		t.Fatalf("first time: %v", got)
	}
	s := b.State()
	if got := all(); slices.Contains(got, true) {
		t.Errorf("same again: %v", got)
	}
	if b.State() != s {
		t.Error("an equal cluster made a new State")
	}
	other := node()
	other.Labels["rack"] = "b"
	if !b.SetNode(other) {
		t.Error("a changed label went unnoticed; selectors read labels")
	}
	if b.DeleteNode("none") || b.DeletePool("none") || b.DeletePeer("none") || b.DeleteBlock(pfx("10.0.0.0/26")) ||
		b.DeleteAffinity("n2", pfx("10.244.0.0/26")) {
		t.Error("removing what is not there counts as a change")
	}
	if !b.DeleteNode("n1") || !b.DeletePool("p") || !b.DeletePeer("tor") || !b.DeleteBlock(pfx("10.244.0.0/26")) ||
		!b.DeleteAffinity("n1", pfx("10.244.0.0/26")) {
		t.Error("removing what is there is no change")
	}
	if now := b.State(); len(now.Nodes())+len(now.Pools())+len(now.Blocks())+len(now.Affinities())+len(now.Addrs()) != 0 {
		t.Errorf("left over: %+v", now)
	}
}

func TestLookups(t *testing.T) {
	s := Build(Objects{
		Nodes: []*Node{
			{Name: "b", Addr4: pfx("192.0.2.2/24"), Addr6: pfx("2001:db8::2/64"), VXLANAddr4: adr("10.244.1.1"), IPIPAddr: adr("10.244.1.2")},
			{Name: "a", Addr4: pfx("192.0.2.1/24"), VXLANAddr6: adr("fd00::1")},
		},
		Pools: []*Pool{{Name: "four", CIDR: pfx("10.244.0.0/16")}, {Name: "six", CIDR: pfx("fd00::/48")}},
		Blocks: []*Block{
			{CIDR: pfx("10.244.1.0/26"), Node: "b"}, {CIDR: pfx("10.244.1.5/32"), Node: "a"}, {CIDR: pfx("fd00::/122"), Node: "a"},
			{CIDR: pfx("10.244.1.0/24"), Node: "a"},
		},
		Affinities: []*Affinity{{Node: "b", CIDR: pfx("10.244.9.0/26")}, {Node: "b", CIDR: pfx("10.244.1.0/26")}, {Node: "a", CIDR: pfx("10.244.2.0/26")}},
	})
	blocks := map[string]string{
		"10.244.1.5": "10.244.1.5/32", "10.244.1.6": "10.244.1.0/26", "10.244.1.64": "10.244.1.0/24", "10.244.2.1": "",
		"fd00::3f": "fd00::/122", "fd00::40": "", "::ffff:10.244.1.5": "",
	}
	for addr, want := range blocks {
		got := ""
		if b := s.BlockOf(adr(addr)); b != nil {
			got = b.CIDR.String()
		}
		if got != want {
			t.Errorf("BlockOf(%s) = %q, want %q", addr, got, want)
		}
	}
	if p := s.PoolFor(pfx("10.244.1.0/26")); p == nil || p.Name != "four" {
		t.Errorf("PoolFor a block: %v", p)
	}
	if p := s.PoolFor(pfx("10.0.0.0/8")); p != nil {
		t.Errorf("PoolFor something wider than any pool: %v", p)
	}
	if p := s.PoolFor(pfx("fd00::1/128")); p == nil || p.Name != "six" {
		t.Errorf("PoolFor an IPv6 address: %v", p)
	}
	if n := s.NodeByAddr(adr("2001:db8::2")); n == nil || n.Name != "b" {
		t.Errorf("NodeByAddr: %v", n)
	}
	if n := s.NodeByAddr(adr("10.244.1.1")); n != nil {
		t.Errorf("NodeByAddr takes a tunnel address: %v", n)
	}
	if got := s.AffinitiesOf("b"); len(got) != 2 || got[0].CIDR != pfx("10.244.1.0/26") {
		t.Errorf("AffinitiesOf: %v", got)
	}
	if got := s.AddrsIn(pfx("10.244.1.0/26")); len(got) != 2 || got[0].Kind != VXLANTunnelAddr || got[1].Kind != IPIPTunnelAddr {
		t.Errorf("AddrsIn: %v", got)
	}
}

func TestNilStateIsEmpty(t *testing.T) {
	var s *State
	if s.Node("a") != nil || s.PoolFor(pfx("10.0.0.0/8")) != nil || s.BlockOf(adr("10.0.0.1")) != nil || s.NodeByAddr(adr("10.0.0.1")) != nil ||
		len(s.Nodes())+len(s.AffinitiesOf("a"))+len(s.AddrsIn(pfx("10.0.0.0/8")))+len(s.Problems()) != 0 {
		t.Error("a nil State is not empty")
	}
}

func poolNames(s *State) string {
	var out []string
	for _, p := range s.Pools() {
		out = append(out, p.Name+"="+p.CIDR.String())
	}
	return strings.Join(out, " ")
}

func problemFields(s *State) string {
	var out []string
	for _, p := range s.Problems() {
		out = append(out, p.Object+" "+p.Field)
	}
	return strings.Join(out, ", ")
}

// TestPoolRules walks one Builder through each story; every step is one State.
func TestPoolRules(t *testing.T) {
	type step struct {
		set            *Pool
		del            string
		pools, problem string
	}
	v6ipip := &Pool{Name: "six", CIDR: pfx("fd00::/48"), IPIPMode: CrossSubnet}
	v6vxlan := &Pool{Name: "six", CIDR: pfx("fd00::/48"), VXLANMode: CrossSubnet}
	stories := map[string][]step{
		"IPv6 with IPIP is without it":         {{set: v6ipip, pools: "six=fd00::/48", problem: "IPPool six spec.ipipMode"}},
		"IPv6 turned to IPIP stays as it was":  {{set: v6vxlan, pools: "six=fd00::/48"}, {set: v6ipip, pools: "six=fd00::/48", problem: "IPPool six spec.ipipMode"}},
		"IPv6 with IPIP mended":                {{set: v6ipip, pools: "six=fd00::/48", problem: "IPPool six spec.ipipMode"}, {set: v6vxlan, pools: "six=fd00::/48"}},
		"host bits in the CIDR":                {{set: &Pool{Name: "p", CIDR: pfx("10.1.2.3/16")}, problem: "IPPool p spec.cidr"}},
		"no CIDR":                              {{set: &Pool{Name: "p"}, problem: "IPPool p spec.cidr"}},
		"bad CIDR after a good one":            {{set: &Pool{Name: "p", CIDR: pfx("10.1.0.0/16")}, pools: "p=10.1.0.0/16"}, {set: &Pool{Name: "p"}, pools: "p=10.1.0.0/16", problem: "IPPool p spec.cidr"}},
		"a newcomer loses to the one standing": {{set: &Pool{Name: "z", CIDR: pfx("10.0.0.0/8")}, pools: "z=10.0.0.0/8"}, {set: &Pool{Name: "a", CIDR: pfx("10.1.0.0/16")}, pools: "z=10.0.0.0/8", problem: "IPPool a spec.cidr"}, {del: "z", pools: "a=10.1.0.0/16"}},
		"moved onto another: stays where it was": {{set: &Pool{Name: "a", CIDR: pfx("10.1.0.0/16")}, pools: "a=10.1.0.0/16"}, {set: &Pool{Name: "b", CIDR: pfx("10.2.0.0/16")}, pools: "a=10.1.0.0/16 b=10.2.0.0/16"},
			{set: &Pool{Name: "a", CIDR: pfx("10.2.0.0/17")}, pools: "a=10.1.0.0/16 b=10.2.0.0/16", problem: "IPPool a spec.cidr"}, {del: "b", pools: "a=10.2.0.0/17"}},
		"a standing pool changes its mode": {{set: &Pool{Name: "a", CIDR: pfx("10.1.0.0/16")}, pools: "a=10.1.0.0/16"}, {set: &Pool{Name: "a", CIDR: pfx("10.1.0.0/16"), VXLANMode: Always}, pools: "a=10.1.0.0/16"}},
	}
	for name, steps := range stories {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder()
			for i, step := range steps {
				if step.set != nil {
					b.SetPool(step.set)
				}
				b.DeletePool(step.del)
				s := b.State()
				if got := poolNames(s); got != step.pools {
					t.Errorf("step %d: pools %q, want %q", i, got, step.pools)
				}
				if got := problemFields(s); got != step.problem {
					t.Errorf("step %d: problems %q, want %q", i, got, step.problem)
				}
			}
		})
	}
}

func TestPoolsTogether(t *testing.T) {
	s := Build(Objects{Pools: []*Pool{{Name: "b", CIDR: pfx("10.1.0.0/16")}, {Name: "a", CIDR: pfx("10.0.0.0/8")}, {Name: "c", CIDR: pfx("11.0.0.0/8")}}})
	if got := poolNames(s); got != "a=10.0.0.0/8 c=11.0.0.0/8" {
		t.Errorf("first by name should win among newcomers: %q", got)
	}
	if got := problemFields(s); got != "IPPool b spec.cidr" {
		t.Errorf("problems %q", got)
	}
	at := time.Unix(1_800_000_000, 0)
	s = Build(Objects{Pools: []*Pool{{Name: "b", CIDR: pfx("10.1.0.0/16"), Created: at}, {Name: "a", CIDR: pfx("10.0.0.0/8"), Created: at.Add(time.Second)}}})
	if got := poolNames(s); got != "b=10.1.0.0/16" {
		t.Errorf("the older one should win: %q", got)
	}
}

func TestPoolWithBothModes(t *testing.T) {
	both := &Pool{Name: "p", CIDR: pfx("10.0.0.0/16"), IPIPMode: Always, VXLANMode: CrossSubnet}
	b := NewBuilder()
	b.SetPool(both)
	s := b.State()
	if e, m := s.Pools()[0].Encapsulation(); e != VXLAN || m != CrossSubnet || problemFields(s) != "IPPool p spec.ipipMode" {
		t.Errorf("never good: %v %v %q", e, m, problemFields(s))
	}
	b.SetPool(&Pool{Name: "p", CIDR: pfx("10.0.0.0/16"), IPIPMode: Always})
	b.State()
	b.SetPool(both)
	s = b.State()
	if e, _ := s.Pools()[0].Encapsulation(); e != IPIP || problemFields(s) != "IPPool p spec.ipipMode" {
		t.Errorf("good before: %v %q", e, problemFields(s))
	}
	b.SetPool(&Pool{Name: "p", CIDR: pfx("10.0.0.0/16"), VXLANMode: Always})
	s = b.State()
	if e, _ := s.Pools()[0].Encapsulation(); e != VXLAN || len(s.Problems()) != 0 {
		t.Errorf("mended: %v %q", e, problemFields(s))
	}
}

func TestSharedNodeAddress(t *testing.T) {
	b := NewBuilder()
	b.SetNode(&Node{Name: "c", Addr4: pfx("192.0.2.1/24"), Addr6: pfx("2001:db8::1/64")})
	b.SetNode(&Node{Name: "b", Addr4: pfx("192.0.2.1/24")})
	b.SetNode(&Node{Name: "a", Addr4: pfx("192.0.2.1/32"), Addr6: pfx("2001:db8::1/64")})
	b.SetProblems([]Problem{{Object: "IPPool zero", Field: "spec.cidr"}, {Object: "BGPPeer one", Field: "spec.peerIP"}})
	s := b.State()
	want := "BGPPeer one spec.peerIP, IPPool zero spec.cidr, Node b spec.bgp.ipv4Address, Node c spec.bgp.ipv4Address, Node c spec.bgp.ipv6Address"
	if got := problemFields(s); got != want {
		t.Errorf("problems %q, want %q", got, want)
	}
	if n := s.NodeByAddr(adr("192.0.2.1")); n.Name != "a" {
		t.Errorf("owner is %s", n.Name)
	}
	b.DeleteNode("a")
	s = b.State()
	if n := s.NodeByAddr(adr("192.0.2.1")); n.Name != "b" {
		t.Errorf("owner is %s", n.Name)
	}
	if !strings.Contains(s.Problems()[2].Text, "node b") {
		t.Errorf("problem does not name the winner: %q", s.Problems()[2].Text)
	}
}

func TestDiff(t *testing.T) {
	b := NewBuilder()
	b.SetNode(&Node{Name: "a"})
	b.SetBlock(&Block{CIDR: pfx("10.0.0.0/26"), Node: "a"})
	first := b.State()
	b.SetBlock(&Block{CIDR: pfx("10.0.0.0/26"), Node: "b"})
	b.SetNode(&Node{Name: "b"})
	b.SetPool(&Pool{Name: "p", CIDR: pfx("10.0.0.0/16")})
	b.SetBackend(BackendVXLAN)
	second := b.State()
	b.DeleteNode("a")
	third := b.State()

	near := Diff(first, second)
	b2 := NewBuilder() // another lineage: same objects, walked
	for _, n := range second.Nodes() {
		b2.SetNode(n)
	}
	b2.SetBlock(second.Blocks()[0])
	b2.SetPool(second.Pools()[0])
	b2.SetBackend(BackendVXLAN)
	if far := Diff(first, b2.State()); !cmp.Equal(near, far, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("recorded %+v, walked %+v", near, far)
	}
	if len(near.Nodes) != 1 || near.Nodes[0].New.Name != "b" || len(near.Blocks) != 1 || near.Blocks[0].Old.Node != "a" || !near.Backend || near.Felix || near.BGP || near.Problems || len(near.Pools) != 1 {
		t.Errorf("near = %+v", near)
	}
	two := Diff(first, third)
	if len(two.Nodes) != 2 || two.Nodes[0].New != nil || two.Nodes[1].Old != nil {
		t.Errorf("two steps = %+v", two.Nodes)
	}
	if gone := Diff(third, nil); len(gone.Nodes) != 1 || gone.Nodes[0].New != nil || len(gone.Pools) != 1 {
		t.Errorf("to nothing = %+v", gone)
	}
	if same := Diff(third, third); len(same.Nodes)+len(same.Blocks) != 0 || same.Backend {
		t.Errorf("same = %+v", same)
	}
	if n := testing.AllocsPerRun(100, func() { Diff(first, second) }); n != 0 {
		t.Errorf("a recorded diff allocates %v times", n)
	}
}

// TestServices: the slices of each Service are found, alone and in a walk over all, whatever is missing.
func TestServices(t *testing.T) {
	b := NewBuilder()
	slice := func(service, name string, ready ...string) {
		b.SetSlice(&EndpointSlice{Name: name, Service: service, Family: IPv4, Ready: ready})
	}
	for _, name := range []string{"b/one", "d/two", "f/none"} {
		b.SetService(&Service{Name: name})
	}
	slice("b/one", "b/one-2", "n")
	slice("b/one", "b/one-1")
	slice("a/gone", "a/gone-1")
	slice("c/gone", "c/gone-1")
	slice("d/two", "d/two-1")
	slice("z/gone", "z/gone-1")
	want := "b/one[b/one-1 b/one-2] d/two[d/two-1] f/none[] "
	check := func() {
		t.Helper()
		st, walk, alone := b.State(), "", ""
		names := func(list []*EndpointSlice) (names []string) {
			for _, e := range list {
				names = append(names, e.Name)
			}
			return names
		}
		st.EachService(func(s *Service, list []*EndpointSlice) { walk += fmt.Sprintf("%s%v ", s.Name, names(list)) })
		for _, s := range st.Services() {
			alone += fmt.Sprintf("%s%v ", s.Name, names(st.Slices(s.Name)))
		}
		if walk != want || alone != want {
			t.Errorf("walk %s\nalone %s\nwant %s", walk, alone, want)
		}
	}
	check()
	was := b.State()
	slice("b/one", "b/one-2", "n") // equal
	if b.State() != was {
		t.Error("an equal slice made a State")
	}
	slice("b/one", "b/one-2", "m")
	if d := Diff(was, b.State()); len(d.Slices) != 1 || len(d.Services)+len(d.Pods)+len(d.Nodes) != 0 || d.Slices[0].New.Ready[0] != "m" {
		t.Errorf("difference %+v", d)
	}
	if d := Diff(nil, b.State()); len(d.Slices) != 6 || len(d.Services) != 3 {
		t.Errorf("difference to nothing %+v", d)
	}
	b.DeleteSlice("b/one", "b/one-2")
	b.DeleteService("d/two")
	want = "b/one[b/one-1] f/none[] "
	check()
	if got := Build(b.State().Objects()).Objects(); len(got.Services) != 2 || len(got.Slices) != 5 {
		t.Errorf("built anew: %d Services, %d slices", len(got.Services), len(got.Slices))
	}
	new(State).EachService(nil)
	(*State)(nil).EachService(nil)
}
