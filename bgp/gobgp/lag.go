package gobgp

import (
	"sync/atomic"
	"time"
)

// GoBGP hands its watchers every change of every path through a queue without a bound, and reads on. A peer that flaps faster than we get the processor for would
// fill the memory: a queue of seconds is some hundred megabytes. So its session waits when we lag behind, and TCP passes that on to the peer.
const (
	lagMost  = 200 * time.Millisecond // behind that no UPDATE is taken
	lagStale = time.Second            // after which an age says nothing: nothing has come since
	lagLook  = 5 * time.Millisecond
	lagWait  = 200 * time.Millisecond // for one UPDATE: GoBGP holds a lock meanwhile that status and configuration need
)

// lag is how far we are behind the engine.
type lag struct {
	age  atomic.Int64 // of the last change when we were told of it, in nanoseconds
	told atomic.Int64 // when, in nanoseconds since 1970
}

// hear notes that we were told at now of what happened at a time.
func (l *lag) hear(at, now time.Time) {
	l.age.Store(int64(now.Sub(at)))
	l.told.Store(now.UnixNano())
}

func (l *lag) behind(now time.Time) bool {
	return l.age.Load() > int64(lagMost) && now.UnixNano()-l.told.Load() < int64(lagStale)
}

// wait returns when we have caught up, after lagWait at the latest.
func (l *lag) wait() {
	for end := time.Now().Add(lagWait); ; time.Sleep(lagLook) {
		if now := time.Now(); !l.behind(now) || now.After(end) {
			return
		}
	}
}
