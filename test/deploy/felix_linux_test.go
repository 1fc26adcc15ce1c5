package deploy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/vxlan"
)

// standIn stands for a Felix on one node, which cannot be had here: the part of it that programs routes to other nodes, after what is known of its
// source (felix/dataplane/linux: route_mgr.go, vxlan_mgr.go, noencap_mgr.go; felix/routetable: ownershippol/main_route_table_policy.go).
//
// It programs what FelixConfiguration says, or its own environment, which goes before that as in Felix. Its routes have protocol 80, or 3 through
// vxlan.calico, metric 0, and replace whatever has their key. A resync deletes what it owns and does not want: protocol 80 on any device, every
// protocol on vxlan.calico. Deletes name destination and metric only, so they take whoever is there. Where it has no VXLAN it deletes vxlan.calico.
type standIn struct {
	node   string
	self   netip.Prefix
	ns     netns.NS
	kernel kernel.Kernel
	store  datastore.Store
	env    map[string]bool // FELIX_VXLANENABLED, where it is set

	writes, deletes int   // of routes
	failed          error // the device could not be made, as in Felix a warning and another try
}

const (
	felixDevice = "vxlan.calico"
	felixVNI    = 4096
	felixVXLAN  = "FELIX_VXLANENABLED"
)

// wishes are what it wants: routes by destination.
type wishes map[netip.Prefix]kernel.Route

// resync is one pass of Felix's: read, compare, write.
func (f *standIn) resync(ctx context.Context) error {
	vx, plain, err := f.enabled(ctx)
	if err != nil {
		return err
	}
	if err := f.device(ctx, vx); err != nil {
		return err
	}
	links, err := f.links(ctx)
	if err != nil {
		return err
	}
	want, err := f.wants(ctx, vx, plain, links)
	if err != nil {
		return err
	}
	return f.reconcile(ctx, want, links)
}

func (f *standIn) links(ctx context.Context) (map[string]int, error) {
	list, err := f.kernel.ListLinks(ctx)
	out := map[string]int{}
	for _, l := range list {
		out[l.Name] = l.Index
	}
	return out, err
}

// enabled says whether it programs IPv4 pools with VXLAN, and those without encapsulation.
func (f *standIn) enabled(ctx context.Context) (vx, plain bool, err error) {
	obj, err := f.store.Get(ctx, calico.KindFelixConfig, "default")
	if err != nil {
		return false, false, err
	}
	pools, err := f.store.List(ctx, calico.KindIPPool)
	if err != nil {
		return false, false, err
	}
	spec := obj.(*calico.FelixConfiguration).Spec
	if spec.VXLANEnabled != nil {
		vx = *spec.VXLANEnabled
	} else {
		vx = slices.ContainsFunc(pools, func(o calico.Object) bool { return f.kindOf(o) == cluster.VXLAN })
	}
	if on, set := f.env[felixVXLAN]; set {
		vx = on
	}
	return vx, spec.ProgramClusterRoutes == "Enabled" || spec.ProgramClusterRoutes == "EnabledNoEncapOnly", nil
}

func (f *standIn) kindOf(o calico.Object) cluster.Encapsulation {
	pool, _ := o.(*calico.IPPool).Pool()
	enc, _ := pool.Encapsulation()
	return enc
}

