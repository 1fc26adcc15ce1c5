package daemon

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/workload"
)

// stateOfPods is the sample with Pods.
func stateOfPods(backend cluster.Backend, pods ...*cluster.Pod) *cluster.State {
	o := sampleState(backend, true).Objects()
	o.Pods = pods
	return cluster.Build(o)
}

func podOf(node, name, addr string) *cluster.Pod {
	return &cluster.Pod{Name: "default/" + name, Node: node, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
}

// hostOfPods has the interfaces of some Pods.
func hostOfPods(names ...string) *routes.Host {
	list := []routes.Interface{{Name: "eth0", Index: 2, MTU: 1500, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/25")}}}
	for i, name := range names {
		list = append(list, routes.Interface{Name: (&workload.Endpoint{Namespace: "default", Pod: name}).Interface(), Index: 3 + i, Up: true})
	}
	return routes.NewHost(list, nil, nil)
}

func announced(k *kernelLog, p string) bool {
	return slices.ContainsFunc(k.speaker.Originate, func(o bgp.Origination) bool { return o.Prefix.String() == p })
}

// TestWorkloadRoutes: routes to our own Pods are wanted where they are ours to make, nothing is deleted before they are known, and a borrowed
// address is announced by BGP although the only route to it is ours.
func TestWorkloadRoutes(t *testing.T) {
	c, k := newSample()
	c.workloads.node = "k8s-a"
	c.setHost(hostOfPods("web", "borrower"))
	pods := []*cluster.Pod{podOf("k8s-a", "web", "10.2.0.5"), podOf("k8s-a", "borrower", "10.2.1.7"), podOf("k8s-a", "late", "10.2.1.8"), podOf("k8s-b", "other", "10.2.1.9")}
	c.step(datastore.Update{State: stateOfPods(cluster.BackendBird, pods...), InSync: true})
	c.learn()
	if got := k.installable(routes.OwnerWorkload); !slices.Equal(got, []string{"10.2.0.5/32", "10.2.1.7/32", "10.2.1.8/32"}) {
		t.Errorf("wanted: %v", got)
	}
	if !announced(k, "10.2.1.7/32") || announced(k, "10.2.0.5/32") || announced(k, "10.2.1.8/32") {
		t.Errorf("announced: want the borrowed address that is here, not one inside our block or without an interface: %v", k.speaker.Originate)
	}
	if !slices.Contains(k.awaited, routes.OwnerWorkload) || !k.allowed() {
		t.Errorf("awaited %v, in sync %v", k.awaited, k.synced)
	}
	c.step(datastore.Update{State: stateOfPods(cluster.BackendBird, pods[0]), InSync: true})
	if announced(k, "10.2.1.7/32") {
		t.Errorf("the Pod with the borrowed address is gone: %v", k.speaker.Originate)
	}
	c.step(datastore.Update{State: stateOfPods(cluster.BackendBird, pods...), InSync: true})
	if !announced(k, "10.2.1.7/32") {
		t.Errorf("it is back: %v", k.speaker.Originate)
	}
	applied := len(k.order)
	c.step(datastore.Update{State: stateOfPods(cluster.BackendBird, pods...), InSync: true})
	if n := slices.Index(k.order[applied:], "wants of workload"); n >= 0 {
		t.Error("a plan that wants the same was handed over again")
	}
	if l := c.lossesOfWorkloads(stateOfPods(cluster.BackendBird, pods...), stateOfPods(cluster.BackendBird, pods[1])); l.lost != 2 || l.of != 3 {
		t.Errorf("losses: %+v", l)
	}
	c.step(datastore.Update{State: stateOfPods(cluster.BackendVXLAN, pods[0]), InSync: true})
	if got := k.installable(routes.OwnerWorkload); !slices.Equal(got, []string{"10.2.0.5/32"}) || !k.allowed() {
		t.Errorf("under vxlan: %v", got)
	}
	c.step(datastore.Update{State: stateOfPods(cluster.BackendNone, pods[0]), InSync: true})
	if got := k.installable(routes.OwnerWorkload); len(got) != 0 || !k.allowed() {
		t.Errorf("under none: %v", got)
	}
	c.step(datastore.Update{State: stateOfPods(cluster.BackendVXLAN, pods[0]), InSync: true})
	if got := k.installable(routes.OwnerWorkload); len(got) != 1 {
		t.Errorf("under vxlan again: %v", got)
	}

	// Where they are not ours nobody waits for them.
	c, k = newSample()
	c.setHost(hostOfPods("web"))
	c.step(datastore.Update{State: stateOfPods(cluster.BackendBird, pods...), InSync: true})
	if len(k.wants[routes.OwnerWorkload]) != 0 || slices.Contains(k.awaited, routes.OwnerWorkload) {
		t.Errorf("wanted %v, awaited %v", k.wants[routes.OwnerWorkload], k.awaited)
	}
}

// TestWorkloadRoutesBesideFelix: one of the two has them.
func TestWorkloadRoutesBesideFelix(t *testing.T) {
	if err := Run(t.Context(), Config{Node: "a", Rails: DefaultRails(), Workloads: true, Felix: true}, slog.New(slog.DiscardHandler)); err != errWorkloads {
		t.Errorf("error %v", err)
	}
}

// TestDialled: Pods that a BGPPeer chooses, and no others, have the addresses that they dial on their interfaces, under bird only.
func TestDialled(t *testing.T) {
	c, k := newSample()
	c.workloads.node, c.podNode = "k8s-a", "k8s-a"
	c.setHost(hostOfPods("web", "plain"))
	chosen := podOf("k8s-a", "web", "10.2.0.5")
	chosen.Labels = map[string]string{"speaks": "bgp"}
	state := func(backend cluster.Backend, peering string, peers ...*cluster.BGPPeer) *cluster.State {
		o := sampleState(backend, true).Objects()
		o.Pods = []*cluster.Pod{chosen, podOf("k8s-a", "plain", "10.2.0.6")}
		o.Peers = append(o.Peers, peers...)
		conf := cluster.DefaultBGP()
		if peering != "" {
			conf.LocalPeering4, conf.LocalPeering6 = netip.MustParseAddr(peering), netip.MustParseAddr("fd12::1")
		}
		o.BGP = conf
		return cluster.Build(o)
	}
	child := &cluster.BGPPeer{Name: "child", ASN: 65401, WorkloadSelector: "speaks == 'bgp'"}
	elsewhere := &cluster.BGPPeer{Name: "child", ASN: 65401, WorkloadSelector: "speaks == 'bgp'", Node: "b"}
	nameless := &cluster.BGPPeer{Name: "child", WorkloadSelector: "speaks == 'bgp'"}
	for _, step := range []struct {
		name string
		st   *cluster.State
		want string
	}{
		{"chosen", state(cluster.BackendBird, "169.254.0.179", child), "169.254.0.179"},
		{"another address", state(cluster.BackendBird, "169.254.0.180", child), "169.254.0.180"},
		{"no address", state(cluster.BackendBird, "", child), ""},
		{"chosen again", state(cluster.BackendBird, "169.254.0.179", child), "169.254.0.179"},
		{"no peer", state(cluster.BackendBird, "169.254.0.179"), ""},
		{"a peer of another node", state(cluster.BackendBird, "169.254.0.179", elsewhere), ""},
		{"a peer without an AS", state(cluster.BackendBird, "169.254.0.179", nameless), ""},
		{"no BGP", state(cluster.BackendVXLAN, "169.254.0.179", child), ""},
	} {
		c.step(datastore.Update{State: step.st, InSync: true})
		var want []routes.InterfaceAddress
		if step.want != "" {
			want = []routes.InterfaceAddress{{Device: (&workload.Endpoint{Namespace: "default", Pod: "web"}).Interface(), Addr: netip.MustParseAddr(step.want)}}
		}
		if got := c.workloads.last.Change.Addresses; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", step.name, got, want)
		}
	}
	if k.speaker == nil && len(k.order) == 0 {
		t.Error("nothing was planned")
	}
}

// TestUndialled: an address that answers no workload is a problem, where there is a workload to dial it.
func TestUndialled(t *testing.T) {
	for _, s := range []struct {
		name                    string
		node                    string
		felix, nodeIP, addr, by bool
		want                    string
	}{
		{"ours to put", "k8s-a", false, false, true, true, ""},
		{"Felix's to put", "", true, false, true, true, ""},
		{"nobody's to put", "", false, false, true, true, "--workload-routes"},
		{"nobody listens", "k8s-a", false, true, true, true, "bindMode"},
		{"nobody listens beside a Felix", "", true, true, true, true, "bindMode"},
		{"nobody dials", "", false, true, true, false, ""},
		{"no address", "", false, true, false, true, ""},
	} {
		c, _ := newSample()
		c.workloads.node, c.podNode, c.besideFelix = s.node, "k8s-a", s.felix
		c.setHost(hostOfPods("web"))
		o := sampleState(cluster.BackendBird, true).Objects()
		pod := podOf("k8s-a", "web", "10.2.0.5")
		pod.Labels = map[string]string{"speaks": "bgp"}
		o.Pods, o.BGP = []*cluster.Pod{pod}, cluster.DefaultBGP()
		if o.BGP.BindNodeIP = s.nodeIP; s.addr {
			o.BGP.LocalPeering6 = netip.MustParseAddr("fd12::1")
		}
		if s.by {
			o.Peers = append(o.Peers, &cluster.BGPPeer{Name: "child", ASN: 65401, WorkloadSelector: "speaks == 'bgp'"})
		}
		c.step(datastore.Update{State: cluster.Build(o), InSync: true})
		got := ""
		for _, p := range c.View().problems {
			if strings.HasPrefix(p.Field, "spec.localWorkloadPeering") {
				got += p.Field + " " + p.Text
			}
		}
		if (got != "") != (s.want != "") || !strings.Contains(got, s.want) || strings.Contains(got, "IPV4") {
			t.Errorf("%s: %q, want %q", s.name, got, s.want)
		}
	}
}
