package gobgp_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
	"github.com/caracal-net/caracal/test/need"
)

// child is a Speaker in a process of its own, so that it can be killed.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
}

func startChild(t *testing.T, cfg bgp.Config, restarting bool) *child {
	t.Helper()
	text, err := json.Marshal(job{Config: cfg, Restarting: restarting})
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var log strings.Builder
	c.cmd.Stderr = &log
	if _, err := c.cmd.StdinPipe(); err != nil { // held open as long as we live
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("child:\n%s", log.String())
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("child said %q, %v\n%s", line, err, log.String())
	}
	return c
}

// end sends a signal and waits for the process to be gone.
func (c *child) end(s syscall.Signal) {
	c.t.Helper()
	if c.cmd.ProcessState != nil {
		return
	}
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Error(err)
	}
	_ = c.cmd.Wait()
}

// TestKill: a daemon that is killed, or terminated, and comes back costs its peer no route; one that does not come back costs
// its routes when its restart time is over.
func TestKill(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a, b := config("127.3.0.1", port, "10.1.0.0/26", "10.1.1.0/26"), config("127.3.0.2", port, "10.2.0.0/26")
	peerWith(&a, &b)
	nb := start(t, b, gobgp.Options{})
	c := startChild(t, a, false)
	fresh := []string{"10.1.0.0/26 Mesh_127_3_0_1 via 127.3.0.1", "10.1.1.0/26 Mesh_127_3_0_1 via 127.3.0.1"}
	nb.knows(t, fresh...)
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		c.end(s)
		nb.knows(t, fresh[0]+" stale", fresh[1]+" stale")
		if p := nb.status("127.3.0.1"); !p.Restarting || p.State == "Established" {
			t.Errorf("%v: %+v", s, p)
		}
		begin := time.Now()
		c = startChild(t, a, true)
		nb.knows(t, fresh...)
		nb.up(t, "127.3.0.1")
		t.Logf("%v: back after %v", s, time.Since(begin).Round(time.Millisecond))
	}
	if n := nb.losses("10.1.0.0/26") + nb.losses("10.1.1.0/26"); n != 0 {
		t.Errorf("%d routes were lost", n)
	}

	// It comes back with one block less: that one goes, at End-of-RIB, and the other stays.
	c.end(syscall.SIGKILL)
	nb.knows(t, fresh[0]+" stale", fresh[1]+" stale")
	a.Originate = a.Originate[:1]
	c = startChild(t, a, true)
	nb.knows(t, fresh[0])
	if nb.losses("10.1.0.0/26") != 0 {
		t.Error("the block that stayed was lost")
	}
	c.end(syscall.SIGKILL)
}

// TestComesBackCold: what is kept of a peer that dies is used until it is back. Then it depends on what the peer says of itself (RFC 4724 section
// 4.2): kept on, not used until its End-of-RIB, or, where no End-of-RIB may come, dropped with the session.
func TestComesBackCold(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	endOfRIB := message(msgUpdate, []byte{0, 0, 0, 0})
	for i, c := range []struct {
		name    string
		restart []byte
		used    bool // between the session and End-of-RIB
		ends    bool // the session is ended by us
	}{
		{"connection broke", []byte{64, 6, 0, 120, 0, 1, 1, 0}, true, false},
		{"restarted, kept", []byte{64, 6, 0x80, 120, 0, 1, 1, 0x80}, true, false},
		{"restarted, lost", []byte{64, 6, 0x80, 120, 0, 1, 1, 0}, false, false},
		{"restarted, family gone", []byte{64, 2, 0x80, 120}, false, false},
		{"no capability", []byte{}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			subnet := fmt.Sprintf("127.3.%d", 30+i)
			n, p := rawLab(t, subnet, true)
			attrs := join(origin, asPath, nextHop(subnet+".3"), localPref)
			p.send(update(attrs, "10.1.0.0/26", "10.1.1.0/26"))
			eventually(t, "its route", func() string { return absent(n, "10.1.1.0/26") })
			_ = p.conn.Close()
			eventually(t, "its route is kept", func() string {
				if ps := n.paths("10.1.0.0/26"); len(ps) != 1 || !ps[0].Stale {
					return fmt.Sprintf("%+v", ps)
				}
				return ""
			})
			p.restart = c.restart
			p.dial()
			defer func() { _ = p.conn.Close() }()
			eventually(t, "its session", func() string {
				if p := n.status(subnet + ".3"); p.State != "Established" {
					return string(p.State)
				}
				return ""
			})
			if !c.used {
				eventually(t, "its route is not used", func() string {
					if ps := n.paths("10.1.0.0/26"); len(ps) != 0 {
						return fmt.Sprintf("%+v", ps)
					}
					return ""
				})
			}
			p.send(update(attrs, "10.1.0.0/26")) // as before; the other one is gone
			if c.ends {
				if code := p.ended(); len(code) != 2 || code[0] != 6 {
					t.Errorf("NOTIFICATION %v, want Cease", code)
				}
			} else {
				p.send(endOfRIB)
				eventually(t, "the route that came again", func() string { return absent(n, "10.1.0.0/26") })
			}
			eventually(t, "the route that did not is gone", func() string {
				if ps := n.paths("10.1.1.0/26"); len(ps) != 0 {
					return fmt.Sprintf("%+v", ps)
				}
				return ""
			})
			if lost := n.losses("10.1.0.0/26") > 0; lost == c.used && !c.ends {
				t.Errorf("lost: %v", lost)
			}
		})
	}
}

