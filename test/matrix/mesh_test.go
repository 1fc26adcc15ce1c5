package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/caracal-net/caracal/internal/netns"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

// member is one node of the mixed mesh: a caracald, or a BIRD as calico-node has it.
type member struct {
	name     string
	ns       netns.NS
	addrs    [2]netip.Addr
	blocks   [2][]netip.Prefix
	caracald *node         // nil on nodes of BIRD
	bird     *peers.Router // nil on nodes of ours
}

// mixed is the mesh.
type mixed struct {
	t       *testing.T
	members []*member
	data    string // datastore of the caracalds
	// reflector has sessions with all, and the others with it alone; nil for a full mesh.
	reflector *member
}

// clusterID is the reflector's.
const clusterID = "244.0.0.1"

// peering reports whether two members have sessions.
func (m *mixed) peering(x, y *member) bool {
	return x != y && (m.reflector == nil || m.reflector == x || m.reflector == y)
}

// newMixed wires four nodes to a switch. Every second is BIRD's, so that each kind dials the other.
func newMixed(t *testing.T) *mixed {
	t.Helper()
	need.Root(t)
	if what := peers.Missing(peers.BIRD1); what != "" {
		need.Other(t, what, "make deps")
	}
	m := &mixed{t: t}
	network := need.Namespace(t)
	ip(t, network, "link add name switch type bridge")
	ip(t, network, "link set switch up")
	for i := range 4 {
		x := &member{name: "node-" + string(rune('a'+i)), addrs: [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i))}}
		if i%2 == 0 {
			x.caracald = newNode(t, x.name)
			x.ns = x.caracald.ns
			if m.data == "" {
				m.data = x.caracald.data
			}
			x.caracald.data = m.data
		} else {
			x.ns = need.Namespace(t)
		}
		m.block(x, 0)
		ip(t, x.ns, "link add name eth0 type veth peer name port%d netns %s", i, network.Name)
		ip(t, network, "link set port%d up master switch", i)
		plug(t, x.ns, "eth0", []string{x.addrs[0].String() + "/24", x.addrs[1].String() + "/64"})
		for f, w := range x.workloads() {
			ip(t, x.ns, "address add %s/%d dev lo", w, 32+96*f)
		}
		sysctl(t, x.ns, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
		m.members = append(m.members, x)
	}
	return m
}

// block gives a member its block of this number in each family.
func (m *mixed) block(x *member, n int) {
	last := x.addrs[0].As4()[3]
	x.blocks[0] = append(x.blocks[0], netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, last, byte(64 * n)}), 26))
	x.blocks[1] = append(x.blocks[1], netip.MustParsePrefix(fmt.Sprintf("fd00:65:%x::%x/122", last, 64*n)))
}

// workloads are an address of the first block of each family.
func (x *member) workloads() [2]netip.Addr {
	return [2]netip.Addr{x.blocks[0][0].Addr().Next(), x.blocks[1][0].Addr().Next()}
}

// write writes the datastore.
func (m *mixed) write() {
	m.t.Helper()
	var b strings.Builder
	b.WriteString(`apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.65.0.0/16, ipipMode: Never, vxlanMode: Never}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v6}
spec: {cidr: "fd00:65::/32", ipipMode: Never, vxlanMode: Never}
`)
	if m.reflector != nil {
		b.WriteString(`---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec: {nodeSelector: all(), peerSelector: reflector == 'yes'}
`)
	}
	for _, x := range m.members {
		labels, cluster := "", ""
		if x == m.reflector {
			labels, cluster = ", labels: {reflector: 'yes'}", ", routeReflectorClusterID: "+clusterID
		}
		fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: %s%s}\nspec: {bgp: {ipv4Address: %s/24, ipv6Address: \"%s/64\"%s}}\n",
			x.name, labels, x.addrs[0], x.addrs[1], cluster)
		for f := range x.blocks {
			for _, p := range x.blocks[f] {
				fmt.Fprintf(&b, "---\napiVersion: crd.projectcalico.org/v1\nkind: BlockAffinity\nmetadata: {name: %s-%s}\nspec: {node: %s, type: host, cidr: \"%s\", state: confirmed, deleted: \"false\"}\n",
					x.name, strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(p.String()), x.name, p)
			}
		}
	}
	write(m.t, m.data, "cluster", b.String())
}

