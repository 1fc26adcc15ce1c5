package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/netns"
)

// child is one process, the goroutine that waits for it, and its guard.
type child struct {
	pid   int
	name  string
	guard *exec.Cmd
	done  chan struct{}
	err   error // how it ended; valid when done is closed
}

// startChild starts a process in a namespace, in a process group of its own and with both its streams in a log file.
func startChild(ns netns.NS, args []string, log string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for us, not for it
	if err := ns.Start(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	c := &child{name: args[0], pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	if c.guard, err = guard(c.pid); err != nil {
		return nil, errors.Join(err, c.kill())
	}
	return c, nil
}

// realTime has a process go before all others on the machine, as a router has hardware for BFD: what is under test is who is at the other end. Where that is not
// allowed nothing is different.
func (c *child) realTime() {
	_ = unix.SchedSetAttr(c.pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
}

// guard starts a shell that kills a process group when this process is no more: then its standard input ends. PR_SET_PDEATHSIG would
// not do, since the kernel clears it when a daemon changes its user.
func guard(group int) (*exec.Cmd, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r line; kill -s KILL -- "-$0"`, strconv.Itoa(group))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("guard of process %d: %w", group, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard of process %d: %w", group, err)
	}
	return cmd, nil
}

// dismiss ends the guard, once there is nothing left to kill.
func (c *child) dismiss() {
	if c.guard != nil {
		_ = c.guard.Process.Kill()
		_ = c.guard.Wait() // closes the pipe
		c.guard = nil
	}
}

func (c *child) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// stop sends SIGTERM, waits, and kills what does not end.
func (c *child) stop(patience time.Duration) error {
	if c.over() {
		return errors.Join(fmt.Errorf("%s had ended before it was stopped: %w", c.name, c.ended()), c.kill())
	}
	if err := syscall.Kill(c.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	select {
	case <-c.done:
		return c.kill()
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM", c.name, patience), c.kill())
	}
}

// ended says how a process that is over came to its end.
func (c *child) ended() error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}

// kill ends the process and what it has started itself, which is in its process group.
func (c *child) kill() error {
	c.dismiss()
	if err := syscall.Kill(-c.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	<-c.done
	return nil
}
