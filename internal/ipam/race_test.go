package ipam

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// seedOf returns the seed of a random test: CARACAL_TEST_SEED repeats a run that failed.
func seedOf(t testing.TB) uint64 {
	if s := os.Getenv("CARACAL_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	seed := rand.Uint64()
	t.Logf("CARACAL_TEST_SEED=%d", seed)
	return seed
}

// crowd is many writers at once on one store.
type crowd struct {
	nodes   int
	workers int
	ops     int // of each worker
	// open returns a worker's own way to the store.
	open func(worker int, rnd *rand.Rand) datastore.Store

	mu    sync.Mutex
	taken map[netip.Addr]string // address -> handle, as the callers were told
}

// expected are the errors that a full and busy datastore gives to one who did nothing wrong.
func expected(err error) bool {
	for _, e := range []error{ErrFull, ErrBlockLimit, ErrNotEmpty, ErrClaimed, ErrInUse, ErrNoPool} {
		if errors.Is(err, e) {
			return true
		}
	}
	return err == nil
}

// took and gave keep the book of who was told that he has which address. That is the property: nobody is told that he
// has an address while another still has it.
func (c *crowd) took(t *testing.T, handle string, got []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range got {
		if other, ok := c.taken[p.Addr()]; ok {
			t.Errorf("%s was assigned to %s while %s has it", p.Addr(), handle, other)
		}
		c.taken[p.Addr()] = handle
	}
}

func (c *crowd) gave(got []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range got {
		delete(c.taken, p.Addr())
	}
}

// run starts the workers and waits for them.
func (c *crowd) run(t *testing.T, seed uint64) {
	c.taken = map[netip.Addr]string{}
	clients := make([]*Client, c.nodes) // for tunnel addresses: one a node, as one daemon has
	for i := range clients {
		clients[i] = &Client{Store: c.open(-1-i, rand.New(rand.NewPCG(seed, uint64(1000+i)))), Node: fmt.Sprint("node-", i)}
	}
	var wg sync.WaitGroup
	for w := range c.workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			c.work(t, w, rnd, c.open(w, rnd), clients)
		})
	}
	wg.Wait()
}

// work is one worker: random operations in the name of random nodes.
func (c *crowd) work(t *testing.T, w int, rnd *rand.Rand, store datastore.Store, daemons []*Client) {
	ctx := t.Context()
	held := map[string][]netip.Prefix{}
	for i := range c.ops {
		n := rnd.IntN(c.nodes)
		cl := &Client{Store: store, Node: fmt.Sprint("node-", n)}
		cl.Known = hearsay(ctx, cl, rnd)
		var err error
		switch op := rnd.IntN(10); {
		case op < 4:
			r := workload(fmt.Sprintf("w%d.%d", w, i), 1+rnd.IntN(3))
			if rnd.IntN(4) == 0 {
				r.Family = cluster.IPv6
			}
			var got []netip.Prefix
			got, err = cl.AutoAssign(ctx, r)
			c.took(t, r.Handle, got)
			if len(got) > 0 {
				held[r.Handle] = got
			}
		case op < 7:
			for _, handle := range sortedKeys(held)[:min(1, len(held))] {
				c.gave(held[handle]) // from here on another may have it
				if rnd.IntN(2) == 0 {
					err = cl.ReleaseByHandle(ctx, handle)
				} else {
					err = releaseEach(t, cl, handle, held[handle])
				}
				delete(held, handle)
			}
		case op < 8:
			err = releaseOwn(ctx, cl, rnd.IntN(2) == 0)
		case op < 9:
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(128))})
			handle := fmt.Sprintf("i%d.%d", w, i)
			if err = cl.AssignIP(ctx, addr, handle, nil, Workload); err == nil {
				held[handle] = []netip.Prefix{netip.PrefixFrom(addr, 32)}
				c.took(t, handle, held[handle])
			}
		default:
			err = daemons[n].EnsureTunnelAddresses(ctx)
		}
		if !expected(err) {
			t.Errorf("worker %d, operation %d: %v", w, i, err)
		}
	}
}

