package routes

import (
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/delta"
	"github.com/caracal-net/caracal/internal/kernel"
)

// neighbourKey is what neighbours are told apart by: ARP/NDP entries by address, FDB entries by MAC.
type neighbourKey struct {
	device string
	fdb    bool
	addr   netip.Addr
	mac    [6]byte
}

// neighbourValue is what the entry says, with both halves so that it is never zero.
type neighbourValue struct {
	addr netip.Addr
	mac  [6]byte
}

// neighbourNote is the record of one entry.
type neighbourNote struct {
	turn     uint8 // generation of the read of its device that saw it last
	attempts int
	detail   string
	since    time.Time
	due      time.Time
	repaired time.Time
	repairs  int
	owner    uint8
	cause    uint32 // of what is wanted or was noticed last, for the recorder
}

type (
	neighbourTracker = delta.Tracker[neighbourKey, neighbourValue, neighbourNote]
	neighbourEntry   = delta.Entry[neighbourKey, neighbourValue, neighbourNote]
)

// neighbourTable is what is wanted and what is there on our VXLAN devices. Every permanent entry on them is ours: a foreign
// one is removed, as Felix does. Transient entries are the kernel's and are not looked at.
type neighbourTable struct {
	tracker *neighbourTracker
	wishes  map[uint8]map[neighbourKey]neighbourValue // by rank of owner
	devices map[string]*neighbourDevice
	waiting map[*neighbourEntry]struct{} // refused or fought over: woken when due, or by their device
	failing int                          // batches in a row that broke off
}

// neighbourDevice is the state of the reads of one device.
type neighbourDevice struct {
	index    int // interface index that was read; 0 = none
	turn     uint8
	wanted   bool // to be read
	due      time.Time
	failures int
}

func newNeighbourTable() neighbourTable {
	return neighbourTable{
		tracker: delta.New[neighbourKey, neighbourValue, neighbourNote](), wishes: map[uint8]map[neighbourKey]neighbourValue{},
		devices: map[string]*neighbourDevice{}, waiting: map[*neighbourEntry]struct{}{},
	}
}

func (t *neighbourTable) device(name string) *neighbourDevice {
	d := t.devices[name]
	if d == nil {
		d = &neighbourDevice{}
		t.devices[name] = d
	}
	return d
}

// reread asks for a read of a device that has come, or come up.
func (t *neighbourTable) reread(name string) {
	if name == DeviceIPIP {
		return
	}
	d := t.device(name)
	d.wanted, d.due = true, time.Time{}
}

func (t *neighbourTable) rereadAll() {
	for _, d := range t.devices {
		d.wanted, d.due = true, time.Time{}
	}
}

// gone forgets what was on a device that no longer exists or is down; it is read when it comes up.
func (t *neighbourTable) gone(name string) {
	if d := t.devices[name]; d != nil {
		d.index, d.wanted = 0, false
	}
	for i := t.tracker.Len() - 1; i >= 0; i-- {
		if i < t.tracker.Len() {
			if e := t.tracker.At(i); e.Key().device == name {
				t.setActual(e, neighbourValue{})
			}
		}
	}
}

func (t *neighbourTable) setActual(e *neighbourEntry, v neighbourValue) {
	t.tracker.SetActual(e, v)
	if e.Same() {
		delete(t.waiting, e)
		e.Note.attempts, e.Note.detail = 0, ""
	}
	t.tracker.Drop(e)
}

// busy reports whether something can be done now.
func (t *neighbourTable) busy(gateOpen bool) bool {
	return t.ready() && (t.tracker.Updates() > 0 || gateOpen && t.tracker.Deletions() > 0)
}

// ready reports whether some device has been read and can be written.
func (t *neighbourTable) ready() bool {
	for _, d := range t.devices {
		if d.index != 0 {
			return true
		}
	}
	return false
}

// next is the earliest moment at which something waits to be done.
func (t *neighbourTable) next() (next time.Time) {
	for _, d := range t.devices {
		if d.wanted && (next.IsZero() || d.due.Before(next)) {
			next = d.due
		}
	}
	for e := range t.waiting {
		if next.IsZero() || e.Note.due.Before(next) {
			next = e.Note.due
		}
	}
	return next
}

func keyOfNeighbour(n *Neighbour) (neighbourKey, neighbourValue) {
	v := neighbourValue{n.Addr, n.MAC}
	if n.FDB {
		return neighbourKey{device: n.Device, fdb: true, mac: n.MAC}, v
	}
	return neighbourKey{device: n.Device, addr: n.Addr}, v
}

