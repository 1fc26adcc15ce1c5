package interop

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/peers"
)

// The addresses of the Service and the ranges they are in.
const (
	clusterRange  = "10.96.0.0/16"
	lbRange       = "198.51.200.0/24"
	clusterIP     = "10.96.0.7/32"
	lbIP          = "198.51.200.9/32"
	clusterRange6 = "fd96::/108"
	clusterIP6    = "fd96::7/128"
	healthPort    = 30123
)

// service is a Service with policy Local, whose slice has an endpoint at the node or not.
func (r *rack) service(ready bool) {
	r.serviceOf("externalTrafficPolicy: Local, healthCheckNodePort: "+fmt.Sprint(healthPort), ready)
}

// serviceOf is one with any policy. An endpoint that is not ready is about to end, as the kubelet says it.
func (r *rack) serviceOf(policy string, ready bool) {
	r.manifest("service", `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, clusterIPs: [10.96.0.7, "fd96::7"], `+policy+`}
status: {loadBalancer: {ingress: [{ip: 198.51.200.9}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [`+workload+`], nodeName: node-a, conditions: {ready: `+fmt.Sprint(ready)+`, serving: true, terminating: `+fmt.Sprint(!ready)+`}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
endpoints: [{addresses: ["fd00::1"], nodeName: node-a, conditions: {ready: `+fmt.Sprint(ready)+`, serving: true, terminating: `+fmt.Sprint(!ready)+`}}]
`)
}

// proxy stands for the node's service proxy: it answers as kube-proxy does, with a status of the test's choice.
type proxy struct{ health, web atomic.Int32 }

// startProxy has it listen on the node.
func (r *rack) startProxy() *proxy {
	r.t.Helper()
	p := &proxy{}
	p.health.Store(http.StatusServiceUnavailable)
	p.web.Store(http.StatusServiceUnavailable)
	for at, status := range map[string]*atomic.Int32{"127.0.0.1:10256": &p.health, fmt.Sprintf("%s:%d", nodeAddr, healthPort): &p.web} {
		var l net.Listener
		if err := r.node.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }); err != nil {
			r.t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })}
		go func() { _ = s.Serve(l) }()
		r.t.Cleanup(func() { _ = s.Close() })
	}
	return p
}

// announced waits until both routers have heard exactly these of the prefixes of Services.
func (r *rack) announced(ctx context.Context, when string, want ...string) {
	r.t.Helper()
	err := peers.Poll(ctx, func() error {
		for i, router := range r.routers {
			for _, prefix := range []string{clusterRange, clusterIP, lbRange, lbIP, clusterRange6, clusterIP6} {
				paths, err := router.Paths(ctx, netip.MustParsePrefix(prefix))
				if err != nil {
					return err
				}
				if has := len(paths) > 0; has != slices.Contains(want, prefix) {
					return fmt.Errorf("router %d has heard of %s: %v", i, prefix, has)
				}
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("%s: %v", when, err)
	}
}

// TestServices: real routers hear of a Service's addresses when the node's service proxy forwards packets to them, not before; they lose them when
// the last endpoint goes; a restart of the daemon costs none of them; and none is in the node's kernel.
func TestServices(t *testing.T) {
	t.Parallel()
	for _, kind := range []peers.Kind{peers.BIRD2, peers.FRR} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			r := newRack(t)
			r.six = true
			p := r.startProxy()
			r.startRouters(ctx, kind, peers.Neighbour{Passive: true, GracefulRestart: 30 * time.Second})
			r.cluster("")
			r.manifest("bgp", strings.Replace(bgpConfiguration, "nodeToNodeMeshEnabled: false",
				"nodeToNodeMeshEnabled: false, serviceClusterIPs: [{cidr: "+clusterRange+"}, {cidr: '"+clusterRange6+"'}], serviceLoadBalancerIPs: [{cidr: "+lbRange+"}]", 1))
			r.service(true)
			r.start()
			r.sessionsUp(ctx)
			r.announced(ctx, "nothing is verified")
			p.health.Store(http.StatusOK)
			r.announced(ctx, "the proxy is", clusterRange, lbRange, clusterRange6)
			p.web.Store(http.StatusOK)
			r.announced(ctx, "the Service is", clusterRange, lbRange, clusterRange6, clusterIP, lbIP, clusterIP6)

			deleted := deletions.Watch(t, r.tor[0], netip.MustParsePrefix(lbIP))
			r.end(syscall.SIGTERM)
			r.start()
			r.sessionsUp(ctx)
			r.announced(ctx, "after a restart", clusterRange, lbRange, clusterRange6, clusterIP, lbIP, clusterIP6)
			if n := deleted(); n != 0 {
				t.Errorf("the router dropped the Service's address %d times over the restart", n)
			}
			r.service(false)
			r.announced(ctx, "no endpoint is left", clusterRange, lbRange, clusterRange6)
			r.service(true)
			r.announced(ctx, "one is back", clusterRange, lbRange, clusterRange6, clusterIP, lbIP, clusterIP6)
			r.serviceOf("externalTrafficPolicy: Cluster", true)
			r.announced(ctx, "any node forwards", clusterRange, lbRange, clusterRange6)
			r.serviceOf("externalTrafficPolicy: Cluster, internalTrafficPolicy: Local", true)
			r.announced(ctx, "any node forwards from outside", clusterRange, lbRange, clusterRange6, clusterIP, clusterIP6)
			r.service(true)
			r.announced(ctx, "this node forwards again", clusterRange, lbRange, clusterRange6, clusterIP, lbIP, clusterIP6)
			if err := os.Remove(filepath.Join(r.datastore, "service.yaml")); err != nil {
				t.Fatal(err)
			}
			r.announced(ctx, "the Service is gone", clusterRange, lbRange, clusterRange6)
			r.service(true)
			r.announced(ctx, "it is back", clusterRange, lbRange, clusterRange6, clusterIP, lbIP, clusterIP6)
			r.manifest("bgp", bgpConfiguration)
			r.announced(ctx, "nothing is to be announced")
			r.manifest("bgp", strings.Replace(bgpConfiguration, "nodeToNodeMeshEnabled: false",
				"nodeToNodeMeshEnabled: false, serviceLoadBalancerAggregation: Disabled, serviceLoadBalancerIPs: [{cidr: "+lbRange+"}]", 1))
			r.announced(ctx, "load balancers' addresses one by one", lbIP)
			if out, err := r.node.Run("ip", "route"); err != nil || strings.Contains(out, "198.51.200.") || strings.Contains(out, "10.96.") {
				t.Errorf("the node's routes: %v\n%s", err, out)
			}
		})
	}
}