// device makes vxlan.calico with the node's tunnel address, or removes it.
func (f *standIn) device(ctx context.Context, on bool) error {
	links, err := f.links(ctx)
	if err != nil {
		return err
	}
	_, there := links[felixDevice]
	switch {
	case !on && there:
		_, err := f.ns.Run("ip", "link", "delete", felixDevice)
		return err
	case !on || there:
		return nil
	}
	own, err := f.host(ctx, f.node)
	if err != nil || !own.VXLANAddr4.IsValid() {
		f.failed = fmt.Errorf("no tunnel address: %w", err)
		return nil
	}
	_, f.failed = f.ns.Run("ip", "link", "add", felixDevice, "address", vxlan.MAC(f.node, cluster.IPv4).String(), "mtu", "1450", "type", "vxlan",
		"id", fmt.Sprint(felixVNI), "local", f.self.Addr().String(), "dev", "eth0", "dstport", "4789", "nolearning")
	if f.failed != nil {
		return nil // another device has the VNI: the next pass tries again
	}
	for _, line := range []string{"addr add " + own.VXLANAddr4.String() + "/32 dev " + felixDevice, "link set " + felixDevice + " up"} {
		if _, err := f.ns.Run("ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

func (f *standIn) host(ctx context.Context, node string) (*cluster.Node, error) {
	obj, err := f.store.Get(ctx, calico.KindNode, node)
	if err != nil {
		return &cluster.Node{}, err
	}
	n, _ := obj.(*calico.Node).ClusterNode()
	return n, nil
}

// wants works out the routes to the blocks of others, and writes neighbours and FDB entries on the way.
func (f *standIn) wants(ctx context.Context, vx, plain bool, links map[string]int) (wishes, error) {
	blocks, err := f.store.List(ctx, calico.KindIPAMBlock)
	if err != nil {
		return nil, err
	}
	pools, err := f.store.List(ctx, calico.KindIPPool)
	if err != nil {
		return nil, err
	}
	want := wishes{}
	for _, b := range blocks {
		spec := b.(*calico.IPAMBlock).Spec
		cidr, err := netip.ParsePrefix(spec.CIDR)
		if err != nil || spec.Affinity == nil || cidr.Addr().Is6() {
			continue
		}
		owner := strings.TrimPrefix(*spec.Affinity, "host:")
		remote, err := f.host(ctx, owner)
		if err != nil || owner == f.node || !remote.Addr4.IsValid() {
			continue
		}
		i := slices.IndexFunc(pools, func(o calico.Object) bool {
			p, err := netip.ParsePrefix(o.(*calico.IPPool).Spec.CIDR)
			return err == nil && p.Contains(cidr.Addr())
		})
		if i < 0 {
			continue
		}
		pool, _ := pools[i].(*calico.IPPool).Pool()
		enc, mode := pool.Encapsulation()
		near := enc == cluster.VXLAN && mode == cluster.CrossSubnet && f.self.Masked().Contains(remote.Addr4.Addr())
		r := kernel.Route{Dst: cidr, Type: kernel.Unicast, Protocol: kernel.ProtoFelix, NextHops: []kernel.NextHop{{Link: links["eth0"], Gateway: remote.Addr4.Addr(), Onlink: true}}}
		switch {
		case enc == cluster.NoEncapsulation && plain, near && vx:
			want[cidr] = r
		case enc == cluster.VXLAN && vx && links[felixDevice] > 0 && remote.VXLANAddr4.IsValid():
			r.Protocol, r.MTU = kernel.ProtoBoot, 1450
			r.NextHops[0].Link, r.NextHops[0].Gateway = links[felixDevice], remote.VXLANAddr4
			want[cidr] = r
			mac := vxlan.MAC(owner, cluster.IPv4).String()
			_, err := f.ns.Run("ip", "neigh", "replace", remote.VXLANAddr4.String(), "lladdr", mac, "dev", felixDevice, "nud", "permanent")
			if err == nil {
				_, err = f.ns.Run("bridge", "fdb", "replace", mac, "dev", felixDevice, "dst", remote.Addr4.Addr().String(), "self", "permanent")
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return want, nil
}

// reconcile deletes what is owned and not wanted, and writes what is wanted and not there.
func (f *standIn) reconcile(ctx context.Context, want wishes, links map[string]int) error {
	var stale []kernel.Route
	missing := wishes{}
	for dst, r := range want {
		missing[dst] = r
	}
	err := f.kernel.ListRoutes(ctx, false, func(r *kernel.Route) bool {
		on := 0
		if len(r.NextHops) > 0 {
			on = r.NextHops[0].Link
		}
		w, wanted := want[r.Dst]
		switch {
		case wanted && r.Metric == 0 && r.Protocol == w.Protocol && on == w.NextHops[0].Link && r.NextHops[0].Gateway == w.NextHops[0].Gateway:
			delete(missing, r.Dst)
		case (r.Protocol == kernel.ProtoFelix || on > 0 && on == links[felixDevice]) && !(wanted && r.Metric == 0):
			stale = append(stale, kernel.Route{Dst: r.Dst, Metric: r.Metric})
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, r := range stale {
		f.deletes++
		if _, err := f.ns.Run("ip", "route", "delete", r.Dst.String(), "metric", fmt.Sprint(r.Metric)); err != nil {
			return err
		}
	}
	var ops []kernel.RouteOp
	for _, r := range missing {
		f.writes++
		ops = append(ops, kernel.RouteOp{Verb: kernel.Replace, Route: &r})
	}
	var each error
	if err := f.kernel.WriteRoutes(ctx, ops, func(_ int, e error) { each = e }); err != nil {
		return err
	}
	return each
}

// standIns are a Felix on each node of a fleet.
func (f *fleet) standIns(t *testing.T) (all []*standIn) {
	t.Helper()
	store, err := f.Store()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Plan.Nodes {
		s := &standIn{node: n.Name, self: n.Addr4, ns: netns.NS{Name: n.NS}, store: store, env: map[string]bool{}}
		if s.kernel, err = kernel.Open(kernel.Options{Namespace: s.ns.Path()}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.kernel.Close() })
		all = append(all, s)
	}
	return all
}
