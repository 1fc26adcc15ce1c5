package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

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

// routerHears waits until the router has one path to a prefix that looks as wanted.
func (c *cell) routerHears(prefix string, want string) {
	c.t.Helper()
	eventually(c.t, "the router hears of "+prefix, func(ctx context.Context) error {
		paths, err := c.router.Paths(ctx, netip.MustParsePrefix(prefix))
		if err != nil {
			return err
		}
		got := ""
		for _, p := range paths {
			got += fmt.Sprint(p.ASPath, p.Communities, p.Large)
		}
		if got != want {
			return fmt.Errorf("it has %q, want %q", got, want)
		}
		return nil
	})
}

// TestFieldsChange: fields of BGPConfiguration, BGPPeer and BGPFilter that change under a running daemon, as a real router sees them.
func TestFieldsChange(t *testing.T) {
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
			c.routerHears(c.fam[0].block.String(), "[65100] [] []")
			c.routerHears(c.fam[1].block.String(), "[65100] [] []")

			// What no default sends: an address of the node, and that of a workload in a block.
			rule := "{action: Accept, interface: lo, operations: [{addCommunity: {value: '65000:7'}}, {prependASPath: {prefix: [65100, 65100]}}, {addCommunity: {value: '4200000000:1:2'}}]}"
			c.write("filter", "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: own}\nspec: {exportV4: ["+rule+"], exportV6: ["+rule+"]}\n")
			c.spec += ", filters: [own]"
			c.sessionsAsked()
			for _, own := range []string{"10.255.0.10/32", "fd00:255::10/128"} {
				c.routerHears(own, "")
				if out, err := c.ns.Run("ip", "address", "add", own, "dev", "lo"); err != nil {
					t.Fatal(err, out)
				}
				c.routerHears(own, "[65100 65100 65100] [65000:7] [4200000000:1:2]")
				if out, err := c.ns.Run("ip", "address", "del", own, "dev", "lo"); err != nil {
					t.Fatal(err, out)
				}
				c.routerHears(own, "")
			}
			c.routerHears(c.fam[0].block.String(), "[65100] [] []")
		})
	}
}
