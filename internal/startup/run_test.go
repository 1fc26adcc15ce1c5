package startup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/datastore"
	"github.com/caracal-net/caracal/internal/datastore/datastoretest"
	"github.com/caracal-net/caracal/internal/datastore/file"
)

// fakeCluster is Kubernetes as far as a start sees it.
type fakeCluster struct {
	mu       sync.Mutex
	internal []netip.Addr
	maps     map[string]map[string]string
	mapErr   map[string]error
	info     []string // what EnsureClusterInformation was told
	writes   []string // of the condition
	err      error    // of every write
}

func (c *fakeCluster) InternalAddrs(context.Context, string) ([]netip.Addr, error) {
	return c.internal, nil
}

func (c *fakeCluster) ConfigMap(_ context.Context, namespace, name string) (map[string]string, error) {
	key := namespace + "/" + name
	if err := c.mapErr[key]; err != nil {
		return nil, err
	}
	if data, ok := c.maps[key]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("get ConfigMap %s: %w", key, datastore.ErrNotFound)
}

func (c *fakeCluster) EnsureClusterInformation(_ context.Context, words string) error {
	c.info = append(c.info, words)
	return c.err
}

func (c *fakeCluster) SetNetworkUnavailable(_ context.Context, node string, unavailable bool, reason, _ string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, fmt.Sprint(node, " ", unavailable, " ", reason))
	return c.err
}

// start returns Options for a node on machine(), with the environment's lines.
func start(t testing.TB, store datastore.Store, env ...string) Options {
	t.Helper()
	s := parse(t, env...)
	dir := t.TempDir()
	if s.Node == "" {
		s.Node = "node-a"
	}
	s.NodeNameFile, s.MTUFile = filepath.Join(dir, "nodename"), filepath.Join(dir, "mtu")
	return Options{
		Settings: s, Store: store, Log: slog.New(slog.DiscardHandler), HasIPv6: func() bool { return true },
		Interfaces: func(context.Context) ([]Interface, error) { return machine(), nil },
	}
}

func get[T calico.Object](t testing.TB, s datastore.Store, kind calico.Kind, name string) T {
	t.Helper()
	obj, err := s.Get(t.Context(), kind, name)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(T)
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// stores are the datastores a start is tried on.
func stores(t *testing.T, test func(*testing.T, datastore.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, datastoretest.NewMemory()) })
	t.Run("file", func(t *testing.T) {
		s, err := file.Open(t.TempDir(), file.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		test(t, s)
	})
}

func TestFirstStart(t *testing.T) {
	stores(t, func(t *testing.T, s datastore.Store) {
		o := start(t, s, "IP=autodetect", "IP6=autodetect", "AS=64513", "CALICO_IPV4POOL_IPIP=Always")
		if err := Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		n := get[*calico.Node](t, s, calico.KindNode, "node-a")
		asn := calico.ASNumber(64513)
		want := calico.NodeSpec{BGP: &calico.NodeBGPSpec{IPv4Address: "203.0.113.7/26", IPv6Address: "fd00:1::7/48", ASNumber: &asn},
			Interfaces: []calico.NodeInterface{{Name: "eth0", Addresses: []string{"192.0.2.7", "2001:db8::7"}}, {Name: "eth1", Addresses: []string{"203.0.113.7", "fd00:1::7"}}}}
		if diff := cmp.Diff(want, n.Spec); diff != "" {
			t.Errorf("node:\n%s", diff)
		}
		v4 := get[*calico.IPPool](t, s, calico.KindIPPool, "default-ipv4-ippool")
		if v4.Spec.CIDR != "192.168.0.0/16" || v4.Spec.IPIPMode != "Always" || !v4.Spec.NATOutgoing {
			t.Errorf("IPv4 pool: %+v", v4.Spec)
		}
		v6 := get[*calico.IPPool](t, s, calico.KindIPPool, "default-ipv6-ippool")
		if !strings.HasPrefix(v6.Spec.CIDR, "fd") || !strings.HasSuffix(v6.Spec.CIDR, "/48") || v6.Spec.NATOutgoing {
			t.Errorf("IPv6 pool: %+v", v6.Spec)
		}
		get[*calico.FelixConfiguration](t, s, calico.KindFelixConfig, "default")
		get[*calico.BGPConfiguration](t, s, calico.KindBGPConfiguration, "default")
		if c := get[*calico.IPAMConfiguration](t, s, calico.KindIPAMConfiguration, "default"); c.Spec.AutoAllocateBlocks == nil || !*c.Spec.AutoAllocateBlocks {
			t.Errorf("IPAM: %+v", c.Spec)
		}
		if got := read(t, o.Settings.NodeNameFile); got != "node-a" {
			t.Errorf("nodename %q", got)
		}
		if got := read(t, o.Settings.MTUFile); got != "1480" {
			t.Errorf("mtu %q", got)
		}
	})
}

