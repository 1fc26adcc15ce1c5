package interop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

// The second node of the unnumbered fabric; its block holds the server.
const (
	farAddr  = "192.0.2.20"
	farBlock = "203.0.113.0/26"
)

// fabric is two nodes and two ToRs whose links have no IPv4 addresses: FRR on each of the four speaks BGP over the links' own IPv6 addresses (BGP
// unnumbered, RFC 8950) and so brings the loopback addresses of all to all. caracald on the nodes has sessions between these.
type fabric struct {
	*rack                 // its node is the first one, its server is on the other
	hosts []*peers.Router // FRR of the nodes
}

func newFabric(t *testing.T) *fabric {
	t.Helper()
	need.Root(t)
	if what := peers.Missing(peers.FRR); what != "" {
		need.Other(t, what, "make deps")
	}
	daemon, err := caracald.Path()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "fabric")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fabric{rack: &rack{t: t, dir: dir, daemon: daemon, datastore: filepath.Join(dir, "datastore"),
		node: need.Namespace(t), srv: need.Namespace(t), tor: [2]netns.NS{need.Namespace(t), need.Namespace(t)}}}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(f.datastore, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []netns.NS{f.node, f.srv, f.tor[0], f.tor[1]} {
		f.sysctl(ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0", "net.ipv4.fib_multipath_hash_policy=1")
	}
	f.ip(f.node, "address add %s/32 dev lo", nodeAddr)
	f.ip(f.node, "address add %s/32 dev lo", workload)
	f.ip(f.srv, "address add %s/32 dev lo", farAddr)
	f.ip(f.srv, "address add %s/32 dev lo", server)
	for i, tor := range f.tor {
		f.ip(tor, "address add %s/32 dev lo", torAddr(i))
		for name, node := range map[string]netns.NS{"near": f.node, "far": f.srv} {
			f.ip(tor, "link add name %s type veth peer name eth%d netns %s", name, i, node.Name)
			f.ip(tor, "link set %s up", name)
			f.ip(node, "link set eth%d up", i)
		}
	}
	return f
}

// frr starts FRR in a namespace with unnumbered neighbours on these interfaces.
func (f *fabric) frr(ctx context.Context, ns netns.NS, name, addr string, asn uint32, links []string, cfg peers.Config) *peers.Router {
	f.t.Helper()
	lines := []string{"frr defaults datacenter", "log stdout warnings", "ip prefix-list hosts permit 192.0.2.0/24 le 32", "ip prefix-list nothing deny any", fmt.Sprintf("router bgp %d", asn),
		" bgp router-id " + addr, " no bgp ebgp-requires-policy", " bgp bestpath as-path multipath-relax"}
	for _, l := range links {
		lines = append(lines, fmt.Sprintf(" neighbor %s interface remote-as external", l), fmt.Sprintf(" neighbor %s timers connect 1", l))
	}
	for _, n := range cfg.Neighbours {
		for _, word := range []string{"remote-as 64512", "ebgp-multihop 64", "update-source " + addr, "timers connect 1", "passive"} {
			lines = append(lines, fmt.Sprintf(" neighbor %s %s", n.Addr, word))
		}
	}
	lines = append(lines, " address-family ipv4 unicast", fmt.Sprintf("  network %s/32", addr))
	for _, l := range links {
		lines = append(lines, fmt.Sprintf("  neighbor %s prefix-list hosts out", l))
	}
	for _, n := range cfg.Neighbours {
		lines = append(lines, fmt.Sprintf("  neighbor %s prefix-list nothing out", n.Addr)) // what the fabric brings is for the hosts' FRR
	}
	cfg.ASN, cfg.RouterID, cfg.Kernel = asn, netip.MustParseAddr(addr), true
	cfg.Files = map[string]string{"bgpd.conf": strings.Join(append(lines, " exit-address-family", "exit", ""), "\n")}
	dir := filepath.Join(f.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	r, err := peers.Start(ctx, peers.FRR, ns, dir, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Log(r.Log(30))
		}
		_ = r.Kill()
	})
	return r
}

