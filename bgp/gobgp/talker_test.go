package gobgp_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// talker is a peer of our own that says what a test wants, and keeps what it is told: its table is what is left when every UPDATE is applied in the order in
// which it came. A path is told apart by its version, a community that each announcement has for itself.
type talker struct {
	t      testing.TB
	addr   netip.Addr
	asn    uint32
	conn   net.Conn
	saying sync.Mutex
	slow   bool
	ending atomic.Bool // the test ends the session
	us     netip.AddrPort
	looped bool // what is announced next carries the cluster id of the other side

	deaf  sync.Mutex // held by who wants it to hear nothing for a while
	mu    sync.Mutex
	table map[netip.Prefix]string
	forms map[string]string // attributes by version
	odd   []string          // what must not be
	heard int               // messages
	ended error
}

const versionAS = 65001

// talk brings a session with the Speaker at an address up; with small buffers where it is to be slow of hearing.
func talk(t testing.TB, addr netip.Addr, asn uint32, us netip.AddrPort, slow bool) *talker {
	t.Helper()
	k := &talker{t: t, addr: addr, asn: asn, slow: slow, table: make(map[netip.Prefix]string), forms: make(map[string]string)}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: addr.AsSlice()}, Timeout: time.Second}
	if slow {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			_ = c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			return err
		}
	}
	deadline := time.Now().Add(patience)
	for {
		err := k.begin(&d, us)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("talker %s: %v", addr, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	quiet := make(chan struct{})
	t.Cleanup(func() { close(quiet); _ = k.conn.Close() })
	go k.hear()
	go func() {
		for {
			select {
			case <-quiet:
				return
			case <-time.After(20 * time.Second): // of a hold time of 90
				k.say(message(msgKeepalive, nil))
			}
		}
	}()
	return k
}

func (k *talker) begin(d *net.Dialer, us netip.AddrPort) (err error) {
	if k.conn, err = d.Dial("tcp", us.String()); err != nil {
		return err
	}
	k.us = us
	afi := byte(1)
	if k.addr.Is6() {
		afi = 2
	}
	caps := []byte{1, 4, 0, afi, 0, 1, 2, 0, 64, 6, 0, 120, 0, afi, 1, 0x80, 65, 4}
	caps = binary.BigEndian.AppendUint32(caps, k.asn)
	body := []byte{4, byte(k.asn >> 8), byte(k.asn), 0, 240}
	id := k.addr.AsSlice()
	body = append(body, id[len(id)-4:]...)
	body = append(body, byte(len(caps)+2), 2, byte(len(caps)))
	if _, err = k.conn.Write(message(msgOpen, append(body, caps...))); err == nil {
		_, err = k.conn.Write(message(msgKeepalive, nil))
	}
	for err == nil {
		var kind byte
		if kind, _, err = k.read(5 * time.Second); kind == msgKeepalive && err == nil {
			k.say(k.endOfRIB())
			return nil
		}
	}
	_ = k.conn.Close()
	return err
}

func (k *talker) read(most time.Duration) (kind byte, body []byte, err error) {
	_ = k.conn.SetReadDeadline(time.Now().Add(most))
	head := make([]byte, 19)
	if _, err := io.ReadFull(k.conn, head); err != nil {
		return 0, nil, err
	}
	body = make([]byte, int(binary.BigEndian.Uint16(head[16:]))-19)
	_, err = io.ReadFull(k.conn, body)
	if head[18] == msgNotification {
		return 0, nil, fmt.Errorf("NOTIFICATION %v", body)
	}
	return head[18], body, err
}

func (k *talker) hear() {
	for {
		kind, body, err := k.read(10 * time.Minute)
		k.deaf.Lock()
		k.mu.Lock()
		k.deaf.Unlock()
		k.heard++
		if kind == msgUpdate && err == nil {
			k.apply(body)
		}
		k.ended = err
		k.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// say sends messages.
func (k *talker) say(msgs ...[]byte) {
	k.saying.Lock()
	defer k.saying.Unlock()
	_ = k.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := k.conn.Write(join(msgs...)); err != nil && !k.ending.Load() {
		k.t.Errorf("talker %s: %v", k.addr, err)
	}
}

func (k *talker) endOfRIB() []byte {
	if k.addr.Is6() {
		return updateOf(nil, attribute(0x80, 15, 0, 2, 1), nil)
	}
	return updateOf(nil, nil, nil)
}

func updateOf(withdrawn, attrs, nlri []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn)))
	body = append(body, withdrawn...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(attrs)))
	return message(msgUpdate, append(append(body, attrs...), nlri...))
}

