// Command profiled is caracald with Go's profilers on, for benchfib -caracald; it is built for that alone and knows no other verb than
// run. When it is told to stop it writes cpu.pprof and allocs.pprof into the directory CARACAL_PROFILES names.
//
//	go build -o /tmp/profiled ./test/benchfib/profiled
//	CARACAL_PROFILES=/tmp go run ./test/benchfib -caracald /tmp/profiled -only caracald -tables 100000 -runs 1 -idle 0 -load-only
//	go tool pprof -sample_index=alloc_space /tmp/profiled /tmp/allocs.pprof
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/daemon"
)

// memoryRate is how many allocated bytes lie between two samples.
const memoryRate = 16 << 10

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := os.Getenv("CARACAL_PROFILES")
	if dir == "" || len(os.Args) < 2 {
		return errors.New("set CARACAL_PROFILES to a directory and say run")
	}
	cfg := daemon.Config{Backend: cluster.BackendBird}
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	fs.StringVar(&cfg.Node, "node", "", "")
	fs.StringVar(&cfg.Datastore, "datastore", "", "")
	fs.StringVar(&cfg.Socket, "socket", "", "")
	fs.String("backend", "", "")
	fs.String("log-level", "", "")
	if err := fs.Parse(os.Args[2:]); err != nil {
		return err
	}
	runtime.MemProfileRate = memoryRate
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	written := make(chan error, 1)
	go func() {
		<-told
		pprof.StopCPUProfile() // before the end, which is not what is looked at
		written <- errors.Join(cpu.Close(), writeAllocs(filepath.Join(dir, "allocs.pprof")))
		cancel()
	}()
	if err := daemon.Run(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))); err != nil {
		return err
	}
	return <-written
}

func writeAllocs(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	runtime.GC() // the profile is as of the last collection
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}
