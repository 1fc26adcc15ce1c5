package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/netns"
)

// Endpoint is one address that probes are sent from and to.
type Endpoint struct {
	Name string // of the workload
	Node string
	NS   netns.NS
	Addr netip.Addr
}

// Pair is one direction of probing: From sends echo requests to To. The reply crosses the other way, so one
// pair in either order tests both.
type Pair struct{ From, To *Endpoint }

// ProbeOptions say how to probe. The zero value of each field means its default.
type ProbeOptions struct {
	Interval time.Duration // between two probes of a pair; default 10 ms, more where maxRate asks for it
	Size     int           // of the whole IP packet, bytes; default the smallest; never fragmented
	Once     bool          // send nothing more to a pair that has answered
}

const (
	defaultInterval = 10 * time.Millisecond
	maxRate         = 4000                // probes a second over all pairs: more would measure the prober
	payloadSize     = 4 + 4 + 8           // pair, sequence, time sent
	lateAfter       = 2 * time.Second     // an answer later than this after the last probe counts as lost
	echo4, echo6    = byte(8), byte(0x80) // ICMP echo request (RFC 792), ICMPv6 echo request (RFC 4443 section 4.1)
)

// Prober sends echo requests for its pairs at a constant rate from Start to Stop.
type Prober struct {
	opts    ProbeOptions
	began   time.Time
	sockets map[*Endpoint]*net.UDPConn
	pairs   []*pairProbe
	ticks   []time.Duration // when each sequence number was sent, since began; the sender's until done
	stop    context.CancelFunc
	sender  sync.WaitGroup
	readers sync.WaitGroup
}

// pairProbe counts one pair. The answers are the reader's of its From socket.
type pairProbe struct {
	Pair
	sent     atomic.Uint32
	answered atomic.Uint32
	mu       sync.Mutex
	got      []bool // by sequence number
	skipped  []bool // by sequence number, Once only
	twice    int
	rttMin   time.Duration
	rttSum   time.Duration
}

