package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/inspect"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
)

var epoch = time.Date(2026, 8, 24, 12, 0, 0, 0, time.UTC)

// daemon is a small daemon behind a real socket.
type daemon struct {
	socket string

	mu      sync.Mutex
	ready   bool
	none    bool // wants no routes, knows no peers and VTEPs
	resync  error
	hang    bool
	state   bgp.SessionState
	ring    func()
	leaving bgp.Leaving
	changed func([]routes.Status)
	stop    context.CancelFunc
}

func (d *daemon) routes(match func(*routes.Status) bool) []routes.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.none {
		return nil
	}
	why := &routes.Reason{Rule: "Always: tunnel", Source: "IPAMBlock 10-10-1-0-26", Pool: "pool", Node: "node-b"}
	list := []routes.Status{
		{Owner: routes.OwnerVXLAN, Outcome: routes.Installed, Since: epoch.Add(-time.Minute), Kernel: "10.10.1.0/26 via 10.10.1.1 dev vxlan.calico proto 202 metric 1024 onlink",
			Route: routes.Route{Dst: netip.MustParsePrefix("10.10.1.0/26"), Type: kernel.Unicast, Reason: why}},
		{Owner: routes.OwnerBGP, Outcome: routes.Unroutable, Since: epoch.Add(-time.Hour), Route: routes.Route{Dst: netip.MustParsePrefix("fd00::/64"), Unroutable: "no BGP path", Reason: why}},
	}
	return slices.DeleteFunc(list, func(s routes.Status) bool { return !match(&s) })
}

func (d *daemon) peerState() bgp.SessionState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cmp.Or(d.state, "Active")
}

func (d *daemon) setPeer(s bgp.SessionState) {
	d.mu.Lock()
	d.state = s
	ring := d.ring
	d.mu.Unlock()
	ring()
}

func start(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "caracal") // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{socket: filepath.Join(dir, "run", "c.sock"), ready: true}
	server := inspect.NewServer(inspect.Sources{
		Node: "node-a", Backend: func() cluster.Backend { return cluster.BackendBird },
		State:  func() *cluster.State { return cluster.NewBuilder().State() },
		Routes: d.routes,
		Counts: func() map[routes.Owner]map[routes.Outcome]int {
			return map[routes.Owner]map[routes.Outcome]int{routes.OwnerVXLAN: {routes.Installed: 1}}
		},
		Status: func() inspect.StatusInfo {
			d.mu.Lock()
			defer d.mu.Unlock()
			return inspect.StatusInfo{Version: "v1.2.3", Started: epoch.Add(-time.Hour), Ready: d.ready, Leaving: inspect.Leaving{Step: d.leaving, Why: "caracal drain"}}
		},
		Peers: func() []bgp.PeerStatus {
			if d.none {
				return nil
			}
			return []bgp.PeerStatus{{Peer: bgp.Peer{Name: "Mesh_1", Addr: netip.MustParseAddr("192.0.2.1"), ASN: 64512}, State: d.peerState(), Since: epoch,
				LastError: "dial: connection refused", Cause: bgp.CauseRefused}}
		},
		Paths: func(p netip.Prefix) []bgp.Candidate {
			if p != netip.MustParsePrefix("10.10.1.0/26") {
				return nil
			}
			return []bgp.Candidate{{Path: bgp.Path{Prefix: p, Peer: "Mesh_1", NextHop: netip.MustParseAddr("192.0.2.1"), Best: true}}}
		},
		PeerRoutes: func(_ netip.Addr, d bgp.Direction, within netip.Prefix) ([]bgp.Exchanged, error) {
			c := bgp.Candidate{Path: bgp.Path{Prefix: netip.MustParsePrefix("10.10.1.0/26"), NextHop: netip.MustParseAddr("192.0.2.1")}}
			switch {
			case within.IsValid():
				return nil, nil
			case d == bgp.FromPeer:
				return []bgp.Exchanged{{Before: c, After: &c}}, nil
			}
			return []bgp.Exchanged{{Before: c}}, nil
		},
		VTEPs: func() []inspect.VTEP {
			if d.none {
				return nil
			}
			return []inspect.VTEP{{Node: "node-b", Family: cluster.IPv4, Addr: netip.MustParseAddr("10.10.1.1")}}
		},
		WatchRoutes: func(_ context.Context, changed func([]routes.Status)) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.changed = changed
		},
		WatchPeers: func(ctx context.Context, changed func()) {
			d.mu.Lock()
			d.ring = changed
			d.mu.Unlock()
			changed()
			<-ctx.Done()
		},
		Drain:   func(context.Context, time.Duration, bool) error { d.leaving = bgp.Withdrawn; return nil },
		Undrain: func() error { d.leaving = bgp.Stays; return nil },
		Lookup: func(_ context.Context, a netip.Addr) (kernel.Answer, error) {
			return kernel.Answer{}, kernel.ErrUnreachable
		},
		Resync: func(ctx context.Context) error {
			if d.hang {
				<-ctx.Done()
				return ctx.Err()
			}
			return d.resync
		},
	})
	l, err := inspect.Listen(t.Context(), d.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return d
}

