package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ListLinks returns all interfaces.
func (k *linux) ListLinks(ctx context.Context) ([]Link, error) {
	if err := k.usable(ctx); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	all, err := k.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", fromLibrary(err))
	}
	out := make([]Link, 0, len(all))
	for _, l := range all {
		out = append(out, linkOf(l))
	}
	return out, nil
}

// usable refuses calls after Close or after their context ended.
func (k *linux) usable(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return fmt.Errorf("%w: the handle is closed", ErrInvalid)
	}
	return classify(ctx.Err())
}

// fromLibrary gives the library's errors their meaning.
func fromLibrary(err error) error {
	var missing netlink.LinkNotFoundError
	switch {
	case errors.Is(err, netlink.ErrDumpInterrupted):
		return fmt.Errorf("%w: %w", ErrInterrupted, err)
	case errors.As(err, &missing):
		return &Refusal{Errno: unix.ENODEV, Meaning: ErrNoDevice}
	default:
		return classify(err)
	}
}

// linkOf takes over what we use of the library's form.
func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, Kind: kindOf(l), MTU: a.MTU, Master: a.MasterIndex,
		Up: a.RawFlags&unix.IFF_UP != 0, Running: a.RawFlags&unix.IFF_RUNNING != 0,
	}
	if len(a.HardwareAddr) == len(out.MAC) {
		out.MAC = [6]byte(a.HardwareAddr)
	}
	switch t := l.(type) {
	case *netlink.Vxlan:
		out.VXLAN = &VXLANAttrs{
			VNI: uint32(t.VxlanId), Port: uint16(t.Port), Parent: t.VtepDevIndex, Local: addrOf(t.SrcAddr), Group: addrOf(t.Group),
			Learning: t.Learning, External: t.FlowBased, TTL: uint8(t.TTL), TOS: uint8(t.TOS),
			L2Miss: t.L2miss, L3Miss: t.L3miss, Proxy: t.Proxy, RSC: t.RSC, GBP: t.GBP,
		}
	case *netlink.Iptun:
		out.IPIP = &IPIPAttrs{Local: addrOf(t.Local), Remote: addrOf(t.Remote), TTL: t.Ttl}
	}
	return out
}

// kindOf is IFLA_INFO_KIND; the library says "device" where there is none.
func kindOf(l netlink.Link) string {
	if kind := l.Type(); kind != "device" {
		return kind
	}
	return ""
}

// addrOf converts an address of the library; the unspecified one reads as none.
func addrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func ipOf(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

// CreateLink creates a vxlan or ipip device, or any kind that needs no attributes (bridge, dummy).
//
// Where the ipip module gets loaded by the request, the kernel makes its own tunl0 first, in every namespace, and a request for that
// name is answered ErrExists: list the links again.
func (k *linux) CreateLink(ctx context.Context, l Link) (int, error) {
	if err := k.usable(ctx); err != nil {
		return 0, fmt.Errorf("create link %s: %w", l.Name, err)
	}
	wanted, err := libraryLink(l)
	if err == nil {
		err = fromLibrary(k.handle.LinkAdd(wanted))
	}
	if err != nil {
		return 0, fmt.Errorf("create %s link %s: %w", l.Kind, l.Name, err)
	}
	made, err := k.handle.LinkByName(l.Name)
	if err != nil {
		return 0, fmt.Errorf("create %s link %s: read it back: %w", l.Kind, l.Name, fromLibrary(err))
	}
	return made.Attrs().Index, nil
}

// libraryLink says every attribute that has a default, so that no default of kernel or library decides.
func libraryLink(l Link) (netlink.Link, error) {
	if l.Name == "" || len(l.Name) > maxName {
		return nil, refuse("%q is not an interface name: want 1 to %d bytes", l.Name, maxName)
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = l.Name, l.MTU
	if l.MAC != ([6]byte{}) {
		a.HardwareAddr = l.MAC[:]
	}
	switch l.Kind {
	case "vxlan":
		v := l.VXLAN
		if v == nil {
			return nil, refuse("vxlan link without attributes")
		}
		return &netlink.Vxlan{
			LinkAttrs: a, VxlanId: int(v.VNI), Port: int(v.Port), VtepDevIndex: v.Parent, SrcAddr: ipOf(v.Local), Group: ipOf(v.Group),
			Learning: v.Learning, FlowBased: v.External, TTL: int(v.TTL), TOS: int(v.TOS),
			L2miss: v.L2Miss, L3miss: v.L3Miss, Proxy: v.Proxy, RSC: v.RSC, GBP: v.GBP,
		}, nil
	case "ipip":
		t := &netlink.Iptun{LinkAttrs: a}
		if l.IPIP != nil {
			t.Local, t.Remote, t.Ttl = ipOf(l.IPIP.Local), ipOf(l.IPIP.Remote), l.IPIP.TTL
		}
		a.HardwareAddr = nil // its link-layer address is the local IPv4 address
		return t, nil
	case "":
		return nil, refuse("link without a kind")
	default:
		return &netlink.GenericLink{LinkAttrs: a, LinkType: l.Kind}, nil
	}
}

// maxName is IFNAMSIZ without its terminating zero (linux/if.h).
const maxName = unix.IFNAMSIZ - 1

// byIndex names an existing interface to the library by nothing but its index.
func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// DeleteLink removes an interface.
func (k *linux) DeleteLink(ctx context.Context, index int) error {
	err := k.usable(ctx)
	if err == nil && index <= 0 {
		err = &Refusal{Errno: unix.ENODEV, Meaning: ErrNoDevice}
	}
	if err == nil {
		err = fromLibrary(k.handle.LinkDel(byIndex(index)))
	}
	if err != nil {
		return fmt.Errorf("delete link %d: %w", index, err)
	}
	return nil
}

// SetLink changes MTU, then MAC, then the admin state; what came before a failure stays changed.
func (k *linux) SetLink(ctx context.Context, index, mtu int, mac [6]byte, up bool) error {
	err := k.usable(ctx)
	if err == nil && index <= 0 {
		err = &Refusal{Errno: unix.ENODEV, Meaning: ErrNoDevice}
	}
	if err == nil && mtu > 0 {
		err = fromLibrary(k.handle.LinkSetMTU(byIndex(index), mtu))
	}
	if err == nil && mac != ([6]byte{}) {
		err = fromLibrary(k.handle.LinkSetHardwareAddr(byIndex(index), mac[:]))
	}
	if err == nil && up {
		err = fromLibrary(k.handle.LinkSetUp(byIndex(index)))
	} else if err == nil {
		err = fromLibrary(k.handle.LinkSetDown(byIndex(index)))
	}
	if err != nil {
		return fmt.Errorf("set link %d: %w", index, err)
	}
	return nil
}

// parseLink reads an RTM_NEWLINK or RTM_DELLINK. Messages of family AF_BRIDGE tell of a bridge port, not of the interface: the port's
// RTM_DELLINK means that it left the bridge.
func parseLink(header *unix.NlMsghdr, payload []byte) (Link, bool) {
	if len(payload) < unix.SizeofIfInfomsg || payload[0] != unix.AF_UNSPEC {
		return Link{}, false
	}
	l, err := netlink.LinkDeserialize(header, payload)
	if err != nil || l.Attrs().Name == "" {
		return Link{}, false
	}
	return linkOf(l), true
}