// applyNeighbours works one step of an owner into the wishes.
func (p *Programmer) applyNeighbours(rank uint8, c *Change) {
	t := &p.neighbours
	mine := t.wishes[rank]
	if mine == nil {
		if len(c.Neighbours) == 0 {
			return
		}
		mine = map[neighbourKey]neighbourValue{}
		t.wishes[rank] = mine
	}
	var fresh map[neighbourKey]neighbourValue
	if c.Whole {
		fresh = make(map[neighbourKey]neighbourValue, len(c.Neighbours))
	}
	for i := range c.WithdrawNeighbours {
		k, v := keyOfNeighbour(&c.WithdrawNeighbours[i])
		if mine[k] == v { // one that has another value by now is wanted
			delete(mine, k)
			p.decideNeighbour(k)
		}
	}
	for i := range c.Neighbours {
		k, v := keyOfNeighbour(&c.Neighbours[i])
		if fresh != nil {
			fresh[k] = v
		}
		if mine[k] != v {
			mine[k] = v
			p.decideNeighbour(k)
		}
	}
	if fresh == nil {
		return
	}
	for k := range mine {
		if _, still := fresh[k]; !still {
			delete(mine, k)
			p.decideNeighbour(k)
		}
	}
}

// decideNeighbour works out what is wanted under a key: the strongest owner's wish.
func (p *Programmer) decideNeighbour(k neighbourKey) {
	t := &p.neighbours
	v, owner := neighbourValue{}, uint8(0)
	for rank := range uint8(len(p.owners)) {
		if w, ok := t.wishes[rank][k]; ok {
			v, owner = w, rank
			break
		}
	}
	if v != (neighbourValue{}) {
		t.device(k.device)
	}
	e := t.tracker.Ensure(k)
	if e.Desired() != v {
		if v != (neighbourValue{}) {
			p.noteThing(thingOf(k, v), owner, p.recorder.now, asked, "")
		} else {
			p.noteThing(thingOf(k, e.Desired()), e.Note.owner, p.recorder.now, withdrawn, "")
		}
		e.Note.owner, e.Note.cause = owner, p.recorder.now
		e.Note.attempts, e.Note.detail, e.Note.since, e.Note.due = 0, "", p.now, time.Time{}
		delete(t.waiting, e)
	}
	t.tracker.SetDesired(e, v)
	t.tracker.Drop(e)
}

// neighbourEvent folds an event into the mirror.
func (p *Programmer) neighbourEvent(n *kernel.Neighbour, deleted bool) {
	l := p.links.byIndex[n.Link]
	if l == nil || !p.policy.removable(l) {
		return
	}
	t := &p.neighbours
	k, v := keyOfNeighbour(&Neighbour{Device: l.Name, FDB: n.FDB, Addr: n.Addr, MAC: n.MAC})
	e := t.tracker.Get(k)
	if deleted || !n.Permanent {
		if e == nil || n.FDB && deleted && e.Actual().addr != n.Addr {
			return
		}
		v = neighbourValue{} // a transient entry where ours was: ours is gone
	}
	if e == nil {
		e = t.tracker.Ensure(k)
	}
	if e.Actual() == v {
		return
	}
	p.neighbourNoticed(e, v)
	t.setActual(e, v)
}

// neighbourNoticed is for an entry that somebody else has changed, removed or put there; v is what there is now.
func (p *Programmer) neighbourNoticed(e *neighbourEntry, v neighbourValue) {
	how, about := "another program changes this entry", v
	if v == (neighbourValue{}) {
		how, about = "another program deletes this entry", e.Actual()
	} else if e.Actual() == (neighbourValue{}) {
		how = "another program adds this entry"
	}
	if about == e.Desired() && v != (neighbourValue{}) {
		return // the echo of what we wrote, or as good
	}
	e.Note.cause = p.noticeThing(thingOf(e.Key(), about), e.Note.owner, how)
	if e.Same() && e.Desired() != (neighbourValue{}) {
		p.neighbourFought(e, how)
	}
}

// neighbourFought says that somebody else undid an entry of ours; see fought.
func (p *Programmer) neighbourFought(e *neighbourEntry, how string) {
	n := &e.Note
	if p.now.Sub(n.repaired) > calmAfter {
		n.repairs = 0
	}
	n.repairs++
	n.repaired = p.now
	p.stats.Repairs++
	wait := fightPause(n.repairs)
	n.due = p.now.Add(wait)
	if wait > 0 {
		n.detail = how + ", again and again; repairs slow down"
	}
	if n.repairs == freeRepairs+1 {
		p.log.Warn("another program keeps changing a neighbour of ours; repairs slow down", logDevice, e.Key().device, logNeighbour, e.Desired().addr.String(), logDetail, how)
	}
}
