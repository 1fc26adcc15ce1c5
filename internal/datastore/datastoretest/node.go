package datastoretest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
)

// PatchNode implements datastore.Store.
func (m *Memory) PatchNode(ctx context.Context, name string, patch datastore.NodePatch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{calico.KindNode, name}
	obj, ok := m.objects[k]
	if !ok {
		return fmt.Errorf("patch %s: %w", k, datastore.ErrNotFound)
	}
	node := obj.(*calico.Node)
	patchSpec(&node.Spec, &patch)
	if patch.Leaving != nil {
		delete(node.Annotations, calico.AnnotationLeaving)
		if *patch.Leaving {
			node.Annotations = maps.Clone(node.Annotations)
			if node.Annotations == nil {
				node.Annotations = map[string]string{}
			}
			node.Annotations[calico.AnnotationLeaving] = "true"
		}
	}
	m.put(k, node)
	return nil
}

// patchSpec changes the fields a patch names.
func patchSpec(spec *calico.NodeSpec, patch *datastore.NodePatch) {
	bgp := calico.NodeBGPSpec{}
	if spec.BGP != nil {
		bgp = *spec.BGP
	}
	if patch.IPIPAddr != nil {
		bgp.IPv4IPIPTunnelAddr = text(*patch.IPIPAddr)
	}
	if patch.Addr4 != nil {
		bgp.IPv4Address = text(*patch.Addr4)
	}
	if patch.Addr6 != nil {
		bgp.IPv6Address = text(*patch.Addr6)
	}
	if patch.ASN != nil {
		bgp.ASNumber = nil
		if asn := calico.ASNumber(*patch.ASN); asn != 0 {
			bgp.ASNumber = &asn
		}
	}
	spec.BGP = &bgp
	if bgp == (calico.NodeBGPSpec{}) {
		spec.BGP = nil // as Calico leaves it (reference 3.9)
	}
	if patch.VXLANAddr4 != nil {
		spec.IPv4VXLANTunnelAddr = text(*patch.VXLANAddr4)
	}
	if patch.VXLANAddr6 != nil {
		spec.IPv6VXLANTunnelAddr = text(*patch.VXLANAddr6)
	}
	if patch.Interfaces != nil {
		spec.Interfaces = nil
		for _, i := range *patch.Interfaces {
			spec.Interfaces = append(spec.Interfaces, calico.NodeInterface{Name: i.Name, Addresses: slices.Clone(i.Addresses)})
		}
	}
}

// text is how an address or a prefix stands in the datastore: nothing for none.
func text(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
