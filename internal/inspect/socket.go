package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// The socket's mode: root and its group, as those of Docker and BIRD. The directory is readable, for the socket guards itself.
const (
	socketMode = 0o660
	dirMode    = 0o755
	// sunPath is the size of sockaddr_un.sun_path on Linux, the closing zero included (unix(7)).
	sunPath = 108
	// probeTimeout bounds the question whether somebody answers on a socket; a daemon's kernel answers at once.
	probeTimeout = time.Second
)

// ErrAnswered says that another daemon answers on the socket. It may be on its way out.
var ErrAnswered = errors.New("another daemon answers there; stop it or choose another path")

// Listen opens the unix socket on which inspection is served. A socket that a dead daemon left is taken over; one that
// answers, or a file that is no socket, is an error. The directory is created. Two daemons that start at once are
// told apart by a lock on the directory.
//
// The socket is made under another name, given its mode, and renamed into place: nobody can connect before the mode
// is right, and a path that exists always has had a listener. Close removes it, unless another daemon has replaced it.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	l, err := listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("listen on unix socket %s: %w", path, err)
	}
	return l, nil
}

func listen(ctx context.Context, path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, fmt.Sprintf(".s%d", os.Getpid()))
	if n := max(len(path), len(temp)); n >= sunPath {
		return nil, fmt.Errorf("the path is %d bytes long and the kernel takes %d; use a shorter one", n, sunPath-1)
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := removable(ctx, path); err != nil {
		return nil, err
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return bind(path, temp)
}

// removable reports nil if nothing is at path, or a socket on which nobody answers.
func removable(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket is there; remove it or choose another path")
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return ErrAnswered
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("ask whether somebody answers there: %w", err)
}

func bind(path, temp string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	mine, err := os.Lstat(temp)
	if err == nil {
		err = os.Chmod(temp, socketMode)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(temp)
		return nil, err
	}
	return &listener{UnixListener: l, path: path, mine: mine}, nil
}

// listener removes its socket when it is closed, if it is still the one at path.
type listener struct {
	*net.UnixListener
	path string
	mine fs.FileInfo
	once sync.Once
}

// Addr names the path under which the socket is found.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket and stops listening, in this order: a daemon that starts now finds either a socket that
// answers or none.
func (l *listener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.mine) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