// run runs one command line as a person would.
func run(ctx context.Context, socket string, args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	env := map[string]string{EnvSocket: socket}
	code = Run(ctx, args, Environment{Out: &stdout, Err: &stderr, Getenv: func(k string) string { return env[k] }, Now: func() time.Time { return epoch }})
	return code, stdout.String(), stderr.String()
}

func TestCommands(t *testing.T) {
	d := start(t)
	for _, c := range []struct {
		args string
		code int
		out  string // part of standard output
		errs string // part of standard error; "" = nothing may be there
	}{
		{"status", 0, "routes:\n  OWNER  INSTALLED\n  vxlan          1\n", ""},
		{"status --check", 0, "ready    yes\n", ""},
		{"routes", 0, "10.10.1.0/26  vxlan  installed   1m     via 10.10.1.1 dev vxlan.calico proto 202 metric 1024 onlink  Always: tunnel (IPAMBlock 10-10-1-0-26, pool pool, node node-b)\n", ""},
		{"routes --timestamps --family 4", 0, "2026-08-24T11:59:00Z", ""},
		{"routes --state unroutable,failed", 0, "fd00::/64  bgp    unroutable  1h     -             no BGP path; Always: tunnel", ""},
		{"routes --state unroutable --state installed --owner bgp,vxlan --within 10.0.0.0/8 --covering 10.10.1.3", 0, "10.10.1.0/26", ""},
		{"routes --prefix 10.9.0.0/16", 0, "", "no route matches\n"},
		{"routes --prefix 10.9.0.0/16 -o json", 0, "{\n  \"routes\": []\n}\n", ""},
		{"routes -o yaml --family 6", 0, "routes:\n  - prefix: fd00::/64\n", ""},
		{"explain 10.10.1.3", 0, "the kernel does not do what we believe", ""},
		{"explain 10.10.1.3 --check", 1, "the kernel does not do what we believe", ""},
		{"explain 8.8.8.8 --check", 1, "no way to 8.8.8.8", ""},
		{"explain 10.10.1.3 -o json", 0, "\"kind\": \"KIND_KERNEL\"", ""},
		{"peers", 0, "Mesh_1  -     192.0.2.1  64512  Active", ""},
		{"peers", 0, "  Mesh_1: nothing listens at 192.0.2.1:179", ""},
		{"peers --down", 0, "1 of 1 sessions are not up", ""},
		{"peers --down Mesh_1", 2, "", "--down: want it alone"},
		{"peers Mesh_1", 0, "last error     dial: connection refused", ""},
		{"peers node-z", 1, "", "\"node-z\": no BGP session has that name, address or node"},
		{"peers 192.0.2.1 --received", 0, "   10.10.1.0/26  192.0.2.1  ", ""},
		{"peers 192.0.2.1 --advertised --refused", 0, "x  10.10.1.0/26  192.0.2.1  ", ""},
		{"peers 192.0.2.1 --advertised --within 10.9.0.0/16", 0, "", "no such route"},
		{"peers --received", 2, "", "NAME is missing"},
		{"peers a b", 2, "", "\"b\": too many arguments"},
		{"peers 192.0.2.1 --received --advertised", 2, "", "want one of them"},
		{"peers 192.0.2.1 --refused", 2, "", "--refused and --within need"},
		{"paths 10.10.1.0/26", 0, "*  Mesh_1  192.0.2.1", ""},
		{"paths 10.10.1.0/26", 0, "10.10.1.0/26  vxlan  installed", ""},
		{"paths 10.10.9.0/26", 0, "", "no BGP path to 10.10.9.0/26 is known"},
		{"paths 10.10.9.1/26", 2, "", "bits are set"},
		{"vteps", 0, "node-b  10.10.1.1", ""},
		{"resync", 0, "resync done in ", ""},
		{"drain --wait 0s", 0, "withdrawn: caracal drain\n", ""},
		{"drain --wait -1s", 2, "", "wait -1s: want a duration from 0s to 24h0m0s"},
		{"undrain", 0, "announces everything again", ""},
		{"release", 0, "nothing is held\n", ""},
		{"history 10.1.2.0/26", 1, "", "no history is kept here"},
		{"history 10.1.2.1/26", 1, "", "no history is kept here"},
		{"history vxlan.calico", 1, "", "no history is kept here"},
		{"bgp diff", 2, "", "name a file with -f"},
		{"bgp plan", 1, "", "no BGP is planned here"},
		{"version", 0, "caracald  v1.2.3 (node node-a)\n", ""},
		{"--help", 0, "explain", ""},
		{"", 0, "Available Commands:", ""},

		{"routes --prefix 10.9.1.0/16", 2, "", "bits are set behind the prefix length; write 10.9.0.0/16 or 10.9.1.0\n"},
		{"routes --state instaled", 2, "", "caracal routes: state \"instaled\": want one of installed, pending"},
		{"routes --owner bird", 2, "", "owner \"bird\": want one of workload, vxlan, ipip or bgp\n"},
		{"routes --family 5", 2, "", "family \"5\": want 4 or 6\n"},
		{"routes -o xml", 2, "", "output \"xml\": want table, json or yaml\n"},
		{"routes --nonsense", 2, "", "unknown flag: --nonsense\n"},
		{"routes more", 2, "", "\"more\": too many arguments\n"},
		{"watch --owner bird", 2, "", "owner \"bird\""},
		{"watch --state x", 2, "", "state \"x\""},
		{"explain", 2, "", "caracal explain: ADDRESS is missing\n"},
		{"explain node-b", 2, "", "address \"node-b\": want an IP address"},
		{"nonsense", 2, "", "caracal: \"nonsense\": no such command\ncaracal --help says how it is used\n"},
		{"status --socket /nonexistent/c.sock", 1, "", "no daemon answers at /nonexistent/c.sock: is caracald running on this node? --socket or CARACAL_SOCKET name another socket\n"},
		{"version --socket /nonexistent/c.sock", 0, "caracal   ", "caracald  no daemon answers at /nonexistent/c.sock"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, out, errs := run(t.Context(), d.socket, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if !strings.Contains(out, c.out) || c.out == "" && out != "" {
				t.Errorf("standard output:\n%s\nwant in it:\n%s", out, c.out)
			}
			if !strings.Contains(errs, c.errs) || c.errs == "" && errs != "" {
				t.Errorf("standard error:\n%s\nwant in it:\n%s", errs, c.errs)
			}
		})
	}
}

