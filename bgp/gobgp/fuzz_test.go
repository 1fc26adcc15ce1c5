package gobgp

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// oneLine reports whether text is fit for a table: whatever a peer says, no line ends in it.
func oneLine(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar })
}

// FuzzUpdate: whatever attributes the engine reads from the wire, they become a path of ours: with an address for a next hop or none, each
// community once, and the same path each time.
func FuzzUpdate(f *testing.F) {
	f.Add([]byte{0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, 0x40, 3, 4, 192, 0, 2, 1, 0x40, 5, 4, 0, 0, 0, 100}, false)
	f.Add([]byte{0xc0, 8, 8, 0xfc, 0, 0, 1, 0xfc, 0, 0, 1, 0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3}, false)
	f.Add([]byte{0x80, 14, 21, 0, 2, 1, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x80, 10, 4, 1, 2, 3, 4, 0x80, 9, 4, 1, 2, 3, 4}, true)
	f.Add([]byte{0x80, 4, 4, 0xff, 0xff, 0xff, 0xff, 0x40, 2, 4, 1, 0, 2, 0}, false)
	f.Fuzz(func(t *testing.T, attrs []byte, v6 bool) {
		if len(attrs) > 4000 {
			return
		}
		prefix := netip.MustParsePrefix("10.1.0.0/26")
		if v6 {
			prefix = netip.MustParsePrefix("fd00::/64")
		}
		body := append([]byte{0, 0, byte(len(attrs) >> 8), byte(len(attrs))}, attrs...)
		m, err := gobgp.ParseBGPBody(&gobgp.BGPHeader{Type: gobgp.BGP_MSG_UPDATE, Len: uint16(19 + len(body))}, body)
		if err != nil || m == nil {
			return
		}
		nlri, err := gobgp.NewIPAddrPrefix(prefix)
		if err != nil {
			t.Fatal(err)
		}
		path := &apiutil.Path{Family: family(prefix.Addr()), Nlri: nlri, Attrs: m.Body.(*gobgp.BGPUpdate).PathAttributes, PeerAddress: peerAddr}
		feed := newFeed(slog.New(slog.DiscardHandler))
		feed.learn(feed.begin(), []*apiutil.Path{path, path}, time.Now())
		b := feed.take()
		if len(b.learned) != 1 || b.learned[0].Prefix != prefix || len(b.learned[0].Paths) != 1 {
			t.Fatalf("%+v", b.learned)
		}
		n := &b.learned[0].Paths[0]
		if n.NextHop.Is4In6() || n.NextHop.Zone() != "" {
			t.Errorf("next hop %v", n.NextHop)
		}
		for i, c := range n.Communities {
			if slices.Contains(n.Communities[:i], c) {
				t.Errorf("community %v twice", c)
			}
		}
		p := &picture{cfg: bgp.Config{ASN: 64512}, peers: map[netip.Addr]*bgp.Peer{peerAddr: {Name: "Mesh", Addr: peerAddr, ASN: 64512}}}
		c := p.candidate(path, prefix)
		if c.Peer != "Mesh" || c.Local || c.External || c.LocalPref != n.LocalPref || !slices.Equal(c.ASPath, n.ASPath) || c.NextHop != n.NextHop {
			t.Errorf("as a candidate it is another one: %+v, %+v", c, n)
		}
		_ = p.whyRefused(p.peers[peerAddr], &c)
		_, v := p.cfg.Accept(p.peers[peerAddr], bgp.RouteOf(&c.Path))
		if !v.Accept {
			t.Error("a path is refused without a rule")
		}
	})
}

// FuzzOpen: whatever capabilities an OPEN holds, they can be written in a line each.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{1, 4, 0, 1, 0, 1, 64, 6, 0xc0, 120, 0, 1, 1, 0x80, 65, 4, 0, 0, 0xfc, 0, 69, 4, 0, 1, 1, 3, 2, 0, 6, 0, 70, 0})
	f.Add([]byte{73, 5, 3, 'a', '\n', 'b', 0, 75, 4, 3, 'v', 0x1b, '1', 99, 2, 1, 2, 71, 7, 0, 1, 1, 0, 0, 0, 9, 5, 6, 0, 1, 0, 1, 0, 2})
	f.Fuzz(func(t *testing.T, caps []byte) {
		if len(caps) > 253 {
			return
		}
		body := append([]byte{4, 0xfc, 0, 0, 90, 192, 0, 2, 1, byte(len(caps) + 2), 2, byte(len(caps))}, caps...)
		m, err := gobgp.ParseBGPBody(&gobgp.BGPHeader{Type: gobgp.BGP_MSG_OPEN, Len: uint16(19 + len(body))}, body)
		if err != nil || m == nil {
			return
		}
		for _, p := range m.Body.(*gobgp.BGPOpen).OptParams {
			list, ok := p.(*gobgp.OptionParameterCapability)
			if !ok {
				continue
			}
			for _, text := range capabilities(list.Capability) {
				if text == "" || !oneLine(text) {
					t.Errorf("%q of %v", text, caps)
				}
			}
		}
	})
}

// FuzzNotification: whatever a NOTIFICATION holds, it has a name in one line, of bounded length.
func FuzzNotification(f *testing.F) {
	f.Add(uint8(6), uint8(2), []byte("\x05hello"), "")
	f.Add(uint8(6), uint8(9), []byte("\x06\x02\x05hello"), "")
	f.Add(uint8(6), uint8(4), []byte{}, "a\nb")
	f.Fuzz(func(t *testing.T, code, subcode uint8, data []byte, reason string) {
		r := slog.NewRecord(time.Time{}, slog.LevelInfo, msgReceived, 0)
		r.AddAttrs(slog.Int(attrCode, int(code)), slog.Int(attrSubcode, int(subcode)), slog.Any(attrData, data), slog.String(attrReason, reason))
		n := notificationOf(r)
		if text := n.String(); text == "" || !oneLine(text) || len(n.Reason) > maxWords || n.Code != code || n.Subcode != subcode {
			t.Errorf("%q of %d/%d %q %q", text, code, subcode, data, reason)
		}
	})
}
