package gobgp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp/gobgp"
)

// What a message that should never have been sent may lead to.
type fate string

const (
	lives fate = "the session goes on"
	ends  fate = "the session ends"
	any1  fate = "either"
)

// hostile is something a peer should never say, alone or after a correct opening.
type hostile struct {
	name   string
	alone  bool // instead of an OPEN
	octets int  // of AS numbers; 0 = 4
	say    []byte
	then   fate
	code   []byte // of the NOTIFICATION, nil for any
}

// badUpdate is an UPDATE for one prefix.
func badUpdate(attrs ...[]byte) []byte { return update(join(attrs...), "10.3.3.0/26") }

// capability is an OPEN whose only parameter holds these capabilities.
func capability(caps ...byte) []byte {
	body := []byte{4, 0xfc, 0, 0, 90, 127, 5, 0, 9, byte(len(caps) + 2), 2, byte(len(caps))}
	return message(msgOpen, append(body, caps...))
}

func raw(b ...byte) []byte { return b }

// reach is MP_REACH_NLRI (RFC 4760 section 3) for a family, with whatever follows the family.
func reach(afi uint16, safi byte, rest ...byte) []byte {
	return attribute(0x80, 14, append(append(binary.BigEndian.AppendUint16(nil, afi), safi), rest...)...)
}

// advisories are the published ways to bring a GoBGP down that a peer has (2025 and 2026; those against its BMP, MRT and RPKI readers
// have nothing to listen to them here), and those its own history of repairs tells of.
func advisories() []hostile {
	hop := nextHop("127.5.0.3")
	return []hostile{
		{name: "GHSA-p3w2-64xm-833j, ORIGIN without the transitive flag", say: badUpdate(attribute(0, 1, 0), asPath, hop, localPref), then: any1},
		{name: "GHSA-p3w2-64xm-833j, attributes of inconsistent lengths", say: message(msgUpdate, raw(0, 0, 0, 9, 0x40, 1, 1, 0, 0x40, 2, 9, 2, 1, 24, 10, 3, 3)), then: any1},
		{name: "GHSA-7235-89m6-f4px, a well-known attribute that nobody knows", say: badUpdate(attribute(0x40, 250, 1, 2), origin, asPath, hop, localPref), then: any1},
		{name: "GHSA-8rxh-r2p6-7f2q, AS4_PATH of one octet before AS_PATH", octets: 2, say: message(msgUpdate, raw(0, 0, 0, 11, 0x40, 17, 1, 2, 0x40, 2, 4, 0xff, 0xff, 0xde, 0xad)), then: any1},
		{name: "the UPDATE that ends GoBGP v3", octets: 2, say: badUpdate(origin, hop, as4Path, asPath2), then: any1},
		{name: "GHSA-frrj-87jh-2772, AS_PATH of no octets", say: badUpdate(origin, attribute(0x40, 2), hop, localPref), then: lives},
		{name: "GHSA-4p9m-8gc4-rw2h, NEXT_HOP of no octets", say: badUpdate(origin, asPath, attribute(0x40, 3), localPref), then: any1},
		{name: "GHSA-4p9m-8gc4-rw2h, NEXT_HOP of three octets", say: badUpdate(origin, asPath, attribute(0x40, 3, 1, 2, 3), localPref), then: any1},
		{name: "GHSA-4p9m-8gc4-rw2h, NEXT_HOP with wrong flags and length", say: badUpdate(origin, asPath, attribute(0, 3, 1), localPref), then: any1},
		{name: "GHSA-wmvj-f67g-qg4g, IPv6 extended community cut short", say: badUpdate(origin, asPath, hop, attribute(0xc0, 25, make([]byte, 11)...)), then: any1},
		{name: "GHSA-pw7p-7fqv-hpj8, withdrawn routes longer than the UPDATE", say: message(msgUpdate, raw(0xff, 0xff, 0, 0)), then: ends},
		{name: "GHSA-pw7p-7fqv-hpj8, withdrawn routes that leave no room for a length", say: message(msgUpdate, raw(0, 1, 0)), then: ends},
		{name: "GHSA-vm3g-8xwv-mxfp, SRv6 service with a sub-TLV nobody knows", say: badUpdate(origin, asPath, hop, attribute(0xc0, 40, 5, 0, 8, 0, 99, 0, 4, 1, 2, 3, 4)), then: any1},
		{name: "CVE-2026-7735, AIGP with a length of its own", say: badUpdate(origin, asPath, hop, attribute(0x80, 26, 1, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1)), then: any1},
		{name: "SRv6 SID information shorter than it is", say: badUpdate(origin, asPath, hop, attribute(0xc0, 40, append(raw(5, 0, 28, 0, 1, 0, 5), make([]byte, 24)...)...)), then: any1},
		{name: "SRv6 SID structure of one octet", say: badUpdate(origin, asPath, hop,
			attribute(0xc0, 40, append(raw(5, 0, 31, 0, 1, 0, 27), append(make([]byte, 21), 1, 0, 1, 0, 0, 0)...)...)), then: any1},
		{name: "flow specification of few octets", say: badUpdate(origin, asPath, reach(1, 133, 0, 0, 5, 1, 200, 1, 2, 3)), then: any1},
		{name: "BGP-LS with a length that wraps", say: badUpdate(origin, asPath, hop, attribute(0x80, 29, 4, 1, 0xff, 0xff, 0)), then: any1},
		{name: "tunnel encapsulation with a segment list of no end", say: badUpdate(origin, asPath, hop, attribute(0xc0, 23, 0, 15, 0, 6, 128, 0, 3, 0, 9, 9)), then: any1},
		{name: "GHSA-gjrg-jjr3-56cm, four-octet AS of no octets", alone: true, say: capability(65, 0, 1, 4, 0, 1, 0, 1), then: ends},
		{name: "CVE-2025-43971, software version of no octets", alone: true, say: capability(75, 1, 0, 65, 4, 0, 0, 0xfc, 0), then: any1},
	}
}

