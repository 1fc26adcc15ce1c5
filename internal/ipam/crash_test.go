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

// lane is a node with pools of its own, so that what happens to one node can happen to many on one datastore.
type lane int

func (l lane) String() string            { return fmt.Sprint("node-", int(l)) }
func (l lane) named(s string) string     { return fmt.Sprintf("%s-%d", s, int(l)) }
func (l lane) addr4(s string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(s, int(l))) }

// blocks4 is the pool for workloads and for IPv4 VXLAN; it has four blocks.
func (l lane) blocks4() netip.Prefix { return netip.PrefixFrom(l.addr4("10.2.%d.0"), 28) }

// objects are the lane's node and pools. IPIP's comes first in the order of addresses.
func (l lane) objects() []calico.Object {
	mine := selector("lane == '" + l.String() + "'")
	return []calico.Object{ipPool(l.named("v4"), l.blocks4().String(), size(30), vxlan, mine),
		ipPool(l.named("v6"), fmt.Sprintf("fd00:2:%x::/124", int(l)), size(126), vxlan, mine),
		ipPool(l.named("ipip"), fmt.Sprintf("10.1.%d.0/28", int(l)), size(30), ipip, mine), calicoNode(l.String(), "lane="+l.String())}
}

// scenario is an operation that is interrupted. Start brings the store where it begins; do is the operation; after a
// repair by the node and the release of its handles nothing may be left of it.
type scenario struct {
	name    string
	start   func(*testing.T, *Client, lane)
	do      func(context.Context, *Client, lane) error
	handles []string // workload handles it may have left
	forms   int      // in how many forms of the API it is played too; one has all kinds of writes and is played in both
}

func scenarios() []scenario {
	nothing := func(*testing.T, *Client, lane) {}
	claimed := func(t *testing.T, c *Client, l lane) { claimOne(t, c, l.blocks4().String()) }
	assigned := func(n int) func(*testing.T, *Client, lane) {
		return func(t *testing.T, c *Client, l lane) { mustAssign(t, c, workload(l.named("h"), n)) }
	}
	assign := func(n int) func(context.Context, *Client, lane) error {
		return func(ctx context.Context, c *Client, l lane) error {
			_, err := c.AutoAssign(ctx, workload(l.named("h"), n))
			return err
		}
	}
	release := func(mustBeEmpty bool) func(context.Context, *Client, lane) error {
		return func(ctx context.Context, c *Client, _ lane) error { return releaseOwn(ctx, c, mustBeEmpty) }
	}
	h := []string{"h"}
	return []scenario{
		{"claim", nothing, func(ctx context.Context, c *Client, l lane) error {
			_, err := c.ClaimBlock(ctx, l.blocks4())
			return err
		}, nil, 1},
		{"assign from nothing", nothing, assign(1), h, 1},
		{"assign over two blocks", nothing, assign(6), h, 1},
		{"assign from an own block", claimed, assign(2), h, 1},
		{"assign one", nothing, func(ctx context.Context, c *Client, l lane) error {
			return c.AssignIP(ctx, l.addr4("10.2.%d.9"), l.named("h"), nil, Workload)
		}, h, 1},
		{"release by handle", assigned(6), func(ctx context.Context, c *Client, l lane) error { return c.ReleaseByHandle(ctx, l.named("h")) }, h, 1},
		{"release addresses", assigned(6), func(ctx context.Context, c *Client, l lane) error {
			_, err := c.ReleaseIPs(ctx, Release{Addr: l.addr4("10.1.%d.0")}, Release{Addr: l.addr4("10.1.%d.4")},
				Release{Addr: l.addr4("10.1.%d.8")}, Release{Addr: l.addr4("10.1.%d.12")})
			return err
		}, h, 1},
		{"release of an empty block", claimed, release(true), nil, 1},
		{"release of a used block", assigned(3), release(false), h, 1},
		{"tunnel addresses from nothing", nothing, ensureAll, nil, 1},
		{"tunnel addresses dropped", func(t *testing.T, c *Client, l lane) {
			ensure(t, c)
			change(t, c.Store, l.named("v4"), func(s *calico.IPPoolSpec) { s.VXLANMode = "Never" })
			change(t, c.Store, l.named("ipip"), func(s *calico.IPPoolSpec) { s.IPIPMode = "Never" })
		}, ensureAll, nil, 1},
		{"tunnel addresses moved", func(t *testing.T, c *Client, l lane) {
			ensure(t, c)
			change(t, c.Store, l.named("v4"), func(s *calico.IPPoolSpec) { s.VXLANMode = "Never" })
			change(t, c.Store, l.named("ipip"), func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "Never", "Always" })
		}, ensureAll, nil, 2},
		{"tunnel addresses lost", func(t *testing.T, c *Client, _ lane) {
			ensure(t, c)
			for _, k := range tunnels() {
				if err := c.ReleaseByHandle(t.Context(), k.handle+c.Node); err != nil {
					t.Fatal(err)
				}
			}
		}, ensureAll, nil, 0},
	}
}

