package routes

import (
	"context"
	"maps"
	"slices"

	"github.com/caracal-net/caracal/internal/kernel"
)

// wishedSettings are the sysctls of single interfaces that owners wish for. The kernel tells when some of them are written (RTM_NEWNETCONF, which for
// proxy_arp and proxy_ndp has no value): then all of the interface are read. The others, route_localnet and proxy_delay among them, change
// without a word and are found by the next full read.
type wishedSettings struct {
	owners map[uint8][]Setting
	list   []*settingWish            // in the order of owners and of their lists
	of     map[string][]*settingWish // by interface
}

// settingWish is one of them.
type settingWish struct {
	Setting
	device string
	link   int  // the interface that it was looked at on, 0 = none
	look   bool // it is to be read
}

// wish takes an owner's whole set. Of several owners the strongest has a setting.
func (t *settings) wish(rank uint8, list []Setting) {
	w := &t.wishes
	if w.owners == nil {
		w.owners = map[uint8][]Setting{}
	}
	w.owners[rank] = list
	before := make(map[kernel.Sysctl]*settingWish, len(w.list))
	for _, one := range w.list {
		before[one.Name] = one
	}
	fresh := make(map[kernel.Sysctl]bool, len(w.list))
	w.list, w.of = nil, map[string][]*settingWish{}
	for _, rank := range slices.Sorted(maps.Keys(w.owners)) {
		for _, s := range w.owners[rank] {
			device := s.Name.Device()
			if device == "" || fresh[s.Name] {
				continue // those of the namespace are not an owner's to wish for
			}
			fresh[s.Name] = true
			one := before[s.Name]
			if one == nil || one.Value != s.Value {
				one = &settingWish{Setting: s, device: device, look: true}
			}
			w.list = append(w.list, one)
			w.of[device] = append(w.of[device], one)
		}
	}
	t.dirty = true
}

// look has the wishes of an interface read.
func (t *settings) look(device string) {
	for _, w := range t.wishes.of[device] {
		w.look, t.dirty = true, true
	}
}

// keepWishes holds the wishes that may have changed against the kernel.
func (p *Programmer) keepWishes(ctx context.Context) {
	t := &p.settings
	for _, w := range t.wishes.list {
		link, there := p.links.byName[w.device]
		if !there {
			w.link = 0
			continue
		}
		s := t.states[w.Name]
		again := s != nil && (s.status.Outcome == Failed || s.status.Outcome == Waiting) && !s.due.After(p.now)
		if w.link == link && !w.look && !again && s != nil {
			s.seen = true
			continue
		}
		w.link, w.look = link, false
		have, err := p.kernel.ReadSysctl(ctx, w.Name)
		if err != nil {
			p.settingUnread(w, err)
			continue
		}
		p.keep(ctx, w.Name, w.Value, have, true, "")
	}
}

// settingUnread records that a wish cannot be held against the kernel: an interface that has gone is soon told of, a kernel may lack a family.
func (p *Programmer) settingUnread(w *settingWish, err error) {
	s := p.settings.states[w.Name]
	if s == nil {
		s = &setting{status: SettingStatus{Name: string(w.Name), Outcome: Waiting, Since: p.now}}
		p.settings.states[w.Name] = s
	}
	s.seen, s.status.Want = true, w.Value
	s.status.Attempts++
	s.due = p.now.Add(backoff(retryFirst, retryMost, s.status.Attempts))
	p.settingIs(s, Failed, describe(err))
}