func TestNotReady(t *testing.T) {
	d := start(t)
	d.ready, d.none = false, true
	if code, out, _ := run(t.Context(), d.socket, "status"); code != 0 || !strings.Contains(out, "ready    no") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	if code, out, errs := run(t.Context(), d.socket, "status", "--check"); code != 1 || !strings.Contains(out, "ready    no") || errs != "" {
		t.Errorf("status --check: exit code %d\n%s%s", code, out, errs)
	}
	for _, verb := range []string{"routes", "peers", "vteps"} {
		if code, out, errs := run(t.Context(), d.socket, verb); code != 0 || out != "" || errs == "" {
			t.Errorf("%s: exit code %d, output %q, errors %q; want a word on standard error", verb, code, out, errs)
		}
	}
}

func TestErrors(t *testing.T) {
	d := start(t)
	d.resync = errors.New("dump routes: interrupted")
	if code, _, errs := run(t.Context(), d.socket, "resync"); code != 1 || errs != "caracal resync: resync: dump routes: interrupted\n" {
		t.Errorf("exit code %d, %q", code, errs)
	}
	d.hang = true
	if code, _, errs := run(t.Context(), d.socket, "resync", "--timeout", "20ms"); code != 1 || !strings.Contains(errs, "does not answer within 20ms") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if err := os.WriteFile(d.socket+".file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t.Context(), d.socket+".file", "status"); code != 1 || !strings.Contains(errs, "no daemon answers at") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// watching runs a watch: lines gives what it writes, line by line, interrupt is Ctrl-C, end waits for its exit.
func watching(t *testing.T, d *daemon, args ...string) (next func() string, interrupt func(), end func() (int, string)) {
	t.Helper()
	return following(t, d, append([]string{"watch"}, args...)...)
}

// following runs a command that goes on until it is interrupted.
func following(t *testing.T, d *daemon, args ...string) (lines func() string, interrupt func(), end func() (int, string)) {
	t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, append([]string{"--socket", d.socket}, args...), Environment{Out: w, Err: &errs, Getenv: func(string) string { return "" }, Now: func() time.Time { return epoch }})
		w.Close()
	}()
	timeout := time.AfterFunc(10*time.Second, func() { r.CloseWithError(errors.New("nothing more came within 10 s")) })
	t.Cleanup(func() { timeout.Stop(); cancel(); r.Close() })
	var rest []byte
	lines = func() string {
		t.Helper()
		for {
			if line, after, found := bytes.Cut(rest, []byte("\n")); found {
				rest = after
				return string(line)
			}
			b := make([]byte, 4096)
			n, err := r.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			rest = append(rest, b[:n]...)
		}
	}
	end = func() (int, string) {
		go io.Copy(io.Discard, r)
		return <-code, errs.String()
	}
	return lines, cancel, end
}

