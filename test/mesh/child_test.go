package mesh

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
	"github.com/caracal-net/caracal/internal/netns"
)

var full = flag.Bool("full", false, "200 engines, and 1,000 simulated peers")

// childEnv marks a test binary that was started to be an engine. Its Config comes as the first line on stdin, then commands: "peers JSON" sets the
// peers, "originate PREFIX" adds one, "await N" asks for a report once N prefixes are known, and at once if they are.
const childEnv = "CARACAL_MESH_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := beEngine(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// listener counts what an engine has learned and reports.
type listener struct {
	mu    sync.Mutex
	known map[netip.Prefix]bool
	await int // -1: nothing is awaited
}

func (l *listener) learned(all []bgp.Learned) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range all {
		if len(x.Paths) > 0 {
			l.known[x.Prefix] = true
		} else {
			delete(l.known, x.Prefix)
		}
	}
	l.report()
}

func (l *listener) want(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.await = n
	l.report()
}

func (l *listener) report() {
	if len(l.known) == l.await {
		fmt.Println("known", l.await, time.Now().UnixNano())
		l.await = -1
	}
}

func beEngine() error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	l := &listener{known: map[netip.Prefix]bool{}, await: -1}
	s, err := gobgp.New(gobgp.Options{SyncTimeout: time.Hour, Events: bgp.Events{
		Learned: l.learned,
		InSync:  func() { fmt.Println("synced", 0, time.Now().UnixNano()) },
	}})
	if err != nil {
		return err
	}
	var cfg bgp.Config
	first := true
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "config":
			err = json.Unmarshal([]byte(rest), &cfg)
		case "peers":
			err = json.Unmarshal([]byte(rest), &cfg.Peers)
		case "originate":
			cfg.Originate = append(cfg.Originate, own(netip.MustParsePrefix(rest)))
		case "await":
			var n int
			n, err = strconv.Atoi(rest)
			l.want(n)
			continue
		}
		if err == nil && verb != "config" {
			err = s.Apply(context.Background(), cfg)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
		if first {
			fmt.Println("ready", 0, 0)
			first = false
		}
	}
	return in.Err()
}

// own is an announced block of the ordinary metric.
func own(p netip.Prefix) bgp.Origination {
	return bgp.Origination{Prefix: p, Source: "test", LocalPref: bgp.MaxPref - 1024}
}

// engine is a child process.
type engine struct {
	cmd     *exec.Cmd
	addr    netip.Addr
	in      *bufio.Writer
	reports chan report
	log     strings.Builder
}

type report struct {
	what string
	n    int
	at   time.Time
}

// startEngine starts a child with a Config that has no peers yet.
func startEngine(t *testing.T, ns netns.NS, cfg *bgp.Config) *engine {
	t.Helper()
	e := &engine{cmd: exec.Command(os.Args[0]), addr: cfg.ListenAddrs[0], reports: make(chan report, 16)}
	e.cmd.Env = append(os.Environ(), childEnv+"=1")
	e.cmd.Stderr = &e.log
	stdin, err := e.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(e.cmd); err != nil {
		t.Fatal(err)
	}
	e.in = bufio.NewWriter(stdin)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var r report
			var at int64
			if n, _ := fmt.Sscan(lines.Text(), &r.what, &r.n, &at); n == 3 {
				r.at = time.Unix(0, at)
				e.reports <- r
			}
		}
		close(e.reports)
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = e.cmd.Process.Kill()
		for range e.reports {
		}
		<-done
		_ = e.cmd.Wait()
		if t.Failed() && e.log.Len() > 0 {
			t.Logf("%s: %s", e.addr, e.log.String()[:min(e.log.Len(), 300)])
		}
	})
	e.tell(t, "config", cfg)
	return e
}

func (e *engine) tell(t *testing.T, verb string, what any) {
	t.Helper()
	text, ok := what.(string)
	if !ok {
		b, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if _, err := fmt.Fprintf(e.in, "%s %s\n", verb, text); err != nil {
		t.Fatal(err)
	}
	if err := e.in.Flush(); err != nil {
		t.Fatal(err)
	}
}

// hear waits for a report of a kind and returns when the child made it.
func (e *engine) hear(t *testing.T, ctx context.Context, what string) time.Time {
	t.Helper()
	for {
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not say %q", e.addr, what)
		case r, ok := <-e.reports:
			if !ok {
				t.Fatalf("%s has ended: %s", e.addr, e.log.String())
			}
			if r.what == what {
				return r.at
			}
		}
	}
}
