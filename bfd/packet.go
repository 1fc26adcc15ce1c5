package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// State is bfd.SessionState (RFC 5880 section 4.1).
type State uint8

// The states of a session.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// String returns the RFC's word.
func (s State) String() string {
	if int(s) < len(stateWords()) {
		return stateWords()[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

func stateWords() []string { return []string{"AdminDown", "Down", "Init", "Up"} }

// Diag is bfd.LocalDiag: why the session last left Up (RFC 5880 section 4.1).
type Diag uint8

// The diagnostics this package sets; peers may send others.
const (
	NoDiagnostic         Diag = 0
	DetectionTimeExpired Diag = 1
	NeighborSignaledDown Diag = 3
	PathDown             Diag = 5
	AdministrativelyDown Diag = 7
)

// String returns the RFC's words.
func (d Diag) String() string {
	words := []string{"No Diagnostic", "Control Detection Time Expired", "Echo Function Failed", "Neighbor Signaled Session Down",
		"Forwarding Plane Reset", "Path Down", "Concatenated Path Down", "Administratively Down", "Reverse Concatenated Path Down"}
	if int(d) < len(words) {
		return words[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

// packetLen is the length of a control packet without authentication, in octets.
const packetLen = 24

// version is the protocol version of RFC 5880.
const version = 1

// packet is a BFD control packet (RFC 5880 section 4.1), without authentication.
type packet struct {
	diag                                           Diag
	state                                          State
	poll, final, controlPlaneIndependent, demand   bool
	multiplier                                     uint8
	my, your                                       uint32 // discriminators
	desiredMinTx, requiredMinRx, requiredMinEchoRx time.Duration
}

// The flags of the second octet, below the state.
const (
	flagPoll          = 1 << 5
	flagFinal         = 1 << 4
	flagIndependent   = 1 << 3
	flagAuthenticated = 1 << 2
	flagDemand        = 1 << 1
	flagMultipoint    = 1 << 0
)

// append writes the packet behind b. Intervals are rounded down to a microsecond, the unit on the wire.
func (p *packet) append(b []byte) []byte {
	flags := byte(p.state) << 6
	for _, f := range []struct {
		set bool
		bit byte
	}{{p.poll, flagPoll}, {p.final, flagFinal}, {p.controlPlaneIndependent, flagIndependent}, {p.demand, flagDemand}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = append(b, version<<5|byte(p.diag), flags, p.multiplier, packetLen)
	b = binary.BigEndian.AppendUint32(b, p.my)
	b = binary.BigEndian.AppendUint32(b, p.your)
	for _, d := range []time.Duration{p.desiredMinTx, p.requiredMinRx, p.requiredMinEchoRx} {
		b = binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
	}
	return b
}

// The reasons to discard a packet (RFC 5880 section 6.8.6).
var (
	errShort         = errors.New("shorter than a control packet")
	errVersion       = errors.New("version is not 1")
	errLength        = errors.New("length field does not fit")
	errMultiplier    = errors.New("detect mult is 0")
	errMultipoint    = errors.New("multipoint bit is set")
	errDiscriminator = errors.New("my discriminator is 0")
	errNoSession     = errors.New("your discriminator is 0 in a state that needs one")
	errAuthenticated = errors.New("they are authenticated, which is not supported: turn that off at the peer")
	errHops          = errors.New("they come to the other port, 3784 for one hop or 4784 for several: set hops as it is at the peer")
	errPollFinal     = errors.New("poll and final are both set")
)

// parse reads a packet with the checks of RFC 5880 section 6.8.6 that need no session.
func parse(b []byte) (p packet, err error) {
	if len(b) < packetLen {
		return p, errShort
	}
	flags, length := b[1], int(b[3])
	p = packet{
		diag: Diag(b[0] & 0x1f), state: State(flags >> 6), multiplier: b[2],
		poll: flags&flagPoll != 0, final: flags&flagFinal != 0,
		controlPlaneIndependent: flags&flagIndependent != 0, demand: flags&flagDemand != 0,
		my: binary.BigEndian.Uint32(b[4:]), your: binary.BigEndian.Uint32(b[8:]),
		desiredMinTx: micros(b[12:]), requiredMinRx: micros(b[16:]), requiredMinEchoRx: micros(b[20:]),
	}
	switch {
	case b[0]>>5 != version:
		err = errVersion
	case flags&flagAuthenticated != 0:
		err = errAuthenticated
	case length < packetLen || length > len(b):
		err = errLength
	case p.multiplier == 0:
		err = errMultiplier
	case flags&flagMultipoint != 0:
		err = errMultipoint
	case p.my == 0:
		err = errDiscriminator
	case p.your == 0 && p.state != Down && p.state != AdminDown:
		err = errNoSession
	case p.poll && p.final:
		err = errPollFinal
	}
	return p, err
}

func micros(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}
