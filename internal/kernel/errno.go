package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Refusal is an errno of the kernel with what it means. It unwraps to both.
type Refusal struct {
	Errno   syscall.Errno
	Meaning error  // one of the Err* sentinels
	Message string // the kernel's own words (NLMSGERR_ATTR_MSG), if any
}

// Error gives the kernel's own words where there are some, as ip(8) does.
func (r *Refusal) Error() string {
	if r.Message != "" {
		return fmt.Sprintf("%v: %v (%s)", r.Meaning, r.Errno, r.Message)
	}
	return fmt.Sprintf("%v: %v", r.Meaning, r.Errno)
}

// Unwrap makes errors.Is work with the sentinel and with the errno.
func (r *Refusal) Unwrap() []error { return []error{r.Meaning, r.Errno} }

// FromErrno says what an errno of the kernel means. The whole project decides it here and nowhere else.
func FromErrno(errno syscall.Errno) error { return &Refusal{Errno: errno, Meaning: meaning(errno)} }

// refusal is an errno with the kernel's own words, which in two cases tell more than the errno.
func refusal(errno syscall.Errno, words string) *Refusal {
	r := &Refusal{Errno: errno, Meaning: meaning(errno), Message: words}
	if errno == syscall.EINVAL {
		switch words {
		case wordsNoNexthop:
			r.Meaning = ErrNoNexthop
		case wordsNoDevice:
			r.Meaning = ErrNoDevice
		}
	}
	return r
}

// The kernel's words where a route names a nexthop object that is missing (fib_create_info, ip6_route_info_create) and where an object
// names an interface that is missing (rtm_to_nh_config); both are EINVAL.
const (
	wordsNoNexthop = "Nexthop id does not exist"
	wordsNoDevice  = "Invalid device index"
)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

func meaning(errno syscall.Errno) error {
	switch errno {
	case syscall.EEXIST:
		return ErrExists
	case syscall.ESRCH, syscall.ENOENT, syscall.EADDRNOTAVAIL:
		// ESRCH: routes; ENOENT: neighbours, FDB entries; EADDRNOTAVAIL: deleting an address that is not there.
		return ErrNotThere
	case syscall.ENODEV, syscall.ENXIO:
		return ErrNoDevice
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH:
		return ErrUnreachable
	case syscall.ENETDOWN:
		return ErrDown
	case syscall.ENOBUFS:
		return ErrOverflow
	case syscall.EINTR:
		return ErrInterrupted
	case syscall.EOPNOTSUPP, syscall.EPROTONOSUPPORT, syscall.ENOSYS:
		return ErrUnsupported
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EBUSY, syscall.ETIMEDOUT, syscall.EMFILE, syscall.ENFILE:
		return ErrTransient
	default:
		// EINVAL, ERANGE, EAFNOSUPPORT, EPERM, EACCES...: asking again the same way gives the same answer.
		return ErrInvalid
	}
}

// classify wraps err, which may hold an errno or be a timeout, with one of the sentinels; nil stays nil.
func classify(err error) error {
	if err == nil {
		return nil
	}
	var refusal *Refusal
	var errno syscall.Errno
	switch {
	case errors.As(err, &refusal):
		return err
	case errors.As(err, &errno):
		return FromErrno(errno)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", ErrTransient, err)
	default:
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
}
