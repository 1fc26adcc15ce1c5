package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

func TestAutoAssign(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/27", size(29)), calicoNode("node-a"))
	c := client(t, store, "node-a")
	first := mustAssign(t, c, workload("h1", 3))
	second := mustAssign(t, c, workload("h2", 10))
	all := map[netip.Prefix]bool{}
	for _, p := range append(first, second...) {
		if p.Bits() != 32 || all[p] {
			t.Errorf("%s is no host prefix or came twice", p)
		}
		all[p] = true
	}
	if len(first) != 3 || len(second) != 10 {
		t.Errorf("%d and %d addresses, want 3 and 10", len(first), len(second))
	}
	blocks, err := store.List(t.Context(), calico.KindIPAMBlock)
	if err != nil || len(blocks) != 2 {
		t.Errorf("13 addresses are in %d blocks of 8, want 2", len(blocks))
	}
	wantCheck(t, store)
	if err := c.ReleaseByHandle(t.Context(), "h2"); err != nil {
		t.Fatal(err)
	}
	err = c.ReleaseByHandle(t.Context(), "h2")
	wantIs(t, err, datastore.ErrNotFound)
	wantCheck(t, store)
	absent, err := c.ReleaseIPs(t.Context(), Release{Addr: first[0].Addr()}, Release{Addr: second[0].Addr()},
		Release{Addr: netip.MustParseAddr("192.0.2.1")})
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), second[0].Addr()}; err != nil || !slices.Equal(absent, want) {
		t.Errorf("absent %v, want %v; %v", absent, want, err)
	}
	wantCheck(t, store)
	_, err = c.ReleaseIPs(t.Context(), Release{Addr: first[1].Addr(), Handle: "h2"})
	wantIs(t, err, ErrNotHeld)
	wantCheck(t, store)
}

