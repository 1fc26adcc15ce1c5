package routes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// device is a tunnel device that an owner wants.
type device struct {
	link    Link
	owner   uint8
	outcome outcome
	detail  string
	since   time.Time

	attempts int
	tried    time.Time
	due      time.Time // next attempt; zero = when something changes
	held     bool      // not before due, whatever changes
	// made is the index of the device that we have just created and whose events have not come yet: until they do the
	// mirror still shows what was there before, and must not be acted upon.
	made     int
	madeAt   time.Time
	repairs  int
	repaired time.Time
	cause    uint32 // of what is wanted or was noticed last, for the recorder
}

// arbitrateDevices works out the wanted devices from the owners' lists: for one name the strongest owner wins.
func (p *Programmer) arbitrateDevices() {
	wanted := map[string]*device{}
	for rank := range uint8(len(p.owners)) {
		for _, l := range p.linkWishes[rank] {
			if wanted[l.Name] != nil {
				continue
			}
			d := p.devices[l.Name]
			if d == nil {
				d = &device{since: p.now, outcome: waiting}
			}
			if d.owner != rank || !equalWishes(&d.link, &l) {
				d.link, d.owner, d.attempts, d.due, d.held = l, rank, 0, time.Time{}, false
				p.deviceAsked(d, rank, asked)
			}
			wanted[l.Name] = d
		}
	}
	for name, d := range p.devices {
		if wanted[name] == nil {
			p.deviceAsked(d, d.owner, withdrawn)
		}
	}
	p.devices = wanted
	p.touchDevices()
}

// touchDevices says that something changed that our devices may depend on. One that the kernel refused is tried again soon.
func (p *Programmer) touchDevices() {
	p.devicesDirty, p.leftoversDirty, p.settings.dirty, p.addresses.dirty = true, true, true, true
	for _, d := range p.devices {
		if soon := d.tried.Add(wakeSpacing); d.outcome == failed && d.due.After(soon) {
			d.due = soon
		}
	}
}

func equalWishes(a, b *Link) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.MTU == b.MTU && a.MAC == b.MAC && a.Adopt == b.Adopt && slices.Equal(a.Addresses, b.Addresses) &&
		(a.VXLAN == nil) == (b.VXLAN == nil) && (a.VXLAN == nil || *a.VXLAN == *b.VXLAN)
}

// deviceGone notes that a device of ours vanished though it is wanted.
func (p *Programmer) deviceGone(l *kernel.Link) {
	d := p.devices[l.Name]
	if d == nil || d.made != 0 && d.made != l.Index {
		return // we took it away ourselves to make it anew
	}
	d.made = 0
	p.deviceFought(d, thing{device: l.Name, kind: deviceThing}, "another program removes this device")
	p.log.Warn("a device of ours was removed; it is made again", logDevice, l.Name)
}

// deviceFought says that somebody else undid what we made of a device; see fought. A device that goes down, loses its addresses and goes is
// one act: what is told within oneAct counts once.
func (p *Programmer) deviceFought(d *device, t thing, how string) {
	d.cause = p.noticeThing(t, d.owner, how)
	if p.now.Sub(d.repaired) < oneAct {
		if d.held && d.outcome == waiting {
			d.detail = how + ", again and again; repairs slow down"
		}
		return
	}
	if p.now.Sub(d.repaired) > calmAfter {
		d.repairs = 0
	}
	d.repairs++
	d.repaired = p.now
	p.stats.Repairs++
	wait := fightPause(d.repairs)
	d.due, d.held = p.now.Add(wait), true
	if wait > 0 {
		d.outcome, d.detail, d.since = waiting, how+", again and again; repairs slow down", p.now
	}
	if d.repairs == freeRepairs+1 {
		p.log.Warn("another program keeps changing a device of ours; repairs slow down", logDevice, d.link.Name, logDetail, how)
	}
}

// devicesKnown reports whether links and addresses have been read.
func (p *Programmer) devicesKnown() bool {
	return p.reads.state[partLinks].done && p.reads.state[partAddresses].done
}

