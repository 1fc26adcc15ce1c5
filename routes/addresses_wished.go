package routes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// wishedAddresses are the addresses that owners wish for on workload interfaces. They carry our protocol (kernel.Address), by which a process that
// remembers nothing knows them; one that is there without it is another program's, does as well, and is left when nobody wishes for it any more.
type wishedAddresses struct {
	owners map[uint8][]InterfaceAddress
	list   map[InterfaceAddress]*addressWish
	dirty  bool
	due    time.Time // of the next attempt at those that wait
	kept   bool      // one that nobody wishes for stays, for other programs' routes would go with it
}

// addressWish is one of them.
type addressWish struct {
	rank     uint8
	link     int  // where it was put or seen
	put      bool // by us, and its event is awaited
	seen     bool // ours is in the mirror
	repairs  int
	attempts int
	written  time.Time
	due      time.Time // not written before
}

// isWorkloadInterface reports whether an interface is a workload's, by its name.
func isWorkloadInterface(name string) bool { return strings.HasPrefix(name, workloadPrefix) }

// wish takes an owner's whole set. Those on other than workload interfaces are not an owner's to wish for.
func (t *wishedAddresses) wish(rank uint8, list []InterfaceAddress) {
	if t.owners == nil {
		t.owners = map[uint8][]InterfaceAddress{}
	}
	t.owners[rank] = list
	fresh := map[InterfaceAddress]*addressWish{}
	for _, rank := range slices.Sorted(maps.Keys(t.owners)) {
		for _, a := range t.owners[rank] {
			if fresh[a] != nil || !isWorkloadInterface(a.Device) || !a.Addr.IsValid() {
				continue
			}
			w := t.list[a]
			if w == nil {
				w = &addressWish{rank: rank}
			}
			fresh[a] = w
		}
	}
	t.list, t.dirty = fresh, true
}

// keepAddresses puts the addresses that are missing where their interface is.
func (p *Programmer) keepAddresses(ctx context.Context) {
	t := &p.addresses
	if !p.devicesKnown() || !t.dirty && (t.due.IsZero() || t.due.After(p.now)) {
		return
	}
	t.dirty, t.due = false, time.Time{}
	for a, w := range t.list {
		l := p.links.named(a.Device)
		if l == nil || !l.Up { // IPv6 addresses go when it goes down
			w.link = 0
			continue
		}
		if w.link != l.Index {
			*w = addressWish{rank: w.rank, link: l.Index}
		}
		if there, ours := p.holdsOn(l.Index, a.Addr); there {
			w.seen, w.put = ours, false
			continue
		}
		if w.seen {
			p.addressFought(a, w)
		}
		if !w.due.After(p.now) {
			p.putAddress(ctx, a, w)
		}
		if w.due.After(p.now) && (t.due.IsZero() || w.due.Before(t.due)) {
			t.due = w.due
		}
	}
}

// holdsOn reports whether an interface has an address, and whether it is ours.
func (p *Programmer) holdsOn(link int, a netip.Addr) (there, ours bool) {
	for _, o := range p.links.addrs[link] {
		if o.Prefix.Addr() == a {
			there, ours = true, ours || o.Protocol == kernel.ProtoCaracal
		}
	}
	return there, ours
}

// putAddress writes one. Its event brings it into the mirror; until then a second attempt is refused as existing.
func (p *Programmer) putAddress(ctx context.Context, a InterfaceAddress, w *addressWish) {
	prefix := netip.PrefixFrom(a.Addr, a.Addr.BitLen())
	want := kernel.Address{Link: w.link, Prefix: prefix, Protocol: kernel.ProtoCaracal}
	if a.Addr.Is4() {
		want.Scope = kernel.ScopeHost // never the source of what the host itself sends to the workload
	}
	err := p.kernel.AddAddress(ctx, want)
	t := thing{device: a.Device, kind: addressThing, addr: prefix}
	switch {
	case err == nil:
		p.noteThing(t, w.rank, p.recorder.now, written, "")
		if w.put { // it came and went before we saw it
			p.addressFought(a, w)
		}
		w.put, w.written, w.attempts = true, p.now, 0
	case errors.Is(err, kernel.ErrExists), errors.Is(err, kernel.ErrNoDevice): // an event tells, and if not
		w.due = p.now.Add(settleTime)
	default:
		w.attempts++
		w.due = p.now.Add(backoff(retryFirst, retryMost, w.attempts))
		p.noteThing(t, w.rank, p.recorder.now, refused, describe(err))
		if w.attempts == 1 {
			p.log.Warn("an address that workloads dial cannot be put on their interface; it is tried again", logDevice, a.Device, logAddress, prefix.String(), logError, err)
		}
	}
}

// addressFought says that somebody took away what we had put there.
func (p *Programmer) addressFought(a InterfaceAddress, w *addressWish) {
	w.seen = false
	if p.now.Sub(w.written) > calmAfter {
		w.repairs = 0
	}
	w.repairs++
	w.due = p.now.Add(fightPause(w.repairs))
	p.stats.Repairs++
	how := "another program removes this address"
	p.noticeThing(thing{device: a.Device, kind: addressThing, addr: netip.PrefixFrom(a.Addr, a.Addr.BitLen())}, w.rank, how)
	if w.repairs == freeRepairs+1 {
		p.log.Warn("another program keeps changing a device of ours; repairs slow down", logDevice, a.Device, logDetail, fmt.Sprintf("%s: %s", how, a.Addr))
	}
}

// removeAddresses removes what carries our protocol on workload interfaces and nobody wishes for any more. The kernel drops all IPv4 routes of an interface
// with its last IPv4 address (fib_disable_ip): ours come back at once, another program's would not, so where it has one, as the CNI plugin has to the workload, the
// address stays until the route goes, or the interface. Beside a Felix the interfaces are its own.
//
// A delete cannot say whose address is meant. So the mirror loses it here, and not by the event to come: a second delete would hit what another program
// has put there since.
func (p *Programmer) removeAddresses(ctx context.Context) {
	if p.policy.beside {
		return
	}
	p.addresses.kept = false
	for index, list := range p.links.addrs {
		name := p.links.nameOf(index)
		if !isWorkloadInterface(name) {
			continue
		}
		for _, a := range slices.Clone(list) {
			if a.Protocol != kernel.ProtoCaracal || p.addresses.list[InterfaceAddress{name, a.Prefix.Addr()}] != nil {
				continue
			}
			if p.lastOfForeign(a) {
				p.addresses.kept = true
				continue
			}
			err := p.kernel.DeleteAddress(ctx, a)
			p.removed(thing{device: name, kind: addressThing, addr: a.Prefix}, err)
			if err == nil {
				p.addressGone(&a)
			}
		}
	}
}

// lastOfForeign reports whether an address is the last IPv4 one of an interface by which another program has an IPv4 route.
func (p *Programmer) lastOfForeign(a kernel.Address) bool {
	if a.Prefix.Addr().Is6() || p.foreign.hops[a.Link] == 0 || slices.ContainsFunc(p.links.addrs[a.Link], func(o kernel.Address) bool {
		return o.Prefix.Addr().Is4() && o.Prefix != a.Prefix
	}) {
		return false
	}
	for k, f := range p.foreign.byKey {
		for ; f != nil && k.Dst.Addr().Is4(); f = f.next {
			if slices.ContainsFunc(f.hops, func(h kernel.NextHop) bool { return h.Link == a.Link }) {
				return true
			}
		}
	}
	return false
}
