package ipip_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/ipip"
	"github.com/caracal-net/caracal/routes"
)

var byString = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func pool(name, cidr string, mode cluster.Mode) *cluster.Pool {
	return &cluster.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), IPIPMode: mode, BlockSize: 26}
}

func node(name, addr, tunnel string) *cluster.Node {
	n := &cluster.Node{Name: name}
	if addr != "" {
		n.Addr4 = netip.MustParsePrefix(addr)
	}
	if tunnel != "" {
		n.IPIPAddr = netip.MustParseAddr(tunnel)
	}
	return n
}

// host has eth0 with an address and its subnet's route, and a default route.
func host(mtu int, addr string) *routes.Host {
	p := netip.MustParsePrefix(addr)
	return routes.NewHost(
		[]routes.Interface{{Name: "eth0", Index: 2, MTU: mtu, Up: true, Addrs: []netip.Prefix{p}}}, nil,
		[]routes.HostRoute{
			{Dst: p.Masked(), Hops: []routes.NextHop{{Device: "eth0"}}},
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Hops: []routes.NextHop{{Gateway: netip.MustParseAddr("192.0.2.1"), Device: "eth0"}}},
		})
}

// fabric has its address on lo and reaches everybody by IPv6 gateways on two links (RFC 8950).
func fabric(addr string) *routes.Host {
	ways := []routes.NextHop{{Gateway: netip.MustParseAddr("fe80::1"), Device: "eth0"}, {Gateway: netip.MustParseAddr("fe80::2"), Device: "eth1"}}
	return routes.NewHost([]routes.Interface{
		{Name: "lo", Index: 1, MTU: 65536, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}},
		{Name: "eth0", Index: 2, MTU: 9000, Up: true}, {Name: "eth1", Index: 3, MTU: 4500, Up: true}, {Name: "docker0", Index: 4, MTU: 1500, Up: true},
	}, nil, []routes.HostRoute{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Hops: ways}, {Dst: netip.MustParsePrefix("172.17.0.0/16"), Hops: []routes.NextHop{{Device: "docker0"}}}})
}

