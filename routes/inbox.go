package routes

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// inbox is what other goroutines have asked of the Programmer and it has not yet taken up.
type inbox struct {
	mu   sync.Mutex
	mail mail
	ring chan struct{} // size 1: bursts coalesce
}

// mail is the contents of the inbox, in an order that can be worked off front to back.
type mail struct {
	changes []ownerChange
	expect  []Owner // with expected: the owners that must be in sync
	counts  bool    // expect was said
	inSync  []Owner
	avoid   []netip.Addr   // with avoids: the gateways not to take
	avoids  bool           // avoid was said
	resyncs []chan error   // Resync: answered after a full read and one more pass
	syncs   []chan error   // Sync: answered after one pass
	within  []netip.Prefix // with bounds: the destinations whose leftovers are taken over
	bounds  bool           // within was said
}

type ownerChange struct {
	owner  Owner
	change Change
}

func (b *inbox) put(f func(m *mail)) {
	b.mu.Lock()
	f(&b.mail)
	b.mu.Unlock()
	select {
	case b.ring <- struct{}{}:
	default:
	}
}

func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{}
	return m
}

// Apply hands over one step of an owner's desired state. It never waits for the kernel. The slices of routes and neighbours
// belong to the Programmer afterwards; the few links are copied, as plans like to keep and change theirs. Steps of one owner take effect in the order of the calls; a whole set makes those before it void.
func (p *Programmer) Apply(owner Owner, c Change) {
	c.Links = cloneLinks(c.Links)
	p.inbox.put(func(m *mail) {
		if c.Whole {
			for _, o := range slices.Backward(m.changes) { // the last word counts
				if o.owner != owner {
					continue
				}
				if c.Links == nil {
					c.Links = o.change.Links
				}
				if c.Settings == nil {
					c.Settings = o.change.Settings
				}
				if c.Addresses == nil {
					c.Addresses = o.change.Addresses
				}
			}
			m.changes = slices.DeleteFunc(m.changes, func(o ownerChange) bool { return o.owner == owner })
		}
		m.changes = append(m.changes, ownerChange{owner, c})
	})
}

// cloneLinks copies links with what they point to; nil stays nil, which means something else than empty.
func cloneLinks(links []Link) []Link {
	if links == nil {
		return nil
	}
	fresh := make([]Link, len(links))
	for i, l := range links {
		l.Addresses = slices.Clone(l.Addresses)
		if l.VXLAN != nil {
			v := *l.VXLAN
			l.VXLAN = &v
		}
		fresh[i] = l
	}
	return fresh
}

// Expect names the owners that must be in sync before anything is deleted; what InSync said before the call no longer
// counts, since a change of backend starts sources anew. Until the first call nothing is deleted at all; a call without
// owners opens the way to remove whatever nobody wants.
func (p *Programmer) Expect(owners ...Owner) {
	owners = slices.Clone(owners)
	p.inbox.put(func(m *mail) { m.expect, m.counts, m.inSync = owners, true, nil })
}

// Avoid names the gateways that are dead though their interface is up, as BFD finds them; a call takes the place of the one before. A route
// with several next hops leaves them out while it has another; with nexthop objects that is one write, however many routes there are. What
// has no other way keeps its own, until its owner knows better.
func (p *Programmer) Avoid(gateways ...netip.Addr) {
	gateways = slices.Clone(gateways)
	p.inbox.put(func(m *mail) { m.avoid, m.avoids = gateways, true })
}

// InSync says that what the owner has applied so far is everything its sources hold.
func (p *Programmer) InSync(owner Owner) {
	p.inbox.put(func(m *mail) { m.inSync = append(m.inSync, owner) })
}

// takeInbox works the mail off: wishes first, so that the gate never opens before them. It reports whether there
// was any.
func (p *Programmer) takeInbox(ctx context.Context) {
	m := p.inbox.take()
	if m.bounds {
		p.adoptWithin(ctx, m.within)
	}
	for i := range m.changes {
		p.applyChange(ctx, m.changes[i].owner, &m.changes[i].change)
	}
	if m.avoids {
		p.avoided, p.relink = m.avoid, true
	}
	if m.counts {
		p.expected, p.expectSaid = m.expect, true
		clear(p.inSync)
	}
	for _, o := range m.inSync {
		p.inSync[o] = true
	}
	if m.counts || len(m.inSync) > 0 {
		p.checkGate()
	}
	for _, w := range m.resyncs {
		p.readEverything("asked for")
		p.resyncs = append(p.resyncs, w)
	}
	p.syncs = append(p.syncs, m.syncs...)
}

// checkGate opens or closes the way for deletions.
func (p *Programmer) checkGate() {
	open := p.expectSaid
	for _, o := range p.expected {
		open = open && p.inSync[o]
	}
	if open != p.gateOpen {
		p.gateOpen = open
		p.touchDevices()
		p.log.Info("deletions are now " + map[bool]string{true: "allowed: every source is in sync", false: "held until every source is in sync"}[open])
	}
}
