package bfd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// handoverPatience is how long peers wait for the next process after a planned end, whatever the multiplier; they find no dead path
	// meanwhile.
	handoverPatience = 15 * time.Second
	// handoverWait is how long the peers' consent is waited for, and handoverLook how often it is looked for.
	handoverWait = time.Second
	handoverLook = 5 * time.Millisecond
)

// saved is one session as the next process needs it. Durations are in nanoseconds.
type saved struct {
	Addr         netip.Addr    `json:"addr"`
	LocalAddr    netip.Addr    `json:"localAddr"`
	Multihop     bool          `json:"multihop"`
	Local        uint32        `json:"localDiscriminator"`
	Remote       uint32        `json:"remoteDiscriminator"`
	DesiredTx    time.Duration `json:"desiredMinTx"`
	RequiredRx   time.Duration `json:"requiredMinRx"`
	RemoteMinRx  time.Duration `json:"remoteMinRx"`
	RemoteMinTx  time.Duration `json:"remoteMinTx"`
	RemoteMult   uint8         `json:"remoteMultiplier"`
	RemoteIndep  bool          `json:"remoteControlPlaneIndependent"`
	OurMult      uint8         `json:"multiplier"`
	SourcePort   uint16        `json:"sourcePort"`
	Uptime       time.Duration `json:"uptime"` // of the host when this was written
	BootSequence string        `json:"boot"`
}

// fits reports whether the peer still waits for this session, and waits for it from where p says.
func (k *saved) fits(p *Peer, uptime time.Duration) bool {
	patience := time.Duration(k.OurMult) * max(k.DesiredTx, k.RemoteMinRx)
	age := uptime - k.Uptime
	return k.LocalAddr == p.Local && k.Multihop == p.Multihop && age >= 0 && age < patience && k.BootSequence == boot()
}

// session goes on where the former process has left off. The peer has one detection time, and a moment for our port to open, to be heard.
func (k *saved) session(t Timing, now time.Time) *session {
	s := newSession(k.Local, t, now)
	s.state, s.remoteState, s.remote = Up, Up, k.Remote
	s.remoteMinRx, s.remoteMinTx, s.remoteMultiplier, s.remoteIndependent = k.RemoteMinRx, k.RemoteMinTx, k.RemoteMult, k.RemoteIndep
	s.desiredTx, s.actualTx, s.requiredRx, s.actualRx = k.DesiredTx, k.DesiredTx, k.RequiredRx, k.RequiredRx
	s.expires = now.Add(s.detection() + 100*time.Millisecond)
	s.announce(now)
	s.urgent = true
	return s
}

// Handover ends the Engine so that a next process can go on with its sessions and no peer sees one go down: peers are told of a slow pace, their consent
// is waited for, and the sessions that have it are written to Options.State. A dead path is found late until the next process
// is there (RFC 5880 section 6.8.3). It takes handoverWait at most. Without a file it is Close.
func (e *Engine) Handover(ctx context.Context) error {
	if e.opts.State == "" {
		e.Close()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handoverWait)
	defer cancel()
	e.mu.Lock()
	e.closed = true
	runners := make([]*runner, 0, len(e.runners))
	for _, r := range e.runners {
		r.retime(slow(r.wanted()))
		runners = append(runners, r)
	}
	e.mu.Unlock()
	look := time.NewTicker(handoverLook)
	defer look.Stop()
	for waiting := true; waiting && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-look.C:
		}
		waiting = false
		for _, r := range runners {
			waiting = waiting || r.slowing()
		}
	}
	var all []saved
	e.mu.Lock()
	for _, r := range runners {
		if k, ok := r.save(); ok {
			all = append(all, k)
		}
		e.end(r)
	}
	e.mu.Unlock()
	e.shut()
	return e.store(all)
}

// slow is the pace of a session whose process is about to be replaced.
func slow(t Timing) Timing {
	t.MinTx = max(t.MinTx, handoverPatience/time.Duration(t.Multiplier))
	return t
}

func (r *runner) wanted() Timing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.timing
}

// slowing reports whether a session that is up has not yet the peer's word for the slow pace.
func (r *runner) slowing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.s.state == Up && r.s.actualTx < r.timing.MinTx
}

// save returns what the next process needs, and keeps the session from saying farewell. A session without the peer's consent is not
// saved: it would be down at the peer before the next process comes.
func (r *runner) save() (saved, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.s
	if s.state != Up || s.actualTx < r.timing.MinTx {
		return saved{}, false
	}
	r.silent = true
	return saved{Addr: r.peer.Addr, LocalAddr: r.peer.Local, Multihop: r.peer.Multihop, Local: s.local, Remote: s.remote,
		DesiredTx: s.desiredTx, RequiredRx: s.requiredRx, RemoteMinRx: s.remoteMinRx, RemoteMinTx: s.remoteMinTx,
		RemoteMult: s.remoteMultiplier, RemoteIndep: s.remoteIndependent, OurMult: s.timing.Multiplier,
		SourcePort: r.line.source, Uptime: uptime(), BootSequence: boot()}, true
}

func (e *Engine) store(all []saved) error {
	text, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("save BFD sessions: %w", err)
	}
	name := e.opts.State
	tmp := name + ".new"
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(tmp, text, 0o600), os.Rename(tmp, name)); err != nil {
		return fmt.Errorf("save BFD sessions: %w", err)
	}
	return nil
}

// load reads what the former process has left, once: a second process must not go on with the same sessions.
func (e *Engine) load() map[netip.Addr]saved {
	if e.opts.State == "" {
		return nil
	}
	text, err := os.ReadFile(e.opts.State)
	if err == nil {
		err = os.Remove(e.opts.State)
	}
	var all []saved
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			e.opts.Log.Warn("saved BFD sessions are not used", keyError, err)
		}
		return nil
	}
	out := make(map[netip.Addr]saved, len(all))
	for _, k := range all {
		out[k.Addr] = k
	}
	return out
}

// uptime is the time since the host was started. No clock that is set disturbs it.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// boot names this start of the host: no peer waits for a session over a reboot, and the clock may be anything after one.
func boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(id)
}
