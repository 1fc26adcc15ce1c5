package deletions

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/internal/netns"
)

// queue is room for some ten thousand events, in bytes.
const queue = 16 << 20

// Watch counts how often routes to these prefixes are deleted in a namespace from now on. Replacing a route is not deleting it.
func Watch(t testing.TB, ns netns.NS, prefixes ...netip.Prefix) (count func() int) {
	t.Helper()
	fd := -1
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue),
			unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE}))
	})
	if err != nil {
		t.Fatal("watch routes:", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	asked := make(map[netip.Prefix]bool)
	for _, p := range prefixes {
		asked[p] = true
	}
	n, buf := 0, make([]byte, 1<<16)
	return func() int {
		t.Helper()
		for {
			size, _, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				return n
			}
			if err != nil {
				t.Fatal("watch routes:", err) // ENOBUFS: some are lost
			}
			gone, err := deleted(buf[:size])
			if err != nil {
				t.Fatal("watch routes:", err)
			}
			for _, p := range gone {
				if asked[p] {
					n++
				}
			}
		}
	}
}

// deleted reads the prefixes of routes that are said to be gone.
func deleted(b []byte) (out []netip.Prefix, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != unix.RTM_DELROUTE {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Attr.Type != unix.RTA_DST {
				continue
			}
			addr, ok := netip.AddrFromSlice(a.Value)
			if !ok {
				return nil, fmt.Errorf("destination %x", a.Value)
			}
			out = append(out, netip.PrefixFrom(addr, int(m.Data[1]))) // rtm_dst_len
		}
	}
	return out, nil
}
