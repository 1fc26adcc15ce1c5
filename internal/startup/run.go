package startup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"time"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// The keys of this package's log records.
const (
	logErr   = "err"
	logText  = "text"
	logNode  = "node"
	logAddr4 = "ipv4"
	logAddr6 = "ipv6"
	logASN   = "asn"
	logPool  = "pool"
	logCIDR  = "cidr"
	logKind  = "kind"
	logFile  = "file"
	logMTU   = "mtu"
	logFrom  = "from"
)

// Options are what a start works with.
type Options struct {
	Settings *Settings // with Node filled in
	Store    datastore.Store
	Cluster  Cluster // nil outside Kubernetes
	Log      *slog.Logger
	// Interfaces lists the host's interfaces.
	Interfaces func(context.Context) ([]Interface, error)
	// Reach stands for the function Reach; nil for that one.
	Reach func(ctx context.Context, target string, f cluster.Family) (netip.Addr, error)
	// HasIPv6 reports whether the kernel has IPv6; nil for a look into /proc.
	HasIPv6 func() bool
}

// waitPause lies between two tries of a datastore that does not answer.
const waitPause = time.Second

// Run brings the node into the cluster. It returns an error that wraps ErrRefused where somebody has to change something first,
// and any other where the datastore did not do what it was asked; everything it does may be done again.
func Run(ctx context.Context, o Options) error {
	for _, n := range o.Settings.Notes {
		o.Log.Warn("a variable is not what it may seem", logText, n)
	}
	node, err := o.await(ctx)
	if err != nil {
		return err
	}
	h, err := o.host(ctx)
	if err != nil {
		return err
	}
	if backend, err := o.backend(ctx); err != nil {
		return err
	} else if backend != cluster.BackendNone {
		if err := o.introduce(ctx, node, h); err != nil {
			return err
		}
	}
	kubeadm, err := o.kubeadm(ctx)
	if err != nil {
		return err
	}
	if err := o.ensurePools(ctx, h, kubeadm); err != nil {
		return err
	}
	o.ensureDefaults(ctx, kubeadm != nil)
	return o.leaveFiles(ctx, h)
}

