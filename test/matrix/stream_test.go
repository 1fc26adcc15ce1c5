package matrix

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Each workload sends to each other one of its pool, all the time, from and to this port, and at this pace if nothing else is said.
const (
	streamPace = 10 * time.Millisecond
	streamPort = 7008
)

// flow is the packets of one workload to another.
type flow struct {
	from, to netip.Addr
	pace     time.Duration
	sent     atomic.Int64

	mu   sync.Mutex
	got  int64
	last time.Time // when the last one came
	gaps []string  // what is missing before others
}

// stream sends from the workloads of these members to every other one from now on. lost ends that and tells what did not arrive.
func (m *mixed) stream(from ...*member) (lost func() string) {
	m.t.Helper()
	var flows []*flow
	type socket struct {
		*net.UDPConn
		first, end int // its flows
	}
	var sockets []socket
	for _, x := range m.members {
		for i, at := range x.workloads() {
			s := socket{UDPConn: m.streamSocket(x, at), first: len(flows)}
			for _, y := range m.members {
				if y != x && slices.Contains(from, x) {
					flows = append(flows, &flow{from: at, to: y.workloads()[i], pace: m.pace, last: time.Now()})
				}
			}
			s.end = len(flows)
			sockets = append(sockets, s)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sending, receiving sync.WaitGroup
	for _, s := range sockets {
		receiving.Go(func() { receive(s.UDPConn, flows) })
	}
	for _, s := range sockets {
		sending.Go(func() { send(ctx, s.UDPConn, m.pace, flows[s.first:s.end], s.first) })
	}
	end := sync.OnceFunc(func() {
		cancel()
		sending.Wait()
	})
	m.t.Cleanup(func() {
		end()
		for _, s := range sockets {
			_ = s.Close()
		}
		receiving.Wait()
	})
	return func() string {
		end()
		for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(m.pace) { // what is on its way arrives
			if what := missing(flows); what == "" || time.Now().After(deadline) {
				return what
			}
		}
	}
}

func (m *mixed) streamSocket(x *member, at netip.Addr) *net.UDPConn {
	m.t.Helper()
	var conn *net.UDPConn
	must(m.t, x.ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, streamPort)))
		if err != nil {
			return err
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		return raw.Control(roomFor)
	}))
	return conn
}

// roomFor makes room in a socket for a receiver that has to wait for a processor, in octets.
func roomFor(fd uintptr) {
	const room = 8 << 20
	_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room)
}

// send sends one packet of each of some flows at each tick: the flow's number, which is first for the first, and the packet's in it.
func send(ctx context.Context, conn *net.UDPConn, pace time.Duration, flows []*flow, first int) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		for i, f := range flows {
			packet := binary.BigEndian.AppendUint32([]byte{byte(first + i)}, uint32(f.sent.Add(1)))
			_, _ = conn.WriteToUDPAddrPort(packet, netip.AddrPortFrom(f.to, streamPort)) // a refusal is a loss like any other
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func receive(conn *net.UDPConn, flows []*flow) {
	buf := make([]byte, 8)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if n == 5 && int(buf[0]) < len(flows) {
			flows[buf[0]].came(int64(binary.BigEndian.Uint32(buf[1:])))
		}
	}
}

// came files a packet. None overtakes another on a way without choices; where one does, that counts as a gap in what is told, not as a loss.
func (f *flow) came(number int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.got++
	if number > f.got+int64(len(f.gaps)) && now.Sub(f.last) > 2*f.pace {
		f.gaps = append(f.gaps, fmt.Sprintf("none from %s for %v", f.last.UTC().Format("15:04:05.000"), now.Sub(f.last).Round(time.Millisecond)))
	}
	f.last = now
}

func missing(flows []*flow) string {
	var b strings.Builder
	for _, f := range flows {
		f.mu.Lock()
		if sent := f.sent.Load(); sent != f.got {
			fmt.Fprintf(&b, "\n%s to %s: %d of %d %v", f.from, f.to, sent-f.got, sent, f.gaps)
		}
		f.mu.Unlock()
	}
	return b.String()
}
