// Command kubeapi is a Kubernetes API server and its etcd in one binary, for tests. The tests start it twice, as
//
//	kubeapi etcd DIR
//	kubeapi apiserver FLAGS...
//
// so that each of the two can be killed alone. Nothing that is shipped contains any of it: this is a Go module of its own.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kubeapi:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "etcd":
		return runEtcd(args[1])
	case len(args) >= 1 && args[0] == "apiserver":
		os.Exit(runAPIServer(args[1:]))
	}
	return fmt.Errorf("want \"etcd DIR\" or \"apiserver FLAGS...\", not %q", args)
}
