package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
)

// model is a block as one would write it without the datastore's format: a queue and who holds what.
type model struct {
	queue    []int
	held     map[int]string
	released map[int]time.Time
	seq      map[int]uint64
}

func (m *model) collect(now time.Time, cooldown time.Duration) {
	var over []int
	for o, at := range m.released {
		if now.Sub(at) >= cooldown {
			over = append(over, o)
		}
	}
	slices.SortFunc(over, func(x, y int) int {
		if c := m.released[x].Compare(m.released[y]); c != 0 {
			return c
		}
		return x - y
	})
	for _, o := range over {
		delete(m.released, o)
		delete(m.seq, o)
		m.queue = append(m.queue, o)
	}
}

// compare holds the block against the model, and both against Check.
func (m *model) compare(t *testing.T, b *block) {
	t.Helper()
	if diff := cmp.Diff(m.queue, b.Spec.Unallocated); diff != "" {
		t.Fatalf("queue:\n%s", diff)
	}
	held, entries := map[int]string{}, map[string]int{}
	for o := range b.Spec.Allocations {
		if a := b.attrs(o); a != nil {
			held[o] = *a.HandleID + fmt.Sprint(a.Secondary)
			entries[held[o]] = *b.Spec.Allocations[o]
		}
	}
	if diff := cmp.Diff(m.held, held); diff != "" {
		t.Fatalf("holders:\n%s", diff)
	}
	for o, h := range held {
		if entries[h] != *b.Spec.Allocations[o] {
			t.Fatalf("%s has more than one entry of attributes", h)
		}
	}
	for o, s := range m.seq {
		if b.sequence(o) != s {
			t.Fatalf("sequence of %d is %d, want %d", o, b.sequence(o), s)
		}
	}
	if len(b.Spec.SequenceNumberForAllocation) != len(m.seq) {
		t.Fatalf("%d sequence numbers, want %d", len(b.Spec.SequenceNumberForAllocation), len(m.seq))
	}
	k := checker{counts: map[string]map[string]int{}}
	k.checkAllocations(b)
	if len(k.errs) > 0 {
		t.Fatal(k.errs)
	}
	if _, err := parseBlock(b.IPAMBlock); err != nil {
		t.Fatal(err)
	}
}

// TestBlockAgainstModel runs random histories of one block.
func TestBlockAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomHistory(t, seed) })
	}
}

func randomHistory(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	bits := 27 + rnd.IntN(6)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cooldown := time.Duration(rnd.IntN(3)) * 20 * time.Second
	b := newBlock(netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), bits), "node-a", now)
	m := &model{held: map[int]string{}, released: map[int]time.Time{}, seq: map[int]uint64{}}
	for i := range 1 << (32 - bits) {
		m.queue = append(m.queue, i)
	}
	take := func(ordinals []int, handle string, attrs map[string]string) {
		for _, o := range ordinals {
			m.queue = slices.DeleteFunc(m.queue, func(x int) bool { return x == o })
			m.held[o], m.seq[o] = handle+fmt.Sprint(attrs), b.Spec.SequenceNumber
		}
	}
	for range 60 {
		now = now.Add(time.Duration(rnd.IntN(30)) * time.Second)
		b.collect(now, cooldown)
		m.collect(now, cooldown)
		handle, attrs := fmt.Sprint("h", rnd.IntN(4)), map[string]string{"k": fmt.Sprint(rnd.IntN(2))}
		switch rnd.IntN(4) {
		case 0:
			n := rnd.IntN(5)
			want := slices.Clone(m.queue[:min(n, len(m.queue))])
			if got := b.assign(n, handle, attrs); !slices.Equal(got, want) {
				t.Fatalf("assigned %v, want the front of the queue %v", got, want)
			}
			take(want, handle, attrs)
		case 1:
			o := rnd.IntN(len(b.Spec.Allocations))
			free := slices.Contains(m.queue, o)
			if got := b.assignOrdinal(o, handle, attrs); got != free {
				t.Fatalf("assigning %d: %v, free: %v", o, got, free)
			}
			if free {
				take([]int{o}, handle, attrs)
			}
		case 2:
			b.release(b.held(handle), now)
			for o, h := range m.held {
				if h[:2] == handle {
					delete(m.held, o)
					m.released[o] = now
				}
			}
		case 3:
			addr := b.addr(rnd.IntN(len(b.Spec.Allocations)))
			ordinals, _, absent, err := b.releasable([]Release{{Addr: addr}, {Addr: addr}})
			_, isHeld := m.held[b.ordinal(addr)]
			if err != nil || isHeld != (len(ordinals) == 1) || isHeld == (len(absent) == 1) {
				t.Fatalf("release of %s: %v, absent %v, %v; held: %v", addr, ordinals, absent, err, isHeld)
			}
			b.release(ordinals, now)
			if isHeld {
				delete(m.held, ordinals[0])
				m.released[ordinals[0]] = now
			}
		}
		b.collect(now, cooldown)
		m.collect(now, cooldown)
		b.Spec.SequenceNumber++
		m.compare(t, b)
		if b.empty() != (len(m.held)+len(m.released) == 0) {
			t.Fatalf("empty: %v", b.empty())
		}
	}
}

