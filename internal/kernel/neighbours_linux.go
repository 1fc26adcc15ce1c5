package kernel

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// ListNeighbours dumps ARP, NDP and FDB entries of one interface; an interface that is not there has none.
func (k *linux) ListNeighbours(ctx context.Context, link int) ([]Neighbour, error) {
	s, err := k.socket()
	if err != nil {
		return nil, fmt.Errorf("list neighbours of link %d: %w", link, err)
	}
	defer s.close()
	var all []Neighbour
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		const size = 12 // struct ndmsg
		req := append(begin(nil, unix.RTM_GETNEIGH, unix.NLM_F_DUMP), make([]byte, size)...)
		req[unix.NLMSG_HDRLEN] = family
		if family != unix.AF_BRIDGE {
			req = appendUint32(req, unix.NDA_IFINDEX, uint32(link))
		}
		err := s.dump(ctx, req, func(m message) bool {
			n, usable, ok := parseNeighbour(m.payload)
			if m.typ == unix.RTM_NEWNEIGH && ok && usable && n.Link == link {
				all = append(all, n)
			}
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("list neighbours of link %d: %w", link, err)
		}
	}
	return all, nil
}

// WriteNeighbours performs the operations in batches.
func (k *linux) WriteNeighbours(ctx context.Context, ops []NeighbourOp, failed func(i int, err error)) error {
	encode := func(b []byte, i int) ([]byte, error) { return appendNeighbourOp(b, ops[i]) }
	err := k.neighs.write(ctx, len(ops), encode, func(i int, err error) {
		failed(i, fmt.Errorf("%s: %w", ops[i], err))
	})
	if err != nil {
		return fmt.Errorf("write neighbours: %w", err)
	}
	return nil
}
