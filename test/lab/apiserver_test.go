package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/ipam"
	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubelab"
	"github.com/caracal-net/caracal/test/kubetest"
	"github.com/caracal-net/caracal/test/need"
)

// onServer is a cluster whose datastore is a real API server, in the classic form, which has no rules about what an object may say.
type onServer struct {
	*lab.Cluster
	k      *lab.Kubernetes
	server *kubetest.Server
	opts   lab.Options
}

// TestOnAPIServer shows on one cluster of daemons with the shipped role what only an API server can do to them.
func TestOnAPIServer(t *testing.T) {
	t.Parallel()
	need.Root(t)
	k, server := kubelab.Start(t)
	opts := options(t)
	opts.Kubernetes = k
	opts.Args = []string{"--rail-least", "10"} // the cluster is small; the ghost of etcd_test.go has more
	c := &onServer{cluster(t, lab.Spec{Mode: lab.VXLANCrossSubnet, Family: lab.DualStack, Workloads: 1}, opts), k, server, opts}
	for _, part := range []struct {
		name string
		play func(*testing.T, *onServer)
	}{{"pools and labels", followed}, {"bad input", tolerated}, {"etcd", restored}} {
		if !t.Run(part.name, func(t *testing.T) { part.play(t, c) }) {
			t.Fatal("what follows was not played")
		}
	}
}

