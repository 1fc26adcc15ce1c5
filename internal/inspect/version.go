package inspect

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// stamp is the version that the linker is told (-X, deploy/Containerfile) where the source comes without its repository, as in an image's
// build. Nothing else writes it.
var stamp string

// Version is what this program was built from: what its builder said, the module's version, or the commit; "unknown" if nobody knows.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return version(stamp, info)
}

// shortCommit is how much of a commit's name is shown, as git abbreviates it.
const shortCommit = 12

func version(stamp string, info *debug.BuildInfo) string {
	module := strings.TrimPrefix(info.Main.Version, "(devel)")
	commit := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value[:min(shortCommit, len(s.Value))]
		}
	}
	return cmp.Or(stamp, module, commit, "unknown")
}
