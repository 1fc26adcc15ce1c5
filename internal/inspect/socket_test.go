package inspect

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// socketPath is a path short enough for a socket; t.TempDir's may not be.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caracal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "caracal.sock")
}

func connects(path string) bool {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func TestListen(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	if l.Addr().String() != path || !connects(path) {
		t.Errorf("%v does not answer at %s", l.Addr(), path)
	}
	if _, err := Listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another daemon answers there") {
		t.Errorf("a second daemon: got %v", err)
	}
	if !connects(path) {
		t.Error("the second daemon has broken the first one's socket")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestListenStale: a daemon that was killed leaves its socket, and the next one takes it over.
func TestListenStale(t *testing.T) {
	path := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("no stale socket to test with: %v", err)
	}
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !connects(path) {
		t.Error("does not answer")
	}
}

// TestListenReplaced: closing does not remove the socket of another daemon that took the path over meanwhile.
func TestListenReplaced(t *testing.T) {
	path := socketPath(t)
	first, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if !connects(path) {
		t.Error("the first daemon has removed the second one's socket")
	}
}

func TestListenRefuses(t *testing.T) {
	path := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no socket is there") {
		t.Errorf("a file in the way: got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file in the way is now %q, %v", b, err)
	}
	if _, err := Listen(t.Context(), filepath.Join(path, "below")); !errors.Is(err, fs.ErrNotExist) && err == nil {
		t.Errorf("a directory that cannot be made: got %v", err)
	}
	long := filepath.Join(filepath.Dir(path), strings.Repeat("x", 110))
	if _, err := Listen(t.Context(), long); err == nil || !strings.Contains(err.Error(), "use a shorter one") {
		t.Errorf("a long path: got %v", err)
	}
}

// TestListenWaits: who asks for the socket waits until another start on the same directory is through, so that the other's
// socket is either there and answers or never comes.
func TestListenWaits(t *testing.T) {
	path := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		l, err := Listen(t.Context(), path)
		if err == nil {
			l.Close()
		}
		done <- err
	}()
	waits := func() bool { // proc(5): a waiting lock is marked with an arrow
		b, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 5 && f[1] == "->" && f[2] == "FLOCK" && f[5] == strconv.Itoa(os.Getpid()) {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(10 * time.Second); !waits(); time.Sleep(time.Millisecond) {
		if len(done) > 0 || time.Now().After(deadline) {
			t.Fatal("does not wait for the other start")
		}
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "another daemon answers there") {
		t.Errorf("got %v", err)
	}
}

// TestListenAtOnce: of many daemons that start at once over a stale socket one wins, and it answers.
func TestListenAtOnce(t *testing.T) {
	path := socketPath(t)
	var mu sync.Mutex
	var won []net.Listener
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if l, err := Listen(t.Context(), path); err == nil {
				mu.Lock()
				won = append(won, l)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(won) != 1 || !connects(path) {
		t.Errorf("%d daemons listen, want 1", len(won))
	}
	for _, l := range won {
		l.Close()
	}
}
