package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// attr is one route attribute (struct rtattr).
type attr struct {
	typ   uint16
	value []byte
}

// nlaTypeMask is NLA_TYPE_MASK (linux/netlink.h): the type without the flags for nesting and byte order.
const nlaTypeMask = 0x3fff

// nextAttr cuts the first attribute off b.
func nextAttr(b []byte) (attr, []byte, bool) {
	if len(b) < unix.SizeofRtAttr {
		return attr{}, nil, false
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < unix.SizeofRtAttr || length > len(b) {
		return attr{}, nil, false
	}
	a := attr{
		typ:   binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask,
		value: b[unix.SizeofRtAttr:length],
	}
	return a, b[min(align(length), len(b)):], true
}

func (a attr) uint32() uint32 {
	if len(a.value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.value)
}

// addr reads an address of 4 or 16 bytes.
func (a attr) addr() netip.Addr {
	switch len(a.value) {
	case 4:
		return netip.AddrFrom4([4]byte(a.value))
	case 16:
		return netip.AddrFrom16([16]byte(a.value))
	default:
		return netip.Addr{}
	}
}

// via reads struct rtvia: a gateway of another family than the route (RFC 8950), of which two bytes tell.
func (a attr) via() netip.Addr {
	if len(a.value) < 2 {
		return netip.Addr{}
	}
	return attr{value: a.value[2:]}.addr()
}

func unspecified(family byte) (netip.Addr, bool) {
	switch family {
	case unix.AF_INET:
		return netip.IPv4Unspecified(), true
	case unix.AF_INET6:
		return netip.IPv6Unspecified(), true
	default:
		return netip.Addr{}, false
	}
}

// parseRoute reads an RTM_NEWROUTE or RTM_DELROUTE into r, appending its next hops to hops, and reports whether it was an IPv4 or
// IPv6 route.
func parseRoute(payload []byte, r *Route, hops []NextHop) bool {
	if len(payload) < unix.SizeofRtMsg {
		return false
	}
	dst, ok := unspecified(payload[0])
	flags := binary.NativeEndian.Uint32(payload[8:])
	if !ok {
		return false
	}
	*r = Route{TOS: payload[3], Table: uint32(payload[4]), Protocol: Protocol(payload[5]), Scope: Scope(payload[6]), Type: RouteType(payload[7])}
	hop, single := NextHop{Weight: 1}, false
	for rest := payload[unix.SizeofRtMsg:]; len(rest) > 0; {
		var a attr
		if a, rest, ok = nextAttr(rest); !ok {
			return false
		}
		switch a.typ {
		case unix.RTA_DST:
			dst = a.addr()
		case unix.RTA_TABLE:
			r.Table = a.uint32()
		case unix.RTA_PRIORITY:
			r.Metric = a.uint32()
		case unix.RTA_PREFSRC:
			r.Src = a.addr()
		case unix.RTA_METRICS:
			r.MTU = parseMTU(a.value)
		case unix.RTA_OIF:
			hop.Link, single = int(a.uint32()), true
		case unix.RTA_GATEWAY:
			hop.Gateway, single = a.addr(), true
		case unix.RTA_VIA:
			hop.Gateway, single = a.via(), true
		case unix.RTA_MULTIPATH:
			hops, single = parseMultipath(a.value, hops), false
		case rtaNHID:
			r.NexthopID = a.uint32()
		}
	}
	if single {
		hop.flags(flags)
		hops = append(hops, hop)
	}
	r.Dst = netip.PrefixFrom(dst, int(payload[1]))
	r.NextHops = hops
	if !r.hasHops() {
		r.NextHops = hops[:0] // IPv6 shows blackholes on lo
	}
	return r.Dst.IsValid()
}

// flags takes over what RTNH_F_* say about a next hop.
func (h *NextHop) flags(f uint32) {
	h.Onlink = f&unix.RTNH_F_ONLINK != 0
	h.Dead = f&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0
}

func parseMTU(b []byte) uint32 {
	for len(b) > 0 {
		a, rest, ok := nextAttr(b)
		if !ok {
			return 0
		}
		if a.typ == unix.RTAX_MTU {
			return a.uint32()
		}
		b = rest
	}
	return 0
}

// parseMultipath reads a sequence of struct rtnexthop.
func parseMultipath(b []byte, hops []NextHop) []NextHop {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			break
		}
		h := NextHop{Weight: saturate(b[3]), Link: int(binary.NativeEndian.Uint32(b[4:]))}
		h.flags(uint32(b[2]))
		for rest := b[unix.SizeofRtNexthop:length]; len(rest) > 0; {
			a, more, ok := nextAttr(rest)
			if !ok {
				break
			}
			switch a.typ {
			case unix.RTA_GATEWAY:
				h.Gateway = a.addr()
			case unix.RTA_VIA:
				h.Gateway = a.via()
			}
			rest = more
		}
		hops = append(hops, h)
		b = b[min(align(length), len(b)):]
	}
	return hops
}