// TestSecondStart: a start without news writes nothing at all into the datastore.
func TestSecondStart(t *testing.T) {
	s := datastoretest.NewMemory()
	o := start(t, s, "IP=autodetect", "IP6=autodetect")
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	before := s.Objects()
	writes := datastoretest.NewFaulty(s, func(int, string, calico.Kind) datastoretest.Fault { return datastoretest.NoFault })
	o.Store = writes
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, s.Objects()); diff != "" || writes.Writes() != 0 {
		t.Errorf("%d writes:\n%s", writes.Writes(), diff)
	}
}

// TestStartDies: whatever becomes of any one write, the next start ends as one that was never disturbed.
func TestStartDies(t *testing.T) {
	env := []string{"IP=autodetect", "IP6=autodetect", "AS=64513", "CALICO_IPV6POOL_CIDR=fd00:10::/64"}
	shape := func(s *datastoretest.Memory) (out []string) {
		for _, obj := range s.Objects() {
			o := calico.Clone(obj)
			name := o.Meta().Name
			*o.Meta() = calico.ObjectMeta{Name: name}
			b, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(o.Kind())+" "+string(b))
		}
		return out
	}
	whole := datastoretest.NewMemory()
	calm := datastoretest.NewFaulty(whole, func(int, string, calico.Kind) datastoretest.Fault { return datastoretest.NoFault })
	if err := Run(t.Context(), start(t, calm, env...)); err != nil {
		t.Fatal(err)
	}
	if calm.Writes() < 6 {
		t.Fatalf("a start makes %d writes", calm.Writes())
	}
	want := shape(whole)
	for n := 1; n <= calm.Writes(); n++ {
		for _, fault := range []datastoretest.Fault{datastoretest.Conflict, datastoretest.Refuse, datastoretest.LoseAnswer, datastoretest.Crash} {
			s := datastoretest.NewMemory()
			f := datastoretest.NewFaulty(s, datastoretest.At(n, fault))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_ = Run(ctx, start(t, f, env...))
			cancel()
			if f.Fired() != 1 {
				t.Errorf("write %d, fault %d: fired %d times", n, fault, f.Fired())
			}
			if err := Run(t.Context(), start(t, s, env...)); err != nil {
				t.Errorf("write %d, fault %d: next start: %v", n, fault, err)
			}
			if diff := cmp.Diff(want, shape(s)); diff != "" {
				t.Errorf("write %d, fault %d:\n%s", n, fault, diff)
			}
		}
	}
}

func TestBackendNone(t *testing.T) {
	s := datastoretest.NewMemory(node("node-a", "192.0.2.99/24", ""))
	if err := Run(t.Context(), start(t, s, "IP=autodetect", "AS=1", "CALICO_NETWORKING_BACKEND=none")); err != nil {
		t.Fatal(err)
	}
	if n := get[*calico.Node](t, s, calico.KindNode, "node-a"); n.Spec.BGP.IPv4Address != "192.0.2.99/24" || n.Spec.BGP.ASNumber != nil || n.Spec.Interfaces != nil {
		t.Errorf("%+v", n.Spec)
	}
	cm := &calico.ConfigMap{Data: calico.ConfigMapData{CalicoBackend: "none"}} // the datastore's word goes before the environment's
	cm.Name = calico.ConfigMapName
	s = datastoretest.NewMemory(node("node-a", "", ""), cm)
	if err := Run(t.Context(), start(t, s, "IP=autodetect", "CALICO_NETWORKING_BACKEND=bird")); err != nil {
		t.Fatal(err)
	}
	if n := get[*calico.Node](t, s, calico.KindNode, "node-a"); n.Spec.BGP != nil {
		t.Errorf("%+v", n.Spec.BGP)
	}
}

