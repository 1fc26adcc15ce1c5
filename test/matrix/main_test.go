package matrix

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// envBin names the directory of built programs; without it the test builds one.
const envBin = "CARACAL_BIN"

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(envBin); dir != "" {
		return filepath.Join(dir, "caracald"), nil
	}
	dir, err := os.MkdirTemp("", "caracal-matrix-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "caracald")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/caracald")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// atOnce is how many cells run at a time. They wait most of theirs.
const atOnce = "24"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	code := m.Run()
	if path, err := build(); err == nil && os.Getenv(envBin) == "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}
