package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

// family is what a cell has once for each address family.
type family struct {
	node, router netip.Addr
	block        netip.Prefix // of the node
	more, most   netip.Prefix // further ones, where a rule wants them
	nets         []netip.Prefix
}

// families are IPv4 and IPv6. The router announces the first of nets unless a rule says more.
func families() [2]family {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	return [2]family{
		{a("192.0.2.10"), a("192.0.2.1"), p("10.65.0.0/26"), p("10.65.0.64/26"), p("10.65.0.128/26"), []netip.Prefix{p("203.0.113.0/26"), p("203.0.113.64/26"), p("203.0.113.128/26")}},
		{a("2001:db8::10"), a("2001:db8::1"), p("fd00:65::/122"), p("fd00:65::40/122"), p("fd00:65::80/122"), []netip.Prefix{p("2001:db8:a::/64"), p("2001:db8:b::/64"), p("2001:db8:c::/64")}},
	}
}

// blocksOfRouter are what it announces as a node of the mesh: blocks of the pools.
func blocksOfRouter() (v4, v6 []netip.Prefix) {
	for _, text := range [...]string{"10.66.0.0/26", "10.66.0.64/26", "10.66.0.128/26"} {
		v4 = append(v4, netip.MustParsePrefix(text))
	}
	for _, text := range [...]string{"fd00:66::/122", "fd00:66::40/122", "fd00:66::80/122"} {
		v6 = append(v6, netip.MustParsePrefix(text))
	}
	return v4, v6
}

// cell is one router, one node, one rule.
type cell struct {
	*node
	kind     peers.Kind
	routerNS netns.NS
	router   *peers.Router
	cfg      peers.Config // of the router
	fam      [2]family
	// mesh: the router is a node of the mesh, in our AS.
	mesh             bool
	nodeAS, routerAS uint32
	annotations      string // of the BGPPeers, or of the mesh
	password         bool   // sessions have the one of the Secret
	spec             string // more of the BGPPeers' spec
	bgpConfiguration string // more of the BGPConfiguration's spec
}

// passwordRef is where the password of the sessions is.
const passwordRef = "{secretKeyRef: {name: bgp, key: tor}}"

// restartTime is what routers offer (RFC 4724); longer than any restart here.
const restartTime = 60 * time.Second

// newCell wires the two; nothing runs.
func newCell(t *testing.T, at side) *cell {
	t.Helper()
	need.Root(t)
	kind := at.kind
	if what := peers.Missing(kind); what != "" {
		need.Other(t, what, "make deps")
	}
	c := &cell{node: newNode(t, "node-a"), kind: kind, routerNS: need.Namespace(t), fam: families(), mesh: at.mesh, nodeAS: 64512, routerAS: 65000}
	if c.mesh {
		c.fam[0].nets, c.fam[1].nets = blocksOfRouter()
	}
	join(t, c.ns, c.routerNS, "eth0", "eth0", []string{"192.0.2.10/24", "2001:db8::10/64"}, []string{"192.0.2.1/24", "2001:db8::1/64"})
	c.cfg = peers.Config{RouterID: c.fam[0].router, Kernel: kind.Kernel()}
	for _, f := range c.fam {
		c.cfg.Originate = append(c.cfg.Originate, f.nets[0])
		c.cfg.Neighbours = append(c.cfg.Neighbours, peers.Neighbour{Addr: f.node, Local: f.router, GracefulRestart: restartTime})
	}
	t.Cleanup(func() {
		if c.router != nil {
			if t.Failed() {
				t.Log(c.router.Log(40))
			}
			_ = c.router.Kill()
		}
	})
	return c
}

// neighbours changes both sessions of the router's configuration.
func (c *cell) neighbours(f func(*peers.Neighbour)) {
	c.cfg.Neighbours = slices.Clone(c.cfg.Neighbours)
	for i := range c.cfg.Neighbours {
		f(&c.cfg.Neighbours[i])
	}
}

// originate makes the first n prefixes of each family the router's.
func (c *cell) originate(n int) {
	c.cfg.Originate = nil
	for _, f := range c.fam {
		c.cfg.Originate = append(c.cfg.Originate, f.nets[:n]...)
	}
}