func ensureAll(ctx context.Context, c *Client, _ lane) error { return c.EnsureTunnelAddresses(ctx) }

// releaseOwn gives up all blocks of a node.
func releaseOwn(ctx context.Context, c *Client, mustBeEmpty bool) error {
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

func crashStore() *datastoretest.Memory { return datastoretest.NewMemory(lane(0).objects()...) }

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
					synctest.Test(t, func(t *testing.T) { fired = interrupt(t, crashStore(), s, fault.Fault, at) })
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
func interrupt(t *testing.T, store datastore.Store, s scenario, fault datastoretest.Fault, at int) bool {
	const l = lane(0)
	s.start(t, client(t, store, l.String()), l)
	fired := strike(t, store, s, l, fault, at)
	wantNeverWrong(t, store)
	comeBack(t, store, s, l)
	wantCheck(t, store)
	wantNothingLeft(t, store, client(t, store, l.String()))
	return fired
}

// strike makes the operation of a scenario with a fault at one write and reports whether the fault happened.
func strike(t *testing.T, store datastore.Store, s scenario, l lane, fault datastoretest.Fault, at int) bool {
	faulty := datastoretest.NewFaulty(store, datastoretest.At(at, fault))
	err := s.do(t.Context(), client(t, faulty, l.String()), l)
	fired := faulty.Fired() > 0
	switch {
	case !fired && err != nil, fault == datastoretest.Conflict && err != nil:
		t.Errorf("write %d: %v", at, err)
	case fired && fault == datastoretest.Crash && !errors.Is(err, datastoretest.ErrCrashed):
		t.Errorf("write %d: error %v after a crash", at, err)
	}
	return fired
}

// comeBack is what the daemon and the container runtime do when the node is there again.
func comeBack(t *testing.T, store datastore.Store, s scenario, l lane) {
	back := client(t, store, l.String())
	ensure(t, back)
	for _, h := range s.handles {
		if err := back.ReleaseByHandle(t.Context(), l.named(h)); err != nil && !errors.Is(err, datastore.ErrNotFound) {
			t.Errorf("release %s: %v", l.named(h), err)
		}
	}
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
func wantNothingLeft(t *testing.T, store datastore.Store, c *Client) {
	t.Helper()
	for _, pool := range []string{"v4", "v6", "ipip"} {
		change(t, store, lane(0).named(pool), func(s *calico.IPPoolSpec) { s.VXLANMode, s.IPIPMode = "Never", "Never" })
	}
	ensure(t, c)
	if err := releaseOwn(t.Context(), c, true); err != nil {
		t.Error(err)
	}
	if left := contents(t, store); len(left) > 0 {
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
					err := client(t, faulty, lane(0).String()).EnsureTunnelAddresses(t.Context())
					if at == first && !errors.Is(err, datastoretest.ErrCrashed) {
						t.Fatalf("no crash at write %d: %v", at, err)
					}
				}
				wantNeverWrong(t, store)
				back := client(t, store, lane(0).String())
				ensure(t, back)
				wantCheck(t, store)
				wantNothingLeft(t, store, back)
			})
		}
	}
}
