package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

// What the router announces, by next hop.
const (
	ownHop       = "203.0.113.0/26"   // its own address
	thirdParty   = "203.0.113.64/26"  // another router on the link (RFC 4271 section 5.1.3)
	recursive    = "203.0.113.128/26" // a router that the host's own routes lead to, or do not
	recursive2   = "203.0.113.192/26" // the same, so that two move together
	insidePool   = "198.18.1.0/24"
	overBGP      = "198.18.2.0/24" // inside a prefix that is itself learned
	underBGP     = "198.18.3.0/24" // that prefix
	ourselves    = "198.18.4.0/24"
	sixWithLocal = "2001:db8:a::/64" // two next hops, a global and a link-local one (RFC 2545 section 3)
)

// hopsRouter is the configuration of FRR that announces all that, and a default route.
func hopsRouter() string {
	var nets, maps strings.Builder
	for i, n := range [][2]string{{"0.0.0.0/0", "192.0.2.1"}, {ownHop, "192.0.2.1"}, {thirdParty, "192.0.2.99"}, {recursive, "198.51.100.7"}, {recursive2, "198.51.100.7"},
		{insidePool, "10.64.9.9"}, {overBGP, "198.18.3.1"}, {underBGP, "192.0.2.1"}, {ourselves, "192.0.2.10"}} {
		fmt.Fprintf(&nets, "  network %s\n", n[0])
		fmt.Fprintf(&maps, "ip prefix-list p%d seq 5 permit %s\nroute-map hops permit %d\n match ip address prefix-list p%d\n set ip next-hop %s\nexit\n", i, n[0], 10+i, i, n[1])
	}
	return `frr defaults datacenter
hostname peer
log stdout warnings
` + maps.String() + `router bgp 65000
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor 192.0.2.10 remote-as 64512
 neighbor 192.0.2.10 timers connect 2
 neighbor 192.0.2.10 disable-connected-check
 neighbor 2001:db8::10 remote-as 64512
 neighbor 2001:db8::10 timers connect 2
 address-family ipv4 unicast
` + nets.String() + `  neighbor 192.0.2.10 activate
  neighbor 192.0.2.10 route-map hops out
 exit-address-family
 address-family ipv6 unicast
  network ` + sixWithLocal + `
  neighbor 2001:db8::10 activate
 exit-address-family
exit
`
}

// hops is a node with two links: one to FRR, one to nobody in particular.
type hops struct{ *node }

func newHops(t *testing.T) *hops {
	t.Helper()
	if what := peers.Missing(peers.FRR); what != "" {
		need.Other(t, what, "make deps")
	}
	h := &hops{newNode(t, "node-a")}
	tor, side := need.Namespace(t), need.Namespace(t)
	join(t, h.ns, tor, "eth0", "eth0", []string{"192.0.2.10/24", "2001:db8::10/64"}, []string{"192.0.2.1/24", "2001:db8::1/64"})
	join(t, h.ns, side, "eth1", "eth0", []string{"192.0.3.10/24"}, []string{"192.0.3.1/24"})
	f := families()
	cfg := peers.Config{ASN: 65000, RouterID: f[0].router, Files: map[string]string{"bgpd.conf": hopsRouter()}}
	var b strings.Builder
	for i := range f {
		cfg.Neighbours = append(cfg.Neighbours, peers.Neighbour{Addr: f[i].node, Local: f[i].router, ASN: 64512})
		fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor%d}\nspec: {peerIP: \"%s\", asNumber: 65000}\n", i, f[i].router)
	}
	dir := filepath.Join(h.dir, "tor")
	must(t, os.Mkdir(dir, 0o755))
	router, err := peers.Start(t.Context(), peers.FRR, tor, dir, cfg)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(router.Log(30))
		}
		_ = router.Kill()
	})
	c := &cell{node: h.node, fam: f, nodeAS: 64512}
	c.cluster()
	h.write("peers", b.String())
	h.start()
	return h
}

// listed returns what `caracal routes` says of a prefix: its state and the detail.
func (h *hops) listed(ctx context.Context, prefix string) (out string, err error) {
	err = h.ask(ctx, func(ctx context.Context, c caracalv1.InspectionClient) error {
		stream, err := c.ListRoutes(ctx, &caracalv1.ListRoutesRequest{Filter: &caracalv1.RouteFilter{Prefix: prefix}})
		if err != nil {
			return err
		}
		return drain(stream.Recv, func(m *caracalv1.ListRoutesResponse) {
			for _, r := range m.GetRoutes() {
				out += strings.TrimPrefix(r.GetState().String(), "ROUTE_STATE_") + " " + r.GetDetail()
			}
		})
	})
	return out, err
}

// kernel returns the node's routes of ours to a prefix without what is the same in all of them.
func (h *hops) kernel(prefix string) (string, error) {
	out, err := routeOf(h.ns, prefix)
	var ours []string
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		for i := 0; i+1 < len(words); i++ {
			if words[i] == "via" || words[i] == "dev" {
				ours = append(ours, words[i], words[i+1])
				i++
			}
		}
	}
	return strings.Join(ours, " "), err
}

// is waits until the kernel has a prefix by this way ("" for none), and caracal says so.
func (h *hops) is(what, prefix, way, listed string) {
	h.t.Helper()
	eventually(h.t, what, func(ctx context.Context) error {
		got, err := h.kernel(prefix)
		if err != nil || got != way {
			return fmt.Errorf("the kernel has %s by %q, want %q (%v)", prefix, got, way, err)
		}
		if got, err = h.listed(ctx, prefix); err != nil || !strings.HasPrefix(got, listed) {
			return fmt.Errorf("caracal routes has %s as %q, want %q (%v)", prefix, got, listed, err)
		}
		return nil
	})
}

