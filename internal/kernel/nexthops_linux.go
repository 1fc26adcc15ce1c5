package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys does not name (linux/rtnetlink.h, linux/nexthop.h).
const (
	rtaNHID      = 30 // RTA_NH_ID
	nhaFDB       = 11 // NHA_FDB
	sizeofMember = 8  // struct nexthop_grp: id, weight - 1, its high byte since 6.12, two reserved bytes
	groupMpath   = 0  // NEXTHOP_GRP_TYPE_MPATH
)

// SupportsNexthops makes a blackhole object and removes it. A probe that was cut short leaves one: then the answer is known at once.
func (k *linux) SupportsNexthops(ctx context.Context) (bool, error) {
	probe := &Nexthop{ID: ProbeNexthop, Protocol: ProtoCaracal, Blackhole: true}
	var refused error
	ops := []NexthopOp{{Add, probe}, {Delete, probe}}
	err := k.WriteNexthops(ctx, ops, func(i int, err error) {
		if i == 0 {
			refused = err
		}
	})
	switch {
	case err != nil:
		return false, fmt.Errorf("try nexthop objects: %w", err)
	case errors.Is(refused, ErrUnsupported):
		return false, nil
	case refused != nil && !errors.Is(refused, ErrExists):
		return false, fmt.Errorf("try nexthop objects: %w", refused)
	}
	return true, nil
}

// ListNexthops dumps all nexthop objects.
func (k *linux) ListNexthops(ctx context.Context, yield func(*Nexthop) bool) error {
	s, err := k.socket()
	if err != nil {
		return fmt.Errorf("list nexthops: %w", err)
	}
	defer s.close()
	req := append(begin(nil, unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP), make([]byte, unix.SizeofNhmsg)...)
	var n Nexthop
	var group []GroupMember
	err = s.dump(ctx, req, func(m message) bool {
		if m.typ != unix.RTM_NEWNEXTHOP || !parseNexthop(m.payload, &n, group[:0]) {
			return true
		}
		group = n.Group
		return yield(&n)
	})
	if err != nil {
		return fmt.Errorf("list nexthops: %w", err)
	}
	return nil
}

// writeNexthops is WriteNexthops without help for refused onlink gateways.
func (k *linux) writeNexthops(ctx context.Context, ops []NexthopOp, failed func(i int, err error)) error {
	encode := func(b []byte, i int) ([]byte, error) { return appendNexthopOp(b, ops[i]) }
	err := k.nexthops.write(ctx, len(ops), encode, func(i int, err error) {
		failed(i, fmt.Errorf("%s: %w", ops[i], err))
	})
	if err != nil {
		return fmt.Errorf("write nexthops: %w", err)
	}
	return nil
}

