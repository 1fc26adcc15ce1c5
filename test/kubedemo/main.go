// Command kubedemo is the demo of caracal-lab, or some of its scenarios, on a real API server in place of a directory of manifests:
//
//	kubedemo [-mode vxlan-cross-subnet] [-nodes 3] [-family 4|6|dual] [-caracald bin/caracald] [SCENARIO...|all]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"github.com/caracal-net/caracal/internal/lab"
	"github.com/caracal-net/caracal/test/kubelab"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kubedemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var spec lab.Spec
	var opts lab.Options
	mode := flag.String("mode", string(lab.Mixed), "pools, as of caracal-lab")
	family := flag.String("family", "4", "address families of workloads: 4, 6 or dual")
	flag.IntVar(&spec.Nodes, "nodes", 3, "number of nodes")
	flag.StringVar(&opts.Daemon, "caracald", "bin/caracald", "the caracald program")
	flag.Parse()
	spec.Name, spec.Mode, spec.Family = "kube", lab.Mode(*mode), lab.Families(*family)
	if there, ierr := lab.HasIPIP(); ierr == nil && !there && spec.Mode == lab.Mixed {
		fmt.Println("* this kernel has no ipip, and the guest kernel would take minutes to start the API server: VXLAN pools only")
		spec.Mode = lab.VXLANCrossSubnet
	}
	c := &console{ctx: ctx}
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(failure); !ours {
				panic(r)
			}
			err = errors.Join(err, r.(failure).error)
		}
		c.end()
	}()
	fmt.Println("* starting etcd and kube-apiserver, installing Calico's resource definitions and the daemon's role")
	opts.Kubernetes, _ = kubelab.Start(c)
	if err := lab.Sweep(""); err != nil {
		return err
	}
	if flag.NArg() == 0 {
		return lab.Demo(ctx, os.Stdout, spec, opts)
	}
	list, err := lab.Pick(flag.Args()...)
	if err != nil {
		return err
	}
	opts.Say = func(format string, args ...any) { fmt.Printf("* "+format+"\n", args...) }
	return lab.PlayAll(ctx, os.Stdout, spec, opts, list)
}

// console stands for a test where kubelab wants one: what is to be cleaned up is, and what fails is told.
type console struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
}

// failure ends run from wherever a test would end.
type failure struct{ error }

func (c *console) Helper()                  {}
func (c *console) Context() context.Context { return c.ctx }
func (c *console) Cleanup(f func())         { c.cleanups = append(c.cleanups, f) }
func (c *console) Logf(f string, a ...any)  { fmt.Printf(f+"\n", a...) }
func (c *console) Fatal(a ...any)           { panic(failure{errors.New(fmt.Sprint(a...))}) }
func (c *console) Fatalf(f string, a ...any) {
	panic(failure{fmt.Errorf(f, a...)})
}
func (c *console) Skipf(f string, a ...any) { c.Fatalf(f, a...) }

func (c *console) TempDir() string {
	dir, err := os.MkdirTemp("", "kubedemo-")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c *console) end() {
	for _, f := range slices.Backward(c.cleanups) {
		f()
	}
}
