package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/peers"
)

// listens waits until the node listens at exactly these addresses.
func (c *cell) listens(want ...string) {
	c.t.Helper()
	eventually(c.t, "listening at "+strings.Join(want, " "), func(context.Context) error {
		out, err := c.ns.Run("ss", "-Hltn")
		if err != nil {
			return err
		}
		var got []string
		for line := range strings.Lines(out) {
			if words := strings.Fields(line); len(words) > 3 && !strings.HasPrefix(words[3], "127.") {
				got = append(got, words[3])
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("it listens at %q", got)
		}
		return nil
	})
}

// routerHears waits until the router has one path to a prefix that looks as wanted; "" for none.
func (c *cell) routerHears(prefix string, want string) {
	c.t.Helper()
	eventually(c.t, "the router hears of "+prefix, func(ctx context.Context) error {
		paths, err := c.router.Paths(ctx, netip.MustParsePrefix(prefix))
		if err != nil {
			return err
		}
		got := ""
		for _, p := range paths {
			got += fmt.Sprint(p.NextHop, p.ASPath, p.Communities, p.Large)
		}
		if got != want {
			return fmt.Errorf("it has %q, want %q", got, want)
		}
		return nil
	})
}

// TestFieldsChange: fields of BGPConfiguration, BGPPeer and BGPFilter that change under a running daemon, as a real router sees them.
func TestFieldsChange(t *testing.T) {
	t.Parallel()
	for _, kind := range []peers.Kind{peers.BIRD2, peers.FRR} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			c := newCell(t, side{kind: kind})
			c.run()
			c.listens("0.0.0.0:179", "[::]:179")

			// The router listens at 179 as ever, and cannot dial where we listen now.
			c.bgpConfiguration = ", listenPort: 1790, bindMode: NodeIP"
			c.sessionsAsked()
			c.listens("192.0.2.10:1790", "[2001:db8::10]:1790")
			c.up()
			c.exchanged()
			c.write("node", "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: node.node-a}\nspec: {listenPort: 1791, bindMode: None}\n")
			c.listens("192.0.2.10:1791", "[2001:db8::10]:1791")
			c.up()
			c.exchanged()

			c.spec = ", localASNumber: 65100"
			c.neighbours(func(n *peers.Neighbour) { n.ASN = 65100 })
			c.reconfigureRouter()
			c.sessionsAsked()
			c.up()
			own := func() {
				for _, f := range c.fam {
					c.routerHears(f.block.String(), f.node.String()+" [65100] [] []")
				}
			}
			own()
			for _, mode := range []string{"Keep", "Self"} { // of what was learned: ours has no other next hop than ourselves
				c.spec = ", localASNumber: 65100, nextHopMode: " + mode
				c.sessionsAsked()
				c.up()
				own()
			}

			// What no default sends: an address of the node, and that of a workload in a block.
			rule := "{action: Accept, interface: lo, operations: [{addCommunity: {value: '65000:7'}}, {prependASPath: {prefix: [65100, 65100]}}, {addCommunity: {value: '4200000000:1:2'}}]}"
			single := "{action: Accept, cidr: '%s', matchOperator: In, prefixLength: {min: %d}}"
			c.write("filter", fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: own}\nspec: {exportV4: [%s, %s], exportV6: [%s, %s]}\n",
				rule, fmt.Sprintf(single, c.fam[0].block, 32), rule, fmt.Sprintf(single, c.fam[1].block, 128)))
			c.spec += ", filters: [own]"
			c.sessionsAsked()
			for i, addr := range []string{"10.255.0.10/32", "fd00:255::10/128"} {
				c.routerHears(addr, "")
				c.ip(c.ns, "address add "+addr+" dev lo")
				c.routerHears(addr, c.fam[i].node.String()+" [65100 65100 65100] [65000:7] [4200000000:1:2]")
				c.ip(c.ns, "address del "+addr+" dev lo")
				c.routerHears(addr, "")
			}
			c.ip(c.ns, "link add name cali7 type veth peer name cali8")
			c.ip(c.ns, "link set cali7 up")
			c.ip(c.ns, "link set cali8 up")
			for i, addr := range []string{"10.65.0.5/32", "fd00:65::5/128"} {
				route := fmt.Sprintf("-%d route %%s %s dev cali7 proto 80", 4+2*i, addr)
				c.ip(c.ns, fmt.Sprintf(route, "add"))
				c.routerHears(addr, c.fam[i].node.String()+" [65100] [] []")
				c.ip(c.ns, fmt.Sprintf(route, "del"))
				c.routerHears(addr, "")
			}
			own()
		})
	}
}

func (c *cell) ip(ns netns.NS, line string) {
	c.t.Helper()
	if out, err := ns.Run("ip", strings.Fields(line)...); err != nil {
		c.t.Fatalf("ip %s: %v %s", line, err, out)
	}
}

// TestReachableBy: a peer that only its gateway leads to. What it announces goes there too, and all of it goes with the BGPPeer.
func TestReachableBy(t *testing.T) {
	t.Parallel()
	c := newCell(t, side{kind: peers.BIRD2})
	far := [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:ff::1")}
	gateways := [2]netip.Addr{c.fam[0].router, c.fam[1].router}
	for i, a := range far {
		c.ip(c.routerNS, "address add "+netip.PrefixFrom(a, a.BitLen()).String()+" dev lo")
		c.cfg.Neighbours[i].Local = a
		c.fam[i].router = a
	}
	c.startRouter()
	c.cluster()
	asked := func(reachable bool) {
		var b strings.Builder
		for i, a := range far {
			by := ""
			if reachable {
				by = fmt.Sprintf(", reachableBy: %q", gateways[i])
			}
			fmt.Fprintf(&b, "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: far%d}\nspec: {peerIP: %q, asNumber: 65000%s}\n---\n", i, a, by)
		}
		c.write("peers", b.String())
	}
	has := func(want bool) {
		for i, a := range far {
			for _, p := range []netip.Prefix{netip.PrefixFrom(a, a.BitLen()), c.fam[i].nets[0]} {
				eventually(t, fmt.Sprintf("route to %s over the gateway: %v", p, want), func(context.Context) error {
					out, err := routeOf(c.ns, p.String())
					if err != nil {
						return err
					}
					if has := strings.Contains(out, "via "+gateways[i].String()+" dev eth0 proto 202 "); has != want || !want && strings.TrimSpace(out) != "" {
						return fmt.Errorf("the kernel has %q", out)
					}
					return nil
				})
			}
		}
	}
	asked(true)
	c.start()
	c.up()
	has(true)
	asked(false)
	has(false)
	asked(true)
	c.up()
	has(true)
}
