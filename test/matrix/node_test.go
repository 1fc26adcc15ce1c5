package matrix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/caracal-net/caracal/internal/netns"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/test/need"
)

// askEvery is between two looks at what is waited for; looking costs a process, and many cells look at once.
const askEvery = 100 * time.Millisecond

// patience is for what takes a session, on the guest kernel's slow machine too: GoBGP tries again 5 to 10 s after it has lost one.
const patience = 60 * time.Second

// eventually fails the test unless f returns nil in time.
func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil {
			last = err // not what the end of ctx did to f
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, last)
		case <-tick.C:
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a namespace with a caracald.
type node struct {
	t    *testing.T
	name string
	ns   netns.NS
	dir  string // of its own; the datastore may be shared
	data string
	cmd  *exec.Cmd
	log  *os.File
}

// newNode makes the namespace and the directories; the daemon is not started.
func newNode(t *testing.T, name string) *node {
	t.Helper()
	return nodeIn(t, name, need.Namespace(t))
}

// nodeIn is the same in a namespace that is there.
func nodeIn(t *testing.T, name string, ns netns.NS) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "matrix")
	must(t, err)
	must(t, os.Chmod(dir, 0o755)) // FRR has a user of its own
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{t: t, name: name, ns: ns, dir: dir, data: filepath.Join(dir, "datastore")}
	must(t, os.Mkdir(n.data, 0o755))
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "caracald.log"))
			t.Logf("caracald of %s:\n%s%s", name, text, n.view())
		}
		n.end(syscall.SIGKILL)
	})
	return n
}

// write puts a file of the datastore in its place at once.
func write(t *testing.T, data, name, text string) {
	t.Helper()
	tmp := filepath.Join(data, "."+name)
	must(t, errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, filepath.Join(data, name+".yaml"))))
}

func (n *node) write(name, text string) {
	n.t.Helper()
	write(n.t, n.data, name, text)
}

func (n *node) remove(name string) {
	n.t.Helper()
	must(n.t, os.Remove(filepath.Join(n.data, name+".yaml")))
}

