package walls

// Module is the path all rooms lie under.
const Module = "github.com/caracal-net/caracal"

// Room is one package, or a tree of them, and what its production code may import of this module.
type Room struct {
	Path string   // below Module; a trailing "/..." takes in the whole tree
	May  []string // the same form; the room's own tree is always allowed
}

// Rooms returns the table. The most specific Path that matches a package is its room.
func Rooms() []Room {
	words := []string{"internal/cluster", "routes"}
	return []Room{
		{"cmd/...", []string{"internal/...", "proto/..."}},
		{"bfd", nil},
		{"bgp", append([]string{"internal/prefixmap"}, words...)},
		{"bgp/gobgp", []string{"bgp", "internal/prefixmap"}},
		{"ipip", words},
		{"vxlan", words},
		{"workload", []string{"internal/cluster", "internal/kernel", "routes"}},
		{"routes", []string{"internal/kernel", "internal/delta"}},
		{"proto/...", nil},
		{"internal/cluster", nil},
		{"internal/calico", []string{"internal/cluster"}},
		{"internal/datastore", []string{"internal/cluster", "internal/calico"}},
		{"internal/datastore/...", []string{"internal/cluster", "internal/calico", "internal/datastore"}},
		{"internal/ipam", []string{"internal/datastore", "internal/calico", "internal/cluster"}},
		{"internal/startup", []string{"internal/datastore", "internal/calico", "internal/cluster", "internal/kernel"}},
		{"internal/install", []string{"internal/startup", "internal/calico", "internal/cluster"}},
		{"internal/kernel", nil},
		{"internal/kernel/kerneltest", []string{"internal/kernel", "internal/netns", "test/need"}},
		{"internal/delta", nil},
		{"internal/prefixmap", nil},
		{"internal/netns", nil},
		{"internal/inspect", []string{"routes", "bgp", "proto/...", "internal/cluster", "internal/kernel"}},
		{"internal/inspect/cli", []string{"internal/inspect", "internal/install", "proto/..."}},
		{"internal/proxyhealth", []string{"bgp", "internal/cluster"}},
		{"internal/report", []string{"internal/cluster"}},
		{"internal/health", []string{"proto/..."}},
		{"internal/daemon", []string{"bfd", "bgp/...", "ipip", "vxlan", "workload", "routes", "proto/...", "internal/..."}},
		{"internal/lab", []string{"bgp", "routes", "workload", "internal/...", "proto/..."}}, // words its scenarios look for
		{"deploy/...", nil},
		{"test/...", []string{"..."}},
	}
}

// Strangers never import one another, not even through a third package.
func Strangers() []string { return []string{"bgp", "ipip", "vxlan"} }

// Doors are libraries that these rooms alone may import, tests included.
func Doors() map[string][]string {
	return map[string][]string{
		"github.com/osrg/gobgp":          {"bgp/gobgp", "test/peers/plaingobgp"},
		"github.com/vishvananda/netlink": {"internal/kernel"},
	}
}
