package lab

import (
	"fmt"
	"time"
)

// PairReport is the count of one pair.
type PairReport struct {
	Pair
	Sent, Lost, Twice int
	// Gap is the longest time without an answer: from the first lost probe of a run to the next answered one.
	Gap            time.Duration
	RTTMin, RTTAvg time.Duration
}

// ProbeReport is the count of all pairs.
type ProbeReport struct {
	Pairs    []PairReport
	Interval time.Duration // between two probes of a pair
	Lasted   time.Duration // from the first probe to Stop
}

// Sent returns the number of probes sent.
func (r *ProbeReport) Sent() (n int) {
	for _, p := range r.Pairs {
		n += p.Sent
	}
	return n
}

// Lost returns the number of probes never answered.
func (r *ProbeReport) Lost() (n int) {
	for _, p := range r.Pairs {
		n += p.Lost
	}
	return n
}

// Gap returns the longest time any pair went without an answer.
func (r *ProbeReport) Gap() (g time.Duration) {
	for _, p := range r.Pairs {
		g = max(g, p.Gap)
	}
	return g
}

// Among returns the report of those pairs only that keep holds for.
func (r *ProbeReport) Among(keep func(Pair) bool) *ProbeReport {
	out := &ProbeReport{Interval: r.Interval, Lasted: r.Lasted}
	for _, p := range r.Pairs {
		if keep(p.Pair) {
			out.Pairs = append(out.Pairs, p)
		}
	}
	return out
}

// String is one line for people: "4500 probes of 15 pairs over 3.0s, 0 lost".
func (r *ProbeReport) String() string {
	s := fmt.Sprintf("%d probes of %d pairs over %.1fs, %d lost", r.Sent(), len(r.Pairs), r.Lasted.Seconds(), r.Lost())
	if r.Lost() > 0 {
		s += fmt.Sprintf(" (longest gap %s)", r.Gap().Round(time.Millisecond))
	}
	return s
}

// report counts a pair; ticks says when each sequence number was sent.
func (pp *pairProbe) report(ticks []time.Duration) PairReport {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	r := PairReport{Pair: pp.Pair, Sent: int(pp.sent.Load()), Twice: pp.twice, RTTMin: pp.rttMin}
	if n := pp.answered.Load(); n > 0 {
		r.RTTAvg = pp.rttSum / time.Duration(n)
	}
	var since time.Duration = -1
	for seq, got := range pp.got {
		switch {
		case pp.skipped[seq]:
		case got && since >= 0:
			r.Gap = max(r.Gap, ticks[seq]-since)
			since = -1
		case !got:
			r.Lost++
			if since < 0 {
				since = ticks[seq]
			}
		}
	}
	if since >= 0 && len(ticks) > 0 {
		r.Gap = max(r.Gap, ticks[len(ticks)-1]-since)
	}
	return r
}
