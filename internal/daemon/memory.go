package daemon

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// gcPercent halves the garbage that may pile up beside what is in use. An idle daemon has next to none, and memory on every node of
// a cluster costs more than the processor time of a start. GOGC, where it is set, has the last word.
const gcPercent = 50

// startGarbage is when, after the first plan is in the kernel, what the start left over is given back: reading a large datastore for
// the first time takes several times the memory of keeping it, and so does the one look at all blocks with which IPAM
// begins, some seconds later. The runtime returns such memory by itself only in the course of minutes.
func startGarbage() []time.Duration { return []time.Duration{3 * time.Second, 15 * time.Second} }

// trimMemory is a task that gives the start's garbage back to the system.
func (d *daemon) trimMemory(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !d.controller.View().planned {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	_ = d.programmer.Sync(ctx) // fails with ctx alone
	for _, wait := range startGarbage() {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			debug.FreeOSMemory()
		}
	}
	<-ctx.Done()
	return nil
}
