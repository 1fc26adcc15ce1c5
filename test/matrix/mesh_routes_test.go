package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// hop is the way a kernel has to a block: what "ip route" shows, without what may differ between the programs.
type hop struct {
	via, dev string
	onlink   bool
	metric   string
}

// ordinary is the metric of every route of the mesh.
const ordinary = "1024"

// hop is the way from x to a block of y in a pool by the reference. ok is false where what x runs has none.
func (m *mixed) hop(x, y *member, p *pool) (h hop, ok bool) {
	near := x.net == y.net
	switch {
	case p.vxlan == "Always":
		return hop{y.tunnelAddr(m.tunnelled("VXLAN")).String(), "vxlan.calico", true, ordinary}, x.caracald != nil // with BIRD it is Felix's
	case p.ipip == "Always", p.ipip == "CrossSubnet" && !near:
		return hop{y.addrs[0].String(), "tunl0", true, ordinary}, true
	case near:
		return hop{y.addrs[p.family()].String(), "eth0", false, ordinary}, true
	}
	return hop{host(subnets()[x.net][p.family()], 1).String(), "eth0", false, ordinary}, true // as the host's own routes resolve the next hop
}

// routesTo reads the routes of a kernel by destination, of gateways only.
func routesTo(list string) map[string][]hop {
	out := make(map[string][]hop)
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		after := func(name string) string {
			if i := slices.Index(words, name); i >= 0 && i+1 < len(words) {
				return words[i+1]
			}
			return ""
		}
		if len(words) > 0 && after("via") != "" {
			out[words[0]] = append(out[words[0]], hop{after("via"), after("dev"), slices.Contains(words, "onlink"), after("metric")})
		}
	}
	return out
}

// routed waits until every kernel has exactly the way to every other member's blocks, with the metric of ordinary routes.
func (m *mixed) routed() {
	m.t.Helper()
	eventually(m.t, "the routes of the mesh", func(context.Context) error {
		for _, x := range m.members {
			if err := m.waysOf(x); err != nil {
				return fmt.Errorf("%s has %w", x.name, err)
			}
		}
		return nil
	})
}

// waysOf reports what is wrong with the ways from x to others' blocks. Other destinations in the pools there must be none.
func (m *mixed) waysOf(x *member) error {
	for f, family := range [...]string{"-4", "-6"} {
		text, err := x.ns.Run("ip", family, "route", "show")
		if err != nil {
			return err
		}
		have := routesTo(text)
		for i := range m.pools {
			p := &m.pools[i]
			if p.family() != f {
				continue
			}
			for _, y := range m.members {
				want, ok := m.hop(x, y, p)
				for _, block := range y.blocks[i] {
					got := have[block.String()]
					delete(have, block.String())
					if y == x || !ok {
						continue
					}
					if len(got) != 1 || got[0] != want {
						return fmt.Errorf("%+v to %s, want %+v\n%s", got, block, want, text)
					}
				}
			}
		}
		for to, got := range have {
			if p, err := netip.ParsePrefix(to); err == nil && slices.ContainsFunc(m.pools, func(q pool) bool { return q.cidr.Overlaps(p) && p.Bits() > q.cidr.Bits() }) {
				return fmt.Errorf("%+v to %s, want none\n%s", got, to, text)
			}
		}
	}
	return nil
}
