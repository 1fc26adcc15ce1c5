package gobgp

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/caracal-net/caracal/bgp"
)

// TestWhatIsUnsettled: which changes of one prefix have peers told of it once more. X is a client's, Y another client's with a higher router id, P an iBGP peer's that is no client,
// E and F eBGP peers', O ours; + comes and - goes. A number is how many milliseconds pass.
func TestWhatIsUnsettled(t *testing.T) {
	addrs := map[byte]string{'X': "10.0.0.1", 'Y': "10.0.0.2", 'P': "10.0.0.3", 'E': "10.0.0.4", 'F': "10.0.0.5"}
	const none, due = false, true
	for _, c := range []struct {
		name  string
		steps []any
		want  bool
	}{
		{"one path", []any{"X+", "X-", "X+", "X-"}, none},
		{"one after the other", []any{"X+", 5000, "X-Y+"}, none},
		{"one right after the other", []any{"X+", 100, "X-Y+"}, due},
		{"two at once, the worse one later", []any{"X+", 100, "Y+"}, none},
		{"two at once, the better one later", []any{"Y+", 100, "X+"}, due},
		{"two at once, both gone", []any{"X+", "Y+", 5000, "X-", 100, "Y-"}, due},
		{"two at once, one goes", []any{"X+", "Y+", 5000, "X-"}, none},
		{"two of eBGP peers, the second later", []any{"E+", 1500, "F+"}, none},
		{"two of eBGP peers at once, so that the second may count as the older", []any{"E+", 100, "F+"}, due},
		{"two of eBGP peers, one after the other", []any{"E+", "F+", 5000, "E-", 100, "F-"}, due},
		{"ours and another", []any{"X+", 5000, "X-O+", 100, "O-X+"}, due},
		{"ours and one that was worse", []any{"O+", 100, "O-X+"}, due},
		{"ours and one that was worse, later", []any{"O+", 5000, "O-X+"}, due},
		{"ours alone", []any{"O+", 100, "O-", 100, "O+"}, none},
		{"a client's is followed by an iBGP peer's", []any{"X+", 5000, "X-P+"}, due},
		{"an iBGP peer's by a client's", []any{"P+", 5000, "P-X+"}, none},
		{"a peer was told everything just before", []any{"X+", 5000, "all", 100, "X-Y+"}, due},
		{"a peer was told everything just after", []any{"X+", 5000, "X-Y+", 100, "all"}, due},
		{"a peer was told everything long after", []any{"X+", 5000, "X-Y+", 5000, "all"}, none},
		{"a peer has asked for everything", []any{"X+", 5000, "X-Y+", 20000, "asked"}, due},
		{"a peer is behind", []any{"X+", "behind", 5000, "X-Y+"}, due},
		{"a peer falls behind", []any{"X+", 5000, "X-Y+", 500, "behind"}, due},
		{"a peer was behind", []any{"X+", "behind", "level", 5000, "X-Y+"}, none},
		{"while rules change", []any{"X+", 5000, "rule", 1, "X+", 1, "ruled"}, due},
		{"before rules change", []any{"X+", 5000, "X+", 1, "rule", 1, "ruled"}, none},
		{"after rules have changed", []any{"X+", 5000, "rule", 1, "ruled", 1, "X+"}, none},
		{"gone before a session comes up", []any{"X+", 5000, "X-", 100, "up"}, due},
		{"gone when a session has come up", []any{"X+", 5000, "up", 100, "X-"}, due},
		{"gone long before a session comes up", []any{"X+", 5000, "X-", 1000, "up"}, none},
		{"ours is gone before a session comes up", []any{"O+", 5000, "O-", 100, "up"}, due},
		{"through our cluster", []any{"X+", 5000, "X*"}, due},
		{"through our cluster at first", []any{"X*"}, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(slog.New(slog.DiscardHandler))
			gen := f.begin()
			cfg := &bgp.Config{ASN: 64512}
			for who, a := range addrs {
				p := bgp.Peer{Addr: netip.MustParseAddr(a), ASN: 64512}
				if p.Client = who == 'X' || who == 'Y'; p.Client {
					p.ClusterID = netip.MustParseAddr("10.0.0.9")
				}
				if who == 'E' || who == 'F' {
					p.ASN = 65000
				}
				cfg.Peers = append(cfg.Peers, p)
				f.add(p)
			}
			f.roles(cfg)
			f.inSync = true
			now := f.epoch.Add(time.Hour)
			for _, step := range c.steps {
				switch step := step.(type) {
				case int:
					now = now.Add(time.Duration(step) * time.Millisecond)
				case string:
					f.happens(gen, step, now, addrs)
				}
			}
			got := false
			for _, o := range f.unrest.open {
				got = got || o.due
			}
			if got != c.want {
				t.Errorf("due: %v", got)
			}
		})
	}
}

// happens does one step of a table.
func (f *feed) happens(gen int, step string, now time.Time, addrs map[byte]string) {
	switch step {
	case "all":
		f.toldAll(now)
	case "asked":
		f.refreshed(now.Add(-refreshLook), now)
	case "behind", "level":
		f.behind(step == "behind", now)
	case "rule", "ruled":
		if f.rule(step == "rule"); step == "rule" {
			f.unrest.from = now
		} else {
			f.unrest.to = now
		}
	case "up":
		s := f.sessions[netip.MustParseAddr(addrs['P'])]
		s.state, s.upAt = stateEstablished, now
		f.sessionUp(s, now)
	default:
		var changes []*apiutil.Path
		for ; step != ""; step = step[2:] {
			p := testNews("10.0.0.1", 0, step[1] == '-')
			p.Age = now.Unix()
			p.PeerAddress, p.PeerID = netip.Addr{}, netip.Addr{}
			if step[0] != 'O' {
				p.PeerAddress = netip.MustParseAddr(addrs[step[0]])
				p.PeerID = p.PeerAddress
			}
			if step[1] == '*' {
				list, _ := gobgp.NewPathAttributeClusterList([]netip.Addr{netip.MustParseAddr("10.0.0.9")})
				p.Attrs = append(p.Attrs, list)
			}
			changes = append(changes, p)
		}
		f.learn(gen, changes, now)
	}
}
