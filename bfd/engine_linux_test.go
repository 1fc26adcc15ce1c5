package bfd

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

const patience = 10 * time.Second

// rig is three namespaces in a row: two hosts on one network, and a third behind the second.
type rig struct{ a, b, far netns.NS }

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{need.Namespace(t), need.Namespace(t), need.Namespace(t)}
	run(t, r.a, "link add name eth0 type veth peer name eth0 netns "+r.b.Name)
	run(t, r.b, "link add name eth1 type veth peer name eth0 netns "+r.far.Name)
	for i, end := range []struct {
		ns  netns.NS
		dev string
		net int
	}{{r.a, "eth0", 0}, {r.b, "eth0", 0}, {r.b, "eth1", 1}, {r.far, "eth0", 1}} {
		run(t, end.ns, fmt.Sprintf("address add 192.0.%d.%d/24 dev %s", 2+end.net, i+1, end.dev))
		run(t, end.ns, fmt.Sprintf("address add 2001:db8:%d::%d/64 dev %s nodad", end.net, i+1, end.dev))
		run(t, end.ns, "link set "+end.dev+" up")
	}
	for _, family := range []string{"-4", "-6"} {
		gw := map[string][2]string{"-4": {"192.0.2.2", "192.0.3.3"}, "-6": {"2001:db8::2", "2001:db8:1::3"}}[family]
		run(t, r.a, family+" route add default via "+gw[0])
		run(t, r.far, family+" route add default via "+gw[1])
	}
	if _, err := r.b.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"); err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t *testing.T, ns netns.NS, line string) {
	t.Helper()
	if out, err := ns.Run("ip", strings.Fields(line)...); err != nil {
		t.Fatal(err, out)
	}
}

// node is an Engine in a namespace and what it has told.
type node struct {
	*Engine
	mu      sync.Mutex
	changes []Change
	at      []time.Time
}

func open(t *testing.T, ns netns.NS, state string, peers ...Peer) *node {
	t.Helper()
	n := &node{}
	n.Engine = New(Options{In: ns.Do, State: state, Changed: func(c Change) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changes, n.at = append(n.changes, c), append(n.at, time.Now())
	}})
	t.Cleanup(n.Close)
	if err := n.Set(peers); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) told() (changes []Change, at []time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Change(nil), n.changes...), append([]time.Time(nil), n.at...)
}

func peer(addr string, multihop bool) Peer {
	return Peer{Addr: netip.MustParseAddr(addr), Multihop: multihop, Timing: DefaultTiming()}
}

func eventually(t *testing.T, what string, ok func() bool, nodes ...*node) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			for _, n := range nodes {
				for _, st := range n.Status() {
					t.Logf("%+v", st)
				}
			}
			t.Fatalf("after %v: %s", patience, what)
		}
	}
}

// settled: every session is up, at the pace asked for.
func settled(t *testing.T, nodes ...*node) {
	t.Helper()
	eventually(t, "sessions are not all up at their pace", func() bool {
		for _, n := range nodes {
			for _, st := range n.Status() {
				if st.State != Up || st.Detection != ms(150) {
					return false
				}
			}
		}
		return true
	}, nodes...)
}

// TestRealWire: both families, one hop and several, link-local; a cut is seen by all ends, and the link's return.
func TestRealWire(t *testing.T) {
	r := newRig(t)
	var local string
	eventually(t, "no link-local address", func() bool {
		out, _ := r.b.Run("ip", "-6", "-br", "address", "show", "dev", "eth0", "scope", "link", "-tentative")
		fields := strings.Fields(out)
		if len(fields) > 2 {
			local, _, _ = strings.Cut(fields[2], "/")
		}
		return local != ""
	})
	localA := ""
	eventually(t, "no link-local address", func() bool {
		out, _ := r.a.Run("ip", "-6", "-br", "address", "show", "dev", "eth0", "scope", "link", "-tentative")
		if fields := strings.Fields(out); len(fields) > 2 {
			localA, _, _ = strings.Cut(fields[2], "/")
		}
		return localA != ""
	})
	a := open(t, r.a, "", peer("192.0.2.2", false), peer("2001:db8::2", false), peer("192.0.3.4", true), peer("2001:db8:1::4", true), peer(local+"%eth0", false))
	b := open(t, r.b, "", peer("192.0.2.1", false), peer("2001:db8::1", false), peer(localA+"%eth0", false))
	far := open(t, r.far, "", peer("192.0.2.1", true), peer("2001:db8::1", true))
	settled(t, a, b, far)

	cut := time.Now()
	run(t, r.b, "link set eth0 down")
	eventually(t, "a dead path is not seen", func() bool {
		changes, _ := far.told()
		downs := 0
		for _, st := range append(append(a.Status(), b.Status()...), far.Status()...) {
			if st.State != Up {
				downs++
			}
		}
		return downs == 10 && len(changes) == 4
	})
	changes, at := far.told()
	t.Logf("the far end saw it after %v", at[len(at)-1].Sub(cut).Round(time.Millisecond))
	if c := changes[len(changes)-1]; c.From != Up || c.Diag != DetectionTimeExpired || !c.Resumable {
		t.Errorf("told %+v", c)
	}
	run(t, r.b, "link set eth0 up")
	run(t, r.b, "address replace 2001:db8::2/64 dev eth0 nodad") // IPv6 addresses go with the link
	settled(t, a, b, far)
}

