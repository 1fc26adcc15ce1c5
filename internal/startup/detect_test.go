package startup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
)

// on makes an interface.
func on(name string, addrs ...string) Interface {
	i := Interface{Name: name, MTU: 1500, Up: true}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

// machine has what a Kubernetes node has.
func machine() []Interface {
	return []Interface{
		on("lo", "127.0.0.1/8", "::1/128", "198.51.100.9/32"),
		on("eth0", "192.0.2.7/24", "2001:db8::7/64", "fe80::7/64"),
		on("eth1", "203.0.113.7/26", "fd00:1::7/48"),
		on("docker0", "172.17.0.1/16"),
		on("br-0abc", "172.18.0.1/16", "fd00:2::1/64"),
		on("cali123", "169.254.1.1/32", "fe80::ecee/64"),
		on("tunl0", "10.244.1.1/32"),
		on("vxlan-v6.calico", "fd00:10:244::1/128"),
		on("bond0"),
	}
}

func TestDetect(t *testing.T) {
	const none = ""
	for _, tc := range []struct {
		method         string
		want4, iface4  string // none: an error
		want6, iface6  string
		wrong4, wrong6 string // in the error
	}{
		{"first-found", "203.0.113.7/26", "eth1", "fd00:1::7/48", "eth1", "", ""},
		{"", "203.0.113.7/26", "eth1", "fd00:1::7/48", "eth1", "", ""},
		{"interface=eth0", "192.0.2.7/24", "eth0", "2001:db8::7/64", "eth0", "", ""},
		{"interface=^eth", "203.0.113.7/26", "eth1", "fd00:1::7/48", "eth1", "", ""},
		{"interface=eth0, eth1", "203.0.113.7/26", "eth1", "fd00:1::7/48", "eth1", "", ""},
		{"interface=docker.*,br-.*", "172.18.0.1/16", "br-0abc", "fd00:2::1/64", "br-0abc", "", ""},
		{"interface=docker0", "172.17.0.1/16", "docker0", none, none, "", "no interface that comes into question has one"},
		{"interface=wlan", none, none, none, none, "no interface comes into question", "no interface comes into question"},
		{"interface=lo", "198.51.100.9/32", "lo", none, none, "", "has one"}, // 127.0.0.1 and ::1 are no addresses for others
		{"skip-interface=eth1", "192.0.2.7/24", "eth0", "2001:db8::7/64", "eth0", "", ""},
		{"skip-interface=eth1,eth0", none, none, none, none, "has one", "has one"},
		{"cidr=192.0.2.0/24,2001:db8::/32", "192.0.2.7/24", "eth0", "2001:db8::7/64", "eth0", "", ""},
		{"cidr=0.0.0.0/0,::/0", "172.18.0.1/16", "br-0abc", "fd00:2::1/64", "br-0abc", "", ""}, // not the tunnels', which come from pools
		{"cidr=10.0.0.0/8,fd00:10::/32", none, none, none, none, "has one", "has one"},
		{"cidr=169.254.0.0/16,fe80::/10", none, none, none, none, "has one", "has one"},
		{"can-reach=there", "192.0.2.7/24", "eth0", "2001:db8::7/64", "eth0", "", ""},
		{"can-reach=nowhere", none, none, none, none, "network is unreachable", "network is unreachable"},
		{"can-reach=odd", none, none, none, none, "192.0.2.99 is on no interface", "2001:db8::99 is on no interface"},
		{"kubernetes-internal-ip", "203.0.113.7/26", "eth1", none, none, "", "no IPv6 InternalIP"},
	} {
		h := &Host{
			Interfaces: machine(),
			Reach: func(target string, f cluster.Family) (netip.Addr, error) {
				if target == "nowhere" {
					return netip.Addr{}, errors.New("network is unreachable")
				}
				tail := map[string]string{"there": "7", "odd": "99"}[target]
				return netip.MustParseAddr(map[cluster.Family]string{cluster.IPv4: "192.0.2.", cluster.IPv6: "2001:db8::"}[f] + tail), nil
			},
			Internal: func(f cluster.Family) (netip.Addr, error) {
				if f == cluster.IPv6 {
					return netip.Addr{}, errors.New("no IPv6 InternalIP")
				}
				return netip.MustParseAddr("203.0.113.7"), nil
			},
		}
		for _, x := range []struct {
			f                  cluster.Family
			want, iface, wrong string
		}{{cluster.IPv4, tc.want4, tc.iface4, tc.wrong4}, {cluster.IPv6, tc.want6, tc.iface6, tc.wrong6}} {
			m, err := ParseMethod(tc.method, x.f)
			if err != nil {
				m, err = ParseMethod(strings.Split(tc.method, ",")[0], x.f)
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.method, err)
			}
			got, err := m.Detect(x.f, h)
			if x.want == none {
				if err == nil || !strings.Contains(err.Error(), x.wrong) || !strings.HasPrefix(err.Error(), fmt.Sprintf("detect an %v address by %v: ", x.f, m)) {
					t.Errorf("%s, %v: got %v, error %v, want one with %q", tc.method, x.f, got, err, x.wrong)
				}
				continue
			}
			if err != nil || got.Addr.String() != x.want || got.Interface != x.iface {
				t.Errorf("%s, %v: got %v, %v; want %s on %s", tc.method, x.f, got, err, x.want, x.iface)
			}
		}
	}
	m, _ := ParseMethod("kubernetes-internal-ip", cluster.IPv4)
	if _, err := m.Detect(cluster.IPv4, &Host{}); err == nil || !strings.Contains(err.Error(), "no Kubernetes") {
		t.Errorf("outside Kubernetes: %v", err)
	}
}