// TestPoolSelection: which pool an address comes from.
func TestPoolSelection(t *testing.T) {
	asked := func(cidrs ...string) func(*Request) {
		return func(r *Request) {
			for _, c := range cidrs {
				r.Pools = append(r.Pools, netip.MustParsePrefix(c))
			}
		}
	}
	tunnelUse := func(r *Request) { r.Use = Tunnel }
	v6 := func(r *Request) { r.Family = cluster.IPv6 }
	overlapping := ipPool("a", "10.1.0.0/24")
	overlapping.Status = &calico.IPPoolStatus{Conditions: []calico.Condition{
		{Type: "Other", Status: "True"}, {Type: calico.ConditionAllocatable, Status: "False", Reason: "CIDROverlap"}}}
	namespaced := ipPool("a", "10.1.0.0/24", func(s *calico.IPPoolSpec) { s.NamespaceSelector = "team == 'x'" })
	dying := ipPool("a", "10.1.0.0/24")
	now := time.Now()
	dying.DeletionTimestamp = &now
	for _, c := range []struct {
		name  string
		pools []*calico.IPPool
		ask   func(*Request)
		want  string // pool
		err   error
	}{
		{"first by name", []*calico.IPPool{ipPool("b", "10.1.0.0/24"), ipPool("a", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"by family", []*calico.IPPool{ipPool("a", "10.1.0.0/24"), ipPool("b", "fd00::/112")}, v6, "fd00::/112", nil},
		{"disabled", []*calico.IPPool{ipPool("a", "10.1.0.0/24", disabled), ipPool("b", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"being deleted", []*calico.IPPool{dying, ipPool("b", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"selector", []*calico.IPPool{ipPool("a", "10.1.0.0/24", selector("zone == 'b'")), ipPool("b", "10.2.0.0/24", selector("zone == 'a'"))}, nil, "10.2.0.0/24", nil},
		{"manual", []*calico.IPPool{ipPool("a", "10.1.0.0/24", manual), ipPool("b", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"use", []*calico.IPPool{ipPool("a", "10.1.0.0/24", uses("Workload")), ipPool("b", "10.2.0.0/24", uses("Tunnel"))}, tunnelUse, "10.2.0.0/24", nil},
		{"asked for, not selecting", []*calico.IPPool{ipPool("a", "10.1.0.0/24"), ipPool("b", "10.2.0.0/24", selector("zone == 'b'"))}, asked("10.2.0.0/24"), "10.2.0.0/24", nil},
		{"asked for, manual", []*calico.IPPool{ipPool("b", "10.2.0.0/24", manual)}, asked("10.2.0.0/24"), "10.2.0.0/24", nil},
		{"broken pool aside", []*calico.IPPool{ipPool("a", "nonsense"), ipPool("b", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"not allocatable", []*calico.IPPool{overlapping, ipPool("b", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"asked for, not allocatable", []*calico.IPPool{overlapping}, asked("10.1.0.0/24"), "", ErrNoPool},
		{"of some namespaces", []*calico.IPPool{namespaced, ipPool("b", "10.2.0.0/24")}, nil, "10.2.0.0/24", nil},
		{"asked for, of some namespaces", []*calico.IPPool{namespaced}, asked("10.1.0.0/24"), "10.1.0.0/24", nil},
		{"asked for, disabled", []*calico.IPPool{ipPool("b", "10.2.0.0/24", disabled)}, asked("10.2.0.0/24"), "", ErrNoPool},
		{"asked for, one of two missing", []*calico.IPPool{ipPool("b", "10.2.0.0/24")}, asked("10.2.0.0/24", "10.3.0.0/24"), "", ErrNoPool},
		{"asked for, wrong use", []*calico.IPPool{ipPool("b", "10.2.0.0/24", uses("Tunnel"))}, asked("10.2.0.0/24"), "", ErrNoPool},
		{"none", nil, nil, "", ErrNoPool},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := datastoretest.NewMemory(calicoNode("node-a", "zone=a"))
			for _, p := range c.pools {
				store.MustCreate(t, p)
			}
			r := workload("h", 1)
			if c.ask != nil {
				c.ask(&r)
			}
			got, err := client(t, store, "node-a").AutoAssign(t.Context(), r)
			wantIs(t, err, c.err)
			if err == nil && !netip.MustParsePrefix(c.want).Contains(got[0].Addr()) {
				t.Errorf("%s is not of pool %s", got[0], c.want)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	c := client(t, datastoretest.NewMemory(ipPool("pool", "10.0.0.0/24")), "node-a")
	for name, spoil := range map[string]func(*Request){
		"addresses": func(r *Request) { r.Num = 0 }, "handle": func(r *Request) { r.Handle = "" },
		"use": func(r *Request) { r.Use = "" }, "family": func(r *Request) { r.Family = 0 },
	} {
		r := workload("h", 1)
		spoil(&r)
		if _, err := c.AutoAssign(t.Context(), r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestBlockLimit: the limit is an error at once, also where borrowing is allowed; what was found is returned.
func TestBlockLimit(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/24", size(30)), calicoNode("node-a"),
		ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.MaxBlocksPerHost = 2; s.StrictAffinity = true }))
	c := client(t, store, "node-a")
	got, err := c.AutoAssign(t.Context(), workload("h", 9))
	wantIs(t, err, ErrBlockLimit, "maxBlocksPerHost", "2")
	if len(got) != 8 {
		t.Errorf("%d addresses of 2 blocks of 4", len(got))
	}
	wantCheck(t, store)
	_, err = c.ClaimBlock(t.Context(), netip.MustParsePrefix("10.0.0.0/24"))
	wantIs(t, err, ErrBlockLimit)

	store = datastoretest.NewMemory(ipPool("pool", "10.0.0.0/24", size(30)), calicoNode("node-a"))
	got, err = client(t, store, "node-a").AutoAssign(t.Context(), workload("h", 4*blockLimit+1))
	wantIs(t, err, ErrBlockLimit, "20")
	if len(got) != 4*blockLimit {
		t.Errorf("%d addresses, want %d of %d blocks", len(got), 4*blockLimit, blockLimit)
	}
}

// TestBorrowing: from other nodes' blocks only when no block is free and strict affinity does not forbid it.
func TestBorrowing(t *testing.T) {
	for _, strict := range []bool{false, true} {
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/30", size(31)), calicoNode("node-a"), calicoNode("node-b"),
			ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.StrictAffinity = strict }))
		a, b := client(t, store, "node-a"), client(t, store, "node-b")
		mustAssign(t, a, workload("a", 1))
		mustAssign(t, b, workload("b", 2))
		got, err := b.AutoAssign(t.Context(), workload("b2", 1))
		if strict {
			wantIs(t, err, ErrFull, "IPPool pool (10.0.0.0/30)")
		} else if err != nil || len(got) != 1 {
			t.Errorf("borrowed %v, %v", got, err)
		}
		_, err = b.AutoAssign(t.Context(), workload("b3", 2))
		wantIs(t, err, ErrFull)
		wantCheck(t, store)
	}
}

// TestNoNewBlocks: autoAllocateBlocks false.
func TestNoNewBlocks(t *testing.T) {
	no := false
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/24"), calicoNode("node-a"),
		ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.StrictAffinity = true; s.AutoAllocateBlocks = &no }))
	c := client(t, store, "node-a")
	_, err := c.AutoAssign(t.Context(), workload("h", 1))
	wantIs(t, err, ErrFull, "autoAllocateBlocks")
	if _, err := c.ClaimBlock(t.Context(), netip.MustParsePrefix("10.0.0.0/24")); err != nil {
		t.Fatal(err)
	}
	mustAssign(t, c, workload("h", 1))
}

// TestUnselectedBlockIsReleased: an empty block whose pool turns to other nodes is given up by the next assignment, one
// in use by the release of its last address.
func TestUnselectedBlockIsReleased(t *testing.T) {
	ctx := t.Context()
	store := datastoretest.NewMemory(ipPool("a", "10.0.0.0/29", size(30)), ipPool("b", "10.1.0.0/29", size(30)), calicoNode("node-a", "zone=a"))
	c := client(t, store, "node-a")
	mustAssign(t, c, workload("h", 4)) // fills one block of pool a
	if _, err := c.ClaimBlock(ctx, netip.MustParsePrefix("10.0.0.0/29")); err != nil {
		t.Fatal(err)
	}
	obj, err := store.Get(ctx, calico.KindIPPool, "a")
	if err != nil {
		t.Fatal(err)
	}
	obj.(*calico.IPPool).Spec.NodeSelector = "zone == 'b'"
	if _, err := store.Update(ctx, obj); err != nil {
		t.Fatal(err)
	}
	mustAssign(t, c, workload("h2", 1))
	count := func() (n int) {
		for _, line := range contents(t, store) {
			if strings.HasPrefix(line, "block 10.0.0.") {
				n++
			}
		}
		return n
	}
	if n := count(); n != 1 {
		t.Errorf("%d blocks of the pool are left, want the one in use: %q", n, contents(t, store))
	}
	if err := c.ReleaseByHandle(ctx, "h"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 0 {
		t.Errorf("%d blocks of the pool are left after the last address: %q", n, contents(t, store))
	}
	wantCheck(t, store)
}

func TestOwnerlessBlock(t *testing.T) {
	ctx := t.Context()
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"))
	c := client(t, store, "node-a")
	mustAssign(t, c, workload("h1", 2))
	mustAssign(t, c, workload("h2", 1))
	if err := c.ReleaseAffinity(ctx, testBlock, false); err != nil {
		t.Fatal(err)
	}
	if err := c.ReleaseByHandle(ctx, "h1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"block 10.0.0.0/26 - 1", "handle h2 map[10.0.0.0/26:1]"}, contents(t, store)); diff != "" {
		t.Error(diff)
	}
	if err := c.ReleaseByHandle(ctx, "h2"); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, store); len(got) != 0 {
		t.Errorf("an empty block without an owner is left: %q", got)
	}
}

func TestAssignIP(t *testing.T) {
	ctx := t.Context()
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/24", uses("Workload")), calicoNode("node-a"), calicoNode("node-b"))
	a, b := client(t, store, "node-a"), client(t, store, "node-b")
	addr := netip.MustParseAddr("10.0.0.7")
	if err := a.AssignIP(ctx, addr, "h", nil, Workload); err != nil {
		t.Fatal(err)
	}
	wantIs(t, a.AssignIP(ctx, addr, "h2", nil, ""), ErrInUse, "10.0.0.7")
	wantIs(t, a.AssignIP(ctx, addr.Next(), "h", nil, Tunnel), ErrNoPool)
	wantIs(t, a.AssignIP(ctx, netip.MustParseAddr("192.0.2.1"), "h", nil, ""), ErrNoPool)
	if err := b.AssignIP(ctx, addr.Next(), "b", nil, Workload); err != nil {
		t.Errorf("borrowing one address: %v", err)
	}
	wantCheck(t, store)
	store.MustCreate(t, ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.StrictAffinity = true }))
	wantIs(t, b.AssignIP(ctx, addr.Next().Next(), "b", nil, Workload), ErrClaimed, "strictAffinity")
	wantCheck(t, store)
}

// TestCooldown: a released address comes back when its cooldown is over, not before, and nobody holds it meanwhile.
func TestCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/31", size(31)), calicoNode("node-a"),
			ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.StrictAffinity = true; s.IPCooldownSeconds = 60 }))
		c := client(t, store, "node-a")
		mustAssign(t, c, workload("h1", 1))
		mustAssign(t, c, workload("h2", 1))
		if err := c.ReleaseByHandle(ctx, "h1"); err != nil {
			t.Fatal(err)
		}
		b := getBlock(t, store, "10.0.0.0/31")
		if n := len(b.Spec.Unallocated); n != 0 || b.Spec.Attributes[*b.Spec.Allocations[0]].ReleasedAt == nil {
			t.Errorf("%d free addresses, attributes %+v", n, b.Spec.Attributes)
		}
		wantCheck(t, store)
		time.Sleep(58 * time.Second)
		_, err := c.AutoAssign(ctx, workload("h3", 1))
		wantIs(t, err, ErrFull)
		absent, err := c.ReleaseIPs(ctx, Release{Addr: netip.MustParseAddr("10.0.0.0")})
		if err != nil || len(absent) != 1 {
			t.Errorf("second release: absent %v, %v", absent, err)
		}
		time.Sleep(4 * time.Second)
		if got := mustAssign(t, c, workload("h3", 1)); got[0] != host("10.0.0.0") {
			t.Errorf("got %s", got[0])
		}
		wantCheck(t, store)
	})
}

