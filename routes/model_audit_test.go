package routes

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// auditedKernel is a Fake that looks at the table before and after every operation of the Programmer's.
type auditedKernel struct {
	kernel.Kernel
	w *world
}

// WriteRoutes does one operation after the other and holds each against the rules.
func (a *auditedKernel) WriteRoutes(ctx context.Context, ops []kernel.RouteOp, failed func(int, error)) error {
	for i := range ops {
		err := a.one(ctx, &ops[i], func(err error) { failed(i, err) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *auditedKernel) one(ctx context.Context, op *kernel.RouteOp, failed func(error)) error {
	w := a.w
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	before := w.rawTable()
	err := a.Kernel.WriteRoutes(ctx, []kernel.RouteOp{*op}, func(_ int, err error) { failed(err) })
	after := w.rawTable()
	for k, list := range before.foreign {
		if _, raced := w.audit.fresh[k]; !slices.Equal(list, after.foreign[k]) && !(raced && op.Verb == kernel.Replace) {
			w.audit.breach("%v touched a foreign route: %v became %v", op, list, after.foreign[k])
		}
	}
	for k := range before.ours {
		if _, still := after.ours[k]; !still && w.audit.stay[k] {
			w.audit.breach("%v %v took away a route that is wanted", op.Verb, op.Route)
		}
	}
	return err
}

// rawTable is the table by key, in the kernel's words.
type rawTable struct {
	ours, foreign map[kernel.RouteKey][]string
}

func (w *world) rawTable() rawTable {
	t := rawTable{map[kernel.RouteKey][]string{}, map[kernel.RouteKey][]string{}}
	_, _ = w.far.ListLinks(context.Background()) // ends the flushes under way, as the call to come will: they are not its doing
	for _, v6 := range []bool{false, true} {
		_ = w.far.ListRoutes(context.Background(), v6, func(r *kernel.Route) bool {
			k := kernel.RouteKey{Dst: r.Dst, Metric: r.Metric, TOS: r.TOS}
			into := t.foreign
			if r.Protocol == kernel.ProtoCaracal {
				into = t.ours
			}
			into[k] = append(into[k], kernel.FormatRoute(r, func(i int) string { return fmt.Sprint(i) }))
			return true
		})
	}
	return t
}

// DeleteLink holds that nothing of others goes.
func (a *auditedKernel) DeleteLink(ctx context.Context, index int) error {
	a.mine("delete link", index)
	return a.Kernel.DeleteLink(ctx, index)
}

// AddAddress and DeleteAddress hold addresses against the rules.
func (a *auditedKernel) AddAddress(ctx context.Context, x kernel.Address) error {
	return a.w.auditAdd(x, func() error { return a.Kernel.AddAddress(ctx, x) })
}

// DeleteAddress is for AddAddress to say.
func (a *auditedKernel) DeleteAddress(ctx context.Context, x kernel.Address) error {
	return a.w.auditDelete(x, func() error { return a.Kernel.DeleteAddress(ctx, x) })
}

func (a *auditedKernel) SetLink(ctx context.Context, index, mtu int, mac [6]byte, up bool) error {
	a.mine("set link", index)
	return a.Kernel.SetLink(ctx, index, mtu, mac, up)
}

// WriteSysctl holds that only what is ours is set.
func (a *auditedKernel) WriteSysctl(ctx context.Context, name kernel.Sysctl, value int) error {
	if device := strings.Split(string(name), "/"); name != kernel.SysctlIPForward && name != kernel.SysctlIPv6Forward && !isTunnel(device[3]) {
		a.w.audit.mu.Lock()
		a.w.audit.breach("%s set to %d", name, value)
		a.w.audit.mu.Unlock()
	}
	return a.Kernel.WriteSysctl(ctx, name, value)
}

func (a *auditedKernel) mine(what string, index int) {
	links, _ := a.w.far.ListLinks(context.Background())
	for _, l := range links {
		if l.Index == index && !isTunnel(l.Name) {
			a.w.audit.mu.Lock()
			a.w.audit.breach("%s of %s", what, l.Name)
			a.w.audit.mu.Unlock()
		}
	}
}
