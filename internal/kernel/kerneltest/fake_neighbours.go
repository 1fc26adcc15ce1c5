package kerneltest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// neighKey is what the kernel tells neighbours apart by: ARP/NDP entries by address, FDB entries by MAC (the VXLAN
// driver's unicast entries: a replace changes where the MAC leads).
type neighKey struct {
	link int
	fdb  bool
	addr netip.Addr
	mac  [6]byte
}

func keyOf(n kernel.Neighbour) neighKey {
	if n.FDB {
		return neighKey{link: n.Link, fdb: true, mac: n.MAC}
	}
	return neighKey{link: n.Link, addr: n.Addr}
}

func (f *Fake) listNeighbours(ctx context.Context, index int) ([]kernel.Neighbour, error) {
	if err := f.enter(ctx, "ListNeighbours", ListNeighboursFails); err != nil {
		return nil, fmt.Errorf("list neighbours of link %d: %w", index, err)
	}
	var all []kernel.Neighbour
	for _, n := range f.neigh {
		if n.Link == index {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, compareNeighbours)
	return all, nil
}

func compareNeighbours(a, b kernel.Neighbour) int {
	if a.FDB != b.FDB {
		if b.FDB {
			return -1
		}
		return 1
	}
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return slices.Compare(a.MAC[:], b.MAC[:])
}

func (f *Fake) writeNeighbours(ctx context.Context, ops []kernel.NeighbourOp) ([]opError, error) {
	if err := f.enter(ctx, "WriteNeighbours", ""); err != nil {
		return nil, fmt.Errorf("write neighbours: %w", err)
	}
	var errs []opError
	for i, op := range ops {
		f.calls["NeighbourOps"]++
		if err := f.due(NeighbourBatchBreaks); err != nil {
			return nil, fmt.Errorf("write neighbours: %w", err)
		}
		err := f.due(NeighbourOpFails)
		if err == nil {
			if errno := f.writeNeighbour(op); errno != 0 {
				err = kernel.FromErrno(errno)
			}
		}
		if err != nil {
			errs = append(errs, opError{i, fmt.Errorf("write neighbour %s: %w", op.Neighbour.Addr, err)})
		}
	}
	return errs, nil
}

func (f *Fake) writeNeighbour(op kernel.NeighbourOp) syscall.Errno {
	n := op.Neighbour
	l := f.links[n.Link]
	if l == nil {
		return syscall.ENODEV
	}
	if !n.Addr.IsValid() && !(op.Delete && n.FDB) {
		return syscall.EINVAL
	}
	key := keyOf(n)
	old, there := f.neigh[key]
	if op.Delete {
		if !there {
			return syscall.ENOENT
		}
		if n.FDB && n.Addr.IsValid() && n.Addr != old.Addr {
			return 0 // vxlan_fdb_delete: another destination of that MAC is not ours to remove, and no error
		}
		delete(f.neigh, key)
		if !n.FDB {
			// The kernel first says that the entry has become invalid (NUD_FAILED), then that it is gone.
			old.MAC, old.Permanent = [6]byte{}, false
			f.emit(kernel.Event{Kind: kernel.EventNeighbour, Deleted: true, Neighbour: old})
		}
		f.emit(kernel.Event{Kind: kernel.EventNeighbour, Deleted: true, Neighbour: old})
		return 0
	}
	f.neigh[key] = n
	if !there || old != n {
		f.emit(kernel.Event{Kind: kernel.EventNeighbour, Neighbour: n})
	}
	return 0
}

// forgetNeighbours drops the neighbours of an interface that goes down, and its FDB entries too where it goes altogether.
func (f *Fake) forgetNeighbours(index int, all bool) {
	var gone []kernel.Neighbour
	for k, n := range f.neigh {
		if n.Link == index && (all || !n.FDB) {
			delete(f.neigh, k)
			gone = append(gone, n)
		}
	}
	slices.SortFunc(gone, compareNeighbours)
	for _, n := range gone {
		f.emit(kernel.Event{Kind: kernel.EventNeighbour, Deleted: true, Neighbour: n})
	}
}
