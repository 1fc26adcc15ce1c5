package gobgp

import "time"

// LagWait is how long an UPDATE may wait for us.
const LagWait = lagWait

// Lag says that what we were told just now is as old as this.
func (s *Speaker) Lag(age time.Duration) { s.feed.lag.hear(time.Now().Add(-age), time.Now()) }
