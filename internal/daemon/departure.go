package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caracal-net/caracal/bgp"
	"github.com/caracal-net/caracal/internal/inspect"
)

// drain is somebody's wish that this node leaves. It is kept in a file beside the socket: the next process goes on with it, and a boot of the
// machine ends it.
type drain struct {
	Since      time.Time     `json:"since"`
	Wait       time.Duration `json:"wait"`       // between the last choice and the withdrawal
	Everything bool          `json:"everything"` // blocks too in which workloads still run
}

// departure decides how far the node is to leave (RFC 8326). A Node that is cordoned is everybody's last choice, and no more: who cordons wants no
// new workloads, and the ones that run must stay reachable. caracal drain goes on to withdraw.
type departure struct {
	file string
	log  *slog.Logger
	set  func(bgp.Leaving)
	now  func() time.Time
	wake chan struct{}

	mu       sync.Mutex // guards what follows
	cordoned bool
	drain    *drain
	step     bgp.Leaving
	since    time.Time     // of step
	reached  chan struct{} // closed when step changes
}

// newDeparture takes up what a former process was asked for, and says so by set before it returns.
func newDeparture(socket string, log *slog.Logger, set func(bgp.Leaving)) *departure {
	d := &departure{file: filepath.Join(filepath.Dir(socket), "drain.json"), log: log, set: set, now: time.Now, wake: make(chan struct{}, 1), reached: make(chan struct{})}
	text, err := os.ReadFile(d.file)
	if err == nil {
		var kept drain
		if err = json.Unmarshal(text, &kept); err == nil {
			d.drain = &kept
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("whether the node was drained cannot be read; it stays", logErr, err)
	}
	d.look()
	return d
}

// String names the task.
func (d *departure) String() string { return "departure" }

// Run is the task: it takes the next step when its time has come.
func (d *departure) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(time.Hour)
		if next := d.look(); !next.IsZero() {
			timer.Reset(next.Sub(d.now()))
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-d.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look takes the step that is due and returns when the next one is, zero for never.
func (d *departure) look() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.advance()
}

// advance does it under the lock.
func (d *departure) advance() time.Time {
	step, next := stepOf(d.cordoned, d.drain, d.now())
	if step != d.step {
		d.log.Info("leaving", logFrom, d.step, logTo, step)
		d.step, d.since = step, d.now()
		d.set(step)
		close(d.reached)
		d.reached = make(chan struct{})
	}
	return next
}

// stepOf returns how far to leave, and when that is another answer.
func stepOf(cordoned bool, w *drain, now time.Time) (step bgp.Leaving, next time.Time) {
	switch {
	case w == nil && cordoned:
		return bgp.Shutdown, next
	case w == nil:
		return bgp.Stays, next
	case now.Before(w.Since.Add(w.Wait)):
		return bgp.Shutdown, w.Since.Add(w.Wait)
	case w.Everything:
		return bgp.Gone, next
	}
	return bgp.Withdrawn, next
}

func (d *departure) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// setCordoned follows spec.unschedulable of the Node; the step is taken when it returns.
func (d *departure) setCordoned(yes bool) {
	d.mu.Lock()
	d.cordoned = yes
	d.advance()
	d.mu.Unlock()
	d.kick()
}

// Drain has the node leave and returns when it has withdrawn, or when ctx ends; the node leaves all the same. A second Drain counts from the first,
// so that nothing is announced again for it.
func (d *departure) Drain(ctx context.Context, wait time.Duration, everything bool) error {
	w := &drain{Since: d.now(), Wait: wait, Everything: everything}
	d.mu.Lock()
	if d.drain != nil {
		w.Since = d.drain.Since
	}
	d.mu.Unlock()
	if err := d.keep(w); err != nil {
		return err
	}
	want := bgp.Withdrawn
	if everything {
		want = bgp.Gone
	}
	for {
		d.mu.Lock()
		step, reached, mine := d.step, d.reached, d.drain == w
		d.mu.Unlock()
		switch {
		case step == want:
			return nil
		case !mine:
			return errors.New("somebody has asked for something else meanwhile")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-reached:
		}
	}
}

// Undrain has the node stay.
func (d *departure) Undrain() error { return d.keep(nil) }

// keep writes the wish down before it is acted upon, so that the next process knows of it.
func (d *departure) keep(w *drain) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.write(w); err != nil {
		return fmt.Errorf("keep that the node is drained: %w", err)
	}
	close(d.reached) // whoever waits for a former wish hears of it
	d.reached = make(chan struct{})
	d.drain = w
	d.advance()
	d.kick()
	return nil
}

func (d *departure) write(w *drain) error {
	if w == nil {
		if err := os.Remove(d.file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(d.file+".new", d.file)
}

// Status says how far the node has left and why, in words; "" if it stays.
func (d *departure) Status() inspect.Leaving {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := inspect.Leaving{Step: d.step, Since: d.since}
	switch {
	case d.drain != nil && d.step == bgp.Shutdown:
		l.Why = "caracal drain; it withdraws at " + d.drain.Since.Add(d.drain.Wait).UTC().Format(time.RFC3339)
	case d.drain != nil:
		l.Why = "caracal drain; caracal undrain brings it back"
	case d.cordoned:
		l.Why = "the Node is cordoned (spec.unschedulable)"
	}
	return l
}