var nodesOfServer = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// label sets a label of a node, or removes it.
func (c *onServer) label(t *testing.T, node, key, value string) {
	t.Helper()
	text := "null"
	if value != "" {
		text = fmt.Sprintf("%q", value)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, key, text)
	if _, err := c.server.Client(t, kubetest.Admin).Resource(nodesOfServer).Patch(t.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// pool changes a pool, or creates it.
func (c *onServer) pool(t *testing.T, name string, edit func(*calico.IPPoolSpec)) {
	t.Helper()
	kubetest.Eventually(t, "change pool "+name, func() error {
		obj, err := c.k.Admin.Get(t.Context(), calico.KindIPPool, name)
		if err != nil {
			return err
		}
		edit(&obj.(*calico.IPPool).Spec)
		_, err = c.k.Admin.Update(t.Context(), obj)
		return err
	})
}

// followed changes pools and labels: which tunnel addresses a node has, in IPAM, on its Node and on its devices, follows at once and without a restart,
// and nobody else's changes.
func followed(t *testing.T, c *onServer) {
	const node = "node2"
	const first, second = "10.244.0.0/16", "10.88.0.0/16" // the cluster's pool, and one that comes and goes
	extra := &calico.IPPool{ObjectMeta: calico.ObjectMeta{Name: "extra"},
		Spec: calico.IPPoolSpec{CIDR: second, VXLANMode: "Always", NodeSelector: "zone == 'z'", AllowedUses: []string{"Tunnel"}}}
	others := c.tunnels(t, node)
	pid := c.PID(node)
	for _, step := range []struct {
		name string
		do   func()
		want [2]string // of which pool the addresses of IPIP and of VXLAN are
	}{
		{"a label that no pool asks for", func() { c.label(t, node, "zone", "z") }, [2]string{"", first}},
		{"the pool leaves the node out", func() { c.pool(t, "vxlan-ipv4", func(s *calico.IPPoolSpec) { s.NodeSelector = "!has(zone)" }) }, [2]string{}},
		{"a pool for the node", func() {
			if _, err := c.k.Admin.Create(t.Context(), extra); err != nil {
				t.Fatal(err)
			}
		}, [2]string{"", second}},
		{"it turns to IPIP", func() { c.pool(t, "extra", func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "Always", "Never" }) }, [2]string{second, ""}},
		{"and back", func() {
			c.pool(t, "extra", func(s *calico.IPPoolSpec) { s.IPIPMode, s.VXLANMode = "Never", "CrossSubnet" })
		}, [2]string{"", second}},
		{"it is disabled", func() { c.pool(t, "extra", func(s *calico.IPPoolSpec) { s.Disabled = true }) }, [2]string{}},
		{"it is enabled", func() { c.pool(t, "extra", func(s *calico.IPPoolSpec) { s.Disabled = false }) }, [2]string{"", second}},
		{"it is for workloads only", func() { c.pool(t, "extra", func(s *calico.IPPoolSpec) { s.AllowedUses = []string{"Workload"} }) }, [2]string{}},
		{"and for all", func() { c.pool(t, "extra", func(s *calico.IPPoolSpec) { s.AllowedUses = nil }) }, [2]string{"", second}},
		{"the label goes", func() { c.label(t, node, "zone", "") }, [2]string{"", first}},
		{"the label comes back", func() { c.label(t, node, "zone", "z") }, [2]string{"", second}},
		{"the pool goes", func() {
			obj, err := c.k.Admin.Get(t.Context(), calico.KindIPPool, "extra")
			if err == nil {
				err = c.k.Admin.Delete(t.Context(), obj)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, [2]string{}},
		{"the first pool takes it in again", func() { c.pool(t, "vxlan-ipv4", func(s *calico.IPPoolSpec) { s.NodeSelector = "all()" }) }, [2]string{"", first}},
	} {
		step.do()
		kubetest.Eventually(t, step.name, func() error { return c.has(t, node, step.want) })
		kubetest.Eventually(t, step.name, func() error { return c.agree(t) })
	}
	blocks, err := c.k.Admin.List(t.Context(), calico.KindIPAMBlock) // those of the pool that is gone stay their owner's, empty, as Calico leaves them
	if err != nil {
		t.Fatal(err)
	}
	for _, obj := range blocks {
		if cidr := netip.MustParsePrefix(obj.(*calico.IPAMBlock).Spec.CIDR); cidr.Overlaps(netip.MustParsePrefix(second)) {
			if err := (&ipam.Client{Store: c.k.Admin, Node: node}).ReleaseAffinity(t.Context(), cidr, true); err != nil {
				t.Error(err)
			}
		}
	}
	if now := c.tunnels(t, node); !slices.Equal(now, others) {
		t.Errorf("the others' addresses are %q, before they were %q", now, others)
	}
	if now := c.PID(node); now != pid {
		t.Errorf("the daemon is process %d, it was %d", now, pid)
	}
	if _, err := c.Converge(t.Context()); err != nil {
		t.Error(err)
	}
}

// node returns a Node with its labels and annotations.
func (c *onServer) node(t *testing.T, name string) (*calico.Node, error) {
	obj, err := c.k.Admin.Get(t.Context(), calico.KindNode, name)
	if err != nil {
		return nil, err
	}
	return obj.(*calico.Node), nil
}

// tunnels returns the tunnel addresses of all nodes but one.
func (c *onServer) tunnels(t *testing.T, but string) (all []string) {
	t.Helper()
	for _, m := range c.Plan.Members() {
		n, err := c.node(t, m.Name)
		if err != nil {
			t.Fatal(err)
		}
		if m.Name != but {
			all = append(all, n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr)
		}
	}
	return all
}

// has checks of which pools a node's IPv4 tunnel addresses are, and that its VXLAN device has the address.
func (c *onServer) has(t *testing.T, name string, want [2]string) error {
	n, err := c.node(t, name)
	if err != nil {
		return err
	}
	got := [2]string{"", n.Spec.IPv4VXLANTunnelAddr}
	if n.Spec.BGP != nil {
		got[0] = n.Spec.BGP.IPv4IPIPTunnelAddr
	}
	for i, pool := range want {
		a, err := netip.ParseAddr(got[i])
		if pool == "" && got[i] != "" || pool != "" && (err != nil || !netip.MustParsePrefix(pool).Contains(a)) {
			return fmt.Errorf("tunnel addresses %q, want of %q", got, want)
		}
	}
	st, err := c.Status(t.Context(), name)
	if err != nil {
		return err
	}
	for _, d := range st.GetDevices() {
		if d.GetName() == "vxlan.calico" && got[1] != "" && !slices.Contains(d.GetAddresses(), got[1]+"/32") {
			return fmt.Errorf("the device has %q, the Node says %s", d.GetAddresses(), got[1])
		}
	}
	return nil
}

// agree checks all that IPAM has written. A block of a pool that somebody has deleted stays its owner's.
func (c *onServer) agree(t *testing.T) error {
	objects, err := ipam.Load(t.Context(), c.k.Admin)
	if err != nil {
		return err
	}
	err = ipam.Check(objects)
	if err == nil {
		return nil
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.HasSuffix(strings.TrimSpace(line), "lies in no pool") {
			return err
		}
	}
	return nil
}
