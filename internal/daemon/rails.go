package daemon

import (
	"fmt"
	"strings"
	"time"

	"github.com/caracal-net/caracal/internal/cluster"
	"github.com/caracal-net/caracal/internal/datastore"
)

// Rails say when a State is too good to be true: one that follows a doubt and would take many routes away is held, and what was
// before it stays in force as a whole: routes, neighbours, BGP sessions and announcements.
type Rails struct {
	Share   float64       // of what an owner has, from 0 to 1; losing more is too much
	Least   int           // losing no more than so many routes is never too much
	Window  time.Duration // after the datastore was away, how long its word is doubted
	Timeout time.Duration // how long a State is held at most, 0 = as long as the doubt lasts
}

// DefaultRails hold what would remove more than 30 % and more than 100 routes.
func DefaultRails() Rails { return Rails{Share: 0.3, Least: 100, Window: time.Minute} }

// check refuses settings that mean nothing.
func (r *Rails) check() error {
	if r.Share < 0 || r.Share > 1 || r.Least < 0 || r.Window < 0 || r.Timeout < 0 {
		return fmt.Errorf("safety rails: share %v, least %d, window %v, timeout %v: use a share from 0 to 1, and nothing below 0", r.Share, r.Least, r.Window, r.Timeout)
	}
	return nil
}

// judgePause is the least time between two judgements of States in doubt: one costs up to four plans.
const judgePause = 200 * time.Millisecond

// loss is what an owner would lose of what it has.
type loss struct {
	what     string
	lost, of int
}

func (l *loss) String() string { return fmt.Sprintf("%d of %d %s", l.lost, l.of, l.what) }

// held is a State that waits.
type held struct {
	since  time.Time
	why    string // the doubt
	losses []loss // that are too great
}

func (h *held) String() string {
	var all []string
	for i := range h.losses {
		all = append(all, h.losses[i].String())
	}
	return fmt.Sprintf("held since %s: it would remove %s, and %s; `caracal release` lets it happen", h.since.Format(time.RFC3339), strings.Join(all, ", "), h.why)
}

// rails judge Updates one after the other. They have no clock and no goroutine.
type rails struct {
	Rails
	last     datastore.Update // let through last
	base     *cluster.State   // what losses are counted against: the last State that was not in doubt
	away     bool             // the datastore could not be read
	doubt    time.Time        // its word is in doubt until then; zero while nothing new is heard of one that cannot be read
	heard    *cluster.State   // the newest State, let through or not
	held     *held
	judged   time.Time
	released bool // the next State that would be held is let through
}

// judge returns the Update to plan by: u, or what was before it. next is when to ask again though nothing new has come, zero for never.
func (r *rails) judge(u datastore.Update, now time.Time, losses func(from, to *cluster.State) []loss) (use datastore.Update, next time.Time) {
	if !u.InSync {
		return r.absent(u), time.Time{}
	}
	if r.base == nil && u.Kept != nil {
		r.base, r.away = u.Kept, true
		r.last = datastore.Update{State: u.Kept, Stale: u.KeptAt}
	}
	why := r.doubts(u, now)
	if why == "" || r.base == nil {
		r.accept(u)
		if u.Err == nil {
			r.base = u.State // only what nobody doubts is a measure for others
		}
		return u, time.Time{}
	}
	if u.State == r.last.State && r.last.InSync {
		r.last = u // judged already; what is said of it may differ
		return u, r.end(u)
	}
	if few(r.base, u.State, r.Least) && (r.last.State == r.base || few(r.last.State, u.State, r.Least)) {
		r.accept(u)
		return u, r.end(u)
	}
	if wait := r.judged.Add(judgePause); now.Before(wait) && !r.released {
		return r.before(u), wait
	}
	r.judged = now
	great := r.great(losses(r.base, u.State))
	if len(great) == 0 && r.last.State != r.base { // what has come during a doubt is to be missed as well
		great = r.great(losses(r.last.State, u.State))
	}
	next = r.end(u)
	switch {
	case len(great) == 0:
		r.accept(u)
		return u, next
	case r.released, r.held != nil && r.Timeout > 0 && now.Sub(r.held.since) >= r.Timeout:
		r.accept(u)
		r.base, r.released = u.State, false
		return u, time.Time{}
	}
	h := &held{since: now, why: why, losses: great}
	if r.held != nil {
		h.since = r.held.since
	}
	r.held = h
	if t := h.since.Add(r.Timeout); r.Timeout > 0 && (next.IsZero() || t.Before(next)) {
		next = t
	}
	return r.before(u), next
}

// great returns the losses that are too great.
func (r *rails) great(all []loss) (great []loss) {
	for _, l := range all {
		if l.lost > r.Least && float64(l.lost) > r.Share*float64(l.of) {
			great = append(great, l)
		}
	}
	return great
}

// doubts says why an Update may not be the truth, "" where nothing speaks against it. What is read first of a datastore that comes back, while the rest
// cannot be read yet, is in doubt as what is read last; a part that cannot be read for long is no reason to doubt the others for ever.
func (r *rails) doubts(u datastore.Update, now time.Time) string {
	news := u.State != r.heard
	r.heard = u.State
	switch {
	case u.Err == nil && r.away:
		r.away, r.doubt = false, now.Add(r.Window)
	case u.Err != nil && !r.away:
		r.away, r.doubt = true, time.Time{}
	}
	if u.Err != nil && news && r.doubt.IsZero() {
		r.doubt = now.Add(r.Window)
	}
	switch {
	case u.Suspect != "":
		return u.Suspect
	case u.Err != nil && r.doubt.IsZero() && r.held != nil:
		return "the datastore cannot be read"
	case u.Err != nil && now.Before(r.doubt):
		return "a part of the datastore cannot be read"
	case now.Before(r.doubt):
		return "the datastore is back only just"
	}
	return ""
}

// before is the State that was let through last, with what is said of the datastore now.
func (r *rails) before(u datastore.Update) datastore.Update {
	use := r.last
	use.Err, use.Suspect = u.Err, u.Suspect
	return use
}

// end is when a doubt that only time can end does so.
func (r *rails) end(u datastore.Update) time.Time {
	if u.Suspect != "" {
		return time.Time{}
	}
	return r.doubt
}

func (r *rails) accept(u datastore.Update) { r.last, r.held = u, nil }

// absent handles what is said before the datastore was read: a copy, or nothing.
func (r *rails) absent(u datastore.Update) datastore.Update {
	r.away, r.doubt, r.heard = true, time.Time{}, u.State
	if !u.Stale.IsZero() {
		r.base = u.State
		r.last = u
	}
	return u
}

// release lets through what is held; it returns what that is, nil if there is nothing.
func (r *rails) release() *held {
	r.released = r.held != nil
	return r.held
}
