package routes

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// readNeighbours reads the devices that are due.
func (p *Programmer) readNeighbours(ctx context.Context) {
	t := &p.neighbours
	for name, d := range t.devices {
		l := p.links.named(name)
		if !d.wanted || d.due.After(p.now) {
			continue
		}
		if l == nil || !l.Up || !p.policy.removable(l) {
			d.wanted = false // asked for again when it comes up
			continue
		}
		list, err := p.kernel.ListNeighbours(ctx, l.Index)
		if err != nil {
			d.failures++
			d.due = p.now.Add(readBackoff(d.failures))
			if d.failures == 2 && ctx.Err() == nil {
				p.log.Warn("neighbours cannot be read; it is tried again", logDevice, name, logError, err)
			}
			continue
		}
		d.index, d.wanted, d.failures = l.Index, false, 0
		d.turn++
		p.neighboursSeen(name, d.turn, list)
	}
}

// neighboursSeen corrects the mirror of one device from a complete list.
func (p *Programmer) neighboursSeen(device string, turn uint8, list []kernel.Neighbour) {
	t := &p.neighbours
	for i := range list {
		if !list[i].Permanent {
			continue
		}
		k, v := keyOfNeighbour(&Neighbour{Device: device, FDB: list[i].FDB, Addr: list[i].Addr, MAC: list[i].MAC})
		e := t.tracker.Ensure(k)
		if e.Note.turn == turn && e.Actual() != (neighbourValue{}) && v == e.Desired() {
			continue // a second place for one MAC: the wrong one is what must be dealt with
		}
		e.Note.turn = turn
		t.setActual(e, v)
	}
	for i := t.tracker.Len() - 1; i >= 0; i-- {
		if i >= t.tracker.Len() {
			continue
		}
		if e := t.tracker.At(i); e.Key().device == device {
			if e.Note.turn != turn {
				if e.Same() && e.Desired() != (neighbourValue{}) {
					e.Note.cause = p.noticeThing(thingOf(e.Key(), e.Actual()), e.Note.owner, "the device was read, and this entry was missing")
				}
				t.setActual(e, neighbourValue{})
			}
			e.Note.due = time.Time{} // whatever kept it waiting, its device has come
			t.tracker.Wake(e)
		}
	}
}

// writeNeighbours writes what is wanted and not there, on devices that are read.
func (p *Programmer) writeNeighbours(ctx context.Context) {
	p.readNeighbours(ctx)
	t := &p.neighbours
	for e := range t.waiting {
		if !e.Note.due.After(p.now) {
			delete(t.waiting, e)
			t.tracker.Wake(e)
		}
	}
	if !t.ready() {
		return
	}
	var ops []kernel.NeighbourOp
	var entries []*neighbourEntry
	for e := t.tracker.TakeUpdate(); e != nil; e = t.tracker.TakeUpdate() {
		d := t.devices[e.Key().device]
		if d == nil || d.index == 0 {
			continue // woken by the read of its device
		}
		if e.Note.due.After(p.now) {
			t.waiting[e] = struct{}{}
			continue
		}
		ops = append(ops, kernel.NeighbourOp{Neighbour: neighbourOf(e.Key(), e.Desired(), d.index)})
		entries = append(entries, e)
		if old := e.Actual(); e.Key().fdb && old != (neighbourValue{}) {
			// A second place for one MAC may stand beside ours ("bridge fdb append"): take exactly that away.
			ops = append(ops, kernel.NeighbourOp{Delete: true, Neighbour: neighbourOf(e.Key(), old, d.index)})
			entries = append(entries, nil)
		}
	}
	p.sendNeighbours(ctx, ops, entries)
}

// deleteNeighbours removes what nobody wants.
func (p *Programmer) deleteNeighbours(ctx context.Context) {
	t := &p.neighbours
	if !t.ready() {
		return
	}
	var ops []kernel.NeighbourOp
	var entries []*neighbourEntry
	for e := t.tracker.TakeDeletion(); e != nil; e = t.tracker.TakeDeletion() {
		d := t.devices[e.Key().device]
		if d == nil || d.index == 0 {
			continue
		}
		if e.Note.due.After(p.now) {
			t.waiting[e] = struct{}{}
			continue
		}
		ops = append(ops, kernel.NeighbourOp{Delete: true, Neighbour: neighbourOf(e.Key(), e.Actual(), d.index)})
		entries = append(entries, e)
	}
	p.sendNeighbours(ctx, ops, entries)
}

func neighbourOf(k neighbourKey, v neighbourValue, link int) kernel.Neighbour {
	return kernel.Neighbour{Link: link, FDB: k.fdb, Addr: v.addr, MAC: v.mac, Permanent: true}
}

// sendNeighbours hands a batch to the kernel, without the lock, and records what became of each entry; nil entries are not
// recorded.
func (p *Programmer) sendNeighbours(ctx context.Context, ops []kernel.NeighbourOp, entries []*neighbourEntry) {
	if len(ops) == 0 {
		return
	}
	t := &p.neighbours
	errs := make([]error, len(ops))
	p.mu.Unlock()
	err := p.kernel.WriteNeighbours(ctx, ops, func(i int, err error) { errs[i] = err })
	p.mu.Lock()
	p.now = time.Now()
	if err != nil {
		t.failing++
		if t.failing <= 2 && ctx.Err() == nil {
			p.log.Warn("a batch of neighbours broke off; the kernel is read", logError, err, logCount, len(ops))
		}
		for _, d := range t.devices {
			d.wanted, d.due = true, p.now.Add(readBackoff(t.failing))
		}
		return
	}
	t.failing = 0
	for i, e := range entries {
		switch {
		case e == nil:
		case errs[i] == nil || ops[i].Delete && errors.Is(errs[i], kernel.ErrNotThere):
			e.Note.since = p.now
			p.neighbourWritten(e, &ops[i])
			t.setActual(e, e.Desired())
		default:
			p.neighbourRefused(e, errs[i])
		}
	}
}

// neighbourWritten records what was done.
func (p *Programmer) neighbourWritten(e *neighbourEntry, op *kernel.NeighbourOp) {
	what := written
	if op.Delete {
		what = deleted
	}
	p.noteThing(thingOf(e.Key(), neighbourValue{op.Neighbour.Addr, op.Neighbour.MAC}), e.Note.owner, e.Note.cause, what, "")
}

func (p *Programmer) neighbourRefused(e *neighbourEntry, err error) {
	n := &e.Note
	n.attempts++
	if n.attempts == 1 {
		p.log.Warn("the kernel refuses a neighbour; it is tried again", logDevice, e.Key().device, logNeighbour, e.Desired().addr.String(), logError, describe(err))
	}
	n.detail, n.since = describe(err), p.now
	p.noteThing(thingOf(e.Key(), cmp.Or(e.Desired(), e.Actual())), n.owner, n.cause, refused, n.detail)
	n.due = p.now.Add(backoff(retryFirst, retryMost, n.attempts))
	p.neighbours.waiting[e] = struct{}{}
	if errors.Is(err, kernel.ErrOverflow) {
		p.neighbours.reread(e.Key().device)
	}
}
