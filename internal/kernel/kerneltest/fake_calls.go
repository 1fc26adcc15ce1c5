package kerneltest

import (
	"context"
	"net/netip"

	"github.com/caracal-net/caracal/internal/kernel"
)

// The methods of kernel.Kernel: each runs the hook, takes the lock and does the work of its lower-case twin, which the Foreign view shares.

// ListRoutes yields the routes of table main of one family, sorted by destination, metric and TOS.
func (f *Fake) ListRoutes(ctx context.Context, v6 bool, yield func(*kernel.Route) bool) error {
	f.begin("ListRoutes")
	f.mu.Lock()
	all, err := f.listRoutes(ctx, v6)
	f.mu.Unlock()
	for i := range all {
		if !yield(&all[i]) {
			return nil
		}
	}
	return err
}

// WriteRoutes performs the operations in order.
func (f *Fake) WriteRoutes(ctx context.Context, ops []kernel.RouteOp, failed func(int, error)) error {
	f.begin("WriteRoutes")
	f.mu.Lock()
	f.own = true
	errs, err := f.writeRoutes(ctx, ops)
	f.own = false
	f.mu.Unlock()
	report(errs, failed)
	return err
}

// Lookup does what the kernel does with a packet to dst.
func (f *Fake) Lookup(ctx context.Context, dst netip.Addr) (kernel.Answer, error) {
	f.begin("Lookup")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lookup(ctx, dst)
}

// ListLinks returns the interfaces by index.
func (f *Fake) ListLinks(ctx context.Context) ([]kernel.Link, error) {
	f.begin("ListLinks")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listLinks(ctx)
}

// CreateLink makes an interface of any kind; "veth" and the like come with carrier.
func (f *Fake) CreateLink(ctx context.Context, l kernel.Link) (int, error) {
	f.begin("CreateLink")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.createLink(ctx, l)
}

// DeleteLink removes an interface and everything on it.
func (f *Fake) DeleteLink(ctx context.Context, index int) error {
	f.begin("DeleteLink")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deleteLink(ctx, index)
}

// SetLink changes MTU, MAC and admin state.
func (f *Fake) SetLink(ctx context.Context, index, mtu int, mac [6]byte, up bool) error {
	f.begin("SetLink")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.setLink(ctx, index, mtu, mac, up)
}

// ListAddresses returns all addresses.
func (f *Fake) ListAddresses(ctx context.Context) ([]kernel.Address, error) {
	f.begin("ListAddresses")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listAddresses(ctx)
}

// AddAddress adds an address and, on an interface that is up, its connected route.
func (f *Fake) AddAddress(ctx context.Context, a kernel.Address) error {
	f.begin("AddAddress")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addAddress(ctx, a)
}

// DeleteAddress removes an address, its connected route and what depended on it.
func (f *Fake) DeleteAddress(ctx context.Context, a kernel.Address) error {
	f.begin("DeleteAddress")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deleteAddress(ctx, a)
}

// ListNeighbours returns the neighbours and FDB entries of one interface.
func (f *Fake) ListNeighbours(ctx context.Context, index int) ([]kernel.Neighbour, error) {
	f.begin("ListNeighbours")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listNeighbours(ctx, index)
}

// WriteNeighbours performs the operations in order.
func (f *Fake) WriteNeighbours(ctx context.Context, ops []kernel.NeighbourOp, failed func(int, error)) error {
	f.begin("WriteNeighbours")
	f.mu.Lock()
	errs, err := f.writeNeighbours(ctx, ops)
	f.mu.Unlock()
	report(errs, failed)
	return err
}

// SupportsNexthops makes an object and removes it, as the kernel package does.
func (f *Fake) SupportsNexthops(ctx context.Context) (bool, error) {
	f.begin("SupportsNexthops")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.supportsNexthops(ctx)
}

// ListNexthops yields the nexthop objects by number.
func (f *Fake) ListNexthops(ctx context.Context, yield func(*kernel.Nexthop) bool) error {
	f.begin("ListNexthops")
	f.mu.Lock()
	all, err := f.listNexthops(ctx)
	f.mu.Unlock()
	return each(all, err, yield)
}

// each yields what was listed before the error, if there was one.
func each[T any](all []T, err error, yield func(*T) bool) error {
	for i := range all {
		if !yield(&all[i]) {
			return nil
		}
	}
	return err
}

// WriteNexthops performs the operations in order.
func (f *Fake) WriteNexthops(ctx context.Context, ops []kernel.NexthopOp, failed func(int, error)) error {
	f.begin("WriteNexthops")
	f.mu.Lock()
	errs, err := f.writeNexthops(ctx, ops)
	f.mu.Unlock()
	report(errs, failed)
	return err
}

// ReadSysctl reads one number.
func (f *Fake) ReadSysctl(ctx context.Context, name kernel.Sysctl) (int, error) {
	f.begin("ReadSysctl")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readSysctl(ctx, name)
}

// WriteSysctl sets one number; forwarding of all sets that of every interface.
func (f *Fake) WriteSysctl(ctx context.Context, name kernel.Sysctl, value int) error {
	f.begin("WriteSysctl")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writeSysctl(ctx, name, value)
}

// ListNetconf yields the settings of all interfaces of one family.
func (f *Fake) ListNetconf(ctx context.Context, v6 bool, yield func(kernel.Netconf) bool) error {
	f.begin("ListNetconf")
	f.mu.Lock()
	all, err := f.listNetconf(ctx, v6)
	f.mu.Unlock()
	return each(all, err, func(c *kernel.Netconf) bool { return yield(*c) })
}
