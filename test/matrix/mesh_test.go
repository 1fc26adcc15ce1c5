package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caracal-net/caracal/internal/netns"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

// member is one node of the mixed mesh: a caracald, or a BIRD as calico-node has it.
type member struct {
	number   int // last octet of its addresses
	name     string
	ns       netns.NS
	net      int // which subnet
	addrs    [2]netip.Addr
	blocks   [][]netip.Prefix // by pool
	caracald *node            // nil on nodes of BIRD
	bird     *peers.Router    // nil on nodes of ours
	was      *peers.Router    // BIRD, while a node of its is one of ours
	tunnels  *tunnels         // what BIRD's side lacks for IPIP, nil without
}

// mixed is the mesh.
type mixed struct {
	t       *testing.T
	pools   []pool
	members []*member
	network netns.NS      // switches, and the router where there are several subnets
	data    string        // datastore of the caracalds
	pace    time.Duration // of each flow of a stream
	wire    *wire         // nil where nobody listens
	// reflector has sessions with all, and the others with it alone; nil for a full mesh.
	reflector *member
}

// pool is an IPPool; 10.x.0.0/16 or fd00:x::/32.
type pool struct {
	name        string
	cidr        netip.Prefix
	ipip, vxlan string // modes
}

// family is 0 for IPv4, 1 for IPv6.
func (p *pool) family() int {
	if p.cidr.Addr().Is6() {
		return 1
	}
	return 0
}

// block is a member's block of this number.
func (p *pool) block(member, n int) netip.Prefix {
	if p.family() == 1 {
		a := p.cidr.Addr().As16()
		a[5], a[15] = byte(member), byte(64*n)
		return netip.PrefixFrom(netip.AddrFrom16(a), 122)
	}
	a := p.cidr.Addr().As4()
	a[2], a[3] = byte(member), byte(64*n)
	return netip.PrefixFrom(netip.AddrFrom4(a), 26)
}

// plain are pools without encapsulation.
func plain() []pool {
	return []pool{
		{"v4", netip.MustParsePrefix("10.65.0.0/16"), "Never", "Never"},
		{"v6", netip.MustParsePrefix("fd00:65::/32"), "Never", "Never"},
	}
}

// clusterID is the reflector's.
const clusterID = "244.0.0.1"

// peering reports whether two members have sessions.
func (m *mixed) peering(x, y *member) bool {
	return x != y && (m.reflector == nil || m.reflector == x || m.reflector == y)
}

// subnets are where members may be.
func subnets() [2][2]netip.Prefix {
	return [2][2]netip.Prefix{
		{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")},
		{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:1::/64")},
	}
}

// host is an address of a subnet.
func host(p netip.Prefix, n byte) netip.Addr {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		a[3] = n
		return netip.AddrFrom4(a)
	}
	a := p.Addr().As16()
	a[15] = n
	return netip.AddrFrom16(a)
}

// newMixed wires four nodes, half of them to the switch of each of n subnets. Every second is BIRD's, so that each kind dials the other.
func newMixed(t *testing.T, n int, pools []pool) *mixed {
	t.Helper()
	need.Root(t)
	if what := peers.Missing(peers.BIRD1); what != "" {
		need.Other(t, what, "make deps")
	}
	m := &mixed{t: t, pools: pools, pace: streamPace, network: need.Namespace(t)}
	for i := range n {
		ip(t, m.network, "link add name switch%d type bridge", i)
		ip(t, m.network, "link set switch%d up", i)
	}
	for i := range 4 {
		x := &member{number: 11 + i, name: "node-" + string(rune('a'+i)), net: i * n / 4}
		for f, p := range subnets()[x.net] {
			x.addrs[f] = host(p, byte(x.number))
		}
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
		x.blocks = make([][]netip.Prefix, len(pools))
		m.block(x, 0)
		ip(t, x.ns, "link add name eth0 type veth peer name port%d netns %s", i, m.network.Name)
		ip(t, m.network, "link set port%d up master switch%d", i, x.net)
		plug(t, x.ns, "eth0", []string{x.addrs[0].String() + "/24", x.addrs[1].String() + "/64"})
		for _, w := range x.workloads() {
			ip(t, x.ns, "address add %s/%d dev lo", w, w.BitLen())
		}
		sysctl(t, x.ns, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
		m.members = append(m.members, x)
	}
	if n > 1 {
		m.route()
	}
	return m
}

// route makes a router between the subnets of the network. It knows blocks of IPv6 pools, as a fabric has to where nothing encapsulates.
func (m *mixed) route() {
	m.t.Helper()
	sysctl(m.t, m.network, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	for i, s := range subnets() {
		plug(m.t, m.network, fmt.Sprintf("switch%d", i), []string{host(s[0], 1).String() + "/24", host(s[1], 1).String() + "/64"})
	}
	for _, x := range m.members {
		for f, p := range subnets()[x.net] {
			ip(m.t, x.ns, "%s route add default via %s", [...]string{"-4", "-6"}[f], host(p, 1))
		}
		for i := range m.pools {
			if m.pools[i].family() == 1 {
				ip(m.t, m.network, "-6 route add %s via %s", x.blocks[i][0], x.addrs[1])
			}
		}
	}
}

// block gives a member its block of this number in each pool.
func (m *mixed) block(x *member, n int) {
	for i := range m.pools {
		x.blocks[i] = append(x.blocks[i], m.pools[i].block(x.number, n))
	}
}

// unblock takes the last one back.
func (m *mixed) unblock(x *member) {
	for i, list := range x.blocks {
		x.blocks[i] = list[:len(list)-1]
	}
}

// workloads are an address of the first block of each pool.
func (x *member) workloads() []netip.Addr {
	var out []netip.Addr
	for _, list := range x.blocks {
		out = append(out, list[0].Addr().Next())
	}
	return out
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
		if x.tunnels != nil {
			must(m.t, x.tunnels.start())
		}
		dir, err := os.MkdirTemp("", "bird")
		must(m.t, err)
		m.t.Cleanup(func() { _ = os.RemoveAll(dir) })
		bird, err := peers.Start(m.t.Context(), peers.BIRD1, x.ns, dir, m.config(x))
		must(m.t, err)
		x.bird = bird
		m.t.Cleanup(func() {
			if m.t.Failed() {
				m.t.Logf("BIRD of %s:\n%s", x.name, bird.Log(30))
			}
			_ = bird.Kill()
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

// reaches has every workload ask every other one; where the stream is listened to that says it as well.
func (m *mixed) reaches() {
	m.t.Helper()
	if m.wire != nil {
		m.wire.flowing(m)
		return
	}
	var g errgroup.Group
	g.SetLimit(4)
	for _, x := range m.members {
		for _, y := range m.members {
			for i := range m.pools {
				g.Go(func() error {
					from, to := x.workloads()[i], y.workloads()[i]
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

// deletions watches every kernel for routes to the first blocks of others.
func (m *mixed) deletions() (counts []func() int) {
	m.t.Helper()
	for _, x := range m.members {
		var others []netip.Prefix
		for _, y := range m.members {
			for i := range m.pools {
				if y != x {
					others = append(others, y.blocks[i][0])
				}
			}
		}
		counts = append(counts, deletions.Watch(m.t, x.ns, others...))
	}
	return counts
}
