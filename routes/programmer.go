package routes

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/delta"
	"github.com/caracal-net/caracal/internal/kernel"
)

// The routes' tracker: what we want under a key of the kernel, and what the kernel holds of ours there.
type (
	routeTracker = delta.Tracker[kernel.RouteKey, *form, routeNote]
	routeEntry   = delta.Entry[kernel.RouteKey, *form, routeNote]
)

// Programmer makes the kernel hold what the owners want. Make one with New and run it with Run; every other method may
// be called from any goroutine.
//
// All state belongs to the goroutine of Run. It holds mu whenever it runs, and lets go of it while it waits: in
// kernel calls that write, in select, in the OnHost callback. Readers therefore wait for microseconds, or for a dump in the worst
// case, and never hold up a write.
type Programmer struct {
	kernel   kernel.Kernel
	muted    bool // the kernel does not tell of our own adds
	log      *slog.Logger
	interval time.Duration
	policy   ownership
	onHost   func(*Host)
	inbox    inbox
	events   <-chan kernel.Event // of this session

	mu      sync.Mutex
	now     time.Time // when this pass began
	running bool

	// Wishes.
	owners []Owner // by rank; 0 is nobody
	ranks  map[Owner]uint8
	turn   []uint8 // by rank: generation of the owner's last whole set
	forms  forms
	shapes shapes
	routes *routeTracker

	// The gate before deletions.
	expected   []Owner
	expectSaid bool
	inSync     map[Owner]bool
	gateOpen   bool

	// What the kernel holds.
	links     linkTable
	foreign   foreignTable
	dumps     [2]dump // by family: IPv4, IPv6
	nexthops  nexthopTable
	avoided   []netip.Addr // gateways that are dead though their interface is up
	relink    bool         // a link changed so that shapes must be bound anew
	reads     reads
	uncertain []*routeEntry // written with no answer, or before their family was read: woken by the next read
	misled    []*routeEntry // refused with the nexthop object that the mirror shows, until objects are read
	suspects  map[*routeEntry]suspect
	failing   map[*routeEntry]struct{}
	netMoved  bool      // links, addresses or foreign routes changed: what was refused may go now
	wakeAt    time.Time // not before

	devices        map[string]*device
	linkWishes     map[uint8][]Link // by rank of owner
	devicesDirty   bool             // something changed that the devices may depend on
	leftoversDirty bool             // the same for removals; stays set while the gate is closed
	leftoversDue   time.Time        // a removal that failed is tried again
	neighbours     neighbourTable
	settings       settings
	addresses      wishedAddresses

	takeover takeover
	recorder recorder
	alarms   alarms
	writes   writes
	flight   chan error // the batch is with the kernel, and this brings the end; nil = it is not
	resyncs  []chan error
	syncs    []chan error

	// What readers see.
	hostDirty bool
	host      *Host
	publishAt time.Time
	counts    [][outcomes]int // by rank of owner
	watchers  map[*watcher]struct{}
	news      news
	stats     Stats
}

// New returns a Programmer that has not yet touched the kernel.
func New(o Options) *Programmer {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	p := &Programmer{
		kernel: o.Kernel, muted: o.Kernel.MutesAdds(), log: o.Log, interval: o.ResyncInterval, policy: ownership{adopt: o.Adopt, beside: o.BesideFelix},
		takeover: takeover{wanted: o.Adopt},
		inbox:    inbox{ring: make(chan struct{}, 1)},
		owners:   []Owner{""}, ranks: map[Owner]uint8{"": 0}, turn: []uint8{0}, counts: make([][outcomes]int, 1),
		forms: newForms(), shapes: newShapes(),
		routes:   delta.NewPacked[kernel.RouteKey, *form, routeNote](packKey),
		inSync:   map[Owner]bool{},
		links:    newLinkTable(),
		foreign:  newForeignTable(),
		nexthops: newNexthopTable(o.NexthopObjects),
		suspects: map[*routeEntry]suspect{}, failing: map[*routeEntry]struct{}{},
		devices: map[string]*device{}, linkWishes: map[uint8][]Link{}, neighbours: newNeighbourTable(), settings: newSettings(o.Settings),
		watchers: map[*watcher]struct{}{},
	}
	for _, owner := range []Owner{OwnerWorkload, OwnerVXLAN, OwnerIPIP, OwnerBGP} {
		p.rank(owner)
	}
	return p
}

