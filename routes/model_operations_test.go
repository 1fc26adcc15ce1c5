package routes

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// operation is one thing that can happen, and how often it does.
type operation struct {
	weight int
	run    func()
}

func (w *world) operations() []operation {
	all := []operation{
		{30, w.someRoutes},
		{4, w.wholeSet},
		{6, w.someNeighbours},
		{2, w.tunnelWish},
		{8, w.foreignAdds},
		{6, w.foreignReplaces},
		{8, w.foreignDeletes},
		{8, w.oursDeleted},
		{8, w.oursChanged},
		{3, w.stray},
		{6, w.neighbourMeddling},
		{3, w.tunnelMeddling},
		{4, w.flap},
		{3, w.carrier},
		{2, w.wireGone},
		{3, w.addresses},
		{5, w.dialWish},
		{5, w.addressMeddling},
		{2, w.crash},
		{2, w.resyncNow},
	}
	if w.byID {
		all = append(all, operation{8, w.objectMeddling}, operation{4, w.leanOn})
	}
	if w.fake == nil {
		all = append(all, operation{4, w.shakeCalls})
	} else {
		all = append(all, operation{8, w.fault}, operation{2, w.eventsLost})
	}
	return all
}

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

// gatewayOn is a gateway beyond a device. IPv6 refuses one that another device leads to, onlink or not.
func gatewayOn(device string, v6 bool, n int) netip.Addr {
	if !v6 {
		return addr(fmt.Sprintf("192.0.2.%d", n))
	}
	return addr(fmt.Sprintf("2001:db8:%s::%d", map[string]string{"eth0": "0", "eth1": "e1", "cali0": "ca", DeviceVXLAN: "ff"}[device], n))
}

// gatewayFor is one for a route to a destination: where that is IPv4, an IPv6 one now and then (RFC 8950).
func (w *world) gatewayFor(dst netip.Prefix, device string, n int) netip.Addr {
	switch v6 := dst.Addr().Is6(); {
	case v6 || w.rng.IntN(4) > 0:
		return gatewayOn(device, v6, n)
	case w.rng.IntN(2) == 0:
		return addr(fmt.Sprintf("fe80::%d", n))
	}
	return gatewayOn(device, true, n)
}

// wish is a random wish.
func (w *world) wish() Route {
	r := Route{Dst: w.prefix(), Type: kernel.Unicast}
	nth := func(n int, device string) NextHop {
		return NextHop{Gateway: w.gatewayFor(r.Dst, device, n), Device: device, Onlink: true}
	}
	hop := func(device string) NextHop { return nth(2+w.rng.IntN(4), device) }
	if w.rng.IntN(10) == 0 {
		r.Metric = 512
	}
	switch n := w.rng.IntN(20); {
	case n < 8:
		r.NextHops = []NextHop{hop("eth0")}
	case n < 10:
		r.NextHops = []NextHop{hop("cali0")}
	case n < 12:
		r.NextHops = []NextHop{hop("eth1")}
		if r.Dst.Addr().Is4() && w.rng.IntN(3) == 0 {
			r.Src = sourceAddress.Addr()
		}
	case n < 14:
		r.NextHops = []NextHop{hop("eth0"), hop(pick(w, []string{"eth1", "cali0"}))}
	case n < 15:
		r.NextHops = []NextHop{nth(2, "eth0"), nth(3, "eth0"), hop("eth1")}
	case n < 17:
		r.NextHops, r.MTU = []NextHop{hop(DeviceVXLAN)}, 1450
	case n < 19:
		r.Type = kernel.Blackhole
	default:
		r.Unroutable = "no way there"
	}
	return r
}

// keyMoved tells the audit that a key may now go missing, if by the model it does.
func (w *world) keyMoved(k Key, before map[kernel.RouteKey]string) {
	key := kernel.RouteKey{Dst: k.Dst, Metric: k.Metric}
	if before[key] == "" || w.expected()[key] == "" {
		w.audit.moved(key)
	}
}

