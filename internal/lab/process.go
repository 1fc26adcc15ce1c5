package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
)

// process is a process told apart from a later one of the same number by its start time (proc(5), field 22 of stat).
type process struct {
	PID   int
	Start uint64
}

// processOf returns the running process of that number; false when there is none or only its remains (a zombie).
func processOf(pid int) (process, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// The command, in parentheses, may hold spaces and parentheses itself.
	_, rest, ok := cutLast(string(data), ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return process{pid, start}, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// alive reports whether the process still runs.
func (p process) alive() bool {
	now, ok := processOf(p.PID)
	return ok && p.PID > 0 && now == p
}

// signal sends a signal; a process that is gone is no error.
func (p process) signal(s syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// wait returns when the process is gone or ctx ends.
func (p process) wait(ctx context.Context) error {
	return poll(ctx, 2*time.Millisecond, func() error {
		if p.alive() {
			return fmt.Errorf("process %d still runs", p.PID)
		}
		return nil
	})
}

func (p process) write(path string) error {
	return writeFile(path, fmt.Appendf(nil, "%d %d\n", p.PID, p.Start))
}

// readProcess reads what write wrote; the zero process if there is nothing to be read.
func readProcess(path string) process {
	var p process
	data, err := os.ReadFile(path)
	if err != nil {
		return p
	}
	if _, err := fmt.Sscanf(string(data), "%d %d", &p.PID, &p.Start); err != nil {
		return process{}
	}
	return p
}

// inhabitants returns the processes that live in one of the namespaces, this one excepted.
func inhabitants(names []string) ([]process, error) {
	homes := map[string]bool{}
	for _, name := range names {
		info, err := os.Stat(netns.NS{Name: name}.Path())
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", name, err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			homes[fmt.Sprintf("net:[%d]", st.Ino)] = true
		}
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if home, err := os.Readlink(dir + "/ns/net"); err != nil || !homes[home] {
			continue // gone meanwhile, or of no interest
		}
		if p, ok := processOf(pid); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// poll calls f every so often until it returns nil; when ctx ends it returns what f last complained of.
func poll(ctx context.Context, every time.Duration, f func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
