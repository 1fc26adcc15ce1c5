package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/netns"
)

// fib follows the main table of a namespace by the kernel's notifications, as cheaply as it can: it shares two processors
// with what is measured. Of each prefix it knows the last octet of its gateway, 0 for none.
type fib struct {
	fd     int
	closed atomic.Bool
	done   chan struct{}

	mu      sync.Mutex
	gateway []byte
	count   [256]int // prefixes by gateway, but of 0: less the number that have one
	at      time.Time
	err     error
	wait    *waiter
}

// waiter is a condition on the table and the time at which it came true.
type waiter struct {
	met  func(*fib) bool
	done chan time.Time
}

const (
	fibBuffer  = 256 << 20 // bytes of socket buffer: a notification takes about 1 KiB of it
	fibMessage = 4096      // bytes of one notification at most
	fibBatch   = 128       // notifications read by one system call
)

// openFIB subscribes to the routes of a namespace.
func openFIB(ns netns.NS) (*fib, error) {
	f := &fib{done: make(chan struct{}), gateway: make([]byte, maxPrefixes)}
	err := ns.Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("route notifications: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, fibBuffer),
		unix.SetsockoptTimeval(f.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}), // to see that it was closed
		unix.Bind(f.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_IPV4_ROUTE - 1)}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("route notifications: %w", err), unix.Close(f.fd))
	}
	go f.read()
	return f, nil
}

func (f *fib) close() error {
	f.closed.Store(true)
	<-f.done
	return unix.Close(f.fd)
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func (f *fib) read() {
	defer close(f.done)
	buf := make([]byte, fibBatch*fibMessage)
	iov := make([]unix.Iovec, fibBatch)
	msgs := make([]mmsghdr, fibBatch)
	for i := range msgs {
		iov[i].Base = &buf[i*fibMessage]
		iov[i].SetLen(fibMessage)
		msgs[i].hdr.Iov = &iov[i]
		msgs[i].hdr.SetIovlen(1)
	}
	for !f.closed.Load() {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&msgs[0])), fibBatch, unix.MSG_WAITFORONE, 0, 0)
		if errno == unix.EAGAIN || errno == unix.EINTR {
			continue
		}
		f.take(msgs[:n], buf, errno)
	}
}

// take files what one system call brought; all of it counts as having come now.
func (f *fib) take(msgs []mmsghdr, buf []byte, errno unix.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = time.Now()
	if errno != 0 {
		f.err = fmt.Errorf("route notifications: %w", errno)
	} else {
		for i := range msgs {
			f.messages(buf[i*fibMessage : i*fibMessage+int(msgs[i].len)])
		}
	}
	if f.wait != nil && (f.err != nil || f.wait.met(f)) {
		f.wait.done <- f.at
		f.wait = nil
	}
}

// messages files the netlink messages in b (rtnetlink(7): header of 16 octets, struct rtmsg of 12, attributes).
func (f *fib) messages(b []byte) {
	for len(b) >= 28 {
		n := int(binary.NativeEndian.Uint32(b))
		if n < 28 || n > len(b) {
			return
		}
		kind := binary.NativeEndian.Uint16(b[4:])
		if (kind == unix.RTM_NEWROUTE || kind == unix.RTM_DELROUTE) && b[16] == unix.AF_INET && b[17] == blockBits {
			f.route(b[28:n], kind == unix.RTM_DELROUTE)
		}
		b = b[min(len(b), (n+3)&^3):]
	}
}

func (f *fib) route(attrs []byte, gone bool) {
	dst, gateway := uint32(0), byte(1)
	for len(attrs) >= 4 {
		n := int(binary.NativeEndian.Uint16(attrs))
		if n < 4 || n > len(attrs) {
			return
		}
		switch value := attrs[4:n]; binary.NativeEndian.Uint16(attrs[2:]) {
		case unix.RTA_DST:
			dst = binary.BigEndian.Uint32(value)
		case unix.RTA_GATEWAY:
			gateway = value[3]
		}
		attrs = attrs[min(len(attrs), (n+3)&^3):]
	}
	i := int(dst&(1<<24-1)) >> (32 - blockBits)
	if dst>>24 != 10 || i >= len(f.gateway) {
		return
	}
	if gone {
		gateway = 0
	}
	if was := f.gateway[i]; was != gateway {
		f.count[was]--
		f.count[gateway]++
		f.gateway[i] = gateway
	}
}

// present waits until n prefixes have a route, whatever the gateway.
func present(n int) func(*fib) bool {
	return func(f *fib) bool { return f.routes() == n }
}

// all waits until n prefixes have this gateway.
func all(n int, gateway byte) func(*fib) bool {
	return func(f *fib) bool { return f.count[gateway] == n }
}

// none waits until no prefix has a route.
func none(f *fib) bool { return f.routes() == 0 }

// there waits until a prefix has a route, absent until it has none.
func there(i int) func(*fib) bool  { return func(f *fib) bool { return f.gateway[i] != 0 } }
func absent(i int) func(*fib) bool { return func(f *fib) bool { return f.gateway[i] == 0 } }

// routes is how many prefixes have one; count[0] is less by as many as have ever had one.
func (f *fib) routes() int { return -f.count[0] }

func (f *fib) has(i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gateway[i] != 0
}

// time does something and returns how long it took until the table was as wanted.
func (f *fib) time(ctx context.Context, limit time.Duration, met func(*fib) bool, do func() error) (time.Duration, error) {
	w := &waiter{met: met, done: make(chan time.Time, 1)}
	f.mu.Lock()
	f.wait = w
	f.mu.Unlock()
	start := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case at := <-w.done:
		f.mu.Lock()
		defer f.mu.Unlock()
		return at.Sub(start), f.err
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wait = nil
		return 0, fmt.Errorf("the kernel's table was not as wanted after %v: prefixes by gateway %v: %w", time.Since(start), f.seen(), ctx.Err())
	}
}

func (f *fib) seen() map[int]int {
	out := map[int]int{}
	for g, n := range f.count {
		if n != 0 {
			out[g] = n
		}
	}
	return out
}