func (d *daemon) change(s ...routes.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed(s)
}

func TestWatch(t *testing.T) {
	d := start(t)
	next, interrupt, end := watching(t, d, "--owner", "vxlan")
	for _, want := range []string{"12:00:00 + 10.10.1.0/26 owner vxlan, installed: via", "12:00:00 # that is all there is"} {
		if got := next(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	d.change(routes.Status{Owner: routes.OwnerVXLAN, Route: routes.Route{Dst: netip.MustParsePrefix("10.10.1.0/26")}})
	if got, want := next(), "12:00:00 - 10.10.1.0/26 owner vxlan, metric 1024"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	interrupt()
	if code, errs := end(); code != 0 || errs != "" {
		t.Errorf("interrupted: exit code %d, %q", code, errs)
	}
}

// TestPeersWatch: the sessions there are, a mark, then the changes of those that are asked for, in each form.
func TestPeersWatch(t *testing.T) {
	d := start(t)
	next, interrupt, end := following(t, d, "peers", "--watch", "192.0.2.1")
	if got := next(); !strings.HasPrefix(got, "12:00:00 + Mesh_1 192.0.2.1 AS 64512, Active: dial: connection refused") {
		t.Errorf("got %q", got)
	}
	if got := next(); got != "12:00:00 # that is all there is; changes follow" {
		t.Errorf("got %q", got)
	}
	d.setPeer("Established")
	if got := next(); !strings.HasPrefix(got, "12:00:00 + Mesh_1 192.0.2.1 AS 64512, Established") {
		t.Errorf("got %q", got)
	}
	interrupt()
	if code, errs := end(); code != 0 || errs != "" {
		t.Errorf("interrupted: exit code %d, %q", code, errs)
	}
	next, interrupt, end = following(t, d, "peers", "-w", "-o", "json", "nobody")
	if got := next(); got != `{"events":[],"synced":true}` {
		t.Errorf("got %s", got)
	}
	interrupt()
	end()
}

func TestWatchForms(t *testing.T) {
	d := start(t)
	next, interrupt, end := watching(t, d, "-o", "json")
	for _, want := range []string{`{"changes":[{"removed":false,"route":{"prefix":"10.10.1.0/26"`, `{"changes":[],"mark":"MARK_SYNCED"}`} {
		got := next()
		if !strings.HasPrefix(got, want) || !json.Valid([]byte(got)) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	interrupt()
	end()
	next, interrupt, end = watching(t, d, "-o", "yaml")
	if a, b := next(), next(); a != "---" || b != "changes:" {
		t.Errorf("got %q, %q", a, b)
	}
	interrupt()
	end()
}

func TestWatchDaemonStops(t *testing.T) {
	d := start(t)
	next, _, end := watching(t, d)
	for !strings.Contains(next(), "changes follow") {
	}
	d.stop()
	if code, errs := end(); code != 1 || !strings.Contains(errs, "went away: the daemon is stopping") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}
