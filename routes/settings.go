package routes

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/kernel"
)

// settings are the sysctls that routing relies on: forwarding, and the reverse path filter. Those of the namespace and of our tunnel devices are
// kept, and those that owners wish for; those of other interfaces that our routes leave by are looked at and reported (docs/decisions/014-settings.md).
type settings struct {
	on     bool
	needed [2]bool // by family: something of that family has been wanted
	conf   map[confKey]kernel.Netconf
	dirty  bool
	states map[kernel.Sysctl]*setting
	wishes wishedSettings

	wanted, done bool // to be read; read once
	failures     int
	due          time.Time // of the read
}

type confKey struct {
	link int
	v6   bool
}

// setting is one sysctl and what became of it.
type setting struct {
	status   SettingStatus
	due      time.Time // not written before
	repairs  int
	repaired time.Time
	seen     bool // in this pass
}

// SettingStatus is one sysctl as inspection shows it. Outcome is Installed, Failed, Waiting (someone keeps changing it), or Foreign: it belongs to
// an interface that is not ours, and is not as routing wants it.
type SettingStatus struct {
	Name       string // path below /proc/sys
	Want, Have int
	Outcome    Outcome
	Detail     string
	Attempts   int
	Since      time.Time
}

func newSettings(on bool) settings {
	return settings{on: on, conf: map[confKey]kernel.Netconf{}, states: map[kernel.Sysctl]*setting{}}
}

