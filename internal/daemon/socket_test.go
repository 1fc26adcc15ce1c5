package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/caracal-net/caracal/internal/inspect"
)

// TestPredecessorOnItsWayOut: a killed daemon of many threads answers for a moment longer than its process seems to live.
func TestPredecessorOnItsWayOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := inspect.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // it goes when its successor has asked once
		if c, err := old.Accept(); err == nil {
			_ = c.Close()
		}
		_ = old.Close()
	}()
	l, err := listen(t.Context(), path)
	if err != nil {
		t.Fatalf("successor: %v", err)
	}
	defer func() { _ = l.Close() }()
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the successor does not answer: %v", err)
	} else {
		_ = c.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := listen(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("beside a daemon that stays: %v, %v, want the end of the context", l, err)
	}
}