// TestSetLeavesOthersAlone: sessions come, go and change pace beside one that is never disturbed.
func TestSetLeavesOthersAlone(t *testing.T) {
	r := newRig(t)
	a := open(t, r.a, "", peer("192.0.2.2", false))
	b := open(t, r.b, "", peer("192.0.2.1", false), peer("2001:db8::1", false))
	settled(t, a)
	for i := range 4 {
		fast := peer("192.0.2.2", false)
		fast.MinTx, fast.MinRx = ms(20+10*i), ms(30+10*i)
		set := []Peer{fast}
		if i%2 == 0 {
			set = append(set, peer("2001:db8::2", false))
		}
		if err := a.Set(set); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other session is not as asked for", func() bool {
			st := b.Status()
			return st[0].State == Up && st[0].Detection == 3*max(ms(50), fast.MinTx) && (st[1].State == Up) == (i%2 == 0)
		})
	}
	for _, st := range b.Status() {
		if st.Addr.Is4() && st.Downs != 0 {
			t.Errorf("the session with %s went down %d times", st.Addr, st.Downs)
		}
		if st.Addr.Is6() && (st.Downs != 2 || st.Diag != NeighborSignaledDown) {
			t.Errorf("the session that was taken away twice went down %d times, last for %v", st.Downs, st.Diag)
		}
	}
}

// TestRestart: a planned restart is not seen by the peer; an end without warning is, within the detection time.
func TestRestart(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "state", "bfd.json")
	b := open(t, r.b, "", peer("192.0.2.1", false), peer("2001:db8::1", false))
	a := open(t, r.a, file, peer("192.0.2.2", false), peer("2001:db8::2", false))
	for range 3 {
		settled(t, a, b)
		began := time.Now()
		if err := a.Handover(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("handed over in %v", time.Since(began).Round(time.Millisecond))
		quiet := time.NewTimer(ms(400)) // longer than the detection time without the handover: the peers must have been told
		<-quiet.C
		a = open(t, r.a, file, peer("192.0.2.2", false), peer("2001:db8::2", false))
	}
	settled(t, a, b)
	for _, st := range b.Status() {
		if st.Downs != 0 {
			t.Errorf("the session with %s went down %d times: %v", st.Addr, st.Downs, st.Diag)
		}
	}
	a.Close()
	eventually(t, "the end is not noticed", func() bool { return b.Status()[0].State == Down && b.Status()[1].RemoteState == AdminDown })
}

// TestPredecessor: a process that starts while the one before it still runs goes on with the sessions that one hands over later.
func TestPredecessor(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "bfd.json")
	b := open(t, r.b, "", peer("192.0.2.1", false))
	was := open(t, r.a, file, peer("192.0.2.2", false))
	settled(t, was, b)
	next := New(Options{In: r.a.Do, State: file})
	defer next.Close()
	if err := was.Handover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := next.Set([]Peer{peer("192.0.2.2", false)}); err != nil {
		t.Fatal(err)
	}
	settled(t, &node{Engine: next}, b)
	if st := b.Status()[0]; st.Downs != 0 {
		t.Errorf("the peer saw it: %+v", st)
	}
}

