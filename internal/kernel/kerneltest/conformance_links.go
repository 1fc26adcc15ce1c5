package kerneltest

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

func calicoVXLAN(b *bench, name string, local netip.Addr) kernel.Link {
	return kernel.Link{
		Name: name, Kind: "vxlan", MTU: 1410, MAC: [6]byte{0x66, 0xf9, 0x37, 0xc3, 0x7e, 0x94},
		VXLAN: &kernel.VXLANAttrs{VNI: 4096, Port: 4789, Parent: b.w0, Local: local},
	}
}

func linkCases() []testCase {
	return []testCase{
		{"a vxlan device keeps its attributes", vxlanAttributes},
		{"vxlan refusals", vxlanRefusals},
		{"a vxlan device goes with its parent", vxlanParent},
		{"set link", setLink},
		{"links that are not there", missingLinks},
	}
}

func vxlanAttributes(b *bench) {
	v6 := netip.MustParsePrefix("2001:db8:7::1/64")
	b.address(b.w0, v6)
	for _, l := range []kernel.Link{
		calicoVXLAN(b, "vxlan.calico", b.self.Addr()), calicoVXLAN(b, "vxlan-v6.calico", v6.Addr()),
		{Name: "odd", Kind: "vxlan", MTU: 1300, MAC: [6]byte{2, 1, 1, 1, 1, 1}, VXLAN: &kernel.VXLANAttrs{VNI: 7, Port: 8472, Learning: true, TTL: 9, TOS: 4}},
	} {
		index, err := b.Kernel.CreateLink(b.ctx, l)
		b.must(err)
		got := b.link(index)
		if got == nil {
			b.Fatalf("link %d is not listed", index)
		}
		if got.Up || got.Name != l.Name || got.Kind != l.Kind || got.MTU != l.MTU || got.MAC != l.MAC || got.VXLAN == nil || *got.VXLAN != *l.VXLAN {
			b.Errorf("created %+v with %+v,\nwant %+v with %+v, down", got, got.VXLAN, l, l.VXLAN)
		}
	}
}

func vxlanRefusals(b *bench) {
	l := calicoVXLAN(b, "vxlan.calico", b.self.Addr())
	index, err := b.Kernel.CreateLink(b.ctx, l)
	b.must(err)
	_, err = b.Kernel.CreateLink(b.ctx, l)
	b.wantErr(err, kernel.ErrExists)
	l.Name = "other" // but the same VNI and port
	_, err = b.Kernel.CreateLink(b.ctx, l)
	b.wantErr(err, kernel.ErrExists)
	l.Name = "longer-than-fifteen"
	_, err = b.Kernel.CreateLink(b.ctx, l)
	b.wantErr(err, kernel.ErrInvalid)
	_, err = b.Kernel.CreateLink(b.ctx, kernel.Link{Name: "nonesuch", Kind: "nonesuch"})
	b.wantErr(err, kernel.ErrUnsupported)
	_, err = b.Kernel.CreateLink(b.ctx, kernel.Link{Name: "bare", Kind: "vxlan"})
	b.wantErr(err, kernel.ErrInvalid)
	b.must(b.Kernel.DeleteLink(b.ctx, index))
	l.Name, l.VXLAN.Parent = "orphan", 9999
	_, err = b.Kernel.CreateLink(b.ctx, l)
	b.wantErr(err, kernel.ErrNoDevice)
}

func vxlanParent(b *bench) {
	index, err := b.Kernel.CreateLink(b.ctx, calicoVXLAN(b, "vxlan.calico", b.self.Addr()))
	b.must(err)
	b.set(index, true)
	b.set(b.w0, false)
	if l := b.link(index); l == nil || !l.Up {
		b.Errorf("with its parent down the device is %+v, want it up", l)
	}
	take := b.watch()
	b.must(b.Kernel.DeleteLink(b.ctx, b.w0))
	if l := b.link(index); l != nil {
		b.Errorf("the device %+v is still there without its parent", l)
	}
	take("the device goes", func(e kernel.Event) bool { return e.Kind == kernel.EventLink && e.Deleted && e.Link.Index == index })
}

func setLink(b *bench) {
	index, err := b.Kernel.CreateLink(b.ctx, calicoVXLAN(b, "vxlan.calico", b.self.Addr()))
	b.must(err)
	mac := [6]byte{0x66, 1, 2, 3, 4, 5}
	b.must(b.Kernel.SetLink(b.ctx, index, 1400, mac, true))
	if l := b.link(index); !l.Up || l.MTU != 1400 || l.MAC != mac {
		b.Errorf("set to %+v, want up, MTU 1400, MAC %x", l, mac)
	}
	b.must(b.Kernel.SetLink(b.ctx, index, 0, [6]byte{}, false))
	if l := b.link(index); l.Up || l.MTU != 1400 || l.MAC != mac {
		b.Errorf("set to %+v, want down and nothing else changed", l)
	}
}

