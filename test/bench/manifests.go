package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// perFile is how many documents one file holds.
const perFile = 1000

// blocksPerNode matches a busy node of a large cluster: 20 is Calico's limit.
const blocksPerNode = 20

// manifests writes a cluster whose plan for node "self" has n routes: n remote blocks of four addresses, 20 a node.
func manifests(dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	w := &writer{dir: dir}
	w.doc("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: bench}\nspec: {cidr: 10.0.0.0/8, blockSize: 30, vxlanMode: Always}\n")
	nodes := (n + blocksPerNode - 1) / blocksPerNode
	underlay, tunnel := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("10.255.0.1")
	w.doc("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: self}\nspec: {bgp: {ipv4Address: 192.0.2.1/24}, ipv4VXLANTunnelAddr: 10.254.0.1}\n")
	w.doc(block(netip.MustParseAddr("10.254.0.0"), "self", true))
	for i := range nodes {
		w.doc(fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: node%d}\nspec: {bgp: {ipv4Address: %s/24}, ipv4VXLANTunnelAddr: %s}\n",
			i, underlay, tunnel))
		underlay, tunnel = underlay.Next(), tunnel.Next()
	}
	cidr := netip.MustParseAddr("10.0.0.0")
	for i := range n {
		w.doc(block(cidr, fmt.Sprintf("node%d", i/blocksPerNode), false))
		for range 4 {
			cidr = cidr.Next()
		}
	}
	return w.close()
}

// block is an IPAMBlock of four addresses; tunnel says that address 1 is self's VXLAN tunnel address.
func block(cidr netip.Addr, node string, tunnel bool) string {
	name := strings.ReplaceAll(cidr.String(), ".", "-") + "-30"
	allocations, unallocated, attributes := "[null, null, null, null]", "[0, 1, 2, 3]", "[]"
	if tunnel {
		allocations, unallocated = "[null, 0, null, null]", "[0, 2, 3]"
		attributes = "[{handle_id: vxlan-tunnel-addr-self, secondary: {node: self, type: vxlanTunnelAddress}}]"
	}
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPAMBlock\nmetadata: {name: %s}\nspec: {cidr: %s/30, affinity: \"host:%s\", allocations: %s, unallocated: %s, attributes: %s, strictAffinity: false}\n",
		name, cidr, node, allocations, unallocated, attributes)
}

// writer spreads documents over files; the first error is kept.
type writer struct {
	dir  string
	n    int
	file *os.File
	out  *bufio.Writer
	err  error
}

func (w *writer) doc(s string) {
	if w.err != nil {
		return
	}
	if w.n%perFile == 0 {
		if w.err = w.close(); w.err != nil {
			return
		}
		if w.file, w.err = os.Create(filepath.Join(w.dir, fmt.Sprintf("%06d.yaml", w.n/perFile))); w.err != nil {
			return
		}
		w.out = bufio.NewWriter(w.file)
	}
	w.n++
	_, w.err = w.out.WriteString("---\n" + s)
}

func (w *writer) close() error {
	if w.file == nil {
		return w.err
	}
	err := errors.Join(w.err, w.out.Flush(), w.file.Close())
	w.file, w.out = nil, nil
	return err
}
