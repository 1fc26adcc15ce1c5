package file

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/datastore"
)

// Names in the directory that are ours and hidden from readers of manifests.
const (
	lockName   = ".lock"
	tempPrefix = ".caracal-"
	tempSuffix = ".tmp"
)

// tempAge is the age from which on a temporary file is what a process left that died: no write takes that long.
const tempAge = time.Minute

// lock takes the directory's lock, which all writers share (flock(2), advisory, on a file of its own so that readers
// need none). The kernel releases it when its holder dies. It is polled for, because a wait inside flock cannot be ended
// by a context.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() {
		if err != nil {
			<-s.turn
		}
	}()
	for wait := 500 * time.Microsecond; ; wait = min(2*wait, pause) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := s.tryLock()
		if err != nil {
			return nil, err
		}
		if f != nil {
			return func() { f.Close(); <-s.turn }, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// tryLock returns nil if somebody else has the lock.
func (s *Store) tryLock() (*os.File, error) {
	path := filepath.Join(s.dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && sameFile(f, path) {
		return f, nil
	}
	f.Close()
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, nil
}

// sameFile reports whether a path still leads to an open file: a lock on a file that was removed, with its directory or
// by hand, keeps nobody out.
func sameFile(f *os.File, path string) bool {
	was, err1 := f.Stat()
	is, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(was, is)
}

// writeNew writes a file that must not exist yet.
func (s *Store) writeNew(name string, text []byte) error {
	temp, err := writeTemp(s.dir, text, fileMode, nil)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, name)
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
		if _, err = os.Lstat(path); err == nil {
			err = fs.ErrExist
		} else if errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(temp, path)
		}
	}
	if err != nil {
		os.Remove(temp)
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return syncDir(s.dir)
}

// replace puts a text in a file's place, in one step: whoever reads sees the old one or the new one. The old one must
// still be the one that was read.
func (s *Store) replace(name string, was stamp, text []byte) error {
	path, err := filepath.EvalSymlinks(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	temp, err := writeTemp(dir, text, st.Mode().Perm(), st)
	if err != nil {
		return err
	}
	if now, err := statFile(path); err != nil || now != was {
		os.Remove(temp)
		return errMoved
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(dir)
}

// removeFile removes a file that is still the one that was read. Of a symbolic link the link goes, not what it leads to.
func (s *Store) removeFile(name string, was stamp) error {
	path := filepath.Join(s.dir, name)
	if now, err := statFile(path); err != nil || now != was {
		return errMoved
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// writeTemp writes a hidden file and makes it last. If we die before it is renamed, it stays and sweep removes it.
func writeTemp(dir string, text []byte, mode os.FileMode, like os.FileInfo) (path string, err error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*"+tempSuffix)
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	if st, ok := sysStat(like); ok && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
		// Who may not give files away keeps them; the content matters more than the owner.
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
	if _, err := f.Write(text); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

func sysStat(info os.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// syncDir makes a change of names last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes temporary files of processes that died while writing.
func (s *Store) sweep(now time.Time) {
	found, _ := filepath.Glob(filepath.Join(s.dir, tempPrefix+"*"+tempSuffix)) // the pattern is good
	for _, path := range found {
		if st, err := os.Lstat(path); err == nil && now.Sub(st.ModTime()) > tempAge {
			if os.Remove(path) == nil {
				s.opts.Log.Info("removed a temporary file that a process left when it died", logFile, path)
			}
		}
	}
}

// Keys of log records.
const (
	logFile = "file"
	logDir  = "dir"
	logErr  = "error"
)

// maxFileName is the file systems' limit on the length of a name (NAME_MAX).
const maxFileName = 255

// fileName returns the name of the file an object is created in: its kind and name, and where that would not do as a file
// name, or is not to be used, a hash.
func fileName(k datastore.Key, salt string) string {
	const ext = ".yaml"
	name := strings.ToLower(string(k.Kind)) + "-" + k.Name
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r) {
			return r
		}
		return '_'
	}, name)
	if safe == name && salt == "" && len(name)+len(ext) <= maxFileName {
		return name + ext
	}
	suffix := fmt.Sprintf("-%x%s", hashOf(k.Name + "/" + salt)[:4], ext)
	return safe[:min(len(safe), maxFileName-len(suffix))] + suffix
}

func hashOf(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}
