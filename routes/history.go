package routes

import (
	"net/netip"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// What the flight recorder keeps: fixed rings, 3 MiB in all with historyThings, so that its size depends on nothing.
const (
	historyRecords = 32768
	historyCauses  = 4096
	historyDetails = 1024
)

// event is what a record tells.
type event uint8

const (
	asked     event = iota // an owner wants it so
	withdrawn              // an owner wants it no more
	settled                // its outcome became what it is
	written                // the kernel holds it so now
	deleted                // the kernel holds it no more, by our doing
	refused                // the kernel would not have it
	noticed                // somebody else changed or removed it
)

var eventWords = [...]string{"asked", "withdrawn", "outcome", "written", "deleted", "refused", "changed by another"}

// record is one entry of the recorder: 64 bytes, one cache line, for two of them are part of what a route costs.
type record struct {
	key     kernel.RouteKey
	at      int64 // Unix nanoseconds
	form    *form // of asked, written, noticed
	cause   uint32
	owner   uint8
	what    event
	outcome outcome // of settled
	worded  bool    // there is a detail with this record's time and key
}

// detail is the words of a record that has some; few have.
type detail struct {
	at   int64
	key  kernel.RouteKey
	text string
}

// cause is why something was done: an owner's change, an event of the kernel, a read.
type cause struct {
	id    uint32
	at    time.Time
	text  string
	apply bool // an owner asked for it
}

// recorder remembers what was asked, decided and written. It belongs to the Programmer's goroutine, as everything does.
type recorder struct {
	records []record
	next    int // place of the next record
	details []detail
	worded  int // details ever noted
	things  []thingRecord
	causes  []cause
	last    uint32 // id of the newest cause
	now     uint32 // the cause of what is done at the moment
	latency histogram
	// nextThing is the place of the next record of a thing.
	nextThing int
}

// apply begins the cause of an owner's change.
func (r *recorder) apply(at time.Time, owner Owner, text string) {
	if text == "" {
		text = "owner " + string(owner)
	}
	r.because(at, text)
	r.causes[(r.last-1)%historyCauses].apply = true
}

// because begins a cause and makes it that of what is done from here on.
func (r *recorder) because(at time.Time, text string) {
	r.last++
	r.now = r.last
	c := cause{id: r.last, at: at, text: text}
	if len(r.causes) < historyCauses {
		r.causes = append(r.causes, c)
		return
	}
	r.causes[(r.last-1)%historyCauses] = c
}

// of returns a cause, if it is remembered.
func (r *recorder) of(id uint32) (cause, bool) {
	if id == 0 || len(r.causes) == 0 {
		return cause{}, false
	}
	c := r.causes[(id-1)%historyCauses%uint32(len(r.causes))]
	return c, c.id == id
}

func (r *recorder) note(rec record) {
	if len(r.records) < historyRecords {
		if r.records == nil {
			r.records = make([]record, 0, historyRecords)
		}
		r.records = append(r.records, rec)
		return
	}
	r.records[r.next] = rec
	if r.next++; r.next == historyRecords {
		r.next = 0
	}
}

// word keeps the words of a record.
func (r *recorder) word(d detail) {
	if len(r.details) < historyDetails {
		r.details = append(r.details, d)
	} else {
		r.details[r.worded%historyDetails] = d
	}
	r.worded++
}

func (r *recorder) words(rec *record) string {
	if rec.worded {
		for i := range r.details {
			if d := &r.details[i]; d.at == rec.at && d.key == rec.key {
				return d.text
			}
		}
	}
	return ""
}

// done records that the kernel holds f for an entry, or nothing of ours, by our doing.
func (p *Programmer) done(e *routeEntry, f *form) {
	what := written
	if f == nil {
		what = deleted
	}
	p.recorder.note(record{at: p.now.UnixNano(), key: e.Key(), form: f.told(), cause: e.Note.cause, owner: e.Note.owner, what: what})
	if c, ok := p.recorder.of(e.Note.cause); ok && c.apply && f != nil && f == e.Desired() {
		p.recorder.latency.add(p.now.Sub(c.at))
	}
}

// notice records that somebody else changed or removed a route of ours; what is done about it has that for its cause.
func (p *Programmer) notice(e *routeEntry, f *form, how string) {
	p.recorder.because(p.now, how)
	e.Note.cause = p.recorder.now
	p.note(e, e.Note.owner, noticed, f, "")
}

// note records something about an entry.
func (p *Programmer) note(e *routeEntry, owner uint8, what event, f *form, text string) {
	rec := record{at: p.now.UnixNano(), key: e.Key(), form: f.told(), cause: p.recorder.now, owner: owner, what: what, worded: text != ""}
	if rec.worded {
		p.recorder.word(detail{rec.at, rec.key, text})
	}
	p.recorder.note(rec)
}

// told is a form as it is to be remembered: what its nexthop object is now, it may not be for long.
func (f *form) told() *form {
	if f != nil && f.inline != nil {
		return f.inline
	}
	return f
}

// histogram counts durations in buckets that double from histogramFirst on.
type histogram struct {
	counts [histogramBuckets]uint64
}

const (
	histogramFirst   = 100 * time.Microsecond // upper end of the first bucket
	histogramBuckets = 18                     // the last begins at 6.6 s and has no end
)

func (h *histogram) add(d time.Duration) {
	b := 0
	for limit := histogramFirst; d > limit && b < histogramBuckets-1; limit *= 2 {
		b++
	}
	h.counts[b]++
}

// Bucket is how many routes took no longer than Upto, and longer than the bucket before; the last bucket has Upto 0, for no limit.
type Bucket struct {
	Upto  time.Duration
	Count uint64
}

// Latencies returns how long it took from an owner's Apply until the kernel held a route as asked, since New. What waited for a device or
// was refused at first counts when it succeeded.
func (p *Programmer) Latencies() []Bucket {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Bucket, histogramBuckets)
	limit := histogramFirst
	for i, n := range p.recorder.latency.counts {
		all[i] = Bucket{limit, n}
		limit *= 2
	}
	all[histogramBuckets-1].Upto = 0
	return all
}