func wire(p netip.Prefix) []byte {
	return append([]byte{byte(p.Bits())}, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
}

// announce is the UPDATE that announces a prefix, through an address of the talker's.
func (k *talker) announce(p netip.Prefix, version uint16, pref uint32, path ...uint32) []byte {
	var seq []byte
	if k.asn != 64512 {
		path = append([]uint32{k.asn}, path...)
	}
	if len(path) > 0 {
		seq = []byte{2, byte(len(path))}
		for _, as := range path {
			seq = binary.BigEndian.AppendUint32(seq, as)
		}
	}
	attrs := join(origin, attribute(0x40, 2, seq...))
	if p.Addr().Is4() {
		attrs = join(attrs, attribute(0x40, 3, k.addr.AsSlice()...))
	}
	if k.asn == 64512 {
		attrs = join(attrs, attribute(0x40, 5, binary.BigEndian.AppendUint32(nil, pref)...))
	}
	if k.looped {
		id := k.us.Addr().AsSlice()
		attrs = join(attrs, attribute(0x80, 10, id[len(id)-4:]...))
	}
	attrs = join(attrs, attribute(0xc0, 8, versionAS>>8, versionAS&0xff, byte(version>>8), byte(version)))
	if p.Addr().Is4() {
		return updateOf(nil, attrs, wire(p))
	}
	reach := append([]byte{0, 2, 1, 16}, k.addr.AsSlice()...)
	return updateOf(nil, join(attrs, attribute(0x80, 14, append(append(reach, 0), wire(p)...)...)), nil)
}

func (k *talker) withdraw(p netip.Prefix) []byte {
	if p.Addr().Is4() {
		return updateOf(wire(p), nil, nil)
	}
	return updateOf(nil, attribute(0x80, 15, append([]byte{0, 2, 1}, wire(p)...)...), nil)
}

// prefixes reads prefixes of the talker's family.
func (k *talker) prefixes(b []byte) (out []netip.Prefix) {
	for len(b) > 0 {
		n := (int(b[0]) + 7) / 8
		var a netip.Addr
		if k.addr.Is4() {
			var raw [4]byte
			copy(raw[:], b[1:1+n])
			a = netip.AddrFrom4(raw)
		} else {
			var raw [16]byte
			copy(raw[:], b[1:1+n])
			a = netip.AddrFrom16(raw)
		}
		out = append(out, netip.PrefixFrom(a, int(b[0])))
		b = b[1+n:]
	}
	return out
}

// apply puts an UPDATE into the table.
func (k *talker) apply(body []byte) {
	n := int(binary.BigEndian.Uint16(body))
	gone, body := k.prefixes(body[2:2+n]), body[2+n:]
	n = int(binary.BigEndian.Uint16(body))
	attrs, come := body[2:2+n], k.prefixes(body[2+n:])
	version := "none"
	var form []string
	for len(attrs) > 0 {
		kind, value, rest := attrs[1], []byte(nil), []byte(nil)
		if attrs[0]&0x10 != 0 {
			l := int(binary.BigEndian.Uint16(attrs[2:]))
			value, rest = attrs[4:4+l], attrs[4+l:]
		} else {
			value, rest = attrs[3:3+int(attrs[2])], attrs[3+int(attrs[2]):]
		}
		attrs = rest
		switch kind {
		case 14:
			hop := int(value[3])
			come = append(come, k.prefixes(value[5+hop:])...)
			value = value[4 : 4+hop]
		case 15:
			gone = append(gone, k.prefixes(value[3:])...)
			continue
		case 8:
			for c := value; len(c) > 0; c = c[4:] {
				if binary.BigEndian.Uint16(c) == versionAS {
					version = fmt.Sprint(binary.BigEndian.Uint16(c[2:]))
				}
			}
		case 32:
			k.odd = append(k.odd, fmt.Sprintf("%v with large communities %x", come, value))
		}
		form = append(form, fmt.Sprintf("%d:%x", kind, value))
	}
	for _, p := range gone {
		delete(k.table, p)
	}
	slices.Sort(form)
	is := strings.Join(form, " ")
	for _, p := range come {
		k.table[p] = version
	}
	if len(come) > 0 && version != "none" {
		if was, ok := k.forms[version]; ok && was != is {
			k.odd = append(k.odd, fmt.Sprintf("version %s was told as %q and as %q", version, was, is))
		}
		k.forms[version] = is
	}
}

// knows returns a copy of the table.
func (k *talker) knows() map[netip.Prefix]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.table)
}

// complaints returns what was told that must not be.
func (k *talker) complaints() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended != nil {
		return append(k.odd, fmt.Sprintf("the session ended: %v", k.ended))
	}
	return k.odd
}

// alive reports whether the session goes on.
func (k *talker) alive() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended == nil
}