// TestExcluded holds the list against names that come with each of its entries.
func TestExcluded(t *testing.T) {
	for _, name := range strings.Fields("docker0 cbr0 dummy1 podman1 virbr0 lxcbr0 veth12ab lo br-12ab cali12 tunl0 flannel.1 kube-ipvs0 cni0 vxlan.calico vxlan-v6.calico wireguard.cali wg-v6.cali nodelocaldns") {
		if !excluded.MatchString(name) {
			t.Errorf("%s is not excluded", name)
		}
	}
	for _, name := range strings.Fields("eth0 ens3 enp0s3 bond0 br0 vxlanXcalico eno1.100 team0 vlan5 xlo ib0") {
		if excluded.MatchString(name) {
			t.Errorf("%s is excluded", name)
		}
	}
}

// TestDetectAgainstModel: over random machines first-found is the last usable address in a list turned around by hand, and
// what is found is an address of the machine with its own prefix length.
func TestDetectAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"eth0", "ens1", "docker0", "lo", "cali1", "tunl0", "bond0", "veth9"}
	found := 0
	for range 2000 {
		var list []Interface
		for range r.IntN(6) {
			i := Interface{Name: names[r.IntN(len(names))]}
			for range r.IntN(4) {
				a := netip.AddrFrom4([4]byte{[]byte{10, 127, 169, 224}[r.IntN(4)], 254, byte(r.IntN(3)), byte(1 + r.IntN(250))})
				i.Addrs = append(i.Addrs, netip.PrefixFrom(a, 8+r.IntN(25)))
			}
			list = append(list, i)
		}
		var want Found
		for k := len(list) - 1; k >= 0 && want.Interface == ""; k-- {
			for _, a := range list[k].Addrs {
				usable := list[k].Name == "eth0" || list[k].Name == "ens1" || list[k].Name == "bond0"
				if usable && a.Addr().As4()[0] == 10 {
					want = Found{a, list[k].Name}
					break
				}
			}
		}
		got, err := Method{}.Detect(cluster.IPv4, &Host{Interfaces: list})
		if got != want || (err != nil) != (want == Found{}) {
			t.Fatalf("%v: got %v, %v, want %v", list, got, err, want)
		}
		if err == nil {
			found++
		}
	}
	if found == 0 || found == 2000 {
		t.Errorf("%d of 2000 machines had an address", found)
	}
}

