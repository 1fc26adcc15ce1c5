package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caracal-net/caracal/internal/inspect"
	caracalv1 "github.com/caracal-net/caracal/proto/caracal/v1"
)

// peersFlags are what of the sessions is asked for.
type peersFlags struct {
	received, advertised, refused, watch, down bool
	within                                     string
}

// check refuses flags that do not go together.
func (f *peersFlags) check(name string) error {
	routes := f.received || f.advertised
	switch {
	case f.received && f.advertised:
		return usageError{errors.New("--received and --advertised: want one of them")}
	case routes && name == "":
		return usageError{errors.New("NAME is missing: whose routes?")}
	case f.down && (routes || f.watch || name != ""):
		return usageError{errors.New("--down: want it alone")}
	case routes && f.watch:
		return usageError{errors.New("--watch: routes are not watched here; caracal watch watches those of the kernel")}
	case !routes && (f.refused || f.within != ""):
		return usageError{errors.New("--refused and --within need --received or --advertised")}
	}
	return nil
}

func (c *command) peers() *cobra.Command {
	var flags peersFlags
	cmd := &cobra.Command{
		Use:   "peers [NAME]",
		Short: "The BGP sessions, or everything about one, or what goes between it and us",
		Long: "peers lists the BGP sessions. With a name, an address or a node's name it tells everything about that session: the last NOTIFICATION\n" +
			"of each direction, what both ends offered, counters, BFD. With --received or --advertised it lists what the peer sends or gets, as it is\n" +
			"after policy, and what policy has changed; a cross marks what is kept out or back.",
		Example: "  caracal peers Mesh_192_0_2_12\n  caracal peers 192.0.2.12 --received --refused\n  caracal peers node-b --advertised --within 10.244.0.0/16",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%q: too many arguments", args[1])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if err := flags.check(name); err != nil {
				return err
			}
			if flags.watch {
				return c.watchPeers(cmd.Context(), name)
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error { return c.listPeers(ctx, conn, name, &flags) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.received, "received", false, "what the peer sends, before and after our import rules")
	f.BoolVar(&flags.advertised, "advertised", false, "what it gets, before and after our export rules")
	f.BoolVar(&flags.refused, "refused", false, "of that, only what is kept out or back")
	f.StringVar(&flags.within, "within", "", "of that, only this prefix and longer ones inside it")
	f.BoolVar(&flags.down, "down", false, "only the sessions that are not up, or whose path BFD does not find up")
	f.BoolVarP(&flags.watch, "watch", "w", false, "go on with every change, until interrupted")
	return c.answers(cmd)
}

// meant reports whether a session is one that a name stands for.
func meant(p *caracalv1.Peer, name string) bool {
	return name == "" || p.GetName() == name || p.GetAddress() == name || p.GetNode() == name
}

// works reports whether a session is up, and its path is where BFD looks for that.
func works(p *caracalv1.Peer) bool {
	return p.GetState() == caracalv1.SessionState_SESSION_STATE_ESTABLISHED && (p.GetBfd() == nil || p.GetBfd().GetState() == "Up")
}

func (c *command) listPeers(ctx context.Context, conn *grpc.ClientConn, name string, flags *peersFlags) error {
	all := &caracalv1.ListPeersResponse{}
	stream, err := caracalv1.NewInspectionClient(conn).ListPeers(ctx, &caracalv1.ListPeersRequest{})
	err = each(stream, err, func(m *caracalv1.ListPeersResponse) error {
		all.Peers = append(all.Peers, m.GetPeers()...)
		return nil
	})
	if err != nil {
		return err
	}
	all.Peers = slices.DeleteFunc(all.Peers, func(p *caracalv1.Peer) bool { return !meant(p, name) || flags.down && works(p) })
	switch {
	case name != "" && len(all.Peers) == 0:
		return fmt.Errorf("%q: no BGP session has that name, address or node; caracal peers lists them", name)
	case flags.received || flags.advertised:
		return c.peerRoutes(ctx, conn, all.Peers, flags)
	}
	return c.write(all, func(r inspect.Renderer, w io.Writer) error {
		switch {
		case name != "":
			return peersInFull(r, w, all.Peers)
		case flags.down && len(all.Peers) == 0:
			return c.none("every BGP session is up")
		case len(all.Peers) == 0:
			return c.none("there are no BGP sessions; caracal status names the backend")
		}
		return r.Peers(w, all.Peers)
	})
}

func peersInFull(r inspect.Renderer, w io.Writer, list []*caracalv1.Peer) error {
	for i, p := range list {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := r.Peer(w, p); err != nil {
			return err
		}
	}
	return nil
}

// peerRoutes writes the routes of one session; a node has one of each family, so it may have to be said which.
func (c *command) peerRoutes(ctx context.Context, conn *grpc.ClientConn, peers []*caracalv1.Peer, flags *peersFlags) error {
	if len(peers) > 1 {
		return usageError{fmt.Errorf("%s and %s: name one of the sessions", peers[0].GetName(), peers[1].GetName())}
	}
	req := &caracalv1.ListPeerRoutesRequest{Peer: peers[0].GetAddress(), Direction: caracalv1.ListPeerRoutesRequest_DIRECTION_RECEIVED, Within: flags.within, Refused: flags.refused}
	if flags.advertised {
		req.Direction = caracalv1.ListPeerRoutesRequest_DIRECTION_ADVERTISED
	}
	all := &caracalv1.ListPeerRoutesResponse{}
	stream, err := caracalv1.NewInspectionClient(conn).ListPeerRoutes(ctx, req)
	err = each(stream, err, func(m *caracalv1.ListPeerRoutesResponse) error {
		all.Routes = append(all.Routes, m.GetRoutes()...)
		return nil
	})
	if err != nil {
		return err
	}
	return c.write(all, func(r inspect.Renderer, w io.Writer) error {
		if len(all.Routes) == 0 {
			return c.none("no such route; caracal peers " + peers[0].GetName() + " tells of the session")
		}
		return r.PeerRoutes(w, all.Routes)
	})
}

func (c *command) watchPeers(parent context.Context, name string) error {
	err := c.withoutTimeout(parent, func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := caracalv1.NewInspectionClient(conn).WatchPeers(ctx, &caracalv1.WatchPeersRequest{})
		mine := make(map[string]bool) // addresses; of one that is gone the node is not told any more
		return each(stream, err, func(m *caracalv1.WatchPeersResponse) error {
			m.Events = slices.DeleteFunc(m.Events, func(e *caracalv1.PeerEvent) bool {
				a := e.GetPeer().GetAddress()
				mine[a] = mine[a] || meant(e.GetPeer(), name)
				return !mine[a]
			})
			if len(m.Events) == 0 && !m.GetSynced() {
				return nil
			}
			return c.writePeerEvents(m)
		})
	})
	if errors.Is(parent.Err(), context.Canceled) {
		return nil // interrupted: that is how a watch ends
	}
	return err
}

