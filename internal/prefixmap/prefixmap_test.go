package prefixmap

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestLikeAMap: random operations leave what they leave of Go's own map.
func TestLikeAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	prefixes := []netip.Prefix{{}, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("255.255.255.255/32"),
		netip.MustParsePrefix("10.0.0.1/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/9"), netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33),
		netip.MustParsePrefix("::ffff:10.0.0.0/104"), netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("fd00::1/64")}
	var got Map[int]
	want := map[netip.Prefix]int{}
	for step := range 5000 {
		p := prefixes[random.IntN(len(prefixes))]
		if random.IntN(3) == 0 {
			got.Delete(p)
			delete(want, p)
		} else {
			got.Set(p, step)
			want[p] = step
		}
		if got.Len() != len(want) || got.Get(p) != want[p] || !maps.Equal(maps.Collect(got.All()), want) {
			t.Fatalf("step %d, %v: %v, want %v", step, p, maps.Collect(got.All()), want)
		}
	}
	for p := range got.All() {
		got.Delete(p)
	}
	if got.Len() != 0 {
		t.Errorf("%d left after everything was removed", got.Len())
	}
}
