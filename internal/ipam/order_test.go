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
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// tap shows each call to a store before it is made; an error it returns is the call's answer.
type tap struct {
	datastore.Store
	before func(verb string, kind calico.Kind, obj calico.Object) error
	calls  []string // the writes that were made
}

func (s *tap) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	if s.before != nil {
		if err := s.before("get", kind, nil); err != nil {
			return nil, err
		}
	}
	return s.Store.Get(ctx, kind, name)
}

func (s *tap) note(verb string, obj calico.Object, err error) {
	if err != nil {
		return
	}
	state := ""
	switch o := obj.(type) {
	case *calico.BlockAffinity:
		state = " " + o.Spec.State
	case *calico.IPAMHandle:
		state = fmt.Sprint(" ", o.Spec.Block)
	case *calico.IPAMBlock:
		state = fmt.Sprint(" ", len(o.Spec.Allocations)-len(o.Spec.Unallocated))
		if o.Spec.Affinity == nil {
			state += " ownerless"
		}
	}
	if verb == "update" && *deletedMark(obj) {
		state = " deleted"
	}
	s.calls = append(s.calls, verb+" "+string(obj.Kind())+state)
}

func (s *tap) Create(ctx context.Context, obj calico.Object) (calico.Object, error) {
	out, err := s.Store.Create(ctx, obj)
	s.note("create", obj, err)
	return out, err
}

func (s *tap) Update(ctx context.Context, obj calico.Object) (calico.Object, error) {
	if s.before != nil {
		if err := s.before("update", obj.Kind(), obj); err != nil {
			return nil, err
		}
	}
	out, err := s.Store.Update(ctx, obj)
	s.note("update", obj, err)
	return out, err
}

func (s *tap) Delete(ctx context.Context, obj calico.Object) error {
	err := s.Store.Delete(ctx, obj)
	if err == nil {
		s.calls = append(s.calls, "delete "+string(obj.Kind()))
	}
	return err
}

func (s *tap) PatchNode(ctx context.Context, name string, patch datastore.NodePatch) error {
	s.calls = append(s.calls, "patch Node")
	return s.Store.PatchNode(ctx, name, patch)
}

