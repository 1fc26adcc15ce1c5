package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The encoder appends whole netlink messages to a buffer that is used again for every batch; nothing here allocates unless
// the route is refused.

// begin appends a message header; finish or close fills in what is known later.
func begin(b []byte, typ, flags uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return binary.NativeEndian.AppendUint32(b, 0)
}

// finish sets length and sequence number of the message that fills msg.
func finish(msg []byte, seq uint32) {
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint32(msg[8:], seq)
}

func appendAttr(b []byte, typ uint16, payload int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+payload))
	return binary.NativeEndian.AppendUint16(b, typ)
}

func appendUint32(b []byte, typ uint16, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(appendAttr(b, typ, 4), v)
}

func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		x := a.As4()
		return append(appendAttr(b, typ, 4), x[:]...)
	}
	x := a.As16()
	return append(appendAttr(b, typ, 16), x[:]...)
}

// appendGateway appends a gateway of a route of one family: RTA_VIA where it is of the other one (RFC 8950; Linux 5.2, IPv4 routes alone).
func appendGateway(b []byte, v6 bool, gw netip.Addr) []byte {
	if gw.Is6() == v6 {
		return appendAddr(b, unix.RTA_GATEWAY, gw)
	}
	x := gw.As16()
	b = binary.NativeEndian.AppendUint16(appendAttr(b, unix.RTA_VIA, 2+len(x)), unix.AF_INET6) // struct rtvia
	return append(append(b, x[:]...), 0, 0)                                                    // padded to the alignment
}

// appendMAC appends a link-layer address, padded to the alignment.
func appendMAC(b []byte, typ uint16, mac [6]byte) []byte {
	b = append(appendAttr(b, typ, len(mac)), mac[:]...)
	return append(b, 0, 0)
}

