package kerneltest

import (
	"context"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// Foreign returns the same kernel as another program sees it: its calls meet no faults.
func (f *Fake) Foreign() kernel.Kernel { return foreign{f} }

// foreign is a view of the Fake that bypasses the plan.
type foreign struct{ f *Fake }

func (o foreign) bypass(do func() error) error {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	plan := o.f.plan
	// Events lost is the one kind that strikes whoever made the change.
	o.f.plan = slices.DeleteFunc(slices.Clone(plan), func(i *Injected) bool { return i.fault.Kind != EventsLost })
	defer func() { o.f.plan = plan }()
	return do()
}

func (o foreign) ListRoutes(ctx context.Context, v6 bool, yield func(*kernel.Route) bool) error {
	var all []kernel.Route
	err := o.bypass(func() error { var err error; all, err = o.f.listRoutes(ctx, v6); return err })
	for i := range all {
		if !yield(&all[i]) {
			break
		}
	}
	return err
}

func (o foreign) WriteRoutes(ctx context.Context, ops []kernel.RouteOp, failed func(int, error)) error {
	var errs []opError
	err := o.bypass(func() error { var err error; errs, err = o.f.writeRoutes(ctx, ops); return err })
	report(errs, failed)
	return err
}

func (o foreign) Lookup(ctx context.Context, dst netip.Addr) (a kernel.Answer, err error) {
	err = o.bypass(func() error { a, err = o.f.lookup(ctx, dst); return err })
	return a, err
}

func (o foreign) ListLinks(ctx context.Context) (l []kernel.Link, err error) {
	err = o.bypass(func() error { l, err = o.f.listLinks(ctx); return err })
	return l, err
}

func (o foreign) CreateLink(ctx context.Context, l kernel.Link) (i int, err error) {
	err = o.bypass(func() error { i, err = o.f.createLink(ctx, l); return err })
	return i, err
}

func (o foreign) DeleteLink(ctx context.Context, index int) error {
	return o.bypass(func() error { return o.f.deleteLink(ctx, index) })
}

func (o foreign) SetLink(ctx context.Context, index, mtu int, mac [6]byte, up bool) error {
	return o.bypass(func() error { return o.f.setLink(ctx, index, mtu, mac, up) })
}

func (o foreign) ListAddresses(ctx context.Context) (a []kernel.Address, err error) {
	err = o.bypass(func() error { a, err = o.f.listAddresses(ctx); return err })
	return a, err
}

func (o foreign) AddAddress(ctx context.Context, a kernel.Address) error {
	return o.bypass(func() error { return o.f.addAddress(ctx, a) })
}

func (o foreign) DeleteAddress(ctx context.Context, a kernel.Address) error {
	return o.bypass(func() error { return o.f.deleteAddress(ctx, a) })
}

func (o foreign) ListNeighbours(ctx context.Context, link int) (n []kernel.Neighbour, err error) {
	err = o.bypass(func() error { n, err = o.f.listNeighbours(ctx, link); return err })
	return n, err
}

func (o foreign) WriteNeighbours(ctx context.Context, ops []kernel.NeighbourOp, failed func(int, error)) error {
	var errs []opError
	err := o.bypass(func() error { var err error; errs, err = o.f.writeNeighbours(ctx, ops); return err })
	report(errs, failed)
	return err
}

func (o foreign) Watch(ctx context.Context) (<-chan kernel.Event, error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	return o.f.subscribe(ctx, false), nil
}

// MutesAdds is false: this watch hears everything.
func (o foreign) MutesAdds() bool { return false }

// Close does nothing: the kernel belongs to the test.
func (o foreign) Close() error { return nil }

func (o foreign) SupportsNexthops(ctx context.Context) (yes bool, err error) {
	err = o.bypass(func() error { yes, err = o.f.supportsNexthops(ctx); return err })
	return yes, err
}

func (o foreign) ListNexthops(ctx context.Context, yield func(*kernel.Nexthop) bool) error {
	var all []kernel.Nexthop
	err := o.bypass(func() error { var err error; all, err = o.f.listNexthops(ctx); return err })
	return each(all, err, yield)
}

func (o foreign) WriteNexthops(ctx context.Context, ops []kernel.NexthopOp, failed func(int, error)) error {
	var errs []opError
	err := o.bypass(func() error { var err error; errs, err = o.f.writeNexthops(ctx, ops); return err })
	report(errs, failed)
	return err
}

func (o foreign) ReadSysctl(ctx context.Context, name kernel.Sysctl) (v int, err error) {
	err = o.bypass(func() error { v, err = o.f.readSysctl(ctx, name); return err })
	return v, err
}

func (o foreign) WriteSysctl(ctx context.Context, name kernel.Sysctl, value int) error {
	return o.bypass(func() error { return o.f.writeSysctl(ctx, name, value) })
}

func (o foreign) ListNetconf(ctx context.Context, v6 bool, yield func(kernel.Netconf) bool) error {
	var all []kernel.Netconf
	err := o.bypass(func() error { var err error; all, err = o.f.listNetconf(ctx, v6); return err })
	return each(all, err, func(c *kernel.Netconf) bool { return yield(*c) })
}
