package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caracal-net/caracal/internal/inspect"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// filterFlags are the flags that pick routes.
type filterFlags struct {
	prefix, within, covering, family string
	owners, states                   []string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.prefix, "prefix", "", "exactly this prefix or address")
	flags.StringVar(&f.within, "within", "", "this prefix and all longer ones inside it")
	flags.StringVar(&f.covering, "covering", "", "all routes that cover this address or prefix")
	flags.StringSliceVar(&f.owners, "owner", nil, "owners: vxlan, ipip, bgp")
	flags.StringSliceVar(&f.states, "state", nil, "states: installed, pending, no-device, failed, foreign, lost, unroutable, kept")
	flags.StringVar(&f.family, "family", "", "4 or 6")
}

// filter makes the message; what it does not check itself the daemon does.
func (f *filterFlags) filter() (*caracalv1.RouteFilter, error) {
	m := &caracalv1.RouteFilter{Prefix: f.prefix, Within: f.within, Covering: f.covering, Owners: f.owners}
	var err error
	if m.Family, err = inspect.ParseFamily(f.family); err != nil {
		return nil, usageError{err}
	}
	for _, word := range f.states {
		s, err := inspect.ParseState(word)
		if err != nil {
			return nil, usageError{err}
		}
		m.States = append(m.States, s)
	}
	return m, nil
}

func (c *command) routes() *cobra.Command {
	var flags filterFlags
	cmd := &cobra.Command{
		Use:   "routes",
		Short: "The routes: owner, state, the kernel's form, the reason",
		Long: "routes lists every route that is wanted on this node, with what became of it. Brackets in the column KERNEL ROUTE\n" +
			"hold what is wanted but not in the kernel.",
		Example: "  caracal routes --state failed,foreign,no-device,unroutable\n  caracal routes --covering 10.244.1.7",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := flags.filter()
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error { return c.listRoutes(ctx, conn, f) })
		},
	}
	flags.add(cmd)
	return c.answers(cmd)
}

func (c *command) listRoutes(ctx context.Context, conn *grpc.ClientConn, f *caracalv1.RouteFilter) error {
	all := &caracalv1.ListRoutesResponse{}
	stream, err := caracalv1.NewInspectionClient(conn).ListRoutes(ctx, &caracalv1.ListRoutesRequest{Filter: f})
	err = each(stream, err, func(m *caracalv1.ListRoutesResponse) error {
		all.Routes = append(all.Routes, m.GetRoutes()...)
		return nil
	})
	if err != nil {
		return err
	}
	return c.write(all, func(r inspect.Renderer, w io.Writer) error {
		switch {
		case len(all.Routes) > 0:
			return r.Routes(w, all.Routes)
		case proto.Equal(f, &caracalv1.RouteFilter{}):
			return c.none("no route is wanted; caracal status says what is waited for")
		}
		return c.none("no route matches")
	})
}

func (c *command) watch() *cobra.Command {
	var flags filterFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "The routes there are, and then every change, until interrupted",
		Long: "watch writes a line for each route there is, and then for each that changes (+) or goes (-). With -o json every line is\n" +
			"a message of its own, with -o yaml a document.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := flags.filter()
			if err != nil {
				return err
			}
			err = c.withoutTimeout(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				stream, err := caracalv1.NewInspectionClient(conn).WatchRoutes(ctx, &caracalv1.WatchRoutesRequest{Filter: f})
				return each(stream, err, c.writeWatch)
			})
			if errors.Is(cmd.Context().Err(), context.Canceled) {
				return nil // interrupted: that is how a watch ends
			}
			return err
		},
	}
	flags.add(cmd)
	return c.answers(cmd)
}

func (c *command) writeWatch(m *caracalv1.WatchRoutesResponse) error {
	switch c.output {
	case "json":
		return inspect.WriteJSONLine(c.env.Out, m)
	case "yaml":
		if _, err := io.WriteString(c.env.Out, "---\n"); err != nil {
			return err
		}
		return inspect.WriteYAML(c.env.Out, m)
	}
	r := c.renderer()
	for _, change := range m.GetChanges() {
		if err := r.Change(c.env.Out, change); err != nil {
			return err
		}
	}
	return r.Mark(c.env.Out, m.GetMark())
}
