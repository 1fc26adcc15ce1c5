package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caracal-net/caracal/test/need"
)

// scripted is a socket whose kernel is a script: what it "answers" is waiting before it is asked.
func scripted(t *testing.T, datagrams ...[]byte) *socket {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) })
	for _, d := range datagrams {
		if err := unix.Send(pair[1], d, 0); err != nil {
			t.Fatal(err)
		}
	}
	s := &socket{fd: pair[0]}
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return s
}

// msg is one message of a script.
func msg(typ, flags uint16, seq uint32, payload ...byte) []byte {
	b := begin(nil, typ, 0)
	binary.NativeEndian.PutUint16(b[6:], flags)
	b = append(b, payload...)
	finish(b, seq)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func code(errno syscall.Errno) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
}

func join(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestDump(t *testing.T) {
	const multi = unix.NLM_F_MULTI
	route := func(flags uint16, seq uint32) []byte {
		return msg(unix.RTM_NEWROUTE, multi|flags, seq, make([]byte, 12)...)
	}
	done := func(flags uint16, errno syscall.Errno) []byte {
		return msg(unix.NLMSG_DONE, multi|flags, 1, code(errno)...)
	}
	tests := []struct {
		name    string
		script  [][]byte
		yielded int
		err     error
	}{
		{"whole", [][]byte{join(route(0, 1), route(0, 1)), done(0, 0)}, 2, nil},
		{"done without a code", [][]byte{join(route(0, 1), msg(unix.NLMSG_DONE, multi, 1))}, 1, nil},
		{"interrupted in the middle", [][]byte{route(unix.NLM_F_DUMP_INTR, 1), route(0, 1), done(0, 0)}, 2, ErrInterrupted},
		{"interrupted at the end", [][]byte{route(0, 1), done(unix.NLM_F_DUMP_INTR, 0)}, 1, ErrInterrupted},
		{"error at the end", [][]byte{route(0, 1), done(0, unix.EINTR)}, 1, ErrInterrupted},
		{"refused", [][]byte{msg(unix.NLMSG_ERROR, 0, 1, code(unix.EINVAL)...)}, 0, ErrInvalid},
		{"answers to somebody else are passed over", [][]byte{join(route(0, 77), msg(unix.NLMSG_DONE, multi, 77)), done(0, 0)}, 0, nil},
		{"overrun", [][]byte{msg(unix.NLMSG_OVERRUN, 0, 1)}, 0, ErrOverflow},
		{"truncated", [][]byte{route(0, 1)[:20]}, 0, errTruncated},
		{"silence", nil, 0, ErrTransient},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			err := scripted(t, tc.script...).dump(t.Context(), begin(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP), func(message) bool { n++; return true })
			if n != tc.yielded || tc.err == nil && err != nil || !errors.Is(err, tc.err) {
				t.Errorf("%d messages, error %v; want %d, %v", n, err, tc.yielded, tc.err)
			}
		})
	}
}

func TestDumpStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := scripted(t).dump(ctx, begin(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP), func(message) bool { return true })
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrTransient) {
		t.Errorf("error %v after the context ended", err)
	}
}

// TestKernelsWords reads the text of an extended acknowledgement, with the request echoed in full and capped.
func TestKernelsWords(t *testing.T) {
	const text = "Nexthop has invalid gateway"
	words := append(appendAttr(nil, unix.NLMSGERR_ATTR_MSG, len(text)+1), text...)
	words = append(words, 0)
	echo := msg(unix.RTM_NEWROUTE, 0, 1, make([]byte, 40)...)
	tests := map[string]struct {
		payload []byte
		flags   uint16
		want    string
	}{
		"capped":  {join(code(unix.EINVAL), echo[:unix.NLMSG_HDRLEN], words), unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, text},
		"echoed":  {join(code(unix.EINVAL), echo, words), unix.NLM_F_ACK_TLVS, text},
		"none":    {join(code(unix.EINVAL), echo), 0, ""},
		"damaged": {join(code(unix.EINVAL), echo[:unix.NLMSG_HDRLEN], words[:3]), unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, ""},
		"lying":   {join(code(unix.EINVAL), echo[:unix.NLMSG_HDRLEN]), unix.NLM_F_ACK_TLVS, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var refusal *Refusal
			err := message{typ: unix.NLMSG_ERROR, flags: tc.flags, payload: tc.payload}.outcome()
			if !errors.As(err, &refusal) || refusal.Errno != unix.EINVAL || refusal.Message != tc.want {
				t.Errorf("outcome %#v, want EINVAL with %q", err, tc.want)
			}
		})
	}
}