func (c *command) writePeerEvents(m *caracalv1.WatchPeersResponse) error {
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
	for _, e := range m.GetEvents() {
		if err := r.PeerEvent(c.env.Out, e); err != nil {
			return err
		}
	}
	if m.GetSynced() {
		return r.Synced(c.env.Out)
	}
	return nil
}

func (c *command) paths() *cobra.Command {
	return c.answers(&cobra.Command{
		Use:   "paths PREFIX",
		Short: "Every BGP path to a prefix, and why each that is not used is not",
		Long: "paths lists every BGP path to a prefix, the best first: a star marks what is used, a cross what is refused before the choice.\n" +
			"What became of the route is below.",
		Args: exactly("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error { return c.listPaths(ctx, conn, args[0]) })
		},
	})
}

func (c *command) listPaths(ctx context.Context, conn *grpc.ClientConn, prefix string) error {
	client := caracalv1.NewInspectionClient(conn)
	all := &caracalv1.ListPathsResponse{}
	stream, err := client.ListPaths(ctx, &caracalv1.ListPathsRequest{Prefix: prefix})
	err = each(stream, err, func(m *caracalv1.ListPathsResponse) error {
		all.Paths = append(all.Paths, m.GetPaths()...)
		return nil
	})
	if err != nil {
		return err
	}
	return c.write(all, func(r inspect.Renderer, w io.Writer) error {
		if len(all.Paths) == 0 {
			return c.none("no BGP path to " + prefix + " is known; caracal explain tells of an address")
		}
		if err := r.Paths(w, all.Paths); err != nil {
			return err
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		return c.listRoutes(ctx, conn, &caracalv1.RouteFilter{Prefix: prefix})
	})
}