// TestOrderOfWrites is the order the package comment promises.
func TestOrderOfWrites(t *testing.T) {
	claim := func(t *testing.T, c *Client) {
		if _, _, err := c.ClaimBlocks(t.Context(), testBlock); err != nil {
			t.Fatal(err)
		}
	}
	release := func(t *testing.T, c *Client) {
		if err := c.ReleaseAffinity(t.Context(), testBlock, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		there []calico.Object
		do    func(*testing.T, *Client)
		want  []string
	}{
		{"claim", nil, claim, []string{"create BlockAffinity pending", "create IPAMBlock 0", "update BlockAffinity confirmed"}},
		{"claim whose block is gone", []calico.Object{affinityIn("node-a", confirmed)}, claim,
			[]string{"update BlockAffinity pending", "create IPAMBlock 0", "update BlockAffinity confirmed"}},
		{"claim under release", []calico.Object{affinityIn("node-a", pendingDeletion), blockOf("node-a", 0)}, claim,
			[]string{"update BlockAffinity pending", "update IPAMBlock 0", "update BlockAffinity confirmed"}},
		{"claim that is complete", []calico.Object{affinityIn("node-a", confirmed), blockOf("node-a", 0)}, claim, nil},
		{"claim that is lost", []calico.Object{affinityIn("node-b", confirmed), blockOf("node-b", 0)}, claim,
			[]string{"create BlockAffinity pending", "update BlockAffinity deleted", "delete BlockAffinity"}},
		{"release", []calico.Object{affinityIn("node-a", confirmed), blockOf("node-a", 0)}, release,
			[]string{"update BlockAffinity pendingDeletion", "update IPAMBlock deleted", "delete IPAMBlock", "update BlockAffinity deleted", "delete BlockAffinity"}},
		{"release in use", []calico.Object{affinityIn("node-a", confirmed), blockOf("node-a", 1)}, release,
			[]string{"update BlockAffinity pendingDeletion", "update IPAMBlock 1 ownerless", "update BlockAffinity deleted", "delete BlockAffinity"}},
		{"release without a claim", []calico.Object{blockOf("node-a", 0)}, release,
			[]string{"create BlockAffinity pendingDeletion", "update IPAMBlock deleted", "delete IPAMBlock", "update BlockAffinity deleted", "delete BlockAffinity"}},
		{"assign", []calico.Object{affinityIn("node-a", confirmed), blockOf("node-a", 0)},
			func(t *testing.T, c *Client) { mustAssign(t, c, workload("h", 2)) },
			[]string{"create IPAMHandle map[10.0.0.0/26:2]", "update IPAMBlock 2"}},
		{"give back", []calico.Object{affinityIn("node-a", confirmed), blockOf("node-a", 1), usedHandle(1)},
			func(t *testing.T, c *Client) {
				if _, err := c.ReleaseIPs(t.Context(), Release{Addr: testBlock.Addr()}); err != nil {
					t.Fatal(err)
				}
			}, []string{"update IPAMBlock 0", "update IPAMHandle deleted", "delete IPAMHandle"}},
		{"tunnel address", []calico.Object{affinityIn("node-a", confirmed), blockOf("node-a", 0)}, func(t *testing.T, c *Client) { ensure(t, c) },
			[]string{"create IPAMHandle map[10.0.0.0/26:1]", "update IPAMBlock 1", "patch Node"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &tap{Store: datastoretest.NewMemory(append(c.there, ipPool("pool", "10.0.0.0/26", vxlan), calicoNode("node-a"))...)}
			c.do(t, client(t, s, "node-a"))
			if diff := cmp.Diff(c.want, s.calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestClaimSurvivesRelease: a claim that completes while a release is under way keeps its block even if the releaser
// then dies: the rewritten block refuses the deletion.
func TestClaimSurvivesRelease(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"), blockOf("node-a", 0), affinityIn("node-a", confirmed))
	releaser := datastoretest.NewFaulty(store, func(n int, _ string, _ calico.Kind) datastoretest.Fault {
		switch n {
		case 2: // after the claim was marked, before the block is
			if _, _, err := client(t, store, "node-a").ClaimBlocks(t.Context(), testBlock); err != nil {
				t.Error(err)
			}
		case 3:
			return datastoretest.Crash
		}
		return datastoretest.NoFault
	})
	err := client(t, releaser, "node-a").ReleaseAffinity(t.Context(), testBlock, true)
	wantIs(t, err, datastoretest.ErrCrashed)
	wantCheck(t, store)
	if got := contents(t, store); len(got) != 2 {
		t.Error(got)
	}
}

// TestReclaimGuard: a block that its owner has used and emptied again since the list was read is not taken from him.
func TestReclaimGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"), calicoNode("node-b"))
		owner := client(t, store, "node-a")
		claimOne(t, owner, "10.0.0.0/26")
		time.Sleep(2 * reclaimAge)
		used := false
		s := &tap{Store: store, before: func(verb string, kind calico.Kind, _ calico.Object) error {
			if verb == "get" && kind == calico.KindBlockAffinity && !used { // the eviction begins
				used = true
				mustAssign(t, owner, workload("h", 1))
				return owner.ReleaseByHandle(t.Context(), "h")
			}
			return nil
		}}
		_, err := client(t, s, "node-b").ClaimBlock(t.Context(), testBlock)
		wantIs(t, err, ErrFull)
		if !used {
			t.Error("nothing was evicted, so nothing was tested")
		}
		if b := getBlock(t, store, testBlock.String()); hostOf(&b.Spec) != "node-a" {
			t.Errorf("the block is %s's now", hostOf(&b.Spec))
		}
		wantCheck(t, store)
	})
}

// TestNoLoanFromDeletedBlock: a block that is marked deleted lends no address, though a list still shows it. Its deleter
// would delete it all the same, and the next owner would give the address to somebody else.
func TestNoLoanFromDeletedBlock(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"), calicoNode("node-b"))
	claimOne(t, client(t, store, "node-a"), "10.0.0.0/26")
	var lent []netip.Prefix
	asked := false
	owner := datastoretest.NewFaulty(store, func(_ int, verb string, kind calico.Kind) datastoretest.Fault {
		if verb == "delete" && kind == calico.KindIPAMBlock && !asked { // it is marked by now
			asked = true
			// The claim is too young to be reclaimed: node-b may take the block for gone, not borrow from it.
			got, err := client(t, store, "node-b").AutoAssign(t.Context(), workload("b", 1))
			if lent = got; !expected(err) {
				t.Error(err)
			}
		}
		return datastoretest.NoFault
	})
	if err := client(t, owner, "node-a").ReleaseAffinity(t.Context(), testBlock, true); err != nil {
		t.Fatal(err)
	}
	if !asked {
		t.Fatal("no block was deleted, so nothing was tested")
	}
	wantNeverWrong(t, store)
	for _, got := range mustAssign(t, client(t, store, "node-a"), workload("a", 1)) {
		if slices.Contains(lent, got) {
			t.Errorf("%s is assigned to a and to b", got)
		}
	}
	wantCheck(t, store)
}

// TestUncertainWrite: where nobody can say whether a block was written, the handle keeps its count.
func TestUncertainWrite(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/26"), calicoNode("node-a"), blockOf("node-a", 0), affinityIn("node-a", confirmed))
	lost, blind := errors.New("answer lost"), errors.New("cannot read")
	written := false
	s := &tap{Store: store}
	s.before = func(verb string, kind calico.Kind, obj calico.Object) error {
		switch {
		case kind == calico.KindIPAMBlock && verb == "update":
			if _, err := store.Update(t.Context(), obj); err != nil {
				t.Error(err)
			}
			written = true
			return lost
		case kind == calico.KindIPAMBlock && written:
			return blind
		}
		return nil
	}
	_, err := client(t, s, "node-a").AutoAssign(t.Context(), workload("h", 1))
	wantIs(t, err, lost)
	wantNeverWrong(t, store)
	wantCheck(t, store) // it was written
}

// TestStaleClaim: a confirmed claim on another's block gives no address of that block and disappears.
func TestStaleClaim(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/25"), calicoNode("node-a"), blockOf("node-b", 0),
		affinityIn("node-b", confirmed), affinityIn("node-a", confirmed))
	got := mustAssign(t, client(t, store, "node-a"), workload("h", 1))
	if testBlock.Contains(got[0].Addr()) {
		t.Errorf("%s is of node-b's block", got[0])
	}
	wantCheck(t, store)
}

// TestRepair mends by hand what each damage leaves.
func TestRepair(t *testing.T) {
	tunnelHandle := "vxlan-tunnel-addr-node-a"
	for _, c := range []struct {
		name   string
		damage func(*testing.T, *datastoretest.Memory)
		gone   bool // nothing of the block is left
	}{
		{"claim pending, no block", func(t *testing.T, s *datastoretest.Memory) { s.MustCreate(t, affinityIn("node-a", pending)) }, true},
		{"claim being released, no block", func(t *testing.T, s *datastoretest.Memory) { s.MustCreate(t, affinityIn("node-a", pendingDeletion)) }, true},
		{"claim confirmed, no block", func(t *testing.T, s *datastoretest.Memory) { s.MustCreate(t, affinityIn("node-a", confirmed)) }, false},
		{"claim pending, our block", func(t *testing.T, s *datastoretest.Memory) {
			s.MustCreate(t, affinityIn("node-a", pending), blockOf("node-a", 0))
		}, false},
		{"claim without labels", func(t *testing.T, s *datastoretest.Memory) {
			a := affinityIn("node-a", confirmed)
			a.Labels = nil
			s.MustCreate(t, a, blockOf("node-a", 0))
		}, false},
		{"half deleted", func(t *testing.T, s *datastoretest.Memory) {
			s.MustCreate(t, deleted(affinityIn("node-a", pendingDeletion)), deleted(blockOf("node-b", 0)))
		}, true},
		{"handle too low", func(t *testing.T, s *datastoretest.Memory) { tunnelDamage(t, s, tunnelHandle, 2, 1) }, false},
		{"handle too high", func(t *testing.T, s *datastoretest.Memory) { tunnelDamage(t, s, tunnelHandle, 1, 5) }, false},
		{"handle missing", func(t *testing.T, s *datastoretest.Memory) { tunnelDamage(t, s, tunnelHandle, 1, 0) }, false},
		{"handle of nothing", func(t *testing.T, s *datastoretest.Memory) { tunnelDamage(t, s, tunnelHandle, 0, 1) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/25"))
			c.damage(t, store)
			cl := client(t, store, "node-a")
			objects, _ := Load(t.Context(), store)
			if Check(objects) == nil {
				t.Fatal("there is no damage")
			}
			if err := cl.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantCheck(t, store)
			if gone := len(contents(t, store)) == 0; gone != c.gone {
				t.Errorf("left: %q", contents(t, store))
			}
		})
	}
}

// TestRepairReadsOwnObjectsOnly: what a start reads does not grow with the cluster.
func TestRepairReadsOwnObjectsOnly(t *testing.T) {
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/16"), calicoNode("node-a"))
	for i := range 50 {
		claimOne(t, client(t, store, fmt.Sprintf("other-%d", i)), "10.0.0.0/16")
	}
	claimOne(t, client(t, store, "node-a"), "10.0.0.0/16")
	counted := &readCounter{Memory: store}
	if err := client(t, counted, "node-a").Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if counted.reads == 0 || counted.reads > 12 {
		t.Errorf("a repair read %d objects of a cluster of 51 blocks, want the node's own block, claim, handles and the settings", counted.reads)
	}
}

// readCounter counts the objects that are read.
type readCounter struct {
	*datastoretest.Memory
	reads int
}

func (r *readCounter) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	r.reads++
	return r.Memory.Get(ctx, kind, name)
}

func (r *readCounter) List(ctx context.Context, kind calico.Kind) ([]calico.Object, error) {
	objects, err := r.Memory.List(ctx, kind)
	r.reads += len(objects)
	return objects, err
}

func (r *readCounter) ListAffinities(ctx context.Context, host string) ([]calico.Object, error) {
	objects, err := r.Memory.ListAffinities(ctx, host)
	r.reads += len(objects)
	return objects, err
}

// tunnelDamage makes a block with addresses under a tunnel handle that counts another number.
func tunnelDamage(t *testing.T, s *datastoretest.Memory, handle string, held, counted int) {
	b := newBlock(testBlock, "node-a", time.Now())
	b.assign(held, handle, map[string]string{"node": "node-a", "type": "vxlanTunnelAddress"})
	s.MustCreate(t, b.IPAMBlock, affinityIn("node-a", confirmed))
	if counted > 0 {
		h := handleNamed(handle)
		h.Spec.Block = map[string]int{testBlock.String(): counted}
		s.MustCreate(t, h)
	}
}

// TestPasses over what others broke: a block that cannot be read costs its own addresses only.
func TestBrokenBlockAside(t *testing.T) {
	broken := blockOf("node-a", 0)
	broken.Spec.Allocations = broken.Spec.Allocations[:5]
	store := datastoretest.NewMemory(ipPool("pool", "10.0.0.0/25"), calicoNode("node-a"), broken, affinityIn("node-a", confirmed))
	got := mustAssign(t, client(t, store, "node-a"), workload("h", 1))
	if testBlock.Contains(got[0].Addr()) {
		t.Errorf("%s is of the broken block", got[0])
	}
	_, err := client(t, store, "node-a").ReleaseIPs(t.Context(), Release{Addr: netip.MustParseAddr("10.0.0.1")})
	if err == nil || !strings.Contains(err.Error(), "spec.allocations") {
		t.Errorf("error %v", err)
	}
}

// TestNullLists: what came as null from a datastore goes back as a list, which Calico's schema demands.
func TestNullLists(t *testing.T) {
	obj := &calico.IPAMBlock{Spec: calico.IPAMBlockSpec{CIDR: "10.0.0.0/32", Allocations: []*int{nil}}}
	b, err := parseBlock(obj)
	if err != nil || b.Spec.Unallocated == nil || b.Spec.Attributes == nil {
		t.Errorf("%+v, %v", b, err)
	}
}
