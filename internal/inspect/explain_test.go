package inspect

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/kernel"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
	"github.com/caracal-net/caracal/routes"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// golden compares text with testdata/name, and refuses lines that end in blanks.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	for i, line := range strings.Split(string(got), "\n") {
		if strings.TrimRight(line, " \t") != line {
			t.Errorf("%s: line %d ends in blanks: %q", name, i+1, line)
		}
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it); got:\n%s\nwant:\n%s", path, got, want)
	}
}

// edit changes the status of one prefix.
func (w *world) edit(dst string, change func(*routes.Status)) {
	for i := range w.statuses {
		if w.statuses[i].Route.Dst == pfx(dst) {
			change(&w.statuses[i])
			return
		}
	}
	panic("no status of " + dst)
}

// nowhere makes the route to a prefix one whose next hop leads nowhere.
func (w *world) nowhere(dst string) {
	const why = "next hop 198.51.100.77: no route of the host leads there"
	w.edit(dst, func(s *routes.Status) {
		s.Outcome, s.Kernel, s.Route.NextHops, s.Route.Unroutable = routes.Unroutable, "", nil, why
	})
	p := &w.paths[pfx(dst)][0]
	p.NextHop, p.Best, p.Lost = addr("198.51.100.77"), false, why
}

func (w *world) drop(dst string) {
	w.statuses = slices.DeleteFunc(w.statuses, func(s routes.Status) bool { return s.Route.Dst == pfx(dst) })
}

func outcome(o routes.Outcome, detail string) func(*routes.Status) {
	return func(s *routes.Status) { s.Outcome, s.Detail, s.Kernel, s.Attempts = o, detail, "", 3 }
}

// errno is a failed lookup.
func errno(e syscall.Errno) func(netip.Addr) (kernel.Answer, error) {
	return func(a netip.Addr) (kernel.Answer, error) {
		return kernel.Answer{}, fmt.Errorf("look up %v: %w", a, kernel.FromErrno(e))
	}
}

// rebuild replaces the state by one with changes.
func (w *world) rebuild(change func(*cluster.Builder)) {
	b := testBuilder()
	change(b)
	w.state = b.State()
}

var local = func(a netip.Addr) (kernel.Answer, error) {
	m := match(netip.PrefixFrom(a, a.BitLen()).String(), kernel.ProtoKernel, 0, hop{"", "lo"})
	m.Match.Type = kernel.Local
	return m.to(a), nil
}