// Settings returns the sysctls that are kept or reported, by name.
func (p *Programmer) Settings() []SettingStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]SettingStatus, 0, len(p.settings.states))
	for _, s := range p.settings.states {
		all = append(all, s.status)
	}
	slices.SortFunc(all, func(a, b SettingStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// need says that something of a family is wanted, so that packets of it must be forwarded.
func (t *settings) need(family int) {
	if !t.needed[family] {
		t.needed[family], t.dirty = true, true
	}
}

// event folds what the kernel tells of settings.
func (t *settings) event(c *kernel.Netconf, deleted bool) {
	k := confKey{c.Link, c.V6}
	if deleted {
		delete(t.conf, k)
		return
	}
	have, known := t.conf[k]
	if !known {
		have = kernel.Netconf{Link: c.Link, V6: c.V6, Forwarding: kernel.Unsaid, RPFilter: kernel.Unsaid}
	}
	if c.Forwarding != kernel.Unsaid {
		have.Forwarding = c.Forwarding
	}
	if c.RPFilter != kernel.Unsaid {
		have.RPFilter = c.RPFilter
	}
	t.conf[k] = have
	t.dirty = true
}

// readSettings reads both families.
func (p *Programmer) readSettings(ctx context.Context) {
	t := &p.settings
	if !t.on || !t.wanted || t.due.After(p.now) {
		return
	}
	fresh := map[confKey]kernel.Netconf{}
	for _, v6 := range []bool{false, true} {
		err := p.kernel.ListNetconf(ctx, v6, func(c kernel.Netconf) bool { fresh[confKey{c.Link, v6}] = c; return true })
		if err != nil {
			t.failures++
			t.due = p.now.Add(max(readBackoff(t.failures), readRetryFirst))
			if t.failures == 2 && ctx.Err() == nil {
				p.log.Warn("settings of interfaces cannot be read; it is tried again", logError, err)
			}
			return
		}
	}
	t.conf, t.wanted, t.done, t.failures, t.dirty = fresh, false, true, 0, true
	for _, w := range t.wishes.list {
		w.look = true
	}
}

// keepSettings writes what is not as wanted and ours to write, and reports the rest.
func (p *Programmer) keepSettings(ctx context.Context) {
	t := &p.settings
	p.readSettings(ctx)
	if !t.done || !t.dirty && !t.ringing(p.now) {
		return
	}
	t.dirty = false
	for _, s := range t.states {
		s.seen = false
	}
	used := map[int]bool{} // interfaces that routes of ours leave by
	p.forms.any(func(f *form) bool {
		for _, h := range p.hopsOf(f) {
			used[h.Link] = true
		}
		return false
	})
	for family, v6 := range []bool{false, true} {
		if !t.needed[family] {
			continue
		}
		all := kernel.SysctlIPForward
		if v6 {
			all = kernel.SysctlIPv6Forward
		}
		if have := t.conf[confKey{kernel.LinkAll, v6}].Forwarding; have != kernel.Unsaid {
			p.keep(ctx, all, 1, int(have), true, "")
		}
		for index, l := range p.links.byIndex {
			if c, known := t.conf[confKey{index, v6}]; known {
				p.keepDevice(ctx, l, c, used[index])
			}
		}
	}
	p.keepWishes(ctx)
	for name, s := range t.states {
		if !s.seen {
			delete(t.states, name)
		}
	}
}

// keepDevice does so for one interface: a tunnel device that we want, or one that routes of ours leave by.
func (p *Programmer) keepDevice(ctx context.Context, l *kernel.Link, c kernel.Netconf, used bool) {
	d := p.devices[l.Name]
	ours := d != nil && d.link.Kind == l.Kind
	if !ours && !used || strings.Contains(l.Name, "/") || len(p.settings.wishes.of[l.Name]) > 0 {
		return
	}
	if c.Forwarding != kernel.Unsaid {
		p.keep(ctx, kernel.DeviceForward(l.Name, c.V6), 1, int(c.Forwarding), ours, "packets that come in by "+l.Name+" are not forwarded")
	}
	if c.V6 || c.RPFilter == kernel.Unsaid {
		return
	}
	// The greater of the interface's and of "all" counts.
	have := int(max(c.RPFilter, p.settings.conf[confKey{kernel.LinkAll, false}].RPFilter))
	if have == kernel.RPFilterStrict {
		p.keep(ctx, kernel.DeviceRPFilter(l.Name), kernel.RPFilterLoose, have, ours, "packets whose answers would leave by another interface are dropped")
	} else {
		p.keep(ctx, kernel.DeviceRPFilter(l.Name), have, have, ours, "")
	}
}

// keep holds one setting against what is wanted.
func (p *Programmer) keep(ctx context.Context, name kernel.Sysctl, want, have int, ours bool, harm string) {
	s := p.settings.states[name]
	if s == nil {
		s = &setting{status: SettingStatus{Name: string(name), Outcome: Waiting, Since: p.now}}
		p.settings.states[name] = s
	}
	s.seen = true
	was := s.status.Outcome
	s.status.Want, s.status.Have = want, have
	if want == have {
		s.status.Attempts = 0
		p.settingIs(s, Installed, "")
		return
	}
	if !ours {
		p.settingIs(s, Foreign, harm)
		return
	}
	if was == Installed {
		p.settingFought(s)
	}
	if s.due.After(p.now) {
		if was == Installed {
			p.settingIs(s, Waiting, "another program keeps changing it; repairs slow down")
		}
		return
	}
	if err := p.kernel.WriteSysctl(ctx, name, want); err != nil {
		s.status.Attempts++
		s.due = p.now.Add(backoff(retryFirst, retryMost, s.status.Attempts))
		p.settingIs(s, Failed, describe(err))
		return
	}
	s.status.Have, s.status.Attempts, s.due = want, 0, time.Time{}
	p.settingWritten(name, want)
	p.settingIs(s, Installed, "")
}

// settingWritten counts a write as done; the event confirms it.
func (p *Programmer) settingWritten(name kernel.Sysctl, value int) {
	t := &p.settings
	for k, c := range t.conf {
		device := p.links.nameOf(k.link)
		switch {
		case name == kernel.SysctlIPForward && !k.v6 || name == kernel.SysctlIPv6Forward && k.v6 || device != "" && name == kernel.DeviceForward(device, k.v6):
			c.Forwarding = int8(value)
		case device != "" && !k.v6 && name == kernel.DeviceRPFilter(device):
			c.RPFilter = int8(value)
		}
		t.conf[k] = c
	}
}

func (p *Programmer) settingFought(s *setting) {
	if p.now.Sub(s.repaired) > calmAfter {
		s.repairs = 0
	}
	s.repairs++
	s.repaired = p.now
	p.stats.Repairs++
	s.due = p.now.Add(fightPause(s.repairs))
}

// settingIs records a change of state, with one line of log.
func (p *Programmer) settingIs(s *setting, o Outcome, detail string) {
	if s.status.Outcome == o && s.status.Detail == detail {
		return
	}
	args := []any{logSetting, s.status.Name, logValue, strconv.Itoa(s.status.Have), logDetail, detail}
	switch {
	case o == Failed:
		p.log.Warn("a setting that routing relies on cannot be written; it is tried again", args...)
	case o == Foreign:
		p.log.Warn("a setting of an interface that is not ours may cost packets; it is left alone", args...)
	case o == Waiting:
		p.log.Warn("another program keeps changing a setting of ours; repairs slow down", args...)
	case s.status.Outcome == Failed || s.status.Outcome == Foreign:
		p.log.Info("a setting is as routing wants it after all", args...)
	}
	s.status.Outcome, s.status.Detail, s.status.Since = o, detail, p.now
}

// ringing reports whether a setting that was put off is due.
func (t *settings) ringing(now time.Time) bool {
	next := t.next()
	return !next.IsZero() && !next.After(now)
}

// next is when something waits to be done.
func (t *settings) next() (next time.Time) {
	if !t.on {
		return next
	}
	if t.wanted {
		next = t.due
	}
	for _, s := range t.states {
		if late := s.status.Outcome == Failed || s.status.Outcome == Waiting; late && (next.IsZero() || s.due.Before(next)) {
			next = s.due
		}
	}
	return next
}

// busy reports whether there is something to do now.
func (t *settings) busy(now time.Time) bool {
	return t.on && (t.wanted && !t.due.After(now) || t.done && t.dirty)
}