// startRouter starts a router with the present configuration in a new directory.
func (c *cell) startRouter() {
	c.t.Helper()
	if c.mesh {
		c.routerAS = c.nodeAS
	}
	c.cfg.ASN = c.routerAS
	c.neighbours(func(n *peers.Neighbour) {
		n.ASN = c.nodeAS
		n.Passive = c.mesh // 192.0.2.10 sorts above 192.0.2.1, and so it dials
	})
	dir, err := os.MkdirTemp(c.dir, "router")
	must(c.t, err)
	must(c.t, os.Chmod(dir, 0o755))
	c.router, err = peers.Start(c.t.Context(), c.kind, c.routerNS, dir, c.cfg)
	must(c.t, err)
}

// replaceRouter ends the router in an orderly way and starts one with the present configuration.
func (c *cell) replaceRouter() {
	c.t.Helper()
	must(c.t, c.router.Stop())
	c.startRouter()
}

func (c *cell) reconfigureRouter() {
	c.t.Helper()
	must(c.t, c.router.Reconfigure(c.t.Context(), c.cfg))
}

// cluster writes all of the datastore.
func (c *cell) cluster() {
	c.t.Helper()
	text := `apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-a}
spec: {bgp: {ipv4Address: 192.0.2.10/24, ipv6Address: "2001:db8::10/64"}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.64.0.0/14, ipipMode: Never, vxlanMode: Never}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v6}
spec: {cidr: "fd00::/16", ipipMode: Never, vxlanMode: Never}
`
	c.write("cluster", text)
	c.blocks("blocks", func(f family) netip.Prefix { return f.block })
	c.sessionsAsked()
}

// blocks gives the node a block of each family, in a file of this name.
func (c *cell) blocks(name string, of func(family) netip.Prefix) {
	c.t.Helper()
	var b strings.Builder
	for _, f := range c.fam {
		p := of(f)
		fmt.Fprintf(&b, `apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata: {name: node-a-%s}
spec: {node: node-a, type: host, cidr: "%s", state: confirmed, deleted: "false"}
---
`, strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(p.String()), p)
	}
	c.write(name, b.String())
}

// sessionsAsked writes what asks for the sessions: the BGPConfiguration, and in a file of their own the BGPPeers of the router, or the router's Node.
func (c *cell) sessionsAsked() {
	c.t.Helper()
	spec, mesh, annotations := c.spec, "", ""
	if c.mesh {
		annotations = c.annotations
	}
	switch {
	case c.password && c.mesh:
		mesh = ", nodeMeshPassword: " + passwordRef
	case c.password:
		spec += ", password: " + passwordRef
	}
	c.write("bgp", fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata:\n  name: default\n  annotations: {%s}\nspec: {asNumber: %d, nodeToNodeMeshEnabled: %v%s%s}\n",
		annotations, c.nodeAS, c.mesh, mesh, c.bgpConfiguration))
	if c.mesh {
		as := ""
		if c.routerAS != c.nodeAS {
			as = fmt.Sprintf(", asNumber: %d", c.routerAS)
		}
		c.write("peers", fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: router}\nspec: {bgp: {ipv4Address: 192.0.2.1/24, ipv6Address: \"2001:db8::1/64\"%s}}\n", as))
		return
	}
	var b strings.Builder
	for i, f := range c.fam {
		fmt.Fprintf(&b, "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: tor%d\n  annotations: {%s}\nspec: {peerIP: \"%s\", asNumber: %d%s}\n---\n",
			i, c.annotations, f.router, c.routerAS, spec)
	}
	c.write("peers", b.String())
}

// run starts both and waits for sessions and routes.
func (c *cell) run() {
	c.t.Helper()
	c.startRouter()
	c.cluster()
	c.start()
	c.up()
	c.exchanged()
	eventually(c.t, "the node is in sync", c.inSync)
}

