package matrix

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// wire listens where the nodes are plugged in, and keeps in which forms the packets of the stream leave each of them.
type wire struct {
	fd     int
	ports  map[int]bool // interface indexes
	ending atomic.Bool
	done   sync.WaitGroup

	mu   sync.Mutex
	seen map[[2]netip.Addr]map[string]int // by the workloads from and to which a packet is
	err  error
}

// listen begins that; it ends with the test.
func (m *mixed) listen() {
	m.t.Helper()
	w := &wire{ports: map[int]bool{}, seen: map[[2]netip.Addr]map[string]int{}}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	must(m.t, m.network.Do(func() (err error) {
		for i := range m.members {
			port, err := net.InterfaceByName(fmt.Sprintf("port%d", i))
			if err != nil {
				return err
			}
			w.ports[port.Index] = true
		}
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	}))
	w.done.Go(w.read)
	m.t.Cleanup(func() {
		w.ending.Store(true)
		w.done.Wait()
		must(m.t, unix.Close(w.fd))
	})
	m.wire = w
}

func (w *wire) read() {
	buf := make([]byte, 256) // headers are enough
	for !w.ending.Load() {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		w.mu.Lock()
		if err != nil {
			w.err = err
			w.mu.Unlock()
			return
		}
		if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype != unix.PACKET_OUTGOING && w.ports[at.Ifindex] {
			if ends, form, ok := formOf(buf[:n]); ok {
				if w.seen[ends] == nil {
					w.seen[ends] = map[string]int{}
				}
				w.seen[ends][form]++
			}
		}
		w.mu.Unlock()
	}
}

// formOf finds a packet of the stream, and tells what it is in: IPIP (RFC 2003), VXLAN (RFC 7348), with the outer addresses, or nothing.
func formOf(b []byte) (ends [2]netip.Addr, form string, ok bool) {
	outer, proto, rest, ok := header(b)
	if !ok {
		return ends, "", false
	}
	between := fmt.Sprintf("%s>%s", outer[0], outer[1])
	switch {
	case proto == unix.IPPROTO_IPIP:
		ends, proto, rest, ok = header(rest)
		form = "IPIP " + between
	case proto == unix.IPPROTO_UDP && len(rest) > 30 && binary.BigEndian.Uint16(rest[2:]) == 4789:
		ends, proto, rest, ok = header(rest[8+8+14:]) // UDP, VXLAN, Ethernet
		form = "VXLAN " + between
	default:
		ends, form = outer, "plain"
	}
	return ends, form, ok && proto == unix.IPPROTO_UDP && len(rest) > 4 && binary.BigEndian.Uint16(rest[2:]) == streamPort
}

// header reads an IP header.
func header(b []byte) (ends [2]netip.Addr, proto byte, rest []byte, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4 && len(b) >= int(b[0]&15)*4:
		return [2]netip.Addr{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))}, b[9], b[int(b[0]&15)*4:], true
	case len(b) >= 40 && b[0]>>4 == 6:
		return [2]netip.Addr{netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))}, b[6], b[40:], true
	}
	return ends, 0, nil, false
}

// flowing waits until packets of every flow between two members were seen from now on, in the form that is theirs. None may ever have had another.
func (w *wire) flowing(m *mixed) {
	m.t.Helper()
	before := w.counts(m)
	eventually(m.t, "packets on the wire", func(context.Context) error {
		for ends, n := range w.counts(m) {
			if n == before[ends] {
				return errors.Join(fmt.Errorf("none from %s to %s", ends[0], ends[1]), w.failed())
			}
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	must(m.t, w.err)
	for ends, forms := range w.seen {
		if x, y, p := m.ends(ends); p == nil || len(forms) != 1 || forms[m.form(x, y, p)] == 0 {
			m.t.Errorf("packets from %s to %s were seen as %v", ends[0], ends[1], forms)
			delete(w.seen, ends)
		}
	}
}

func (w *wire) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// counts is how many packets of each flow were seen in its form.
func (w *wire) counts(m *mixed) map[[2]netip.Addr]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[[2]netip.Addr]int)
	for _, x := range m.members {
		for _, y := range m.members {
			for i := range m.pools {
				if x != y {
					ends := [2]netip.Addr{x.workloads()[i], y.workloads()[i]}
					out[ends] = w.seen[ends][m.form(x, y, &m.pools[i])]
				}
			}
		}
	}
	return out
}

// ends finds the members and the pool of a flow.
func (m *mixed) ends(of [2]netip.Addr) (x, y *member, p *pool) {
	for i := range m.pools {
		for _, z := range m.members {
			if z.workloads()[i] == of[0] {
				x, p = z, &m.pools[i]
			}
			if z.workloads()[i] == of[1] {
				y = z
			}
		}
	}
	if x == nil || y == nil {
		p = nil
	}
	return x, y, p
}

// form is in what packets of a pool leave x for y.
func (m *mixed) form(x, y *member, p *pool) string {
	between := fmt.Sprintf("%s>%s", x.addrs[0], y.addrs[0])
	switch h, _ := m.hop(x, y, p); h.dev {
	case "tunl0":
		return "IPIP " + between
	case "vxlan.calico":
		return "VXLAN " + between
	}
	return "plain"
}