// rank returns an owner's place in the order of arbitration, 1 the strongest. Owners that types.go does not name come
// after those it does, in the order in which they are first heard of.
func (p *Programmer) rank(o Owner) uint8 {
	r, ok := p.ranks[o]
	if !ok {
		r = uint8(len(p.owners))
		p.ranks[o] = r
		p.owners = append(p.owners, o)
		p.turn = append(p.turn, 0)
		p.counts = append(p.counts, [outcomes]int{})
	}
	return r
}

// OnHost sets who is told of each changed picture of the host. It must be called before Run; f is called from the
// Programmer's goroutine and may call Apply.
func (p *Programmer) OnHost(f func(*Host)) { p.onHost = f }

// Run reads the kernel, makes it what the owners want and keeps it so until ctx ends. It leaves everything in place, so
// that a stopped or killed daemon costs no packet. It returns nil.
func (p *Programmer) Run(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = true
	defer p.stop()
	for attempt := 0; ctx.Err() == nil; attempt++ {
		if !p.pause(ctx, readBackoff(attempt)) {
			break
		}
		session, cancel := context.WithCancel(ctx)
		events, err := p.kernel.Watch(session)
		if err == nil {
			attempt = 0
			p.readEverything("events are watched from here on")
			p.serve(ctx, events)
			err = errWatchEnded
		}
		cancel()
		if ctx.Err() == nil {
			p.log.Warn("watching the kernel failed; it is read and watched anew", logError, err)
		}
	}
	return nil
}

// pause waits without the lock; false when ctx ended.
func (p *Programmer) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// serve is the loop: hear wishes and events, then one pass over what they left to do. It returns when ctx or the
// channel of events ends.
func (p *Programmer) serve(ctx context.Context, events <-chan kernel.Event) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	p.reads.next = p.nextFullRead()
	p.events = events
	for ctx.Err() == nil {
		p.now = time.Now()
		p.takeInbox(ctx)
		if !p.takeEvents(events) {
			return
		}
		p.ringAlarms()
		p.pass(ctx)
		p.publish()
		p.report()
		p.answer()
		if p.busy() {
			continue
		}
		timer.Reset(time.Until(p.nextAlarm()))
		if !p.await(ctx, events, timer.C) {
			return
		}
	}
}

// await sleeps without the lock until there is something to do; false when the events ended.
func (p *Programmer) await(ctx context.Context, events <-chan kernel.Event, timer <-chan time.Time) bool {
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-ctx.Done():
	case <-p.inbox.ring:
	case <-timer:
	case e, ok := <-events:
		if !ok {
			return false
		}
		p.mu.Lock()
		p.now = time.Now()
		p.applyEvent(&e)
		p.mu.Unlock()
	}
	return true
}

// takeEvents applies the events that are there, up to a bound. False when the channel is closed.
func (p *Programmer) takeEvents(events <-chan kernel.Event) bool {
	for range eventsPerPass {
		select {
		case e, ok := <-events:
			if !ok {
				return false
			}
			p.applyEvent(&e)
		default:
			return true
		}
	}
	return true
}

