package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// insideGuest is set in the guest kernel, so that a guest without ipip does not start another one.
const insideGuest = "CARACAL_LAB_GUEST"

// NeedsGuest reports whether the cluster can be run only in the guest kernel.
func NeedsGuest(spec Spec) (bool, error) {
	spec, err := spec.Complete()
	if err != nil || !spec.Mode.NeedsIPIP() || os.Geteuid() != 0 || os.Getenv(insideGuest) != "" {
		return false, err
	}
	ok, err := HasIPIP()
	return !ok, err
}

// InGuest runs this very program with the arguments in the guest kernel started by the runner script, on this process's
// output streams.
func InGuest(ctx context.Context, runner string, args []string) error {
	if _, err := os.Stat(runner); err != nil {
		return fmt.Errorf("guest kernel runner: %w: run this in the top directory of the source, or say where it is with --vm", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("run in the guest kernel: %w", err)
	}
	cmd := exec.CommandContext(ctx, runner, append([]string{"--", self}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideGuest+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // the runner takes the guest down with it
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("in the guest kernel: status %d", exit.ExitCode())
	}
	return err
}