// TestSourcePort: all packets of a session come from one port, those too that nobody answers, and those of the next process
// (RFC 5881 section 4).
func TestSourcePort(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "bfd.json")
	var conn net.PacketConn
	if err := r.b.Do(func() (err error) { conn, err = net.ListenPacket("udp4", "192.0.2.2:3784"); return err }); err != nil {
		t.Fatal(err)
	}
	a := open(t, r.a, file, peer("192.0.2.2", false))
	heard := map[string]int{}
	for range 4 { // one a second, to somebody who does not answer
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, from, err := conn.ReadFrom(make([]byte, 64))
		if err != nil {
			t.Fatal(err)
		}
		heard[from.String()]++
	}
	_ = conn.Close()
	b := open(t, r.b, "", peer("192.0.2.1", false))
	settled(t, a, b)
	if err := a.Handover(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := r.b.Do(func() (err error) { conn, err = net.ListenPacket("udp4", "192.0.2.2:3784"); return err }); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	open(t, r.a, file, peer("192.0.2.2", false))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, from, err := conn.ReadFrom(make([]byte, 64)); err != nil {
		t.Fatal(err)
	} else if heard[from.String()]++; len(heard) != 1 {
		t.Errorf("packets come from %v", heard)
	}
}

// TestMute: a session that does not come up says why, and what to do.
func TestMute(t *testing.T) {
	r := newRig(t)
	a := open(t, r.a, "", peer("192.0.3.4", false), peer("192.0.2.2", false), peer("2001:db8::2", true)) // the first is behind a router, the others are deaf
	open(t, r.far, "", peer("192.0.2.1", false))
	var conn net.Conn
	if err := r.b.Do(func() (err error) { conn, err = net.Dial("udp", "192.0.2.1:3784"); return err }); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	says := func(addr, want string) {
		t.Helper()
		eventually(t, "it does not say "+want, func() bool {
			for _, st := range a.Status() {
				if st.Addr == netip.MustParseAddr(addr) {
					return strings.Contains(st.Err, want)
				}
			}
			return false
		}, a)
	}
	says("192.0.3.4", "TTL 254")
	says("2001:db8::2", "UDP port 4784")
	says("192.0.2.2", "UDP port 3784")
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := control(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, ttl) }); err != nil {
		t.Fatal(err)
	}
	p := sample()
	secret := p.append(nil)
	secret[1] |= flagAuthenticated
	_, _ = conn.Write(secret)
	says("192.0.2.2", "authenticated")
}

// TestForeignPackets: what comes over a router is no packet of a neighbour, and nobody's packets disturb nobody.
func TestForeignPackets(t *testing.T) {
	r := newRig(t)
	a := open(t, r.a, "", peer("192.0.3.4", false)) // configured as a neighbour, but behind a router: TTL 254
	far := open(t, r.far, "", peer("192.0.2.1", false))
	var conn net.Conn
	if err := r.b.Do(func() (err error) { conn, err = net.Dial("udp", "192.0.2.1:3784"); return err }); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := open(t, r.b, "", peer("192.0.3.4", false))
	if err := far.Set([]Peer{peer("192.0.2.1", false), peer("192.0.3.3", false)}); err != nil {
		t.Fatal(err)
	}
	p := sample()
	for i := range 200 {
		p.state, p.your = State(i%4), uint32(i*i*i)
		_, _ = conn.Write(p.append(nil)[:i%25]) // a refusal is as good
	}
	settled(t, b)
	for _, st := range append(a.Status(), far.Status()...) {
		if st.Addr != netip.MustParseAddr("192.0.3.3") && (st.State != Down || st.Received != 0) {
			t.Errorf("with %s: %v, %d packets taken", st.Addr, st.State, st.Received)
		}
	}
}

