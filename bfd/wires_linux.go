package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	portSingleHop = 3784 // RFC 5881 section 4
	portMultihop  = 4784 // RFC 5883 section 5
	// The source ports of sessions (RFC 5881 section 4).
	sourceLow, sourceHigh = 49152, 65535
	ttl                   = 255  // sent always, and asked for on one hop (RFC 5881 section 5)
	trafficClass          = 0xc0 // network control, as routing protocols have it (RFC 4594 section 3.1)
	listenRetry           = 2 * time.Second
	readSize              = 128 // a packet with any authentication is shorter
)

// kind is which of the four listening sockets a session's packets come to.
type kind struct{ v6, multihop bool }

func kindOf(p *Peer) kind { return kind{p.Addr.Is6(), p.Multihop} }

func (k kind) port() uint16 {
	if k.multihop {
		return portMultihop
	}
	return portSingleHop
}

func (k kind) network() string {
	if k.v6 {
		return "udp6"
	}
	return "udp4"
}

// wires are the listening sockets. Each has a goroutine, which opens the socket, tries again while that fails, and reads until the end.
type wires struct {
	ctx      context.Context
	log      *slog.Logger
	in       func(func() error) error
	deliver  func(arrival)
	mu       sync.Mutex
	faults   map[kind]error // has every kind that is listened on, nil once it works
	conns    map[kind]syscall.RawConn
	routines sync.WaitGroup
}

func newWires(ctx context.Context, opts *Options, deliver func(arrival)) *wires {
	return &wires{ctx: ctx, log: opts.Log, in: opts.In, deliver: deliver, faults: map[kind]error{}, conns: map[kind]syscall.RawConn{}}
}

// listen makes packets of a kind come in, from now on until the end.
func (w *wires) listen(k kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, already := w.faults[k]; already {
		return
	}
	w.faults[k] = nil
	w.routines.Go(func() { w.serve(k) })
}

// fault returns why packets of a kind do not come in.
func (w *wires) fault(k kind) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults[k]
}

func (w *wires) serve(k kind) {
	for w.ctx.Err() == nil {
		conn, err := w.open(k)
		if err == nil {
			w.note(k, nil)
			w.keep(k, conn)
			unhook := context.AfterFunc(w.ctx, func() { _ = conn.Close() })
			err = fmt.Errorf("read BFD packets on UDP port %d: %w", k.port(), w.read(conn, k))
			unhook()
			_ = conn.Close()
		}
		if w.ctx.Err() == nil {
			w.note(k, err)
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(listenRetry):
		}
	}
}

// keep remembers a socket for waiting.
func (w *wires) keep(k kind, conn *net.UDPConn) {
	if c, err := conn.SyscallConn(); err == nil {
		w.mu.Lock()
		w.conns[k] = c
		w.mu.Unlock()
	}
}

// waiting reports whether packets of a kind have come that are not read yet.
func (w *wires) waiting(k kind) (yes bool) {
	w.mu.Lock()
	c := w.conns[k]
	w.mu.Unlock()
	if c == nil {
		return false
	}
	_ = c.Control(func(fd uintptr) { // does not once the socket is closed
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		yes = err == nil && n > 0
	})
	return yes
}

// note keeps a fault for Status and logs it once.
func (w *wires) note(k kind, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was := w.faults[k]; err != nil && (was == nil || was.Error() != err.Error()) {
		w.log.Error("BFD packets are not received, trying again", keyError, err)
	}
	w.faults[k] = err
}

func (w *wires) open(k kind) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			if k.v6 {
				return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
			}
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
		})
	}}
	var conn net.PacketConn
	err := w.in(func() (err error) {
		conn, err = lc.ListenPacket(w.ctx, k.network(), fmt.Sprintf(":%d", k.port()))
		return err
	})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen for BFD on UDP port %d: another program has it, perhaps BIRD or FRR's bfdd: stop that one or take BFD from our peers: %w", k.port(), err)
	case err != nil:
		return nil, fmt.Errorf("listen for BFD on UDP port %d: %w", k.port(), err)
	}
	return conn.(*net.UDPConn), nil
}

