package daemon

import (
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/routes"
)

// field is one field of a resource of Calico's: two specs of which the field is the only difference, and why it makes none to a node's BGP, "" if it does.
type field struct{ without, with, ignored string }

const felix = "a matter of what is beside us"

// dialled is why a field has no part in the configuration of BGP, though it counts.
const dialled = "a matter of the workloads' interfaces: TestDialled"

func configurationFields() map[string]field {
	return map[string]field{
		"logSeverityScreen":                    {"", "logSeverityScreen: Debug", "BIRD's logging; ours is --log-level"},
		"programClusterRoutes":                 {"", "programClusterRoutes: Disabled", felix},
		"localWorkloadPeeringIPV4":             {"", "localWorkloadPeeringIPV4: 169.254.0.179", dialled},
		"localWorkloadPeeringIPV6":             {"", "localWorkloadPeeringIPV6: 'fd12::1'", dialled},
		"nodeToNodeMeshEnabled":                {"", "nodeToNodeMeshEnabled: false", ""},
		"asNumber":                             {"", "asNumber: 65001", ""},
		"listenPort":                           {"", "listenPort: 1179", ""},
		"bindMode":                             {"", "bindMode: NodeIP", ""},
		"nodeMeshMaxRestartTime":               {"", "nodeMeshMaxRestartTime: 60s", ""},
		"nodeMeshPassword.secretKeyRef.name":   {"nodeMeshPassword: {secretKeyRef: {name: s, key: a}}", "nodeMeshPassword: {secretKeyRef: {name: t, key: a}}", ""},
		"nodeMeshPassword.secretKeyRef.key":    {"nodeMeshPassword: {secretKeyRef: {name: s, key: a}}", "nodeMeshPassword: {secretKeyRef: {name: s, key: b}}", ""},
		"ipv4NormalRoutePriority":              {"", "ipv4NormalRoutePriority: 2000", ""},
		"ipv6NormalRoutePriority":              {"", "ipv6NormalRoutePriority: 2000", ""},
		"communities[].name":                   {advertise("communities: [{name: a, value: '1:2'}, {name: b, value: '1:3'}]"), advertise("communities: [{name: b, value: '1:2'}, {name: a, value: '1:3'}]"), ""},
		"communities[].value":                  {advertise("communities: [{name: a, value: '1:2'}]"), advertise("communities: [{name: a, value: '1:3'}]"), ""},
		"prefixAdvertisements[].cidr":          {"prefixAdvertisements: [{cidr: 10.3.0.0/16, communities: ['1:2']}]", "prefixAdvertisements: [{cidr: 10.4.0.0/16, communities: ['1:2']}]", ""},
		"prefixAdvertisements[].communities[]": {"prefixAdvertisements: [{cidr: 10.3.0.0/16, communities: ['1:2']}]", "prefixAdvertisements: [{cidr: 10.3.0.0/16, communities: ['1:2:3']}]", ""},
		"ignoredInterfaces[]":                  {"", "ignoredInterfaces: [eth*]", ""},
		"serviceClusterIPs[].cidr":             {"", "serviceClusterIPs: [{cidr: 10.96.0.0/16}]", ""},
		"serviceExternalIPs[].cidr":            {"", "serviceExternalIPs: [{cidr: 203.0.113.0/24}]", ""},
		"serviceLoadBalancerIPs[].cidr":        {"", "serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]", ""},
		"serviceLoadBalancerAggregation":       {"serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]", "serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]\nserviceLoadBalancerAggregation: Disabled", ""},
	}
}

func advertise(communities string) string {
	return "prefixAdvertisements: [{cidr: 10.3.0.0/16, communities: [a]}]\n" + communities
}