// TestAnswersOverflow has a batch of refusals that the socket has no room for: a transport error, and the next batch gets
// a fresh socket.
func TestAnswersOverflow(t *testing.T) {
	r := newRig(t, 600, false)
	opened := 0
	w := &writer{open: func() (*socket, error) {
		opened++
		s, err := r.socket()
		if err == nil && opened == 1 {
			err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1)
		}
		return s, err
	}}
	defer w.close()
	missing := func(b []byte, i int) ([]byte, error) {
		return appendRouteOp(b, RouteOp{Verb: Delete, Route: r.ops[i].Route})
	}
	failures := 0
	count := func(int, error) { failures++ }
	if err := w.write(t.Context(), len(r.ops), missing, count); !errors.Is(err, ErrOverflow) || failures >= len(r.ops) {
		t.Fatalf("error %v and %d of %d failures, want an overflow and some missing", err, failures, len(r.ops))
	}
	failures = 0
	if err := w.write(t.Context(), len(r.ops), missing, count); err != nil || failures != len(r.ops) || opened != 2 {
		t.Errorf("afterwards error %v, %d of %d failures, %d sockets; want all reported on the second socket", err, failures, len(r.ops), opened)
	}
}

// TestRefusalsFit has every operation of the largest batch refused with words: all must be reported.
func TestRefusalsFit(t *testing.T) {
	r := newRig(t, 2*maxBatchOps+1, false)
	for i := range r.ops {
		r.ops[i].Route.NextHops[0].Link = 9999
	}
	failures := 0
	err := r.WriteRoutes(t.Context(), r.ops, func(_ int, err error) {
		var refusal *Refusal
		if failures++; !errors.As(err, &refusal) || refusal.Message == "" {
			t.Errorf("failure %v has no words of the kernel", err)
		}
	})
	if err != nil || failures != len(r.ops) {
		t.Errorf("error %v and %d of %d failures", err, failures, len(r.ops))
	}
}

func TestWritingDoesNotAllocatePerRoute(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		r := newRig(t, 2000, v6)
		r.ours()
		ops := r.ops
		for i := range ops {
			ops[i].Verb = Replace
		}
		allocs := testing.AllocsPerRun(5, r.ours)
		if allocs > 20 {
			t.Errorf("v6 %v: %v allocations for %d routes, want none per route", v6, allocs, len(ops))
		}
		listing := testing.AllocsPerRun(5, func() {
			if err := r.ListRoutes(context.Background(), v6, func(*Route) bool { return true }); err != nil {
				t.Error(err)
			}
		})
		if listing > 60 {
			t.Errorf("v6 %v: %v allocations to list %d routes, want none per route", v6, listing, len(ops))
		}
	}
}

func TestClosed(t *testing.T) {
	k, err := Open(Options{Namespace: need.Namespace(t).Path()})
	if err != nil {
		t.Fatal(err)
	}
	events, err := k.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range events { // ends, or the test does not
	}
	if _, err := k.ListLinks(t.Context()); err == nil {
		t.Error("links of a closed handle")
	}
	if err := k.ListRoutes(t.Context(), false, func(*Route) bool { return true }); err == nil {
		t.Error("routes of a closed handle")
	}
	if err := k.WriteRoutes(t.Context(), nil, nil); err == nil {
		t.Error("a write to a closed handle")
	}
	if _, err := k.Watch(t.Context()); err == nil {
		t.Error("a watch of a closed handle")
	}
}

func TestOpenNamespace(t *testing.T) {
	if k, err := Open(Options{Namespace: "/run/netns/no-such-namespace"}); err == nil {
		_ = k.Close()
		t.Error("a namespace that is not there was opened")
	}
	k, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	links, err := k.ListLinks(t.Context())
	if err != nil || len(links) == 0 || links[0].Name != "lo" {
		t.Errorf("links of this namespace: %v, %v; want lo and others", links, err)
	}
}