// appendNexthopOp appends the message of one operation.
func appendNexthopOp(b []byte, op NexthopOp) ([]byte, error) {
	n := op.Nexthop
	if err := checkNexthop(op.Verb, n); err != nil {
		return b, err
	}
	switch op.Verb {
	case Delete:
		// The kernel takes nothing but the number, and refuses a delete that says more.
		b = append(begin(b, unix.RTM_DELNEXTHOP, 0), make([]byte, unix.SizeofNhmsg)...)
		return appendUint32(b, unix.NHA_ID, n.ID), nil
	case Add:
		b = begin(b, unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	default:
		b = begin(b, unix.RTM_NEWNEXTHOP, unix.NLM_F_REPLACE)
	}
	fam, flags := family(n.V6), uint32(0)
	switch {
	case len(n.Group) > 0:
		fam = unix.AF_UNSPEC
	case n.Onlink && !n.Blackhole:
		flags = unix.RTNH_F_ONLINK
	}
	b = append(b, fam, 0, byte(n.Protocol), 0) // struct nhmsg
	b = binary.NativeEndian.AppendUint32(b, flags)
	b = appendUint32(b, unix.NHA_ID, n.ID)
	switch {
	case len(n.Group) > 0:
		return appendGroup(b, n.Group), nil
	case n.Blackhole:
		return appendAttr(b, unix.NHA_BLACKHOLE, 0), nil
	}
	b = appendUint32(b, unix.NHA_OIF, uint32(n.Link))
	if n.Gateway.IsValid() {
		b = appendAddr(b, unix.NHA_GATEWAY, n.Gateway)
	}
	return b, nil
}

func appendGroup(b []byte, group []GroupMember) []byte {
	b = appendAttr(b, unix.NHA_GROUP, sizeofMember*len(group))
	for _, m := range group {
		b = binary.NativeEndian.AppendUint32(b, m.ID)
		b = append(b, byte(max(m.Weight, 1)-1), 0, 0, 0)
	}
	return b
}

// checkNexthop refuses what cannot be said in a message, and what the kernel refuses without saying why.
func checkNexthop(verb Verb, n *Nexthop) error {
	switch {
	case verb > Delete:
		return refuse("unknown verb %d", verb)
	case n == nil || n.ID == 0:
		return refuse("nexthop without a number")
	case verb == Delete:
		return nil
	case n.Other:
		return refuse("nexthop id %d has attributes that cannot be written", n.ID)
	}
	for _, m := range n.Group {
		if m.ID == 0 || m.Weight > maxWeight {
			return refuse("group member %d with weight %d: want a number and a weight of at most %d", m.ID, m.Weight, maxWeight)
		}
	}
	if len(n.Group) > 0 || n.Blackhole {
		return nil
	}
	if n.Gateway.IsValid() && n.Gateway.Is6() != n.V6 {
		return refuse("gateway %s is of another family", n.Gateway)
	}
	if n.Link <= 0 {
		return &Refusal{Errno: unix.ENODEV, Meaning: ErrNoDevice, Message: "a nexthop object needs an interface"}
	}
	return nil
}

// parseNexthop reads an RTM_NEWNEXTHOP or RTM_DELNEXTHOP into n, appending group members to group.
func parseNexthop(payload []byte, n *Nexthop, group []GroupMember) bool {
	if len(payload) < unix.SizeofNhmsg {
		return false
	}
	flags := binary.NativeEndian.Uint32(payload[4:])
	*n = Nexthop{V6: payload[0] == unix.AF_INET6, Protocol: Protocol(payload[2]), Onlink: flags&unix.RTNH_F_ONLINK != 0, Group: group}
	for rest := payload[unix.SizeofNhmsg:]; len(rest) > 0; {
		a, more, ok := nextAttr(rest)
		if !ok {
			return false
		}
		rest = more
		switch a.typ {
		case unix.NHA_ID:
			n.ID = a.uint32()
		case unix.NHA_GROUP:
			n.Group = parseGroup(a.value, n.Group)
		case unix.NHA_GROUP_TYPE:
			n.Other = n.Other || len(a.value) < 2 || binary.NativeEndian.Uint16(a.value) != groupMpath
		case unix.NHA_BLACKHOLE:
			n.Blackhole = true
		case unix.NHA_OIF:
			n.Link = int(a.uint32())
		case unix.NHA_GATEWAY:
			n.Gateway = a.addr()
		case unix.NHA_ENCAP, unix.NHA_ENCAP_TYPE, unix.NHA_MASTER, nhaFDB:
			n.Other = true
		}
	}
	if n.Blackhole {
		n.Link = 0
	}
	return n.ID != 0
}

func parseGroup(b []byte, group []GroupMember) []GroupMember {
	for ; len(b) >= sizeofMember; b = b[sizeofMember:] {
		weight := uint32(b[4]) + uint32(b[5])<<8 + 1
		group = append(group, GroupMember{ID: binary.NativeEndian.Uint32(b), Weight: uint16(min(weight, 1<<16-1))})
	}
	return group
}
