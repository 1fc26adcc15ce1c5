package daemon

import (
	"math"
	"testing"
)

// TestHeapKeeper: room while it is quiet and for bursts, little where garbage never ends, and what is spare goes back when it will not be
// needed at once; never twice for the same.
func TestHeapKeeper(t *testing.T) {
	const mib = 1 << 20
	var k heapKeeper
	allocated, bursts := uint64(0), true
	look := func(live, spare, rate uint64) (room uint64, gaveBack bool) {
		allocated += rate
		percent, back := k.look(heap{live: live, spare: spare, allocated: allocated}, bursts)
		return uint64(percent) * (live + ballast) / 100, back
	}
	within := func(what string, got, from, to uint64) {
		t.Helper()
		if got < from || got > to {
			t.Errorf("%s: room for %d MiB of garbage, want %d to %d", what, got/mib, from/mib, to/mib)
		}
	}
	room, _ := look(10*mib, 0, 100*mib)
	within("a small heap", room, 100*mib, 150*mib)
	bursts = false
	room, _ = look(10*mib, 0, 100*mib)
	within("a small heap without peers", room, 7*mib, 10*mib)
	room, _ = look(80*mib, 0, 100*mib)
	within("a larger one", room, 35*mib, 40*mib)
	bursts = true
	room, _ = look(400*mib, 0, 100*mib)
	within("a heap of 400 MiB", room, 190*mib, 257*mib)
	room, _ = look(4000*mib, 0, 100*mib)
	within("a heap of 4 GiB", room, 1900*mib, 2000*mib)
	for range 2 * noiseLooks {
		if _, back := look(100*mib, 200*mib, 100*mib); back {
			t.Fatal("memory is given back in the middle of a burst")
		}
	}
	returns := 0
	for i := range 2 * noiseLooks {
		room, back := look(100*mib, 100*mib, 5*mib)
		if back {
			returns++
		}
		if i == noiseLooks {
			within("noise", room, 40*mib, 50*mib)
		}
	}
	if returns != 1 {
		t.Errorf("under noise memory was given back %d times, want once", returns)
	}
	room, _ = look(100*mib, 0, 100*mib)
	within("a burst after noise", room, 190*mib, 257*mib)
	for i := range quietLooks {
		if _, back := look(100*mib, 100*mib, 0); back != (i == quietLooks-1) {
			t.Errorf("quiet interval %d: given back %t", i+1, back)
		}
	}
	if _, back := look(100*mib, 5*mib, 0); back {
		t.Error("5 MiB beside 100 were worth a collection")
	}
}

func TestMemoryLimit(t *testing.T) {
	for text, want := range map[string]int64{"268435456\n": 268435456*limitShare/100 + ballast, "max\n": 0, "": 0, "-1": 0, "9223372036854775807": 0} {
		if got, ok := memoryLimit(text); got != want || ok != (want != 0) {
			t.Errorf("%q: %d %t, want %d", text, got, ok, want)
		}
	}
	if _, ok := memoryLimit("9223372036854771712"); ok || math.MaxInt64/100 > 1<<60 {
		t.Error("a limit that is none overflows")
	}
}
