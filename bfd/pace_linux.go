package bfd

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// paceMost is how long the pacemaker sleeps at most, if nobody rings.
	paceMost = time.Second
	// paceAgain is when it tries again for a session that somebody else has at this moment.
	paceAgain = time.Millisecond
	// paceLate is how long after a packet was due its session's goroutine sends it where the pacemaker has not.
	paceLate = 10 * time.Millisecond
	// pacePriority is the least that goes before every thread without real-time priority (sched(7)).
	pacePriority = 1
)

// startPace starts the pacemaker, a thread with real-time priority that sends what is due, and does nothing else. Called with the lock held.
func (e *Engine) startPace() {
	if e.pacing {
		return
	}
	e.pacing = true
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		e.opts.Log.Info("BFD goes without a pacemaker", keyError, err)
		return
	}
	e.last.Lock()
	e.bell = fd
	e.last.Unlock()
	e.routines.Go(func() { e.pace(fd) })
}

// ring wakes the pacemaker: a packet is due sooner than it knows, or the context has ended.
func (e *Engine) ring() {
	e.last.Lock()
	defer e.last.Unlock()
	if e.bell >= 0 {
		_, _ = unix.Write(e.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// realTime is the priority of the pacemaker's thread, which no thread or process inherits.
func realTime() *unix.SchedAttr {
	return &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: pacePriority}
}

func (e *Engine) pace(bell int) {
	runtime.LockOSThread() // never unlocked, so that the thread ends with this goroutine
	defer func() {
		e.paced.Store(false)
		e.last.Lock()
		_ = unix.Close(bell)
		e.bell = -1
		e.last.Unlock()
	}()
	if err := unix.SchedSetAttr(0, realTime(), 0); err != nil {
		e.opts.Log.Info("BFD has no real-time priority: where processors are short, packets may leave late and peers find a dead path; give the daemon CAP_SYS_NICE", keyError, err)
		return
	}
	e.paced.Store(true)
	var all []*runner
	for e.ctx.Err() == nil {
		at := time.Now().Add(paceMost)
		if e.mu.TryLock() {
			all = all[:0]
			for _, r := range e.runners {
				all = append(all, r)
			}
			e.mu.Unlock()
		}
		for _, r := range all {
			if next := r.beat(); next.Before(at) {
				at = next
			}
		}
		rest := unix.NsecToTimespec(int64(max(time.Until(at), 0)))
		ready, _ := unix.Ppoll([]unix.PollFd{{Fd: int32(bell), Events: unix.POLLIN}}, &rest, nil)
		if ready > 0 {
			var rung [8]byte
			_, _ = unix.Read(bell, rung[:])
		}
	}
}

// beat sends a packet if it is due and returns when the next is. It never waits: not for who has the session, which may be a thread that is not run, and
// not for a socket to be opened.
func (r *runner) beat() time.Time {
	now := time.Now()
	if !r.mu.TryLock() {
		return now.Add(paceAgain)
	}
	defer r.mu.Unlock()
	r.beatAt = now.Add(paceMost)
	if r.ended || r.line.conn == nil || r.s.silent() {
		return r.beatAt
	}
	if r.s.due(now) {
		r.send(r.s.send(false, now))
		r.engine.beats.Add(1)
	}
	r.beatAt = r.s.nextTx
	return r.beatAt
}

// look is when the session's goroutine is to look again.
func (r *runner) look(now time.Time) time.Time {
	at := r.s.wake(now)
	if !r.engine.paced.Load() || r.s.urgent {
		return at
	}
	if r.s.nextTx.Before(r.beatAt) {
		r.beatAt = r.s.nextTx
		r.engine.ring()
	}
	at = at.Add(paceLate)
	if !r.s.expires.IsZero() && r.s.expires.Before(at) {
		at = r.s.expires
	}
	return at
}
