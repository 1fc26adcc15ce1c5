package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/peers"
)

// rule is one row of the table.
type rule struct {
	name string
	run  func(*cell)
	// cannot names the routers for which the rule is not, each with the reason.
	cannot map[peers.Kind]string
}

func rules() []rule {
	return []rule{
		{name: "routes", run: routes},
		{name: "mesh member", run: meshMember},
		{name: "four-octet AS", run: fourOctets},
		{name: "communities", run: communities},
		{name: "MD5", run: md5},
		{name: "TTL security", run: ttlSecurity},
		{name: "we restart", run: weRestart},
		{name: "connections break", run: connectionsBreak},
		{name: "it restarts", run: itRestarts},
		{name: "it does not return", run: itDoesNotReturn},
		{name: "flap", run: flap},
		{name: "it sends too much", run: itSendsTooMuch},
		{name: "we send too much", run: weSendTooMuch},
		{name: "it says goodbye", run: itSaysGoodbye},
		{name: "we say goodbye", run: weSayGoodbye},
		{name: "wrong AS", run: wrongAS},
	}
}

// TestMatrix is the table.
func TestMatrix(t *testing.T) {
	for _, r := range rules() {
		for _, kind := range peers.Kinds() {
			t.Run(strings.ReplaceAll(r.name, " ", "-")+"/"+string(kind), func(t *testing.T) {
				if why := r.cannot[kind]; why != "" {
					t.Log("not tried: " + why)
					return
				}
				t.Parallel()
				r.run(newCell(t, kind))
			})
		}
	}
}

// routes: both families, both ways; what is withdrawn goes, what is announced again comes again.
func routes(c *cell) {
	c.run()
	c.comeAndGo()
}

func meshMember(c *cell) {
	c.mesh = true
	c.cfg.Originate = []netip.Prefix{netip.MustParsePrefix("10.66.0.0/26"), netip.MustParsePrefix("fd00:66::/122")} // as a node's blocks
	for i := range c.fam {
		c.fam[i].nets = []netip.Prefix{c.cfg.Originate[i], families()[i].nets[1]}
	}
	c.run()
	c.comeAndGo()
}

func (c *cell) comeAndGo() {
	c.t.Helper()
	for range 2 {
		c.originate(2)
		c.reconfigureRouter()
		c.blocks("more", func(f family) netip.Prefix { return f.more })
		for _, f := range c.fam {
			c.nodeHas(f.nets[1], true)
			c.routerHas(f.more, true)
		}
		c.originate(1)
		c.reconfigureRouter()
		c.remove("more")
		for _, f := range c.fam {
			c.nodeHas(f.nets[1], false)
			c.routerHas(f.more, false)
		}
	}
	c.exchanged()
}

func fourOctets(c *cell) {
	c.nodeAS, c.routerAS = 4200000010, 4200000001
	c.run()
	for _, f := range c.fam {
		paths, err := c.paths(c.t.Context(), f.nets[0].String())
		if err != nil || len(paths) != 1 || !slices.Equal(paths[0].GetAsPath(), []uint32{c.routerAS}) {
			c.t.Errorf("the node's paths to %s: %v, %v", f.nets[0], paths, err)
		}
	}
}

func communities(c *cell) {
	c.cfg.Communities = []string{"65000:7", "65000:8", "4200000001:1:2"}
	c.bgpConfiguration = `, prefixAdvertisements: [{cidr: 10.65.0.0/16, communities: ["64512:70", "64512:80", "4200000002:3:4"]}, {cidr: "fd00:65::/32", communities: ["64512:70", "64512:80", "4200000002:3:4"]}]`
	c.run()
	for _, f := range c.fam {
		paths, err := c.paths(c.t.Context(), f.nets[0].String())
		if err != nil || len(paths) != 1 || !slices.Equal(slices.Sorted(slices.Values(paths[0].GetCommunities())), []string{"4200000001:1:2", "65000:7", "65000:8"}) {
			c.t.Errorf("the node's paths to %s: %v, %v", f.nets[0], paths, err)
		}
		got := c.routerHas(f.block, true)[0]
		if !slices.Equal(slices.Sorted(slices.Values(got.Communities)), []string{"64512:70", "64512:80"}) || !slices.Equal(got.Large, []string{"4200000002:3:4"}) {
			c.t.Errorf("the router has %+v", got)
		}
	}
}