// config is what confd would write for a node of BIRD, as facts of Calico's templates: the metric travels in LOCAL_PREF, own blocks go whole,
// else what is in a pool; the node whose address sorts higher dials, but for reflectors and their clients, who both do.
func (m *mixed) config(x *member) peers.Config {
	c := peers.Config{ASN: 64512, RouterID: x.addrs[0], Files: map[string]string{}}
	for f, name := range [...]string{"bird.conf", "bird6.conf"} {
		var b strings.Builder
		fmt.Fprintf(&b, "log stderr all;\nrouter id %s;\n", x.addrs[0])
		b.WriteString("function apply_communities() { }\nfunction calico_aggr()\n{\n")
		for _, p := range x.blocks[f] {
			fmt.Fprintf(&b, "\tif ( net = %s ) then accept;\n\tif ( net ~ %s ) then { if ( defined(krt_metric) && krt_metric < 1024 ) then accept; reject; }\n", p, p)
		}
		pool := [...]string{"10.65.0.0/16", "fd00:65::/32"}[f]
		fmt.Fprintf(&b, `}
function calico_export_to_bgp_peers(bool internal_peer)
{
	apply_communities();
	calico_aggr();
	if ( net ~ %[1]s ) then accept;
}
filter calico_kernel_programming {
	if ( source = RTS_BGP ) then {
		krt_metric = 1024;
		if ( defined(bgp_local_pref) ) then krt_metric = 2147483647 - bgp_local_pref;
		if ( krt_metric < 1024 ) then preference = 200;
	}
	if ( net ~ %[1]s ) then accept;
	accept;
}
protocol kernel { learn; persist; scan time 2; import all; export filter calico_kernel_programming; graceful restart; merge paths on; }
protocol device { scan time 2; }
protocol direct { interface -"cali*", -"kube-ipvs*", "*"; }
template bgp bgp_template {
	description "Connection to BGP peer";
	local as 64512;
	gateway recursive;
	add paths on;
	graceful restart;
	connect delay time 2;
	connect retry time 5;
	error wait time 5,30;
}
protocol static {
`, pool)
		for _, p := range x.blocks[f] {
			fmt.Fprintf(&b, "\troute %s blackhole;\n", p)
		}
		b.WriteString("}\n")
		for _, y := range m.members {
			if !m.peering(x, y) {
				continue
			}
			c.Neighbours = append(c.Neighbours, peers.Neighbour{Addr: y.addrs[f], Local: x.addrs[f], ASN: 64512})
			name, more := "Mesh", ""
			switch {
			case m.reflector == x:
				name, more = "Node", "rr client;\n\trr cluster id "+clusterID+";"
			case m.reflector != nil:
				name = "Node"
			case y.addrs[f].String() > x.addrs[f].String():
				more = "passive on;"
			}
			fmt.Fprintf(&b, `protocol bgp %s_%s from bgp_template {
	ttl security off;
	multihop;
	neighbor %s as 64512;
	source address %s;
	import filter { if ( defined(bgp_local_pref) && bgp_local_pref > 2147482623 ) then preference = 200; accept; };
	export filter {
		if ( source = RTS_BGP && defined(bgp_local_pref) ) then krt_metric = 2147483647 - bgp_local_pref;
		if ( ! defined(krt_metric) ) then krt_metric = 1024;
		bgp_local_pref = 2147483647 - krt_metric;
		calico_export_to_bgp_peers(true);
		reject;
	};
	%s
}
`, name, strings.NewReplacer(".", "_", ":", "_").Replace(y.addrs[f].String()), y.addrs[f], x.addrs[f], more)
		}
		c.Files[name] = b.String()
	}
	return c
}

// start runs what each member runs.
func (m *mixed) start() {
	m.t.Helper()
	m.write()
	for _, x := range m.members {
		if x.caracald != nil {
			x.caracald.start()
			continue
		}
		dir, err := os.MkdirTemp("", "bird")
		must(m.t, err)
		m.t.Cleanup(func() { _ = os.RemoveAll(dir) })
		x.bird, err = peers.Start(m.t.Context(), peers.BIRD1, x.ns, dir, m.config(x))
		must(m.t, err)
		m.t.Cleanup(func() {
			if m.t.Failed() {
				m.t.Logf("BIRD of %s:\n%s", x.name, x.bird.Log(30))
			}
			_ = x.bird.Kill()
		})
	}
}