// opens are OPENs that are none, and what may come in the place of one (RFC 4271 section 6.2).
func opens() []hostile {
	bad := func(name string, say []byte, code ...byte) hostile {
		return hostile{name: "OPEN: " + name, alone: true, say: say, then: ends, code: code}
	}
	full := func(change func([]byte)) []byte {
		b := open(64512, "127.5.0.9", true)
		change(b[19:])
		return b
	}
	return []hostile{
		bad("version 3", full(func(b []byte) { b[0] = 3 }), 2, 1),
		bad("AS 0", capability(), 2, 2),
		bad("router id 0", full(func(b []byte) { clear(b[5:9]) }), 2, 3),
		bad("our own router id", full(func(b []byte) { copy(b[5:9], []byte{127, 5, 0, 2}) }), 2, 3),
		bad("hold time 1", full(func(b []byte) { b[3], b[4] = 0, 1 }), 2, 6),
		bad("cut short", message(msgOpen, raw(4, 0xfc))),
		bad("empty", message(msgOpen, nil)),
		bad("parameters longer than the message", full(func(b []byte) { b[9] = 255 })),
		bad("a capability longer than its parameter", capability(1, 200, 0, 1)),
		bad("a parameter of type 1", message(msgOpen, raw(4, 0xfc, 0, 0, 90, 127, 5, 0, 9, 4, 1, 2, 0, 0))),
		bad("extended parameters cut short (RFC 9072)", message(msgOpen, raw(4, 0xfc, 0, 0, 90, 127, 5, 0, 9, 255, 255, 0, 9, 2, 0, 200))),
		bad("a KEEPALIVE instead", message(msgKeepalive, nil)),
		bad("an UPDATE instead", badUpdate(origin)),
		bad("a NOTIFICATION instead", message(msgNotification, raw(6, 2))),
		bad("graceful restart of one octet", capability(65, 4, 0, 0, 0xfc, 0, 64, 1, 0)),
		bad("multiprotocol of no octets", capability(65, 4, 0, 0, 0xfc, 0, 1, 0)),
		bad("add-path of five octets", capability(65, 4, 0, 0, 0xfc, 0, 69, 5, 0, 1, 1, 3, 0)),
		bad("noise", bytes.Repeat([]byte{0x5a}, 300), 1, 1),
		bad("a header that ends early, and then nothing", bytes.Repeat([]byte{0xff}, 17)),
	}
}

