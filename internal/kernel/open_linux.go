package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// DefaultTimeout bounds one exchange with the kernel (Calico: FelixConfiguration netlinkTimeout, 10 s).
const DefaultTimeout = 10 * time.Second

// DefaultWatchBuffer is the receive buffer of the event socket in bytes. An event of one route takes about 768 of them in
// the kernel, so this is room for some 40,000 before one is lost; the memory is only used while events wait.
const DefaultWatchBuffer = 32 << 20

// Options say which kernel to open and how.
type Options struct {
	// Namespace is the path of a network namespace ("/run/netns/name"); "" is the one of the process.
	Namespace string
	// ProcSys is where sysctls are written and read, "" = /proc/sys. A container without privileges has that read-only, and
	// may be given the host's /proc/sys/net under another name: whatever the mount, the files are those of the namespace of
	// the thread that opens them.
	ProcSys string
	// Timeout bounds each exchange with the kernel, 0 = DefaultTimeout.
	Timeout time.Duration
	// WatchBuffer is the receive buffer of the event socket in bytes, 0 = DefaultWatchBuffer.
	WatchBuffer int
	// NoRouteEvents leaves route events out of Watch.
	NoRouteEvents bool
	// MuteAdds is what MutesAdds reports. It is a filter on the event socket, so that the kernel drops the events.
	MuteAdds bool
}

// linux is the kernel this process runs on, seen from one network namespace.
type linux struct {
	opts    Options
	ns      netns.NsHandle // -1: the namespace of the process
	handle  *netlink.Handle
	routes  *writer
	adds    *writer // of routes, with a socket of its own that muffler knows
	muffler muffler
	neighs  *writer
	// nexthops has a socket of its own, so that a batch of routes under way does not hold up the one replacement that moves them all.
	nexthops *writer

	mu     sync.Mutex
	closed bool
	done   chan struct{} // closed by Close: ends the watches
}

// Open binds to a network namespace. Every socket that is opened later is in that namespace too, whichever thread
// opens it. It needs CAP_NET_ADMIN, and CAP_SYS_ADMIN where Namespace is set.
func Open(o Options) (Kernel, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.WatchBuffer == 0 {
		o.WatchBuffer = DefaultWatchBuffer
	}
	if o.ProcSys == "" {
		o.ProcSys = procSys
	}
	k := &linux{opts: o, ns: -1, done: make(chan struct{})}
	var err error
	if o.Namespace == "" {
		k.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	} else {
		if k.ns, err = netns.GetFromPath(o.Namespace); err == nil {
			k.handle, err = netlink.NewHandleAt(k.ns, unix.NETLINK_ROUTE)
		}
	}
	if err == nil {
		err = k.handle.SetSocketTimeout(o.Timeout)
	}
	if err != nil {
		_ = k.Close()
		return nil, fmt.Errorf("open kernel in namespace %q: %w", o.Namespace, classify(err))
	}
	k.routes, k.neighs, k.nexthops = &writer{open: k.socket}, &writer{open: k.socket}, &writer{open: k.socket}
	k.adds = k.routes
	if o.MuteAdds {
		k.adds = &writer{open: k.mutedSocket}
	}
	return k, nil
}

// Close releases the sockets and ends the watches. Calls under way fail or finish.
func (k *linux) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	close(k.done)
	if k.handle != nil {
		k.handle.Close()
	}
	if k.routes != nil {
		k.routes.close()
		k.adds.close()
		k.neighs.close()
		k.nexthops.close()
	}
	if k.ns >= 0 {
		if err := k.ns.Close(); err != nil {
			return fmt.Errorf("close namespace: %w", err)
		}
	}
	return nil
}

// socket opens a request socket in the namespace.
func (k *linux) socket() (*socket, error) {
	var s *socket
	err := k.inside(func() (err error) {
		s, err = openSocket(0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.tune(requestBuffer, k.opts.Timeout); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// inside runs f on a thread in the namespace. The thread is thrown away afterwards, so no other goroutine meets it.
func (k *linux) inside(f func() error) error {
	k.mu.Lock()
	closed, fd := k.closed, int(k.ns)
	if closed {
		k.mu.Unlock()
		return fmt.Errorf("%w: the handle is closed", ErrInvalid)
	}
	if fd < 0 {
		k.mu.Unlock()
		return f()
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) // Close may come between
	k.mu.Unlock()
	if err != nil {
		return fmt.Errorf("enter namespace: %w", classify(err))
	}
	defer func() { _ = unix.Close(fd) }()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime destroys the thread with the goroutine
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace: %w", classify(err))
			return
		}
		done <- f()
	}()
	return <-done
}