// await returns our own Node, waiting for the datastore if that is asked for. Where there is none in Kubernetes the start is
// refused, elsewhere one is made.
func (o *Options) await(ctx context.Context) (*calico.Node, error) {
	name, told := o.Settings.Node, false
	for {
		obj, err := o.Store.Get(ctx, calico.KindNode, name)
		switch {
		case err == nil:
			return obj.(*calico.Node), nil
		case errors.Is(err, datastore.ErrNotFound) && o.Cluster != nil:
			return nil, fmt.Errorf("%w: the cluster has no Node %q: set %s to this machine's name in kubectl get nodes (spec.nodeName in the DaemonSet)", ErrRefused, name, EnvNodeName)
		case errors.Is(err, datastore.ErrNotFound):
			node := &calico.Node{}
			node.Name = name
			obj, err := o.Store.Create(ctx, node)
			if err == nil {
				return obj.(*calico.Node), nil
			}
			if !errors.Is(err, datastore.ErrExists) {
				return nil, err
			}
			continue
		case !o.Settings.WaitForDatastore:
			return nil, fmt.Errorf("%w; %s=true waits for the datastore", err, EnvWait)
		}
		if !told {
			o.Log.Warn("the datastore does not answer yet, waiting for it", logErr, err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(waitPause):
		}
	}
}

// backend returns the backend: the datastore's word, else the environment's.
func (o *Options) backend(ctx context.Context) (cluster.Backend, error) {
	obj, err := o.Store.Get(ctx, calico.KindConfigMap, calico.ConfigMapName)
	if err == nil {
		if b, _ := obj.(*calico.ConfigMap).Backend(); b != "" {
			return b, nil
		}
	} else if !errors.Is(err, datastore.ErrNotFound) { // perhaps our role may not read it: the environment is made from it anyway
		o.Log.Info("the backend is the environment's", logErr, err)
	}
	return o.Settings.Backend, ctx.Err()
}

// host is what addresses are chosen from.
func (o *Options) host(ctx context.Context) (*Host, error) {
	list, err := o.Interfaces(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the host's interfaces: %w", err)
	}
	h := &Host{Interfaces: list}
	reach := o.Reach
	if reach == nil {
		reach = Reach
	}
	h.Reach = func(target string, f cluster.Family) (netip.Addr, error) { return reach(ctx, target, f) }
	if o.Cluster != nil {
		h.Internal = func(f cluster.Family) (netip.Addr, error) { return o.internal(ctx, f) }
	}
	return h, nil
}

// nodeRef is the name of the Kubernetes Node.
func (o *Options) nodeRef() string {
	if o.Settings.NodeRef != "" {
		return o.Settings.NodeRef
	}
	return o.Settings.Node
}

func (o *Options) internal(ctx context.Context, f cluster.Family) (netip.Addr, error) {
	all, err := o.Cluster.InternalAddrs(ctx, o.nodeRef())
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range all {
		if a = a.Unmap(); cluster.FamilyOf(a) == f {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the Kubernetes Node %s has no %v InternalIP", o.nodeRef(), f)
}

// identityOf is what a stored Node says; values that cannot be read count as missing.
func identityOf(n *calico.Node) identity {
	w, _ := n.ClusterNode()
	return identity{addr4: w.Addr4, addr6: w.Addr6, asn: w.ASN, interfaces: n.Spec.Interfaces}
}

// introduce finds the node's addresses and writes what has changed.
func (o *Options) introduce(ctx context.Context, node *calico.Node, h *Host) error {
	stored := identityOf(node)
	want, notes, err := o.Settings.settle(stored, h)
	for _, n := range notes {
		o.Log.Warn("the node's address", logText, n)
	}
	if err != nil {
		return err
	}
	return o.write(ctx, stored, want)
}

// write makes the Node say what it should, if no other node has our addresses.
func (o *Options) write(ctx context.Context, stored, want identity) error {
	if want.addr4 != stored.addr4 || want.addr6 != stored.addr6 {
		if err := o.checkConflicts(ctx, stored, want); err != nil {
			return err
		}
	}
	patch, differs := difference(stored, want)
	if !differs {
		return nil
	}
	if err := o.Store.PatchNode(ctx, o.Settings.Node, patch); err != nil {
		return err
	}
	o.Log.Info("this node is", logNode, o.Settings.Node, logAddr4, want.addr4, logAddr6, want.addr6, logASN, want.asn)
	return nil
}

// difference is the patch that leads from one identity to another.
func difference(stored, want identity) (p datastore.NodePatch, differs bool) {
	if want.addr4 != stored.addr4 {
		p.Addr4, differs = &want.addr4, true
	}
	if want.addr6 != stored.addr6 {
		p.Addr6, differs = &want.addr6, true
	}
	if want.asn != stored.asn {
		p.ASN, differs = &want.asn, true
	}
	if !sameInterfaces(want.interfaces, stored.interfaces) {
		p.Interfaces, differs = &want.interfaces, true
	}
	return p, differs
}

// checkConflicts refuses addresses that other nodes have. A detected address that is refused means that the stored one
// is no longer ours: it is cleared, so that two machines whose addresses were swapped do not wait for one another.
func (o *Options) checkConflicts(ctx context.Context, stored, want identity) error {
	if o.Settings.SkipConflicts {
		return nil
	}
	nodes, err := o.Store.List(ctx, calico.KindNode)
	if err != nil {
		return err
	}
	found := conflicts(o.Settings.Node, want, nodes)
	if len(found) == 0 {
		return nil
	}
	cleared := stored
	for _, c := range found {
		switch {
		case c.family == cluster.IPv4 && o.Settings.IP.Mode == Autodetect:
			cleared.addr4 = netip.Prefix{}
		case c.family == cluster.IPv6 && o.Settings.IP6.Mode == Autodetect:
			cleared.addr6 = netip.Prefix{}
		}
	}
	err = refusal(o.Settings.Node, found)
	if patch, differs := difference(stored, cleared); differs {
		err = errors.Join(err, o.Store.PatchNode(ctx, o.Settings.Node, patch))
	}
	return err
}

// kubeadm returns the data of the ConfigMap kubeadm-config, nil where there is none, or none that we may read.
func (o *Options) kubeadm(ctx context.Context) (map[string]string, error) {
	if o.Cluster == nil {
		return nil, nil
	}
	return o.systemMap(ctx, "kubeadm-config")
}

func (o *Options) systemMap(ctx context.Context, name string) (map[string]string, error) {
	data, err := o.Cluster.ConfigMap(ctx, "kube-system", name)
	switch {
	case err == nil && data == nil:
		return map[string]string{}, nil
	case errors.Is(err, datastore.ErrNotFound):
		return nil, nil
	case errors.Is(err, datastore.ErrForbidden):
		o.Log.Info("a ConfigMap may not be read, taking the cluster for one without it", logKind, name, logErr, err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read ConfigMap kube-system/%s: %w", name, err)
	}
	return data, nil
}

// leaveFiles writes what other programs on this host read.
func (o *Options) leaveFiles(ctx context.Context, h *Host) error {
	if was, err := left(o.Settings.NodeNameFile); err == nil && was != "" && was != o.Settings.Node {
		o.Log.Warn("this machine had another name", logFile, o.Settings.NodeNameFile, logFrom, was, logNode, o.Settings.Node)
	}
	if err := leave(o.Settings.NodeNameFile, o.Settings.Node); err != nil {
		return err
	}
	obj, err := o.Store.Get(ctx, calico.KindNode, o.Settings.Node)
	if err != nil {
		return err
	}
	self := identityOf(obj.(*calico.Node))
	pools, err := o.pools(ctx)
	if err != nil {
		return err
	}
	mtu, err := o.mtu(ctx, h.Interfaces, self, pools)
	if err != nil {
		return err
	}
	if err := o.leaveMTU(mtu); err != nil { // the CNI plugin has its own default
		o.Log.Warn("the workloads' MTU could not be left for the CNI plugin", logErr, err)
	}
	return nil
}

func (o *Options) leaveMTU(mtu int) error {
	text := fmt.Sprint(mtu)
	if was, err := left(o.Settings.MTUFile); err == nil && was == text {
		return nil
	}
	if err := leave(o.Settings.MTUFile, text); err != nil {
		return err
	}
	o.Log.Info("the workloads' MTU", logMTU, mtu, logFile, o.Settings.MTUFile)
	return nil
}

func (o *Options) pools(ctx context.Context) (out []*cluster.Pool, err error) {
	objects, err := o.Store.List(ctx, calico.KindIPPool)
	if err != nil {
		return nil, err
	}
	for _, obj := range objects {
		if p, _ := obj.(*calico.IPPool).Pool(); p != nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// mtu returns the workloads' MTU, with the settings of the environment and of FelixConfiguration.
func (o *Options) mtu(ctx context.Context, host []Interface, self identity, pools []*cluster.Pool) (int, error) {
	set := o.Settings.MTU
	obj, err := o.Store.Get(ctx, calico.KindFelixConfig, calico.DefaultName)
	switch {
	case err == nil:
		f := obj.(*calico.FelixConfiguration)
		w, _ := f.Config()
		set = set.or(MTUSettings{IPIP: w.IPIPMTU, VXLAN4: w.VXLANMTU, VXLAN6: w.VXLANMTUv6, Pattern: f.Spec.MTUIfacePattern})
	case !errors.Is(err, datastore.ErrNotFound):
		return 0, err
	}
	in := mtuInput{interfaces: host, own: []netip.Addr{self.addr4.Addr(), self.addr6.Addr()}, pools: pools, set: set}
	if set.Pattern != "" {
		if in.pattern, err = regexp.Compile(set.Pattern); err != nil {
			o.Log.Warn("FelixConfiguration default: spec.mtuIfacePattern is not a regular expression; Felix' default is used", logErr, err)
		}
	}
	return podMTU(in), nil
}
