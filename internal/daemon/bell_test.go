package daemon

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestBell: a listener hears once that it listens, then of every ring, a burst while it is busy as one; and no more when it has gone.
func TestBell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bell
		b.ring() // nobody listens
		ctx, cancel := context.WithCancel(t.Context())
		heard, goOn := 0, make(chan struct{})
		go b.listen(ctx, func() { heard++; <-goOn })
		synctest.Wait()
		if heard != 1 {
			t.Fatalf("heard %d times at the start, want once", heard)
		}
		b.ring()
		b.ring()
		b.ring()
		goOn <- struct{}{}
		goOn <- struct{}{}
		synctest.Wait()
		if heard != 2 {
			t.Fatalf("heard %d times, want 2", heard)
		}
		cancel()
		synctest.Wait()
		b.mu.Lock()
		left := len(b.ears)
		b.mu.Unlock()
		if left != 0 {
			t.Fatal("a listener that has gone is still rung for")
		}
	})
}
