package startup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NodeName returns this machine's name as calico-node finds it: NODENAME, else the file that a start left, else HOSTNAME,
// else the host's name, the last two in lower case.
func NodeName(env func(string) string) (string, error) {
	if n := env(EnvNodeName); n != "" {
		return n, nil
	}
	file := env(EnvNodeNameFile)
	if file == "" {
		file = DefaultNodeNameFile
	}
	if b, err := os.ReadFile(file); err == nil {
		if n := strings.TrimSpace(string(b)); n != "" {
			return n, nil
		}
	}
	n := strings.TrimSpace(env(EnvHostName))
	if n == "" {
		var err error
		if n, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("node name: %w; set %s", err, EnvNodeName)
		}
	}
	return strings.ToLower(strings.TrimSpace(n)), nil
}

// leave puts a text where programs of others read it, whole or not at all: the CNI plugin may read at any moment. It always
// writes, because Calico's probes take the file's time for the time of the start. There is no newline: Calico's programs
// write none and some read the file as it is.
func leave(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".caracal-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err == nil {
		return nil
	}
	_ = os.Remove(tmp.Name())
	// A file that is mounted by itself cannot be replaced, only written.
	if info, serr := os.Stat(file); serr == nil && info.Mode().IsRegular() {
		if err = os.WriteFile(file, []byte(text), 0o644); err == nil {
			return nil
		}
	}
	return fmt.Errorf("write %s: %w", file, err)
}

// left returns what a file holds, "" if it is not there.
func left(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
