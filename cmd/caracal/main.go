// Command caracal asks the Caracal daemon of this node what it does and why.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/inspect/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.Environment{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now})
	stop()
	os.Exit(code)
}
