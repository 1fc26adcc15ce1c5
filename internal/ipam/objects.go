package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// fetch gets an object of a kind.
func fetch[T calico.Object](ctx context.Context, c *Client, kind calico.Kind, name string) (T, error) {
	obj, err := c.Store.Get(ctx, kind, name)
	if err != nil {
		var none T
		return none, fmt.Errorf("read %s %s: %w", kind, name, err)
	}
	return typed[T](obj)
}

// list returns every object of a kind.
func list[T calico.Object](ctx context.Context, c *Client, kind calico.Kind) ([]T, error) {
	objects, err := c.Store.List(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	out := make([]T, 0, len(objects))
	for _, obj := range objects {
		t, err := typed[T](obj)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func typed[T calico.Object](obj calico.Object) (T, error) {
	t, ok := obj.(T)
	if !ok {
		return t, fmt.Errorf("read %s %s: the datastore returned a %T", obj.Kind(), obj.Meta().Name, obj)
	}
	return t, nil
}

// read gets an object that is deleted in two steps. One that is only marked is deleted for good and reported as not
// found: whoever marked it may have died between the steps (reference 3.5).
func read[T calico.Object](ctx context.Context, c *Client, kind calico.Kind, name string) (T, error) {
	obj, err := fetch[T](ctx, c, kind, name)
	if err != nil || !*deletedMark(obj) {
		return obj, err
	}
	var none T
	if err := c.erase(ctx, obj); err != nil {
		return none, err
	}
	return none, fmt.Errorf("read %s %s: marked deleted: %w", kind, name, datastore.ErrNotFound)
}

// deletedMark returns where an object says that it is deleted.
func deletedMark(obj calico.Object) *bool {
	switch o := obj.(type) {
	case *calico.IPAMBlock:
		return &o.Spec.Deleted
	case *calico.BlockAffinity:
		return (*bool)(&o.Spec.Deleted)
	case *calico.IPAMHandle:
		return &o.Spec.Deleted
	}
	panic(fmt.Sprintf("ipam: %s is not deleted in two steps", obj.Kind()))
}

// remove deletes an object if it is still the one that was read. The mark is what takes effect: it fails if anybody
// wrote in between, and from then on every reader takes the object for gone. Kubernetes' delete alone would not
// compare.
func (c *Client) remove(ctx context.Context, obj calico.Object) error {
	*deletedMark(obj) = true
	marked, err := c.Store.Update(ctx, obj)
	if err != nil {
		return fmt.Errorf("mark %s %s deleted: %w", obj.Kind(), obj.Meta().Name, err)
	}
	return c.erase(ctx, marked)
}

// erase is the second step of a deletion. If the object is gone or another has its name, somebody else did it. One that
// was only marked once more, as Calico does before it finishes another's deletion, is deleted all the same: that
// other may be dead by now.
func (c *Client) erase(ctx context.Context, obj calico.Object) error {
	kind, name, uid := obj.Kind(), obj.Meta().Name, obj.Meta().UID
	return retry(ctx, "delete "+calico.ObjectName(kind, name), func() error {
		err := c.Store.Delete(ctx, obj)
		if errors.Is(err, datastore.ErrConflict) {
			now, rerr := c.Store.Get(ctx, kind, name)
			if rerr == nil && now.Meta().UID == uid && *deletedMark(now) {
				obj = now
				return err
			}
			err = rerr
		}
		if err == nil || errors.Is(err, datastore.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("delete %s %s: %w", kind, name, err)
	})
}

// readBlock reads a block and frees in memory what has cooled down; the next write of the block keeps that.
func (o *operation) readBlock(ctx context.Context, cidr netip.Prefix) (*block, error) {
	obj, err := read[*calico.IPAMBlock](ctx, o.Client, calico.KindIPAMBlock, calico.BlockName(cidr))
	if err != nil {
		return nil, err
	}
	b, err := parseBlock(obj)
	if err != nil {
		return nil, err
	}
	b.collect(time.Now(), o.cooldown)
	return b, nil
}

// listBlocks returns every usable block by CIDR. A malformed one is reported and left alone. One that is marked deleted
// is gone: an address written into it would be deleted with it. Whoever claims its CIDR finishes the deletion. Of other nodes' blocks that are in
// use there are only husks: all of a large cluster as they are would be some hundred megabytes.
func (o *operation) listBlocks(ctx context.Context) (map[netip.Prefix]*block, error) {
	blocks := map[netip.Prefix]*block{}
	err := datastore.Visit(ctx, o.Store, calico.KindIPAMBlock, func(listed calico.Object) error {
		obj, err := typed[*calico.IPAMBlock](listed)
		if err != nil || obj.Spec.Deleted {
			return err
		}
		b, err := parseBlock(obj)
		if err != nil {
			o.log().Warn("skipping a block", keyErr, err)
			return nil
		}
		b.collect(time.Now(), o.cooldown)
		if !b.ownedBy(o.Node) && !b.empty() {
			b = b.asHusk()
		}
		blocks[b.cidr] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", calico.KindIPAMBlock, err)
	}
	return blocks, nil
}

// createBlock writes a new block.
func (c *Client) createBlock(ctx context.Context, b *block) (*block, error) {
	return written(b, func() (calico.Object, error) { return c.Store.Create(ctx, b.IPAMBlock) }, "create")
}

// updateBlock writes a changed block, every time under the next sequence number. One that is marked deleted is
// not written, whoever it comes from: the datastore would take it.
func (c *Client) updateBlock(ctx context.Context, b *block) (*block, error) {
	if b.Spec.Deleted {
		return nil, fmt.Errorf("update IPAMBlock %s: marked deleted: %w", b.Name, datastore.ErrConflict)
	}
	b.Spec.SequenceNumber++
	return written(b, func() (calico.Object, error) { return c.Store.Update(ctx, b.IPAMBlock) }, "update")
}

func written(b *block, write func() (calico.Object, error), verb string) (*block, error) {
	obj, err := write()
	if err != nil {
		return nil, fmt.Errorf("%s IPAMBlock %s: %w", verb, b.Name, err)
	}
	t, err := typed[*calico.IPAMBlock](obj)
	if err != nil {
		return nil, err
	}
	return parseBlock(t)
}

// The states and the type of a claim, as the datastore spells them (reference 3.3). The empty state of old objects is
// confirmed, the empty type is host.
const (
	pending         = "pending"
	confirmed       = "confirmed"
	pendingDeletion = "pendingDeletion"
	hostType        = "host"
)

// isConfirmed reports whether a claim is complete.
func isConfirmed(a *calico.BlockAffinity) bool {
	return a.Spec.State == confirmed || a.Spec.State == ""
}

// isHosts reports whether a claim is the host's.
func isHosts(a *calico.BlockAffinity, host string) bool {
	return a.Spec.Node == host && (a.Spec.Type == hostType || a.Spec.Type == "")
}

// newAffinity returns a pending claim.
func newAffinity(host string, cidr netip.Prefix) *calico.BlockAffinity {
	a := &calico.BlockAffinity{}
	a.Name = calico.AffinityName(host, cidr)
	a.Spec = calico.BlockAffinitySpec{State: pending, Node: host, Type: hostType, CIDR: cidr.String()}
	label(a)
	return a
}

// label sets the labels by which Calico lists claims and reports whether they were missing. It lists by nothing else:
// a claim without them does not exist for it (reference 3.3).
func label(a *calico.BlockAffinity) bool {
	version := 4
	if p, err := netip.ParsePrefix(a.Spec.CIDR); err == nil && p.Addr().Is6() {
		version = 6
	}
	kind := a.Spec.Type
	if kind == "" {
		kind = hostType
	}
	changed := false
	for k, v := range map[string]string{
		calico.LabelHostnameHash: calico.HostnameHash(a.Spec.Node),
		calico.LabelAffinityType: kind,
		calico.LabelIPVersion:    strconv.Itoa(version),
	} {
		if a.Labels == nil {
			a.Labels = map[string]string{}
		}
		if a.Labels[k] != v {
			a.Labels[k] = v
			changed = true
		}
	}
	return changed
}

// readAffinity reads a host's claim.
func (c *Client) readAffinity(ctx context.Context, host string, cidr netip.Prefix) (*calico.BlockAffinity, error) {
	return read[*calico.BlockAffinity](ctx, c, calico.KindBlockAffinity, calico.AffinityName(host, cidr))
}

// setAffinity writes a claim's state and returns the claim as it is then.
func (c *Client) setAffinity(ctx context.Context, a *calico.BlockAffinity, state string) (*calico.BlockAffinity, error) {
	a.Spec.State = state
	label(a)
	obj, err := c.Store.Update(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("mark BlockAffinity %s %s: %w", a.Name, state, err)
	}
	return typed[*calico.BlockAffinity](obj)
}

// affinities returns the node's claims, in order of name.
func (c *Client) affinities(ctx context.Context) ([]*calico.BlockAffinity, error) {
	all, err := c.allAffinities(ctx)
	return slices.DeleteFunc(all, func(a *calico.BlockAffinity) bool { return bool(a.Spec.Deleted) }), err
}

// allAffinities returns the node's claims, those marked deleted among them, in order of name.
func (c *Client) allAffinities(ctx context.Context) (own []*calico.BlockAffinity, err error) {
	objects, err := datastore.ListAffinities(ctx, c.Store, c.Node)
	if err != nil {
		return nil, err
	}
	for _, obj := range objects {
		a, err := typed[*calico.BlockAffinity](obj)
		if err != nil {
			return nil, err
		}
		if isHosts(a, c.Node) {
			own = append(own, a)
		}
	}
	return own, nil
}
