package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Remedy says what a person can do about a session that is not up, "" where nothing is known or nothing is wrong. A session that is Held
// says it itself.
func Remedy(s *PeerStatus) string {
	if s.State == Established || s.Held != "" {
		return ""
	}
	text := remedy(s)
	if hint := nearness(s); hint != "" {
		text = strings.TrimPrefix(text+"; "+hint, "; ")
	}
	return text
}

// nearness says what TTL security may have to do with it: what it drops is seen by nobody, so that sessions hang in any state, or their
// connections end, and the last thing that was said is of former times.
func nearness(s *PeerStatus) string {
	n := &s.LastReceived
	if s.Cause == CauseSent {
		n = &s.LastSent
	}
	explained := (s.Cause == CauseSent || s.Cause == CauseReceived) && (n.Code == CodeOpen || n.Is(CodeCease, SubMaxPrefixes))
	if s.TTLSecurity == 0 || explained || s.Cause == CauseRefused || s.Cause == CauseUnreachable || s.Cause == CauseNoAddress {
		return ""
	}
	return fmt.Sprintf("with ttlSecurity %d packets of the peer with a TTL below %d are dropped unseen: does it use TTL security too?", s.TTLSecurity, 256-int(s.TTLSecurity))
}

func remedy(s *PeerStatus) string {
	at := netip.AddrPortFrom(s.Addr, cmp.Or(s.Port, DefaultPort))
	switch s.Cause {
	case CauseSent:
		return remedyOf(&s.LastSent, s, true)
	case CauseReceived:
		return remedyOf(&s.LastReceived, s, false)
	case CauseRefused:
		return fmt.Sprintf("nothing listens at %s: start BGP there, or correct the port (%s)", at, portField(s))
	case CauseUnreachable:
		return fmt.Sprintf("ip route get %s says why this host has no way there", s.Addr)
	case CauseUnanswered:
		return fmt.Sprintf("no answer from %s: is the peer up, does a firewall drop TCP port %d, are passwords and TTL security the same on both sides?", at, at.Port())
	case CauseNoAddress:
		return fmt.Sprintf("this host does not have %s: correct %s of our own Node, or sourceAddress of the BGPPeer", s.LocalAddr, addressOf(s.Addr))
	case CauseLost:
		return fmt.Sprintf("the peer closes connections without a word: does it have a session with %s, for AS %d?", ourAddress(s), s.OurASN)
	case CauseUnknown:
		if !s.Passive && s.SentMessages.Open > s.ReceivedMessages.Open {
			return fmt.Sprintf("the peer takes our connections and does not answer our OPENs: does it have a session with %s, for AS %d? It may still wait on a former connection, for its hold time at most", ourAddress(s), s.OurASN)
		}
		if s.Passive && s.Ups == 0 {
			return fmt.Sprintf("the peer dials us: does it run, and does a firewall let it reach %s?", ourAddress(s))
		}
	}
	return ""
}

func ourAddress(s *PeerStatus) string {
	if !s.LocalAddr.IsValid() {
		return "this node's address"
	}
	return s.LocalAddr.String()
}

func addressOf(a netip.Addr) string {
	if a.Is4() {
		return "spec.bgp.ipv4Address"
	}
	return "spec.bgp.ipv6Address"
}

// portField names what a peer's port comes from.
func portField(s *PeerStatus) string {
	if strings.HasPrefix(s.Source, "BGPPeer ") {
		return "peerIP of " + s.Source + ", or listenPort of the BGPConfiguration"
	}
	return "listenPort of the BGPConfiguration, node." + s.Node + "'s own goes first"
}

// asField names what a peer's AS comes from.
func asField(s *PeerStatus) string {
	if strings.HasPrefix(s.Source, "BGPPeer ") && s.Node == "" {
		return "asNumber of " + s.Source
	}
	return "spec.bgp.asNumber of Node " + s.Node + ", or asNumber of the BGPConfiguration"
}

// remedyOf looks at the NOTIFICATION that ended a session, ours if sent.
func remedyOf(n *Notification, s *PeerStatus, sent bool) string {
	switch {
	case n.Is(CodeOpen, SubBadPeerAS) && sent:
		return fmt.Sprintf("the peer introduces itself with another AS than %d: correct %s, or the peer", s.ASN, asField(s))
	case n.Is(CodeOpen, SubBadPeerAS):
		return fmt.Sprintf("the peer expects another AS of us than %d: correct it there, or ours: spec.bgp.asNumber of this Node, asNumber of the BGPConfiguration, localASNumber of the BGPPeer", s.OurASN)
	case n.Is(codeFSM, subInOpenSent) && sent:
		// A NOTIFICATION that comes in place of the peer's OPEN; the engine does not tell which.
		return fmt.Sprintf("the peer does not answer our OPEN with its own, but refuses it, and its log says why: does it expect AS %d of %s, and both this session?", s.OurASN, ourAddress(s))
	case n.Is(CodeOpen, SubBadIdentifier):
		return "both ends have one router id: give this node its own with CALICO_ROUTER_ID, or the peer"
	case n.Is(CodeOpen, SubHoldTime):
		return "the hold times do not fit: keepaliveTime of the BGPPeer sets ours"
	case n.Code == CodeHoldTimer && sent:
		return "the peer fell silent: is its process alive, do packets get lost, does the path carry packets as large as the interface's MTU?"
	case n.Code == CodeHoldTimer:
		return "the peer no longer heard us: do packets get lost, does the path carry packets as large as the interface's MTU, is this host out of processor time?"
	case n.Is(CodeCease, SubMaxPrefixes) && sent:
		return "the peer announces more prefixes than its limit here: raise the limit, or announce less there; with another limit it is tried again at once, else some minutes later"
	case n.Is(CodeCease, SubMaxPrefixes):
		return "we announce more prefixes than the peer takes: raise its limit, or keep some back with exportV4 or exportV6 rules of a BGPFilter"
	case n.Is(CodeCease, SubAdminShutdown) && !sent:
		return "somebody has shut the session down at the peer"
	case n.Is(CodeCease, SubPeerDeconfigured) && !sent:
		return fmt.Sprintf("the peer no longer has this session in its configuration: add %s, AS %d, there, or delete %s", ourAddress(s), s.OurASN, s.Source)
	case n.Is(CodeCease, SubConnectionReject) && !sent:
		return fmt.Sprintf("the peer does not take connections from %s: is it configured there with AS %d?", ourAddress(s), s.OurASN)
	case n.Is(CodeCease, SubOutOfResources) && !sent:
		return "the peer has no room for our routes"
	}
	return ""
}
