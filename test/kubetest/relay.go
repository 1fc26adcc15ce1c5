package kubetest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caracal-net/caracal/internal/netns"
)

// Relay brings a Server into another network namespace: it listens there on the Server's own address, which is the loopback
// interface's, so certificates and kubeconfigs hold in both.
type Relay struct {
	// Down and Up count bytes to and from the clients, TLS included.
	Down, Up atomic.Int64

	listener net.Listener
	target   string
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool // open ones; nil when the relay has ended
}

// Relay starts a relay that ends with the test. Each connection has two goroutines.
func (s *Server) Relay(t testing.TB, ns netns.NS) *Relay {
	t.Helper()
	r := &Relay{target: s.URL()[len("https://"):], conns: map[net.Conn]bool{}}
	err := ns.Do(func() (err error) {
		r.listener, err = net.Listen("tcp", r.target)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wg.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *Relay) accept() {
	for {
		inner, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		outer, err := net.Dial("tcp", r.target)
		if err != nil { // the server is away: the client sees a connection that ends
			inner.Close()
			continue
		}
		if !r.keep(inner, outer) {
			return
		}
		r.wg.Go(func() { r.copy(inner, outer, &r.Down) })
		r.wg.Go(func() { r.copy(outer, inner, &r.Up) })
	}
}

// copy carries one direction; when it ends, for whatever reason, so does the connection.
func (r *Relay) copy(to, from net.Conn, n *atomic.Int64) {
	_, _ = io.Copy(to, io.TeeReader(from, counter{n}))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range []net.Conn{to, from} {
		c.Close()
		delete(r.conns, c)
	}
}

func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.conns == nil {
			c.Close()
			continue
		}
		r.conns[c] = true
	}
	return r.conns != nil
}

func (r *Relay) close() {
	r.listener.Close()
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.wg.Wait()
}

type counter struct{ n *atomic.Int64 }

// Write counts.
func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}