func TestConflictRefusesTheStart(t *testing.T) {
	for _, tc := range []struct {
		name   string
		env    []string
		stored string
		want   string // the stored address afterwards
		ok     bool
	}{
		{"detected, nothing stored", []string{"IP=autodetect"}, "", "", false},
		{"detected, the stored one is no longer ours", []string{"IP=autodetect"}, "192.0.2.50/24", "", false},
		{"explicit leaves what is stored", []string{"IP=203.0.113.7"}, "192.0.2.50/24", "192.0.2.50/24", false},
		{"unchanged is not checked", []string{"IP=autodetect"}, "203.0.113.7/26", "203.0.113.7/26", true},
		{"check switched off", []string{"IP=autodetect", "DISABLE_NODE_IP_CHECK=true"}, "", "203.0.113.7/26", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := datastoretest.NewMemory(node("node-a", tc.stored, ""), node("node-b", "203.0.113.7/24", ""))
			err := Run(t.Context(), start(t, s, tc.env...))
			if tc.ok != (err == nil) || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "node node-b has the IPv4 address 203.0.113.7")) {
				t.Errorf("error %v", err)
			}
			got := ""
			if b := get[*calico.Node](t, s, calico.KindNode, "node-a").Spec.BGP; b != nil {
				got = b.IPv4Address
			}
			if got != tc.want {
				t.Errorf("stored is %q, want %q", got, tc.want)
			}
		})
	}
}

func TestDefaultPools(t *testing.T) {
	kubeadm := func(subnet string) map[string]map[string]string {
		return map[string]map[string]string{"kube-system/kubeadm-config": {"ClusterConfiguration": "networking: {podSubnet: '" + subnet + "'}"}}
	}
	for _, tc := range []struct {
		name   string
		env    []string
		pools  []calico.Object
		maps   map[string]map[string]string
		noIPv6 bool
		want   string // CIDRs of all pools; * for a random one
	}{
		{"none", nil, nil, nil, false, "192.168.0.0/16 *"},
		{"kubeadm", nil, nil, kubeadm("10.32.0.0/12,fd00:32::/56"), false, "10.32.0.0/12 fd00:32::/56"},
		{"environment over kubeadm", []string{"CALICO_IPV4POOL_CIDR=10.1.0.0/16"}, nil, kubeadm("10.32.0.0/12,fd00:32::/56"), false, "10.1.0.0/16 fd00:32::/56"},
		{"bad kubeadm", nil, nil, kubeadm("10.32.0.0"), false, "192.168.0.0/16 *"},
		{"no IPv6 in the kernel", nil, nil, kubeadm("10.32.0.0/12,fd00:32::/56"), true, "10.32.0.0/12"},
		{"no IPv6 wanted", []string{"FELIX_IPV6SUPPORT=false"}, nil, nil, false, "192.168.0.0/16"},
		{"one family is there", nil, []calico.Object{pool("mine", "10.9.0.0/16")}, nil, false, "10.9.0.0/16 *"},
		{"skipped", []string{"CALICO_IPV4POOL_CIDR=none", "CALICO_IPV6POOL_CIDR=none"}, nil, nil, false, ""},
		{"no default pools", []string{"NO_DEFAULT_POOLS=true"}, nil, kubeadm("10.32.0.0/12"), false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := datastoretest.NewMemory(append(slices.Clone(tc.pools), node("node-a", "", ""))...)
			o := start(t, s, tc.env...)
			o.Cluster = &fakeCluster{maps: tc.maps}
			o.HasIPv6 = func() bool { return !tc.noIPv6 }
			if err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			var got []string
			list, _ := s.List(t.Context(), calico.KindIPPool)
			for _, obj := range list {
				cidr := obj.(*calico.IPPool).Spec.CIDR
				if strings.HasSuffix(cidr, "/48") {
					cidr = "*"
				}
				got = append(got, cidr)
			}
			slices.Sort(got)
			want := strings.Fields(tc.want)
			slices.Sort(want)
			if diff := cmp.Diff(want, got, alike); diff != "" {
				t.Error(diff)
			}
		})
	}
	o := start(t, datastoretest.NewMemory(), "CALICO_IPV4POOL_CIDR=169.254.0.0/16")
	if err := Run(t.Context(), o); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "CALICO_IPV4POOL_CIDR") {
		t.Errorf("a range nobody can use: %v", err)
	}
}

// TestQuickerNode: another node made the pools and the default resources between our look and our write.
func TestQuickerNode(t *testing.T) {
	f := datastoretest.NewFaulty(datastoretest.NewMemory(node("node-a", "", "")), func(_ int, verb string, _ calico.Kind) datastoretest.Fault {
		if verb == "create" {
			return datastoretest.Conflict // a create is answered with ErrExists
		}
		return datastoretest.NoFault
	})
	if err := Run(t.Context(), start(t, f)); err != nil || f.Fired() != 5 {
		t.Errorf("%v, %d creates", err, f.Fired())
	}
}

