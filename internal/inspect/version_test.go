package inspect

import (
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "0123456789abcdef"}}
	for _, c := range []struct {
		stamp, module string
		settings      []debug.BuildSetting
		want          string
	}{
		{"", "", nil, "unknown"},
		{"", "(devel)", nil, "unknown"},
		{"", "(devel)", commit, "0123456789ab"},
		{"", "(devel)", []debug.BuildSetting{{Key: "vcs.revision", Value: "01"}}, "01"},
		{"", "v1.2.3", commit, "v1.2.3"},
		{"v1.2.4", "v1.2.3", commit, "v1.2.4"},
	} {
		if got := version(c.stamp, &debug.BuildInfo{Main: debug.Module{Version: c.module}, Settings: c.settings}); got != c.want {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}
