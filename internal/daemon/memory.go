package daemon

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// A burst, such as a peer's first table or a large datastore, is paid for with memory while it lasts: with little room for garbage the collector
// takes half of the processor time that 100,000 learned prefixes cost. Afterwards memory on every node of a cluster counts for more,
// and what is not in use is given back. Where garbage comes all the time, as from the noise of a large datastore, little room is
// enough; and so it is where no peer can bring a table: before the first plan, while the datastore is read, and under the other backends. GOGC and GOMEMLIMIT, where they are set, have the last word.
const (
	// ballast is address space that the collector counts as in use and nobody ever touches: it is what the room for garbage is
	// measured by while little is in use. It costs no memory.
	ballast = 64 << 20 // bytes

	// gcPercent is how much garbage may pile up beside what is in use and the ballast, in percent of it, mostGarbage at most; tightPercent is the
	// same of what is in use alone, where garbage comes all the time, and in any case.
	gcPercent    = 200
	mostGarbage  = 256 << 20 // bytes
	tightPercent = 50

	// heapInterval is how often the heap is looked at. In an interval in which less than quietRate bytes were allocated it was
	// quiet, with more than burstRate there was a burst, between the two there was noise. After quietLooks quiet intervals in a row, or once
	// noise has gone on for noiseLooks, spare memory is given back if it is more than spareLeast and a spareShare-th of what is in use.
	heapInterval = time.Second
	// startInterval is the same until it is known whether there may be bursts: with the first plan, after which peers come at once.
	startInterval = heapInterval / 10
	quietRate     = 1 << 20
	burstRate     = 32 << 20
	quietLooks    = 3
	noiseLooks    = 10
	spareLeast    = 8 << 20
	spareShare    = 8

	// limitFile holds the memory a container may have (cgroup v2), of which limitShare percent are used before the collector spares none.
	limitFile  = "/sys/fs/cgroup/memory.max"
	limitShare = 90
)

// heap is what the runtime says of its heap, in bytes.
type heap struct {
	live      uint64 // in use as of the last collection, without the ballast
	spare     uint64 // beyond it: garbage, and memory kept for what may come
	allocated uint64 // since the process began
}

// heapReader reads the heap; its samples are used again and again.
type heapReader [4]metrics.Sample

func newHeapReader() *heapReader {
	return &heapReader{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
}

func (r *heapReader) read() heap {
	metrics.Read(r[:])
	live, held := r[0].Value.Uint64(), r[1].Value.Uint64()+r[2].Value.Uint64()
	return heap{live: above(live, ballast), spare: above(held, max(live, ballast)), allocated: r[3].Value.Uint64()}
}

// above is a-b, but not below 0.
func above(a, b uint64) uint64 { return max(a, b) - b }

// heapKeeper decides what is done about the heap, from one look to the next.
type heapKeeper struct {
	allocated    uint64 // at the last look
	quiet, noise int    // looks in a row
}

// look returns the percentage for the collector, and whether spare memory is to be given back now. bursts says whether there may be some that
// room is worth while for.
func (k *heapKeeper) look(h heap, bursts bool) (percent int, giveBack bool) {
	switch rate := h.allocated - k.allocated; {
	case rate < quietRate:
		k.quiet, k.noise = k.quiet+1, 0
	case rate < burstRate:
		k.quiet, k.noise = 0, k.noise+1
	default:
		k.quiet, k.noise = 0, 0
	}
	k.allocated = h.allocated
	due := k.quiet >= quietLooks || k.noise == noiseLooks
	return k.percent(h, bursts), due && h.spare > max(spareLeast, h.live/spareShare)
}

// percent is the percentage alone.
func (k *heapKeeper) percent(h heap, bursts bool) int {
	room := min(gcPercent*(h.live+ballast)/100, mostGarbage)
	if !bursts || k.noise >= noiseLooks {
		room = 0
	}
	room = max(room, tightPercent*h.live/100, spareLeast)
	return int(100 * room / (h.live + ballast))
}

// keepHeap is the task that follows the heap.
func keepHeap(ctx context.Context, bursts func() (may, known bool)) error {
	weight := make([]byte, ballast)
	defer runtime.KeepAlive(&weight)
	text, _ := os.ReadFile(limitFile)
	if limit, ok := memoryLimit(string(text)); ok && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	fixed := os.Getenv("GOGC") != ""
	was := 0
	set := func(percent int) {
		if !fixed && percent != was {
			debug.SetGCPercent(percent)
			was = percent
		}
	}
	reader, keeper := newHeapReader(), heapKeeper{}
	may, known := bursts()
	set(keeper.percent(reader.read(), may))
	tick := time.NewTicker(startInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !known {
			if may, known = bursts(); known {
				tick.Reset(heapInterval)
			}
			set(keeper.percent(reader.read(), may))
			continue
		}
		may, _ = bursts()
		percent, giveBack := keeper.look(reader.read(), may)
		set(percent)
		if giveBack {
			debug.FreeOSMemory()
		}
	}
}

// memoryLimit reads limitFile; what is said there of a container without a limit is no number.
func memoryLimit(text string) (bytes int64, ok bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/100 {
		return 0, false
	}
	return n*limitShare/100 + ballast, true
}
