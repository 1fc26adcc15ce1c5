package datastoretest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Place is a datastore from both sides: what watches it, and what others write there.
type Place struct {
	Watcher datastore.Watcher
	Put     func(manifest string)               // makes or replaces the objects of a manifest, with their status
	Remove  func(kind calico.Kind, name string) // "namespace/name" where the kind has namespaces
}

// ContractWatch runs the promises about objects that are only watched. Of Pods those of node-a are asked for.
func ContractWatch(t *testing.T, open func(t *testing.T) Place) {
	t.Run("services", func(t *testing.T) { watchServices(t, open(t)) })
	t.Run("pods", func(t *testing.T) { watchPods(t, open(t)) })
}

func watchedOnly(t *testing.T, s datastore.Store) {
	for _, kind := range calico.Kinds() {
		if obj, _ := calico.New(kind); calico.WatchedOnly(kind) {
			obj.Meta().Name = "default/x"
			_, err := s.Create(t.Context(), obj)
			wantErr(t, "create of a "+string(kind), err, errors.ErrUnsupported)
		}
	}
}

// patience is far more than any step takes, on a machine that does other things as well.
const patience = 30 * time.Second

// follower waits for States.
type follower struct {
	t       *testing.T
	updates chan datastore.Update
}

func follow(t *testing.T, w datastore.Watcher) *follower {
	t.Helper()
	f := &follower{t: t, updates: make(chan datastore.Update, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Watch(ctx, func(u datastore.Update) { f.updates <- u }) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// until returns the first State in sync of which describe says want.
func (f *follower) until(want string, describe func(*cluster.State) string) *cluster.State {
	f.t.Helper()
	last, end := "nothing", time.After(patience)
	for {
		select {
		case u := <-f.updates:
			if u.InSync {
				if last = describe(u.State); last == want {
					return u.State
				}
			}
		case <-end:
			f.t.Fatalf("the last State has\n%s\nwant\n%s", last, want)
		}
	}
}

const announcing = `
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/16}]}
`

const webService = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default%s}
spec:
  type: LoadBalancer
  clusterIP: 10.96.7.7
  clusterIPs: [10.96.7.7]
  externalIPs: [198.51.100.9, 198.51.100.8]
  externalTrafficPolicy: Local
  healthCheckNodePort: 30123
  ports: [{port: 80, nodePort: 30124}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.1, ipMode: VIP}, {ip: 203.0.113.2, ipMode: Proxy}, {hostname: lb.example.com}]}}
`

const webSlice = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%s, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: []
endpoints: [%s]
`

// headless has no addresses, stray no Service.
const headless = `
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: stray, namespace: default}
addressType: IPv4
ports: []
endpoints: [{addresses: [10.0.0.1], nodeName: node-a}]
`

func endpoint(addr, node, conditions string) string {
	return fmt.Sprintf("{addresses: [%s], nodeName: %s, conditions: {%s}}", addr, node, conditions)
}

