package routes

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/caracal-net/caracal/internal/kernel"
)

// The model check of the addresses that workloads dial: wishes of several owners, and another program that puts addresses on the same interfaces, takes any away,
// and puts its own in the place of ours.

// workloadInterfaces come and go like eth1; a third one never comes.
var workloadInterfaces = []string{"cali0", "cali1"}

// place is an address on an interface that may have had another life under its name.
type place struct {
	link   int
	prefix netip.Prefix
}

// addressAudit is what the watching side knows of addresses.
type addressAudit struct {
	// stay were there and ours when all was last quiet, and have been wished for since.
	stay map[InterfaceAddress]bool
	// lately were wished for at any time since all was last quiet.
	lately map[InterfaceAddress]bool
	// fresh were changed by the other program since then. A delete cannot say whose address it means: who takes our place in the moment before is hit.
	fresh map[place]bool
}

func (w *world) host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// dialled is a random address that workloads may dial.
func (w *world) dialled() netip.Addr {
	return addr(pick(w, []string{"169.254.0.179", "169.254.0.180", "fd12::1", "fd12::2"}))
}

// dialWish is an owner's new whole set of addresses.
func (w *world) dialWish() {
	o := pick(w, w.owners)
	fresh := []InterfaceAddress{}
	for range w.rng.IntN(5) {
		fresh = append(fresh, InterfaceAddress{pick(w, []string{"cali0", "cali0", "cali1", "cali1", "cali2", "eth0"}), w.dialled()})
	}
	w.audit.mu.Lock()
	w.dials[o] = fresh
	wished := w.wished()
	for a := range w.audit.addresses.stay {
		if !wished[a] {
			delete(w.audit.addresses.stay, a)
		}
	}
	maps.Copy(w.audit.addresses.lately, wished)
	w.audit.mu.Unlock()
	w.say("%s: addresses %v", o, fresh)
	w.p.Apply(o, Change{Addresses: slices.Clone(fresh)})
}

// wished are the addresses that some owner wishes for, where an owner may wish for one.
func (w *world) wished() map[InterfaceAddress]bool {
	all := map[InterfaceAddress]bool{}
	for _, list := range w.dials {
		for _, a := range list {
			if strings.HasPrefix(a.Device, "cali") {
				all[a] = true
			}
		}
	}
	return all
}

// addressesOf are those of an interface, but for link-local IPv6 ones.
func (w *world) addressesOf(link int) []kernel.Address {
	all, _ := w.far.ListAddresses(context.Background())
	return slices.DeleteFunc(all, func(a kernel.Address) bool {
		return a.Link != link || a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast()
	})
}

// addressMeddling has the other program do something to the addresses of a workload's interface.
func (w *world) addressMeddling() {
	name := pick(w, workloadInterfaces)
	if !w.wires[name] {
		return
	}
	defer w.shake()()
	link := w.device(name).Index
	have := w.addressesOf(link)
	switch w.rng.IntN(6) {
	case 0, 1:
		prefix := w.host(w.dialled())
		if prefix == pfx("169.254.0.179/32") && w.rng.IntN(2) == 0 {
			prefix = pfx("169.254.0.179/24")
		}
		w.putTheirs(name, kernel.Address{Link: link, Prefix: prefix})
	case 2:
		w.putTheirs(name, kernel.Address{Link: link, Prefix: w.host(w.dialled()), Protocol: kernel.ProtoCaracal})
	case 3:
		if len(have) > 0 {
			a := pick(w, have)
			w.takeAway(name, a)
			a.Protocol, a.Scope = 0, 0
			w.putTheirs(name, a)
		}
	default:
		if len(have) > 0 {
			w.takeAway(name, pick(w, have))
		}
	}
}

func (w *world) putTheirs(name string, a kernel.Address) {
	err := w.far.AddAddress(w.t.Context(), a)
	w.say("another program: address %s of protocol %d on %s: %v", a.Prefix, a.Protocol, name, err)
	if err != nil {
		return
	}
	w.audit.addresses.fresh[place{a.Link, a.Prefix}] = true
	if a.Protocol == 0 {
		w.theirAddresses[place{a.Link, a.Prefix}] = true
	}
}

func (w *world) takeAway(name string, a kernel.Address) {
	w.say("another program: address %s of protocol %d off %s", a.Prefix, a.Protocol, name)
	w.must(w.far.DeleteAddress(w.t.Context(), a))
	w.audit.addresses.fresh[place{a.Link, a.Prefix}] = true
	delete(w.theirAddresses, place{a.Link, a.Prefix})
}

// interfaceFell says which addresses the kernel drops when an interface goes down.
func (w *world) interfaceFell(link int) {
	maps.DeleteFunc(w.theirAddresses, func(p place, _ bool) bool { return p.link == link && p.prefix.Addr().Is6() })
}

// interfaceWent does so for one that goes away.
func (w *world) interfaceWent(link int) {
	maps.DeleteFunc(w.theirAddresses, func(p place, _ bool) bool { return p.link == link })
}

