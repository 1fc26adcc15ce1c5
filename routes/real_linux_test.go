package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

// onKernel returns a rig over the kernel of this machine, in a namespace of its own.
func onKernel(t testing.TB) *rig {
	t.Helper()
	r, _ := onKernelNamespace(t)
	return r
}

// onKernelByID does so for routes that lead to nexthop objects.
func onKernelByID(t testing.TB) *rig {
	t.Helper()
	r := onKernel(t)
	r.byID = true
	return r
}

func onKernelNamespace(t testing.TB) (*rig, netns.NS) {
	t.Helper()
	need.Tool(t, "ip", "iproute2")
	ns := need.Namespace(t)
	r := &rig{t: t, stop: func() {}}
	for _, k := range []*kernel.Kernel{&r.k, &r.far} {
		opened, err := kernel.Open(kernel.Options{Namespace: ns.Path(), MuteAdds: k == &r.k}) // as the daemon does
		r.must(err)
		t.Cleanup(func() { _ = opened.Close() })
		*k = opened
	}
	r.ip = func(args ...string) {
		t.Helper()
		_, err := ns.Run("ip", args...)
		r.must(err)
	}
	r.wire = func(name string) int {
		r.ip("link", "add", name, "up", "type", "veth", "peer", "name", "x"+name)
		r.ip("link", "set", "x"+name, "up")
		return r.device(name).Index
	}
	r.setUp()
	t.Cleanup(func() { r.stop() })
	return r, ns
}

// What IPv6 makes of "ip route append" to a key of ours, as TestJoinedNextHops has it.
func TestJoinedNextHopsOnTheKernel(t *testing.T) {
	r := onKernel(t)
	r.ready(whole(via("2001:db8:1::/64", "2001:db8::7")))
	r.wantOurs(direct("2001:db8:1::/64", "2001:db8::7"))
	r.ip("-6", "route", "append", "2001:db8:1::/64", "via", "2001:db8::99", "dev", "eth0", "metric", "1024", "proto", "static", "onlink")
	const both = "2001:db8:1::/64 proto 202 metric 1024 nexthop via 2001:db8::7 dev eth0 weight 1 onlink nexthop via 2001:db8::99 dev eth0 weight 1 onlink"
	r.wantStatuses("2001:db8:1::/64 vxlan foreign: next hops of another program have joined this route")
	r.resync()
	r.wantOurs(both)
	r.apply(whole(via("2001:db8:1::/64", "2001:db8::8")))
	r.wantStatuses("2001:db8:1::/64 vxlan foreign: route of protocol static has this key")
	r.wantOurs()
	r.ip("-6", "route", "del", "2001:db8:1::/64", "metric", "1024", "proto", "static")
	r.wantOurs(direct("2001:db8:1::/64", "2001:db8::8"))
}

// Routes that "ip route append" puts beside ours under one IPv4 key stay, and so does ours.
func TestAppendedRoutesOnTheKernel(t *testing.T) {
	r := onKernel(t)
	r.ready(whole(via("10.1.0.0/26", "192.0.2.7")))
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
	r.ip("route", "append", "10.1.0.0/26", "via", "192.0.2.99", "dev", "eth0", "metric", "1024", "proto", "static")
	r.ip("route", "prepend", "10.1.0.0/26", "via", "192.0.2.98", "dev", "eth0", "metric", "1024", "proto", "static")
	theirs := func() int {
		return len(r.routes(func(k *kernel.Route) bool { return k.Protocol == kernel.ProtoStatic }))
	}
	r.resync()
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.7"))
	r.apply(whole(via("10.1.0.0/26", "192.0.2.8"))) // a replacement would hit the one in front
	r.wantStatuses("10.1.0.0/26 vxlan foreign: route of protocol static has this key")
	r.wantOurs()
	if theirs() != 2 {
		t.Fatalf("%d foreign routes, want 2", theirs())
	}
	r.ip("route", "del", "10.1.0.0/26", "proto", "static")
	r.ip("route", "del", "10.1.0.0/26", "proto", "static")
	r.wantOurs(direct("10.1.0.0/26", "192.0.2.8"))
}

func TestScenariosOnTheKernel(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Run("inline", func(t *testing.T) { s.run(onKernel(t)) })
			t.Run("objects", func(t *testing.T) { s.run(onKernelByID(t)) })
		})
	}
}

// An address of ours that another program writes over is its own from then on. The routes of the workload are there again when one of ours went.
func TestAddressWrittenOverOnTheKernel(t *testing.T) {
	r := onKernel(t)
	link := r.wire("cali1")
	shown := func(protocols ...kernel.Protocol) {
		t.Helper()
		r.eventually(func() error {
			all, err := r.far.ListAddresses(t.Context())
			r.must(err)
			var have []kernel.Protocol
			for _, a := range all {
				if a.Link == link && !a.Prefix.Addr().IsLinkLocalUnicast() || a.Link == link && a.Prefix.Addr().Is4() {
					have = append(have, a.Protocol)
				}
			}
			if !slices.Equal(have, protocols) {
				return fmt.Errorf("addresses of protocols %v, want %v", have, protocols)
			}
			return nil
		})
	}
	wish := []InterfaceAddress{{"cali1", addr("169.254.0.179")}, {"cali1", addr("fd12::1")}}
	pod := Route{Dst: pfx("10.244.0.5/32"), NextHops: []NextHop{{Device: "cali1"}}}
	r.ready(Change{Whole: true, Routes: []Route{pod}, Addresses: wish})
	shown(kernel.ProtoCaracal, kernel.ProtoCaracal)
	r.ip("address", "replace", "169.254.0.179/32", "dev", "cali1")
	r.ip("address", "replace", "fd12::1/128", "dev", "cali1")
	shown(0, 0)
	r.apply(Change{Addresses: []InterfaceAddress{}})
	r.resync()
	shown(0, 0)
	for _, a := range wish {
		r.ip("address", "del", netip.PrefixFrom(a.Addr, a.Addr.BitLen()).String(), "dev", "cali1")
	}
	r.apply(Change{Addresses: wish})
	shown(kernel.ProtoCaracal, kernel.ProtoCaracal)
	r.apply(Change{Addresses: []InterfaceAddress{}})
	shown()
	r.wantOurs("10.244.0.5 dev cali1 proto 202 scope link metric 1024")
}
