package gobgp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// The messages of RFC 4271 section 4, as a peer of our own sends and reads them. It knows just enough to misbehave.
const (
	msgOpen         = 1
	msgUpdate       = 2
	msgNotification = 3
	msgKeepalive    = 4
)

func message(kind byte, body []byte) []byte {
	m := bytes.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, kind), body...)
}

// keptAll is the graceful restart capability of a peer that keeps its forwarding state for 120 s.
var keptAll = []byte{64, 6, 0, 120, 0, 1, 1, 0x80}

// open is an OPEN with the capabilities multiprotocol IPv4, route refresh, four-octet AS if as4, and the one of graceful restart.
func open(asn uint16, id string, as4 bool) []byte { return openWith(asn, id, as4, keptAll) }

// openWith is one with another capability of graceful restart, or none.
func openWith(asn uint16, id string, as4 bool, restart []byte) []byte {
	caps := append([]byte{1, 4, 0, 1, 0, 1, 2, 0}, restart...)
	if as4 {
		caps = append(caps, 65, 4, 0, 0, byte(asn>>8), byte(asn))
	}
	body := []byte{4, byte(asn >> 8), byte(asn), 0, 90}
	body = append(body, netip.MustParseAddr(id).AsSlice()...)
	body = append(body, byte(len(caps)+2), 2, byte(len(caps)))
	return message(msgOpen, append(body, caps...))
}

func update(attrs []byte, prefixes ...string) []byte {
	body := []byte{0, 0}
	body = binary.BigEndian.AppendUint16(body, uint16(len(attrs)))
	body = append(body, attrs...)
	for _, p := range prefixes {
		q := netip.MustParsePrefix(p)
		body = append(append(body, byte(q.Bits())), q.Addr().AsSlice()[:(q.Bits()+7)/8]...)
	}
	return message(msgUpdate, body)
}

// Path attributes: flags, type, length, value.
func attribute(flags, kind byte, value ...byte) []byte {
	return append([]byte{flags, kind, byte(len(value))}, value...)
}

var (
	origin    = attribute(0x40, 1, 0)
	asPath    = attribute(0x40, 2)             // empty, as in iBGP
	asPath2   = attribute(0x40, 2, 2, 1, 0, 1) // AS 1, two octets
	localPref = attribute(0x40, 5, 0, 0, 0, 200)
	as4Path   = attribute(0xc0, 17, 2, 1, 0, 0, 0, 1)
	community = attribute(0xc0, 8, 0xfc, 0, 0, 1)
	unknown   = attribute(0xc0, 250, 1, 2, 3)
)

func nextHop(a string) []byte { return attribute(0x40, 3, netip.MustParseAddr(a).AsSlice()...) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// rawPeer is a peer that says what it is told to.
type rawPeer struct {
	t    *testing.T
	conn net.Conn
	from string
	to   string
	as4  bool
	open []byte // body of the OPEN we received
	// restart is the graceful restart capability it offers; nil stands for keptAll.
	restart []byte
}

// dial connects and brings the session up. It is tried again until it works: a session that was lost is refused for five seconds.
func (p *rawPeer) dial() {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := p.try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("raw peer %s -> %s: %v", p.from, p.to, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *rawPeer) try() (err error) {
	if err := p.half(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = p.conn.Close()
		}
	}()
	if err := p.write(message(msgKeepalive, nil)); err != nil {
		return err
	}
	_, err = p.expect(msgKeepalive)
	return err
}

// accepted connects and waits for the other side's OPEN.
func (p *rawPeer) accepted() (err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}, Timeout: time.Second}
	if p.conn, err = d.Dial("tcp4", p.to); err != nil {
		return err
	}
	if _, err = p.expect(msgOpen); err != nil {
		_ = p.conn.Close()
	}
	return err
}

// half connects and exchanges OPENs.
func (p *rawPeer) half() (err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}, Timeout: time.Second}
	if p.conn, err = d.Dial("tcp4", p.to); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = p.conn.Close()
		}
	}()
	restart := p.restart
	if restart == nil {
		restart = keptAll
	}
	if err := p.write(openWith(64512, p.from, p.as4, restart)); err != nil {
		return err
	}
	p.open, err = p.expect(msgOpen)
	return err
}

