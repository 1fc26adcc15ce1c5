package gobgp_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
)

// reach4 is an MP_REACH_NLRI of IPv4 prefixes (RFC 8950) with next hops: one, or a global and a link-local one.
func reach4(prefix string, hops ...string) []byte {
	body := []byte{0, 1, 1, byte(16 * len(hops))}
	for _, h := range hops {
		a := netip.MustParseAddr(h).As16()
		body = append(body, a[:]...)
	}
	p := netip.MustParsePrefix(prefix)
	body = append(append(body, 0, byte(p.Bits())), p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
	return attribute(0x80, 14, body...)
}

// TestNextHopOfTheOtherFamily: an IPv4 prefix may have an IPv6 next hop (RFC 8950), the global one if there are two; one that leads nowhere, or that means
// nothing, costs that prefix, and says why.
func TestNextHopOfTheOtherFamily(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	port := testPort()
	us := config("127.1.71.11", port)
	us.Peers = []bgp.Peer{{Name: "raw", Addr: netip.MustParseAddr("127.1.71.12"), Port: port, ASN: 64512, LocalAddr: us.ListenAddrs[0], Passive: true}}
	us.Nowhere = &bgp.Nowhere{Unresolved: []netip.Prefix{netip.MustParsePrefix("2001:dba::/32")}, Tunnelled: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}}
	n := startAll(t, us)[0]
	p := &rawPeer{t: t, from: "127.1.71.12", to: fmt.Sprintf("127.1.71.11:%d", port), as4: true}
	p.dial()
	defer func() { _ = p.conn.Close() }()
	want := []string{}
	for _, c := range []struct {
		prefix string
		hops   []string
		why    string
	}{
		{"10.9.0.0/26", []string{"2001:db8::7"}, ""},
		{"10.9.0.64/26", []string{"2001:db8::7", "fe80::7"}, ""},
		{"10.9.0.128/26", []string{"fe80::7"}, ""},
		{"10.9.0.192/26", []string{"fe80::7", "fe80::7"}, ""},
		{"10.9.1.0/26", []string{"2001:dba::7"}, "next hop 2001:dba::7: no usable route of the host leads there"},
		{"10.9.2.0/26", []string{"::ffff:192.0.2.7"}, "next hop ::ffff:192.0.2.7 is of another address family than 10.9.2.0/26: refused"},
		{"10.9.3.0/26", []string{"::", "fe80::7"}, "the path has no next hop: refused"},
		{"10.5.0.0/26", []string{"2001:db8::7"}, "next hop 2001:db8::7 is not IPv4, and 10.5.0.0/16 is reached through IPIP, which needs an IPv4 outer header: refused"},
	} {
		p.send(update(join(origin, attribute(0x40, 2), localPref, reach4(c.prefix, c.hops...))))
		want = append(want, fmt.Sprintf("%s raw via %s", c.prefix, c.hops[0]))
		eventually(t, c.prefix, func() string {
			got := candidateLines(n.Candidates(netip.MustParsePrefix(c.prefix)))
			if len(got) != 1 || !strings.HasPrefix(got[0], "raw via "+c.hops[0]+" [] external=false") || !strings.HasSuffix(got[0], c.why) || strings.Contains(got[0], "refused") != strings.Contains(c.why, "refused") {
				return fmt.Sprintf("candidates %q, want %q", got, c.why)
			}
			return ""
		})
	}
	p.send(update(join(origin, attribute(0x40, 2), nextHop("127.1.71.12"), localPref), "10.8.0.0/26"))
	slices.Sort(want)
	n.knows(t, append([]string{"10.5.0.0/26 raw via 2001:db8::7", "10.8.0.0/26 raw via 127.1.71.12"}, want[1:]...)...)
}

