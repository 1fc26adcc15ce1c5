package injector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Message types (RFC 4271 section 4.1, RFC 2918).
const (
	msgOpen         = 1
	msgUpdate       = 2
	msgNotification = 3
	msgKeepalive    = 4
	msgRefresh      = 5
)

// Sizes in octets (RFC 4271 section 4.1).
const (
	headerSize = 19
	maxMessage = 4096
)

// Path attributes (RFC 4271 section 4.3, RFC 1997, RFC 4760) and their flags.
const (
	attrOrigin      = 1
	attrASPath      = 2
	attrNextHop     = 3
	attrMED         = 4
	attrLocalPref   = 5
	attrCommunities = 8
	attrReach       = 14
	attrUnreach     = 15

	flagOptional   = 0x80
	flagTransitive = 0x40
	flagExtended   = 0x10
)

// Capabilities (RFC 5492's registry) and the optional parameter that carries them.
const (
	capMultiprotocol = 1
	capRefresh       = 2
	capRestart       = 64
	capFourOctetAS   = 65

	paramCapabilities = 2
	asTrans           = 23456 // stands in the two-octet field for an AS that does not fit (RFC 6793)
)

// errMalformed is wrapped by every complaint about what the other side sent.
var errMalformed = errors.New("malformed BGP message")

// begin appends a message header whose length finish fills in.
func begin(b []byte, kind byte) []byte {
	for range 16 {
		b = append(b, 0xff)
	}
	return append(b, 0, 0, kind)
}

// finish writes the length of the message that starts at the given place.
func finish(b []byte, at int) []byte {
	binary.BigEndian.PutUint16(b[at+16:], uint16(len(b)-at))
	return b
}

func keepalive() []byte { return finish(begin(nil, msgKeepalive), 0) }

// notification is a NOTIFICATION without data.
func notification(code, subcode byte) []byte {
	return finish(append(begin(nil, msgNotification), code, subcode), 0)
}

// open encodes our OPEN.
func (o *Options) open() []byte {
	caps := []byte{capMultiprotocol, 4, 0, 1, 0, 1, capMultiprotocol, 4, 0, 2, 0, 1, capRefresh, 0, capFourOctetAS, 4}
	caps = binary.BigEndian.AppendUint32(caps, o.ASN)
	if o.RestartTime > 0 {
		caps = append(caps, capRestart, 10)
		caps = binary.BigEndian.AppendUint16(caps, uint16(o.RestartTime.Seconds()))
		caps = append(caps, 0, 1, 1, 0x80, 0, 2, 1, 0x80) // forwarding state kept, both families
	}
	short := uint16(asTrans)
	if o.ASN < 1<<16 {
		short = uint16(o.ASN)
	}
	b := append(begin(nil, msgOpen), 4) // version
	b = binary.BigEndian.AppendUint16(b, short)
	b = binary.BigEndian.AppendUint16(b, uint16(o.HoldTime.Seconds()))
	b = append(b, o.RouterID.AsSlice()...)
	b = append(b, byte(len(caps)+2), paramCapabilities, byte(len(caps)))
	return finish(append(b, caps...), 0)
}

// peerOpen is what matters of the other side's OPEN.
type peerOpen struct {
	asn      uint32
	as4      bool
	holdTime uint16 // seconds
}

func parseOpen(body []byte) (peerOpen, error) {
	if len(body) < 10 || len(body) < 10+int(body[9]) {
		return peerOpen{}, fmt.Errorf("%w: OPEN of %d octets", errMalformed, len(body))
	}
	p := peerOpen{asn: uint32(binary.BigEndian.Uint16(body[1:])), holdTime: binary.BigEndian.Uint16(body[3:])}
	for params := body[10 : 10+int(body[9])]; len(params) >= 2; {
		kind, n := params[0], int(params[1])
		if len(params) < 2+n {
			return p, fmt.Errorf("%w: OPEN parameter %d of %d octets", errMalformed, kind, n)
		}
		if kind == paramCapabilities {
			p.capabilities(params[2 : 2+n])
		}
		params = params[2+n:]
	}
	return p, nil
}

func (p *peerOpen) capabilities(caps []byte) {
	for len(caps) >= 2 && len(caps) >= 2+int(caps[1]) {
		value := caps[2 : 2+int(caps[1])]
		if caps[0] == capFourOctetAS && len(value) == 4 {
			p.as4, p.asn = true, binary.BigEndian.Uint32(value)
		}
		caps = caps[2+len(value):]
	}
}

// appendPrefix appends a prefix as NLRI (RFC 4271 section 4.3).
func appendPrefix(b []byte, p netip.Prefix) []byte {
	n := (p.Bits() + 7) / 8
	b = append(b, byte(p.Bits()))
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return append(b, a[:n]...)
	}
	a := p.Addr().As16()
	return append(b, a[:n]...)
}

// takePrefixes appends the prefixes of an NLRI field to out.
func takePrefixes(out []netip.Prefix, b []byte, v6 bool) ([]netip.Prefix, error) {
	most := 32
	if v6 {
		most = 128
	}
	for len(b) > 0 {
		bits := int(b[0])
		n := (bits + 7) / 8
		if bits > most || len(b) < 1+n {
			return out, fmt.Errorf("%w: a prefix of %d bits in %d octets", errMalformed, bits, len(b)-1)
		}
		var a [16]byte
		copy(a[:], b[1:1+n])
		addr := netip.AddrFrom16(a)
		if !v6 {
			addr = netip.AddrFrom4([4]byte(a[:4]))
		}
		out = append(out, netip.PrefixFrom(addr, bits).Masked())
		b = b[1+n:]
	}
	return out, nil
}

// appendAttr appends a path attribute.
func appendAttr(b []byte, flags, kind byte, value []byte) []byte {
	if len(value) > 255 {
		b = append(b, flags|flagExtended, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	} else {
		b = append(b, flags, kind, byte(len(value)))
	}
	return append(b, value...)
}