// reconcileDevices makes the wanted devices and their attributes and addresses. It only adds; emptyDevices removes.
func (p *Programmer) reconcileDevices(ctx context.Context) {
	if !p.devicesKnown() {
		return
	}
	dirty := p.devicesDirty
	p.devicesDirty = false
	for _, d := range p.devices {
		if d.due.After(p.now) && (d.held || !dirty) || d.due.IsZero() && !dirty {
			continue
		}
		d.due, d.held, d.tried = time.Time{}, false, p.now
		p.deviceOutcome(d, p.reconcileDevice(ctx, d))
	}
}

// absentError is why a device cannot be made: its parent is missing.
type absentError struct{ name string }

func (e absentError) Error() string { return "parent interface " + e.name + " is missing" }

func (e absentError) Is(target error) bool { return target == kernel.ErrNoDevice }

// errSettling says that a device has been made and its events are awaited.
var errSettling = errors.New("made; the kernel's events are awaited")

func (p *Programmer) reconcileDevice(ctx context.Context, d *device) error {
	have := p.links.named(d.link.Name)
	if d.made != 0 && (have == nil || have.Index != d.made) {
		d.due = d.madeAt.Add(settleTime)
		if !d.due.After(p.now) {
			d.made, d.due = 0, p.now.Add(readRetryFirst)
			p.reads.state[partLinks].wanted = true
		}
		return errSettling
	}
	d.made = 0
	want, err := p.kernelLink(&d.link)
	if err != nil && have == nil {
		return err
	}
	if have != nil && have.Kind != d.link.Kind {
		return fmt.Errorf("interface %s exists with kind %q, not %q: it is not ours; remove or rename it", have.Name, have.Kind, d.link.Kind)
	}
	if have != nil && err == nil && !d.link.Adopt {
		if why := mismatch(have, &want); why != "" {
			p.log.Info("device is made anew", logDevice, have.Name, logReason, why)
			if err := p.kernel.DeleteLink(ctx, have.Index); err != nil && !errors.Is(err, kernel.ErrNoDevice) && !errors.Is(err, kernel.ErrNotThere) {
				return fmt.Errorf("delete device %s: %w", have.Name, err)
			}
			p.noteThing(thing{device: have.Name, kind: deviceThing}, d.owner, d.cause, deleted, "it is made anew: "+why)
			have = nil
		}
	}
	if have == nil {
		return p.makeDevice(ctx, d, want)
	}
	return p.configure(ctx, d, have, p.links.addrs[have.Index])
}

// makeDevice creates the device and configures it without waiting for its events.
func (p *Programmer) makeDevice(ctx context.Context, d *device, want kernel.Link) error {
	index, err := p.kernel.CreateLink(ctx, want)
	if err != nil {
		if errors.Is(err, kernel.ErrExists) {
			p.reads.state[partLinks].wanted = true
			if other := p.sameVNI(&want); other != "" {
				err = fmt.Errorf("device %s holds the same VNI and port: %w", other, err)
			}
		}
		return fmt.Errorf("create device %s: %w", want.Name, err)
	}
	d.made, d.madeAt, d.attempts = index, p.now, 0
	p.noteThing(thing{device: want.Name, kind: deviceThing}, d.owner, d.cause, written, "made")
	p.log.Info("device made", logDevice, want.Name)
	want.Index, want.Up = index, false
	err = p.configure(ctx, d, &want, nil)
	if err == nil {
		d.due = p.now.Add(settleTime)
		err = errSettling
	}
	return err
}

// kernelLink is the wish with the parent by index.
func (p *Programmer) kernelLink(l *Link) (kernel.Link, error) {
	k := kernel.Link{Name: l.Name, Kind: l.Kind, MTU: l.MTU, MAC: l.MAC}
	if l.VXLAN == nil {
		if l.Kind == "ipip" {
			k.IPIP = &kernel.IPIPAttrs{}
		}
		return k, nil
	}
	k.VXLAN = &kernel.VXLANAttrs{VNI: l.VXLAN.VNI, Port: l.VXLAN.Port, Local: l.VXLAN.Local}
	if l.VXLAN.Parent != "" {
		parent := p.links.named(l.VXLAN.Parent)
		if parent == nil {
			return k, absentError{l.VXLAN.Parent}
		}
		k.VXLAN.Parent = parent.Index
	}
	return k, nil
}

