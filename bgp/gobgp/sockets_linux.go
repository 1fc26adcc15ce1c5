package gobgp

import (
	"cmp"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"sync"
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

// answerFromNear has the sockets that listen answer with the greatest TTL. A peer with TTL security drops all else, the answer to its first packet
// included, and GoBGP sets the TTL only of connections that are accepted (RFC 5082 section 3). Connections inherit it, which is right
// for a peer at any distance.
func (s *Speaker) answerFromNear() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
			continue
		}
		local, ok := endpoint(unix.Getsockname(fd))
		if !ok || local.Port() != listenPort(&s.cfg) {
			continue
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, maxTTL) // does nothing to one of IPv6 alone
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, maxTTL)
	}
}

const maxTTL = 255

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

// The descriptors of the process are looked through some time after sessions have come up, once for all that have: a mesh comes up by the hundred. A
// process that has more than maxDescriptors is a simulation of many Speakers, in which they are nobody's to look through.
const (
	boundDelay     = 20 * time.Second
	maxDescriptors = 16384
)

// bounds are the sessions whose connections have not been bounded yet. It has a lock of its own, because the Speaker's may be held for long by an
// Apply, and what is learned must not wait for that.
type bounds struct {
	mu      sync.Mutex
	waiting map[netip.Addr]struct{}
}

// add has the connections of sessions that have come up be bounded, in a while.
func (b *bounds) add(s *Speaker, up map[netip.Addr]struct{}) {
	if len(up) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting != nil {
		maps.Copy(b.waiting, up)
		return
	}
	b.waiting = maps.Clone(up)
	time.AfterFunc(min(boundDelay, s.opts.SendHold/4), func() {
		b.mu.Lock()
		up := b.waiting
		b.waiting = nil
		b.mu.Unlock()
		s.boundSending(up)
	})
}

// boundSending has the kernel end connections of sessions when the other side takes nothing for as long as SendHold: GoBGP has no
// SendHoldTimer. TCP_USER_TIMEOUT counts from the first octet that is not acknowledged, closed windows included (tcp(7)). A socket is looked for by its
// number, so one that is replaced this moment may be missed; the peer's next session is looked at again.
func (s *Speaker) boundSending(up map[netip.Addr]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open, err := os.ReadDir("/proc/self/fd"); s.srv == nil || err != nil || len(open) > maxDescriptors {
		return
	}
	s.sockets(up, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(s.opts.SendHold/time.Millisecond))
	})
}

// unsent returns how many octets a socket holds that it has not sent at all, for want of room at the other side (tcp(7), SIOCOUTQNSD). A program that waits for the
// socket leaves some.
func unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
	if err != nil {
		return 0
	}
	return n
}
