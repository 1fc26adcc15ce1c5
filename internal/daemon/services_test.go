package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// announcingState is the sample with a Service that is ready at the nodes, and pods elsewhere.
func announcingState(ready ...string) *cluster.State {
	o := sampleState(cluster.BackendBird, true).Objects()
	o.BGP.ServiceLoadBalancerIPs = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	o.Services = []*cluster.Service{{Name: "default/web", Local: true, HealthPort: 30000, LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")}}}
	o.Slices = []*cluster.EndpointSlice{{Name: "default/web-1", Service: "default/web", Family: cluster.IPv4, Ready: ready}}
	return cluster.Build(o)
}

// announcingBuilder has most of it in a Builder, whose States share what has not changed. ready says where the Service is.
func announcingBuilder() (b *cluster.Builder, ready func(nodes ...string)) {
	b = cluster.NewBuilder()
	o := announcingState("a").Objects()
	for _, n := range o.Nodes {
		b.SetNode(n)
	}
	b.SetService(o.Services[0])
	b.SetSlice(o.Slices[0])
	b.SetBGP(o.BGP)
	return b, func(nodes ...string) {
		b.SetSlice(&cluster.EndpointSlice{Name: "default/web-1", Service: "default/web", Family: cluster.IPv4, Ready: nodes})
	}
}

// services are the service prefixes in a configuration.
func services(cfg *bgp.Config) string {
	var out []string
	for _, o := range cfg.Originate {
		if strings.HasPrefix(o.Prefix.String(), "203.") {
			out = append(out, o.Prefix.String())
		}
	}
	return strings.Join(out, " ")
}

// TestServicesWaitForTheDataPlane: no Speaker is started before the service proxy has been asked once, for its peers would drop what a former one
// had announced; then what is verified is announced, and the rest is shown as waiting.
func TestServicesWaitForTheDataPlane(t *testing.T) {
	c, k := newSample()
	c.gated = true
	c.setHost(sampleHost())
	c.step(datastore.Update{State: announcingState("a"), InSync: true})
	if k.speaker != nil {
		t.Fatalf("a Speaker was started before the first answer: %v", k.speaker.Originate)
	}
	tell := func(p *bgp.DataPlane) {
		c.setDataPlane(p)
		c.plan(c.take())
	}
	tell(&bgp.DataPlane{Proxy: bgp.Verified{OK: true}})
	if k.speaker == nil || services(k.speaker) != "203.0.113.0/24" {
		t.Fatalf("the proxy is verified: %v", k.speaker)
	}
	if s := c.View().services; s.announced != 1 || len(s.held) != 1 || !strings.Contains(s.String(), "203.0.113.9/32") {
		t.Errorf("shown: %+v", s)
	}
	tell(&bgp.DataPlane{Proxy: bgp.Verified{OK: true}, Services: map[string]bgp.Verified{"default/web": {OK: true}}})
	if got := services(k.speaker); got != "203.0.113.0/24 203.0.113.9/32" {
		t.Errorf("both are verified: %s", got)
	}
	if s := c.View().services; s.announced != 2 || s.String() != "" {
		t.Errorf("shown: %+v", s)
	}
	c.step(datastore.Update{State: announcingState("b"), InSync: true})
	if got := services(k.speaker); got != "203.0.113.0/24" {
		t.Errorf("the endpoint has gone to another node: %s", got)
	}

	// Without Services nobody waits for answers.
	c, k = newSample()
	c.gated = true
	c.setHost(sampleHost())
	c.step(datastore.Update{State: sampleState(cluster.BackendBird, true), InSync: true})
	if k.speaker == nil {
		t.Error("no Speaker without Services")
	}
	// When they come while a Speaker runs, it is not stopped, and they wait.
	c.step(datastore.Update{State: announcingState("a"), InSync: true})
	if got := services(k.speaker); got != "" || len(c.View().services.held) != 2 {
		t.Errorf("announced %s, held %v", got, c.View().services.held)
	}
}

// TestEndpointsOfTheHost: endpoints come and go under the name that Kubernetes has for this node.
func TestEndpointsOfTheHost(t *testing.T) {
	c, k := newSample()
	c.podNode = "host-a"
	c.setHost(sampleHost())
	b, ready := announcingBuilder()
	for _, tc := range []struct{ ready, want string }{{"host-a", "203.0.113.0/24 203.0.113.9/32"}, {"elsewhere", "203.0.113.0/24"}, {"a", "203.0.113.0/24"}, {"host-a", "203.0.113.0/24 203.0.113.9/32"}} {
		ready(tc.ready)
		c.step(datastore.Update{State: b.State(), InSync: true})
		if got := services(k.speaker); got != tc.want {
			t.Errorf("an endpoint at %s: %s, want %s", tc.ready, got, tc.want)
		}
	}
}

// TestServicesElsewhereCostNoPlan: what changes nothing that this node announces leaves the configuration as it is; everything else that changes in
// the same State is seen.
func TestServicesElsewhereCostNoPlan(t *testing.T) {
	c, k := newSample()
	c.setHost(sampleHost())
	b, ready := announcingBuilder()
	c.step(datastore.Update{State: b.State(), InSync: true})
	ready("a", "c")
	next := c.in
	next.update.State = b.State()
	if cfg, _ := c.configure(next); cfg != c.config {
		t.Error("a change at another node made a plan")
	}
	ready("a")
	b.SetNode(&cluster.Node{Name: "d", Addr4: netip.MustParsePrefix("192.0.2.7/25")})
	was := len(k.speaker.Peers)
	c.step(datastore.Update{State: b.State(), InSync: true})
	if len(k.speaker.Peers) != was+1 {
		t.Errorf("a new node is not seen: %v", k.speaker.Peers)
	}
}

// TestPodsThatPeer: Pods make a difference to BGP where a session may be with one.
func TestPodsThatPeer(t *testing.T) {
	changed := cluster.Changes{Pods: []cluster.Change[cluster.Pod]{{New: &cluster.Pod{Name: "x/y"}}}}
	if !servicesOnly(changed, false) || servicesOnly(changed, true) || !servicesOnly(cluster.Changes{}, true) {
		t.Error("a Pod counts where it should not, or does not where it should")
	}
}
