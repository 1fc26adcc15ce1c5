package kerneltest

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

func neighbourCases() []testCase {
	return []testCase{
		{"neighbours", neighbours},
		{"FDB entries", fdbEntries},
		{"neighbours and an interface that goes down", neighboursDown},
		{"a batch of neighbours with bad ones", neighbourBatch},
		{"events of neighbours", neighbourEvents},
	}
}

func (b *bench) vxlan() int {
	b.Helper()
	index, err := b.Kernel.CreateLink(b.ctx, calicoVXLAN(b, "vxlan.calico", b.self.Addr()))
	b.must(err)
	b.set(index, true)
	return index
}

// writeNeighbour does one operation and returns its error.
func (b *bench) writeNeighbour(remove bool, n kernel.Neighbour) error {
	b.Helper()
	var failure error
	b.must(b.Kernel.WriteNeighbours(b.ctx, []kernel.NeighbourOp{{Delete: remove, Neighbour: n}}, func(_ int, err error) { failure = err }))
	return failure
}

func (b *bench) wantNeighbours(link int, want ...kernel.Neighbour) {
	b.Helper()
	all, err := b.Kernel.ListNeighbours(b.ctx, link)
	b.must(err)
	// The kernel makes entries of its own for multicast and for what it talks to.
	all = slices.DeleteFunc(all, func(n kernel.Neighbour) bool { return !n.Permanent })
	slices.SortFunc(all, compareNeighbours)
	slices.SortFunc(want, compareNeighbours)
	if !slices.Equal(all, want) {
		b.Errorf("neighbours\n%v\nwant\n%v", all, want)
	}
}

func neighbours(b *bench) {
	vx := b.vxlan()
	four := kernel.Neighbour{Link: vx, Addr: netip.MustParseAddr("10.244.2.0"), MAC: [6]byte{0x66, 1}, Permanent: true}
	six := kernel.Neighbour{Link: vx, Addr: netip.MustParseAddr("fd00:10:244:2::"), MAC: [6]byte{0x66, 2}, Permanent: true}
	for _, n := range []kernel.Neighbour{four, six} {
		b.must(b.writeNeighbour(false, n))
		b.must(b.writeNeighbour(false, n)) // the same again is no error
	}
	b.wantNeighbours(vx, four, six)
	b.wantNeighbours(b.w0)
	four.MAC = [6]byte{0x66, 3}
	b.must(b.writeNeighbour(false, four))
	b.wantNeighbours(vx, four, six)
	b.must(b.writeNeighbour(true, four))
	b.wantNeighbours(vx, six)
	b.wantErr(b.writeNeighbour(true, four), kernel.ErrNotThere)
	b.must(b.writeNeighbour(true, six))
	four.Link = 9999
	b.wantErr(b.writeNeighbour(false, four), kernel.ErrNoDevice)
	b.wantErr(b.writeNeighbour(false, kernel.Neighbour{Link: vx}), kernel.ErrInvalid)
}

func fdbEntries(b *bench) {
	vx := b.vxlan()
	e := kernel.Neighbour{Link: vx, FDB: true, Addr: b.gw(1), MAC: [6]byte{0x66, 1}, Permanent: true}
	b.must(b.writeNeighbour(false, e))
	b.must(b.writeNeighbour(false, e))
	b.wantNeighbours(vx, e)
	moved := e
	moved.Addr = b.gw(2)
	b.must(b.writeNeighbour(false, moved))
	b.wantNeighbours(vx, moved)       // replaced, not a second destination
	b.must(b.writeNeighbour(true, e)) // the driver calls it done, and leaves the entry to the other address alone
	b.wantNeighbours(vx, moved)
	b.must(b.writeNeighbour(true, moved))
	b.wantNeighbours(vx)
	b.wantErr(b.writeNeighbour(true, moved), kernel.ErrNotThere)
}

// neighboursDown: ARP entries go with the interface, FDB entries of ours stay.
func neighboursDown(b *bench) {
	vx := b.vxlan()
	n := kernel.Neighbour{Link: vx, Addr: netip.MustParseAddr("10.244.2.0"), MAC: [6]byte{0x66, 1}, Permanent: true}
	e := kernel.Neighbour{Link: vx, FDB: true, Addr: b.gw(1), MAC: [6]byte{0x66, 1}, Permanent: true}
	b.must(b.writeNeighbour(false, n))
	b.must(b.writeNeighbour(false, e))
	b.set(vx, false)
	b.wantNeighbours(vx, e)
	b.must(b.writeNeighbour(false, n)) // is taken while it is down
	b.wantNeighbours(vx, n, e)
}

func neighbourBatch(b *bench) {
	vx := b.vxlan()
	const n = 1200
	var ops []kernel.NeighbourOp
	var want []kernel.Neighbour
	bad := map[int]error{0: kernel.ErrNoDevice, 511: kernel.ErrNotThere, 512: kernel.ErrInvalid, 700: kernel.ErrNoDevice, n - 1: kernel.ErrNotThere}
	for i := range n {
		mac := [6]byte{0x66, 0, 0, 0, byte(i >> 8), byte(i)}
		e := kernel.Neighbour{Link: vx, Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), MAC: mac, Permanent: true, FDB: i%2 == 1}
		op := kernel.NeighbourOp{Neighbour: e}
		switch bad[i] {
		case kernel.ErrNoDevice:
			op.Neighbour.Link = 9999
		case kernel.ErrNotThere:
			op.Delete = true
		case kernel.ErrInvalid:
			op.Neighbour.Addr = netip.Addr{}
		default:
			want = append(want, e)
		}
		ops = append(ops, op)
	}
	got := map[int]error{}
	b.must(b.Kernel.WriteNeighbours(b.ctx, ops, func(i int, err error) { got[i] = err }))
	for i := range n {
		if !errors.Is(got[i], bad[i]) {
			b.Errorf("operation %d: %v, want %v", i, got[i], bad[i])
		}
	}
	b.wantNeighbours(vx, want...)
}

func neighbourEvents(b *bench) {
	vx := b.vxlan()
	take := b.watch()
	n := kernel.Neighbour{Link: vx, Addr: netip.MustParseAddr("10.244.2.0"), MAC: [6]byte{0x66, 1}, Permanent: true}
	e := kernel.Neighbour{Link: vx, FDB: true, Addr: b.gw(1), MAC: [6]byte{0x66, 1}, Permanent: true}
	for _, entry := range []kernel.Neighbour{n, e} {
		b.must(b.writeNeighbour(false, entry))
		take("the entry comes", func(ev kernel.Event) bool {
			return ev.Kind == kernel.EventNeighbour && !ev.Deleted && ev.Neighbour == entry
		})
		b.must(b.writeNeighbour(true, entry))
		take("the entry goes", func(ev kernel.Event) bool {
			return ev.Kind == kernel.EventNeighbour && ev.Deleted && ev.Neighbour.Link == vx && ev.Neighbour.FDB == entry.FDB && ev.Neighbour.Addr == entry.Addr
		})
	}
}
