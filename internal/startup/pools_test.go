package startup

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/calico"
	"github.com/caracal-net/caracal/internal/cluster"
)

func TestRange4(t *testing.T) {
	all := []Interface{on("eth0", "192.168.7.1/24")}
	for i := 16; i <= 31; i++ {
		all = append(all, on("x", fmt.Sprintf("172.%d.0.1/16", i)))
	}
	for _, tc := range []struct {
		host []Interface
		want string
	}{
		{machine(), "192.168.0.0/16"},
		{nil, "192.168.0.0/16"},
		{[]Interface{on("eth0", "192.168.255.255/32")}, "172.16.0.0/16"},
		{[]Interface{on("eth0", "192.168.1.1/24"), on("docker0", "172.16.0.1/16", "172.17.0.1/16")}, "172.18.0.0/16"},
		{[]Interface{on("eth0", "192.168.1.1/24"), on("lo", "172.16.0.1/12")}, "172.17.0.0/16"}, // an address counts, not its subnet
		{all[:16], "172.31.0.0/16"},
		{all, "192.168.0.0/16"},
	} {
		if got := range4(tc.host); got.String() != tc.want {
			t.Errorf("%v: %v, want %s", tc.host, got, tc.want)
		}
	}
}

func TestRange6(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for range 100 {
		p := range6()
		if p != p.Masked() || p.Bits() != 48 || !netip.MustParsePrefix("fd00::/8").Contains(p.Addr()) {
			t.Fatalf("%v", p)
		}
		seen[p] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different ranges of 100", len(seen))
	}
}

func TestPodSubnets(t *testing.T) {
	const conf = "apiServer: {}\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: %s\n  serviceSubnet: 10.96.0.0/12\n"
	for _, tc := range []struct{ value, want4, want6, err string }{
		{"10.244.0.0/16", "10.244.0.0/16", "", ""},
		{"10.244.1.1/16,fd00:10:244::/56", "10.244.0.0/16", "fd00:10:244::/56", ""},
		{"\"fd00::/48, 10.0.0.0/8, 10.1.0.0/16\"", "10.0.0.0/8", "fd00::/48", ""},
		{"", "", "", ""},
		{"10.244.0.0", "", "", "is not a CIDR: mend it, or set CALICO_IPV4POOL_CIDR"},
		{"10.244.0.0/16,x", "", "", "is not a CIDR"},
		{"[a", "", "", "kubeadm-config"},
	} {
		v4, v6, err := podSubnets(map[string]string{"ClusterConfiguration": fmt.Sprintf(conf, tc.value)})
		if text(v4) != tc.want4 || text(v6) != tc.want6 || (tc.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: %v, %v, %v", tc.value, v4, v6, err)
		}
	}
	if v4, v6, err := podSubnets(nil); v4.IsValid() || v6.IsValid() || err != nil {
		t.Errorf("nothing: %v, %v, %v", v4, v6, err)
	}
}

func FuzzPodSubnets(f *testing.F) {
	f.Add("networking:\n  podSubnet: 10.0.0.0/8,fd00::/8")
	f.Add("networking: [")
	f.Fuzz(func(t *testing.T, s string) {
		v4, v6, err := podSubnets(map[string]string{"ClusterConfiguration": s})
		if v4.IsValid() && (!v4.Addr().Is4() || v4 != v4.Masked()) || v6.IsValid() && (!v6.Addr().Is6() || v6 != v6.Masked()) || err != nil && (v4.IsValid() || v6.IsValid()) {
			t.Errorf("%v, %v, %v", v4, v6, err)
		}
	})
}

func pool(name, cidr string) *calico.IPPool {
	p := &calico.IPPool{Spec: calico.IPPoolSpec{CIDR: cidr}}
	p.Name = name
	return p
}

func TestMissing(t *testing.T) {
	disabled := pool("x", "10.0.0.0/8")
	disabled.Spec.Disabled = true
	for _, tc := range []struct {
		pools        []calico.Object
		want4, want6 bool
	}{
		{nil, true, true},
		{[]calico.Object{disabled}, false, true},
		{[]calico.Object{pool("y", "fd00::/8")}, true, false},
		{[]calico.Object{pool("z", "nonsense")}, true, true},
		{[]calico.Object{pool("y", "fd00::/8"), pool("default-ipv6-ippool", "10.0.0.0/8")}, false, false},
	} {
		if got4, got6 := pool4.missing(tc.pools), pool6.missing(tc.pools); got4 != tc.want4 || got6 != tc.want6 {
			t.Errorf("%v: %v, %v", tc.pools, got4, got6)
		}
	}
}

