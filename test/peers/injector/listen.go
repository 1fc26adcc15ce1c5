package injector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Listener takes sessions in place of a router.
type Listener struct {
	listener net.Listener
	options  Options

	mu       sync.Mutex
	sessions []*Session
	done     chan struct{}
}

// Listen opens port 179 of Options.Local, or Remote's port where one is given, and brings up every session that is asked for.
// The caller ends it with Close.
func Listen(ctx context.Context, o Options) (*Listener, error) {
	port := 179
	if o.Remote.Port() != 0 {
		port = int(o.Remote.Port())
	}
	if o.HoldTime == 0 {
		o.HoldTime = 90 * time.Second
	}
	l := &Listener{options: o, done: make(chan struct{})}
	open := func() (err error) {
		var lc net.ListenConfig
		l.listener, err = lc.Listen(ctx, "tcp", (&net.TCPAddr{IP: o.Local.AsSlice(), Port: port}).String())
		return err
	}
	enter := func(f func() error) error { return f() }
	if o.NS != nil {
		enter = o.NS.Do
	}
	if err := enter(open); err != nil {
		return nil, fmt.Errorf("listen for BGP: %w", err)
	}
	go l.accept()
	return l, nil
}

func (l *Listener) accept() {
	defer close(l.done)
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		s := &Session{conn: conn, done: make(chan struct{})}
		if err := s.establish(&l.options); err != nil {
			_ = conn.Close() // the other side sees it, and comes again if it likes
			continue
		}
		l.mu.Lock()
		l.sessions = append(l.sessions, s)
		l.mu.Unlock()
	}
}

// Sessions returns those that have come up, the ended ones too.
func (l *Listener) Sessions() []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Session(nil), l.sessions...)
}

// Close ends the listener and, without a word, its sessions.
func (l *Listener) Close() error {
	err := l.listener.Close()
	<-l.done
	for _, s := range l.Sessions() {
		s.Drop()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