func peerFields() map[string]field {
	tor := func(more string) string { return "asNumber: 65000\npeerIP: 192.0.2.254\n" + more }
	node := func(more string) string { return "asNumber: 64512\npeerIP: 192.0.2.11\n" + more }
	return map[string]field{
		"node":                       {tor(""), tor("node: b"), ""},
		"nodeSelector":               {tor(""), tor("nodeSelector: rack == '2'"), ""},
		"peerIP":                     {tor(""), "asNumber: 65000\npeerIP: 192.0.2.253", ""},
		"peerSelector":               {"peerSelector: rack == '1'", "peerSelector: rack == '2'", ""},
		"asNumber":                   {tor(""), "asNumber: 65001\npeerIP: 192.0.2.254", ""},
		"localASNumber":              {tor(""), tor("localASNumber: 65009"), ""},
		"numAllowedLocalASNumbers":   {tor(""), tor("numAllowedLocalASNumbers: 2"), ""},
		"keepOriginalNextHop":        {tor(""), tor("keepOriginalNextHop: true"), ""},
		"nextHopMode":                {tor(""), tor("nextHopMode: Self"), ""},
		"sourceAddress":              {tor(""), tor("sourceAddress: None"), ""},
		"maxRestartTime":             {tor(""), tor("maxRestartTime: 60s"), ""},
		"keepaliveTime":              {tor(""), tor("keepaliveTime: 10s"), ""},
		"ttlSecurity":                {tor(""), tor("ttlSecurity: 1"), ""},
		"reachableBy":                {tor(""), tor("reachableBy: 192.0.2.1"), ""},
		"filters[]":                  {tor(""), tor("filters: [f]"), ""},
		"password.secretKeyRef.name": {tor("password: {secretKeyRef: {name: s, key: a}}"), tor("password: {secretKeyRef: {name: t, key: a}}"), ""},
		"password.secretKeyRef.key":  {tor("password: {secretKeyRef: {name: s, key: a}}"), tor("password: {secretKeyRef: {name: s, key: b}}"), ""},
		"reversePeering":             {node("node: b"), node("node: b\nreversePeering: Manual"), ""},
		"localWorkloadSelector":      {"asNumber: 65401\nlocalWorkloadSelector: color == 'blue'", "asNumber: 65401\nlocalWorkloadSelector: color == 'red'", ""},
	}
}

// filterFields are fields of a rule; the four lists have one type.
func filterFields() map[string]field {
	out := map[string]field{}
	for _, list := range []string{"exportV4", "importV4", "exportV6", "importV6"} {
		cidr, cidr2, length := "10.3.0.0/16", "10.4.0.0/16", "24"
		if strings.HasSuffix(list, "6") {
			cidr, cidr2, length = "'fd00::/48'", "'fd01::/48'", "64"
		}
		add := func(name, without, with string) {
			out[list+"[]."+name] = field{list + ": [{" + without + "}]", list + ": [{" + with + "}]", ""}
		}
		in := "action: Accept, matchOperator: In, cidr: " + cidr
		add("action", "action: Accept", "action: Reject")
		add("cidr", in, "action: Accept, matchOperator: In, cidr: "+cidr2)
		add("matchOperator", in, "action: Accept, matchOperator: NotIn, cidr: "+cidr)
		add("prefixLength.min", in, in+", prefixLength: {min: "+length+"}")
		add("prefixLength.max", in, in+", prefixLength: {max: "+length+"}")
		if strings.HasPrefix(list, "export") {
			add("source", "action: Accept", "action: Accept, source: RemotePeers")
		} else {
			out[list+"[].source"] = field{list + ": [{action: Accept}]", list + ": [{action: Accept, source: RemotePeers}]", "what is received comes from a remote peer"}
		}
		add("interface", "action: Accept", "action: Accept, interface: eth*")
		add("peerType", "action: Accept", "action: Accept, peerType: iBGP")
		add("communities.values[]", "action: Accept", "action: Accept, communities: {values: ['1:2']}")
		add("asPathPrefix[]", "action: Accept", "action: Accept, asPathPrefix: [65000]")
		add("priority", "action: Accept", "action: Accept, priority: 7")
		add("operations[].addCommunity.value", "action: Accept", "action: Accept, operations: [{addCommunity: {value: '1:2'}}]")
		add("operations[].prependASPath.prefix[]", "action: Accept", "action: Accept, operations: [{prependASPath: {prefix: [64512]}}]")
		add("operations[].setPriority.value", "action: Accept", "action: Accept, operations: [{setPriority: {value: 7}}]")
	}
	return out
}

// leaves returns the names of a type's fields in YAML, down to those that hold a value.
func leaves(t reflect.Type, name string) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return leaves(t.Elem(), name)
	case reflect.Slice:
		return leaves(t.Elem(), name+"[]")
	case reflect.Struct:
		var out []string
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			out = append(out, leaves(t.Field(i).Type, strings.TrimPrefix(name+"."+key, "."))...)
		}
		return out
	}
	return []string{name}
}

