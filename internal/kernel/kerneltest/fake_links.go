package kerneltest

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/caracal-net/caracal/internal/kernel"
)

// maxName is IFNAMSIZ without its terminating zero (linux/if.h).
const maxName = 15

func (f *Fake) listLinks(ctx context.Context) ([]kernel.Link, error) {
	if err := f.enter(ctx, "ListLinks", ListLinksFails); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	all := make([]kernel.Link, 0, len(f.links))
	for _, l := range f.links {
		all = append(all, l.shown())
	}
	slices.SortFunc(all, func(a, b kernel.Link) int { return cmp.Compare(a.Index, b.Index) })
	return all, nil
}

// shown is the link as the kernel would show it now, sharing no memory with the Fake.
func (l *link) shown() kernel.Link {
	out := l.Link
	out.Running = l.Up && l.carrier
	if l.VXLAN != nil {
		v := *l.VXLAN
		out.VXLAN = &v
	}
	if l.IPIP != nil {
		i := *l.IPIP
		out.IPIP = &i
	}
	return out
}

func (f *Fake) byName(name string) *link {
	for _, l := range f.links {
		if l.Name == name {
			return l
		}
	}
	return nil
}

func (f *Fake) createLink(ctx context.Context, l kernel.Link) (int, error) {
	if err := f.enter(ctx, "CreateLink", CreateLinkFails); err != nil {
		return 0, fmt.Errorf("create link %s: %w", l.Name, err)
	}
	if errno := f.mayCreate(l); errno != 0 {
		return 0, fmt.Errorf("create link %s: %w", l.Name, kernel.FromErrno(errno))
	}
	return f.newLink(l), nil
}

func (f *Fake) mayCreate(l kernel.Link) syscall.Errno {
	switch {
	case l.Name == "" || len(l.Name) > maxName:
		return syscall.EINVAL
	case f.byName(l.Name) != nil:
		return syscall.EEXIST
	case l.Kind == "ipip" && f.noIPIP, !slices.Contains([]string{"vxlan", "ipip", "veth", "bridge", "dummy"}, l.Kind):
		return syscall.EOPNOTSUPP
	case l.Kind == "vxlan" && l.VXLAN == nil:
		return syscall.EINVAL
	case l.Kind == "vxlan" && l.VXLAN.Parent != 0 && f.links[l.VXLAN.Parent] == nil:
		return syscall.ENODEV
	}
	if l.Kind != "vxlan" {
		return 0
	}
	for _, other := range f.links {
		// vxlan_vni_in_use: one VNI, port and family per namespace.
		if o := other.VXLAN; o != nil && o.VNI == l.VXLAN.VNI && o.Port == l.VXLAN.Port && o.Local.Is6() == l.VXLAN.Local.Is6() &&
			o.External == l.VXLAN.External && (!linkLocal(o.Local) || o.Parent == l.VXLAN.Parent) {
			return syscall.EEXIST
		}
	}
	return 0
}

func linkLocal(a netip.Addr) bool { return a.IsValid() && a.IsLinkLocalUnicast() }

func (f *Fake) newLink(l kernel.Link) int {
	f.next++
	l.Index = f.next
	l.Up, l.Running = false, false
	if l.MTU == 0 {
		l.MTU = 1500
	}
	if l.MAC == ([6]byte{}) && l.Kind != "ipip" {
		l.MAC = [6]byte{0x02, 0xfa, 0, byte(l.Index >> 16), byte(l.Index >> 8), byte(l.Index)}
	}
	if l.Kind == "ipip" && l.IPIP == nil {
		l.IPIP = &kernel.IPIPAttrs{}
	}
	n := &link{carrier: true}
	n.Link = l
	n.Link = n.shown()
	f.links[l.Index] = n
	f.beginConf(n)
	f.emit(kernel.Event{Kind: kernel.EventLink, Link: n.shown()})
	return l.Index
}

func (f *Fake) deleteLink(ctx context.Context, index int) error {
	if err := f.enter(ctx, "DeleteLink", DeleteLinkFails); err != nil {
		return fmt.Errorf("delete link %d: %w", index, err)
	}
	l := f.links[index]
	if l == nil {
		return fmt.Errorf("delete link %d: %w", index, kernel.FromErrno(syscall.ENODEV))
	}
	if index == 1 {
		return fmt.Errorf("delete link %d: %w", index, kernel.FromErrno(syscall.EOPNOTSUPP))
	}
	for _, other := range f.links {
		// A VXLAN device goes with its underlay interface (vxlan_handle_lowerdev_unregister).
		if other.VXLAN != nil && other.VXLAN.Parent == index {
			f.unregister(other)
		}
	}
	f.unregister(l)
	return nil
}

// unregister takes the interface down and away.
func (f *Fake) unregister(l *link) {
	index := l.Index
	if l.Up {
		f.down(l)
	}
	f.settle()
	f.flushNexthops(index)
	f.flushGone(index)
	f.forgetNeighbours(index, true)
	for _, a := range slices.Clone(f.addrs) {
		if a.Link == index {
			f.dropAddress(a, false)
		}
	}
	f.endConf(l)
	delete(f.links, index)
	f.emit(kernel.Event{Kind: kernel.EventLink, Deleted: true, Link: l.shown()})
}

