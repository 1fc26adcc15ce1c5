package deletions_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/test/deletions"
	"github.com/caracal-net/caracal/test/need"
)

// TestWatch: deletions of both families are counted at once, others and replacements are not.
func TestWatch(t *testing.T) {
	need.Root(t)
	ns := need.Namespace(t)
	count := deletions.Watch(t, ns, netip.MustParsePrefix("10.65.0.0/26"), netip.MustParsePrefix("fd00:65::/122"))
	for _, c := range []struct {
		do   string
		want int
	}{
		{"-4 route add blackhole 10.65.0.0/26", 0},
		{"-4 route replace unreachable 10.65.0.0/26", 0},
		{"-4 route add blackhole 10.65.0.0/24", 0},
		{"-4 route del 10.65.0.0/24", 0},
		{"-4 route del 10.65.0.0/26", 1},
		{"-6 route add blackhole fd00:65::/122", 1},
		{"-6 route del fd00:65::/122", 2},
	} {
		if out, err := ns.Run("ip", strings.Fields(c.do)...); err != nil {
			t.Fatal(err, out)
		}
		if n := count(); n != c.want {
			t.Errorf("after %s: %d, want %d", c.do, n, c.want)
		}
	}
}
