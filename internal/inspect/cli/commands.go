package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caracal-net/caracal/internal/inspect"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

func (c *command) status() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How the node is doing: readiness, routes by state, devices, problems",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewInspectionClient(conn).GetStatus(ctx, &caracalv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				if err := c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.Status(w, m) }); err != nil {
					return err
				}
				if check && !m.GetReadiness().GetReady() {
					return errCheck
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 if the node is not ready")
	return c.answers(cmd)
}

func (c *command) explain() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "How packets from this node get to an address, and where the way ends",
		Args:  exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewInspectionClient(conn).Explain(ctx, &caracalv1.ExplainRequest{Address: args[0]})
				if err != nil {
					return err
				}
				if err := c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.Explain(w, m) }); err != nil {
					return err
				}
				if check && m.GetVerdict().GetLevel() == caracalv1.Level_LEVEL_MISSING {
					return errCheck
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 if packets do not get there")
	return c.answers(cmd)
}

func (c *command) vteps() *cobra.Command {
	return c.answers(&cobra.Command{
		Use:   "vteps",
		Short: "The VXLAN tunnel endpoints of the cluster",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				all := &caracalv1.ListVTEPsResponse{}
				stream, err := caracalv1.NewInspectionClient(conn).ListVTEPs(ctx, &caracalv1.ListVTEPsRequest{})
				err = each(stream, err, func(m *caracalv1.ListVTEPsResponse) error {
					all.Vteps = append(all.Vteps, m.GetVteps()...)
					return nil
				})
				if err != nil {
					return err
				}
				return c.write(all, func(r inspect.Renderer, w io.Writer) error {
					if len(all.Vteps) == 0 {
						return c.none("no VTEP is known; there is no VXLAN pool, or no node has a tunnel address")
					}
					return r.VTEPs(w, all.Vteps)
				})
			})
		},
	})
}

func (c *command) history() *cobra.Command {
	return c.answers(&cobra.Command{
		Use:   "history PREFIX|DEVICE",
		Short: "What was asked, decided and written of the route to a prefix, or of a device with its addresses and entries, and why",
		Args:  exactly("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewInspectionClient(conn).History(ctx, historyRequest(args[0]))
				if err != nil {
					return err
				}
				return c.write(m, func(r inspect.Renderer, w io.Writer) error {
					if len(m.GetEvents()) == 0 {
						return c.none("nothing is remembered of " + m.GetPrefix() + m.GetDevice())
					}
					return r.History(w, m)
				})
			})
		},
	})
}

// historyRequest tells devices from prefixes and addresses: an interface's name has no slash and is no address.
func historyRequest(what string) *caracalv1.HistoryRequest {
	if _, err := netip.ParseAddr(what); err != nil && !strings.Contains(what, "/") {
		return &caracalv1.HistoryRequest{Device: what}
	}
	return &caracalv1.HistoryRequest{Prefix: what}
}

func (c *command) resync() *cobra.Command {
	return c.answers(&cobra.Command{
		Use:   "resync",
		Short: "Read the kernel back and repair what differs, now",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewControlClient(conn).Resync(ctx, &caracalv1.ResyncRequest{})
				if err != nil {
					return err
				}
				return c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.Resync(w, m) })
			})
		},
	})
}

func (c *command) release() *cobra.Command {
	return c.answers(&cobra.Command{
		Use:   "release",
		Short: "Let happen what the safety rails hold: a state of the datastore that would remove too much",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewControlClient(conn).Release(ctx, &caracalv1.ReleaseRequest{})
				if err != nil {
					return err
				}
				return c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.Release(w, m) })
			})
		},
	})
}

func (c *command) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "The versions of this command and of the daemon",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := fmt.Fprintf(c.env.Out, "caracal   %s (%s)\n", inspect.Version(), platform()); err != nil {
				return err
			}
			err := c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewInspectionClient(conn).GetStatus(ctx, &caracalv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.env.Out, "caracald  %s (node %s)\n", m.GetVersion(), m.GetNode())
				return err
			})
			if err != nil { // this command's own version is an answer all the same
				return c.none("caracald  " + err.Error())
			}
			return nil
		},
	}
}