func TestPoolObject(t *testing.T) {
	s := parse(t, "CALICO_IPV4POOL_IPIP=CrossSubnet", "CALICO_IPV4POOL_DISABLE_BGP_EXPORT=true", "CALICO_IPV4POOL_NODE_SELECTOR=has(x)")
	got, err := s.Pool4.object(pool4, netip.MustParsePrefix("10.244.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	want := calico.IPPoolSpec{CIDR: "10.244.0.0/16", IPIPMode: "CrossSubnet", VXLANMode: "Never", NATOutgoing: true, DisableBGPExport: true, BlockSize: 26, NodeSelector: "has(x)"}
	if diff := cmp.Diff(want, got.Spec); diff != "" || got.Name != "default-ipv4-ippool" {
		t.Error(got.Name, diff)
	}
	if _, err := s.Pool4.object(pool4, netip.MustParsePrefix("169.254.0.0/16")); err == nil || !strings.Contains(err.Error(), "set CALICO_IPV4POOL_CIDR to another range") {
		t.Errorf("error %v", err)
	}
}

func TestPodMTU(t *testing.T) {
	cpool := func(cidr string, ipip, vxlan cluster.Mode) *cluster.Pool {
		return &cluster.Pool{CIDR: netip.MustParsePrefix(cidr), IPIPMode: ipip, VXLANMode: vxlan}
	}
	ipip, vxlan := cpool("10.0.0.0/16", cluster.CrossSubnet, cluster.Never), cpool("10.1.0.0/16", cluster.Never, cluster.Always)
	vxlan6, plain := cpool("fd00::/48", cluster.Never, cluster.CrossSubnet), cpool("10.2.0.0/16", cluster.Never, cluster.Never)
	with := func(name string, mtu int, up bool, addr string) Interface {
		i := on(name, addr)
		i.MTU, i.Up = mtu, up
		return i
	}
	own := []netip.Addr{netip.MustParseAddr("192.0.2.7"), {}}
	jumbo := []Interface{with("eth0", 9000, true, "192.0.2.7/24"), with("docker0", 1500, true, "172.17.0.1/16"), with("eth1", 1280, false, "203.0.113.7/24")}
	for _, tc := range []struct {
		name  string
		host  []Interface
		pools []*cluster.Pool
		set   MTUSettings
		want  int
	}{
		{"no pool", jumbo, nil, MTUSettings{}, 9000},
		{"no tunnel", jumbo, []*cluster.Pool{plain}, MTUSettings{}, 9000},
		{"IPIP", jumbo, []*cluster.Pool{plain, ipip}, MTUSettings{}, 8980},
		{"VXLAN", jumbo, []*cluster.Pool{vxlan}, MTUSettings{}, 8950},
		{"VXLAN in IPv6", jumbo, []*cluster.Pool{vxlan, vxlan6, ipip}, MTUSettings{}, 8930},
		{"explicit", jumbo, []*cluster.Pool{ipip}, MTUSettings{IPIP: 1400, VXLAN4: 1300}, 1400},
		{"explicit and larger than the host's", jumbo, []*cluster.Pool{ipip}, MTUSettings{IPIP: 9500}, 9500},
		{"explicit for one of two", jumbo, []*cluster.Pool{ipip, vxlan}, MTUSettings{IPIP: 9500}, 8950},
		{"the smallest uplink", append([]Interface{with("ens5", 1500, true, "10.0.0.1/8")}, jumbo...), []*cluster.Pool{vxlan}, MTUSettings{}, 1450},
		{"an odd name holds our address", []Interface{with("bond0", 1400, true, "192.0.2.7/24"), with("eth0", 1500, true, "10.0.0.1/8")}, []*cluster.Pool{ipip}, MTUSettings{}, 1380},
		{"no uplink", []Interface{on("lo", "127.0.0.1/8")}, []*cluster.Pool{vxlan}, MTUSettings{}, 1410},
	} {
		if got := podMTU(mtuInput{interfaces: tc.host, own: own, pools: tc.pools, set: tc.set}); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	if got := (MTUSettings{IPIP: 1, Pattern: "a"}).or(MTUSettings{2, 3, 4, "b"}); got != (MTUSettings{1, 3, 4, "a"}) {
		t.Errorf("environment over configuration: %+v", got)
	}
}
