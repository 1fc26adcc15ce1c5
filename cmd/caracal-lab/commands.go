package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/lab"
)

// labCommand holds what the flags say.
type labCommand struct {
	spec                  lab.Spec
	opts                  lab.Options
	mode, family, backend string
	runner                string
	code                  int
}

func (l *labCommand) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "caracal-lab",
		Short:         "A cluster of network namespaces on one machine, with a real caracald on each node",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			l.spec.Mode, l.spec.Family, l.spec.Backend = lab.Mode(l.mode), lab.Families(l.family), cluster.Backend(l.backend)
			l.opts.Say = func(format string, args ...any) { fmt.Fprintf(os.Stderr, "* "+format+"\n", args...) }
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&l.spec.Name, "name", "lab", "name of the cluster")
	f.StringVar(&l.opts.Daemon, "daemon", beside("caracald"), "the caracald program")
	f.StringVar(&l.opts.Root, "state", lab.DefaultRoot, "directory in which clusters keep their state")
	f.StringVar(&l.runner, "vm", "test/vm/run-in-vm", "the guest kernel runner, for where this kernel has no ipip")
	root.AddCommand(l.up(), l.down(), l.status(), l.exec(), l.ping(), l.demo(), l.scenario())
	return root
}

// shape adds the flags that say what cluster is wanted.
func (l *labCommand) shape(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&l.mode, "mode", "mixed", "pools: mixed (VXLAN and IPIP, CrossSubnet), vxlan, vxlan-cross-subnet, ipip, ipip-cross-subnet or none")
	f.StringVar(&l.family, "family", "4", "address families of workloads: 4, 6 or dual")
	f.StringVar(&l.backend, "backend", "", "bird, vxlan or none; default vxlan in the vxlan modes, else bird")
	f.IntVar(&l.spec.Nodes, "nodes", 3, "number of nodes")
	f.IntVar(&l.spec.Workloads, "workloads", 2, "workloads on each node")
	f.BoolVar(&l.spec.WorkloadRoutes, "workload-routes", false, "the daemons, not the lab, make the routes to workloads and the settings of their interfaces")
	f.IntVar(&l.opts.Kills, "kills", 0, "how often the scenario kills kills; default 20")
	f.Uint64Var(&l.opts.Seed, "seed", 0, "of the random moments of the scenario kills; default: others each time, and printed")
	f.StringVar(&l.opts.LogLevel, "log-level", "info", "of the daemons")
	return cmd
}

func (l *labCommand) up() *cobra.Command {
	return l.shape(&cobra.Command{
		Use:   "up",
		Short: "Bring up a cluster and leave it standing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lab.Up(cmd.Context(), l.spec, l.opts)
			if errors.Is(err, lab.ErrNoIPIP) {
				return fmt.Errorf("%w; a cluster that stays cannot live there, but `%s demo --mode %s` runs one from start to end", err, cmd.Root().Name(), l.mode)
			}
			if err != nil {
				return err
			}
			took, err := c.Converge(cmd.Context())
			if err != nil {
				return errors.Join(err, c.Down())
			}
			l.opts.Say("converged after %.2fs; play with it: caracal-lab exec node1 -- caracal routes", took.Seconds())
			return c.WriteStatus(cmd.Context(), cmd.OutOrStdout())
		},
	})
}

func (l *labCommand) down() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove a cluster, whatever state it is in",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return lab.Remove(l.spec.Name, l.opts.Root) },
	}
}

func (l *labCommand) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the clusters that stand",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := lab.Names(l.opts.Root)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "no cluster stands")
			}
			for _, name := range names {
				c, err := lab.Load(name, l.opts)
				if err != nil {
					return err
				}
				if err := c.WriteStatus(cmd.Context(), cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (l *labCommand) exec() *cobra.Command {
	return &cobra.Command{
		Use:     "exec NODE|WORKLOAD|router -- COMMAND [ARG...]",
		Short:   "Run a command in a namespace of the cluster",
		Example: "  caracal-lab exec node1 -- caracal routes\n  caracal-lab exec node1-w1 -- ping -c 3 10.244.0.70",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := lab.Load(l.spec.Name, l.opts)
			if err != nil {
				return err
			}
			l.code, err = c.Exec(args[0], args[1:])
			return err
		},
	}
}

func (l *labCommand) ping() *cobra.Command {
	return &cobra.Command{
		Use:   "ping",
		Short: "Ping every workload from every other",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lab.Load(l.spec.Name, l.opts)
			if err != nil {
				return err
			}
			r, err := lab.Matrix(cmd.Context(), c.Endpoints(nil), 5, 0)
			if err != nil {
				return err
			}
			if r.Lost() > 0 {
				l.code = 1
			}
			if err := lab.WriteMatrix(cmd.OutOrStdout(), r); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), r)
			return err
		},
	}
}

func (l *labCommand) demo() *cobra.Command {
	return l.shape(&cobra.Command{
		Use:   "demo",
		Short: "Bring up a cluster, ping everything, show why each route is there, clean up",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if there, err := l.inGuest(cmd); there || err != nil {
				return err
			}
			if err := lab.Sweep(l.opts.Root); err != nil {
				return err
			}
			return lab.Demo(cmd.Context(), cmd.OutOrStdout(), l.spec, l.opts)
		},
	})
}

func (l *labCommand) scenario() *cobra.Command {
	return l.shape(&cobra.Command{
		Use:   "scenario [NAME...|all]",
		Short: "Play scenarios on a cluster of their own, under a constant probe; without a name, list them",
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				for _, s := range lab.Scenarios() {
					fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", s.Name, s.Summary)
				}
				return nil
			}
			list, err := lab.Pick(names...)
			if err != nil {
				return err
			}
			if there, err := l.inGuest(cmd); there || err != nil {
				return err
			}
			if err := lab.Sweep(l.opts.Root); err != nil {
				return err
			}
			return lab.PlayAll(cmd.Context(), cmd.OutOrStdout(), l.spec, l.opts, list)
		},
	})
}

// inGuest runs the same command in the guest kernel where this kernel cannot carry it, and reports whether it did.
func (l *labCommand) inGuest(cmd *cobra.Command) (bool, error) {
	need, err := lab.NeedsGuest(l.spec)
	if err != nil || !need {
		return false, err
	}
	began := time.Now()
	l.opts.Say("this kernel has no ipip, which mode %s needs: running the same cluster in the guest kernel (about ten times slower)", l.mode)
	err = lab.InGuest(cmd.Context(), l.runner, os.Args[1:])
	l.opts.Say("the guest ran for %.1fs", time.Since(began).Seconds())
	return true, err
}

// beside returns the path of a program next to this one.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}
