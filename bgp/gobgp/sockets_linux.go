package gobgp

import (
	"cmp"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/bgp"
)

// sockets calls do with every TCP socket of this process that is a session of ours with one of these peers: its remote address is the peer's, its
// local address the peer's LocalAddr where one is set, and one of its ports the BGP port of that side. GoBGP hands out none of its sockets.
func (s *Speaker) sockets(peers map[netip.Addr]struct{}, do func(fd int)) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		remote, ok := endpoint(unix.Getpeername(fd))
		if !ok {
			continue
		}
		if _, is := peers[remote.Addr()]; !is {
			continue
		}
		local, ok := endpoint(unix.Getsockname(fd))
		p := s.peers[remote.Addr()]
		if !ok || p.LocalAddr.IsValid() && p.LocalAddr != local.Addr() || local.Port() != listenPort(&s.cfg) && remote.Port() != cmp.Or(p.Port, bgp.DefaultPort) {
			continue
		}
		do(fd)
	}
}

func endpoint(sa unix.Sockaddr, err error) (netip.AddrPort, bool) {
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

// sendHold is how long a peer may take no octet of what we send before its session ends (RFC 9687 section 3.1, where it is the greater of eight
// minutes and twice the hold time). Such a peer slows nobody down, but GoBGP keeps for it whatever changes meanwhile.
const sendHold = 8 * time.Minute

// boundSending has the kernel end connections of sessions that have come up when the other side takes nothing for that long: GoBGP has no
// SendHoldTimer. TCP_USER_TIMEOUT counts from the first octet that is not acknowledged, closed windows included (tcp(7)). A socket is looked for by its
// number, so one that is replaced this moment may be missed; the peer's next session is looked at again.
func (s *Speaker) boundSending(up map[netip.Addr]struct{}) {
	if len(up) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets(up, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(s.opts.SendHold/time.Millisecond))
	})
}
