package interop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
	"github.com/caracal-net/caracal/test/peers"
)

var caracald need.Daemon

// atOnce is how many tests run at a time. They wait most of theirs, for timers of BGP.
const atOnce = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	code := m.Run()
	caracald.Remove()
	os.Exit(code)
}

// The addresses of the rack. The server's network is announced by both routers; the node's block is what they learn.
const (
	nodeAddr   = "192.0.2.10"
	nodeAddr6  = "2001:db8:1::10"
	workload   = "10.65.0.1"
	block      = "10.65.0.0/26"
	serverNet  = "203.0.113.0/24"
	server     = "203.0.113.1"
	probePort  = 7007
	probeFlows = 32
	probePace  = 5 * time.Millisecond // between two packets of one flow
	probeRoom  = 32 << 20             // octets, for a receiver that has to wait seconds for a processor
)

// torAddr is the address of router i (0 or 1) on the switch.
func torAddr(i int) string { return fmt.Sprintf("192.0.2.%d", i+1) }

func torAddr6(i int) string { return fmt.Sprintf("2001:db8:1::%d", i+1) }

// rack is the wiring and what runs in it.
type rack struct {
	t                    *testing.T
	node, network, srv   netns.NS
	tor                  [2]netns.NS
	routers              [2]*peers.Router
	dir, daemon          string
	caracald             *exec.Cmd
	logFile              *os.File
	datastore, nodeState string
	six                  bool     // sessions over IPv6 too
	args                 []string // more for caracald
}

func newRack(t *testing.T) *rack {
	t.Helper()
	need.Root(t)
	daemon, err := caracald.Path()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "rack")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rack{t: t, dir: dir, daemon: daemon, datastore: filepath.Join(dir, "datastore"), nodeState: filepath.Join(dir, "node"),
		node: need.Namespace(t), network: need.Namespace(t), srv: need.Namespace(t), tor: [2]netns.NS{need.Namespace(t), need.Namespace(t)}}
	r.wire()
	for _, d := range []string{r.datastore, r.nodeState} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "caracald.log"))
			t.Logf("caracald:\n%s", text)
		}
		r.end(syscall.SIGKILL)
	})
	return r
}

func (r *rack) ip(ns netns.NS, format string, args ...any) {
	r.t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := ns.Run("ip", strings.Fields(line)...); err != nil {
		r.t.Fatalf("ip %s: %v %s", line, err, out)
	}
}

