package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestFromErrno(t *testing.T) {
	tests := map[syscall.Errno]error{
		syscall.EEXIST:        ErrExists,
		syscall.ESRCH:         ErrNotThere,
		syscall.ENOENT:        ErrNotThere,
		syscall.EADDRNOTAVAIL: ErrNotThere,
		syscall.ENODEV:        ErrNoDevice,
		syscall.ENXIO:         ErrNoDevice,
		syscall.ENETUNREACH:   ErrUnreachable,
		syscall.EHOSTUNREACH:  ErrUnreachable,
		syscall.ENETDOWN:      ErrDown,
		syscall.ENOBUFS:       ErrOverflow,
		syscall.EINTR:         ErrInterrupted,
		syscall.EINVAL:        ErrInvalid,
		syscall.ERANGE:        ErrInvalid,
		syscall.EAFNOSUPPORT:  ErrInvalid,
		syscall.EPERM:         ErrInvalid,
		syscall.EMSGSIZE:      ErrInvalid,
		syscall.EOPNOTSUPP:    ErrUnsupported,
		syscall.EAGAIN:        ErrTransient,
		syscall.ENOMEM:        ErrTransient,
		syscall.EBUSY:         ErrTransient,
		syscall.ETIMEDOUT:     ErrTransient,
	}
	all := []error{ErrExists, ErrNotThere, ErrNoDevice, ErrUnreachable, ErrDown, ErrOverflow, ErrInterrupted, ErrInvalid, ErrUnsupported, ErrTransient}
	covered := map[error]bool{}
	for errno, want := range tests {
		err := fmt.Errorf("add route: %w", FromErrno(errno))
		for _, sentinel := range all {
			if errors.Is(err, sentinel) != (sentinel == want) {
				t.Errorf("%s (%d): is %q: %v", errno, errno, sentinel, !errors.Is(err, sentinel))
			}
		}
		if !errors.Is(err, errno) {
			t.Errorf("%s: the errno is lost in %q", errno, err)
		}
		covered[want] = true
	}
	if len(covered) != len(all) {
		t.Errorf("%d of %d sentinels are covered", len(covered), len(all))
	}
}

func TestClassify(t *testing.T) {
	tests := []struct {
		err  error
		want error
	}{
		{nil, nil},
		{os.NewSyscallError("sendto", syscall.ENOBUFS), ErrOverflow},
		{context.DeadlineExceeded, ErrTransient},
		{context.Canceled, ErrTransient},
		{os.ErrDeadlineExceeded, ErrTransient},
		{FromErrno(syscall.ENODEV), ErrNoDevice},
		{errors.New("something else"), ErrInvalid},
	}
	for _, tc := range tests {
		got := classify(tc.err)
		if tc.want == nil && got != nil || !errors.Is(got, tc.want) {
			t.Errorf("classify(%v) = %v, want %v", tc.err, got, tc.want)
		}
	}
}

// TestWords: where the kernel's words tell more than its errno. A kernel with other words is understood as before.
func TestWords(t *testing.T) {
	tests := []struct {
		errno syscall.Errno
		words string
		want  error
	}{
		{syscall.EINVAL, "Nexthop id does not exist", ErrNoNexthop},
		{syscall.EINVAL, "Invalid device index", ErrNoDevice},
		{syscall.EINVAL, "Nexthop id is gone", ErrInvalid},
		{syscall.EINVAL, "", ErrInvalid},
		{syscall.ENODEV, "Nexthop id does not exist", ErrNoDevice},
	}
	for _, tc := range tests {
		r := refusal(tc.errno, tc.words)
		if r.Meaning != tc.want || !errors.Is(r, tc.errno) || r.Message != tc.words {
			t.Errorf("%v with %q is %v, want %v", tc.errno, tc.words, r, tc.want)
		}
	}
}

func TestRefusalText(t *testing.T) {
	err := &Refusal{Errno: syscall.EINVAL, Meaning: ErrInvalid, Message: "Nexthop has invalid gateway"}
	if got := err.Error(); !strings.Contains(got, "Nexthop has invalid gateway") || !strings.Contains(got, "invalid argument") {
		t.Errorf("text %q lacks the kernel's words or the errno", got)
	}
}