func (n *node) start() {
	n.t.Helper()
	daemon, err := caracald.Path()
	must(n.t, err)
	n.log, err = os.OpenFile(filepath.Join(n.dir, "caracald.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(n.t, err)
	n.cmd = exec.Command(daemon, "run", "--node", n.name, "--datastore", "file:"+n.data, "--socket", n.socket(), "--backend", "bird", "--proxy-health", "off")
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(n.t, n.ns.Start(n.cmd))
}

func (n *node) end(s syscall.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(s)
	_ = n.cmd.Wait()
	_ = n.log.Close()
	n.cmd = nil
}

func (n *node) socket() string { return filepath.Join(n.dir, "caracald.sock") }

// ask puts a question to the daemon.
func (n *node) ask(ctx context.Context, f func(context.Context, caracalv1.InspectionClient) error) error {
	conn, err := grpc.NewClient("unix:"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return f(ctx, caracalv1.NewInspectionClient(conn))
}

// peers returns the sessions by address.
func (n *node) peers(ctx context.Context) (map[string]*caracalv1.Peer, error) {
	out := make(map[string]*caracalv1.Peer)
	err := n.ask(ctx, func(ctx context.Context, c caracalv1.InspectionClient) error {
		stream, err := c.ListPeers(ctx, &caracalv1.ListPeersRequest{})
		if err != nil {
			return err
		}
		return drain(stream.Recv, func(m *caracalv1.ListPeersResponse) {
			for _, p := range m.GetPeers() {
				out[p.GetAddress()] = p
			}
		})
	})
	return out, err
}

// paths returns what the daemon knows of a prefix.
func (n *node) paths(ctx context.Context, prefix string) (out []*caracalv1.Path, err error) {
	err = n.ask(ctx, func(ctx context.Context, c caracalv1.InspectionClient) error {
		return n.listPaths(ctx, c, prefix, func(p *caracalv1.Path) { out = append(out, p) })
	})
	return out, err
}

func (n *node) listPaths(ctx context.Context, c caracalv1.InspectionClient, prefix string, take func(*caracalv1.Path)) error {
	stream, err := c.ListPaths(ctx, &caracalv1.ListPathsRequest{Prefix: prefix})
	if err != nil {
		return err
	}
	return drain(stream.Recv, func(m *caracalv1.ListPathsResponse) {
		for _, p := range m.GetPaths() {
			take(p)
		}
	})
}

// view is what the daemon and the kernel have, for people.
func (n *node) view() string {
	var b strings.Builder
	err := n.ask(context.Background(), func(ctx context.Context, c caracalv1.InspectionClient) error {
		routes, err := c.ListRoutes(ctx, &caracalv1.ListRoutesRequest{})
		if err != nil {
			return err
		}
		got := drain(routes.Recv, func(m *caracalv1.ListRoutesResponse) {
			for _, r := range m.GetRoutes() {
				fmt.Fprintf(&b, "%v since %v; asked for %v\n", r, r.GetSince().AsTime(), r.GetNextHops())
				err = errors.Join(err, n.listPaths(ctx, c, r.GetPrefix(), func(p *caracalv1.Path) { fmt.Fprintln(&b, "\t", p) }))
				h, _ := c.History(ctx, &caracalv1.HistoryRequest{Prefix: r.GetPrefix()})
				for _, e := range h.GetEvents() {
					fmt.Fprintf(&b, "\t%s %s %s %s: %s\n", e.GetTime().AsTime().Format(time.StampMilli), e.GetWhat(), e.GetDetail(), e.GetKernelRoute(), e.GetCause())
				}
			}
		})
		return errors.Join(got, err)
	})
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	for _, words := range []string{"address", "route", "-6 route", "nexthop"} {
		out, _ := n.ns.Run("ip", strings.Fields(words)...)
		fmt.Fprintf(&b, "ip %s:\n%s", words, out)
	}
	return b.String()
}

// inSync reports which source the daemon has not heard all of. Until it has it deletes nothing, so a rule that asks for deletions begins then.
func (n *node) inSync(ctx context.Context) error {
	return n.ask(ctx, func(ctx context.Context, c caracalv1.InspectionClient) error {
		st, err := c.GetStatus(ctx, &caracalv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		for _, s := range st.GetSources() {
			if !s.GetInSync() {
				return fmt.Errorf("%s is not in sync: %s", s.GetName(), s.GetDetail())
			}
		}
		if len(st.GetSources()) == 0 {
			return errors.New("no source is named yet")
		}
		return nil
	})
}

func drain[M any](recv func() (M, error), take func(M)) error {
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		take(m)
	}
}

// ip runs ip(8).
func ip(t *testing.T, ns netns.NS, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := ns.Run("ip", strings.Fields(line)...); err != nil {
		t.Fatalf("ip %s: %v %s", line, err, out)
	}
}

// sysctl writes settings of a namespace before its links are up.
func sysctl(t *testing.T, ns netns.NS, settings ...string) {
	t.Helper()
	must(t, ns.Do(func() error {
		for _, s := range settings {
			name, value, _ := strings.Cut(s, "=")
			if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
}

// join wires two namespaces with a link of this name at both ends, and addresses.
func join(t *testing.T, a, b netns.NS, nameA, nameB string, addrsA, addrsB []string) {
	t.Helper()
	ip(t, a, "link add name %s type veth peer name %s netns %s", nameA, nameB, b.Name)
	for _, end := range []struct {
		ns    netns.NS
		name  string
		addrs []string
	}{{a, nameA, addrsA}, {b, nameB, addrsB}} {
		plug(t, end.ns, end.name, end.addrs)
	}
}

// plug gives a link its addresses and has it come up. Addresses stay when the link goes down, and are not tried for duplicates.
func plug(t *testing.T, ns netns.NS, name string, addrs []string) {
	t.Helper()
	in := "net/ipv6/conf/" + name
	sysctl(t, ns, in+"/accept_dad=0", in+"/keep_addr_on_down=1")
	for _, a := range addrs {
		nodad := ""
		if strings.Contains(a, ":") {
			nodad = "nodad"
		}
		ip(t, ns, "address add %s dev %s %s", a, name, nodad)
	}
	ip(t, ns, "link set %s up", name)
}

// routeOf returns the kernel's routes to exactly this prefix.
func routeOf(ns netns.NS, prefix string) (string, error) {
	family := "-4"
	if strings.Contains(prefix, ":") {
		family = "-6"
	}
	return ns.Run("ip", family, "route", "show", prefix)
}
