// Command caracald is the node daemon: it makes the cluster's workload addresses reachable from this node.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/caracal-net/caracal/internal/daemon"
	"github.com/caracal-net/caracal/internal/health"
	"github.com/caracal-net/caracal/internal/inspect"
	"github.com/caracal-net/caracal/internal/proxyhealth"
	"github.com/caracal-net/caracal/internal/startup"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "caracald:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "caracald",
		Short:         "BGP and VXLAN routing for the workloads of a Calico cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), healthCommand(), cleanupCommand(), versionCommand())
	return root
}

func runCommand() *cobra.Command {
	var backend, level, adopt, objects string
	cfg := daemon.Config{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon until SIGTERM; routes stay when it stops",
		Args:  cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Node, "node", "", "name of this node; default "+startup.EnvNodeName+", the nodename file, the host name")
	f.StringVar(&cfg.Datastore, "datastore", daemon.DefaultDatastore(os.Getenv),
		"kubernetes, or file:DIR for a directory of Calico manifests; default "+daemon.EnvDatastore+", or kubernetes where "+daemon.EnvDatastoreType+" says so")
	f.StringVar(&cfg.Socket, "socket", envOr(daemon.EnvSocket, daemon.DefaultSocket), "unix socket of the gRPC services")
	cfg.Rails = daemon.DefaultRails()
	f.Float64Var(&cfg.Rails.Share, "rail-share", cfg.Rails.Share, "of its routes, from 0 to 1, what an owner may lose at once to a state of the datastore that is in doubt")
	f.IntVar(&cfg.Rails.Least, "rail-least", cfg.Rails.Least, "routes that may be lost so in any case")
	f.DurationVar(&cfg.Rails.Window, "rail-window", cfg.Rails.Window, "how long states are in doubt after the datastore was away")
	f.DurationVar(&cfg.Rails.Timeout, "rail-timeout", cfg.Rails.Timeout, "how long such a state is held at most; 0 as long as the doubt lasts")
	f.StringVar(&cfg.Snapshot, "snapshot", os.Getenv(daemon.EnvSnapshot), "file that keeps the cluster's state for a start without the datastore, or none; default "+
		daemon.EnvSnapshot+", with kubernetes "+daemon.DefaultSnapshot)
	f.StringVar(&cfg.ProcSys, "proc-sys", os.Getenv(daemon.EnvProcSys), "where sysctls are written, if not in /proc/sys; default "+daemon.EnvProcSys)
	f.BoolVar(&cfg.Workloads, "workload-routes", os.Getenv(daemon.EnvWorkloads) == "true",
		"keep the routes to this node's own workloads and the settings of their interfaces, as Felix does where one runs; default "+daemon.EnvWorkloads)
	f.StringVar(&cfg.ProxyHealth, "proxy-health", envOr(daemon.EnvProxyHealth, proxyhealth.DefaultAddress),
		"where the service proxy (kube-proxy's healthzBindAddress) is asked before addresses of Services are announced, or off; default "+daemon.EnvProxyHealth)
	f.BoolVar(&cfg.Felix, "beside-felix", os.Getenv(daemon.EnvBesideFelix) == "true", "a Felix runs on this host: leave it what is its own; default "+daemon.EnvBesideFelix)
	f.StringVar(&adopt, "adopt", os.Getenv(daemon.EnvAdopt), "whose leftovers in our pools are taken over: bird, felix, both with a comma, or none; default "+
		daemon.EnvAdopt+", or both, and none beside a Felix")
	f.StringVar(&objects, "nexthop-objects", os.Getenv(daemon.EnvNexthopObjects),
		"auto: routes lead to nexthop objects where the kernel has them; off: every route has next hops of its own; default "+daemon.EnvNexthopObjects+", or auto")
	f.StringVar(&backend, "backend", os.Getenv(daemon.EnvBackend), "bird, vxlan or none, until the ConfigMap calico-config says otherwise; default "+daemon.EnvBackend)
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := logger(level)
		if err != nil {
			return err
		}
		if cfg.Backend, err = daemon.ParseBackend(backend); err != nil {
			return err
		}
		if cfg.InlineNextHops, err = daemon.ParseNexthopObjects(objects); err != nil {
			return err
		}
		if cfg.Adopt, err = daemon.ParseAdoption(adopt, cfg.Felix); err != nil {
			return err
		}
		if cfg.Node == "" {
			if cfg.Node, err = startup.NodeName(os.Getenv); err != nil {
				return err
			}
		}
		switch {
		case cfg.Snapshot == "" && cfg.Datastore == daemon.Kubernetes:
			cfg.Snapshot = daemon.DefaultSnapshot
		case cfg.Snapshot == "none":
			cfg.Snapshot = ""
		}
		if cfg.Settings, err = startup.Parse(os.Getenv); err != nil {
			return err
		}
		return daemon.Run(cmd.Context(), cfg, log)
	}
	return cmd
}

func healthCommand() *cobra.Command {
	var socket string
	var limit time.Duration
	q := health.Question{}
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the daemon whether it is alive or ready; exit code 0 says yes. For probes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			return health.Ask(ctx, socket, q)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&q.Live, "live", false, "does the daemon answer?")
	f.BoolVar(&q.Ready, "ready", false, "does the node do all it is asked to do? Under backend bird BGP sessions count too")
	f.DurationVar(&q.Threshold, "threshold-time", health.DefaultThreshold, "time after the start in which every session must be established; later one is enough")
	f.DurationVar(&limit, "timeout", 5*time.Second, "how long to wait for answers")
	f.StringVar(&socket, "socket", envOr(daemon.EnvSocket, daemon.DefaultSocket), "unix socket of the daemon")
	return cmd
}

func cleanupCommand() *cobra.Command {
	beside, leave := false, false
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove every route, device and address of ours from this host; stop the daemon first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger("info")
			if err != nil {
				return err
			}
			if leave {
				return daemon.LeaveToCalico(cmd.Context(), log)
			}
			return daemon.Cleanup(cmd.Context(), beside, log)
		},
	}
	cmd.Flags().BoolVar(&leave, "leave-to-calico", false, "leave devices, addresses and the routes that lead to other nodes as calico-node's own, so that it takes over without a lost packet; start it next")
	cmd.Flags().BoolVar(&beside, "beside-felix", os.Getenv(daemon.EnvBesideFelix) == "true", "leave the devices of a Felix; default "+daemon.EnvBesideFelix)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), inspect.Version()) },
	}
}

// logger writes text records to standard error, which is what container runtimes and systemd collect.
func logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
