package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// converged is how long a demo waits; a whole cluster takes a second, in the guest kernel ten times that.
const converged = 2 * time.Minute

// transferBytes is what the demo sends over TCP: long enough to fill windows, short in the guest kernel.
const transferBytes = 4 << 20

// Demo brings a cluster up, shows what it is, that everything reaches everything and why, and takes it down again.
func Demo(ctx context.Context, w io.Writer, spec Spec, opts Options) (err error) {
	out := &printer{w: w}
	began := time.Now()
	opts.Owned = true
	opts.Say = func(format string, args ...any) { out.line("* "+format, args...) }
	c, err := Up(ctx, spec, opts)
	if err != nil {
		return err
	}
	started := time.Now()
	defer func() {
		out.line("* taking it down")
		err = errors.Join(err, c.Down(), out.err)
		if err == nil {
			out.line("* nothing is left; all of it took %.1fs", time.Since(began).Seconds())
		}
	}()
	wctx, cancel := context.WithTimeout(ctx, converged)
	defer cancel()
	if _, err := WaitReachable(wctx, c.Endpoints(nil)); err != nil {
		return errors.Join(err, c.why(ctx))
	}
	reached := time.Since(started)
	if _, err := c.WaitSettled(wctx); err != nil {
		return errors.Join(err, c.why(ctx))
	}
	out.line("* converged: every workload answers every other %.2fs after the last daemon's start, every daemon is ready after %.2fs\n",
		reached.Seconds(), time.Since(started).Seconds())
	return c.show(ctx, out)
}

// show prints what a converged cluster is and does.
func (c *Cluster) show(ctx context.Context, out *printer) error {
	if err := c.Plan.WritePicture(out.w); err != nil {
		return err
	}
	node := c.Plan.Nodes[0].Name
	out.line("\nroutes of %s, as `caracal routes` prints them:", node)
	if err := c.WriteRoutes(ctx, out.w, node); err != nil {
		return err
	}
	out.line("")
	eps := c.Endpoints(nil)
	for _, size := range []int{0, c.Plan.WorkloadMTU()} {
		r, err := Matrix(ctx, eps, 5, size)
		if err != nil {
			return err
		}
		if size == 0 {
			if err := WriteMatrix(out.w, r); err != nil {
				return err
			}
			out.line("\n%s", r)
		} else {
			out.line("%s, in packets of %d bytes that may not be fragmented", r, size)
		}
		if r.Lost() > 0 {
			return fmt.Errorf("ping: %s", r)
		}
	}
	for _, p := range farthest(eps) {
		took, err := Transfer(ctx, p.From, p.To, transferBytes)
		if err != nil {
			return err
		}
		out.line("TCP, %d MiB from %s (%s) to %s in %s", transferBytes>>20, p.From.Name, p.From.Addr, p.To.Name, ms(took))
	}
	out.line("")
	return out.err
}

// farthest returns, for each address of the first node's workloads, a pair with a workload of the last node, which may be
// the same.
func farthest(eps []*Endpoint) []Pair {
	var out []Pair
	first, last := eps[0].Node, eps[len(eps)-1].Node
	for _, p := range pairsOf(eps, true) {
		if p.From.Node != first || p.To.Node != last {
			continue
		}
		if !slices.ContainsFunc(out, func(q Pair) bool { return q.From == p.From || q.To == p.To }) {
			out = append(out, p)
		}
	}
	return out
}
