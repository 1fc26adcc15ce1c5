package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/caracal-net/caracal/internal/netns"
)

// pod is one container as a kubelet and a container runtime would run it: the image is two programs and nothing else, the
// root is read-only, /proc/sys is read-only, volumes are mounted, all capabilities but the listed ones are gone for good.
// It lives in a network namespace that stands for the host's network.
type pod struct {
	ns    netns.NS
	child childSpec
	log   string
}

// childSpec is what the child is told.
type childSpec struct {
	Root     string            // empty directory
	Programs []string          // of the image
	Files    map[string]string // path in the container to content: the service account's
	Mounts   map[string]string // path in the container to path on the host
	ReadOnly bool
	Caps     []string
	Args     []string
	Env      []string
}

const childEnv = "CARACAL_TEST_POD"

// capabilities by the names of capabilities(7) without CAP_.
func capabilities() map[string]uintptr {
	return map[string]uintptr{"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "NET_RAW": unix.CAP_NET_RAW}
}

// newPod takes the parts of a pod that the manifests use. Paths of the host lie below a directory of the test, but for /proc.
func newPod(t *testing.T, ns netns.NS, spec *corev1.PodSpec, bin string, env map[string]string, files map[string]string) *pod {
	t.Helper()
	c, dir := &spec.Containers[0], t.TempDir()
	p := &pod{ns: ns, log: filepath.Join(dir, "log"), child: childSpec{
		Root: filepath.Join(dir, "root"), Files: files, Mounts: map[string]string{}, ReadOnly: *c.SecurityContext.ReadOnlyRootFilesystem,
		Programs: []string{filepath.Join(bin, "caracald"), filepath.Join(bin, "caracal")}, Args: append([]string{"/caracald"}, c.Args...),
	}}
	for _, name := range c.SecurityContext.Capabilities.Add {
		p.child.Caps = append(p.child.Caps, string(name))
	}
	for name, value := range env {
		p.child.Env = append(p.child.Env, name+"="+value)
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		path := spec.Volumes[i].HostPath.Path
		if !strings.HasPrefix(path, "/proc/") {
			path = filepath.Join(dir, "host", path)
			if err := os.MkdirAll(path, 0o755); err != nil { // DirectoryOrCreate
				t.Fatal(err)
			}
		}
		p.child.Mounts[m.MountPath] = path
	}
	return p
}

// command is a process of the container: the entrypoint or a probe.
func (p *pod) command(t *testing.T, args []string) *exec.Cmd {
	t.Helper()
	child := p.child
	child.Args = args
	text, err := json.Marshal(child)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{childEnv + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: 0}
	return cmd
}

// start runs the entrypoint. stop ends it as a kubelet does, and returns how long that took.
func (p *pod) start(t *testing.T) (stop func() time.Duration) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := p.command(t, p.child.Args)
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }() // how it ended is in the log
	ended := false
	stop = func() time.Duration {
		if ended {
			return 0
		}
		ended = true
		began := time.Now()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-done
			t.Error("the daemon had to be killed")
		}
		return time.Since(began)
	}
	t.Cleanup(func() {
		stop()
		if text, _ := os.ReadFile(p.log); t.Failed() {
			t.Logf("the daemon's log:\n%s", text)
		}
	})
	return stop
}

// probe runs a probe's command in the container.
func (p *pod) probe(t *testing.T, probe *corev1.Probe) error {
	t.Helper()
	out, err := p.output(t, probe.Exec.Command...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// output runs a command in the container and returns what it wrote.
func (p *pod) output(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := p.command(t, args)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.ns.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// becomePod is the child: it makes the container around itself and becomes its process. It does not return.
func becomePod(text string) {
	var c childSpec
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.enter()
	}
	fmt.Fprintln(os.Stderr, "container:", err)
	os.Exit(127)
}

func (c *childSpec) enter() error {
	if err := c.mounts(); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(c.Root), os.Chdir("/")); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	runtime.LockOSThread() // capabilities are a thread's; the one that executes the program gives it its own
	var keep uint32
	for _, name := range c.Caps {
		n, ok := capabilities()[name]
		if !ok {
			return fmt.Errorf("capability %s is not known here", name)
		}
		keep |= 1 << n
	}
	for n := uintptr(0); n <= unix.CAP_LAST_CAP; n++ {
		if n < 32 && keep&(1<<n) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", n, err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep, Inheritable: keep}}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return syscall.Exec(c.Args[0], c.Args, c.Env)
}

// mounts makes the container's file system.
func (c *childSpec) mounts() error {
	at := func(path string) string { return filepath.Join(c.Root, path) }
	bind := func(from, path string) error {
		if err := os.MkdirAll(at(path), 0o755); err != nil {
			return err
		}
		return unix.Mount(from, at(path), "", unix.MS_BIND|unix.MS_REC, "")
	}
	err := errors.Join(os.MkdirAll(c.Root, 0o755), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", c.Root, "tmpfs", 0, ""), os.Mkdir(at("proc"), 0o755), unix.Mount("proc", at("proc"), "proc", 0, ""),
		bind(at("proc/sys"), "proc/sys"), unix.Mount("", at("proc/sys"), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	for _, program := range c.Programs {
		err = errors.Join(err, copyFile(program, at(filepath.Base(program)), 0o755))
	}
	for path, content := range c.Files {
		err = errors.Join(err, os.MkdirAll(filepath.Dir(at(path)), 0o755), os.WriteFile(at(path), []byte(content), 0o600))
	}
	for path, from := range c.Mounts {
		err = errors.Join(err, bind(from, path))
	}
	if c.ReadOnly {
		err = errors.Join(err, unix.Mount("", c.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	}
	if err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