// mismatch says in which attribute that cannot be changed in place a VXLAN device differs, "" if in none: Felix's list, and
// what Felix leaves as it finds it though packets depend on it (learning, l3miss, proxy, rsc). MAC and MTU are set in place.
func mismatch(have, want *kernel.Link) string {
	if want.VXLAN == nil {
		return ""
	}
	if have.VXLAN == nil {
		return "attributes unknown"
	}
	h, w := have.VXLAN, want.VXLAN
	switch {
	case h.External != w.External:
		return "collect-metadata"
	case h.VNI != w.VNI:
		return fmt.Sprintf("VNI %d, want %d", h.VNI, w.VNI)
	case h.Port != w.Port:
		return fmt.Sprintf("UDP port %d, want %d", h.Port, w.Port)
	case h.Parent != w.Parent:
		return fmt.Sprintf("parent interface %d, want %d", h.Parent, w.Parent)
	case h.Local != w.Local:
		return fmt.Sprintf("local address %s, want %s", h.Local, w.Local)
	case h.Group.IsValid() && !h.Group.IsUnspecified():
		return "group address " + h.Group.String()
	case h.Learning != w.Learning:
		return "learning"
	case h.L2Miss != w.L2Miss || h.L3Miss != w.L3Miss:
		return "miss notifications"
	case h.Proxy != w.Proxy || h.RSC != w.RSC:
		return "ARP proxy"
	case h.GBP != w.GBP:
		return "group policy"
	}
	return ""
}

// sameVNI names another VXLAN device that keeps ours from being made.
func (p *Programmer) sameVNI(want *kernel.Link) string {
	for _, l := range p.links.byIndex {
		if l.Name != want.Name && l.VXLAN != nil && want.VXLAN != nil && l.VXLAN.VNI == want.VXLAN.VNI && l.VXLAN.Port == want.VXLAN.Port {
			return l.Name
		}
	}
	return ""
}

// configure sets MTU, MAC and admin state and adds missing addresses. What fails does not keep the rest from being done.
func (p *Programmer) configure(ctx context.Context, d *device, have *kernel.Link, addrs []kernel.Address) error {
	var errs []error
	mtu, mac := 0, [6]byte{}
	if d.link.MTU > 0 && d.link.MTU != have.MTU {
		mtu = d.link.MTU
	}
	if d.link.MAC != mac && d.link.MAC != have.MAC {
		mac = d.link.MAC
	}
	if mtu != 0 || mac != ([6]byte{}) || !have.Up {
		err := p.kernel.SetLink(ctx, have.Index, mtu, mac, true)
		if err != nil && !have.Up && (mtu != 0 || mac != ([6]byte{})) {
			// A refused MTU must not keep the tunnel down.
			err = errors.Join(err, p.kernel.SetLink(ctx, have.Index, 0, [6]byte{}, true))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set device %s: %w", have.Name, err))
		} else {
			p.noteThing(thing{device: have.Name, kind: deviceThing}, d.owner, d.cause, written, fmt.Sprintf("set to mtu %d address %s up", d.link.MTU, hardware(d.link.MAC)))
		}
	}
	for _, a := range d.link.Addresses {
		if slices.ContainsFunc(addrs, func(o kernel.Address) bool { return o.Prefix == a }) {
			continue
		}
		err := p.kernel.AddAddress(ctx, kernel.Address{Link: have.Index, Prefix: a})
		if err != nil && !errors.Is(err, kernel.ErrExists) {
			errs = append(errs, fmt.Errorf("add address %s to %s: %w", a, have.Name, err))
		} else if err == nil {
			p.noteThing(thing{device: have.Name, kind: addressThing, addr: a}, d.owner, d.cause, written, "")
		}
	}
	return errors.Join(errs...)
}