// hearsay is what somebody may have seen of the blocks: nothing, or some of what there was a moment ago.
func hearsay(ctx context.Context, c *Client, rnd *rand.Rand) func() iter.Seq[netip.Prefix] {
	if rnd.IntN(3) == 0 {
		return nil
	}
	objects, err := c.Store.List(ctx, calico.KindIPAMBlock)
	if err != nil {
		return nil
	}
	var known []netip.Prefix
	for _, obj := range objects {
		if b, err := parseBlock(obj.(*calico.IPAMBlock)); err == nil && !b.ownedBy(c.Node) && rnd.IntN(4) > 0 {
			known = append(known, b.cidr)
		}
	}
	return func() iter.Seq[netip.Prefix] { return slices.Values(known) }
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func releaseEach(t *testing.T, c *Client, handle string, addrs []netip.Prefix) error {
	var releases []Release
	for _, p := range addrs {
		releases = append(releases, Release{Addr: p.Addr(), Handle: handle})
	}
	absent, err := c.ReleaseIPs(t.Context(), releases...)
	if err == nil && len(absent) > 0 {
		t.Errorf("%v under %s were not assigned any more", absent, handle)
	}
	return err
}

// crowded is a datastore with few blocks for many nodes, so that they meet.
func crowded(nodes int) (objects []calico.Object) {
	objects = append(objects, ipPool("v4", "10.0.0.0/25", size(29), vxlan), ipPool("ipip", "10.0.1.0/26", size(30), ipip),
		ipPool("v6", "fd00::/121", size(125), vxlan))
	for i := range nodes {
		objects = append(objects, calicoNode(fmt.Sprint("node-", i)))
	}
	return objects
}

// finish lets every node come back once and then checks the whole datastore against the book.
func (c *crowd) finish(t *testing.T, store datastore.Store) {
	t.Helper()
	wantNeverWrong(t, store)
	for i := range c.nodes {
		cl := &Client{Store: store, Node: fmt.Sprint("node-", i)}
		if err := cl.EnsureTunnelAddresses(t.Context()); !expected(err) {
			t.Error(err)
		}
	}
	wantCheck(t, store)
	got := map[netip.Addr]string{}
	list, err := store.List(t.Context(), calico.KindIPAMBlock)
	if err != nil {
		t.Fatal(err)
	}
	for _, obj := range list {
		b, err := parseBlock(obj.(*calico.IPAMBlock))
		if err != nil {
			t.Fatal(err)
		}
		for o := range b.Spec.Allocations {
			if a := b.attrs(o); a != nil && !strings.Contains(handleOf(a), "tunnel-addr") {
				got[b.addr(o)] = handleOf(a)
			}
		}
	}
	for addr, handle := range c.taken {
		if got[addr] != handle {
			t.Errorf("%s was assigned to %s, the datastore says %q", addr, handle, got[addr])
		}
	}
	for addr, handle := range got {
		if c.taken[addr] == "" {
			t.Errorf("%s is leaked under %s", addr, handle)
		}
	}
}

// TestRace: many workers, random operations, on the in-memory store; one write in five meets a conflict that
// nobody caused.
func TestRace(t *testing.T) {
	for _, conflicts := range []bool{false, true} {
		t.Run(fmt.Sprint("conflicts ", conflicts), func(t *testing.T) {
			seed := seedOf(t)
			store := datastoretest.NewMemory(crowded(8)...)
			c := &crowd{nodes: 8, workers: 24, ops: 40, open: func(_ int, rnd *rand.Rand) datastore.Store {
				if !conflicts {
					return store
				}
				own := rand.New(rand.NewPCG(rnd.Uint64(), 0)) // a Plan is called by one goroutine at a time
				return datastoretest.NewFaulty(store, func(int, string, calico.Kind) datastoretest.Fault {
					if own.IntN(5) == 0 {
						return datastoretest.Conflict
					}
					return datastoretest.NoFault
				})
			}}
			c.run(t, seed)
			c.finish(t, store)
		})
	}
}

// TestRaceWithDeaths: as TestRace, but workers die in the middle of what they do, and answers get lost. What the dead
// were told they have is then unknown, so the book is not kept; after the repair everything agrees, and when every
// handle is released and every tunnel and block given up nothing is left.
func TestRaceWithDeaths(t *testing.T) {
	seed := seedOf(t)
	store := datastoretest.NewMemory(crowded(6)...)
	var wg sync.WaitGroup
	deaths := sync.Map{}
	for w := range 40 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			at, fault := 1+rnd.IntN(30), datastoretest.Crash
			if rnd.IntN(3) == 0 {
				fault = datastoretest.LoseAnswer
			}
			f := datastoretest.NewFaulty(store, datastoretest.At(at, fault))
			cl := &Client{Store: f, Node: fmt.Sprint("node-", w%6)}
			for i := range 10 {
				handle := fmt.Sprintf("w%d.%d", w, i)
				_, err := cl.AutoAssign(t.Context(), workload(handle, 1+rnd.IntN(4)))
				if err == nil && rnd.IntN(2) == 0 {
					err = cl.ReleaseByHandle(t.Context(), handle)
				}
				if err == nil && rnd.IntN(3) == 0 {
					err = releaseOwn(t.Context(), cl, false)
				}
				if err == nil && rnd.IntN(3) == 0 {
					err = cl.EnsureTunnelAddresses(t.Context())
				}
				if errors.Is(err, datastoretest.ErrCrashed) {
					deaths.Store(w, true)
					return
				}
				if !expected(err) && !errors.Is(err, datastoretest.ErrLostAnswer) {
					t.Errorf("worker %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	died := 0
	deaths.Range(func(any, any) bool { died++; return true })
	if died < 5 {
		t.Errorf("only %d of 40 workers died", died)
	}
	for w := range 40 {
		for i := range 10 {
			cl := &Client{Store: store, Node: fmt.Sprint("node-", w%6)}
			if err := cl.ReleaseByHandle(t.Context(), fmt.Sprintf("w%d.%d", w, i)); err != nil && !errors.Is(err, datastore.ErrNotFound) {
				t.Error(err)
			}
		}
	}
	for i := range 6 {
		ensure(t, client(t, store, fmt.Sprint("node-", i)))
	}
	wantCheck(t, store)
	for _, pool := range []string{"v4", "v6", "ipip"} {
		change(t, store, pool, func(s *calico.IPPoolSpec) { s.VXLANMode, s.IPIPMode = "Never", "Never" })
	}
	// A tunnel address may be borrowed from another node's block, so all are given up before any block is.
	for i := range 6 {
		ensure(t, client(t, store, fmt.Sprint("node-", i)))
	}
	for i := range 6 {
		if err := releaseOwn(t.Context(), client(t, store, fmt.Sprint("node-", i)), true); err != nil {
			t.Error(err)
		}
	}
	if left := contents(t, store); len(left) > 0 {
		t.Errorf("left for ever: %q", left)
	}
}

// TestFiftyClaimers: fifty nodes that start at one moment each get a block, quickly.
func TestFiftyClaimers(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("v4", "10.0.0.0/22", size(28), vxlan)) // 64 blocks
	for i := range 50 {
		store.MustCreate(t, calicoNode(fmt.Sprint("node-", i)))
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := (&Client{Store: store, Node: fmt.Sprint("node-", i)}).EnsureTunnelAddresses(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("50 nodes in %s", time.Since(start).Round(time.Millisecond))
	wantCheck(t, store)
}

// TestTwins: two daemons of one node at once, as during a careless restart. They may undo each other's work, but not
// assign wrongly, and one pass by one of them sets everything right.
func TestTwins(t *testing.T) {
	for i := range 20 {
		store := datastoretest.NewMemory(crowded(1)...)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 5 {
					if err := (&Client{Store: store, Node: "node-0"}).EnsureTunnelAddresses(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		ensure(t, client(t, store, "node-0"))
		wantCheck(t, store)
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}