// TestNeverBack: the restart time that the dead one had asked for is kept to.
func TestNeverBack(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	port := testPort()
	a, b := config("127.3.1.1", port, "10.1.0.0/26"), config("127.3.1.2", port)
	peerWith(&a, &b)
	a.Peers[0].RestartTime = 3 * time.Second
	nb := start(t, b, gobgp.Options{})
	c := startChild(t, a, false)
	nb.knows(t, "10.1.0.0/26 Mesh_127_3_1_1 via 127.3.1.1")
	c.end(syscall.SIGKILL)
	nb.knows(t, "10.1.0.0/26 Mesh_127_3_1_1 via 127.3.1.1 stale")
	nb.knows(t)
	eventually(t, "status", func() string {
		if p := nb.status("127.3.1.1"); p.Restarting {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
}

// TestNeverBackEarly: one that dies before its End-of-RIB and stays away is not waited for longer than it had asked for: being in sync, before which
// nothing may be deleted, does not hang on it.
func TestNeverBackEarly(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	n, p := rawLab(t, "127.3.2", true)
	_ = p.conn.Close()
	p.restart = []byte{64, 6, 0, 2, 0, 1, 1, 0x80}
	p.dial()
	p.send(update(join(origin, asPath, nextHop("127.3.2.3"), localPref), "10.1.0.0/26"))
	eventually(t, "its route", func() string { return absent(n, "10.1.0.0/26") })
	if calls, _ := n.inSync(); calls != 0 {
		t.Fatal("in sync before End-of-RIB")
	}
	_ = p.conn.Close()
	eventually(t, "in sync", func() string {
		if calls, prefixes := n.inSync(); calls != 1 || prefixes != 1 {
			return fmt.Sprint(calls, " calls, ", prefixes, " prefixes, want the good peer's only")
		}
		return ""
	})
}

// TestAwayTriesInVain: a peer that is away for a restart and opens connections that come to nothing loses none of its routes by that (RFC 4724 section 4.2),
// though GoBGP drops them then. They go when it has told all it has, or with its restart time.
func TestAwayTriesInVain(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	for i, c := range []struct {
		name    string
		returns bool
		restart byte
	}{{"returns", true, 120}, {"does not", false, 12}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			subnet := fmt.Sprintf("127.3.%d", 40+i)
			n, p := rawLab(t, subnet, true)
			_ = p.conn.Close()
			p.restart = []byte{64, 6, 0, c.restart, 0, 1, 1, 0x80}
			p.dial()
			attrs := join(origin, asPath, nextHop(subnet+".3"), localPref)
			endOfRIB := message(msgUpdate, []byte{0, 0, 0, 0})
			p.send(update(attrs, "10.1.0.0/26", "10.1.1.0/26"))
			p.send(endOfRIB)
			eventually(t, "its route", func() string { return absent(n, "10.1.1.0/26") })
			_ = p.conn.Close()
			lost := time.Now()
			for range 2 {
				eventually(t, "a connection", func() string {
					if err := p.half(); err != nil {
						return err.Error()
					}
					return ""
				})
				_ = p.conn.Close()
				eventually(t, "the end of the connection", func() string {
					if p := n.status(subnet + ".3"); p.State == "OpenConfirm" || p.State == "OpenSent" {
						return string(p.State)
					}
					return ""
				})
				if n.losses("10.1.0.0/26") > 0 && time.Since(lost) < time.Duration(c.restart)*time.Second {
					t.Fatal("a connection that came to nothing cost its routes")
				}
			}
			if c.returns {
				p.dial()
				p.send(update(attrs, "10.1.0.0/26"))
				p.send(endOfRIB)
			}
			eventually(t, "what did not come again is gone", func() string {
				if ps := n.paths("10.1.1.0/26"); len(ps) != 0 {
					return fmt.Sprintf("%+v", ps)
				}
				return ""
			})
			if lost := n.losses("10.1.0.0/26") > 0; lost == c.returns {
				t.Errorf("lost: %v", lost)
			}
		})
	}
}

// TestNoAnswer: a connection on which the peer says nothing, or OPEN and no more, is not waited for until the hold time, which keeps it from coming by another:
// it may be of a former life of the peer's.
func TestNoAnswer(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	for i, c := range []struct {
		name string
		says func(*rawPeer) error
	}{{"nothing", (*rawPeer).accepted}, {"OPEN", (*rawPeer).half}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, p := rawLab(t, fmt.Sprintf("127.3.%d", 42+i), true)
			_ = p.conn.Close()
			eventually(t, "a connection", func() string {
				if err := c.says(p); err != nil {
					return err.Error()
				}
				return ""
			})
			former := p.conn
			defer func() { _ = former.Close() }()
			p.dial()
			p.send(message(msgUpdate, []byte{0, 0, 0, 0}))
			n.up(t, p.from)
		})
	}
}

