package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is where ip(8) looks for named namespaces.
const dir = "/run/netns"

// NS is a named network namespace.
type NS struct{ Name string }

// Path returns the file that pins the namespace.
func (n NS) Path() string { return filepath.Join(dir, n.Name) }

// Create makes and pins a new namespace with its loopback interface up. The caller removes it with Delete.
func Create(name string) (NS, error) {
	ns := NS{Name: name}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ns, fmt.Errorf("namespace %s: %w", name, err)
	}
	f, err := os.OpenFile(ns.Path(), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return ns, fmt.Errorf("namespace %s: %w", name, err)
	}
	_ = f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(self, ns.Path(), "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount: %w", err)
		}
		return loopbackUp()
	})
	if err != nil {
		return ns, errors.Join(fmt.Errorf("namespace %s: %w", name, err), ns.Delete())
	}
	return ns, nil
}

// Open returns an existing namespace.
func Open(name string) (NS, error) {
	ns := NS{Name: name}
	if _, err := os.Stat(ns.Path()); err != nil {
		return ns, fmt.Errorf("namespace %s: %w", name, err)
	}
	return ns, nil
}

// List returns the names of the namespaces that begin with prefix.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Delete unpins the namespace; the kernel removes it when its last process has gone. Deleting one that is gone is no error.
func (n NS) Delete() error {
	if err := unix.Unmount(n.Path(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace %s: %w", n.Name, err)
	}
	if err := os.Remove(n.Path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove namespace %s: %w", n.Name, err)
	}
	return nil
}

// Do runs f on a thread inside the namespace. What f starts as goroutines is not inside.
func (n NS) Do(f func() error) error {
	return onThread(func() error {
		fd, err := unix.Open(n.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// Start starts the command inside the namespace. The command must not ask for SysProcAttr.Pdeathsig: that signal comes when the
// starting thread ends, which is at once.
func (n NS) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Run runs a command inside the namespace and returns what it printed on both streams.
func (n NS) Run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Start(cmd); err != nil {
		return "", fmt.Errorf("%s in namespace %s: %w", name, n.Name, err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s %s in namespace %s: %w: %s", name, strings.Join(args, " "), n.Name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// onThread runs f on a thread of its own that ends afterwards, so that no other goroutine ever meets its namespace.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime destroys the thread with the goroutine
		done <- f()
	}()
	return <-done
}

// loopbackUp sets lo up in the calling thread's namespace; without it a namespace cannot reach its own addresses.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}
