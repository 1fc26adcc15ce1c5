package matrix

import (
	"net/netip"
	"slices"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/peers"
)

// routes: both families, both ways; what is withdrawn goes, what is announced again comes again.
func routes(c *cell) {
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
	want := []uint32{c.routerAS}
	if c.mesh {
		want = nil
	}
	for _, f := range c.fam {
		paths, err := c.paths(c.t.Context(), f.nets[0].String())
		if err != nil || len(paths) != 1 || !slices.Equal(paths[0].GetAsPath(), want) {
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
