package kernel

import (
	"context"
	"encoding/binary"
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
	if a.Protocol != 0 && a.Link > 0 && a.Prefix.IsValid() {
		if err := k.markedAddress(ctx, a); err != nil {
			return fmt.Errorf("add address %s on link %d: %w", a.Prefix, a.Link, err)
		}
		return nil
	}
	return k.address(ctx, "add", a, k.handle.AddrAdd)
}

// ifaProto is IFA_PROTO (linux/if_addr.h), which kernels before 5.18 pass over, like the library.
const ifaProto = 11

// protocolMark and the protocol are the priority (IFA_RT_PRIORITY, Linux 4.18) of an address that says who put it there, for kernels that
// forget the protocol. It would be the metric of the route that comes with the address, and there is none.
const protocolMark = 0xCA000000

// addressProtocol says who put an address there, by its protocol, or where the kernel has none, by its priority. Nobody does of one with a route: who writes
// over an IPv6 address without a word of these two leaves them as they are.
func addressProtocol(protocol []byte, priority, flags uint32) Protocol {
	if flags&unix.IFA_F_NOPREFIXROUTE == 0 {
		return 0
	}
	if len(protocol) == 0 && priority&^0xff == protocolMark {
		protocol = []byte{byte(priority)}
	}
	// Those up to RTPROT_STATIC, such as of router advertisements, are the kernel's own and mean nothing to anybody here.
	if len(protocol) != 1 || protocol[0] <= unix.RTPROT_STATIC {
		return 0
	}
	return Protocol(protocol[0])
}

// forever is INFINITY_LIFE_TIME (net/addrconf.h).
const forever = ^uint32(0)

// markedAddress adds an address that says who put it there.
func (k *linux) markedAddress(ctx context.Context, a Address) error {
	s, err := k.socket()
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.exchange(ctx, appendMarked(nil, a))
	return err
}

func appendMarked(b []byte, a Address) []byte {
	addr := a.Prefix.Addr()
	b = begin(b, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	b = append(b, family(addr.Is6()), byte(a.Prefix.Bits()), 0, byte(a.Scope)) // struct ifaddrmsg; the flags follow
	b = binary.NativeEndian.AppendUint32(b, uint32(a.Link))
	b = appendAddr(b, unix.IFA_LOCAL, addr)
	b = appendAddr(b, unix.IFA_ADDRESS, addr)
	b = append(appendAttr(b, ifaProto, 1), byte(a.Protocol), 0, 0, 0)
	b = appendUint32(b, unix.IFA_RT_PRIORITY, protocolMark|uint32(a.Protocol))
	flags := uint32(unix.IFA_F_NOPREFIXROUTE)
	if addr.Is6() {
		flags |= unix.IFA_F_NODAD
		// Deprecated, so that it is the source of nothing but answers (RFC 6724 section 5, rule 3). IPv4 has scopes for that.
		b = appendAttr(b, unix.IFA_CACHEINFO, 16)
		for _, v := range [...]uint32{0, forever, 0, 0} { // preferred, valid, and two that are not read
			b = binary.NativeEndian.AppendUint32(b, v)
		}
	}
	return appendUint32(b, unix.IFA_FLAGS, flags)
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
