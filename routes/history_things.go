package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// historyThings is how many records of neighbours, FDB entries, devices and addresses are kept, some 500 KiB.
const historyThings = 4096

// thingKind is what is no route.
type thingKind uint8

const (
	neighbourThing thingKind = iota
	fdbThing
	deviceThing
	addressThing
)

// thing is a neighbour, an FDB entry, a device or an address of one.
type thing struct {
	device string
	kind   thingKind
	mac    [6]byte
	addr   netip.Prefix // of neighbours and FDB entries as a host route
}

// thingRecord is one entry of the recorder about a thing.
type thingRecord struct {
	thing
	at    int64 // Unix nanoseconds
	text  string
	cause uint32
	owner uint8
	what  event
}

func (r *recorder) noteThing(rec thingRecord) {
	if len(r.things) < historyThings {
		r.things = append(r.things, rec)
		return
	}
	r.things[r.nextThing] = rec
	r.nextThing = (r.nextThing + 1) % historyThings
}

// noteThing records something about a thing, by the cause that is given.
func (p *Programmer) noteThing(t thing, owner uint8, cause uint32, what event, text string) {
	p.recorder.noteThing(thingRecord{thing: t, at: p.now.UnixNano(), text: text, cause: cause, owner: owner, what: what})
}

// noticeThing records that somebody else did something to a thing, and returns the cause of what is done about it.
func (p *Programmer) noticeThing(t thing, owner uint8, how string) uint32 {
	p.recorder.because(p.now, how)
	p.noteThing(t, owner, p.recorder.now, noticed, "")
	return p.recorder.now
}

func thingOf(k neighbourKey, v neighbourValue) thing {
	t := thing{device: k.device, mac: v.mac, addr: netip.PrefixFrom(v.addr, v.addr.BitLen())}
	if k.fdb {
		t.kind = fdbThing
	}
	return t
}

// String is the thing as ip(8) and bridge(8) have it.
func (t *thing) String() string {
	switch t.kind {
	case deviceThing:
		return "device " + t.device
	case addressThing:
		return "address " + t.addr.String() + " dev " + t.device
	case fdbThing:
		return fmt.Sprintf("fdb %s dst %s dev %s", hardware(t.mac), t.addr.Addr(), t.device)
	}
	return fmt.Sprintf("neighbour %s lladdr %s dev %s", t.addr.Addr(), hardware(t.mac), t.device)
}

func hardware(mac [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// describeLink says what is wanted of a device.
func describeLink(l *Link) string {
	words := []string{l.Kind}
	if v := l.VXLAN; v != nil {
		words = append(words, fmt.Sprintf("id %d local %s dev %s dstport %d", v.VNI, v.Local, v.Parent, v.Port))
	}
	if l.MTU > 0 {
		words = append(words, fmt.Sprint("mtu ", l.MTU))
	}
	for _, a := range l.Addresses {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

// deviceAsked records that a device is wanted so, or no more.
func (p *Programmer) deviceAsked(d *device, owner uint8, what event) {
	text := ""
	if what == asked {
		text = describeLink(&d.link)
	}
	d.cause = p.recorder.now
	p.noteThing(thing{device: d.link.Name, kind: deviceThing}, owner, d.cause, what, text)
}

// as reports whether an interface has what can be set of a wish in place.
func (d *device) as(l *kernel.Link) bool {
	return l.Up && (d.link.MTU == 0 || d.link.MTU == l.MTU) && (d.link.MAC == [6]byte{} || d.link.MAC == l.MAC)
}

// deviceChanged is for a device of ours that somebody else has changed.
func (p *Programmer) deviceChanged(old, l *kernel.Link) {
	d := p.devices[l.Name]
	if d == nil || d.made != 0 && d.made != l.Index || old == nil || old.Name != l.Name || !d.as(old) || d.as(l) {
		return
	}
	if p.now.Sub(d.madeAt) < settleTime { // of what we made just now a read may have been ahead of the events
		return
	}
	state := "down"
	if l.Up {
		state = "up"
	}
	p.deviceFought(d, thing{device: l.Name, kind: deviceThing},
		fmt.Sprintf("another program changes this device: mtu %d address %s %s", l.MTU, hardware(l.MAC), state))
}

// addressChanged is for an address that somebody else has added to a device of ours, or removed from it.
func (p *Programmer) addressChanged(a *kernel.Address, gone bool) {
	d := p.devices[p.links.nameOf(a.Link)]
	if d == nil || d.made != 0 && d.made != a.Link || !p.reads.state[partAddresses].done || slices.Contains(d.link.Addresses, a.Prefix) != gone || a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast() {
		return
	}
	how := "another program adds this address"
	if gone {
		how = "another program removes this address"
	}
	p.deviceFought(d, thing{device: d.link.Name, kind: addressThing, addr: a.Prefix}, how)
}

// HistoryOf returns what is remembered of a device, its addresses, neighbours and FDB entries, oldest first; see History.
func (p *Programmer) HistoryOf(device string) []HistoryEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.thingsTold(nil, func(t *thing) bool { return t.device == device })
}

// thingsTold adds what is remembered of things to other events, in order of time.
func (p *Programmer) thingsTold(all []HistoryEvent, match func(*thing) bool) []HistoryEvent {
	r := &p.recorder
	for i := range r.things {
		rec := &r.things[(r.nextThing+i)%len(r.things)]
		if !match(&rec.thing) {
			continue
		}
		e := HistoryEvent{At: time.Unix(0, rec.at), Owner: p.owners[rec.owner], What: eventWords[rec.what], Detail: rec.text, CauseID: rec.cause, Object: rec.String()}
		if c, ok := r.of(rec.cause); ok {
			e.Cause, e.CauseAt = c.text, c.at
		}
		all = append(all, e)
	}
	slices.SortStableFunc(all, func(a, b HistoryEvent) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return all
}
