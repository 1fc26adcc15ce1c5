package gobgp

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/bgp"
)

// TestPathPatterns: the patterns hold of a path as it is sent, and as it was before our AS came in front of it.
func TestPathPatterns(t *testing.T) {
	external, internal := &bgp.Peer{ASN: 65000}, &bgp.Peer{ASN: 64512}
	for _, c := range []struct {
		to     *bgp.Peer
		export bool
		prefix []uint32
		path   string
		want   bool
	}{
		{external, true, []uint32{65546}, "64512 65546", true},
		{external, true, []uint32{65546}, "65546 7", true},
		{external, true, []uint32{65546}, "64512 7 65546", false},
		{external, true, []uint32{64512}, "64512", false}, // what we originate
		{external, true, []uint32{64512}, "64512 7", false},
		{external, false, []uint32{65000}, "65000 7", true},
		{internal, true, []uint32{65546}, "64512 65546", false},
		{internal, true, []uint32{65546}, "65546", true},
	} {
		s := ruleSet{cfg: &bgp.Config{ASN: 64512}, first: c.to, export: c.export}
		got := false
		for _, p := range s.pathPatterns(c.prefix) {
			got = got || regexp.MustCompile(strings.ReplaceAll(p, "_", `( |$)`)).MatchString(c.path)
		}
		if got != c.want {
			t.Errorf("%v of %q, export %v to AS%d: %v", c.prefix, c.path, c.export, c.to.ASN, got)
		}
	}
}
