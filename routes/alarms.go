package routes

import (
	"container/heap"
	"time"
)

// alarms is a heap of entries that wait for a moment. An entry has at most one alarm; one that has settled meanwhile
// lets it ring in vain.
type alarms []alarm

type alarm struct {
	due   time.Time
	entry *routeEntry
}

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	last := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = alarm{}
	*a = (*a)[:len(*a)-1]
	return last
}

// arm sets the alarm of an entry in trouble, unless one is set: that will be set again when it rings too early.
func (p *Programmer) arm(e *routeEntry, t *trouble) {
	if !t.armed {
		t.armed = true
		heap.Push(&p.alarms, alarm{t.due, e})
	}
}

// ringAlarms wakes the entries whose moment has come.
func (p *Programmer) ringAlarms() {
	for len(p.alarms) > 0 && !p.alarms[0].due.After(p.now) {
		e := heap.Pop(&p.alarms).(alarm).entry
		t := e.Note.trouble
		if t == nil {
			continue
		}
		t.armed = false
		if t.due.After(p.now) {
			p.arm(e, t)
			continue
		}
		p.routes.Wake(e)
	}
}

// nextAlarm is when the Programmer must wake up though nothing happens.
func (p *Programmer) nextAlarm() time.Time {
	next := p.now.Add(time.Hour)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if len(p.alarms) > 0 {
		earlier(p.alarms[0].due)
	}
	for _, s := range p.suspects {
		earlier(s.due)
	}
	if p.devicesKnown() {
		for _, d := range p.devices {
			earlier(d.due)
		}
		earlier(p.addresses.due)
	}
	if p.netMoved && len(p.failing)+len(p.nexthops.retry) > 0 {
		earlier(p.wakeAt)
	}
	if p.hostDirty && p.reads.complete() {
		earlier(p.publishAt)
	}
	if p.writes.held(p.now) {
		earlier(p.writes.notBefore)
	}
	if p.mayDelete() && p.reads.complete() {
		earlier(p.leftoversDue)
	}
	earlier(p.nexthops.due)
	earlier(p.neighbours.next())
	earlier(p.settings.next())
	earlier(p.takeover.next(p.now))
	earlier(p.reads.nextDue())
	// What is due but cannot be done waits for something that rings by itself; it must not make us spin.
	if soonest := p.now.Add(time.Millisecond); next.Before(soonest) {
		return soonest
	}
	return next
}

// wakeRefused tries everything again that the kernel refused, after the network around it changed; not more often than its
// number allows, so that a host with many changes does not spend itself on it.
func (p *Programmer) wakeRefused() {
	if !p.netMoved {
		return
	}
	if len(p.failing) == 0 && len(p.nexthops.retry) == 0 {
		p.netMoved = false
		return
	}
	if p.now.Before(p.wakeAt) {
		return
	}
	p.netMoved = false
	p.wakeAt = p.now.Add(wakeSpacing + time.Duration(len(p.failing)+len(p.nexthops.retry))*wakePerRoute)
	p.retryNexthops(true)
	for e := range p.failing {
		p.routes.Wake(e)
	}
}

// fought says that somebody else undid what we wrote. The first repairs are free; one who goes on is answered ever more
// slowly, until calmAfter without a repair. how says what it did, with its protocol number where the kernel tells it.
func (p *Programmer) fought(e *routeEntry, how string) {
	n := &e.Note
	now := uint32(p.now.Unix())
	if time.Duration(now-n.repaired)*time.Second > calmAfter {
		n.repairs = 0
	}
	n.repaired = now
	if n.repairs < 255 {
		n.repairs++
	}
	p.stats.Repairs++
	if wait := fightPause(int(n.repairs)); wait > 0 {
		t := n.trouble
		if t == nil {
			t = &trouble{}
			n.trouble = t
		}
		t.due = p.now.Add(wait)
		t.detail = how + ", again and again; repairs slow down"
		if n.repairs == freeRepairs+1 {
			p.log.Warn("another program keeps changing a route of ours; repairs slow down", logRoute, e.Key().Dst.String(), logDetail, how)
		}
	}
}

// fightPause is how long the n-th repair in a row waits.
func fightPause(n int) time.Duration {
	if n <= freeRepairs {
		return 0
	}
	if n > 20 {
		return fightMost
	}
	return min(fightFirst<<(n-freeRepairs-1), fightMost)
}
