// Package walls holds the walls between the rooms of the house: which package may import which.
//
// The table in rooms.go is the one of docs/architecture.md. Check takes what `go list` says about the packages of this
// module and returns every breach in words; the test runs it on the tree as it is and on bad examples that it must reject.
// Production imports follow the room's list. Tests are freer, with three exceptions that bind them too: bgp, ipip
// and vxlan never meet, GoBGP is imported in bgp/gobgp alone, the netlink library in internal/kernel alone.
package walls
