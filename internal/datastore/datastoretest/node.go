package datastoretest

import (
	"context"
	"fmt"
	"net/netip"

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
	spec := &node.Spec
	if patch.IPIPAddr != nil {
		if spec.BGP == nil {
			spec.BGP = &calico.NodeBGPSpec{}
		}
		spec.BGP.IPv4IPIPTunnelAddr = text(*patch.IPIPAddr)
		if *spec.BGP == (calico.NodeBGPSpec{}) {
			spec.BGP = nil // as Calico leaves it (reference 3.9)
		}
	}
	if patch.VXLANAddr4 != nil {
		spec.IPv4VXLANTunnelAddr = text(*patch.VXLANAddr4)
	}
	if patch.VXLANAddr6 != nil {
		spec.IPv6VXLANTunnelAddr = text(*patch.VXLANAddr6)
	}
	m.put(k, node)
	return nil
}

// text is how an address stands in the datastore: nothing for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
