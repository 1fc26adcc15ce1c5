package injector

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Announcement is a set of prefixes of one family with equal attributes.
type Announcement struct {
	Prefixes    []netip.Prefix
	NextHop     netip.Addr
	LocalPref   uint32   // 0 = none, as eBGP has it
	MED         uint32   // 0 = none
	ASPath      []uint32 // as it is to be on the wire; empty for routes of the own AS on iBGP
	Communities []uint32
}

// encode appends UPDATEs, each as full as it gets. four says that AS numbers have four octets.
func (a *Announcement) encode(b []byte, four bool) []byte {
	if len(a.Prefixes) == 0 {
		return b
	}
	if a.Prefixes[0].Addr().Is6() {
		return a.encode6(b, four)
	}
	attrs := appendAttr(a.attributes(four), flagTransitive, attrNextHop, a.NextHop.AsSlice())
	for rest := a.Prefixes; len(rest) > 0; {
		at := len(b)
		b = append(begin(b, msgUpdate), 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(attrs)))
		b = append(b, attrs...)
		b, rest = fill(b, at, rest)
		b = finish(b, at)
	}
	return b
}

// fill appends prefixes while the message that starts at the given place has room for the longest there is.
func fill(b []byte, at int, prefixes []netip.Prefix) ([]byte, []netip.Prefix) {
	for len(prefixes) > 0 && len(b)-at+1+16 <= maxMessage {
		b, prefixes = appendPrefix(b, prefixes[0]), prefixes[1:]
	}
	return b, prefixes
}

// encode6 appends UPDATEs for IPv6, whose prefixes are in an attribute (RFC 4760 section 3).
func (a *Announcement) encode6(b []byte, four bool) []byte {
	attrs := a.attributes(four)
	for rest := a.Prefixes; len(rest) > 0; {
		at := len(b)
		b = append(begin(b, msgUpdate), 0, 0, 0, 0)
		b = append(b, attrs...)
		reach := len(b)
		b = append(b, flagOptional|flagExtended, attrReach, 0, 0, 0, 2, 1, 16) // length to come, IPv6, unicast, next hop's size
		b = append(b, a.NextHop.AsSlice()...)
		b = append(b, 0)
		b, rest = fill(b, at, rest)
		binary.BigEndian.PutUint16(b[reach+2:], uint16(len(b)-reach-4))
		binary.BigEndian.PutUint16(b[at+headerSize+2:], uint16(len(b)-at-headerSize-4))
		b = finish(b, at)
	}
	return b
}

// attributes encodes those both families have, in order of their numbers but for what follows them.
func (a *Announcement) attributes(four bool) []byte {
	b := appendAttr(nil, flagTransitive, attrOrigin, []byte{0}) // IGP
	var path []byte
	if len(a.ASPath) > 0 {
		path = append(path, 2, byte(len(a.ASPath))) // one AS_SEQUENCE
		for _, as := range a.ASPath {
			switch {
			case four:
				path = binary.BigEndian.AppendUint32(path, as)
			case as < 1<<16:
				path = binary.BigEndian.AppendUint16(path, uint16(as))
			default:
				path = binary.BigEndian.AppendUint16(path, asTrans)
			}
		}
	}
	b = appendAttr(b, flagTransitive, attrASPath, path)
	if a.MED != 0 {
		b = appendAttr(b, flagOptional, attrMED, binary.BigEndian.AppendUint32(nil, a.MED))
	}
	if a.LocalPref != 0 {
		b = appendAttr(b, flagTransitive, attrLocalPref, binary.BigEndian.AppendUint32(nil, a.LocalPref))
	}
	if len(a.Communities) > 0 {
		var value []byte
		for _, c := range a.Communities {
			value = binary.BigEndian.AppendUint32(value, c)
		}
		b = appendAttr(b, flagOptional|flagTransitive, attrCommunities, value)
	}
	return b
}

