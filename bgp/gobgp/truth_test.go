package gobgp_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

// The model check of what is told: peers of every kind announce and withdraw the same few prefixes in bursts, ours come and go, rules change, peers are deaf for a
// while; in a soak they also ask for everything again, and come and go, which takes time. When all is quiet each must hold what it would have been told of the best path that we know, had each
// word reached it alone; or nothing.
//
// Environment: CARACAL_TEST_SEED runs that seed alone; CARACAL_TEST_SOAK ("10m") goes on with new seeds for that long.
const (
	seedEnv = "CARACAL_TEST_SEED"
	soakEnv = "CARACAL_TEST_SOAK"
)

// truthRounds are the bursts of one seed.
const truthRounds = 3

func TestTheTruthIsTold(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	truths(t, "127.3.60.")
}

// TestTheTruthIsToldOfIPv6 runs TestTheTruthIsToldOfIPv6Inside where there are addresses for it.
func TestTheTruthIsToldOfIPv6(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	var addrs []string
	for i := range 9 {
		addrs = append(addrs, fmt.Sprintf("fd00:1::%d", 1+i))
	}
	inNamespace(t, "TestTheTruthIsToldOfIPv6Inside", addrs...)
}

func TestTheTruthIsToldOfIPv6Inside(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		t.Skip("is run by TestTheTruthIsToldOfIPv6")
	}
	truths(t, "fd00:1::")
}

func truths(t *testing.T, net string) {
	one := func(seed uint64) bool {
		return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { truth(t, seed, net) })
	}
	if s := os.Getenv(seedEnv); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		one(seed)
		return
	}
	span, _ := time.ParseDuration(os.Getenv(soakEnv))
	seed := uint64(time.Now().UnixNano())
	for end := time.Now().Add(span); one(seed) && time.Now().Before(end); seed++ {
		continue
	}
}

// telling is the model.
type telling struct {
	t        *testing.T
	d        dice
	n        *node
	us       netip.AddrPort
	talkers  []*talker
	prefixes []netip.Prefix
	mu       sync.Mutex
	version  uint16
	soaks    bool
}

func truth(t *testing.T, seed uint64, net string) {
	port := testPort()
	us := config(net+"1", port)
	us.Announce = nil
	m := &telling{t: t, d: dice{rand.New(rand.NewPCG(seed, 1)), us.RouterID != us.ListenAddrs[0]}, soaks: os.Getenv(soakEnv) != "", us: netip.AddrPortFrom(us.ListenAddrs[0], port)}
	for i, kind := range []struct {
		asn    uint32
		client bool
	}{{64512, true}, {64512, true}, {64512, true}, {64512, false}, {64512, false}, {65010, false}, {65010, false}, {65020, false}} {
		p := peering(us.ListenAddrs[0], netip.MustParseAddr(fmt.Sprint(net, 2+i)), port, kind.asn)
		p.Name, p.Passive = fmt.Sprint("talker", 2+i), true
		if kind.client {
			p.Client, p.ClusterID = true, us.RouterID
		}
		us.Peers = append(us.Peers, p)
	}
	for i := range 12 {
		if m.d.v6 {
			m.prefixes = append(m.prefixes, netip.MustParsePrefix(fmt.Sprintf("fd00:10:0:%d::/64", i)))
		} else {
			m.prefixes = append(m.prefixes, netip.MustParsePrefix(fmt.Sprintf("10.1.%d.0/24", i)))
		}
	}
	for i := range us.Peers { // half of them behind another interface
		us.Ways = append(us.Ways, bgp.Way{Prefix: netip.PrefixFrom(us.Peers[i].Addr, us.Peers[i].Addr.BitLen()), Device: fmt.Sprint("eth", i%2)})
	}
	m.n = startAll(t, us)[0]
	for i := range us.Peers {
		m.talkers = append(m.talkers, talk(t, us.Peers[i].Addr, us.Peers[i].ASN, m.us, i == 2 || i == 7))
	}
	for round := range truthRounds {
		if m.soaks && m.d.IntN(3) == 0 {
			m.flap()
		}
		m.burst()
		m.settled(round)
	}
}

