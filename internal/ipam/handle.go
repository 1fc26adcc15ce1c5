package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// handleName is the object name of a handle: Kubernetes names are in lower case (reference 3.4).
func handleName(id string) string { return strings.ToLower(id) }

func (c *Client) readHandle(ctx context.Context, id string) (*calico.IPAMHandle, error) {
	return read[*calico.IPAMHandle](ctx, c, calico.KindIPAMHandle, handleName(id))
}

// addToHandle changes the number of a block's addresses that a handle counts, by n.
func (c *Client) addToHandle(ctx context.Context, id string, cidr netip.Prefix, n int) error {
	if n == 0 {
		return nil
	}
	return c.changeHandle(ctx, id, func(counts map[string]int) bool {
		counts[cidr.String()] += n
		return true
	})
}

// setHandle makes the handle count exactly n addresses of a block. Only for a handle that nobody assigns under at the
// moment: an assignment counts before it writes the block, and what it counted would be forgotten.
func (c *Client) setHandle(ctx context.Context, id string, cidr netip.Prefix, n int) error {
	return c.changeHandle(ctx, id, func(counts map[string]int) bool {
		was := counts[cidr.String()]
		counts[cidr.String()] = n
		return was != n
	})
}

// changeHandle reads a handle, changes its counts and writes it, if change says that there is anything to write.
// A handle is made when it first counts something and deleted when it counts nothing.
func (c *Client) changeHandle(ctx context.Context, id string, change func(map[string]int) bool) error {
	return retry(ctx, "change IPAMHandle "+id, func() error {
		h, err := c.readHandle(ctx, id)
		missing := errors.Is(err, datastore.ErrNotFound)
		switch {
		case missing:
			h = &calico.IPAMHandle{Spec: calico.IPAMHandleSpec{HandleID: id}}
			h.Name = handleName(id)
		case err != nil:
			return err
		}
		if h.Spec.Block == nil {
			h.Spec.Block = map[string]int{}
		}
		changed := change(h.Spec.Block)
		for cidr, n := range h.Spec.Block {
			if n <= 0 {
				delete(h.Spec.Block, cidr)
			}
		}
		return c.writeHandle(ctx, h, missing, changed)
	})
}

func (c *Client) writeHandle(ctx context.Context, h *calico.IPAMHandle, missing, changed bool) error {
	var err error
	switch {
	case len(h.Spec.Block) == 0 && missing:
		return nil
	case len(h.Spec.Block) == 0:
		if err = c.remove(ctx, h); errors.Is(err, datastore.ErrNotFound) {
			return nil
		}
		return err
	case !changed:
		return nil
	case missing:
		_, err = c.Store.Create(ctx, h)
	default:
		_, err = c.Store.Update(ctx, h)
	}
	if err != nil {
		return fmt.Errorf("write IPAMHandle %s: %w", h.Name, raced(err))
	}
	return nil
}