// TestRace: fifty nodes that start at once end with one pool of each family.
func TestRace(t *testing.T) {
	s := datastoretest.NewMemory()
	var all sync.WaitGroup
	for i := range 50 {
		o := start(t, s, fmt.Sprintf("NODENAME=node-%d", i), fmt.Sprintf("IP=192.0.2.%d/24", i+1))
		all.Go(func() {
			if err := Run(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if list, _ := s.List(t.Context(), calico.KindIPPool); len(list) != 2 {
		t.Errorf("%d pools", len(list))
	}
	if list, _ := s.List(t.Context(), calico.KindNode); len(list) != 50 {
		t.Errorf("%d nodes", len(list))
	}
}

func TestClusterType(t *testing.T) {
	forbidden := fmt.Errorf("get: %w", datastore.ErrForbidden)
	there := map[string]string{}
	for _, tc := range []struct {
		name, env string
		maps      map[string]map[string]string
		errs      map[string]error
		want      string
	}{
		{"bare", "", nil, nil, ""},
		{"kubeadm", "CLUSTER_TYPE=k8s,bgp", map[string]map[string]string{"kube-system/kubeadm-config": there}, nil, "k8s,bgp,kubeadm"},
		{"rancher", "", map[string]map[string]string{"kube-system/full-cluster-state": there}, nil, "rancher"},
		{"rancher may not be asked", "", map[string]map[string]string{"kube-system/kubeadm-config": there}, map[string]error{"kube-system/full-cluster-state": forbidden}, "kubeadm"},
		{"kubeadm may not be asked", "CLUSTER_TYPE=k8s", nil, map[string]error{"kube-system/kubeadm-config": forbidden}, "k8s"},
	} {
		c := &fakeCluster{maps: tc.maps, mapErr: tc.errs}
		o := start(t, datastoretest.NewMemory(node("node-a", "", "")), tc.env)
		o.Cluster = c
		if err := Run(t.Context(), o); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if diff := cmp.Diff([]string{tc.want}, c.info); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestInternalIP(t *testing.T) {
	s := datastoretest.NewMemory(node("node-a", "", ""))
	o := start(t, s, "IP=autodetect", "IP_AUTODETECTION_METHOD=kubernetes-internal-ip", "IP6=autodetect", "IP6_AUTODETECTION_METHOD=kubernetes-internal-ip")
	o.Cluster = &fakeCluster{internal: []netip.Addr{netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("203.0.113.7")}}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if b := get[*calico.Node](t, s, calico.KindNode, "node-a").Spec.BGP; b.IPv4Address != "192.0.2.7/24" || b.IPv6Address != "2001:db8::7/64" {
		t.Errorf("%+v", b)
	}
}

func TestNodeMissingInKubernetes(t *testing.T) {
	o := start(t, datastoretest.NewMemory())
	o.Cluster = &fakeCluster{}
	if err := Run(t.Context(), o); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "NODENAME") {
		t.Errorf("error %v", err)
	}
}

// deafStore does not answer until told.
type deafStore struct {
	datastore.Store
	deaf func() bool
}

func (d deafStore) Get(ctx context.Context, kind calico.Kind, name string) (calico.Object, error) {
	if d.deaf() {
		return nil, errors.New("connection refused")
	}
	return d.Store.Get(ctx, kind, name)
}

func TestWaitForDatastore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := deafStore{datastoretest.NewMemory(), func() bool { return time.Since(begin) < 90*time.Second }}
		if err := Run(t.Context(), start(t, s)); err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "WAIT_FOR_DATASTORE=true") {
			t.Errorf("without waiting: %v", err)
		}
		if err := Run(t.Context(), start(t, s, "WAIT_FOR_DATASTORE=true")); err != nil {
			t.Errorf("with waiting: %v", err)
		}
		if waited := time.Since(begin); waited < 90*time.Second || waited > 92*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestMTUOfFelixConfiguration(t *testing.T) {
	mtu := 1350
	f := &calico.FelixConfiguration{Spec: calico.FelixConfigurationSpec{VXLANMTU: &mtu, MTUIfacePattern: "^docker"}}
	f.Name = "default"
	vxlan := pool("p", "10.0.0.0/16")
	vxlan.Spec.VXLANMode = "Always"
	for _, tc := range []struct {
		env  string
		want string
	}{{"", "1350"}, {"FELIX_VXLANMTU=1300", "1300"}} {
		o := start(t, datastoretest.NewMemory(f, vxlan), tc.env)
		if err := Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if got := read(t, o.Settings.MTUFile); got != tc.want {
			t.Errorf("%q: %q, want %s", tc.env, got, tc.want)
		}
	}
}
