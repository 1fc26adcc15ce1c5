package bgp

import (
	"fmt"
	"net/netip"
	"time"
)

// SessionState is the RFC 4271 section 8.2.2 state of a session.
type SessionState string

// Established is the state in which routes are exchanged.
const Established SessionState = "Established"

// PeerStatus is one session as inspection shows it.
type PeerStatus struct {
	Peer
	State SessionState // Idle, Connect, Active, OpenSent, OpenConfirm, Established
	Since time.Time
	// LastError is why the session, or the last try at one, ended: "sent: Cease/Administrative Reset", "received: ...", "dial: connection
	// refused". It stays when the session comes up. Cause is the same for programs.
	LastError string
	Cause     Cause
	ErrorAt   time.Time // when; zero where there was none
	// LastSent and LastReceived are the last NOTIFICATION of each direction; their time is zero where there was none.
	LastSent, LastReceived Notification
	OurASN                 uint32     // our AS towards the peer
	RouterID               netip.Addr // the peer's BGP identifier, as it said last
	// OurCapabilities and TheirCapabilities are what was offered in the OPENs of the last session (RFC 5492), in words.
	OurCapabilities, TheirCapabilities []string
	HoldTime                           time.Duration // agreed upon; 0 where no session is up
	Ups                                int           // how often the session has come up
	Received                           int           // paths received from the peer, those that import rules refuse among them
	Looped                             int           // further ones that have been here before (RFC 4271 section 9.1.2, RFC 4456 section 8)
	Advertised                         int           // prefixes sent to it
	SentMessages, ReceivedMessages     Messages
	EndOfRIB                           bool      // the peer has sent End-of-RIB for the session's family
	Restarting                         bool      // the peer is gone and its paths are kept (RFC 4724)
	KeptUntil                          time.Time // until when they are kept at most: the restart time that the peer has asked for, from when it was lost
	RetryAt                            time.Time // when a peer that has sent too many prefixes is tried again; zero for any other
	// Path is filled in by whoever runs BFD; nil where nobody does.
	Path *PathStatus
}

// Messages counts messages of one direction since the session was configured.
type Messages struct {
	Open, Update, Keepalive, Notification, RouteRefresh uint64
	Withdrawn                                           uint64 // prefixes taken back
}

// PathStatus is how BFD finds the path to a peer.
type PathStatus struct {
	State               string // AdminDown, Down, Init, Up
	Since               time.Time
	Interval, Detection time.Duration
	Diag, RemoteDiag    string // why it last left Up (RFC 5880 section 4.1)
	Downs               int    // how often
	Err                 string // why packets cannot be sent or received, "" if they can
	RemoteState         string // as the peer says it
	Multihop            bool   // RFC 5883, else one hop (RFC 5881)
	Sent, Received      uint64 // packets
}

// Cause says how a session, or the last try at one, ended.
type Cause uint8

// The causes. What is not listed has no remedy of its own.
const (
	CauseUnknown     Cause = iota
	CauseSent              // by our NOTIFICATION, PeerStatus.LastSent
	CauseReceived          // by the peer's, PeerStatus.LastReceived
	CauseLost              // the connection was closed or broke without a NOTIFICATION
	CauseRefused           // nothing listens at the peer's address and port
	CauseUnreachable       // the host has no way to the peer
	CauseUnanswered        // no answer to the first packet
	CauseNoAddress         // our own address of the session is not on the host
	CauseEngine            // no session can run at all, PeerStatus.LastError says why
)

// Notification is a NOTIFICATION message (RFC 4271 section 4.5).
type Notification struct {
	Code, Subcode uint8
	// Inner is what a Hard Reset stands for (RFC 8538 section 3.1); zero for any other.
	InnerCode, InnerSubcode uint8
	Reason                  string // the sender's own words (RFC 9003, before it RFC 8203), "" for none
	At                      time.Time
}

// Is reports whether the message, or what a Hard Reset stands for, has this code and subcode.
func (n *Notification) Is(code, subcode uint8) bool {
	return n.Code == code && n.Subcode == subcode || n.InnerCode == code && n.InnerSubcode == subcode && code != 0
}

