package kernel

import (
	"context"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ListAddresses returns the addresses of both families on all interfaces.
func (k *linux) ListAddresses(ctx context.Context) ([]Address, error) {
	s, err := k.socket()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	defer s.close()
	req := append(begin(nil, unix.RTM_GETADDR, unix.NLM_F_DUMP), make([]byte, unix.SizeofIfAddrmsg)...)
	var all []Address
	err = s.dump(ctx, req, func(m message) bool {
		if a, ok := parseAddress(m.payload); ok && m.typ == unix.RTM_NEWADDR {
			all = append(all, a)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return all, nil
}

func libraryAddr(a Address) *netlink.Addr {
	addr := a.Prefix.Addr()
	out := &netlink.Addr{
		IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), addr.BitLen())},
		Scope: int(a.Scope),
	}
	if addr.Is6() {
		// A tunnel address is ours by the datastore's word; detecting duplicates would only delay its use.
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// AddAddress adds an address.
func (k *linux) AddAddress(ctx context.Context, a Address) error {
	return k.address(ctx, "add", a, k.handle.AddrAdd)
}

// DeleteAddress removes an address.
func (k *linux) DeleteAddress(ctx context.Context, a Address) error {
	return k.address(ctx, "delete", a, k.handle.AddrDel)
}

func (k *linux) address(ctx context.Context, verb string, a Address, do func(netlink.Link, *netlink.Addr) error) error {
	err := k.usable(ctx)
	switch {
	case err != nil:
	case !a.Prefix.IsValid():
		err = refuse("no address")
	case a.Link <= 0:
		err = &Refusal{Errno: unix.ENODEV, Meaning: ErrNoDevice}
	default:
		err = fromLibrary(do(byIndex(a.Link), libraryAddr(a)))
	}
	if err != nil {
		return fmt.Errorf("%s address %s on link %d: %w", verb, a.Prefix, a.Link, err)
	}
	return nil
}