// addressesAgree compares the addresses of workload interfaces with the model.
func (w *world) addressesAgree() error {
	wished, theirs, leading := w.wished(), maps.Clone(w.theirAddresses), w.othersLead()
	for _, name := range workloadInterfaces {
		up, there := w.wires[name]
		if !there {
			continue
		}
		held := map[netip.Addr]bool{}
		link := w.device(name).Index
		for _, a := range w.addressesOf(link) {
			held[a.Prefix.Addr()] = true
			switch at := (place{link, a.Prefix}); {
			case a.Protocol == kernel.ProtoCaracal && !wished[InterfaceAddress{name, a.Prefix.Addr()}]:
				if last := slices.ContainsFunc(w.addressesOf(link), func(o kernel.Address) bool { return o.Prefix.Addr().Is4() && o.Prefix != a.Prefix }); a.Prefix.Addr().Is4() && !last && leading[link] {
					continue
				}
				return fmt.Errorf("%s has %s, which is ours and nobody's wish", name, a.Prefix)
			case a.Protocol != kernel.ProtoCaracal && !theirs[at]:
				return fmt.Errorf("%s has %s, which nobody has put there", name, a.Prefix)
			case a.Protocol != kernel.ProtoCaracal:
				delete(theirs, at)
			}
		}
		for a := range wished {
			if a.Device == name && up && !held[a.Addr] {
				return fmt.Errorf("%s has no %s, which is wished for", name, a.Addr)
			}
		}
	}
	if len(theirs) > 0 {
		return fmt.Errorf("addresses of another program are gone: %v", theirs)
	}
	for _, name := range []string{"eth0", "eth1"} {
		if l := w.device(name); l != nil && slices.ContainsFunc(w.addressesOf(l.Index), func(a kernel.Address) bool { return a.Protocol != 0 }) {
			return fmt.Errorf("%s has an address of ours", name)
		}
	}
	return nil
}

// addressesQuiet begins a new turn of the audit, which is held up.
func (w *world) addressesQuiet() {
	a := &w.audit.addresses
	a.lately = w.wished()
	a.stay, a.fresh = map[InterfaceAddress]bool{}, map[place]bool{}
	for _, name := range workloadInterfaces {
		if !w.wires[name] {
			continue
		}
		for _, have := range w.addressesOf(w.device(name).Index) {
			if at := (InterfaceAddress{name, have.Prefix.Addr()}); have.Protocol == kernel.ProtoCaracal && a.lately[at] {
				a.stay[at] = true
			}
		}
	}
}

// othersLead are the interfaces by which the other program has IPv4 routes.
func (w *world) othersLead() map[int]bool {
	leading, err := foreignLinks(w.t.Context(), w.far)
	w.must(err)
	return leading
}

// nameAt is the name of an interface, "" where there is none.
func (w *world) nameAt(index int) string {
	links, _ := w.far.ListLinks(context.Background())
	for i := range links {
		if links[i].Index == index {
			return links[i].Name
		}
	}
	return ""
}

// auditAdd holds an address that the Programmer adds against the rules, and has it added.
func (w *world) auditAdd(x kernel.Address, add func() error) error {
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	name := w.nameAt(x.Link)
	if name != "" && !isTunnel(name) && (!w.audit.addresses.lately[InterfaceAddress{name, x.Prefix.Addr()}] || !x.Prefix.IsSingleIP() || x.Protocol != kernel.ProtoCaracal) {
		w.audit.breach("address %+v put on %s", x, name)
	}
	return add()
}

// auditDelete does so for one that it deletes.
func (w *world) auditDelete(x kernel.Address, del func() error) error {
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	name := w.nameAt(x.Link)
	if name == "" || isTunnel(name) {
		return del()
	}
	have := w.addressesOf(x.Link)
	i := slices.IndexFunc(have, func(o kernel.Address) bool { return o.Prefix == x.Prefix })
	switch {
	case !isWorkloadInterface(name):
		w.audit.breach("address %s deleted from %s", x.Prefix, name)
	case i >= 0 && have[i].Protocol != kernel.ProtoCaracal && !w.audit.addresses.fresh[place{x.Link, x.Prefix}]:
		w.audit.breach("another program's address %s deleted from %s", x.Prefix, name)
	case i >= 0 && w.audit.addresses.stay[InterfaceAddress{name, x.Prefix.Addr()}]:
		w.audit.breach("address %s deleted from %s, where it is wished for", x.Prefix, name)
	}
	before := w.rawTable()
	lagging := false // another address, which would have kept the routes, may just have gone
	for p := range w.audit.addresses.fresh {
		lagging = lagging || p.link == x.Link && p.prefix.Addr().Is4()
	}
	err := del()
	if x.Prefix.Addr().Is4() {
		w.silent()
	}
	for k, list := range before.foreign {
		if _, raced := w.audit.fresh[k]; k.Dst.Addr().Is4() && !raced && !lagging && len(w.rawTable().foreign[k]) < len(list) {
			w.audit.breach("another program's route %v gone with address %s of %s", list, x.Prefix, name)
		}
	}
	if !slices.ContainsFunc(w.addressesOf(x.Link), func(o kernel.Address) bool { return o.Prefix == x.Prefix }) {
		delete(w.theirAddresses, place{x.Link, x.Prefix}) // a fresh one, or the audit has it
	}
	return err
}

// addressesKnown is what the Programmer knows of the addresses that it wishes for.
func (w *world) addressesKnown() (all []string) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	for a, x := range w.p.addresses.list {
		l := w.p.links.named(a.Device)
		all = append(all, fmt.Sprintf("address %v: %+v, due in %v, link %+v", a, *x, x.due.Sub(w.p.now), l))
		if l != nil {
			all = append(all, fmt.Sprintf("  the mirror has %v", w.p.links.addrs[l.Index]))
		}
	}
	return all
}
