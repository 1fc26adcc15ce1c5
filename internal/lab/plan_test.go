package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
)

func TestSpecComplete(t *testing.T) {
	for _, c := range []struct {
		name string
		spec Spec
		want string // part of the error; "" = none
	}{
		{"zero", Spec{}, ""},
		{"all said", Spec{Name: "a-1", Nodes: 5, Workloads: 1, Mode: IPIP, Family: DualStack, Backend: cluster.BackendNone}, ""},
		{"plain IPv6", Spec{Mode: NoEncapsulation, Family: Only6}, ""},
		{"name with a dot", Spec{Name: "a.b"}, `cluster name "a.b"`},
		{"name that ends in a dash", Spec{Name: "a-"}, "cluster name"},
		{"long name", Spec{Name: strings.Repeat("a", 21)}, "at most 20"},
		{"no nodes", Spec{Nodes: -1}, "-1 nodes"},
		{"many nodes", Spec{Nodes: 101}, "1 to 100"},
		{"many workloads", Spec{Workloads: 21}, "1 to 20"},
		{"mode", Spec{Mode: "gre"}, "use one of [mixed vxlan"},
		{"family", Spec{Family: "5"}, "4, 6 or dual"},
		{"backend", Spec{Backend: "gobgp2"}, "bird, vxlan or none"},
		{"IPIP on IPv6", Spec{Mode: IPIP, Family: Only6}, "IPIP carries IPv4 only"},
		{"mixed on IPv6", Spec{Family: Only6}, "IPIP carries IPv4 only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.spec.Complete()
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want one with %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if again, err := got.Complete(); err != nil || again != got {
				t.Errorf("completing twice gives %+v, %v; once gave %+v", again, err, got)
			}
		})
	}
	for mode, want := range map[Mode]cluster.Backend{Mixed: "bird", VXLAN: "vxlan", VXLANCrossSubnet: "vxlan", IPIP: "bird", NoEncapsulation: "bird"} {
		if s, err := (Spec{Mode: mode}).Complete(); err != nil || s.Backend != want {
			t.Errorf("mode %s runs backend %s, %v; want %s", mode, s.Backend, err, want)
		}
	}
}

// TestPlanIsSound holds every kind of cluster to what the kernel and Calico ask of it.
func TestPlanIsSound(t *testing.T) {
	for _, mode := range Modes() {
		for _, family := range []Families{Only4, Only6, DualStack} {
			for _, nodes := range []int{1, 2, 3, 7, maxNodes} {
				spec, err := Spec{Mode: mode, Family: family, Nodes: nodes}.Complete()
				if err != nil {
					continue // refused in words: TestSpecComplete
				}
				checkPlan(t, NewPlan(spec))
			}
		}
	}
}

func checkPlan(t *testing.T, p *Plan) {
	t.Helper()
	used := map[string]bool{}
	unique := func(kind, what string) {
		if used[kind+what] {
			t.Errorf("%+v: %s %s is used twice", p.Spec, kind, what)
		}
		used[kind+what] = true
	}
	for _, ns := range p.namespaces() {
		unique("namespace", ns)
		if !strings.HasPrefix(ns, p.Prefix()) {
			t.Errorf("namespace %s does not begin with %s: nobody would remove it", ns, p.Prefix())
		}
	}
	racks := map[int]int{}
	for _, n := range p.Nodes {
		racks[n.Subnet]++
		unique("address", n.Addr4.Addr().String())
		unique("address", n.Addr6.Addr().String())
		sub := p.Subnets[n.Subnet]
		if !sub.Addr4.Contains(n.Addr4.Addr()) || !sub.Addr6.Contains(n.Addr6.Addr()) || n.Addr4.Bits() != sub.Addr4.Bits() {
			t.Errorf("%s has %s, %s outside its subnet %+v", n.Name, n.Addr4, n.Addr6, sub)
		}
		families := map[cluster.Family]bool{}
		for _, w := range n.Workloads {
			if len(w.Iface) > 15 || !strings.HasPrefix(w.Iface, "cali") {
				t.Errorf("interface name %s: at most 15 bytes and cali first", w.Iface)
			}
			for _, pool := range w.Pools {
				families[cluster.FamilyOf(pool.Addr())] = true
				if p.PoolOf(pool.Addr()) == nil {
					t.Errorf("workload %s takes addresses from %s, which is no pool", w.Name, pool)
				}
			}
		}
		for _, f := range []cluster.Family{cluster.IPv4, cluster.IPv6} {
			if families[f] != p.Spec.Family.Has(f) {
				t.Errorf("%+v: workloads have %s: %v", p.Spec, f, families[f])
			}
		}
	}
	if len(p.Nodes) > 1 && len(racks) != 2 {
		t.Errorf("%d nodes lie in %d subnets, want 2", len(p.Nodes), len(racks))
	}
	for _, q := range p.Pools {
		if q.Encapsulation == cluster.IPIP && q.CIDR.Addr().Is6() {
			t.Errorf("pool %s: IPIP on IPv6", q.Name)
		}
	}
	if m := p.Members(); (len(m) > len(p.Nodes)) != (p.Spec.Mode == NoEncapsulation) {
		t.Errorf("mode %s has %d members with %d nodes", p.Spec.Mode, len(m), len(p.Nodes))
	}
}