func family(v6 bool) byte {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// ipv6Metric is IP6_RT_PRIO_USER (linux/ipv6_route.h): what the kernel makes of metric 0 when it adds, while a delete takes 0
// for any. Written out, it means the same both times.
const ipv6Metric = 1024

// scopeNowhere is RT_SCOPE_NOWHERE: a delete takes it for any scope.
const scopeNowhere = 255

// loopback is the index of lo in every namespace (LOOPBACK_IFINDEX); IPv6 keeps blackholes there.
const loopback = 1

// appendRouteOp appends the message of one operation.
func appendRouteOp(b []byte, op RouteOp) ([]byte, error) {
	r := op.Route
	if err := checkRoute(op.Verb, r); err != nil {
		return b, err
	}
	typ, flags := uint16(unix.RTM_NEWROUTE), uint16(unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	switch op.Verb {
	case Replace:
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	case Delete:
		typ, flags = unix.RTM_DELROUTE, 0
	}
	b = begin(b, typ, flags)
	b = appendRtmsg(b, op.Verb, r)
	v6 := r.Dst.Addr().Is6()
	b = appendAddr(b, unix.RTA_DST, r.Dst.Addr())
	if table := r.table(); table > 255 {
		b = appendUint32(b, unix.RTA_TABLE, table)
	}
	switch {
	case r.Metric != 0:
		b = appendUint32(b, unix.RTA_PRIORITY, r.Metric)
	case v6:
		b = appendUint32(b, unix.RTA_PRIORITY, ipv6Metric)
	}
	if op.Verb == Delete {
		return appendVictim(b, r), nil
	}
	if r.Src.IsValid() {
		b = appendAddr(b, unix.RTA_PREFSRC, r.Src)
	}
	if r.MTU != 0 {
		b = appendUint32(appendAttr(b, unix.RTA_METRICS, 8), unix.RTAX_MTU, r.MTU)
	}
	return appendHops(b, r), nil
}

// checkRoute refuses what cannot be said in a message.
func checkRoute(verb Verb, r *Route) error {
	if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Dst.Addr().Is4In6() {
		return refuse("%q is not a destination: want an IPv4 or IPv6 prefix without host bits", r.Dst)
	}
	if verb > Delete {
		return refuse("unknown verb %d", verb)
	}
	for i := range r.NextHops {
		// An IPv4 route may have an IPv6 gateway; "IPv6 does not support RTA_VIA attribute", the kernel says of the reverse.
		if gw := r.NextHops[i].Gateway; r.NexthopID == 0 && gw.IsValid() && (gw.Is4() && r.Dst.Addr().Is6() || gw.Is4In6()) {
			return refuse("gateway %s is of another family", gw)
		}
	}
	if r.Src.IsValid() && r.Src.Is4() != r.Dst.Addr().Is4() {
		return refuse("source %s is of another family", r.Src)
	}
	if verb != Delete && r.hasHops() && len(r.NextHops) == 0 && r.NexthopID == 0 {
		return &Refusal{Errno: unix.ENODEV, Meaning: ErrNoDevice, Message: "a unicast route needs a next hop"}
	}
	return nil
}

func (r *Route) table() uint32 {
	if r.Table == 0 {
		return TableMain
	}
	return r.Table
}

// hasHops reports whether routes of that type lead somewhere.
func (r *Route) hasHops() bool { return r.Type == Unicast || r.Type == Local || r.Type == 0 }

func appendRtmsg(b []byte, verb Verb, r *Route) []byte {
	v6 := r.Dst.Addr().Is6()
	table := byte(unix.RT_TABLE_COMPAT) // RTA_TABLE tells
	if t := r.table(); t <= 255 {
		table = byte(t)
	}
	typ, scope, flags := r.Type, r.Scope, uint32(0)
	if typ == 0 && verb != Delete {
		typ = Unicast
	}
	switch {
	case r.NexthopID != 0 && verb != Delete:
		typ = Unicast // a blackhole object makes the route one
	case r.NexthopID != 0:
		typ = 0 // the kernel compares with the type that was written, not with the one it shows
	}
	switch {
	case verb == Delete:
		scope = scopeNowhere
	case v6:
		scope = ScopeUniverse
	case typ == Unicast && scope == ScopeUniverse && r.NexthopID == 0 && !r.hasGateway():
		scope = ScopeLink // the kernel refuses a wider scope without a gateway, ip(8) narrows it as well
	}
	if verb != Delete && r.NexthopID == 0 && len(r.NextHops) == 1 && r.NextHops[0].Onlink {
		flags = unix.RTNH_F_ONLINK
	}
	tos := r.TOS
	if v6 {
		tos = 0 // IPv6 has no TOS in the key, strict kernels refuse it
	}
	b = append(b, family(v6), byte(r.Dst.Bits()), 0, tos, table, byte(r.Protocol), byte(scope), byte(typ))
	return binary.NativeEndian.AppendUint32(b, flags)
}

func (r *Route) hasGateway() bool {
	for i := range r.NextHops {
		if r.NextHops[i].Gateway.IsValid() {
			return true
		}
	}
	return false
}

// appendHops appends the next hops of a route that is written.
func appendHops(b []byte, r *Route) []byte {
	switch {
	case r.NexthopID != 0:
		return appendUint32(b, rtaNHID, r.NexthopID)
	case !r.hasHops():
		return b
	case len(r.NextHops) == 1:
		h := &r.NextHops[0]
		if h.Link != 0 {
			b = appendUint32(b, unix.RTA_OIF, uint32(h.Link))
		}
		if h.Gateway.IsValid() {
			b = appendGateway(b, r.Dst.Addr().Is6(), h.Gateway)
		}
		return b
	default:
		return appendMultipath(b, r.Dst.Addr().Is6(), r.NextHops)
	}
}

func appendMultipath(b []byte, v6 bool, hops []NextHop) []byte {
	start := len(b)
	b = appendAttr(b, unix.RTA_MULTIPATH, 0)
	for i := range hops {
		h := &hops[i]
		at := len(b)
		var flags byte
		if h.Onlink {
			flags = unix.RTNH_F_ONLINK
		}
		b = append(b, 0, 0, flags, max(h.Weight, 1)-1) // struct rtnexthop
		b = binary.NativeEndian.AppendUint32(b, uint32(h.Link))
		if h.Gateway.IsValid() {
			b = appendGateway(b, v6, h.Gateway)
		}
		binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
	}
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

// appendVictim says which route of a key and protocol a delete means. IPv4 needs no more: it takes the first that fits, and
// protocol and type keep it to ours. IPv6 would take all the siblings of the first that fits, so each next hop is
// named, and the kernel then removes just those, comparing the protocol of each. The number of a nexthop object says it all in both.
func appendVictim(b []byte, r *Route) []byte {
	if r.NexthopID != 0 {
		return appendUint32(b, rtaNHID, r.NexthopID)
	}
	if r.Dst.Addr().Is4() {
		return b
	}
	if !r.hasHops() {
		return appendUint32(b, unix.RTA_OIF, loopback)
	}
	if len(r.NextHops) == 0 {
		return b
	}
	return appendHops(b, r)
}

// appendNeighbourOp appends the message of one operation on a neighbour or FDB entry.
func appendNeighbourOp(b []byte, op NeighbourOp) ([]byte, error) {
	n := &op.Neighbour
	if !n.Addr.IsValid() && !(op.Delete && n.FDB) {
		return b, refuse("neighbour without an address")
	}
	typ, flags := uint16(unix.RTM_NEWNEIGH), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if op.Delete {
		typ, flags = unix.RTM_DELNEIGH, 0
	}
	b = begin(b, typ, flags)
	fam, state, entry := family(n.Addr.Is6()), uint16(unix.NUD_REACHABLE), byte(0)
	if n.Permanent {
		state = unix.NUD_PERMANENT
	}
	if n.FDB {
		fam, entry = unix.AF_BRIDGE, unix.NTF_SELF
	}
	b = append(b, fam, 0, 0, 0) // struct ndmsg
	b = binary.NativeEndian.AppendUint32(b, uint32(n.Link))
	b = binary.NativeEndian.AppendUint16(b, state)
	b = append(b, entry, 0)
	if n.Addr.IsValid() {
		b = appendAddr(b, unix.NDA_DST, n.Addr)
	}
	if n.FDB || !op.Delete {
		b = appendMAC(b, unix.NDA_LLADDR, n.MAC)
	}
	return b, nil
}