func TestParseMethodRefuses(t *testing.T) {
	for s, remedy := range map[string]string{
		"first":                 "write first-found",
		"Interface=eth0":        "write first-found",
		"interface=":            "a name is missing",
		"interface=eth0,,eth1":  "a name is missing",
		"interface=eth(":        "as in eth.*",
		"cidr=":                 "as in 192.0.2.0/24",
		"cidr=10.0.0.0":         "is not a CIDR",
		"cidr=fd00::/8":         "no range is IPv4",
		"can-reach=":            "neither a host name nor an address",
		"can-reach=::1":         "is not an IPv4 address",
		"can-reach=10.0.0.0/8":  "neither a host name nor an address",
		"kubernetes-internal-i": "kubernetes-internal-ip",
	} {
		if _, err := ParseMethod(s, cluster.IPv4); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: error %v, want %q", s, err, remedy)
		}
	}
}

func FuzzParseMethod(f *testing.F) {
	for _, s := range []string{"first-found", "interface=eth.*,ens", "skip-interface=^(a|b)", "cidr=10.0.0.0/8, fd00::/8", "can-reach=8.8.8.8", "kubernetes-internal-ip", "="} {
		f.Add(s)
	}
	h := &Host{Interfaces: machine(), Reach: func(string, cluster.Family) (netip.Addr, error) { return netip.MustParseAddr("192.0.2.7"), nil }}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMethod(s, cluster.IPv4)
		if err != nil {
			return
		}
		again, err := ParseMethod(m.String(), cluster.IPv4)
		if err != nil || again.kind != m.kind {
			t.Errorf("%q is written as %q: %v", s, m, err)
		}
		if got, err := m.Detect(cluster.IPv4, h); err == nil && !got.Addr.Addr().IsGlobalUnicast() {
			t.Errorf("%q finds %v", s, got)
		}
	})
}

func TestInterfaces(t *testing.T) {
	k := kerneltest.NewFake()
	defer func() { _ = k.Close() }()
	ctx := context.Background()
	up := func(name, addr string, mtu int) {
		i := k.Wire(name)
		if err := k.SetLink(ctx, i, mtu, [6]byte{}, true); err != nil {
			t.Fatal(err)
		}
		if err := k.AddAddress(ctx, kernel.Address{Link: i, Prefix: netip.MustParsePrefix(addr)}); err != nil {
			t.Fatal(err)
		}
	}
	up("eth0", "192.0.2.7/24", 9000)
	up("eth1", "2001:db8::7/64", 1500)
	k.Wire("eth2")
	got, err := Interfaces(k)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range got {
		names = append(names, fmt.Sprint(i.Name, " ", i.MTU, " ", i.Up, " ", len(i.Addrs) > 0))
	}
	text := strings.Join(names, "\n")
	for _, want := range []string{"eth0 9000 true true\neth1 1500 true true\neth2"} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s\nwant in it\n%s", text, want)
		}
	}
	found, err := Method{}.Detect(cluster.IPv4, &Host{Interfaces: got})
	if err != nil || found != (Found{netip.MustParsePrefix("192.0.2.7/24"), "eth0"}) {
		t.Errorf("found %v, %v", found, err)
	}
}

// TestReach: towards a loopback address every kernel answers with one.
func TestReach(t *testing.T) {
	got, err := Reach(t.Context(), "127.0.0.1", cluster.IPv4)
	if diff := cmp.Diff("127.0.0.1", got.String()); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		_ = l.Close()
		if got, err := Reach(t.Context(), "::1", cluster.IPv6); err != nil || got.String() != "::1" {
			t.Errorf("IPv6: %v, %v", got, err)
		}
	}
	if _, err := Reach(t.Context(), "127.0.0.1", cluster.IPv6); err == nil {
		t.Error("an IPv4 address was reached by IPv6")
	}
}