// begin starts FRR everywhere and caracald on both nodes, whose Nodes say this of their subnet.
func (f *fabric) begin(ctx context.Context, pool string, mask int) {
	f.t.Helper()
	for i, ns := range f.tor {
		var cfg peers.Config
		for _, a := range []string{nodeAddr, farAddr} {
			cfg.Neighbours = append(cfg.Neighbours, peers.Neighbour{Addr: netip.MustParseAddr(a), ASN: 64512, Local: netip.MustParseAddr(torAddr(i)), Passive: true})
		}
		f.routers[i] = f.frr(ctx, ns, fmt.Sprint("tor", i), torAddr(i), 65000, []string{"near", "far"}, cfg)
	}
	f.hosts = append(f.hosts, f.frr(ctx, f.node, "frr-a", nodeAddr, 4200000010, []string{"eth0", "eth1"}, peers.Config{DialOnly: true}),
		f.frr(ctx, f.srv, "frr-b", farAddr, 4200000020, []string{"eth0", "eth1"}, peers.Config{DialOnly: true}))
	f.manifest("cluster", fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: near}
spec: {cidr: 10.65.0.0/16, %[1]s, natOutgoing: false}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: far}
spec: {cidr: 203.0.113.0/24, %[1]s, natOutgoing: false}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: true}
`, pool))
	for node, at := range map[string][2]string{"node-a": {nodeAddr, block}, "node-b": {farAddr, farBlock}} {
		name := strings.NewReplacer(".", "-", "/", "-").Replace(at[1])
		f.manifest(node, fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: %[1]s}
spec: {bgp: {ipv4Address: %[2]s/%[5]d}}
---
apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata: {name: %[1]s-%[4]s}
spec: {node: %[1]s, type: host, cidr: %[3]s, state: confirmed, deleted: "false"}
`, node, at[0], at[1], name, mask))
	}
	for i := range f.tor {
		f.manifest(fmt.Sprintf("tor%d", i), fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor%d}
spec: {peerIP: %s, asNumber: 65000, keepOriginalNextHop: true} # each node announces the blocks of all
`, i, torAddr(i)))
	}
	f.run(f.node, "node-a")
	f.run(f.srv, "node-b")
}

// run runs caracald on a node until the test ends.
func (f *fabric) run(ns netns.NS, node string) {
	f.t.Helper()
	log, err := os.OpenFile(filepath.Join(f.dir, node+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(f.daemon, "run", "--node", node, "--datastore", "file:"+f.datastore, "--socket", f.socket(node), "--backend", "bird")
	cmd.Stdout, cmd.Stderr = log, log
	if err := ns.Start(cmd); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if f.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			f.t.Logf("%s:\n%s", node, text)
		}
	})
}

func (f *fabric) socket(node string) string { return filepath.Join(f.dir, node+".sock") }

// leads waits until the first node's route of ours to the block of the other leads over exactly these links, by IPv6 gateways.
func (f *fabric) leads(ctx context.Context, links ...string) {
	f.t.Helper()
	err := peers.Poll(ctx, func() error {
		out, err := f.node.Run("ip", "-o", "-d", "route", "show", farBlock, "proto", "202")
		if err != nil {
			return err
		}
		for _, l := range []string{"eth0", "eth1"} {
			want := strings.Contains(strings.Join(links, " "), l)
			if has := strings.Contains(out, "dev "+l+" "); has != want || strings.Count(out, "via inet6 fe80::") != len(links) {
				table, _ := f.node.Run("ip", "route")
				return fmt.Errorf("route to the block is %q, want it by IPv6 gateways on %v; the table is\n%s", out, links, table)
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// TestUnnumbered: over a fabric whose links have no IPv4 addresses, where the host's FRR reaches the other node by IPv6 gateways, so do our routes; packets
// cross, and when the host goes over to one link our route follows and none is lost.
func TestUnnumbered(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	f := newFabric(t)
	f.begin(ctx, "ipipMode: Never, vxlanMode: Never", 32)
	for _, r := range f.routers {
		if err := r.WaitEstablished(ctx); err != nil {
			t.Fatal(err)
		}
	}
	f.leads(ctx, "eth0", "eth1")
	s := f.startStream()
	flowing := func() {
		t.Helper()
		if err := s.flowing(ctx); err != nil {
			t.Fatal(err)
		}
	}
	flowing()
	f.shut(0, true)
	f.leads(ctx, "eth1")
	f.shut(0, false)
	f.leads(ctx, "eth0", "eth1")
	if gap, lost := s.figures(); lost > 0 {
		t.Errorf("%d packets lost, longest gap %v", lost, gap)
	}
	f.ip(f.node, "link set eth1 down")
	f.leads(ctx, "eth0")
	flowing()
}

// TestUnnumberedVXLAN: the tunnel's packets take the host's routes; that the nodes' addresses are on the loopback interface makes no difference but that
// its MTU is not the underlay's, and that no other node is in its subnet, whatever the mask.
func TestUnnumberedVXLAN(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	f := newFabric(t)
	f.begin(ctx, "ipipMode: Never, vxlanMode: CrossSubnet", 24)
	f.tunnelled(ctx, "dev vxlan.calico", "mtu 1450")
}

// TestUnnumberedIPIP is the same for the other tunnel, whose outer destination is the next hop that BGP brings.
func TestUnnumberedIPIP(t *testing.T) {
	need.IPIP(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	f := newFabric(t)
	f.begin(ctx, "ipipMode: CrossSubnet, vxlanMode: Never", 24)
	f.tunnelled(ctx, "via "+farAddr+" dev tunl0", "mtu 1480")
}

// tunnelled waits until the first node's route to the block of the other is like this, and packets cross.
func (f *fabric) tunnelled(ctx context.Context, want ...string) {
	f.t.Helper()
	err := peers.Poll(ctx, func() error {
		out, err := f.node.Run("ip", "route", "show", farBlock, "proto", "202")
		for _, w := range want {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("route to the block is %q, want it %v", out, want)
			}
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.startStream().flowing(ctx); err != nil {
		f.t.Fatal(err)
	}
}

// TestIPv6NextHops: BIRD announces an IPv4 prefix with an IPv6 next hop to us, who have offered to take that (RFC 8950); packets get there, and
// without a route of the host's to it there is none of ours.
func TestIPv6NextHops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r := newRack(t)
	hop := netip.MustParseAddr("2001:db8:2::1") // of both routers, each for its own sake
	r.startRouters(ctx, peers.BIRD2, peers.Neighbour{Passive: true, IPv6NextHop: hop, GracefulRestart: 30 * time.Second})
	for i, ns := range r.tor {
		r.ip(ns, "address add %s/128 dev lo", hop)
		r.ip(r.node, "route add %s/128 via %s dev eth0 metric %d", hop, torAddr6(i), 10+i)
	}
	r.cluster("")
	r.start()
	for _, router := range r.routers {
		if err := router.WaitEstablished(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s := r.startStream()
	for i := range r.tor { // the host's route goes over to the other router, and then goes
		err := peers.Poll(ctx, func() error {
			out, err := r.node.Run("ip", "route", "show", serverNet, "proto", "202")
			if err == nil && !strings.Contains(out, "via inet6 "+torAddr6(i)+" dev eth0") {
				return fmt.Errorf("route to the server is %q, want it by %s", out, torAddr6(i))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.flowing(ctx); err != nil {
			t.Fatal(err)
		}
		r.ip(r.node, "route del %s/128 metric %d", hop, 10+i)
	}
	if err := peers.Poll(ctx, func() error {
		out, err := r.node.Run("ip", "route", "show", serverNet, "proto", "202")
		if err == nil && out != "" {
			return fmt.Errorf("route to the server is %q, want none", out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// shut ends the unnumbered session of a ToR with the first node, or lets it come back.
func (f *fabric) shut(i int, down bool) {
	f.t.Helper()
	line := map[bool]string{true: "neighbor near shutdown", false: "no neighbor near shutdown"}[down]
	dir := filepath.Join(f.dir, fmt.Sprint("tor", i))
	out, err := f.tor[i].Run("/usr/bin/vtysh", "--config_dir", dir, "--vty_socket", dir, "-d", "bgpd", "-c", "configure terminal", "-c", "router bgp 65000", "-c", line)
	if err != nil {
		f.t.Fatal(err, out)
	}
}