// hello connects, says one thing and waits for an answer.
func (p *rawPeer) hello(b []byte) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}, Timeout: time.Second}
	conn, err := d.Dial("tcp4", p.to)
	if err != nil {
		return err
	}
	p.conn = conn
	defer func() { _ = conn.Close() }()
	if err := p.write(b); err != nil {
		return err
	}
	_, err = p.expect(msgKeepalive)
	return err
}

func (p *rawPeer) write(b []byte) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err := p.conn.Write(b)
	return err
}

func (p *rawPeer) send(b []byte) {
	p.t.Helper()
	if err := p.write(b); err != nil {
		p.t.Fatalf("raw peer %s: %v", p.from, err)
	}
}

// read returns the next message.
func (p *rawPeer) read() (kind byte, body []byte, err error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	head := make([]byte, 19)
	if _, err := io.ReadFull(p.conn, head); err != nil {
		return 0, nil, err
	}
	_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // the rest is on its way: whoever gives up between the two reads nonsense next
	body = make([]byte, int(binary.BigEndian.Uint16(head[16:]))-19)
	_, err = io.ReadFull(p.conn, body)
	return head[18], body, err
}

func (p *rawPeer) expect(kind byte) ([]byte, error) {
	for {
		got, body, err := p.read()
		switch {
		case err != nil:
			return nil, err
		case got == kind:
			return body, nil
		case got == msgNotification:
			return nil, fmt.Errorf("NOTIFICATION %v", body)
		}
	}
}

// ended waits until the other side ends the session and returns the NOTIFICATION's code and subcode, or nil.
func (p *rawPeer) ended() []byte {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		kind, body, err := p.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return nil
		case kind == msgNotification:
			return body[:2]
		}
	}
	p.t.Fatal("the session goes on")
	return nil
}

// rawLab is a Speaker with one good peer, whose route must survive everything, and one of ours.
func rawLab(t *testing.T, subnet string, as4 bool) (*node, *rawPeer) {
	t.Helper()
	port := testPort()
	good, us := config(subnet+".1", port, "10.9.9.0/26"), config(subnet+".2", port)
	peerWith(&good, &us)
	bad := peering(us.ListenAddrs[0], netip.MustParseAddr(subnet+".3"), port, 64512)
	bad.Name, bad.Passive = "Bad", true
	us.Peers = append(us.Peers, bad)
	n := startAll(t, good, us)[1]
	p := &rawPeer{t: t, from: subnet + ".3", to: fmt.Sprintf("%s.2:%d", subnet, port), as4: as4}
	p.dial()
	t.Cleanup(func() { _ = p.conn.Close() })
	eventually(t, "the good peer's route", func() string { return absent(n, "10.9.9.0/26") })
	return n, p
}

func absent(n *node, prefix string) string {
	if len(n.paths(prefix)) == 0 {
		return prefix + " is not known"
	}
	return ""
}

// TestUpdatesThatAreFine: attributes may come in any order, with ones nobody knows among them.
func TestUpdatesThatAreFine(t *testing.T) {
	parallel(t)
	n, p := rawLab(t, "127.2.0", true)
	hop := nextHop("127.2.0.3")
	for i, attrs := range [][]byte{
		join(origin, asPath, hop, localPref),
		join(localPref, hop, asPath, origin),
		join(hop, origin, unknown, localPref, asPath),
		join(community, localPref, asPath, hop, origin),
		join(asPath, community, unknown, origin, localPref, hop),
	} {
		prefix := fmt.Sprintf("10.1.%d.0/26", i)
		p.send(update(attrs, prefix))
		eventually(t, prefix, func() string {
			if ps := n.paths(prefix); len(ps) != 1 || ps[0].NextHop.String() != "127.2.0.3" || ps[0].LocalPref != 200 || ps[0].Peer != "Bad" {
				return fmt.Sprintf("%+v", ps)
			}
			return ""
		})
	}
}

