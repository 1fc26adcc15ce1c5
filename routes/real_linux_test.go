package routes

import (
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
