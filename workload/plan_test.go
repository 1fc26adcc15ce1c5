package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/routes"
	"github.com/caracal-net/caracal/test/need"
)

func addrs(list string) (out []netip.Addr) {
	for a := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// TestInterface: the names are those of Calico's CNI plugin; the vectors were made with sha1sum(1).
func TestInterface(t *testing.T) {
	for pod, want := range map[string]string{"default/web-0": "cali0d7763386da", "kube-system/coredns-5d78c9869d-abcde": "cali4d5f75c480c"} {
		namespace, name, _ := strings.Cut(pod, "/")
		if got := (&Endpoint{Namespace: namespace, Pod: name}).Interface(); got != want || len(got) > 15 {
			t.Errorf("%s has %s, want %s", pod, got, want)
		}
	}
}

// TestPlan: what becomes of endpoints.
func TestPlan(t *testing.T) {
	web := (&Endpoint{Namespace: "a", Pod: "web"}).Interface()
	host := routes.NewHost([]routes.Interface{
		{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}, {Name: web, Index: 3, Up: true},
	}, nil, nil)
	for _, c := range []struct {
		name      string
		endpoints []Endpoint
		routes    string // destinations
		settings  int
		problem   string // a part of the only one
	}{
		{"nothing", nil, "", 0, ""},
		{"both families", []Endpoint{{Namespace: "a", Pod: "web", Addrs: addrs("10.1.0.5 fd00::5")}}, "10.1.0.5/32 fd00::5/128", 8, ""},
		{"one family", []Endpoint{{Namespace: "a", Pod: "web", Addrs: addrs("10.1.0.5")}}, "10.1.0.5/32", 5, ""},
		{"mapped, and twice", []Endpoint{{Namespace: "a", Pod: "web", Addrs: addrs("::ffff:10.1.0.5 10.1.0.5")}}, "10.1.0.5/32", 5, ""},
		{"its interface is missing", []Endpoint{{Namespace: "a", Pod: "late", Addrs: addrs("10.1.0.6")}, {Namespace: "a", Pod: "web", Addrs: addrs("10.1.0.5")}}, "10.1.0.6/32 10.1.0.5/32", 10, ""},
		{"no address yet", []Endpoint{{Namespace: "a", Pod: "web", Addrs: nil}}, "", 0, ""},
		{"one address, two pods, in any order", []Endpoint{{Namespace: "b", Pod: "web", Addrs: addrs("10.1.0.5")}, {Namespace: "a", Pod: "web", Addrs: addrs("10.1.0.5")}}, "10.1.0.5/32", 5,
			"Pod b/web: 10.1.0.5 is also the address of Pod a/web"},
		{"the host's network", []Endpoint{{Namespace: "a", Pod: "web", Addrs: addrs("192.0.2.1")}}, "", 0, "this host's own address"},
		{"no workload's address", []Endpoint{{Namespace: "a", Pod: "web", Addrs: addrs("127.0.0.1")}}, "", 0, "no address of a workload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := slices.Clone(c.endpoints)
			out := Plan(c.endpoints, host)
			var dst []string
			for _, r := range out.Change.Routes {
				dst = append(dst, r.Dst.String())
				if r.NextHops[0].Gateway.IsValid() || (r.Scope == routes.ScopeLink) != r.Dst.Addr().Is4() || !strings.HasPrefix(r.Reason.Source, "Pod a/") {
					t.Errorf("%+v, %+v", r, r.Reason)
				}
			}
			for _, p := range out.Here {
				if p.Addr() == netip.MustParseAddr("10.1.0.6") || !slices.Contains(dst, p.String()) || !slices.IsSortedFunc(out.Here, netip.Prefix.Compare) {
					t.Errorf("%v are here", out.Here)
				}
			}
			if len(out.Here) < len(dst)-1 {
				t.Errorf("%v are here", out.Here)
			}
			if got := strings.Join(dst, " "); got != c.routes || !out.Change.Whole || len(out.Change.Settings) != c.settings {
				t.Errorf("routes %q, want %q; %d settings, want %d", got, c.routes, len(out.Change.Settings), c.settings)
			}
			told := fmt.Sprint(len(out.Problems))
			for _, p := range out.Problems {
				told = p.Object + ": " + p.Text
			}
			if (c.problem == "") != (len(out.Problems) == 0) || !strings.Contains(told, c.problem) || len(out.Problems) > 1 {
				t.Errorf("problems %v, want %q", out.Problems, c.problem)
			}
			if !slices.EqualFunc(given, c.endpoints, func(a, b Endpoint) bool { return a.Pod == b.Pod && a.Namespace == b.Namespace }) {
				t.Error("the caller's list was sorted")
			}
		})
	}
}

// TestDialled: what an endpoint dials is put on its interface in the families that it has, and not twice where an address is another's.
func TestDialled(t *testing.T) {
	both := addrs("169.254.0.179 fd12::1")
	e := Endpoint{Namespace: "a", Pod: "web", Addrs: addrs("10.1.0.5"), Dialled: both}
	for _, c := range []struct {
		addrs, want string
	}{{"10.1.0.5", "169.254.0.179"}, {"fd00::5", "fd12::1"}, {"10.1.0.5 fd00::5", "169.254.0.179 fd12::1"}, {"", ""}, {"127.0.0.1", ""}} {
		e.Addrs = addrs(c.addrs)
		var got []string
		for _, a := range Plan([]Endpoint{e}, routes.NewHost(nil, nil, nil)).Change.Addresses {
			if got = append(got, a.Addr.String()); a.Device != e.Interface() {
				t.Errorf("%+v", a)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.addrs, got, c.want)
		}
	}
	if out := Plan(nil, routes.NewHost(nil, nil, nil)); out.Change.Addresses == nil {
		t.Error("nil leaves those of before")
	}
}

// TestSettings: the kernel has every setting under the name it is given here.
func TestSettings(t *testing.T) {
	ns := need.Namespace(t)
	e := Endpoint{Namespace: "a", Pod: "web", Addrs: addrs("10.1.0.5 fd00::5")}
	if _, err := ns.Run("ip", "link", "add", e.Interface(), "type", "veth", "peer", "name", "pod"); err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Open(kernel.Options{Namespace: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	host := routes.NewHost([]routes.Interface{{Name: e.Interface(), Index: 2}}, nil, nil)
	list := Plan([]Endpoint{e}, host).Change.Settings
	if len(list) != 8 {
		t.Fatalf("%d settings", len(list))
	}
	for _, s := range list {
		if err := k.WriteSysctl(t.Context(), s.Name, s.Value); err != nil {
			t.Error(err)
		}
		if v, err := k.ReadSysctl(t.Context(), s.Name); err != nil || v != s.Value {
			t.Errorf("%s is %d, %v; want %d", s.Name, v, err, s.Value)
		}
	}
}