// fieldsWorld is a cluster in which each field can make a difference to node a.
func fieldsWorld() (*cluster.State, *routes.Host) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	node := func(name, v4, v6, rack string) *cluster.Node {
		return &cluster.Node{Name: name, Addr4: p(v4), Addr6: p(v6), Labels: map[string]string{"rack": rack}}
	}
	st := cluster.Build(cluster.Objects{
		Nodes:      []*cluster.Node{node("a", "192.0.2.11/24", "2001:db8::11/64", "1"), node("b", "192.0.2.12/24", "2001:db8::12/64", "2")},
		Pools:      []*cluster.Pool{{Name: "four", CIDR: p("10.3.0.0/16")}, {Name: "six", CIDR: p("fd00::/48")}},
		Affinities: []*cluster.Affinity{{Node: "a", CIDR: p("10.3.1.0/26"), State: cluster.Confirmed}, {Node: "a", CIDR: p("fd00::/122"), State: cluster.Confirmed}},
		Secrets:    []*cluster.Secret{{Name: "s", Data: map[string]string{"a": "1", "b": "2"}}, {Name: "t", Data: map[string]string{"a": "3"}}},
		Filters:    []*cluster.BGPFilter{{Name: "f", Import4: []cluster.FilterRule{{}}}},
		Pods:       []*cluster.Pod{{Name: "x/red", Node: "a", Addrs: []netip.Addr{a("10.3.1.4")}, Labels: map[string]string{"color": "red"}}},
		Services:   []*cluster.Service{{Name: "x/lb", ClusterIPs: []netip.Addr{a("10.96.0.7")}, LoadBalancerIPs: []netip.Addr{a("198.51.100.7")}}},
		Slices:     []*cluster.EndpointSlice{{Name: "x/lb-1", Service: "x/lb", Family: cluster.IPv4, Ready: []string{"a"}}},
		BGP:        cluster.DefaultBGP(),
	})
	four, six := p("192.0.2.11/24"), p("2001:db8::11/64")
	return st, routes.NewHost([]routes.Interface{{Name: "eth0", Index: 2, MTU: 1500, Up: true, Addrs: []netip.Prefix{four, six}}}, nil,
		[]routes.HostRoute{{Dst: four.Masked(), Hops: []routes.NextHop{{Device: "eth0"}}}, {Dst: six.Masked(), Hops: []routes.NextHop{{Device: "eth0"}}}})
}

// TestEveryFieldCounts: every field of BGPConfiguration, BGPPeer and BGPFilter makes a difference to a node's BGP, or is known to make none; docs/bgp-resources.md
// has each.
func TestEveryFieldCounts(t *testing.T) {
	text, err := os.ReadFile("../../docs/bgp-resources.md")
	if err != nil {
		t.Fatal(err)
	}
	const peers = `
---
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: four}, spec: {peerIP: 192.0.2.254, asNumber: 65000, filters: [x]}}
---
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: six}, spec: {peerIP: "2001:db8::254", asNumber: 65000, filters: [x]}}
`
	for _, kind := range []struct {
		name, object, more string
		spec               any
		fields             map[string]field
	}{
		{"BGPConfiguration", "default", "", calico.BGPConfigurationSpec{}, configurationFields()},
		{"BGPPeer", "x", "", calico.BGPPeerSpec{}, peerFields()},
		{"BGPFilter", "x", peers, calico.BGPFilterSpec{}, filterFields()},
	} {
		t.Run(kind.name, func(t *testing.T) {
			_, section, _ := strings.Cut(string(text), "\n## "+kind.name+"\n")
			section, _, _ = strings.Cut(section, "\n## ")
			names := leaves(reflect.TypeOf(kind.spec), "")
			plan := func(spec string) bgp.Config {
				manifest := "apiVersion: projectcalico.org/v3\nkind: " + kind.name + "\nmetadata: {name: " + kind.object + "}\nspec:" + strings.ReplaceAll("\n"+spec, "\n", "\n  ") + "\n" + kind.more
				st, h := fieldsWorld()
				st, problems, err := datastore.Overlay(st, manifest, nil)
				if err != nil || len(problems) > 0 {
					t.Fatalf("%v %v of\n%s", err, problems, manifest)
				}
				cfg, _ := (&bgp.Planner{Match: matchSelector}).Plan(st, "a", h)
				return cfg
			}
			for _, name := range names {
				f, known := kind.fields[name]
				if !known {
					t.Errorf("%s is neither known to make a difference nor to make none", name)
					continue
				}
				without, with := plan(f.without), plan(f.with)
				if differs := !without.Equal(&with); differs != (f.ignored == "") {
					t.Errorf("%s makes a difference: %v, and is known to make none because: %q", name, differs, f.ignored)
				}
				for word := range strings.SplitSeq(strings.ReplaceAll(name, "[]", ""), ".") {
					if !strings.Contains(section, word) {
						t.Errorf("docs/bgp-resources.md says nothing of %s of %s", name, kind.name)
					}
				}
			}
			for name := range kind.fields {
				if !slices.Contains(names, name) {
					t.Errorf("there is no field %s", name)
				}
			}
		})
	}
}