// sessions reports the first session that is not as f wants it at the node.
func (c *cell) sessions(ctx context.Context, f func(*caracalv1.Peer) error) error {
	list, err := c.peers(ctx)
	if err != nil {
		return err
	}
	for _, fam := range c.fam {
		p := list[fam.router.String()]
		if p == nil {
			return fmt.Errorf("the node has no session with %s", fam.router)
		}
		if err := f(p); err != nil {
			return fmt.Errorf("session %s is %v, last error %q, remedy %q: %w", p.GetName(), p.GetState(), p.GetLastError(), p.GetRemedy(), err)
		}
	}
	return nil
}

func established(p *caracalv1.Peer) error {
	if p.GetState() != caracalv1.SessionState_SESSION_STATE_ESTABLISHED {
		return errors.New("want it established")
	}
	return nil
}

func notEstablished(p *caracalv1.Peer) error {
	if established(p) == nil {
		return errors.New("want it down")
	}
	return nil
}

// up waits until both ends have both sessions established.
func (c *cell) up() {
	c.t.Helper()
	eventually(c.t, "sessions come up", func(ctx context.Context) error {
		return errors.Join(c.routerSees(ctx, true), c.sessions(ctx, established))
	})
}

// down waits until the node has lost both sessions, and they look as also wants.
func (c *cell) down(also ...func(*caracalv1.Peer) error) {
	c.t.Helper()
	eventually(c.t, "sessions end at the node", func(ctx context.Context) error {
		return c.sessions(ctx, func(p *caracalv1.Peer) error {
			err := notEstablished(p)
			for _, f := range also {
				err = errors.Join(err, f(p))
			}
			return err
		})
	})
}

func (c *cell) routerSees(ctx context.Context, up bool) error {
	list, err := c.router.Sessions(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.Established != up {
			return fmt.Errorf("the router's session with %s is %s (%s)", s.Neighbour, s.State, s.LastError)
		}
	}
	return nil
}

// exchanged waits until each has the other's first routes.
func (c *cell) exchanged() {
	c.t.Helper()
	for _, f := range c.fam {
		c.nodeHas(f.nets[0], true)
		c.routerHas(f.block, true)
	}
}

// nodeHas waits until the node's kernel has, or has not, a route of ours to a prefix of the router's.
func (c *cell) nodeHas(p netip.Prefix, want bool) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("route to %s at the node: %v", p, want), func(context.Context) error {
		out, err := routeOf(c.ns, p.String())
		if err != nil {
			return err
		}
		via := c.fam[0].router
		if p.Addr().Is6() {
			via = c.fam[1].router
		}
		if has := strings.Contains(out, "via "+via.String()+" dev eth0 proto 202 "); has != want || !want && strings.TrimSpace(out) != "" {
			return fmt.Errorf("the kernel has %q", out)
		}
		return nil
	})
}

// routerHas waits until the router has, or has not, exactly the node's path to a prefix.
func (c *cell) routerHas(p netip.Prefix, want bool) []peers.Path {
	c.t.Helper()
	var paths []peers.Path
	eventually(c.t, fmt.Sprintf("path to %s at the router: %v", p, want), func(ctx context.Context) (err error) {
		if paths, err = c.router.Paths(ctx, p); err != nil {
			return err
		}
		if !want {
			if len(paths) != 0 {
				return fmt.Errorf("the router has %+v", paths)
			}
			return nil
		}
		return c.correct(paths)
	})
	return paths
}

// correct reports what is wrong with the router's paths to a block of the node's.
func (c *cell) correct(paths []peers.Path) error {
	if len(paths) != 1 {
		return fmt.Errorf("the router has %d paths, want one: %+v", len(paths), paths)
	}
	p := paths[0]
	via := c.fam[0].node
	if p.Prefix.Addr().Is6() {
		via = c.fam[1].node
	}
	as := []uint32{c.nodeAS}
	if c.mesh {
		as = nil
	}
	if p.NextHop != via || !slices.Equal(p.ASPath, as) || !p.Best || c.mesh && p.LocalPref != 2147483647-1024 {
		return fmt.Errorf("the router has %+v, want next hop %s, path %v", p, via, as)
	}
	return nil
}

// kill ends the daemon as an upgrade of its pod does.
func (c *cell) kill() { c.end(syscall.SIGKILL) }