// wire joins node and routers by a bridge, and each router with the server by a network of its own.
func (r *rack) wire() {
	r.ip(r.network, "link add name switch type bridge")
	r.ip(r.network, "link set switch up")
	attach := func(ns netns.NS, port, addr, addr6 string) {
		r.ip(ns, "link add name eth0 type veth peer name %s netns %s", port, r.network.Name)
		r.ip(r.network, "link set %s up master switch", port)
		r.ip(ns, "address add %s/24 dev eth0", addr)
		r.ip(ns, "address add %s/64 dev eth0 nodad", addr6)
		r.ip(ns, "link set eth0 up")
	}
	attach(r.node, "node", nodeAddr, nodeAddr6)
	r.ip(r.node, "address add %s/32 dev lo", workload)
	r.ip(r.srv, "address add %s/32 dev lo", server)
	for i, ns := range r.tor {
		attach(ns, fmt.Sprintf("tor%d", i), torAddr(i), torAddr6(i))
		r.ip(ns, "link add name down0 type veth peer name up%d netns %s", i, r.srv.Name)
		r.ip(ns, "address add 198.51.%d.1/24 dev down0", 100+i)
		r.ip(r.srv, "address add 198.51.%d.2/24 dev up%d", 100+i, i)
		r.ip(ns, "link set down0 up")
		r.ip(r.srv, "link set up%d up", i)
		r.ip(ns, "route add %s via 198.51.%d.2", serverNet, 100+i)
		r.sysctl(ns, "net.ipv4.ip_forward=1")
	}
	r.sysctl(r.node, "net.ipv4.fib_multipath_hash_policy=1") // flows by their ports, so that both paths are used
	r.sysctl(r.srv, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.up0.rp_filter=0", "net.ipv4.conf.up1.rp_filter=0")
}

func (r *rack) sysctl(ns netns.NS, settings ...string) {
	r.t.Helper()
	if out, err := ns.Run("sysctl", append([]string{"-qw"}, settings...)...); err != nil {
		r.t.Fatal(err, out)
	}
}

// startRouters starts a router of a kind as each ToR, with sessions as neighbour describes them.
func (r *rack) startRouters(ctx context.Context, kind peers.Kind, neighbour peers.Neighbour) {
	r.t.Helper()
	if what := peers.Missing(kind); what != "" {
		need.Other(r.t, what, "make deps")
	}
	neighbour.Addr, neighbour.ASN = netip.MustParseAddr(nodeAddr), 64512
	for i := range r.routers {
		dir := filepath.Join(r.dir, fmt.Sprintf("tor%d", i))
		if err := errors.Join(os.Chmod(r.dir, 0o755), os.Mkdir(dir, 0o755)); err != nil {
			r.t.Fatal(err)
		}
		n := neighbour
		n.Local = netip.MustParseAddr(torAddr(i))
		all := []peers.Neighbour{n}
		if r.six {
			n6 := n
			n6.Addr, n6.Local = netip.MustParseAddr(nodeAddr6), netip.MustParseAddr(torAddr6(i))
			all = append(all, n6)
		}
		router, err := peers.Start(ctx, kind, r.tor[i], dir, peers.Config{ASN: 65000, RouterID: n.Local, Kernel: true,
			Neighbours: all, Originate: []netip.Prefix{netip.MustParsePrefix(serverNet)}})
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() {
			if r.t.Failed() {
				r.t.Log(router.Log(30))
			}
			_ = router.Kill()
		})
		r.routers[i] = router
	}
}

// manifest writes a file of the datastore.
func (r *rack) manifest(name, text string) {
	r.t.Helper()
	tmp := filepath.Join(r.datastore, "."+name)
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, filepath.Join(r.datastore, name+".yaml"))); err != nil {
		r.t.Fatal(err)
	}
}