// deviceOutcome records how a pass over a device ended, and when to try again.
func (p *Programmer) deviceOutcome(d *device, err error) {
	o, detail := installed, ""
	switch {
	case errors.Is(err, errSettling):
		o = waiting
	case errors.As(err, new(absentError)):
		o, detail = noDevice, err.Error()
	case err != nil:
		o, detail = failed, describe(err)
		d.attempts++
		d.due, d.held = p.now.Add(backoff(retryFirst, retryMost, d.attempts)), true
	default:
		d.attempts = 0
	}
	if o == d.outcome && detail == d.detail {
		return
	}
	if o == failed || o == noDevice {
		p.noteThing(thing{device: d.link.Name, kind: deviceThing}, d.owner, d.cause, refused, detail)
	}
	switch {
	case o == failed && detail != d.detail:
		p.log.Warn("device cannot be made as wanted; it is tried again", logDevice, d.link.Name, logError, err)
	case o == noDevice:
		p.log.Warn("device waits for its parent interface", logDevice, d.link.Name, logDetail, detail)
	case o == installed && d.outcome == failed:
		p.log.Info("device is as wanted after all", logDevice, d.link.Name)
	}
	d.outcome, d.detail, d.since = o, detail, p.now
}

// removeLeftovers removes what nobody wants any more: extra addresses of our devices, and our VXLAN devices themselves.
func (p *Programmer) removeLeftovers(ctx context.Context) {
	if !p.leftovers() && (p.leftoversDue.IsZero() || p.leftoversDue.After(p.now)) || !p.reads.complete() {
		return
	}
	p.leftoversDirty, p.leftoversDue, p.foreign.lost = false, time.Time{}, false
	p.removeAddresses(ctx)
	for _, name := range tunnels {
		l, d := p.links.named(name), p.devices[name]
		switch {
		case p.policy.beside && (name == DeviceVXLAN || name == DeviceVXLAN6 || name == DeviceIPIP && d == nil): // Felix's, with its addresses
		case d != nil && d.held && d.due.After(p.now): // somebody fights us over it
			p.leftoversDue = d.due
		case l == nil || d != nil && (l.Kind != d.link.Kind || d.made != 0 && d.made != l.Index):
		case d == nil && p.policy.removable(l):
			p.removed(thing{device: name, kind: deviceThing}, p.kernel.DeleteLink(ctx, l.Index))
		default:
			for _, a := range p.extraAddresses(l, d) {
				p.removed(thing{device: name, kind: addressThing, addr: a.Prefix}, p.kernel.DeleteAddress(ctx, a))
			}
		}
	}
}

// leftovers reports whether there may be something to remove: an address that stayed for another program's route waits for that to go, in whatever way we learn of it.
func (p *Programmer) leftovers() bool {
	return p.leftoversDirty || p.addresses.kept && p.foreign.lost
}

// removed deals with the answer to a removal: what is gone is gone, anything else is tried again later.
func (p *Programmer) removed(t thing, err error) {
	cause := p.recorder.now
	if d := p.devices[t.device]; d != nil {
		cause = d.cause
	}
	switch {
	case errors.Is(err, kernel.ErrNoDevice), errors.Is(err, kernel.ErrNotThere): // another program was first, or our own deletion is not told yet
	case err != nil:
		p.noteThing(t, 0, cause, refused, describe(err))
		p.log.Warn("removing a leftover failed; it is tried again", logDevice, t.device, logError, err)
		p.leftoversDue = p.now.Add(time.Second)
	case t.kind == deviceThing:
		p.log.Info("device is removed: nobody wants it", logDevice, t.device)
		p.noteThing(t, 0, cause, deleted, "")
	default:
		p.log.Info("address of ours is removed: nobody wants it", logDevice, t.device, logAddress, t.addr.String())
		p.noteThing(t, 0, cause, deleted, "")
	}
}

// extraAddresses are the addresses of one of our devices that no owner wants. IPv6 link-local ones are the kernel's. On
// tunl0 that nobody wants, only IPv4 host addresses are Calico's (node/pkg/allocateip); tunl0 may have other users.
func (p *Programmer) extraAddresses(l *kernel.Link, d *device) []kernel.Address {
	var extra []kernel.Address
	for _, a := range p.links.addrs[l.Index] {
		addr := a.Prefix.Addr()
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			continue
		}
		switch {
		case d == nil && l.Name == DeviceIPIP && l.Kind == "ipip" && addr.Is4() && a.Prefix.IsSingleIP():
			extra = append(extra, a)
		case d != nil && !slices.Contains(d.link.Addresses, a.Prefix):
			extra = append(extra, a)
		}
	}
	return extra
}
