package inspect

import (
	"net/netip"
	"testing"

	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

// FuzzFilter: whatever a client sends is either refused or a filter whose answers agree with a naive reading of it.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "10.0.0.0/8", "10.1.2.3", "10.1.2.3/24", "fd00::/64", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "fe80::1%eth0", "0.0.0.0/0", "1.2.3.4/33", "/", "a/b/c"} {
		f.Add(s, "10.0.0.0/8", "10.1.2.3", uint8(0), uint8(1))
		f.Add("", s, s, uint8(4), uint8(8))
	}
	f.Fuzz(func(t *testing.T, prefix, within, covering string, family, state uint8) {
		m := &caracalv1.RouteFilter{Prefix: prefix, Within: within, Covering: covering, Family: caracalv1.Family(family), States: []caracalv1.RouteState{caracalv1.RouteState(state)}}
		got, err := newFilter(m)
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a word")
			}
			return
		}
		if state == 0 || state > 8 || family != 0 && family != 4 && family != 6 {
			t.Errorf("family %d and state %d are accepted", family, state)
		}
		for _, dst := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.2.0/24", "10.1.2.3/32", "::/0", "fd00::/64", "fd00::1/128"} {
			s := &routes.Status{Outcome: outcomeOf(caracalv1.RouteState(state))}
			s.Route.Dst = netip.MustParsePrefix(dst)
			want := naive(prefix, func(p netip.Prefix) bool { return p == s.Route.Dst }) &&
				naive(within, func(p netip.Prefix) bool { return p.Overlaps(s.Route.Dst) && p.Bits() <= s.Route.Dst.Bits() }) &&
				naive(covering, func(p netip.Prefix) bool { return p.Overlaps(s.Route.Dst) && p.Bits() >= s.Route.Dst.Bits() }) &&
				(family == 0 || (family == 4) == s.Route.Dst.Addr().Is4())
			if got.picks(s) != want {
				t.Errorf("%+v picks %s: %v, want %v", m, dst, !want, want)
			}
			if s.Outcome = ""; got.picks(s) {
				t.Error("picks a state that is not asked for")
			}
		}
	})
}

// naive reads a condition once more; an empty one always holds.
func naive(text string, holds func(netip.Prefix) bool) bool {
	if text == "" {
		return true
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return holds(p)
	}
	a := netip.MustParseAddr(text).Unmap()
	return holds(netip.PrefixFrom(a, a.BitLen()))
}

func TestParseFamily(t *testing.T) {
	for word, want := range map[string]caracalv1.Family{"": 0, "4": 4, "IPv4": 4, "inet": 4, "6": 6, "ipv6": 6} {
		if got, err := ParseFamily(word); err != nil || got != want {
			t.Errorf("%q: got %v, %v", word, got, err)
		}
	}
	if _, err := ParseFamily("5"); err == nil {
		t.Error("family 5 is accepted")
	}
}
