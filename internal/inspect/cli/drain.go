package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caracal-net/caracal/internal/inspect"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

func (c *command) drain() *cobra.Command {
	var wait time.Duration
	var everything bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Leave politely: be everybody's last choice, then withdraw what others can do as well",
		Long: "drain announces everything of this node with the community GRACEFUL_SHUTDOWN and the lowest LOCAL_PREF (RFC 8326), waits, and then withdraws\n" +
			"service addresses, what it has passed on for others, and blocks without a workload. Workloads that still run here stay reachable.\n" +
			"It returns when that is done. It holds until caracal undrain, or until the machine is booted, whatever becomes of the daemon.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withoutTimeout(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewControlClient(conn).Drain(ctx, &caracalv1.DrainRequest{Wait: durationpb.New(wait), Everything: everything})
				if err != nil {
					return err
				}
				return c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.Drain(w, m) })
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", inspect.DefaultDrainWait, "how long to be the last choice before withdrawing")
	cmd.Flags().BoolVar(&everything, "everything", false, "withdraw blocks too in which workloads still run")
	return c.answers(cmd)
}

func (c *command) undrain() *cobra.Command {
	return c.answers(&cobra.Command{
		Use:   "undrain",
		Short: "Announce everything again after drain",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewControlClient(conn).Undrain(ctx, &caracalv1.UndrainRequest{})
				if err != nil {
					return err
				}
				return c.write(m, func(_ inspect.Renderer, w io.Writer) error {
					_, err := io.WriteString(w, "this node announces everything again\n")
					return err
				})
			})
		},
	})
}
