package daemon

import (
	"context"
	"sync"
)

// bell tells any number of listeners that something has happened. Whoever rings never waits; a burst is one ring to a listener that is
// busy.
type bell struct {
	mu   sync.Mutex
	ears map[chan struct{}]struct{}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.ears {
		select {
		case e <- struct{}{}:
		default:
		}
	}
}

// listen calls heard once at the start and after every ring, until ctx ends.
func (b *bell) listen(ctx context.Context, heard func()) {
	ear := make(chan struct{}, 1)
	ear <- struct{}{}
	b.mu.Lock()
	if b.ears == nil {
		b.ears = make(map[chan struct{}]struct{})
	}
	b.ears[ear] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.ears, ear)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ear:
			heard()
		}
	}
}