// TestNextHops: what becomes of next hops of every kind that a real router sends, and of routes whose next hop the host reaches by one way, another, several,
// or none: they follow, without a gap where there is a way before and after.
func TestNextHops(t *testing.T) {
	t.Parallel()
	need.Root(t)
	h := newHops(t)
	const noRoute = "UNROUTABLE next hop 198.51.100.7: no route of the host leads there"
	for _, s := range [][4]string{
		{"the router's own address", ownHop, "via 192.0.2.1 dev eth0", "INSTALLED"},
		{"a third party's", thirdParty, "via 192.0.2.99 dev eth0", "INSTALLED"},
		{"one that nothing leads to but the router's default route", recursive, "", noRoute},
		{"one inside a pool", insidePool, "", "UNROUTABLE next hop 10.64.9.9 lies inside IPPool v4"},
		{"one that is only learned by BGP", overBGP, "", "UNROUTABLE next hop 198.18.3.1: no route of the host leads there; routes learned by BGP are not asked"},
		{"the prefix around it", underBGP, "via 192.0.2.1 dev eth0", "INSTALLED"},
		{"our own address", ourselves, "", "UNROUTABLE next hop 192.0.2.10 is an address of this node"},
		{"IPv6 with a link-local one besides", sixWithLocal, "via 2001:db8::1 dev eth0", "INSTALLED"},
		{"the default route", "0.0.0.0/0", "via 192.0.2.1 dev eth0", "INSTALLED"},
	} {
		h.is(s[0], s[1], s[2], s[3])
	}
	ip(t, h.ns, "route add 198.51.100.0/24 via 192.0.2.20 dev eth0")
	h.is("a route to the next hop appears", recursive, "via 192.0.2.20 dev eth0", "INSTALLED")
	deleted := deletions.Watch(t, h.ns, netip.MustParsePrefix(recursive), netip.MustParsePrefix(recursive2), netip.MustParsePrefix("0.0.0.0/0"))
	for _, s := range [][3]string{
		{"another gateway", "replace 198.51.100.0/24 via 192.0.2.21 dev eth0", "via 192.0.2.21 dev eth0"},
		{"another link", "replace 198.51.100.0/24 via 192.0.3.20 dev eth1", "via 192.0.3.20 dev eth1"},
		{"a longer route beside it", "add 198.51.100.7/32 via 192.0.2.22 dev eth0 metric 5", "via 192.0.2.22 dev eth0"},
		{"the longer one goes", "del 198.51.100.7/32 metric 5", "via 192.0.3.20 dev eth1"},
		{"equal paths", "replace 198.51.100.0/24 nexthop via 192.0.2.20 dev eth0 nexthop via 192.0.3.20 dev eth1", "via 192.0.2.20 dev eth0 via 192.0.3.20 dev eth1"},
		{"a default route of the host's, beside the router's", "add default via 192.0.2.254 metric 100", "via 192.0.2.20 dev eth0 via 192.0.3.20 dev eth1"},
		{"nothing but that default route", "del 198.51.100.0/24", "via 192.0.2.254 dev eth0"},
	} {
		ip(t, h.ns, "route %s", s[1])
		h.is(s[0], recursive, s[2], "INSTALLED")
		h.is(s[0], recursive2, s[2], "INSTALLED")
	}
	h.is("the default routes side by side", "0.0.0.0/0", "via 192.0.2.254 dev eth0 via 192.0.2.1 dev eth0", "INSTALLED behind a route of protocol boot with metric 100, which goes first")
	h.leads("8.8.8.8", "via 192.0.2.254 ")
	if n := deleted(); n != 0 {
		t.Errorf("routes were deleted %d times while there was a way to the next hop", n)
	}
	ip(t, h.ns, "route del default via 192.0.2.254 metric 100")
	h.is("no route to the next hop any more", recursive, "", noRoute)
	h.leads("8.8.8.8", "via 192.0.2.1 ")
	ip(t, h.ns, "route add default via 192.0.2.254 metric 4278198272")
	h.leads("8.8.8.8", "via 192.0.2.1 ")
	h.is("a default route of the host's with a metric above every other", "0.0.0.0/0", "via 192.0.2.1 dev eth0 via 192.0.2.254 dev eth0", "INSTALLED")
	ip(t, h.ns, "route add blackhole 198.51.100.0/24")
	h.is("the host drops packets to the next hop", recursive, "", "UNROUTABLE next hop 198.51.100.7: the host's route there, 198.51.100.0/24, is of type blackhole")
	h.candidates()
}

// leads holds the kernel to a way for an address.
func (h *hops) leads(addr, way string) {
	h.t.Helper()
	out, err := h.ns.Run("ip", "route", "get", addr)
	if err != nil || !strings.Contains(out, way) {
		h.t.Errorf("packets to %s go %q, want %q (%v)", addr, out, way, err)
	}
}

// candidates holds `caracal paths` to say why a path is of no use, and to show it as the router sent it.
func (h *hops) candidates() {
	h.t.Helper()
	eventually(h.t, "caracal paths", func(ctx context.Context) error {
		list, err := h.paths(ctx, recursive)
		if err != nil || len(list) != 1 || list[0].GetBest() || !strings.HasPrefix(list[0].GetLost(), "next hop 198.51.100.7: no usable route of the host") || len(list[0].GetCommunities()) > 0 {
			return fmt.Errorf("%s has the paths %v, %w", recursive, list, err)
		}
		six, err := h.paths(ctx, sixWithLocal)
		if err != nil || len(six) != 1 || six[0].GetNextHop() != netip.MustParseAddr("2001:db8::1").String() {
			return fmt.Errorf("%s has the paths %v, %w", sixWithLocal, six, err)
		}
		return nil
	})
}
