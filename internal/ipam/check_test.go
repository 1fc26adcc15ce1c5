package ipam

import (
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
)

// TestCheckRejects spoils one thing at a time in a datastore that agrees.
func TestCheckRejects(t *testing.T) {
	const blockName, affName, handle = "10-2-0-0-29", "node-a-10-2-0-0-29", "vxlan-tunnel-addr-node-a"
	good := func(t *testing.T) map[string]calico.Object {
		store := datastoretest.NewMemory(ipPool("vxlan", "10.2.0.0/29", size(29), vxlan), calicoNode("node-a"))
		c := client(t, store, "node-a")
		ensure(t, c)
		mustAssign(t, c, workload("h", 2))
		wantCheck(t, store)
		objects := map[string]calico.Object{}
		for _, o := range store.Objects() {
			objects[o.Meta().Name] = o
		}
		return objects
	}
	type all = map[string]calico.Object
	block := func(o all) *calico.IPAMBlock { return o[blockName].(*calico.IPAMBlock) }
	aff := func(o all) *calico.BlockAffinity { return o[affName].(*calico.BlockAffinity) }
	h := func(o all, name string) *calico.IPAMHandle { return o[name].(*calico.IPAMHandle) }
	for _, c := range []struct {
		name  string
		spoil func(all)
		want  string
	}{
		{"free twice", func(o all) { s := &block(o).Spec; s.Unallocated = append(s.Unallocated, 7) }, "2 times in the queue"},
		{"neither free nor allocated", func(o all) { s := &block(o).Spec; s.Unallocated = s.Unallocated[1:] }, "0 times in the queue"},
		{"free and allocated", func(o all) { s := &block(o).Spec; s.Unallocated[0] = 0 }, "not a free address"},
		{"attributes of nobody", func(o all) {
			s := &block(o).Spec
			s.Attributes = append(s.Attributes, calico.AllocationAttrs{})
		}, "belong to no address"},
		{"no handle", func(o all) { block(o).Spec.Attributes[0].HandleID = nil }, "without a handle"},
		{"sequence of a free address", func(o all) { block(o).Spec.SequenceNumberForAllocation["7"] = 1 }, "is free and has a sequence"},
		{"sequence in the future", func(o all) { s := &block(o).Spec; s.SequenceNumberForAllocation["0"] = s.SequenceNumber + 1 }, "assigned at sequence"},
		{"sequence of no address", func(o all) { block(o).Spec.SequenceNumberForAllocation["x"] = 1 }, "no address of it"},
		{"block name", func(o all) { block(o).Name = "other" }, "should be named " + blockName},
		{"block outside a pool", func(o all) { delete(o, "vxlan") }, "lies in no pool"},
		{"block of another size", func(o all) { o["vxlan"].(*calico.IPPool).Spec.BlockSize = 30 }, "is a /29 in pool"},
		{"overlapping blocks", func(o all) {
			b := *block(o)
			b.Name, b.Spec.CIDR, b.Spec.Affinity = "10-2-0-0-30", "10.2.0.0/30", nil
			b.Spec.Allocations, b.Spec.Unallocated = make([]*int, 4), []int{0, 1, 2, 3}
			b.Spec.Attributes, b.Spec.SequenceNumberForAllocation = nil, nil
			o[b.Name] = &b
		}, "overlaps"},
		{"block half deleted", func(o all) { block(o).Spec.Deleted = true }, "is marked deleted"},
		{"claim without a block", func(o all) { delete(o, blockName) }, "there is no block"},
		{"claim on another's block", func(o all) { other := "host:node-b"; block(o).Spec.Affinity = &other }, "the block's owner is \"node-b\""},
		{"claim pending", func(o all) { aff(o).Spec.State = pending }, "is pending"},
		{"claim being released", func(o all) { aff(o).Spec.State = pendingDeletion }, "is pendingDeletion"},
		{"claim without labels", func(o all) { aff(o).Labels = nil }, "Calico looks for"},
		{"claim with a wrong label", func(o all) { aff(o).Labels[calico.LabelIPVersion] = "6" }, "Calico looks for"},
		{"claim name", func(o all) { aff(o).Name = "other" }, "should be named " + affName},
		{"claim half deleted", func(o all) { aff(o).Spec.Deleted = true }, "is marked deleted"},
		{"claim cidr", func(o all) { aff(o).Spec.CIDR = "x" }, "spec.cidr"},
		{"block without a claim", func(o all) { delete(o, affName) }, "no confirmed claim"},
		{"handle counts too much", func(o all) { h(o, "h").Spec.Block["10.2.0.0/29"]++ }, "counts map[10.2.0.0/29:3]"},
		{"handle counts too little", func(o all) { h(o, "h").Spec.Block["10.2.0.0/29"]-- }, "counts map[10.2.0.0/29:1]"},
		{"handle of another block", func(o all) { h(o, "h").Spec.Block["10.9.0.0/29"] = 1 }, "10.9.0.0/29:1"},
		{"handle missing", func(o all) { delete(o, "h") }, "does not exist"},
		{"handle name", func(o all) { h(o, "h").Name = "other" }, "should be named h"},
		{"handle half deleted", func(o all) { h(o, "h").Spec.Deleted = true }, "is marked deleted"},
		{"handle of nothing", func(o all) { o["x"] = handleNamed("x") }, "counts nothing"},
		{"node names another address", func(o all) { o["node-a"].(*calico.Node).Spec.IPv4VXLANTunnelAddr = "10.2.0.7" }, "assigned are [10.2.0.0]"},
		{"node names none", func(o all) { o["node-a"].(*calico.Node).Spec.IPv4VXLANTunnelAddr = "" }, `is "", assigned`},
		{"tunnel attributes", func(o all) { block(o).Spec.Attributes[0].Secondary["type"] = "pod" }, "under handle " + handle},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := good(t)
			c.spoil(objects)
			var list []calico.Object
			for _, o := range objects {
				list = append(list, o)
			}
			if err := Check(list); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}

func handleNamed(name string) *calico.IPAMHandle {
	h := &calico.IPAMHandle{Spec: calico.IPAMHandleSpec{HandleID: name}}
	h.Name = name
	return h
}
