package lab

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// WaitReachable probes until every endpoint has answered every other, and returns how long that took. When ctx ends first
// the error names the pairs that never answered.
func WaitReachable(ctx context.Context, eps []*Endpoint) (time.Duration, error) {
	pairs := pairsOf(eps, true)
	if len(pairs) == 0 {
		return 0, nil
	}
	began := time.Now()
	p, err := StartProbe(pairs, ProbeOptions{Interval: 20 * time.Millisecond, Once: true})
	if err != nil {
		return 0, err
	}
	defer p.abandon()
	err = poll(ctx, 5*time.Millisecond, func() error {
		missing := p.Unanswered()
		if len(missing) == 0 {
			return nil
		}
		return fmt.Errorf("%d of %d pairs do not answer, the first %s (%s) to %s (%s)", len(missing), len(pairs),
			missing[0].From.Name, missing[0].From.Addr, missing[0].To.Name, missing[0].To.Addr)
	})
	return time.Since(began), err
}

// Matrix sends count probes of a size (0 = smallest; whole IP packet, bytes) in each direction of each pair.
func Matrix(ctx context.Context, eps []*Endpoint, count, size int) (*ProbeReport, error) {
	p, err := StartProbe(pairsOf(eps, true), ProbeOptions{Interval: 20 * time.Millisecond, Size: size})
	if err != nil {
		return nil, err
	}
	enough := func() error {
		if slices.ContainsFunc(p.pairs, func(pp *pairProbe) bool { return int(pp.sent.Load()) < count }) {
			return fmt.Errorf("fewer than %d probes sent", count)
		}
		return nil
	}
	if err := poll(ctx, 5*time.Millisecond, enough); err != nil {
		p.abandon()
		return nil, err
	}
	return p.Stop(), nil
}

// abandon ends a prober without waiting for answers.
func (p *Prober) abandon() {
	p.stop()
	p.sender.Wait()
	p.close()
}