// burst has everybody talk at once.
func (m *telling) burst() {
	var all sync.WaitGroup
	deaf := m.d.IntN(2) == 0
	for i, k := range m.talkers {
		if deaf && (i == 2 || i == 7) {
			k.deaf.Lock()
			defer k.deaf.Unlock()
		}
		if m.d.IntN(4) > 0 {
			d := dice{rand.New(rand.NewPCG(m.d.Uint64(), 2)), m.d.v6}
			few := slices.Clone(m.prefixes[:2+m.d.IntN(len(m.prefixes)-2)])
			all.Go(func() { m.chatter(k, d, few) })
		}
	}
	if m.d.IntN(2) == 0 {
		m.reconfigure()
	}
	all.Wait()
	if deaf {
		m.noise()
	}
}

// flap ends a session or two, and has everybody talk while they come up again.
func (m *telling) flap() {
	var all sync.WaitGroup
	up := make(chan struct{})
	for range 1 + m.d.IntN(2) {
		i := m.d.IntN(len(m.talkers))
		if k := m.talkers[i]; !k.ending.Swap(true) {
			_ = k.conn.Close()
			all.Go(func() {
				m.talkers[i] = talk(m.t, k.addr, k.asn, m.us, k.slow)
			})
		}
	}
	go func() { all.Wait(); close(up) }()
	d := dice{rand.New(rand.NewPCG(m.d.Uint64(), 3)), m.d.v6}
	k := m.talkers[m.d.IntN(len(m.talkers))]
	for !k.ending.Load() {
		m.chatter(k, d, m.prefixes)
		select {
		case <-up:
			return
		case <-time.After(time.Duration(d.IntN(20)) * time.Millisecond):
		}
	}
	<-up
}

// noise fills the way to those that are deaf, and has one more talk behind it.
func (m *telling) noise() {
	k := m.talkers[0]
	var msgs [][]byte
	for i := range 3000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(i >> 8), byte(i)}), 32)
		if m.d.v6 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x64, 0, 0, byte(i >> 8), byte(i)}), 64)
		}
		msgs = append(msgs, k.announce(p, m.next(), 100))
	}
	k.say(msgs...)
	m.chatter(m.talkers[1], m.d, m.prefixes)
	m.chatter(m.talkers[5], m.d, m.prefixes)
}

func (m *telling) next() uint16 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version++
	return m.version
}

// chatter announces and withdraws.
func (m *telling) chatter(k *talker, d dice, prefixes []netip.Prefix) {
	for range 1 + d.IntN(6) {
		var msgs [][]byte
		for range 1 + d.IntN(20) {
			p := pick(d, prefixes...)
			switch {
			case m.soaks && d.IntN(30) == 0: // ROUTE-REFRESH (RFC 2918), of which we may hear late
				msgs = append(msgs, message(5, []byte{0, map[bool]byte{false: 1, true: 2}[d.v6], 0, 1}))
			case d.IntN(5) < 2:
				msgs = append(msgs, k.withdraw(p))
			default:
				msgs = append(msgs, k.announce(p, m.next(), pick[uint32](d, 100, 100, 200), pick(d, nil, nil, []uint32{65005}, []uint32{65005, 65006})...))
				// with our own cluster id now and then, which clients are not to get
				k.looped = k.asn == 64512 && d.IntN(10) == 0
			}
		}
		k.say(msgs...)
		if d.IntN(3) == 0 {
			time.Sleep(time.Duration(d.IntN(3)) * time.Millisecond) // so that some find the way empty
		}
	}
}

// reconfigure changes what is ours, and the rules.
func (m *telling) reconfigure() {
	cfg := &m.n.cfg
	for range 1 + m.d.IntN(3) {
		switch m.d.IntN(6) {
		case 0, 1:
			cfg.Originate = nil
			for _, p := range m.prefixes {
				if m.d.IntN(3) == 0 {
					cfg.Originate = append(cfg.Originate, bgp.Origination{Prefix: p, Source: "test", LocalPref: pick[uint32](m.d, 100, 150), Interface: pick(m.d, "", "eth0")})
				}
			}
		case 2, 3:
			cfg.Peers = slices.Clone(cfg.Peers)
			for i := range cfg.Peers {
				cfg.Peers[i].Export = m.rules()
			}
		case 4:
			cfg.Announce = pick(m.d, nil, &bgp.Announce{Normal4: 1024, Normal6: 1024, Own: m.some(), Services: m.some(), Reflected: m.some(), Pools: m.some()})
		case 5:
			cfg.Nowhere = nil
			if m.d.IntN(2) == 0 {
				k := pick(m.d, m.talkers...)
				cfg.Nowhere = &bgp.Nowhere{Unresolved: []netip.Prefix{netip.PrefixFrom(k.addr, k.addr.BitLen())}}
			}
		}
		m.n.apply(m.t)
	}
}