// read hands on what comes until the socket fails or is closed.
func (w *wires) read(conn *net.UDPConn, k kind) error {
	buf, oob := make([]byte, readSize), make([]byte, readSize)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return err
		}
		a := arrival{from: from.Addr().Unmap(), multihop: k.multihop}
		if h := hops(oob[:oobn]); !k.multihop && h != ttl { // from farther than this network, or forged there (RFC 5881 section 5)
			a.why = fmt.Errorf("they come with TTL %d, not 255, from farther than this network: use hops=multihop at both ends", h)
		} else {
			a.packet, a.why = parse(buf[:n])
		}
		w.deliver(a)
	}
}

// hops returns the TTL or hop limit a packet came with, -1 if the kernel did not say.
func hops(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT
		if (v4 || v6) && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return -1
}

// close waits for the goroutines, after the context has ended.
func (w *wires) close() { w.routines.Wait() }

// line is the sending socket of one session; it is opened when it is needed. It is not connected, so that the kernel chooses the source
// anew for each packet where nothing says what it is.
type line struct {
	local, remote netip.Addr
	port          uint16
	source        uint16 // port, the same for all the session's packets (RFC 5881 section 4); 0 until it has one
	in            func(func() error) error
	conn          *net.UDPConn
	buf           []byte
}

func (l *line) send(p *packet) error {
	if l.conn == nil {
		if err := l.in(l.open); err != nil {
			return err
		}
	}
	l.buf = p.append(l.buf[:0])
	_, err := l.conn.WriteToUDPAddrPort(l.buf, netip.AddrPortFrom(l.remote, l.port))
	if err != nil {
		l.close() // the address or the way may have changed
	}
	return err
}

// open takes the session's port again, or tries a few of the many: one may be another session's.
func (l *line) open() error {
	from, err := l.from()
	if err != nil {
		return err
	}
	lc := net.ListenConfig{Control: l.mark}
	for range 16 {
		if l.source < sourceLow {
			l.source = uint16(sourceLow + rand.IntN(sourceHigh-sourceLow+1))
		}
		var conn net.PacketConn
		if conn, err = lc.ListenPacket(context.Background(), kind{v6: l.remote.Is6()}.network(), netip.AddrPortFrom(from, l.source).String()); err == nil {
			l.conn = conn.(*net.UDPConn)
			return nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		l.source = 0
	}
	return fmt.Errorf("send BFD packets from %s: %w", from, err)
}

// from is the address to bind to. Left to itself the kernel sends from a global address to a link-local one while the interface's own
// is still tentative (RFC 4862 section 5.4), and the peer would take the packets for another session's.
func (l *line) from() (netip.Addr, error) {
	switch {
	case l.local.IsValid():
		return l.local, nil
	case l.remote.Is4():
		return netip.IPv4Unspecified(), nil
	case !l.remote.IsLinkLocalUnicast():
		return netip.IPv6Unspecified(), nil
	}
	ifi, err := net.InterfaceByName(l.remote.Zone())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("send BFD packets on %s: %w", l.remote.Zone(), err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("send BFD packets on %s: %w", l.remote.Zone(), err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			return p.Addr().WithZone(l.remote.Zone()), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("send BFD packets on %s: it has no link-local address; set addr_gen_mode or give it one", l.remote.Zone())
}

// mark sets what every packet is sent with.
func (l *line) mark(_, _ string, c syscall.RawConn) error {
	return control(c, func(fd int) error {
		if l.remote.Is6() {
			return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl),
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, trafficClass))
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, ttl), unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, trafficClass))
	})
}

func (l *line) close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

// control runs f with a socket's descriptor.
func control(c syscall.RawConn, f func(fd int) error) error {
	var ferr error
	err := c.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}
