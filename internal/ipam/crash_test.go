package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// scenario is an operation that is interrupted. Start brings the store where it begins; do is the operation; after a
// repair by the node and the release of its handles nothing may be left of it.
type scenario struct {
	name    string
	start   func(*testing.T, *Client)
	do      func(context.Context, *Client) error
	handles []string // workload handles it may have left
}

func scenarios() []scenario {
	pool := netip.MustParsePrefix("10.2.0.0/28")
	nothing := func(*testing.T, *Client) {}
	assign := func(n int) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error {
			_, err := c.AutoAssign(ctx, workload("h", n))
			return err
		}
	}
	return []scenario{
		{"claim", nothing, func(ctx context.Context, c *Client) error { _, err := c.ClaimBlock(ctx, pool); return err }, nil},
		{"assign from nothing", nothing, assign(1), []string{"h"}},
		{"assign over two blocks", nothing, assign(6), []string{"h"}},
		{"assign from an own block", func(t *testing.T, c *Client) { claimOne(t, c, "10.2.0.0/28") }, assign(2), []string{"h"}},
		{"assign one", nothing, func(ctx context.Context, c *Client) error {
			return c.AssignIP(ctx, netip.MustParseAddr("10.2.0.9"), "h", nil, Workload)
		}, []string{"h"}},
		{"release by handle", func(t *testing.T, c *Client) { mustAssign(t, c, workload("h", 6)) },
			func(ctx context.Context, c *Client) error { return c.ReleaseByHandle(ctx, "h") }, []string{"h"}},
		{"release addresses", func(t *testing.T, c *Client) { mustAssign(t, c, workload("h", 6)) },
			func(ctx context.Context, c *Client) error {
				_, err := c.ReleaseIPs(ctx, Release{Addr: netip.MustParseAddr("10.1.0.0")}, Release{Addr: netip.MustParseAddr("10.1.0.4")},
					Release{Addr: netip.MustParseAddr("10.1.0.8")}, Release{Addr: netip.MustParseAddr("10.1.0.12")})
				return err
			}, []string{"h"}},
		{"release of an empty block", func(t *testing.T, c *Client) { claimOne(t, c, "10.2.0.0/28") }, releaseOwn(true), nil},
		{"release of a used block", func(t *testing.T, c *Client) { mustAssign(t, c, workload("h", 3)) }, releaseOwn(false), []string{"h"}},
		{"tunnel addresses from nothing", nothing, ensureAll, nil},
		{"tunnel addresses dropped", func(t *testing.T, c *Client) {
			ensure(t, c)
			change(t, c.Store, "v4", func(s *calico.IPPoolSpec) { s.VXLANMode = "Never" })
			change(t, c.Store, "ipip", func(s *calico.IPPoolSpec) { s.IPIPMode = "Never" })
		}, ensureAll, nil},
		{"tunnel addresses moved", func(t *testing.T, c *Client) {
			ensure(t, c)
			change(t, c.Store, "v4", func(s *calico.IPPoolSpec) { s.VXLANMode = "Never" })
			change(t, c.Store, "ipip", func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "Never", "Always" })
		}, ensureAll, nil},
		{"tunnel addresses lost", func(t *testing.T, c *Client) {
			ensure(t, c)
			for _, k := range tunnels() {
				if err := c.ReleaseByHandle(t.Context(), k.handle+c.Node); err != nil {
					t.Fatal(err)
				}
			}
		}, ensureAll, nil},
	}
}

func ensureAll(ctx context.Context, c *Client) error { return c.EnsureTunnelAddresses(ctx) }

func releaseOwn(mustBeEmpty bool) func(context.Context, *Client) error {
	return func(ctx context.Context, c *Client) error {
		claims, err := c.affinities(ctx)
		if err != nil {
			return err
		}
		for _, a := range claims {
			if err := c.ReleaseAffinity(ctx, netip.MustParsePrefix(a.Spec.CIDR), mustBeEmpty); err != nil {
				return err
			}
		}
		return nil
	}
}

func crashStore() *datastoretest.Memory {
	return datastoretest.NewMemory(ipPool("v4", "10.2.0.0/28", size(30), vxlan), ipPool("v6", "fd00:2::/124", size(126), vxlan),
		ipPool("ipip", "10.1.0.0/28", size(30), ipip), calicoNode("node-a"))
}