// TestBrokenUpdates: RFC 7606: an UPDATE that lacks a mandatory attribute costs the routes it names and nothing else.
func TestBrokenUpdates(t *testing.T) {
	parallel(t)
	n, p := rawLab(t, "127.2.1", true)
	whole := join(origin, asPath, nextHop("127.2.1.3"), localPref)
	for _, tc := range []struct {
		name  string
		attrs []byte
	}{
		{"no NEXT_HOP", join(origin, asPath, localPref)},
		{"no ORIGIN", join(asPath, nextHop("127.2.1.3"), localPref)},
		{"no AS_PATH", join(origin, nextHop("127.2.1.3"), localPref)},
		{"no attribute at all", nil},
		{"ORIGIN of value 9", join(attribute(0x40, 1, 9), asPath, nextHop("127.2.1.3"), localPref)},
		{"AS_PATH that ends early", join(origin, attribute(0x40, 2, 2, 9, 0, 0), nextHop("127.2.1.3"), localPref)},
		{"LOCAL_PREF of two octets", join(origin, asPath, nextHop("127.2.1.3"), attribute(0x40, 5, 0, 1))},
	} {
		p.send(update(whole, "10.1.0.0/26", "10.1.1.0/26"))
		for _, prefix := range []string{"10.1.0.0/26", "10.1.1.0/26"} {
			eventually(t, tc.name+" before", func() string { return absent(n, prefix) })
		}
		p.send(update(tc.attrs, "10.1.0.0/26"))
		eventually(t, tc.name, func() string {
			if ps := n.paths("10.1.0.0/26"); len(ps) != 0 {
				return fmt.Sprintf("still there: %+v", ps)
			}
			return ""
		})
		if why := absent(n, "10.1.1.0/26"); why != "" {
			t.Errorf("%s: %s", tc.name, why)
		}
	}
	if s := n.status("127.2.1.3").State; s != "Established" {
		t.Errorf("the session is %s", s)
	}
	if n.losses("10.9.9.0/26") != 0 {
		t.Error("the other peer's route was lost")
	}
}

// TestCrashUpdate: the UPDATE that ends a whole GoBGP v3 process: from a peer with two-octet AS numbers, ORIGIN, NEXT_HOP, AS4_PATH,
// and AS_PATH as the last attribute.
func TestCrashUpdate(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	n, p := rawLab(t, "127.2.2", false)
	p.send(update(join(origin, nextHop("127.2.2.3"), as4Path, asPath2), "10.1.0.0/26"))
	p.send(update(join(localPref, origin, nextHop("127.2.2.3"), asPath2), "10.1.1.0/26"))
	eventually(t, "the UPDATE after it", func() string { return absent(n, "10.1.1.0/26") })
	if n.losses("10.9.9.0/26") != 0 {
		t.Error("the other peer's route was lost")
	}
	p2 := &rawPeer{t: t, from: p.from, to: p.to, as4: true} // and from one with four octets, where AS4_PATH has no place
	_ = p.conn.Close()
	p2.dial()
	defer func() { _ = p2.conn.Close() }()
	p2.send(update(join(origin, nextHop("127.2.2.3"), as4Path, attribute(0x40, 2, 2, 1, 0, 0, 0, 1)), "10.1.2.0/26"))
	p2.send(update(join(origin, asPath, nextHop("127.2.2.3"), localPref), "10.1.3.0/26"))
	eventually(t, "the UPDATE after it", func() string { return absent(n, "10.1.3.0/26") })
}

