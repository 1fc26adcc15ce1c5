package filters

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/routes"
)

const (
	maxPref     = 2147483647
	ownAS       = 64512
	outsideAS   = 65010
	insideHost  = 10 // last part of the addresses of the two sessions that bring routes
	outsideHost = 11
	firstPeer   = 20 // and of the first that is told of some
	manyRoutes  = 150
	manyPeers   = 24
	normal      = 1024
)

// learned is a route that BIRD is told of.
type learned struct {
	bgp.Route
	external bool
}

// peer is a session whose filters are looked at.
type peer struct {
	host int
	as   uint32
}

// family is what the world holds of one family.
type family struct {
	v6         bool
	own        netip.Addr
	learned    []learned
	blackholes []netip.Prefix
	services   []netip.Prefix          // addresses of Services that other nodes announce
	workloads  map[netip.Prefix]uint32 // and their metric
}

// feeder returns the address of a session's other end.
func (f *family) feeder(host int) netip.Addr {
	if f.v6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", host))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", host))
}

// local returns the node's end of it: BIRD has one session with an address.
func (f *family) local(host int) netip.Addr {
	if f.v6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8::1:%x", host))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 100+host))
}

// world is a cluster with random filters, and random routes around it.
type world struct {
	*rand.Rand
	bird2     bool
	reflector bool
	objects   cluster.Objects
	filters   []*calico.BGPFilter
	peers     []peer
	families  [2]family
	host      *routes.Host
}

func (w *world) family(v6 bool) *family {
	if v6 {
		return &w.families[1]
	}
	return &w.families[0]
}

func pick[T any](w *world, list ...T) T { return list[w.IntN(len(list))] }

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var (
	someCommunities = []string{"65000:1", "65000:10", "4200000000:1:2", "65000:1:20"}
	somePaths       = [][]uint32{nil, {65001}, {65001, 65002}, {65002, 65001, 65546}, {65546}, {65010, 65001}}
	someMetrics     = []uint32{maxPref - 100, normal, 512, 7, 2000}
)

// newWorld makes one from a seed.
func newWorld(seed uint64, bird2, reflector bool) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), bird2: bird2, reflector: reflector}
	tag := func(cidr string, c ...cluster.Community) cluster.Advertisement {
		return cluster.Advertisement{CIDR: netip.MustParsePrefix(cidr), Communities: c}
	}
	one, large := cluster.Community{A: 65000, B: 1}, cluster.Community{Large: true, A: 4200000000, B: 1, C: 2}
	w.objects = cluster.Objects{
		Nodes: []*cluster.Node{{Name: "a", Addr4: netip.MustParsePrefix("192.0.2.1/24"), Addr6: netip.MustParsePrefix("2001:db8::1/64")}},
		BGP: cluster.BGPConfig{ASN: ownAS, ServiceClusterIPs: prefixes("10.96.0.0/24", "fd96::/112"), ServiceLoadBalancerIPs: prefixes("198.51.100.0/24", "2001:db8:100::/64"),
			Advertisements: []cluster.Advertisement{tag("10.0.0.0/16", one, large), tag("10.0.0.0/26", cluster.Community{A: 65000, B: 99}), tag("fd00::/32", one), tag("fd96::/112", large)}},
	}
	if reflector {
		w.objects.Nodes[0].RouteReflectorClusterID = netip.MustParseAddr("10.9.9.9")
	}
	for i, cidr := range prefixes("10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "fd00::/32", "fd00:1::/32", "fd00:2::/32") {
		p := &cluster.Pool{Name: fmt.Sprint("pool", i), CIDR: cidr, DisableBGPExport: i%3 == 2}
		if i%3 == 1 {
			p.VXLANMode = cluster.Always
		}
		w.objects.Pools = append(w.objects.Pools, p)
	}
	for _, cidr := range prefixes("10.0.0.0/26", "10.2.0.0/26", "10.0.9.9/32", "fd00::/122", "fd00:2::/122") {
		w.objects.Affinities = append(w.objects.Affinities, &cluster.Affinity{Node: "a", CIDR: cidr, State: cluster.Confirmed})
	}
	w.families[0] = family{own: netip.MustParseAddr("192.0.2.1"), blackholes: prefixes("10.0.0.0/26", "10.2.0.0/26", "10.96.0.0/24", "198.51.100.0/24"),
		services: prefixes("10.96.0.7/32", "198.51.100.9/32"), workloads: map[netip.Prefix]uint32{}}
	w.families[1] = family{v6: true, own: netip.MustParseAddr("2001:db8::1"), blackholes: prefixes("fd00::/122", "fd00:2::/122", "fd96::/112", "2001:db8:100::/64"),
		services: prefixes("fd96::7/128", "2001:db8:100::9/128"), workloads: map[netip.Prefix]uint32{}}
	w.workloads("10.0.0.5/32 10.0.0.6/32 10.0.9.9/32 10.0.64.9/32 10.2.0.7/32 10.2.64.9/32 10.1.64.9/32", "fd00::5/128 fd00::6/128 fd00:0:64::9/128 fd00:2::7/128 fd00:2:64::9/128")
	for i := range w.families {
		w.learn(&w.families[i])
	}
	for i := range manyPeers {
		w.filter(i)
	}
	return w
}

