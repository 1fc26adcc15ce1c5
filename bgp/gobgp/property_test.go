package gobgp_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/caracal-net/caracal/bgp"
)

// source is a BGP speaker that sends whatever paths a test wants.
type source struct {
	srv  *server.BgpServer
	addr netip.Addr
	asn  uint32
}

// startSource starts one that waits for the peer at addr `from`.
func startSource(t testing.TB, addr string, asn uint32, port uint16, from netip.Addr, fromAS uint32) *source {
	t.Helper()
	s := &source{srv: server.NewBgpServer(), addr: netip.MustParseAddr(addr), asn: asn}
	go s.srv.Serve()
	id := s.addr
	if id.Is6() {
		id = netip.AddrFrom4([4]byte(id.AsSlice()[12:]))
	}
	must(t, s.srv.StartBgp(t.Context(), &api.StartBgpRequest{Global: &api.Global{
		Asn: asn, RouterId: id.String(), ListenPort: int32(port), ListenAddresses: []string{addr}, UseMultiplePaths: true, Families: []uint32{0, 1},
	}}))
	t.Cleanup(func() { _ = s.srv.StopBgp(context.Background(), &api.StopBgpRequest{}); s.srv.Stop() })
	afi := api.Family_AFI_IP
	if from.Is6() {
		afi = api.Family_AFI_IP6
	}
	must(t, s.srv.AddPeer(t.Context(), &api.AddPeerRequest{Peer: &api.Peer{
		Conf:         &api.PeerConf{NeighborAddress: from.String(), PeerAsn: fromAS, AllowAspathLoopLocal: true},
		Transport:    &api.Transport{PassiveMode: true, LocalAddress: addr},
		EbgpMultihop: &api.EbgpMultihop{Enabled: true, MultihopTtl: 64},
		AfiSafis:     []*api.AfiSafi{{Config: &api.AfiSafiConfig{Family: &api.Family{Afi: afi, Safi: api.Family_SAFI_UNICAST}, Enabled: true}}},
	}}))
	// Next hops are sent as the test has them.
	must(t, s.srv.AddPolicy(t.Context(), &api.AddPolicyRequest{Policy: &api.Policy{Name: "keep", Statements: []*api.Statement{{
		Name: "keep", Actions: &api.Actions{Nexthop: &api.NexthopAction{Unchanged: true}},
	}}}}))
	must(t, s.srv.SetPolicyAssignment(t.Context(), &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, Policies: []*api.Policy{{Name: "keep"}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
	}}))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send announces routes.
func (s *source) send(t testing.TB, routes []bgp.Route) {
	t.Helper()
	var paths []*apiutil.Path
	for _, r := range routes {
		nlri, err := packet.NewIPAddrPrefix(r.Prefix)
		must(t, err)
		p := &apiutil.Path{Family: packet.RF_IPv4_UC, Nlri: nlri, Attrs: []packet.PathAttributeInterface{
			packet.NewPathAttributeOrigin(0), packet.NewPathAttributeLocalPref(r.LocalPref),
		}}
		if r.Prefix.Addr().Is6() {
			p.Family = packet.RF_IPv6_UC
		}
		if r.NextHop.Is6() { // of an IPv4 prefix too (RFC 8950)
			mp, err := packet.NewPathAttributeMpReachNLRI(p.Family, []packet.PathNLRI{{NLRI: nlri}}, r.NextHop)
			must(t, err)
			p.Attrs = append(p.Attrs, mp)
		} else {
			hop, err := packet.NewPathAttributeNextHop(r.NextHop)
			must(t, err)
			p.Attrs = append(p.Attrs, hop)
		}
		if len(r.ASPath) > 0 {
			p.Attrs = append(p.Attrs, packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAs4PathParam(packet.BGP_ASPATH_ATTR_TYPE_SEQ, r.ASPath)}))
		}
		var standard []uint32
		var large []*packet.LargeCommunity
		for _, c := range r.Communities {
			if c.Large {
				large = append(large, &packet.LargeCommunity{ASN: c.A, LocalData1: c.B, LocalData2: c.C})
			} else {
				standard = append(standard, c.A<<16|c.B)
			}
		}
		if len(standard) > 0 {
			p.Attrs = append(p.Attrs, packet.NewPathAttributeCommunities(standard))
		}
		if len(large) > 0 {
			p.Attrs = append(p.Attrs, packet.NewPathAttributeLargeCommunities(large))
		}
		paths = append(paths, p)
	}
	for chunk := range slices.Chunk(paths, 256) {
		_, err := s.srv.AddPath(apiutil.AddPathRequest{Paths: chunk})
		must(t, err)
	}
}