func missingLinks(b *bench) {
	const none = 9999
	b.wantErr(b.Kernel.DeleteLink(b.ctx, none), kernel.ErrNoDevice)
	b.wantErr(b.Kernel.SetLink(b.ctx, none, 1400, [6]byte{}, true), kernel.ErrNoDevice)
	b.wantErr(b.Kernel.AddAddress(b.ctx, kernel.Address{Link: none, Prefix: b.net(1)}), kernel.ErrNoDevice)
	b.wantErr(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: none, Prefix: b.net(1)}), kernel.ErrNoDevice)
	all, err := b.Kernel.ListNeighbours(b.ctx, none)
	if err != nil || len(all) != 0 {
		b.Errorf("neighbours of a missing link: %v, %v; want none", all, err)
	}
}

func holds(all []kernel.Address, link int, p netip.Prefix) bool {
	return slices.ContainsFunc(all, func(a kernel.Address) bool { return a.Link == link && a.Prefix == p })
}

func addressCases() []testCase {
	return []testCase{{"addresses", addresses}, {"connected routes", connectedRoutes}, {"addresses that say whose they are", markedAddresses}}
}

func addresses(b *bench) {
	for _, p := range []netip.Prefix{netip.MustParsePrefix("10.244.1.1/32"), netip.MustParsePrefix("fd00:10:244::1/128"), netip.MustParsePrefix("198.51.100.1/24")} {
		a := kernel.Address{Link: b.w0, Prefix: p}
		b.must(b.Kernel.AddAddress(b.ctx, a))
		all, err := b.Kernel.ListAddresses(b.ctx)
		b.must(err)
		if !slices.Contains(all, a) {
			b.Errorf("addresses %v, want %v among them", all, a)
		}
		b.wantErr(b.Kernel.AddAddress(b.ctx, a), kernel.ErrExists)
		b.must(b.Kernel.DeleteAddress(b.ctx, a))
		all, err = b.Kernel.ListAddresses(b.ctx)
		b.must(err)
		if holds(all, b.w0, p) {
			b.Errorf("address %s is still there", p)
		}
		b.wantErr(b.Kernel.DeleteAddress(b.ctx, a), kernel.ErrNotThere)
	}
}

// markedAddresses: an address keeps the protocol that it was added with, may be on several interfaces, and brings no route.
func markedAddresses(b *bench) {
	for _, a := range []kernel.Address{
		{Prefix: netip.MustParsePrefix("169.254.0.179/32"), Scope: kernel.ScopeHost, Protocol: kernel.ProtoCaracal},
		{Prefix: netip.MustParsePrefix("fd12::1/128"), Protocol: kernel.ProtoCaracal},
	} {
		one, two := a, a
		one.Link, two.Link = b.w0, 1 // lo
		b.must(b.Kernel.AddAddress(b.ctx, one))
		b.must(b.Kernel.AddAddress(b.ctx, two))
		b.wantErr(b.Kernel.AddAddress(b.ctx, one), kernel.ErrExists)
		all, err := b.Kernel.ListAddresses(b.ctx)
		b.must(err)
		if !slices.Contains(all, one) || !slices.Contains(all, two) {
			b.Errorf("addresses %v, want %v and %v among them", all, one, two)
		}
		b.must(b.Kernel.ListRoutes(b.ctx, a.Prefix.Addr().Is6(), func(r *kernel.Route) bool {
			if r.Dst == a.Prefix {
				b.Errorf("there is a route %+v", *r)
			}
			return true
		}))
		b.must(b.Kernel.DeleteAddress(b.ctx, one))
		all, err = b.Kernel.ListAddresses(b.ctx)
		b.must(err)
		if slices.Contains(all, one) || !slices.Contains(all, two) {
			b.Errorf("addresses %v, want %v but not %v", all, two, one)
		}
		b.must(b.Kernel.DeleteAddress(b.ctx, two))
	}
}

