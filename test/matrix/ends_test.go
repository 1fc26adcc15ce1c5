package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/peers"
)

// itSendsTooMuch: FRR sends our own block back, which counts.
func itSendsTooMuch(c *cell) {
	c.annotations = "caracal.net/max-prefixes: '2'"
	c.run()
	c.originate(3)
	c.reconfigureRouter()
	c.down(remedy("Maximum Number of Prefixes", "raise the limit"))
	for _, f := range c.fam {
		c.nodeHas(f.nets[0], false)
	}
	c.annotations = "caracal.net/max-prefixes: '4'"
	c.sessionsAsked()
	c.up()
	c.exchanged()
	for _, f := range c.fam {
		c.nodeHas(f.nets[2], true)
	}
}

// weSendTooMuch: FRR looks at the number before the one that is too much is in it, so two are.
func weSendTooMuch(c *cell) {
	c.neighbours(func(n *peers.Neighbour) { n.MaxPrefixes = 1 })
	c.run()
	c.blocks("more", func(f family) netip.Prefix { return f.more })
	c.blocks("most", func(f family) netip.Prefix { return f.most })
	c.down(remedy("Maximum Number of Prefixes", "more prefixes than the peer takes"))
	c.neighbours(func(n *peers.Neighbour) { n.MaxPrefixes = 3 })
	c.replaceRouter()
	c.up()
	c.exchanged()
	for _, f := range c.fam {
		c.routerHas(f.more, true)
	}
}

// itSaysGoodbye: the sessions are shut down by hand at the router, and opened again.
func itSaysGoodbye(c *cell) {
	c.run()
	c.neighbours(func(n *peers.Neighbour) { n.Shut = true })
	c.reconfigureRouter()
	c.down(remedy("received: Cease"), func(p *caracalv1.Peer) error {
		if n := p.GetLastReceived(); n.GetCode() != 6 {
			return fmt.Errorf("NOTIFICATION received: %v", n)
		}
		return nil
	})
	c.neighbours(func(n *peers.Neighbour) { n.Shut = false })
	c.reconfigureRouter()
	c.up()
	c.exchanged()
}

// weSayGoodbye: the BGPPeers are deleted, or the router's Node. The router's routes go from the node, the node's from the router, at once.
func weSayGoodbye(c *cell) {
	c.run()
	c.remove("peers")
	eventually(c.t, "the router sees the sessions end", func(ctx context.Context) error { return c.routerSees(ctx, false) })
	for _, f := range c.fam {
		c.nodeHas(f.nets[0], false)
		c.routerHas(f.block, false)
	}
	c.sessionsAsked()
	c.up()
	c.exchanged()
}

func wrongAS(c *cell) {
	c.startRouter()
	right := c.routerAS
	c.routerAS++
	c.cluster()
	c.start()
	c.down(remedy("OPEN Message Error/Bad Peer AS", "AS"), func(p *caracalv1.Peer) error {
		if !p.GetLastSent().GetTime().IsValid() && !p.GetLastReceived().GetTime().IsValid() {
			return errors.New("no NOTIFICATION is told of")
		}
		return nil
	})
	c.routerAS = right
	c.sessionsAsked()
	c.up()
	c.exchanged()
}

// holdTime is the least that RFC 4271 allows.
const holdTime = 3 * time.Second

// silence: nothing gets through any more, and no carrier is lost. The hold time ends the sessions, which return with the path. Until then the node keeps
// the router's routes, if both know RFC 8538.
func silence(c *cell) {
	c.neighbours(func(n *peers.Neighbour) { n.HoldTime = holdTime })
	c.run()
	neighbours := func(format string) {
		c.t.Helper()
		for _, f := range c.fam {
			ip(c.t, c.ns, format, f.router)
			ip(c.t, c.routerNS, format, f.node)
		}
	}
	neighbours("neighbour replace %s lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
	c.down(func(p *caracalv1.Peer) error {
		if code := p.GetLastSent().GetCode(); code != 4 {
			return fmt.Errorf("NOTIFICATION sent: %v, want Hold Timer Expired", p.GetLastSent())
		}
		return nil
	})
	neighbours("neighbour del %s dev eth0")
	c.up()
	c.exchanged()
}
