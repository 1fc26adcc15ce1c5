package need

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// BinEnv is the variable that names the directory of built programs; the guest kernel's machine is too slow to build any.
const BinEnv = "CARACAL_BIN"

// Daemon is caracald for all tests of a package in a directory below test/: the one in the directory that BinEnv names, else one that is built when it
// is first asked for. The zero value is ready; TestMain ends with Remove.
type Daemon struct {
	once sync.Once
	dir  string // ours, to be removed
	path string
	err  error
}

// Path returns where the program is.
func (d *Daemon) Path() (string, error) {
	d.once.Do(d.build)
	return d.path, d.err
}

func (d *Daemon) build() {
	if dir := os.Getenv(BinEnv); dir != "" {
		d.path = filepath.Join(dir, "caracald")
		return
	}
	if d.dir, d.err = os.MkdirTemp("", "caracal-test-"); d.err != nil {
		return
	}
	d.path = filepath.Join(d.dir, "caracald")
	cmd := exec.Command("go", "build", "-o", d.path, "../../cmd/caracald")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		d.err = fmt.Errorf("go build: %w: %s", err, out)
	}
}

// Remove takes away what was built, if anything was.
func (d *Daemon) Remove() {
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
}
