package gobgp_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/bgp/gobgp"
)

// childEnv holds the job of a test binary that was started as a child process.
const childEnv = "CARACAL_GOBGP_TEST_CHILD"

// job is what a child process is to do: be a Speaker until it is killed.
type job struct {
	Config     bgp.Config
	Restarting bool
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		runChild(text)
		return
	}
	flag.Parse()
	// The tests wait for timers of BGP, not for the processor: as many at once as there are.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func runChild(text string) {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	s, err := gobgp.New(gobgp.Options{Restarting: j.Restarting, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err == nil {
		err = s.Apply(context.Background(), j.Config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends when the parent does, however that happens
}

// patience bounds every wait: a session that was lost may take 10 s to return, and the machine is shared.
const patience = 45 * time.Second

// eventually waits until cond returns "", and fails with what it returned last.
func eventually(t testing.TB, what string, cond func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		why := cond()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, why)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ear is a consumer of events: what it knows is what it was told.
type ear struct {
	mu      sync.Mutex
	known   map[netip.Prefix][]bgp.Path
	lost    map[netip.Prefix]int // how often all paths went
	batches int
	largest int
	peers   int
	synced  int
	// atSync is how many prefixes were known when InSync came.
	atSync int
}

func newEar() *ear {
	return &ear{known: make(map[netip.Prefix][]bgp.Path), lost: make(map[netip.Prefix]int)}
}

func (e *ear) events() bgp.Events {
	return bgp.Events{
		Learned: func(ls []bgp.Learned) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.batches++
			e.largest = max(e.largest, len(ls))
			for _, l := range ls {
				if len(l.Paths) == 0 {
					if len(e.known[l.Prefix]) > 0 {
						e.lost[l.Prefix]++
					}
					delete(e.known, l.Prefix)
					continue
				}
				e.known[l.Prefix] = l.Paths
			}
		},
		Peers: func() { e.mu.Lock(); defer e.mu.Unlock(); e.peers++ },
		InSync: func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.synced++
			e.atSync = len(e.known)
		},
	}
}

// table prints what is known, a line a prefix: "10.1.0.0/26 <peer> <next hop>[ stale]; ...".
func (e *ear) table() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for p, paths := range e.known {
		var via []string
		for _, path := range paths {
			v := fmt.Sprintf("%s via %s", path.Peer, path.NextHop)
			if path.Stale {
				v += " stale"
			}
			via = append(via, v)
		}
		out = append(out, p.String()+" "+strings.Join(via, "; "))
	}
	slices.Sort(out)
	return out
}

func (e *ear) paths(prefix string) []bgp.Path {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[netip.MustParsePrefix(prefix)]
}

func (e *ear) losses(prefix string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost[netip.MustParsePrefix(prefix)]
}

func (e *ear) inSync() (calls, prefixes int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.synced, e.atSync
}

// knows waits for exactly these lines.
func (e *ear) knows(t testing.TB, want ...string) {
	t.Helper()
	eventually(t, "the table", func() string {
		if got := e.table(); !slices.Equal(got, want) {
			return fmt.Sprintf("is %q, want %q", got, want)
		}
		return ""
	})
}

// node is a Speaker of a test with its ear.
type node struct {
	*gobgp.Speaker
	*ear
	addr netip.Addr
	cfg  bgp.Config
}

// testPort is where the Speakers of this process listen, each on a loopback address of its own: one per process, and below the
// range from which the kernel takes source ports.
func testPort() uint16 { return uint16(10000 + os.Getpid()%20000) }

// config is that of a node on an address of its own.
func config(addr string, port uint16, originate ...string) bgp.Config {
	a := netip.MustParseAddr(addr)
	cfg := bgp.Config{ASN: 64512, RouterID: a, ListenAddrs: []netip.Addr{a}, ListenPort: port}
	if a.Is6() {
		cfg.RouterID = netip.AddrFrom4([4]byte(a.AsSlice()[12:]))
	}
	for _, o := range originate {
		cfg.Originate = append(cfg.Originate, bgp.Origination{Prefix: netip.MustParsePrefix(o), Source: "test", LocalPref: bgp.MaxPref - 1024})
	}
	return cfg
}