// dice makes routes and rules from few words, so that they meet often.
type dice struct {
	*rand.Rand
	v6 bool
}

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

var (
	wellKnown       = []bgp.Community{bgp.GracefulShutdown(), bgp.KeptInside()[0], bgp.KeptInside()[1], bgp.KeptHere()[0], {A: 0xffff, B: 0xff00}}
	someCommunities = []bgp.Community{{A: 65000, B: 1}, {A: 65000, B: 10}, {Large: true, A: 4200000000, B: 1, C: 2}, {Large: true, A: 65000, B: 1, C: 20}}
	somePaths       = [][]uint32{nil, {65001}, {65001, 65002}, {65002, 65001, 65546}, {65546}, {6500}}
	somePrefs       = []uint32{100, bgp.MaxPref - 1024, bgp.MaxPref - 512, bgp.MaxPref - 7, bgp.MaxPref - 2000}
	someInterfaces  = []string{"eth0", "eth1", "e*", "*", "cali*", "cali7", "*0", "nothing"}
)

// prefix returns one of few ranges or something inside them, of this family.
func (d dice) prefix(bits int) netip.Prefix {
	if d.v6 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, byte(d.IntN(3)), byte(d.IntN(4)) << 6, 0, byte(d.IntN(256))}), bits*2).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(d.IntN(3)), byte(d.IntN(4)) << 6, byte(d.IntN(256))}), bits).Masked()
}

func (d dice) hop() netip.Addr {
	if d.v6 || d.IntN(5) == 0 { // RFC 8950
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(d.IntN(4)), 15: byte(1 + d.IntN(200))})
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(d.IntN(4)), byte(1 + d.IntN(200))})
}

// ways is what the next hops are looked up in: nested routes, one of them to nowhere.
func (d dice) ways() []bgp.Way {
	list := []string{"0.0.0.0/0 eth0", "198.18.1.0/24 eth1", "198.18.2.0/24 eth1", "198.18.2.128/25 eth0", "198.18.3.0/24 ", "198.18.3.7/32 eth1"}
	six := []string{"2001:db8::/32 eth0", "2001:db8:1::/48 eth1", "2001:db8:2::/48 eth1", "2001:db8:2::80/121 eth0", "2001:db8:3::/48 "}
	if list = append(list, six...); d.v6 {
		list = six
	}
	var out []bgp.Way
	for _, s := range list {
		p, dev, _ := strings.Cut(s, " ")
		if d.IntN(5) > 0 {
			out = append(out, bgp.Way{Prefix: netip.MustParsePrefix(p), Device: dev})
		}
	}
	return out
}

// routes returns n routes to different prefixes, none of them in taken.
func (d dice) routes(n int, taken map[netip.Prefix]bool, learned bool) []bgp.Route {
	var out []bgp.Route
	for len(out) < n {
		r := bgp.Route{Prefix: d.prefix(pick(d, 8, 16, 18, 20, 24, 26, 32, 32)), LocalPref: pick(d, somePrefs...), Learned: learned}
		if taken[r.Prefix] {
			continue
		}
		taken[r.Prefix] = true
		if learned {
			r.NextHop, r.ASPath = d.hop(), pick(d, somePaths...)
			for _, c := range someCommunities {
				if d.IntN(3) == 0 {
					r.Communities = append(r.Communities, c)
				}
			}
			if d.IntN(3) == 0 {
				r.Communities = append(r.Communities, pick(d, wellKnown...))
			}
		} else {
			r.Interface = pick(d, "", "", "cali7", "eth1")
		}
		out = append(out, r)
	}
	return out
}