// encodeWithdrawal appends UPDATEs that take prefixes of one family back.
func encodeWithdrawal(b []byte, prefixes []netip.Prefix) []byte {
	if len(prefixes) == 0 {
		return b
	}
	v6 := prefixes[0].Addr().Is6()
	for rest := prefixes; len(rest) > 0; {
		at := len(b)
		if v6 {
			b = append(begin(b, msgUpdate), 0, 0, 0, 0, flagOptional|flagExtended, attrUnreach, 0, 0, 0, 2, 1)
		} else {
			b = append(begin(b, msgUpdate), 0, 0)
		}
		field := len(b)
		if v6 {
			b, rest = fill(b, at, rest)
			binary.BigEndian.PutUint16(b[field-5:], uint16(len(b)-field+3)) // the attribute holds family and prefixes
			binary.BigEndian.PutUint16(b[at+headerSize+2:], uint16(len(b)-at-headerSize-4))
		} else {
			for len(rest) > 0 && len(b)-at+5+2 <= maxMessage {
				b, rest = appendPrefix(b, rest[0]), rest[1:]
			}
			binary.BigEndian.PutUint16(b[field-2:], uint16(len(b)-field))
			b = append(b, 0, 0)
		}
		b = finish(b, at)
	}
	return b
}

// endOfRIB is the marker of a family (RFC 4724 section 2).
func endOfRIB(v6 bool) []byte {
	b := append(begin(nil, msgUpdate), 0, 0, 0, 0)
	if v6 {
		b[len(b)-1] = 6
		b = append(b, flagOptional, attrUnreach, 3, 0, 2, 1)
	}
	return finish(b, 0)
}

// Update is what one received UPDATE says.
type Update struct {
	Withdrawn []netip.Prefix
	Announced []netip.Prefix
	NextHop   netip.Addr
	LocalPref uint32
	MED       uint32
	EndOfRIB  bool // of the family V6 says
	V6        bool
}

// ParseUpdate reads the body of an UPDATE into u, whose slices are used again. AS_PATH and communities are not looked at.
func ParseUpdate(body []byte, u *Update) error {
	*u = Update{Withdrawn: u.Withdrawn[:0], Announced: u.Announced[:0]}
	withdrawn, rest, err := field(body)
	if err != nil {
		return err
	}
	attrs, nlri, err := field(rest)
	if err != nil {
		return err
	}
	u.EndOfRIB = len(withdrawn)+len(attrs)+len(nlri) == 0
	if u.Withdrawn, err = takePrefixes(u.Withdrawn, withdrawn, false); err != nil {
		return err
	}
	if u.Announced, err = takePrefixes(u.Announced, nlri, false); err != nil {
		return err
	}
	for len(attrs) > 0 {
		if attrs, err = u.attribute(attrs); err != nil {
			return err
		}
	}
	return nil
}

// field cuts off a field with a length of two octets.
func field(b []byte) (value, rest []byte, err error) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil, nil, fmt.Errorf("%w: UPDATE is cut short", errMalformed)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], nil
}

// attribute reads one path attribute and returns what follows it.
func (u *Update) attribute(b []byte) (rest []byte, err error) {
	size := 3
	if len(b) > 0 && b[0]&flagExtended != 0 {
		size = 4
	}
	if len(b) < size {
		return nil, fmt.Errorf("%w: path attribute is cut short", errMalformed)
	}
	n := int(b[2])
	if size == 4 {
		n = int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < size+n {
		return nil, fmt.Errorf("%w: path attribute %d of %d octets", errMalformed, b[1], n)
	}
	value, rest := b[size:size+n], b[size+n:]
	switch kind := b[1]; {
	case kind == attrNextHop && n == 4:
		u.NextHop = netip.AddrFrom4([4]byte(value))
	case kind == attrLocalPref && n == 4:
		u.LocalPref = binary.BigEndian.Uint32(value)
	case kind == attrMED && n == 4:
		u.MED = binary.BigEndian.Uint32(value)
	case kind == attrReach:
		err = u.reach(value)
	case kind == attrUnreach && n >= 3 && isIPv6(value):
		u.V6, u.EndOfRIB = true, n == 3
		u.Withdrawn, err = takePrefixes(u.Withdrawn, value[3:], true)
	}
	return rest, err
}

func (u *Update) reach(value []byte) (err error) {
	if len(value) < 5 || !isIPv6(value) {
		return nil
	}
	n := int(value[3])
	if n < 16 || len(value) < 5+n {
		return fmt.Errorf("%w: MP_REACH_NLRI with a next hop of %d octets", errMalformed, n)
	}
	u.V6, u.NextHop = true, netip.AddrFrom16([16]byte(value[4:20]))
	u.Announced, err = takePrefixes(u.Announced, value[5+n:], true)
	return err
}

// isIPv6 reports whether an attribute's value begins with IPv6 unicast.
func isIPv6(value []byte) bool { return value[0] == 0 && value[1] == 2 && value[2] == 1 }