// TestInterrupted breaks every operation at every write, in every way a write can fail, and looks at what the rest of
// the cluster sees at once and what is left after the node has come back.
func TestInterrupted(t *testing.T) {
	for _, s := range scenarios() {
		for _, fault := range []struct {
			name string
			datastoretest.Fault
		}{{"crash", datastoretest.Crash}, {"lost answer", datastoretest.LoseAnswer}, {"refused", datastoretest.Refuse}, {"conflict", datastoretest.Conflict}} {
			t.Run(s.name+"/"+fault.name, func(t *testing.T) {
				writes := 0
				for at := 1; ; at++ {
					fired := false
					synctest.Test(t, func(t *testing.T) { fired = interrupt(t, s, fault.Fault, at) })
					if t.Failed() {
						t.Fatalf("at write %d", at)
					}
					if !fired {
						writes = at - 1
						break
					}
				}
				if writes < 2 {
					t.Errorf("the operation makes only %d writes: nothing was tested", writes)
				}
			})
		}
	}
}

// interrupt runs one scenario with a fault at one write and reports whether the fault happened.
func interrupt(t *testing.T, s scenario, fault datastoretest.Fault, at int) bool {
	ctx, store := t.Context(), crashStore()
	s.start(t, client(t, store, "node-a"))
	faulty := datastoretest.NewFaulty(store, datastoretest.At(at, fault))
	err := s.do(ctx, client(t, faulty, "node-a"))
	fired := faulty.Fired() > 0
	switch {
	case !fired && err != nil, fault == datastoretest.Conflict && err != nil:
		t.Errorf("write %d: %v", at, err)
	case fired && fault == datastoretest.Crash && !errors.Is(err, datastoretest.ErrCrashed):
		t.Errorf("write %d: error %v after a crash", at, err)
	}
	wantNeverWrong(t, store)

	// The node comes back: what the daemon and the container runtime do.
	back := client(t, store, "node-a")
	ensure(t, back)
	for _, h := range s.handles {
		if err := back.ReleaseByHandle(ctx, h); err != nil && !errors.Is(err, datastore.ErrNotFound) {
			t.Errorf("release %s: %v", h, err)
		}
	}
	wantCheck(t, store)
	wantNothingLeft(t, store, back)
	return fired
}

// wantNeverWrong checks what must hold at every moment: every address is free or held once, and every held address is
// counted by its handle.
func wantNeverWrong(t testing.TB, store datastore.Store) {
	t.Helper()
	objects, err := Load(context.Background(), store)
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]map[string]int{}
	k := &checker{counts: map[string]map[string]int{}, blocks: map[netip.Prefix]*block{}}
	for _, obj := range objects {
		switch o := obj.(type) {
		case *calico.IPAMHandle:
			counted[o.Spec.HandleID] = o.Spec.Block
		case *calico.IPAMBlock:
			if b, err := parseBlock(o); err != nil {
				t.Error(err)
			} else if !o.Spec.Deleted {
				k.checkAllocations(b)
			}
		}
	}
	for _, err := range k.errs {
		t.Error(err)
	}
	for handle, blocks := range k.counts {
		for cidr, n := range blocks {
			if counted[handle][cidr] < n {
				t.Errorf("handle %s counts %d addresses of block %s, which holds %d", handle, counted[handle][cidr], cidr, n)
			}
		}
	}
}

// wantNothingLeft ends the node's tunnels and blocks and expects an empty datastore: no address is leaked for ever.
func wantNothingLeft(t *testing.T, store *datastoretest.Memory, c *Client) {
	t.Helper()
	for _, pool := range []string{"v4", "v6", "ipip"} {
		change(t, store, pool, func(s *calico.IPPoolSpec) { s.VXLANMode, s.IPIPMode = "Never", "Never" })
	}
	ensure(t, c)
	if err := releaseOwn(true)(t.Context(), c); err != nil {
		t.Error(err)
	}
	if left := contents(store); len(left) > 0 {
		t.Errorf("left for ever: %q", left)
	}
}

// TestTwoInterrupted: a second death during the repair of the first.
func TestTwoInterrupted(t *testing.T) {
	for first := 1; first <= 14; first++ {
		for second := 1; second <= 6; second++ {
			t.Run(fmt.Sprint(first, second), func(t *testing.T) {
				store := crashStore()
				for _, at := range []int{first, second} {
					faulty := datastoretest.NewFaulty(store, datastoretest.At(at, datastoretest.Crash))
					err := client(t, faulty, "node-a").EnsureTunnelAddresses(t.Context())
					if at == first && !errors.Is(err, datastoretest.ErrCrashed) {
						t.Fatalf("no crash at write %d: %v", at, err)
					}
				}
				wantNeverWrong(t, store)
				back := client(t, store, "node-a")
				ensure(t, back)
				wantCheck(t, store)
				wantNothingLeft(t, store, back)
			})
		}
	}
}
