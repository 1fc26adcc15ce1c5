package bgp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
)

// serviceCase is one set-up, in words: ranges and addresses are separated by blanks, slices are "family: nodes with ready endpoints".
type serviceCase struct {
	name                   string
	cluster, external, lbs string // ranges
	single                 bool   // serviceLoadBalancerAggregation: Disabled
	service                cluster.Service
	clusterIPs, extIPs     string
	lbIPs                  string
	slices                 []string
	want                   map[string]string // by node: what it announces of a, b and x; a and b are ordinary nodes, x is excluded
}

func addrList(s string) (out []netip.Addr) {
	for f := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

func prefixList(s string) (out []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func (c *serviceCase) state() *cluster.State {
	s := c.service
	s.Name, s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs = "default/web", addrList(c.clusterIPs), addrList(c.extIPs), addrList(c.lbIPs)
	o := cluster.Objects{
		Nodes: []*cluster.Node{node("a", "192.0.2.1/24", ""), node("b", "192.0.2.2/24", ""), node("x", "192.0.2.3/24", "")},
		BGP: cluster.BGPConfig{ASN: 64512, ServiceClusterIPs: prefixList(c.cluster), ServiceExternalIPs: prefixList(c.external),
			ServiceLoadBalancerIPs: prefixList(c.lbs), NoServiceAggregation: c.single},
		Services: []*cluster.Service{&s},
	}
	o.Nodes[2].Labels = map[string]string{"node.kubernetes.io/exclude-from-external-load-balancers": ""}
	for i, text := range c.slices {
		family, nodes, _ := strings.Cut(text, ":")
		e := &cluster.EndpointSlice{Name: "default/web-" + string(rune('1'+i)), Service: "default/web", Family: cluster.IPv4, Ready: strings.Fields(nodes)}
		if family == "IPv6" {
			e.Family = cluster.IPv6
		}
		o.Slices = append(o.Slices, e)
	}
	return cluster.Build(o)
}

// serviceTable is Calico's (reference 3.4), then what is mended.
func serviceTable() []serviceCase {
	both := func(s string) map[string]string { return map[string]string{"a": s, "b": s, "x": ""} }
	only := func(a, b string) map[string]string { return map[string]string{"a": a, "b": b, "x": ""} }
	local := cluster.Service{Local: true}
	return []serviceCase{
		{name: "cluster IPs, policy Cluster", cluster: "10.96.0.0/16", clusterIPs: "10.96.0.7", slices: []string{"IPv4: a"}, want: both("10.96.0.0/16")},
		{name: "cluster IPs, policy Local", cluster: "10.96.0.0/16", clusterIPs: "10.96.0.7", service: local, slices: []string{"IPv4: a"},
			want: only("10.96.0.0/16 10.96.0.7/32", "10.96.0.0/16")},
		{name: "load balancer range, policy Cluster", lbs: "203.0.113.0/24", lbIPs: "203.0.113.9", slices: []string{"IPv4: a"}, want: both("203.0.113.0/24")},
		{name: "load balancer range, policy Local", lbs: "203.0.113.0/24", lbIPs: "203.0.113.9", service: local, slices: []string{"IPv4: a"},
			want: only("203.0.113.0/24 203.0.113.9/32", "203.0.113.0/24")},
		{name: "no aggregation, policy Cluster", lbs: "203.0.113.0/24", single: true, lbIPs: "203.0.113.9", slices: []string{"IPv4: a"}, want: both("203.0.113.9/32")},
		{name: "no aggregation, policy Cluster, no endpoint", lbs: "203.0.113.0/24", single: true, lbIPs: "203.0.113.9", slices: []string{"IPv4:"}, want: both("")},
		{name: "no aggregation, policy Local", lbs: "203.0.113.0/24", single: true, lbIPs: "203.0.113.9", service: local, slices: []string{"IPv4: a"},
			want: only("203.0.113.9/32", "")},
		{name: "range of one address, policy Cluster", lbs: "203.0.113.9/32", lbIPs: "203.0.113.9", slices: []string{"IPv4: a"}, want: both("203.0.113.9/32")},
		{name: "range of one address, policy Local", lbs: "203.0.113.9/32", lbIPs: "203.0.113.9", service: local, slices: []string{"IPv4: a"}, want: only("203.0.113.9/32", "")},
		{name: "range of one address that no Service has", lbs: "203.0.113.9/32", external: "203.0.113.10/32", want: both("")},
		{name: "external address in a range", external: "198.51.100.0/24", extIPs: "198.51.100.9", slices: []string{"IPv4: a"}, want: both("198.51.100.0/24")},
		{name: "external address, single", external: "198.51.100.9/32", extIPs: "198.51.100.9", slices: []string{"IPv4: b"}, want: both("198.51.100.9/32")},
		{name: "external address, Local", external: "198.51.100.0/24", extIPs: "198.51.100.9", service: local, slices: []string{"IPv4: b"},
			want: only("198.51.100.0/24", "198.51.100.0/24 198.51.100.9/32")},
		{name: "addresses in no range", cluster: "10.96.0.0/16", external: "198.51.100.0/24", clusterIPs: "10.97.0.7", extIPs: "203.0.113.9", lbIPs: "198.51.100.7",
			service: local, slices: []string{"IPv4: a"}, want: both("10.96.0.0/16 198.51.100.0/24")},
		{name: "nothing is to be announced", clusterIPs: "10.96.0.7", service: local, slices: []string{"IPv4: a"}, want: both("")},
		{name: "several slices", lbs: "203.0.113.0/24", lbIPs: "203.0.113.9", service: local, slices: []string{"IPv4: a", "IPv4:", "IPv4: b"},
			want: both("203.0.113.0/24 203.0.113.9/32")},
		// Calico goes on announcing when the last slice is deleted.
		{name: "the last slice is gone", lbs: "203.0.113.0/24", lbIPs: "203.0.113.9", service: local, want: both("203.0.113.0/24")},
		// In Calico an endpoint of one family is enough for both.
		{name: "each family for itself", cluster: "10.96.0.0/16 fd96::/108", clusterIPs: "10.96.0.7 fd96::7", service: local, slices: []string{"IPv4: a", "IPv6: b"},
			want: only("10.96.0.0/16 10.96.0.7/32 fd96::/108", "10.96.0.0/16 fd96::/108 fd96::7/128")},
		// In Calico a single address needs no endpoint.
		{name: "single address without an endpoint", lbs: "203.0.113.9/32", lbIPs: "203.0.113.9", slices: []string{"IPv4:"}, want: both("")},
		// In Calico aggregation of load balancers' addresses decides about all.
		{name: "no aggregation concerns load balancers only", cluster: "10.96.0.0/16", lbs: "203.0.113.0/24", single: true, clusterIPs: "10.96.0.7", lbIPs: "203.0.113.9",
			slices: []string{"IPv4: a"}, want: both("10.96.0.0/16 203.0.113.9/32")},
		// Who lists an address beside its range wants the longer prefix announced, too.
		{name: "a single address among ranges", lbs: "203.0.113.9/32 203.0.113.0/24", lbIPs: "203.0.113.9 203.0.113.10", slices: []string{"IPv4: a"},
			want: both("203.0.113.0/24 203.0.113.9/32")},
		{name: "a single address among ranges, no endpoint", external: "203.0.113.9/32 203.0.113.0/24", extIPs: "203.0.113.9", slices: []string{"IPv4:"}, want: both("203.0.113.0/24")},
		{name: "a single address among ranges of another kind", lbs: "203.0.113.0/24", external: "203.0.113.9/32", extIPs: "203.0.113.9", lbIPs: "203.0.113.10",
			slices: []string{"IPv4: a"}, want: both("203.0.113.0/24 203.0.113.9/32")},
		{name: "one range of two kinds, of which one is announced one by one", lbs: "203.0.113.0/24", external: "203.0.113.0/24", single: true, extIPs: "203.0.113.9", lbIPs: "203.0.113.10",
			slices: []string{"IPv4: a"}, want: both("203.0.113.0/24 203.0.113.10/32")},
		{name: "a range inside another", lbs: "203.0.113.0/24 203.0.113.128/25", lbIPs: "203.0.113.129", service: local, slices: []string{"IPv4: b"},
			want: only("203.0.113.0/24 203.0.113.128/25", "203.0.113.0/24 203.0.113.128/25 203.0.113.129/32")},
		{name: "a Service of several addresses, in both families", lbs: "203.0.113.0/24 2001:db8:9::/64", lbIPs: "203.0.113.9 203.0.113.10 2001:db8:9::9 198.51.100.1", service: local,
			slices: []string{"IPv4: a", "IPv6: a b"}, want: only("203.0.113.0/24 203.0.113.9/32 203.0.113.10/32 2001:db8:9::/64 2001:db8:9::9/128", "203.0.113.0/24 2001:db8:9::/64 2001:db8:9::9/128")},
		// Nodes without an endpoint drop these; Calico does not look.
		{name: "internal policy Local", cluster: "10.96.0.0/16", lbs: "203.0.113.0/24", clusterIPs: "10.96.0.7", lbIPs: "203.0.113.9",
			service: cluster.Service{InternalLocal: true}, slices: []string{"IPv4: b"},
			want: only("10.96.0.0/16 203.0.113.0/24", "10.96.0.0/16 10.96.0.7/32 203.0.113.0/24")},
		{name: "cluster range of one address", cluster: "10.96.0.7/32", clusterIPs: "10.96.0.7", slices: []string{"IPv4:"}, want: both("10.96.0.7/32")},
	}
}

// TestServices: which node announces which addresses of a Service.
func TestServices(t *testing.T) {
	for _, tc := range serviceTable() {
		t.Run(tc.name, func(t *testing.T) {
			st := tc.state()
			for name, want := range tc.want {
				cfg, _ := bgp.Plan(st, name, nil)
				var got []string
				for _, o := range cfg.Originate {
					if !strings.HasPrefix(o.Source, "Service default/web ") && !strings.HasPrefix(o.Source, "BGPConfiguration default spec.service") || o.LocalPref != ordinary {
						t.Errorf("%+v", o)
					}
					if _, v := cfg.Send(&bgp.Peer{}, bgp.RouteFrom(&o)); !v.Accept {
						t.Errorf("%s is not sent: %s", o.Prefix, v.By)
					}
					got = append(got, o.Prefix.String())
				}
				if d := cmp.Diff(want, strings.Join(got, " ")); d != "" || len(cfg.Held) > 0 {
					t.Errorf("node %s, held %v:\n%s", name, cfg.Held, d)
				}
			}
		})
	}
}

// TestServicesOfSeveral: an address that two Services have is announced as long as one of them wants it, and once.
func TestServicesOfSeveral(t *testing.T) {
	c := serviceCase{lbs: "203.0.113.0/24", single: true, lbIPs: "203.0.113.9", slices: []string{"IPv4: a"}, service: cluster.Service{Local: true}}
	o := c.state().Objects()
	twin := *o.Services[0]
	twin.Name = "default/twin"
	o.Services = append(o.Services, &twin)
	for _, ready := range [][]string{{"a"}, nil} {
		o.Slices = []*cluster.EndpointSlice{{Name: "default/w", Service: "default/web", Family: cluster.IPv4, Ready: []string{"a"}},
			{Name: "default/t", Service: "default/twin", Family: cluster.IPv4, Ready: ready}}
		if cfg, _ := bgp.Plan(cluster.Build(o), "a", nil); len(cfg.Originate) != 1 {
			t.Errorf("with %v: %v", ready, cfg.Originate)
		}
	}
	o.Slices = o.Slices[1:]
	if cfg, _ := bgp.Plan(cluster.Build(o), "a", nil); len(cfg.Originate) != 0 {
		t.Errorf("without an endpoint: %v", cfg.Originate)
	}
}

// TestServicesOfAnotherName: endpoints name the node as Kubernetes does (CALICO_K8S_NODE_REF), which the label and the rest do not.
func TestServicesOfAnotherName(t *testing.T) {
	c := serviceCase{lbs: "203.0.113.0/24", lbIPs: "203.0.113.9", slices: []string{"IPv4: host-a"}, service: cluster.Service{Local: true}}
	for name, want := range map[string]int{"": 1, "host-a": 2, "b": 1} {
		if cfg, _ := (&bgp.Planner{PodNode: name}).Plan(c.state(), "a", nil); len(cfg.Originate) != want {
			t.Errorf("%q: %v", name, cfg.Originate)
		}
	}
}

// TestHeldServices: nothing is announced before the data plane is verified, and it is said what is waited for.
func TestHeldServices(t *testing.T) {
	c := serviceCase{cluster: "10.96.0.0/16", lbs: "203.0.113.0/24", clusterIPs: "10.96.0.7", lbIPs: "203.0.113.9", slices: []string{"IPv4: a"},
		service: cluster.Service{Local: true, HealthPort: 30000}}
	unchecked := c
	unchecked.service.HealthPort = 0
	yes, no := bgp.Verified{OK: true}, bgp.Verified{Why: "not yet"}
	web := func(v bgp.Verified) map[string]bgp.Verified { return map[string]bgp.Verified{"default/web": v} }
	for _, tc := range []struct {
		name            string
		c               serviceCase
		plane           *bgp.DataPlane
		announced, held string
	}{
		{"nobody verifies", c, nil, "10.96.0.0/16 10.96.0.7/32 203.0.113.0/24 203.0.113.9/32", ""},
		{"nothing is verified", c, &bgp.DataPlane{}, "", "10.96.0.0/16 10.96.0.7/32 203.0.113.0/24 203.0.113.9/32"},
		{"the proxy is", c, &bgp.DataPlane{Proxy: yes}, "10.96.0.0/16 203.0.113.0/24", "10.96.0.7/32 203.0.113.9/32"},
		{"the Service is not", c, &bgp.DataPlane{Proxy: yes, Services: web(no)}, "10.96.0.0/16 203.0.113.0/24", "10.96.0.7/32 203.0.113.9/32"},
		{"both are", c, &bgp.DataPlane{Proxy: yes, Services: web(yes)}, "10.96.0.0/16 10.96.0.7/32 203.0.113.0/24 203.0.113.9/32", ""},
		{"the Service is, the proxy is not", c, &bgp.DataPlane{Proxy: no, Services: web(yes)}, "10.96.0.7/32 203.0.113.9/32", "10.96.0.0/16 203.0.113.0/24"},
		{"a Service that is not told of", unchecked, &bgp.DataPlane{Proxy: yes}, "10.96.0.0/16 10.96.0.7/32 203.0.113.0/24 203.0.113.9/32", ""},
		{"a Service that is not told of, the proxy is not", unchecked, &bgp.DataPlane{Proxy: no}, "", "10.96.0.0/16 10.96.0.7/32 203.0.113.0/24 203.0.113.9/32"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, _ := (&bgp.Planner{DataPlane: tc.plane}).Plan(tc.c.state(), "a", nil)
			var announced, held []string
			for _, o := range cfg.Originate {
				announced = append(announced, o.Prefix.String())
			}
			for _, h := range cfg.Held {
				held = append(held, h.Prefix.String())
				if h.Why == "" || h.Source == "" {
					t.Errorf("%+v", h)
				}
			}
			if got := strings.Join(announced, " "); got != tc.announced {
				t.Errorf("announced %s, want %s", got, tc.announced)
			}
			if got := strings.Join(held, " "); got != tc.held {
				t.Errorf("held %s, want %s", got, tc.held)
			}
			if !slices.IsSortedFunc(cfg.Held, func(a, b bgp.Held) int { return a.Prefix.Compare(b.Prefix) }) {
				t.Error("what is held is not sorted")
			}
		})
	}
}

// BenchmarkServices is what each change of an endpoint anywhere costs: 5,000 Services of policy Cluster and Local by turns, each with two slices of
// ten nodes.
func BenchmarkServices(b *testing.B) {
	o := cluster.Objects{Nodes: []*cluster.Node{node("a", "192.0.2.1/24", "")}, BGP: cluster.BGPConfig{ASN: 64512,
		ServiceClusterIPs: prefixList("10.96.0.0/12"), ServiceExternalIPs: prefixList("198.51.100.0/24"), ServiceLoadBalancerIPs: prefixList("203.0.113.0/24")}}
	for i := range 5000 {
		name := fmt.Sprintf("default/s-%04d", i)
		s := &cluster.Service{Name: name, Local: i%2 == 0, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}}
		if i < 250 {
			s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}
		}
		o.Services = append(o.Services, s)
		for j := range 2 {
			e := &cluster.EndpointSlice{Name: fmt.Sprintf("%s-%d", name, j), Service: name, Family: cluster.IPv4}
			for k := range 10 {
				e.Ready = append(e.Ready, fmt.Sprintf("n-%05d", (i*20+j*10+k)%5000))
			}
			slices.Sort(e.Ready)
			o.Slices = append(o.Slices, e)
		}
	}
	o.Slices[0].Ready = append([]string{"a"}, o.Slices[0].Ready...)
	st := cluster.Build(o)
	b.ReportAllocs()
	for b.Loop() {
		if out, _ := bgp.Services(st, "a", "a", nil); len(out) < 3 {
			b.Fatal(out)
		}
	}
}