// HistoryEvent is one thing that happened to a route, or to a device, an address, a neighbour or an FDB entry of ours.
type HistoryEvent struct {
	At     time.Time
	Owner  Owner  // "" where it is about nobody's wish
	Metric uint32 // of the route's key
	Object string // what it is about, where that is no route: "neighbour 10.1.2.0 lladdr ... dev vxlan.calico"
	What   string // asked, withdrawn, outcome, written, deleted, refused, "changed by another"
	// Detail is the outcome, or the kernel's words.
	Detail string
	// Kernel is the route as ip(8) prints it, where the event is about one.
	Kernel string
	// Cause is why, and CauseID tells one cause from another of the same words; events with one CauseID have one cause. Cause is empty when it is
	// no longer remembered.
	Cause   string
	CauseID uint32
	CauseAt time.Time
}

// History returns what is remembered of the routes to a prefix, oldest first: what was asked, decided and written, and why; of a single address
// also what happened to it on our devices, and to neighbours and FDB entries that have it. The memory is bounded (historyRecords for all routes
// together, historyThings for all else), so what is old, or was followed by much, is forgotten.
func (p *Programmer) History(dst netip.Prefix) []HistoryEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.recorder
	text := p.newTexts()
	var all []HistoryEvent
	for i := range r.records {
		rec := &r.records[(r.next+i)%len(r.records)]
		if rec.key.Dst != dst {
			continue
		}
		e := HistoryEvent{At: time.Unix(0, rec.at), Owner: p.owners[rec.owner], Metric: rec.key.Metric, What: eventWords[rec.what], Detail: r.words(rec), CauseID: rec.cause}
		if rec.what == settled {
			e.Detail = string(outcomeNames[rec.outcome])
		}
		if rec.form != nil {
			e.Kernel = text.of(&row{key: rec.key, actual: rec.form})
		}
		if c, ok := r.of(rec.cause); ok {
			e.Cause, e.CauseAt = c.text, c.at
		}
		all = append(all, e)
	}
	if dst.IsSingleIP() {
		all = p.thingsTold(all, func(t *thing) bool { return t.kind != deviceThing && t.addr.Addr() == dst.Addr() })
	}
	return all
}