// rules returns up to six rules; lists of AS numbers to prepend end with `last` where that is not 0.
func (d dice) rules(last uint32) []bgp.Rule {
	var out []bgp.Rule
	for i := range d.IntN(7) {
		r := bgp.Rule{Source: fmt.Sprint("rule ", i)}
		if d.IntN(3) > 0 {
			r.CIDR = d.prefix(pick(d, 0, 8, 16, 18, 24, 32))
			r.MinLen, r.MaxLen = uint8(r.CIDR.Bits()), uint8(r.CIDR.Addr().BitLen())
			switch d.IntN(3) {
			case 0:
				r.MaxLen = r.MinLen
			case 1:
				r.MinLen += uint8(d.IntN(int(r.MaxLen-r.MinLen) + 1))
			}
			r.Not = d.IntN(4) == 0
		}
		r.RemotePeers = d.IntN(4) == 0
		if d.IntN(4) == 0 {
			r.Interface = pick(d, someInterfaces...)
		}
		if d.IntN(4) == 0 {
			r.Community = pick(d, someCommunities...)
		}
		if d.IntN(4) == 0 {
			r.ASPathPrefix = pick(d, somePaths...)
		}
		if d.IntN(4) == 0 {
			r.Priority = pick(d, uint32(1024), 512, 7)
		}
		if r.Accept = d.IntN(3) > 0; r.Accept {
			d.operations(&r, last)
		}
		out = append(out, r)
	}
	return out
}

func (d dice) operations(r *bgp.Rule, last uint32) {
	if d.IntN(3) == 0 {
		r.AddCommunities = []bgp.Community{pick(d, someCommunities...), {A: 65000, B: uint32(90 + d.IntN(2))}}
		if d.IntN(6) == 0 {
			r.AddCommunities = append(r.AddCommunities, bgp.LLGRStale())
		}
	}
	if d.IntN(3) == 0 {
		r.Prepend = pick(d, []uint32{65005}, []uint32{65005, 65005}, []uint32{65005, 65006}, []uint32{65006, 65005, 65005, 65001})
		if last != 0 {
			r.Prepend = append(slices.Clone(r.Prepend), last)
		}
	}
	if d.IntN(3) == 0 {
		r.SetPriority = pick(d, uint32(1024), 512, 3)
	}
}

// announce returns a random second half, or none.
func (d dice) announce() *bgp.Announce {
	if d.IntN(5) == 0 {
		return nil
	}
	list := func(n, bits int) (out []netip.Prefix) {
		for range d.IntN(n + 1) {
			out = append(out, d.prefix(bits))
		}
		slices.SortFunc(out, netip.Prefix.Compare)
		return slices.Compact(out)
	}
	a := &bgp.Announce{Hidden: list(1, 18), Own: list(4, 26), Services: list(1, 20), Reflected: list(1, 24), Pools: list(3, 16), Normal4: 1024, Normal6: 1024}
	for i := range d.IntN(3) {
		a.Advertisements = append(a.Advertisements, bgp.Advertisement{CIDR: d.prefix(16), Communities: []bgp.Community{pick(d, someCommunities...)}, Source: fmt.Sprint(i)})
	}
	return a
}