// connectedRoutes: an address on an interface that is up brings a route of the kernel's own.
func connectedRoutes(b *bench) {
	for _, v6 := range []bool{false, true} {
		p, metric := netip.MustParsePrefix("198.51.100.1/24"), uint32(0)
		if v6 {
			p, metric = netip.MustParsePrefix("2001:db8:5::1/64"), 256
		}
		b.address(b.w0, p)
		find := func() (found *kernel.Route) {
			b.must(b.Kernel.ListRoutes(b.ctx, v6, func(r *kernel.Route) bool {
				if r.Dst == p.Masked() {
					c := *r
					c.NextHops = slices.Clone(r.NextHops)
					found = &c
				}
				return true
			}))
			return found
		}
		r := find()
		if r == nil || r.Protocol != kernel.ProtoKernel || r.Metric != metric || len(r.NextHops) != 1 || r.NextHops[0].Link != b.w0 || r.NextHops[0].Gateway.IsValid() {
			b.Errorf("connected route %+v, want one on w0 of protocol kernel, metric %d", r, metric)
		}
		b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: b.w0, Prefix: p}))
		if r := find(); r != nil {
			b.Errorf("connected route %+v outlived its address", r)
		}
	}
}

func ipipCases() []testCase {
	return []testCase{{"tunl0", tunl0}, {"ipip refusals", ipipRefusals}, {"objects on tunl0", objectsOnTunl0}}
}

// tunl0: it may be there already, and routes through it name their gateway onlink.
func tunl0(b *bench) {
	index := b.tunl0()
	b.must(b.Kernel.SetLink(b.ctx, index, 1480, [6]byte{}, true))
	own := netip.MustParsePrefix("10.244.1.1/32")
	b.address(index, own)
	l := b.link(index)
	if l.Kind != "ipip" || l.MTU != 1480 || !l.Up || l.IPIP == nil || l.IPIP.Local.IsValid() || l.IPIP.Remote.IsValid() {
		b.Errorf("tunl0 is %+v with %+v", l, l.IPIP)
	}
	through := func(n int, gateways ...netip.Addr) *kernel.Route {
		r := b.ours(n, gateways...)
		for i := range r.NextHops {
			r.NextHops[i].Link, r.NextHops[i].Onlink = index, true
		}
		return r
	}
	b.must(b.write(kernel.Add, through(1, b.gw(1))))
	b.must(b.write(kernel.Add, through(2, b.gw(1), b.far())))
	b.wantText(
		fmt.Sprintf("%s via %s dev tunl0 proto 202 metric 1024 onlink", b.dst(1), b.gw(1)),
		fmt.Sprintf("%s proto 202 metric 1024 nexthop via %s dev tunl0 weight 1 onlink nexthop via %s dev tunl0 weight 1 onlink", b.dst(2), b.gw(1), b.far()),
	)
	a, err := b.Kernel.Lookup(b.ctx, b.dst(1).Addr().Next())
	b.must(err)
	if a.Chosen.Link != index || a.Chosen.Gateway != b.gw(1) || a.Src != own.Addr() {
		b.Errorf("answer %+v, want the tunnel", a)
	}
	// The last address takes the routes with it: replacing the tunnel address means writing the routes again.
	b.must(b.Kernel.DeleteAddress(b.ctx, kernel.Address{Link: index, Prefix: own}))
	b.wantText()
}

func (b *bench) tunl0() int {
	links, err := b.Kernel.ListLinks(b.ctx)
	b.must(err)
	for _, l := range links {
		if l.Name == "tunl0" {
			return l.Index
		}
	}
	index, err := b.Kernel.CreateLink(b.ctx, kernel.Link{Name: "tunl0", Kind: "ipip"})
	b.must(err)
	return index
}

func objectsOnTunl0(b *bench) {
	b.onTunnel(b.tunl0(), "tunl0")
	if b.set(b.tunl0(), false); len(b.list()) > 0 {
		b.Errorf("routes %v outlived the tunnel going down", b.list())
	}
}

func ipipRefusals(b *bench) {
	b.tunl0()
	_, err := b.Kernel.CreateLink(b.ctx, kernel.Link{Name: "tunl0", Kind: "ipip"})
	b.wantErr(err, kernel.ErrExists)
	l := kernel.Link{Name: "ct-ipip", Kind: "ipip", MTU: 1440, IPIP: &kernel.IPIPAttrs{Local: b.self.Addr(), Remote: b.gw(1), TTL: 64}}
	index, err := b.Kernel.CreateLink(b.ctx, l)
	b.must(err)
	if got := b.link(index); got.MTU != 1440 || got.IPIP == nil || *got.IPIP != *l.IPIP {
		b.Errorf("created %+v with %+v, want %+v", got, got.IPIP, l.IPIP)
	}
	b.must(b.Kernel.DeleteLink(b.ctx, index))
}