// TestPortTaken: it is said who may have the port and what to do, once, and the session comes up when it is free.
func TestPortTaken(t *testing.T) {
	r := newRig(t)
	var taken net.PacketConn
	if err := r.a.Do(func() (err error) { taken, err = net.ListenPacket("udp4", ":3784"); return err }); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	b := open(t, r.b, "", peer("192.0.2.1", false))
	a := New(Options{In: r.a.Do, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer a.Close()
	if err := a.Set([]Peer{peer("192.0.2.2", false)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the port is not missed", func() bool { return strings.Contains(a.Status()[0].Err, "another program has it") })
	_ = taken.Close()
	settled(t, b)
	if st := a.Status()[0]; st.Err != "" {
		t.Errorf("still says %q", st.Err)
	}
	a.Close()
	if n := strings.Count(log.String(), "another program"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

// TestRefused: what cannot be run is refused in words and changes nothing.
func TestRefused(t *testing.T) {
	e := New(Options{In: func(func() error) error { return net.ErrClosed }})
	defer e.Close()
	good := peer("192.0.2.2", false)
	if err := e.Set([]Peer{good}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(p *Peer)
		want   string
	}{
		{func(p *Peer) { p.Addr = netip.Addr{} }, "address"},
		{func(p *Peer) { p.Local = netip.MustParseAddr("::1") }, "other family"},
		{func(p *Peer) { p.Multiplier = 0 }, "multiplier"},
		{func(p *Peer) { p.MinTx = ms(1) }, "intervals"},
		{func(p *Peer) { p.MinRx = 2 * time.Hour }, "intervals"},
		{func(p *Peer) {}, "twice"},
	} {
		bad := good
		c.change(&bad)
		if err := e.Set([]Peer{good, bad}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want words on %s", bad, err, c.want)
		}
		if st := e.Status(); len(st) != 1 || st[0].Addr != good.Addr {
			t.Errorf("sessions %+v", st)
		}
	}
}

// TestBehind: a detection time that ends while packets wait to be read is prolonged, but not for ever.
func TestBehind(t *testing.T) {
	e := New(Options{})
	defer e.Close()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // which nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := peer("127.0.0.1", false)
	e.wires.keep(kindOf(&p), conn)
	now := time.Now()
	r := newRunner(e, p, newSession(1, p.Timing, now), now)
	if r.behind(now, now) {
		t.Error("nothing waits")
	}
	if !r.behind(now, now.Add(-2*stallLeast)) {
		t.Error("not run for a while, and believes that a path is dead")
	}
	if _, err := conn.WriteTo([]byte{0}, conn.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a packet that waits is not seen", func() bool { return r.behind(now, now) })
	if at := now.Add(stallMost + 1); r.behind(at, at) {
		t.Error("packets that wait keep a session up for ever")
	}
}

// TestPacemaker: packets leave by a thread of real-time priority, once a session knows where they go; it is gone with the Engine. Where that priority is not to
// be had, sessions do without.
func TestPacemaker(t *testing.T) {
	r := newRig(t)
	refused := onThread(func() error { return unix.SchedSetAttr(0, realTime(), 0) })
	a, b := open(t, r.a, "", peer("192.0.2.2", false)), open(t, r.b, "", peer("192.0.2.1", false))
	settled(t, a, b)
	if refused != nil {
		t.Logf("real-time priority: %v", refused)
		eventually(t, "the pacemaker goes on without its priority", func() bool { return !a.paced.Load() && realTimeThreads(t) == 0 }, a, b)
		return
	}
	if n := realTimeThreads(t); n != 2 {
		t.Errorf("%d threads with real-time priority, want one for each engine", n)
	}
	sent, beats := a.Status()[0].Sent, a.beats.Load()
	eventually(t, "ten packets more", func() bool { return a.Status()[0].Sent >= sent+10 }, a, b)
	if sent, beats := a.Status()[0].Sent-sent, a.beats.Load()-beats; beats+2 < sent {
		t.Errorf("%d of %d packets left by the pacemaker", beats, sent)
	}
	a.Close()
	b.Close()
	if n := realTimeThreads(t); n != 0 {
		eventually(t, "threads with real-time priority are left", func() bool { return realTimeThreads(t) == 0 })
	}
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// realTimeThreads counts those of this process.
func realTimeThreads(t *testing.T) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		if attr, err := unix.SchedGetAttr(id, 0); err == nil && attr.Policy == unix.SCHED_RR {
			n++
		}
	}
	return n
}

// TestSetAndChangesDoNotWaitForEachOther: Set has the Engine and takes a session's lock, while a session has its own and tells of a change.
func TestSetAndChangesDoNotWaitForEachOther(t *testing.T) {
	e := New(Options{})
	defer e.Close()
	e.mu.Lock()
	done := make(chan struct{})
	go func() {
		e.changed(Change{From: Up})
		e.ring()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("what a session tells waits for the Engine")
	}
	e.mu.Unlock()
	<-done
}
