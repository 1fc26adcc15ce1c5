package matrix

import (
	"context"
	"fmt"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/peers"
)

// weRestart: the daemon dies without a word, and the router keeps its routes until it is back.
func weRestart(c *cell) {
	c.run()
	deleted := func() int { return 0 }
	if c.kind.Kernel() {
		deleted = deletions.Watch(c.t, c.routerNS, c.fam[0].block, c.fam[1].block)
	}
	kept := func(when string) {
		c.t.Helper()
		for _, f := range c.fam {
			if paths, err := c.router.Paths(c.t.Context(), f.block); err != nil || c.correct(paths) != nil {
				c.t.Errorf("%s the router has %+v, %v", when, paths, err)
			}
		}
	}
	c.kill()
	eventually(c.t, "the router sees the node go", func(ctx context.Context) error { return c.routerSees(ctx, false) })
	kept("while the node is away")
	c.start()
	c.up()
	kept("when the node is back")
	c.exchanged()
	if n := deleted(); n != 0 {
		c.t.Errorf("the router's kernel lost the node's blocks %d times", n)
	}
}

// connectionsBreak: the sessions lose their connections, but nobody has restarted. Both keep what they have until the sessions are back. The node
// does so then too. A router finds no forwarding bit in the new OPEN, as GoBGP sets it only after a restart, and may drop the node's routes for the moment
// until they are announced again, once.
func connectionsBreak(c *cell) {
	c.run()
	atNode := deletions.Watch(c.t, c.ns, c.fam[0].nets[0], c.fam[1].nets[0])
	atRouter := func() int { return 0 }
	if c.kind.Kernel() {
		atRouter = deletions.Watch(c.t, c.routerNS, c.fam[0].block, c.fam[1].block)
	}
	ups := c.ups()
	for _, end := range []string{"sport", "dport"} {
		if out, err := c.ns.Run("ss", "-K", "-t", end, "=", ":179"); err != nil {
			c.t.Fatal(err, out)
		}
	}
	eventually(c.t, "the sessions come up once more", func(ctx context.Context) error {
		if n := c.ups(); n < ups+2 {
			return fmt.Errorf("they have come up %d times", n-ups)
		}
		return nil
	})
	c.up()
	c.exchanged()
	if n := atNode(); (n == 0) != keepsForwarding(c.kind) {
		c.t.Errorf("the node's kernel lost the router's routes %d times", n)
	}
	if n := atRouter(); n > len(c.fam) {
		c.t.Errorf("the router's kernel lost the node's blocks %d times", n)
	}
}

// keepsForwarding reports whether a router says of itself, after a restart, that it has forwarded packets all the time (RFC 4724 section 4.1).
func keepsForwarding(k peers.Kind) bool { return k != peers.OpenBGPD }

// itRestarts: the router dies without a word. The node keeps its routes until it is back, and what it does not bring back is gone then.
func itRestarts(c *cell) {
	c.originate(2)
	c.run()
	deleted := deletions.Watch(c.t, c.ns, c.fam[0].nets[0], c.fam[1].nets[0])
	must(c.t, c.router.Kill())
	c.down(func(p *caracalv1.Peer) error {
		if p.GetRestarting() != keepsForwarding(c.kind) {
			return fmt.Errorf("restarting: %v", p.GetRestarting())
		}
		return nil
	})
	if keepsForwarding(c.kind) {
		for _, f := range c.fam {
			c.nodeHas(f.nets[0], true)
			c.nodeHas(f.nets[1], true)
		}
	} else {
		for _, f := range c.fam {
			c.nodeHas(f.nets[0], false)
		}
	}
	c.originate(1)
	must(c.t, c.router.Configure(c.cfg))
	must(c.t, c.router.Restart(c.t.Context()))
	c.up()
	c.exchanged()
	for _, f := range c.fam {
		c.nodeHas(f.nets[1], false)
	}
	if n := deleted(); (n == 0) != keepsForwarding(c.kind) {
		c.t.Errorf("the node's kernel lost the router's routes %d times", n)
	}
}

// itDoesNotReturn: the node waits no longer for a router than it has asked for.
func itDoesNotReturn(c *cell) {
	c.neighbours(func(n *peers.Neighbour) { n.GracefulRestart = restartTime / 20 })
	c.run()
	must(c.t, c.router.Kill())
	c.down()
	for _, f := range c.fam {
		c.nodeHas(f.nets[0], false)
	}
	must(c.t, c.router.Restart(c.t.Context()))
	c.up()
	c.exchanged()
}