// StartProbe opens a socket for each endpoint in its own namespace and begins to send. Stop must be called.
func StartProbe(pairs []Pair, opts ProbeOptions) (*Prober, error) {
	if len(pairs) == 0 {
		return nil, errors.New("probe: no pairs")
	}
	if opts.Interval == 0 {
		opts.Interval = defaultInterval
	}
	if least := time.Duration(len(pairs)) * time.Second / maxRate; opts.Interval < least {
		opts.Interval = least
	}
	p := &Prober{opts: opts, began: time.Now(), sockets: map[*Endpoint]*net.UDPConn{}}
	for _, pair := range pairs {
		if p.sockets[pair.From] == nil {
			conn, err := pingSocket(pair.From, opts.Size > 0)
			if err != nil {
				p.close()
				return nil, err
			}
			p.sockets[pair.From] = conn
		}
		p.pairs = append(p.pairs, &pairProbe{Pair: pair})
	}
	for from, conn := range p.sockets {
		p.readers.Go(func() { p.read(from, conn) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.sender.Go(func() { p.send(ctx) })
	return p, nil
}

// pingSocket opens an unprivileged ICMP socket (ping(7)): the kernel answers requests, picks the identifier, and gives the socket
// only the replies to it.
func pingSocket(e *Endpoint, dontFragment bool) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := e.NS.Do(func() error {
		domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
		var bind unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{}}
		if e.Addr.Is6() {
			domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
			bind = &unix.SockaddrInet6{Addr: e.Addr.As16()}
		} else {
			bind = &unix.SockaddrInet4{Addr: e.Addr.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			return fmt.Errorf("ICMP socket: %w", err)
		}
		f := os.NewFile(uintptr(fd), e.Name)
		defer func() { _ = f.Close() }()
		if dontFragment {
			// IP_PMTUDISC_PROBE: set DF and ignore what path MTU is known, so that every probe is sent as asked.
			if e.Addr.Is6() {
				err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			} else {
				err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}
			if err != nil {
				return fmt.Errorf("forbid fragments: %w", err)
			}
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) // a full buffer would count as loss
		if err := unix.Bind(fd, bind); err != nil {
			return fmt.Errorf("bind %s: %w", e.Addr, err)
		}
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		conn = pc.(*net.UDPConn)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("probe from %s: %w", e.Name, err)
	}
	return conn, nil
}

// send is the sender's goroutine: one probe for every pair at each tick.
func (p *Prober) send(ctx context.Context) {
	tick := time.NewTicker(p.opts.Interval)
	defer tick.Stop()
	buf := make([]byte, max(8+payloadSize, p.opts.Size-20))
	for seq := uint32(0); ; seq++ {
		p.ticks = append(p.ticks, time.Since(p.began))
		for i, pp := range p.pairs {
			p.sendOne(pp, uint32(i), seq, buf)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Prober) sendOne(pp *pairProbe, index, seq uint32, buf []byte) {
	pp.mu.Lock()
	skip := p.opts.Once && pp.answered.Load() > 0
	pp.got, pp.skipped = append(pp.got, false), append(pp.skipped, skip)
	pp.mu.Unlock()
	if skip {
		return
	}
	packet := buf
	buf[0] = echo4
	if pp.To.Addr.Is6() {
		buf[0] = echo6
		if p.opts.Size > 0 {
			packet = buf[:max(8+payloadSize, p.opts.Size-40)]
		}
	}
	binary.BigEndian.PutUint16(buf[6:], uint16(seq))
	binary.BigEndian.PutUint32(buf[8:], index)
	binary.BigEndian.PutUint32(buf[12:], seq)
	binary.BigEndian.PutUint64(buf[16:], uint64(time.Since(p.began)))
	// A probe the kernel refuses (no route) is a lost probe; an earlier one's ICMP error is reported here too
	// and clears, so one more try tells them apart.
	to := netip.AddrPortFrom(pp.To.Addr, 0)
	if _, err := p.sockets[pp.From].WriteToUDPAddrPort(packet, to); err != nil {
		_, _ = p.sockets[pp.From].WriteToUDPAddrPort(packet, to)
	}
	pp.sent.Add(1)
}

// read is a reader's goroutine: it ends when its socket is closed.
func (p *Prober) read(from *Endpoint, conn *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8+payloadSize {
			continue // an ICMP error of an earlier probe: that probe stays unanswered
		}
		index, seq := binary.BigEndian.Uint32(buf[8:]), binary.BigEndian.Uint32(buf[12:])
		if int(index) >= len(p.pairs) || p.pairs[index].From != from {
			continue
		}
		p.pairs[index].answer(seq, time.Since(p.began)-time.Duration(binary.BigEndian.Uint64(buf[16:])))
	}
}

func (pp *pairProbe) answer(seq uint32, rtt time.Duration) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	switch {
	case int(seq) >= len(pp.got):
		return
	case pp.got[seq]:
		pp.twice++
		return
	}
	pp.got[seq] = true
	pp.rttSum += rtt
	if pp.rttMin == 0 || rtt < pp.rttMin {
		pp.rttMin = rtt
	}
	pp.answered.Add(1)
}

// Unanswered returns the pairs that have never answered.
func (p *Prober) Unanswered() []Pair {
	var out []Pair
	for _, pp := range p.pairs {
		if pp.answered.Load() == 0 {
			out = append(out, pp.Pair)
		}
	}
	return out
}

// Stop ends the sending, waits for answers under way, closes the sockets and returns the count.
func (p *Prober) Stop() *ProbeReport {
	p.stop()
	p.sender.Wait()
	lasted := time.Since(p.began)
	for deadline := time.Now().Add(lateAfter); time.Now().Before(deadline) && !p.drained(); {
		time.Sleep(time.Millisecond)
	}
	p.close()
	r := &ProbeReport{Interval: p.opts.Interval, Lasted: lasted}
	for _, pp := range p.pairs {
		r.Pairs = append(r.Pairs, pp.report(p.ticks))
	}
	return r
}

// drained reports whether every pair has answered its last probe; what has not come before that one is taken for lost.
func (p *Prober) drained() bool {
	for _, pp := range p.pairs {
		pp.mu.Lock()
		last := len(pp.got) - 1
		done := last < 0 || pp.got[last] || pp.skipped[last]
		pp.mu.Unlock()
		if !done {
			return false
		}
	}
	return true
}

func (p *Prober) close() {
	for _, c := range p.sockets {
		_ = c.Close()
	}
	p.readers.Wait()
}

// Pairs returns each pair of endpoints of one family, in one of its two directions.
func Pairs(eps []*Endpoint) []Pair { return pairsOf(eps, false) }

// pairsOf returns the pairs of endpoints of one family each; ordered gives both directions, else one of the two.
func pairsOf(eps []*Endpoint, ordered bool) []Pair {
	var out []Pair
	for i, a := range eps {
		for j, b := range eps {
			if i == j || !ordered && j < i || cluster.FamilyOf(a.Addr) != cluster.FamilyOf(b.Addr) {
				continue
			}
			out = append(out, Pair{a, b})
		}
	}
	return out
}