func (w *world) someRoutes() {
	o := pick(w, w.owners)
	var c Change
	for range w.rng.IntN(6) + 1 {
		before := w.expected()
		if r := w.wish(); w.rng.IntN(3) > 0 {
			w.wants[o][r.Key()] = r
			c.Routes = append(c.Routes, r)
			w.keyMoved(r.Key(), before)
		}
	}
	for k := range w.wants[o] {
		if len(c.Withdraw) > w.rng.IntN(3) {
			break
		}
		before := w.expected()
		delete(w.wants[o], k)
		for i := range c.Routes {
			if c.Routes[i].Key() == k { // a step takes away first
				w.wants[o][k] = c.Routes[i]
			}
		}
		c.Withdraw = append(c.Withdraw, k)
		w.audit.moved(kernel.RouteKey{Dst: k.Dst, Metric: k.Metric})
		w.keyMoved(k, before)
	}
	w.say("%s: %v, withdraw %v", o, c.Routes, c.Withdraw)
	w.p.Apply(o, c)
}

func (w *world) wholeSet() {
	o := pick(w, w.owners)
	before := w.expected()
	old := w.wants[o]
	w.wants[o] = map[Key]Route{}
	for k, r := range old {
		if w.rng.IntN(4) > 0 {
			w.wants[o][k] = r
		}
	}
	for range w.rng.IntN(8) {
		r := w.wish()
		w.wants[o][r.Key()] = r
	}
	for k := range old {
		w.keyMoved(k, before)
	}
	for k := range w.wants[o] {
		w.keyMoved(k, before)
	}
	c := w.whole(o)
	w.say("%s: whole %v", o, c.Routes)
	w.p.Apply(o, c)
}

func (w *world) someNeighbours() {
	n := byte(2 + w.rng.IntN(6))
	c := vtep(Change{}, n)
	c.Routes = nil
	if w.rng.IntN(3) == 0 {
		for _, nb := range c.Neighbours {
			k, _ := keyOfNeighbour(&nb)
			if old, ok := w.neighs[k]; ok {
				c.WithdrawNeighbours = append(c.WithdrawNeighbours, old)
				delete(w.neighs, k)
			}
		}
		c.Neighbours = nil
	} else if w.rng.IntN(2) == 0 {
		c.Neighbours[0].MAC = mac(byte(20 + w.rng.IntN(3)))
		c.Neighbours[1].Addr = netip.AddrFrom4([4]byte{192, 0, 2, byte(200 + w.rng.IntN(3))})
	}
	for _, nb := range c.Neighbours {
		k, _ := keyOfNeighbour(&nb)
		w.neighs[k] = nb
	}
	w.say("neighbours %v, withdraw %v", c.Neighbours, c.WithdrawNeighbours)
	w.p.Apply(OwnerVXLAN, c)
}

func (w *world) tunnelWish() {
	w.audit.shaken()
	w.links = []Link{}
	if w.rng.IntN(4) > 0 {
		l := vxlanLink()
		l.MTU = 1400 + 10*w.rng.IntN(3)
		l.VXLAN.VNI = 4096 + uint32(w.rng.IntN(2))
		w.links = []Link{l}
	}
	w.say("tunnel %+v", w.links)
	w.p.Apply(OwnerVXLAN, Change{Links: w.links})
}

// foreignRoute is a route that another program may write.
func (w *world) foreignRoute() kernel.Route {
	r := kernel.Route{Dst: w.prefix(), Metric: pick(w, []uint32{Metric, Metric, 512, 2048}), Type: kernel.Unicast}
	r.Protocol = pick(w, []kernel.Protocol{kernel.ProtoStatic, kernel.ProtoBird, kernel.ProtoFelix, kernel.ProtoBoot})
	name := pick(w, []string{"eth0", "eth1", "cali0"})
	l := w.device(name)
	if l == nil || w.rng.IntN(4) == 0 {
		r.Type = kernel.Blackhole
		return r
	}
	r.NextHops = []kernel.NextHop{{Gateway: w.gatewayFor(r.Dst, name, 99), Link: l.Index, Onlink: true}}
	return r
}