// explainCases are the ways an address can be, each with the level of its verdict. The golden file is
// testdata/explain/<name>.txt.
var explainCases = []struct {
	name    string
	addr    string
	verdict caracalv1.Level
	change  func(*world)
}{
	// As it should be.
	{"local-workload", "10.10.0.7", ok, func(w *world) {
		w.lookup = match("10.10.0.7/32", kernel.ProtoBoot, 0, hop{"", "cali12ab"}).always
	}},
	{"local-unused", "10.10.0.8", warn, nil},
	{"remote-vxlan-tunnel", "10.10.2.7", ok, nil},
	{"remote-vxlan-direct", "10.10.1.7", ok, nil},
	{"remote-vxlan-v6", "fd00:10::8007", ok, nil},
	{"remote-ipip-tunnel", "10.20.2.7", ok, nil},
	{"remote-ipip-direct", "10.20.1.7", ok, nil},
	{"remote-plain-multipath", "10.30.2.7", ok, nil},
	{"borrowed-by-remote", "10.10.1.9", ok, nil},
	{"borrowed-by-us", "10.10.1.10", ok, func(w *world) {
		w.lookup = match("10.10.1.10/32", kernel.ProtoBoot, 0, hop{"", "cali34cd"}).always
	}},
	{"learned-outside-pools", "203.0.113.9", warn, nil},
	{"learned-next-hop-nowhere", "203.0.113.9", warn, func(w *world) {
		w.nowhere("203.0.113.0/24")
		w.lookup = match("0.0.0.0/0", kernel.ProtoStatic, 0, hop{"192.0.2.254", "eth0"}).always
	}},
	{"learned-next-hop-nowhere-and-no-way", "203.0.113.9", missing, func(w *world) {
		w.nowhere("203.0.113.0/24")
		w.lookup = errno(syscall.ENETUNREACH)
	}},
	{"learned-behind-another", "203.0.113.9", warn, func(w *world) {
		w.edit("203.0.113.0/24", func(s *routes.Status) {
			s.Route.Metric, s.Kernel = 2147483547, "203.0.113.0/24 via 192.0.2.1 dev eth0 proto 202 metric 2147483547"
		})
		w.lookup = match("203.0.113.0/24", kernel.ProtoStatic, 100, hop{"192.0.2.254", "eth0"}).always
	}},
	{"learned-before-another", "203.0.113.9", missing, func(w *world) {
		w.edit("203.0.113.0/24", func(s *routes.Status) {
			s.Route.Metric, s.Kernel = 50, "203.0.113.0/24 via 192.0.2.1 dev eth0 proto 202 metric 50"
		})
		w.lookup = match("203.0.113.0/24", kernel.ProtoStatic, 100, hop{"192.0.2.254", "eth0"}).always
	}},

	// Addresses of nodes and tunnels.
	{"node-own-address", "192.0.2.5", ok, func(w *world) { w.lookup = local }},
	{"node-own-address-not-configured", "192.0.2.5", missing, nil},
	{"node-remote-address", "198.51.100.7", ok, nil},
	{"node-address-claimed-twice", "198.51.100.7", warn, func(w *world) {
		w.rebuild(func(b *cluster.Builder) {
			b.SetNode(&cluster.Node{Name: "node-z", Addr4: pfx("198.51.100.7/24")})
		})
	}},
	{"tunnel-own-vxlan", "10.10.0.1", ok, func(w *world) { w.lookup = local }},
	{"tunnel-own-ipip-not-configured", "10.20.0.1", missing, nil},
	{"tunnel-remote-vxlan", "10.10.2.1", ok, nil},
	{"tunnel-remote-ipip", "10.20.2.1", ok, nil},
	{"tunnel-claimed-twice", "10.10.2.1", warn, func(w *world) {
		w.rebuild(func(b *cluster.Builder) {
			b.SetNode(&cluster.Node{Name: "node-d", Addr4: pfx("198.51.100.8/24"), VXLANAddr4: addr("10.10.2.1")})
		})
	}},

	// Something is missing in the datastore.
	{"no-state", "10.10.2.7", missing, func(w *world) { w.state, w.statuses = nil, nil }},
	{"no-pool", "8.8.8.8", warn, nil},
	{"no-block", "10.10.200.7", missing, nil},
	{"block-without-owner", "10.10.8.7", missing, nil},
	{"block-without-owner-borrowed", "10.10.6.3", ok, func(w *world) {
		w.statuses = append(w.statuses, route(routes.OwnerVXLAN, "10.10.6.3/32", routes.Installed,
			&routes.Reason{Rule: "borrowed address; CrossSubnet: remote node is outside our subnet, tunnel", Source: "IPAMBlock 10-10-6-0-26"},
			via("10.10.2.1", "vxlan.calico", true)))
	}},
	{"block-virtual", "10.10.7.7", warn, nil},
	{"node-gone", "10.10.9.7", missing, nil},
	{"node-without-address", "10.10.2.7", missing, func(w *world) {
		w.vteps = w.vteps[:0]
		w.rebuild(func(b *cluster.Builder) { b.SetNode(&cluster.Node{Name: "node-c", VXLANAddr4: addr("10.10.2.1")}) })
		w.edit("10.10.2.0/26", func(s *routes.Status) {
			s.Outcome, s.Kernel, s.Route.Unroutable, s.Route.NextHops = routes.Unroutable, "", "the VTEP of node-c is not known", nil
		})
	}},
	{"self-not-in-datastore", "10.10.2.7", warn, func(w *world) {
		w.rebuild(func(b *cluster.Builder) { b.DeleteNode("node-a") })
	}},
	{"borrowed-no-route", "10.20.1.9", missing, nil},

	// The way is not known.
	{"vtep-unknown", "10.10.3.7", missing, nil},
	{"vtep-collides", "10.10.2.7", missing, func(w *world) {
		w.vteps[2].Problem = "MAC 66:01:02:03:04:2c is also that of node-b, which comes first"
		w.edit("10.10.2.0/26", outcome(routes.Unroutable, "the VTEP of node-c is refused"))
	}},
	{"bgp-no-path-session-down", "10.30.3.7", missing, nil},
	{"bgp-no-path-session-up", "10.30.3.7", missing, func(w *world) {
		w.peers[3].State, w.peers[3].EndOfRIB, w.peers[3].LastError = "Established", true, ""
	}},
	{"bgp-no-path-waiting", "10.30.3.7", missing, func(w *world) {
		w.peers[3].State, w.peers[3].LastError = "Established", ""
	}},
	{"bgp-path-stale", "10.20.2.7", warn, func(w *world) {
		w.paths[pfx("10.20.2.0/26")][0].Stale = true
		w.peers[0].State, w.peers[0].Restarting, w.peers[0].LastError = "Active", true, "received: connection reset"
	}},
	{"bgp-path-loses", "10.20.1.7", ok, func(w *world) {
		p := pfx("10.20.1.0/26")
		w.paths[p] = append([]bgp.Candidate{{Path: bgp.Path{Prefix: p, Peer: "Global_192_0_2_1", PeerAddr: addr("192.0.2.1"), NextHop: addr("192.0.2.1"), LocalPref: 100, MED: 5}, Lost: "LOCAL_PREF 100 is lower than 2147482623"}}, w.paths[p]...)
	}},
	{"backend-vxlan-ipip-pool", "10.20.2.7", missing, func(w *world) {
		w.backend, w.peers, w.paths = cluster.BackendVXLAN, nil, nil
		w.edit("10.20.2.0/26", func(s *routes.Status) {
			s.Outcome, s.Owner, s.Kernel, s.Route.Reason, s.Route.NextHops = routes.Unroutable, routes.OwnerVXLAN, "", nil, nil
			s.Route.Unroutable = "IPIP pool ipip needs BGP, and the backend is vxlan"
		})
	}},
	{"backend-none", "10.10.2.7", missing, func(w *world) { w.backend, w.statuses = cluster.BackendNone, nil }},

	// The route is not in the kernel.
	{"route-not-wanted", "10.10.2.7", missing, func(w *world) { w.drop("10.10.2.0/26") }},
	{"route-pending", "10.10.2.7", missing, func(w *world) { w.edit("10.10.2.0/26", outcome(routes.Waiting, "")) }},
	{"route-no-device", "10.10.2.7", missing, func(w *world) {
		w.edit("10.10.2.0/26", outcome(routes.NoDevice, "vxlan.calico is down"))
	}},
	{"route-failed", "10.10.2.7", missing, func(w *world) {
		w.edit("10.10.2.0/26", outcome(routes.Failed, "the gateway is not reachable on that link: network is unreachable"))
	}},
	{"route-foreign", "10.10.2.7", missing, func(w *world) {
		w.edit("10.10.2.0/26", outcome(routes.Foreign, "a route of protocol bird is there"))
		w.lookup = match("10.10.2.0/26", kernel.ProtoBird, 1024, hop{"192.0.2.99", "eth0"}).always
	}},
	{"route-foreign-same-way", "10.10.2.7", warn, func(w *world) {
		w.edit("10.10.2.0/26", outcome(routes.Foreign, "a route of protocol 80 is there"))
		w.lookup = match("10.10.2.0/26", kernel.ProtoFelix, 1024, hop{"10.10.2.1", "vxlan.calico"}).always
	}},
	{"route-lost", "10.20.2.7", warn, func(w *world) {
		w.statuses = append(w.statuses, with(route(routes.OwnerVXLAN, "10.20.2.0/26", routes.Installed, &routes.Reason{Rule: "Always: tunnel", Source: "IPAMBlock 10-20-2-0-26"},
			via("10.10.2.1", "vxlan.calico", true)), func(*routes.Status) {}))
		for i := range w.statuses {
			if s := &w.statuses[i]; s.Route.Dst == pfx("10.20.2.0/26") && s.Owner == routes.OwnerBGP {
				outcome(routes.Lost, "owner vxlan wins")(s)
			}
		}
	}},
	{"route-of-other-owner", "10.20.2.7", warn, func(w *world) {
		w.statuses = append(w.statuses, with(route(routes.OwnerVXLAN, "10.20.2.0/26", routes.Unroutable, &routes.Reason{Rule: "Always: tunnel", Source: "IPAMBlock 10-20-2-0-26"}),
			func(s *routes.Status) { s.Route.Unroutable = "the VTEP of node-c is not known" }))
	}},
	{"route-kept", "10.10.2.7", warn, func(w *world) {
		w.edit("10.10.2.0/26", func(s *routes.Status) { s.Outcome, s.Detail = routes.Kept, "bgp is not in sync" })
	}},
	{"route-shorter-stands-in", "10.10.1.9", missing, func(w *world) {
		w.edit("10.10.1.9/32", outcome(routes.Failed, "the kernel refused the request as invalid: invalid argument"))
	}},

	// The kernel does not do what we believe.
	{"kernel-lost-route", "10.10.2.7", missing, func(w *world) {
		w.lookup = match("0.0.0.0/0", kernel.ProtoStatic, 0, hop{"192.0.2.1", "eth0"}).always
	}},
	{"kernel-lost-route-v6", "fd00:10::8007", missing, func(w *world) { w.lookup = errno(syscall.ENETUNREACH) }},
	{"kernel-other-hop", "10.10.2.7", missing, func(w *world) {
		w.lookup = match("10.10.2.0/26", kernel.ProtoCaracal, 1024, hop{"10.10.99.1", "vxlan.calico"}).always
	}},
	{"kernel-other-device", "10.20.2.7", missing, func(w *world) {
		w.lookup = match("10.20.2.0/26", kernel.ProtoCaracal, 1024, hop{"198.51.100.7", "eth0"}).always
	}},
	{"kernel-foreign-same-prefix", "10.10.2.7", missing, func(w *world) {
		w.lookup = match("10.10.2.0/26", kernel.ProtoFelix, 0, hop{"192.0.2.99", "eth0"}).always
	}},
	{"kernel-foreign-longer", "10.10.2.7", warn, func(w *world) {
		w.lookup = match("10.10.2.7/32", kernel.ProtoStatic, 0, hop{"192.0.2.99", "eth0"}).always
	}},
	{"kernel-other-metric", "10.10.2.7", missing, func(w *world) {
		w.lookup = match("10.10.2.0/26", kernel.ProtoCaracal, 512, hop{"10.10.2.1", "vxlan.calico"}).always
	}},
	{"kernel-unknown-own-route", "10.10.2.7", missing, func(w *world) {
		w.edit("10.10.2.0/26", outcome(routes.Failed, "no buffer space available"))
		w.lookup = match("10.10.2.0/26", kernel.ProtoCaracal, 1024, hop{"10.10.2.1", "vxlan.calico"}).always
	}},
	{"kernel-unknown-own-longer", "10.10.2.7", missing, func(w *world) {
		w.lookup = match("10.10.2.7/32", kernel.ProtoCaracal, 1024, hop{"10.10.1.1", "vxlan.calico"}).always
	}},
	{"kernel-blackhole-for-unicast", "10.10.2.7", missing, func(w *world) { w.lookup = errno(syscall.EINVAL) }},
	{"kernel-blackhole-lost", "10.10.0.8", missing, func(w *world) {
		w.lookup = match("0.0.0.0/0", kernel.ProtoStatic, 0, hop{"192.0.2.1", "eth0"}).always
	}},
	{"kernel-blackhole-lost-no-default", "10.10.0.8", missing, func(w *world) { w.lookup = errno(syscall.ENETUNREACH) }},
	{"kernel-blackhole-answered", "10.10.0.8", warn, func(w *world) {
		m := match("10.10.0.0/26", kernel.ProtoCaracal, 1024)
		m.Match.Type = kernel.Blackhole
		w.lookup = m.always
	}},
	{"kernel-no-carrier", "10.10.1.7", warn, func(w *world) {
		m := match("10.10.1.0/26", kernel.ProtoCaracal, 1024, hop{"192.0.2.6", "eth0"})
		m.Chosen.Dead = true
		w.lookup = m.always
	}},
	{"kernel-address-configured-here", "10.10.2.7", missing, func(w *world) { w.lookup = local }},
	{"kernel-silent", "10.10.2.7", warn, func(w *world) {
		w.lookup = func(netip.Addr) (kernel.Answer, error) {
			return kernel.Answer{}, errors.New("look up 10.10.2.7: socket closed")
		}
	}},
	{"kernel-without-match", "10.10.2.7", warn, func(w *world) {
		w.lookup = func(netip.Addr) (kernel.Answer, error) {
			return kernel.Answer{Text: "10.10.2.7 via 10.10.2.1 dev vxlan.calico"}, nil
		}
	}},
}

func TestExplain(t *testing.T) {
	used := map[string]bool{}
	for _, c := range explainCases {
		file := "explain/" + c.name + ".txt"
		if used[file] {
			t.Fatalf("two cases are named %s", c.name)
		}
		used[file] = true
		t.Run(c.name, func(t *testing.T) {
			w := testWorld()
			if c.change != nil {
				c.change(w)
			}
			src := w.sources()
			m := explain(context.Background(), &src, addr(c.addr))
			if m.Verdict.Level != c.verdict {
				t.Errorf("verdict %v, want %v: %s", m.Verdict.Level, c.verdict, m.Verdict.Text)
			}
			if last := m.Steps[len(m.Steps)-1]; last.Kind != stepKernel {
				t.Errorf("the last step is %v, want the kernel's answer", last.Kind)
			}
			var b bytes.Buffer
			if err := (Renderer{Now: epoch}).Explain(&b, m); err != nil {
				t.Fatal(err)
			}
			golden(t, file, b.Bytes())
		})
	}
	files, err := filepath.Glob("testdata/explain/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, f := range files {
		if rel, _ := filepath.Rel("testdata", f); !used[rel] {
			t.Errorf("%s belongs to no case; remove it", f)
		}
	}
}
