package ipam

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

var testBlock = netip.MustParsePrefix("10.0.0.0/26")

// affinityIn returns a claim in a state.
func affinityIn(node, state string) *calico.BlockAffinity {
	a := newAffinity(node, testBlock)
	a.Spec.State = state
	return a
}

// blockOf returns the test block with an owner and n addresses in use.
func blockOf(owner string, n int) *calico.IPAMBlock {
	b := newBlock(testBlock, owner, time.Now())
	if owner == "" {
		b.Spec.Affinity, b.Spec.AffinityClaimTime = nil, nil
	}
	b.assign(n, "h", nil)
	return b.IPAMBlock
}

// usedHandle counts the addresses of blockOf.
func usedHandle(n int) *calico.IPAMHandle {
	h := &calico.IPAMHandle{Spec: calico.IPAMHandleSpec{HandleID: "h", Block: map[string]int{testBlock.String(): n}}}
	h.Name = "h"
	return h
}

func deleted[T calico.Object](obj T) T {
	*deletedMark(obj) = true
	return obj
}

// TestClaimTable is the table of conflicts of reference 3.7: what is there, and what a claim by node-a makes of it.
func TestClaimTable(t *testing.T) {
	ours := []string{"affinity node-a 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-a 0"}
	for _, c := range []struct {
		name    string
		there   []calico.Object
		want    []string
		refused bool
	}{
		{"nothing", nil, ours, false},
		{"our block, no claim", []calico.Object{blockOf("node-a", 0)}, ours, false},
		{"our block, claim pending", []calico.Object{blockOf("node-a", 0), affinityIn("node-a", pending)}, ours, false},
		{"our block, claim confirmed", []calico.Object{blockOf("node-a", 0), affinityIn("node-a", confirmed)}, ours, false},
		{"our block, claim of old data", []calico.Object{blockOf("node-a", 0), affinityIn("node-a", "")},
			[]string{"affinity node-a 10.0.0.0/26 ", "block 10.0.0.0/26 host:node-a 0"}, false},
		{"our block, claim being released", []calico.Object{blockOf("node-a", 0), affinityIn("node-a", pendingDeletion)}, ours, false},
		{"claim pending, no block", []calico.Object{affinityIn("node-a", pending)}, ours, false},
		{"claim confirmed, no block", []calico.Object{affinityIn("node-a", confirmed)}, ours, false},
		{"claim being released, no block", []calico.Object{affinityIn("node-a", pendingDeletion)}, ours, false},
		{"another's block", []calico.Object{blockOf("node-b", 0), affinityIn("node-b", confirmed)},
			[]string{"affinity node-b 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-b 0"}, true},
		{"another's block, our claim pending", []calico.Object{blockOf("node-b", 0), affinityIn("node-b", confirmed), affinityIn("node-a", pending)},
			[]string{"affinity node-b 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-b 0"}, true},
		{"another's block, our claim confirmed", []calico.Object{blockOf("node-b", 0), affinityIn("node-b", confirmed), affinityIn("node-a", confirmed)},
			[]string{"affinity node-b 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-b 0"}, true},
		{"nobody's block", []calico.Object{blockOf("", 2), usedHandle(2)},
			[]string{"block 10.0.0.0/26 - 2", "handle h map[10.0.0.0/26:2]"}, true},
		{"another announces", []calico.Object{affinityIn("node-b", pending)},
			[]string{"affinity node-a 10.0.0.0/26 confirmed", "affinity node-b 10.0.0.0/26 pending", "block 10.0.0.0/26 host:node-a 0"}, false},
		{"everything marked deleted", []calico.Object{deleted(blockOf("node-b", 0)), deleted(affinityIn("node-a", confirmed))}, ours, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := datastoretest.NewMemory(append(c.there, ipPool("pool", "10.0.0.0/26"))...)
			claimed, refused, err := client(t, store, "node-a").ClaimBlocks(t.Context(), testBlock)
			if err != nil || (len(refused) == 1) != c.refused || (len(claimed) == 1) == c.refused {
				t.Errorf("claimed %v, refused %v, %v", claimed, refused, err)
			}
			if diff := cmp.Diff(c.want, contents(t, store)); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// TestReleaseTable: what a release by node-a makes of what is there.
func TestReleaseTable(t *testing.T) {
	for _, c := range []struct {
		name      string
		there     []calico.Object
		mustEmpty bool
		want      []string
		err       error
	}{
		{"nothing", nil, false, nil, nil},
		{"empty block", []calico.Object{blockOf("node-a", 0), affinityIn("node-a", confirmed)}, true, nil, nil},
		{"block in use", []calico.Object{blockOf("node-a", 2), affinityIn("node-a", confirmed)}, false, []string{"block 10.0.0.0/26 - 2"}, nil},
		{"block in use, must be empty", []calico.Object{blockOf("node-a", 2), affinityIn("node-a", confirmed)}, true,
			[]string{"affinity node-a 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-a 2"}, ErrNotEmpty},
		{"block in use, must be empty, marked by a dead one", []calico.Object{blockOf("node-a", 2), affinityIn("node-a", pendingDeletion)}, true,
			[]string{"affinity node-a 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-a 2"}, ErrNotEmpty},
		{"no claim", []calico.Object{blockOf("node-a", 0)}, false, nil, nil},
		{"claim marked, block gone", []calico.Object{affinityIn("node-a", pendingDeletion)}, false, nil, nil},
		{"stale claim", []calico.Object{blockOf("node-b", 0), affinityIn("node-a", confirmed), affinityIn("node-b", confirmed)}, false,
			[]string{"affinity node-b 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-b 0"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := datastoretest.NewMemory(c.there...)
			err := client(t, store, "node-a").ReleaseAffinity(t.Context(), testBlock, c.mustEmpty)
			wantIs(t, err, c.err)
			if diff := cmp.Diff(c.want, contents(t, store)); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// TestReleaseMeetsUse: an address assigned while the block is being released keeps the block; the two are put into
// each other's way at every write.
func TestReleaseMeetsUse(t *testing.T) {
	for at := 1; ; at++ {
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"))
		user := client(t, store, "node-a")
		if _, err := user.ClaimBlock(t.Context(), testBlock); err != nil {
			t.Fatal(err)
		}
		var got []netip.Prefix
		between := datastoretest.NewFaulty(store, func(n int, _ string, _ calico.Kind) datastoretest.Fault {
			if n == at {
				got = mustAssign(t, user, workload("h", 1))
			}
			return datastoretest.NoFault
		})
		err := client(t, between, "node-a").ReleaseAffinity(t.Context(), testBlock, true)
		if between.Writes() < at {
			if at < 4 {
				t.Fatalf("a release makes only %d writes", between.Writes())
			}
			return
		}
		wantCheck(t, store)
		b, perr := parseBlock(getBlock(t, store, testBlock.String()))
		if perr != nil || b.attrs(b.ordinal(got[0].Addr())) == nil {
			t.Errorf("use at write %d: %s is not assigned (release: %v)", at, got[0], err)
		}
	}
}

// TestReclaimAge: an empty block of another node is taken after a minute, not before, and not when it is in use.
func TestReclaimAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"), calicoNode("node-b"),
			ipamConfig(func(s *calico.IPAMConfigurationSpec) { s.StrictAffinity = true }))
		a, b := client(t, store, "node-a"), client(t, store, "node-b")
		if _, err := a.ClaimBlock(t.Context(), testBlock); err != nil {
			t.Fatal(err)
		}
		_, err := b.AutoAssign(t.Context(), workload("h", 1))
		wantIs(t, err, ErrFull, "pool", "10.0.0.0/26")
		time.Sleep(reclaimAge + time.Second)
		mustAssign(t, b, workload("h", 1))
		want := []string{"affinity node-b 10.0.0.0/26 confirmed", "block 10.0.0.0/26 host:node-b 1", "handle h map[10.0.0.0/26:1]"}
		if diff := cmp.Diff(want, contents(t, store)); diff != "" {
			t.Error(diff)
		}
		time.Sleep(reclaimAge + time.Second)
		_, err = a.AutoAssign(t.Context(), workload("h2", 1))
		wantIs(t, err, ErrFull)
		wantCheck(t, store)
	})
}

// TestCandidates: every block once, from a place that is the host's own.
func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		cidr string
		size int
		n    int
	}{{"10.0.0.0/16", 26, 1024}, {"10.0.0.0/26", 26, 1}, {"10.9.0.0/28", 32, 16}, {"fd00:10::/112", 122, 1024}, {"fd00::/118", 128, 1024}} {
		p := &cluster.Pool{CIDR: netip.MustParsePrefix(c.cidr), BlockSize: c.size}
		seen := map[netip.Prefix]bool{}
		var order []netip.Prefix
		for b := range candidates(p, "node-a") {
			if seen[b] || b.Bits() != c.size || b != b.Masked() || !p.CIDR.Contains(b.Addr()) {
				t.Fatalf("%s: block %s is wrong or came twice", c.cidr, b)
			}
			seen[b] = true
			order = append(order, b)
		}
		if len(seen) != c.n {
			t.Errorf("%s: %d blocks, want %d", c.cidr, len(seen), c.n)
		}
		again := slices.Collect(candidates(p, "node-a"))
		single := c.size == p.CIDR.Addr().BitLen()
		if !single && !slices.Equal(order, again) {
			t.Errorf("%s: the second walk differs from the first", c.cidr)
		}
	}
	big := &cluster.Pool{CIDR: netip.MustParsePrefix("fd00::/16"), BlockSize: 122}
	var first, second netip.Prefix
	for b := range candidates(big, "node-a") {
		if first, second = second, b; first.IsValid() {
			break
		}
	}
	if !big.CIDR.Contains(first.Addr()) || first.Addr() == second.Addr() || first.Bits() != 122 {
		t.Errorf("blocks %s, %s of %s", first, second, big.CIDR)
	}
}

// TestCandidatesSpread: hosts start at different places. The places are fixed: another order would make a node that
// is upgraded ask for other blocks than before, and differ from Calico's.
func TestCandidatesSpread(t *testing.T) {
	p := &cluster.Pool{CIDR: netip.MustParsePrefix("10.244.0.0/16"), BlockSize: 26}
	got := map[string]string{}
	for _, host := range []string{"node-a", "node-b", "node-c", "ip-10-0-0-1.ec2.internal"} {
		for b := range candidates(p, host) {
			got[host] = b.String()
			break
		}
	}
	want := map[string]string{"node-a": "10.244.174.128/26", "node-b": "10.244.218.64/26", "node-c": "10.244.99.192/26",
		"ip-10-0-0-1.ec2.internal": "10.244.138.192/26"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first blocks:\n%s", diff)
	}
}

// TestNoOverlappingBlocks: a pool that was cut otherwise before, and a pool within a pool.
func TestNoOverlappingBlocks(t *testing.T) {
	old := newBlock(netip.MustParsePrefix("10.0.0.0/28"), "node-b", time.Now())
	oldAff := newAffinity("node-b", old.cidr)
	oldAff.Spec.State = confirmed
	store := datastoretest.NewMemory(ipPool("outer", "10.0.0.0/24"), ipPool("inner", "10.0.0.64/26", size(29)), calicoNode("node-a"),
		old.IPAMBlock, oldAff)
	a := client(t, store, "node-a")
	for range 2 {
		if _, err := a.ClaimBlock(t.Context(), netip.MustParsePrefix("10.0.0.0/24")); err != nil {
			t.Fatal(err)
		}
	}
	_, err := a.ClaimBlock(t.Context(), netip.MustParsePrefix("10.0.0.0/24"))
	wantIs(t, err, ErrFull)
	list, err := store.List(t.Context(), calico.KindIPAMBlock)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for i, x := range list {
		for _, y := range list[:i] {
			p, q := x.(*calico.IPAMBlock).Spec.CIDR, y.(*calico.IPAMBlock).Spec.CIDR
			if netip.MustParsePrefix(p).Overlaps(netip.MustParsePrefix(q)) {
				t.Errorf("%s overlaps %s", p, q)
			}
		}
	}
}

// TestSoftDeleteRace: whoever meets the mark finishes the deletion, and the one who set it does not mind.
func TestSoftDeleteRace(t *testing.T) {
	for at := 1; at <= 2; at++ {
		store := datastoretest.NewMemory(blockOf("node-a", 0))
		reader := client(t, store, "node-b")
		between := datastoretest.NewFaulty(store, func(n int, verb string, _ calico.Kind) datastoretest.Fault {
			if verb == "delete" {
				_, err := read[*calico.IPAMBlock](t.Context(), reader, calico.KindIPAMBlock, calico.BlockName(testBlock))
				wantIs(t, err, datastore.ErrNotFound)
			}
			return datastoretest.NoFault
		})
		c := client(t, between, "node-a")
		if err := c.remove(t.Context(), getBlock(t, store, testBlock.String())); err != nil {
			t.Errorf("remove: %v", err)
		}
		if got := contents(t, store); len(got) != 0 {
			t.Error(got)
		}
	}
}
