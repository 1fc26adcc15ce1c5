package vxlan

import (
	"crypto/sha1"

	"github.com/caracal-net/caracal/internal/cluster"
)

// MAC returns the hardware address of a node's VXLAN device where its Node names no other: 0x66 and the first five bytes
// of SHA-1 of the node's name, with "-v6" appended for IPv6. Nobody writes it down: every node works it out for
// every other, Felix included (felix/calc/vxlan_resolver.go), so it may never change.
func MAC(node string, f cluster.Family) cluster.MAC {
	var space [80]byte
	text := append(space[:0], node...)
	if f == cluster.IPv6 {
		text = append(text, "-v6"...)
	}
	sum := sha1.Sum(text)
	m := cluster.MAC{0x66} // locally administered, not multicast
	copy(m[1:], sum[:5])
	return m
}
