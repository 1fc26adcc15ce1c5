package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Transfer sends bytes over one TCP connection from one endpoint to another, checks on arrival that they are the
// ones sent, and returns how long that took.
func Transfer(ctx context.Context, from, to *Endpoint, bytes int64) (time.Duration, error) {
	fail := func(err error) (time.Duration, error) {
		return 0, fmt.Errorf("TCP transfer from %s to %s: %w", from.Name, to.Name, err)
	}
	var l net.Listener
	err := to.NS.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		return err
	})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()

	type arrival struct {
		sum [sha256.Size]byte
		err error
	}
	arrived := make(chan arrival, 1)
	go func() {
		sum, err := receive(ctx, l)
		arrived <- arrival{sum, err}
	}()
	began := time.Now()
	sent, err := transmit(ctx, from, l.Addr().String(), bytes)
	if err != nil {
		_ = l.Close()
		return fail(errors.Join(err, (<-arrived).err))
	}
	got := <-arrived
	switch {
	case got.err != nil:
		return fail(got.err)
	case got.sum != sent:
		return fail(errors.New("what arrived is not what was sent"))
	}
	return time.Since(began), nil
}

func receive(ctx context.Context, l net.Listener) (sum [sha256.Size]byte, err error) {
	conn, err := l.Accept()
	if err != nil {
		return sum, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	h := sha256.New()
	if _, err := io.Copy(h, conn); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func transmit(ctx context.Context, from *Endpoint, to string, bytes int64) (sum [sha256.Size]byte, err error) {
	var conn net.Conn
	err = from.NS.Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.Addr, 0)), Timeout: 5 * time.Second}
		conn, err = d.DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil {
		return sum, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	h := sha256.New()
	noise := rand.NewChaCha8([32]byte{1})
	_, err = io.Copy(io.MultiWriter(conn, h), io.LimitReader(noise, bytes))
	return [sha256.Size]byte(h.Sum(nil)), errors.Join(err, conn.Close())
}