// theirs performs an operation of the other program; it may well be refused.
func (w *world) theirs(v kernel.Verb, r kernel.Route) {
	k := kernel.RouteKey{Dst: r.Dst, Metric: r.Metric}
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	delete(w.audit.stay, k)
	if v != kernel.Delete && r.Protocol != kernel.ProtoCaracal {
		w.audit.fresh[k] = time.Now()
	}
	refused := ""
	w.must(w.far.WriteRoutes(w.t.Context(), []kernel.RouteOp{{Verb: v, Route: &r}}, func(_ int, err error) { refused = ": " + err.Error() }))
	w.say("another program: %v %s%s", v, kernel.FormatRoute(&r, func(i int) string { return fmt.Sprint("link ", i) }), refused)
}

func (w *world) foreignAdds() { w.theirs(kernel.Add, w.foreignRoute()) }

func (w *world) foreignReplaces() { w.theirs(kernel.Replace, w.foreignRoute()) }

// existing is a random route of the kernel that matches, of those under the keys that the test uses.
func (w *world) existing(match func(*kernel.Route) bool) (kernel.Route, bool) {
	var all []kernel.Route
	for _, v6 := range []bool{false, true} {
		err := w.far.ListRoutes(w.t.Context(), v6, func(r *kernel.Route) bool {
			if match(r) {
				c := *r
				c.NextHops = append([]kernel.NextHop(nil), r.NextHops...)
				all = append(all, c)
			}
			return true
		})
		if err != nil {
			return kernel.Route{}, false
		}
	}
	if len(all) == 0 {
		return kernel.Route{}, false
	}
	return pick(w, all), true
}

func (w *world) foreignDeletes() {
	r, ok := w.existing(func(r *kernel.Route) bool {
		return r.Protocol != kernel.ProtoCaracal && r.Protocol != kernel.ProtoKernel && r.Metric != 0 && !r.Dst.Addr().IsMulticast()
	})
	if ok && r.Dst.Bits() != 0 {
		w.theirs(kernel.Delete, r)
	}
}

func isOurs(r *kernel.Route) bool { return r.Protocol == kernel.ProtoCaracal }

func (w *world) oursDeleted() {
	if r, ok := w.existing(isOurs); ok {
		w.theirs(kernel.Delete, r)
	}
}

// oursChanged has the other program write under our protocol number over a route of ours.
func (w *world) oursChanged() {
	r, ok := w.existing(isOurs)
	if !ok {
		return
	}
	changed := w.foreignRoute()
	changed.Dst, changed.Metric, changed.Protocol = r.Dst, r.Metric, r.Protocol
	if len(changed.NextHops) > 0 && r.Dst.Addr().Is6() && changed.NextHops[0].Gateway.Is4() {
		changed.Type, changed.NextHops = kernel.Blackhole, nil
	}
	w.theirs(kernel.Replace, changed)
}

// stray has it write one that nobody wants, under our protocol number.
func (w *world) stray() {
	r := w.foreignRoute()
	r.Protocol = kernel.ProtoCaracal
	w.theirs(kernel.Add, r)
}

func (w *world) neighbourMeddling() {
	l := w.device(DeviceVXLAN)
	if l == nil || !l.Up {
		return
	}
	list, err := w.far.ListNeighbours(w.t.Context(), l.Index)
	if err != nil {
		return
	}
	n := kernel.Neighbour{Link: l.Index, Addr: netip.AddrFrom4([4]byte{10, 244, byte(w.rng.IntN(9)), 0}), MAC: mac(byte(90 + w.rng.IntN(3))), Permanent: true}
	del := false
	switch w.rng.IntN(4) {
	case 0:
		n.FDB, n.Addr, n.MAC = true, netip.AddrFrom4([4]byte{192, 0, 2, 99}), mac(byte(2+w.rng.IntN(6)))
	case 1:
		n.Permanent = false
	default:
		if len(list) > 0 && list[0].Addr.IsValid() {
			n, del = pick(w, list), true
		}
	}
	refused := ""
	err = w.far.WriteNeighbours(w.t.Context(), []kernel.NeighbourOp{{Delete: del, Neighbour: n}}, func(_ int, err error) { refused = ": " + err.Error() })
	w.say("another program: delete %v neighbour %+v%s %v", del, n, refused, err)
}

