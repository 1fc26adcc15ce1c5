package kernel

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// MutesAdds reports what Options.MuteAdds asked for.
func (k *linux) MutesAdds() bool { return k.opts.MuteAdds }

// mutedSocket opens a request socket whose new routes the event sockets do not hear of.
func (k *linux) mutedSocket() (*socket, error) {
	s, err := k.socket()
	if err != nil {
		return nil, err
	}
	if err := k.muffler.silence(s.fd); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// muffler keeps a filter on the event sockets that drops what one request socket is the cause of. A new request socket takes the place of
// the one before, of which no event can be on its way by then: the kernel queues an event before it acknowledges its cause.
type muffler struct {
	mu     sync.Mutex
	port   uint32 // of the request socket, 0 = none yet
	events map[int]struct{}
}

// silence has the event sockets drop what this request socket causes.
func (m *muffler) silence(fd int) error {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("name of netlink socket: %w", classify(err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.port = name.(*unix.SockaddrNetlink).Pid
	for fd := range m.events {
		if err := muffle(fd, m.port); err != nil {
			return err
		}
	}
	return nil
}

// add puts an event socket under the filter, remove takes it away before it is closed and its number used again.
func (m *muffler) add(fd int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.events == nil {
		m.events = map[int]struct{}{}
	}
	m.events[fd] = struct{}{}
	if m.port == 0 {
		return nil
	}
	return muffle(fd, m.port)
}

func (m *muffler) remove(fd int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.events, fd)
}

// muffle attaches a classic BPF program that drops RTM_NEWROUTE messages whose nlmsg_pid is port: a notification bears the port of
// the request that caused it. One datagram is one notification. BPF loads words in network order, which the kernel did not write
// them in, so the constants are turned.
func muffle(fd int, port uint32) error {
	const (
		offsetType = 4  // of nlmsg_type in struct nlmsghdr
		offsetPort = 12 // of nlmsg_pid
	)
	var word [4]byte
	binary.NativeEndian.PutUint32(word[:], port)
	turnedPort := binary.BigEndian.Uint32(word[:])
	binary.NativeEndian.PutUint16(word[:], unix.RTM_NEWROUTE)
	turnedType := uint32(binary.BigEndian.Uint16(word[:]))
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetPort},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: turnedPort, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: offsetType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: turnedType, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return fmt.Errorf("filter netlink events: %w", classify(err))
	}
	return nil
}
