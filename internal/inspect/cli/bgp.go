package cli

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caracal-net/caracal/internal/inspect"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// bgp is the branch of commands about what BGP is configured to do.
func (c *command) bgp() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bgp",
		Short: "What BGP is configured to do on any node, and what a change would do",
		Args:  exactly(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.bgpPlan(), c.bgpDiff())
	return cmd
}

func (c *command) bgpPlan() *cobra.Command {
	req := &caracalv1.PlanBGPRequest{}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "The BGP configuration of a node as YAML, each line with the resource it comes from",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewInspectionClient(conn).PlanBGP(ctx, req)
				if err != nil {
					return err
				}
				if c.output == "yaml" { // the configuration is YAML by itself
					c.output = "table"
				}
				return c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.PlanBGP(w, m) })
			})
		},
	}
	cmd.Flags().StringVar(&req.Node, "node", "", "node of the cluster; default this one")
	return c.answers(cmd)
}

func (c *command) bgpDiff() *cobra.Command {
	var file string
	var check bool
	req := &caracalv1.DiffBGPRequest{}
	cmd := &cobra.Command{
		Use:   "diff [-f FILE] [--delete KIND/NAME]...",
		Short: "Which sessions would reset and which prefixes appear or vanish on a node if resources were changed; nothing is applied",
		Long: "diff tells what would become of a node's BGP if the resources of a file were applied, or objects deleted; nothing is applied.\n\n" +
			"  reflector +, -          elected by the mesh, and no more\n" +
			"  session   +, -          begins; ends, with a node when its routes have come another way\n" +
			"  session   !, x, ~       begins anew; may not start, or goes down and stays so; stays up\n" +
			"  prefix    +, -          announced by the node\n" +
			"  to NAME   +, -, ~       of our own, sent to a peer: new, no more, with other attributes\n" +
			"  from NAME +, -, ~       let in: of a node what it originates, of others what they send now",
		Example: "  caracal bgp diff -f changed.yaml\n  caracal bgp diff --delete BGPPeer/rack1-tor --node node-b --check",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" && len(req.Deletions) == 0 {
				return usageError{errors.New("name a file with -f, - for standard input, or what to delete with --delete")}
			}
			if file != "" {
				text, err := readFile(file, cmd.InOrStdin())
				if err != nil {
					return err
				}
				req.Manifests = string(text)
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				m, err := caracalv1.NewInspectionClient(conn).DiffBGP(ctx, req)
				if err != nil {
					return err
				}
				if err := c.write(m, func(r inspect.Renderer, w io.Writer) error { return r.DiffBGP(w, m) }); err != nil {
					return err
				}
				if check && ends(m) {
					return errCheck
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "filename", "f", "", "file with changed resources, - for standard input")
	f.StringArrayVar(&req.Deletions, "delete", nil, "an object that would be gone, as BGPPeer/rack1-tor; may be repeated")
	f.StringVar(&req.Node, "node", "", "node of the cluster; default this one")
	f.BoolVar(&check, "check", false, "exit with 1 if a session would end or a prefix vanish, of us or for a peer")
	return c.answers(cmd)
}

// ends reports whether a session would end, for a while or for good, or a prefix be announced or let in no more.
func ends(m *caracalv1.DiffBGPResponse) bool {
	lost := func(p *caracalv1.PeerChange) bool { return len(p.GetVanish()) > 0 }
	return len(m.GetRestart())+len(m.GetReset_())+len(m.GetDown())+len(m.GetRemoved())+len(m.GetVanish()) > 0 ||
		slices.ContainsFunc(m.GetPeers(), lost) || slices.ContainsFunc(m.GetReceived(), lost)
}