// String names the message as the RFCs do, with the sender's words: Cease/Administrative Shutdown "maintenance".
func (n Notification) String() string {
	text := notificationName(n.Code, n.Subcode)
	if n.InnerCode != 0 {
		text += " (" + notificationName(n.InnerCode, n.InnerSubcode) + ")"
	}
	if n.Reason != "" {
		text += fmt.Sprintf(" %q", n.Reason)
	}
	return text
}

// The error codes that are looked at (RFC 4271 section 4.5, RFC 4486).
const (
	CodeOpen      = 2
	CodeHoldTimer = 4
	codeFSM       = 5
	CodeCease     = 6

	SubBadPeerAS         = 2
	SubBadIdentifier     = 3
	SubHoldTime          = 6
	SubMaxPrefixes       = 1
	SubAdminShutdown     = 2
	SubPeerDeconfigured  = 3
	SubConnectionReject  = 5
	SubOutOfResources    = 8
	SubCollision         = 7
	SubHardReset         = 9
	subUnsupportedCap    = 7
	subInOpenSent        = 1 // RFC 6608
	subAuthenticationOld = 5 // deprecated by RFC 4271
)

func notificationName(code, subcode uint8) string {
	c, ok := notificationNames()[code]
	if !ok {
		return fmt.Sprintf("NOTIFICATION %d/%d", code, subcode)
	}
	if sub := c.subcodes[subcode]; sub != "" {
		return c.name + "/" + sub
	}
	if subcode != 0 {
		return fmt.Sprintf("%s/%d", c.name, subcode)
	}
	return c.name
}

type codeName struct {
	name     string
	subcodes map[uint8]string
}

// notificationNames are the names of RFC 4271 sections 4.5 and 6.6 (with RFC 6608), RFC 4486, RFC 5492, RFC 7313, RFC 8538, RFC 9234 and RFC 9384.
func notificationNames() map[uint8]codeName {
	return map[uint8]codeName{
		1: {"Message Header Error", map[uint8]string{1: "Connection Not Synchronized", 2: "Bad Message Length", 3: "Bad Message Type"}},
		CodeOpen: {"OPEN Message Error", map[uint8]string{1: "Unsupported Version Number", SubBadPeerAS: "Bad Peer AS", SubBadIdentifier: "Bad BGP Identifier",
			4: "Unsupported Optional Parameter", subAuthenticationOld: "Authentication Failure", SubHoldTime: "Unacceptable Hold Time",
			subUnsupportedCap: "Unsupported Capability", 11: "Role Mismatch"}},
		3: {"UPDATE Message Error", map[uint8]string{1: "Malformed Attribute List", 2: "Unrecognized Well-known Attribute", 3: "Missing Well-known Attribute",
			4: "Attribute Flags Error", 5: "Attribute Length Error", 6: "Invalid ORIGIN Attribute", 8: "Invalid NEXT_HOP Attribute",
			9: "Optional Attribute Error", 10: "Invalid Network Field", 11: "Malformed AS_PATH"}},
		CodeHoldTimer: {"Hold Timer Expired", nil},
		codeFSM:       {"Finite State Machine Error", map[uint8]string{1: "Unexpected Message in OpenSent", 2: "Unexpected Message in OpenConfirm", 3: "Unexpected Message in Established"}},
		CodeCease: {"Cease", map[uint8]string{SubMaxPrefixes: "Maximum Number of Prefixes Reached", SubAdminShutdown: "Administrative Shutdown",
			SubPeerDeconfigured: "Peer De-configured", 4: "Administrative Reset", SubConnectionReject: "Connection Rejected", 6: "Other Configuration Change",
			SubCollision: "Connection Collision Resolution", SubOutOfResources: "Out of Resources", SubHardReset: "Hard Reset", 10: "BFD Down"}},
		7: {"ROUTE-REFRESH Message Error", map[uint8]string{1: "Invalid Message Length"}},
	}
}