// announceAfter changes a part of an Announce, or all of it.
func (d dice) announceAfter(a *bgp.Announce) *bgp.Announce {
	next := d.announce()
	if a == nil || next == nil || d.IntN(3) == 0 {
		return next
	}
	b := *a
	switch d.IntN(6) {
	case 0:
		b.Hidden = next.Hidden
	case 1:
		b.Own = next.Own
	case 2:
		b.Services, b.Reflected = next.Services, next.Reflected
	case 3:
		b.Pools = next.Pools
	case 4:
		b.Advertisements = next.Advertisements
	case 5:
		b.Normal4, b.Normal6 = pick(d, uint32(1024), 600, 100), pick(d, uint32(1024), 600, 100)
	}
	return &b
}

// nowhere returns random next hops that lead nowhere, or none.
func (d dice) nowhere() *bgp.Nowhere {
	if d.IntN(4) == 0 {
		return nil
	}
	n := &bgp.Nowhere{}
	hops, inside := []string{"198.18.0.0/25", "198.18.1.0/24", "198.18.2.64/26", "0.0.0.0/1", "198.18.3.0/24"}, 16
	six := []string{"2001:db8:0::/121", "2001:db8:1::/48", "2001:db8:2::40/122", "::/3", "2001:db8:3::/48"}
	if hops = append(hops, six...); d.v6 { // IPv4 prefixes have next hops of both families
		hops, inside = six, 12
	}
	for _, s := range hops {
		switch p := netip.MustParsePrefix(s); d.IntN(6) {
		case 0:
			n.Pools = append(n.Pools, p)
		case 1, 2:
			n.Unresolved = append(n.Unresolved, p)
		case 3:
			n.Own = append(n.Own, p.Addr().Next())
		}
	}
	for _, p := range slices.Concat(n.Pools, n.Unresolved) {
		n.Workloads = append(n.Workloads, p.Addr().Next().Next())
	}
	slices.SortFunc(n.Workloads, netip.Addr.Compare)
	if d.IntN(2) == 0 {
		n.Tunnelled = append(n.Tunnelled, d.prefix(inside))
	}
	return n
}

// say writes what a peer is told of a route, as far as rules can change it.
func say(prefix netip.Prefix, pref uint32, path []uint32, communities []bgp.Community) string {
	c := slices.Clone(communities)
	slices.SortFunc(c, bgp.Community.Compare)
	return fmt.Sprint(prefix, " pref ", pref, " path ", path, " communities ", slices.Compact(c))
}

// heard is what a node knows, in the same words.
func (e *ear) heard() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for p, paths := range e.known {
		out = append(out, say(p, paths[0].LocalPref, paths[0].ASPath, paths[0].Communities))
	}
	slices.Sort(out)
	return out
}

// hears waits for exactly these routes.
func (e *ear) hears(t testing.TB, what string, want []string, hint func() string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, what, func() string {
		got := e.heard()
		if slices.Equal(got, want) {
			return ""
		}
		var diff []string
		for _, s := range got {
			if !slices.Contains(want, s) {
				diff = append(diff, "got  "+s)
			}
		}
		for _, s := range want {
			if !slices.Contains(got, s) {
				diff = append(diff, "want "+s)
			}
		}
		return strings.Join(diff, "\n") + "\n" + hint()
	})
}

func printed(rules []bgp.Rule) string {
	var b strings.Builder
	for i := range rules {
		fmt.Fprintln(&b, rules[i].String())
	}
	return b.String()
}

// propertyRounds is how often rules change while the sessions stay up.
const propertyRounds = 60

// TestImportEqualsPlainEvaluation changes a peer's import rules again and again, and has what GoBGP makes of random routes be what
// bgp.Config.Accept says.
func TestImportEqualsPlainEvaluation(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	for i, asn := range []uint32{64512, 65010} {
		t.Run(fmt.Sprint("AS", asn), func(t *testing.T) {
			t.Parallel()
			d := dice{Rand: rand.New(rand.NewPCG(uint64(i), 7))}
			importProperty(t, d, fmt.Sprintf("127.1.40.%d", 1+2*i), fmt.Sprintf("127.1.40.%d", 2+2*i), asn)
		})
	}
}