// TestIPv6NextHopsAreKeptFrom: a peer that is sent next hops as they were learned, and has not offered to take IPv6 ones of IPv4 prefixes (RFC 8950 section
// 4), hears nothing of such a path, and loses the path before it; one that has offered hears of it, and an eBGP peer is sent our own.
func TestIPv6NextHopsAreKeptFrom(t *testing.T) {
	parallel(t)
	notUnderRace(t)
	port := testPort()
	us, able, tor := config("127.1.97.1", port), config("127.1.97.4", port), config("127.1.97.5", port)
	tor.ASN = 65000
	self := us.ListenAddrs[0]
	us.Nowhere = &bgp.Nowhere{}
	client := func(name, addr string) bgp.Peer {
		p := peering(self, netip.MustParseAddr(addr), port, 64512)
		p.Name, p.Passive, p.Client, p.ClusterID = name, true, true, us.RouterID
		return p
	}
	us.Peers = []bgp.Peer{client("teller", "127.1.97.2"), client("plain", "127.1.97.3"), client("able", "127.1.97.4"),
		{Name: "tor", Addr: tor.ListenAddrs[0], Port: port, ASN: 65000, LocalAddr: self}}
	for _, far := range []*bgp.Config{&able, &tor} {
		far.Peers = []bgp.Peer{{Name: "us", Addr: self, Port: port, ASN: 64512, LocalAddr: far.ListenAddrs[0]}}
	}
	tor.Peers[0].Passive = true
	nodes := startAll(t, us, able, tor)
	teller, plain := &rawPeer{t: t, from: "127.1.97.2", to: fmt.Sprintf("127.1.97.1:%d", port), as4: true}, &rawPeer{t: t, from: "127.1.97.3", to: fmt.Sprintf("127.1.97.1:%d", port), as4: true}
	endOfRIB := message(msgUpdate, []byte{0, 0, 0, 0})
	for _, p := range []*rawPeer{teller, plain} {
		p.dial()
		p.send(endOfRIB)
		defer func() { _ = p.conn.Close() }()
	}
	teller.send(update(join(origin, attribute(0x40, 2), nextHop("198.18.0.2"), localPref), "10.9.0.0/26"))
	teller.send(update(join(origin, attribute(0x40, 2), localPref, reach4("10.9.1.0/26", "2001:db8::7"))))
	nodes[1].knows(t, "10.9.0.0/26 us via 198.18.0.2", "10.9.1.0/26 us via 2001:db8::7")
	nodes[2].knows(t, "10.9.0.0/26 us via 127.1.97.1", "10.9.1.0/26 us via 127.1.97.1")
	plain.hears(t, []byte{26, 10, 9, 0, 0})
	teller.send(update(join(origin, attribute(0x40, 2), localPref, reach4("10.9.0.0/26", "2001:db8::8"))))
	nodes[1].knows(t, "10.9.0.0/26 us via 2001:db8::8", "10.9.1.0/26 us via 2001:db8::7")
	// Withdrawn routes: 5 octets of them, and no attributes.
	if body := plain.hears(t, []byte{0, 5, 26, 10, 9, 0, 0}); bytes.Contains(body, []byte{0, 1, 1, 16}) {
		t.Errorf("the plain peer is sent %x", body)
	}
	out, err := nodes[0].Exchange(netip.MustParseAddr("127.1.97.3"), bgp.ToPeer, netip.MustParsePrefix("10.9.1.0/26"))
	if err != nil || len(out) != 1 || out[0].After != nil || out[0].By != "the peer does not offer to take IPv6 next hops of IPv4 prefixes (RFC 8950)" {
		t.Errorf("advertised %+v, %v", out, err)
	}
	for _, peer := range []string{"127.1.97.4", "127.1.97.5"} {
		if out, err := nodes[0].Exchange(netip.MustParseAddr(peer), bgp.ToPeer, netip.MustParsePrefix("10.9.1.0/26")); err != nil || len(out) != 1 || out[0].After == nil {
			t.Errorf("advertised to %s: %+v, %v", peer, out, err)
		}
	}
}

// hears reads UPDATEs until one holds the octets; nothing that it reads may name an IPv4 prefix in MP_REACH_NLRI.
func (p *rawPeer) hears(t *testing.T, what []byte) []byte {
	t.Helper()
	for {
		typ, body, err := p.read()
		if err != nil {
			t.Fatalf("waiting for %x: %v", what, err)
		}
		if typ == msgUpdate && bytes.Contains(body, []byte{14, 26, 0, 1, 1, 16}) {
			t.Errorf("is sent an IPv6 next hop of an IPv4 prefix: %x", body)
		}
		if typ == msgUpdate && bytes.Contains(body, what) {
			return body
		}
	}
}
