package scale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
	"github.com/caracal-net/caracal/test/kubetest"
)

// host gives the namespace an uplink with our node's address and a way to all others.
func host(t *testing.T, ns netns.NS) {
	t.Helper()
	for _, line := range []string{
		"link add eth0 type veth peer name switch", "link set eth0 up", "link set switch up", "addr add " + address(0).String() + "/24 dev eth0",
		"route add default via 172.16.0.254 dev eth0",
	} {
		if _, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
}

// process is a running caracald.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// program is the daemon to measure: CARACAL_BIN names a directory that has it, else it is built.
func program(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("CARACAL_BIN"); dir != "" {
		return filepath.Join(dir, "caracald")
	}
	path := filepath.Join(t.TempDir(), "caracald")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/caracald").CombinedOutput(); err != nil {
		t.Fatalf("build caracald: %v\n%s", err, out)
	}
	return path
}

func startDaemon(t *testing.T, ns netns.NS, server *kubetest.Server) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{log: filepath.Join(dir, "log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(program(t), "run", "--node", self, "--backend", "vxlan", "--datastore", "kubernetes",
		"--socket", filepath.Join(dir, "s"), "--snapshot", filepath.Join(dir, "snapshot"), "--log-level", "warn")
	p.cmd.Env = append(os.Environ(), "KUBECONFIG="+server.Kubeconfig(t, kubetest.Admin), "CALICO_NODENAME_FILE="+filepath.Join(dir, "nodename"),
		"WAIT_FOR_DATASTORE=true", "NO_DEFAULT_POOLS=true", "IP="+address(0).String()+"/24")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := ns.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }() // how it ended says nothing: we end it
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		if text, _ := os.ReadFile(p.log); t.Failed() {
			t.Logf("the daemon's log:\n%s", text)
		}
	})
	return p
}

// cpu is the time the process has used on all cores.
func (p *process) cpu(t *testing.T) time.Duration { return kubetest.CPU(t, p.cmd.Process.Pid) }

// memory returns the resident memory now and at its peak, in bytes (VmRSS, VmHWM).
func (p *process) memory(t *testing.T) (now, peak int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kB int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kB); err == nil {
			now = kB << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kB); err == nil {
			peak = kB << 10
		}
	}
	if now == 0 || peak == 0 {
		t.Fatal("the process has no memory; has it ended?")
	}
	return now, peak
}