// others are messages that are wrong once a session is up (RFC 4271 sections 6.1, 6.3, 6.4; RFC 9003; RFC 8538).
func others() []hostile {
	hop := nextHop("127.5.0.3")
	note := func(name string, body ...byte) hostile {
		return hostile{name: "NOTIFICATION: " + name, say: message(msgNotification, body), then: ends}
	}
	return []hostile{
		note("empty"), note("of one octet", 6), note("code 0", 0, 0), note("code 255", 255, 255), note("Cease 255", 6, 255),
		note("words longer than the message", 6, 2, 200, 'h', 'i'), note("words that are no text", 6, 2, 3, 0xff, 0x1b, 0),
		note("Hard Reset of one octet", 6, 9, 6), note("Hard Reset in a Hard Reset", 6, 9, 6, 9, 6, 9), note("4000 octets", append([]byte{6, 2}, make([]byte, 4000)...)...),
		{name: "a second OPEN", say: open(64512, "127.5.0.3", true), then: any1},
		{name: "a KEEPALIVE with a body", say: message(msgKeepalive, raw(1)), then: any1},
		{name: "a message of type 0", say: message(0, nil), then: ends, code: raw(1, 3)},
		{name: "a message of type 99", say: message(99, raw(1, 2, 3)), then: ends, code: raw(1, 3)},
		{name: "a length of 18", say: append(bytes.Repeat([]byte{0xff}, 16), 0, 18, 4), then: ends, code: raw(1, 2)},
		{name: "a length of 0", say: append(bytes.Repeat([]byte{0xff}, 16), 0, 0, 2), then: ends, code: raw(1, 2)},
		{name: "ROUTE-REFRESH of three octets", say: message(5, raw(0, 1, 0)), then: any1},
		{name: "ROUTE-REFRESH for a family nobody has", say: message(5, raw(0x40, 4, 0, 71)), then: lives},
		{name: "ROUTE-REFRESH with a filter", say: message(5, raw(0, 1, 0, 1, 1, 128, 0, 200, 1)), then: any1},
		{name: "an attribute twice", say: badUpdate(origin, origin, asPath, hop, localPref), then: any1},
		{name: "MP_REACH_NLRI twice", say: badUpdate(origin, asPath, reach(1, 1, 4, 1, 2, 3, 4, 0), reach(1, 1, 4, 1, 2, 3, 4, 0)), then: any1},
		{name: "a prefix of 33 bits", say: message(msgUpdate, append(append(raw(0, 0, 0, byte(len(join(origin, asPath, hop, localPref)))), join(origin, asPath, hop, localPref)...), 33, 1, 2, 3, 4, 5)), then: any1},
		{name: "a prefix cut short", say: message(msgUpdate, append(append(raw(0, 0, 0, byte(len(join(origin, asPath, hop, localPref)))), join(origin, asPath, hop, localPref)...), 24, 10)), then: any1},
		{name: "a withdrawn prefix of 200 bits", say: message(msgUpdate, raw(0, 2, 200, 1, 0, 0)), then: any1},
		{name: "NEXT_HOP 0.0.0.0", say: badUpdate(origin, asPath, nextHop("0.0.0.0"), localPref), then: any1},
		{name: "NEXT_HOP 255.255.255.255", say: badUpdate(origin, asPath, nextHop("255.255.255.255"), localPref), then: any1},
		{name: "NEXT_HOP of a group", say: badUpdate(origin, asPath, nextHop("224.0.0.1"), localPref), then: any1},
		{name: "an AS path of 255 sets of nothing", say: badUpdate(origin, attribute(0x40, 2, bytes.Repeat(raw(1, 0), 127)...), hop, localPref), then: any1},
		{name: "IPv6 by MP_REACH_NLRI without the family", say: badUpdate(origin, asPath, hop, reach(2, 1, append(append(raw(16), make([]byte, 16)...), 0, 64, 0xfd, 0, 0, 0, 0, 0, 0, 1)...)), then: any1},
		{name: "MP_REACH_NLRI with a next hop longer than itself", say: badUpdate(origin, asPath, reach(2, 1, 255, 1)), then: any1},
		{name: "MP_UNREACH_NLRI of two octets", say: badUpdate(attribute(0x80, 15, 0, 2)), then: any1},
		{name: "MP_REACH_NLRI of no family", say: badUpdate(origin, asPath, reach(0, 0, 0, 0)), then: any1},
		{name: "VPN routes nobody asked for", say: badUpdate(origin, asPath, reach(1, 128, append(append(raw(12), make([]byte, 12)...), 0, 112, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 10, 0)...)), then: any1},
		{name: "EVPN route of a type nobody knows", say: badUpdate(origin, asPath, reach(25, 70, 4, 1, 2, 3, 4, 0, 99, 2, 1, 2)), then: any1},
	}
}

// sweep is every attribute type with every kind of flags, each with many lengths.
func sweep() []hostile {
	var out []hostile
	hop := nextHop("127.5.0.3")
	for _, flags := range []byte{0x40, 0xc0, 0x80, 0x00, 0x20} {
		for kind := range 42 {
			var say []byte
			for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 12, 20, 21, 77, 250} {
				value := make([]byte, n)
				for i := range value {
					value[i] = byte(i * (kind + 1))
				}
				say = append(say, badUpdate(origin, asPath, hop, localPref, attribute(flags, byte(kind), value...))...)
			}
			out = append(out, hostile{name: fmt.Sprintf("attribute %d with flags %#x", kind, flags), say: say, then: any1})
		}
	}
	return out
}