func watchServices(t *testing.T, p Place) {
	p.Put(announcing)
	p.Put(fmt.Sprintf(webService, ""))
	p.Put(headless)
	p.Put(fmt.Sprintf(webSlice, "1", endpoint("10.0.0.1", "node-a", "")+", "+endpoint("10.0.0.2", "node-b", "ready: true")+", "+
		endpoint("10.0.0.3", "node-c", "ready: false, serving: true, terminating: true")+", "+endpoint("10.0.0.4", "node-a", "ready: true")))
	f := follow(t, p.Watcher)
	describe := func(st *cluster.State) string {
		var lines []string
		for _, s := range st.Services() {
			if s.Name != "default/kubernetes" { // an API server makes it for itself
				lines = append(lines, s.Name)
				for _, e := range st.Slices(s.Name) {
					lines = append(lines, fmt.Sprint(e.Name, e.Ready))
				}
			}
		}
		return strings.Join(lines, " ")
	}
	st := f.until("default/web default/web-1[node-a node-b]", describe)
	addr := netip.MustParseAddr
	want := &cluster.Service{Name: "default/web", ClusterIPs: []netip.Addr{addr("10.96.7.7")}, Local: true, HealthPort: 30123,
		ExternalIPs: []netip.Addr{addr("198.51.100.8"), addr("198.51.100.9")}, LoadBalancerIPs: []netip.Addr{addr("203.0.113.1")}}
	i := slices.IndexFunc(st.Services(), func(s *cluster.Service) bool { return s.Name == want.Name })
	if diff := cmp.Diff(want, st.Services()[i], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the Service:\n%s", diff)
	}
	// What nothing is announced by is no change: the next State has the same objects, and no other State comes between.
	p.Put(fmt.Sprintf(webService, ", annotations: {seen: again}"))
	p.Put(fmt.Sprintf(webSlice, "1", endpoint("10.0.0.9", "node-b", "ready: true")+", "+endpoint("10.0.0.3", "node-c", "ready: false")+", "+endpoint("10.0.0.4", "node-a", "")))
	p.Put(fmt.Sprintf(webSlice, "2", endpoint("10.0.0.5", "node-c", "")))
	next := f.until("default/web default/web-1[node-a node-b] default/web-2[node-c]", describe)
	if next.Revision() != st.Revision()+1 || next.Slices("default/web")[0] != st.Slices("default/web")[0] || next.Services()[i] != st.Services()[i] {
		t.Errorf("revision %d after %d: something else than the new slice changed the State", next.Revision(), st.Revision())
	}
	p.Remove(calico.KindEndpointSlice, "default/web-1")
	f.until("default/web default/web-2[node-c]", describe)
	p.Remove(calico.KindService, "default/web")
	f.until("", describe)
}

const podManifest = `
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, annotations: {turn: "%s"}}
spec: {nodeName: %s, hostNetwork: %v, containers: [{name: c, image: i}]}
status: {phase: %s, podIPs: [%s], message: "%s"}
`

func watchPods(t *testing.T, p Place) {
	pod := func(name, node string, hostNetwork bool, phase, ips, noise string) string {
		if ips != "" {
			ips = "{ip: \"" + strings.ReplaceAll(ips, " ", "\"}, {ip: \"") + "\"}"
		}
		return fmt.Sprintf(podManifest, name, noise, node, hostNetwork, phase, ips, noise)
	}
	p.Put(pod("web", "node-a", false, "Running", "10.0.0.1 fd00::1", ""))
	p.Put(pod("other", "node-b", false, "Running", "10.0.1.1", ""))
	p.Put(pod("agent", "node-a", true, "Running", "192.0.2.1", ""))
	p.Put(pod("done", "node-a", false, "Succeeded", "10.0.0.2", ""))
	p.Put(pod("early", "node-a", false, "Pending", "", ""))
	f := follow(t, p.Watcher)
	describe := func(st *cluster.State) string {
		var lines []string
		for _, pod := range st.Pods() {
			if pod.Node == "node-a" {
				lines = append(lines, fmt.Sprint(pod.Name, pod.Addrs))
			}
		}
		return strings.Join(lines, " ")
	}
	web := func(st *cluster.State) *cluster.Pod {
		i := slices.IndexFunc(st.Pods(), func(p *cluster.Pod) bool { return p.Name == "default/web" })
		return st.Pods()[i]
	}
	st := f.until("default/web[10.0.0.1 fd00::1]", describe)
	p.Put(pod("web", "node-a", false, "Running", "10.0.0.1 fd00::1", "probed"))
	p.Put(pod("early", "node-a", false, "Pending", "", "pulling"))
	p.Put(pod("early", "node-a", false, "Pending", "10.0.0.3", ""))
	next := f.until("default/early[10.0.0.3] default/web[10.0.0.1 fd00::1]", describe)
	if next.Revision() != st.Revision()+1 || web(next) != web(st) {
		t.Errorf("revision %d after %d: something else than the new address changed the State", next.Revision(), st.Revision())
	}
	p.Put(pod("web", "node-a", false, "Failed", "10.0.0.1 fd00::1", ""))
	f.until("default/early[10.0.0.3]", describe)
	p.Remove(calico.KindPod, "default/early")
	f.until("", describe)
}