// TestCollision: a peer that ends a session because it goes on with another connection has not gone: its routes are kept until it is back. And a connection
// of its that GoBGP has left open behind a session that is over is closed, so that the peer does not wait on it.
func TestCollision(t *testing.T) {
	notUnderRace(t)
	parallel(t)
	n, p := rawLab(t, "127.3.44", true)
	attrs := join(origin, asPath, nextHop("127.3.44.3"), localPref)
	endOfRIB := message(msgUpdate, []byte{0, 0, 0, 0})
	p.send(update(attrs, "10.1.0.0/26", "10.1.1.0/26"))
	p.send(endOfRIB)
	eventually(t, "its route", func() string { return absent(n, "10.1.1.0/26") })
	forgotten := keepOpen(t, p.conn)
	defer func() { _ = unix.Close(forgotten) }()
	p.send(message(msgNotification, []byte{6, bgp.SubCollision}))
	_ = p.ended() // the other side has both ends of it in this process; only ours closes
	eventually(t, "the end of the session", func() string {
		if p := n.status("127.3.44.3"); p.State == "Established" || !p.Restarting {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
	_ = p.conn.Close()
	p.dial()
	p.send(update(attrs, "10.1.0.0/26"))
	p.send(endOfRIB)
	eventually(t, "what did not come again is gone", func() string {
		if ps := n.paths("10.1.1.0/26"); len(ps) != 0 {
			return fmt.Sprintf("%+v", ps)
		}
		return ""
	})
	if lost := n.losses("10.1.0.0/26"); lost != 0 {
		t.Errorf("lost %d times", lost)
	}
}

// keepOpen holds the other end of a connection, which is in this process too, open beyond its being closed there.
func keepOpen(t *testing.T, conn net.Conn) int {
	t.Helper()
	port := conn.LocalAddr().(*net.TCPAddr).Port
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if remote, err := unix.Getpeername(fd); err == nil {
			if in, ok := remote.(*unix.SockaddrInet4); ok && in.Port == port {
				again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				return again
			}
		}
	}
	t.Fatal("the other end is not in this process")
	return 0
}

// insideEnv marks a test binary that runs in a namespace made for it.
const insideEnv = "CARACAL_GOBGP_TEST_INSIDE"

// TestBothFamilies runs TestBothFamiliesInside in a namespace with addresses of both families.
func TestBothFamilies(t *testing.T) {
	parallel(t)
	inNamespace(t, "TestBothFamiliesInside", "fd00:1::1", "fd00:1::2")
}

// inNamespace runs a test of this package in a namespace with these IPv6 addresses.
func inNamespace(t *testing.T, name string, addrs ...string) {
	t.Helper()
	ip := need.Tool(t, "ip", "iproute2")
	ns := need.Namespace(t)
	for _, a := range addrs {
		if _, err := ns.Run(ip, "-6", "address", "add", a+"/128", "dev", "lo", "nodad"); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+name) {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

// TestBothFamiliesInside: two sessions between two nodes, each with the routes of its own family.
func TestBothFamiliesInside(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		t.Skip("is run by TestBothFamilies")
	}
	const port = 179
	dual := func(v4, v6 string, originate ...string) bgp.Config {
		c := config(v4, port, originate...)
		c.ListenAddrs = append(c.ListenAddrs, netip.MustParseAddr(v6))
		return c
	}
	a, b := dual("127.0.0.1", "fd00:1::1", "10.1.0.0/26", "fd00:10::/122"), dual("127.0.0.2", "fd00:1::2", "10.1.1.0/26", "fd00:10::40/122")
	for i := range 2 {
		x, y := a.ListenAddrs[i], b.ListenAddrs[i]
		a.Peers = append(a.Peers, peering(x, y, port, 64512))
		b.Peers = append(b.Peers, peering(y, x, port, 64512))
	}
	nodes := startAll(t, a, b)
	na, nb := nodes[0], nodes[1]
	na.knows(t, "10.1.1.0/26 Mesh_127_0_0_2 via 127.0.0.2", "fd00:10::40/122 Mesh_fd00_1__2 via fd00:1::2")
	nb.knows(t, "10.1.0.0/26 Mesh_127_0_0_1 via 127.0.0.1", "fd00:10::/122 Mesh_fd00_1__1 via fd00:1::1")
	if p := nb.Candidates(netip.MustParsePrefix("fd00:10::/122")); len(p) != 1 || p[0].LocalPref != bgp.MaxPref-1024 || !p[0].Best {
		t.Errorf("%+v", p)
	}
	na.up(t, "fd00:1::2")
	if p := na.status("fd00:1::2"); p.Received != 1 || p.Advertised != 1 {
		t.Errorf("%+v", p)
	}
	na.cfg.Originate = na.cfg.Originate[:1]
	na.apply(t)
	nb.knows(t, "10.1.0.0/26 Mesh_127_0_0_1 via 127.0.0.1")
}

// BenchmarkLearn takes in 100,000 prefixes of one peer, from the first message to the last event.
func BenchmarkLearn(b *testing.B) {
	const prefixes = 100_000
	for b.Loop() {
		port := testPort()
		x, y := config("127.3.9.1", port), config("127.3.9.2", port)
		for i := range prefixes {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
			x.Originate = append(x.Originate, bgp.Origination{Prefix: p, LocalPref: bgp.MaxPref - 1024})
		}
		peerWith(&x, &y)
		nx, ny := start(b, x, gobgp.Options{}), start(b, y, gobgp.Options{})
		eventually(b, "session", func() string {
			if s := ny.status("127.3.9.1").State; s != "Established" {
				return string(s)
			}
			return ""
		})
		begin := time.Now()
		eventually(b, "all prefixes", func() string {
			ny.mu.Lock()
			defer ny.mu.Unlock()
			if len(ny.known) != prefixes {
				return fmt.Sprint(len(ny.known))
			}
			return ""
		})
		b.ReportMetric(float64(prefixes)/time.Since(begin).Seconds(), "prefixes/s")
		_ = nx.Stop(b.Context(), false)
		_ = ny.Stop(b.Context(), false)
	}
}
