package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

// tor is one of two top-of-rack routers, on a link of its own.
type tor struct {
	ns     netns.NS
	link   string // the node's
	router *peers.Router
	cfg    peers.Config
	addrs  [2]netip.Addr // its own
}

// pairOfToRs is a node with a link to each of two routers of one AS.
type pairOfToRs struct {
	*node
	tors [2]*tor
	nets [2]netip.Prefix // announced by both
	own  [2]netip.Prefix
}

func newPairOfToRs(t *testing.T, kind peers.Kind) *pairOfToRs {
	t.Helper()
	if what := peers.Missing(kind); what != "" {
		need.Other(t, what, "make deps")
	}
	f := families()
	p := &pairOfToRs{node: newNode(t, "node-a"), nets: [2]netip.Prefix{f[0].nets[0], f[1].nets[0]}, own: [2]netip.Prefix{f[0].block, f[1].block}}
	var b strings.Builder
	for i := range p.tors {
		r := &tor{ns: need.Namespace(t), link: fmt.Sprintf("eth%d", i)}
		p.tors[i] = r
		v4, v6 := fmt.Sprintf("192.0.%d", 2+i), fmt.Sprintf("2001:db8:%d:", i)
		join(t, p.ns, r.ns, r.link, "eth0", []string{v4 + ".10/24", v6 + ":10/64"}, []string{v4 + ".1/24", v6 + ":1/64"})
		r.addrs = [2]netip.Addr{netip.MustParseAddr(v4 + ".1"), netip.MustParseAddr(v6 + ":1")}
		r.cfg = peers.Config{ASN: 65000, RouterID: r.addrs[0], Kernel: kind.Kernel(), Originate: p.nets[:]}
		for j, from := range [...]string{v4 + ".10", v6 + ":10"} {
			r.cfg.Neighbours = append(r.cfg.Neighbours, peers.Neighbour{Addr: netip.MustParseAddr(from), Local: r.addrs[j], ASN: 64512, GracefulRestart: restartTime})
			fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor%d-%d}\nspec: {node: node-a, peerIP: \"%s\", asNumber: 65000, sourceAddress: None}\n", i, j, r.addrs[j])
		}
		dir := filepath.Join(p.dir, fmt.Sprintf("tor%d", i))
		must(t, os.Mkdir(dir, 0o755))
		var err error
		r.router, err = peers.Start(t.Context(), kind, r.ns, dir, r.cfg)
		must(t, err)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(r.router.Log(30))
			}
			_ = r.router.Kill()
		})
	}
	c := &cell{node: p.node, fam: f, nodeAS: 64512, mesh: false}
	c.cluster()
	p.write("peers", b.String()) // in place of the cell's own
	p.start()
	return p
}

// hops waits until the node's routes lead over exactly these routers, and these have the node's block by their own link.
func (p *pairOfToRs) hops(when string, over ...int) {
	p.t.Helper()
	eventually(p.t, when, func(ctx context.Context) error {
		for f, prefix := range p.nets {
			out, err := routeOf(p.ns, prefix.String())
			if err != nil {
				return err
			}
			for i, r := range p.tors {
				if has := strings.Contains(out, "via "+r.addrs[f].String()+" dev "+r.link+" "); has != slices.Contains(over, i) {
					return fmt.Errorf("the node has %q, want routers %v", out, over)
				}
			}
			for _, i := range over {
				paths, err := p.tors[i].router.Paths(ctx, p.own[f])
				if err != nil {
					return err
				}
				if len(paths) != 1 || paths[0].NextHop != p.tors[i].cfg.Neighbours[f].Addr {
					return fmt.Errorf("router %d has %+v", i, paths)
				}
			}
		}
		return nil
	})
}

// change gives a router another configuration.
func (p *pairOfToRs) change(i int, f func(*peers.Config)) {
	p.t.Helper()
	r := p.tors[i]
	r.cfg.Neighbours = slices.Clone(r.cfg.Neighbours)
	f(&r.cfg)
	must(p.t, r.router.Reconfigure(p.t.Context(), r.cfg))
}

// twoToRs: equal paths of two routers, each on a link of its own, are one route with two next hops in either family; one that withdraws,
// shuts its sessions or loses its link leaves the other, and is used again when it is back.
func twoToRs(t *testing.T, kind peers.Kind) {
	need.Root(t)
	p := newPairOfToRs(t, kind)
	p.hops("both", 0, 1)
	p.change(0, func(c *peers.Config) { c.Originate = nil })
	eventually(t, "one withdraws", func(context.Context) error { return p.only(1) })
	p.change(0, func(c *peers.Config) { c.Originate = p.nets[:] })
	p.hops("both again", 0, 1)
	shut := func(yes bool) {
		p.change(1, func(c *peers.Config) {
			for i := range c.Neighbours {
				c.Neighbours[i].Shut = yes
			}
		})
	}
	shut(true)
	p.hops("one is shut", 0)
	shut(false)
	p.hops("both after it was shut", 0, 1)
	ip(t, p.ns, "link set eth0 down")
	p.hops("a link is down", 1)
	ip(t, p.ns, "link set eth0 up")
	p.hops("both after the link was down", 0, 1)
}

// only reports whether a router alone is used, whatever the other one has heard.
func (p *pairOfToRs) only(i int) error {
	var errs []error
	for f, prefix := range p.nets {
		out, err := routeOf(p.ns, prefix.String())
		if err != nil || !strings.Contains(out, p.tors[i].addrs[f].String()) || strings.Contains(out, p.tors[1-i].addrs[f].String()) {
			errs = append(errs, fmt.Errorf("the node has %q, %w", out, err))
		}
	}
	return errors.Join(errs...)
}