func importProperty(t *testing.T, d dice, own, remote string, asn uint32) {
	port := testPort()
	cfg := config(own, port)
	src := startSource(t, remote, asn, port, cfg.ListenAddrs[0], 64512)
	cfg.Peers = []bgp.Peer{{Name: "src", Addr: src.addr, Port: port, ASN: asn, LocalAddr: cfg.ListenAddrs[0], Source: "test"}}
	routes := d.routes(120, map[netip.Prefix]bool{}, true)
	src.send(t, routes)
	n := startAll(t, cfg)[0]
	eventually(t, "the session", func() string { return map[bool]string{false: "is not up"}[n.status(remote).State == bgp.Established] })
	since := n.status(remote).Since
	accepted, refused, last := 0, 0, 0
	for round := range propertyRounds {
		n.cfg.Peers = slices.Clone(n.cfg.Peers)
		if round%2 == 0 { // otherwise nothing but the host's own routes changes
			n.cfg.Peers[0].Import = d.rules(0)
		}
		n.cfg.Ways = d.ways()
		n.cfg.Nowhere = d.nowhere()
		n.apply(t)
		var want []string
		for _, r := range routes {
			if asn != 64512 {
				r.LocalPref, r.ASPath = 100, append([]uint32{asn}, r.ASPath...)
			}
			r, v := n.cfg.Accept(&n.cfg.Peers[0], r)
			if !v.Accept {
				refused++
				continue
			}
			if accepted++; slices.Contains(r.Communities, bgp.LLGRStale()) {
				last++
			}
			want = append(want, say(r.Prefix, r.LocalPref, r.ASPath, r.Communities))
		}
		n.hears(t, fmt.Sprint("round ", round), want, func() string { return printed(n.cfg.Peers[0].Import) + fmt.Sprint(n.cfg.Ways) })
	}
	if !n.status(remote).Since.Equal(since) {
		t.Error("the session flapped")
	}
	t.Logf("%d routes accepted, of them %d with a next hop that leads nowhere, %d refused", accepted, last, refused)
	if accepted < 100 || refused < 100 || last < 100 {
		t.Error("the dice are loaded")
	}
}

// TestExportEqualsPlainEvaluation does the same for what is sent, to an eBGP peer and to a client, of routes learned from an
// iBGP peer and an eBGP one and of our own.
func TestExportEqualsPlainEvaluation(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	t.Run("many routes", func(t *testing.T) {
		t.Parallel()
		exportProperty(t, dice{Rand: rand.New(rand.NewPCG(3, 9))}, "127.1.41.", 60, propertyRounds)
	})
	t.Run("few routes, so that each change concerns one of them", func(t *testing.T) {
		t.Parallel()
		exportProperty(t, dice{Rand: rand.New(rand.NewPCG(5, 2))}, "127.1.42.", 2, 10*propertyRounds)
	})
}