func TestBlockAddresses(t *testing.T) {
	for _, c := range []struct{ block, addr string }{
		{"10.0.255.192/26", "10.0.255.255"},
		{"fd00:10:244::ffc0/122", "fd00:10:244::ffff"},
		{"fd00::ffff:f000/116", "fd00::ffff:ffff"},
		{"10.9.8.7/32", "10.9.8.7"},
	} {
		cidr, addr := netip.MustParsePrefix(c.block), netip.MustParseAddr(c.addr)
		b := newBlock(cidr, "n", time.Now())
		last := len(b.Spec.Allocations) - 1
		if b.addr(last) != addr || b.ordinal(addr) != last || b.addr(0) != cidr.Addr() || b.ordinal(cidr.Addr()) != 0 {
			t.Errorf("%s: last address %s at %d, want %s at %d", c.block, b.addr(last), b.ordinal(addr), addr, last)
		}
		if o := b.ordinal(addr.Next()); o != -1 {
			t.Errorf("%s: the address after the last has ordinal %d", c.block, o)
		}
	}
}

// TestParseBlockRefuses: what an editor can do to a block must cost that block only.
func TestParseBlockRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*calico.IPAMBlockSpec){
		"cidr is no prefix":       func(s *calico.IPAMBlockSpec) { s.CIDR = "10.0.0.0" },
		"cidr is not masked":      func(s *calico.IPAMBlockSpec) { s.CIDR = "10.0.0.1/30" },
		"cidr is too large":       func(s *calico.IPAMBlockSpec) { s.CIDR = "0.0.0.0/0" },
		"allocations too short":   func(s *calico.IPAMBlockSpec) { s.Allocations = s.Allocations[:3] },
		"index too large":         func(s *calico.IPAMBlockSpec) { i := 1; s.Allocations[0] = &i },
		"index negative":          func(s *calico.IPAMBlockSpec) { i := -1; s.Allocations[0] = &i },
		"free ordinal too large":  func(s *calico.IPAMBlockSpec) { s.Unallocated[0] = 4 },
		"free ordinal negative":   func(s *calico.IPAMBlockSpec) { s.Unallocated[0] = -1 },
		"free ordinal in use too": func(s *calico.IPAMBlockSpec) { s.Unallocated[0] = 0 },
	} {
		b := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "n", time.Now())
		b.assign(1, "h", nil)
		if _, err := parseBlock(b.IPAMBlock); err != nil {
			t.Fatalf("before it was spoilt: %v", err)
		}
		spoil(&b.Spec)
		if _, err := parseBlock(b.IPAMBlock); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReleaseChecksHolder(t *testing.T) {
	b := newBlock(netip.MustParsePrefix("10.0.0.0/30"), "n", time.Now())
	b.assign(2, "h", nil)
	addr, seq := b.addr(1), b.Spec.SequenceNumber
	for _, r := range []Release{{Addr: addr, Handle: "other"}, {Addr: addr, Sequence: seq + 1}} {
		if _, _, _, err := b.releasable([]Release{{Addr: b.addr(0)}, r}); err == nil {
			t.Errorf("%+v: accepted", r)
		}
	}
	o, counts, absent, err := b.releasable([]Release{{Addr: addr, Handle: "h", Sequence: seq}, {Addr: b.addr(3)}})
	if err != nil || !slices.Equal(o, []int{1}) || counts["h"] != 1 || len(absent) != 1 {
		t.Errorf("%v %v %v %v", o, counts, absent, err)
	}
}
