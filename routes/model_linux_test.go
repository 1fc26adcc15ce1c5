package routes

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
)

func TestModelOnTheKernel(t *testing.T) {
	eachSeed(t, 25, func(t *testing.T, seed uint64) {
		for _, byID := range []bool{false, true} {
			t.Run(map[bool]string{false: "inline", true: "objects"}[byID], func(t *testing.T) { modelOnTheKernel(t, seed, byID) })
		}
	})
}

func modelOnTheKernel(t *testing.T, seed uint64, byID bool) {
	r, ns := onKernelNamespace(t)
	r.byID = byID
	w := newWorld(r, seed)
	l := listen(t, ns, w)
	l.learn()
	w.k = &shakyKernel{Kernel: r.k, w: w, rng: rand.New(rand.NewPCG(seed, 1))}
	w.settled, w.silent = l.settled, l.forget
	w.play(5, 25)
	w.stop()
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	if l.heard == 0 && w.p.Stats().Writes > 0 {
		t.Fatalf("the listener has heard nothing of %d writes: nothing was shown", w.p.Stats().Writes)
	}
	t.Logf("%d notifications of the Programmer's writes were held against the rules", l.heard)
}

// shakyKernel is the real kernel with the failures of its socket: broken batches, lost acknowledgements, interrupted dumps.
type shakyKernel struct {
	kernel.Kernel
	w   *world
	mu  sync.Mutex
	rng *rand.Rand
}

func (s *shakyKernel) strikes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.shaky.Load() && s.rng.IntN(4) == 0
}

var errShaken = fmt.Errorf("%w: shaken", kernel.ErrOverflow)

func (s *shakyKernel) WriteRoutes(ctx context.Context, ops []kernel.RouteOp, failed func(int, error)) error {
	if !s.strikes() {
		return s.Kernel.WriteRoutes(ctx, ops, failed)
	}
	s.w.audit.shaken()
	if err := s.Kernel.WriteRoutes(ctx, ops[:len(ops)/2], func(int, error) {}); err != nil {
		return err
	}
	return errShaken
}

func (s *shakyKernel) ListRoutes(ctx context.Context, v6 bool, yield func(*kernel.Route) bool) error {
	if !s.strikes() {
		return s.Kernel.ListRoutes(ctx, v6, yield)
	}
	n := 0
	if err := s.Kernel.ListRoutes(ctx, v6, func(r *kernel.Route) bool { n++; return n < 4 && yield(r) }); err != nil {
		return err
	}
	return kernel.ErrInterrupted
}

func (s *shakyKernel) WriteNeighbours(ctx context.Context, ops []kernel.NeighbourOp, failed func(int, error)) error {
	if !s.strikes() {
		return s.Kernel.WriteNeighbours(ctx, ops, failed)
	}
	if err := s.Kernel.WriteNeighbours(ctx, ops[:len(ops)/2], func(int, error) {}); err != nil {
		return err
	}
	return errShaken
}

// AddAddress is audited, and may fail before or after it was done.
func (s *shakyKernel) AddAddress(ctx context.Context, x kernel.Address) error {
	return s.w.auditAdd(x, func() error { return s.shaken(func() error { return s.Kernel.AddAddress(ctx, x) }) })
}

// DeleteAddress is audited, and may fail before or after it was done.
func (s *shakyKernel) DeleteAddress(ctx context.Context, x kernel.Address) error {
	return s.w.auditDelete(x, func() error { return s.shaken(func() error { return s.Kernel.DeleteAddress(ctx, x) }) })
}

func (s *shakyKernel) shaken(do func() error) error {
	switch before, after := s.strikes(), s.strikes(); {
	case before:
		return errShaken
	case after:
		_ = do()
		return errShaken
	}
	return do()
}

// listener hears every route notification of the namespace, with the port of who caused it.
type listener struct {
	t   *testing.T
	fd  int
	w   *world
	far uint32 // the other program's port; the kernel's own is 0
	// table is the replay of table main: per key who wrote its routes, and how many next hops of ours there are.
	table   map[kernel.RouteKey]*replayed
	heard   int
	markers chan uint32 // ports of notifications about the marker
}

type replayed struct {
	foreign time.Time // since when there is a foreign route; zero = none
	hops    int       // of ours
}

// marker is a route that nobody else writes.
var marker = netip.MustParsePrefix("198.18.7.7/32")

func listen(t *testing.T, ns netns.NS, w *world) *listener {
	t.Helper()
	l := &listener{t: t, w: w, table: map[kernel.RouteKey]*replayed{}, markers: make(chan uint32, 16)}
	err := ns.Do(func() (err error) {
		if l.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		groups := uint32(1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1))
		return unix.Bind(l.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	})
	if err == nil {
		err = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	}
	if err == nil { // so that run can be ended
		err = unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000})
	}
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go l.run(end, ended)
	t.Cleanup(func() { close(end); <-ended; _ = unix.Close(l.fd) })
	return l
}

func (l *listener) run(end, ended chan struct{}) {
	defer close(ended)
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(l.fd, buf, 0)
		select {
		case <-end:
			return
		default:
		}
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			l.t.Errorf("listener: %v", err)
			return
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			l.t.Errorf("listener: %v", err)
			return
		}
		for i := range messages {
			l.message(&messages[i])
		}
	}
}