func exportProperty(t *testing.T, d dice, net string, each, rounds int) {
	port := testPort()
	cfg, tor, client := config(net+"1", port), config(net+"2", port), config(net+"3", port)
	self := cfg.ListenAddrs[0]
	tor.ASN = 65000
	inner, outer := startSource(t, net+"4", 64512, port, self, 64512), startSource(t, net+"5", 65010, port, self, 64512)
	cfg.Peers = []bgp.Peer{
		{Name: "tor", Addr: tor.ListenAddrs[0], Port: port, ASN: 65000, LocalAddr: self},
		{Name: "client", Addr: client.ListenAddrs[0], Port: port, ASN: 64512, LocalAddr: self, Client: true, ClusterID: cfg.RouterID},
		{Name: "inner", Addr: inner.addr, Port: port, ASN: 64512, LocalAddr: self},
		{Name: "outer", Addr: outer.addr, Port: port, ASN: 65010, LocalAddr: self},
	}
	for _, far := range []*bgp.Config{&tor, &client} {
		far.Peers = []bgp.Peer{{Name: "near", Addr: self, Port: port, ASN: 64512, LocalAddr: far.ListenAddrs[0], Passive: true}}
	}
	taken := map[netip.Prefix]bool{}
	fromInner, fromOuter, ours := d.routes(each, taken, true), d.routes(each, taken, true), d.routes(each, taken, false)
	inner.send(t, fromInner)
	outer.send(t, fromOuter)
	for i := range fromOuter {
		fromOuter[i].LocalPref, fromOuter[i].ASPath = 100, append([]uint32{65010}, fromOuter[i].ASPath...)
	}
	for _, r := range ours {
		cfg.Originate = append(cfg.Originate, bgp.Origination{Prefix: r.Prefix, LocalPref: r.LocalPref, Interface: r.Interface})
	}
	nodes := startAll(t, cfg, tor, client)
	n, ntor, nclient := nodes[0], nodes[1], nodes[2]
	for round := range rounds {
		n.cfg.Peers = slices.Clone(n.cfg.Peers)
		if round%4 == 0 { // otherwise one thing changes at a time
			n.cfg.Peers[0].Export, n.cfg.Peers[1].Export = d.rules(64512), d.rules(0)
		}
		if round%4 == 1 {
			n.cfg.Ways = d.ways()
		}
		if round%5 == 2 {
			n.cfg.Nowhere = d.nowhere()
		}
		if round%6 == 5 {
			n.cfg.Leaving = pick(d, bgp.Stays, bgp.Stays, bgp.Shutdown, bgp.Withdrawn)
		}
		if round%4 != 1 {
			n.cfg.Announce = d.announceAfter(n.cfg.Announce)
		}
		n.apply(t)
		all := slices.Clone(ours)
		for i, list := range [][]bgp.Route{fromInner, fromOuter} {
			for _, r := range list {
				r, _ = n.cfg.Accept(&n.cfg.Peers[2+i], r)
				all = append(all, r)
			}
		}
		var toTor, toClient []string
		for _, r := range all {
			if r, v := n.cfg.Send(&n.cfg.Peers[0], r); v.Accept {
				pref := uint32(100)
				if slices.Contains(r.Communities, bgp.GracefulShutdown()) {
					pref = bgp.ShutdownPref // as any peer of ours honours it
				}
				toTor = append(toTor, say(r.Prefix, pref, append([]uint32{64512}, r.ASPath...), r.Communities))
			}
			if r, v := n.cfg.Send(&n.cfg.Peers[1], r); v.Accept {
				toClient = append(toClient, say(r.Prefix, r.LocalPref, r.ASPath, r.Communities))
			}
		}
		what := fmt.Sprintf("round %d of %d to tor, %d to client", round, len(toTor), len(toClient))
		hint := func(p int) func() string {
			return func() string {
				return printed(n.cfg.Peers[p].Export) + fmt.Sprintf("%v %+v %+v", n.cfg.Ways, n.cfg.Announce, n.cfg.Nowhere)
			}
		}
		ntor.hears(t, what+", tor", toTor, hint(0))
		nclient.hears(t, what+", client", toClient, hint(1))
	}
}

// TestRulesOfIPv6 runs TestRulesOfIPv6Inside where there are addresses for it.
func TestRulesOfIPv6(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	inNamespace(t, "TestRulesOfIPv6Inside", "fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:1::4", "fd00:1::5")
}

// TestRulesOfIPv6Inside holds the two properties of this file for IPv6.
func TestRulesOfIPv6Inside(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		t.Skip("is run by TestRulesOfIPv6")
	}
	d := dice{rand.New(rand.NewPCG(11, 4)), true}
	t.Run("import", func(t *testing.T) { importProperty(t, d, "fd00:1::1", "fd00:1::2", 65010) })
	t.Run("export", func(t *testing.T) { exportProperty(t, d, "fd00:1::", 60, propertyRounds) })
}