// TestGarbage: what is no BGP costs the session it came on, with the reason told to both sides; it comes up again afterwards.
func TestGarbage(t *testing.T) {
	parallel(t)
	n, p := rawLab(t, "127.2.3", true)
	for _, tc := range []struct {
		name  string
		bytes []byte
		code  []byte
		error string
	}{
		{"no marker", bytes.Repeat([]byte("GET / "), 10), []byte{1, 1}, "Message Header Error"},
		{"a length of 65535 in a KEEPALIVE", append(bytes.Repeat([]byte{0xff}, 18), 4), []byte{1, 2}, "sent: Message Header Error/Bad Message Length"},
		{"attributes longer than the UPDATE", message(msgUpdate, []byte{0, 0, 0xff, 0xff, 0x40}), []byte{3, 1}, "sent: UPDATE Message Error/Malformed Attribute List"},
	} {
		p.send(update(join(origin, asPath, nextHop("127.2.3.3"), localPref), "10.1.0.0/26"))
		eventually(t, tc.name+" before", func() string { return absent(n, "10.1.0.0/26") })
		p.send(tc.bytes)
		if code := p.ended(); code != nil && !bytes.Equal(code, tc.code) && code[0] != tc.code[0] {
			t.Errorf("%s: NOTIFICATION %v, want %v", tc.name, code, tc.code)
		}
		eventually(t, tc.name, func() string {
			if s := n.status("127.2.3.3"); s.State == "Established" || !strings.Contains(s.LastError, tc.error) {
				return fmt.Sprintf("%s %q", s.State, s.LastError)
			}
			if len(n.paths("10.1.0.0/26")) != 0 {
				return "its route is still there"
			}
			return ""
		})
		_ = p.conn.Close()
		p.dial()
	}
	if n.losses("10.9.9.0/26") != 0 || n.status("127.2.3.1").State != "Established" {
		t.Error("the other peer suffered")
	}
}

// restartBits returns the flags of the graceful restart capability of an OPEN: R, N, and F of the first family.
func restartBits(t *testing.T, open []byte) (r, n, f bool, seconds int) {
	t.Helper()
	params := open[10:]
	for len(params) > 2 {
		caps := params[2 : 2+int(params[1])]
		params = params[2+int(params[1]):]
		for len(caps) >= 2 {
			code, value := caps[0], caps[2:2+int(caps[1])]
			caps = caps[2+int(caps[1]):]
			if code == 64 {
				if len(value) < 6 {
					t.Fatalf("graceful restart capability %v names no family", value)
				}
				w := binary.BigEndian.Uint16(value)
				return w&0x8000 != 0, w&0x4000 != 0, value[5]&0x80 != 0, int(w & 0xfff)
			}
		}
	}
	t.Fatalf("no graceful restart capability in %v", open)
	return
}

// TestRestartBits: a Speaker that may have died says so, one that has not does not (RFC 4724 section 3).
func TestRestartBits(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	for i, restarting := range []bool{false, true} {
		port := testPort()
		cfg := config(fmt.Sprintf("127.2.4.%d", 1+i), port, "10.1.0.0/26")
		bad := peering(cfg.ListenAddrs[0], netip.MustParseAddr("127.2.4.9"), port, 64512)
		bad.Passive, bad.RestartTime = true, []time.Duration{0, 75 * time.Second}[i]
		cfg.Peers = []bgp.Peer{bad}
		n := start(t, cfg, gobgp.Options{Restarting: restarting})
		p := &rawPeer{t: t, from: "127.2.4.9", to: fmt.Sprintf("%s:%d", n.addr, port), as4: true}
		p.dial()
		r, notif, f, seconds := restartBits(t, p.open)
		if r != restarting || f != restarting || !notif || seconds != []int{120, 75}[i] {
			t.Errorf("restarting %v: R %v, F %v, N %v, %d s", restarting, r, f, notif, seconds)
		}
		// Restarting or not, the one route is announced within seconds, with End-of-RIB behind it, although the peer never sends one.
		begin := time.Now()
		body, err := p.expect(msgUpdate)
		if err != nil || !bytes.HasSuffix(body, []byte{26, 10, 1, 0, 0}) {
			t.Errorf("UPDATE %v, %v", body, err)
		}
		if body, err := p.expect(msgUpdate); err != nil || !bytes.Equal(body, []byte{0, 0, 0, 0}) {
			t.Errorf("End-of-RIB %v, %v", body, err)
		}
		if d := time.Since(begin); d > 4*time.Second {
			t.Errorf("announced after %v", d)
		}
		_ = p.conn.Close()
	}
}
