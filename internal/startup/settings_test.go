package startup

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caracal-net/caracal/internal/cluster"
)

// env is an environment of "NAME=value" lines.
func env(lines ...string) func(string) string {
	m := map[string]string{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

func parse(t testing.TB, lines ...string) *Settings {
	t.Helper()
	s, err := Parse(env(lines...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var alike = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b Method) bool { return a.kind == b.kind && a.text == b.text }),
	cmpopts.EquateEmpty(),
}

func defaults() *Settings {
	return &Settings{
		NodeNameFile: "/var/lib/calico/nodename", MTUFile: "/var/lib/calico/mtu", Backend: cluster.BackendBird,
		Poll: time.Minute, IPv6: true,
		Pool4: PoolSettings{BlockSize: 26, NATOutgoing: true},
		Pool6: PoolSettings{BlockSize: 122},
	}
}

func TestParse(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, tc := range []struct {
		name string
		env  []string
		want func(*Settings)
	}{
		{"nothing", nil, func(*Settings) {}},
		{"calico.yaml", []string{"NODENAME=a", "WAIT_FOR_DATASTORE=true", "CALICO_NETWORKING_BACKEND=bird", "CLUSTER_TYPE=k8s,bgp", "IP=autodetect",
			"CALICO_IPV4POOL_IPIP=Always", "CALICO_IPV4POOL_VXLAN=Never", "CALICO_IPV6POOL_VXLAN=Never", "FELIX_IPINIPMTU=0", "FELIX_VXLANMTU=0", "FELIX_IPV6SUPPORT=false"},
			func(s *Settings) {
				s.Node, s.WaitForDatastore, s.ClusterType, s.IPv6 = "a", true, "k8s,bgp", false
				s.IP.Mode, s.Pool4.IPIP = Autodetect, cluster.Always
			}},
		{"calico-vxlan.yaml", []string{"CALICO_NETWORKING_BACKEND=vxlan", "CALICO_IPV4POOL_VXLAN=CrossSubnet", "CALICO_IPV6POOL_VXLAN=cross-subnet", "CALICO_IPV4POOL_IPIP=off"},
			func(s *Settings) {
				s.Backend, s.Pool4.VXLAN, s.Pool6.VXLAN = cluster.BackendVXLAN, cluster.CrossSubnet, cluster.CrossSubnet
			}},
		{"empty values are none", []string{"IP=", "IP6=", "CALICO_IPV6POOL_NAT_OUTGOING=", "CALICO_IPV4POOL_DISABLE_BGP_EXPORT=", "CALICO_IPV4POOL_NAT_OUTGOING=", "NO_DEFAULT_POOLS=", "AS=", "FELIX_IPV6SUPPORT="}, func(*Settings) {}},
		{"booleans", []string{"CALICO_IPV4POOL_NAT_OUTGOING=No", "CALICO_IPV6POOL_NAT_OUTGOING=Y", "CALICO_IPV6POOL_DISABLE_BGP_EXPORT=1", "DISABLE_NODE_IP_CHECK=TRUE", "FELIX_IPV6SUPPORT=f"},
			func(s *Settings) {
				s.Pool4.NATOutgoing, s.Pool6.NATOutgoing, s.Pool6.DisableBGPExport, s.SkipConflicts, s.IPv6 = false, true, true, true, false
			}},
		{"addresses", []string{"IP=192.0.2.7", "IP6=2001:db8::7/64", "IP_AUTODETECTION_METHOD=nonsense that nobody reads"}, func(s *Settings) {
			s.IP = AddressSetting{Mode: Explicit, Addr: prefix("192.0.2.7/32"), Bare: true}
			s.IP6 = AddressSetting{Mode: Explicit, Addr: prefix("2001:db8::7/64")}
		}},
		{"methods", []string{"IP=none", "IP6=autodetect", "IP6_AUTODETECTION_METHOD=interface=eth.*", "AUTODETECT_POLL_INTERVAL=5m"}, func(s *Settings) {
			s.IP.Mode, s.IP6.Mode, s.Poll = None, Autodetect, 5*time.Minute
			s.IP6.Method = Method{kind: byInterface, text: "interface=eth.*"}
		}},
		{"identity", []string{"AS=1.10", "CALICO_ROUTER_ID=hash", "CALICO_K8S_NODE_REF=b", "CALICO_NODENAME_FILE=/x"}, func(s *Settings) {
			s.ASN, s.RouterID.Hash, s.NodeRef, s.NodeNameFile = 65546, true, "b", "/x"
		}},
		{"service addresses", []string{"CALICO_ADVERTISE_CLUSTER_IPS=10.96.0.1/12, fd96::/108"}, func(s *Settings) {
			s.ClusterIPs = []netip.Prefix{prefix("10.96.0.0/12"), prefix("fd96::/108")}
		}},
		{"router id", []string{"CALICO_ROUTER_ID=192.0.2.9"}, func(s *Settings) { s.RouterID.Addr = netip.MustParseAddr("192.0.2.9") }},
		{"pools", []string{"CALICO_IPV4POOL_CIDR=10.244.1.0/16", "CALICO_IPV4POOL_BLOCK_SIZE=24", "CALICO_IPV4POOL_NODE_SELECTOR=has(pods)", "CALICO_IPV6POOL_CIDR=fd00:1::/64", "CALICO_IPV6POOL_BLOCK_SIZE=116"}, func(s *Settings) {
			s.Pool4.CIDR, s.Pool4.BlockSize, s.Pool4.NodeSelector = prefix("10.244.0.0/16"), 24, "has(pods)"
			s.Pool6.CIDR, s.Pool6.BlockSize = prefix("fd00:1::/64"), 116
		}},
		{"a pool that is not wanted is not looked at", []string{"CALICO_IPV4POOL_CIDR=none", "CALICO_IPV4POOL_BLOCK_SIZE=x"}, func(s *Settings) { s.Pool4 = PoolSettings{Skip: true} }},
		{"no pools are looked at", []string{"NO_DEFAULT_POOLS=true", "CALICO_IPV4POOL_IPIP=x"}, func(s *Settings) {
			s.NoDefaultPools, s.Pool4, s.Pool6 = true, PoolSettings{Skip: true}, PoolSettings{Skip: true}
		}},
		{"old backend", []string{"CALICO_NETWORKING=false"}, func(s *Settings) { s.Backend = cluster.BackendNone }},
		{"new over old backend", []string{"CALICO_NETWORKING=false", "CALICO_NETWORKING_BACKEND=gobgp"}, func(*Settings) {}},
		{"MTU", []string{"FELIX_IPINIPMTU=1400", "FELIX_VXLANMTU=1390", "FELIX_VXLANMTUV6=1380", "FELIX_MTUIFACEPATTERN=^bond"}, func(s *Settings) { s.MTU = MTUSettings{1400, 1390, 1380, "^bond"} }},
		{"notes", []string{"WAIT_FOR_DATASTORE=True", "USE_POD_CIDR=true"}, func(s *Settings) { s.Notes = []string{"WAIT_FOR_DATASTORE", "USE_POD_CIDR"} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, got := defaults(), parse(t, tc.env...)
			tc.want(want)
			for i, n := range got.Notes {
				got.Notes[i], _, _ = strings.Cut(strings.NewReplacer("=", " ").Replace(n), " ")
			}
			if diff := cmp.Diff(want, got, alike); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestParseRefuses: every bad value is told with its variable and a remedy, all at once.
func TestParseRefuses(t *testing.T) {
	bad := []struct{ line, remedy string }{
		{"IP=10.0.0.300", "write autodetect, none, or an IPv4 address"},
		{"IP6=192.0.2.7/24", "2001:db8::7/64"},
		{"IP_AUTODETECTION_METHOD=fastest", "write first-found, interface="},
		{"AUTODETECT_POLL_INTERVAL=60", "with its unit"},
		{"DISABLE_NODE_IP_CHECK=off", "write true or false"},
		{"AS=0", "reserved"},
		{"CALICO_ADVERTISE_CLUSTER_IPS=10.96.0.0", "several with commas"},
		{"CALICO_ROUTER_ID=fd00::1", "write hash"},
		{"CALICO_NETWORKING_BACKEND=flannel", "write bird, vxlan or none"},
		{"NO_DEFAULT_POOLS=maybe", "write true or false"},
		{"CALICO_IPV4POOL_CIDR=fd00::/64", "10.244.0.0/16"},
		{"CALICO_IPV4POOL_IPIP=sometimes", "Never, Always or CrossSubnet"},
		{"CALICO_IPV4POOL_BLOCK_SIZE=19", "from 20 to 32"},
		{"CALICO_IPV6POOL_BLOCK_SIZE=64", "from 116 to 128"},
		{"CALICO_IPV4POOL_NODE_SELECTOR=zone ==", "a selector reads"},
		{"CALICO_IPV6POOL_NODE_SELECTOR=global()", "write all()"},
		{"CALICO_IPV6POOL_NAT_OUTGOING=off", "write true or false"},
		{"FELIX_VXLANMTU=-1", "in bytes"},
		{"FELIX_IPINIPMTU=50", "from 68"},
		{"FELIX_MTUIFACEPATTERN=(", "regular expression"},
		{"FELIX_IPV6SUPPORT=disabled", "write true or false"},
	}
	var lines []string
	for _, b := range bad {
		_, err := Parse(env(b.line))
		name, _, _ := strings.Cut(b.line, "=")
		if err == nil || !strings.HasPrefix(err.Error(), name+"=") || !strings.Contains(err.Error(), b.remedy) {
			t.Errorf("%s: error %v, want one that begins with the variable and says %q", b.line, err, b.remedy)
		}
		if name != EnvMethod { // not looked at beside an explicit address
			lines = append(lines, b.line)
		}
	}
	_, err := Parse(env(lines...))
	if n := len(strings.Split(err.Error(), "\n")); n != len(lines) {
		t.Errorf("%d bad variables, %d errors:\n%v", len(lines), n, err)
	}
	for _, pair := range []struct{ env, want string }{
		{"NO_DEFAULT_POOLS=true CALICO_IPV6POOL_CIDR=none", "CALICO_IPV6POOL_CIDR=\"none\": NO_DEFAULT_POOLS"},
		{"CALICO_IPV4POOL_IPIP=Always CALICO_IPV4POOL_VXLAN=CrossSubnet", "CALICO_IPV4POOL_VXLAN=\"CrossSubnet\": CALICO_IPV4POOL_IPIP is Always"},
		{"CALICO_IPV4POOL_CIDR=10.0.0.0/28", "set CALICO_IPV4POOL_BLOCK_SIZE to a number from 28 to 32"},
	} {
		if _, err := Parse(env(strings.Fields(pair.env)...)); err == nil || !strings.Contains(err.Error(), pair.want) {
			t.Errorf("%s: error %v, want %q", pair.env, err, pair.want)
		}
	}
}

func TestAsked(t *testing.T) {
	for line, want := range map[string]bool{"": false, "IP=none": false, "IP=autodetect": true, "IP6=autodetect": true, "IP=192.0.2.1": true} {
		if got := parse(t, line).Asked(); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("IP", "192.0.2.1/24", "IP_AUTODETECTION_METHOD", "cidr=10.0.0.0/8,fd00::/8")
	f.Add("IP6", "autodetect", "IP6_AUTODETECTION_METHOD", "skip-interface=eth,(")
	f.Add("CALICO_IPV4POOL_CIDR", "10.0.0.0/20", "CALICO_IPV4POOL_BLOCK_SIZE", "26")
	f.Add("AS", "1.2", "CALICO_ROUTER_ID", "1.2.3.4")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		s, err := Parse(env(name1+"="+value1, name2+"="+value2))
		if (s == nil) != (err != nil) {
			t.Fatalf("settings %v, error %v", s, err)
		}
		if err != nil {
			return
		}
		if s.Poll < time.Second || s.IP.Mode == Explicit && !s.IP.Addr.Addr().Is4() || s.IP6.Mode == Explicit && !s.IP6.Addr.Addr().Is6() {
			t.Errorf("%+v", s)
		}
		for _, p := range []struct {
			k poolKind
			s PoolSettings
		}{{pool4, s.Pool4}, {pool6, s.Pool6}} {
			if p.s.Skip || !p.s.CIDR.IsValid() {
				continue
			}
			if obj, err := p.s.object(p.k, p.s.CIDR); err == nil && p.k.missing(nil) && obj.Spec.CIDR != p.s.CIDR.Masked().String() {
				t.Errorf("%+v gives %+v", p.s, obj.Spec)
			}
		}
	})
}

func TestNodeName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodename")
	host, _ := os.Hostname()
	if got, err := NodeName(env("CALICO_NODENAME_FILE=" + file)); err != nil || got != strings.ToLower(host) {
		t.Errorf("the host's name: %q, %v", got, err)
	}
	if got, _ := NodeName(env("CALICO_NODENAME_FILE="+file, "HOSTNAME= Node-A ")); got != "node-a" {
		t.Errorf("HOSTNAME: %q", got)
	}
	if err := leave(file, "From-File"); err != nil {
		t.Fatal(err)
	}
	if got, _ := NodeName(env("CALICO_NODENAME_FILE="+file, "HOSTNAME=Node-A")); got != "From-File" {
		t.Errorf("file: %q", got)
	}
	if got, _ := NodeName(env("CALICO_NODENAME_FILE="+file, "NODENAME=Node-B")); got != "Node-B" {
		t.Errorf("NODENAME: %q", got)
	}
}

func TestLeave(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "mtu")
	for _, text := range []string{"1450", "1", "9000"} {
		if err := leave(file, text); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil || string(b) != text {
			t.Errorf("%q, %v: want %q without a newline", b, err, text)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, _ := os.ReadDir(filepath.Dir(file)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	if err := leave(filepath.Join(file, "below-a-file"), "x"); err == nil || !strings.HasPrefix(err.Error(), "write ") {
		t.Errorf("error %v", err)
	}
}
