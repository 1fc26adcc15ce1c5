package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/caracal-net/caracal/internal/inspect"
)

// DefaultSocket is where caracald listens; EnvSocket names another place, the flag --socket wins over it.
const (
	DefaultSocket = "/run/caracal/caracal.sock"
	EnvSocket     = "CARACAL_SOCKET"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// defaultTimeout bounds a question: a daemon that hangs is an answer too. Resync of 100,000 routes takes a second or two.
const defaultTimeout = 30 * time.Second

// Environment is what the command is run in.
type Environment struct {
	Out, Err io.Writer
	Getenv   func(string) string
	Now      func() time.Time
}

// usageError is a mistake in how the command was written.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// errCheck is a check that did not pass; what is wrong has been written already.
var errCheck = errors.New("the check did not pass")

// command is one run: flags and where to write.
type command struct {
	env        Environment
	socket     string
	output     string
	timestamps bool
	timeout    time.Duration
}

// Run runs the command line and returns the exit code.
func Run(ctx context.Context, args []string, env Environment) int {
	c := &command{env: env}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errCheck) {
		return exitError
	}
	fmt.Fprintf(env.Err, "%s: %v\n", ran.CommandPath(), err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(env.Err, "%s --help says how it is used\n", ran.CommandPath())
		return exitUsage
	}
	return exitError
}

func (c *command) root() *cobra.Command {
	socket := c.env.Getenv(EnvSocket)
	if socket == "" {
		socket = DefaultSocket
	}
	root := &cobra.Command{
		Use:   "caracal",
		Short: "Ask the Caracal daemon of this node what it does and why",
		Long: "caracal asks the Caracal daemon (caracald) of this node: which routes it wants, what became of each and why,\n" +
			"and how packets get to an address.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("%q: no such command", args[0])}
			}
			return nil
		},
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", socket, "unix socket of the daemon ("+EnvSocket+")")
	flags.DurationVar(&c.timeout, "timeout", defaultTimeout, "how long to wait for an answer, 0 = for ever")
	root.AddCommand(c.status(), c.routes(), c.explain(), c.peers(), c.paths(), c.vteps(), c.watch(), c.history(), c.resync(), c.release(), c.drain(), c.undrain(), c.bgp(), c.install(), c.version())
	return root
}

// answers adds the flags of commands that write an answer and checks them before the command runs.
func (c *command) answers(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	cmd.Flags().BoolVar(&c.timestamps, "timestamps", false, "write times in full instead of ages")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{"table", "json", "yaml"}, c.output) {
			return usageError{fmt.Errorf("output %q: want table, json or yaml", c.output)}
		}
		return run(cmd, args)
	}
	return cmd
}

// exactly is cobra.ExactArgs as a usage error, in our words.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usageError{fmt.Errorf("%s is missing", strings.Join(names[len(args):], " "))}
		case len(args) > len(names):
			return usageError{fmt.Errorf("%q: too many arguments", args[len(names)])}
		}
		return nil
	}
}

func (c *command) renderer() inspect.Renderer {
	return inspect.Renderer{Now: c.env.Now(), Timestamps: c.timestamps}
}

// write writes an answer in the form asked for; table is called for the table.
func (c *command) write(m proto.Message, table func(inspect.Renderer, io.Writer) error) error {
	switch c.output {
	case "json":
		return inspect.WriteJSON(c.env.Out, m)
	case "yaml":
		return inspect.WriteYAML(c.env.Out, m)
	}
	return table(c.renderer(), c.env.Out)
}

// none says on standard error that a list is empty; a table of headings alone looks like a mistake.
func (c *command) none(what string) error {
	_, err := fmt.Fprintln(c.env.Err, what)
	return err
}

// explained turns what the daemon returned into words: its message without gRPC's wrapping, and a remedy where there is one.
func (c *command) explained(err error) error {
	st, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return err
	}
	switch st.Code() {
	case codes.InvalidArgument:
		return usageError{errors.New(st.Message())}
	case codes.Unavailable:
		return fmt.Errorf("the daemon at %s went away: %s", c.socket, st.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("the daemon at %s does not answer within %v: see its log; --timeout waits longer", c.socket, c.timeout)
	case codes.Unimplemented:
		return fmt.Errorf("the daemon at %s is another version and does not know this: %s; caracal version shows both", c.socket, st.Message())
	}
	return errors.New(st.Message())
}

// platform is what it was built for.
func platform() string { return runtime.GOOS + "/" + runtime.GOARCH + ", " + runtime.Version() }
