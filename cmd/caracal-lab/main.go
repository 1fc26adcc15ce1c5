// Command caracal-lab is a cluster of network namespaces on one machine, with a real caracald on each node.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	l := &labCommand{}
	err := l.command().ExecuteContext(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "caracal-lab:", err)
		l.code = max(l.code, 1)
	}
	os.Exit(l.code)
}
