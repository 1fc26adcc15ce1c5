package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpuTime is the processor time of the processes' threads as the scheduler counts it, in nanoseconds
// (/proc/PID/task/TID/schedstat, first field). Threads that have ended are not in it, so it serves for quiet times.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(files) == 0 {
			return 0, fmt.Errorf("processor time of process %d: no threads", pid)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if os.IsNotExist(err) {
				continue // a thread that has just ended
			}
			if err != nil {
				return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
			}
			first, _, _ := strings.Cut(string(b), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}

// idleCPU returns the share of one processor the processes use while nothing happens.
func idleCPU(ctx context.Context, pids []int, d time.Duration) (float64, error) {
	before, err := cpuTime(pids)
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuTime(pids)
	return (after - before).Seconds() / d.Seconds(), err
}

// resident is the memory of the processes in bytes (VmRSS of /proc/PID/status).
func resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(b), "\nVmRSS:")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			return 0, fmt.Errorf("no VmRSS of process %d", pid)
		}
		kib, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmRSS of process %d: %w", pid, err)
		}
		sum += kib << 10
	}
	return sum, nil
}

// sleep waits; what it is for is a time in which nothing happens.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