// workloads gives the node workloads, some of them with an elevated metric, and makes the picture of the host.
func (w *world) workloads(lists ...string) {
	table := []routes.HostRoute{}
	eth := func(device string, list ...string) {
		for _, p := range prefixes(list...) {
			table = append(table, routes.HostRoute{Dst: p, Hops: []routes.NextHop{{Device: device}}})
		}
	}
	eth("eth0", "192.0.2.0/24", "2001:db8::/64")
	eth("eth1", "203.0.113.0/24", "2001:db8:1::/64")
	var all []netip.Prefix
	for i, list := range lists {
		for s := range strings.FieldsSeq(list) {
			p := netip.MustParsePrefix(s)
			metric := pick[uint32](w, normal, normal, 512)
			w.families[i].workloads[p] = metric
			all = append(all, p)
			table = append(table, routes.HostRoute{Dst: p, Metric: metric, Hops: []routes.NextHop{{Device: "cali7"}}})
		}
	}
	w.host = routes.NewHost([]routes.Interface{{Name: "eth0", Index: 2, Up: true, Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64")},
		{Name: "eth1", Index: 3, Up: true, Addrs: prefixes("203.0.113.1/24", "2001:db8:1::1/64")}, {Name: "cali7", Index: 4, Up: true}}, all, table)
}

// prefix returns a random one of few.
func (w *world) prefix(v6 bool) netip.Prefix {
	if v6 {
		a := netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(w.IntN(4)), 0, byte(pick(w, 0, 0x64, 0x80)), 15: byte(w.IntN(256))})
		return netip.PrefixFrom(a, pick(w, 32, 40, 48, 64, 122, 128, 128)).Masked()
	}
	a := netip.AddrFrom4([4]byte{10, byte(w.IntN(4)), byte(pick(w, 0, 64, 128)), byte(w.IntN(256))})
	return netip.PrefixFrom(a, pick(w, 14, 16, 18, 20, 24, 26, 28, 32, 32)).Masked()
}

// learn makes the routes that are told to BIRD.
func (w *world) learn(f *family) {
	taken := make(map[netip.Prefix]bool)
	for _, p := range f.blackholes {
		taken[p] = true
	}
	for p := range f.workloads {
		taken[p] = true
	}
	for len(f.learned) < manyRoutes {
		r := learned{external: w.IntN(2) == 0}
		switch n := len(f.learned); {
		case n == 0:
			r.Prefix = netip.PrefixFrom(f.own, 0).Masked()
		case n <= len(f.services):
			r.Prefix = f.services[n-1]
		default:
			r.Prefix = w.prefix(f.v6)
		}
		if taken[r.Prefix] {
			continue
		}
		taken[r.Prefix] = true
		r.NextHop = f.feeder(5 + w.IntN(3))
		if w.IntN(3) == 0 {
			r.NextHop = map[bool]netip.Addr{false: netip.MustParseAddr("203.0.113.5"), true: netip.MustParseAddr("2001:db8:1::5")}[f.v6]
		}
		r.LocalPref, r.ASPath = maxPref-pick(w, someMetrics...), pick(w, somePaths...)
		for _, s := range append(slices.Clone(someCommunities), "65535:65281") {
			if w.IntN(4) == 0 {
				c, _ := calico.ParseCommunity(s)
				r.Communities = append(r.Communities, c)
			}
		}
		f.learned = append(f.learned, r)
	}
}

