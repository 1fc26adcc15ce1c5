// Command bench measures a real caracald in a namespace of its own: how long 100,000 routes take from a directory of manifests
// to the kernel, the memory the daemon then holds, and the CPU an idle daemon uses. It prints a table and stops by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
	"github.com/caracal-net/caracal/internal/netns"
)

func main() {
	daemon := flag.String("caracald", "bin/caracald", "the daemon to measure")
	idle := flag.Duration("idle", 30*time.Second, "how long CPU use is measured")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *daemon, *idle); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, daemon string, idle time.Duration) error {
	path, err := filepath.Abs(daemon)
	if err != nil {
		return err
	}
	fmt.Println("whole daemon, backend vxlan, one namespace, datastore a directory of manifests")
	fmt.Printf("%-10s %-22s %-14s %-14s %s\n", "routes", "start to last route", "routes/s", "resident", "idle CPU over "+idle.String())
	for _, n := range []int{25_000, 100_000} {
		m, err := measure(ctx, path, n, idle)
		if err != nil {
			return fmt.Errorf("%d routes: %w", n, err)
		}
		fmt.Printf("%-10d %-22s %-14.0f %-14s %.2f %% of one core\n", n, m.converged.Round(time.Millisecond),
			float64(n)/m.converged.Seconds(), fmt.Sprintf("%d MiB", m.resident>>20), 100*m.cpu.Seconds()/idle.Seconds())
	}
	return nil
}

type figures struct {
	converged time.Duration
	resident  int64 // bytes, VmRSS
	cpu       time.Duration
}

func measure(ctx context.Context, daemon string, n int, idle time.Duration) (f figures, err error) {
	dir, err := os.MkdirTemp("", "caracal-bench")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ns, err := host(n)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, ns.Delete()) }()
	if err := manifests(filepath.Join(dir, "cluster"), n); err != nil {
		return f, err
	}
	k, err := kernel.Open(kernel.Options{Namespace: ns.Path()})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()

	cmd := exec.Command(daemon, "run", "--node", "self", "--backend", "vxlan", "--datastore", "file:"+filepath.Join(dir, "cluster"),
		"--socket", filepath.Join(dir, "caracal.sock"), "--log-level", "warn")
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := ns.Start(cmd); err != nil {
		return f, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := await(ctx, k, n); err != nil {
		return f, err
	}
	f.converged = time.Since(start)
	if f.cpu, err = idleCPU(ctx, cmd.Process.Pid, idle); err != nil {
		return f, err
	}
	f.resident, err = resident(cmd.Process.Pid)
	return f, err
}

// host makes a namespace with one underlay interface that holds the node's address.
func host(n int) (netns.NS, error) {
	ns, err := netns.Create(fmt.Sprintf("caracal-bench-%d-%d", os.Getpid(), n))
	if err != nil {
		return ns, err
	}
	for _, line := range []string{
		"link add eth0 type veth peer name wire", "link set wire up", "link set eth0 up", "address add 192.0.2.1/24 dev eth0",
	} {
		if _, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			return ns, errors.Join(err, ns.Delete())
		}
	}
	return ns, nil
}

// await returns when the kernel holds n routes of ours.
func await(ctx context.Context, k kernel.Kernel, n int) error {
	deadline := time.Now().Add(3 * time.Minute)
	for {
		have := 0
		err := k.ListRoutes(ctx, false, func(r *kernel.Route) bool {
			if r.Protocol == kernel.ProtoCaracal {
				have++
			}
			return true
		})
		switch {
		case err == nil && have >= n:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("only %d routes after 3 minutes (last dump: %v)", have, err)
		}
		time.Sleep(20 * time.Millisecond) // a dump costs the kernel's route lock; the figure is good to this much
	}
}

// idleCPU returns the processor time the process uses while nothing happens.
func idleCPU(ctx context.Context, pid int, d time.Duration) (time.Duration, error) {
	for _, wait := range []time.Duration{25 * time.Second, d} { // first let the start settle, IPAM's look at all blocks too
		before, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(wait):
		}
		if wait == d {
			after, err := cpuTime(pid)
			return after - before, err
		}
	}
	return 0, nil
}

// cpuTime is utime + stime of /proc/PID/stat, in ticks of 10 ms (USER_HZ is 100 on every Linux).
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", pid)
}