// pass does once what is to be done, in the order that keeps packets flowing: know the links, make the devices, their
// neighbours, then routes; and only when nothing is left to add, remove: routes, then neighbours, then devices.
func (p *Programmer) pass(ctx context.Context) {
	p.resume(ctx)
	p.readKernel(ctx)
	p.settleSuspects()
	p.bindShapes()
	p.reconcileDevices(ctx)
	p.keepSettings(ctx)
	p.keepAddresses(ctx)
	p.writeNeighbours(ctx)
	p.wakeRefused()
	p.retryNexthops(false)
	p.writeNexthops(ctx, false)
	p.writeUpdates(ctx)
	if !p.mayDelete() {
		return
	}
	p.writeDeletions(ctx)
	if p.routes.Deletions() == 0 {
		p.deleteNexthops(ctx)
	}
	p.deleteNeighbours(ctx)
	p.removeLeftovers(ctx)
}

// busy reports whether the next pass has work that waits for nothing.
func (p *Programmer) busy() bool {
	held := p.writes.held(p.now)
	if p.reads.due(p.now) || p.settings.busy(p.now) || p.relink || p.devicesDirty && p.devicesKnown() || p.addresses.dirty && p.devicesKnown() || !held && (p.routes.Updates() > 0 || len(p.nexthops.queue) > 0) || p.neighbours.busy(false) {
		return true
	}
	return p.mayDelete() && (!held && (p.routes.Deletions() > 0 || p.nexthops.doomed) || p.neighbours.busy(true) || p.leftovers() && p.reads.complete())
}

// mayDelete reports whether deletions are allowed and nothing is left to add.
func (p *Programmer) mayDelete() bool {
	return p.gateOpen && p.routes.Updates() == 0 && len(p.nexthops.queue) == 0
}

// answer replies to Sync and Resync once nothing waits that could be done now.
func (p *Programmer) answer() {
	if p.busy() || len(p.suspects) > 0 {
		return
	}
	if !p.reads.outstanding() || p.reads.err != nil {
		for _, w := range p.resyncs {
			w <- p.reads.err
		}
		p.resyncs = nil
	}
	for _, w := range p.syncs {
		w <- nil
	}
	p.syncs = nil
}

// stop answers whoever still waits.
func (p *Programmer) stop() {
	p.running = false
	for _, w := range append(p.resyncs, p.syncs...) {
		w <- context.Canceled
	}
	p.resyncs, p.syncs = nil, nil
}

// Resync reads the whole kernel again and repairs what differs. It returns when that is done as far as it can be
// done at once; what failed is in the statuses. The error is that of a read.
func (p *Programmer) Resync(ctx context.Context) error {
	return p.ask(ctx, func(m *mail, w chan error) { m.resyncs = append(m.resyncs, w) })
}

// Sync returns when everything applied before the call has been tried once. It reads nothing.
func (p *Programmer) Sync(ctx context.Context) error {
	return p.ask(ctx, func(m *mail, w chan error) { m.syncs = append(m.syncs, w) })
}

func (p *Programmer) ask(ctx context.Context, put func(*mail, chan error)) error {
	w := make(chan error, 1)
	p.inbox.put(func(m *mail) { put(m, w) })
	select {
	case err := <-w:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nextFullRead is when the kernel is read again though nothing seems wrong.
func (p *Programmer) nextFullRead() time.Time {
	if p.interval <= 0 {
		return time.Time{}
	}
	return time.Now().Add(jitter(p.interval, 10))
}

// jitter varies d by up to a share-th of it in both directions.
func jitter(d time.Duration, share int64) time.Duration {
	span := int64(d) / share
	if span <= 0 {
		return d
	}
	return d - time.Duration(span) + time.Duration(rand.Int64N(2*span+1))
}

// backoff doubles from first to most with the attempts made, and varies by a fifth so that items that failed together
// do not come back together.
func backoff(first, most time.Duration, attempts int) time.Duration {
	d := most
	if attempts < 20 {
		d = min(first<<max(attempts-1, 0), most)
	}
	return jitter(d, 5)
}

// readBackoff lets the first repetition pass at once.
func readBackoff(failures int) time.Duration {
	if failures < 2 {
		return 0
	}
	return backoff(readRetryFirst, readRetryMost, failures-1)
}