// filter makes a filter and the peer that has it.
func (w *world) filter(i int) {
	p := peer{host: firstPeer + i, as: ownAS}
	if i%2 == 0 {
		p.as = 65100 + uint32(i)
	}
	f := &calico.BGPFilter{ObjectMeta: calico.ObjectMeta{Name: fmt.Sprint("f", i)}, Spec: calico.BGPFilterSpec{
		ImportV4: w.rules(false, p, false), ExportV4: w.rules(false, p, true), ImportV6: w.rules(true, p, false), ExportV6: w.rules(true, p, true)}}
	w.filters, w.peers = append(w.filters, f), append(w.peers, p)
	for _, v6 := range []bool{false, true} {
		w.objects.Peers = append(w.objects.Peers, &cluster.BGPPeer{Name: fmt.Sprintf("p%d-%v", i, v6), PeerIP: w.family(v6).feeder(p.host), ASN: p.as, Filters: []string{f.Name}})
	}
}

func (w *world) rules(v6 bool, p peer, export bool) (out []calico.BGPFilterRule) {
	f := w.family(v6)
	for range w.IntN(6) {
		r := calico.BGPFilterRule{Action: pick(w, "Accept", "Reject", "Accept")}
		if w.IntN(4) > 0 {
			w.ruleRange(&r, f)
		}
		if w.IntN(6) == 0 {
			r.Source = "RemotePeers"
		}
		if w.IntN(6) == 0 {
			r.Interface = pick(w, "eth0", "eth*", "*1", "*", "cali*", "cali7", "e*h0", "none")
		}
		if w.IntN(6) == 0 {
			r.PeerType = pick(w, "eBGP", "iBGP")
		}
		if w.IntN(6) == 0 {
			r.Communities = &calico.FilterCommunities{Values: []string{pick(w, someCommunities...)}}
		}
		if w.IntN(6) == 0 && !(w.bird2 && export && p.as != ownAS) { // BIRD 2 puts our AS before the path after that
			r.ASPathPrefix = pick(w, []calico.ASNumber{65001}, []calico.ASNumber{65010}, []calico.ASNumber{65010, 65001}, []calico.ASNumber{ownAS}, []calico.ASNumber{ownAS, 65010},
				[]calico.ASNumber{65001, 65002}, []calico.ASNumber{65546})
		}
		if w.IntN(6) == 0 {
			metric := int(pick(w, someMetrics...))
			r.Priority = &metric
		}
		if r.Action == "Accept" {
			r.Operations = w.operations(p.as != ownAS)
		}
		out = append(out, r)
	}
	return out
}

func (w *world) ruleRange(r *calico.BGPFilterRule, f *family) {
	p := w.prefix(f.v6)
	switch w.IntN(6) {
	case 0:
		p = pick(w, f.blackholes...)
	case 1:
		p = pick(w, f.learned...).Prefix
	case 2:
		p = netip.PrefixFrom(f.own, 0).Masked()
	}
	r.CIDR, r.MatchOperator = p.String(), pick(w, "Equal", "NotEqual", "In", "NotIn", "In")
	if w.IntN(3) > 0 || r.MatchOperator == "Equal" || r.MatchOperator == "NotEqual" {
		return // with those two a length means something else in BIRD (package bgp: deviations)
	}
	low := w.IntN(p.Addr().BitLen() + 1)
	high := max(low, p.Bits()) + w.IntN(p.Addr().BitLen()-max(low, p.Bits())+1)
	r.PrefixLength = &calico.PrefixLength{Min: &low, Max: &high}
	switch w.IntN(3) {
	case 0:
		r.PrefixLength.Min = nil
	case 1:
		r.PrefixLength.Max = nil
	}
}

// operations makes some. Towards eBGP peers AS numbers of others come behind our own, where BIRD has them first (package bgp: deviations).
func (w *world) operations(external bool) (out []calico.FilterOperation) {
	for w.IntN(3) == 0 {
		switch w.IntN(3) {
		case 0:
			out = append(out, calico.FilterOperation{AddCommunity: &calico.AddCommunity{Value: pick(w, someCommunities...)}})
		case 1:
			lists := [][]calico.ASNumber{{ownAS}, {ownAS, ownAS}, {65001, 65002}}
			if external {
				lists = lists[:2]
			}
			out = append(out, calico.FilterOperation{PrependASPath: &calico.PrependASPath{Prefix: pick(w, lists...)}})
		default:
			metric := int(pick(w, someMetrics...))
			out = append(out, calico.FilterOperation{SetPriority: &calico.SetPriority{Value: &metric}})
		}
	}
	return out
}
