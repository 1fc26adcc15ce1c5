package startup

import (
	"context"
	"errors"
	"net/netip"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// ensurePools makes the default pools of the families that have none. Another node may be quicker: its pool stands.
func (o *Options) ensurePools(ctx context.Context, h *Host, kubeadm map[string]string) error {
	s := o.Settings
	if s.NoDefaultPools || s.Pool4.Skip && s.Pool6.Skip {
		return nil
	}
	pools, err := o.Store.List(ctx, calico.KindIPPool)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		kind poolKind
		set  *PoolSettings
	}{{pool4, &s.Pool4}, {pool6, &s.Pool6}} {
		if x.set.Skip || !x.kind.missing(pools) || x.kind.family == cluster.IPv6 && !o.ipv6() {
			continue
		}
		pool, err := x.set.object(x.kind, o.chooseRange(x.kind, x.set, h, kubeadm))
		if err != nil {
			return err
		}
		_, err = o.Store.Create(ctx, pool)
		switch {
		case err == nil:
			o.Log.Info("made a default pool", logPool, pool.Name, logCIDR, pool.Spec.CIDR)
		case !errors.Is(err, datastore.ErrExists):
			return err
		}
	}
	return nil
}

// ipv6 reports whether there shall be a default IPv6 pool at all.
func (o *Options) ipv6() bool {
	has := o.HasIPv6
	if has == nil {
		has = kernelHasIPv6
	}
	return o.Settings.IPv6 && has()
}

// chooseRange returns the range of a default pool: the environment's, kubeadm's, or one that is free on this host.
func (o *Options) chooseRange(k poolKind, set *PoolSettings, h *Host, kubeadm map[string]string) netip.Prefix {
	if set.CIDR.IsValid() {
		return set.CIDR
	}
	v4, v6, err := podSubnets(kubeadm)
	if err != nil {
		o.Log.Warn("kubeadm's range of pods cannot be used", logErr, err)
	}
	switch {
	case k.family == cluster.IPv4 && v4.IsValid():
		return v4
	case k.family == cluster.IPv6 && v6.IsValid():
		return v6
	case k.family == cluster.IPv4:
		return range4(h.Interfaces)
	}
	return range6()
}

// ensureDefaults makes the resources that Calico's tools expect. None of them is needed to route, so a failure is logged and
// the start goes on.
func (o *Options) ensureDefaults(ctx context.Context, kubeadm bool) {
	auto := true
	felix, bgp := &calico.FelixConfiguration{}, &calico.BGPConfiguration{}
	ipam := &calico.IPAMConfiguration{Spec: calico.IPAMConfigurationSpec{AutoAllocateBlocks: &auto}}
	for _, obj := range []calico.Object{felix, bgp, ipam} {
		obj.Meta().Name = calico.DefaultName
		if _, err := o.Store.Get(ctx, obj.Kind(), calico.DefaultName); err == nil {
			continue
		} else if !errors.Is(err, datastore.ErrNotFound) {
			o.Log.Warn("a default resource could not be looked for", logKind, obj.Kind(), logErr, err)
			continue
		}
		if _, err := o.Store.Create(ctx, obj); err != nil && !errors.Is(err, datastore.ErrExists) {
			o.Log.Warn("a default resource could not be made; its defaults hold", logKind, obj.Kind(), logErr, err)
		}
	}
	if o.Cluster == nil {
		return
	}
	words := clusterType(o.Settings.ClusterType, kubeadm, o.rancher(ctx))
	if err := o.Cluster.EnsureClusterInformation(ctx, words); err != nil {
		o.Log.Warn("the ClusterInformation could not be made; Calico's CNI plugin does not work without it", logErr, err)
	}
}

// rancher reports whether this is a cluster of Rancher's: one with the ConfigMap in which it keeps its state.
func (o *Options) rancher(ctx context.Context) bool {
	data, err := o.systemMap(ctx, "full-cluster-state")
	if err != nil {
		o.Log.Info("whether this is a cluster of Rancher's is not known", logErr, err)
	}
	return data != nil
}

// clusterType is CLUSTER_TYPE with what was found out.
func clusterType(words string, kubeadm, rancher bool) string {
	add := func(word string) {
		if words != "" {
			words += ","
		}
		words += word
	}
	if kubeadm {
		add("kubeadm")
	}
	if rancher {
		add("rancher")
	}
	return words
}