// peering is a session from one address to another by the rules of the mesh.
func peering(from, to netip.Addr, port uint16, asn uint32) bgp.Peer {
	return bgp.Peer{
		Name: "Mesh_" + strings.NewReplacer(".", "_", ":", "_").Replace(to.String()), Addr: to, Port: port, ASN: asn, LocalAddr: from,
		Passive: to.String() > from.String(), Source: "test",
	}
}

func start(t testing.TB, cfg bgp.Config, opts gobgp.Options) *node {
	t.Helper()
	n := &node{ear: newEar(), addr: cfg.ListenAddrs[0], cfg: cfg}
	if opts.Events.Learned == nil {
		opts.Events = n.events()
	}
	s, err := gobgp.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	n.Speaker = s
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx, false); err != nil {
			t.Error(err)
		}
	})
	n.apply(t)
	return n
}

// GoBGP has two races that the race detector finds, both harmless. Starting a server writes a variable that is one for the whole
// process and that sessions of other servers read: always the same value. And paths are marked stale while the watcher reads
// that mark for us: it comes again with the session's state. Under the detector the tests run one by one and start all their
// Speakers before the first session; those whose point it is to do otherwise are left out.

// parallel lets a test run beside others.
func parallel(t *testing.T) {
	if !raceBuild {
		t.Parallel()
	}
}

// notUnderRace leaves a test out under the race detector.
func notUnderRace(t *testing.T) {
	t.Helper()
	if raceBuild {
		t.Skip("runs into a known race of GoBGP: see the comment in main_test.go")
	}
}

// startAll starts several Speakers that may peer with each other.
func startAll(t testing.TB, cfgs ...bgp.Config) []*node {
	t.Helper()
	var nodes []*node
	for _, c := range cfgs {
		if raceBuild {
			first := c
			first.Peers = nil
			n := start(t, first, gobgp.Options{})
			n.cfg = c
			nodes = append(nodes, n)
			continue
		}
		nodes = append(nodes, start(t, c, gobgp.Options{}))
	}
	if raceBuild {
		for _, n := range nodes {
			n.apply(t)
		}
	}
	return nodes
}

func (n *node) apply(t testing.TB) {
	t.Helper()
	if err := n.Apply(t.Context(), n.cfg); err != nil {
		t.Fatal(err)
	}
}

// peerWith gives two configurations a session with each other.
func peerWith(a, b *bgp.Config) {
	x, y := a.ListenAddrs[0], b.ListenAddrs[0]
	a.Peers = append(a.Peers, peering(x, y, b.ListenPort, b.ASN))
	b.Peers = append(b.Peers, peering(y, x, a.ListenPort, a.ASN))
}

// fullMesh peers all with all.
func fullMesh(cfgs ...*bgp.Config) {
	for i, a := range cfgs {
		for _, b := range cfgs[i+1:] {
			peerWith(a, b)
		}
	}
}

func (n *node) status(addr string) bgp.PeerStatus {
	for _, p := range n.Peers() {
		if p.Addr == netip.MustParseAddr(addr) {
			return p
		}
	}
	return bgp.PeerStatus{}
}

// up waits until a session is up and has brought its End-of-RIB.
func (n *node) up(t testing.TB, addr string) {
	t.Helper()
	eventually(t, fmt.Sprintf("session %s -> %s", n.addr, addr), func() string {
		if p := n.status(addr); p.State != "Established" || !p.EndOfRIB {
			return fmt.Sprintf("%s, End-of-RIB %v, %s", p.State, p.EndOfRIB, p.LastError)
		}
		return ""
	})
}
