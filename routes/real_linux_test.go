package routes

import (
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/test/need"
)

// onKernel returns a rig over the kernel of this machine, in a namespace of its own.
func onKernel(t testing.TB) *rig {
	t.Helper()
	need.Tool(t, "ip", "iproute2")
	ns := need.Namespace(t)
	r := &rig{t: t, stop: func() {}}
	for _, k := range []*kernel.Kernel{&r.k, &r.far} {
		opened, err := kernel.Open(kernel.Options{Namespace: ns.Path()})
		r.must(err)
		t.Cleanup(func() { _ = opened.Close() })
		*k = opened
	}
	r.wire = func(name string) int {
		_, err := ns.Run("ip", "link", "add", name, "up", "type", "veth", "peer", "name", "x"+name)
		r.must(err)
		_, err = ns.Run("ip", "link", "set", "x"+name, "up")
		r.must(err)
		return r.device(name).Index
	}
	r.setUp()
	t.Cleanup(func() { r.stop() })
	return r
}

func TestScenariosOnTheKernel(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) { s.run(onKernel(t)) })
	}
}
