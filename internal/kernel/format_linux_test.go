package kernel_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/test/need"
)

// ipText is what "ip -o route show" prints, without what FormatRoute leaves out.
func ipText(out string) []string {
	var lines []string
	for line := range strings.Lines(out) {
		for _, noise := range []string{"\\", " pref medium", " dead"} {
			line = strings.ReplaceAll(line, noise, "")
		}
		if word, _, _ := strings.Cut(line, " "); word == "blackhole" || word == "unreachable" || word == "prohibit" {
			line = strings.ReplaceAll(line, " dev lo", "")
		}
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(lines)
	return lines
}

// TestFormatRoute has ip(8) write routes of every form we may meet and compares its own text with ours.
func TestFormatRoute(t *testing.T) {
	routes := map[string][]string{
		"-4": {
			"10.0.1.0/26 via 192.0.2.7 dev w0 proto 202 metric 1024",
			"10.0.2.0/26 via 203.0.113.7 dev w0 proto 202 metric 1024 onlink",
			"10.0.3.0/26 via 192.0.2.7 dev w0 proto 202 src 192.0.2.1 metric 1024 mtu 1400",
			"10.0.4.0/26 dev w0 proto static scope link metric 5",
			"10.0.5.1 dev w0",
			"blackhole 10.0.6.0/26 proto bird metric 1024",
			"unreachable 10.0.7.0/26 proto 80",
			"prohibit 10.0.8.0/26 metric 9",
			"throw 10.0.9.0/26",
			"default via 192.0.2.1 dev w0 metric 100",
			"10.0.10.0/26 proto 202 metric 1024 nexthop via 192.0.2.7 dev w0 weight 1 nexthop via 192.0.2.8 dev w0 weight 3",
			"10.0.11.0/26 tos 0x10 via 192.0.2.7 dev w0 metric 1",
			"10.0.12.0/26 via inet6 fe80::9 dev w0 proto 202 metric 1024",
			"10.0.13.0/26 proto 202 nexthop via 203.0.113.9 dev w0 weight 1 onlink nexthop via 192.0.2.8 dev w1 weight 1 onlink",
			"10.0.14.0/26 via 198.51.100.7 dev gone metric 3",
			"10.0.15.0/26 nhid 1 proto 202 metric 1024",
			"10.0.16.0/26 nhid 3 proto 202 src 192.0.2.1 metric 1024 mtu 1400",
			"10.0.17.0/26 nhid 4 proto 202",
			"10.0.18.0/26 proto 202 metric 1024 nexthop via inet6 fe80::9 dev w0 weight 1 nexthop via inet6 2001:db8::9 dev w0 weight 4 nexthop via 192.0.2.7 dev w0 weight 1",
			"10.0.19.0/26 nhid 61 proto 202 metric 1024",
			"10.0.20.0/26 nhid 65 proto 202 metric 1024",
		},
		"-6": {
			"fd00:1::/64 via 2001:db8::7 dev w0 proto 202 metric 1024",
			"fd00:2::/64 via 2001:db8:ffff::7 dev w0 proto 202 metric 1024 onlink",
			"fd00:3::/64 via fe80::7 dev w0 proto 202 src 2001:db8::1 metric 1024 mtu 1400",
			"fd00:4::/64 dev w0 metric 7",
			"fd00:5::1 dev w0",
			"blackhole fd00:6::/64 proto bird metric 1024",
			"unreachable fd00:7::/64",
			"prohibit fd00:8::/64",
			"default via 2001:db8::7 dev w0 metric 100",
			"fd00:11::/64 nhid 61 proto 202 metric 1024",
			"fd00:12::/64 nhid 63 proto 202 metric 1024",
			"fd00:13::/64 nhid 64 proto 202 metric 1024",
			"fd00:10::/64 proto 202 metric 1024 nexthop via 2001:db8::7 dev w0 weight 1 nexthop via 2001:db8::8 dev w0 weight 3",
		},
	}
	ns := need.Namespace(t)
	k := open(t, kernel.Options{Namespace: ns.Path()})
	h := host{t, ns, k}
	h.wire("w0")
	h.wire("w1")
	gone := h.wire("gone")
	h.ip("addr", "add", "192.0.2.1/24", "dev", "w0")
	h.ip("addr", "add", "198.51.100.1/24", "dev", "gone")
	h.ip("addr", "add", "2001:db8::1/64", "dev", "w0", "nodad")
	for _, n := range []string{
		"id 1 via 192.0.2.7 dev w0", "id 2 via 203.0.113.7 dev w0 onlink", "id 3 group 1/2,5", "id 4 blackhole",
		"id 61 via 2001:db8::7 dev w0", "id 62 via 2001:db8:ffff::7 dev w0 onlink", "id 63 group 61/62,5", "id 65 group 1/61,3",
	} {
		h.ip(append([]string{"nexthop", "add"}, strings.Fields(n)...)...)
	}
	h.ip("-6", "nexthop", "add", "id", "64", "blackhole")
	for family, list := range routes {
		for _, r := range list {
			h.ip(append([]string{family, "route", "add"}, strings.Fields(r)...)...)
		}
	}
	h.setCarrier(gone, false)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(h.ip("route", "show", "10.0.14.0/26"), "linkdown"); {
		if time.Now().After(deadline) {
			t.Fatal("the kernel does not notice that the carrier is gone")
		}
	}
	// Other tables are none of our business.
	h.ip("route", "add", "10.99.0.0/26", "dev", "w0", "table", "100")
	h.ip("-6", "route", "add", "fd00:99::/64", "dev", "w0", "table", "1000")
	for family, list := range routes {
		want := ipText(h.ip("-o", family, "route", "show", "table", "main"))
		if len(want) <= len(list) {
			t.Fatalf("ip shows %d routes, want %d and connected ones", len(want), len(list))
		}
		var got []string
		err := k.ListRoutes(t.Context(), family == "-6", func(r *kernel.Route) bool {
			got = append(got, kernel.FormatRoute(r, h.name))
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			for i := range max(len(got), len(want)) {
				switch {
				case i >= len(got):
					t.Errorf("ip:   %s", want[i])
				case i >= len(want):
					t.Errorf("ours: %s", got[i])
				case got[i] != want[i]:
					t.Errorf("ours: %s\nip:   %s", got[i], want[i])
				}
			}
		}
	}
}

// TestFormatAnswer compares Lookup's line with "ip route get", as far as both go.
func TestFormatAnswer(t *testing.T) {
	ns := need.Namespace(t)
	k := open(t, kernel.Options{Namespace: ns.Path()})
	h := host{t, ns, k}
	h.wire("w0")
	h.ip("addr", "add", "192.0.2.1/24", "dev", "w0")
	h.ip("route", "add", "10.0.1.0/26", "via", "192.0.2.7")
	for dst, rest := range map[string]string{"10.0.1.5": " uid 0 cache", "192.0.2.9": " uid 0 cache", "192.0.2.1": " uid 0 cache <local>"} {
		want := strings.TrimSuffix(strings.Join(strings.Fields(strings.ReplaceAll(h.ip("-o", "route", "get", dst), "\\", " ")), " "), rest)
		a, err := k.Lookup(t.Context(), netip.MustParseAddr(dst))
		if err != nil {
			t.Fatal(err)
		}
		if a.Text != want {
			t.Errorf("ours %q, ip %q", a.Text, want)
		}
	}
}
