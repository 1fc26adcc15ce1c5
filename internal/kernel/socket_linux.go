package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of buffers in bytes.
const (
	// requestBuffer is the receive buffer of a request socket. The kernel accounts some 1,300 bytes for one refusal with
	// its text, so a whole batch of refusals (maxBatchOps) fits three times.
	requestBuffer = 4 << 20
	// sendBuffer must hold a batch (maxBatchBytes) with room; a message larger than it is EMSGSIZE.
	sendBuffer = 1 << 20
	// readSize is what one read asks for. The kernel fills dumps up to 32 KiB a read (netlink_recvmsg).
	readSize = 64 << 10
)

// socket is a netlink socket used by one goroutine at a time.
type socket struct {
	fd  int
	seq uint32
	buf []byte
}

func openSocket(groups uint32) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", classify(err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind netlink socket: %w", classify(err))
	}
	return &socket{fd: fd}, nil
}

// tune sets buffers, timeouts and the options that make answers short and telling. Options an old kernel lacks are done without.
func (s *socket) tune(rcvbuf int, timeout time.Duration) error {
	setBuffer(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, rcvbuf)
	setBuffer(s.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, option, 1)
	}
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return fmt.Errorf("set netlink timeout: %w", classify(err))
		}
	}
	return nil
}

// setBuffer asks for a buffer beyond net.core.rmem_max, which needs CAP_NET_ADMIN, else for what one may have.
func setBuffer(fd, force, ordinary, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, ordinary, size)
	}
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// send gives the kernel one or many messages. It returns when the kernel has dealt with all of them.
func (s *socket) send(b []byte) error {
	for {
		n, err := unix.Write(s.fd, b)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n != len(b) {
			err = unix.EMSGSIZE
		}
		if err != nil {
			return fmt.Errorf("netlink send: %w", classify(err))
		}
		return nil
	}
}

// recv reads one datagram into b without allocating. EAGAIN is the timeout of a blocking socket.
func recv(fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_TRUNC, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return 0, errno
		case int(n) > len(b):
			return 0, unix.EMSGSIZE
		}
		return int(n), nil
	}
}

// receive reads one datagram into the socket's own buffer; it is valid until the next call.
func (s *socket) receive() ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, readSize)
	}
	n, err := recv(s.fd, s.buf)
	if err == unix.EAGAIN {
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return nil, fmt.Errorf("netlink receive: %w", classify(err))
	}
	return s.buf[:n], nil
}

// message is one netlink message; payload follows the 16 bytes of nlmsghdr.
type message struct {
	typ, flags uint16
	seq        uint32
	payload    []byte
}

// errTruncated is a message whose lengths do not fit; it never comes from a sane kernel.
var errTruncated = errors.New("truncated netlink message")

// nextMessage cuts the first message off a datagram.
func nextMessage(b []byte) (message, []byte, error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return message{}, nil, errTruncated
	}
	length := int(binary.NativeEndian.Uint32(b))
	if length < unix.NLMSG_HDRLEN || length > len(b) {
		return message{}, nil, errTruncated
	}
	m := message{
		typ:     binary.NativeEndian.Uint16(b[4:]),
		flags:   binary.NativeEndian.Uint16(b[6:]),
		seq:     binary.NativeEndian.Uint32(b[8:]),
		payload: b[unix.NLMSG_HDRLEN:length],
	}
	return m, b[min(align(length), len(b)):], nil
}

// align rounds up to NLMSG_ALIGNTO, which RTA_ALIGNTO equals.
func align(n int) int { return (n + 3) &^ 3 }

// outcome is the errno in an NLMSG_ERROR or NLMSG_DONE, with the kernel's own words; nil is success.
func (m message) outcome() error {
	if len(m.payload) < 4 {
		if m.typ == unix.NLMSG_DONE {
			return nil
		}
		return fmt.Errorf("%w: %w", ErrInvalid, errTruncated)
	}
	code := int32(binary.NativeEndian.Uint32(m.payload))
	if code == 0 {
		return nil
	}
	return refusal(syscall.Errno(-code), m.words())
}

// words finds NLMSGERR_ATTR_MSG behind the echoed header (NETLINK_CAP_ACK leaves the echoed payload out).
func (m message) words() string {
	rest := m.payload[4:]
	if m.typ == unix.NLMSG_ERROR {
		if m.flags&unix.NLM_F_ACK_TLVS == 0 || len(rest) < unix.NLMSG_HDRLEN {
			return ""
		}
		skip := unix.NLMSG_HDRLEN
		if m.flags&unix.NLM_F_CAPPED == 0 {
			skip = align(int(binary.NativeEndian.Uint32(rest)))
		}
		if skip > len(rest) {
			return ""
		}
		rest = rest[skip:]
	}
	for len(rest) > 0 {
		a, more, ok := nextAttr(rest)
		if !ok {
			return ""
		}
		if a.typ == unix.NLMSGERR_ATTR_MSG {
			return string(bytes.TrimRight(a.value, "\x00"))
		}
		rest = more
	}
	return ""
}

// exchange sends a request that has one answer and returns it; it is valid until the next use of the socket.
func (s *socket) exchange(ctx context.Context, req []byte) (message, error) {
	if err := ctx.Err(); err != nil {
		return message{}, classify(err)
	}
	s.seq++
	finish(req, s.seq)
	if err := s.send(req); err != nil {
		return message{}, err
	}
	for {
		b, err := s.receive()
		if err != nil {
			return message{}, err
		}
		for len(b) > 0 {
			var m message
			if m, b, err = nextMessage(b); err != nil {
				return message{}, err
			}
			if m.seq != s.seq {
				continue
			}
			if m.typ == unix.NLMSG_ERROR {
				return m, m.outcome()
			}
			return m, nil
		}
	}
}

// dump sends a request and yields the messages of the answer. When yield returns false the rest stays unread and the socket is of
// no more use. What an interrupted dump yielded is not one picture.
func (s *socket) dump(ctx context.Context, req []byte, yield func(message) bool) error {
	s.seq++
	finish(req, s.seq)
	if err := s.send(req); err != nil {
		return err
	}
	interrupted := false
	for {
		if err := ctx.Err(); err != nil {
			return classify(err)
		}
		b, err := s.receive()
		if err != nil {
			return err
		}
		for len(b) > 0 {
			var m message
			if m, b, err = nextMessage(b); err != nil {
				return err
			}
			if m.seq != s.seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := m.outcome(); err != nil {
					return err
				}
				if interrupted {
					return FromErrno(unix.EINTR)
				}
				return nil
			case unix.NLMSG_OVERRUN:
				return FromErrno(unix.ENOBUFS)
			case unix.NLMSG_NOOP:
			default:
				if !yield(m) {
					return nil
				}
			}
		}
	}
}
