package routes

import (
	"context"
	"fmt"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// objects are the nexthop objects of the kernel.
func (w *world) objects() (all []kernel.Nexthop) {
	w.t.Helper()
	w.must(w.far.ListNexthops(w.t.Context(), func(n *kernel.Nexthop) bool {
		if n.ID != kernel.ProbeNexthop {
			all = append(all, *cloneNexthop(n))
		}
		return true
	}))
	return all
}

// objectMeddling has the other program write and delete nexthop objects: ours, under our protocol number, and its own.
func (w *world) objectMeddling() {
	n := kernel.Nexthop{ID: firstNexthop + uint32(w.rng.IntN(40)), V6: w.rng.IntN(3) == 0, Protocol: pick(w, []kernel.Protocol{kernel.ProtoCaracal, kernel.ProtoStatic})}
	verb := kernel.Add
	if all := w.objects(); len(all) > 0 && w.rng.IntN(3) > 0 {
		have := pick(w, all)
		if n.ID = have.ID; w.rng.IntN(3) > 0 {
			n.V6 = have.V6
		}
		verb = pick(w, []kernel.Verb{kernel.Delete, kernel.Delete, kernel.Replace})
		if verb == kernel.Replace && w.rng.IntN(2) == 0 {
			n.Protocol = have.Protocol
		}
	}
	name := pick(w, []string{"eth0", "eth1"})
	l := w.device(name)
	if l == nil {
		return
	}
	n.Link, n.Onlink, n.Gateway = l.Index, true, gatewayOn(name, n.V6, 2+w.rng.IntN(8))
	defer w.shake()()
	w.audit.meddled = true
	refused := ""
	err := w.far.WriteNexthops(w.t.Context(), []kernel.NexthopOp{{Verb: verb, Nexthop: &n}}, func(_ int, err error) { refused = ": " + err.Error() })
	w.say("another program: %v%s %v", kernel.NexthopOp{Verb: verb, Nexthop: &n}, refused, err)
}

// leanOn has it write a route of its own, or one under our number, that leads to an object of anybody.
func (w *world) leanOn() {
	all := w.objects()
	if len(all) == 0 {
		return
	}
	r := w.foreignRoute()
	r.Type, r.NextHops, r.NexthopID = kernel.Unicast, nil, pick(w, all).ID
	if w.rng.IntN(4) == 0 {
		r.Protocol = kernel.ProtoCaracal
	}
	w.audit.meddled = true
	w.theirs(pick(w, []kernel.Verb{kernel.Add, kernel.Replace}), r)
}

// carrier takes the carrier of an interface that is up, or brings it.
func (w *world) carrier() {
	name := pick(w, []string{"eth0", "eth1", "cali0"})
	if !w.wires[name] {
		return
	}
	defer w.shake()()
	on := w.cut[name]
	w.cut[name] = !on
	w.say("%s carrier: %v", name, on)
	if w.fake != nil {
		w.fake.SetCarrier(w.device(name).Index, on)
		return
	}
	w.ip("link", "set", "x"+name, map[bool]string{true: "up", false: "down"}[on])
}

// reached are the next hops of a wish that the kernel must hold: by interfaces that are up; in a group of objects by those that have a
// carrier, if one has.
func (w *world) reached(hops []NextHop) []NextHop {
	up := slices.DeleteFunc(slices.Clone(hops), func(h NextHop) bool { return !w.up(h.Device) })
	live := slices.DeleteFunc(slices.Clone(up), func(h NextHop) bool { return w.cut[h.Device] })
	w.p.mu.Lock()
	usable := w.p.nexthops.usable // not where a fault made the kernel say that it has none
	for _, o := range w.p.nexthops.byKey {
		// Nor where the kernel refuses the group, as it does one with IPv4 gateways while another program's IPv6 route leans on its number.
		usable = usable && !(o.trouble.refused && w.sameWay(o.hops, up))
	}
	w.p.mu.Unlock()
	if usable && len(live) > 0 {
		return live
	}
	return up
}

// sameWay reports whether next hops of an object are those of a wish, in any order.
func (w *world) sameWay(object, wish []NextHop) bool {
	return len(object) == len(wish) && !slices.ContainsFunc(object, func(o NextHop) bool {
		return !slices.ContainsFunc(wish, func(h NextHop) bool { return h.Gateway == o.Gateway && h.Device == o.Device })
	})
}

// WriteNexthops does one operation after the other and holds each against the rules.
func (a *auditedKernel) WriteNexthops(ctx context.Context, ops []kernel.NexthopOp, failed func(int, error)) error {
	w := a.w
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	for i := range ops {
		before, theirs := w.rawTable(), w.othersObjects()
		err := a.Kernel.WriteNexthops(ctx, ops[i:i+1], func(_ int, err error) { failed(i, err) })
		after := w.rawTable()
		for k, list := range before.foreign {
			if _, raced := w.audit.fresh[k]; len(after.foreign[k]) != len(list) && !raced && !w.audit.meddled { // one that leans on an object of ours moves with it
				w.audit.breach("%v touched a foreign route: %v became %v", ops[i], list, after.foreign[k])
			}
		}
		for k := range before.ours {
			if _, still := after.ours[k]; !still && !w.audit.meddled {
				w.audit.breach("%v took away %v, %v", ops[i], k, before.ours[k])
			}
		}
		if now := w.othersObjects(); !slices.Equal(theirs, now) && !w.audit.meddled {
			w.audit.breach("%v touched a nexthop object of another program: %v became %v", ops[i], theirs, now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// othersObjects are the nexthop objects of other programs.
func (w *world) othersObjects() (all []string) {
	_ = w.far.ListNexthops(context.Background(), func(n *kernel.Nexthop) bool {
		if n.Protocol != kernel.ProtoCaracal && len(n.Group) == 0 {
			all = append(all, kernel.FormatNexthop(n, func(i int) string { return fmt.Sprint(i) }))
		}
		return true
	})
	return all
}

// objectsKnown are the Programmer's nexthop objects.
func (w *world) objectsKnown() (all []string) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	for _, o := range w.p.nexthops.byKey {
		line := fmt.Sprintf("%v: id %d, usable %v, refused %v, attempts %d, due in %v, queued %v", o.hops, o.id, o.usable, o.trouble.refused, o.trouble.attempts, o.trouble.due.Sub(w.p.now), o.queued)
		if o.have != nil {
			line += ", kernel: " + kernel.FormatNexthop(o.have, func(i int) string { return fmt.Sprint(i) })
		}
		all = append(all, line)
	}
	return all
}