// cluster writes the node, its block and one BGPPeer for each ToR with these annotations.
func (r *rack) cluster(annotations string) {
	r.manifest("cluster", `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: plain}
spec: {cidr: 10.65.0.0/16, ipipMode: Never, vxlanMode: Never, natOutgoing: false}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-a}
spec: {bgp: {ipv4Address: `+nodeAddr+`/24, ipv6Address: "`+nodeAddr6+`/64"}}
---
apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata: {name: node-a-10-65-0-0-26}
spec: {node: node-a, type: host, cidr: `+block+`, state: confirmed, deleted: "false"}
`)
	r.manifest("bgp", bgpConfiguration)
	for i := range r.tor {
		r.manifest(fmt.Sprintf("tor%d", i), fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: tor%d
  annotations: {%s}
spec: {peerIP: %s, asNumber: 65000}
`, i, annotations, torAddr(i)))
		if r.six {
			r.manifest(fmt.Sprintf("tor%d-6", i), fmt.Sprintf(`apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor%d-6}
spec: {peerIP: "%s", asNumber: 65000}
`, i, torAddr6(i)))
		}
	}
}

const bgpConfiguration = `apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
`

// start runs caracald on the node.
func (r *rack) start() {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, "caracald.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(r.daemon, "run", "--node", "node-a", "--datastore", "file:"+r.datastore, "--socket", filepath.Join(r.nodeState, "caracald.sock"), "--backend", "bird")
	cmd.Args = append(cmd.Args, r.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := r.node.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	r.caracald, r.logFile = cmd, log
}

// end sends caracald a signal and waits for its end.
func (r *rack) end(s syscall.Signal) {
	if r.caracald == nil {
		return
	}
	_ = r.caracald.Process.Signal(s)
	_ = r.caracald.Wait()
	_ = r.logFile.Close()
	r.caracald = nil
}

// sessionsUp waits until both routers have their session up and the node has both paths.
func (r *rack) sessionsUp(ctx context.Context) {
	r.t.Helper()
	for _, router := range r.routers {
		if err := router.WaitEstablished(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
	r.hops(ctx, torAddr(0), torAddr(1))
}

// hops waits until the node's route to the server leads over exactly these routers.
func (r *rack) hops(ctx context.Context, want ...string) {
	r.t.Helper()
	err := peers.Poll(ctx, func() error {
		out, err := r.node.Run("ip", "route", "show", serverNet)
		if err != nil {
			return err
		}
		for i := range r.tor {
			if has := strings.Contains(out, "via "+torAddr(i)+" "); has != strings.Contains(strings.Join(want, " "), torAddr(i)) {
				return fmt.Errorf("route to the server is %q, want it via %v", out, want)
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// silence makes the switch drop everything between a router and the node, without anybody losing a carrier; or ends that.
func (r *rack) silence(i int, silent bool) {
	r.t.Helper()
	state := map[bool]string{true: "on", false: "off"}[silent]
	for _, port := range []string{"node", fmt.Sprintf("tor%d", i)} { // isolated ports hear all but each other
		r.ip(r.network, "link set %s type bridge_slave isolated %s", port, state)
	}
}

// stream is packets from the workload to the server, in many flows, and how long none of a flow has arrived.
type stream struct {
	mu   sync.Mutex
	seq  [probeFlows]uint32    // last that arrived
	at   [probeFlows]time.Time // when
	gap  time.Duration         // longest since reset
	lost int                   // since reset
	stop context.CancelFunc
	done sync.WaitGroup
}

// startStream sends and listens until the test ends.
func (r *rack) startStream() *stream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{stop: cancel}
	var in net.PacketConn
	if err := r.srv.Do(func() (err error) {
		if in, err = net.ListenPacket("udp4", fmt.Sprintf("%s:%d", server, probePort)); err != nil {
			return err
		}
		raw, err := in.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		return raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, probeRoom)
		})
	}); err != nil {
		r.t.Fatal(err)
	}
	s.done.Go(func() { s.receive(in.(*net.UDPConn)) })
	for flow := range probeFlows {
		var out net.Conn
		err := r.node.Do(func() (err error) {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(workload)}}
			out, err = d.Dial("udp4", net.JoinHostPort(server, strconv.Itoa(probePort)))
			return err
		})
		if err != nil {
			r.t.Fatal(err)
		}
		s.done.Go(func() { s.send(ctx, out, byte(flow)) })
	}
	r.t.Cleanup(func() { cancel(); _ = in.Close(); s.done.Wait() })
	return s
}

func (s *stream) send(ctx context.Context, out net.Conn, flow byte) {
	defer func() { _ = out.Close() }()
	tick := time.NewTicker(probePace)
	defer tick.Stop()
	for n := uint32(1); ; n++ {
		_, _ = out.Write([]byte{flow, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) // a refusal is a loss like any other
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *stream) receive(in *net.UDPConn) {
	buf := make([]byte, 16)
	for {
		n, _, err := in.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if n != 5 || buf[0] >= probeFlows {
			continue
		}
		s.mu.Lock()
		flow, seq, now := buf[0], uint32(buf[1])<<24|uint32(buf[2])<<16|uint32(buf[3])<<8|uint32(buf[4]), time.Now()
		if s.seq[flow] != 0 && seq > s.seq[flow] {
			s.gap = max(s.gap, now.Sub(s.at[flow]))
			s.lost += int(seq - s.seq[flow] - 1)
		}
		s.seq[flow], s.at[flow] = max(s.seq[flow], seq), now
		s.mu.Unlock()
	}
}

// flowing waits until a packet of each flow has arrived that was sent from now on, and starts the figures anew.
func (s *stream) flowing(ctx context.Context) error {
	began := time.Now()
	err := peers.Poll(ctx, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for flow, at := range s.at {
			if !at.After(began) {
				return fmt.Errorf("nothing of flow %d arrives", flow)
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap, s.lost = 0, 0
	return err
}

// figures returns the longest gap of a flow and the packets lost since flowing.
func (s *stream) figures() (gap time.Duration, lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gap, s.lost
}