// secret writes the node's password.
func (c *cell) secret(password string) {
	c.write("secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: kube-system}\nstringData: {tor: "+password+"}\n")
}

// remedy wants words in what is told of a session.
func remedy(words ...string) func(*caracalv1.Peer) error {
	return func(p *caracalv1.Peer) error {
		for _, w := range words {
			if !strings.Contains(p.GetLastError()+" "+p.GetRemedy(), w) {
				return fmt.Errorf("want to be told of %q", w)
			}
		}
		return nil
	}
}

func (c *cell) password(p string) { c.neighbours(func(n *peers.Neighbour) { n.Password = p }) }

// md5: right, wrong at one end after a change at the other, changed there too.
func md5(c *cell) {
	c.spec = ", password: {secretKeyRef: {name: bgp, key: tor}}"
	c.secret("salt")
	c.password("salt")
	c.run()
	c.password("pepper")
	c.replaceRouter()
	c.down(remedy("password"))
	c.secret("pepper")
	c.up()
	c.exchanged()
}

func ttlSecurity(c *cell) {
	c.spec = ", ttlSecurity: 1"
	near := func(n *peers.Neighbour) { n.TTLSecurity = true }
	c.neighbours(near)
	c.run()
	c.neighbours(func(n *peers.Neighbour) { n.TTLSecurity = false }) // its packets look as if they came from afar
	c.replaceRouter()
	c.down(remedy("TTL"))
	c.neighbours(near)
	c.replaceRouter()
	c.up()
	c.exchanged()
}

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

// flap: routes that come and go faster than anybody looks, and the node's link, with which the kernel forgets all routes over it.
func flap(c *cell) {
	c.run()
	for i := range 6 {
		c.originate(1 + i%2)
		c.reconfigureRouter()
		c.blocks("more", func(f family) netip.Prefix { return f.more })
		if i%2 == 0 {
			c.remove("more")
		}
	}
	for _, f := range c.fam {
		c.nodeHas(f.nets[1], true)
		c.routerHas(f.more, true)
	}
	ups := c.ups()
	for range 3 {
		ip(c.t, c.ns, "link set eth0 down")
		ip(c.t, c.ns, "link set eth0 up")
	}
	c.up()
	c.exchanged()
	if now := c.ups(); !c.forgetsOnLinkDown() && now != ups {
		c.t.Errorf("the sessions came up %d times, %d before the link was: a moment's loss is what TCP is for", now, ups)
	}
}

// forgetsOnLinkDown reports whether a router ends its sessions when a link goes, which is what a directly connected eBGP peer may do.
func (c *cell) forgetsOnLinkDown() bool { return c.kind != peers.GoBGP && c.kind != peers.OpenBGPD }

// ups is how often the sessions of the node have come up.
func (c *cell) ups() (n int) {
	c.t.Helper()
	must(c.t, c.sessions(c.t.Context(), func(p *caracalv1.Peer) error { n += int(p.GetUps()); return nil }))
	return n
}

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
	c.bgpPeers()
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

// weSayGoodbye: the BGPPeers are deleted. The router's routes go from the node, the node's from the router, at once.
func weSayGoodbye(c *cell) {
	c.run()
	c.remove("peers")
	eventually(c.t, "the router sees the sessions end", func(ctx context.Context) error { return c.routerSees(ctx, false) })
	for _, f := range c.fam {
		c.nodeHas(f.nets[0], false)
		c.routerHas(f.block, false)
	}
	c.bgpPeers()
	c.up()
	c.exchanged()
}

func wrongAS(c *cell) {
	right := c.routerAS
	c.startRouter()
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
	c.bgpPeers()
	c.up()
	c.exchanged()
}