// TestQueueOrder: the address that has been free the longest is assigned next.
func TestQueueOrder(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/30", size(30)), calicoNode("node-a"))
	c := client(t, store, "node-a")
	var got []string
	for i := range 6 {
		handle := fmt.Sprint("h", i)
		got = append(got, mustAssign(t, c, workload(handle, 1))[0].Addr().String())
		if err := c.ReleaseByHandle(t.Context(), handle); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.0", "10.0.0.1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBusy: a store that answers every update of a block with a conflict ends the tries, not the patience of the caller.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/30", size(30)), calicoNode("node-a"))
		busy := datastoretest.NewFaulty(store, func(_ int, verb string, kind calico.Kind) datastoretest.Fault {
			if verb == "update" && kind == calico.KindIPAMBlock {
				return datastoretest.Conflict
			}
			return datastoretest.NoFault
		})
		_, err := client(t, busy, "node-a").AutoAssign(t.Context(), workload("h", 1))
		if !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want %v", err, ErrBusy)
		}
		if busy.Fired() < tries {
			t.Errorf("only %d tries", busy.Fired())
		}
		wantCheck(t, store) // the handle was counted back
	})
}

// TestEndedContext: a caller who gives up leaves nothing that is not mended, and the handle is counted back.
func TestEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/30", size(30)), calicoNode("node-a"))
		if _, err := client(t, store, "node-a").ClaimBlock(ctx, netip.MustParsePrefix("10.0.0.0/30")); err != nil {
			t.Fatal(err)
		}
		busy := datastoretest.NewFaulty(store, func(_ int, verb string, kind calico.Kind) datastoretest.Fault {
			if verb == "update" && kind == calico.KindIPAMBlock {
				cancel()
				return datastoretest.Conflict
			}
			return datastoretest.NoFault
		})
		_, err := client(t, busy, "node-a").AutoAssign(ctx, workload("h", 1))
		wantIs(t, err, context.Canceled)
		wantCheck(t, store)
	})
}
