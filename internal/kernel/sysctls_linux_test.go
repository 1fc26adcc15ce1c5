package kernel_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/test/need"
)

// TestSysctlsOfTheNamespace: settings are those of the handle's namespace, whichever thread asks, and so is what is told of them.
func TestSysctlsOfTheNamespace(t *testing.T) {
	var kernels [2]kernel.Kernel
	for i := range kernels {
		ns := need.Namespace(t)
		kernels[i] = open(t, kernel.Options{Namespace: ns.Path()})
		bound(t, ns, kernels[i])
		// A new namespace begins with what the machine has.
		if err := kernels[i].WriteSysctl(t.Context(), kernel.SysctlIPForward, 0); err != nil {
			t.Fatal(err)
		}
	}
	events, err := kernels[1].Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range [][2]int{{1, 0}, {0, 1}, {1, 1}, {0, 0}} {
		for i, k := range kernels {
			if err := k.WriteSysctl(t.Context(), kernel.SysctlIPForward, values[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i, k := range kernels {
			done := make(chan struct{})
			go func() { // another thread
				defer close(done)
				if v, err := k.ReadSysctl(t.Context(), kernel.SysctlIPForward); err != nil || v != values[i] {
					t.Errorf("ip_forward of namespace %d is %d, %v; want %d", i, v, err, values[i])
				}
			}()
			<-done
		}
	}
	all := 0
	for deadline := time.After(10 * time.Second); all < 2; {
		select {
		case e := <-events:
			if e.Kind == kernel.EventSysctl && e.Netconf.Link == kernel.LinkAll {
				all++
				if want := int8(all % 2); e.Netconf.Forwarding != want {
					t.Errorf("change %d is to %d, want %d", all, e.Netconf.Forwarding, want)
				}
			}
		case <-deadline:
			t.Fatalf("%d changes were told, want 2", all)
		}
	}
}

// TestProcSys: in a container /proc/sys is read-only, and the host's is mounted elsewhere.
func TestProcSys(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/proc/sys/net", filepath.Join(dir, "net")); err != nil {
		t.Fatal(err)
	}
	ns := need.Namespace(t)
	k := open(t, kernel.Options{Namespace: ns.Path(), ProcSys: dir})
	for _, want := range []int{1, 0} {
		if err := k.WriteSysctl(t.Context(), kernel.SysctlIPForward, want); err != nil {
			t.Fatal(err)
		}
		out, err := ns.Run("cat", "/proc/sys/net/ipv4/ip_forward")
		if got := strings.TrimSpace(out); err != nil || got != strconv.Itoa(want) {
			t.Errorf("ip_forward is %q, %v; want %d", got, err, want)
		}
	}
	nowhere := open(t, kernel.Options{Namespace: ns.Path(), ProcSys: filepath.Join(dir, "nowhere")})
	if _, err := nowhere.ReadSysctl(t.Context(), kernel.SysctlIPForward); !errors.Is(err, kernel.ErrNotThere) {
		t.Errorf("a place that is not there: %v, want %v", err, kernel.ErrNotThere)
	}
}