// saturate makes the weight that ip(8) prints of rtnh_hops, which is one less.
func saturate(hops byte) uint8 {
	if hops == 255 {
		return 255
	}
	return hops + 1
}

// parseAddress reads an RTM_NEWADDR or RTM_DELADDR. On a point-to-point interface IFA_ADDRESS is the peer, so IFA_LOCAL counts.
func parseAddress(payload []byte) (Address, bool) {
	if len(payload) < unix.SizeofIfAddrmsg {
		return Address{}, false
	}
	if _, ok := unspecified(payload[0]); !ok {
		return Address{}, false
	}
	var addr, local netip.Addr
	var protocol []byte
	var priority, flags uint32
	for rest := payload[unix.SizeofIfAddrmsg:]; len(rest) > 0; {
		a, more, ok := nextAttr(rest)
		if !ok {
			return Address{}, false
		}
		switch a.typ {
		case unix.IFA_ADDRESS:
			addr = a.addr()
		case unix.IFA_LOCAL:
			local = a.addr()
		case ifaProto:
			protocol = a.value
		case unix.IFA_RT_PRIORITY:
			priority = a.uint32()
		case unix.IFA_FLAGS:
			flags = a.uint32()
		}
		rest = more
	}
	if local.IsValid() {
		addr = local
	}
	out := Address{
		Link:   int(binary.NativeEndian.Uint32(payload[4:])),
		Prefix: netip.PrefixFrom(addr, int(payload[1])),
		Scope:  Scope(payload[3]), Protocol: addressProtocol(protocol, priority, flags),
	}
	return out, out.Prefix.IsValid()
}

// parseNeighbour reads an RTM_NEWNEIGH or RTM_DELNEIGH. usable is false for an entry without an answer yet (incomplete,
// failed), which is as good as none. Multicast mappings (NUD_NOARP) are no neighbours of anybody.
func parseNeighbour(payload []byte) (n Neighbour, usable, ok bool) {
	const size = 12 // struct ndmsg
	if len(payload) < size {
		return n, false, false
	}
	state, flags := binary.NativeEndian.Uint16(payload[8:]), payload[10]
	n.Link = int(binary.NativeEndian.Uint32(payload[4:]))
	n.Permanent = state&unix.NUD_PERMANENT != 0
	switch payload[0] {
	case unix.AF_BRIDGE:
		n.FDB = true
	case unix.AF_INET, unix.AF_INET6:
		if state == unix.NUD_NOARP || flags&unix.NTF_PROXY != 0 {
			return n, false, false
		}
	default:
		return n, false, false
	}
	for rest := payload[size:]; len(rest) > 0; {
		var a attr
		if a, rest, ok = nextAttr(rest); !ok {
			return n, false, false
		}
		switch a.typ {
		case unix.NDA_DST:
			n.Addr = a.addr()
		case unix.NDA_LLADDR:
			if len(a.value) >= len(n.MAC) {
				n.MAC = [6]byte(a.value)
			}
		case unix.NDA_IFINDEX:
			// the underlay interface of an FDB entry, not the entry's device
		}
	}
	usable = n.FDB || state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) == 0 && state != unix.NUD_NONE
	return n, usable, n.Addr.IsValid() // bridges' entries and devices' own MACs are without an address
}

// ofMain reports whether a message is about table main itself, not about a clone in the exception cache, by its fixed part alone: most
// messages of other tables end here. Numbers above 255 are in RTA_TABLE.
func ofMain(payload []byte) bool {
	if len(payload) < unix.SizeofRtMsg || binary.NativeEndian.Uint32(payload[8:])&unix.RTM_F_CLONED != 0 {
		return false
	}
	table := payload[4]
	return table == TableMain || table == unix.RT_TABLE_COMPAT || table == unix.RT_TABLE_UNSPEC
}