// rules returns rules of a peer.
func (m *telling) rules() []bgp.Rule {
	return pick(m.d, nil, nil, nil,
		[]bgp.Rule{{Source: "no route that is learned", FilterRule: bgp.FilterRule{RemotePeers: true}}},
		[]bgp.Rule{{Source: "one neighbour's", FilterRule: bgp.FilterRule{ASPathPrefix: []uint32{65010}}}},
		[]bgp.Rule{{Source: "one way", FilterRule: bgp.FilterRule{Interface: "eth1"}}},
		[]bgp.Rule{{Source: "only what is preferred", FilterRule: bgp.FilterRule{Accept: true, Priority: bgp.MaxPref - 200}}, {Source: "the rest"}})
}

// some returns some of the prefixes, sorted.
func (m *telling) some() (out []netip.Prefix) {
	for _, p := range m.prefixes {
		if m.d.IntN(3) == 0 {
			out = append(out, p)
		}
	}
	return out
}

// settled waits until everybody knows what it should.
func (m *telling) settled(round int) {
	m.t.Helper()
	begin := time.Now()
	var why []string
	for time.Since(begin) < patience {
		if why = m.wrong(); len(why) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if len(why) > 0 {
		m.t.Errorf("round %d:\n%s", round, strings.Join(why, "\n"))
	}
	for i, k := range m.talkers {
		if odd := k.complaints(); len(odd) > 0 {
			m.t.Fatalf("round %d: talker%d: %q", round, 2+i, odd)
		}
	}
	m.t.Logf("round %d: %v", round, time.Since(begin).Round(time.Millisecond))
}

// wrong lists who holds something else than he should.
func (m *telling) wrong() (out []string) {
	tables := make([]map[netip.Prefix]string, len(m.talkers))
	for i, k := range m.talkers {
		tables[i] = k.knows()
	}
	for _, p := range m.prefixes {
		list := m.n.Candidates(p)
		for i := range m.talkers {
			want := m.due(i, list)
			if got := tables[i][p]; got != want {
				out = append(out, fmt.Sprintf("talker%d holds %q of %s instead of %q", 2+i, got, p, want))
			}
		}
	}
	return out
}

// due is what a peer should hold of a prefix with these paths: the version, "none" for ours, "" for nothing.
func (m *telling) due(i int, list []bgp.Candidate) string {
	if len(list) == 0 || list[0].Refused {
		return ""
	}
	best, to := &list[0], &m.n.cfg.Peers[i]
	r := bgp.RouteOf(&best.Path)
	version := "none"
	if best.Local {
		own := slices.IndexFunc(m.n.cfg.Originate, func(o bgp.Origination) bool { return o.Prefix == best.Prefix })
		r = bgp.RouteFrom(&m.n.cfg.Originate[own])
	} else {
		from := m.n.cfg.Peers[slices.IndexFunc(m.n.cfg.Peers, func(p bgp.Peer) bool { return p.Addr == best.PeerAddr })]
		if to.Client && slices.Contains(best.ClusterList, m.n.cfg.RouterID) || best.PeerAddr == to.Addr || slices.Contains(best.ASPath, to.ASN) || to.ASN == 64512 && from.ASN == 64512 && !to.Client && !from.Client {
			return ""
		}
		for _, c := range best.Communities {
			if c.A == versionAS && !c.Large {
				version = fmt.Sprint(c.B)
			}
		}
	}
	if _, v := m.n.cfg.Send(to, r); !v.Accept {
		return ""
	}
	return version
}
