package kernel_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/kernel/kerneltest"
	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/need"
)

// machine is a new namespace of this machine's kernel.
func machine(t *testing.T) *kerneltest.Machine {
	ns := need.Namespace(t)
	k := open(t, kernel.Options{Namespace: ns.Path()})
	bound(t, ns, k)
	h := host{t, ns, k}
	return &kerneltest.Machine{
		Kernel: k, Wire: h.wire, SetCarrier: h.setCarrier, Append: h.appendRoute,
		LossyWatch: func(ctx context.Context) (<-chan kernel.Event, error) {
			return open(t, kernel.Options{Namespace: ns.Path(), WatchBuffer: 1}).Watch(ctx)
		},
	}
}

// bound ends the test unless the handle's sysctls are those of its namespace: the cases write some, and must not meet the machine's own.
func bound(t testing.TB, ns netns.NS, k kernel.Kernel) {
	t.Helper()
	const name, mark = "net/ipv4/ip_default_ttl", 77
	if err := ns.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(strconv.Itoa(mark)), 0) }); err != nil {
		t.Fatal(err)
	}
	if v, err := k.ReadSysctl(t.Context(), name); err != nil || v != mark {
		t.Fatalf("the handle reads %s as %d, %v; its namespace has %d", name, v, err, mark)
	}
}

func open(t testing.TB, o kernel.Options) kernel.Kernel {
	t.Helper()
	k, err := kernel.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// host does what other programs do, with ip(8).
type host struct {
	t  testing.TB
	ns netns.NS
	k  kernel.Kernel
}

func (h host) ip(args ...string) string {
	h.t.Helper()
	need.Tool(h.t, "ip", "iproute2")
	out, err := h.ns.Run("ip", args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h host) wire(name string) int {
	h.t.Helper()
	h.ip("link", "add", name, "up", "type", "veth", "peer", "name", name+"p")
	h.ip("link", "set", name+"p", "up")
	links, err := h.k.ListLinks(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == name {
			return l.Index
		}
	}
	h.t.Fatalf("link %s is not there", name)
	return 0
}

func (h host) name(index int) string {
	links, err := h.k.ListLinks(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range links {
		if l.Index == index {
			return l.Name
		}
	}
	return fmt.Sprintf("if%d", index)
}

func (h host) setCarrier(index int, on bool) {
	h.t.Helper()
	state := "down"
	if on {
		state = "up"
	}
	h.ip("link", "set", h.name(index)+"p", state)
}

func (h host) appendRoute(r *kernel.Route) error {
	args := append([]string{"route", "append"}, strings.Fields(kernel.FormatRoute(r, h.name))...)
	_, err := h.ns.Run("ip", args...)
	return err
}

func TestConformance(t *testing.T) {
	need.Root(t)
	kerneltest.Conformance(t, machine)
}

func TestConformanceIPIP(t *testing.T) {
	need.IPIP(t)
	kerneltest.ConformanceIPIP(t, machine)
}