func TestDevice(t *testing.T) {
	always := pool("always", "10.244.0.0/16", cluster.Always)
	for _, tc := range []struct {
		name     string
		objects  cluster.Objects
		host     *routes.Host
		want     *routes.Link
		problems []string
	}{{
		name:    "no IPIP pool, no device",
		objects: cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.11/24", "10.244.0.1")}, Pools: []*cluster.Pool{pool("never", "10.244.0.0/16", cluster.Never)}},
		host:    host(1500, "192.0.2.11/24"),
	}, {
		name:    "MTU of the parent less 20",
		objects: cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.11/24", "10.244.0.1")}, Pools: []*cluster.Pool{always}},
		host:    host(9000, "192.0.2.11/24"),
		want:    &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 8980, Adopt: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.0.1/32")}},
	}, {
		name:    "our address on lo: the MTU of the links behind it",
		objects: cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.11/32", "10.244.0.1")}, Pools: []*cluster.Pool{always}},
		host:    fabric("192.0.2.11/32"),
		want:    &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 4480, Adopt: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.0.1/32")}},
	}, {
		name: "a disabled pool still routes",
		objects: cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.11/24", "10.244.0.1")}, Pools: []*cluster.Pool{
			{Name: "old", CIDR: netip.MustParsePrefix("10.244.0.0/16"), IPIPMode: cluster.CrossSubnet, Disabled: true}}},
		host: host(1500, "192.0.2.11/24"),
		want: &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 1480, Adopt: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.0.1/32")}},
	}, {
		name: "ipipMTU wins",
		objects: cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.11/24", "10.244.0.1")}, Pools: []*cluster.Pool{always},
			Felix: cluster.FelixConfig{IPIPMTU: 1400, VXLANPort: 4789, VXLANVNI: 4096}},
		host: host(9000, "192.0.2.11/24"),
		want: &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 1400, Adopt: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.0.1/32")}},
	}, {
		name:     "without a tunnel address the device is there, without one",
		objects:  cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.11/24", "")}, Pools: []*cluster.Pool{always}},
		host:     host(1500, "192.0.2.11/24"),
		want:     &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 1480, Adopt: true},
		problems: []string{"Node a: spec.bgp.ipv4IPIPTunnelAddr"},
	}, {
		name:     "the node's address is nowhere",
		objects:  cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.99/24", "10.244.0.1")}, Pools: []*cluster.Pool{always}},
		host:     host(9000, "192.0.2.11/24"),
		want:     &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 1480, Adopt: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.0.1/32")}},
		problems: []string{"Node a: spec.bgp.ipv4Address"},
	}, {
		name:     "no such node",
		objects:  cluster.Objects{Pools: []*cluster.Pool{always}},
		want:     &routes.Link{Name: "tunl0", Kind: "ipip", MTU: 1480, Adopt: true},
		problems: []string{"Node a: spec.bgp.ipv4Address"},
	}} {
		t.Run(tc.name, func(t *testing.T) {
			got, problems := ipip.Device(cluster.Build(tc.objects), "a", tc.host)
			if d := cmp.Diff(tc.want, got, byString); d != "" {
				t.Error(d)
			}
			var said []string
			for _, p := range problems {
				said = append(said, p.Object+": "+p.Field)
				if p.Text == "" {
					t.Errorf("problem %v says nothing", p)
				}
			}
			if d := cmp.Diff(tc.problems, said, byString); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNextHop(t *testing.T) {
	self := node("a", "192.0.2.11/24", "10.244.0.1")
	addr := netip.MustParseAddr
	tunnel := func(gw string) routes.NextHop {
		return routes.NextHop{Gateway: addr(gw), Device: "tunl0", Onlink: true}
	}
	for _, tc := range []struct {
		name string
		pool *cluster.Pool
		self *cluster.Node
		host *routes.Host
		gw   string
		want routes.NextHop
		mtu  uint32
		rule string
		err  string // a part of the error
	}{
		{"always, same subnet", pool("p", "10.244.0.0/16", cluster.Always), self, host(1500, "192.0.2.11/24"), "192.0.2.12", tunnel("192.0.2.12"), 1480, ipip.RuleAlways, ""},
		{"always, elsewhere", pool("p", "10.244.0.0/16", cluster.Always), self, host(1450, "192.0.2.11/24"), "198.51.100.7", tunnel("198.51.100.7"), 1430, ipip.RuleAlways, ""},
		{"cross subnet, same", pool("p", "10.244.0.0/16", cluster.CrossSubnet), self, host(1500, "192.0.2.11/24"), "192.0.2.12",
			routes.NextHop{Gateway: addr("192.0.2.12"), Device: "eth0"}, 0, ipip.RuleSameSubnet, ""},
		{"cross subnet, elsewhere", pool("p", "10.244.0.0/16", cluster.CrossSubnet), self, host(1500, "192.0.2.11/24"), "198.51.100.7", tunnel("198.51.100.7"), 1480, ipip.RuleOtherSubnet, ""},
		{"cross subnet, our own mask decides", pool("p", "10.244.0.0/16", cluster.CrossSubnet), node("a", "192.0.2.11/28", ""), host(1500, "192.0.2.11/24"), "192.0.2.20", tunnel("192.0.2.20"), 1480, ipip.RuleOtherSubnet, ""},
		{"cross subnet, address without a mask", pool("p", "10.244.0.0/16", cluster.CrossSubnet), node("a", "192.0.2.11/32", ""), host(1500, "192.0.2.11/24"), "192.0.2.12", tunnel("192.0.2.12"), 1480, ipip.RuleOtherSubnet, ""},
		{"cross subnet, no address", pool("p", "10.244.0.0/16", cluster.CrossSubnet), node("a", "", ""), host(1500, "192.0.2.11/24"), "192.0.2.12", tunnel("192.0.2.12"), 1480, ipip.RuleNoSubnet, ""},
		{"cross subnet, host mask on the interface", pool("p", "10.244.0.0/16", cluster.CrossSubnet), self, host(1500, "192.0.2.11/32"), "192.0.2.12",
			routes.NextHop{Gateway: addr("192.0.2.12"), Device: "eth0", Onlink: true}, 0, ipip.RuleSameSubnet, ""},
		{"cross subnet, our address is on lo", pool("p", "10.244.0.0/16", cluster.CrossSubnet), self, fabric("192.0.2.11/24"), "192.0.2.12", tunnel("192.0.2.12"), 4480, ipip.RuleLoopback, ""},
		{"always, our address is on lo", pool("p", "10.244.0.0/16", cluster.Always), self, fabric("192.0.2.11/32"), "192.0.2.12", tunnel("192.0.2.12"), 4480, ipip.RuleAlways, ""},
		{"cross subnet, our address is nowhere", pool("p", "10.244.0.0/16", cluster.CrossSubnet), self, routes.NewHost(nil, nil, nil), "192.0.2.12",
			routes.NextHop{}, 0, ipip.RuleSameSubnet, "no interface holds our address 192.0.2.11"},
		{"IPv6 pool", pool("six", "fd00:10::/48", cluster.Always), self, host(1500, "192.0.2.11/24"), "2001:db8::2", routes.NextHop{}, 0, "", "IPPool six: spec.ipipMode is Always on the IPv6 pool fd00:10::/48"},
		{"IPv6 next hop", pool("p", "10.244.0.0/16", cluster.Always), self, host(1500, "192.0.2.11/24"), "2001:db8::2", routes.NextHop{}, 0, "", "next hop 2001:db8::2 is not IPv4"},
		{"not an IPIP pool", pool("p", "10.244.0.0/16", cluster.Never), self, host(1500, "192.0.2.11/24"), "192.0.2.12", routes.NextHop{}, 0, "", "encapsulation is none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := cluster.Build(cluster.Objects{Nodes: []*cluster.Node{tc.self}})
			hop, mtu, rule, err := ipip.NextHop(st, tc.self, tc.host, tc.pool, addr(tc.gw))
			switch {
			case tc.err == "" && err != nil:
				t.Fatal(err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Fatalf("error %v, want one with %q", err, tc.err)
			}
			if hop != tc.want || mtu != tc.mtu || rule != tc.rule {
				t.Errorf("got %v mtu %d %q, want %v mtu %d %q", hop, mtu, rule, tc.want, tc.mtu, tc.rule)
			}
		})
	}
}
