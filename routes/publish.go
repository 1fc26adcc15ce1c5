package routes

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// publish gives out a new picture of the host where it has changed. Bursts make one picture, and making pictures never takes
// more than a share of the time.
func (p *Programmer) publish() {
	if len(p.foreign.dirty) > 0 {
		p.hostDirty = true
	}
	if !p.hostDirty || !p.reads.complete() || p.now.Before(p.publishAt) {
		return
	}
	start := time.Now()
	p.hostDirty = false
	changed := p.host == nil
	if len(p.foreign.dirty) > 0 {
		p.foreign.picture(p.links.nameOf, &p.nexthops)
		changed = true
	}
	interfaces := p.interfaces()
	if p.host != nil && equalInterfaces(interfaces, p.host.Interfaces) {
		interfaces = p.host.Interfaces
	} else {
		changed = true
	}
	if !changed && slices.Equal(p.host.Within, p.takeover.within) {
		return
	}
	workloads, felix := []netip.Prefix(nil), []netip.Prefix(nil)
	if p.host != nil && !p.foreign.wMoved {
		workloads, felix = p.host.Workloads, p.host.Felix
	} else {
		workloads = slices.SortedFunc(maps.Keys(p.foreign.workloads), netip.Prefix.Compare)
		felix = slices.SortedFunc(maps.Keys(p.foreign.felix), netip.Prefix.Compare)
		p.foreign.wMoved = false
	}
	p.host = newHost(interfaces, workloads, p.foreign.table)
	p.host.Felix, p.host.Within = felix, p.takeover.within
	if p.onHost != nil {
		host := p.host
		p.mu.Unlock()
		p.onHost(host)
		p.mu.Lock()
	}
	end := time.Now()
	p.publishAt = end.Add(min(end.Sub(start)*publishShare, publishMost))
}

// interfaces is the picture of all interfaces but ours, by index.
func (p *Programmer) interfaces() []Interface {
	all := make([]Interface, 0, len(p.links.byIndex))
	for _, l := range p.links.byIndex {
		if isTunnel(l.Name) {
			continue
		}
		i := Interface{Name: l.Name, Index: l.Index, MTU: l.MTU, Up: l.Up, Kind: l.Kind}
		for _, a := range p.links.addrs[l.Index] {
			i.Addrs = append(i.Addrs, a.Prefix)
		}
		slices.SortFunc(i.Addrs, netip.Prefix.Compare)
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Interface) int { return a.Index - b.Index })
	return all
}

func equalInterfaces(a, b []Interface) bool {
	return slices.EqualFunc(a, b, func(x, y Interface) bool {
		return x.Name == y.Name && x.Index == y.Index && x.MTU == y.MTU && x.Up == y.Up && x.Kind == y.Kind && slices.Equal(x.Addrs, y.Addrs)
	})
}

// Host returns the last picture of the host, nil before the first.
func (p *Programmer) Host() *Host {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.host
}