func (f *Fake) setLink(ctx context.Context, index, mtu int, mac [6]byte, up bool) error {
	if err := f.enter(ctx, "SetLink", SetLinkFails); err != nil {
		return fmt.Errorf("set link %d: %w", index, err)
	}
	l := f.links[index]
	if l == nil {
		return fmt.Errorf("set link %d: %w", index, kernel.FromErrno(syscall.ENODEV))
	}
	changed := false
	if mtu > 0 && mtu != l.MTU {
		f.routeMTUs(index, uint32(l.MTU), uint32(mtu))
		l.MTU, changed = mtu, true
	}
	if mac != ([6]byte{}) && mac != l.MAC {
		l.MAC, changed = mac, true
	}
	if changed {
		f.emit(kernel.Event{Kind: kernel.EventLink, Link: l.shown()})
	}
	switch {
	case up && !l.Up:
		f.up(l)
	case !up && l.Up:
		f.down(l)
	}
	return nil
}

// routeMTUs has the MTUs of IPv6 routes follow that of their interface, without a word: those that were not smaller, and those that were
// equal to the old one (rt6_mtu_change_route).
func (f *Fake) routeMTUs(index int, old, fresh uint32) {
	for _, dst := range f.destinations(true) {
		for _, e := range f.fib[dst] {
			if len(e.NextHops) == 1 && e.NextHops[0].Link == index && e.MTU > 0 && (e.MTU >= fresh || e.MTU == old) {
				e.MTU = fresh
			}
		}
	}
}

// up sets the interface up; the connected routes of its IPv4 addresses come back, those of IPv6 went with the addresses.
func (f *Fake) up(l *link) {
	l.Up = true
	for e := range l.deadHops(f) {
		e.revive(l.Index)
	}
	for _, a := range f.addrs {
		if a.Link == l.Index {
			f.connect(a)
		}
	}
	f.emit(kernel.Event{Kind: kernel.EventLink, Link: l.shown()})
}

// down sets the interface down. The kernel flushes the IPv4 routes without a word and tells of each IPv6 one; IPv6
// addresses go too (keep_addr_on_down is 0), IPv4 ones stay.
func (f *Fake) down(l *link) {
	l.Up = false
	f.emit(kernel.Event{Kind: kernel.EventLink, Link: l.shown()})
	f.later(func() {
		f.flushNexthops(l.Index)
		f.flushLink(l.Index)
		for _, a := range slices.Clone(f.addrs) {
			if a.Link == l.Index && a.Prefix.Addr().Is6() {
				f.dropAddress(a, false)
			}
		}
		f.forgetNeighbours(l.Index, false)
	})
}

// Wire creates an interface of another program with carrier, sets it up and returns its index.
func (f *Fake) Wire(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	index := f.newLink(kernel.Link{Name: name, Kind: "veth"})
	f.up(f.links[index])
	return index
}

// SetCarrier plugs or unplugs the other end of an interface. Its routes stay and are marked dead, but for those that refer to nexthop
// objects, which go with the objects.
func (f *Fake) SetCarrier(index int, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	l := f.links[index]
	if l == nil || l.carrier == on {
		return
	}
	l.carrier = on
	if !on {
		f.flushNexthops(index)
	}
	f.emit(kernel.Event{Kind: kernel.EventLink, Link: l.shown()})
}

func (f *Fake) listAddresses(ctx context.Context) ([]kernel.Address, error) {
	if err := f.enter(ctx, "ListAddresses", ListAddressesFails); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return slices.Clone(f.addrs), nil
}

func (f *Fake) addAddress(ctx context.Context, a kernel.Address) error {
	if err := f.enter(ctx, "AddAddress", AddAddressFails); err != nil {
		return fmt.Errorf("add address %s: %w", a.Prefix, err)
	}
	l := f.links[a.Link]
	if l == nil {
		return fmt.Errorf("add address %s: %w", a.Prefix, kernel.FromErrno(syscall.ENODEV))
	}
	if linkLocal(a.Prefix.Addr()) && a.Prefix.Addr().Is6() {
		a.Scope = kernel.ScopeLink
	}
	for _, other := range f.addrs {
		if other.Link == a.Link && sameAddress(other, a) {
			return fmt.Errorf("add address %s: %w", a.Prefix, kernel.FromErrno(syscall.EEXIST))
		}
	}
	f.addrs = append(f.addrs, a)
	if l.Up {
		f.connect(a)
	}
	f.emit(kernel.Event{Kind: kernel.EventAddress, Address: a})
	return nil
}

// sameAddress: IPv4 tells addresses of one interface apart by the mask too, IPv6 does not.
func sameAddress(a, b kernel.Address) bool {
	if a.Prefix.Addr().Is6() {
		return a.Prefix.Addr() == b.Prefix.Addr()
	}
	return a.Prefix == b.Prefix
}

func (f *Fake) deleteAddress(ctx context.Context, a kernel.Address) error {
	if err := f.enter(ctx, "DeleteAddress", DeleteAddressFails); err != nil {
		return fmt.Errorf("delete address %s: %w", a.Prefix, err)
	}
	if f.links[a.Link] == nil {
		return fmt.Errorf("delete address %s: %w", a.Prefix, kernel.FromErrno(syscall.ENODEV))
	}
	for _, other := range f.addrs {
		if other.Link == a.Link && other.Prefix == a.Prefix {
			f.dropAddress(other, true)
			return nil
		}
	}
	return fmt.Errorf("delete address %s: %w", a.Prefix, kernel.FromErrno(syscall.EADDRNOTAVAIL))
}

// dropAddress removes an address. Its connected route goes too, and the IPv4 routes that have it as preferred source.
func (f *Fake) dropAddress(a kernel.Address, alone bool) {
	f.addrs = slices.DeleteFunc(f.addrs, func(o kernel.Address) bool { return o == a })
	f.emit(kernel.Event{Kind: kernel.EventAddress, Deleted: true, Address: a})
	f.later(func() {
		if alone {
			f.disconnect(a)
		}
		if !f.holds(a.Prefix.Addr()) {
			f.forgetSource(a.Prefix.Addr())
		}
	})
}
