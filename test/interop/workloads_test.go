package interop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
	workloads "github.com/caracal-net/caracal/workload"
)

// The addresses of a pod of the node's.
const (
	podAddr  = "10.65.0.9"
	podAddr6 = "fd00:65::9"
	podPort  = 7009
)

// plugPod wires a pod as Calico's CNI plugin does, but for the routes to it and the settings of its interface, and has it listen.
func (r *rack) plugPod() (pod netns.NS, cali string) {
	r.t.Helper()
	pod = need.Namespace(r.t)
	cali = (&workloads.Endpoint{Namespace: "default", Pod: "web-0"}).Interface()
	r.ip(r.node, "link add name %s address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns %s", cali, pod.Name)
	r.ip(r.node, "link set %s up", cali)
	r.ip(r.node, "route add default via %s metric 5000", torAddr(0)) // proxy ARP answers only for what the host has a route to
	r.ip(pod, "link set eth0 up")
	r.ip(pod, "address add %s/32 dev eth0", podAddr)
	r.ip(pod, "route add 169.254.1.1 dev eth0 scope link")
	r.ip(pod, "route add default via 169.254.1.1 dev eth0")
	r.ip(pod, "address add %s/128 dev eth0 nodad", podAddr6)
	r.ip(pod, "route add default via fe80::ecee:eeff:feee:eeee dev eth0")
	var l net.Listener
	if err := pod.Do(func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", podPort)); return err }); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	r.t.Cleanup(func() { _ = l.Close(); <-done })
	r.manifest("pod", fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: default, labels: {speaks: bgp}}
spec: {nodeName: node-a}
status: {phase: Running, podIPs: [{ip: %s}, {ip: "%s"}]}
`, podAddr, podAddr6))
	return pod, cali
}

// reach connects from a namespace until it works.
func (r *rack) reach(ctx context.Context, when string, from netns.NS, addr string) {
	r.t.Helper()
	err := peers.Poll(ctx, func() error {
		return from.Do(func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, fmt.Sprint(podPort)), 500*time.Millisecond)
			if err == nil {
				_ = c.Close()
			}
			return err
		})
	})
	if err != nil {
		r.t.Fatalf("%s: reach %s: %v", when, addr, err)
	}
}

// TestWorkloads: a router reaches a pod to which nothing but the daemon has made a route, whose interface nothing but the daemon has set up; it
// is brought back when somebody takes it away, stays when the daemon stops, and goes with the pod.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r := newRack(t)
	r.args = []string{"--workload-routes"}
	r.startRouters(ctx, peers.BIRD2, peers.Neighbour{Passive: true, GracefulRestart: 30 * time.Second})
	r.cluster("")
	_, cali := r.plugPod()
	r.start()
	r.sessionsUp(ctx)
	both := func(when string) {
		t.Helper()
		r.reach(ctx, when, r.tor[0], podAddr)
		r.reach(ctx, when, r.node, podAddr6)
	}
	both("at first")
	for _, c := range []struct{ what, family string }{{podAddr, "-4"}, {podAddr6, "-6"}} {
		r.ip(r.node, "%s route del %s dev %s proto 202", c.family, c.what, cali)
	}
	r.sysctl(r.node, "net.ipv4.conf."+cali+".proxy_arp=0", "net.ipv4.conf."+cali+".forwarding=0")
	r.ip(r.node, "neigh flush dev %s", cali)
	both("after another's work")
	if err := peers.Poll(ctx, func() error {
		out, err := r.node.Run("sysctl", "-n", "net.ipv4.conf."+cali+".proxy_arp", "net.ipv4.conf."+cali+".forwarding", "net.ipv4.conf."+cali+".route_localnet",
			"net.ipv4.conf."+cali+".rp_filter", "net.ipv4.neigh."+cali+".proxy_delay", "net.ipv6.conf."+cali+".proxy_ndp")
		if got := strings.Join(strings.Fields(out), " "); err == nil && got != "1 1 1 1 0 1" {
			err = fmt.Errorf("settings %s", got)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	r.end(syscall.SIGTERM)
	both("while no daemon runs")
	r.start()
	r.sessionsUp(ctx)
	r.manifest("pod", "")
	if err := peers.Poll(ctx, func() error {
		out, err := r.node.Run("ip", "route", "show", "proto", "202", "dev", cali)
		if err == nil && out != "" {
			err = fmt.Errorf("the pod is gone, and there is %s", out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// A cluster inside a pod, as in the pod of a virtual machine: what the pod announces, and an address of it.
const (
	childNet   = "10.123.0.0/26"
	childNet6  = "fd12:3::/64"
	childAddr  = "10.123.0.1"
	childAddr6 = "fd12:3::1"
	strayNet   = "10.66.0.0/24" // refused by the BGPFilter
	peering    = "169.254.0.179"
	peering6   = "fd12:ffff::179"
)

// TestLocalWorkload: a BGP speaker in a pod announces networks of its own, and routers outside reach them; what the filter refuses is not used. The routes
// outlive the daemon and go with the pod.
func TestLocalWorkload(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r := newRack(t)
	r.args = []string{"--workload-routes"}
	r.startRouters(ctx, peers.BIRD2, peers.Neighbour{Passive: true, GracefulRestart: 30 * time.Second})
	r.cluster("")
	r.manifest("bgp", fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {localWorkloadPeeringIPV4: %s, localWorkloadPeeringIPV6: %q}\n", peering, peering6))
	r.manifest("child", `apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: child}
spec: {localWorkloadSelector: "speaks == 'bgp' && projectcalico.org/namespace == 'default'", asNumber: 65401, filters: [from-child, to-child]}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: from-child}
spec:
  importV4: [{action: Accept, matchOperator: In, cidr: 10.123.0.0/16}, {action: Reject}]
  importV6: [{action: Accept, matchOperator: In, cidr: "fd12:3::/32"}, {action: Reject}]
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: to-child}
spec: {exportV4: [{action: Reject}], exportV6: [{action: Reject}]}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: child-out}
spec: {exportV4: [{action: Accept, matchOperator: In, cidr: 10.123.0.0/16, source: RemotePeers}]}
`)
	r.manifest("tor0", fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor0}\nspec: {peerIP: %s, asNumber: 65000, filters: [child-out]}\n", torAddr(0)))
	pod, cali := r.plugPod()
	r.ip(pod, "address add %s/32 dev lo", childAddr)
	r.ip(pod, "address add %s/128 dev lo nodad", childAddr6)
	r.ip(pod, "link set lo up")
	r.start()
	r.sessionsUp(ctx)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := r.node.Run("ip", "address", "show", "dev", cali)
			t.Logf("the pod's interface:\n%s", out)
		}
	})
	child := r.startChild(ctx, pod)
	all := func(when string) {
		t.Helper()
		r.reach(ctx, when, r.tor[0], childAddr)
		r.reach(ctx, when, r.node, childAddr6)
	}
	all("at first")
	kernel := func() string {
		v4, _ := r.node.Run("ip", "-4", "route", "show", "proto", "202", "dev", cali)
		v6, _ := r.node.Run("ip", "-6", "route", "show", "proto", "202", "dev", cali)
		return v4 + v6
	}
	if got := kernel(); !strings.Contains(got, childNet+" ") || !strings.Contains(got, childNet6+" ") || strings.Contains(got, strayNet) {
		t.Errorf("routes to the pod's networks:\n%s", got)
	}
	if paths, err := child.Paths(ctx, netip.MustParsePrefix(block)); err != nil || len(paths) > 0 {
		t.Errorf("the pod was told of %v (%v), which its filter keeps back", paths, err)
	}
	r.end(syscall.SIGTERM)
	all("while no daemon runs")
	r.start()
	r.sessionsUp(ctx)
	all("with another daemon")
	addresses := func() string {
		out, _ := r.node.Run("ip", "address", "show", "dev", cali)
		return out
	}
	if got := addresses(); !strings.Contains(got, peering+"/32") || !strings.Contains(got, peering6+"/128") {
		t.Errorf("addresses of the pod's interface:\n%s", got)
	}
	if got, _ := r.node.Run("ip", "-6", "route", "show", peering6); got != "" {
		t.Errorf("the address has a route: %s", got)
	}
	r.manifest("child", "")
	if err := peers.Poll(ctx, func() error {
		if got := addresses(); strings.Contains(got, peering) || strings.Contains(got, peering6) {
			return fmt.Errorf("the pod is no peer any more, and there is\n%s", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	r.reach(ctx, "when it is no peer any more", r.node, podAddr)
	r.manifest("pod", "")
	if err := peers.Poll(ctx, func() error {
		if got := kernel(); got != "" {
			return fmt.Errorf("the pod is gone, and there is %s", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// startChild runs BIRD in a pod. It dials the addresses that the node has for that, which are no neighbours of the pod's.
func (r *rack) startChild(ctx context.Context, pod netns.NS) *peers.Router {
	r.t.Helper()
	dir := filepath.Join(r.dir, "child")
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	conf := fmt.Sprintf(`router id %s;
protocol device {}
protocol static s4 { ipv4; route %s blackhole; route %s blackhole; }
protocol static s6 { ipv6; route %s blackhole; }
template bgp node { multihop; graceful restart; connect retry time 1; connect delay time 1; error wait time 1, 2; }
protocol bgp n4 from node { local %s as 65401; neighbor %s as 64512; ipv4 { import all; export all; }; }
protocol bgp n6 from node { local %s as 65401; neighbor %s as 64512; ipv6 { import all; export all; }; }
`, podAddr, childNet, strayNet, childNet6, podAddr, peering, podAddr6, peering6)
	router, err := peers.Start(ctx, peers.BIRD2, pod, dir, peers.Config{ASN: 65401, RouterID: netip.MustParseAddr(podAddr), Files: map[string]string{"bird.conf": conf}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Log(router.Log(30))
		}
		_ = router.Kill()
	})
	return router
}