// tunnelMeddling changes our device, or takes it away.
func (w *world) tunnelMeddling() {
	l := w.device(DeviceVXLAN)
	if l == nil {
		return
	}
	defer w.shake()()
	ctx := w.t.Context()
	var err error
	n := w.rng.IntN(6)
	switch n {
	case 0:
		err = w.far.DeleteLink(ctx, l.Index)
	case 1:
		err = w.far.SetLink(ctx, l.Index, 1300, mac(77), true)
	case 2:
		err = w.far.SetLink(ctx, l.Index, 0, [6]byte{}, false)
	case 3:
		err = w.far.AddAddress(ctx, kernel.Address{Link: l.Index, Prefix: pfx("10.99.0.1/32")})
	default:
		err = w.far.DeleteAddress(ctx, kernel.Address{Link: l.Index, Prefix: pfx("10.244.0.1/32")})
	}
	w.say("another program: meddles with the tunnel (%d): %v", n, err)
}

// flap takes an interface down or up.
func (w *world) flap() {
	name := pick(w, []string{"eth0", "eth1", "cali0", "cali1"})
	up, there := w.wires[name]
	if !there {
		return
	}
	defer w.shake()()
	w.say("%s up: %v", name, !up)
	w.wires[name] = !up
	index := w.device(name).Index
	w.must(w.far.SetLink(w.t.Context(), index, 0, [6]byte{}, !up))
	if up {
		w.interfaceFell(index)
	}
	if name == "eth0" && !up { // what the kernel drops when an interface goes down
		_ = w.far.AddAddress(w.t.Context(), kernel.Address{Link: w.device(name).Index, Prefix: pfx("2001:db8::1/64")})
	}
}

// addresses takes the only IPv4 address of eth1 away, with all IPv4 routes of eth1, or brings it.
func (w *world) addresses() {
	if _, there := w.wires["eth1"]; !there {
		return
	}
	defer w.shake()()
	w.say("address on eth1: %v", !w.source)
	w.source = !w.source
	a := kernel.Address{Link: w.device("eth1").Index, Prefix: sourceAddress}
	if w.source {
		w.must(w.far.AddAddress(w.t.Context(), a))
	} else {
		w.must(w.far.DeleteAddress(w.t.Context(), a))
	}
}

// wireGone takes an interface away, or brings it back under another index.
func (w *world) wireGone() {
	name := pick(w, []string{"eth0", "eth1", "eth1", "cali0", "cali1"})
	defer w.shake()()
	if _, there := w.wires[name]; there {
		w.say("%s goes", name)
		delete(w.wires, name)
		delete(w.cut, name)
		w.source = w.source && name != "eth1"
		index := w.device(name).Index
		w.must(w.far.DeleteLink(w.t.Context(), index))
		w.interfaceWent(index)
		return
	}
	w.say("%s comes", name)
	w.wires[name] = true
	index := w.wire(name)
	if name == "eth0" {
		w.eth0 = index
		w.address("192.0.2.1/24")
		w.address("2001:db8::1/64")
	}
}

// crash ends the Programmer wherever it is; another starts with no memory.
func (w *world) crash() {
	w.say("crash and start")
	w.audit.shaken()
	w.stop()
	w.begin()
}

func (w *world) resyncNow() {
	w.say("resync")
	if w.faulty {
		return // it might never be answered
	}
	_ = w.p.Resync(w.t.Context())
}

func (w *world) fault() {
	f := pick(w, w.honest())
	f.Nth, f.Times = 1+w.rng.IntN(4), 1+w.rng.IntN(3)
	w.say("fault %v", f)
	w.faulty = true
	w.audit.shaken()
	w.fake.Inject(f)
}

func (w *world) eventsLost() {
	w.say("events are lost")
	w.audit.shaken()
	w.fake.LoseEvents()
}

func (w *world) shakeCalls() {
	w.say("calls fail")
	w.faulty = true
	w.audit.shaken()
	w.shaky.Store(true)
}
