package bgp_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/bgp"
)

func TestNotificationNames(t *testing.T) {
	for want, n := range map[string]bgp.Notification{
		"Cease/Administrative Reset":                        {Code: 6, Subcode: 4},
		"Hold Timer Expired":                                {Code: 4},
		"UPDATE Message Error/Missing Well-known Attribute": {Code: 3, Subcode: 3},
		"Cease/77":           {Code: 6, Subcode: 77},
		"NOTIFICATION 99/1":  {Code: 99, Subcode: 1},
		"OPEN Message Error": {Code: 2},
		`Cease/Administrative Shutdown "back at noon"`:                {Code: 6, Subcode: 2, Reason: "back at noon"},
		"Cease/Hard Reset (Cease/Maximum Number of Prefixes Reached)": {Code: 6, Subcode: 9, InnerCode: 6, InnerSubcode: 1},
	} {
		if got := n.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestRemedy: each row is a session that is not up, and a word that what is said about it must hold.
func TestRemedy(t *testing.T) {
	tor := bgp.PeerStatus{OurASN: 64512, State: "Active", Peer: bgp.Peer{Name: "Global_192_0_2_9", Addr: netip.MustParseAddr("192.0.2.9"), ASN: 64999,
		LocalAddr: netip.MustParseAddr("192.0.2.1"), Source: "BGPPeer tor"}}
	mesh := tor
	mesh.Peer.Source, mesh.Peer.Node, mesh.Peer.ASN = "Node node-b (mesh)", "node-b", 64512
	cease := func(sub uint8) bgp.Notification { return bgp.Notification{Code: 6, Subcode: sub, At: time.Now()} }
	for name, c := range map[string]struct {
		of     bgp.PeerStatus
		change func(*bgp.PeerStatus)
		want   string
	}{
		"wrong AS, we say": {tor, func(s *bgp.PeerStatus) { s.Cause, s.LastSent = bgp.CauseSent, bgp.Notification{Code: 2, Subcode: 2} },
			"another AS than 64999: correct asNumber of BGPPeer tor"},
		"wrong AS of a node": {mesh, func(s *bgp.PeerStatus) { s.Cause, s.LastSent = bgp.CauseSent, bgp.Notification{Code: 2, Subcode: 2} },
			"correct spec.bgp.asNumber of Node node-b"},
		"wrong AS, it says": {tor, func(s *bgp.PeerStatus) {
			s.Cause, s.LastReceived = bgp.CauseReceived, bgp.Notification{Code: 2, Subcode: 2}
		},
			"another AS of us than 64512"},
		"it refuses our OPEN": {tor, func(s *bgp.PeerStatus) { s.Cause, s.LastSent = bgp.CauseSent, bgp.Notification{Code: 5, Subcode: 1} }, "expect AS 64512 of 192.0.2.1"},
		"router id": {tor, func(s *bgp.PeerStatus) {
			s.Cause, s.LastReceived = bgp.CauseReceived, bgp.Notification{Code: 2, Subcode: 3}
		}, "CALICO_ROUTER_ID"},
		"refused":        {tor, func(s *bgp.PeerStatus) { s.Cause = bgp.CauseRefused }, "nothing listens at 192.0.2.9:179"},
		"no way":         {tor, func(s *bgp.PeerStatus) { s.Cause = bgp.CauseUnreachable }, "ip route get 192.0.2.9"},
		"no answer":      {tor, func(s *bgp.PeerStatus) { s.Cause = bgp.CauseUnanswered }, "firewall"},
		"no address":     {tor, func(s *bgp.PeerStatus) { s.Cause = bgp.CauseNoAddress }, "does not have 192.0.2.1: correct spec.bgp.ipv4Address"},
		"closed":         {tor, func(s *bgp.PeerStatus) { s.Cause = bgp.CauseLost }, "a session with 192.0.2.1, for AS 64512"},
		"silent":         {tor, func(s *bgp.PeerStatus) { s.Cause, s.LastSent = bgp.CauseSent, bgp.Notification{Code: 4} }, "fell silent"},
		"too many":       {tor, func(s *bgp.PeerStatus) { s.Cause, s.LastSent = bgp.CauseSent, cease(1) }, "raise the limit"},
		"too many of us": {tor, func(s *bgp.PeerStatus) { s.Cause, s.LastReceived = bgp.CauseReceived, cease(1) }, "exportV4"},
		"deconfigured, in a Hard Reset": {tor, func(s *bgp.PeerStatus) {
			s.Cause, s.LastReceived = bgp.CauseReceived, bgp.Notification{Code: 6, Subcode: 9, InnerCode: 6, InnerSubcode: 3}
		}, "no longer has this session"},
		"far off": {tor, func(s *bgp.PeerStatus) { s.TTLSecurity, s.Cause = 2, bgp.CauseLost }, "a TTL below 254 are dropped"},
		"far off since it was shut down": {tor, func(s *bgp.PeerStatus) {
			s.State, s.TTLSecurity, s.Cause, s.LastReceived = "OpenConfirm", 1, bgp.CauseReceived, cease(2)
		}, "shut the session down at the peer; with ttlSecurity 1"},
		"waits":                  {mesh, func(s *bgp.PeerStatus) { s.Passive = true }, "the peer dials us"},
		"takes connections only": {tor, func(s *bgp.PeerStatus) { s.SentMessages.Open, s.ReceivedMessages.Open = 3, 2 }, "does not answer our OPENs: does it have a session with 192.0.2.1, for AS 64512"},
		"was up":                 {mesh, func(s *bgp.PeerStatus) { s.Passive, s.Ups = true, 3 }, ""},
		"held":                   {tor, func(s *bgp.PeerStatus) { s.Cause, s.Held = bgp.CauseRefused, "no secret" }, ""},
		"up again":               {tor, func(s *bgp.PeerStatus) { s.Cause, s.State = bgp.CauseRefused, bgp.Established }, ""},
	} {
		c.change(&c.of)
		if got := bgp.Remedy(&c.of); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: %q, want it to say %q", name, got, c.want)
		}
	}
}

// TestWhyLost: each row differs from the best path in what it is named for, and in everything that comes after it.
func TestWhyLost(t *testing.T) {
	best := bgp.Candidate{Path: bgp.Path{LocalPref: 100, ASPath: []uint32{65001}, MED: 5}, External: true}
	for _, c := range []struct {
		want   string
		change func(best, c *bgp.Candidate)
	}{
		{"LOCAL_PREF 50 is lower than 100", func(_, c *bgp.Candidate) { c.LocalPref, c.ASPath, c.MED = 50, nil, 0 }},
		{"our own route goes first", func(b, c *bgp.Candidate) { b.Local, c.ASPath = true, nil }},
		{"AS path of 2 is longer than 1", func(_, c *bgp.Candidate) { c.ASPath, c.MED = []uint32{1, 2}, 0 }},
		{"ORIGIN INCOMPLETE goes behind IGP", func(_, c *bgp.Candidate) { c.Origin, c.MED = bgp.OriginIncomplete, 0 }},
		{"MED 6 is higher than 5", func(_, c *bgp.Candidate) { c.MED, c.External = 6, false }},
		{"iBGP goes behind eBGP", func(_, c *bgp.Candidate) { c.External = false }},
		{"the best path was there first; MED 4 of another AS does not count, but is not equal to 5 either, as it is for paths used together",
			func(_, c *bgp.Candidate) { c.MED, c.ASPath = 4, []uint32{65002} }},
	} {
		b, other := best, best
		c.change(&b, &other)
		if got := bgp.WhyLost(&b, &other); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
