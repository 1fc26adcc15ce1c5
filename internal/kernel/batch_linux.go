package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// A batch is what one send hands to the kernel. Larger ones gain nothing measurable; smaller ones pay more system calls
// a route (docs: BenchmarkWriteRoutes).
const (
	maxBatchOps   = 512
	maxBatchBytes = 256 << 10
)

// writer sends operations in batches, each with one acknowledgement. The kernel answers every message that fails, asked or
// not, and the last one because it is asked; the sequence number says which operation an answer is about. The kernel has dealt
// with a batch when send returns, so the answers are waiting by then.
type writer struct {
	open func() (*socket, error)
	size int // operations in a batch, 0 = maxBatchOps

	mu     sync.Mutex
	sock   *socket
	out    []byte
	of     []int // operation of each message of the batch
	closed bool
}

func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.drop()
}

// drop throws the socket away: after a transport error, answers of an old batch may still come.
func (w *writer) drop() {
	if w.sock != nil {
		w.sock.close()
		w.sock = nil
	}
}

// write performs n operations. encode appends the message of operation i, or says why there is none.
func (w *writer) write(ctx context.Context, n int, encode func(b []byte, i int) ([]byte, error), failed func(i int, err error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("%w: the handle is closed", ErrInvalid)
	}
	if w.sock == nil {
		s, err := w.open()
		if err != nil {
			return err
		}
		w.sock = s
	}
	for i := 0; i < n; {
		if err := ctx.Err(); err != nil {
			return classify(err)
		}
		first := w.sock.seq + 1
		i = w.fill(i, n, encode, failed)
		if len(w.of) == 0 {
			continue
		}
		if err := w.flush(first, failed); err != nil {
			w.drop()
			return err
		}
	}
	return nil
}

// fill encodes one batch, beginning with operation i, and returns the first operation that is not in it.
func (w *writer) fill(i, n int, encode func([]byte, int) ([]byte, error), failed func(int, error)) int {
	w.out, w.of = w.out[:0], w.of[:0]
	last, size := 0, w.size
	if size == 0 {
		size = maxBatchOps
	}
	for ; i < n && len(w.of) < size && len(w.out) < maxBatchBytes; i++ {
		at := len(w.out)
		b, err := encode(w.out, i)
		if err != nil {
			w.out = b[:at]
			failed(i, err)
			continue
		}
		w.out, last = b, at
		w.sock.seq++
		finish(w.out[at:], w.sock.seq)
		w.of = append(w.of, i)
	}
	if len(w.of) > 0 {
		flags := w.out[last+6:]
		binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	}
	return i
}

// flush sends the batch and takes the answers up to that of its last message.
func (w *writer) flush(first uint32, failed func(int, error)) error {
	if err := w.sock.send(w.out); err != nil {
		return err
	}
	for {
		b, err := w.sock.receive()
		if err != nil {
			return err
		}
		for len(b) > 0 {
			var m message
			if m, b, err = nextMessage(b); err != nil {
				return err
			}
			k := m.seq - first
			if m.typ != unix.NLMSG_ERROR || k >= uint32(len(w.of)) {
				continue
			}
			if err := m.outcome(); err != nil {
				failed(w.of[k], err)
			}
			if int(k) == len(w.of)-1 {
				return nil
			}
		}
	}
}
