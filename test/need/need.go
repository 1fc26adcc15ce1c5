package need

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caracal-net/caracal/internal/netns"
)

// Env is the variable that turns skips into failures when it is "all".
const Env = "CARACAL_TEST_REQUIRE"

// missing skips the test, or fails it where everything must be there.
func missing(t testing.TB, what, remedy string) {
	t.Helper()
	if os.Getenv(Env) == "all" {
		t.Fatalf("needs %s, and %s=all forbids the skip: %s", what, Env, remedy)
	}
	t.Skipf("needs %s: %s", what, remedy)
}

// Root needs effective user 0.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root", "run the tests as root or under unshare -rn")
	}
}

// Tool needs a program in PATH and returns its path.
func Tool(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name, "apt-get install "+pkg)
	}
	return path
}

// Other is for what a test has looked for itself and not found: it skips or fails, and does not return.
func Other(t testing.TB, what, remedy string) {
	t.Helper()
	missing(t, what, remedy)
}

var counter atomic.Uint64

// Namespace needs root and returns a new network namespace that is removed with the test.
func Namespace(t testing.TB) netns.NS {
	t.Helper()
	Root(t)
	ns, err := netns.Create(fmt.Sprintf("ct-%d-%d", os.Getpid(), counter.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Delete(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// HasIPIP reports whether the kernel knows IPIP devices.
func HasIPIP(t testing.TB) bool {
	t.Helper()
	ns := Namespace(t)
	if _, err := ns.Run("ip", "link", "show", "tunl0"); err == nil {
		return true
	}
	_, err := ns.Run("ip", "link", "add", "ct-probe", "type", "ipip", "local", "127.0.0.1", "remote", "127.0.0.2")
	return err == nil
}

// IPIP needs a kernel with IPIP devices. Test names that need it hold the word "IPIP", so that the guest-kernel runner
// (make test-guest) picks just them; there the skip outside is made good, so it is never a failure on the host
// when CARACAL_TEST_GUEST says that a guest run follows.
func IPIP(t testing.TB) {
	t.Helper()
	if !strings.Contains(t.Name(), "IPIP") {
		t.Fatalf("%s needs IPIP but is not named so: the guest-kernel runner would never run it", t.Name())
	}
	if HasIPIP(t) {
		return
	}
	if os.Getenv("CARACAL_TEST_GUEST") == "follows" {
		t.Skip("needs IPIP: runs in the guest kernel (make test-guest)")
	}
	missing(t, "a kernel with IPIP", "run make test-guest")
}

// APIServer needs the test API server (test/apiserver/build makes it, once for a machine) and returns its path.
func APIServer(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(apiServerEnv); path != "" {
		return path
	}
	const remedy = "run test/apiserver/build, which takes some minutes the first time"
	root, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(root, "test/apiserver/build"), "--path").Output()
	if err != nil {
		missing(t, "the test API server", remedy)
	}
	return strings.TrimSpace(string(out))
}

// apiServerEnv names a test API server that was built elsewhere.
const apiServerEnv = "CARACAL_KUBEAPI"

// Repository returns the directory above the test's that holds the module.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return "", fmt.Errorf("no go.mod above the test's directory")
	}
}