// mark writes the marker and waits until the listener has heard of it: then it has heard everything before it. It returns the port.
func (l *listener) mark(k kernel.Kernel) uint32 {
	l.t.Helper()
	for _, verb := range []kernel.Verb{kernel.Add, kernel.Delete} {
		r := kernel.Route{Dst: marker, Metric: 77, Type: kernel.Blackhole, Protocol: kernel.ProtoStatic}
		err := k.WriteRoutes(l.t.Context(), []kernel.RouteOp{{Verb: verb, Route: &r}}, func(_ int, err error) { l.t.Error(err) })
		if err != nil {
			l.t.Fatal(err)
		}
	}
	<-l.markers
	return <-l.markers
}

// learn finds out the port of the other program: all others are the Programmer's.
func (l *listener) learn() {
	far := l.mark(l.w.far)
	if far == l.mark(l.w.k) {
		l.t.Fatalf("both write with port %d", far)
	}
	l.w.audit.mu.Lock()
	defer l.w.audit.mu.Unlock()
	l.far = far
}

// settled is called whenever all is quiet: the listener hears everything up to now.
func (l *listener) settled() { l.mark(l.w.far) }

// message holds one notification against the rules.
func (l *listener) message(m *syscall.NetlinkMessage) {
	if m.Header.Type != unix.RTM_NEWROUTE && m.Header.Type != unix.RTM_DELROUTE || len(m.Data) < unix.SizeofRtMsg {
		return
	}
	k, hops, table, byID := routeOf(m)
	if k.Dst == marker {
		l.markers <- m.Header.Pid
		return
	}
	if table != kernel.TableMain {
		return
	}
	protocol, deleted := kernel.Protocol(m.Data[5]), m.Header.Type == unix.RTM_DELROUTE
	replaced := m.Header.Flags&unix.NLM_F_REPLACE != 0 && !deleted
	a := &l.w.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	at := l.table[k]
	if at == nil {
		at = &replayed{}
		l.table[k] = at
	}
	// Where an object is replaced the kernel tells of all routes that lead to it, another program's among them, as if they were replaced.
	follows := byID && replaced && protocol != kernel.ProtoCaracal
	if pid := m.Header.Pid; pid != 0 && pid != l.far && !follows {
		l.heard++
		l.judge(k, at, protocol, deleted, replaced, hops)
	}
	l.fold(k, at, protocol, deleted, replaced, hops)
}

// raceTime is how old a foreign route must be before a write over it is a breach: who slips in just before a write of ours is
// overwritten, as the package's essay says, and this machine may be slow.
const raceTime = 500 * time.Millisecond

func (l *listener) judge(k kernel.RouteKey, at *replayed, protocol kernel.Protocol, deleted, replaced bool, hops int) {
	a := &l.w.audit
	switch {
	case protocol != kernel.ProtoCaracal:
		a.breach("the Programmer wrote or deleted (%v) a route of protocol %s: %v", deleted, protocol, k)
	case replaced && !at.foreign.IsZero() && time.Since(at.foreign) > raceTime:
		a.breach("the Programmer replaced a route under %v, where a foreign one had been for %v", k, time.Since(at.foreign))
	case deleted && a.stay[k] && (k.Dst.Addr().Is4() || at.hops <= hops):
		a.breach("the Programmer deleted %v, which was wanted and reachable all the time", k)
	}
}

func (l *listener) fold(k kernel.RouteKey, at *replayed, protocol kernel.Protocol, deleted, replaced bool, hops int) {
	ours := protocol == kernel.ProtoCaracal
	switch {
	case deleted && ours:
		at.hops = max(0, at.hops-hops)
	case deleted:
		at.foreign = time.Time{}
	case ours:
		at.hops = hops
		if replaced {
			at.foreign = time.Time{}
		}
	default:
		if at.foreign.IsZero() {
			at.foreign = time.Now()
		}
		if replaced {
			at.hops = 0
		}
	}
}

// routeOf reads the key, the number of next hops and the table of a route message.
func routeOf(m *syscall.NetlinkMessage) (k kernel.RouteKey, hops int, table uint32, byID bool) {
	rtm := m.Data
	k.TOS = rtm[3]
	addr := netip.IPv4Unspecified()
	hops, table = 1, uint32(rtm[4])
	if rtm[0] == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		panic(err)
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_PRIORITY:
			k.Metric = binary.NativeEndian.Uint32(a.Value)
		case 30: // RTA_NH_ID
			byID = true
		case unix.RTA_TABLE:
			table = binary.NativeEndian.Uint32(a.Value)
		case unix.RTA_MULTIPATH:
			hops = 0
			for v := a.Value; len(v) >= unix.SizeofRtNexthop; hops++ {
				v = v[min(len(v), (int(binary.NativeEndian.Uint16(v))+3)&^3):]
			}
		}
	}
	k.Dst = netip.PrefixFrom(addr, int(rtm[1]))
	return k, hops, table, byID
}

// forget drops what the kernel may have dropped without a word.
func (l *listener) forget() {
	for _, at := range l.table {
		at.foreign = time.Time{}
	}
}

func (s *shakyKernel) WriteNexthops(ctx context.Context, ops []kernel.NexthopOp, failed func(int, error)) error {
	if !s.strikes() {
		return s.Kernel.WriteNexthops(ctx, ops, failed)
	}
	s.w.audit.shaken()
	if err := s.Kernel.WriteNexthops(ctx, ops[:len(ops)/2], func(int, error) {}); err != nil {
		return err
	}
	return errShaken
}

func (s *shakyKernel) ListNexthops(ctx context.Context, yield func(*kernel.Nexthop) bool) error {
	if !s.strikes() {
		return s.Kernel.ListNexthops(ctx, yield)
	}
	n := 0
	if err := s.Kernel.ListNexthops(ctx, func(o *kernel.Nexthop) bool { n++; return n < 3 && yield(o) }); err != nil {
		return err
	}
	return kernel.ErrInterrupted
}
