package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// takeover makes one node's kernel what a calico-node leaves that has been removed, by two releases of Calico, and starts a daemon there.
func takeover(ctx context.Context, r *run) error {
	node := r.victim()
	for _, f := range formers() {
		err := r.withKernel(node, func(k kernel.Kernel) error { return r.takeOver(ctx, node, k, f) })
		if err != nil {
			return fmt.Errorf("from %s: %w", f.name, err)
		}
	}
	return nil
}

func (r *run) takeOver(ctx context.Context, node string, k kernel.Kernel, f former) error {
	if err := r.Stop(ctx, node, syscall.SIGKILL); err != nil {
		return err
	}
	left, err := r.leaveBehind(ctx, node, k, f)
	if err != nil {
		return fmt.Errorf("make what calico-node leaves: %w", err)
	}
	if _, err := WaitReachable(ctx, r.Endpoints(nil)); err != nil {
		return fmt.Errorf("by what calico-node leaves: %w", err)
	}
	devices := map[int]bool{}
	for _, l := range left.before.devices {
		devices[left.indexes[l.Name]] = true
	}
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := r.watchNode(wctx, node, left.wanted, left.strangers, maps.Clone(devices))
	if err != nil {
		return err
	}
	defer func() { _ = w.kernel.Close() }()
	begin := func() error {
		began := time.Now()
		if err := r.Start(node); err != nil {
			return err
		}
		if err := poll(ctx, 5*time.Millisecond, func() error { return left.taken(context.WithoutCancel(ctx), k) }); err != nil {
			return errors.Join(err, r.why(ctx))
		}
		r.note("everything of "+f.name+" was taken over after", "%s", ms(time.Since(began)))
		_, err := r.WaitSettled(ctx)
		return err
	}
	_, err = r.probed(ctx, "of all pairs, from "+f.name, r.Endpoints(nil), lossless, func() error { return r.guarded(ctx, begin) })
	if err != nil {
		return err
	}
	if err := w.verdict(ctx); err != nil {
		return err
	}
	if w.seen < len(left.wanted) {
		return fmt.Errorf("only %d events about %d destinations: the watch has seen too little", w.seen, len(left.wanted))
	}
	r.note("destinations taken over from "+f.name, "%d, none without a route at any time", len(left.wanted))
	return r.deleteRoutes(ctx, k, left.strangers)
}

// taken reports what is not yet as it was before calico-node: routes of ours, and none of its own but the strangers; the devices as it left them.
func (l *legacy) taken(ctx context.Context, k kernel.Kernel) error {
	now, err := holdingsOf(ctx, k)
	if err != nil {
		return err
	}
	if have, want := now.lines(), l.before.lines(); !slices.Equal(have, want) {
		return fmt.Errorf("routes of ours are\n  %s\nand were\n  %s", strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
	for _, d := range now.devices {
		if d.Index != l.indexes[d.Name] {
			return fmt.Errorf("device %s was made anew", d.Name)
		}
	}
	theirs := 0
	for _, v6 := range []bool{false, true} {
		err = errors.Join(err, k.ListRoutes(ctx, v6, func(r *kernel.Route) bool {
			if r.Protocol == kernel.ProtoBird || r.Protocol == kernel.ProtoFelix || r.Protocol == kernel.ProtoBoot && len(r.NextHops) > 0 && slices.Contains(tunnelDevices(), now.names[r.NextHops[0].Link]) {
				theirs++
			}
			return true
		}))
	}
	if err == nil && theirs != len(l.strangers) {
		err = fmt.Errorf("%d routes of BIRD and Felix, want the %d that are no business of ours", theirs, len(l.strangers))
	}
	return err
}

func (r *run) deleteRoutes(ctx context.Context, k kernel.Kernel, list []kernel.Route) (err error) {
	var ops []kernel.RouteOp
	for i := range list {
		ops = append(ops, kernel.RouteOp{Verb: kernel.Delete, Route: &list[i]})
	}
	werr := k.WriteRoutes(ctx, ops, func(_ int, e error) { err = errors.Join(err, e) })
	return errors.Join(werr, err)
}