func TestWorkloadMTU(t *testing.T) {
	for _, c := range []struct {
		mode   Mode
		family Families
		want   int
	}{
		{Mixed, Only4, 1450}, {VXLAN, Only4, 1450}, {VXLAN, DualStack, 1430}, {VXLANCrossSubnet, Only6, 1430},
		{IPIP, Only4, 1480}, {IPIPCrossSubnet, DualStack, 1430}, {NoEncapsulation, DualStack, 1500},
	} {
		spec, err := Spec{Mode: c.mode, Family: c.family}.Complete()
		if err != nil {
			t.Fatal(err)
		}
		if got := NewPlan(spec).WorkloadMTU(); got != c.want {
			t.Errorf("mode %s family %s: workload MTU %d, want %d", c.mode, c.family, got, c.want)
		}
	}
}

func TestBatches(t *testing.T) {
	spec, err := Spec{Nodes: 2, Family: DualStack, Mode: VXLAN}.Complete()
	if err != nil {
		t.Fatal(err)
	}
	p := NewPlan(spec)
	w := &p.Nodes[1].Workloads[0]
	w.Addrs = []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244::2")}
	for _, c := range []struct{ what, got, want string }{
		{"router", p.routerBatch(), `link add name rack-a type bridge mcast_snooping 0
link set rack-a up
address add 192.0.2.1/24 dev rack-a
address add 2001:db8:a::1/64 dev rack-a nodad
link add name rack-b type bridge mcast_snooping 0
link set rack-b up
address add 198.51.100.1/24 dev rack-b
address add 2001:db8:b::1/64 dev rack-b nodad
link add name port1 mtu 1500 type veth peer name eth0 mtu 1500 netns cl-lab.node1
link set port1 master rack-a up
link add name port2 mtu 1500 type veth peer name eth0 mtu 1500 netns cl-lab.node2
link set port2 master rack-b up
`},
		{"node", p.nodeBatch(&p.Nodes[1]), `link set eth0 up
address add 198.51.100.12/24 dev eth0
address add 2001:db8:b::c/64 dev eth0 nodad
route add default via 198.51.100.1 dev eth0
route add default via 2001:db8:b::1 dev eth0
`},
		{"wire", p.caliBatch(w), `link add name cali-w1 address ee:ee:ee:ee:ee:ee mtu 1430 type veth peer name eth0 mtu 1430 netns cl-lab.node2-w1
link set cali-w1 up
route add 10.244.1.2 dev cali-w1 scope link proto boot metric 1024
route add fd00:10:244::2 dev cali-w1 proto boot metric 1024
`},
		{"workload", p.workloadBatch(w), `link set eth0 up
address add 10.244.1.2/32 dev eth0
route add 169.254.1.1 dev eth0 scope link
route add default via 169.254.1.1 dev eth0
address add fd00:10:244::2/128 dev eth0 nodad
route add default via fe80::ecee:eeff:feee:eeee dev eth0
`},
	} {
		if c.got != c.want {
			t.Errorf("%s batch:\n%s\nwant:\n%s", c.what, c.got, c.want)
		}
	}
}

func TestManifests(t *testing.T) {
	spec, err := Spec{Nodes: 1}.Complete()
	if err != nil {
		t.Fatal(err)
	}
	files := NewPlan(spec).manifests()
	want := map[string]string{
		"calico-config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: calico-config\n  namespace: kube-system\ndata:\n  calico_backend: bird\n",
		"ippool-vxlan-ipv4.yaml": "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: vxlan-ipv4\nspec:\n  cidr: 10.244.0.0/16\n" +
			"  ipipMode: Never\n  vxlanMode: CrossSubnet\n  natOutgoing: false\n",
		"ippool-ipip-ipv4.yaml": "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: ipip-ipv4\nspec:\n  cidr: 10.245.0.0/16\n" +
			"  ipipMode: CrossSubnet\n  vxlanMode: Never\n  natOutgoing: false\n",
		"node-node1.yaml": "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: node1\n  labels:\n    rack: rack-a\nspec:\n  bgp:\n" +
			"    ipv4Address: 192.0.2.11/24\n",
	}
	for name, text := range want {
		if files[name] != text {
			t.Errorf("%s:\n%s\nwant:\n%s", name, files[name], text)
		}
		delete(files, name)
	}
	if len(files) != 0 {
		t.Errorf("files nobody expects: %v", files)
	}
}

func TestProbeReport(t *testing.T) {
	pp := &pairProbe{got: []bool{true, false, false, true, false, true, false}, skipped: make([]bool, 7)}
	pp.sent.Store(7)
	ticks := []time.Duration{0, 10, 20, 50, 60, 70, 80}
	r := pp.report(ticks)
	if r.Sent != 7 || r.Lost != 4 || r.Gap != 40 {
		t.Errorf("got %+v, want 7 sent, 4 lost, a gap of 40 from the probe of 10 to the answered one of 50", r)
	}
	all := &ProbeReport{Pairs: []PairReport{r, {Sent: 7}}}
	if all.Sent() != 14 || all.Lost() != 4 || all.Among(func(Pair) bool { return false }).Sent() != 0 {
		t.Errorf("sum is %d sent, %d lost", all.Sent(), all.Lost())
	}
}