// TestHostilePeers: a daemon that is told everything a peer should never say, by hundreds of peers at once, stays the process it is, keeps its
// good session and its routes, and does not grow.
func TestHostilePeers(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	all := slices.Concat(advisories(), opens(), others(), sweep())
	port := testPort()
	good, us := config("127.5.0.1", port, "10.9.9.0/26"), config("127.5.0.2", port, "10.9.8.0/26")
	peerWith(&good, &us)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 5, byte(1 + i/250), byte(1 + i%250)}) }
	for i := range all {
		p := peering(us.ListenAddrs[0], addr(i), port, 64512)
		p.Passive = true
		us.Peers = append(us.Peers, p)
	}
	c := startChild(t, us, false)
	n := start(t, good, gobgp.Options{})
	n.up(t, "127.5.0.2")
	n.knows(t, "10.9.8.0/26 Mesh_127_5_0_2 via 127.5.0.2")
	before := c.memory()

	var wg sync.WaitGroup
	limit := make(chan struct{}, 64)
	for i, h := range all {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			p := &rawPeer{t: t, from: addr(i).String(), to: fmt.Sprintf("127.5.0.2:%d", port), as4: h.octets != 2}
			if why := p.suffers(&h); why != "" {
				t.Errorf("%s: %s", h.name, why)
			}
		})
	}
	wg.Wait()
	strangers(t, fmt.Sprintf("127.5.0.2:%d", port))
	if err := c.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the process is gone: %v", err)
	}
	if s := n.status("127.5.0.2"); s.State != "Established" || s.Ups != 1 || n.losses("10.9.8.0/26") != 0 {
		t.Errorf("the good session is %s, came up %d times (%s), its route was lost %d times", s.State, s.Ups, s.LastError, n.losses("10.9.8.0/26"))
	}
	// Every one of the hundreds of sessions has buffers of its own; what counts is that it is no more than that.
	after := c.memory()
	t.Logf("%d hostile peers: %d MiB resident before, %d MiB after", len(all), before>>20, after>>20)
	if after > before+(96<<20) {
		t.Errorf("%d MiB resident, %d before", after>>20, before>>20)
	}
}

// suffers says what is to be said and looks at what becomes of the session; "" if that is as it should be. A session is alive if it answers
// a ROUTE-REFRESH (RFC 2918).
func (p *rawPeer) suffers(h *hostile) string {
	if h.alone {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}, Timeout: 5 * time.Second}).Dial("tcp4", p.to)
		if err != nil {
			return err.Error()
		}
		p.conn = conn
	} else if err := p.tryFor(patience); err != nil {
		return "no session: " + err.Error()
	}
	defer func() { _ = p.conn.Close() }()
	if !h.alone {
		if got, _ := p.outcome(false); got != lives { // the route comes with the session
			return "no route came with the session"
		}
	}
	_ = p.write(h.say)
	if !h.alone && h.then != ends {
		_ = p.write(message(5, raw(0, 1, 0, 1))) // and once more as the answer to this
	}
	got, code := p.outcome(h.alone)
	switch {
	case got == "":
		return "neither an end nor an answer"
	case h.then != any1 && got != h.then:
		return fmt.Sprintf("%s %v, want: %s", got, code, h.then)
	case got == ends && len(h.code) > 0 && len(code) > 0 && !bytes.Equal(code, h.code):
		return fmt.Sprintf("NOTIFICATION %v, want %v", code, h.code)
	}
	return ""
}

// tryFor dials until a session is up.
func (p *rawPeer) tryFor(d time.Duration) (err error) {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = p.try(); err == nil {
			return nil
		}
	}
	return err
}

// outcome reads until the session has ended or our route comes. Before a session there is nothing to answer; silence for some seconds is as good
// as an end there, for the hold timer does the rest.
func (p *rawPeer) outcome(alone bool) (fate, []byte) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		kind, body, err := p.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if alone {
				return ends, nil
			}
		case err != nil:
			return ends, nil
		case kind == msgNotification && len(body) >= 2:
			return ends, body[:2]
		case kind == msgUpdate && bytes.HasSuffix(body, []byte{26, 10, 9, 8, 0}):
			return lives, nil
		}
	}
	return "", nil
}

// strangers connect without being known, hundreds at once, and some say a lot.
func strangers(t *testing.T, to string) {
	var wg sync.WaitGroup
	noise := bytes.Repeat([]byte{0xff}, 1<<16)
	for i := range 200 {
		wg.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 5, 99, byte(1+i))}, Timeout: 5 * time.Second}
			conn, err := d.Dial("tcp4", to)
			if err != nil {
				t.Errorf("a stranger: %v", err)
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = conn.Write(noise)
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a stranger is listened to: %v", err)
			}
		})
	}
	wg.Wait()
}

// memory is what the process holds (VmRSS), in bytes.
func (c *child) memory() int {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err == nil {
				return kib << 10
			}
		}
	}
	c.t.Fatalf("no VmRSS in %s", text)
	return 0
}
