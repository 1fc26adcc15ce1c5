package injector

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/caracal-net/caracal/internal/netns"
)

// Options say who the injector is and to whom it speaks.
type Options struct {
	NS          *netns.NS // where its sockets are; nil = the calling process's namespace
	ASN         uint32
	RouterID    netip.Addr
	Local       netip.Addr     // source address
	Remote      netip.AddrPort // port 0 = 179
	HoldTime    time.Duration  // 0 = 90 s
	RestartTime time.Duration  // offered by the graceful restart capability; 0 = the capability is not offered
	// OnUpdate is called by the reader with each UPDATE received; it may keep nothing of it.
	OnUpdate func(*Update)
}

// dialEvery spaces attempts to connect; the other side may not be listening yet, or hold us off.
const dialEvery = 20 * time.Millisecond

// Session is an established session.
type Session struct {
	conn net.Conn
	four bool // AS numbers have four octets

	mu   sync.Mutex // one writer at a time
	done chan struct{}
	err  error // valid when done is closed: why the session is over
	stop sync.Once
}

// Dial connects, again and again until ctx ends, and returns when the session is established: OPEN and KEEPALIVE have gone both
// ways. The caller ends it with Close or Drop.
func Dial(ctx context.Context, o Options) (*Session, error) {
	if o.HoldTime == 0 {
		o.HoldTime = 90 * time.Second
	}
	if o.Remote.Port() == 0 {
		o.Remote = netip.AddrPortFrom(o.Remote.Addr(), 179)
	}
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	for {
		s, err := dialOnce(ctx, &o)
		if err == nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("BGP session %s to %s: %w: %w", o.Local, o.Remote, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func dialOnce(ctx context.Context, o *Options) (*Session, error) {
	var conn net.Conn
	dial := func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: o.Local.AsSlice()}, Timeout: time.Second}
		conn, err = d.DialContext(ctx, "tcp", o.Remote.String())
		return err
	}
	enter := func(f func() error) error { return f() }
	if o.NS != nil {
		enter = o.NS.Do
	}
	if err := enter(dial); err != nil {
		return nil, err
	}
	s := &Session{conn: conn, done: make(chan struct{})}
	if err := s.establish(o); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// establish exchanges OPENs and KEEPALIVEs and starts the session's goroutines.
func (s *Session) establish(o *Options) error {
	_ = s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	in := bufio.NewReaderSize(s.conn, 64<<10)
	if err := s.write(o.open()); err != nil {
		return err
	}
	body, err := expect(in, msgOpen)
	if err != nil {
		return err
	}
	peer, err := parseOpen(body)
	if err != nil {
		return err
	}
	if err := s.write(keepalive()); err != nil {
		return err
	}
	if _, err := expect(in, msgKeepalive); err != nil {
		return err
	}
	s.four = peer.as4
	hold := min(o.HoldTime, time.Duration(peer.holdTime)*time.Second)
	_ = s.conn.SetDeadline(time.Time{})
	go s.read(in, hold, o.OnUpdate)
	if hold > 0 {
		go s.keepAlive(hold / 3)
	}
	return nil
}

// expect returns the body of the next message, which must be of that type.
func expect(in *bufio.Reader, want byte) ([]byte, error) {
	kind, body, err := ReadMessage(in, nil)
	switch {
	case err != nil:
		return nil, err
	case kind == msgNotification && len(body) >= 2:
		return nil, fmt.Errorf("refused with NOTIFICATION %d/%d", body[0], body[1])
	case kind != want:
		return nil, fmt.Errorf("%w: type %d where %d was due", errMalformed, kind, want)
	}
	return body, nil
}

// ReadMessage reads one message; the body may lie in buf.
func ReadMessage(in io.Reader, buf []byte) (kind byte, body []byte, err error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[16:])) - headerSize
	if n < 0 || n > maxMessage-headerSize {
		return 0, nil, fmt.Errorf("%w: length %d", errMalformed, n+headerSize)
	}
	if cap(buf) < n {
		buf = make([]byte, n, maxMessage)
	}
	body = buf[:n]
	_, err = io.ReadFull(in, body)
	return head[18], body, err
}

func (s *Session) read(in *bufio.Reader, hold time.Duration, onUpdate func(*Update)) {
	var u Update
	buf := make([]byte, maxMessage)
	for {
		if hold > 0 {
			_ = s.conn.SetReadDeadline(time.Now().Add(hold))
		}
		kind, body, err := ReadMessage(in, buf)
		switch {
		case err != nil:
		case kind == msgNotification && len(body) >= 2:
			err = fmt.Errorf("NOTIFICATION %d/%d", body[0], body[1])
		case kind == msgUpdate && onUpdate != nil:
			if err = ParseUpdate(body, &u); err == nil {
				onUpdate(&u)
			}
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

func (s *Session) keepAlive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
			if err := s.write(keepalive()); err != nil {
				s.end(err)
				return
			}
		}
	}
}

func (s *Session) end(err error) {
	s.stop.Do(func() {
		s.err = err
		close(s.done)
		_ = s.conn.Close()
	})
}

// Done is closed when the session is over, for whatever reason; Err then says which.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session is over, nil while it lives.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// errClosed is Err of a session that we ended.
var errClosed = errors.New("closed by the injector")

// Close ends the session with Cease/Administrative Shutdown (RFC 4486); the other side withdraws at once.
func (s *Session) Close() error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second)) // a peer that does not read is left behind
	err := s.write(notification(6, 2))
	s.end(errClosed)
	return err
}

// Drop ends the connection without a word, as a killed process does.
func (s *Session) Drop() { s.end(errClosed) }

func (s *Session) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Write(b)
	return err
}

// Encode returns the announcement as this session's UPDATEs, for Send.
func (s *Session) Encode(a Announcement) []byte { return a.encode(nil, s.four) }

// EncodeWithdrawal returns UPDATEs that withdraw the prefixes, all of one family, for Send.
func (s *Session) EncodeWithdrawal(prefixes ...netip.Prefix) []byte {
	return encodeWithdrawal(nil, prefixes)
}

// Send writes whole messages; it returns when TCP has taken them.
func (s *Session) Send(messages []byte) error {
	if err := s.write(messages); err != nil {
		return fmt.Errorf("send %d octets of BGP: %w", len(messages), err)
	}
	return nil
}

// Announce encodes and sends.
func (s *Session) Announce(a Announcement) error { return s.Send(s.Encode(a)) }

// Withdraw encodes and sends.
func (s *Session) Withdraw(prefixes ...netip.Prefix) error {
	return s.Send(s.EncodeWithdrawal(prefixes...))
}

// EndOfRIB says that what the other side should know at first has been sent (RFC 4724).
func (s *Session) EndOfRIB(v6 bool) error { return s.Send(endOfRIB(v6)) }