// up waits for every session at every member.
func (m *mixed) up() {
	m.t.Helper()
	eventually(m.t, "the mesh comes up", func(ctx context.Context) error {
		for _, x := range m.members {
			if err := m.memberUp(ctx, x); err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
		}
		return nil
	})
}

func (m *mixed) memberUp(ctx context.Context, x *member) error {
	if x.bird != nil {
		sessions, err := x.bird.Sessions(ctx)
		for _, s := range sessions {
			if !s.Established {
				return fmt.Errorf("session with %s is %s %s", s.Neighbour, s.State, s.LastError)
			}
		}
		return err
	}
	list, err := x.caracald.peers(ctx)
	want := 0
	for _, y := range m.members {
		if m.peering(x, y) {
			want += 2
		}
	}
	if err == nil && len(list) != want {
		err = fmt.Errorf("%d sessions", len(list))
	}
	if err == nil {
		err = x.caracald.inSync(ctx)
	}
	for _, p := range list {
		if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED {
			return fmt.Errorf("session %s is %v %s", p.GetName(), p.GetState(), p.GetLastError())
		}
	}
	return err
}

// routed waits until every kernel has exactly the way to every other member's blocks, with the metric of ordinary routes.
func (m *mixed) routed() {
	m.t.Helper()
	eventually(m.t, "the routes of the mesh", func(context.Context) error {
		for _, x := range m.members {
			for f, family := range [...]string{"-4", "-6"} {
				out, err := x.ns.Run("ip", family, "route", "show")
				if err != nil {
					return err
				}
				for _, y := range m.members {
					if err := m.way(x, y, f, out); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// way looks for the routes of x to the blocks of y in the kernel's list; further blocks of y there must be none.
func (m *mixed) way(x, y *member, f int, list string) error {
	if x == y {
		return nil
	}
	n := 0
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		if via := slices.Index(words, "via"); via >= 0 && words[via+1] == y.addrs[f].String() && strings.Contains(line, " metric 1024 ") {
			n++
			continue
		}
		for _, p := range y.blocks[f] {
			if len(words) > 0 && words[0] == p.String() {
				return fmt.Errorf("%s has %q, want it via %s, metric 1024", x.name, line, y.addrs[f])
			}
		}
	}
	if n != len(y.blocks[f]) {
		return fmt.Errorf("%s has %d routes via %s, want %d:\n%s", x.name, n, y.addrs[f], len(y.blocks[f]), list)
	}
	return nil
}

// reaches has every workload ask every other one.
func (m *mixed) reaches() {
	m.t.Helper()
	var g errgroup.Group
	g.SetLimit(4)
	for _, x := range m.members {
		for _, y := range m.members {
			for f := range 2 {
				g.Go(func() error {
					from, to := x.workloads()[f], y.workloads()[f]
					if out, err := x.ns.Run("ping", "-c", "1", "-W", "5", "-I", from.String(), to.String()); err != nil {
						return fmt.Errorf("%s to %s: %w: %s", from, to, err, out)
					}
					return nil
				})
			}
		}
	}
	if err := g.Wait(); err != nil {
		m.t.Error(err)
	}
}

// changed tells the daemons, and the BIRDs of these members, of what has changed.
func (m *mixed) changed(members ...*member) {
	m.t.Helper()
	m.write()
	for _, x := range members {
		if x.bird != nil {
			must(m.t, x.bird.Reconfigure(m.t.Context(), m.config(x)))
		}
	}
}

// deletions watches every kernel for routes to the blocks of others.
func (m *mixed) deletions() (counts []func() int) {
	m.t.Helper()
	for _, x := range m.members {
		var others []netip.Prefix
		for _, y := range m.members {
			if y != x {
				others = append(others, y.blocks[0][0], y.blocks[1][0])
			}
		}
		counts = append(counts, deletions.Watch(m.t, x.ns, others...))
	}
	return counts
}
